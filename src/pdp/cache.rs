use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mgate_policies::{Cause, Decision, Grant, Now, Reason};
use moka::Expiry;
use moka::future::Cache;

use super::dialect::{Answered, Verdict};
use super::terms::Terms;
use crate::neighbour::breaker::shorter;

/// How decisions are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// How long an allow is good of which the service does not say it.
    pub allow_ttl: Duration,
    /// How long an allow is good at the most, whatever the service says.
    pub max_ttl: Duration,
    /// How long anything else is good, at the most.
    pub deny_ttl: Duration,
    /// Memory for decisions, of which a quarter is for those that are no allow.
    pub bytes: u64,
    /// How much longer an allow counts while the service does not answer; zero for no longer.
    pub grace: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            allow_ttl: Duration::from_secs(10),
            max_ttl: Duration::from_secs(60),
            deny_ttl: Duration::from_secs(5),
            bytes: 64 * 1024 * 1024,
            grace: Duration::ZERO,
        }
    }
}

/// What was decided lately. Errors never come here.
pub(super) struct DecisionCache {
    allows: Cache<u128, Remembered>,
    /// Denials have a place of their own: whoever tries many topics drives out no allow.
    others: Cache<u128, Remembered>,
    options: CacheOptions,
}

/// One decision and its end.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    verdict: Verdict,
    words: Option<Arc<str>>,
    pub(super) terms: Option<Arc<Terms>>,
    until: Instant,
    lifetime: Duration,
}

impl DecisionCache {
    pub(super) fn new(options: CacheOptions) -> Self {
        let others_bytes = options.bytes / 4;
        let build = |bytes, grace| {
            Cache::builder()
                .max_capacity(bytes)
                .weigher(|_, remembered: &Remembered| remembered.bytes())
                .expire_after(AtItsEnd { grace })
                .build()
        };
        Self {
            allows: build(options.bytes - others_bytes, options.grace),
            others: build(others_bytes, Duration::ZERO),
            options,
        }
    }

    /// What was decided, if that still counts.
    pub(super) fn recall(&self, key: u128, now: Now) -> Option<Remembered> {
        [&self.allows, &self.others]
            .into_iter()
            .filter_map(|cache| at_once(cache.get(&key)).flatten())
            .find(|remembered| now.instant < remembered.until)
    }

    /// An allow that counted until not long ago: for when the service does not answer.
    pub(super) fn recall_stale(&self, key: u128, now: Now) -> Option<Remembered> {
        let remembered = at_once(self.allows.get(&key)).flatten()?;
        let until = remembered.until.checked_add(self.options.grace)?;
        (now.instant < until).then_some(Remembered { until, ..remembered })
    }

    /// Keeps what was answered to a question that was asked at `now`. `expires` is when the client's
    /// credentials end.
    pub(super) async fn remember(
        &self,
        key: u128,
        answered: Answered,
        expires: Option<Duration>,
        now: Now,
    ) -> Remembered {
        let lifetime = shorter(self.lifetime(&answered, expires, now), key as u64);
        let Answered { verdict, words, terms, .. } = answered;
        let until = now.instant + lifetime;
        let remembered = Remembered { verdict, words, terms, until, lifetime };
        if verdict != Verdict::Allow {
            self.allows.invalidate(&key).await;
        }
        if !lifetime.is_zero() {
            let cache = if verdict == Verdict::Allow { &self.allows } else { &self.others };
            cache.insert(key, remembered.clone()).await;
        }
        remembered
    }

    fn lifetime(&self, answered: &Answered, expires: Option<Duration>, now: Now) -> Duration {
        let CacheOptions { allow_ttl, max_ttl, deny_ttl, .. } = self.options;
        if answered.verdict != Verdict::Allow {
            return answered.ttl.unwrap_or(deny_ttl).min(deny_ttl);
        }
        let lifetime = answered.ttl.unwrap_or(allow_ttl).min(max_ttl);
        lifetime.min(left(expires, now))
    }
}

