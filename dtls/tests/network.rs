//! Networks that lose, delay and reorder; and whatever many clients may do, one step after the other.

mod support;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mgate_dtls::openssl::{EngineSettings, Psk};
use mgate_dtls::{CloseReason, ContentType, DtlsEndpoint, Event, SessionId, Settings};

use support::device::{Device, Earlier, Options, plain_record};
use support::pki::Pki;
use support::{Server, address};

#[test]
fn handshakes_complete_on_a_bad_network() {
    let pki = Pki::new();
    let engine = EngineSettings { psk: Psk::On, ..pki.server() };
    let mut server = Server::new(&engine, Settings { mtu: 400, ..Settings::default() });
    let own = pki.client("device 1");
    let mut network = Network { random: Random(7), now: server.now, queue: BinaryHeap::new(), sent: 0 };
    let (mut done, mut earlier, mut resumed) = (0, None::<Earlier>, 0);
    for number in 0..HANDSHAKES {
        let options = match number % 4 {
            0 => Options::psk("device 1"),
            1 => Options { takes_tickets: true, ..Options::psk("device 1").with_cid(b"id") },
            // the one before, once more
            2 => Options {
                takes_tickets: true,
                earlier: earlier.take(),
                ..Options::psk("device 1").with_cid(b"")
            },
            _ => Options { piece: 150, ..Options::certificate(own.clone()) },
        };
        let mut device = Device::new(options, address(number), network.now);
        let before = server.statistics().handshakes_done;
        network.shake_hands(&mut device, &mut server);
        let is_done = device.is_connected && server.statistics().handshakes_done > before;
        done += u32::from(is_done);
        resumed += u32::from(is_done && device.is_resumed);
        earlier = (number % 4 == 1 && is_done).then(|| device.earlier());
    }
    assert!(done * 100 >= u32::from(HANDSHAKES) * 98, "{done} of {HANDSHAKES}");
    assert!(resumed > 60, "{resumed}");
}

/// Where datagrams are on their way.
struct Network {
    random: Random,
    now: Instant,
    queue: BinaryHeap<Reverse<Arrival>>,
    sent: u64,
}

/// When, in which order of those that arrive at once, where to, and what.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Arrival(Instant, u64, Direction, Vec<u8>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    ToClient,
    ToServer,
}

impl Network {
    fn shake_hands(&mut self, device: &mut Device, server: &mut Server) {
        let end = self.now + Duration::from_secs(40);
        let before = server.statistics().handshakes_done;
        device.start(self.now);
        while !device.is_connected || server.statistics().handshakes_done == before {
            for datagram in device.take_sent() {
                self.send(Direction::ToServer, datagram);
            }
            let arrival = self.queue.peek().map(|Reverse(Arrival(at, ..))| *at);
            let due = [arrival, device.poll_timeout(), server.endpoint.poll_timeout()];
            self.now = due.into_iter().flatten().min().map_or(end, |due| due.max(self.now));
            if self.now >= end {
                break;
            }
            device.handle_timeout(self.now);
            let mut answers = server.pass(self.now - server.now);
            while let Some(Reverse(Arrival(at, ..))) = self.queue.peek()
                && *at <= self.now
            {
                let Some(Reverse(Arrival(_, _, direction, datagram))) = self.queue.pop() else { break };
                match direction {
                    Direction::ToClient => device.handle(self.now, &datagram),
                    Direction::ToServer => answers.extend(server.handle(device.address, &datagram)),
                }
            }
            let answers = answers.into_iter().filter(|(to, _)| *to == device.address);
            answers.for_each(|(_, datagram)| self.send(Direction::ToClient, datagram));
        }
        self.queue.clear();
    }

    /// Loses 15 of 100, and delays the others: by so much that they change their order.
    fn send(&mut self, direction: Direction, datagram: Vec<u8>) {
        if self.random.below(100) >= 15 {
            let at = self.now + Duration::from_millis(10 + self.random.below(200));
            self.sent += 1;
            self.queue.push(Reverse(Arrival(at, self.sent, direction, datagram)));
        }
    }
}

