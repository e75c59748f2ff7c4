//! What the tests have in common: a server, clients of OpenSSL, and the datagrams between them.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

pub(crate) mod client;
pub(crate) mod device;
pub(crate) mod pki;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_dtls::openssl::{Engine, EngineSettings, Psk};
use mgate_dtls::{DtlsEndpoint, Endpoint, Event, HandshakeId, Outbox, SessionId, Settings, Statistics};

use self::client::Client;
use self::device::Device;

/// An endpoint, and what it told.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Instant,
    /// Everything that happened, and what data said.
    pub(crate) events: Vec<Event>,
    pub(crate) data: Vec<(SessionId, Vec<u8>)>,
    /// Keys that are asked for are answered at once.
    pub(crate) answers: bool,
    /// Every datagram that it ever sent.
    pub(crate) sent: Vec<(SocketAddr, Vec<u8>)>,
    out: Outbox,
}

impl Server {
    pub(crate) fn new(engine: &EngineSettings, settings: Settings) -> Self {
        let engine = Engine::new(engine).unwrap();
        Self {
            endpoint: Endpoint::new(Arc::new(engine), settings).unwrap(),
            now: start(),
            events: Vec::new(),
            data: Vec::new(),
            answers: true,
            sent: Vec::new(),
            out: Outbox::new(),
        }
    }

    /// One that knows the keys of [`key_of`].
    pub(crate) fn with_psk() -> Self {
        Self::new(&psk(), Settings::default())
    }

    /// Takes a datagram; what is to be sent.
    pub(crate) fn handle(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut datagram = datagram.to_vec();
        self.endpoint.handle_datagram(self.now, from, &mut datagram, &mut self.out);
        self.take_events(&datagram);
        self.take_sent()
    }

    /// Lets time pass, up to and with what is due then.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<(SocketAddr, Vec<u8>)> {
        let end = self.now + time;
        while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.endpoint.handle_timeout(self.now, &mut self.out);
            self.take_events(&[]);
        }
        self.now = end;
        self.take_sent()
    }

    pub(crate) fn send(&mut self, session: SessionId, payload: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        self.endpoint.send(self.now, session, payload, &mut self.out).unwrap();
        self.take_sent()
    }

    pub(crate) fn close(&mut self, session: SessionId) -> Vec<(SocketAddr, Vec<u8>)> {
        self.endpoint.close(self.now, session, &mut self.out);
        self.take_sent()
    }

    pub(crate) fn give_key(
        &mut self,
        handshake: HandshakeId,
        key: Option<&[u8]>,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        self.endpoint.give_key(self.now, handshake, key, &mut self.out);
        self.take_events(&[]);
        self.take_sent()
    }

    /// Carries datagrams between a client and the server until there are none.
    pub(crate) fn converse(&mut self, client: &mut impl Peer) {
        for _ in 0..MAX_ROUNDS {
            let datagrams = client.take_sent();
            if datagrams.is_empty() {
                return;
            }
            for datagram in datagrams {
                for (to, answer) in self.handle(client.address(), &datagram) {
                    assert_eq!(to, client.address());
                    client.handle(self.now, &answer);
                }
            }
        }
        panic!("they do not come to an end");
    }

    /// Shakes hands with a client; the session.
    pub(crate) fn connect(&mut self, client: &mut impl Peer) -> SessionId {
        client.start(self.now);
        self.converse(client);
        assert!(client.is_connected(), "{:?}", self.events);
        let Some(Event::Connected { session, .. }) = self.last_connected() else {
            panic!("{:?}", self.events);
        };
        *session
    }

    pub(crate) fn last_connected(&self) -> Option<&Event> {
        self.events.iter().rfind(|event| matches!(event, Event::Connected { .. }))
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.endpoint.statistics()
    }

    /// Sends data both ways.
    pub(crate) fn exchange(&mut self, client: &mut impl Peer, session: SessionId) {
        self.data.clear();
        client.send(b"request");
        self.converse(client);
        assert_eq!(self.data, [(session, b"request".to_vec())]);
        for (to, datagram) in self.send(session, b"response") {
            assert_eq!(to, client.address());
            client.handle(self.now, &datagram);
        }
        assert_eq!(client.received().pop().as_deref(), Some(&b"response"[..]));
    }

    fn take_events(&mut self, datagram: &[u8]) {
        while let Some(event) = self.endpoint.poll_event() {
            match &event {
                Event::Data { session, payload } => {
                    self.data.push((*session, datagram[payload.clone()].to_vec()));
                }
                Event::EarlyData { session, payload } => self.data.push((*session, payload.to_vec())),
                Event::KeyWanted { handshake, identity, .. } if self.answers => {
                    let key = key_of(identity);
                    self.endpoint.give_key(self.now, *handshake, key.as_deref(), &mut self.out);
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

    fn take_sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let sent: Vec<_> = self.out.iter().map(|(to, datagram)| (to, datagram.to_vec())).collect();
        self.out.clear();
        self.sent.extend(sent.iter().cloned());
        sent
    }
}

/// A client.
pub(crate) trait Peer {
    fn address(&self) -> SocketAddr;
    fn start(&mut self, now: Instant);
    fn handle(&mut self, now: Instant, datagram: &[u8]);
    fn send(&mut self, payload: &[u8]);
    fn take_sent(&mut self) -> Vec<Vec<u8>>;
    fn received(&mut self) -> &mut Vec<Vec<u8>>;
    fn is_connected(&self) -> bool;
}

impl Peer for Client {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(&mut self, _now: Instant) {
        self.start();
    }

    fn handle(&mut self, _now: Instant, datagram: &[u8]) {
        self.handle(datagram);
    }

    fn send(&mut self, payload: &[u8]) {
        self.send(payload);
    }

    fn take_sent(&mut self) -> Vec<Vec<u8>> {
        self.take_sent()
    }

    fn received(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.received
    }

    fn is_connected(&self) -> bool {
        self.is_connected()
    }
}

impl Peer for Device {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn start(&mut self, now: Instant) {
        self.start(now);
    }

    fn handle(&mut self, now: Instant, datagram: &[u8]) {
        self.handle(now, datagram);
    }

    fn send(&mut self, payload: &[u8]) {
        self.send(payload);
    }

    fn take_sent(&mut self) -> Vec<Vec<u8>> {
        self.take_sent()
    }

    fn received(&mut self) -> &mut Vec<Vec<u8>> {
        &mut self.received
    }

    fn is_connected(&self) -> bool {
        self.is_connected
    }
}

/// Everybody's key, by identity.
pub(crate) fn key_of(identity: &[u8]) -> Option<Vec<u8>> {
    identity.strip_prefix(b"device").map(|rest| [b"key of device", rest].concat())
}

pub(crate) fn psk() -> EngineSettings {
    EngineSettings { psk: Psk::On, ..EngineSettings::default() }
}

/// The address of the client of this number.
pub(crate) fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1024 + number))
}

#[expect(clippy::disallowed_methods, reason = "it passes by hand from here on")]
pub(crate) fn start() -> Instant {
    Instant::now()
}

const MAX_ROUNDS: usize = 20;
