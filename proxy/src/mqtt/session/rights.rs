//! What a client may do until its session ends, and asking for it again when rights change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mgate_policies::{
    Action, Cause, Decision, Outcome, Query, Reason, Resource, Suspended, TopicFilter, TopicName,
};

use super::connect::{Resumed, ask, foresee};
use super::{Close, CloseReason, Context, Output, Session, State};
use crate::gate::no_decision_in_time;
use crate::gate::{SessionEvent, Side};
use crate::memory::Memory;
use crate::mqtt::packet;

/// What outlasts the packet that asked for it. A session that has nothing of it has none.
#[derive(Default)]
pub(super) struct Rights {
    will: Option<Will>,
    /// The QoS that was asked for, by filter as it stood in the packet.
    subscriptions: BTreeMap<Box<str>, u8>,
    /// What the subscriptions count.
    held: usize,
    /// What the upstream has yet to answer, in its order.
    unanswered: Vec<Unanswered>,
    review: Option<Review>,
}

/// A message that the upstream sends when the connection breaks.
struct Will {
    topic: Box<str>,
    payload: Box<[u8]>,
    qos: u8,
    retain: bool,
}

/// A SUBSCRIBE or UNSUBSCRIBE that was passed on.
struct Unanswered {
    packet_id: u16,
    change: Change,
    filters: Vec<(Box<str>, u8)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Subscribe,
    Unsubscribe,
}

/// Everything is asked for again, one after the other.
struct Review {
    /// What is left, the first last.
    left: Vec<Right>,
    /// Where the chain stopped for the first.
    suspended: Option<Suspended>,
    /// When the first must be decided.
    deadline: Instant,
    /// When the first is asked for again, because there was nobody to decide it.
    again_at: Instant,
}

/// One thing to be asked for again.
#[derive(PartialEq, Eq)]
enum Right {
    Connect,
    Subscription(Box<str>, u8),
    Will,
}

impl Session {
    /// Rights changed: what was decided before counts no more, and what goes on is asked for again.
    pub(super) fn reauthorize(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        self.from_client.memory = Memory::default();
        self.from_upstream.memory = Memory::default();
        if matches!(self.state, State::Dialing | State::AwaitingConnAck | State::Open) {
            let left = self.rights.as_ref().map_or_else(|| vec![Right::Connect], |rights| rights.all());
            self.begin_review(left, cx)?;
        }
        self.ask_anew(Side::Client, cx)?;
        self.ask_anew(Side::Upstream, cx)
    }

    /// The session may have other terms by now: the connection is asked for again, after the will, which the
    /// session's end would publish. A review that is under way does so already.
    pub(super) fn review_connection(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let rights = self.rights.as_deref();
        if rights.is_some_and(|rights| rights.review.is_some()) {
            return Ok(());
        }
        let will = rights.and_then(|rights| rights.will.as_ref()).map(|_| Right::Will);
        self.begin_review([Right::Connect].into_iter().chain(will).collect(), cx)
    }

    /// Goes on with the review.
    pub(super) fn reviewed(&mut self, decision: Decision, cx: &mut Context<'_>) -> Result<(), Close> {
        let is_meant = |review: &mut Review| review.suspended.is_some();
        let review = self.rights.as_mut().and_then(|rights| rights.review.take_if(is_meant));
        let Some(mut review) = review else { return Ok(()) };
        let resumed = review.suspended.take().map(|suspended| (suspended, decision));
        self.review(review, resumed, cx)
    }

    /// Lets the time pass that [`Session::review_timeout`] said.
    pub(super) fn pass_review_time(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let is_due = |review: &mut Review| review.timeout() <= cx.now.instant;
        let review = self.rights.as_mut().and_then(|rights| rights.review.take_if(is_due));
        match review {
            None => Ok(()),
            Some(review) if review.deadline <= cx.now.instant => {
                self.withdraw(review, no_decision_in_time(), cx)
            }
            Some(review) => self.review(review, None, cx),
        }
    }

    /// When the review must go on or be over.
    pub(super) fn review_timeout(&self) -> Option<Instant> {
        self.rights.as_deref()?.review.as_ref().map(Review::timeout)
    }

    /// Whether it is not known if the client's will may be sent.
    pub(super) fn is_will_in_doubt(&self) -> bool {
        let review = self.rights.as_deref().and_then(|rights| rights.review.as_ref());
        review.is_some_and(|review| review.left.contains(&Right::Will))
    }

