//! One CoAP session: what one peer asks for, judged; a state machine without input, output or clock.
//!
//! Datagrams of either side go in with [`Session::handle_input`]; what is to be sent comes out in an [`Outbox`],
//! what else is to be done by [`Session::poll_output`]. A peer has an upstream socket of its own, so message
//! identifiers and tokens pass as they are: what may pass leaves as it came, but for the client's secret.

mod answer;
mod copies;
mod exchanges;
mod identity;
mod observations;
mod operations;
mod request;
mod response;
mod retired;
mod review;
mod shown;
mod target;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mgate_policies::{BoxFuture, Client, Decision, Now, Reason};

use self::exchanges::{Copy, EXCHANGE_LIFETIME, Exchanges, Open};
use self::identity::Identity;
use self::observations::{Arrivals, Observation};
use self::operations::Operations;
use self::retired::Retired;
use self::review::Review;
use self::waiting::Lane;
use super::Endpoint;
use super::codec::decode;
use super::encode::encode_empty;
use super::message::{Code, Kind, Message};
use crate::gate::{Blame, Fate, PacketSeen, SessionEvent, Side, Verdict};
use crate::rate::Rate;

/// One peer's session, from its first request until it is forgotten.
pub struct Session {
    peer: Peer,
    identity: Option<Box<Identity>>,
    standing: Standing,
    /// Whether others were told that it is open.
    is_opened: bool,
    upstream: Upstream,
    /// When the upstream said something, or was given the chance to.
    heard_at: Instant,
    from_client: Lane,
    from_upstream: Lane,
    rate: Option<Rate>,
    exchanges: Exchanges,
    /// Copies that are being stored, by message identifier if that still names the message, in their order; and until
    /// when.
    copies: VecDeque<(Option<u16>, Instant)>,
    arrivals: Arrivals,
    observations: Vec<Observation>,
    retired: Retired,
    operations: Operations,
    review: Option<Box<Review>>,
    last_active: Instant,
    next_id: u16,
    is_closed: bool,
    outputs: VecDeque<Output>,
}

/// What the transport knows of a client.
pub struct Peer {
    /// Where its datagrams come from.
    pub address: SocketAddr,
    /// The client's verified certificate, in DER.
    pub certificate: Option<Vec<u8>>,
    /// The identity of the key that it shares with mgate. RFC 4279
    pub psk_identity: Option<Box<str>>,
    /// Whether they are encrypted.
    pub is_encrypted: bool,
}

/// What happens to a session.
pub enum Input<'a> {
    /// A datagram of one side.
    Datagram(Side, &'a [u8]),
    /// What [`Output::Decide`] asked for.
    Decided(Side, Decision),
    /// Another peer is given its place.
    Displaced,
    /// mgate stops.
    Drain,
    /// Something went wrong in mgate in the midst of another input.
    Failed,
    /// What [`Output::Identify`] asked for.
    Identified(Verdict),
    /// The client ended it, or began anew.
    Left,
    /// The upstream is not there: nobody listens where it was.
    Lost,
    /// The client showed that it is somewhere else.
    Moved(SocketAddr),
    /// The client's rights changed, or the endpoint did: everything is asked for again.
    Reauthorize,
    /// What [`Output::Review`] asked for.
    Reviewed(Decision),
    /// What the first [`Output::Store`] that has no answer yet came to.
    Stored(Result<(), Reason>),
    /// What [`Output::Dial`] asked for; or why it is not to be had.
    Upstream(Result<(), Box<str>>),
}

