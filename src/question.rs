//! A question to policies, as an operator writes it down.

use mgate_policies::{Action, Client, FilterError, Query, Resource, TopicFilter, TopicName};

/// May this client do that? It owns what a [`Query`] borrows.
pub(crate) struct Question {
    /// Who asks.
    pub(crate) client: Client,
    /// What it wants to do.
    pub(crate) action: Action,
    /// The topic, or the filter of a subscription; empty with `connect`.
    pub(crate) resource: String,
    /// The quality of service of the message or subscription.
    pub(crate) qos: u8,
    /// Whether the message is (to be) retained.
    pub(crate) retain: bool,
}

impl Question {
    /// The query that a session would put, or what is wrong with the topic or filter.
    pub(crate) fn query(&self) -> Result<Query<'_>, FilterError> {
        let resource = match self.action {
            Action::Connect => Resource::Session,
            Action::Subscribe => Resource::Filter(TopicFilter::parse(&self.resource)?),
            _ => Resource::Topic(TopicName::parse(&self.resource)?),
        };
        let Self { client, action, qos, retain, .. } = self;
        Ok(Query { client, action: *action, resource, payload: b"", qos: *qos, retain: *retain })
    }
}

/// The actions that a policy file and the command line know by name.
pub(crate) const ACTIONS: &[(&str, Action)] = &[
    ("connect", Action::Connect),
    ("publish", Action::Publish),
    ("will", Action::Will),
    ("subscribe", Action::Subscribe),
    ("deliver", Action::Deliver),
];
