//! Who the device is, and whom it believes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::{Config, ExtendedMasterSecretType};
use webrtc_dtls::crypto::{Certificate, CryptoPrivateKey, CryptoPrivateKeyKind};

/// Shakes hands with a key that the gateway has, too: the first of a file, as `identity:key`.
pub(crate) fn shared_key(file: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (identity, digits) =
        lines.next().and_then(|line| line.rsplit_once(':')).context("there is no key")?;
    let key = bytes_of(digits).context("the key is not made of pairs of hexadecimal digits")?;
    ensure!(!identity.is_empty() && !key.is_empty(), "the identity or the key is empty");
    Ok(Config {
        psk: Some(Arc::new(move |_hint| Ok(key.clone()))),
        // what a server would give as a hint is, for a client, its name
        psk_identity_hint: Some(identity.as_bytes().to_vec()),
        // Nonces of webrtc-dtls are random: with GCM, one that came twice would give away more.
        cipher_suites: vec![
            CipherSuiteId::Tls_Psk_With_Aes_128_Ccm_8,
            CipherSuiteId::Tls_Psk_With_Aes_128_Ccm,
        ],
        ..config()
    })
}

/// Shakes hands with a certificate, and believes those of an authority alone.
pub(crate) fn certificate([certificate, key, authority]: [&Path; 3]) -> anyhow::Result<Config> {
    let chain =
        CertificateDer::pem_file_iter(certificate).with_context(|| certificate.display().to_string())?;
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    let pkcs8 = pkcs8.secret_pkcs8_der().to_vec();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &SystemRandom::new());
    let pair = pair.map_err(|error| anyhow::anyhow!("{}: {error}", key.display()))?;
    let mut roots_cas = RootCertStore::empty();
    for authority in
        CertificateDer::pem_file_iter(authority).with_context(|| authority.display().to_string())?
    {
        roots_cas.add(authority?)?;
    }
    ensure!(!roots_cas.is_empty(), "{}: no certificate", authority.display());
    Ok(Config {
        certificates: vec![Certificate {
            certificate: chain.collect::<Result<_, _>>()?,
            private_key: CryptoPrivateKey {
                kind: CryptoPrivateKeyKind::Ecdsa256(pair),
                serialized_der: pkcs8,
            },
        }],
        roots_cas,
        cipher_suites: vec![
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Ccm_8,
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Ccm,
        ],
        ..config()
    })
}

fn config() -> Config {
    Config {
        extended_master_secret: ExtendedMasterSecretType::Require,
        // webrtc-dtls sends again each time as soon, and not later and later as RFC 6347 §4.2.4 has it
        flight_interval: Duration::from_secs(3),
        ..Config::default()
    }
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let digit = |letter: u8| char::from(letter).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}
