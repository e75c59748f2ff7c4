use std::collections::hash_map::RandomState;
use std::error::Error;
use std::fmt;
use std::hash::BuildHasher;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tracing::{info, warn};

use super::breaker::Breaker;

/// Keeps calls to one service within bounds: so many on their way and so many that wait, each with a deadline,
/// and none while the service seems to be down.
#[derive(Debug)]
pub(crate) struct Guard {
    asker: Asker,
    name: Arc<str>,
    timeout: Duration,
    places: Arc<Semaphore>,
    running: Semaphore,
    breaker: Mutex<Breaker>,
}

/// Who asks a service: logs name it so.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Authenticator,
    Policy,
}

/// A place among those who wait for the service, or are served.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit);

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal<E> {
    /// Too many wait already.
    Busy,
    /// The service did not answer as it should.
    Failed(E),
    /// The service did not answer lately, and is left alone for a while.
    Open,
    /// There was no answer within this time.
    TooLate(Duration),
}

/// An error of a call.
pub(crate) trait Failure: fmt::Display {
    /// Whether it means that the service is not there; a single odd question must not make it look so.
    fn is_outage(&self) -> bool;
}

impl Guard {
    /// Bounds for the service of an asker with this name; sixteen times as many calls may wait as may be on their
    /// way.
    pub(crate) fn new(asker: Asker, name: Arc<str>, timeout: Duration, concurrency: NonZeroU16) -> Self {
        let concurrency = usize::from(concurrency.get());
        Self {
            asker,
            name,
            timeout,
            places: Arc::new(Semaphore::new(concurrency * (1 + WAITING))),
            running: Semaphore::new(concurrency),
            breaker: Mutex::default(),
        }
    }

    /// A place for one call; none where too many have one.
    pub(crate) fn place<E>(&self) -> Result<Place, Refusal<E>> {
        Arc::clone(&self.places).try_acquire_owned().map(Place).map_err(|_| Refusal::Busy)
    }

    /// Makes a call when it is its turn, within the time that there is.
    pub(crate) async fn call<T, E: Failure>(
        &self,
        _place: &Place,
        asked: Instant,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Refusal<E>> {
        let clock = Clock { asked, since: time::Instant::now() };
        let calling = async {
            if self.is_open(clock.now()) {
                return Err(Refusal::Open);
            }
            let _running = self.running.acquire().await.map_err(|_| Refusal::Busy)?;
            let attempt = Attempt::begin(self, &clock).ok_or(Refusal::Open)?;
            let result = call.await;
            attempt.end(&result);
            result.map_err(Refusal::Failed)
        };
        time::timeout(self.timeout, calling).await.unwrap_or(Err(Refusal::TooLate(self.timeout)))
    }

    /// Whether a call would be refused now, since the service did not answer lately.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.breaker().is_open(now)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, now: Instant, why: &dyn fmt::Display) {
        let random = RandomState::new().hash_one(());
        if let Some(pause) = self.breaker().failed(now, random) {
            let name = &self.name;
            match self.asker {
                Asker::Authenticator => {
                    warn!(authn = %name, %why, ?pause, "the service does not answer: it is left alone");
                }
                Asker::Policy => {
                    warn!(policy = %name, %why, ?pause, "the decision service does not answer: it is left alone");
                }
            }
        }
    }

    fn succeeded(&self) {
        if self.breaker().succeeded() {
            let name = &self.name;
            match self.asker {
                Asker::Authenticator => info!(authn = %name, "the service answers again"),
                Asker::Policy => info!(policy = %name, "the decision service answers again"),
            }
        }
    }
}

/// A call on its way; one that is given up has failed.
struct Attempt<'a> {
    guard: &'a Guard,
    clock: &'a Clock,
    is_over: bool,
}

impl<'a> Attempt<'a> {
    fn begin(guard: &'a Guard, clock: &'a Clock) -> Option<Self> {
        guard.breaker().admit(clock.now()).then_some(Self { guard, clock, is_over: false })
    }