impl Remembered {
    /// The decision for a client whose credentials end at `expires`, in the name of `policy`.
    pub(super) fn decision(&self, policy: &Arc<str>, expires: Option<Duration>, now: Now) -> Decision {
        match self.verdict {
            Verdict::Abstain => Decision::Abstain,
            Verdict::Allow => {
                let mut grant = Grant::by(policy);
                grant.ttl = Some(self.until.saturating_duration_since(now.instant).min(left(expires, now)));
                grant.ends_after = self
                    .terms
                    .as_ref()
                    .and_then(|terms| terms.disconnect_after)
                    .map(|after| after.saturating_sub(self.age(now)));
                grant.session = self.terms.as_ref().map(|terms| terms.session.clone());
                Decision::Allow(grant)
            }
            Verdict::Deny => {
                let words = self.words.as_deref().unwrap_or("the service says no");
                Decision::Deny(Reason::with_detail(Cause::NotAuthorized, format!("{policy}: {words}")))
            }
        }
    }

    /// Whether it is an allow that ends soon: what is asked for now will be asked for again.
    pub(super) fn wants_refresh(&self, now: Now) -> bool {
        let is_old = self.until.saturating_duration_since(now.instant) < self.lifetime / 5;
        let refresh_after = self.terms.as_ref().and_then(|terms| terms.refresh_after);
        let is_due = refresh_after.is_some_and(|after| self.age(now) >= after);
        self.verdict == Verdict::Allow && (is_old || is_due)
    }

    /// The time since it was asked for.
    fn age(&self, now: Now) -> Duration {
        self.lifetime.saturating_sub(self.until.saturating_duration_since(now.instant))
    }

    fn bytes(&self) -> u32 {
        let words = self.words.as_deref().map_or(0, str::len);
        let words = words + self.terms.as_ref().map_or(0, |terms| terms.bytes);
        u32::try_from(words).unwrap_or(u32::MAX).saturating_add(ENTRY_BYTES)
    }
}

/// Lets entries go when they are of no more use.
struct AtItsEnd {
    grace: Duration,
}

impl AtItsEnd {
    fn left(&self, remembered: &Remembered, now: Instant) -> Duration {
        (remembered.until + self.grace).saturating_duration_since(now)
    }
}

impl Expiry<u128, Remembered> for AtItsEnd {
    fn expire_after_create(&self, _: &u128, remembered: &Remembered, now: Instant) -> Option<Duration> {
        Some(self.left(remembered, now))
    }

    fn expire_after_update(
        &self,
        _: &u128,
        remembered: &Remembered,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.left(remembered, now))
    }
}

/// How long credentials are still good.
fn left(expires: Option<Duration>, now: Now) -> Duration {
    expires.map_or(Duration::MAX, |expires| expires.saturating_sub(now.unix))
}

