//! Who decides in the sessions that are tested, and what they decided.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mgate_policies::{
    Action, Answer, Cause, Decision, Grant, Now, Policy, Principal, Query, Reason, Resource, SessionTerms,
};
use mgate_proxy::gate::{
    Authentication, Authenticator, Copied, Credentials, Message, Mirror, Observer, PacketSeen, SessionEvent,
    Verdict,
};

/// Something that was allowed, and has yet to be seen on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    /// The topic, or filter without its share group.
    pub(crate) resource: String,
    /// The message.
    pub(crate) payload: Vec<u8>,
    /// Its quality of service, or that of the subscription.
    pub(crate) qos: u8,
    /// Its retain flag.
    pub(crate) retain: bool,
}

/// The last policy of the chain: denies what is called secret, and notes all that it lets pass.
pub(crate) struct Rules {
    unused: Mutex<VecDeque<(Action, Permit)>>,
    /// What was allowed until when, where sessions may remember it.
    lasting: Option<Mutex<Vec<(Action, Permit, Instant)>>>,
    /// Whether rights changed: from then on, sessions ask for more than what passes next.
    have_changed: AtomicBool,
    /// What is true for each session; `None` where nothing is said of them.
    terms: Option<Mutex<SessionTerms>>,
}

/// The first policy of the chain: needs time where something is called slow.
pub(crate) struct Delays;

/// Knows everybody; needs time where the user name is called slow, rejects what is called secret.
pub(crate) struct Logins;

/// Looks at every packet.
pub(crate) struct Watcher;

/// Stores copies, some time.
#[derive(Default)]
pub(crate) struct Stores(Mutex<VecDeque<Vec<u8>>>);

impl Rules {
    /// Rules whose answers sessions may remember for a while, or may not.
    pub(crate) fn new(is_repeatable: bool, terms: Option<SessionTerms>) -> Self {
        Self {
            terms: terms.map(Mutex::new),
            unused: Mutex::default(),
            lasting: is_repeatable.then(Mutex::default),
            have_changed: AtomicBool::new(false),
        }
    }

    /// Takes back what was allowed to be remembered, and says this of sessions, if anything.
    pub(crate) fn change(&self, new: &SessionTerms) {
        self.terms.iter().for_each(|terms| *terms.lock().expect("nobody panics with it") = new.clone());
        self.have_changed.store(true, Ordering::Relaxed);
        self.lasting().into_iter().for_each(|mut lasting| lasting.clear());
    }

    /// Whether this is what was allowed next; uses up the permit. What lasts may come again, with any payload.
    pub(crate) fn permits(&self, action: Action, wanted: &Permit, now: Instant) -> bool {
        let mut permits = self.unused.lock().expect("nobody panics with it");
        let next = permits.iter().position(|(permitted, _)| *permitted == action);
        let next = next.filter(|at| permits[*at].1 == *wanted);
        let any = || permits.iter().position(|permit| *permit == (action, wanted.clone()));
        if let Some(at) = next.or_else(|| any().filter(|_| self.is_lenient(action))) {
            permits.remove(at);
            return true;
        }
        self.lasting().iter().flat_map(|lasting| lasting.iter()).any(|(allowed, permit, until)| {
            let is_same = (*allowed, &permit.resource) == (action, &wanted.resource);
            is_same && (permit.qos, permit.retain) == (wanted.qos, wanted.retain) && now < *until
        })
    }

    /// Forgets the permits for an action.
    pub(crate) fn forget(&self, action: Action) {
        self.unused.lock().expect("nobody panics with it").retain(|(permitted, _)| *permitted != action);
    }

    /// How many permits for an action are unused, if that says anything.
    pub(crate) fn unused(&self, action: Action) -> Option<usize> {
        let permits = self.unused.lock().expect("nobody panics with it");
        let count = permits.iter().filter(|(permitted, _)| *permitted == action).count();
        (!self.is_lenient(action)).then_some(count)
    }