    fn end<T, E: Failure>(mut self, result: &Result<T, E>) {
        self.is_over = true;
        match result {
            Err(error) if error.is_outage() => self.guard.failed(self.clock.now(), error),
            _ => self.guard.succeeded(),
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let late = format!("no answer within {:?}", self.guard.timeout);
            self.guard.failed(self.clock.now(), &late);
        }
    }
}

/// The caller's clock, going on from when it asked.
struct Clock {
    asked: Instant,
    since: time::Instant,
}

impl Clock {
    fn now(&self) -> Instant {
        self.asked + self.since.elapsed()
    }
}

impl<E: fmt::Display> fmt::Display for Refusal<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too many clients wait for the service"),
            Self::Failed(error) => error.fmt(f),
            Self::Open => f.write_str("the service did not answer lately"),
            Self::TooLate(timeout) => write!(f, "no answer within {timeout:?}"),
        }
    }
}

impl<E: fmt::Display + fmt::Debug> Error for Refusal<E> {}

/// Calls that may wait for each that is on its way.
const WAITING: usize = 16;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use mgate_policies::Now;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn call_ends_at_its_deadline() {
        let guard = guard(1);
        let before = time::Instant::now();
        let late = guard.call(&place(&guard), now(), pending::<Result<(), Odd>>()).await;
        assert_eq!((late, before.elapsed()), (Err(Refusal::TooLate(TIMEOUT)), TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_wait_and_no_more() {
        let guard = guard(2);
        let places: Vec<_> = (0..34).map(|_| place(&guard)).collect();
        assert_eq!(guard.place::<Odd>().map(drop), Err(Refusal::Busy));
        drop(places);
        assert!(guard.place::<Odd>().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_the_queue_counts() {
        let guard = Arc::new(guard(1));
        let (first, second) = (Arc::clone(&guard), Arc::clone(&guard));
        let (at, place_of_first) = (now(), place(&guard));
        let first =
            tokio::spawn(async move { first.call(&place_of_first, at, pending::<Result<(), Odd>>()).await });
        tokio::task::yield_now().await;
        let before = time::Instant::now();
        let place_of_second = place(&guard);
        let second = second.call(&place_of_second, at, pending::<Result<(), Odd>>());
        assert_eq!((second.await, before.elapsed()), (Err(Refusal::TooLate(TIMEOUT)), TIMEOUT));
        assert_eq!(first.await.unwrap(), Err(Refusal::TooLate(TIMEOUT)));
    }

    #[tokio::test(start_paused = true)]
    async fn service_that_is_down_is_left_alone_and_odd_answers_do_not_make_it_so() {
        let guard = guard(1);
        for _ in 0..20 {
            let odd = guard.call(&place(&guard), now(), ready(Err::<(), _>(Odd(false)))).await;
            assert_eq!(odd, Err(Refusal::Failed(Odd(false))));
        }
        for _ in 0..5 {
            let down = guard.call(&place(&guard), now(), ready(Err::<(), _>(Odd(true)))).await;
            assert_eq!(down, Err(Refusal::Failed(Odd(true))));
        }
        let open = guard.call(&place(&guard), now(), ready(Ok::<_, Odd>(()))).await;
        assert_eq!(open, Err(Refusal::Open));
        let later = now() + Duration::from_secs(2);
        assert_eq!(guard.call(&place(&guard), later, ready(Ok::<_, Odd>(()))).await, Ok(()));
        assert_eq!(guard.call(&place(&guard), now(), ready(Ok::<_, Odd>(()))).await, Ok(()));
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Odd(bool);

    impl fmt::Display for Odd {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("odd")
        }
    }

    impl Failure for Odd {
        fn is_outage(&self) -> bool {
            self.0
        }
    }

    fn guard(concurrency: u16) -> Guard {
        Guard::new(Asker::Authenticator, "test".into(), TIMEOUT, NonZeroU16::new(concurrency).unwrap())
    }

    fn place(guard: &Guard) -> Place {
        guard.place::<Odd>().unwrap()
    }

    fn now() -> Instant {
        Now::read().instant
    }

    const TIMEOUT: Duration = Duration::from_millis(500);
}
