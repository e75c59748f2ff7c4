//! What live sessions are told: new rules, withdrawn rights, the end.

use std::collections::VecDeque;
use std::sync::Arc;

use mgate_policies::{Client, Scope};

/// What all sessions of one route watch: it changes rarely, and they compare no more than a number until then. `E`
/// is what the sessions of its protocol share.
pub struct Signal<E> {
    endpoint: Arc<E>,
    /// How often rights changed.
    epoch: u64,
    /// Whose, the last ones; the last of them is that of `epoch`.
    recent: VecDeque<Scope>,
    is_stopping: bool,
}

impl<E> Signal<E> {
    /// What sessions find that begin with `endpoint`.
    pub fn new(endpoint: E) -> Self {
        Self { endpoint: Arc::new(endpoint), epoch: 0, recent: VecDeque::new(), is_stopping: false }
    }

    /// Tells all sessions to end.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// Tells the sessions whose rights changed to ask for all of them again. Returns the new epoch.
    pub fn revoke(&mut self, scope: Scope) -> u64 {
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(scope);
        self.epoch += 1;
        self.epoch
    }

    /// Gives all sessions another endpoint, by which everybody's rights may have changed. Returns the new
    /// epoch.
    pub fn renew(&mut self, endpoint: E) -> u64 {
        self.endpoint = Arc::new(endpoint);
        self.revoke(Scope::Everyone)
    }

    /// What sessions share from now on.
    pub fn endpoint(&self) -> &Arc<E> {
        &self.endpoint
    }

    /// How often rights changed so far.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether sessions are to end.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Whether the rights of `client` may have changed since an epoch; who is not known yet may be anybody.
    pub(crate) fn concerns(&self, client: Option<&Client>, since: u64) -> bool {
        let missed = usize::try_from(self.epoch - since).unwrap_or(usize::MAX);
        let covers = |scope: &Scope| client.is_none_or(|client| scope.covers(client));
        missed > self.recent.len() || self.recent.iter().rev().take(missed).any(covers)
    }
}

/// Changes after which a session that saw none of them takes itself to be concerned.
const MAX_RECENT: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use mgate_policies::{Principal, Protocol};

    use super::*;

    #[test]
    fn only_those_whose_rights_changed_are_concerned() {
        let mut signal = Signal::new(());
        assert!(!signal.concerns(Some(&client("alice")), 0));
        let seen = signal.revoke(principal("bob"));
        assert!(!signal.concerns(Some(&client("alice")), 0));
        assert!(signal.concerns(Some(&client("bob")), 0));
        assert!(!signal.concerns(Some(&client("bob")), seen));
    }

    #[test]
    fn who_is_not_known_yet_is_concerned() {
        let mut signal = Signal::new(());
        assert!(!signal.concerns(None, 0));
        signal.revoke(principal("bob"));
        assert!(signal.concerns(None, 0));
    }

    #[test]
    fn who_missed_too_much_is_concerned() {
        let mut signal = Signal::new(());
        let oldest = signal.revoke(principal("bob"));
        (0..MAX_RECENT).for_each(|_| _ = signal.revoke(principal("bob")));
        assert_eq!(signal.recent.len(), MAX_RECENT);
        assert!(!signal.concerns(Some(&client("alice")), oldest));
        assert!(signal.concerns(Some(&client("alice")), oldest - 1));
    }

    #[test]
    fn another_endpoint_concerns_everybody() {
        let mut signal = Signal::new(());
        signal.renew(());
        assert!(signal.concerns(Some(&client("alice")), 0));
    }

    fn principal(id: &str) -> Scope {
        Scope::Principal { tenant: None, id: id.into() }
    }
    fn client(id: &str) -> Client {
        Client {
            principal: Principal { id: id.into(), ..Principal::default() },
            client_id: "".into(),
            username: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            route: "devices".into(),
            protocol: Protocol::Mqtt,
            is_encrypted: false,
        }
    }
}
