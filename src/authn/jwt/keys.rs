use std::fmt;

use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::{Map, Value};
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::algorithm::Algorithm;
use super::token::{Signed, decode};
use crate::authn::fault::Fault;

/// The keys that tokens of one issuer may be signed with; never empty.
pub struct KeySet(Vec<Key>);

/// Why there is no key to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not JSON, or without a list `keys`.
    NoKeySet,
    /// Not one PEM block `PUBLIC KEY`.
    NoPublicKey,
    /// No key in the set is for signatures and of a kind that is supported.
    NoUsableKey,
    /// The secret has less than this number of bytes.
    ShortSecret(usize),
    /// The public key is neither RSA of 2048 to 8192 bits, nor on P-256 or P-384, nor Ed25519.
    Unsupported,
}

struct Key {
    id: Option<Box<str>>,
    /// The only algorithm that the key is for, where it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

enum Material {
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
    P384(Vec<u8>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    Secret(Box<[u8]>),
}

impl KeySet {
    /// Reads a JSON Web Key Set; keys that are not for verifying, or not supported, are left out, and so are
    /// shared secrets. RFC 7517 §5
    pub fn from_jwks(text: &[u8]) -> Result<Self, KeyError> {
        let set: Map<String, Value> = serde_json::from_slice(text).map_err(|_| KeyError::NoKeySet)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeyError::NoKeySet)?;
        let keys: Vec<Key> = keys.iter().filter_map(Value::as_object).filter_map(Key::from_jwk).collect();
        if keys.is_empty() { Err(KeyError::NoUsableKey) } else { Ok(Self(keys)) }
    }

    /// Reads one public key, PEM. RFC 7468 §13
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let blocks: Vec<_> = Pem::iter_from_buffer(text).collect();
        let [Ok(block)] = blocks.as_slice() else { return Err(KeyError::NoPublicKey) };
        if block.label != "PUBLIC KEY" {
            return Err(KeyError::NoPublicKey);
        }
        let (_, info) = SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_| KeyError::NoPublicKey)?;
        let material = Material::from_info(&info).ok_or(KeyError::Unsupported)?;
        Ok(Self(vec![Key { id: None, algorithm: None, material }]))
    }

    /// Takes a secret that the issuer shares, if it is long enough for these algorithms.
    pub fn from_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeyError> {
        let least = algorithms.iter().map(|algorithm| algorithm.min_secret_bytes()).max().unwrap_or_default();
        if secret.len() < least {
            return Err(KeyError::ShortSecret(least));
        }
        Ok(Self(vec![Key { id: None, algorithm: None, material: Material::Secret(secret.into()) }]))
    }

    /// Whether some key is good for `algorithm`.
    pub fn has_key_for(&self, algorithm: Algorithm) -> bool {
        self.0.iter().any(|key| key.is_for(algorithm))
    }

    /// Whether each key has a name, which only signatures with the same `kid` mean.
    pub fn are_all_named(&self) -> bool {
        self.0.iter().all(|key| key.id.is_some())
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The only key that the token can mean must have signed it.
    pub(super) fn verify(&self, signed: &Signed) -> Result<(), Fault> {
        let is_alone = self.0.len() == 1;
        let mut meant = self.0.iter().filter(|key| key.is_meant_by(signed, is_alone));
        let key = meant.next().ok_or(Fault::UnknownKey)?;
        if meant.next().is_some() {
            return Err(Fault::SeveralKeys);
        }
        if key.material.has_signed(signed) { Ok(()) } else { Err(Fault::Signature) }
    }
}

