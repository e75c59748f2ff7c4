//! Processor time per relayed request.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::process;
use crate::proxy::{Kind, Server};
use crate::table::{Cell, Table, spread};
use crate::web::Web;

/// Makes the same requests through each proxy in turn, round by round.
pub(crate) fn run(mut arguments: Arguments) -> io::Result<Table> {
    let settings = Settings::take(&mut arguments)?;
    let kinds = kinds(&mut arguments)?;
    arguments.finish()?;
    let open = |kind: &Kind| Side::open(kind, &settings);
    let mut sides = kinds.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    let mut costs = vec![Vec::new(); kinds.len()];
    for round in 1..=settings.rounds {
        eprint!("round {round} of {}:", settings.rounds);
        for (side, costs) in sides.iter_mut().zip(&mut costs) {
            let cost = side.cost(&settings)?;
            eprint!(" {cost:.2} µs");
            costs.push(cost);
        }
        eprintln!();
    }
    let rows = kinds.iter().zip(&costs).map(|(kind, one)| row(kind, one, &costs[0])).collect();
    Ok(Table { title: settings.title(), columns: COLUMNS.to_vec(), rows })
}

struct Settings {
    per_second: f64,
    clients: usize,
    payload_bytes: usize,
    rounds: usize,
    duration: Duration,
}

/// A proxy between clients and their server.
struct Side {
    web: Web,
    server: Server,
}

impl Settings {
    fn take(arguments: &mut Arguments) -> io::Result<Self> {
        let settings = Self {
            per_second: arguments.take("rate", 4000.0)?,
            clients: arguments.take("clients", 50)?,
            payload_bytes: arguments.take("payload", 256)?,
            rounds: arguments.take("rounds", 40)?,
            duration: Duration::from_secs_f64(arguments.take("seconds", 0.5)?),
        };
        let is_good = settings.per_second >= 1.0 && settings.clients > 0 && settings.rounds > 0;
        if is_good && settings.duration >= Duration::from_millis(100) {
            return Ok(settings);
        }
        Err(io::Error::other("--rate, --clients and --rounds must be at least 1, and --seconds 0.1"))
    }

    fn title(&self) -> String {
        format!(
            "http: {} requests/s of {} B from {} connections, {} rounds of {} s; CPU µs per request, ratio to the first proxy",
            self.per_second,
            self.payload_bytes,
            self.clients,
            self.rounds,
            self.duration.as_secs_f64(),
        )
    }
}

impl Side {
    fn open(kind: &Kind, settings: &Settings) -> io::Result<Self> {
        let mut web = Web::new(settings.payload_bytes)?;
        let server = kind.start(web.port()?, None)?;
        web.open(server.address(), settings.clients)?;
        Ok(Self { web, server })
    }

    /// Processor microseconds of the proxy per request, once.
    fn cost(&mut self, settings: &Settings) -> io::Result<f64> {
        self.web.drive(settings.per_second, WARM_UP)?;
        let pids = self.server.pids();
        let (before, answered) = (process::cpu_nanos(&pids)?, self.web.counts().answered);
        self.web.drive(settings.per_second, settings.duration)?;
        let nanos = process::cpu_nanos(&pids)? - before;
        let requests = self.web.counts().answered - answered;
        self.web.settle()?;
        Ok(nanos as f64 / 1000.0 / requests as f64)
    }
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
