use std::fmt;

use crate::client::Client;
use crate::decision::Answer;
use crate::now::Now;
use crate::path::RequestPath;
use crate::scope::Scope;
use crate::topic::{TopicFilter, TopicName};

/// Says whether a client may do something.
pub trait Policy: Send + Sync {
    /// The name that logs, metrics and `explain` show.
    fn name(&self) -> &str;

    /// Decides one query. A policy that cannot decide denies ([`Cause::Unavailable`]).
    ///
    /// Called on the data path: what takes more than microseconds belongs into [`Answer::Pending`].
    ///
    /// [`Cause::Unavailable`]: crate::Cause::Unavailable
    fn evaluate(&self, query: &Query<'_>, now: Now) -> Answer;

    /// Whether the answer hangs on nothing but client, action, resource, QoS and retain flag until the
    /// [`Grant::ttl`] that comes with it ends; sessions remember such answers. A policy that looks at
    /// payloads, counts, or asks others must not say so.
    ///
    /// [`Grant::ttl`]: crate::Grant::ttl
    fn is_repeatable(&self) -> bool {
        false
    }

    /// Forgets what it decided for those whose rights changed, decisions on their way included. Called before
    /// live sessions ask again; it must not wait.
    fn forget(&self, _scope: &Scope) {}

    /// Hears which questions come next, one by one, so that whoever asks others may ask about all at once. Each
    /// of them still comes, unless one before it ends the matter; it must not wait.
    fn foresee(&self, _queries: &[Query<'_>], _now: Now) {}

    /// Whether the value of `${name}` takes the place of a level in its topics, or is compared with names. What
    /// clients choose themselves, such as `client_id`, may then be held to what can stand there.
    fn uses_name(&self, _name: &str) -> bool {
        false
    }
}

/// One question: may this client do that?
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Who asks.
    pub client: &'a Client,
    /// What it wants to do.
    pub action: Action,
    /// To what.
    pub resource: Resource<'a>,
    /// What it carries; empty where the action carries nothing.
    pub payload: &'a [u8],
    /// The quality of service of the message or subscription: 0, 1 or 2.
    pub qos: u8,
    /// Whether the message is to be retained (or was: a retained delivery).
    pub retain: bool,
}

/// What a client may want to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Open a session.
    Connect,
    /// Be given a message that the upstream sent.
    Deliver,
    /// Be told of changes of a resource (CoAP Observe).
    Observe,
    /// Send a message.
    Publish,
    /// Make a request (HTTP, CoAP).
    Request,
    /// Ask for all messages that a filter matches.
    Subscribe,
    /// Leave a message that is sent when the connection breaks.
    Will,
}

/// What an action is about.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Resource<'a> {
    /// The session itself: with [`Action::Connect`].
    Session,
    /// A topic filter and, for a shared subscription, its group: with [`Action::Subscribe`].
    Filter(TopicFilter<'a>),
    /// What a request asks for, and how: with [`Action::Request`].
    Request {
        /// The method, as it came: `GET`.
        method: &'a str,
        /// The path, decoded.
        path: RequestPath<'a>,
    },
    /// The topic of one message: with [`Action::Publish`], [`Action::Will`] and [`Action::Deliver`].
    Topic(TopicName<'a>),
}

impl Action {
    /// Its name, as in policy files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Deliver => "deliver",
            Self::Observe => "observe",
            Self::Publish => "publish",
            Self::Request => "request",
            Self::Subscribe => "subscribe",
            Self::Will => "will",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("session"),
            Self::Filter(filter) => filter.fmt(f),
            Self::Request { method, path } => write!(f, "{method} {path}"),
            Self::Topic(topic) => topic.fmt(f),
        }
    }
}
