mod foresight;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use mgate_policies::{
    Action, Answer, Cause, Decision, Now, Query, Reason, Resource, Scope, TopicFilter, TopicName,
};
use tokio::time;
use tracing::info;

use super::cache::{DecisionCache, Remembered};
use super::client::{PdpError, ServiceClient};
use super::dialect::{Answered, Unaskable};
use super::epochs::{Epoch, Epochs};
use super::invalidation;
use super::subscriptions::{Subscription, Subscriptions};
use super::transport::Transport;
use super::{OnError, PdpOptions};
use crate::neighbour::flights::Flights;
use crate::neighbour::guard::{Asker, Guard};
use crate::withdrawals::Withdrawals;

/// Decides from memory, or by asking.
pub(super) struct Decisions {
    client: ServiceClient,
    /// For stale allows: where the name alone would hide what they are.
    stale_name: Arc<str>,
    actions: Vec<Action>,
    session_terms: bool,
    on_error: OnError,
    withdrawals: Withdrawals,
    cache: DecisionCache,
    flights: Flights<Outcome>,
    subscriptions: Subscriptions,
    pub(super) epochs: Epochs,
    hashers: [RandomState; 2],
    counters: Counters,
}

/// What became of a question.
type Outcome = Result<Remembered, PdpError>;

/// How often what happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions that were answered from memory.
    pub hits: u64,
    /// Questions that were not.
    pub misses: u64,
    /// Answers that came when rights had been withdrawn already.
    pub outdated: u64,
    /// Allows that counted beyond their time because the service did not answer.
    pub stale: u64,
    /// Questions that were sent and had no answer, or none that has a meaning.
    pub errors: u64,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    outdated: AtomicU64,
    stale: AtomicU64,
    errors: AtomicU64,
}

/// What counts now.
pub(super) struct Settled {
    pub(super) remembered: Remembered,
    /// Whether it would not, were the service there.
    is_stale: bool,
}

/// A question in the service's words.
#[derive(Clone)]
pub(super) struct Question {
    request: Request<Bytes>,
    /// What a decision is kept apart by although a dialect may have no word for it.
    flags: (Action, u8, bool),
    tenant: Box<str>,
    principal: Box<str>,
    expires: Option<Duration>,
}

impl Decisions {
    pub(super) fn new(options: PdpOptions) -> Self {
        let stale_name = format!("{}, while its service is away", options.name).into();
        let guard =
            Guard::new(Asker::Policy, Arc::clone(&options.name), options.timeout, options.concurrency);
        let client = ServiceClient {
            name: options.name,
            dialect: options.dialect,
            transport: options.transport,
            timeout: options.timeout,
            guard,
        };
        Self {
            client,
            stale_name,
            actions: options.actions,
            session_terms: options.session_terms,
            on_error: options.on_error,
            withdrawals: options.withdrawals,
            cache: DecisionCache::new(options.cache),
            flights: Flights::default(),
            subscriptions: Subscriptions::default(),
            epochs: Epochs::default(),
            hashers: Default::default(),
            counters: Counters::default(),
        }
    }

    /// Hears of withdrawn rights, where the service has a way to say it.
    pub(super) fn listen(self: &Arc<Self>) {
        if let Transport::Nats { client, invalidations, .. } = &self.client.transport {
            let this = Arc::downgrade(self);
            client.listen(invalidations.clone(), move |heard| {
                if let Some(this) = this.upgrade() {
                    this.withdraw(invalidation::scope(heard));
                }
            });
        }
    }

    /// Forgets at once what is true no longer, and passes it on: live sessions hold more.
    fn withdraw(&self, scope: Scope) {
        info!(policy = %self.client.name, %scope, "rights were withdrawn");
        self.forget(&scope);
        self.withdrawals.add(scope);
    }

