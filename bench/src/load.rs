use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::client::{Client, Profile};
use crate::clock;
use crate::packet::{Credentials, Version};
use crate::tls::Identity;
use crate::world::World;

/// Which way a load's messages go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToClients,
    ToUpstream,
}

/// Messages at an even pace.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) profile: Profile,
    pub(crate) clients: usize,
    pub(crate) direction: Direction,
    pub(crate) messages_per_second: f64,
    /// How many messages one connection carries at once, in one write.
    pub(crate) burst: u64,
}

/// The clients of one proxy.
pub(crate) struct Clients<'a> {
    proxy: SocketAddr,
    profile: &'a Profile,
    identity: Option<&'a Identity>,
    /// Their names in the world.
    connected: Vec<usize>,
    next: usize,
}

impl Profile {
    /// Takes what clients are like off the command line.
    pub(crate) fn take(arguments: &mut Arguments) -> io::Result<Self> {
        let password = arguments.text("password").unwrap_or_default();
        let credentials = arguments.text("username").map(|username| Credentials { username, password });
        let qos = arguments.take("qos", 0)?;
        if qos > 1 {
            return Err(io::Error::other("--qos must be 0 or 1"));
        }
        Ok(Self {
            version: arguments.take("version", Version::V311)?,
            credentials,
            topic: arguments.take("topic", "devices/{client}/telemetry".to_owned())?,
            filter: None,
            qos,
            payload_bytes: arguments.take("payload", 64)?,
            is_deaf: false,
        })
    }

    /// The same clients, subscribed to a topic of their own.
    pub(crate) fn subscribed(&self) -> Self {
        Self { filter: Some("devices/{client}/commands".to_owned()), ..self.clone() }
    }
}

impl Load {
    /// Takes the options off the command line; `rate` is that without `--rate`.
    pub(crate) fn take(arguments: &mut Arguments, profile: Profile, rate: f64) -> io::Result<Self> {
        let load = Self {
            clients: arguments.take("clients", 50)?,
            direction: Direction::ToUpstream,
            messages_per_second: arguments.take("rate", rate)?,
            burst: arguments.take("burst", 1)?,
            profile,
        };
        match load.messages_per_second >= 1.0 && load.burst > 0 && load.clients > 0 {
            true => Ok(load),
            false => Err(io::Error::other("--rate, --burst and --clients must be at least 1")),
        }
    }
}

impl<'a> Clients<'a> {
    /// Makes clients, none of them connected yet, that speak TLS where there is an identity to trust.
    pub(crate) fn new(proxy: SocketAddr, profile: &'a Profile, identity: Option<&'a Identity>) -> Self {
        Self { proxy, profile, identity, connected: Vec::new(), next: 0 }
    }

    /// Connects `count` more, [`STEP`] at a time, and waits until all are ready.
    pub(crate) fn open(&mut self, world: &mut World, count: usize) -> io::Result<()> {
        let wanted = self.connected.len() + count;
        while self.connected.len() < wanted {
            for _ in 0..STEP.min(wanted - self.connected.len()) {
                let client = Client::new(self.profile, &format!("dev-{}", self.connected.len()));
                let tls = self.identity.map(Identity::client).transpose()?;
                self.connected.push(world.open(self.proxy, client, tls)?);
            }
            let due = self.connected.len() as u64;
            world.turn_to("clients are ready", |counts| counts.ready >= due)?;
        }
        Ok(())
    }

    /// Puts the load through for `duration`.
    pub(crate) fn drive(&mut self, world: &mut World, load: &Load, duration: Duration) -> io::Result<()> {
        let start = clock::now();
        let pace = Duration::from_secs_f64(load.burst as f64 / load.messages_per_second);
        let end = start + duration;
        let mut due = start;
        while due < end {
            world.turn_until(due)?;
            due = self.emit_overdue(world, load, due, pace)?;
        }
        world.turn_until(end)
    }

    /// Writes `bursts` bursts, waiting `gap` after each.
    pub(crate) fn drive_bursts(
        &mut self,
        world: &mut World,
        load: &Load,
        bursts: u64,
        gap: Duration,
    ) -> io::Result<()> {
        for _ in 0..bursts {
            self.emit(world, load)?;
            world.turn_until(clock::now() + gap)?;
        }
        Ok(())
    }

    fn emit_overdue(
        &mut self,
        world: &mut World,
        load: &Load,
        mut due: Instant,
        pace: Duration,
    ) -> io::Result<Instant> {
        let now = clock::now();
        while due <= now {
            self.emit(world, load)?;
            due += pace;
        }
        Ok(due)
    }

    fn emit(&mut self, world: &mut World, load: &Load) -> io::Result<()> {
        match load.direction {
            Direction::ToClients => world.deliver(load.burst),
            Direction::ToUpstream => {
                self.next = (self.next + 1) % self.connected.len();
                world.publish(self.connected[self.next], load.burst)
            }
        }
    }
}

/// Waits until all that was written has come out, and is acknowledged where it has to be.
pub(crate) fn settle(world: &mut World, load: &Load) -> io::Result<()> {
    world.turn_to("all messages came through", |counts| {
        let acknowledged = if load.profile.qos > 0 { counts.acknowledged } else { counts.sent };
        counts.arrived == counts.sent && acknowledged == counts.sent && counts.received == counts.delivered
    })
}

/// Few enough to fit any accept queue.
const STEP: usize = 100;
