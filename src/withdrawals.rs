//! Rights that were withdrawn, on their way from whoever hears of it to live sessions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mgate_policies::Scope;
use tokio::sync::Notify;

/// Where those who hear of withdrawn rights say so. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct Withdrawals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Vec<Scope>>,
    came: Notify,
}

impl Withdrawals {
    /// Rights within `scope` were withdrawn.
    pub fn add(&self, scope: Scope) {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            waiting.clear();
            waiting.push(Scope::Everyone);
        } else if !waiting.contains(&scope) {
            waiting.push(scope);
        }
        drop(waiting);
        self.0.came.notify_one();
    }

    /// Waits until there are some, and takes all of them.
    pub(crate) async fn take(&self) -> Vec<Scope> {
        loop {
            let scopes = std::mem::take(&mut *self.lock());
            if !scopes.is_empty() {
                return scopes;
            }
            self.0.came.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Scope>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Scopes that may wait to be taken; one more, and rights of everybody are withdrawn.
const MAX_WAITING: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_that_waits_is_taken_once() {
        let withdrawals = Withdrawals::default();
        for id in ["a", "b", "a"] {
            withdrawals.clone().add(Scope::ClientId(id.into()));
        }
        assert_eq!(withdrawals.take().await, ["a", "b"].map(|id| Scope::ClientId(id.into())));
        withdrawals.add(Scope::Everyone);
        assert_eq!(withdrawals.take().await, [Scope::Everyone]);
    }

    #[tokio::test]
    async fn too_many_are_everybody() {
        let withdrawals = Withdrawals::default();
        (0..=MAX_WAITING).for_each(|number| withdrawals.add(Scope::ClientId(number.to_string().into())));
        assert_eq!(withdrawals.take().await, [Scope::Everyone]);
    }
}
