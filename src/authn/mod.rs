//! Who a client is: authenticators for the rows that a route's `authn` names.

mod acl;
mod anonymous;
mod claims;
mod fault;
mod identity_charset;
mod inquiry;
pub mod introspection;
pub mod jwt;
mod password;
pub mod password_file;
mod psk;
pub mod remote;
mod token_place;
mod x509;

pub use anonymous::Anonymous;
pub use claims::ClaimRules;
pub use identity_charset::IdentityCharset;
pub use inquiry::InquiryOptions;
pub use password::Password;
pub use psk::{LineFault, Psk, PskFile, PskService};
pub use token_place::{TokenPlace, UnknownPlace};
pub use x509::{Identity, X509};

/// Whether `identity` may stand for one level of a topic. One with a separator or a wildcard could be taken
/// for a pattern by whoever puts topics together from it.
fn is_safe_identity(identity: &str) -> bool {
    !identity.is_empty() && !identity.contains(['/', '+', '#', '\0'])
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use mgate_policies::{Now, Protocol};
    use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};

    pub(super) fn ready(authenticator: &dyn Authenticator, credentials: &Credentials<'_>) -> Verdict {
        match authenticator.authenticate(credentials, Now::read()) {
            Authentication::Ready(verdict) => verdict,
            Authentication::Pending(_) => panic!("{} needs no time", authenticator.name()),
        }
    }

    /// What is said after all waiting.
    pub(super) async fn judged(
        authenticator: &dyn Authenticator,
        credentials: &Credentials<'_>,
        now: Now,
    ) -> Verdict {
        match authenticator.authenticate(credentials, now) {
            Authentication::Ready(verdict) => verdict,
            Authentication::Pending(verdict) => verdict.await,
        }
    }

    pub(super) fn shown() -> Credentials<'static> {
        Credentials {
            client_id: "dev-1",
            username: None,
            password: None,
            upgrade: None,
            certificate: None,
            psk_identity: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            protocol: Protocol::Mqtt,
        }
    }
}
