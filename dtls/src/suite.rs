//! Cipher suites that records can be protected with.

use std::marker::PhantomData;

use aes::{Aes128Enc, Aes256Enc};
use ccm::Ccm;
use ccm::aead::array::typenum::Unsigned;
use ccm::aead::{AeadCore, AeadInOut, KeyInit};
use ccm::consts::{U8, U12, U16};
use ring::aead::{self, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;

/// What protects records, which also says what keys are derived with; how keys are exchanged is the handshake's
/// matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-128 in CCM, with a tag of 16 bytes (RFC 6655, RFC 7251).
    Aes128Ccm,
    /// AES-128 in CCM, with a tag of 8 bytes (RFC 6655, RFC 7251).
    Aes128Ccm8,
    /// AES-128 in GCM (RFC 5288, RFC 5289, RFC 5487).
    Aes128Gcm,
    /// AES-256 in CCM, with a tag of 16 bytes (RFC 6655, RFC 7251).
    Aes256Ccm,
    /// AES-256 in CCM, with a tag of 8 bytes (RFC 6655, RFC 7251).
    Aes256Ccm8,
    /// AES-256 in GCM (RFC 5288, RFC 5289, RFC 5487), with SHA-384.
    Aes256Gcm,
    /// ChaCha20 and Poly1305 (RFC 7905).
    ChaCha20Poly1305,
}

impl Suite {
    /// Every one there is.
    pub const ALL: [Self; 7] = [
        Self::Aes128Ccm,
        Self::Aes128Ccm8,
        Self::Aes128Gcm,
        Self::Aes256Ccm,
        Self::Aes256Ccm8,
        Self::Aes256Gcm,
        Self::ChaCha20Poly1305,
    ];

    /// The suite that IANA gave this number: of PSK, ECDHE_PSK, ECDHE_ECDSA and ECDHE_RSA, those with an AEAD.
    pub fn from_number(number: u16) -> Option<Self> {
        CIPHER_SUITES.iter().find(|row| row.0 == number).map(|row| row.2)
    }

