use std::sync::Arc;

use crate::decision::{Answer, BoxFuture, Cause, Decision, Grant, Reason};
use crate::now::Now;
use crate::query::{Policy, Query};
use crate::scope::Scope;

/// Policies in a row: a deny overrides, and what nobody allows is denied.
///
/// What a policy that is not enforced says changes nothing: its allow lets nothing pass, and its deny is an
/// [`Objection`] against what passes.
#[derive(Clone)]
pub struct Chain {
    row: Vec<Standing>,
    is_repeatable: bool,
    /// Why something is denied that none of them allows.
    nobody: Reason,
}

/// A policy and what it is to a chain.
#[derive(Clone)]
pub struct Standing {
    /// The policy.
    pub policy: Arc<dyn Policy>,
    /// Whether its word counts.
    pub is_enforced: bool,
}

/// What a chain says of a query.
pub enum Outcome {
    /// It may pass; with what a policy that is not enforced has against it.
    Allowed(Grant, Option<Box<Objection>>),
    /// It must not.
    Denied(Reason),
    /// One policy needs time. Await the future and hand its decision to [`Chain::resume`].
    Pending(Suspended, BoxFuture<'static, Decision>),
}

/// The deny of a policy that is not enforced; of several, the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The policy's name.
    pub policy: Box<str>,
    /// Why it would deny.
    pub reason: Reason,
}

/// Where a chain stopped to wait; no policy is asked twice about one query.
#[derive(Debug)]
pub struct Suspended {
    asked: usize,
    grant: Option<Grant>,
    objection: Option<Box<Objection>>,
}

/// What one policy of a chain said, for people who ask why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// The policy's name.
    pub policy: &'a str,
    /// Whether its word counts.
    pub is_enforced: bool,
    /// What it said.
    pub decision: Decision,
    /// Whether it had to be waited for.
    pub took_time: bool,
}

impl Chain {
    /// A chain that enforces `policies` and asks them in their order. An empty one denies everything.
    pub fn new(policies: Vec<Arc<dyn Policy>>) -> Self {
        Self::of(policies.into_iter().map(Standing::enforced).collect())
    }

    /// A chain that asks policies in their order. One that enforces none of them denies everything.
    pub fn of(row: Vec<Standing>) -> Self {
        let is_repeatable = row.iter().all(|standing| standing.policy.is_repeatable());
        let enforced = row.iter().filter(|standing| standing.is_enforced);
        let names: Vec<_> = enforced.map(|standing| standing.policy.name()).collect();
        let nobody = match &*names {
            [] => "no policy allows it, for there is none".to_owned(),
            names => format!("no policy allows it ({})", names.join(", ")),
        };
        Self { is_repeatable, nobody: Reason::with_detail(Cause::NotAuthorized, nobody), row }
    }

    /// Its policies, in the order in which they are asked.
    pub fn iter(&self) -> impl Iterator<Item = &Standing> {
        self.row.iter()
    }

    /// Whether all its policies are, enforced or not: what it allowed once it allows again, until the grant's
    /// ttl ends. Who remembers that is told of an [`Objection`] only when asking anew.
    #[inline]
    pub fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// Has every policy forget what it decided for those whose rights changed.
    pub fn forget(&self, scope: &Scope) {
        self.row.iter().for_each(|standing| standing.policy.forget(scope));
    }

