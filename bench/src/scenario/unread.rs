//! Memory towards clients that do not read.

use std::io;
use std::time::Duration;

use super::contenders;
use crate::arguments::Arguments;
use crate::client::Profile;
use crate::clock;
use crate::load::Clients;
use crate::process;
use crate::proxy::{Kind, Server};
use crate::table::{Cell, Table};
use crate::world::World;

/// Subscribes clients that never read, delivers as fast as the proxy takes it, and reads what the proxy grew by.
pub(crate) fn run(mut arguments: Arguments) -> io::Result<Table> {
    let profile = Profile { is_deaf: true, ..Profile::take(&mut arguments)?.subscribed() };
    let clients = arguments.take("clients", 1)?;
    let half = Duration::from_secs_f64(arguments.take("seconds", 5.0)? / 2.0);
    let kinds = contenders(&mut arguments)?;
    arguments.finish()?;
    let title =
        format!("unread: {clients} clients that never read, {} s of deliveries", 2.0 * half.as_secs_f64());
    let mut table = Table { title, columns: COLUMNS.to_vec(), rows: Vec::new() };
    for kind in &kinds {
        table.rows.push(measure(kind, &profile, clients, half)?);
    }
    Ok(table)
}

fn measure(kind: &Kind, profile: &Profile, clients: usize, half: Duration) -> io::Result<Vec<Cell>> {
    let mut world = World::new(profile.payload_bytes)?;
    let server = kind.start(world.port()?, None)?;
    Clients::new(server.address(), profile, None).open(&mut world, clients)?;
    let before = process::memory(&server.pids())?.resident_kib;
    let first = flood(&mut world, &server, half)?;
    let second = flood(&mut world, &server, half)?;
    let is_bounded = second.peak_kib <= first.peak_kib + NOISE_KIB;
    Ok(vec![
        Cell::text(kind.name()),
        Cell::text(if is_bounded { "yes" } else { "NO" }),
        Cell::Number((first.bytes + second.bytes) as f64 / 1024.0, 0),
        Cell::Number(before as f64, 0),
        Cell::Number(first.peak_kib as f64, 0),
        Cell::Number(second.peak_kib as f64, 0),
    ])
}

struct Flood {
    bytes: u64,
    peak_kib: u64,
}

fn flood(world: &mut World, server: &Server, duration: Duration) -> io::Result<Flood> {
    let pids = server.pids();
    let end = clock::now() + duration;
    let mut flood = Flood { bytes: 0, peak_kib: 0 };
    while clock::now() < end {
        let sample = (clock::now() + SAMPLE).min(end);
        while clock::now() < sample {
            flood.bytes += world.deliver_without_rest()?;
            world.turn_until(clock::now())?;
        }
        flood.peak_kib = flood.peak_kib.max(process::memory(&pids)?.resident_kib);
    }
    Ok(flood)
}

const COLUMNS: [&str; 6] =
    ["proxy", "bounded", "taken KiB", "RSS before KiB", "RSS peak 1st half KiB", "RSS peak 2nd half KiB"];
const SAMPLE: Duration = Duration::from_millis(50);
/// What a bounded proxy may still grow by once its buffers are full.
const NOISE_KIB: u64 = 512;
