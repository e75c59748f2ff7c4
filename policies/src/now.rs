use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time at which something happens, read once per burst of packets and passed along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// The monotonic clock: for time-outs and rates.
    pub instant: Instant,
    /// Time since the Unix epoch: for expiry and time conditions.
    pub unix: Duration,
}

impl Now {
    /// Reads both clocks; for shells only, never for sessions or policies.
    #[expect(clippy::disallowed_methods, reason = "the one place where the clocks are read")]
    pub fn read() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix }
    }

    /// The same point on both clocks, `by` later.
    pub fn later(self, by: Duration) -> Self {
        Self { instant: self.instant + by, unix: self.unix + by }
    }
}
