use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::background::sleep_until;

/// How busy a connection is, and since when it has nothing to do.
pub(super) struct Life(Mutex<State>);

#[derive(Clone, Copy)]
enum State {
    Busy(usize),
    /// Nobody gets it any more.
    Gone,
    IdleSince(Instant),
}

impl Life {
    /// That of a connection which has its first request.
    pub(super) fn busy() -> Self {
        Self(Mutex::new(State::Busy(1)))
    }

    /// Counts one more request; `false` if there are `most`, or if it is about to go.
    pub(super) fn take(&self, most: usize) -> bool {
        let mut state = self.lock();
        let requests = match *state {
            State::Busy(requests) if requests < most => requests,
            State::IdleSince(_) => 0,
            State::Busy(_) | State::Gone => return false,
        };
        *state = State::Busy(requests + 1);
        true
    }

    /// Whether it has no request.
    pub(super) fn is_idle(&self) -> bool {
        matches!(*self.lock(), State::IdleSince(_))
    }

    /// One request is over.
    pub(super) fn rest(&self) {
        let mut state = self.lock();
        match *state {
            State::Busy(requests) if requests > 1 => *state = State::Busy(requests - 1),
            State::Busy(_) => *state = State::IdleSince(Instant::now()),
            State::Gone | State::IdleSince(_) => {}
        }
    }

    /// Moves the bytes of its connection until that breaks, or was idle for too long.
    pub(super) async fn drive<D: Future<Output = hyper::Result<()>>>(&self, driver: D) {
        tokio::select! {
            ended = driver => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection to an upstream broke");
                }
            }
            () = self.tired() => {}
        }
    }

    /// Waits until the connection was idle for too long; nobody gets it after that.
    async fn tired(&self) {
        loop {
            let since = match *self.lock() {
                State::IdleSince(since) => since,
                State::Busy(_) | State::Gone => Instant::now(),
            };
            sleep_until(since + IDLE_TIME).await;
            let mut state = self.lock();
            if matches!(*state, State::IdleSince(since) if since.elapsed() >= IDLE_TIME) {
                *state = State::Gone;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Less than servers usually wait themselves.
const IDLE_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connection_without_requests_goes_and_is_not_taken_again() {
        let life = Life::busy();
        assert!(life.take(2) && !life.take(2), "two at a time");
        life.rest();
        assert!(tokio::time::timeout(2 * IDLE_TIME, life.tired()).await.is_err(), "it is busy");
        life.rest();
        let since = Instant::now();
        life.tired().await;
        assert_eq!(since.elapsed().as_secs(), IDLE_TIME.as_secs());
        assert!(!life.take(2));
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_begins_the_rest_anew() {
        let life = Life::busy();
        life.rest();
        let since = Instant::now();
        let again = async {
            tokio::time::sleep(IDLE_TIME / 2).await;
            assert!(life.take(1));
            life.rest();
        };
        tokio::join!(life.tired(), again);
        assert_eq!(since.elapsed().as_secs(), IDLE_TIME.as_secs() * 3 / 2);
    }
}
