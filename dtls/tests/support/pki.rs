//! Certificates for tests.

use std::time::{Duration, SystemTime};

use mgate_certs::{Authority, Issued, San, Validity};
use mgate_dtls::openssl::{Certificate, ClientAuth, EngineSettings};

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

#[expect(clippy::disallowed_methods, reason = "OpenSSL reads the clock, too")]
pub(crate) fn valid() -> Validity {
    Validity::days(SystemTime::now(), 1).unwrap()
}

/// Waits until a time has come.
#[expect(clippy::disallowed_methods, reason = "OpenSSL reads the clock, too")]
pub(crate) fn wait_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        std::thread::sleep(left.max(Duration::from_millis(1)));
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
