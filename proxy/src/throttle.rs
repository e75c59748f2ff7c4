//! Keeps what clients and servers can cause at will from filling the log.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts what happens and lets it be told at most once an interval.
#[derive(Default)]
pub struct Throttle(Mutex<State>);

#[derive(Default)]
struct State {
    count: u64,
    quiet_until: Option<Instant>,
}

impl Throttle {
    /// Counts one; says how many there are to tell, if it is time.
    pub fn count(&self) -> Option<u64> {
        let mut state = self.lock();
        state.count += 1;
        state.take(Instant::now())
    }

    /// How many there are to tell, if there are any and it is time.
    pub fn take(&self) -> Option<u64> {
        self.lock().take(Instant::now())
    }

    /// When to ask again, if there is something left to tell.
    pub fn due(&self) -> Option<Instant> {
        let state = self.lock();
        state.quiet_until.filter(|_| state.count > 0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.count == 0 || self.quiet_until.is_some_and(|until| now < until) {
            return None;
        }
        self.quiet_until = Some(now + INTERVAL);
        Some(std::mem::take(&mut self.count))
    }
}

const INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn first_is_told_at_once_and_the_rest_later() {
        let throttle = Throttle::default();
        assert_eq!((throttle.count(), throttle.due()), (Some(1), None));
        assert_eq!([throttle.count(), throttle.count()], [None, None]);
        let due = throttle.due().unwrap();
        sleep_until(due - Duration::from_millis(1)).await;
        assert_eq!(throttle.take(), None);
        sleep_until(due).await;
        assert_eq!(throttle.take(), Some(2));
        advance(INTERVAL).await;
        assert_eq!((throttle.take(), throttle.due()), (None, None));
    }
}
