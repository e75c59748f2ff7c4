use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode, Uri};
use mgate_policies::BoxFuture;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{self, sleep};
use tracing::{debug, info, warn};

use super::keys::KeySet;
use super::token::Signed;
use crate::authn::fault::Fault;
use crate::neighbour::http::HttpClient;

/// Keys that an issuer publishes, fetched in the background from the start on.
///
/// A fetch that fails changes nothing until the keys are too old. Whoever comes while there are none waits
/// for them. A token that names an unknown key has them fetched at once, though not often.
pub struct RemoteKeys {
    shared: Arc<Shared>,
    fetching: OnceLock<AbortHandle>,
}

/// Fetches the keys once, within a time and a size.
pub type Fetch = Box<dyn Fn() -> BoxFuture<'static, Result<KeySet, String>> + Send + Sync>;

/// When keys are fetched, and how long they are good.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Time from one fetch to the next; one tenth more or less.
    pub refresh: Duration,
    /// Age at which keys are no longer used.
    pub max_age: Duration,
}

/// What keys say of a token, at once or later.
pub(super) enum Checked {
    Ready(Result<(), Fault>),
    Pending(BoxFuture<'static, Result<(), Fault>>),
}

struct Shared {
    name: Box<str>,
    fetch: Fetch,
    schedule: Schedule,
    published: watch::Sender<Published>,
    wanted: Notify,
    rounds: Mutex<Rounds>,
}

/// What the last fetch left behind.
#[derive(Clone, Default)]
struct Published {
    /// Fetches that are over.
    round: u64,
    keys: Option<Keys>,
    is_failing: bool,
}

#[derive(Clone)]
struct Keys {
    set: Arc<KeySet>,
    until: Instant,
}

/// Who asked for a fetch, and when.
#[derive(Default)]
struct Rounds {
    /// Fetches that have begun.
    begun: u64,
    /// The fetch that the last unknown key waits for.
    asked: u64,
    asked_at: Option<Instant>,
}

/// Fetches the keys from `url`: what is not a JSON Web Key Set with status 200 is an error. RFC 7517 §5
pub fn fetch_from(client: HttpClient, url: Uri) -> Fetch {
    Box::new(move || {
        let (client, url) = (client.clone(), url.clone());
        Box::pin(async move {
            let request = Request::get(url).header(ACCEPT, "application/jwk-set+json, application/json");
            let request = request.body(Bytes::new()).map_err(|error| error.to_string())?;
            let answer = client.send(request).await.map_err(|error| error.to_string())?;
            match answer.status() {
                StatusCode::OK => {
                    KeySet::from_jwks(answer.body()).map_err(|error| format!("the answer {error}"))
                }
                status => Err(format!("the answer has status {}", status.as_u16())),
            }
        })
    })
}

impl RemoteKeys {
    /// Keys for the authenticator `name`; nothing is fetched yet.
    pub fn new(name: &str, schedule: Schedule, fetch: Fetch) -> Self {
        let shared = Shared {
            name: name.into(),
            fetch,
            schedule,
            published: watch::Sender::default(),
            wanted: Notify::new(),
            rounds: Mutex::default(),
        };
        Self { shared: Arc::new(shared), fetching: OnceLock::new() }
    }

    /// Begins to fetch, once.
    pub(super) fn start(&self) {
        self.fetching.get_or_init(|| tokio::spawn(Arc::clone(&self.shared).fetch_for_ever()).abort_handle());
    }

    /// Judges with the keys that are there, or waits for those that are to come.
    pub(super) fn verify(&self, signed: Signed, now: Instant) -> Checked {
        self.start();
        let published = self.shared.published.borrow().clone();
        let Some(result) = published.verify(&signed, now) else { return self.shared.verify_after(0, signed) };
        let may_be_new = matches!(result, Err(Fault::Unavailable | Fault::UnknownKey));
        match may_be_new.then(|| self.shared.ask(now)).flatten() {
            Some(round) => self.shared.verify_after(round, signed),
            None => Checked::Ready(result),
        }
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        if let Some(fetching) = self.fetching.get() {
            fetching.abort();
        }
    }
}

impl Shared {
    async fn fetch_for_ever(self: Arc<Self>) {
        let mut failures = 0;
        loop {
            let round = self.begin();
            let result = (self.fetch)().await;
            failures = if result.is_ok() { 0 } else { failures + 1 };
            self.publish(round, result);
            tokio::select! {
                biased;
                () = self.wanted.notified() => {}
                () = sleep(self.schedule.pause(failures)) => {}
            }
        }
    }

