//! What passes between the two sides of a WebSocket.
//!
//! A message goes on when it is whole and all policies allowed it. Until then nothing more is taken of its side, and
//! nothing is taken where the other side has too much to read already.

mod half;
mod time;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use mgate_policies::{
    Action, BoxFuture, Cause, Client, Decision, Now, Outcome, Query, Reason, Resource, TopicName,
};

use self::half::{Half, Waiting};
use super::close::Close;
use super::frame::{Mask, Opcode, encode};
use super::reader::{Event, Message, Reader};
use crate::gate::{self, Blame, Fate, Notes, PacketSeen, SessionEvent, Side};
use crate::http::Endpoint;

/// What a session looks at in each call.
pub struct Context<'a> {
    /// What the sessions of its route share.
    pub endpoint: &'a Endpoint,
    /// When the call is made.
    pub now: Now,
}

/// One WebSocket between a client and the upstream.
pub struct Session {
    client: Arc<Client>,
    /// What messages of both sides are asked about as.
    topic: Box<str>,
    halves: [Half; 2],
    masks: RandomState,
    /// Of masks and pings.
    count: u64,
    /// When it is over, once somebody closed it.
    until: Option<Instant>,
    /// Whether it was closed here: whatever comes after that goes nowhere.
    is_ended: bool,
    is_reported: bool,
}

impl Session {
    /// A WebSocket of `client` that was just opened on both sides.
    pub fn new(client: Arc<Client>, topic: Box<str>, cx: &Context<'_>) -> Self {
        cx.endpoint.gate.tell(&SessionEvent::Opened(&client), cx.now);
        let max_bytes = cx.endpoint.gate.limits.packet_bytes;
        let halves =
            [Side::Client, Side::Upstream].map(|side| Half::new(Reader::new(side, max_bytes), cx.now));
        let masks = RandomState::new();
        Self { client, topic, halves, masks, count: 0, until: None, is_ended: false, is_reported: false }
    }

    /// Takes what came from one side.
    pub fn take(&mut self, from: Side, bytes: &[u8], cx: &Context<'_>) {
        let half = self.half_mut(from);
        (half.heard, half.is_probed) = (cx.now.instant, false);
        half.unread.extend_from_slice(bytes);
        if self.is_ended {
            self.count_late(from, bytes.len());
        }
        self.go_on(from, cx);
    }

    /// Takes note that the connection of one side broke, or ended.
    pub fn lose(&mut self, side: Side, cx: &Context<'_>) {
        self.gone(side, "the connection ended without a close", cx);
    }

    /// Goes on with the message of one side that waited for this.
    pub fn decided(&mut self, from: Side, decision: Decision, cx: &Context<'_>) {
        match self.half_mut(from).waiting.take() {
            Some(Waiting::Decision(message, suspended)) => {
                let outcome = match self.query(from, &message) {
                    Ok(query) => cx.endpoint.gate.policies.resume(suspended, decision, &query, cx.now),
                    Err(reason) => Outcome::Denied(reason),
                };
                self.heed(from, message, outcome, cx);
                self.half_mut(from).heard = cx.now.instant;
                self.go_on(from, cx);
            }
            other => self.half_mut(from).waiting = other,
        }
    }

    /// Asks again about what waits: rights changed, and what was answered to a question from before means nothing.
    pub fn reauthorize(&mut self, cx: &Context<'_>) {
        for from in SIDES {
            if let Some(Waiting::Decision(message, _)) =
                self.half_mut(from).waiting.take_if(|waiting| matches!(waiting, Waiting::Decision(..)))
            {
                self.half_mut(from).question = None;
                self.ask(from, message, cx);
                self.go_on(from, cx);
            }
        }
    }

    /// Ends it: its client may no longer have it.
    pub fn revoke(&mut self, cause: Cause, cx: &Context<'_>) {
        let close = Close::from(cause);
        self.end([close.clone(), close], "its client may no longer have it", Blame::Client, cx);
    }

    /// Ends it: everything ends.
    pub fn drain(&mut self, cx: &Context<'_>) {
        self.end([Close::GOING_AWAY, Close::GOING_AWAY], "the gateway stops", Blame::Nobody, cx);
    }

