//! Decisions by other services: the policy `pdp`.
//!
//! A question is put into the words of a [`Dialect`] and asked by a [`Transport`], unless the same was answered lately.
//! Every wait and every queue has a bound, and whatever goes wrong is a denial.

mod authzen;
mod broker_auth;
mod cache;
mod channels;
mod client;
mod decisions;
mod dialect;
pub(crate) mod entities;
mod epochs;
mod grpc;
mod invalidation;
mod magistrala;
mod mainflux;
mod opa;
mod session;
mod subscriptions;
mod template;
mod terms;
mod transport;
mod vernemq;
mod webhook;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use mgate_policies::{Action, Answer, Decision, Now, Policy, Query, Scope};

use self::decisions::Decisions;
use crate::withdrawals::Withdrawals;

pub use self::authzen::Authzen;
pub use self::broker_auth::{BrokerAuth, BrokerAuthGrpc};
pub use self::cache::CacheOptions;
pub use self::client::PdpError;
pub use self::decisions::Counts;
pub use self::dialect::{AnswerError, Answered, Batch, Dialect, Unaskable, Verdict};
#[cfg(feature = "wasm")]
pub(crate) use self::dialect::{for_people, is_token};
pub use self::magistrala::Magistrala;
pub use self::mainflux::{Mainflux, MainfluxGrpc};
pub use self::opa::Opa;
pub use self::template::{Template, TemplateError, UrlTemplate};
pub use self::terms::Terms;
pub use self::transport::Transport;
pub use self::vernemq::VerneMq;
pub use self::webhook::{Body, Reply, Vocabulary, Webhook};

/// Leaves decisions to another service.
///
/// It must be called inside of a runtime that drives timers.
pub struct Pdp(Arc<Decisions>);

/// What a [`Pdp`] asks, whom, and how.
pub struct PdpOptions {
    /// The name that logs show.
    pub name: Arc<str>,
    /// The service's language.
    pub dialect: Box<dyn Dialect>,
    /// The way to it; its own time-out should not be shorter than `timeout`.
    pub transport: Transport,
    /// Time for one decision, with all waiting.
    pub timeout: Duration,
    /// Questions that are on their way at a time; sixteen times as many may wait.
    pub concurrency: NonZeroU16,
    /// What the service is asked about; to all else the policy has nothing to say.
    ///
    /// Where subscriptions are among it and deliveries are not, a client is given what it may subscribe to:
    /// the service is asked, as for a subscription, about the filters that the client subscribed to and that
    /// the message reaches. Where none is known (of a session that is older than the gateway, say), it is
    /// asked about the message's own topic.
    pub actions: Vec<Action>,
    /// Whether answers to `connect` may say what the session is allowed, so that nothing else is asked.
    pub session_terms: bool,
    /// What the policy says while there is no answer to be had.
    pub on_error: OnError,
    /// How answers are remembered.
    pub cache: CacheOptions,
    /// Is told when the service says that rights were withdrawn.
    pub withdrawals: Withdrawals,
}

/// What counts while a service is away. What it says, and makes no sense, is a denial either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The other policies alone; but nobody connects of whom the service would be asked, as it alone knows the
    /// terms of the session.
    Abstain,
    /// Nothing is allowed.
    #[default]
    Deny,
}

impl Pdp {
    /// A policy that asks as `options` say; nothing is sent yet.
    pub fn new(options: PdpOptions) -> Self {
        let decisions = Arc::new(Decisions::new(options));
        decisions.listen();
        Self(decisions)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.0.counts()
    }
}

impl Policy for Pdp {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn evaluate(&self, query: &Query<'_>, now: Now) -> Answer {
        let ask = || match query.action {
            action if self.0.asks_about(action) => self.0.ask(query, now),
            Action::Deliver if self.0.asks_about(Action::Subscribe) => self.0.inherit(query, now),
            _ => Answer::Ready(Decision::Abstain),
        };
        match query.action {
            Action::Connect => ask(),
            _ if self.0.has_session_terms() => self.0.by_session(query, now, ask),
            _ => ask(),
        }
    }

    fn forget(&self, scope: &Scope) {
        self.0.forget(scope);
    }

    fn foresee(&self, queries: &[Query<'_>], now: Now) {
        self.0.foresee(queries, now);
    }
}

/// All that a client may do.
pub const ALL_ACTIONS: &[Action] = &[
    Action::Connect,
    Action::Deliver,
    Action::Observe,
    Action::Publish,
    Action::Request,
    Action::Subscribe,
    Action::Will,
];

#[cfg(test)]
mod tests;
