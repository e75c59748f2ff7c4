//! Who holds which client identifier on this route.
//!
//! A broker hands a session to whoever shows its client identifier. So while a client is connected, nobody
//! else gets in under its identifier: the same principal may take over, another is refused.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mgate_policies::{Cause, Client, Reason};

/// The client identifiers in use, each with its owner.
#[derive(Clone, Default)]
pub(super) struct ClientIds(Arc<Mutex<HashMap<Box<str>, Owner>>>);

struct Owner {
    tenant: Box<str>,
    principal: Box<str>,
    /// More than one only while a session is taken over.
    sessions: usize,
    /// The number of the session that came last.
    latest: u64,
}

/// A client identifier held by one session, given back on drop.
pub(super) struct Claim {
    ids: ClientIds,
    client_id: Box<str>,
    number: u64,
}

impl ClientIds {
    /// Claims the client's identifier; refused while another principal holds it.
    pub(super) fn claim(&self, client: &Client) -> Result<Claim, Reason> {
        let principal = &client.principal;
        let number = match self.lock().entry(client.client_id.clone()) {
            Entry::Occupied(mut held) => {
                let owner = held.get_mut();
                if (&owner.tenant, &owner.principal) != (&principal.tenant, &principal.id) {
                    let detail = "the client identifier is in use by another principal";
                    return Err(Reason::with_detail(Cause::ClientIdNotValid, detail));
                }
                owner.sessions += 1;
                owner.latest += 1;
                owner.latest
            }
            Entry::Vacant(free) => {
                let (tenant, principal) = (principal.tenant.clone(), principal.id.clone());
                free.insert(Owner { tenant, principal, sessions: 1, latest: 0 });
                0
            }
        };
        Ok(Claim { ids: self.clone(), client_id: client.client_id.clone(), number })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Whether the same principal has come again under the identifier, and so has the broker's session.
    pub(super) fn is_taken_over(&self) -> bool {
        self.ids.lock().get(&self.client_id).is_some_and(|owner| owner.latest > self.number)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut ids = self.ids.lock();
        if let Some(owner) = ids.get_mut(&self.client_id) {
            owner.sessions -= 1;
            if owner.sessions == 0 {
                ids.remove(&self.client_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use mgate_policies::{Principal, Protocol};

    use super::*;

    #[test]
    fn same_principal_may_take_over() {
        let ids = ClientIds::default();
        let first = ids.claim(&client("alice"));
        assert!(first.is_ok() && ids.claim(&client("alice")).is_ok());
    }

    #[test]
    fn only_the_latest_session_is_not_taken_over() {
        let ids = ClientIds::default();
        let claim = || ids.claim(&client("alice")).ok().unwrap();
        let first = claim();
        assert!(!first.is_taken_over());
        let second = claim();
        drop(claim());
        let third = claim();
        assert_eq!([&first, &second, &third].map(Claim::is_taken_over), [true, true, false]);
    }

    #[test]
    fn another_principal_is_refused_until_the_last_session_ends() {
        let ids = ClientIds::default();
        let (first, second) = (ids.claim(&client("alice")), ids.claim(&client("alice")));
        drop(first);
        let refused = ids.claim(&client("mallory")).err().map(|reason| reason.cause);
        assert_eq!(refused, Some(Cause::ClientIdNotValid));
        drop(second);
        assert!(ids.claim(&client("mallory")).is_ok());
    }

    #[test]
    fn table_is_empty_when_all_are_gone() {
        let ids = ClientIds::default();
        drop(ids.claim(&client("alice")));
        assert!(ids.lock().is_empty());
    }

    fn client(principal: &str) -> Client {
        Client {
            principal: Principal { id: principal.into(), ..Principal::default() },
            client_id: "dev-1".into(),
            username: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            route: "devices".into(),
            protocol: Protocol::Mqtt,
            is_encrypted: false,
        }
    }
}
