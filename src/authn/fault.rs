use std::fmt;

use mgate_policies::{Cause, Reason};
use mgate_proxy::gate::Verdict;

/// Why a token is not good; says nothing of what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Algorithm,
    Audience,
    Critical,
    /// More claims, or longer ones, than are kept.
    ClaimsBound,
    Date(&'static str),
    Expired,
    /// The claim that the configuration calls so is missing or of another kind.
    Claim(&'static str),
    IdentityCharset(&'static str),
    /// Its issuer says that it is not good, or not known.
    Inactive,
    Issuer,
    KeyId,
    /// No access token.
    Kind,
    NoExpiry,
    NotYet(&'static str),
    RequiredClaim(Box<str>),
    SeveralKeys,
    Signature,
    TooLong,
    /// The issuer's keys cannot be had.
    Unavailable,
    UnknownKey,
}

impl Fault {
    /// What an authenticator says of it.
    pub(super) fn verdict(&self) -> Verdict {
        let cause = match self {
            Self::Unavailable => Cause::Unavailable,
            _ => Cause::BadCredentials,
        };
        Verdict::Rejected(Reason::with_detail(cause, self.to_string()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Algorithm => f.write_str("the token's algorithm is none of `algorithms`"),
            Self::Audience => f.write_str("the token is for another audience"),
            Self::Critical => f.write_str("the token has critical extensions"),
            Self::ClaimsBound => f.write_str("the token has too many claims, or too long ones"),
            Self::Date(claim) => write!(f, "the token's `{claim}` is no time"),
            Self::Expired => f.write_str("the token has expired"),
            Self::Claim(key) => write!(f, "the token has no usable claim for `{key}`"),
            Self::IdentityCharset(key) => {
                write!(f, "identity_charset: the claim for `{key}` is empty or has `/`, `+`, `#` or U+0000")
            }
            Self::Inactive => f.write_str("the token is not active"),
            Self::Issuer => f.write_str("the token is another issuer's"),
            Self::Kind => f.write_str("the token is no access token"),
            Self::KeyId => f.write_str("the token's `kid` is no string"),
            Self::NoExpiry => f.write_str("the token has no `exp`"),
            Self::NotYet(claim) => write!(f, "the token's `{claim}` is in the future"),
            Self::RequiredClaim(name) => write!(f, "the token's claim `{name}` is not as required"),
            Self::SeveralKeys => {
                f.write_str("the token does not say which of several keys it is signed with")
            }
            Self::Signature => f.write_str("the token's signature is wrong"),
            Self::TooLong => f.write_str("the token is too long"),
            Self::Unavailable => f.write_str("the issuer's keys cannot be had"),
            Self::UnknownKey => f.write_str("no key of the issuer fits the token"),
        }
    }
}