#[test]
fn whatever_clients_do_each_session_is_where_it_should_be() {
    for seed in 0..6 {
        let mut world = World::new(seed);
        for step in 0..400 {
            world.step();
            world.check(step);
        }
        assert!(world.server.statistics().handshakes_done > 30, "{:?}", world.server.statistics());
        world.end();
    }
}

#[test]
fn whatever_comes_in_sessions_go_on() {
    let pki = Pki::new();
    let engine = EngineSettings { psk: Psk::On, ..pki.server() };
    let own = pki.client("device 1");
    let mut server = Server::new(&engine, Settings::default());
    let mut random = Random(11);
    let mut witness = Device::new(Options::psk("device 1").with_cid(b"id"), address(0), server.now);
    let session = server.connect(&mut witness);
    for round in 0..300 {
        let options =
            if round % 2 == 0 { Options::psk("device 2") } else { Options::certificate(own.clone()) };
        let mut device = Device::new(options, address(1 + round % 50), server.now);
        device.start(server.now);
        let spoilt = random.below(3);
        for step in 0..4 {
            for mut datagram in device.take_sent() {
                if step == spoilt {
                    spoil(&mut datagram, &mut random);
                }
                for (_, answer) in server.handle(device.address, &datagram) {
                    if step < spoilt {
                        device.handle(server.now, &answer);
                    }
                }
            }
        }
        server.pass(Duration::from_millis(random.below(2_000)));
        server.exchange(&mut witness, session);
    }
    server.pass(Duration::from_secs(60));
    assert_eq!(server.statistics().handshakes_pending, 0);
    assert!(server.statistics().handshakes_failed > 50, "{:?}", server.statistics());
}

/// Changes, cuts or stretches a datagram.
fn spoil(datagram: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(datagram.len() as u64) as usize;
        match random.below(4) {
            0 => datagram[at] = random.below(256) as u8,
            1 => datagram[at] ^= 1 << random.below(8),
            2 => datagram.truncate(at.max(1)),
            _ => datagram.extend_from_within(at..),
        }
    }
}

