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
        if expires < now.unix {
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

/// The common name of a certificate in DER.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    attributes(der, &certificate).values(Identity::CommonName.attribute()).next().map(str::to_owned)
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

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use mgate_certs::{Authority, San, Validity};
    use x509_parser::pem::parse_x509_pem;

    use super::super::tests::{ready, shown};
    use super::*;

    #[test]
    fn identity_is_the_chosen_part() {
        let der = issue("dev-1", &[San::dns("a.example").unwrap(), San::uri("urn:dev:1").unwrap()]);
        let fingerprint = hex(digest(&SHA256, &der).as_ref());
        for (identity, expected) in [
            (Identity::CommonName, "dev-1"),
            (Identity::SanDns, "a.example"),
            (Identity::SanUri, "urn:dev:1"),
            (Identity::Fingerprint, &fingerprint),
        ] {
            let Verdict::Accepted(principal) = judge(identity, &der) else { panic!("{identity:?} is there") };
            assert_eq!(&*principal.id, expected);
        }
    }

    #[test]
    fn certificate_gives_attributes_and_an_end() {
        let der = issue("dev-1", &[San::dns("a.example").unwrap(), San::dns("b.example").unwrap()]);
        let Verdict::Accepted(principal) = judge(Identity::CommonName, &der) else { panic!("it is good") };
        let values = |name| principal.attributes.values(name).collect::<Vec<_>>();
        assert_eq!(values("cert.cn"), ["dev-1"]);
        assert_eq!(values("cert.san.dns"), ["a.example", "b.example"]);
        assert_eq!(values("cert.issuer"), ["CN=test"]);
        assert_eq!(values("cert.serial")[0].len(), 32);
        assert_eq!(principal.expires, Some(Duration::from_secs(now().as_secs() + 24 * 60 * 60)));
    }

    #[test]
    fn without_a_certificate_it_abstains() {
        assert_eq!(ready(&X509::new("x509", Identity::CommonName), &shown()), Verdict::Abstain);
    }

    #[test]
    fn identity_that_is_missing_or_looks_like_a_pattern_is_rejected() {
        let der = issue("a/b", &[San::uri("spiffe://example/dev-1").unwrap()]);
        assert_eq!(judge(Identity::SanDns, &der), rejected("certificate has no alternative DNS name"));
        for identity in [Identity::CommonName, Identity::SanUri] {
            let Verdict::Rejected(reason) = judge(identity, &der) else { panic!("{identity:?} has a slash") };
            assert!(reason.detail.is_some_and(|detail| detail.starts_with("identity_charset: ")));
        }
    }

    #[test]
    fn certificate_that_expired_or_is_none_is_rejected() {
        let der = issue("dev-1", &[]);
        let x509 = X509::new("x509", Identity::CommonName);
        let later = Now { unix: now() + Duration::from_secs(25 * 60 * 60), ..Now::read() };
        assert_eq!(x509.judge(&der, later), Err("certificate has expired"));
        assert_eq!(judge(Identity::CommonName, &der[..40]), rejected("certificate cannot be read"));
    }

    fn judge(identity: Identity, der: &[u8]) -> Verdict {
        let credentials = Credentials { certificate: Some(der), ..shown() };
        match X509::new("x509", identity).authenticate(&credentials, Now { unix: now(), ..Now::read() }) {
            Authentication::Ready(verdict) => verdict,
            Authentication::Pending(_) => panic!("a certificate needs no time"),
        }
    }

    fn rejected(why: &'static str) -> Verdict {
        Verdict::Rejected(Reason::with_detail(Cause::BadCredentials, why))
    }

    fn issue(id: &str, names: &[San]) -> Vec<u8> {
        let from: SystemTime = UNIX_EPOCH + now();
        let valid = Validity::days(from, 1).unwrap();
        let authority = Authority::create("test", valid).unwrap();
        let issued = authority.issue_client(id, names, valid).unwrap();
        parse_x509_pem(issued.certificate.pem.as_bytes()).unwrap().1.contents
    }

    fn now() -> Duration {
        Duration::from_secs(1_800_000_000)
    }
}
