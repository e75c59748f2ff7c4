//! What a client observes, and what it waits for the answer of, is asked about again when rights change.

use std::sync::Arc;
use std::time::Instant;

use mgate_policies::{BoxFuture, Client, Decision, Outcome, Query, Reason, Suspended};

use super::answer::code_of;
use super::observations::Ender;
use super::request::{Resumed, until};
use super::shown::{judged_payload, qos};
use super::target::Target;
use super::{Context, Output, Session};
use crate::coap::Deliveries;
use crate::coap::codec::decode;
use crate::coap::message::{Message, Token};
use crate::gate::{SessionEvent, Side, no_decision_in_time};

/// A review that goes on.
#[derive(Default)]
pub(super) struct Review {
    /// What is still to be asked about.
    rest: Vec<Subject>,
    /// What is being asked about, where somebody needs time for it.
    asked: Option<(Subject, Suspended, Instant)>,
    /// What was being asked about when rights changed once more, and until when: it gets no more time by that.
    interrupted: Option<(Subject, Instant)>,
}

/// What is asked about again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Observation(Token),
    /// By its message identifier, if it is still in doubt.
    Request(u16),
}

impl Review {
    fn interrupted(self) -> Option<(Subject, Instant)> {
        self.asked.map(|(subject, _, until)| (subject, until)).or(self.interrupted)
    }
}

impl Session {
    /// Everything is asked for again: who the client is, what waits, what the upstream has yet to answer, what is
    /// observed. What was allowed of a body counts no longer.
    pub(super) fn reauthorize(&mut self, cx: &mut Context<'_>) {
        self.identity = None;
        self.operations.clear();
        for open in self.exchanges.open_mut() {
            // nothing more follows from what was allowed before
            open.until = Some(cx.now.instant);
            open.is_doubted = true;
        }
        self.observations.iter_mut().for_each(|it| it.until = Some(cx.now.instant));
        let observed = self.observations.iter().map(|it| Subject::Observation(it.token));
        // from the end on: who waits for an answer comes first, and the oldest of them
        let asked_for = self.exchanges.open().iter().rev().map(|open| Subject::Request(open.id));
        let mut rest: Vec<_> = observed.chain(asked_for).collect();
        let interrupted = self.review.take().and_then(|review| review.interrupted());
        rest.sort_by_key(|subject| interrupted.is_some_and(|(asked, _)| asked == *subject));
        self.review = (!rest.is_empty()).then(|| Box::new(Review { rest, asked: None, interrupted }));
        self.ask_anew(Side::Client, cx);
        self.ask_anew(Side::Upstream, cx);
        self.go_on_reviewing(cx);
    }

    /// Goes on with the review after the policy that needed time.
    pub(super) fn reviewed(&mut self, decision: Decision, cx: &mut Context<'_>) {
        let asked = self.review.as_mut().and_then(|review| review.asked.take());
        if let Some((subject, suspended, _)) = asked {
            self.review_one(subject, Some((suspended, decision)), cx);
            self.go_on_reviewing(cx);
        }
    }

    /// Takes what is not decided in time for a no.
    pub(super) fn pass_review_time(&mut self, cx: &mut Context<'_>) {
        if self.review_timeout().is_some_and(|at| at <= cx.now.instant) {
            self.reviewed(Decision::Deny(no_decision_in_time()), cx);
        }
    }

    /// Whether what the upstream tells waits until it is known if the client may still be told. Where policies are asked
    /// about each notification, they say so themselves, but not whether its request may still be answered.
    pub(super) fn must_wait_for_review(&mut self, message: &Message<'_>, cx: &Context<'_>) -> bool {
        let Some(review) = self.review.as_deref() else { return false };
        let observed = Subject::Observation(message.token);
        let is_asked = review.asked.as_ref().is_some_and(|(asked, ..)| *asked == observed);
        let is_observed = is_asked || review.rest.contains(&observed);
        is_observed && cx.endpoint.options.deliveries == Deliveries::Pass || self.is_answer_in_doubt(message)
    }

    pub(super) fn review_timeout(&self) -> Option<Instant> {
        let (_, _, until) = self.review.as_ref()?.asked.as_ref()?;
        Some(*until)
    }

