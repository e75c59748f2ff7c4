use std::fmt::Write;
use std::time::Duration;

use mgate_policies::{Attributes, Cause, Now, Principal, Reason};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};
use ring::digest::{SHA256, digest};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::is_safe_identity;

/// Takes the identity from the client's certificate, which the TLS handshake has verified.
pub struct X509 {
    name: Box<str>,
    identity: Identity,
}

/// The part of a certificate that is the identity; the first one, where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The subject's common name.
    CommonName,
    /// The SHA-256 of the certificate, as 64 hexadecimal digits.
    Fingerprint,
    /// A DNS name among the subject's alternative names.
    SanDns,
    /// A URI among the subject's alternative names.
    SanUri,
}

impl X509 {
    /// An authenticator that logs call `name`.
    pub fn new(name: &str, identity: Identity) -> Self {
        Self { name: name.into(), identity }
    }

    fn judge(&self, der: &[u8], now: Now) -> Result<Principal, &'static str> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "certificate cannot be read")?;
        let attributes = attributes(der, &certificate);
        let id: Box<str> = match attributes.values(self.identity.attribute()).next() {
            Some(id) => id.into(),
            None => return Err(self.identity.missing()),
        };
        if !is_safe_identity(&id) {
            return Err(
                "identity_charset: the certificate's identity is empty or has `/`, `+`, `#` or U+0000",
            );
        }
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        let expires = Duration::from_secs(not_after);
        // A resumed TLS session does not verify the certificate again. RFC 8446 §4.6.1
        if expires <= now.unix {
            return Err("certificate has expired");
        }
        Ok(Principal { id, attributes, expires: Some(expires), ..Principal::default() })
    }
}

impl Authenticator for X509 {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        let Some(der) = credentials.certificate else { return Authentication::Ready(Verdict::Abstain) };
        Authentication::Ready(match self.judge(der, now) {
            Ok(principal) => Verdict::Accepted(principal),
            Err(why) => Verdict::Rejected(Reason::with_detail(Cause::BadCredentials, why)),
        })
    }
}

impl Identity {
    fn attribute(self) -> &'static str {
        match self {
            Self::CommonName => "cert.cn",
            Self::Fingerprint => "cert.fingerprint",
            Self::SanDns => "cert.san.dns",
            Self::SanUri => "cert.san.uri",
        }
    }

    fn missing(self) -> &'static str {
        match self {
            Self::CommonName => "certificate has no common name",
            Self::Fingerprint => "certificate has no fingerprint",
            Self::SanDns => "certificate has no alternative DNS name",
            Self::SanUri => "certificate has no alternative URI",
        }
    }
}

fn attributes(der: &[u8], certificate: &X509Certificate<'_>) -> Attributes {
    let mut attributes = Attributes::default();
    for name in certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()) {
        attributes.add("cert.cn", name);
    }
    // An extension that stands twice or cannot be read gives no names.
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => attributes.add("cert.san.dns", name),
                GeneralName::URI(uri) => attributes.add("cert.san.uri", uri),
                _ => {}
            }
        }
    }
    attributes.add("cert.serial", &hex(without_sign(certificate.raw_serial())));
    attributes.add("cert.fingerprint", &hex(digest(&SHA256, der).as_ref()));
    attributes.add("cert.issuer", &certificate.issuer().to_string());
    attributes
}

/// A number's bytes without the zero that only says that it is positive.
fn without_sign(number: &[u8]) -> &[u8] {
    match number {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => number,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
