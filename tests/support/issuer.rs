//! An issuer of tokens: its keys, made by openssl, and whatever it signs with them.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

/// What tokens are signed with.
#[derive(Clone)]
pub(crate) struct SigningKey(Arc<Kind>);

enum Kind {
    Ed25519(Ed25519KeyPair, Vec<u8>),
    P256(EcdsaKeyPair, Vec<u8>),
    P384(EcdsaKeyPair, Vec<u8>),
    Rsa(RsaKeyPair, Vec<u8>),
    Secret(Vec<u8>),
}

impl SigningKey {
    pub(crate) fn ed25519() -> Self {
        let pkcs8 = private_key(&["-algorithm", "ed25519"]);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).unwrap();
        Self(Arc::new(Kind::Ed25519(pair, pkcs8)))
    }

    pub(crate) fn p256() -> Self {
        let (pair, pkcs8) = ecdsa("P-256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING);
        Self(Arc::new(Kind::P256(pair, pkcs8)))
    }

    pub(crate) fn p384() -> Self {
        let (pair, pkcs8) = ecdsa("P-384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING);
        Self(Arc::new(Kind::P384(pair, pkcs8)))
    }

    pub(crate) fn rsa(bits: u32) -> Self {
        let bits = format!("rsa_keygen_bits:{bits}");
        let pkcs8 = private_key(&["-algorithm", "RSA", "-pkeyopt", &bits]);
        Self(Arc::new(Kind::Rsa(RsaKeyPair::from_pkcs8(&pkcs8).unwrap(), pkcs8)))
    }

    pub(crate) fn secret(secret: &[u8]) -> Self {
        Self(Arc::new(Kind::Secret(secret.into())))
    }

    /// A token with this header, signed as its `alg` says.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = self.sign(header["alg"].as_str().unwrap(), message.as_bytes());
        format!("{message}.{}", base64url(&signature))
    }

    /// The public key for a set, with the members of `more`.
    pub(crate) fn jwk(&self, more: &Value) -> Value {
        let point = |curve, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y)})
        };
        let mut jwk = match &*self.0 {
            Kind::Ed25519(pair, _) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key().as_ref())})
            }
            Kind::P256(pair, _) => point("P-256", pair.public_key().as_ref()),
            Kind::P384(pair, _) => point("P-384", pair.public_key().as_ref()),
            Kind::Rsa(pair, _) => {
                let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "n": base64url(&n), "e": base64url(&e)})
            }
            Kind::Secret(secret) => json!({"kty": "oct", "k": base64url(secret)}),
        };
        for (name, value) in more.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    }

    /// The public key, PEM.
    pub(crate) fn public_pem(&self) -> String {
        let pkcs8 = match &*self.0 {
            Kind::Ed25519(_, pkcs8) | Kind::P256(_, pkcs8) | Kind::P384(_, pkcs8) | Kind::Rsa(_, pkcs8) => {
                pkcs8
            }
            Kind::Secret(_) => panic!("a secret is not public"),
        };
        String::from_utf8(openssl(&["pkey", "-inform", "DER", "-pubout"], pkcs8)).unwrap()
    }

    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &*self.0 {
            Kind::Ed25519(pair, _) => pair.sign(message).as_ref().into(),
            Kind::P256(pair, _) | Kind::P384(pair, _) => pair.sign(&random, message).unwrap().as_ref().into(),
            Kind::Rsa(pair, _) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(rsa_encoding(algorithm), &random, message, &mut signature).unwrap();
                signature
            }
            Kind::Secret(secret) => {
                hmac::sign(&hmac::Key::new(hmac_of(algorithm), secret), message).as_ref().into()
            }
        }
    }
}

/// A set of public keys. RFC 7517 §5
pub(crate) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The two parts of a token that are to be signed.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| base64url(part.to_string().as_bytes()));
    format!("{header}.{claims}")
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ecdsa(curve: &str, algorithm: &'static signature::EcdsaSigningAlgorithm) -> (EcdsaKeyPair, Vec<u8>) {
    let curve = format!("ec_paramgen_curve:{curve}");
    let pkcs8 = private_key(&["-algorithm", "EC", "-pkeyopt", &curve]);
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8, &SystemRandom::new()).unwrap();
    (pair, pkcs8)
}

fn rsa_encoding(algorithm: &str) -> &'static dyn RsaEncoding {
    match algorithm {
        "PS256" => &signature::RSA_PSS_SHA256,
        "PS384" => &signature::RSA_PSS_SHA384,
        "PS512" => &signature::RSA_PSS_SHA512,
        "RS384" => &signature::RSA_PKCS1_SHA384,
        "RS512" => &signature::RSA_PKCS1_SHA512,
        _ => &signature::RSA_PKCS1_SHA256,
    }
}

fn hmac_of(algorithm: &str) -> hmac::Algorithm {
    match algorithm {
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

/// A new key as PKCS #8, DER.
fn private_key(kind: &[&str]) -> Vec<u8> {
    let pem = openssl(&[&["genpkey"], kind].concat(), b"");
    openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], &pem)
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl is not installed: run scripts/test");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}