    /// Forgets all decisions about those whose rights changed, those on their way included.
    pub(super) fn forget(&self, scope: &Scope) {
        match scope {
            Scope::Principal { tenant, id } => self.epochs.bump_one(tenant.as_deref(), id),
            // what is remembered is not kept apart by any of these
            Scope::ClientId(_) | Scope::Everyone | Scope::Tenant(_) => self.epochs.bump(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.client.name
    }

    pub(super) fn shared_name(&self) -> &Arc<str> {
        &self.client.name
    }

    pub(super) fn has_session_terms(&self) -> bool {
        self.session_terms
    }

    pub(super) fn asks_about(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }

    pub(super) fn counts(&self) -> Counts {
        let Counters { hits, misses, outdated, stale, errors } = &self.counters;
        let [hits, misses, outdated, stale, errors] =
            [hits, misses, outdated, stale, errors].map(|counter| counter.load(Ordering::Relaxed));
        Counts { hits, misses, outdated, stale, errors }
    }

    /// Decides one question.
    pub(super) fn ask(self: &Arc<Self>, query: &Query<'_>, now: Now) -> Answer {
        let question = match self.question(query) {
            Ok(question) => question,
            Err(unaskable) => return Answer::Ready(self.unaskable(unaskable)),
        };
        let subscriber = self.subscriber(query);
        if let Some(remembered) = self.recall(&question, now) {
            let decision = remembered.decision(&self.client.name, question.expires, now);
            self.note(subscriber, &decision);
            return Answer::Ready(decision);
        }
        let (this, deadline) = (Arc::clone(self), self.deadline());
        Answer::Pending(Box::pin(async move {
            let decision = this.decide(&question, now, deadline).await;
            this.note(subscriber, &decision);
            decision
        }))
    }

    /// Decides a delivery by the subscriptions that it reaches: one that is allowed is enough.
    pub(super) fn inherit(self: &Arc<Self>, query: &Query<'_>, now: Now) -> Answer {
        let Resource::Topic(topic) = query.resource else { return Answer::Ready(Decision::Abstain) };
        let mut last = self.unaskable(Unaskable("nobody could subscribe to this topic"));
        let mut open = Vec::new();
        for subscription in self.reached_by(query, topic) {
            match self.question_of(query, &subscription) {
                Err(unaskable) => last = self.unaskable(unaskable),
                Ok(question) => match self.recall(&question, now) {
                    Some(remembered) => {
                        last = remembered.decision(&self.client.name, question.expires, now);
                        if matches!(last, Decision::Allow(_)) {
                            return Answer::Ready(last);
                        }
                    }
                    None => open.push(question),
                },
            }
        }
        if open.is_empty() {
            return Answer::Ready(last);
        }
        let (this, deadline) = (Arc::clone(self), self.deadline());
        Answer::Pending(Box::pin(async move {
            for question in open {
                last = this.decide(&question, now, deadline).await;
                if matches!(last, Decision::Allow(_)) {
                    break;
                }
            }
            last
        }))
    }

    pub(super) fn question(&self, query: &Query<'_>) -> Result<Question, Unaskable> {
        let principal = &query.client.principal;
        Ok(Question {
            request: self.client.dialect.request(query)?,
            flags: (query.action, query.qos, query.retain),
            tenant: principal.tenant.clone(),
            principal: principal.id.clone(),
            expires: principal.expires,
        })
    }

    fn question_of(&self, delivery: &Query<'_>, subscription: &Subscription) -> Result<Question, Unaskable> {
        let filter = TopicFilter::parse(&subscription.filter).map_err(|_| Unaskable("this is no filter"))?;
        let (resource, qos) = (Resource::Filter(filter), subscription.qos);
        self.question(&Query {
            action: Action::Subscribe,
            resource,
            payload: b"",
            qos,
            retain: false,
            ..*delivery
        })
    }

    /// The subscriptions of a client that a message reaches; where there is none, what the client would have
    /// to subscribe to.
    fn reached_by(&self, delivery: &Query<'_>, topic: TopicName<'_>) -> Vec<Subscription> {
        let mut reached = self.subscriptions.reached_by(self.subscriptions.key(delivery.client), topic);
        // a filter that begins like this is something else than the topic
        if reached.is_empty() && !topic.as_str().starts_with("$share/") {
            reached.push(Subscription { filter: topic.as_str().into(), qos: delivery.qos });
        }
        reached
    }

    /// Who subscribes to what, where deliveries will be judged by it.
    fn subscriber(&self, query: &Query<'_>) -> Option<(u128, Subscription)> {
        match query.resource {
            Resource::Filter(filter) if !self.asks_about(Action::Deliver) => {
                let subscription = Subscription { filter: filter.to_string().into(), qos: query.qos };
                Some((self.subscriptions.key(query.client), subscription))
            }
            _ => None,
        }
    }

    fn note(&self, subscriber: Option<(u128, Subscription)>, decision: &Decision) {
        if let (Some((key, subscription)), Decision::Allow(_)) = (subscriber, decision) {
            self.subscriptions.add(key, subscription);
        }
    }

    /// What is known already, for those who do not need it yet.
    pub(super) fn peek(&self, question: &Question, now: Now) -> Option<Remembered> {
        self.cache.recall(self.key(question, self.epoch_of(question)), now)
    }

    /// The decision, if it is known.
    pub(super) fn recall(self: &Arc<Self>, question: &Question, now: Now) -> Option<Remembered> {
        let key = self.key(question, self.epoch_of(question));
        let remembered = self.cache.recall(key, now)?;
        count(&self.counters.hits);
        if remembered.wants_refresh(now) && !self.client.is_left_alone(now) {
            // whoever asks next is glad of it
            let _ = self.flights.join(key, || self.take_off(key, question, now));
        }
        Some(remembered)
    }

    async fn decide(self: &Arc<Self>, question: &Question, now: Now, deadline: time::Instant) -> Decision {
        let since = time::Instant::now();
        match self.settle(question, now, deadline).await {
            Ok(Settled { remembered, is_stale }) => {
                let name = if is_stale { &self.stale_name } else { &self.client.name };
                remembered.decision(name, question.expires, now.later(since.elapsed()))
            }
            Err(error) => self.unavailable(question.flags.0, &error),
        }
    }

    /// Asks the service. If rights are withdrawn meanwhile, its answer counts for nothing, and it is asked
    /// once more, until `deadline`.
    pub(super) async fn settle(
        self: &Arc<Self>,
        question: &Question,
        now: Now,
        deadline: time::Instant,
    ) -> Result<Settled, PdpError> {
        count(&self.counters.misses);
        let since = time::Instant::now();
        for _ in 0..2 {
            let epoch = self.epoch_of(question);
            let key = self.key(question, epoch);
            let outcome = time::timeout_at(deadline, self.outcome(key, question, now)).await;
            let outcome = outcome.unwrap_or(Err(PdpError::TooLate(self.client.timeout)));
            if self.epoch_of(question) == epoch {
                return self.conclude(key, outcome, now.later(since.elapsed()));
            }
            count(&self.counters.outdated);
        }
        Err(PdpError::Outdated)
    }

    async fn outcome(self: &Arc<Self>, key: u128, question: &Question, now: Now) -> Outcome {
        let joined = self.flights.join(key, || match self.cache.recall(key, now) {
            // it landed since it was looked for
            Some(remembered) => Err(Ok(remembered)),
            None => self.take_off(key, question, now).map_err(Err),
        });
        match joined {
            Ok(passenger) => passenger.arrive().await.unwrap_or(Err(PdpError::Lost)),
            Err(outcome) => outcome,
        }
    }

    fn take_off(
        self: &Arc<Self>,
        key: u128,
        question: &Question,
        now: Now,
    ) -> Result<impl Future<Output = Outcome> + Send + use<>, PdpError> {
        let place = self.client.place()?;
        let (this, request, about) = (Arc::clone(self), question.request.clone(), question.about());
        Ok(async move {
            let answer = this.client.ask(request, &place, now).await;
            this.keep(key, answer, about, now).await
        })
    }

    /// Remembers the answer to a question that was asked at `now`, if it is one.
    async fn keep(
        &self,
        key: u128,
        answer: Result<Answered, PdpError>,
        (action, expires): (Action, Option<Duration>),
        now: Now,
    ) -> Outcome {
        let answer = answer.and_then(|answered| answered.to(action).map_err(PdpError::Answer));
        match answer {
            Ok(answered) => Ok(self.cache.remember(key, answered, expires, now).await),
            Err(error) => {
                count(&self.counters.errors);
                Err(error)
            }
        }
    }

    fn conclude(&self, key: u128, outcome: Outcome, now: Now) -> Result<Settled, PdpError> {
        match outcome {
            Ok(remembered) => Ok(Settled { remembered, is_stale: false }),
            Err(error) if error.is_absence() => {
                let remembered = self.cache.recall_stale(key, now).ok_or(error)?;
                count(&self.counters.stale);
                Ok(Settled { remembered, is_stale: true })
            }
            Err(error) => Err(error),
        }
    }

    /// When a decision that is asked for now must be there.
    pub(super) fn deadline(&self) -> time::Instant {
        time::Instant::now() + self.client.timeout
    }

    fn epoch_of(&self, question: &Question) -> Epoch {
        self.epochs.of(&question.tenant, &question.principal)
    }

    /// What a decision is remembered under: nobody without the keys of this process can find two questions
    /// that share it.
    fn key(&self, question: &Question, epoch: Epoch) -> u128 {
        let Question { request, flags, .. } = question;
        let what = (request.method(), request.uri(), request.body(), flags, epoch);
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(what));
        u128::from(high) << 64 | u128::from(low)
    }

    fn unaskable(&self, unaskable: Unaskable) -> Decision {
        let detail = format!("{}: {unaskable}", self.client.name);
        Decision::Deny(Reason::with_detail(Cause::NotAuthorized, detail))
    }

    /// What counts for this action while there is no answer.
    pub(super) fn unavailable(&self, action: Action, error: &PdpError) -> Decision {
        // others who let a client in would let it out of the prefix and the limits that the service has for it
        let may_abstain = self.on_error == OnError::Abstain && action != Action::Connect;
        if may_abstain && error.is_absence() {
            return Decision::Abstain;
        }
        let detail = format!("{}: {error}", self.client.name);
        Decision::Deny(Reason::with_detail(Cause::Unavailable, detail))
    }
}

impl Question {
    /// What is to be done, and when the credentials of who wants it end.
    fn about(&self) -> (Action, Option<Duration>) {
        (self.flags.0, self.expires)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
