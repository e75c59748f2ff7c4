use serde_json::{Map, Value};

use super::super::admin::Running;
use super::{Global, print};

/// Tell a gateway that runs that rights have changed: live sessions ask for all that they hold again.
///
/// Without any of the options, everybody's have. The configuration must have an admin listener.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    running: Running,
    /// The principal whose rights have changed
    #[arg(long, value_name = "ID")]
    principal: Option<String>,
    /// Its tenant; without a principal, all of that tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The client identifier of whoever's rights have changed
    #[arg(long, value_name = "ID", conflicts_with_all = ["principal", "tenant"])]
    client_id: Option<String>,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let given =
            [("principal", &self.principal), ("tenant", &self.tenant), ("client_id", &self.client_id)];
        let given =
            given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into())));
        let told = self.running.post("/authz/invalidate", &Value::Object(given.collect::<Map<_, _>>()))?;
        match global.json {
            true => print(told),
            false => print(format_args!("{} sessions told", told["sessions"])),
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  mgate policy invalidate --principal dev-1
  mgate policy invalidate --tenant acme -c /etc/mgate/mgate.toml";