    /// Keeps the will that was allowed.
    pub(super) fn keep_will(&mut self, will: &packet::Will<'_>) {
        let packet::Will { topic, payload, qos, retain, .. } = *will;
        let will = Will { topic: topic.as_str().into(), payload: payload.into(), qos, retain };
        self.rights.get_or_insert_default().will = Some(will);
    }

    /// Whether the client may hold one more subscription beside those that count `asked`.
    pub(super) fn has_room_for(&self, filter: &str, asked: usize, cx: &Context<'_>) -> bool {
        let rights = self.rights.as_deref();
        let others = rights.filter(|rights| !rights.subscriptions.contains_key(filter));
        let held = others.map_or(0, |rights| rights.held);
        held + asked + weight(filter) <= self.subscriptions(cx)
    }

    /// What the filters count that the upstream has yet to answer.
    pub(super) fn unanswered(&self, change: Change) -> usize {
        let unanswered = self.rights.iter().flat_map(|rights| &rights.unanswered);
        let filters = unanswered.filter(|one| one.change == change).flat_map(|one| &one.filters);
        filters.map(|(filter, _)| weight(filter)).sum()
    }

    /// Notes what was passed on and is not answered yet.
    pub(super) fn note_asked(&mut self, packet_id: u16, change: Change, filters: Vec<(Box<str>, u8)>) {
        let rights = self.rights.get_or_insert_default();
        match rights.take_unanswered(packet_id, change) {
            None => rights.unanswered.push(Unanswered { packet_id, change, filters }),
            // an identifier that is in use: which answer belongs to which is not known, so the client has all
            Some(earlier) if change == Change::Subscribe => {
                earlier.into_iter().chain(filters).for_each(|(filter, qos)| rights.add(filter, qos));
            }
            Some(_) => {}
        }
    }

    /// The upstream answered: which filters it took is what `codes` say.
    pub(super) fn note_answered(&mut self, packet_id: u16, change: Change, codes: &[u8], cx: &Context<'_>) {
        let Some(rights) = self.rights.as_deref_mut() else { return };
        let Some(client) = self.client.as_deref() else { return };
        let Some(filters) = rights.take_unanswered(packet_id, change) else { return };
        // a code that is missing is none of a refusal; before MQTT 5.0, UNSUBACK has none
        let is_taken = |at: usize| codes.get(at).is_none_or(|code| *code < 0x80);
        for (at, (filter, qos)) in filters.into_iter().enumerate() {
            match change {
                _ if !is_taken(at) => {}
                Change::Subscribe => {
                    cx.tell(&SessionEvent::Subscribed { client, filter: &filter, qos });
                    rights.add(filter, qos);
                }
                Change::Unsubscribe => {
                    cx.tell(&SessionEvent::Unsubscribed { client, filter: &filter });
                    rights.remove(&filter);
                }
            }
        }
        self.rights.take_if(|rights| rights.is_empty());
    }

    /// Begins anew where a review is under way; it does not get more time.
    fn begin_review(&mut self, left: Vec<Right>, cx: &mut Context<'_>) -> Result<(), Close> {
        let last = self.rights.as_mut().and_then(|rights| rights.review.take());
        let deadline = cx.now.instant + cx.endpoint.gate.limits.decision_timeout;
        let deadline = last.map_or(deadline, |review| review.deadline.min(deadline));
        foresee(left.iter().rev().filter_map(|right| self.query(right)), cx);
        self.review(Review { left, suspended: None, deadline, again_at: deadline }, None, cx)
    }

    /// Asks for one after the other, until one is denied or has to be waited for.
    fn review(
        &mut self,
        mut review: Review,
        mut resumed: Resumed,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let now = cx.now.instant;
        while let Some(right) = review.left.last() {
            match self.ask_for(right, resumed.take(), cx) {
                Some(Outcome::Allowed(grant, _)) if *right == Right::Connect => {
                    self.end_with(&grant, cx);
                    self.take_terms(&grant, cx)?;
                }
                None | Some(Outcome::Allowed(..)) => {}
                Some(Outcome::Denied(reason)) if reason.cause == Cause::Unavailable => {
                    review.again_at = review.deadline.min(now + PAUSE);
                    self.rights.get_or_insert_default().review = Some(review);
                    return Ok(());
                }
                Some(Outcome::Denied(reason)) => return self.withdraw(review, reason, cx),
                Some(Outcome::Pending(suspended, future)) => {
                    review.suspended = Some(suspended);
                    self.rights.get_or_insert_default().review = Some(review);
                    self.outputs.push_back(Output::Review(future));
                    return Ok(());
                }
            }
            review.left.pop();
            review.deadline = now + cx.endpoint.gate.limits.decision_timeout;
        }
        self.rights.take_if(|rights| rights.is_empty());
        Ok(())
    }

