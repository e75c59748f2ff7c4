//! What the upstream says: answers to requests, and notifications. What nobody asked for is rejected.

use std::sync::Arc;
use std::time::Instant;

use mgate_policies::{Action, Client, Outcome, Query};

use super::answer::code_of;
use super::exchanges::{Copy, EXCHANGE_LIFETIME, Open};
use super::observations::{Ender, Fated, Observation};
use super::request::{Resumed, tell_objection, until};
use super::shown::{notes, qos};
use super::target::{Observe, Target};
use super::waiting::Question;
use super::{Context, Output, Session, is_ping};
use crate::coap::Deliveries;
use crate::coap::encode::encode_empty;
use crate::coap::message::{Code, Kind, Message};
use crate::gate::{Fate, SessionEvent, Side};

impl Session {
    /// Takes a message of the upstream.
    pub(super) fn take_from_upstream(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        self.heard_at = cx.now.instant;
        match message.kind {
            Kind::Acknowledgement | Kind::Reset if message.code == Code::EMPTY => {
                self.upstream_answers(message, cx);
            }
            Kind::Acknowledgement if self.answered_by(message).is_some() => self.take_response(message, cx),
            Kind::Acknowledgement => {}
            _ if message.is_response() => self.separate(message, cx),
            // devices are asked nothing, and a ping needs no more than this. RFC 7252 §4.2
            _ if is_ping(message) || message.kind == Kind::Confirmable => Self::reject(message, cx),
            _ => {}
        }
    }

    /// Judges a notification, the first of an observation among them, and hands it to the client.
    pub(super) fn notify(&mut self, message: &Message<'_>, resumed: Resumed, cx: &mut Context<'_>) {
        let answered = self.answered_by(message);
        if answered.is_none() && message.kind == Kind::Acknowledgement {
            // what it answered is over by now
            return;
        }
        if let Some(id) = answered.filter(|_| resumed.is_none())
            && !self.is_delivery(id, message)
        {
            return self.response(id, message, cx);
        }
        let Some(told) = self.told(message, answered) else {
            self.arrivals.set(message, Fated::Refused);
            return Self::reject(message, cx);
        };
        let mut until = told.until;
        if cx.endpoint.options.deliveries == Deliveries::Ask && message.code.is_success() {
            match self.ask_delivery(&told, message, resumed, cx) {
                Asked::Allowed(grant) => until = [until, grant].into_iter().flatten().min(),
                Asked::Denied(code) => return self.refuse((&told, answered), message, code, cx),
                Asked::Pending => return answered.map_or((), |id| self.extend(id, cx)),
            }
        }
        // what went wrong at the upstream is no message
        if message.code.is_success() {
            told.copy(message, cx);
        }
        match answered {
            Some(id) => self.pass_response(id, message, until, cx),
            None => self.pass_notification(message, until, cx),
        }
    }