    /// Takes note that a side took so many bytes of [`Session::unsent`].
    pub fn sent(&mut self, to: Side, count: usize, cx: &Context<'_>) {
        let was_blocked = self.is_blocked(to.other());
        let half = self.half_mut(to);
        half.unsent.advance(count);
        half.stalled_since = cx.now.instant;
        if half.unsent.is_empty() {
            half.unsent = BytesMut::new();
        }
        if was_blocked {
            // nobody listened to what it said meanwhile
            let half = self.half_mut(to.other());
            (half.heard, half.begun) = (cx.now.instant, half.begun.map(|_| cx.now.instant));
        }
        self.go_on(to.other(), cx);
    }

    /// A decision that the message of one side waits for, and until when; once.
    pub fn question(&mut self, from: Side) -> Option<(BoxFuture<'static, Decision>, Instant)> {
        let half = self.half_mut(from);
        half.question.take().zip(half.decided_by)
    }

    /// Whether the answer to an earlier question is still waited for.
    pub fn is_asking(&self, from: Side) -> bool {
        let half = self.half(from);
        half.question.is_none() && matches!(half.waiting, Some(Waiting::Decision(..)))
    }

    /// What a side is to be sent.
    pub fn unsent(&self, to: Side) -> &[u8] {
        &self.half(to).unsent
    }

    /// Whether more may come from a side.
    pub fn wants(&self, from: Side) -> bool {
        let half = self.half(from);
        !half.is_gone && !half.has_closed && !self.is_blocked(from)
    }

    /// Whether a side heard the last word: its connection may end.
    pub fn is_done(&self, side: Side) -> bool {
        self.half(side).is_done()
    }

    fn is_over(&self) -> bool {
        self.halves.iter().all(Half::is_done)
    }

    /// Takes of one side what can be taken now.
    fn go_on(&mut self, from: Side, cx: &Context<'_>) {
        while !self.is_blocked(from) && !self.half(from).unread.is_empty() {
            let half = self.half_mut(from);
            if half.has_closed || half.is_gone {
                half.unread.clear();
                break;
            }
            match half.reader.next(&mut half.unread) {
                Ok(None) => break,
                Ok(Some(event)) => self.heed_event(from, event, cx),
                Err(_) if self.is_ended => self.half_mut(from).has_closed = true,
                Err(close) => self.violated(from, close, cx),
            }
        }
        let half = self.half_mut(from);
        let is_within_message = half.reader.is_within_message();
        half.begun = is_within_message.then(|| half.begun.unwrap_or(cx.now.instant));
        if half.unread.is_empty() {
            half.unread = BytesMut::new();
        }
    }

    /// Counts what comes after the end, where only a close means something: nobody must read it for ever.
    fn count_late(&mut self, from: Side, count: usize) {
        let half = self.half_mut(from);
        half.late_bytes += count;
        half.has_closed |= half.late_bytes > ROOM;
    }

    fn heed_event(&mut self, from: Side, event: Event, cx: &Context<'_>) {
        match event {
            Event::Close(close) => self.closed(from, &close, cx),
            _ if self.is_ended => {}
            Event::Message(message) => {
                self.half_mut(from).begun = None;
                self.judge(from, message, cx);
            }
            Event::Ping(payload) => self.ping(from, payload, cx),
            Event::Pong(payload) => self.pong(from, &payload, cx),
        }
    }

    /// Asks about a message when its turn has come.
    fn judge(&mut self, from: Side, message: Message, cx: &Context<'_>) {
        match self.take_turn(from, cx) {
            Ok(()) => self.ask(from, message, cx),
            Err(until) => self.half_mut(from).waiting = Some(Waiting::Turn(message, until)),
        }
    }

    /// What clients send is counted; or says when it may come.
    fn take_turn(&self, from: Side, cx: &Context<'_>) -> Result<(), Instant> {
        match cx.endpoint.gate.limits.messages_per_second {
            Some(per_second) if from == Side::Client => {
                cx.endpoint.rates.take_or_wait(&self.client, per_second, cx.now.instant)
            }
            _ => Ok(()),
        }
    }

    fn ask(&mut self, from: Side, message: Message, cx: &Context<'_>) {
        self.half_mut(from).decided_by = None;
        let outcome = match self.query(from, &message) {
            Ok(query) => cx.endpoint.gate.policies.evaluate(&query, cx.now),
            Err(reason) => Outcome::Denied(reason),
        };
        self.heed(from, message, outcome, cx);
    }

    fn query<'a>(&'a self, from: Side, message: &'a Message) -> Result<Query<'a>, Reason> {
        let topic = TopicName::parse(&self.topic).map_err(|_| Reason::new(Cause::NotAuthorized))?;
        let (client, action, resource) = (&*self.client, action_of(from), Resource::Topic(topic));
        Ok(Query { client, action, resource, payload: &message.payload, qos: 0, retain: false })
    }

