//! What the engine is told once.

use std::error::Error;
use std::fmt;

use zeroize::Zeroizing;

/// What handshakes are performed with.
#[derive(Clone, Default)]
pub struct EngineSettings {
    /// The server's certificate; without one, only keys that were shared before serve.
    pub certificate: Option<Certificate>,
    /// Certificates of authorities that clients' certificates may come from, PEM, each with one or more.
    pub authorities: Vec<Vec<u8>>,
    /// Lists of certificates that are not valid any more, each one in DER, or one or more PEM; by the authorities.
    ///
    /// With any, there must be one for each issuer in a client's chain. One serves until it is replaced, even if it
    /// should have been.
    pub revocation_lists: Vec<Vec<u8>>,
    /// Whether clients are asked for a certificate.
    pub client_auth: ClientAuth,
    /// Whether keys serve that were shared before.
    pub psk: Psk,
    /// Whether clients may go on with an earlier session.
    pub resumption: Resumption,
}

/// A certificate with its key.
#[derive(Clone)]
pub struct Certificate {
    /// The chain, the leaf first, PEM.
    pub chain: Vec<u8>,
    /// The leaf's private key, PEM.
    pub key: Zeroizing<Vec<u8>>,
}

/// Whether clients are asked for a certificate; never where a key serves that was shared before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not.
    #[default]
    Off,
    /// They are, and may have none; one that is not valid is refused.
    Optional,
    /// They are, and must have one.
    Required,
}

/// Whether keys serve that were shared before (RFC 4279).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Psk {
    /// They do not.
    #[default]
    Off,
    /// They do; who the identity belongs to is asked for in each full handshake.
    On,
}

/// Whether clients may go on with an earlier session: within two hours, with the same engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// They may not.
    Off,
    /// They may, by tickets (RFC 5077) unless clients are asked for certificates, or by ids of sessions.
    On {
        /// How many sessions without a ticket are remembered; 0: none.
        sessions: u16,
    },
}

/// What is wrong with the settings of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A certificate of an authority cannot be used.
    BadAuthority(String),
    /// The server's certificate, or its chain, cannot be used.
    BadCertificate(String),
    /// The server's private key cannot be used.
    BadKey(String),
    /// A revocation list cannot be used, or comes from none of the authorities.
    BadRevocationList(String),
    /// The key belongs to another certificate.
    KeyMismatch,
    /// The library does not do what it is asked to.
    Library(String),
    /// Clients are to have certificates, and no authority is known.
    NoAuthority,
    /// There is neither a certificate nor are keys shared.
    NoCredential,
}

impl Default for Resumption {
    fn default() -> Self {
        Self::On { sessions: 1_000 }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAuthority(why) => write!(formatter, "the authority's certificate cannot be used: {why}"),
            Self::BadCertificate(why) => write!(formatter, "the certificate cannot be used: {why}"),
            Self::BadKey(why) => write!(formatter, "the private key cannot be used: {why}"),
            Self::BadRevocationList(why) => write!(formatter, "the revocation list cannot be used: {why}"),
            Self::KeyMismatch => formatter.write_str("the private key belongs to another certificate"),
            Self::Library(why) => write!(formatter, "OpenSSL cannot be set up: {why}"),
            Self::NoAuthority => formatter.write_str("clients are asked for certificates of no authority"),
            Self::NoCredential => formatter.write_str("there is neither a certificate nor a shared key"),
        }
    }
}

impl Error for Fault {}
