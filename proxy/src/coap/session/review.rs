//! What a client observes is asked about again when rights change.

use std::time::Instant;

use mgate_policies::{Decision, Outcome, Query, Suspended};

use super::answer::code_of;
use super::observations::Ender;
use super::request::{Resumed, until};
use super::{Context, Output, Session};
use crate::coap::Deliveries;
use crate::coap::message::Token;
use crate::gate::{SessionEvent, Side, no_decision_in_time};

/// A review that goes on.
#[derive(Default)]
pub(super) struct Review {
    /// What is still to be asked about.
    rest: Vec<Token>,
    /// What is being asked about, where somebody needs time for it.
    asked: Option<(Token, Suspended, Instant)>,
}

impl Session {
    /// Everything is asked for again: who the client is, what waits, what is observed. What was allowed of a body
    /// counts no longer.
    pub(super) fn reauthorize(&mut self, cx: &mut Context<'_>) {
        self.identity = None;
        self.operations.clear();
        // nothing more follows from what was allowed before
        self.exchanges.open_mut().for_each(|open| open.until = Some(cx.now.instant));
        self.observations.iter_mut().for_each(|it| it.until = Some(cx.now.instant));
        self.ask_anew(Side::Client, cx);
        self.ask_anew(Side::Upstream, cx);
        let rest: Vec<_> = self.observations.iter().map(|it| it.token).collect();
        self.review = (!rest.is_empty()).then(|| Box::new(Review { rest, asked: None }));
        self.go_on_reviewing(cx);
    }

    /// Goes on with the review after the policy that needed time.
    pub(super) fn reviewed(&mut self, decision: Decision, cx: &mut Context<'_>) {
        let asked = self.review.as_mut().and_then(|review| review.asked.take());
        if let Some((token, suspended, _)) = asked {
            self.review_one(token, Some((suspended, decision)), cx);
            self.go_on_reviewing(cx);
        }
    }

    /// Takes what is not decided in time for a no.
    pub(super) fn pass_review_time(&mut self, cx: &mut Context<'_>) {
        if self.review_timeout().is_some_and(|at| at <= cx.now.instant) {
            self.reviewed(Decision::Deny(no_decision_in_time()), cx);
        }
    }

    /// Whether what the upstream says by a token waits until it is known if the client may still be told. Where policies
    /// are asked about each notification, they say so themselves.
    pub(super) fn must_wait_for_review(&self, token: Token, cx: &Context<'_>) -> bool {
        let is_meant = |review: &Review| {
            let is_asked = review.asked.as_ref().is_some_and(|(asked, ..)| *asked == token);
            is_asked || review.rest.contains(&token)
        };
        cx.endpoint.options.deliveries == Deliveries::Pass && self.review.as_deref().is_some_and(is_meant)
    }

    pub(super) fn review_timeout(&self) -> Option<Instant> {
        let (_, _, until) = self.review.as_ref()?.asked.as_ref()?;
        Some(*until)
    }

    fn go_on_reviewing(&mut self, cx: &mut Context<'_>) {
        while let Some(review) = self.review.as_mut().filter(|review| review.asked.is_none()) {
            let Some(token) = review.rest.pop() else {
                self.review = None;
                return;
            };
            self.review_one(token, None, cx);
        }
    }

    fn review_one(&mut self, token: Token, resumed: Resumed, cx: &mut Context<'_>) {
        let Some(observation) = self.observations.iter().find(|it| it.token == token) else { return };
        let Some(resource) = observation.target.resource() else { return };
        let (client, action) = (observation.client(), observation.target.action);
        let query = Query { client, action, resource, payload: b"", qos: 0, retain: false };
        let policies = &cx.endpoint.gate.policies;
        let outcome = match resumed {
            Some((suspended, decision)) => policies.resume(suspended, decision, &query, cx.now),
            None => policies.evaluate(&query, cx.now),
        };
        match outcome {
            Outcome::Allowed(grant, _) => {
                let until = until(grant.ttl, cx);
                let found = self.observations.iter_mut().find(|it| it.token == token);
                found.into_iter().for_each(|it| it.until = until);
            }
            Outcome::Denied(reason) => {
                let (client, peer, resource) = (Some(client), self.peer.address, observation.target.name());
                cx.tell(&SessionEvent::Denied { client, peer, action, resource, reason: &reason });
                self.end_observations(
                    |it| it.token == token,
                    Ender::Gateway(Some(code_of(reason.cause))),
                    cx,
                );
            }
            Outcome::Pending(suspended, future) => {
                let until = cx.now.instant + cx.endpoint.gate.limits.decision_timeout;
                let review = self.review.get_or_insert_default();
                review.asked = Some((token, suspended, until));
                self.outputs.push_back(Output::Review(future));
            }
        }
    }
}
