use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// How often rights were withdrawn: of everybody, and of principals. Decisions of an earlier epoch are dead.
#[derive(Debug, Default)]
pub(super) struct Epochs(RwLock<Counts>);

/// The epoch of one principal.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) struct Epoch(u64, u64);

#[derive(Debug, Default)]
struct Counts {
    all: u64,
    /// By tenant, where one was named, and identity.
    principals: HashMap<(Option<Box<str>>, Box<str>), u64>,
}

impl Epochs {
    pub(super) fn of(&self, tenant: &str, id: &str) -> Epoch {
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if counts.principals.is_empty() {
            return Epoch(counts.all, 0);
        }
        let of = |tenant| counts.principals.get(&key(tenant, id)).copied().unwrap_or_default();
        Epoch(counts.all, of(Some(tenant)) + of(None))
    }

    /// Begins a new epoch for everybody.
    pub(super) fn bump(&self) {
        let mut counts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        counts.all += 1;
        counts.principals.clear();
    }

    /// Begins a new epoch for one principal, or for those of all tenants with this identity.
    pub(super) fn bump_one(&self, tenant: Option<&str>, id: &str) {
        let mut counts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if counts.principals.len() >= MAX_PRINCIPALS {
            counts.all += 1;
            counts.principals.clear();
        }
        *counts.principals.entry(key(tenant, id)).or_default() += 1;
    }
}

fn key(tenant: Option<&str>, id: &str) -> (Option<Box<str>>, Box<str>) {
    (tenant.map(Into::into), id.into())
}

/// Principals with an epoch of their own; one more begins a new one for everybody.
const MAX_PRINCIPALS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_never_come_back() {
        let epochs = Epochs::default();
        let mut seen = vec![epochs.of("", "dev-1")];
        let mut changed = |epochs: &Epochs| {
            let now = epochs.of("", "dev-1");
            let is_new = !seen.contains(&now);
            seen.push(now);
            is_new
        };
        epochs.bump_one(Some(""), "dev-1");
        assert!(changed(&epochs));
        epochs.bump_one(Some(""), "dev-2");
        epochs.bump_one(Some("acme"), "dev-1");
        assert!(!changed(&epochs));
        epochs.bump_one(Some(""), "dev-1");
        assert!(changed(&epochs));
        epochs.bump_one(None, "dev-1");
        assert!(changed(&epochs));
        epochs.bump_one(None, "dev-2");
        assert!(!changed(&epochs));
        epochs.bump();
        assert!(changed(&epochs));
        epochs.bump_one(Some(""), "dev-1");
        assert!(changed(&epochs));
    }

    #[test]
    fn too_many_are_everybody() {
        let epochs = Epochs::default();
        let before = epochs.of("", "dev-0");
        for number in 1..=MAX_PRINCIPALS {
            epochs.bump_one(Some(""), &format!("dev-{number}"));
        }
        assert_eq!(epochs.of("", "dev-0"), before);
        epochs.bump_one(Some(""), "one-more");
        assert_ne!(epochs.of("", "dev-0"), before);
        assert!(epochs.0.read().unwrap().principals.len() <= MAX_PRINCIPALS);
    }
}
