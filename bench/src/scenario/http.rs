//! Processor time per relayed request.

use std::io;
use std::path::PathBuf;

use super::requests::Settings;
use crate::arguments::Arguments;
use crate::ends::Ends;
use crate::proxy::{Kind, Server};
use crate::table::Table;
use crate::web::Web;

/// Makes the same requests through each proxy in turn, round by round.
pub(crate) fn run(mut arguments: Arguments) -> io::Result<Table> {
    let settings = Settings::take(&mut arguments, 256)?;
    let kinds = kinds(&mut arguments)?;
    arguments.finish()?;
    settings.compare("http: requests over connections that stay", &kinds, |kind| open(kind, &settings))
}

fn open(kind: &Kind, settings: &Settings) -> io::Result<(Server, Box<dyn Ends>)> {
    let mut web = Web::new(settings.payload_bytes)?;
    let server = kind.start(web.port()?, None)?;
    web.open(server.address(), settings.clients)?;
    Ok((server, Box::new(web)))
}

/// Which proxies to compare: `--proxies`.
fn kinds(arguments: &mut Arguments) -> io::Result<Vec<Kind>> {
    let program: PathBuf = arguments.take("mgate", PathBuf::from("target/release/mgate"))?;
    let names = arguments.text("proxies").unwrap_or_else(|| "nginx,haproxy,mgate".to_owned());
    let kind = |name: &str| match name {
        "haproxy" => Ok(Kind::Haproxy),
        "mgate" => Ok(Kind::MgateHttp(program.clone())),
        "nginx" => Ok(Kind::NginxHttp),
        other => Err(io::Error::other(format!("--proxies may name haproxy, mgate and nginx, not {other}"))),
    };
    names.split(',').map(kind).collect()
}
