//! What a mirror adds to a message, beside what the proxies, the broker and the message bus cost.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use super::side::{Side, Upstream};
use crate::arguments::Arguments;
use crate::client::Profile;
use crate::load::Load;
use crate::proxy::{Kind, Server};
use crate::table::{Cell, Table, spread};

/// Runs the same load through nginx, mgate, and mgate with a mirror, round by round.
pub(crate) fn run(mut arguments: Arguments) -> io::Result<Table> {
    let load = take_load(&mut arguments)?;
    let upstream = Upstream::take(&mut arguments, Upstream::Mosquitto)?;
    let program: PathBuf = arguments.take("mgate", PathBuf::from("target/release/mgate"))?;
    let mode = arguments.text("mode").unwrap_or_else(|| "best_effort".to_owned());
    let bus = Bus::take(&mut arguments)?;
    let rounds = arguments.take("rounds", 40)?;
    let duration = Duration::from_secs_f64(arguments.take("seconds", 0.5)?);
    arguments.finish()?;
    let mirroring = Kind::Mirroring { program: program.clone(), mode, bus: bus.port()? };
    let kinds = [Kind::Nginx, Kind::Mgate(program), mirroring];
    let open = |kind: &Kind| Side::open(kind, &load, upstream, None);
    let mut sides = kinds.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    let mut costs = vec![Vec::new(); kinds.len()];
    for round in 1..=rounds {
        eprint!("round {round} of {rounds}:");
        for (side, costs) in sides.iter_mut().zip(&mut costs) {
            let cost = side.costs(&load, duration, &bus.server())?;
            eprint!(" {:.2} µs", cost[0]);
            costs.push(cost);
        }
        eprintln!();
    }
    let title = format!(
        "mirror: {} messages/s from {} clients, {rounds} rounds of {} s; CPU µs per message",
        load.messages_per_second,
        load.clients,
        duration.as_secs_f64(),
    );
    let has_broker = upstream == Upstream::Mosquitto;
    let rows = kinds.iter().zip(&costs).map(|(kind, one)| row(kind, one, &costs[1], has_broker));
    Ok(Table { title, columns: COLUMNS.to_vec(), rows: rows.collect() })
}

/// Where the copies go.
enum Bus {
    /// A server that takes them.
    Alive(Server),
    /// Somebody who takes the connection and never reads.
    Blocked(TcpListener),
    /// Nobody.
    Dead,
}

impl Bus {
    fn take(arguments: &mut Arguments) -> io::Result<Self> {
        match arguments.text("bus").as_deref() {
            None | Some("alive") => Ok(Self::Alive(Kind::Nats.start(0, None)?)),
            Some("blocked") => Ok(Self::Blocked(TcpListener::bind("127.0.0.1:0")?)),
            Some("dead") => Ok(Self::Dead),
            Some(other) => {
                Err(io::Error::other(format!("--bus must be alive, blocked or dead, not {other}")))
            }
        }
    }

    fn port(&self) -> io::Result<u16> {
        match self {
            Self::Alive(server) => Ok(server.address().port()),
            Self::Blocked(listener) => Ok(listener.local_addr()?.port()),
            Self::Dead => Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()),
        }
    }

    fn server(&self) -> Vec<&Server> {
        match self {
            Self::Alive(server) => vec![server],
            Self::Blocked(_) | Self::Dead => Vec::new(),
        }
    }
}

fn take_load(arguments: &mut Arguments) -> io::Result<Load> {
    let topic = arguments.text("topic").unwrap_or_else(|| "channels/{client}/messages/t".to_owned());
    let profile = Profile { topic, ..Profile::take(arguments)? };
    Load::take(arguments, profile, 10_000.0)
}

/// The proxy's own cost, what it is more than without a mirror, and what the others used.
fn row(kind: &Kind, costs: &[Vec<f64>], without: &[Vec<f64>], has_broker: bool) -> Vec<Cell> {
    let column = |at: usize| costs.iter().filter_map(|cost| cost.get(at).copied()).collect::<Vec<_>>();
    let more: Vec<_> = costs.iter().zip(without).map(|(cost, without)| cost[0] - without[0]).collect();
    let middle = |values: &[f64]| match values.is_empty() {
        true => Cell::Empty,
        false => spread(values, 2).into_iter().nth(1).unwrap_or(Cell::Empty),
    };
    let (broker, bus) = if has_broker { (column(1), column(2)) } else { (Vec::new(), column(1)) };
    let mut row = vec![Cell::text(kind.name())];
    row.extend(spread(&column(0), 2));
    row.extend([middle(&more), middle(&broker), middle(&bus)]);
    row
}

const COLUMNS: [&str; 7] = ["proxy", "min", "median", "max", "more than mgate", "broker", "NATS"];
