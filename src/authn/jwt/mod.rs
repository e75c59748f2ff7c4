//! Takes the identity from a JSON Web Token that an issuer has signed. RFC 7519, RFC 8725

mod algorithm;
mod claims;
mod fault;
mod keys;
mod remote;
mod token;

use std::time::Duration;

use mgate_policies::{Cause, Now, Principal, Reason};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};

use self::fault::Fault;
use self::remote::Checked;
use self::token::{Signed, Token};

pub use self::algorithm::{ALGORITHMS, Algorithm};
pub use self::keys::{KeyError, KeySet};
pub use self::remote::{Fetch, RemoteKeys, Schedule, fetch_from};

/// Judges tokens of one issuer.
///
/// It abstains where there is no token, and where the token is another issuer's: those who come later in the
/// row may judge it. With [`IssuerKeys::Remote`] it must be called in a runtime that drives timers.
pub struct Jwt {
    name: Box<str>,
    options: JwtOptions,
    keys: IssuerKeys,
}

/// Which tokens are good, and what becomes of their claims.
pub struct JwtOptions {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// Of these, `aud` must have one; `None` for tokens that may be for anybody.
    pub audience: Option<Vec<String>>,
    /// The algorithms that tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be ahead, for `nbf` and `iat`.
    pub leeway: Duration,
    /// Where clients show their tokens; the first that holds one of this issuer counts.
    pub token_in: Vec<TokenPlace>,
    /// The path of the claim that is the identity.
    pub id_claim: String,
    /// The path of the claim with the groups.
    pub groups_claim: Option<String>,
    /// The path of the claim with the tenant; a token must have it.
    pub tenant_claim: Option<String>,
    /// Paths of claims, and the values of which each must have one.
    pub required_claims: Vec<(String, Vec<String>)>,
}

/// Where a client shows its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// As the password.
    Password,
    /// As the user name.
    Username,
}

/// Where the issuer's keys come from.
pub enum IssuerKeys {
    /// They are known and stay as they are.
    Fixed(KeySet),
    /// They are fetched, again and again.
    Remote(RemoteKeys),
}

impl Jwt {
    /// An authenticator that logs call `name`.
    pub fn new(name: &str, options: JwtOptions, keys: IssuerKeys) -> Self {
        Self { name: name.into(), options, keys }
    }

    /// The first token that is there to be judged.
    fn token<'a>(&self, credentials: &Credentials<'a>) -> Option<Result<Token<'a>, Fault>> {
        let mut tokens =
            self.options.token_in.iter().filter_map(|place| Token::parse(place.text(credentials)?));
        let is_ours = |token: &Token<'_>| claims::is_from(&token.claims, &self.options.issuer);
        tokens.find(|token| token.as_ref().map_or(true, is_ours))
    }

    /// All that can be said without a key; it holds only if the token is signed.
    fn read(&self, token: Token<'_>, now: Now) -> Result<(Principal, Signed), Fault> {
        let principal = claims::principal(&token.claims, &self.options, now.unix)?;
        Ok((principal, token.into_signed(&self.options.algorithms)?))
    }
}

impl Authenticator for Jwt {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        let Some(token) = self.token(credentials) else { return Authentication::Ready(Verdict::Abstain) };
        let (principal, signed) = match token.and_then(|token| self.read(token, now)) {
            Ok(read) => read,
            Err(fault) => return Authentication::Ready(rejected(&fault)),
        };
        let checked = match &self.keys {
            IssuerKeys::Fixed(keys) => Checked::Ready(keys.verify(&signed)),
            IssuerKeys::Remote(keys) => keys.verify(signed, now.instant),
        };
        match checked {
            Checked::Ready(result) => Authentication::Ready(verdict(result, principal)),
            Checked::Pending(result) => {
                Authentication::Pending(Box::pin(async move { verdict(result.await, principal) }))
            }
        }
    }
}

impl TokenPlace {
    fn text<'a>(self, credentials: &Credentials<'a>) -> Option<&'a str> {
        match self {
            Self::Password => credentials.password.and_then(|password| str::from_utf8(password).ok()),
            Self::Username => credentials.username,
        }
    }
}

fn verdict(result: Result<(), Fault>, principal: Principal) -> Verdict {
    match result {
        Ok(()) => Verdict::Accepted(principal),
        Err(fault) => rejected(&fault),
    }
}

fn rejected(fault: &Fault) -> Verdict {
    let cause = match fault {
        Fault::Unavailable => Cause::Unavailable,
        _ => Cause::BadCredentials,
    };
    Verdict::Rejected(Reason::with_detail(cause, fault.to_string()))
}

#[cfg(test)]
mod tests;
