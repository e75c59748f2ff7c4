//! A load, a proxy and an upstream, and what the proxy costs.

use std::io;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::counts::Counts;
use crate::load::{Clients, Load, settle};
use crate::process;
use crate::proxy::{Kind, Server};
use crate::tls::Identity;
use crate::world::World;

/// A proxy between its clients and its upstream.
pub(super) struct Side<'a> {
    world: World,
    clients: Clients<'a>,
    server: Server,
    /// Runs for as long as the side.
    broker: Option<Server>,
}

/// What the proxy leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Upstream {
    /// A broker.
    Mosquitto,
    /// The end of the load itself.
    Sink,
}

impl<'a> Side<'a> {
    /// Starts the proxy, and the broker behind it, and connects the clients.
    pub(super) fn open(
        kind: &Kind,
        load: &'a Load,
        upstream: Upstream,
        identity: Option<&'a Identity>,
    ) -> io::Result<Self> {
        let mut world = World::new(load.profile.payload_bytes)?;
        let mut port = world.port()?;
        let broker = match upstream {
            Upstream::Mosquitto => Some(Kind::Mosquitto.start(port, None)?),
            Upstream::Sink => None,
        };
        if let Some(broker) = &broker {
            world.watch(broker.address())?;
            port = broker.address().port();
        }
        let server = kind.start(port, identity)?;
        let mut clients = Clients::new(server.address(), &load.profile, identity);
        clients.open(&mut world, load.clients)?;
        Ok(Self { world, clients, server, broker })
    }

    /// Processor microseconds of the proxy per message, once.
    pub(super) fn cost(&mut self, load: &Load, duration: Duration) -> io::Result<f64> {
        Ok(self.costs(load, duration, &[])?[0])
    }

    /// Processor microseconds per message, once: those of the proxy, of the broker if there is one, and of each
    /// of the other servers.
    pub(super) fn costs(
        &mut self,
        load: &Load,
        duration: Duration,
        others: &[&Server],
    ) -> io::Result<Vec<f64>> {
        self.clients.drive(&mut self.world, load, WARM_UP)?;
        let servers = [&self.server].into_iter().chain(&self.broker).chain(others.iter().copied());
        let pids: Vec<_> = servers.map(Server::pids).collect();
        let nanos = || pids.iter().map(|pids| process::cpu_nanos(pids)).collect::<io::Result<Vec<_>>>();
        let (before, messages) = (nanos()?, passed(&self.world.counts()));
        self.clients.drive(&mut self.world, load, duration)?;
        let after = nanos()?;
        let messages = passed(&self.world.counts()) - messages;
        settle(&mut self.world, load)?;
        let cost = |(after, before): (u64, u64)| (after - before) as f64 / 1000.0 / messages as f64;
        Ok(after.into_iter().zip(before).map(cost).collect())
    }
}

impl Upstream {
    /// Takes `--upstream` off the command line.
    pub(super) fn take(arguments: &mut Arguments, default: Self) -> io::Result<Self> {
        match arguments.text("upstream").as_deref() {
            None => Ok(default),
            Some("sink") => Ok(Self::Sink),
            Some("mosquitto") => Ok(Self::Mosquitto),
            Some(other) => {
                Err(io::Error::other(format!("--upstream must be sink or mosquitto, not {other}")))
            }
        }
    }
}

fn passed(counts: &Counts) -> u64 {
    counts.arrived + counts.received
}

const WARM_UP: Duration = Duration::from_millis(100);
