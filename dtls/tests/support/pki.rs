//! Certificates for tests.

use std::time::{Duration, SystemTime};

use mgate_certs::{Authority, Issued, San, Validity};
use mgate_dtls::openssl::{Certificate, ClientAuth, EngineSettings};
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509Builder, X509NameBuilder};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority, and certificates of it.
pub(crate) struct Pki {
    pub(crate) authority: Authority,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self { authority: Authority::create("test authority", valid()).unwrap() }
    }

    pub(crate) fn server(&self) -> EngineSettings {
        let Issued { certificate, key } = self.authority.issue_server(&["localhost"], valid()).unwrap();
        EngineSettings {
            certificate: Some(Certificate {
                chain: certificate.pem.into_bytes(),
                key: key.pem().as_bytes().to_vec().into(),
            }),
            authorities: vec![self.authority.certificate_pem().as_bytes().to_vec()],
            client_auth: ClientAuth::Required,
            ..EngineSettings::default()
        }
    }

    /// A certificate that soon ends, and when it has ended for everybody who counts whole seconds.
    #[expect(clippy::disallowed_methods, reason = "OpenSSL reads the clock, too")]
    pub(crate) fn client_for(&self, name: &str, time: Duration) -> (Issued, SystemTime) {
        let end = SystemTime::now() + time;
        let valid = Validity::days(end - DAY, 1).unwrap();
        let sans = [San::dns("device.example").unwrap()];
        (self.authority.issue_client(name, &sans, valid).unwrap(), end + Duration::from_secs(2))
    }

    pub(crate) fn client(&self, name: &str) -> Issued {
        self.authority.issue_client(name, &[San::dns("device.example").unwrap()], valid()).unwrap()
    }
}

/// An authority below another one, which alone is trusted.
pub(crate) struct Below {
    top: Issuer<'static, KeyPair>,
    top_pem: String,
    authority: Authority,
}

impl Below {
    pub(crate) fn new() -> Self {
        let (key, params) = (KeyPair::generate().unwrap(), authority("top", 1, valid_until()));
        let top_pem = params.self_signed(&key).unwrap().pem();
        let top = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let pem = authority("below", 0, valid_until()).signed_by(&key, &top).unwrap().pem();
        Self { top, top_pem, authority: Authority::load(&pem, &key.serialize_pem()).unwrap() }
    }

    pub(crate) fn server(&self) -> EngineSettings {
        EngineSettings { authorities: vec![self.top_pem.clone().into_bytes()], ..Pki::new().server() }
    }

    /// A certificate with that of the authority behind it.
    pub(crate) fn client(&self, name: &str) -> Issued {
        self.client_until(name, valid_until())
    }

    /// A certificate whose authority soon ends, and when that has ended for everybody who counts whole seconds.
    #[expect(clippy::disallowed_methods, reason = "OpenSSL reads the clock, too")]
    pub(crate) fn client_for(&self, name: &str, time: Duration) -> (Issued, SystemTime) {
        let end = SystemTime::now() + time;
        (self.client_until(name, end), end + Duration::from_secs(2))
    }

    fn client_until(&self, name: &str, end: SystemTime) -> Issued {
        let mut issued = self.authority.issue_client(name, &[], valid()).unwrap();
        let key = KeyPair::from_pem(self.authority.key().pem()).unwrap();
        let authority = authority("below", 0, end).signed_by(&key, &self.top).unwrap();
        issued.certificate.pem.push_str(&authority.pem());
        issued
    }
}

/// What makes an authority that may have so many others below it.
fn authority(name: &str, below: u8, end: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = ((end - DAY).into(), end.into());
    params
}

#[expect(clippy::disallowed_methods, reason = "OpenSSL reads the clock, too")]
fn valid_until() -> SystemTime {
    SystemTime::now() + DAY / 2
}

#[expect(clippy::disallowed_methods, reason = "OpenSSL reads the clock, too")]
pub(crate) fn valid() -> Validity {
    Validity::days(SystemTime::now(), 1).unwrap()
}

/// A server with an RSA key, and a certificate that it signed itself; clients need none.
pub(crate) fn rsa_settings() -> EngineSettings {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "localhost").unwrap();
    let name = name.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let certificate = Certificate {
        chain: builder.build().to_pem().unwrap(),
        key: key.private_key_to_pem_pkcs8().unwrap().into(),
    };
    EngineSettings { certificate: Some(certificate), ..EngineSettings::default() }
}

/// Waits until a time has come.
#[expect(clippy::disallowed_methods, reason = "OpenSSL reads the clock, too")]
pub(crate) fn wait_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        std::thread::sleep(left.max(Duration::from_millis(1)));
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