    pub(crate) fn key_length(self) -> usize {
        match self {
            Self::Aes128Ccm | Self::Aes128Ccm8 | Self::Aes128Gcm => 16,
            Self::Aes256Ccm | Self::Aes256Ccm8 | Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// How much of a nonce is derived from the handshake: all of it, or the part that is not sent.
    pub(crate) fn iv_length(self) -> usize {
        NONCE_LENGTH - self.explicit_nonce_length()
    }

    /// How much of a nonce stands in front of each record's ciphertext.
    pub(crate) fn explicit_nonce_length(self) -> usize {
        if self == Self::ChaCha20Poly1305 { 0 } else { 8 }
    }

    pub(crate) fn tag_length(self) -> usize {
        if matches!(self, Self::Aes128Ccm8 | Self::Aes256Ccm8) { 8 } else { MAX_TAG_LENGTH }
    }

    /// What the pseudorandom function is built of.
    pub(crate) fn prf(self) -> hmac::Algorithm {
        if self == Self::Aes256Gcm { hmac::HMAC_SHA384 } else { hmac::HMAC_SHA256 }
    }

    /// Encrypts `text` but its end, where the tag comes.
    pub(crate) fn seal(self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()> {
        self.aead().seal(key, nonce, associated, text)
    }

    /// Decrypts `text` but its end, the tag; what is not authentic is lost.
    pub(crate) fn open(self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()> {
        self.aead().open(key, nonce, associated, text)
    }

    fn aead(self) -> &'static dyn Aead {
        match self {
            Self::Aes128Ccm => &CcmOf::<Ccm<Aes128Enc, U16, U12>>(PhantomData),
            Self::Aes128Ccm8 => &CcmOf::<Ccm<Aes128Enc, U8, U12>>(PhantomData),
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Ccm => &CcmOf::<Ccm<Aes256Enc, U16, U12>>(PhantomData),
            Self::Aes256Ccm8 => &CcmOf::<Ccm<Aes256Enc, U8, U12>>(PhantomData),
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

/// What a server is known by; clients may be known otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A certificate, with ECDHE.
    Certificate,
    /// A key that both have, with ECDHE or alone.
    Psk,
}

impl Credential {
    /// That of the cipher suite with this number.
    #[cfg(feature = "openssl")]
    pub(crate) fn of(number: u16) -> Option<Self> {
        CIPHER_SUITES.iter().find(|row| row.0 == number).map(|row| row.1)
    }

    /// What OpenSSL calls the cipher suites that it has for one.
    #[cfg(feature = "openssl")]
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        CIPHER_SUITES.iter().filter(move |row| row.1 == self).filter_map(|row| row.3)
    }
}

/// Encrypts and decrypts in place, as a suite does.
trait Aead {
    fn seal(&self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()>;
    fn open(&self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()>;
}

/// AES in CCM by one of RustCrypto's types: ring has none.
struct CcmOf<A>(PhantomData<A>);

/// All else.
struct ByRing(&'static Algorithm);

impl<A> Aead for CcmOf<A>
where
    A: KeyInit + AeadInOut + AeadCore<NonceSize = U12>,
{
    fn seal(&self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()> {
        let cipher = A::new_from_slice(key).ok()?;
        let (text, room) = text.split_at_mut_checked(text.len().checked_sub(A::TagSize::USIZE)?)?;
        let tag = cipher.encrypt_inout_detached(&nonce.into(), associated, text.into()).ok()?;
        room.copy_from_slice(&tag);
        Some(())
    }

    fn open(&self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()> {
        let cipher = A::new_from_slice(key).ok()?;
        let (text, tag) = text.split_at_mut_checked(text.len().checked_sub(A::TagSize::USIZE)?)?;
        let tag = (&*tag).try_into().ok()?;
        cipher.decrypt_inout_detached(&nonce.into(), associated, text.into(), tag).ok()
    }
}

impl Aead for ByRing {
    fn seal(&self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()> {
        let cipher = LessSafeKey::new(UnboundKey::new(self.0, key).ok()?);
        let (text, room) = text.split_at_mut_checked(text.len().checked_sub(MAX_TAG_LENGTH)?)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(associated), text).ok()?;
        room.copy_from_slice(tag.as_ref());
        Some(())
    }

    fn open(&self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()> {
        let cipher = LessSafeKey::new(UnboundKey::new(self.0, key).ok()?);
        let nonce = Nonce::assume_unique_for_key(nonce);
        cipher.open_in_place(nonce, Aad::from(associated), text).ok().map(drop)
    }
}

static AES_128_GCM: ByRing = ByRing(&aead::AES_128_GCM);
static AES_256_GCM: ByRing = ByRing(&aead::AES_256_GCM);
static CHACHA20_POLY1305: ByRing = ByRing(&aead::CHACHA20_POLY1305);

/// The longest key that a suite has.
pub(crate) const MAX_KEY_LENGTH: usize = 32;

/// The length of a nonce, all of it, in every suite.
pub(crate) const NONCE_LENGTH: usize = 12;

const MAX_TAG_LENGTH: usize = 16;

/// Cipher suites with an AEAD, by their numbers at IANA, with OpenSSL's names of those that it has.
const CIPHER_SUITES: [(u16, Credential, Suite, Option<&str>); 22] = [
    (0x00a8, Credential::Psk, Suite::Aes128Gcm, Some("PSK-AES128-GCM-SHA256")),
    (0x00a9, Credential::Psk, Suite::Aes256Gcm, Some("PSK-AES256-GCM-SHA384")),
    (0xc0a4, Credential::Psk, Suite::Aes128Ccm, Some("PSK-AES128-CCM")),
    (0xc0a5, Credential::Psk, Suite::Aes256Ccm, Some("PSK-AES256-CCM")),
    (0xc0a8, Credential::Psk, Suite::Aes128Ccm8, Some("PSK-AES128-CCM8")),
    (0xc0a9, Credential::Psk, Suite::Aes256Ccm8, Some("PSK-AES256-CCM8")),
    (0xccab, Credential::Psk, Suite::ChaCha20Poly1305, Some("PSK-CHACHA20-POLY1305")),
    // with ECDHE
    (0xccac, Credential::Psk, Suite::ChaCha20Poly1305, Some("ECDHE-PSK-CHACHA20-POLY1305")),
    (0xd001, Credential::Psk, Suite::Aes128Gcm, None),
    (0xd002, Credential::Psk, Suite::Aes256Gcm, None),
    (0xd003, Credential::Psk, Suite::Aes128Ccm8, None),
    (0xd005, Credential::Psk, Suite::Aes128Ccm, None),
    (0xc02b, Credential::Certificate, Suite::Aes128Gcm, Some("ECDHE-ECDSA-AES128-GCM-SHA256")),
    (0xc02c, Credential::Certificate, Suite::Aes256Gcm, Some("ECDHE-ECDSA-AES256-GCM-SHA384")),
    (0xc0ac, Credential::Certificate, Suite::Aes128Ccm, Some("ECDHE-ECDSA-AES128-CCM")),
    (0xc0ad, Credential::Certificate, Suite::Aes256Ccm, Some("ECDHE-ECDSA-AES256-CCM")),
    (0xc0ae, Credential::Certificate, Suite::Aes128Ccm8, Some("ECDHE-ECDSA-AES128-CCM8")),
    (0xc0af, Credential::Certificate, Suite::Aes256Ccm8, Some("ECDHE-ECDSA-AES256-CCM8")),
    (0xcca9, Credential::Certificate, Suite::ChaCha20Poly1305, Some("ECDHE-ECDSA-CHACHA20-POLY1305")),
    (0xc02f, Credential::Certificate, Suite::Aes128Gcm, Some("ECDHE-RSA-AES128-GCM-SHA256")),
    (0xc030, Credential::Certificate, Suite::Aes256Gcm, Some("ECDHE-RSA-AES256-GCM-SHA384")),
    (0xcca8, Credential::Certificate, Suite::ChaCha20Poly1305, Some("ECDHE-RSA-CHACHA20-POLY1305")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_iana() {
        let numbers = [
            (Suite::Aes128Ccm, &[0xc0a4, 0xd005, 0xc0ac][..]),
            (Suite::Aes128Ccm8, &[0xc0a8, 0xd003, 0xc0ae]),
            (Suite::Aes128Gcm, &[0x00a8, 0xd001, 0xc02b, 0xc02f]),
            (Suite::Aes256Ccm, &[0xc0a5, 0xc0ad]),
            (Suite::Aes256Ccm8, &[0xc0a9, 0xc0af]),
            (Suite::Aes256Gcm, &[0x00a9, 0xd002, 0xc02c, 0xc030]),
            (Suite::ChaCha20Poly1305, &[0xccab, 0xccac, 0xcca9, 0xcca8]),
        ];
        assert_eq!(numbers.map(|(suite, _)| suite), Suite::ALL);
        for number in 0..=u16::MAX {
            let suite =
                numbers.iter().find(|(_, numbers)| numbers.contains(&number)).map(|(suite, _)| *suite);
            assert_eq!(Suite::from_number(number), suite, "{number:#06x}");
        }
    }
}
