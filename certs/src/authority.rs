use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SerialNumber,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::error::CertError;
use crate::name::{San, Subject, check_common_name};
use crate::request::Request;
use crate::serial::Serial;
use crate::time::{Timestamp, Validity};

/// A certificate authority: its certificate, and the key with which it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    key: PrivateKey,
    until: Timestamp,
}

impl Authority {
    /// Makes a new one with a key of its own (ECDSA, P-256), which signs its certificate.
    pub fn create(common_name: &str, valid: Validity) -> Result<Self, CertError> {
        check_common_name(common_name)?;
        let key = KeyPair::generate()?;
        let mut params = parameters(Some(common_name), Serial::random()?, valid);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Self::load(&certificate.pem(), &key.serialize_pem())
    }

    /// Takes up an existing one: a CA's certificate and its PKCS #8 key, both in PEM.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, CertError> {
        let key = KeyPair::from_pem(key_pem)
            .map_err(|_| CertError::BadAuthority("the key is not a PKCS #8 key in PEM"))?;
        let (_, pem) = parse_x509_pem(certificate_pem.as_bytes())
            .map_err(|_| CertError::BadAuthority("the certificate is not in PEM"))?;
        let (_, certificate) = X509Certificate::from_der(&pem.contents)
            .map_err(|_| CertError::BadAuthority("the certificate cannot be read"))?;
        check_certificate(&certificate, &key)?;
        let until = certificate.validity().not_after.to_datetime().try_into()?;
        let issuer = Issuer::from_ca_cert_der(&pem.contents.as_slice().into(), key).map_err(|_| {
            CertError::BadAuthority("the certificate's subject or extensions are not supported")
        })?;
        let key = PrivateKey(key_pem.into());
        Ok(Self { issuer, certificate_pem: certificate_pem.into(), key, until })
    }

    /// Issues a certificate with a new key to a server of these DNS names and IP addresses.
    pub fn issue_server(&self, names: &[impl AsRef<str>], valid: Validity) -> Result<Issued, CertError> {
        self.issue(&Subject::server(names)?, Usage::Server, valid)
    }

    /// Issues a certificate with a new key to a client; `id` becomes the common name.
    pub fn issue_client(&self, id: &str, sans: &[San], valid: Validity) -> Result<Issued, CertError> {
        self.issue(&Subject::client(id, sans)?, Usage::Client, valid)
    }

    /// Signs a PKCS #10 request in PEM: takes its key, common name and alternative names, and nothing else
    /// that it asks for.
    pub fn sign_request(
        &self,
        request_pem: &str,
        usage: Usage,
        valid: Validity,
    ) -> Result<Certificate, CertError> {
        let request = Request::parse(request_pem)?;
        self.sign(&request.subject, &request.key, usage, valid)
    }

    /// Writes the list of revoked certificates, in PEM; each list needs a higher `number` than the one
    /// before it. RFC 5280 §5.2.3
    pub fn revocation_list(
        &self,
        revoked: &[Revoked],
        number: u64,
        valid: Validity,
    ) -> Result<String, CertError> {
        let list = CertificateRevocationListParams {
            this_update: valid.from().date_time(),
            next_update: valid.until().date_time(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().copied().map(Revoked::to_der).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// The authority's own certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The last second at which the authority's certificate is valid.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    fn issue(&self, subject: &Subject, usage: Usage, valid: Validity) -> Result<Issued, CertError> {
        let key = KeyPair::generate()?;
        let certificate = self.sign(subject, &key, usage, valid)?;
        Ok(Issued { certificate, key: PrivateKey(key.serialize_pem()) })
    }

    /// A certificate never outlives its authority: its end is moved forward where it would.
    fn sign(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        usage: Usage,
        valid: Validity,
    ) -> Result<Certificate, CertError> {
        if usage == Usage::Server && !subject.sans.iter().any(San::is_host) {
            return Err(CertError::BadRequest("a server needs a DNS name or an IP address"));
        }
        let name = subject.name().ok_or(CertError::BadRequest("it names nobody"))?;
        let valid = valid.cut(self.until).ok_or(CertError::Ended)?;
        let serial = Serial::random()?;
        let mut params = parameters(subject.common_name.as_deref(), serial, valid);
        // Not a CA, said explicitly: this also writes the subject key identifier.
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = subject.sans.iter().map(San::to_der).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage.to_der()];
        params.use_authority_key_identifier_extension = true;
        let pem = params.signed_by(key, &self.issuer)?.pem();
        Ok(Certificate { pem, name, serial, usage, until: valid.until() })
    }
}

/// A certificate that the authority signed.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub pem: String,
    /// Whom it names: the common name, or the first alternative name where there is none.
    pub name: String,
    /// Its number.
    pub serial: Serial,
    /// What it may be used for.
    pub usage: Usage,
    /// The last second at which it is valid.
    pub until: Timestamp,
}

/// A certificate, and the key that was made for it.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: PrivateKey,
}

/// A private key; it is never shown by `Debug`.
#[derive(Clone)]
pub struct PrivateKey(String);

impl PrivateKey {
    /// The key itself, as PKCS #8 in PEM.
    pub fn pem(&self) -> &str {
        &self.0
    }
}

/// A certificate that must no longer be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its number.
    pub serial: Serial,
    /// Since when.
    pub at: Timestamp,
}

impl Revoked {
    fn to_der(self) -> RevokedCertParams {
        RevokedCertParams {
            serial_number: self.serial.to_der(),
            revocation_time: self.at.date_time(),
            reason_code: None,
            invalidity_date: None,
        }
    }
}

/// Which side of a connection a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Who connects: a device or an application.
    Client,
    /// Who is connected to.
    Server,
}

impl Usage {
    fn to_der(self) -> ExtendedKeyUsagePurpose {
        match self {
            Self::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Self::Server => ExtendedKeyUsagePurpose::ServerAuth,
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

fn parameters(common_name: Option<&str>, serial: Serial, valid: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.serial_number = Some(serial.to_der());
    params.not_before = valid.from().date_time();
    params.not_after = valid.until().date_time();
    params
}

fn check_certificate(certificate: &X509Certificate<'_>, key: &KeyPair) -> Result<(), CertError> {
    if !certificate.is_ca() {
        return Err(CertError::BadAuthority("the certificate is not a CA's"));
    }
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err(CertError::BadAuthority("the key does not belong to the certificate"));
    }
    if !is_simple(certificate.subject()) {
        return Err(CertError::BadAuthority("the certificate's subject is too intricate"));
    }
    Ok(())
}

/// Whether a name comes out the same when it is written as an issuer: one attribute a level, each type once.
fn is_simple(name: &X509Name<'_>) -> bool {
    let types: Vec<_> = name.iter_attributes().map(AttributeTypeAndValue::attr_type).collect();
    let are_single = name.iter_rdn().all(|level| level.iter().count() == 1);
    are_single && types.iter().enumerate().all(|(at, kind)| !types[..at].contains(kind))
}
