//! What the upstream says: answers to requests, and notifications. What nobody asked for is rejected.

use std::sync::Arc;

use mgate_policies::{Outcome, Query};

use super::exchanges::{Copy, EXCHANGE_LIFETIME};
use super::observations::{Arrival, Fated};
use super::request::{Resumed, notes, qos, tell_objection};
use super::target::Observe;
use super::waiting::Question;
use super::{Context, Output, Session, is_ping};
use crate::coap::Deliveries;
use crate::coap::codec::decode;
use crate::coap::encode::encode_empty;
use crate::coap::message::{Code, Kind, Message};
use crate::gate::{Fate, SessionEvent, Side};

impl Session {
    /// Takes a message of the upstream.
    pub(super) fn take_from_upstream(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        match message.kind {
            Kind::Acknowledgement | Kind::Reset if message.code == Code::EMPTY => {
                self.upstream_answers(message, cx);
            }
            Kind::Acknowledgement => {
                let exchange = self.exchanges.find(message.id);
                if exchange.is_some_and(|it| it.open.is_some() && it.token == message.token) {
                    self.response(message.id, message, cx);
                }
            }
            _ if message.is_response() => self.separate(message, cx),
            // devices are asked nothing, and a ping needs no more than this. RFC 7252 §4.2
            _ if is_ping(message) || message.kind == Kind::Confirmable => Self::reject(message, cx),
            _ => {}
        }
    }

    /// Judges a notification and hands it to the client.
    pub(super) fn notify(&mut self, message: &Message<'_>, resumed: Resumed, cx: &mut Context<'_>) {
        let found = self.observations.iter().position(|it| it.is_confirmed && it.token == message.token);
        let Some(index) = found else {
            self.arrivals.set(message.id, Fated::Refused);
            return Self::reject(message, cx);
        };
        if cx.endpoint.options.deliveries == Deliveries::Ask && message.code.is_success() {
            match self.ask_delivery(index, message, resumed, cx) {
                Some(true) => {}
                Some(false) => {
                    self.arrivals.set(message.id, Fated::Refused);
                    return Self::acknowledge(message, cx);
                }
                None => return,
            }
        }
        self.pass_notification(index, message, cx);
    }

    /// Hands the client what the upstream answered.
    pub(super) fn pass_response(&mut self, id: u16, message: &Message<'_>, cx: &mut Context<'_>) {
        cx.out.push(Side::Client, message.bytes);
        self.last_active = cx.now.instant;
        self.arrivals.set(message.id, Fated::Passed);
        let Some(exchange) = self.exchanges.find(id) else { return };
        let Some(open) = exchange.open.take() else { return };
        let is_new = exchange.answer().is_none();
        if message.kind == Kind::Acknowledgement || is_new {
            self.exchanges.keep_answer(id, message.bytes);
        }
        let is_going_on = message.code.is_success() && message.known.observe.is_some();
        match open.observe {
            Some(Observe::Begin) if is_going_on => self.confirm_observation(message.token, cx),
            Some(_) => self.end_observations(|it| it.token == message.token, None, cx),
            None => {}
        }
        if let Ok(request) = decode(&open.request)
            && has_rest(message)
        {
            self.operations.begin_download(&request, &open.client, cx.now.instant);
        }
        self.report(Side::Upstream, message, Fate::Passed(None), cx);
    }

    /// The client's acknowledgement or rejection of something that the upstream sent.
    pub(super) fn client_answers(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        let Some(arrival) = self.arrivals.find(message.id) else { return };
        let is_rejection = message.kind == Kind::Reset;
        if arrival.fate != Fated::Passed || (!is_rejection && !arrival.is_unacknowledged) {
            return;
        }
        arrival.is_unacknowledged = false;
        let token = arrival.token;
        self.last_active = cx.now.instant;
        cx.out.push(Side::Upstream, message.bytes);
        if is_rejection {
            // RFC 7641 §3.6
            self.end_observations(|it| it.token == token, None, cx);
        }
        self.report(Side::Client, message, Fate::Passed(None), cx);
    }

    /// An empty answer: the response comes apart, or not at all.
    fn upstream_answers(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        let Some(exchange) = self.exchanges.find(message.id) else { return };
        let (token, is_confirmable) = (exchange.token, exchange.is_confirmable);
        let Some(open) = exchange.open.as_deref_mut() else { return };
        if message.kind == Kind::Reset {
            exchange.open = None;
            self.forget_unconfirmed(token);
        } else if is_confirmable && !open.is_acknowledged {
            open.is_acknowledged = true;
            open.deadline = cx.now.instant + EXCHANGE_LIFETIME;
        } else {
            return;
        }
        cx.out.push(Side::Client, message.bytes);
        self.exchanges.keep_answer(message.id, message.bytes);
        self.report(Side::Upstream, message, Fate::Passed(None), cx);
    }

