//! Memory per idle connection.

use std::io;
use std::time::Duration;

use super::contenders;
use crate::arguments::Arguments;
use crate::client::Profile;
use crate::clock;
use crate::load::Clients;
use crate::process::{self, Memory};
use crate::proxy::Kind;
use crate::table::{Cell, Table};
use crate::tls::Identity;
use crate::world::World;

/// Opens the connections through each proxy, waits, and reads what the proxy grew by.
pub(crate) fn run(mut arguments: Arguments) -> io::Result<Table> {
    let profile = Profile::take(&mut arguments)?.subscribed();
    let connections = arguments.take("connections", 9000)?;
    let identity = arguments.flag("tls").then(Identity::new).transpose()?;
    let kinds = contenders(&mut arguments)?;
    arguments.finish()?;
    check_limit(connections)?;
    let kind_of_link = if identity.is_some() { "TLS" } else { "plain" };
    let title = format!("idle: memory of {connections} subscribed {kind_of_link} connections");
    let mut table = Table { title, columns: COLUMNS.to_vec(), rows: Vec::new() };
    for kind in &kinds {
        table.rows.push(measure(kind, &profile, connections, identity.as_ref())?);
    }
    Ok(table)
}

fn measure(
    kind: &Kind,
    profile: &Profile,
    connections: usize,
    identity: Option<&Identity>,
) -> io::Result<Vec<Cell>> {
    let mut world = World::new(profile.payload_bytes)?;
    let server = kind.start(world.port()?, identity)?;
    let mut clients = Clients::new(server.address(), profile, identity);
    clients.open(&mut world, FIRST)?;
    let before = process::memory(&server.pids())?;
    clients.open(&mut world, connections)?;
    world.turn_until(clock::now() + SILENCE)?;
    let after = process::memory(&server.pids())?;
    Ok(row(kind, connections, before, after))
}

pub(super) fn row(kind: &Kind, connections: usize, before: Memory, after: Memory) -> Vec<Cell> {
    let growth = |before: u64, after: u64| (after as f64 - before as f64) * 1024.0 / connections as f64;
    vec![
        Cell::text(kind.name()),
        Cell::Number(connections as f64, 0),
        Cell::Number(before.resident_kib as f64, 0),
        Cell::Number(after.resident_kib as f64, 0),
        Cell::Number(growth(before.resident_kib, after.resident_kib), 0),
        Cell::Number(growth(before.anonymous_kib, after.anonymous_kib), 0),
    ]
}

pub(super) fn check_limit(connections: usize) -> io::Result<()> {
    let (needed, limit) = (2 * (connections + FIRST) as u64 + SPARE_FILES, process::open_files_limit()?);
    if needed > limit {
        return Err(io::Error::other(format!(
            "{connections} connections need {needed} open files in a process and {limit} are allowed: \
             raise it with `ulimit -n` or lower --connections"
        )));
    }
    Ok(())
}

pub(super) const COLUMNS: [&str; 6] =
    ["proxy", "connections", "RSS before KiB", "RSS after KiB", "RSS B/connection", "RssAnon B/connection"];
/// Connections before the first reading, so that what is allocated once is not counted.
pub(super) const FIRST: usize = 100;
const SPARE_FILES: u64 = 64;
pub(super) const SILENCE: Duration = Duration::from_secs(2);
