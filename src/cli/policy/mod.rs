//! `mgate policy`: what people use to understand policies.

mod test;

use super::{Global, Told, print};

/// Test policies.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Test(test::Arguments),
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        match &self.action {
            Action::Test(arguments) => arguments.run(global),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  mgate policy test acl.toml       say which tests of a policy file come true";
