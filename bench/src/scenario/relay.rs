//! Processor time per relayed message.

use std::io;
use std::time::Duration;

use super::contenders;
use super::side::{Side, Upstream};
use crate::arguments::Arguments;
use crate::client::Profile;
use crate::load::{Direction, Load};
use crate::packet::Version;
use crate::proxy::Kind;
use crate::table::{Cell, Table, spread};
use crate::tls::Identity;

/// Runs each load through each proxy in turn, round by round.
pub(crate) fn run(mut arguments: Arguments) -> io::Result<Table> {
    let settings = Settings::take(&mut arguments)?;
    let upstream = Upstream::take(&mut arguments, Upstream::Sink)?;
    let has_deliveries = settings.loads.iter().any(|(_, load)| load.direction == Direction::ToClients);
    if has_deliveries && upstream == Upstream::Mosquitto {
        return Err(io::Error::other("deliveries need --upstream sink"));
    }
    let kinds = contenders(&mut arguments)?;
    arguments.finish()?;
    let mut table = Table { title: settings.title(), columns: COLUMNS.to_vec(), rows: Vec::new() };
    for (name, load) in &settings.loads {
        let costs = settings.measure(load, &kinds, upstream)?;
        for (kind, costs_of_one) in kinds.iter().zip(&costs) {
            table.rows.push(row(name, kind, costs_of_one, &costs[0]));
        }
    }
    Ok(table)
}

struct Settings {
    loads: Vec<(String, Load)>,
    identity: Option<Identity>,
    rounds: usize,
    duration: Duration,
}

impl Settings {
    fn take(arguments: &mut Arguments) -> io::Result<Self> {
        let profile = Profile::take(arguments)?;
        let base = Load::take(arguments, profile, 4000.0)?;
        let direction = arguments.text("direction");
        let loads = match (arguments.flag("all"), direction.as_deref().unwrap_or("up")) {
            (true, _) => variants(&base),
            (false, "up") => vec![(describe(&base), base)],
            (false, "down") => vec![deliver(&base)],
            (false, other) => {
                return Err(io::Error::other(format!("--direction must be up or down, not {other}")));
            }
        };
        let rounds = arguments.take("rounds", 40)?;
        let duration = Duration::from_secs_f64(arguments.take("seconds", 0.5)?);
        let identity = arguments.flag("tls").then(Identity::new).transpose()?;
        if rounds == 0 || duration < Duration::from_millis(100) {
            return Err(io::Error::other("--rounds must be at least 1 and --seconds at least 0.1"));
        }
        Ok(Self { loads, identity, rounds, duration })
    }

    fn title(&self) -> String {
        let load = &self.loads[0].1;
        format!(
            "relay: {} messages/s from {} clients{}, {} rounds of {} s; CPU µs per message, ratio to the first proxy",
            load.messages_per_second,
            load.clients,
            if self.identity.is_some() { " over TLS" } else { "" },
            self.rounds,
            self.duration.as_secs_f64(),
        )
    }

    /// Returns, for each proxy, its cost in each round.
    fn measure(&self, load: &Load, kinds: &[Kind], upstream: Upstream) -> io::Result<Vec<Vec<f64>>> {
        let open = |kind: &Kind| Side::open(kind, load, upstream, self.identity.as_ref());
        let mut sides = kinds.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let mut costs = vec![Vec::new(); kinds.len()];
        for round in 1..=self.rounds {
            eprint!("round {round} of {}:", self.rounds);
            for (side, costs) in sides.iter_mut().zip(&mut costs) {
                let cost = side.cost(load, self.duration)?;
                eprint!(" {cost:.2} µs");
                costs.push(cost);
            }
            eprintln!();
        }
        Ok(costs)
    }
}

fn variants(base: &Load) -> Vec<(String, Load)> {
    let of = |profile: Profile| Load { profile, ..base.clone() };
    let profile = || base.profile.clone();
    let up = [
        of(profile()),
        of(Profile { payload_bytes: base.profile.payload_bytes * 4, ..profile() }),
        of(Profile { qos: 1, ..profile() }),
        of(Profile { version: Version::V5, ..profile() }),
    ];
    up.into_iter().map(|load| (describe(&load), load)).chain([deliver(base)]).collect()
}

fn deliver(base: &Load) -> (String, Load) {
    let load = Load { profile: base.profile.subscribed(), direction: Direction::ToClients, ..base.clone() };
    (describe(&load), load)
}

fn describe(load: &Load) -> String {
    let Profile { version, payload_bytes, qos, .. } = load.profile;
    let version = if version == Version::V5 { "5.0" } else { "3.1.1" };
    match load.direction {
        Direction::ToClients => format!("delivery, {payload_bytes} B, MQTT {version}"),
        Direction::ToUpstream => format!("QoS {qos}, {payload_bytes} B, MQTT {version}"),
    }
}

fn row(load: &str, kind: &Kind, costs: &[f64], first: &[f64]) -> Vec<Cell> {
    let mut row = vec![Cell::text(load), Cell::text(kind.name())];
    row.extend(spread(costs, 2));
    if !std::ptr::eq(costs, first) {
        let ratios: Vec<_> = costs.iter().zip(first).map(|(cost, first)| cost / first).collect();
        row.extend(spread(&ratios, 3));
    } else {
        row.extend([Cell::Empty, Cell::Empty, Cell::Empty]);
    }
    row
}

const COLUMNS: [&str; 8] =
    ["load", "proxy", "µs min", "µs median", "µs max", "ratio min", "ratio median", "ratio max"];