    /// Hands the client what the upstream answered. The rest of it may be fetched until then.
    pub(super) fn pass_response(
        &mut self,
        id: u16,
        message: &Message<'_>,
        until: Option<Instant>,
        cx: &mut Context<'_>,
    ) {
        cx.out.push(Side::Client, message.bytes);
        self.last_active = cx.now.instant;
        self.arrivals.set(message, Fated::Passed);
        let Some(open) = self.exchanges.close(id) else { return };
        let is_new = self.exchanges.find(id).is_some_and(|exchange| exchange.answer().is_none());
        if message.kind == Kind::Acknowledgement || is_new {
            self.exchanges.keep_answer(id, message.bytes);
        }
        match open.target.observe {
            Some(Observe::Begin) if is_going_on(message) => self.confirm_observation(message.token, cx),
            Some(_) => self.end_observations(|it| it.token == message.token, Ender::Upstream, cx),
            None => {}
        }
        if has_rest(message) {
            self.operations.begin_download(open.key(), open.client, until, cx.now.instant);
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
        let token = arrival.token;
        self.arrivals.acknowledge(message.id);
        self.last_active = cx.now.instant;
        cx.out.push(Side::Upstream, message.bytes);
        if is_rejection {
            // RFC 7641 §3.6
            self.end_observations(|it| it.token == token, Ender::Client, cx);
        }
        self.report(Side::Client, message, Fate::Passed(None), cx);
    }

    /// An empty answer: the response comes apart, or not at all.
    fn upstream_answers(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        let Some(open) = self.exchanges.find_open(message.id) else { return };
        let (token, is_begin) = (open.token, open.is_begin());
        if message.kind == Kind::Reset {
            self.exchanges.close(message.id);
            if is_begin {
                self.forget_unconfirmed(token, Ender::Upstream, cx);
            }
        } else if open.is_confirmable && !open.is_acknowledged {
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
        self.take_response(message, cx);
    }

    /// Takes a response that came for the first time. What is to be judged waits for its turn.
    fn take_response(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        let answered = self.answered_by(message);
        let is_judged = answered.is_none_or(|id| self.is_delivery(id, message));
        let must_wait = self.from_upstream.is_busy() || self.must_wait_for_review(message, cx);
        if is_judged && must_wait {
            if self.from_upstream.queue(message.bytes) {
                self.arrivals.add(message, cx.now.instant);
                answered.into_iter().for_each(|id| self.extend(id, cx));
            }
            return;
        }
        self.arrivals.add(message, cx.now.instant);
        self.notify(message, None, cx);
    }

    /// The request that a message answers. What has to do with an observation answers only who asked for one, and
    /// no acknowledgement stands for another request than its own. RFC 7641 §3.2
    pub(super) fn answered_by(&mut self, message: &Message<'_>) -> Option<u16> {
        if message.kind == Kind::Acknowledgement {
            let open = self.exchanges.find_open(message.id).filter(|open| open.held.is_none());
            return open.filter(|open| open.token == message.token).map(|open| open.id);
        }
        let is_observed = self.observations.iter().any(|it| it.token == message.token && it.is_confirmed);
        let may = |open: &Open| match message.known.observe {
            // to what was asked for again, the answer is the acknowledgement
            Some(_) => open.is_begin() && (!is_observed || !open.is_confirmable || open.is_acknowledged),
            None => true,
        };
        self.exchanges.find_by_token(message.token, may)
    }

    /// Whether the answer to a request tells what notifications tell: policies are asked about it as about these.
    fn is_delivery(&mut self, id: u16, message: &Message<'_>) -> bool {
        let is_told = |open: &Open| {
            let is_subscriber = open.target.action == Action::Subscribe && !open.target.is_rest;
            open.is_begin() || is_subscriber
        };
        message.code.is_success()
            && !message.payload.is_empty()
            && self.exchanges.find_open(id).is_some_and(|open| is_told(open))
    }

    /// Who is told something by a message of the upstream: who asked for it, or who observes it.
    fn told(&mut self, message: &Message<'_>, answered: Option<u16>) -> Option<Told> {
        if let Some(id) = answered {
            let open = self.exchanges.find_open(id)?;
            return Some(Told {
                client: Arc::clone(&open.client),
                target: Arc::clone(&open.target),
                key: open.key(),
                until: open.until,
            });
        }
        let found = self.observations.iter().find(|it| it.is_confirmed && it.token == message.token)?;
        Some(Told {
            client: Arc::clone(&found.client),
            target: Arc::clone(&found.target),
            key: found.key.clone(),
            until: found.until,
        })
    }

    /// The answer to a request that is open; it waits for the copy of what was sent, and until there is no doubt that
    /// the client may still hear it.
    pub(super) fn response(&mut self, id: u16, message: &Message<'_>, cx: &mut Context<'_>) {
        match self.exchanges.find_open(id) {
            Some(open) if open.is_doubted || open.copy == Copy::Storing && message.code.is_success() => {
                open.held = Some(message.bytes.into());
                // from now on mirror and policies are waited for, which have their own time
                open.deadline = cx.now.instant + EXCHANGE_LIFETIME;
            }
            Some(open) => {
                let until = open.until;
                self.pass_response(id, message, until, cx);
            }
            None => {}
        }
    }

    /// Whether a notification may pass.
    fn ask_delivery(
        &mut self,
        Told { client, target, .. }: &Told,
        message: &Message<'_>,
        resumed: Resumed,
        cx: &mut Context<'_>,
    ) -> Asked {
        let Some((action, resource)) = target.delivery() else {
            return Asked::Denied(Code::FORBIDDEN);
        };
        let payload = if has_rest(message) { b"" } else { message.payload };
        let query = Query { client, action, resource, payload, qos: qos(message), retain: false };
        let policies = &cx.endpoint.gate.policies;
        let outcome = match resumed {
            Some((suspended, decision)) => policies.resume(suspended, decision, &query, cx.now),
            None => policies.evaluate(&query, cx.now),
        };
        match outcome {
            Outcome::Allowed(grant, objection) => {
                tell_objection(client, target, objection.as_deref(), cx);
                Asked::Allowed(until(grant.ttl, cx))
            }
            Outcome::Denied(reason) => {
                let (client, peer, resource) = (Some(&**client), self.peer.address, target.name());
                cx.tell(&SessionEvent::Denied { client, peer, action, resource, reason: &reason });
                self.report(Side::Upstream, message, Fate::Denied(&reason), cx);
                Asked::Denied(code_of(reason.cause))
            }
            Outcome::Pending(suspended, future) => {
                self.wait(Side::Upstream, message.bytes, Question::Policies(suspended), cx);
                self.outputs.push_back(Output::Decide(Side::Upstream, future));
                Asked::Pending
            }
        }
    }

    /// Gives a request more time, as the upstream has answered it and a decision is waited for.
    fn extend(&mut self, id: u16, cx: &Context<'_>) {
        // others may be asked about before it
        let patience = EXCHANGE_LIFETIME.max(cx.endpoint.gate.limits.decision_timeout);
        let until = cx.now.instant + patience;
        let open = self.exchanges.find_open(id);
        open.into_iter().for_each(|open| open.deadline = open.deadline.max(until));
    }

    /// Keeps a notification from the client; the upstream need not know.
    fn refuse(
        &mut self,
        (told, answered): (&Told, Option<u16>),
        message: &Message<'_>,
        code: Code,
        cx: &mut Context<'_>,
    ) {
        self.arrivals.set(message, Fated::Refused);
        Self::acknowledge(message, cx);
        self.operations.end_download(&told.key);
        match answered {
            Some(id) => self.withhold(id, message, code, cx),
            None if is_going_on(message) => {}
            // it was the last one, which is all that the client may know of it
            None => {
                let ender = Ender::Gateway(Some(code));
                self.end_observations(|it| it.token == message.token, ender, cx);
            }
        }
    }

    /// The first notification is not for the client. Its request is acknowledged, and answered by the first that is; if
    /// no more will come, it is denied.
    fn withhold(&mut self, id: u16, message: &Message<'_>, code: Code, cx: &mut Context<'_>) {
        if !is_going_on(message) {
            self.end_observations(|it| it.token == message.token, Ender::Upstream, cx);
            return self.reply(id, code.into(), 0, cx);
        }
        self.confirm_observation(message.token, cx);
        let Some(open) = self.exchanges.close(id) else { return };
        if open.is_confirmable && !open.is_acknowledged {
            let mut answer = Vec::new();
            encode_empty(Kind::Acknowledgement, id, &mut answer);
            cx.out.push(Side::Client, &answer);
            self.exchanges.keep_answer(id, &answer);
        }
    }

    fn pass_notification(&mut self, message: &Message<'_>, until: Option<Instant>, cx: &mut Context<'_>) {
        cx.out.push(Side::Client, message.bytes);
        self.arrivals.set(message, Fated::Passed);
        self.last_active = cx.now.instant;
        let found = self.observations.iter().find(|it| it.token == message.token);
        if let Some(Observation { key, client, .. }) = found.filter(|_| has_rest(message)) {
            self.operations.begin_download(key.clone(), Arc::clone(client), until, cx.now.instant);
        }
        self.report(Side::Upstream, message, Fate::Passed(None), cx);
        if !is_going_on(message) {
            self.end_observations(|it| it.token == message.token, Ender::Upstream, cx);
        }
    }

    /// Says that nobody here knows what that was about.
    fn reject(message: &Message<'_>, cx: &mut Context<'_>) {
        cx.out.write(Side::Upstream, |out| encode_empty(Kind::Reset, message.id, out));
    }
}

/// Who is told something, of what, and until when what allowed that is good.
struct Told {
    client: Arc<Client>,
    target: Arc<Target>,
    /// What the request has in common with those for the rest of it.
    key: Box<[u8]>,
    until: Option<Instant>,
}

impl Told {
    /// Gives the mirror its copy of what is told.
    fn copy(&self, message: &Message<'_>, cx: &Context<'_>) {
        let mirror = cx.endpoint.gate.mirror.as_ref().filter(|mirror| mirror.wants_deliveries());
        if let (Some(mirror), Some((action, _))) = (mirror, self.target.delivery()) {
            // nobody acknowledges it to anybody who could wait
            let _ = mirror.message(&crate::gate::Message {
                client: &self.client,
                action,
                now: cx.now,
                topic: self.target.name(),
                payload: message.payload,
                qos: qos(message),
                retain: false,
                is_acknowledged: false,
                notes: notes(message),
            });
        }
    }
}

/// Whether a policy lets a notification pass.
enum Asked {
    /// It does; what follows from it has to be asked again then.
    Allowed(Option<Instant>),
    /// It does not; what the client hears if it waits for it.
    Denied(Code),
    Pending,
}

/// Whether notifications follow. RFC 7641 §3.2, §4.2
fn is_going_on(message: &Message<'_>) -> bool {
    message.code.is_success() && message.known.observe.is_some()
}

/// Whether the client will ask for the rest of a body.
fn has_rest(message: &Message<'_>) -> bool {
    message.code.is_success() && message.known.block2.is_some_and(|block| block.has_more)
}
