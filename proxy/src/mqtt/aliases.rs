//! Topic aliases of one direction of one connection. MQTT 5.0 §3.3.2.3.4
//!
//! What the sender means by an alias and what the receiver was told differ once a message was held back:
//! the receiver never heard of that alias. So both are kept, and the topic is put back in where needed.

use std::fmt;
use std::sync::Arc;

/// What the sender's aliases stand for, and which of them the receiver knows.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// The highest alias that the receiver takes; 0 for none.
    maximum: u16,
    bytes: usize,
    entries: Vec<(u16, Entry)>,
}

#[derive(Debug)]
struct Entry {
    topic: Arc<str>,
    is_passed_on: bool,
}

/// What is wrong with a topic alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasError {
    /// It is above the receiver's maximum. [MQTT-3.3.2-9]
    OutOfRange(u16),
    /// All topics under aliases together are too long.
    TooMuch,
    /// No topic was sent for it.
    Unknown(u16),
}

impl Aliases {
    /// Sets the highest alias that the receiver takes.
    pub(super) fn set_maximum(&mut self, maximum: u16) {
        self.maximum = maximum;
    }

    /// Without any alias, and with the same maximum.
    pub(super) fn emptied(&self) -> Self {
        Self { maximum: self.maximum, ..Self::default() }
    }

    /// The topic that a message with this alias is about, remembered if the message brings one.
    pub(super) fn resolve(&mut self, alias: u16, topic: &str) -> Result<Arc<str>, AliasError> {
        if alias > self.maximum {
            return Err(AliasError::OutOfRange(alias));
        }
        match self.entries.binary_search_by_key(&alias, |(known, _)| *known) {
            Ok(at) if topic.is_empty() => Ok(Arc::clone(&self.entries[at].1.topic)),
            Err(_) if topic.is_empty() => Err(AliasError::Unknown(alias)),
            found => self.remember(found, alias, topic),
        }
    }

    /// Whether the receiver was told what the alias stands for now.
    pub(super) fn is_passed_on(&self, alias: u16) -> bool {
        let found = self.entries.binary_search_by_key(&alias, |(known, _)| *known);
        found.is_ok_and(|at| self.entries[at].1.is_passed_on)
    }

    /// Whether the alias stands for this topic, and the receiver was told so.
    pub(super) fn is_known_as(&self, alias: u16, topic: &str) -> bool {
        let found = self.entries.binary_search_by_key(&alias, |(known, _)| *known);
        found.is_ok_and(|at| {
            let entry = &self.entries[at].1;
            entry.is_passed_on && entry.topic.as_ref() == topic
        })
    }

    /// Notes that the receiver was told.
    pub(super) fn pass_on(&mut self, alias: u16) {
        if let Ok(at) = self.entries.binary_search_by_key(&alias, |(known, _)| *known) {
            self.entries[at].1.is_passed_on = true;
        }
    }

    fn remember(
        &mut self,
        found: Result<usize, usize>,
        alias: u16,
        topic: &str,
    ) -> Result<Arc<str>, AliasError> {
        let topic: Arc<str> = match found {
            Ok(at) if self.entries[at].1.topic.as_ref() == topic => {
                return Ok(Arc::clone(&self.entries[at].1.topic));
            }
            _ => topic.into(),
        };
        let replaced = found.map_or(0, |at| ENTRY_BYTES + self.entries[at].1.topic.len());
        self.bytes = self.bytes - replaced + ENTRY_BYTES + topic.len();
        if self.bytes > MAX_BYTES {
            return Err(AliasError::TooMuch);
        }
        let entry = Entry { topic: Arc::clone(&topic), is_passed_on: false };
        match found {
            Ok(at) => self.entries[at].1 = entry,
            Err(at) => self.entries.insert(at, (alias, entry)),
        }
        Ok(topic)
    }
}

impl fmt::Display for AliasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange(alias) => write!(f, "topic alias {alias} is above the maximum"),
            Self::TooMuch => f.write_str("the topics of all topic aliases are too long together"),
            Self::Unknown(alias) => write!(f, "topic alias {alias} stands for no topic"),
        }
    }
}

/// A client may announce 65,535 aliases of 65,535 bytes; nobody does.
const MAX_BYTES: usize = 256 * 1024;

/// What an alias costs beside its topic.
const ENTRY_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_stands_for_the_last_topic_sent_with_it() {
        let mut aliases = up_to(2);
        assert_eq!(aliases.resolve(1, "a").as_deref(), Ok("a"));
        assert_eq!(aliases.resolve(1, "").as_deref(), Ok("a"));
        assert_eq!(aliases.resolve(1, "b").as_deref(), Ok("b"));
        assert_eq!(aliases.resolve(1, "").as_deref(), Ok("b"));
    }

    #[test]
    fn alias_above_the_maximum_is_out_of_range() {
        assert_eq!(up_to(2).resolve(3, "a"), Err(AliasError::OutOfRange(3)));
        assert_eq!(Aliases::default().resolve(1, "a"), Err(AliasError::OutOfRange(1)));
    }

    #[test]
    fn alias_without_a_topic_is_unknown() {
        assert_eq!(up_to(2).resolve(1, ""), Err(AliasError::Unknown(1)));
    }

    #[test]
    fn new_topic_is_not_passed_on_until_said() {
        let mut aliases = up_to(2);
        aliases.resolve(1, "a").expect("in range");
        assert!(!aliases.is_passed_on(1));
        aliases.pass_on(1);
        aliases.resolve(1, "a").expect("in range");
        assert!(aliases.is_passed_on(1));
        aliases.resolve(1, "b").expect("in range");
        assert!(!aliases.is_passed_on(1));
    }

    #[test]
    fn topics_of_all_aliases_together_are_bounded() {
        let mut aliases = up_to(u16::MAX);
        let long = "t".repeat(60_000);
        let stopped = (1..=100).find(|&alias| aliases.resolve(alias, &long).is_err());
        assert_eq!(stopped, Some(5));
    }

    fn up_to(maximum: u16) -> Aliases {
        let mut aliases = Aliases::default();
        aliases.set_maximum(maximum);
        aliases
    }
}
