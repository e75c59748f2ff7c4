use std::time::{Duration, Instant};

/// Keeps questions away from a service that does not answer, and tries now and then whether it does again.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// How long it stays open the next time.
    pause: Duration,
}

#[derive(Debug)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    /// One question is on its way to see whether the service is back.
    Probing,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, failures: 0, pause: FIRST_PAUSE }
    }
}

impl Breaker {
    /// Whether a question would be kept away.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => false,
            State::Open { until } => now < until,
            State::Probing => true,
        }
    }

    /// Whether a question may go: if so, its end must be told.
    pub(crate) fn admit(&mut self, now: Instant) -> bool {
        let is_open = self.is_open(now);
        if matches!(self.state, State::Open { .. }) && !is_open {
            self.state = State::Probing;
        }
        !is_open
    }

    /// A question was answered; says whether the service was believed dead.
    pub(crate) fn succeeded(&mut self) -> bool {
        let was_open = !matches!(self.state, State::Closed);
        *self = Self::default();
        was_open
    }

    /// A question was not answered; says for how long there are no others, if that is new. `random` spreads
    /// the end of the pause.
    pub(crate) fn failed(&mut self, now: Instant, random: u64) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.failures >= MAX_FAILURES,
            // it was sent before the service was given up
            State::Open { .. } => false,
            State::Probing => true,
        };
        opens.then(|| {
            let pause = shorter(self.pause, random);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            self.state = State::Open { until: now + pause };
            pause
        })
    }
}

/// A duration made shorter by up to a tenth, so that not everybody ends at once.
pub(crate) fn shorter(duration: Duration, random: u64) -> Duration {
    duration.saturating_sub(duration / 10 * (random % 256) as u32 / 255)
}

const MAX_FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use mgate_policies::Now;

    use super::*;

    #[test]
    fn opens_after_failures_in_a_row() {
        let (mut breaker, now) = (Breaker::default(), Now::read().instant);
        for _ in 0..4 {
            assert!(breaker.admit(now) && breaker.failed(now, 0).is_none());
        }
        assert!(!breaker.succeeded());
        for _ in 0..4 {
            assert!(breaker.admit(now) && breaker.failed(now, 0).is_none());
        }
        assert_eq!(breaker.failed(now, 0), Some(FIRST_PAUSE));
        assert!(!breaker.admit(now + FIRST_PAUSE - Duration::from_millis(1)));
    }

    #[test]
    fn one_probe_goes_after_the_pause_and_closes_it() {
        let (mut breaker, now) = open();
        let later = now + FIRST_PAUSE;
        assert!(!breaker.is_open(later));
        assert_eq!([breaker.admit(later), breaker.admit(later)], [true, false]);
        assert!(breaker.succeeded());
        assert_eq!([breaker.admit(later), breaker.admit(later)], [true, true]);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let (mut breaker, mut now) = open();
        let mut pause = FIRST_PAUSE;
        for secs in [2, 4, 8, 10, 10] {
            now += pause;
            assert!(breaker.admit(now));
            pause = breaker.failed(now, 0).unwrap();
            assert_eq!(pause, Duration::from_secs(secs));
        }
        breaker.succeeded();
        for _ in 0..4 {
            assert_eq!(breaker.failed(now, 0), None);
        }
        assert_eq!(breaker.failed(now, 0), Some(FIRST_PAUSE));
    }

    #[test]
    fn failures_of_the_time_before_do_not_prolong_the_pause() {
        let (mut breaker, now) = open();
        assert_eq!(breaker.failed(now, 0), None);
        assert!(breaker.admit(now + FIRST_PAUSE));
    }

    #[test]
    fn pauses_differ_by_a_tenth_at_the_most() {
        let pauses = [0, 100, 255, 256, u64::MAX].map(|random| shorter(FIRST_PAUSE, random).as_millis());
        assert_eq!(pauses, [1000, 960, 900, 1000, 900]);
    }

    fn open() -> (Breaker, Instant) {
        let (mut breaker, now) = (Breaker::default(), Now::read().instant);
        let opened: Vec<_> = (0..MAX_FAILURES).filter_map(|_| breaker.failed(now, 0)).collect();
        assert_eq!(opened, [FIRST_PAUSE]);
        (breaker, now)
    }
}
