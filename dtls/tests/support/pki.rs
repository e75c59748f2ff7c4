//! Certificates for tests.

use std::time::SystemTime;

use mgate_certs::{Authority, Issued, San, Validity};
use mgate_dtls::openssl::{Certificate, ClientAuth, EngineSettings};

/// An authority, and certificates of it.
pub struct Pki {
    pub authority: Authority,
}

impl Pki {
    pub fn new() -> Self {
        Self { authority: Authority::create("test authority", valid()).unwrap() }
    }

    pub fn server(&self) -> EngineSettings {
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

    pub fn client(&self, name: &str) -> Issued {
        self.authority.issue_client(name, &[San::dns("device.example").unwrap()], valid()).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "OpenSSL reads the clock, too")]
pub fn valid() -> Validity {
    Validity::days(SystemTime::now(), 1).unwrap()
}
