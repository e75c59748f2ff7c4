//! Takes the identity from a JSON Web Token that an issuer has signed. RFC 7519, RFC 8725

mod algorithm;
mod jws;
mod keys;
mod remote;
mod token;

use mgate_policies::{Now, Principal};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};

use self::remote::Checked;
use self::token::{Signed, Token};

use super::claims::{self, ClaimRules};
use super::fault::Fault;
use super::token_place::TokenPlace;

pub use self::algorithm::{ALGORITHMS, Algorithm};
pub use self::jws::{JwsFault, Verified, Verifier};
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
    /// The algorithms that tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Where clients show their tokens; the first that holds one of this issuer counts.
    pub token_in: Vec<TokenPlace>,
    /// Which claims are good, and what becomes of them.
    pub claims: ClaimRules,
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
        let principal = claims::principal(&token.claims, &self.options.claims, now.unix)?;
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
            Err(fault) => return Authentication::Ready(fault.verdict()),
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

    fn start(&self) {
        if let IssuerKeys::Remote(keys) = &self.keys {
            keys.start();
        }
    }
}

fn verdict(result: Result<(), Fault>, principal: Principal) -> Verdict {
    match result {
        Ok(()) => Verdict::Accepted(principal),
        Err(fault) => fault.verdict(),
    }
}

#[cfg(test)]
mod tests;
