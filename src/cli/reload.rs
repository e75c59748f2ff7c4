use serde_json::{Value, json};

use super::admin::Running;
use super::{Global, print};

/// Have a gateway that runs read its configuration again, live sessions included.
///
/// If anything is wrong with it, all stays as it is. The configuration must have an admin listener.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    running: Running,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let reload = self.running.post("/reload", &json!({}))?;
        if global.json {
            return print(reload);
        }
        print(format_args!("reloaded, {} sessions told", reload["told"]["sessions"]))?;
        let lines = |key: &str| reload[key].as_array().cloned().unwrap_or_default();
        for what in lines("needs_restart").iter().filter_map(Value::as_str) {
            print(format_args!("needs a restart to change: {what}"))?;
        }
        for warning in lines("warnings").iter().filter_map(Value::as_str) {
            print(format_args!("warning: {warning}"))?;
        }
        Ok(())
    }
}

const EXAMPLES: &str = "\
Examples:
  mgate reload
  mgate reload -c /etc/mgate/mgate.toml --json";