    /// Whether the action may have been asked for without anything that passes.
    fn is_lenient(&self, action: Action) -> bool {
        let is_reviewed = matches!(action, Action::Connect | Action::Subscribe | Action::Will);
        is_reviewed && self.have_changed.load(Ordering::Relaxed)
    }

    fn lasting(&self) -> Option<MutexGuard<'_, Vec<(Action, Permit, Instant)>>> {
        self.lasting.as_ref().map(|lasting| lasting.lock().expect("nobody panics with it"))
    }
}

impl Policy for Rules {
    fn name(&self) -> &str {
        "rules"
    }

    fn evaluate(&self, query: &Query<'_>, now: Now) -> Answer {
        let is_over = query.client.principal.expires.is_some_and(|end| end <= now.unix);
        assert!(!is_over, "{} of a client whose credentials have ended", query.action);
        let resource = resource(query);
        if is_denied(&resource) {
            let cause = if resource.contains("quota") { Cause::QuotaExceeded } else { Cause::NotAuthorized };
            return Answer::Ready(Decision::Deny(Reason::with_detail(cause, "a secret")));
        }
        let Query { action, payload, qos, retain, .. } = *query;
        let permit = Permit { resource, payload: payload.to_vec(), qos, retain };
        let mut grant = Grant::default();
        grant.session = self.terms.as_ref().map(|terms| terms.lock().expect("nobody panics with it").clone());
        if let Some(mut lasting) = self.lasting() {
            grant.ttl = Some(TTL);
            lasting.push((action, permit.clone(), now.instant + TTL));
        }
        self.unused.lock().expect("nobody panics with it").push_back((action, permit));
        Answer::Ready(Decision::Allow(grant))
    }

    fn is_repeatable(&self) -> bool {
        self.lasting.is_some()
    }
}

impl Stores {
    /// The payload of the first message that it was handed and nobody has noted yet.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().expect("nobody panics with it").pop_front()
    }
}

impl Mirror for Stores {
    fn message(&self, message: &Message<'_>) -> Copied {
        if message.qos > 0 {
            self.0.lock().expect("nobody panics with it").push_back(message.payload.to_vec());
        }
        Copied::Storing(Box::pin(pending()))
    }
}

impl Policy for Delays {
    fn name(&self) -> &str {
        "delays"
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        match resource(query).contains("slow") {
            true => Answer::Pending(Box::pin(pending())),
            false => Answer::Ready(Decision::Abstain),
        }
    }
}

impl Authenticator for Logins {
    fn name(&self) -> &str {
        "logins"
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        let name = credentials.username.unwrap_or_default();
        if name.contains("slow") {
            Authentication::Pending(Box::pin(pending()))
        } else if is_denied(name) {
            Authentication::Ready(Verdict::Rejected(Reason::new(Cause::BadCredentials)))
        } else {
            let expires = Some(now.unix + LIFETIME);
            Authentication::Ready(Verdict::Accepted(Principal { expires, ..Principal::default() }))
        }
    }
}

impl Observer for Watcher {
    fn wants_packets(&self) -> bool {
        true
    }

    fn packet(&self, seen: &PacketSeen<'_>) {
        assert!(!seen.packet.to_string().is_empty());
    }

    fn session(&self, event: &SessionEvent<'_>) {
        if let SessionEvent::Closed { why, .. } = event {
            assert!(!why.to_string().is_empty());
        }
    }
}

/// Whether nobody may have a resource of this name.
pub(crate) fn is_denied(resource: &str) -> bool {
    resource.contains("secret")
}

fn resource(query: &Query<'_>) -> String {
    match query.resource {
        Resource::Filter(filter) => filter.as_str().to_owned(),
        Resource::Topic(topic) => topic.as_str().to_owned(),
        _ => query.client.client_id.to_string(),
    }
}

/// How long the credentials of those last who need no time.
const LIFETIME: Duration = Duration::from_secs(15);

/// How long a session may remember what was allowed.
const TTL: Duration = Duration::from_secs(2);
