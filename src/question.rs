//! A question to policies, as an operator writes it down.

use std::error::Error;
use std::fmt;

use mgate_policies::{
    Action, Client, FilterError, PathError, Query, RequestPath, Resource, TopicFilter, TopicName,
};

/// May this client do that? It owns what a [`Query`] borrows.
pub(crate) struct Question {
    /// Who asks.
    pub(crate) client: Client,
    /// What it wants to do.
    pub(crate) action: Action,
    /// The topic, the filter of a subscription, or the path of a request; empty with `connect`.
    pub(crate) resource: String,
    /// The method of a request; empty with all else.
    pub(crate) method: String,
    /// The quality of service of the message or subscription.
    pub(crate) qos: u8,
    /// Whether the message is (to be) retained.
    pub(crate) retain: bool,
}

impl Question {
    /// The query that a session would put, or what is wrong with the topic, filter or path.
    pub(crate) fn query(&self) -> Result<Query<'_>, ResourceError> {
        let resource = match self.action {
            Action::Connect => Resource::Session,
            Action::Observe | Action::Request => {
                let path = RequestPath::parse(&self.resource).map_err(ResourceError::Path)?;
                Resource::Request { method: &self.method, path }
            }
            Action::Subscribe => {
                Resource::Filter(TopicFilter::parse(&self.resource).map_err(ResourceError::Topic)?)
            }
            _ => Resource::Topic(TopicName::parse(&self.resource).map_err(ResourceError::Topic)?),
        };
        let Self { client, action, qos, retain, .. } = self;
        Ok(Query { client, action: *action, resource, payload: b"", qos: *qos, retain: *retain })
    }
}

/// What is wrong with what an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResourceError {
    Path(PathError),
    Topic(FilterError),
}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(error) => error.fmt(f),
            Self::Topic(error) => error.fmt(f),
        }
    }
}

impl Error for ResourceError {}

/// The actions that a policy file and the command line know by name.
pub(crate) const ACTIONS: &[(&str, Action)] = &[
    ("connect", Action::Connect),
    ("publish", Action::Publish),
    ("will", Action::Will),
    ("subscribe", Action::Subscribe),
    ("deliver", Action::Deliver),
    ("request", Action::Request),
    ("observe", Action::Observe),
];
