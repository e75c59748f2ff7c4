use super::signals::Signals;
use super::{ConfigFile, Global, listed};
use crate::config::{Config, Environment};
use crate::gateway::Gateway;
use crate::log;

/// Serve the routes of a configuration until SIGTERM or Ctrl-C.
///
/// A signal lets open sessions end for the configuration's `drain_timeout`; a second one stops at once. SIGHUP
/// reads the configuration again and takes it over, live sessions included, if nothing is wrong with it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let environment = Environment::of_process();
        let config = Config::load(self.file.path(), &environment)?;
        log::start(&global.log(&config.log))?;
        let (version, configuration) = (env!("CARGO_PKG_VERSION"), self.file.path().display());
        tracing::info!(version, %configuration, "mgate starts");
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        if let Some(names) = listed(environment.used()) {
            tracing::info!(names, "values from the environment");
        }
        if let Some(names) = listed(environment.unused()) {
            tracing::warn!(names, "variables that stand for no key");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = runtime.block_on(serve(config));
        // a reload may hang in a file for ever
        runtime.shutdown_background();
        served
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let signals = Signals::with_reload()?;
    signals.serve(Gateway::start(config)?).await;
    Ok(())
}

const EXAMPLES: &str = "\
Examples:
  mgate run
  mgate run -c /etc/mgate/mgate.toml --log-format json
  MGATE_ROUTE_DEVICES_LISTEN=mqtt://0.0.0.0:1884 mgate run";
