use std::borrow::Cow;

use mgate_policies::{Cause, Client, Editable, Now, Part, Reason, Refusal, Transform};

use super::scope::Scope;
use crate::authn::jwt::{Verified, Verifier};

/// Takes messages that somebody has signed, as a JWS in its compact serialization. RFC 7515
pub struct Jws {
    name: Box<str>,
    verifier: Verifier,
    options: JwsOptions,
}

/// Which messages must be signed, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwsOptions {
    /// The messages that are looked at.
    pub scope: Scope,
    /// What becomes of messages that are not signed; those with a wrong signature are always denied.
    pub unsigned: Unsigned,
    /// What goes on of those that are.
    pub signed: Signed,
    /// Whose name the key must have; `None` for any.
    pub key_id: Option<KeyOwner>,
}

/// What becomes of messages that are not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// They pass.
    Pass,
    /// They are denied.
    Refuse,
}

/// What goes on of messages that are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// The JWS as it came.
    Keep,
    /// What was signed.
    Unwrap,
}

/// Whose name a key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// The client identifier.
    ClientId,
    /// The authenticated identity; anonymous clients have none.
    Principal,
}

impl Jws {
    /// A transform that logs and denials call `name`.
    pub fn new(name: &str, verifier: Verifier, options: JwsOptions) -> Self {
        Self { name: name.into(), verifier, options }
    }

    /// The new payload, if there is to be one.
    fn judge(&self, client: &Client, payload: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let verified = match self.verifier.verify(payload) {
            Some(result) => result.map_err(|fault| Refusal::denied(fault.to_string()))?,
            None if self.options.unsigned == Unsigned::Pass => return Ok(None),
            None => {
                let reason = Reason::with_detail(Cause::PayloadInvalid, "the payload is not signed");
                return Err(Refusal::Denied(reason));
            }
        };
        if self.options.key_id.is_some_and(|owner| !owner.owns(client, &verified)) {
            return Err(Refusal::denied("the payload is signed with the key of somebody else"));
        }
        Ok((self.options.signed == Signed::Unwrap).then_some(verified.payload))
    }
}

impl Transform for Jws {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        let Part::Message(message) = &mut packet.part else { return Ok(()) };
        if self.options.scope.covers(message)
            && let Some(payload) = self.judge(packet.client, &message.payload)?
        {
            message.payload = Cow::Owned(payload);
            message.outdated.signature = true;
        }
        Ok(())
    }
}

impl KeyOwner {
    fn owns(self, client: &Client, verified: &Verified) -> bool {
        let name = match self {
            Self::ClientId => &client.client_id,
            Self::Principal => &client.principal.id,
        };
        !name.is_empty() && verified.key_id.as_ref() == Some(name)
    }
}

#[cfg(test)]
mod tests {
    use mgate_policies::{Action, Outdated};
    use serde_json::{Value, json};

    use super::*;
    use crate::authn::jwt::{Algorithm, KeySet};
    use crate::issuer::{SigningKey, base64url, jwks};
    use crate::transform::tests::{applied, client, message_of, outdated_by};

    #[test]
    fn signed_payload_is_unwrapped_or_kept() {
        let key = SigningKey::p256();
        let signed = sign(&key, &json!({"alg": "ES256", "kid": "dev-1"}), b"\x00 any bytes \xff");
        assert_eq!(after(&key, options(), signed.as_bytes()), Ok(b"\x00 any bytes \xff".to_vec()));
        let kept = JwsOptions { signed: Signed::Keep, ..options() };
        assert_eq!(after(&key, kept, signed.as_bytes()), Ok(signed.into_bytes()));
        let empty = sign(&key, &json!({"alg": "ES256", "kid": "dev-1", "b64": true}), b"");
        assert_eq!(after(&key, options(), empty.as_bytes()), Ok(Vec::new()));
    }

