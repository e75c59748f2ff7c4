use mgate_policies::{Cause, Now, Principal, Reason};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};

use super::is_safe_identity;

/// Rejects clients whose own names could be taken for patterns where policies put them into topics. It stands
/// before the others of a row.
pub struct IdentityCharset {
    /// Whether the client identifier must be one level.
    pub client_id: bool,
    /// Whether the user name must be.
    pub username: bool,
    /// Whether nobody comes after it: then it takes in everybody else, without a name.
    pub is_alone: bool,
}

impl IdentityCharset {
    fn fault(&self, credentials: &Credentials<'_>) -> Option<Reason> {
        // an empty identifier is none: the upstream may assign one
        let is_bad = |name: &str| !name.is_empty() && !is_safe_identity(name);
        if self.client_id && is_bad(credentials.client_id) {
            let detail = "identity_charset: the client identifier has `/`, `+`, `#` or U+0000";
            return Some(Reason::with_detail(Cause::ClientIdNotValid, detail));
        }
        if self.username && credentials.username.is_some_and(is_bad) {
            let detail = "identity_charset: the user name has `/`, `+`, `#` or U+0000";
            return Some(Reason::with_detail(Cause::BadCredentials, detail));
        }
        None
    }
}

impl Authenticator for IdentityCharset {
    fn name(&self) -> &str {
        "identity_charset"
    }

    fn authenticate(&self, credentials: &Credentials<'_>, _: Now) -> Authentication {
        Authentication::Ready(match self.fault(credentials) {
            Some(reason) => Verdict::Rejected(reason),
            None if self.is_alone => Verdict::Accepted(Principal::default()),
            None => Verdict::Abstain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::tests::{ready, shown};

    #[test]
    fn names_that_are_used_are_held_to_one_level() {
        for (client_id, username, causes) in [
            ("dev-1", Some("eve"), [None, None]),
            ("", None, [None, None]),
            ("dev-1", Some(""), [None, None]),
            ("a/b", Some("eve"), [Some(Cause::ClientIdNotValid), None]),
            ("+", Some("#"), [Some(Cause::ClientIdNotValid), Some(Cause::BadCredentials)]),
            ("x#", None, [Some(Cause::ClientIdNotValid), None]),
            ("dev-1", Some("a\0"), [None, Some(Cause::BadCredentials)]),
        ] {
            let credentials = Credentials { client_id, username, ..shown() };
            for (index, cause) in causes.into_iter().enumerate() {
                let (of_client_id, of_username) = (index == 0, index == 1);
                let charset =
                    IdentityCharset { client_id: of_client_id, username: of_username, is_alone: false };
                match (ready(&charset, &credentials), cause) {
                    (Verdict::Abstain, None) => {}
                    (Verdict::Rejected(reason), Some(cause)) => assert_eq!(reason.cause, cause),
                    (verdict, _) => panic!("{client_id} {username:?}: {verdict:?}"),
                }
            }
        }
    }

    #[test]
    fn alone_it_takes_in_the_others() {
        let charset = IdentityCharset { client_id: true, username: true, is_alone: true };
        assert_eq!(ready(&charset, &shown()), Verdict::Accepted(Principal::default()));
        let bad = Credentials { client_id: "#", ..shown() };
        assert!(matches!(ready(&charset, &bad), Verdict::Rejected(_)));
    }
}
