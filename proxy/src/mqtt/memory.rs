//! What one side may send, as far as it was asked lately: a device says the same again and again.

use std::sync::Arc;
use std::time::Instant;

use mgate_policies::{Grant, TopicName};

/// The last messages that were allowed in one direction of one session.
#[derive(Debug, Default)]
pub(super) struct Memory {
    entries: Vec<Entry>,
    /// The entry that makes room for the next one.
    oldest: usize,
}

/// What is asked about a message, other than its payload.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) topic: TopicName<'a>,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

#[derive(Debug)]
struct Entry {
    topic: Box<str>,
    qos: u8,
    retain: bool,
    until: Option<Instant>,
    by: Option<Arc<str>>,
}

impl Memory {
    /// Keeps what was allowed, for as long as the grant lasts.
    pub(super) fn remember(&mut self, asked: Asked<'_>, grant: &Grant, now: Instant) {
        let Asked { topic, qos, retain } = asked;
        if topic.as_str().len() > MAX_TOPIC_BYTES {
            return;
        }
        let until = grant.ttl.and_then(|ttl| now.checked_add(ttl));
        let entry = Entry { topic: topic.as_str().into(), qos, retain, until, by: grant.by.clone() };
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(entry);
        } else {
            self.entries[self.oldest] = entry;
            self.oldest = (self.oldest + 1) % MAX_ENTRIES;
        }
    }

    /// The entry that allowed the same before, if it still does.
    pub(super) fn recall(&self, asked: Asked<'_>, now: Instant) -> Option<usize> {
        let is_same = |entry: &Entry| {
            (entry.qos, entry.retain) == (asked.qos, asked.retain)
                && entry.until.is_none_or(|until| now < until)
                && entry.topic.as_ref() == asked.topic.as_str()
        };
        self.entries.iter().position(is_same)
    }

    /// What allowed an entry, for people.
    pub(super) fn allowed_by(&self, entry: usize) -> Option<&str> {
        self.entries.get(entry)?.by.as_deref()
    }
}

const MAX_ENTRIES: usize = 4;
const MAX_TOPIC_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mgate_policies::Now;

    use super::*;

    #[test]
    fn same_topic_qos_and_retain_are_recalled_and_nothing_else() {
        let (mut memory, now) = (Memory::default(), Now::read().instant);
        memory.remember(asked("a/b", 1, false), &Grant::default(), now);
        let recalled =
            [("a/b", 1, false), ("a/b", 0, false), ("a/b", 1, true), ("a", 1, false), ("a/b/c", 1, false)]
                .map(|(topic, qos, retain)| memory.recall(asked(topic, qos, retain), now).is_some());
        assert_eq!(recalled, [true, false, false, false, false]);
    }

    #[test]
    fn grant_is_forgotten_when_its_time_ends() {
        let (mut memory, now) = (Memory::default(), Now::read().instant);
        let mut grant = Grant::default();
        grant.ttl = Some(Duration::from_secs(5));
        memory.remember(asked("a", 0, false), &grant, now);
        assert!(memory.recall(asked("a", 0, false), now + Duration::from_millis(4999)).is_some());
        assert!(memory.recall(asked("a", 0, false), now + Duration::from_secs(5)).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let (mut memory, now) = (Memory::default(), Now::read().instant);
        let topics: Vec<String> = (0..6).map(|number| number.to_string()).collect();
        for topic in &topics {
            memory.remember(asked(topic, 0, false), &Grant::default(), now);
        }
        memory.remember(asked(&"long".repeat(200), 0, false), &Grant::default(), now);
        let known = topics.iter().map(|topic| memory.recall(asked(topic, 0, false), now).is_some());
        assert_eq!(known.collect::<Vec<_>>(), [false, false, true, true, true, true]);
    }

    fn asked(topic: &str, qos: u8, retain: bool) -> Asked<'_> {
        Asked { topic: TopicName::parse(topic).expect("a topic"), qos, retain }
    }
}