    fn begin(&self) -> u64 {
        let mut rounds = self.rounds();
        rounds.begun += 1;
        rounds.begun
    }

    fn publish(&self, round: u64, result: Result<KeySet, String>) {
        let was = self.published.borrow().clone();
        let is_failing = result.is_err();
        let keys = match result {
            Ok(set) => {
                self.log_success(&was, set.len());
                let until = time::Instant::now() + self.schedule.max_age;
                Some(Keys { set: Arc::new(set), until: until.into_std() })
            }
            Err(error) => {
                self.log_failure(&was, &error);
                was.keys
            }
        };
        self.published.send_replace(Published { round, keys, is_failing });
    }

    /// The number of the fetch that may bring a key that is not known; `None` where the last such fetch was not
    /// long ago.
    fn ask(&self, now: Instant) -> Option<u64> {
        let mut rounds = self.rounds();
        let is_coming = rounds.asked > self.published.borrow().round;
        let may_ask = rounds.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN_ASKED);
        if !is_coming && !may_ask {
            return None;
        }
        if !is_coming {
            // one that is under way may have begun before the key was published
            (rounds.asked, rounds.asked_at) = (rounds.begun + 1, Some(now));
            self.wanted.notify_one();
        }
        Some(rounds.asked)
    }

    /// Waits until there are keys, and until fetch number `round` is over.
    fn verify_after(&self, round: u64, signed: Signed) -> Checked {
        let mut published = self.published.subscribe();
        Checked::Pending(Box::pin(async move {
            let now = || time::Instant::now().into_std();
            let is_there = |new: &Published| new.round >= round && new.keys_at(now()).is_some();
            let new = match published.wait_for(is_there).await {
                Ok(new) => new.clone(),
                Err(_) => return Err(Fault::Unavailable),
            };
            new.verify(&signed, now()).unwrap_or(Err(Fault::Unavailable))
        }))
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_success(&self, was: &Published, keys: usize) {
        let authn = &self.name;
        match was.is_failing || was.keys.is_none() {
            true => info!(%authn, keys, "the issuer's keys are here"),
            false => debug!(%authn, keys, "the issuer's keys are fetched"),
        }
    }

    fn log_failure(&self, was: &Published, error: &str) {
        let authn = &self.name;
        match was.is_failing {
            true => debug!(%authn, error, "the issuer's keys still cannot be fetched"),
            false => warn!(%authn, error, "the issuer's keys cannot be fetched"),
        }
    }
}

impl Published {
    /// The keys, unless they are too old.
    fn keys_at(&self, now: Instant) -> Option<&KeySet> {
        self.keys.as_ref().filter(|keys| now < keys.until).map(|keys| &*keys.set)
    }

    /// `None` where there are no keys.
    fn verify(&self, signed: &Signed, now: Instant) -> Option<Result<(), Fault>> {
        Some(match self.keys_at(now)?.verify(signed) {
            Err(Fault::UnknownKey) if self.is_failing => Err(Fault::Unavailable),
            result => result,
        })
    }
}

impl Schedule {
    /// Time until the next fetch, after so many that failed.
    fn pause(&self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            Some(before) => {
                (SHORTEST_RETRY * 2u32.saturating_pow(before)).min(LONGEST_RETRY).min(self.refresh)
            }
            None => jittered(self.refresh),
        }
    }
}

/// One tenth more or less, so that gateways that started together do not ask together for ever.
fn jittered(time: Duration) -> Duration {
    let mut chance = [0];
    // without a random number, the least is as good as any
    let _ = SystemRandom::new().fill(&mut chance);
    time.mul_f64(0.9 + 0.2 * f64::from(chance[0]) / 255.0)
}

