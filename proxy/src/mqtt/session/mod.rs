//! One MQTT session: a state machine without input, output or clock.
//!
//! Bytes of either side go in with [`Session::handle_input`]; what is to be sent comes out in an [`Outbox`],
//! what else is to be done by [`Session::poll_output`]. A frame that may pass leaves exactly as it came.

mod close;
mod connect;
mod copies;
mod publish;
mod rights;
mod subscribe;
mod terms;
#[cfg(test)]
pub(super) mod tests;
mod transform;
mod waiting;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mgate_policies::{Action, BoxFuture, Client, Decision, Now, Reason, SessionTerms, Transforms};

use self::close::Close;
pub use self::close::{CloseReason, Violation};
use self::connect::Opening;
use self::copies::Copies;
use self::publish::header_len;
use self::rights::{Change, Rights};
use self::subscribe::Verdicts;
use self::transform::AsItCame;
use self::waiting::{Question, Waiting};
use super::Endpoint;
use super::client_ids::Claim;
use super::codec::{self, FixedHeader};
use super::flow::Flow;
use super::packet::{Packet, PacketType, Version};
use crate::gate::{Fate, Gate, Memo, PacketSeen, SessionEvent, Side, Trouble, Verdict};
use crate::memory::Memory;
use crate::rate::Rate;
use crate::transport::Upgrade;

/// One client's session, from its first byte to its last.
pub struct Session {
    peer: Peer,
    state: State,
    /// When the present state must be over; only before the session is open.
    deadline: Instant,
    version: Version,
    client: Option<Box<Client>>,
    claim: Option<Claim>,
    opening: Option<Box<Opening>>,
    /// When the client's credentials end.
    expires: Option<Instant>,
    keep_alive: Option<Duration>,
    last_from_client: Instant,
    wants_reason_strings: bool,
    has_enhanced_authentication: bool,
    from_client: Lane,
    from_upstream: Lane,
    rate: Option<Rate>,
    /// What came with leave to connect.
    terms: SessionTerms,
    /// What a decision said of the terms that made the session ask for them last.
    heard: Option<SessionTerms>,
    /// Those that it began with: what a client subscribed to has the same name at its end. The prefix of its
    /// terms is the last of them.
    transforms: Transforms,
    throttled_until: Option<Instant>,
    /// SUBSCRIBEs of which the upstream saw only a part, by packet identifier.
    partial_subscribes: Vec<(u16, Vec<Option<u8>>)>,
    rights: Option<Box<Rights>>,
    copies: Option<Box<Copies>>,
    /// What the mirror keeps.
    memo: Memo,
    outputs: VecDeque<Output>,
}

/// What the transport knows of a client.
pub struct Peer {
    /// Where the connection came from.
    pub address: SocketAddr,
    /// The client's verified certificate, in DER.
    pub certificate: Option<Vec<u8>>,
    /// What the client showed in its request for a WebSocket.
    pub upgrade: Option<Box<Upgrade>>,
    /// Whether the connection is encrypted.
    pub is_encrypted: bool,
}

/// What happens to a session.
pub enum Input<'a> {
    /// Bytes of one side: whole frames are taken, a frame that is not whole is left.
    Bytes(Side, &'a [u8]),
    /// One side will send no more.
    Closed(Side, Option<std::io::ErrorKind>),
    /// What [`Output::Decide`] asked for.
    Decided(Side, Decision),
    /// mgate stops.
    Drain,
    /// What [`Output::Identify`] asked for.
    Identified(Verdict),
    /// The client's rights changed, or the endpoint did: everything is asked for again.
    Reauthorize,
    /// What [`Output::Review`] asked for.
    Reviewed(Decision),
    /// One side has taken none of the bytes that wait for it, for too long.
    Stalled(Side),
    /// What the first [`Output::Store`] that has no answer yet came to.
    Stored(Result<(), Reason>),
    /// What [`Output::Dial`] asked for; or why it is not to be had.
    Upstream(Result<(), Box<str>>),
}