/// What a session wants done, other than sending.
pub enum Output {
    /// Send what is in the outbox, then forget the session.
    Close,
    /// Await this and hand it back as [`Input::Decided`]; replaces an earlier one of that side.
    Decide(Side, BoxFuture<'static, Decision>),
    /// Open a socket that is connected with the upstream.
    Dial,
    /// Close that socket.
    HangUp,
    /// Await this and hand it back as [`Input::Identified`]; replaces an earlier one.
    Identify(BoxFuture<'static, Verdict>),
    /// Await this and hand it back as [`Input::Reviewed`]; replaces an earlier one.
    Review(BoxFuture<'static, Decision>),
    /// Await this, after those that came before, and hand it back as [`Input::Stored`].
    Store(BoxFuture<'static, Result<(), Reason>>),
}

/// Datagrams that are to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    ends: Vec<(Side, usize)>,
}

/// What a session works with, for the time of one call.
pub struct Context<'a> {
    /// What all sessions of the route share.
    pub endpoint: &'a Endpoint,
    /// The time of the call.
    pub now: Now,
    /// Takes what is to be sent.
    pub out: &'a mut Outbox,
}

/// How much there is to a peer, which decides who makes room for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing of its was ever allowed.
    Stranger,
    /// Something was that everybody may, so that anybody could have sent it in the name of the peer.
    Guest,
    /// It showed who it is, or that it is where it says.
    Known,
    /// It did, and something of its goes on.
    Busy,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// There are as many peers as there may be, and another came.
    Displaced,
    /// mgate stops.
    Draining,
    /// Something went wrong in mgate.
    Failed,
    /// Nothing was heard for long enough.
    Idle,
    /// The client ended the session, or began anew.
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upstream {
    Closed,
    Dialing,
    Open,
}

impl Session {
    /// A session of a peer whose first request is about to come.
    pub fn new(endpoint: &Endpoint, peer: Peer, now: Now) -> Self {
        let limits = &endpoint.gate.limits;
        let standing = if peer.is_known() { Standing::Known } else { Standing::Stranger };
        Self {
            peer,
            identity: None,
            standing,
            is_opened: false,
            upstream: Upstream::Closed,
            heard_at: now.instant,
            from_client: Lane::default(),
            from_upstream: Lane::default(),
            rate: limits.messages_per_second.map(|rate| Rate::new(rate, now.instant)),
            exchanges: Exchanges::default(),
            copies: VecDeque::new(),
            arrivals: Arrivals::default(),
            observations: Vec::new(),
            retired: Retired::default(),
            operations: Operations::default(),
            review: None,
            last_active: now.instant,
            next_id: 0,
            is_closed: false,
            outputs: VecDeque::new(),
        }
    }

    /// What to do with a datagram of a peer that has no session: whether it gets one. Requests do, and nothing is
    /// kept of what is none.
    pub fn admits(datagram: &[u8], peer: SocketAddr, cx: &mut Context<'_>) -> bool {
        let Ok(message) = decode(datagram) else { return false };
        if is_ping(&message) {
            cx.out.write(Side::Client, |out| encode_empty(Kind::Reset, message.id, out));
        }
        if !message.is_request() {
            return false;
        }
        let Endpoint { options, challenges, .. } = cx.endpoint;
        if options.has_challenge && !challenges.is_met(peer, &message, cx.now) {
            cx.out.write(Side::Client, |out| challenges.ask(peer, &message, cx.now, out));
            return false;
        }
        true
    }

    /// Takes what happened.
    pub fn handle_input(&mut self, input: Input<'_>, cx: &mut Context<'_>) {
        if self.is_closed {
            return;
        }
        match input {
            Input::Datagram(side, datagram) => self.take(side, datagram, cx),
            Input::Decided(side, decision) => self.decided(side, decision, cx),
            Input::Displaced => self.close(CloseReason::Displaced, cx),
            Input::Drain => self.close(CloseReason::Draining, cx),
            Input::Failed => self.close(CloseReason::Failed, cx),
            Input::Identified(verdict) => self.identified(verdict, cx),
            Input::Left => self.close(CloseReason::Left, cx),
            Input::Lost => self.upstream_lost(cx),
            Input::Moved(address) => self.moved(address, cx.now.instant),
            Input::Reauthorize => self.reauthorize(cx),
            Input::Reviewed(decision) => self.reviewed(decision, cx),
            Input::Stored(result) => self.stored(if result.is_ok() { Copy::Done } else { Copy::Failed }, cx),
            Input::Upstream(Ok(())) if self.upstream == Upstream::Dialing => self.upstream_open(cx),
            Input::Upstream(Ok(())) => {}
            Input::Upstream(Err(_)) => self.upstream_lost(cx),
        }
        self.take_queued(cx);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() && self.outputs.capacity() > 0 {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Lets the time pass that [`Session::poll_timeout`] said.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        for side in [Side::Client, Side::Upstream] {
            if self.lane(side).deadline().is_some_and(|at| at <= now) {
                self.decision_is_late(side, cx);
            }
        }
        self.pass_review_time(cx);
        self.pass_copy_time(cx);
        self.pass_exchange_time(cx);
        self.pass_observation_time(cx);
        self.exchanges.forget_until(now);
        self.operations.forget_until(now);
        self.arrivals.forget_until(now);
        if !self.is_closed && self.idle_at(cx.endpoint) <= now {
            self.close(CloseReason::Idle, cx);
        } else if self.rests_at().is_some_and(|at| at <= now) {
            self.rest();
        }
        self.take_queued(cx);
    }

    /// When [`Session::handle_timeout`] must be called next.
    pub fn poll_timeout(&self, endpoint: &Endpoint) -> Option<Instant> {
        if self.is_closed {
            return None;
        }
        let times = [
            self.from_client.deadline(),
            self.from_upstream.deadline(),
            self.copies.iter().map(|(_, until)| *until).min(),
            self.exchanges.forgets_at(),
            self.operations.forgets_at(),
            self.review_timeout(),
            self.observation_timeout(),
            self.rests_at(),
        ];
        let open = self.exchanges.open().iter().map(Open::ends_at);
        let first = times.into_iter().flatten().fold(self.idle_at(endpoint), Instant::min);
        Some(open.fold(first, Instant::min))
    }

    /// How much there is to its peer.
    pub fn standing(&self) -> Standing {
        match self.standing {
            Standing::Known if self.is_busy() => Standing::Busy,
            standing => standing,
        }
    }

    /// Those for whom it asks policies, or goes on with what they allowed.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        let identity = self.identity.iter().map(|identity| &*identity.client);
        let observers = self.observations.iter().map(Observation::client);
        let others = self.exchanges.open().iter().map(|open| &*open.client).chain(self.operations.clients());
        identity.chain(observers).chain(others)
    }

    /// Whether something waits for a decision.
    pub fn is_waiting(&self) -> bool {
        self.from_client.deadline().is_some() || self.from_upstream.deadline().is_some()
    }

    fn take(&mut self, side: Side, datagram: &[u8], cx: &mut Context<'_>) {
        // RFC 7252 §4.2 lets what makes no sense be passed over in silence, whatever kind it says it is
        let Ok(message) = decode(datagram) else { return };
        match side {
            Side::Client => self.take_from_client(&message, cx),
            Side::Upstream => self.take_from_upstream(&message, cx),
        }
    }

    fn take_from_client(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        match message.kind {
            _ if is_ping(message) => {
                cx.out.write(Side::Client, |out| encode_empty(Kind::Reset, message.id, out));
                self.report(Side::Client, message, Fate::Taken, cx);
            }
            Kind::Acknowledgement | Kind::Reset if message.code == Code::EMPTY => {
                self.client_answers(message, cx);
            }
            _ if message.is_request() => self.request(message, cx),
            // nobody asked the client for anything
            _ => {}
        }
    }

    /// Takes the route's rate, which may be another than before.
    fn adopt_rate(&mut self, cx: &Context<'_>) {
        let per_second = cx.endpoint.gate.limits.messages_per_second;
        self.rate = per_second.map(|per_second| match &self.rate {
            Some(rate) => rate.changed(per_second),
            None => Rate::new(per_second, cx.now.instant),
        });
    }

    /// Whether its peer would miss something if it were forgotten now.
    fn is_busy(&self) -> bool {
        self.is_waiting()
            || !self.observations.is_empty()
            || !self.exchanges.open().is_empty()
            || !self.operations.is_empty()
    }

    /// When it is forgotten if nothing more happens.
    fn idle_at(&self, endpoint: &Endpoint) -> Instant {
        let limits = &endpoint.gate.limits;
        let silence = match (self.standing, self.observations.is_empty()) {
            (Standing::Stranger, _) => limits.connect_timeout.max(2 * limits.decision_timeout),
            (_, true) => limits.idle_timeout.unwrap_or(self.peer.silence()),
            (_, false) => OBSERVER_SILENCE,
        };
        let idle_at = self.last_active + silence;
        if self.standing == Standing::Stranger {
            return idle_at;
        }
        // what it said last may wait for a decision
        let waiting = [self.from_client.deadline(), self.from_upstream.deadline()].into_iter().flatten();
        waiting.fold(idle_at, Instant::max)
    }

    /// When it needs no socket to the upstream any more, until there is another request.
    fn rests_at(&self) -> Option<Instant> {
        let is_idle = self.upstream == Upstream::Open && !self.is_busy();
        is_idle.then(|| self.last_active + EXCHANGE_LIFETIME)
    }

    fn rest(&mut self) {
        self.upstream = Upstream::Closed;
        self.retired.clear();
        self.identity.iter_mut().for_each(|identity| identity.rest());
        self.outputs.push_back(Output::HangUp);
    }

    /// Its address is part of what policies see, so who it is is found out again.
    fn moved(&mut self, address: SocketAddr, now: Instant) {
        self.peer.address = address;
        if let Some(identity) = &mut self.identity {
            identity.expire(now);
        }
    }

    fn close(&mut self, why: CloseReason, cx: &mut Context<'_>) {
        self.end_waiting(cx);
        self.end_all(cx);
        self.is_closed = true;
        self.outputs.push_back(Output::Close);
        if self.is_opened {
            let client = self.identity.as_ref().map(|identity| &*identity.client);
            let peer = self.peer.address;
            let blame = if why == CloseReason::Failed { Blame::Us } else { Blame::Nobody };
            cx.tell(&SessionEvent::Closed { client, peer, why: &why, blame, is_told: false });
        }
    }

    /// Tells who wants to know what became of a message.
    fn report(&self, from: Side, message: &Message<'_>, fate: Fate<'_>, cx: &Context<'_>) {
        let gate = &cx.endpoint.gate;
        let mirror = gate.mirror.as_ref().filter(|mirror| mirror.wants_packets());
        let is_observed = gate.observer.wants_packets();
        if mirror.is_none() && !is_observed {
            return;
        }
        let client = self.identity.as_ref().map(|identity| &*identity.client);
        let has_secret = target::secrets(message).next().is_some();
        let frame = (!has_secret).then_some(message.bytes);
        let seen = PacketSeen { client, peer: self.peer.address, from, packet: message, frame, fate };
        if is_observed {
            gate.observer.packet(&seen);
        }
        if let Some(mirror) = mirror {
            mirror.packet(&seen, cx.now);
        }
    }

    fn lane(&self, side: Side) -> &Lane {
        match side {
            Side::Client => &self.from_client,
            Side::Upstream => &self.from_upstream,
        }
    }

    fn lane_mut(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.from_client,
            Side::Upstream => &mut self.from_upstream,
        }
    }
}

impl Peer {
    /// Whether it has shown who it is before its first request.
    fn is_known(&self) -> bool {
        self.certificate.is_some() || self.psk_identity.is_some()
    }

