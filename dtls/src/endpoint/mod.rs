//! The front end: knows peers by address and connection id, and protects what goes between them and us.

mod event;
mod flight;
mod handshakes;
mod hello;
mod outbox;
mod protection;
mod sessions;
mod settings;
mod shaking;
mod traffic;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use self::handshakes::Handshakes;
use self::hello::Hellos;
use self::protection::EPOCH;
use self::sessions::Sessions;
use self::traffic::Verdict;
use crate::engine::HandshakeEngine;
use crate::record::{ContentType, Record, records};

pub use event::{CloseReason, Event, HandshakeFault, HandshakeId, SendFault, SessionId, Statistics};
pub use outbox::Outbox;
pub use settings::{CID_LENGTH, Settings};

/// The server's side of DTLS for all peers of one socket; without input, output or clock.
///
/// Call [`poll_event`](Self::poll_event) until there is none after each other call, and send what is in the
/// [`Outbox`].
pub trait DtlsEndpoint: Send {
    /// Takes a datagram; plaintexts stand in it where the events say.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8], out: &mut Outbox);

    /// What happened, in order.
    fn poll_event(&mut self) -> Option<Event>;

    /// Answers [`Event::KeyWanted`]; without a key, the handshake goes on and fails as with a wrong one (RFC 4279 §2).
    ///
    /// Does nothing if the handshake is over by now.
    fn give_key(&mut self, now: Instant, handshake: HandshakeId, key: Option<&[u8]>, out: &mut Outbox);

    /// Protects a payload; the datagram goes to where the session is now.
    fn send(
        &mut self,
        now: Instant,
        session: SessionId,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<(), SendFault>;

    /// Says goodbye, and forgets the session, if it is still there; no event tells of it.
    fn close(&mut self, now: Instant, session: SessionId, out: &mut Outbox);

    /// Performs the handshakes that begin from now on with another engine; sessions stay.
    fn set_engine(&mut self, engine: Arc<dyn HandshakeEngine>);

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, at the latest.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Does what is due: sends again, gives up, forgets.
    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox);

    /// What has been counted.
    fn statistics(&self) -> Statistics;
}

/// An endpoint whose handshakes an engine performs.
pub struct Endpoint {
    engine: Arc<dyn HandshakeEngine>,
    settings: Settings,
    hellos: Hellos,
    handshakes: Handshakes,
    sessions: Sessions,
    events: VecDeque<Event>,
    counts: Statistics,
    /// What identities are hashed with.
    hasher: RandomState,
    /// The records of a datagram; empty but for its memory between two of them.
    found: Vec<Record>,
}

/// The system gives no random bytes, or a setting is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointError {
    /// The connection ids have a length that is neither 0 nor [`CID_LENGTH`].
    BadCidLength,
    /// Datagrams are too small for a handshake.
    BadMtu,
    /// A handshake has no time, or its flights are sent again without end.
    BadTime,
    /// The system gives no random bytes.
    NoRandomness,
}

/// What one call is about.
struct Turn<'a> {
    now: Instant,
    from: SocketAddr,
    out: &'a mut Outbox,
    /// Whether the datagram has had a hello in it.
    has_hello: bool,
}

impl Endpoint {
    /// An endpoint without sessions.
    pub fn new(engine: Arc<dyn HandshakeEngine>, settings: Settings) -> Result<Self, EndpointError> {
        if ![0, CID_LENGTH].contains(&settings.cid_length) {
            return Err(EndpointError::BadCidLength);
        }
        if settings.mtu < MIN_MTU {
            return Err(EndpointError::BadMtu);
        }
        if settings.handshake_timeout.is_zero() || settings.retransmission.is_zero() {
            return Err(EndpointError::BadTime);
        }
        Ok(Self {
            engine,
            settings,
            hellos: Hellos::new()?,
            handshakes: Handshakes::default(),
            sessions: Sessions::default(),
            events: VecDeque::new(),
            counts: Statistics::default(),
            hasher: RandomState::new(),
            found: Vec::new(),
        })
    }