    /// A response with a message of its own: the answer to a request, or a notification; or one of them again.
    fn separate(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        if let Some(fate) = self.arrivals.came_before(message) {
            match fate {
                Fated::Held => {}
                Fated::Passed if message.kind == Kind::Confirmable => {
                    cx.out.push(Side::Client, message.bytes);
                }
                Fated::Passed => {}
                Fated::Refused => Self::acknowledge(message, cx),
            }
            return;
        }
        self.arrivals.add(Arrival::of(message, cx.now.instant));
        if let Some(id) = self.exchanges.find_open(message.token).map(|exchange| exchange.id) {
            self.response(id, message, cx);
        } else if self.from_upstream.is_busy() {
            self.from_upstream.queue(message.bytes);
        } else {
            self.notify(message, None, cx);
        }
    }

    /// The answer to a request that is open; it waits for the copy of what was sent.
    fn response(&mut self, id: u16, message: &Message<'_>, cx: &mut Context<'_>) {
        let open = self.exchanges.find(id).and_then(|exchange| exchange.open.as_deref_mut());
        match open {
            Some(open) if open.copy == Copy::Storing && message.code.is_success() => {
                open.held = Some(message.bytes.into());
                // from now on the mirror is waited for, which has its own time
                open.deadline = cx.now.instant + EXCHANGE_LIFETIME;
            }
            Some(_) => self.pass_response(id, message, cx),
            None => {}
        }
    }

    /// Whether a notification may pass; `None` if that takes time.
    fn ask_delivery(
        &mut self,
        index: usize,
        message: &Message<'_>,
        resumed: Resumed,
        cx: &mut Context<'_>,
    ) -> Option<bool> {
        let observation = &self.observations[index];
        let client = Arc::clone(&observation.client);
        let Some((action, resource)) = observation.target.delivery() else { return Some(false) };
        let payload = if has_rest(message) { b"" } else { message.payload };
        let query = Query { client: &client, action, resource, payload, qos: qos(message), retain: false };
        let policies = &cx.endpoint.gate.policies;
        let outcome = match resumed {
            Some((suspended, decision)) => policies.resume(suspended, decision, &query, cx.now),
            None => policies.evaluate(&query, cx.now),
        };
        match outcome {
            Outcome::Allowed(_, objection) => {
                tell_objection(&client, &observation.target, objection.as_deref(), cx);
                Some(true)
            }
            Outcome::Denied(reason) => {
                let (client, peer, resource) = (Some(&*client), self.peer.address, observation.target.name());
                cx.tell(&SessionEvent::Denied { client, peer, action, resource, reason: &reason });
                self.report(Side::Upstream, message, Fate::Denied(&reason), cx);
                Some(false)
            }
            Outcome::Pending(suspended, future) => {
                self.wait(Side::Upstream, message.bytes, Question::Policies(suspended), cx);
                self.outputs.push_back(Output::Decide(Side::Upstream, future));
                None
            }
        }
    }

    fn pass_notification(&mut self, index: usize, message: &Message<'_>, cx: &mut Context<'_>) {
        cx.out.push(Side::Client, message.bytes);
        self.arrivals.set(message.id, Fated::Passed);
        self.last_active = cx.now.instant;
        let observation = &self.observations[index];
        let mirror = cx.endpoint.gate.mirror.as_ref().filter(|mirror| mirror.wants_deliveries());
        if let (Some(mirror), Some((action, _))) = (mirror, observation.target.delivery()) {
            // nobody acknowledges it to anybody who could wait
            let _ = mirror.message(&crate::gate::Message {
                client: &observation.client,
                action,
                now: cx.now,
                topic: observation.target.name(),
                payload: message.payload,
                qos: qos(message),
                retain: false,
                is_acknowledged: false,
                notes: notes(message),
            });
        }
        if has_rest(message)
            && let Ok(request) = decode(&observation.request)
        {
            self.operations.begin_download(&request, &observation.client, cx.now.instant);
        }
        self.report(Side::Upstream, message, Fate::Passed(None), cx);
        // RFC 7641 §3.2, §4.2
        if !message.code.is_success() || message.known.observe.is_none() {
            self.end_observations(|it| it.token == message.token, None, cx);
        }
    }

    /// Says that nobody here knows what that was about.
    fn reject(message: &Message<'_>, cx: &mut Context<'_>) {
        cx.out.write(Side::Upstream, |out| encode_empty(Kind::Reset, message.id, out));
    }
}

/// Whether the client will ask for the rest of a body.
fn has_rest(message: &Message<'_>) -> bool {
    message.code.is_success() && message.known.block2.is_some_and(|block| block.has_more)
}
