//! What scenarios of requests have in common: the same load through each proxy in turn.

use std::io;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::ends::Ends;
use crate::process;
use crate::proxy::{Kind, Server};
use crate::table::{Cell, Table, spread};

/// How much is requested, and how often it is measured.
pub(super) struct Settings {
    pub(super) per_second: f64,
    pub(super) clients: usize,
    pub(super) payload_bytes: usize,
    pub(super) rounds: usize,
    pub(super) duration: Duration,
}

impl Settings {
    pub(super) fn take(arguments: &mut Arguments, payload_bytes: usize) -> io::Result<Self> {
        let settings = Self {
            per_second: arguments.take("rate", 4000.0)?,
            clients: arguments.take("clients", 50)?,
            payload_bytes: arguments.take("payload", payload_bytes)?,
            rounds: arguments.take("rounds", 40)?,
            duration: Duration::from_secs_f64(arguments.take("seconds", 0.5)?),
        };
        let is_good = settings.per_second >= 1.0 && settings.clients > 0 && settings.rounds > 0;
        if is_good && settings.duration >= Duration::from_millis(100) {
            return Ok(settings);
        }
        Err(io::Error::other("--rate, --clients and --rounds must be at least 1, and --seconds 0.1"))
    }

    /// Makes the same requests through each proxy in turn, round by round.
    pub(super) fn compare(
        &self,
        title: &str,
        kinds: &[Kind],
        open: impl Fn(&Kind) -> io::Result<(Server, Box<dyn Ends>)>,
    ) -> io::Result<Table> {
        let mut sides = kinds.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let mut costs = vec![Vec::new(); kinds.len()];
        for round in 1..=self.rounds {
            eprint!("round {round} of {}:", self.rounds);
            for ((server, ends), costs) in sides.iter_mut().zip(&mut costs) {
                let cost = self.cost(server, ends.as_mut())?;
                eprint!(" {cost:.2} µs");
                costs.push(cost);
            }
            eprintln!();
        }
        let rows = kinds.iter().zip(&costs).map(|(kind, one)| row(kind, one, &costs[0])).collect();
        Ok(Table { title: self.title(title), columns: COLUMNS.to_vec(), rows })
    }

    /// Processor microseconds of the proxy per request, once.
    fn cost(&self, server: &Server, ends: &mut dyn Ends) -> io::Result<f64> {
        ends.drive(self.per_second, WARM_UP)?;
        let pids = server.pids();
        let (before, answered) = (process::cpu_nanos(&pids)?, ends.counts().answered);
        ends.drive(self.per_second, self.duration)?;
        let nanos = process::cpu_nanos(&pids)? - before;
        let requests = ends.counts().answered - answered;
        ends.settle()?;
        Ok(nanos as f64 / 1000.0 / requests as f64)
    }

    fn title(&self, title: &str) -> String {
        format!(
            "{title}, {}/s of {} B from {} clients, {} rounds of {} s; CPU µs per request, ratio to the first proxy",
            self.per_second,
            self.payload_bytes,
            self.clients,
            self.rounds,
            self.duration.as_secs_f64(),
        )
    }
}

fn row(kind: &Kind, costs: &[f64], first: &[f64]) -> Vec<Cell> {
    let mut row = vec![Cell::text(kind.name())];
    row.extend(spread(costs, 2));
    if std::ptr::eq(costs, first) {
        row.extend([Cell::Empty, Cell::Empty, Cell::Empty]);
    } else {
        let ratios: Vec<_> = costs.iter().zip(first).map(|(cost, first)| cost / first).collect();
        row.extend(spread(&ratios, 3));
    }
    row
}

const WARM_UP: Duration = Duration::from_millis(100);
const COLUMNS: [&str; 7] =
    ["proxy", "µs min", "µs median", "µs max", "ratio min", "ratio median", "ratio max"];