/// Time between two fetches because of keys that are not known.
const BETWEEN_ASKED: Duration = Duration::from_secs(30);
const SHORTEST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;
    use tokio::time::{Instant, advance, timeout};

    use super::super::algorithm::Algorithm;
    use super::*;
    use crate::issuer::{base64url, jwks};

    #[tokio::test(start_paused = true)]
    async fn keys_are_there_before_the_first_token() {
        let issuer = Issuer::new(&["a"]);
        let keys = issuer.keys();
        keys.start();
        keys.start();
        advance_by(FETCH_TIME).await;
        assert_eq!(at_once(&keys, issuer.signed("a")), Ok(()));
        assert_eq!(issuer.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn first_token_waits_for_the_keys() {
        let issuer = Issuer::new(&["a"]);
        let keys = issuer.keys();
        assert_eq!(issuer.fetches(), 0);
        let before = Instant::now();
        assert_eq!(judged(&keys, issuer.signed("a")).await, Ok(()));
        assert_eq!(before.elapsed(), FETCH_TIME);
        assert_eq!(at_once(&keys, issuer.signed("a")), Ok(()));
        assert_eq!(at_once(&keys, issuer.forged("a")), Err(Fault::Signature));
        assert_eq!(issuer.fetches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_cannot_be_had_are_tried_for_again() {
        let issuer = Issuer::new(&["a"]);
        issuer.fail(7);
        let keys = issuer.keys();
        let waiting = judged(&keys, issuer.signed("a"));
        let before = Instant::now();
        assert_eq!(waiting.await, Ok(()));
        let pauses: u32 = [1, 2, 4, 8, 16, 30, 30].iter().sum();
        assert_eq!(before.elapsed(), FETCH_TIME * 8 + Duration::from_secs(pauses.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_fetched_anew_about_every_refresh() {
        let issuer = Issuer::new(&["a"]);
        let keys = issuer.keys();
        judged(&keys, issuer.signed("a")).await.unwrap();
        for _ in 0..5 {
            let (fetches, before) = (issuer.fetches(), Instant::now());
            while issuer.fetches() == fetches {
                advance_by(Duration::from_millis(500)).await;
            }
            let tenths = before.elapsed().as_secs_f64() / (SCHEDULE.refresh.as_secs_f64() / 10.0);
            assert!((8.9..11.1).contains(&tenths), "{tenths}");
        }
        issuer.publish(&["b"]);
        advance_by(SCHEDULE.refresh * 2).await;
        assert_eq!(at_once(&keys, issuer.signed("b")), Ok(()));
        assert_eq!(judged(&keys, issuer.signed("a")).await, Err(Fault::UnknownKey));
    }

    #[tokio::test(start_paused = true)]
    async fn key_that_is_not_known_is_fetched_at_once() {
        let issuer = Issuer::new(&["a"]);
        let keys = issuer.keys();
        judged(&keys, issuer.signed("a")).await.unwrap();
        issuer.publish(&["a", "b"]);
        assert_eq!(judged(&keys, issuer.signed("b")).await, Ok(()));
        assert_eq!(at_once(&keys, issuer.signed("a")), Ok(()));
        assert_eq!(issuer.fetches(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_not_known_cost_the_issuer_one_fetch_in_30_s() {
        let issuer = Issuer::new(&["a"]);
        let keys = issuer.keys();
        judged(&keys, issuer.signed("a")).await.unwrap();
        let burst: Vec<_> = (0..100).map(|_| judged(&keys, issuer.signed("x"))).collect();
        for waiting in burst {
            assert_eq!(waiting.await, Err(Fault::UnknownKey));
        }
        assert_eq!(issuer.fetches(), 2);
        advance_by(Duration::from_secs(29)).await;
        assert_eq!(at_once(&keys, issuer.signed("x")), Err(Fault::UnknownKey));
        assert_eq!(issuer.fetches(), 2);
        advance_by(Duration::from_secs(1)).await;
        assert_eq!(judged(&keys, issuer.signed("x")).await, Err(Fault::UnknownKey));
        assert_eq!(issuer.fetches(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn key_published_during_a_fetch_is_found_by_the_next() {
        let issuer = Issuer::new(&["a"]);
        let keys = issuer.keys();
        judged(&keys, issuer.signed("a")).await.unwrap();
        let first = judged(&keys, issuer.signed("x"));
        advance_by(FETCH_TIME / 2).await;
        issuer.publish(&["a", "b"]);
        let second = judged(&keys, issuer.signed("b"));
        assert_eq!((first.await, second.await), (Err(Fault::UnknownKey), Err(Fault::UnknownKey)));
        advance_by(BETWEEN_ASKED).await;
        assert_eq!(judged(&keys, issuer.signed("b")).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn failing_fetch_keeps_the_keys_until_they_are_too_old() {
        let issuer = Issuer::new(&["a"]);
        let keys = issuer.keys();
        judged(&keys, issuer.signed("a")).await.unwrap();
        let fetched = Instant::now();
        issuer.fail(usize::MAX);
        advance_by(SCHEDULE.max_age - Duration::from_secs(1)).await;
        assert!(issuer.fetches() > 5);
        assert_eq!(at_once(&keys, issuer.signed("a")), Ok(()));
        assert_eq!(judged(&keys, issuer.signed("x")).await, Err(Fault::Unavailable));
        advance_by(SCHEDULE.max_age - fetched.elapsed()).await;
        let waiting = judged(&keys, issuer.signed("a"));
        let waited = timeout(Duration::from_secs(3600), waiting).await;
        assert!(waited.is_err(), "{waited:?}");
        issuer.fail(0);
        assert_eq!(judged(&keys, issuer.signed("a")).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_fetched_for_an_authenticator_that_is_gone() {
        let issuer = Issuer::new(&["a"]);
        let keys = issuer.keys();
        judged(&keys, issuer.signed("a")).await.unwrap();
        drop(keys);
        advance_by(SCHEDULE.refresh * 10).await;
        assert_eq!(issuer.fetches(), 1);
    }

    /// Keys named by a letter each, and how often they were fetched.
    #[derive(Clone)]
    struct Issuer(Arc<State>);

    struct State {
        pair: Ed25519KeyPair,
        published: Mutex<Vec<String>>,
        failures: Mutex<usize>,
        fetches: AtomicUsize,
    }

    impl Issuer {
        fn new(ids: &[&str]) -> Self {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            let issuer = Self(Arc::new(State {
                pair: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(),
                published: Mutex::default(),
                failures: Mutex::default(),
                fetches: AtomicUsize::new(0),
            }));
            issuer.publish(ids);
            issuer
        }

        fn publish(&self, ids: &[&str]) {
            *self.0.published.lock().unwrap() = ids.iter().map(ToString::to_string).collect();
        }

        /// Lets so many fetches fail.
        fn fail(&self, times: usize) {
            *self.0.failures.lock().unwrap() = times;
        }

        fn fetches(&self) -> usize {
            self.0.fetches.load(Ordering::SeqCst)
        }

        fn keys(&self) -> RemoteKeys {
            let issuer = self.clone();
            let fetch = move || -> BoxFuture<'static, _> {
                issuer.0.fetches.fetch_add(1, Ordering::SeqCst);
                let result = issuer.answer();
                Box::pin(async move {
                    sleep(FETCH_TIME).await;
                    result
                })
            };
            RemoteKeys::new("tokens", SCHEDULE, Box::new(fetch))
        }

        fn answer(&self) -> Result<KeySet, String> {
            let mut failures = self.0.failures.lock().unwrap();
            if *failures > 0 {
                *failures -= 1;
                return Err("nobody is there".into());
            }
            let x = base64url(self.0.pair.public_key().as_ref());
            let jwk = |id: &String| json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x});
            let keys: Vec<_> = self.0.published.lock().unwrap().iter().map(jwk).collect();
            Ok(KeySet::from_jwks(jwks(&keys).as_bytes()).unwrap())
        }

        fn signed(&self, id: &str) -> Signed {
            let signature = self.0.pair.sign(b"message").as_ref().into();
            Signed {
                algorithm: Algorithm::EdDsa,
                key_id: Some(id.into()),
                message: b"message".as_slice().into(),
                signature,
            }
        }

        fn forged(&self, id: &str) -> Signed {
            Signed { message: b"massage".as_slice().into(), ..self.signed(id) }
        }
    }

    fn judged(keys: &RemoteKeys, signed: Signed) -> BoxFuture<'static, Result<(), Fault>> {
        match keys.verify(signed, Instant::now().into_std()) {
            Checked::Ready(result) => panic!("it is known at once: {result:?}"),
            Checked::Pending(future) => future,
        }
    }

    fn at_once(keys: &RemoteKeys, signed: Signed) -> Result<(), Fault> {
        match keys.verify(signed, Instant::now().into_std()) {
            Checked::Ready(result) => result,
            Checked::Pending(_) => panic!("it takes time"),
        }
    }

    /// Lets all happen that happens in that time.
    async fn advance_by(time: Duration) {
        sleep(time).await;
        advance(Duration::ZERO).await;
    }

    const FETCH_TIME: Duration = Duration::from_millis(100);
    const SCHEDULE: Schedule =
        Schedule { refresh: Duration::from_secs(60), max_age: Duration::from_secs(600) };
}