    /// Asks for one thing; `None` if the client has given it up meanwhile.
    fn ask_for(&self, right: &Right, resumed: Resumed, cx: &Context<'_>) -> Option<Outcome> {
        Some(ask(&self.query(right)?, resumed, cx))
    }

    /// The question; `None` if the client has given up what it is about.
    fn query<'a>(&'a self, right: &'a Right) -> Option<Query<'a>> {
        let client = self.client.as_deref()?;
        let rights = self.rights.as_deref();
        let query = Query {
            client,
            action: right.action(),
            resource: Resource::Session,
            payload: b"",
            qos: 0,
            retain: false,
        };
        Some(match right {
            Right::Connect => query,
            Right::Subscription(filter, qos) => {
                rights.filter(|rights| rights.has(filter))?;
                Query { resource: Resource::Filter(TopicFilter::parse(filter).ok()?), qos: *qos, ..query }
            }
            Right::Will => {
                let Will { topic, payload, qos, retain } = rights?.will.as_ref()?;
                let resource = Resource::Topic(TopicName::parse(topic).ok()?);
                Query { resource, payload, qos: *qos, retain: *retain, ..query }
            }
        })
    }

    /// The first of what is left is denied: the session ends.
    fn withdraw(&mut self, review: Review, reason: Reason, cx: &mut Context<'_>) -> Result<(), Close> {
        let Some(right) = review.left.last() else { return Ok(()) };
        let action = right.action();
        let will = self.rights.as_deref().and_then(|rights| rights.will.as_ref());
        let resource = match right {
            Right::Connect => self.client.as_deref().map_or("", |client| &client.client_id),
            Right::Subscription(filter, _) => filter,
            Right::Will => will.map_or("", |will| &will.topic),
        };
        self.report_denial(action, resource, &reason, cx);
        self.rights.get_or_insert_default().review = Some(review);
        Err(CloseReason::Revoked(action, reason).into())
    }
}

impl Rights {
    /// All there is to ask for, the first last: the will, so that what becomes of it is known when anything
    /// else is denied.
    fn all(&self) -> Vec<Right> {
        let unanswered = self.unanswered.iter().filter(|one| one.change == Change::Subscribe);
        let unanswered = unanswered.flat_map(|one| one.filters.iter().map(|(filter, qos)| (filter, qos)));
        let subscriptions = self.subscriptions.iter().chain(unanswered);
        let subscriptions = subscriptions.map(|(filter, qos)| Right::Subscription(filter.clone(), *qos));
        let will = self.will.as_ref().map(|_| Right::Will);
        subscriptions.chain([Right::Connect]).chain(will).collect()
    }

    fn has(&self, filter: &str) -> bool {
        let is_asked = |one: &Unanswered| one.filters.iter().any(|(asked, _)| **asked == *filter);
        self.subscriptions.contains_key(filter) || self.unanswered.iter().any(is_asked)
    }

    fn take_unanswered(&mut self, packet_id: u16, change: Change) -> Option<Vec<(Box<str>, u8)>> {
        let is_meant = |one: &Unanswered| (one.packet_id, one.change) == (packet_id, change);
        let at = self.unanswered.iter().position(is_meant)?;
        Some(self.unanswered.remove(at).filters)
    }

    fn add(&mut self, filter: Box<str>, qos: u8) {
        let weight = weight(&filter);
        if self.subscriptions.insert(filter, qos).is_none() {
            self.held += weight;
        }
    }

    fn remove(&mut self, filter: &str) {
        if self.subscriptions.remove(filter).is_some() {
            self.held -= weight(filter);
        }
    }

    fn is_empty(&self) -> bool {
        let has_none = self.subscriptions.is_empty() && self.unanswered.is_empty();
        has_none && self.will.is_none() && self.review.is_none()
    }
}

impl Review {
    fn timeout(&self) -> Instant {
        if self.suspended.is_some() { self.deadline } else { self.again_at }
    }
}

impl Right {
    fn action(&self) -> Action {
        match self {
            Self::Connect => Action::Connect,
            Self::Subscription(..) => Action::Subscribe,
            Self::Will => Action::Will,
        }
    }
}

/// What a filter counts: how many there may be is a bound of memory too.
pub(super) fn weight(filter: &str) -> usize {
    1 + filter.len() / 256
}

/// Time after which is asked again what nobody could decide: many sessions ask at once.
const PAUSE: Duration = Duration::from_millis(200);
