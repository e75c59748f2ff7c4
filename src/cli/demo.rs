use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::value_parser;
use mgate_proxy::gate::Mirror;
use serde_json::{Value, json};

use super::signals::Signals;
use super::{Global, print};
use crate::demo::{Demo, Directory, Endpoint, Guide, Options, Screen, Style};
use crate::log::{self, Format, LogConfig};

/// Try mgate: a gateway with a broker, certificates and sample users, all made on the spot.
///
/// It prints commands to try, and then what passes and what is denied. With `--json` it prints one line that
/// says what is where, and logs to standard error.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Keep the files in this directory, and take over those of an earlier demo
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// Add N to the ports 1883, 8883, 8083, 8084, 5683 and 5684; one that is taken is replaced by a free one anyhow
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u16).range(..=MAX_OFFSET))]
    port_offset: u16,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let options = Options { directory: self.dir.clone(), host: self.host, port_offset: self.port_offset };
        let demo = Demo::prepare(&options)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let log = global.log(&LogConfig::default());
        if global.json {
            return runtime.block_on(serve_programs(&demo, log));
        }
        runtime.block_on(serve_people(&demo, &log.level))
    }
}

async fn serve_people(demo: &Demo, level: &log::Level) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let style = Style::of_stdout();
    let screen = Arc::new(Screen::start(style)?);
    let mirror: Arc<dyn Mirror> = screen.clone();
    let (gateway, endpoints) = demo.start(Some(&mirror))?;
    print(Guide { directory: demo.directory(), endpoints: &endpoints, style })?;
    screen.show_log(level)?;
    signals.serve(gateway).await;
    screen.finish();
    Ok(())
}

async fn serve_programs(demo: &Demo, log: LogConfig) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    log::start(&LogConfig { format: Format::Json, ..log })?;
    let (gateway, endpoints) = demo.start(None)?;
    print(places(demo.directory(), &endpoints))?;
    signals.serve(gateway).await;
    Ok(())
}

fn places(directory: &Directory, endpoints: &[Endpoint]) -> Value {
    let urls = endpoints.iter().map(|endpoint| (endpoint.route.to_owned(), endpoint.url().into()));
    json!({
        "endpoints": Value::Object(urls.collect()),
        "directory": directory.path().to_string_lossy(),
        "configuration": directory.configuration().to_string_lossy(),
        "ca": directory.certificate("ca.pem").to_string_lossy(),
    })
}

const MAX_OFFSET: i64 = 65_535 - 8883;

const EXAMPLES: &str = "\
Examples:
  mgate demo
  mgate demo --dir demo --port-offset 10000";
