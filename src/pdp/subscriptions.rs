use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use mgate_policies::{Client, TopicFilter, TopicName};

/// The filters to which clients were allowed to subscribe, so that deliveries can be judged by them.
///
/// It may forget: what it remembers is only which question to ask, never the answer.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    hashers: [RandomState; 2],
    generations: Mutex<Generations>,
}

/// One subscription as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    /// The filter with its share group.
    pub(super) filter: Arc<str>,
    pub(super) qos: u8,
}

/// What is not asked for while a whole generation of others comes in is forgotten.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u128, Vec<Subscription>>,
    young_bytes: usize,
    old: HashMap<u128, Vec<Subscription>>,
}

impl Subscriptions {
    /// Under what a client's subscriptions are kept.
    pub(super) fn key(&self, client: &Client) -> u128 {
        let who = (&client.route, &client.client_id, &client.principal.tenant, &client.principal.id);
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(who));
        u128::from(high) << 64 | u128::from(low)
    }

    /// Remembers that a client subscribed.
    pub(super) fn add(&self, key: u128, subscription: Subscription) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let mut subscriptions = generations.take(key);
        subscriptions.retain(|other| other.filter != subscription.filter);
        if subscriptions.len() >= MAX_FILTERS {
            subscriptions.remove(0);
        }
        subscriptions.push(subscription);
        generations.put(key, subscriptions);
    }

    /// Those of a client's subscriptions that a message to `topic` reaches, the newest first; not all if there
    /// are many.
    pub(super) fn reached_by(&self, key: u128, topic: TopicName<'_>) -> Vec<Subscription> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if !generations.young.contains_key(&key) {
            let old = generations.take(key);
            if old.is_empty() {
                return old;
            }
            generations.put(key, old);
        }
        let is_reached = |subscription: &&Subscription| {
            TopicFilter::parse(&subscription.filter).is_ok_and(|filter| filter.matches(topic))
        };
        let subscriptions = generations.young.get(&key).map(Vec::as_slice).unwrap_or_default();
        subscriptions.iter().rev().filter(is_reached).take(MAX_REACHED).cloned().collect()
    }
}

impl Generations {
    fn take(&mut self, key: u128) -> Vec<Subscription> {
        match self.young.remove(&key) {
            Some(subscriptions) => {
                self.young_bytes -= bytes(&subscriptions);
                subscriptions
            }
            None => self.old.remove(&key).unwrap_or_default(),
        }
    }

    fn put(&mut self, key: u128, subscriptions: Vec<Subscription>) {
        if self.young_bytes >= GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes(&subscriptions);
        self.young.insert(key, subscriptions);
    }
}

fn bytes(subscriptions: &[Subscription]) -> usize {
    CLIENT_BYTES + subscriptions.iter().map(|one| FILTER_BYTES + one.filter.len()).sum::<usize>()
}

/// Filters of one client; the oldest makes room.
const MAX_FILTERS: usize = 64;
/// Filters that are asked about for one delivery.
const MAX_REACHED: usize = 4;
/// Half of the memory.
const GENERATION_BYTES: usize = 16 * 1024 * 1024;
/// What a client and a filter cost beside the filter's text.
const CLIENT_BYTES: usize = 64;
const FILTER_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use mgate_policies::Principal;

    use super::super::tests::client;
    use super::*;

    #[test]
    fn filters_that_a_topic_reaches_are_found_newest_first() {
        let subscriptions = Subscriptions::default();
        for (filter, qos) in [("a/#", 0), ("b/#", 0), ("$share/g/a/+", 1), ("a/#", 2), ("+/+", 0)] {
            add(&subscriptions, &client(), filter, qos);
        }
        assert_eq!(reached(&subscriptions, &client(), "a/x"), "+/+ 0, a/# 2, $share/g/a/+ 1");
        assert_eq!(reached(&subscriptions, &client(), "b"), "b/# 0");
        assert_eq!(reached(&subscriptions, &client(), "$SYS/x"), "");
    }

    #[test]
    fn each_client_has_its_own() {
        let subscriptions = Subscriptions::default();
        add(&subscriptions, &client(), "a", 0);
        let other_id = Client { client_id: "dev-2".into(), ..client() };
        let principal = Principal { id: "dev-2".into(), ..Principal::default() };
        let other_principal = Client { principal, ..client() };
        let other_route = Client { route: "others".into(), ..client() };
        for other in [other_id, other_principal, other_route] {
            assert_eq!(reached(&subscriptions, &other, "a"), "");
        }
    }

    #[test]
    fn filters_of_one_client_are_bounded() {
        let subscriptions = Subscriptions::default();
        for number in 0..=MAX_FILTERS {
            add(&subscriptions, &client(), &format!("{number}"), 0);
        }
        assert_eq!(reached(&subscriptions, &client(), "0"), "");
        assert_eq!(reached(&subscriptions, &client(), "1"), "1 0");
        add(&subscriptions, &client(), "#", 0);
        (0..9).for_each(|number| add(&subscriptions, &client(), &format!("{}x", "+/".repeat(number)), 0));
        assert!(reached(&subscriptions, &client(), "x").split(", ").count() <= MAX_REACHED);
    }

    #[test]
    fn memory_is_bounded_and_who_is_heard_of_stays() {
        let subscriptions = Subscriptions::default();
        let long = "x".repeat(60_000);
        let numbered = |number: usize| Client { client_id: format!("{number}").into(), ..client() };
        add(&subscriptions, &client(), "a", 0);
        for number in 0..1000 {
            add(&subscriptions, &numbered(number), &long, 0);
            assert_eq!(reached(&subscriptions, &client(), "a"), "a 0");
        }
        let generations = subscriptions.generations.lock().unwrap();
        let sum = |generation: &HashMap<_, Vec<Subscription>>| {
            generation.values().map(|all| bytes(all)).sum::<usize>()
        };
        assert_eq!(sum(&generations.young), generations.young_bytes);
        assert!(sum(&generations.young) + sum(&generations.old) < 2 * (GENERATION_BYTES + 64 * 1024));
        drop(generations);
        assert_eq!(reached(&subscriptions, &numbered(0), &long), "");
    }

    fn add(subscriptions: &Subscriptions, client: &Client, filter: &str, qos: u8) {
        subscriptions.add(subscriptions.key(client), Subscription { filter: filter.into(), qos });
    }

    fn reached(subscriptions: &Subscriptions, client: &Client, topic: &str) -> String {
        let found = subscriptions.reached_by(subscriptions.key(client), TopicName::parse(topic).unwrap());
        found.iter().map(|one| format!("{} {}", one.filter, one.qos)).collect::<Vec<_>>().join(", ")
    }
}
