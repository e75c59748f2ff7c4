//! System calls per burst of messages.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::contenders;
use crate::arguments::Arguments;
use crate::client::Profile;
use crate::load::{Clients, Direction, Load, settle};
use crate::proxy::Kind;
use crate::table::{Cell, Table};
use crate::world::World;

/// Counts, for each proxy and direction, the calls with bursts less the calls of the same run without.
pub(crate) fn run(mut arguments: Arguments) -> io::Result<Table> {
    let profile = Profile::take(&mut arguments)?.subscribed();
    let load = Load {
        clients: arguments.take("clients", 5)?,
        direction: Direction::ToUpstream,
        messages_per_second: 1.0,
        burst: arguments.take("burst", 10)?,
        profile,
    };
    let bursts = arguments.take("bursts", 500)?;
    let kinds = contenders(&mut arguments)?;
    arguments.finish()?;
    if bursts == 0 || load.burst == 0 || load.clients == 0 {
        return Err(io::Error::other("--bursts, --burst and --clients must be at least 1"));
    }
    let title = format!("syscalls: calls per burst of {} messages, over {bursts} bursts", load.burst);
    let mut table = Table { title, columns: COLUMNS.to_vec(), rows: Vec::new() };
    for direction in [Direction::ToUpstream, Direction::ToClients] {
        let load = Load { direction, ..load.clone() };
        for kind in &kinds {
            table.rows.extend(compare(kind, &load, bursts)?);
        }
    }
    Ok(table)
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Calls {
    all: u64,
    failed: u64,
}

fn compare(kind: &Kind, load: &Load, bursts: u64) -> io::Result<Vec<Vec<Cell>>> {
    let without = count(kind, load, 0)?;
    let with = count(kind, load, bursts)?;
    let per_burst = |with: u64, without: u64| (with as f64 - without as f64) / bursts as f64;
    let rows = with.iter().filter_map(|(name, with)| {
        let without = without.get(name).copied().unwrap_or_default();
        let all = per_burst(with.all, without.all);
        (all >= WORTH_SHOWING).then(|| {
            let failed = Cell::Number(per_burst(with.failed, without.failed), 2);
            vec![
                Cell::text(direction(load)),
                Cell::text(kind.name()),
                Cell::text(name),
                Cell::Number(all, 2),
                failed,
            ]
        })
    });
    Ok(rows.collect())
}

fn count(kind: &Kind, load: &Load, bursts: u64) -> io::Result<BTreeMap<String, Calls>> {
    let mut world = World::new(load.profile.payload_bytes)?;
    let server = kind.start_traced(world.port()?)?;
    let mut clients = Clients::new(server.address(), &load.profile, None);
    clients.open(&mut world, load.clients)?;
    clients.drive_bursts(&mut world, load, bursts, GAP)?;
    settle(&mut world, load)?;
    parse(&server.stop_traced()?)
}

/// Reads the tracer's summary: share, seconds, µs per call, calls, errors (may be blank), name.
fn parse(summary: &str) -> io::Result<BTreeMap<String, Calls>> {
    let rows = summary.lines().filter_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, _, _, all, failed @ .., name] = words.as_slice() else { return None };
        let failed = failed.first().map_or(Some(0), |failed| failed.parse().ok())?;
        Some((name.to_string(), Calls { all: all.parse().ok()?, failed }))
    });
    let calls: BTreeMap<_, _> = rows.filter(|(name, _)| name != "total").collect();
    if calls.is_empty() { Err(io::Error::other("strace counted no system calls")) } else { Ok(calls) }
}

fn direction(load: &Load) -> &'static str {
    match load.direction {
        Direction::ToClients => "to clients",
        Direction::ToUpstream => "to upstream",
    }
}

const COLUMNS: [&str; 5] = ["direction", "proxy", "call", "per burst", "failed per burst"];
/// Long enough for a traced proxy to be done with a burst before the next one.
const GAP: Duration = Duration::from_millis(4);
/// Calls more seldom than this are timers and start-up.
const WORTH_SHOWING: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_is_read_with_and_without_errors() {
        let calls = parse(SUMMARY).unwrap();
        assert_eq!(calls.len(), 2);
        assert_eq!(calls["read"], Calls { all: 12, failed: 0 });
        assert_eq!(calls["access"], Calls { all: 3, failed: 2 });
        assert!(parse("strace: exec failed").is_err());
    }

    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 90.00    0.000002           0        12           read
 10.00    0.000001           0         3         2 access
------ ----------- ----------- --------- --------- ----------------
100.00    0.000003           0        15         2 total
";
}