    fn heed(&mut self, from: Side, message: Message, outcome: Outcome, cx: &Context<'_>) {
        match outcome {
            Outcome::Allowed(grant, objection) => {
                if let Some(objection) = &objection {
                    let (client, action, resource) = (&*self.client, action_of(from), &*self.topic);
                    let event = SessionEvent::WouldBeDenied { client, action, resource, objection };
                    cx.endpoint.gate.tell(&event, cx.now);
                }
                self.tell(from, &message, Fate::Passed(grant.by.as_deref()), cx);
                self.pass(from, &message, cx);
            }
            Outcome::Denied(reason) => self.deny(from, &message, &reason, cx),
            Outcome::Pending(suspended, future) => {
                self.tell(from, &message, Fate::Held, cx);
                let half = self.half_mut(from);
                half.waiting = Some(Waiting::Decision(message, suspended));
                half.question = Some(future);
                // one for all policies that are to decide
                half.decided_by.get_or_insert(cx.now.instant + cx.endpoint.gate.limits.decision_timeout);
            }
        }
    }

    fn pass(&mut self, from: Side, message: &Message, cx: &Context<'_>) {
        let opcode = if message.is_text { Opcode::Text } else { Opcode::Binary };
        if !self.send(from.other(), opcode, &message.payload, cx) {
            return;
        }
        let mirror = cx.endpoint.gate.mirror.as_ref();
        let Some(mirror) = mirror.filter(|mirror| from == Side::Client || mirror.wants_deliveries()) else {
            return;
        };
        // a message that nobody acknowledges keeps nobody waiting
        let _ = mirror.message(&gate::Message {
            client: &self.client,
            action: action_of(from),
            now: cx.now,
            topic: &self.topic,
            payload: &message.payload,
            qos: 0,
            retain: false,
            is_acknowledged: false,
            notes: Notes::default(),
        });
    }

    fn deny(&mut self, from: Side, message: &Message, reason: &Reason, cx: &Context<'_>) {
        self.tell(from, message, Fate::Denied(reason), cx);
        let (client, action, resource) = (Some(&*self.client), action_of(from), &*self.topic);
        let denied = SessionEvent::Denied { client, peer: self.client.peer, action, resource, reason };
        cx.endpoint.gate.tell(&denied, cx.now);
        let close = Close::from(reason.cause);
        self.end([close.clone(), close], "a message was denied", blame(from), cx);
    }

    /// Passes a ping on under a number: what it carries nobody was asked about.
    fn ping(&mut self, from: Side, payload: Bytes, cx: &Context<'_>) {
        // RFC 6455 §5.5.3: not every ping must be answered
        if self.take_turn(from, cx).is_err() {
            return;
        }
        let number = self.next_number();
        let other = self.half_mut(from.other());
        if other.pings.len() == MAX_PINGS {
            other.pings.pop_front();
        }
        other.pings.push_back((number, payload));
        self.send(from.other(), Opcode::Ping, &number.to_be_bytes(), cx);
    }

    /// Answers the pings that were passed on up to this one.
    fn pong(&mut self, from: Side, payload: &Bytes, cx: &Context<'_>) {
        let Ok(number) = payload[..].try_into().map(u64::from_be_bytes) else { return };
        let is_answered = |ping: &mut (u64, Bytes)| ping.0 <= number;
        while let Some((_, payload)) = self.half_mut(from).pings.pop_front_if(is_answered) {
            self.send(from.other(), Opcode::Pong, &payload, cx);
        }
    }

    /// Passes a close on without its reason, about which nobody was asked; the answer to it comes from the other side.
    fn closed(&mut self, from: Side, close: &Close, cx: &Context<'_>) {
        self.half_mut(from).has_closed = true;
        self.until.get_or_insert(cx.now.instant + CLOSING);
        let code = close.code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
        self.report(&format_args!("the {from} closed it with {code}"), Blame::Nobody, cx);
        let without_reason = Close { reason: Bytes::new(), ..*close };
        self.send_close(from.other(), &without_reason, cx);
    }

    /// Ends it by the fault of one side, which is told what that is.
    fn violated(&mut self, from: Side, close: Close, cx: &Context<'_>) {
        let why = format!("the {from} broke the rules: {}", String::from_utf8_lossy(&close.reason));
        let closes = match from {
            Side::Client => [close, Close::GOING_AWAY],
            Side::Upstream => [Close::BAD_GATEWAY, close],
        };
        self.end(closes, &why, blame(from), cx);
        let half = self.half_mut(from);
        half.has_closed = true;
        half.unread.clear();
    }

