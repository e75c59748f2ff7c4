use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use mgate_policies::{Cause, Now, Principal, Reason};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::password_file::{PasswordFile, User, verify};

/// Compares user names and passwords with those of a file.
///
/// It abstains where it does not know the user, after the time that a known one would have taken. Passwords
/// are verified on as many threads as there are cores; where too many clients wait already, one more is
/// rejected as [`Cause::Unavailable`]. A password that was right is remembered, as a keyed hash: a thousand
/// devices that come back at once cost no thousand slow verifications.
pub struct Password {
    name: Box<str>,
    file: PasswordFile,
    places: Arc<Semaphore>,
    cores: Arc<Semaphore>,
    verified: Arc<Verified>,
}

impl Password {
    /// An authenticator that logs call `name`.
    pub fn new(name: &str, file: PasswordFile) -> Self {
        let cores = available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            name: name.into(),
            file,
            places: Arc::new(Semaphore::new(cores + MAX_WAITING)),
            cores: Arc::new(Semaphore::new(cores)),
            verified: Arc::default(),
        }
    }

    fn later(&self, attempt: Attempt) -> Authentication {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let reason = Reason::with_detail(Cause::Unavailable, "too many passwords wait to be verified");
            return Authentication::Ready(Verdict::Rejected(reason));
        };
        let (cores, verified) = (Arc::clone(&self.cores), Arc::clone(&self.verified));
        Authentication::Pending(Box::pin(async move {
            let Ok(core) = cores.acquire_owned().await else { return unavailable() };
            // The permits go along: the work goes on even if the client does not wait for it.
            let work = spawn_blocking(move || attempt.judge(&verified, [place, core]));
            work.await.unwrap_or_else(|_| unavailable())
        }))
    }
}

impl Authenticator for Password {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, credentials: &Credentials<'_>, _: Now) -> Authentication {
        let (Some(username), Some(password)) = (credentials.username, credentials.password) else {
            return Authentication::Ready(Verdict::Abstain);
        };
        let user = self.file.user(username);
        let hash = user.map_or(self.file.dummy_hash(), |user| &user.hash);
        let key = self.verified.key(username, hash, password);
        let verdict = user.map_or(Verdict::Abstain, |user| Verdict::Accepted(principal(username, user)));
        if user.is_some() && self.verified.contains(key) {
            return Authentication::Ready(verdict);
        }
        self.later(Attempt { hash: hash.into(), password: password.into(), key, verdict })
    }
}

/// A password to be verified.
struct Attempt {
    hash: Box<str>,
    password: Box<[u8]>,
    key: u128,
    /// What a right password means; to abstain, for a user who is not in the file.
    verdict: Verdict,
}

impl Attempt {
    fn judge(self, verified: &Verified, _permits: [OwnedSemaphorePermit; 2]) -> Verdict {
        let is_right = verify(&self.hash, &self.password);
        match self.verdict {
            Verdict::Accepted(_) if is_right => {
                verified.insert(self.key);
                self.verdict
            }
            Verdict::Accepted(Principal { id, .. }) => {
                // as the file has it: no longer than a line
                let why = format!("wrong password of user {id:?}");
                Verdict::Rejected(Reason::with_detail(Cause::BadCredentials, why))
            }
            verdict => verdict,
        }
    }
}

/// Passwords that were right, as hashes that tell nothing without the keys of this process.
#[derive(Default)]
struct Verified {
    keys: [RandomState; 2],
    generations: Mutex<Generations>,
}

/// What is not asked for while a whole generation of others comes in is forgotten.
#[derive(Default)]
struct Generations {
    young: HashSet<u128>,
    old: HashSet<u128>,
}

impl Verified {
    fn key(&self, username: &str, hash: &str, password: &[u8]) -> u128 {
        let [high, low] = self.keys.each_ref().map(|key| key.hash_one((username, hash, password)));
        u128::from(high) << 64 | u128::from(low)
    }

    fn contains(&self, key: u128) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.contains(&key) {
            return true;
        }
        let is_old = generations.old.contains(&key);
        if is_old {
            generations.insert(key);
        }
        is_old
    }

    fn insert(&self, key: u128) {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }
}

impl Generations {
    fn insert(&mut self, key: u128) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key);
    }
}

fn principal(username: &str, user: &User) -> Principal {
    Principal {
        id: username.into(),
        groups: user.groups.clone(),
        attributes: user.claims.clone(),
        ..Principal::default()
    }
}

fn unavailable() -> Verdict {
    Verdict::Rejected(Reason::new(Cause::Unavailable))
}

/// Clients that may wait for a core.
const MAX_WAITING: usize = 1024;