    /// Tells every policy which questions come next, one by one.
    pub fn foresee(&self, queries: &[Query<'_>], now: Now) {
        self.row.iter().for_each(|standing| standing.policy.foresee(queries, now));
    }

    /// Asks every policy, until one denies or needs time.
    pub fn evaluate(&self, query: &Query<'_>, now: Now) -> Outcome {
        self.go_on(Suspended::START, query, now)
    }

    /// Goes on after the policy that needed time, with what it decided. `query` must be the same as before.
    pub fn resume(
        &self,
        mut suspended: Suspended,
        decision: Decision,
        query: &Query<'_>,
        now: Now,
    ) -> Outcome {
        let asked = suspended.asked.checked_sub(1).and_then(|last| self.row.get(last));
        let Some(standing) = asked else { return Outcome::Denied(Reason::new(Cause::Unavailable)) };
        match suspended.take(decision, standing) {
            Some(reason) => Outcome::Denied(reason),
            None => self.go_on(suspended, query, now),
        }
    }

    /// Asks every policy, also those behind a deny, and awaits with `wait` those that need time. Returns what
    /// each said, and what [`Chain::evaluate`] makes of it.
    pub async fn explain(
        &self,
        query: &Query<'_>,
        now: Now,
        wait: impl AsyncFn(BoxFuture<'static, Decision>) -> Decision,
    ) -> (Vec<Word<'_>>, Outcome) {
        let mut state = Suspended::START;
        let (mut words, mut denied) = (Vec::new(), None);
        while let Some((standing, answer)) = self.ask_next(&mut state, query, now) {
            let (decision, took_time) = match answer {
                Answer::Ready(decision) => (decision, false),
                Answer::Pending(future) => (wait(future).await, true),
            };
            let (policy, is_enforced) = (standing.policy.name(), standing.is_enforced);
            words.push(Word { policy, is_enforced, decision: decision.clone(), took_time });
            let reason = state.take(decision, standing);
            denied = denied.or(reason);
        }
        let outcome = denied.map_or_else(|| self.conclude(state), Outcome::Denied);
        (words, outcome)
    }

    fn go_on(&self, mut state: Suspended, query: &Query<'_>, now: Now) -> Outcome {
        while let Some((standing, answer)) = self.ask_next(&mut state, query, now) {
            match answer {
                Answer::Ready(decision) => {
                    if let Some(reason) = state.take(decision, standing) {
                        return Outcome::Denied(reason);
                    }
                }
                Answer::Pending(future) => return Outcome::Pending(state, future),
            }
        }
        self.conclude(state)
    }

    /// What it comes to when all were asked and none denied.
    fn conclude(&self, Suspended { grant, objection, .. }: Suspended) -> Outcome {
        match grant {
            Some(grant) => Outcome::Allowed(grant, objection),
            None => Outcome::Denied(self.nobody.clone()),
        }
    }

    fn ask_next(&self, state: &mut Suspended, query: &Query<'_>, now: Now) -> Option<(&Standing, Answer)> {
        let standing = self.row.get(state.asked)?;
        state.asked += 1;
        Some((standing, standing.policy.evaluate(query, now)))
    }
}

impl Default for Chain {
    /// One without policies.
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl Standing {
    /// A policy whose word counts.
    pub fn enforced(policy: Arc<dyn Policy>) -> Self {
        Self { policy, is_enforced: true }
    }
}

impl Suspended {
    const START: Self = Self { asked: 0, grant: None, objection: None };

    /// Adds one policy's word; returns the reason if it ends the matter.
    fn take(&mut self, decision: Decision, standing: &Standing) -> Option<Reason> {
        match decision {
            Decision::Deny(reason) if standing.is_enforced => return Some(reason),
            Decision::Deny(reason) => {
                let policy = || standing.policy.name().into();
                self.objection.get_or_insert_with(|| Box::new(Objection { policy: policy(), reason }));
            }
            Decision::Allow(grant) if standing.is_enforced => {
                let both = match self.grant.take() {
                    Some(earlier) => earlier.and(grant),
                    None => Ok(grant),
                };
                match both {
                    Ok(both) => self.grant = Some(both),
                    Err(reason) => return Some(reason),
                }
            }
            Decision::Abstain | Decision::Allow(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::{Action, Client, Principal, Protocol, Resource, SessionLimits, SessionTerms, TopicPrefix};

    #[test]
    fn empty_chain_denies() {
        assert_eq!(decide(vec![]), Err(Cause::NotAuthorized));
    }

    #[test]
    fn all_abstaining_denies() {
        assert_eq!(decide(vec![Fixed::says(Decision::Abstain)]), Err(Cause::NotAuthorized));
    }

    #[test]
    fn denial_for_want_of_an_allow_names_who_was_asked() {
        let reason = |row| match outcome(row) {
            Outcome::Denied(reason) => reason.to_string(),
            _ => panic!("nobody allows it"),
        };
        let row = vec![enforced_one(Decision::Abstain), tried_one(Decision::Allow(Grant::default()))];
        assert_eq!(reason(row), "not authorized: no policy allows it (fixed)");
        assert_eq!(reason(Vec::new()), "not authorized: no policy allows it, for there is none");
    }

    #[test]
    fn deny_overrides_an_earlier_and_a_later_allow() {
        let allow = || Fixed::says(Decision::Allow(Grant::default()));
        let deny = || Fixed::says(Decision::Deny(Reason::new(Cause::QuotaExceeded)));
        assert_eq!(decide(vec![allow(), deny()]), Err(Cause::QuotaExceeded));
        assert_eq!(decide(vec![deny(), allow()]), Err(Cause::QuotaExceeded));
    }

    #[test]
    fn grant_lasts_as_long_as_the_shortest() {
        let lasting = |secs| Fixed::says(Decision::Allow(Grant { ttl: secs, ..Grant::default() }));
        let both = decide(vec![
            lasting(Some(Duration::from_secs(9))),
            lasting(Some(Duration::from_secs(4))),
            lasting(None),
        ]);
        assert_eq!(both.map(|grant| grant.ttl), Ok(Some(Duration::from_secs(4))));
    }

    #[test]
    fn terms_of_policies_that_contradict_each_other_are_a_denial() {
        let behind = |prefix: &str| {
            let terms = SessionTerms::new(SessionLimits::default(), TopicPrefix::parse(prefix).ok());
            Fixed::says(Decision::Allow(Grant { session: Some(terms), ..Grant::default() }))
        };
        let silent = || Fixed::says(Decision::Allow(Grant::default()));
        assert_eq!(decide(vec![behind("a/"), silent(), behind("b/")]), Err(Cause::Unavailable));
        let both = decide(vec![silent(), behind("a/"), behind("a/")]).map(|grant| grant.session);
        let prefix = both.map(|session| session?.topic_prefix().map(TopicPrefix::to_string));
        assert_eq!(prefix, Ok(Some("\"a/\"".into())));
    }

    #[test]
    fn chain_is_repeatable_only_if_every_policy_is() {
        let fixed = || Fixed::says(Decision::Abstain) as Arc<dyn Policy>;
        let slow = Arc::new(Slow(AtomicUsize::new(0))) as Arc<dyn Policy>;
        assert!(Chain::new(vec![fixed(), fixed()]).is_repeatable());
        assert!(!Chain::new(vec![fixed(), slow]).is_repeatable());
    }

    #[test]
    fn resumes_after_the_policy_that_needed_time() {
        let first = Fixed::says(Decision::Allow(Grant::default()));
        let second = Arc::new(Slow(AtomicUsize::new(0)));
        let third = Fixed::says(Decision::Abstain);
        let chain = Chain::new(vec![first.clone(), second.clone(), third.clone()]);
        let client = client();
        let Outcome::Pending(suspended, _future) = chain.evaluate(&query(&client), Now::read()) else {
            panic!("the second policy needs time");
        };
        let outcome = chain.resume(suspended, Decision::Abstain, &query(&client), Now::read());
        assert!(matches!(outcome, Outcome::Allowed(_, None)));
        let asked = [&first.asked, &second.0, &third.asked].map(|asked| asked.load(Ordering::Relaxed));
        assert_eq!(asked, [1, 1, 1]);
    }

    #[test]
    fn late_deny_ends_the_chain() {
        let third = Fixed::says(Decision::Allow(Grant::default()));
        let chain = Chain::new(vec![Arc::new(Slow(AtomicUsize::new(0))), third.clone()]);
        let client = client();
        let Outcome::Pending(suspended, _future) = chain.evaluate(&query(&client), Now::read()) else {
            panic!("the first policy needs time");
        };
        let deny = Decision::Deny(Reason::new(Cause::Unavailable));
        assert!(matches!(chain.resume(suspended, deny, &query(&client), Now::read()), Outcome::Denied(_)));
        assert_eq!(third.asked.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn explanation_asks_everybody_and_comes_to_the_same() {
        let allow = Decision::Allow(Grant::default());
        let late = Decision::Deny(Reason::new(Cause::Unavailable));
        let deny = Decision::Deny(Reason::new(Cause::NotAuthorized));
        let slow = Arc::new(Slow(AtomicUsize::new(0)));
        let chain = Chain::new(vec![Fixed::says(allow.clone()), slow, Fixed::says(deny.clone())]);
        let client = client();
        let query = query(&client);
        let explaining = chain.explain(&query, Now::read(), async |_| late.clone());
        let Poll::Ready((words, outcome)) = pin!(explaining).poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("nothing has to be waited for");
        };
        let word = |policy, decision, took_time| Word { policy, is_enforced: true, decision, took_time };
        let expected =
            [word("fixed", allow, false), word("slow", late.clone(), true), word("fixed", deny, false)];
        assert_eq!(words, expected);
        assert!(matches!(outcome, Outcome::Denied(Reason { cause: Cause::Unavailable, .. })));
    }

    #[test]
    fn policy_that_is_not_enforced_changes_nothing() {
        let allow = || Decision::Allow(Grant::default());
        let deny = || Decision::Deny(Reason::new(Cause::QuotaExceeded));
        for tried in [allow(), deny(), Decision::Abstain] {
            let outcome = |enforced| outcome(vec![enforced_one(enforced), tried_one(tried.clone())]);
            assert!(matches!(outcome(allow()), Outcome::Allowed(..)), "{tried:?}");
            let Outcome::Denied(reason) = outcome(deny()) else { panic!("it is denied: {tried:?}") };
            assert_eq!(reason.cause, Cause::QuotaExceeded);
            assert!(matches!(outcome(Decision::Abstain), Outcome::Denied(_)), "{tried:?}");
        }
    }

    #[test]
    fn chain_that_enforces_nothing_denies() {
        let allow = Decision::Allow(Grant::default());
        assert!(matches!(outcome(vec![tried_one(allow)]), Outcome::Denied(_)));
    }

    #[test]
    fn first_objection_comes_with_what_passes() {
        let deny = |cause| Decision::Deny(Reason::new(cause));
        let allow = Decision::Allow(Grant::default());
        let outcome = outcome(vec![
            tried_one(Decision::Abstain),
            tried_one(deny(Cause::RateExceeded)),
            enforced_one(allow),
            tried_one(deny(Cause::QuotaExceeded)),
        ]);
        let Outcome::Allowed(_, Some(objection)) = outcome else { panic!("it passes against a word") };
        let expected = Objection { policy: "fixed".into(), reason: Reason::new(Cause::RateExceeded) };
        assert_eq!(*objection, expected);
    }

    #[test]
    fn late_deny_of_a_policy_that_is_not_enforced_is_an_objection() {
        let slow = Standing { policy: Arc::new(Slow(AtomicUsize::new(0))), is_enforced: false };
        let chain = Chain::of(vec![slow, enforced_one(Decision::Allow(Grant::default()))]);
        assert!(!chain.is_repeatable(), "one that is not enforced may count too");
        let client = client();
        let Outcome::Pending(suspended, _future) = chain.evaluate(&query(&client), Now::read()) else {
            panic!("the first policy needs time");
        };
        let late = Decision::Deny(Reason::new(Cause::Unavailable));
        let outcome = chain.resume(suspended, late, &query(&client), Now::read());
        let Outcome::Allowed(_, Some(objection)) = outcome else { panic!("it passes against a word") };
        assert_eq!((&*objection.policy, objection.reason.cause), ("slow", Cause::Unavailable));
    }

    fn outcome(row: Vec<Standing>) -> Outcome {
        Chain::of(row).evaluate(&query(&client()), Now::read())
    }

    fn enforced_one(decision: Decision) -> Standing {
        Standing::enforced(Fixed::says(decision))
    }

    fn tried_one(decision: Decision) -> Standing {
        Standing { is_enforced: false, ..enforced_one(decision) }
    }

    struct Fixed {
        decision: Decision,
        asked: AtomicUsize,
    }

    impl Fixed {
        fn says(decision: Decision) -> Arc<Self> {
            Arc::new(Self { decision, asked: AtomicUsize::new(0) })
        }
    }

    impl Policy for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }

        fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Answer::Ready(self.decision.clone())
        }

        fn is_repeatable(&self) -> bool {
            true
        }
    }

    struct Slow(AtomicUsize);

    impl Policy for Slow {
        fn name(&self) -> &str {
            "slow"
        }

        fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
            self.0.fetch_add(1, Ordering::Relaxed);
            Answer::Pending(Box::pin(std::future::pending()))
        }
    }

    fn decide(policies: Vec<Arc<Fixed>>) -> Result<Grant, Cause> {
        let policies = policies.into_iter().map(|policy| policy as Arc<dyn Policy>).collect();
        match Chain::new(policies).evaluate(&query(&client()), Now::read()) {
            Outcome::Allowed(grant, _) => Ok(grant),
            Outcome::Denied(reason) => Err(reason.cause),
            Outcome::Pending(..) => panic!("no policy here needs time"),
        }
    }

    fn query(client: &Client) -> Query<'_> {
        Query {
            client,
            action: Action::Connect,
            resource: Resource::Session,
            payload: b"",
            qos: 0,
            retain: false,
        }
    }

    fn client() -> Client {
        Client {
            principal: Principal::default(),
            client_id: "dev-1".into(),
            username: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            route: "devices".into(),
            protocol: Protocol::Mqtt,
            is_encrypted: false,
        }
    }
}