    fn gone(&mut self, side: Side, why: &str, cx: &Context<'_>) {
        let is_told = self.half(side.other()).is_told;
        let half = self.half_mut(side);
        half.is_gone = true;
        half.unsent = BytesMut::new();
        half.unread = BytesMut::new();
        if !is_told {
            self.end([Close::BAD_GATEWAY, Close::GOING_AWAY], &format!("{side}: {why}"), blame(side), cx);
        }
    }

    /// Ends it here, with what the client and the upstream are told.
    fn end(&mut self, closes: [Close; 2], why: &str, blame: Blame, cx: &Context<'_>) {
        if self.is_ended {
            return;
        }
        self.is_ended = true;
        self.until = Some(cx.now.instant + CLOSING);
        self.report(&why, blame, cx);
        for (side, close) in SIDES.into_iter().zip(closes) {
            let half = self.half_mut(side);
            half.question = None;
            if let Some(Waiting::Decision(message, _)) = half.waiting.take() {
                let reason = Reason::with_detail(Cause::Unavailable, "the WebSocket ended before");
                self.tell(side, &message, Fate::Denied(&reason), cx);
            }
            self.send_close(side, &close, cx);
        }
        for side in SIDES {
            self.go_on(side, cx);
        }
    }

    fn send_close(&mut self, to: Side, close: &Close, cx: &Context<'_>) {
        self.send(to, Opcode::Close, &close.payload(), cx);
        self.half_mut(to).is_told = true;
    }

    /// Says whether the side can still be sent anything.
    fn send(&mut self, to: Side, opcode: Opcode, payload: &[u8], cx: &Context<'_>) -> bool {
        let half = self.half(to);
        if half.is_told || half.is_gone {
            return false;
        }
        // RFC 6455 §5.3: nobody can foresee a mask
        let mask = (to == Side::Upstream).then(|| {
            let number = self.next_number();
            let [a, b, c, d, ..] = self.masks.hash_one(number).to_be_bytes();
            Mask([a, b, c, d])
        });
        let half = self.half_mut(to);
        if half.unsent.is_empty() {
            half.stalled_since = cx.now.instant;
        }
        encode(opcode, payload, mask, &mut half.unsent);
        true
    }

    fn is_blocked(&self, from: Side) -> bool {
        let is_full = self.half(from.other()).unsent.len() >= ROOM;
        !self.is_ended && (self.half(from).waiting.is_some() || is_full)
    }

    fn next_number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn half(&self, side: Side) -> &Half {
        &self.halves[side as usize]
    }

    fn half_mut(&mut self, side: Side) -> &mut Half {
        &mut self.halves[side as usize]
    }

    fn tell(&self, from: Side, message: &Message, fate: Fate<'_>, cx: &Context<'_>) {
        let observer = &cx.endpoint.gate.observer;
        if observer.wants_packets() {
            let (client, peer) = (Some(&*self.client), self.client.peer);
            observer.packet(&PacketSeen { client, peer, from, packet: message, frame: None, fate });
        }
    }

    fn report(&mut self, why: &dyn fmt::Display, blame: Blame, cx: &Context<'_>) {
        if !std::mem::replace(&mut self.is_reported, true) {
            let (client, peer) = (Some(&*self.client), self.client.peer);
            cx.endpoint.gate.tell(&SessionEvent::Closed { client, peer, why, blame, is_told: false }, cx.now);
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_text { "text" } else { "binary" };
        write!(f, "WebSocket {kind} of {} bytes", self.payload.len())
    }
}

fn action_of(from: Side) -> Action {
    match from {
        Side::Client => Action::Publish,
        Side::Upstream => Action::Deliver,
    }
}

fn blame(side: Side) -> Blame {
    match side {
        Side::Client => Blame::Client,
        Side::Upstream => Blame::Upstream,
    }
}

/// In the order of [`Session::halves`].
const SIDES: [Side; 2] = [Side::Client, Side::Upstream];
/// What may wait for one side before the other is no longer read.
const ROOM: usize = 64 * 1024;
/// Pings that wait for an answer; older ones get none. RFC 6455 §5.5.3
const MAX_PINGS: usize = 16;
/// Time for a close to be answered.
const CLOSING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