impl Key {
    /// RFC 7517 §4
    fn from_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        // what is there and is no string makes the key unusable
        let text = |name| jwk.get(name).map_or(Some(None), |value| value.as_str().map(Some));
        let is_signing = text("use")?.is_none_or(|name| name == "sig");
        let may_verify = jwk.get("key_ops").is_none_or(|operations| {
            operations.as_array().is_some_and(|operations| operations.iter().any(|name| name == "verify"))
        });
        if !is_signing || !may_verify {
            return None;
        }
        let algorithm = match text("alg")? {
            Some(name) => Some(Algorithm::of_name(name)?),
            None => None,
        };
        let id = text("kid")?.map(Into::into);
        Some(Self { id, algorithm, material: Material::from_jwk(jwk)? })
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithm.is_none_or(|only| only == algorithm) && self.material.suits(algorithm)
    }

    /// A key without a name is meant by a token that names one only where it stands alone.
    fn is_meant_by(&self, signed: &Signed, is_alone: bool) -> bool {
        let is_named = match (&self.id, &signed.key_id) {
            (Some(id), Some(wanted)) => id == wanted,
            (None, Some(_)) => is_alone,
            (_, None) => true,
        };
        is_named && self.is_for(signed.algorithm)
    }
}

impl Material {
    /// RFC 7518 §6, RFC 8037 §2
    fn from_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name| jwk.get(name).and_then(Value::as_str);
        let bytes = |name| text(name).and_then(decode);
        match (text("kty")?, text("crv")) {
            ("EC", Some("P-256")) => point(&bytes("x")?, &bytes("y")?, 32).map(Self::P256),
            ("EC", Some("P-384")) => point(&bytes("x")?, &bytes("y")?, 48).map(Self::P384),
            ("OKP", Some("Ed25519")) => bytes("x").filter(|x| x.len() == 32).map(Self::Ed25519),
            ("RSA", _) => Self::rsa(&bytes("n")?, &bytes("e")?),
            _ => None,
        }
    }

    fn from_info(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let bytes = &*info.subject_public_key.data;
        if info.algorithm.algorithm == OID_SIG_ED25519 {
            return (bytes.len() == 32).then(|| Self::Ed25519(bytes.into()));
        }
        match info.parsed().ok()? {
            PublicKey::EC(_) => {
                let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
                match (bytes.len(), bytes.first()) {
                    (65, Some(&UNCOMPRESSED)) if curve == OID_EC_P256 => Some(Self::P256(bytes.into())),
                    (97, Some(&UNCOMPRESSED)) if curve == OID_NIST_EC_P384 => Some(Self::P384(bytes.into())),
                    _ => None,
                }
            }
            PublicKey::RSA(key) => Self::rsa(key.modulus, key.exponent),
            _ => None,
        }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let [n, e] = [modulus, exponent].map(without_zeros);
        (256..=1024).contains(&n.len()).then_some(Self::Rsa(RsaPublicKeyComponents { n, e }))
    }

    fn suits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::Rsa(_) => algorithm.rsa().is_some(),
            Self::Secret(_) => algorithm.is_hmac(),
        }
    }

    fn has_signed(&self, signed: &Signed) -> bool {
        let Signed { algorithm, message, signature, .. } = signed;
        let result = match self {
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            Self::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            Self::P384(key) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key).verify(message, signature)
            }
            Self::Rsa(key) => match algorithm.rsa() {
                Some(parameters) => key.verify(parameters, message, signature),
                None => return false,
            },
            Self::Secret(secret) => match algorithm.hmac() {
                Some(hmac) => hmac::verify(&hmac::Key::new(hmac, secret), message, signature),
                None => return false,
            },
        };
        result.is_ok()
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKeySet => "is no JSON Web Key Set",
            Self::NoPublicKey => "must be one PEM block `PUBLIC KEY`",
            Self::NoUsableKey => "has no key that is for signatures and of a supported kind",
            Self::ShortSecret(bytes) => return write!(f, "must have {bytes} bytes or more for `algorithms`"),
            Self::Unsupported => "must be RSA of 2048 to 8192 bits, or on P-256 or P-384, or Ed25519",
        })
    }
}

impl std::error::Error for KeyError {}

/// A point that is not compressed. SEC 1 §2.3.3
fn point(x: &[u8], y: &[u8], bytes: usize) -> Option<Vec<u8>> {
    (x.len() == bytes && y.len() == bytes).then(|| [&[UNCOMPRESSED], x, y].concat())
}

fn without_zeros(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

const UNCOMPRESSED: u8 = 4;
