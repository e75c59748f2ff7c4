use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use crate::authn::fault::Fault;

/// A token in three parts; nothing of it is verified yet. RFC 7515 §7.1
pub(super) struct Token<'a> {
    header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

/// Three parts with dots between them, encoded as they came. RFC 7515 §7.1
pub(super) struct Compact<'a> {
    pub(super) header: &'a str,
    pub(super) payload: &'a str,
    pub(super) signature: &'a str,
    /// Header and payload.
    pub(super) signed: &'a str,
}

/// The half of a token that keys judge.
pub(super) struct Signed {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<Box<str>>,
    pub(super) message: Box<[u8]>,
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// `None` for what is no token at all, be it a password with two dots in it.
    pub(super) fn parse(text: &'a str) -> Option<Result<Self, Fault>> {
        let compact = Compact::split(text).filter(|compact| !compact.payload.is_empty())?;
        if text.len() > MAX_BYTES {
            return Some(Err(Fault::TooLong));
        }
        let (header, claims) = (object(compact.header)?, object(compact.payload)?);
        Some(Ok(Self { header, claims, signed: compact.signed, signature: compact.signature() }))
    }

    /// What there is to verify, if the header asks for nothing that is not allowed.
    pub(super) fn into_signed(self, allowed: &[Algorithm]) -> Result<Signed, Fault> {
        Signed::new(&self.header, self.signed, self.signature, allowed)
    }
}

impl<'a> Compact<'a> {
    /// `None` if there are not three parts in base64url, of which the first is not empty.
    pub(super) fn split(text: &'a str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let is_compact = !header.is_empty() && [header, payload, signature].into_iter().all(is_base64url);
        is_compact.then_some(Self { header, payload, signature, signed })
    }

    /// One that cannot be decoded is as wrong as none.
    pub(super) fn signature(&self) -> Vec<u8> {
        decode(self.signature).unwrap_or_default()
    }
}

impl Signed {
    /// What there is to verify, if the header asks for nothing that is not allowed.
    pub(super) fn new(
        header: &Map<String, Value>,
        message: &str,
        signature: Vec<u8>,
        allowed: &[Algorithm],
    ) -> Result<Self, Fault> {
        // RFC 7515 §4.1.11: whoever does not understand an extension must refuse it.
        if header.contains_key("crit") {
            return Err(Fault::Critical);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::of_name);
        let algorithm = algorithm.filter(|algorithm| allowed.contains(algorithm)).ok_or(Fault::Algorithm)?;
        let key_id = match header.get("kid") {
            Some(Value::String(id)) => Some(id.as_str().into()),
            Some(_) => return Err(Fault::KeyId),
            None => None,
        };
        Ok(Self { algorithm, key_id, message: message.as_bytes().into(), signature })
    }
}

/// Decodes a part of a token or of a key. RFC 7515 §2
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Decodes a part that is a JSON object.
pub(super) fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decode(text)?).ok()
}

fn is_base64url(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// What is longer is refused unread.
const MAX_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_left_alone() {
        let long_password = "a.".repeat(MAX_BYTES);
        for text in [
            "",
            ".",
            "..",
            "secret",
            "a.b",
            "a.b.c",
            "my.pass.word",
            "e30.e30",
            "e30.e30.e30.e30",
            "e30.e30.e30.",
            "e30.W10.",
            "e30 .e30.e30",
            "e30=.e30.e30",
            "é30.e30.e30",
            ".e30.e30",
            "e30..e30",
            &long_password,
        ] {
            assert!(Token::parse(text).is_none(), "{text:.40}");
        }
        assert!(Token::parse("e30.e30.e30").is_some());
    }

    #[test]
    fn token_without_a_signature_is_a_token() {
        let Some(Ok(token)) = Token::parse("eyJhbGciOiJub25lIn0.e30.") else {
            panic!("three parts, one empty")
        };
        assert_eq!(token.into_signed(&[Algorithm::Rs256]).err(), Some(Fault::Algorithm));
    }

    #[test]
    fn token_over_16_kib_is_refused_unread() {
        let long = |claims: usize| format!("e30.{}.AAAA", "A".repeat(claims));
        assert!(matches!(Token::parse(&long(MAX_BYTES - 8)), Some(Err(Fault::TooLong))));
        assert!(Token::parse(&long(MAX_BYTES - 9)).is_none(), "read, and found to be no JSON");
    }
}
