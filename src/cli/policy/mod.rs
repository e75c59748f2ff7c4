//! `mgate policy`: what people use to understand policies.

mod explain;
mod import;
mod invalidate;
mod test;

use super::{Global, Told, print};

/// Test, explain and import policies, or tell of changed rights.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Explain(Box<explain::Arguments>),
    Import(import::Arguments),
    Invalidate(invalidate::Arguments),
    Test(test::Arguments),
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        match &self.action {
            Action::Explain(arguments) => arguments.run(global),
            Action::Import(arguments) => arguments.run(global),
            Action::Invalidate(arguments) => arguments.run(global),
            Action::Test(arguments) => arguments.run(global),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  mgate policy test acl.toml
  mgate policy explain --route devices --principal dev-1 --action publish --topic devices/dev-1/data
  mgate policy import --from mosquitto /etc/mosquitto/aclfile > acl.toml
  mgate policy invalidate --principal dev-1";
