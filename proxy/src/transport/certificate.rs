use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName,
};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, InconsistentKeys, RootCertStore, SupportedCipherSuite};

/// A certificate with its chain and its key, which fit each other.
#[derive(Clone)]
pub struct Certificate(pub(super) Arc<CertifiedKey>);

/// Authorities that certificates may come from.
#[derive(Clone)]
pub struct Authorities(pub(super) Arc<RootCertStore>);

/// What authorities say about certificates that are not valid any more.
#[derive(Clone, Default)]
pub struct RevocationLists(pub(super) Vec<CertificateRevocationListDer<'static>>);

/// The cipher suites that may be negotiated, most wanted first; never empty.
#[derive(Clone)]
pub struct CipherSuites(pub(super) Vec<SupportedCipherSuite>);

/// What is wrong with certificates, keys, lists or their combination; which file it was, the caller knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// A certificate of an authority cannot be used.
    BadAuthority(String),
    /// The certificate cannot be read.
    BadCertificate(String),
    /// The private key cannot be used.
    BadKey(String),
    /// A revocation list cannot be used.
    BadRevocationList(String),
    /// The key belongs to another certificate.
    KeyMismatch,
    /// There is no certificate.
    NoCertificate,
    /// There is no private key, or only an encrypted one.
    NoKey,
    /// The system gives no random bytes.
    NoRandomness,
    /// There is no revocation list.
    NoRevocationList,
    /// None of the cipher suites exists in the allowed versions of TLS.
    NoUsableSuite,
    /// The system has no store of authorities.
    NoSystemAuthorities,
    /// No cipher suite has this name.
    UnknownCipherSuite(String),
}

impl Certificate {
    /// Reads the chain, the leaf first, and the leaf's private key (PKCS #8, SEC 1 or PKCS #1), both PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain, TlsError::BadCertificate)?;
        let key = PrivateKeyDer::pem_slice_iter(key)
            .next()
            .ok_or(TlsError::NoKey)?
            .map_err(|error| TlsError::BadKey(error.to_string()))?;
        if let Some(leaf) = chain.first() {
            ParsedCertificate::try_from(leaf).map_err(|error| TlsError::BadCertificate(error.to_string()))?;
        }
        match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
            Ok(certified) => Ok(Self(Arc::new(certified))),
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(TlsError::KeyMismatch),
            Err(error) => Err(TlsError::BadKey(error.to_string())),
        }
    }

    /// Whether the leaf is made out for `name`; a wildcard stands for one label.
    pub(super) fn covers(&self, name: &ServerName<'_>) -> bool {
        let leaf = self.0.end_entity_cert().and_then(ParsedCertificate::try_from);
        leaf.is_ok_and(|leaf| rustls::client::verify_server_name(&leaf, name).is_ok())
    }
}

impl Authorities {
    /// No authority: whoever has only this trusts nobody.
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// Reads one or more certificates of authorities, PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        for authority in certificates(pem, TlsError::BadAuthority)? {
            store.add(authority).map_err(|error| TlsError::BadAuthority(error.to_string()))?;
        }
        Ok(Self(Arc::new(store)))
    }

    /// Takes the authorities that the operating system trusts.
    pub fn of_system() -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        // A system's store may hold certificates that are too odd for us: they are left out.
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() { Err(TlsError::NoSystemAuthorities) } else { Ok(Self(Arc::new(store))) }
    }
}

impl RevocationLists {
    /// Reads one list in DER, or one or more in PEM.
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, TlsError> {
        if bytes.first() == Some(&DER_SEQUENCE) {
            return Ok(Self(vec![bytes.to_vec().into()]));
        }
        let lists = CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
        match lists.map_err(|error| TlsError::BadRevocationList(error.to_string()))? {
            none if none.is_empty() => Err(TlsError::NoRevocationList),
            lists => Ok(Self(lists)),
        }
    }

    /// These lists and `other`'s.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

impl CipherSuites {
    /// Finds suites by their names, as IANA writes them (`TLS_AES_128_GCM_SHA256`); the prefix `TLS13_` is
    /// understood too.
    pub fn from_names(names: &[impl AsRef<str>]) -> Result<Self, TlsError> {
        let suites = names.iter().map(|name| suite(name.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if suites.is_empty() { Err(TlsError::NoUsableSuite) } else { Ok(Self(suites)) }
    }
}

impl Default for CipherSuites {
    /// All that are implemented: each has forward secrecy and authenticates what it encrypts.
    fn default() -> Self {
        Self(ring::DEFAULT_CIPHER_SUITES.to_vec())
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAuthority(why) => write!(f, "certificate of an authority cannot be used: {why}"),
            Self::BadCertificate(why) => write!(f, "certificate cannot be read: {why}"),
            Self::BadKey(why) => write!(f, "private key cannot be used: {why}"),
            Self::BadRevocationList(why) => write!(f, "revocation list cannot be used: {why}"),
            Self::KeyMismatch => f.write_str("private key does not belong to the certificate"),
            Self::NoCertificate => f.write_str("no certificate found (PEM is expected)"),
            Self::NoKey => f.write_str("no unencrypted private key found (PEM is expected)"),
            Self::NoRandomness => f.write_str("the system gives no random bytes"),
            Self::NoRevocationList => f.write_str("no revocation list found (PEM or DER is expected)"),
            Self::NoUsableSuite => f.write_str("no cipher suite is left for the allowed versions of TLS"),
            Self::NoSystemAuthorities => f.write_str("the system has no store of certificate authorities"),
            Self::UnknownCipherSuite(name) => write!(f, "unknown cipher suite {name:?}"),
        }
    }
}

impl Error for TlsError {}

/// The cryptography that all TLS here uses, restricted to `suites`.
pub(super) fn provider(suites: CipherSuites) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: suites.0, ..ring::default_provider() })
}

fn certificates(pem: &[u8], bad: fn(String) -> TlsError) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match certificates.map_err(|error| bad(error.to_string()))? {
        none if none.is_empty() => Err(TlsError::NoCertificate),
        certificates => Ok(certificates),
    }
}

fn suite(name: &str) -> Result<SupportedCipherSuite, TlsError> {
    let iana_name = name.replacen("TLS13_", "TLS_", 1);
    let is_named = |suite: &&SupportedCipherSuite| {
        format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1) == iana_name
    };
    let found = ring::ALL_CIPHER_SUITES.iter().find(is_named);
    found.copied().ok_or_else(|| TlsError::UnknownCipherSuite(name.into()))
}

/// The first byte of every list in DER; PEM is text.
const DER_SEQUENCE: u8 = 0x30;
