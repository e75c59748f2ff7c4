//! Devices that share a key with mgate, of a file or of a service.

mod file;
mod service;

use mgate_policies::{Attributes, Now, Principal};
use mgate_proxy::gate::{Authentication, Authenticator, Credentials, Verdict};
use mgate_proxy::psk::KeySearch;

pub use self::file::{LineFault, PskFile};
pub use self::service::PskService;

/// Takes the identity of the key that a client has, as the DTLS handshake has shown; the keys are those of a file.
///
/// It abstains where it does not know the identity.
pub struct Psk {
    name: Box<str>,
    file: PskFile,
}

impl Psk {
    /// An authenticator that logs call `name`.
    pub fn new(name: &str, file: PskFile) -> Self {
        Self { name: name.into(), file }
    }
}

impl Authenticator for Psk {
    fn name(&self) -> &str {
        &self.name
    }

    fn authenticate(&self, credentials: &Credentials<'_>, _: Now) -> Authentication {
        let known = credentials.psk_identity.filter(|identity| self.file.key(identity).is_some());
        Authentication::Ready(known.map_or(Verdict::Abstain, accepted))
    }

    fn key(&self, identity: &str, _: Now) -> KeySearch {
        self.file.key(identity).cloned().into()
    }
}

fn accepted(identity: &str) -> Verdict {
    let mut attributes = Attributes::default();
    attributes.add("psk.identity", identity);
    Verdict::Accepted(Principal { id: identity.into(), attributes, ..Principal::default() })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ready, shown};
    use super::*;

    #[test]
    fn identity_of_the_file_is_the_principal_and_others_are_left_to_others() {
        let psk = Psk::new("devices", PskFile::parse("dev-1:00ff").unwrap());
        let judge = |identity| ready(&psk, &Credentials { psk_identity: identity, ..shown() });
        let Verdict::Accepted(principal) = judge(Some("dev-1")) else { panic!("dev-1 is known") };
        assert_eq!(&*principal.id, "dev-1");
        assert_eq!(principal.attributes.values("psk.identity").collect::<Vec<_>>(), ["dev-1"]);
        assert_eq!([judge(Some("dev-2")), judge(None)], [Verdict::Abstain, Verdict::Abstain]);
        let KeySearch::Found(key) = psk.key("dev-1", Now::read()) else { panic!("dev-1 has a key") };
        assert_eq!(key.reveal(), [0x00, 0xff]);
        assert!(matches!(psk.key("dev-2", Now::read()), KeySearch::Unknown));
    }
}
