//! How many messages a second one client may send.

use std::time::{Duration, Instant};

/// A token bucket that holds one second's worth.
#[derive(Debug)]
pub(super) struct Rate {
    /// Time that one message costs.
    interval: Duration,
    /// When the bucket will be full again; each message moves it on by `interval`.
    full_at: Instant,
}

impl Rate {
    /// A full bucket for `per_second` messages.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), full_at: now }
    }

    /// Takes one message out; or says from when on there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.max(now) + self.interval;
        let wait = (full_at - now).saturating_sub(Duration::from_secs(1));
        if !wait.is_zero() {
            return Err(now + wait);
        }
        self.full_at = full_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mgate_policies::Now;

    #[test]
    fn burst_of_one_second_passes_and_then_the_rate_holds() {
        let start = Now::read().instant;
        let mut rate = Rate::new(10, start);
        assert!((0..10).all(|_| rate.take(start).is_ok()));
        let next = start + Duration::from_millis(100);
        assert_eq!(rate.take(start), Err(next));
        assert_eq!(rate.take(next), Ok(()));
        assert!(rate.take(next).is_err());
    }

    #[test]
    fn silence_fills_no_more_than_one_second() {
        let start = Now::read().instant;
        let mut rate = Rate::new(2, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..5).filter(|_| rate.take(later).is_ok()).count(), 2);
    }
}
