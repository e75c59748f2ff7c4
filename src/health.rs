//! What has to be there for a gateway to serve.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The parts of a gateway, each with what it lacks.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<u64, Part>>>);

/// One part's entry, which is there as long as this is.
#[derive(Debug)]
pub struct Component {
    health: Health,
    number: u64,
}

/// A part of a gateway, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: Box<str>,
    /// Why it is not ready; `None` if it is.
    pub lacks: Option<Box<str>>,
}

impl Health {
    /// A part that is not ready yet. Parts may have the same name.
    pub fn component(&self, name: &str) -> Component {
        let mut parts = self.lock();
        let number = parts.last_key_value().map_or(0, |(last, _)| last + 1);
        parts.insert(number, Part { name: name.into(), lacks: Some("is starting".into()) });
        Component { health: self.clone(), number }
    }

    /// All parts, in the order in which they came.
    pub fn parts(&self) -> Vec<Part> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component {
    /// It is ready from now on.
    pub fn ready(&self) {
        self.set(None);
    }

    /// It is not ready from now on, and why.
    pub fn not_ready(&self, why: &str) {
        self.set(Some(why.into()));
    }

    fn set(&self, lacks: Option<Box<str>>) {
        if let Some(part) = self.health.lock().get_mut(&self.number) {
            part.lacks = lacks;
        }
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.health.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_is_not_ready_until_it_says_so() {
        let health = Health::default();
        let [one, other] = ["one", "other"].map(|name| health.component(name));
        one.ready();
        assert_eq!(lacks(&health), [None, Some("is starting".into())]);
        other.ready();
        one.not_ready("lost its service");
        assert_eq!(lacks(&health), [Some("lost its service".into()), None]);
    }

    #[test]
    fn part_that_is_gone_lacks_nothing() {
        let health = Health::default();
        let gone = health.component("same");
        let stays = health.component("same");
        drop(gone);
        let later = health.component("later");
        stays.ready();
        later.ready();
        assert_eq!(lacks(&health), [None, None]);
    }

    fn lacks(health: &Health) -> Vec<Option<Box<str>>> {
        health.parts().into_iter().map(|part| part.lacks).collect()
    }
}