    #[test]
    fn wrong_signature_is_denied_whoever_may_go_unsigned() {
        let (key, other) = (SigningKey::p256(), SigningKey::p256());
        let good = json!({"alg": "ES256", "kid": "dev-1"});
        let signed = sign(&key, &good, b"x");
        let (head, signature) = signed.rsplit_once('.').unwrap();
        let none = format!("{}.eA.", base64url(br#"{"alg":"none"}"#));
        for (text, why) in [
            (sign(&other, &good, b"x"), "the signature is wrong"),
            (format!("{head}."), "the signature is wrong"),
            (format!("{}eQ.{signature}", head.strip_suffix("eA").unwrap()), "the signature is wrong"),
            (none, "the signature's algorithm is none of `algorithms`"),
            (sign(&key, &json!({"alg": "ES256", "kid": "dev-2"}), b"x"), "no key fits the signature"),
            (sign(&key, &json!({"alg": "ES256", "kid": 1}), b"x"), "the signature's `kid` is no string"),
            (with_more(&key, "crit", &json!(["exp"])), "the signature has critical extensions"),
            (with_more(&key, "b64", &json!(false)), "the signature has critical extensions"),
        ] {
            for unsigned in [Unsigned::Pass, Unsigned::Refuse] {
                let options = JwsOptions { unsigned, ..options() };
                assert_eq!(after(&key, options, text.as_bytes()), Err(Refusal::denied(why)), "{text}");
            }
        }
    }

    #[test]
    fn payload_without_a_signature_passes_only_if_it_may() {
        let key = SigningKey::p256();
        for payload in [&b""[..], b"21.5", b"a.b.c", b"\xff.\xff.\xff", b"e30.e30"] {
            let passes = JwsOptions { unsigned: Unsigned::Pass, ..options() };
            assert_eq!(after(&key, passes, payload), Ok(payload.to_vec()));
            let reason = Reason::with_detail(Cause::PayloadInvalid, "the payload is not signed");
            assert_eq!(after(&key, options(), payload), Err(Refusal::Denied(reason)));
        }
    }

    #[test]
    fn key_must_be_the_clients_own() {
        let key = SigningKey::p256();
        let signed = sign(&key, &json!({"alg": "ES256", "kid": "dev-1"}), b"x");
        let nameless = sign(&key, &json!({"alg": "ES256"}), b"x");
        let stranger = Err(Refusal::denied("the payload is signed with the key of somebody else"));
        for (owner, client_id, principal, is_own) in [
            (KeyOwner::ClientId, "dev-1", "x", true),
            (KeyOwner::ClientId, "dev-2", "dev-1", false),
            (KeyOwner::Principal, "x", "dev-1", true),
            (KeyOwner::Principal, "dev-1", "", false),
        ] {
            let options = || JwsOptions { key_id: Some(owner), ..options() };
            let mut client = client();
            client.client_id = client_id.into();
            client.principal.id = principal.into();
            let expected = if is_own { Ok(b"x".to_vec()) } else { stranger.clone() };
            assert_eq!(after_by(&client, &key, options(), signed.as_bytes()), expected);
            assert_eq!(after_by(&client, &key, options(), nameless.as_bytes()), stranger);
        }
    }

    #[test]
    fn what_is_unwrapped_is_signed_no_longer() {
        let key = SigningKey::p256();
        let payload = sign(&key, &json!({"alg": "ES256", "kid": "dev-1"}), b"x");
        for (signed, signature) in [(Signed::Unwrap, true), (Signed::Keep, false)] {
            let jws = jws(&key, JwsOptions { signed, ..options() });
            let outdated = outdated_by(&jws, message_of(Action::Publish, "t", payload.as_bytes()));
            assert_eq!(outdated, Outdated { encoding: false, signature });
        }
    }

    fn after(key: &SigningKey, options: JwsOptions, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        after_by(&client(), key, options, payload)
    }

    fn after_by(
        client: &Client,
        key: &SigningKey,
        options: JwsOptions,
        payload: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        applied(&jws(key, options), client, message_of(Action::Publish, "t", payload), Now::read())
    }

    fn jws(key: &SigningKey, options: JwsOptions) -> Jws {
        let keys = jwks(&[key.jwk(&json!({"kid": "dev-1"}))]);
        let keys = KeySet::from_jwks(keys.as_bytes()).unwrap();
        Jws::new("signed", Verifier::new(keys, vec![Algorithm::Es256]), options)
    }

    fn with_more(key: &SigningKey, name: &str, value: &Value) -> String {
        sign(key, &json!({"alg": "ES256", "kid": "dev-1", name: value}), b"x")
    }

    fn sign(key: &SigningKey, header: &Value, payload: &[u8]) -> String {
        let [header, payload] = [header.to_string().as_bytes(), payload].map(base64url);
        let message = format!("{header}.{payload}");
        let signature = key.sign("ES256", message.as_bytes());
        format!("{message}.{}", base64url(&signature))
    }

    fn options() -> JwsOptions {
        JwsOptions {
            scope: Scope::default(),
            unsigned: Unsigned::Refuse,
            signed: Signed::Unwrap,
            key_id: None,
        }
    }
}
