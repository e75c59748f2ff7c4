use std::fmt;

use serde_json::Value;

use super::algorithm::Algorithm;
use super::keys::KeySet;
use super::token::{Compact, Signed, decode, object};
use crate::authn::fault::Fault;

/// Judges bytes of any kind that somebody has signed. RFC 7515
pub struct Verifier {
    keys: KeySet,
    algorithms: Vec<Algorithm>,
}

/// What was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The name of the key, where the signature gives one.
    pub key_id: Option<Box<str>>,
    /// The bytes.
    pub payload: Vec<u8>,
}

/// Why a signature is not good; says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsFault {
    /// Its algorithm is none of those that are allowed.
    Algorithm,
    /// It has extensions that must be understood, or a payload that is not encoded.
    Critical,
    /// Its `kid` is no string.
    KeyId,
    /// It does not say which of several keys it is made with.
    SeveralKeys,
    /// It is wrong.
    Signature,
    /// No key fits.
    UnknownKey,
}

impl Verifier {
    /// Takes signatures by these keys and algorithms.
    pub fn new(keys: KeySet, algorithms: Vec<Algorithm>) -> Self {
        Self { keys, algorithms }
    }

    /// Judges a compact serialization; `None` for what is none. RFC 7515 §5.2
    pub fn verify(&self, bytes: &[u8]) -> Option<Result<Verified, JwsFault>> {
        let compact = Compact::split(str::from_utf8(bytes).ok()?)?;
        let header = object(compact.header)?;
        let is_encoded = header.get("b64").is_none_or(|b64| *b64 == Value::Bool(true));
        let signed = Signed::new(&header, compact.signed, compact.signature(), &self.algorithms);
        Some(match signed {
            // RFC 7797 §3
            _ if !is_encoded => Err(JwsFault::Critical),
            Ok(signed) => self.judge(&compact, signed),
            Err(fault) => Err(fault.into()),
        })
    }

    fn judge(&self, compact: &Compact<'_>, signed: Signed) -> Result<Verified, JwsFault> {
        self.keys.verify(&signed)?;
        let payload = decode(compact.payload).ok_or(JwsFault::Signature)?;
        Ok(Verified { key_id: signed.key_id, payload })
    }
}

impl From<Fault> for JwsFault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Algorithm => Self::Algorithm,
            Fault::Critical => Self::Critical,
            Fault::KeyId => Self::KeyId,
            Fault::SeveralKeys => Self::SeveralKeys,
            Fault::UnknownKey => Self::UnknownKey,
            _ => Self::Signature,
        }
    }
}

impl fmt::Display for JwsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Algorithm => "the signature's algorithm is none of `algorithms`",
            Self::Critical => "the signature has critical extensions",
            Self::KeyId => "the signature's `kid` is no string",
            Self::SeveralKeys => "the signature does not say which of several keys it is made with",
            Self::Signature => "the signature is wrong",
            Self::UnknownKey => "no key fits the signature",
        })
    }
}

impl std::error::Error for JwsFault {}
