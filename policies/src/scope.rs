use std::fmt;

use crate::client::Client;

/// Whose rights changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of the clients with this client identifier, whoever they are.
    ClientId(Box<str>),
    /// Everybody's.
    Everyone,
    /// Those of one principal.
    Principal {
        /// Its tenant, empty where there is only one; `None` stands for each.
        tenant: Option<Box<str>>,
        /// Its identity.
        id: Box<str>,
    },
    /// Those of all principals of one tenant.
    Tenant(Box<str>),
}

impl Scope {
    /// Says whether a client's rights are among those that changed.
    pub fn covers(&self, client: &Client) -> bool {
        let principal = &client.principal;
        match self {
            Self::ClientId(client_id) => *client_id == client.client_id,
            Self::Everyone => true,
            Self::Principal { tenant, id } => {
                *id == principal.id && tenant.as_ref().is_none_or(|tenant| *tenant == principal.tenant)
            }
            Self::Tenant(tenant) => *tenant == principal.tenant,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientId(client_id) => write!(f, "client {client_id}"),
            Self::Everyone => f.write_str("everyone"),
            Self::Principal { tenant: Some(tenant), id } if !tenant.is_empty() => {
                write!(f, "principal {id} of tenant {tenant}")
            }
            Self::Principal { id, .. } => write!(f, "principal {id}"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::client::{Principal, Protocol};

    #[test]
    fn each_scope_covers_its_own_and_nobody_else() {
        let of = |tenant: &str, id: &str| Scope::Principal { tenant: Some(tenant.into()), id: id.into() };
        for (scope, expected) in [
            (Scope::Everyone, true),
            (Scope::ClientId("dev-1".into()), true),
            (Scope::ClientId("alice".into()), false),
            (Scope::Tenant("acme".into()), true),
            (Scope::Tenant("".into()), false),
            (of("acme", "alice"), true),
            (of("acme", "dev-1"), false),
            (of("", "alice"), false),
            (Scope::Principal { tenant: None, id: "alice".into() }, true),
            (Scope::Principal { tenant: None, id: "dev-1".into() }, false),
        ] {
            assert_eq!(scope.covers(&client()), expected, "{scope}");
        }
    }

    fn client() -> Client {
        Client {
            principal: Principal { tenant: "acme".into(), id: "alice".into(), ..Principal::default() },
            client_id: "dev-1".into(),
            username: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            route: "devices".into(),
            protocol: Protocol::Mqtt,
            is_encrypted: false,
        }
    }
}
