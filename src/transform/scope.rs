use mgate_policies::{Action, EditableMessage, TopicName};

use super::Pattern;

/// The messages that a transform of payloads is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Of [`Action::Publish`], [`Action::Will`] and [`Action::Deliver`].
    pub actions: Vec<Action>,
    /// The topics; `None` for all, those that begin with `$` included.
    pub topics: Option<Vec<Pattern>>,
}

impl Scope {
    /// Whether a message is one of them.
    pub(super) fn covers(&self, message: &EditableMessage<'_>) -> bool {
        let covers_topic = |topics: &Vec<Pattern>| {
            TopicName::parse(&message.topic)
                .is_ok_and(|topic| topics.iter().any(|pattern| pattern.matches(topic)))
        };
        self.actions.contains(&message.action) && self.topics.as_ref().is_none_or(covers_topic)
    }
}

/// What clients send by themselves.
impl Default for Scope {
    fn default() -> Self {
        Self { actions: vec![Action::Publish, Action::Will], topics: None }
    }
}
