//! Processor time per relayed request of CoAP, and memory per idle device.

use std::io;
use std::path::PathBuf;

use super::idle;
use super::requests::Settings;
use crate::arguments::Arguments;
use crate::clock;
use crate::devices::Devices;
use crate::ends::Ends;
use crate::process;
use crate::proxy::{Kind, Server};
use crate::table::Table;

/// Makes the same requests through each proxy in turn, round by round; or, with `--idle`, that many devices make one.
pub(crate) fn run(mut arguments: Arguments) -> io::Result<Table> {
    let settings = Settings::take(&mut arguments, 64)?;
    let kinds = kinds(&mut arguments)?;
    let idle_devices = arguments.take("idle", 0)?;
    arguments.finish()?;
    match idle_devices {
        0 => settings.compare("coap: confirmable POSTs", &kinds, |kind| open(kind, &settings)),
        count => memory(&kinds, count, settings.payload_bytes),
    }
}

fn open(kind: &Kind, settings: &Settings) -> io::Result<(Server, Box<dyn Ends>)> {
    let mut devices = Devices::new(settings.payload_bytes)?;
    let server = kind.start(devices.port()?, None)?;
    devices.open(server.address(), settings.clients)?;
    Ok((server, Box::new(devices)))
}

/// What each proxy grew by when the devices had made a request each, and then none.
fn memory(kinds: &[Kind], count: usize, payload_bytes: usize) -> io::Result<Table> {
    idle::check_limit(count)?;
    let title = format!("coap: memory of {count} idle devices");
    let mut table = Table { title, columns: idle::COLUMNS.to_vec(), rows: Vec::new() };
    for kind in kinds {
        let mut devices = Devices::new(payload_bytes)?;
        let server = kind.start(devices.port()?, None)?;
        devices.open(server.address(), idle::FIRST)?;
        let before = process::memory(&server.pids())?;
        devices.open(server.address(), count)?;
        devices.turn_until(clock::now() + idle::SILENCE)?;
        let after = process::memory(&server.pids())?;
        table.rows.push(idle::row(kind, count, before, after));
    }
    Ok(table)
}

/// Which proxies to compare: `--proxies`.
fn kinds(arguments: &mut Arguments) -> io::Result<Vec<Kind>> {
    let program: PathBuf = arguments.take("mgate", PathBuf::from("target/release/mgate"))?;
    let names = arguments.text("proxies").unwrap_or_else(|| "nginx,mgate".to_owned());
    let kind = |name: &str| match name {
        "mgate" => Ok(Kind::MgateCoap(program.clone())),
        "nginx" => Ok(Kind::NginxDatagrams { responses: None }),
        "nginx-1" => Ok(Kind::NginxDatagrams { responses: Some(1) }),
        other => Err(io::Error::other(format!("--proxies may name mgate, nginx and nginx-1, not {other}"))),
    };
    names.split(',').map(kind).collect()
}
