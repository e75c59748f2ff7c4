//! Asks services about credentials, and remembers for a while what they said.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use mgate_policies::{Cause, Now, Reason};
use mgate_proxy::gate::{Authentication, Verdict};
use serde_json::Value;
use tokio::time;

use crate::neighbour::body::{JSON, is_of_type};
use crate::neighbour::flights::Flights;
use crate::neighbour::grpc::{Code, GrpcError};
use crate::neighbour::guard::{Asker, Failure, Guard, Refusal};
use crate::neighbour::http::{HttpClient, HttpError};

/// How a service is asked.
#[derive(Clone, Copy, Debug)]
pub struct InquiryOptions {
    /// Time for one answer, with all waiting.
    pub timeout: Duration,
    /// Questions that are on their way at a time; sixteen times as many may wait.
    pub concurrency: NonZeroU16,
    /// How long an answer is remembered at the most; zero for not at all.
    pub cache: Duration,
}

/// The questions of one authenticator.
pub(super) struct Inquiry {
    guard: Guard,
    flights: Flights<Outcome>,
    cache: Duration,
    remembered: Mutex<Remembered>,
    hashers: [RandomState; 2],
}

/// What a service said of credentials.
pub(super) type Outcome = Result<Verdict, Refusal<AskError>>;

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AskError {
    /// A method's call failed.
    Grpc(GrpcError),
    /// There was no answer.
    Http(HttpError),
    /// It says something that is not documented: what is missing, or too much.
    Meaning(&'static str),
    /// Its status is none that is documented.
    Status(StatusCode),
}

impl Inquiry {
    pub(super) fn new(name: &str, options: InquiryOptions) -> Self {
        Self {
            guard: Guard::new(Asker::Authenticator, name.into(), options.timeout, options.concurrency),
            flights: Flights::default(),
            cache: options.cache,
            remembered: Mutex::default(),
            hashers: Default::default(),
        }
    }

    /// What stands for credentials in memory: it tells nothing without the keys of this process.
    pub(super) fn key(&self, credentials: &impl Hash) -> u128 {
        let [high, low] = self.hashers.each_ref().map(|hasher| hasher.hash_one(credentials));
        u128::from(high) << 64 | u128::from(low)
    }

    /// What is said of the credentials behind `key`, from memory or by `ask`. Who shows the same at the same
    /// time waits for the same answer.
    pub(super) fn judge<F>(self: &Arc<Self>, key: u128, now: Now, ask: impl FnOnce() -> F) -> Authentication
    where
        F: Future<Output = Result<Verdict, AskError>> + Send + 'static,
    {
        if let Some(verdict) = self.remembered().recall(key, now.instant) {
            return Authentication::Ready(verdict);
        }
        let joined = self.flights.join(key, || {
            let (place, question, this) = (self.guard.place()?, ask(), Arc::clone(self));
            Ok(async move {
                let since = time::Instant::now();
                let outcome = this.guard.call(&place, now.instant, question).await;
                this.remember(key, &outcome, now.later(since.elapsed()));
                outcome
            })
        });
        match joined {
            Ok(passenger) => Authentication::Pending(Box::pin(async move {
                verdict(passenger.arrive().await.unwrap_or(Err(Refusal::Busy)))
            })),
            Err(refusal) => Authentication::Ready(verdict(Err(refusal))),
        }
    }

    /// What a question of another kind comes to, within the same bounds.
    pub(super) async fn call<T>(
        &self,
        now: Now,
        question: impl Future<Output = Result<T, AskError>>,
    ) -> Result<T, Refusal<AskError>> {
        let place = self.guard.place()?;
        self.guard.call(&place, now.instant, question).await
    }

    /// Errors are never remembered, and nothing longer than it is true.
    fn remember(&self, key: u128, outcome: &Outcome, now: Now) {
        let lifetime = match outcome {
            Ok(Verdict::Accepted(principal)) => {
                let left = principal.expires.map(|expires| expires.saturating_sub(now.unix));
                left.unwrap_or(Duration::MAX).min(self.cache)
            }
            Ok(Verdict::Rejected(_)) => self.cache.min(REJECTION_KEPT),
            Ok(Verdict::Abstain) | Err(_) => Duration::ZERO,
        };
        if let (Ok(verdict), Some(until)) = (outcome, now.instant.checked_add(lifetime))
            && !lifetime.is_zero()
        {
            self.remembered().insert(key, verdict.clone(), until);
        }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Verdicts, each with its end. What is not asked for while a whole generation of others comes in is forgotten.
#[derive(Default)]
struct Remembered {
    young: HashMap<u128, (Verdict, Instant)>,
    old: HashMap<u128, (Verdict, Instant)>,
}

impl Remembered {
    fn recall(&mut self, key: u128, now: Instant) -> Option<Verdict> {
        let (verdict, until) = self.young.get(&key).or_else(|| self.old.get(&key))?;
        (now < *until).then(|| verdict.clone())
    }

    fn insert(&mut self, key: u128, verdict: Verdict, until: Instant) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, (verdict, until));
    }
}

impl Failure for AskError {
    fn is_outage(&self) -> bool {
        match self {
            Self::Grpc(GrpcError::Status(code, _)) => {
                matches!(
                    code,
                    Code::DeadlineExceeded | Code::Internal | Code::ResourceExhausted | Code::Unavailable
                )
            }
            Self::Grpc(GrpcError::Message) | Self::Http(HttpError::TooLarge(_) | HttpError::Url) => false,
            Self::Grpc(_) | Self::Http(_) => true,
            Self::Meaning(_) => false,
            Self::Status(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::Meaning(what) => write!(f, "the answer {what}"),
            Self::Status(status) => write!(f, "the answer's status is {}", status.as_u16()),
        }
    }
}

/// Sends a request, once more if there was no connection, or it ended before an answer.
pub(super) async fn send(http: &HttpClient, request: Request<Bytes>) -> Result<Response<Bytes>, AskError> {
    http.send_twice(request).await.map_err(AskError::Http)
}

/// The JSON in an answer with status 200 and nothing else.
pub(super) fn json(answer: &Response<Bytes>) -> Result<Value, AskError> {
    if answer.status() != StatusCode::OK {
        return Err(AskError::Status(answer.status()));
    }
    if !is_of_type(answer.headers(), JSON) {
        return Err(AskError::Meaning("is not of the type application/json"));
    }
    serde_json::from_slice(answer.body()).map_err(|_| AskError::Meaning("is not JSON"))
}

fn verdict(outcome: Outcome) -> Verdict {
    outcome.unwrap_or_else(|refusal| {
        Verdict::Rejected(Reason::with_detail(Cause::Unavailable, refusal.to_string()))
    })
}

/// How long a rejection is remembered at the most.
const REJECTION_KEPT: Duration = Duration::from_secs(5);
/// Verdicts until the older ones are forgotten.
const GENERATION: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use mgate_policies::Principal;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answer_is_remembered_as_long_as_it_is_true() {
        for (expires, cache, kept) in [(None, 60, 60), (Some(20), 60, 20), (Some(90), 60, 60), (None, 0, 0)] {
            let world = World::new(cache);
            let now = Now::read();
            let expires = expires.map(|secs| now.unix + Duration::from_secs(secs));
            let accepted = Verdict::Accepted(Principal { expires, ..Principal::default() });
            assert_eq!(world.ask(1, now, Ok(accepted.clone())).await, accepted);
            for (after, asked) in [(0, kept == 0), (kept.max(1) - 1, kept == 0), (kept + 1, true)] {
                let before = world.asked();
                let now = now.later(Duration::from_secs(after));
                world.ask(1, now, Err(AskError::Meaning("test"))).await;
                assert_eq!(world.asked() > before, asked, "{expires:?} {cache} {after}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rejection_is_remembered_for_a_few_seconds() {
        let (world, now) = (World::new(60), Now::read());
        let rejected = Verdict::Rejected(Reason::new(Cause::BadCredentials));
        for (after, asked) in [(0, 1), (4, 1), (6, 2)] {
            let now = now.later(Duration::from_secs(after));
            assert_eq!(world.ask(1, now, Ok(rejected.clone())).await, rejected);
            assert_eq!(world.asked(), asked);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_not_remembered() {
        let (world, now) = (World::new(60), Now::read());
        for asked in 1..4 {
            let verdict = world.ask(1, now, Err(AskError::Status(StatusCode::NOT_FOUND))).await;
            let detail = "the answer's status is 404";
            assert_eq!(verdict, Verdict::Rejected(Reason::with_detail(Cause::Unavailable, detail)));
            assert_eq!(world.asked(), asked);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn same_credentials_are_asked_about_once_at_a_time() {
        let (world, now) = (World::new(0), Now::read());
        let accepted = Verdict::Accepted(Principal::default());
        let all: Vec<_> = (0..100).map(|number| world.ask(number % 2, now, Ok(accepted.clone()))).collect();
        for asking in all {
            assert_eq!(asking.await, accepted);
        }
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_are_refused_at_once() {
        let (world, now) = (World::new(0), Now::read());
        let accepted = || Ok(Verdict::Accepted(Principal::default()));
        let waiting: Vec<_> = (0..17).map(|key| world.ask(key, now, accepted())).collect();
        let refused = world.ask(99, now, accepted()).await;
        assert!(
            matches!(refused, Verdict::Rejected(Reason { cause: Cause::Unavailable, .. })),
            "{refused:?}"
        );
        for asking in waiting {
            assert!(matches!(asking.await, Verdict::Accepted(_)));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut remembered, now) = (Remembered::default(), Now::read().instant);
        let until = now + Duration::from_secs(1);
        for key in 0..GENERATION as u128 * 3 {
            remembered.insert(key, Verdict::Abstain, until);
        }
        assert!(remembered.young.len() + remembered.old.len() <= 2 * GENERATION);
        assert!(remembered.recall(GENERATION as u128 * 3 - 1, now).is_some());
        assert!(remembered.recall(0, now).is_none());
    }

    struct World {
        inquiry: Arc<Inquiry>,
        asked: Arc<AtomicUsize>,
    }

    impl World {
        fn new(cache: u64) -> Self {
            let options = InquiryOptions {
                timeout: Duration::from_secs(5),
                concurrency: NonZeroU16::MIN,
                cache: Duration::from_secs(cache),
            };
            Self { inquiry: Arc::new(Inquiry::new("test", options)), asked: Arc::default() }
        }

        fn ask(
            &self,
            key: u128,
            now: Now,
            answer: Result<Verdict, AskError>,
        ) -> impl Future<Output = Verdict> + use<> {
            let asked = Arc::clone(&self.asked);
            let asking = self.inquiry.judge(key, now, || async move {
                asked.fetch_add(1, Ordering::SeqCst);
                time::sleep(Duration::from_millis(10)).await;
                answer
            });
            async move {
                match asking {
                    Authentication::Ready(verdict) => verdict,
                    Authentication::Pending(verdict) => verdict.await,
                }
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }
}