/// Half of the passwords that are remembered.
const GENERATION: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::password_file::hash_password;
    use super::super::tests::shown;
    use super::*;

    #[tokio::test]
    async fn right_password_is_accepted_and_remembered() {
        let users = users();
        let (verdict, took_time) = ask(&users, "dev-1", b"secret").await;
        let Verdict::Accepted(principal) = verdict else { panic!("{verdict:?}") };
        assert_eq!((&*principal.id, &*principal.groups), ("dev-1", &["sensors".into()][..]));
        assert_eq!(principal.attributes.values("claims.channel").collect::<Vec<_>>(), ["42"]);
        assert!(took_time);
        assert!(!ask(&users, "dev-1", b"secret").await.1);
    }

    #[tokio::test]
    async fn wrong_password_is_rejected_each_time() {
        let users = users();
        for _ in 0..2 {
            let why = "wrong password of user \"dev-1\"";
            let bad = Verdict::Rejected(Reason::with_detail(Cause::BadCredentials, why));
            assert_eq!(ask(&users, "dev-1", b"wrong").await, (bad, true));
        }
    }

    #[tokio::test]
    async fn unknown_user_is_left_to_others_after_the_same_work() {
        let users = users();
        for _ in 0..2 {
            assert_eq!(ask(&users, "dev-2", b"secret").await, (Verdict::Abstain, true));
        }
    }

    #[tokio::test]
    async fn without_user_name_or_password_it_abstains() {
        let users = users();
        for credentials in [
            shown(),
            Credentials { username: Some("dev-1"), ..shown() },
            Credentials { password: Some(b"secret"), ..shown() },
        ] {
            let answer = users.authenticate(&credentials, Now::read());
            assert!(matches!(answer, Authentication::Ready(Verdict::Abstain)));
        }
    }

    #[tokio::test]
    async fn one_more_than_may_wait_is_turned_away() {
        let users = users();
        let places = users.places.available_permits();
        let waiting: Vec<_> = (0..places).map(|_| users.authenticate(&dev(b"secret"), Now::read())).collect();
        assert!(waiting.iter().all(|answer| matches!(answer, Authentication::Pending(_))));
        let turned_away = users.authenticate(&dev(b"secret"), Now::read());
        let Authentication::Ready(Verdict::Rejected(reason)) = turned_away else { panic!("it waits") };
        assert_eq!(reason.cause, Cause::Unavailable);
        drop(waiting);
        assert!(matches!(users.authenticate(&dev(b"secret"), Now::read()), Authentication::Pending(_)));
    }

    #[test]
    fn remembered_passwords_have_a_bound_and_leave_the_oldest_out() {
        let verified = Verified::default();
        let keys: Vec<u128> = (0..3 * GENERATION as u128).collect();
        for key in &keys {
            verified.insert(*key);
            assert!(verified.contains(7) || *key > GENERATION as u128 || *key < 7);
        }
        let generations = verified.generations.lock().unwrap();
        assert!(generations.young.len() <= GENERATION && generations.old.len() <= GENERATION);
        drop(generations);
        assert!(!verified.contains(8));
        assert!(verified.contains(keys[keys.len() - 1]));
    }

    #[test]
    fn keys_differ_by_user_hash_and_password() {
        let verified = Verified::default();
        let key = |user, hash, password: &[u8]| verified.key(user, hash, password);
        let one = key("a", "b", b"c");
        assert_eq!(one, key("a", "b", b"c"));
        for other in [key("ab", "", b"c"), key("a", "bc", b""), key("a", "b", b"d"), key("x", "b", b"c")] {
            assert_ne!(one, other);
        }
        assert_ne!(one, Verified::default().key("a", "b", b"c"));
    }

    async fn ask(users: &Password, username: &str, password: &[u8]) -> (Verdict, bool) {
        let credentials = Credentials { username: Some(username), password: Some(password), ..shown() };
        match users.authenticate(&credentials, Now::read()) {
            Authentication::Ready(verdict) => (verdict, false),
            Authentication::Pending(verdict) => (verdict.await, true),
        }
    }

    fn dev(password: &'static [u8]) -> Credentials<'static> {
        Credentials { username: Some("dev-1"), password: Some(password), ..shown() }
    }

    fn users() -> Password {
        let hash = hash_password(b"secret").unwrap();
        let text = format!(
            "[users.dev-1]\npassword = \"{hash}\"\ngroups = [\"sensors\"]\nclaims = {{ channel = \"42\" }}\n"
        );
        Password::new("users", PasswordFile::parse(&text, Path::new("users.toml")).unwrap())
    }
}