    /// How long it may say nothing, unless that is set.
    fn silence(&self) -> Duration {
        // a new handshake costs a sleepy device much more than what is kept for it costs here
        if self.is_encrypted { HANDSHAKEN_SILENCE } else { EXCHANGE_LIFETIME }
    }
}

impl Context<'_> {
    fn tell(&self, event: &SessionEvent<'_>) {
        self.endpoint.gate.tell(event, self.now);
    }
}

impl Outbox {
    /// The datagrams in their order, and who they are for.
    pub fn iter(&self) -> impl Iterator<Item = (Side, &[u8])> {
        let starts = [0].into_iter().chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, (side, end))| (*side, &self.bytes[start..*end]))
    }

    /// Forgets what was to be sent.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, side: Side, datagram: &[u8]) {
        self.write(side, |out| out.extend_from_slice(datagram));
    }

    fn write(&mut self, side: Side, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push((side, self.bytes.len()));
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Displaced => "others needed its place",
            Self::Draining => "the gateway stops",
            Self::Failed => "the session failed",
            Self::Idle => "nothing was heard for long enough",
            Self::Left => "the client ended it",
        })
    }
}

/// Tells messages apart that have the same identifier. Whoever makes two that look the same takes in nobody but itself.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let mut last = [0; size_of::<u64>()];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).fold(bytes.len() as u64, |hash, word| {
        (hash.rotate_left(29) ^ u64::from_le_bytes(*word)).wrapping_mul(HASH_FACTOR)
    })
}

/// RFC 7252 §4.3
fn is_ping(message: &Message<'_>) -> bool {
    message.kind == Kind::Confirmable && message.code == Code::EMPTY
}

/// The golden ratio, as a fraction of 2^64.
const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// An upstream asks once in 24 hours whether an observer is still there. RFC 7641 §4.5
const OBSERVER_SILENCE: Duration = Duration::from_secs(25 * 60 * 60);

const HANDSHAKEN_SILENCE: Duration = Duration::from_secs(24 * 60 * 60);
