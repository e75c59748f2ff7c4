use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::session_terms::SessionTerms;

/// A future that owns what it needs and can be awaited on any thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a policy says of a query: at once, or later.
pub enum Answer {
    /// The decision is here; costs no allocation.
    Ready(Decision),
    /// The decision takes time: the client's later packets wait for it, other clients do not.
    Pending(BoxFuture<'static, Decision>),
}

/// One policy's word on one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may pass, unless another policy denies it.
    Allow(Grant),
    /// It must not pass.
    Deny(Reason),
    /// This policy has nothing to say about it.
    Abstain,
}

/// What comes with an allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// How long the decision may be remembered; `None` leaves it to whoever remembers.
    pub ttl: Option<Duration>,
    /// What allowed it (a statement's name, a service's answer), for people who ask why.
    pub by: Option<Arc<str>>,
    /// With leave to connect: how long the session may last; `None` for no end.
    pub ends_after: Option<Duration>,
    /// What is true for the whole session now; `None` where the policy does not say. It counts with leave to
    /// connect; with any other, a session to which something else was said asks for that leave again.
    pub session: Option<SessionTerms>,
}

impl Grant {
    /// A grant that names what allowed it.
    pub fn by(what: &Arc<str>) -> Self {
        Self { by: Some(Arc::clone(what)), ..Self::default() }
    }

    /// This grant and `other` together: valid only as long as both are; the first name is kept. Terms that
    /// contradict each other are a reason to deny.
    pub fn and(self, other: Self) -> Result<Self, Reason> {
        let shorter = |one: Option<Duration>, two: Option<Duration>| one.into_iter().chain(two).min();
        Ok(Self {
            ttl: shorter(self.ttl, other.ttl),
            by: self.by.or(other.by),
            ends_after: shorter(self.ends_after, other.ends_after),
            session: match (self.session, other.session) {
                (Some(one), Some(two)) => {
                    Some(one.and(&two).map_err(|why| Reason::with_detail(Cause::Unavailable, why))?)
                }
                (one, two) => one.or(two),
            },
        })
    }
}

/// The kind of a denial; each protocol maps it to its own code, in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The credentials are missing, wrong or no longer valid.
    BadCredentials,
    /// The client identifier must not be used, or not by this principal.
    ClientIdNotValid,
    /// The client is known and may not do this.
    NotAuthorized,
    /// What the message carries is not what has to be there.
    PayloadInvalid,
    /// More than the client may have (sessions, bytes, subscriptions).
    QuotaExceeded,
    /// Faster than the client may be.
    RateExceeded,
    /// Whoever should decide cannot (down, slow, broken): denied to be safe.
    Unavailable,
}

/// Why something was denied.
///
/// `detail` is for operators (logs, `explain`): devices are told the [`Cause`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The kind, from which the protocol's code follows.
    pub cause: Cause,
    /// What exactly, for people: a statement's name, a service's answer. Never a secret.
    pub detail: Option<Arc<str>>,
    /// What is true for the whole session now, as with a grant.
    pub session: Option<SessionTerms>,
}

impl Reason {
    /// A reason that needs no more words than its cause.
    pub const fn new(cause: Cause) -> Self {
        Self { cause, detail: None, session: None }
    }

    /// A reason with words for the operator.
    pub fn with_detail(cause: Cause, detail: impl Into<Arc<str>>) -> Self {
        Self { cause, detail: Some(detail.into()), session: None }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadCredentials => "bad credentials",
            Self::ClientIdNotValid => "client identifier not valid",
            Self::NotAuthorized => "not authorized",
            Self::PayloadInvalid => "payload invalid",
            Self::QuotaExceeded => "quota exceeded",
            Self::RateExceeded => "rate exceeded",
            Self::Unavailable => "no decision to be had",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.cause),
            None => self.cause.fmt(f),
        }
    }
}
