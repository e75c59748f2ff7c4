//! The time for the turns of relays, as cheap as it comes: that of the kernel's last tick.

use std::time::Duration;

use mgate_policies::Now;
use rustix::time::{ClockId, clock_gettime};

/// A clock that goes on in steps of a tick, and never back.
pub(crate) struct Clock {
    base: Now,
    /// What the ticks said at `base`.
    ticks: Duration,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let (now, exact, ticks) = (Now::read(), read(ClockId::Monotonic), read(TICKS));
        let late = exact.saturating_sub(ticks);
        let instant = now.instant.checked_sub(late).unwrap_or(now.instant);
        Self { base: Now { instant, unix: now.unix.saturating_sub(late) }, ticks }
    }

    /// The time of the last tick, some milliseconds ago. The wall clock is looked at once a second.
    pub(crate) fn read(&mut self) -> Now {
        let since = read(TICKS).saturating_sub(self.ticks);
        if since > Duration::from_secs(1) {
            let last = self.base.later(since);
            *self = Self::new();
            self.base.instant = self.base.instant.max(last.instant);
            return self.base;
        }
        self.base.later(since)
    }
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let [secs, nanos] = [time.tv_sec, time.tv_nsec].map(|number| u64::try_from(number).unwrap_or_default());
    Duration::from_secs(secs) + Duration::from_nanos(nanos)
}

#[cfg(target_os = "linux")]
const TICKS: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const TICKS: ClockId = ClockId::Monotonic;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_comes_to_every_time_and_to_none_early() {
        let mut clock = Clock::new();
        let later = Now::read().instant + Duration::from_millis(20);
        while clock.read().instant < later {
            assert!(clock.read().instant <= Now::read().instant, "early");
        }
    }

    #[test]
    fn clock_does_not_go_back_when_it_is_set_anew() {
        let mut clock = Clock::new();
        let mut last = clock.read();
        for _ in 0..100 {
            let long = Duration::from_secs(2);
            clock.ticks -= long;
            clock.base.instant -= long;
            let now = clock.read();
            assert!(now.instant >= last.instant);
            last = now;
        }
    }
}
