use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counts what passed with a fault, to be told now and then.
pub(super) struct Tally {
    quiet: Duration,
    untold: Mutex<Untold>,
}

#[derive(Default)]
struct Untold {
    count: u64,
    quiet_until: Option<Instant>,
}

impl Tally {
    /// Tells at most once in `quiet`.
    pub(super) fn new(quiet: Duration) -> Self {
        Self { quiet, untold: Mutex::default() }
    }

    /// Counts one more; how many there were since it was told last, if it is time.
    pub(super) fn count(&self, now: Instant) -> Option<u64> {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count += 1;
        if untold.quiet_until.is_some_and(|until| now < until) {
            return None;
        }
        untold.quiet_until = Some(now + self.quiet);
        Some(std::mem::take(&mut untold.count))
    }
}

#[cfg(test)]
mod tests {
    use mgate_policies::Now;

    use super::*;

    #[test]
    fn what_was_not_told_is_told_later() {
        let (tally, now) = (Tally::new(Duration::from_secs(10)), Now::read().instant);
        let after = |secs| tally.count(now + Duration::from_secs(secs));
        assert_eq!([0, 1, 9, 10, 11, 30].map(after), [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
