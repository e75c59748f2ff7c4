//! How many messages a second one client may send.

use std::time::{Duration, Instant};

/// A token bucket that holds one second's worth.
#[derive(Debug)]
pub(crate) struct Rate {
    /// Time that one message costs, in nanoseconds: a second at the most.
    interval_nanos: u32,
    /// When the bucket will be full again; each message moves it on by the interval.
    full_at: Instant,
}

impl Rate {
    /// A full bucket for `per_second` messages.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self { interval_nanos: 1_000_000_000 / per_second.max(1), full_at: now }
    }

    /// The same bucket, as full as it is, for `per_second` messages.
    pub(crate) fn changed(&self, per_second: u32) -> Self {
        Self::new(per_second, self.full_at)
    }

    /// Takes one message out; or says from when on there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.max(now) + Duration::from_nanos(self.interval_nanos.into());
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
    fn rate_that_changes_gives_back_nothing() {
        let start = Now::read().instant;
        let mut rate = Rate::new(10, start);
        assert!((0..10).all(|_| rate.take(start).is_ok()));
        let mut rate = rate.changed(2);
        assert_eq!(rate.take(start), Err(start + Duration::from_millis(500)));
        assert_eq!(rate.take(start + Duration::from_millis(500)), Ok(()));
        let mut rate = Rate::new(2, start).changed(4);
        assert_eq!((0..5).filter(|_| rate.take(start).is_ok()).count(), 4);
    }

    #[test]
    fn silence_fills_no_more_than_one_second() {
        let start = Now::read().instant;
        let mut rate = Rate::new(2, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..5).filter(|_| rate.take(later).is_ok()).count(), 2);
    }
}
