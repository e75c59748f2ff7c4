use mgate_policies::{Now, Principal};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};
use mgate_proxy::transport::Upgrade;

/// Takes in whoever shows neither a user name, nor a password, nor a token, as a principal without a name.
///
/// It belongs at the end of a row: what earlier authenticators abstained on reaches it. A client that shows a
/// user name wants to be somebody and is never made anonymous.
pub struct Anonymous {
    name: Box<str>,
}

impl Anonymous {
    /// An authenticator that logs call `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.into() }
    }
}

impl Authenticator for Anonymous {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, credentials: &Credentials<'_>, _: Now) -> Authentication {
        let bearer = credentials.upgrade.and_then(Upgrade::bearer);
        let shows_nothing =
            credentials.username.is_none() && credentials.password.is_none() && bearer.is_none();
        Authentication::Ready(match shows_nothing {
            true => Verdict::Accepted(Principal::default()),
            false => Verdict::Abstain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::tests::{ready, shown};

    #[test]
    fn nothing_shown_is_anonymous() {
        let verdict = ready(&Anonymous::new("anyone"), &shown());
        assert_eq!(verdict, Verdict::Accepted(Principal::default()));
    }

    #[test]
    fn user_name_or_password_is_never_anonymous() {
        let anonymous = Anonymous::new("anyone");
        let named = Credentials { username: Some(""), ..shown() };
        let secret = Credentials { password: Some(b""), ..shown() };
        assert_eq!(
            [named, secret].map(|shown| ready(&anonymous, &shown)),
            [Verdict::Abstain, Verdict::Abstain]
        );
    }
}