    fn is_answer_in_doubt(&mut self, message: &Message<'_>) -> bool {
        let answered = self.answered_by(message);
        let open = answered.and_then(|id| self.exchanges.find_open(id));
        open.is_some_and(|open| open.is_doubted)
    }

    fn go_on_reviewing(&mut self, cx: &mut Context<'_>) {
        while let Some(review) = self.review.as_mut().filter(|review| review.asked.is_none()) {
            let Some(subject) = review.rest.pop() else {
                self.review = None;
                return;
            };
            self.review_one(subject, None, cx);
        }
    }

    fn review_one(&mut self, subject: Subject, resumed: Resumed, cx: &mut Context<'_>) {
        match subject {
            Subject::Observation(token) => self.review_observation(token, resumed, cx),
            Subject::Request(id) => self.review_request(id, resumed, cx),
        }
    }

    fn review_observation(&mut self, token: Token, resumed: Resumed, cx: &mut Context<'_>) {
        let Some(observation) = self.observations.iter().find(|it| it.token == token) else { return };
        let Some(resource) = observation.target.resource() else { return };
        let (client, action) = (observation.client(), observation.target.action);
        let query = Query { client, action, resource, payload: b"", qos: 0, retain: false };
        match ask(&query, resumed, cx) {
            Outcome::Allowed(grant, _) => {
                let until = until(grant.ttl, cx);
                let found = self.observations.iter_mut().find(|it| it.token == token);
                found.into_iter().for_each(|it| it.until = until);
            }
            Outcome::Denied(reason) => {
                self.tell_withdrawn(client, &observation.target, &reason, cx);
                let ender = Ender::Gateway(Some(code_of(reason.cause)));
                self.end_observations(|it| it.token == token, ender, cx);
            }
            Outcome::Pending(suspended, future) => {
                self.await_review(Subject::Observation(token), (suspended, future), cx);
            }
        }
    }

    /// Asks about a request that the upstream has yet to answer, as if it came now.
    fn review_request(&mut self, id: u16, resumed: Resumed, cx: &mut Context<'_>) {
        let Some(open) = self.exchanges.find_open(id).filter(|open| open.is_doubted) else { return };
        let (Ok(message), Some(resource)) = (decode(&open.request), open.target.resource()) else { return };
        let query = Query {
            client: &open.client,
            action: open.target.action,
            resource,
            payload: judged_payload(&message),
            qos: qos(&message),
            retain: false,
        };
        match ask(&query, resumed, cx) {
            Outcome::Allowed(grant, _) => {
                open.until = until(grant.ttl, cx);
                open.is_doubted = false;
                self.send_unsent(cx);
                self.release(id, cx);
            }
            Outcome::Denied(reason) => {
                let (client, target) = (Arc::clone(&open.client), Arc::clone(&open.target));
                self.tell_withdrawn(&client, &target, &reason, cx);
                self.fail(id, (&reason).into(), cx);
            }
            Outcome::Pending(suspended, future) => {
                self.await_review(Subject::Request(id), (suspended, future), cx);
            }
        }
    }

    fn await_review(
        &mut self,
        subject: Subject,
        (suspended, future): (Suspended, BoxFuture<'static, Decision>),
        cx: &Context<'_>,
    ) {
        let until = cx.now.instant + cx.endpoint.gate.limits.decision_timeout;
        let review = self.review.get_or_insert_default();
        let earlier = review.interrupted.take().filter(|(asked, _)| *asked == subject);
        let until = earlier.map_or(until, |(_, earlier)| earlier.min(until));
        review.asked = Some((subject, suspended, until));
        self.outputs.push_back(Output::Review(future));
    }

    fn tell_withdrawn(&self, client: &Client, target: &Target, reason: &Reason, cx: &Context<'_>) {
        let (client, peer, action) = (Some(client), self.peer.address, target.action);
        cx.tell(&SessionEvent::Denied { client, peer, action, resource: target.name(), reason });
    }
}

fn ask(query: &Query<'_>, resumed: Resumed, cx: &Context<'_>) -> Outcome {
    let policies = &cx.endpoint.gate.policies;
    match resumed {
        Some((suspended, decision)) => policies.resume(suspended, decision, query, cx.now),
        None => policies.evaluate(query, cx.now),
    }
}
