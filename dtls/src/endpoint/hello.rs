//! How handshakes begin: with a cookie first, and within bounds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::event::HandshakeFault;
use super::flight::Sender;
use super::handshakes::{Clock, Early, Pending};
use super::protection::ConnectionId;
use super::traffic::Verdict;
use super::{Endpoint, EndpointError, Outbox, Settings, Turn, random};
use crate::client_hello::ClientHello;
use crate::cookie::{Cookies, hello_verify_request};
use crate::engine::{Flight, Handshake, Progress, Refusal, Start};

/// What answers hellos without state.
pub(super) struct Hellos {
    cookies: Cookies,
    /// Since when cookies are made with this secret; none were yet.
    since: Option<Instant>,
}

impl Hellos {
    pub(super) fn new() -> Result<Self, EndpointError> {
        Ok(Self { cookies: Cookies::new(&random()?), since: None })
    }

    /// Whether a hello has a good cookie.
    fn is_known(&self, from: SocketAddr, hello: &ClientHello<'_>) -> bool {
        hello.message_sequence > 0 && self.cookies.is_good(from, hello)
    }

    /// Sends a cookie, in a datagram that is not larger than the hello.
    fn send_cookie(&self, to: SocketAddr, hello: &ClientHello<'_>, sequence: u64, out: &mut Outbox) {
        let cookie = self.cookies.of(to, hello);
        let mut datagram = Vec::new();
        hello_verify_request(sequence, hello.message_sequence, &cookie, &mut datagram);
        out.push(to, &datagram);
    }

    fn renew(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        // where nobody said hello for long, the secret before the last one is too old as well
        let due = now.saturating_duration_since(since).as_secs() / RENEWAL.as_secs();
        for _ in 0..due.min(2) {
            if let Ok(secret) = random() {
                self.cookies.renew(&secret);
                self.since = Some(now);
            }
        }
    }
}

impl Endpoint {
    /// Takes a handshake record that begins with a ClientHello.
    pub(super) fn handle_hello(&mut self, turn: &mut Turn<'_>, message: &[u8], sequence: u64) {
        let hello = ClientHello::parse(message).ok();
        let Some(hello) = hello.filter(|hello| hello.message_sequence <= MAX_MESSAGE_SEQUENCE) else {
            return self.count(Verdict::Stray);
        };
        // nobody says hello twice in a datagram but to be answered twice
        if std::mem::replace(&mut turn.has_hello, true) {
            return self.count(Verdict::Stray);
        }
        self.hellos.renew(turn.now);
        if !self.hellos.is_known(turn.from, &hello) {
            self.hellos.send_cookie(turn.from, &hello, sequence, turn.out);
            self.counts.cookies_sent += 1;
            return;
        }
        if !self.is_repeated(turn, &hello) {
            self.begin(turn, &hello, sequence);
        }
    }

    /// Whether a hello has come before: then the answer is sent again, or goes on its way.
    fn is_repeated(&mut self, turn: &mut Turn<'_>, hello: &ClientHello<'_>) -> bool {
        let Some(id) = self.handshakes.at(turn.from) else {
            return self.sessions.came_from(turn.from, hello.random);
        };
        let Some(pending) = self.handshakes.get_mut(id) else { return false };
        if pending.random == *hello.random {
            self.repeat(turn, id);
            return true;
        }
        // a client that begins anew so soon repeats itself; who replays two hellos in turns has each cost little
        if !pending.clock.may_begin_anew(turn.now) {
            self.counts.handshakes_refused += 1;
            return true;
        }
        self.fail(id, HandshakeFault::Replaced);
        false
    }

    fn begin(&mut self, turn: &mut Turn<'_>, hello: &ClientHello<'_>, sequence: u64) {
        if !self.make_room(turn.from) {
            self.counts.handshakes_refused += 1;
            return;
        }
        let cid = hello.connection_id().and_then(|_| self.new_connection_id());
        let mut flight = Flight::default();
        let mut sender = Sender::new(sequence, self.settings.mtu);
        match self.begin_by_engine(turn.now, hello, cid, &mut flight) {
            Ok(engine) => {
                let Settings { handshake_timeout, retransmission, .. } = self.settings;
                let id = self.handshakes.add(Pending {
                    engine,
                    address: turn.from,
                    cid,
                    // RFC 9146 §3: neither side uses what both did not agree on
                    peer_cid: hello.connection_id().filter(|_| cid.is_some()).unwrap_or_default().into(),
                    random: *hello.random,
                    sender,
                    protection: None,
                    early: Early::default(),
                    awaits_key: false,
                    named_key: false,
                    doubt: HandshakeFault::TimedOut,
                    clock: Clock::new(turn.now, handshake_timeout, retransmission),
                });
                self.proceed(turn, id, Ok(Progress::Going), flight);
            }
            Err(refusal) => {
                sender.send(flight, None, turn.from, turn.out);
                let handshake = self.handshakes.new_id();
                self.report_failure(handshake, turn.from, HandshakeFault::Refused(refusal));
            }
        }
    }

    fn begin_by_engine(
        &self,
        now: Instant,
        hello: &ClientHello<'_>,
        cid: Option<ConnectionId>,
        flight: &mut Flight,
    ) -> Result<Box<dyn Handshake>, Refusal> {
        let mut without_cookie = Vec::with_capacity(hello.body.len());
        hello.without_cookie(&mut without_cookie);
        let start = Start {
            now,
            hello: hello.body,
            hello_without_cookie: &without_cookie,
            message_sequence: hello.message_sequence,
            connection_id: cid.as_ref().map(|cid| &cid[..]),
            mtu: self.settings.mtu,
        };
        self.engine.begin(&start, flight)
    }

    /// Whether there is room for one more, if need be in place of the oldest whose client only said hello.
    fn make_room(&mut self, from: SocketAddr) -> bool {
        let (all, near) = self.handshakes.count(from);
        // each may become a session
        let has_room = near < self.settings.max_handshakes_per_address
            && all + self.sessions.len() < self.settings.max_sessions;
        if !has_room || all < self.settings.max_handshakes {
            return has_room;
        }
        let oldest = self.handshakes.oldest_silent();
        if let Some(oldest) = oldest {
            self.fail(oldest, HandshakeFault::Displaced);
        }
        oldest.is_some()
    }

    /// An id that no session has; none, if there are none to be.
    fn new_connection_id(&self) -> Option<ConnectionId> {
        if self.settings.cid_length == 0 {
            return None;
        }
        (0..ATTEMPTS).find_map(|_| {
            let mut cid: ConnectionId = random().ok()?;
            cid[0] = self.settings.shard;
            let is_free = self.sessions.of(&cid).is_none() && self.handshakes.of(&cid).is_none();
            is_free.then_some(cid)
        })
    }
}

/// How long cookies are made with one secret; they are good for up to twice as long.
const RENEWAL: Duration = Duration::from_secs(5 * 60);

/// How often one client may be asked for a cookie in a row.
const MAX_MESSAGE_SEQUENCE: u16 = 4;

/// Ids have 56 random bits: a second attempt is never needed.
const ATTEMPTS: usize = 4;
