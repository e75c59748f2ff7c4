//! Keys that a device and mgate share, and by which they find each other in a DTLS handshake. RFC 4279

use std::fmt;

use mgate_policies::BoxFuture;

/// A pre-shared key; nothing that is printed shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(Box<[u8]>);

/// Where the search for a key has come to.
pub enum KeySearch {
    /// Here it is.
    Found(Psk),
    /// It takes time.
    Pending(BoxFuture<'static, Option<Psk>>),
    /// There is none by this identity.
    Unknown,
}

impl Psk {
    /// The longest key. RFC 4279 §5.3 asks for 64 bytes at the least
    pub const MAX_BYTES: usize = 256;
    /// The longest identity in bytes. RFC 4279 §5.3 asks for 128 at the least
    pub const MAX_IDENTITY_BYTES: usize = 256;

    /// A key; `None` where it is empty or longer than [`Psk::MAX_BYTES`].
    pub fn new(key: &[u8]) -> Option<Self> {
        (1..=Self::MAX_BYTES).contains(&key.len()).then(|| Self(key.into()))
    }

    /// What must not be shown to anybody.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(…)")
    }
}

impl From<Option<Psk>> for KeySearch {
    fn from(key: Option<Psk>) -> Self {
        key.map_or(Self::Unknown, Self::Found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_neither_empty_nor_endless_and_never_shown() {
        assert_eq!(Psk::new(b""), None);
        assert_eq!(Psk::new(&[1; Psk::MAX_BYTES + 1]), None);
        let key = Psk::new(b"rabbit hole").unwrap();
        assert_eq!(key.reveal(), b"rabbit hole");
        assert_eq!(format!("{key:?}"), "Psk(…)");
    }
}