/// What a session wants done, other than sending.
pub enum Output {
    /// Send what is in the outbox, then close both sides.
    Close,
    /// Await this and hand it back as [`Input::Decided`]; replaces an earlier one of that side.
    Decide(Side, BoxFuture<'static, Decision>),
    /// Open the upstream connection.
    Dial,
    /// Await the first [`Output::Store`] that has no answer yet no longer.
    Forget,
    /// Await this and hand it back as [`Input::Identified`].
    Identify(BoxFuture<'static, Verdict>),
    /// Await this and hand it back as [`Input::Reviewed`]; replaces an earlier one.
    Review(BoxFuture<'static, Decision>),
    /// Await this, after those that came before, and hand it back as [`Input::Stored`].
    Store(BoxFuture<'static, Result<(), Reason>>),
}

/// What is to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    /// To the client.
    pub to_client: Vec<u8>,
    /// To the upstream.
    pub to_upstream: Vec<u8>,
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

/// The states in the order in which a session goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitingConnect,
    Authorizing,
    Dialing,
    AwaitingConnAck,
    Open,
    Closed,
}

/// What belongs to the packets of one side.
#[derive(Default)]
struct Lane {
    flow: Flow,
    /// What is remembered of what came, where transforms made something else of it.
    as_it_came: Option<Box<AsItCame>>,
    memory: Memory,
    waiting: Option<Box<Waiting>>,
    /// Whether a whole frame was left because its time has not come.
    is_held: bool,
}

impl Session {
    /// A session whose client has yet to send CONNECT.
    pub fn new(endpoint: &Endpoint, peer: Peer, now: Now) -> Self {
        let limits = &endpoint.gate.limits;
        Self {
            peer,
            state: State::AwaitingConnect,
            deadline: now.instant + limits.connect_timeout,
            version: Version::V311,
            client: None,
            claim: None,
            opening: None,
            expires: None,
            keep_alive: None,
            last_from_client: now.instant,
            wants_reason_strings: true,
            has_enhanced_authentication: false,
            from_client: Lane::default(),
            from_upstream: Lane::default(),
            terms: SessionTerms::default(),
            heard: None,
            transforms: endpoint.gate.transforms.clone(),
            rate: limits.messages_per_second.map(|rate| Rate::new(rate, now.instant)),
            throttled_until: None,
            partial_subscribes: Vec::new(),
            rights: None,
            copies: None,
            memo: Memo::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes what happened. Returns how many of the bytes that came with it were used; the rest must come
    /// again, with what follows it.
    pub fn handle_input(&mut self, input: Input<'_>, cx: &mut Context<'_>) -> usize {
        if self.state == State::Closed {
            return 0;
        }
        let done = match input {
            Input::Bytes(side, bytes) => return self.handle_bytes(side, bytes, cx),
            Input::Closed(side, error) => Err(CloseReason::lost(side, error).into()),
            Input::Decided(side, decision) => self.decided(side, decision, cx),
            Input::Drain => Err(CloseReason::Draining.into()),
            Input::Identified(verdict) => self.identified(verdict, cx),
            Input::Reauthorize => self.reauthorize(cx),
            Input::Reviewed(decision) => self.reviewed(decision, cx),
            Input::Stalled(side) => Err(CloseReason::Stalled(side).into()),
            Input::Stored(result) => self.stored(result, cx),
            Input::Upstream(Ok(())) => self.upstream_open(cx),
            Input::Upstream(Err(why)) => Err(CloseReason::UpstreamUnreachable(why).into()),
        };
        if std::mem::take(&mut self.from_client.is_held) {
            self.last_from_client = cx.now.instant;
        }
        self.from_upstream.is_held = false;
        self.close_on_error(done, cx);
        0
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Lets the time pass that [`Session::poll_timeout`] said.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        // before any decision that is late: it would let the rest of its packet pass
        if self.state != State::Closed && self.expires.is_some_and(|at| at <= now) {
            return self.close(CloseReason::Expired.into(), cx);
        }
        if self.throttled_until.is_some_and(|until| until <= now) {
            self.throttled_until = None;
            self.from_client.is_held = false;
            self.last_from_client = now;
        }
        for side in [Side::Client, Side::Upstream] {
            if self.lane(side).waiting.as_ref().is_some_and(|waiting| waiting.deadline <= now) {
                self.decision_is_late(side, cx);
            }
        }
        if self.state != State::Closed {
            let done = self.pass_review_time(cx).and_then(|()| self.pass_copy_time(cx));
            self.close_on_error(done, cx);
        }
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.close(self.timeout_reason().into(), cx);
        }
    }

    /// When [`Session::handle_timeout`] must be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let decisions = [&self.from_client, &self.from_upstream].into_iter();
        let decisions = decisions.filter_map(|lane| Some(lane.waiting.as_ref()?.deadline));
        let state = match self.state {
            State::Closed => return None,
            State::Open if self.from_client.is_held => None,
            State::Open => self.keep_alive.map(|longest| self.last_from_client + longest),
            _ => Some(self.deadline),
        };
        let others = [state, self.review_timeout(), self.copy_timeout(), self.throttled_until, self.expires];
        decisions.chain(others.into_iter().flatten()).min()
    }

    /// Whether more bytes of this side are of use now.
    pub fn wants(&self, side: Side) -> bool {
        let lane = self.lane(side);
        self.state != State::Closed && !lane.is_held && lane.waiting.is_none()
    }

    /// Who the client is, once that is known.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_deref()
    }

    /// The client could not be read for a while: its silence is not its own.
    pub fn excuse_silence(&mut self, now: Now) {
        self.last_from_client = now.instant;
    }

    /// Takes every whole frame whose time has come.
    fn handle_bytes(&mut self, side: Side, bytes: &[u8], cx: &mut Context<'_>) -> usize {
        let mut used = 0;
        while self.state != State::Closed && cx.out.has_room() {
            let rest = &bytes[used..];
            let done = match self.next_frame(side, rest, cx) {
                Ok(Some(header)) => {
                    used += header.frame_len;
                    self.take_frame(side, header, &rest[..header.frame_len], cx)
                }
                Ok(None) => break,
                Err(close) => Err(close),
            };
            self.close_on_error(done, cx);
        }
        // [MQTT-3.1.2-22]: control packets count, not bytes
        if side == Side::Client && used > 0 {
            self.last_from_client = cx.now.instant;
        }
        used
    }

    /// The next frame, if it is whole and its time has come.
    fn next_frame(
        &mut self,
        side: Side,
        bytes: &[u8],
        cx: &Context<'_>,
    ) -> Result<Option<FixedHeader>, Close> {
        let header = codec::decode_header(bytes).map_err(|error| CloseReason::Malformed(side, error))?;
        let Some(header) = header else { return Ok(None) };
        self.check_header(side, &header, cx)?;
        if bytes.len() < header.frame_len {
            return Ok(None);
        }
        self.lane_mut(side).is_held = !self.is_time_for(side, header.packet_type, cx);
        Ok((!self.lane(side).is_held).then_some(header))
    }

    /// What is wrong with a packet by its first bytes alone, before the rest is waited for.
    fn check_header(&self, side: Side, header: &FixedHeader, cx: &Context<'_>) -> Result<(), Close> {
        let packet_type = header.packet_type;
        // what is too long for the session alone, the upstream cannot know
        let limit = match (side, self.state) {
            (Side::Client, State::AwaitingConnect) => self.packet_bytes(cx).min(MAX_CONNECT_BYTES),
            (Side::Client, _) => self.packet_bytes(cx),
            (Side::Upstream, _) => cx.endpoint.gate.limits.packet_bytes,
        };
        if header.frame_len > limit {
            return Err(CloseReason::PacketTooLarge(side, header.frame_len).into());
        }
        match (side, self.state) {
            // [MQTT-3.1.0-1]
            (Side::Client, State::AwaitingConnect) if packet_type != PacketType::Connect => {
                Err(Violation::FirstPacket(packet_type).from(side))
            }
            // [MQTT-3.1.0-2]
            (Side::Client, state)
                if packet_type == PacketType::Connect && state != State::AwaitingConnect =>
            {
                Err(Violation::SecondConnect.from(side))
            }
            // [MQTT-3.2.0-1]
            (Side::Upstream, State::AwaitingConnAck)
                if !matches!(packet_type, PacketType::ConnAck | PacketType::Auth) =>
            {
                Err(Violation::FirstPacket(packet_type).from(side))
            }
            _ if !self.may_send(side, packet_type) => Err(Violation::Direction(packet_type).from(side)),
            _ => Ok(()),
        }
    }

    /// Whether packets of this type go in this direction at all. MQTT 5.0 table 2-1
    fn may_send(&self, side: Side, packet_type: PacketType) -> bool {
        use PacketType::{
            Auth, ConnAck, Connect, Disconnect, PingReq, PingResp, PubAck, PubComp, PubRec, PubRel, Publish,
            SubAck, Subscribe, UnsubAck, Unsubscribe,
        };
        match packet_type {
            Publish | PubAck | PubRec | PubRel | PubComp => true,
            Connect | Subscribe | Unsubscribe | PingReq => side == Side::Client,
            ConnAck | SubAck | UnsubAck | PingResp => side == Side::Upstream,
            Disconnect => side == Side::Client || self.version.is_5(),
            Auth => self.has_enhanced_authentication,
        }
    }

    /// Whether a whole packet may be looked at now; otherwise it waits where it is.
    fn is_time_for(&mut self, side: Side, packet_type: PacketType, cx: &Context<'_>) -> bool {
        let early = matches!(packet_type, PacketType::Auth | PacketType::Disconnect);
        let state_allows = match self.state {
            State::AwaitingConnect | State::Open => true,
            State::AwaitingConnAck => side == Side::Upstream || early,
            State::Authorizing | State::Dialing | State::Closed => false,
        };
        let is_message = side == Side::Client && packet_type == PacketType::Publish;
        let is_early = is_message && (self.has_many_copies() || self.is_too_fast(cx));
        state_allows && self.lane(side).waiting.is_none() && !is_early
    }

    fn is_too_fast(&mut self, cx: &Context<'_>) -> bool {
        let taken = self.rate.as_mut().map_or(Ok(()), |rate| rate.take(cx.now.instant));
        let was_too_fast = std::mem::replace(&mut self.throttled_until, taken.err()).is_some();
        if let (Err(_), false, Some(client)) = (taken, was_too_fast, self.client.as_deref()) {
            cx.endpoint.gate.observer.trouble(&Trouble::Slowed { client });
        }
        taken.is_err()
    }

    fn handle_frame(
        &mut self,
        side: Side,
        header: FixedHeader,
        frame: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        match header.packet_type {
            PacketType::Connect => self.connect(frame, cx),
            PacketType::Publish => self.publish(side, frame, None, cx),
            PacketType::Subscribe => self.subscribe(frame, Verdicts::default(), None, cx),
            _ => self.handle_other(side, frame, cx),
        }
    }

    /// Packets that nobody has to be asked about: answers, and the ends of things.
    fn handle_other(&mut self, side: Side, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        let packet = codec::decode(frame, self.version).map_err(|e| CloseReason::Malformed(side, e))?;
        let is_taken = match &packet {
            Packet::ConnAck(connack) => return self.connack(connack, frame, cx),
            Packet::Disconnect(disconnect) => {
                let at = cx.out.to(side.other()).len();
                cx.out.to(side.other()).extend_from_slice(frame);
                if side == Side::Client && self.is_will_in_doubt() {
                    // it may ask for the will
                    let reason = cx.out.to_upstream.get_mut(at + header_len(frame));
                    reason.into_iter().for_each(|reason| *reason = 0);
                }
                self.report((side, frame), &packet, Fate::Passed(None), cx);
                return Err(CloseReason::disconnected(side, disconnect.reason).into());
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) | Packet::PubRec(ack) => {
                self.acknowledged(side, &packet, ack.reason, ack.packet_id);
                side == Side::Upstream && self.takes_ack(&packet, ack, frame, cx)
            }
            Packet::PubRel(ack) => self.complete_refused(side, ack.packet_id, cx),
            Packet::SubAck(suback) => {
                self.note_answered(suback.packet_id, Change::Subscribe, suback.codes, cx);
                self.merge_suback(suback, frame, cx)?
            }
            Packet::UnsubAck(unsuback) => {
                self.note_answered(unsuback.packet_id, Change::Unsubscribe, unsuback.codes, cx);
                false
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.note_unsubscribe(unsubscribe, cx);
                false
            }
            _ => false,
        };
        if !is_taken {
            cx.out.to(side.other()).extend_from_slice(frame);
        }
        self.report((side, frame), &packet, if is_taken { Fate::Taken } else { Fate::Passed(None) }, cx);
        Ok(())
    }

    /// Tells who wants to know what became of a packet.
    fn report(&self, (from, frame): (Side, &[u8]), packet: &Packet<'_>, fate: Fate<'_>, cx: &Context<'_>) {
        let Gate { observer, mirror, .. } = &cx.endpoint.gate;
        let mirror = mirror.as_ref().filter(|mirror| mirror.wants_packets());
        let is_observed = observer.wants_packets();
        if mirror.is_none() && !is_observed {
            return;
        }
        let has_credentials = matches!(packet, Packet::Connect(_) | Packet::Auth(_));
        let (client, peer, frame) = (self.client.as_deref(), self.peer.address, Some(frame));
        let frame = frame.filter(|_| !has_credentials);
        let seen = PacketSeen { client, peer, from, packet, frame, fate };
        if is_observed {
            observer.packet(&seen);
        }
        if let Some(mirror) = mirror {
            mirror.packet(&seen, cx.now);
        }
    }

    /// Tells who wants to know of a denial.
    fn report_denial(&self, action: Action, resource: &str, reason: &Reason, cx: &Context<'_>) {
        let (client, peer) = (self.client.as_deref(), self.peer.address);
        cx.tell(&SessionEvent::Denied { client, peer, action, resource, reason });
    }

    /// What a client is told in words, where the version has words and the client wants them. The packet must
    /// not be longer than the client takes. [MQTT-3.14.2-3], [MQTT-3.2.2-19]
    fn reason_string(&self, text: &'static str) -> Option<&'static str> {
        let fits = self.from_upstream.flow.maximum_packet_size > 128;
        (self.version.is_5() && self.wants_reason_strings && fits).then_some(text)
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

impl Context<'_> {
    fn tell(&self, event: &SessionEvent<'_>) {
        self.endpoint.gate.tell(event, self.now);
    }
}

impl Outbox {
    /// What is to be sent to one side.
    pub fn to(&mut self, side: Side) -> &mut Vec<u8> {
        match side {
            Side::Client => &mut self.to_client,
            Side::Upstream => &mut self.to_upstream,
        }
    }

    /// Forgets what was to be sent.
    pub fn clear(&mut self) {
        self.to_client.clear();
        self.to_upstream.clear();
    }

    /// Whether one more frame may be taken; what one frame adds is bounded by the packet limit.
    fn has_room(&self) -> bool {
        self.to_client.len() < ROOM && self.to_upstream.len() < ROOM
    }
}

/// Bytes in an outbox from which on no more frames are taken: a frame of ten bytes can become one of 64 KiB
/// when the topic behind its alias is put back in.
const ROOM: usize = 128 * 1024;

/// The longest CONNECT: nobody knows yet who sends it, and many may.
const MAX_CONNECT_BYTES: usize = 128 * 1024;