/// What a future gives that needs no waiting; a cache waits only to tidy up.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// What one decision costs in memory, with all that the cache keeps about it.
const ENTRY_BYTES: u32 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn allow_lasts_as_long_as_the_shortest_bound() {
        for (hint, expires_secs, secs) in [
            (None, None, 10),
            (Some(30), None, 30),
            (Some(3600), None, 60),
            (Some(0), None, 0),
            (None, Some(4), 4),
            (Some(30), Some(4), 4),
        ] {
            let (cache, now) = cache();
            let ttl = hint.map(Duration::from_secs);
            let expires = expires_secs.map(|secs| now.unix + Duration::from_secs(secs));
            let answered = Answered { ttl, ..Verdict::Allow.into() };
            let remembered = cache.remember(0, answered, expires, now).await;
            assert_eq!(remembered.lifetime, Duration::from_secs(secs), "{hint:?} {expires_secs:?}");
            assert_eq!(cache.recall(0, now).is_some(), secs > 0);
        }
    }

    #[tokio::test]
    async fn denial_lasts_no_longer_than_denials_do() {
        for (hint, secs) in [(None, 5), (Some(2), 2), (Some(60), 5), (Some(0), 0)] {
            for verdict in [Verdict::Deny, Verdict::Abstain] {
                let (cache, now) = cache();
                let answered = Answered { ttl: hint.map(Duration::from_secs), ..verdict.into() };
                let remembered = cache.remember(0, answered, None, now).await;
                assert_eq!(remembered.lifetime, Duration::from_secs(secs), "{hint:?}");
                assert_eq!(cache.recall(0, now).is_some(), secs > 0);
            }
        }
    }

    #[tokio::test]
    async fn decision_is_forgotten_at_its_end_and_not_a_moment_before() {
        let (cache, now) = cache();
        cache.remember(7 << 64, Verdict::Allow.into(), None, now).await;
        assert!(cache.recall(7 << 64, now.later(Duration::from_millis(9_999))).is_some());
        assert!(cache.recall(7 << 64, now.later(Duration::from_secs(10))).is_none());
        assert!(cache.recall(8 << 64, now).is_none());
    }

    #[tokio::test]
    async fn grant_says_what_is_left() {
        let (cache, now) = cache();
        let remembered = cache.remember(0, Verdict::Allow.into(), None, now).await;
        let later = now.later(Duration::from_secs(4));
        for (expires_secs, left) in [(None, 6), (Some(60), 6), (Some(5), 1), (Some(3), 0)] {
            let expires = expires_secs.map(|secs| now.unix + Duration::from_secs(secs));
            let decision = remembered.decision(&"auth".into(), expires, later);
            let Decision::Allow(grant) = decision else { panic!("it is an allow") };
            assert_eq!(grant.ttl, Some(Duration::from_secs(left)));
            assert_eq!(grant.by.as_deref(), Some("auth"));
        }
    }

    #[tokio::test]
    async fn lifetimes_of_several_keys_are_spread() {
        let (cache, now) = cache();
        let mut lifetimes = Vec::new();
        for key in 0..256 {
            lifetimes.push(cache.remember(key, Verdict::Allow.into(), None, now).await.lifetime);
        }
        lifetimes.sort_unstable();
        lifetimes.dedup();
        assert!(lifetimes.len() > 200);
        assert_eq!((lifetimes[0], lifetimes.pop()), (Duration::from_secs(9), Some(Duration::from_secs(10))));
    }

    #[tokio::test]
    async fn denial_drives_out_an_allow_for_good() {
        let (cache, now) = cache_with(Duration::from_secs(30));
        cache.remember(0, Verdict::Allow.into(), None, now).await;
        assert!(cache.recall_stale(0, now.later(Duration::from_secs(39))).is_some());
        assert!(cache.recall_stale(0, now.later(Duration::from_secs(40))).is_none());
        cache.remember(0, Verdict::Deny.into(), None, now).await;
        assert_eq!(cache.recall(0, now).unwrap().verdict, Verdict::Deny);
        assert!(cache.recall_stale(0, now).is_none());
    }

    #[tokio::test]
    async fn allow_wants_a_refresh_when_most_of_its_time_is_over() {
        let (cache, now) = cache();
        let allow = cache.remember(0, Verdict::Allow.into(), None, now).await;
        let deny = cache.remember(1 << 64, Verdict::Deny.into(), None, now).await;
        let wants = |remembered: &Remembered, millis| {
            remembered.wants_refresh(now.later(Duration::from_millis(millis)))
        };
        assert_eq!([wants(&allow, 7_999), wants(&allow, 8_001), wants(&deny, 4_900)], [false, true, false]);
    }

    #[tokio::test]
    async fn denials_have_a_quarter_and_take_nothing_of_the_rest() {
        let options = CacheOptions { bytes: 400 * u64::from(ENTRY_BYTES), ..CacheOptions::default() };
        let (cache, now) = (DecisionCache::new(options), Now::read());
        for key in 0..200 {
            cache.remember(key, Verdict::Allow.into(), None, now).await;
        }
        for key in 1000..5000 {
            cache.remember(key, Verdict::Deny.into(), None, now).await;
        }
        cache.allows.run_pending_tasks().await;
        cache.others.run_pending_tasks().await;
        assert_eq!((0..200).filter(|key| cache.recall(*key, now).is_some()).count(), 200);
        assert!(cache.others.entry_count() <= 100, "{}", cache.others.entry_count());
    }

    fn cache() -> (DecisionCache, Now) {
        cache_with(Duration::ZERO)
    }

    fn cache_with(grace: Duration) -> (DecisionCache, Now) {
        (DecisionCache::new(CacheOptions { grace, ..CacheOptions::default() }), Now::read())
    }
}
