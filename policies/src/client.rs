use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::attributes::Attributes;

/// Who a client was found to be, once per connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// The tenant that the client belongs to; empty where there is only one.
    pub tenant: Box<str>,
    /// The authenticated identity; empty for an anonymous client.
    pub id: Box<str>,
    /// The groups that the identity is in.
    pub groups: Vec<Box<str>>,
    /// Everything else that authentication found out.
    pub attributes: Attributes,
    /// When the credentials end, as time since the Unix epoch; `None` if they have no end.
    pub expires: Option<Duration>,
}

/// The client of one connection, as policies see it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who it was found to be.
    pub principal: Principal,
    /// The MQTT client identifier; empty in protocols that have none.
    pub client_id: Box<str>,
    /// The user name as the client sent it, authenticated or not.
    pub username: Option<Box<str>>,
    /// The address that the connection came from.
    pub peer: SocketAddr,
    /// The name of the route that accepted the connection.
    pub route: Arc<str>,
    /// The protocol that the client speaks.
    pub protocol: Protocol,
    /// Whether the connection is encrypted.
    pub is_encrypted: bool,
}

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// CoAP over UDP.
    Coap,
    /// HTTP, any version.
    Http,
    /// MQTT, any version, over any transport.
    Mqtt,
}

impl Client {
    /// Calls `each` with every value that `${name}` stands for, until one call returns `true`; says whether
    /// one did.
    ///
    /// Names: `client_id`, `username`, `principal`, `tenant`, `listener`, `group`, and those of
    /// [`Attributes`]. An unknown name has no value.
    pub fn any_value(&self, name: &str, mut each: impl FnMut(&str) -> bool) -> bool {
        match name {
            "client_id" => each(&self.client_id),
            "group" => self.principal.groups.iter().any(|group| each(group)),
            "listener" => each(&self.route),
            "principal" => each(&self.principal.id),
            "tenant" => each(&self.principal.tenant),
            "username" => self.username.as_deref().is_some_and(each),
            _ => self.principal.attributes.values(name).any(each),
        }
    }
}

impl Protocol {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coap => "coap",
            Self::Http => "http",
            Self::Mqtt => "mqtt",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The names that [`Client::any_value`] knows beside those of attributes.
pub(crate) const BUILT_IN_NAMES: [&str; 6] =
    ["client_id", "group", "listener", "principal", "tenant", "username"];