    fn handle_record(&mut self, turn: &mut Turn<'_>, datagram: &mut [u8], record: &Record) {
        match (record.content_type, record.epoch) {
            (ContentType::Alert | ContentType::Handshake, 0) => {
                self.handle_plain(turn, &datagram[record.body.clone()], record);
            }
            // it is implied by what it stands before, which alone shows that it is the client's
            (ContentType::ChangeCipherSpec, 0) => {}
            (ContentType::ConnectionId, EPOCH) => self.handle_with_cid(turn, datagram, record),
            (_, EPOCH) => self.handle_without_cid(turn, datagram, record),
            _ => self.count(Verdict::Stray),
        }
    }
}

impl DtlsEndpoint for Endpoint {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8], out: &mut Outbox) {
        let mut turn = Turn { now, from, out, has_hello: false };
        let mut found = std::mem::take(&mut self.found);
        found.extend(records(datagram, self.settings.cid_length).take(MAX_RECORDS));
        if found.is_empty() {
            self.count(Verdict::Stray);
        }
        for record in found.drain(..) {
            self.handle_record(&mut turn, datagram, &record);
        }
        self.found = found;
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn give_key(&mut self, now: Instant, handshake: HandshakeId, key: Option<&[u8]>, out: &mut Outbox) {
        let key = match key {
            Some(key @ [_, ..]) => Zeroizing::new(key.to_vec()),
            _ => unknown_key(),
        };
        self.continue_with(now, handshake, key, out);
    }

    fn send(
        &mut self,
        _now: Instant,
        session: SessionId,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<(), SendFault> {
        let session = self.sessions.get_mut(session).ok_or(SendFault::UnknownSession)?;
        Ok(session.send(ContentType::ApplicationData, payload, out)?)
    }

    fn close(&mut self, _now: Instant, session: SessionId, out: &mut Outbox) {
        self.say_goodbye(session, out);
    }

    fn set_engine(&mut self, engine: Arc<dyn HandshakeEngine>) {
        self.engine = engine;
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let handshakes = self.handshakes.next().map(|(at, _)| at);
        [handshakes, self.sessions.poll_timeout()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox) {
        self.sessions.handle_timeout(now);
        self.continue_handshakes(now, out);
    }

    fn statistics(&self) -> Statistics {
        Statistics { handshakes_pending: self.handshakes.len(), sessions: self.sessions.len(), ..self.counts }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadCidLength => write!(formatter, "connection ids have 0 or {CID_LENGTH} bytes"),
            Self::BadMtu => write!(formatter, "a datagram must take at least {MIN_MTU} bytes"),
            Self::BadTime => formatter.write_str("a handshake and a retransmission take time"),
            Self::NoRandomness => formatter.write_str("the system gives no random bytes"),
        }
    }
}

impl Error for EndpointError {}

/// Which endpoint gave out the connection id in a datagram's first record, if it has one: its [`Settings::shard`].
///
/// `None` where connection ids have no bytes, and for other datagrams, which go by their address.
pub fn shard_of(datagram: &[u8], cid_length: usize) -> Option<u8> {
    let first = records(datagram, cid_length).next()?;
    datagram.get(first.cid)?.first().copied()
}

/// A key that nobody has; without random bytes, the handshake gets none, and is refused.
fn unknown_key() -> Zeroizing<Vec<u8>> {
    random::<32>().map(|key| Zeroizing::new(key.to_vec())).unwrap_or_default()
}

fn random<const N: usize>() -> Result<[u8; N], EndpointError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| EndpointError::NoRandomness)?;
    Ok(bytes)
}

/// How many records of one datagram are looked at.
const MAX_RECORDS: usize = 32;

/// What OpenSSL needs for the pieces of its messages.
const MIN_MTU: u16 = 256;