/// Clients that connect, move, begin anew, say goodbye or fall silent, and somebody who forges.
struct World {
    random: Random,
    server: Server,
    /// Sessions that must be there, with their clients.
    devices: BTreeMap<SessionId, Device>,
    events_seen: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let settings = Settings {
            max_handshakes: 6,
            max_handshakes_per_address: 4,
            max_sessions: 12,
            ..Settings::default()
        };
        let server = Server::new(&support::psk(), settings);
        Self { random: Random(seed), server, devices: BTreeMap::new(), events_seen: 0 }
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0..3 => self.connect(),
            3 => self.begin_and_stop(),
            4 => self.relocate(),
            5 => self.say_goodbye(),
            6 => self.close(),
            7 => self.forge(),
            8 => drop(self.server.pass(Duration::from_millis(self.random.below(20_000)))),
            9 => self.repeat_finished(),
            _ => self.exchange(),
        }
        self.take_events();
    }

    fn address(&mut self) -> SocketAddr {
        let host = self.random.below(3) as u8;
        SocketAddr::from(([10, 0, 0, host], 1_000 + self.random.below(6) as u16))
    }

    fn device(&mut self) -> Device {
        let mut options = Options::psk(["device 1", "device 2"][self.random.below(2) as usize]);
        options.cid = [None, Some(b"id".to_vec()), Some(Vec::new())][self.random.below(3) as usize].clone();
        let at = self.address();
        Device::new(options, at, self.server.now)
    }

    fn connect(&mut self) {
        let mut device = self.device();
        device.start(self.server.now);
        self.server.converse(&mut device);
        let session = self.server.events[self.events_seen..].iter().find_map(|event| match event {
            Event::Connected { session, .. } => Some(*session),
            _ => None,
        });
        assert_eq!(device.is_connected, session.is_some());
        self.devices.extend(session.map(|session| (session, device)));
    }

    fn begin_and_stop(&mut self) {
        let mut device = self.device();
        device.start(self.server.now);
        for _ in 0..=self.random.below(2) {
            for datagram in device.take_sent() {
                for (_, answer) in self.server.handle(device.address, &datagram) {
                    device.handle(self.server.now, &answer);
                }
            }
        }
    }

    fn relocate(&mut self) {
        let to = self.address();
        if let Some((session, mut device)) = self.take_any() {
            if device.options.cid.is_some() {
                device.address = to;
                self.server.exchange(&mut device, session);
                self.server.data.clear();
            }
            self.devices.insert(session, device);
        }
    }

    fn say_goodbye(&mut self) {
        if let Some((session, mut device)) = self.take_any() {
            let goodbye = device.seal(ContentType::Alert, &[1, 0]);
            self.server.handle(device.address, &goodbye);
            let closed = Event::Closed { session, reason: CloseReason::CloseNotify };
            assert_eq!(self.server.events.last(), Some(&closed));
        }
    }

    fn close(&mut self) {
        if let Some((session, _)) = self.take_any() {
            assert_eq!(self.server.close(session).len(), 1);
        }
    }

    fn forge(&mut self) {
        let Some((session, mut device)) = self.take_any() else { return };
        let genuine = device.seal(ContentType::ApplicationData, b"genuine");
        let at = self.random.below(genuine.len() as u64) as usize;
        let mut forged = genuine.clone();
        forged[at] ^= 1 << self.random.below(8);
        let from = if self.random.below(2) == 0 { device.address } else { self.address() };
        self.server.handle(from, &forged);
        let alert = plain_record(ContentType::Alert, 1, &[2, 40]);
        if self.server.statistics().handshakes_pending == 0 {
            self.server.handle(device.address, &alert);
        }
        self.devices.insert(session, device);
        assert!(self.server.data.is_empty());
    }

    fn repeat_finished(&mut self) {
        if let Some((session, mut device)) = self.take_any() {
            device.send_flight();
            for datagram in device.take_sent() {
                self.server.handle(device.address, &datagram);
            }
            self.devices.insert(session, device);
        }
    }

    fn exchange(&mut self) {
        if let Some((session, mut device)) = self.take_any() {
            self.server.exchange(&mut device, session);
            self.server.data.clear();
            self.devices.insert(session, device);
        }
    }

    fn take_any(&mut self) -> Option<(SessionId, Device)> {
        let count = self.devices.len() as u64;
        let key = *self.devices.keys().nth(self.random.below(count.max(1)) as usize)?;
        Some((key, self.devices.remove(&key)?))
    }

    fn take_events(&mut self) {
        for event in &self.server.events[self.events_seen..] {
            if let Event::Closed { session, reason: CloseReason::Replaced } = event {
                assert!(self.devices.remove(session).is_some(), "{session:?} was closed twice");
            }
        }
        self.events_seen = self.server.events.len();
    }

    fn check(&self, step: u32) {
        let statistics = self.server.statistics();
        assert_eq!(statistics.sessions, self.devices.len(), "step {step}");
        assert!(statistics.sessions <= 12 && statistics.handshakes_pending <= 6, "step {step}");
        let due = self.server.endpoint.poll_timeout();
        assert!(due.is_some() || statistics.handshakes_pending == 0, "step {step}");
        assert!(due.is_none_or(|due| due > self.server.now), "step {step}: nothing is overdue");
    }

    /// After a while, nothing is left but sessions that work; and then nothing.
    fn end(mut self) {
        self.server.pass(Duration::from_secs(120));
        assert_eq!(self.server.statistics().handshakes_pending, 0);
        assert_eq!(self.server.endpoint.poll_timeout(), None);
        for (session, mut device) in std::mem::take(&mut self.devices) {
            self.server.exchange(&mut device, session);
            self.server.close(session);
        }
        assert_eq!(self.server.statistics().sessions, 0);
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % bound
    }
}

const HANDSHAKES: u16 = 300;
