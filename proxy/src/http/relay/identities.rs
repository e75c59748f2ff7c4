use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mgate_policies::Client;

use crate::http::credentials::Shown;

/// Who a connection's requests were found to come from lately, by what they showed.
#[derive(Default)]
pub(super) struct Identities {
    keys: [RandomState; 2],
    known: Mutex<Vec<Known>>,
}

struct Known {
    key: u128,
    client: Arc<Client>,
    /// Of the rights when it was asked who it is.
    epoch: u64,
}

impl Identities {
    /// What stands for credentials that a route was shown: it tells nothing of them. What one route makes of them
    /// means nothing to another.
    pub(super) fn key(&self, route: usize, shown: &Shown) -> u128 {
        if *shown == Shown::default() {
            return route as u128;
        }
        let [high, low] = self.keys.each_ref().map(|key| key.hash_one((route, shown)));
        u128::from(high) << 64 | u128::from(low)
    }

    /// Who showed the same before, with the epoch of that, as long as the credentials are good.
    pub(super) fn find(&self, key: u128, unix: Duration) -> Option<(Arc<Client>, u64)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| one.client.principal.expires.is_none_or(|expires| unix < expires));
        known.iter().find(|one| one.key == key).map(|one| (Arc::clone(&one.client), one.epoch))
    }

    /// Keeps who it was; the oldest makes room.
    pub(super) fn keep(&self, key: u128, client: Arc<Client>, epoch: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|one| one.key != key);
        if known.len() >= MAX_KNOWN {
            known.remove(0);
        }
        known.push(Known { key, client, epoch });
    }
}

/// A device shows one thing, and a proxy in front those of a few.
const MAX_KNOWN: usize = 8;
