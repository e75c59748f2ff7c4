//! What a client may do, as far as it was asked lately: a device says the same again and again.

use std::sync::Arc;
use std::time::Instant;

use mgate_policies::{Action, Grant};

/// What was allowed last to one client, in one direction of its session. Whoever has it forgets it when rights change.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    entries: Vec<Entry>,
    /// The entry that makes room for the next one.
    oldest: usize,
}

/// What is asked about a message, other than its client and its payload.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) action: Action,
    /// The topic; or method and path.
    pub(crate) name: &'a str,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
}

#[derive(Debug)]
struct Entry {
    action: Action,
    name: Box<str>,
    qos: u8,
    retain: bool,
    until: Option<Instant>,
    by: Option<Arc<str>>,
}

impl Memory {
    /// Keeps what was allowed, for as long as the grant lasts.
    pub(crate) fn remember(&mut self, asked: Asked<'_>, grant: &Grant, now: Instant) {
        let Asked { action, name, qos, retain } = asked;
        if name.len() > MAX_NAME_BYTES {
            return;
        }
        let until = grant.ttl.and_then(|ttl| now.checked_add(ttl));
        let entry = Entry { action, name: name.into(), qos, retain, until, by: grant.by.clone() };
        if self.entries.len() < MAX_ENTRIES {
            // most clients say one thing only
            self.entries.reserve_exact(1);
            self.entries.push(entry);
        } else {
            self.entries[self.oldest] = entry;
            self.oldest = (self.oldest + 1) % MAX_ENTRIES;
        }
    }

    /// The entry that allowed the same before, if it still does.
    pub(crate) fn recall(&self, asked: Asked<'_>, now: Instant) -> Option<usize> {
        let is_same = |entry: &Entry| {
            (entry.action, entry.qos, entry.retain) == (asked.action, asked.qos, asked.retain)
                && entry.until.is_none_or(|until| now < until)
                && *entry.name == *asked.name
        };
        self.entries.iter().position(is_same)
    }

    /// What allowed an entry, for people.
    pub(crate) fn allowed_by(&self, entry: usize) -> Option<&Arc<str>> {
        self.entries.get(entry)?.by.as_ref()
    }

    /// When an entry has to be asked about again; `None` for never.
    pub(crate) fn until(&self, entry: usize) -> Option<Instant> {
        self.entries.get(entry)?.until
    }
}

const MAX_ENTRIES: usize = 4;
const MAX_NAME_BYTES: usize = 512;

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use mgate_policies::{Answer, Decision, Now, Policy, Query};

    use super::*;

    #[test]
    fn what_is_asked_again_is_recalled_and_nothing_else() {
        let (mut memory, now) = (Memory::default(), Now::read().instant);
        memory.remember(asked("a/b", 1, false), &Grant::default(), now);
        let recalled =
            [("a/b", 1, false), ("a/b", 0, false), ("a/b", 1, true), ("a", 1, false), ("a/b/c", 1, false)]
                .map(|(topic, qos, retain)| memory.recall(asked(topic, qos, retain), now).is_some());
        assert_eq!(recalled, [true, false, false, false, false]);
        let other = Asked { action: Action::Deliver, ..asked("a/b", 1, false) };
        assert_eq!(memory.recall(other, now), None);
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

    fn asked(name: &str, qos: u8, retain: bool) -> Asked<'_> {
        Asked { action: Action::Publish, name, qos, retain }
    }

    /// Allows everything, for ever or as long as it says, and counts how often it is asked.
    #[derive(Default)]
    pub(crate) struct Counting {
        asked: AtomicUsize,
        ttl: Option<Duration>,
    }

    impl Counting {
        pub(crate) fn for_ten_seconds() -> Self {
            Self { ttl: Some(Duration::from_secs(10)), ..Self::default() }
        }

        pub(crate) fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    impl Policy for Counting {
        fn name(&self) -> &str {
            "counting"
        }

        fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let mut grant = Grant::default();
            grant.ttl = self.ttl;
            Answer::Ready(Decision::Allow(grant))
        }

        fn is_repeatable(&self) -> bool {
            true
        }
    }
}
