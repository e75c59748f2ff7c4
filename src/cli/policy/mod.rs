//! `mgate policy`: what people use to understand policies.

mod explain;
mod test;

use super::{Global, Told, print};

/// Test and explain policies.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Explain(Box<explain::Arguments>),
    Test(test::Arguments),
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        match &self.action {
            Action::Explain(arguments) => arguments.run(global),
            Action::Test(arguments) => arguments.run(global),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  mgate policy test acl.toml
  mgate policy explain --route devices --principal dev-1 --action publish --topic devices/dev-1/data";
