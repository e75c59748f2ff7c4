//! Cipher suites that records can be protected with.

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
    /// The suite that IANA gave this number: of PSK, ECDHE_PSK, ECDHE_ECDSA and ECDHE_RSA, those with an AEAD.
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            0xc0a4 | 0xc0ac | 0xd005 => Self::Aes128Ccm,
            0xc0a8 | 0xc0ae | 0xd003 => Self::Aes128Ccm8,
            0x00a8 | 0xc02b | 0xc02f | 0xd001 => Self::Aes128Gcm,
            0xc0a5 | 0xc0ad => Self::Aes256Ccm,
            0xc0a9 | 0xc0af => Self::Aes256Ccm8,
            0x00a9 | 0xc02c | 0xc030 | 0xd002 => Self::Aes256Gcm,
            0xcca8 | 0xcca9 | 0xccab | 0xccac => Self::ChaCha20Poly1305,
            _ => return None,
        })
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
        match self {
            Self::Aes128Ccm => ccm_seal::<Ccm<Aes128Enc, U16, U12>>(key, nonce, associated, text),
            Self::Aes128Ccm8 => ccm_seal::<Ccm<Aes128Enc, U8, U12>>(key, nonce, associated, text),
            Self::Aes128Gcm => ring_seal(&aead::AES_128_GCM, key, nonce, associated, text),
            Self::Aes256Ccm => ccm_seal::<Ccm<Aes256Enc, U16, U12>>(key, nonce, associated, text),
            Self::Aes256Ccm8 => ccm_seal::<Ccm<Aes256Enc, U8, U12>>(key, nonce, associated, text),
            Self::Aes256Gcm => ring_seal(&aead::AES_256_GCM, key, nonce, associated, text),
            Self::ChaCha20Poly1305 => ring_seal(&aead::CHACHA20_POLY1305, key, nonce, associated, text),
        }
    }

    /// Decrypts `text` but its end, the tag; what is not authentic is lost.
    pub(crate) fn open(self, key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()> {
        match self {
            Self::Aes128Ccm => ccm_open::<Ccm<Aes128Enc, U16, U12>>(key, nonce, associated, text),
            Self::Aes128Ccm8 => ccm_open::<Ccm<Aes128Enc, U8, U12>>(key, nonce, associated, text),
            Self::Aes128Gcm => ring_open(&aead::AES_128_GCM, key, nonce, associated, text),
            Self::Aes256Ccm => ccm_open::<Ccm<Aes256Enc, U16, U12>>(key, nonce, associated, text),
            Self::Aes256Ccm8 => ccm_open::<Ccm<Aes256Enc, U8, U12>>(key, nonce, associated, text),
            Self::Aes256Gcm => ring_open(&aead::AES_256_GCM, key, nonce, associated, text),
            Self::ChaCha20Poly1305 => ring_open(&aead::CHACHA20_POLY1305, key, nonce, associated, text),
        }
    }
}

fn ccm_seal<A>(key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()>
where
    A: KeyInit + AeadInOut + AeadCore<NonceSize = U12>,
{
    let cipher = A::new_from_slice(key).ok()?;
    let (text, room) = text.split_at_mut_checked(text.len().checked_sub(A::TagSize::USIZE)?)?;
    let tag = cipher.encrypt_inout_detached(&nonce.into(), associated, text.into()).ok()?;
    room.copy_from_slice(&tag);
    Some(())
}

fn ccm_open<A>(key: &[u8], nonce: [u8; 12], associated: &[u8], text: &mut [u8]) -> Option<()>
where
    A: KeyInit + AeadInOut + AeadCore<NonceSize = U12>,
{
    let cipher = A::new_from_slice(key).ok()?;
    let (text, tag) = text.split_at_mut_checked(text.len().checked_sub(A::TagSize::USIZE)?)?;
    let tag = (&*tag).try_into().ok()?;
    cipher.decrypt_inout_detached(&nonce.into(), associated, text.into(), tag).ok()
}

fn ring_seal(
    algorithm: &'static Algorithm,
    key: &[u8],
    nonce: [u8; 12],
    associated: &[u8],
    text: &mut [u8],
) -> Option<()> {
    let cipher = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
    let (text, room) = text.split_at_mut_checked(text.len().checked_sub(MAX_TAG_LENGTH)?)?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(associated), text).ok()?;
    room.copy_from_slice(tag.as_ref());
    Some(())
}

fn ring_open(
    algorithm: &'static Algorithm,
    key: &[u8],
    nonce: [u8; 12],
    associated: &[u8],
    text: &mut [u8],
) -> Option<()> {
    let cipher = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
    let nonce = Nonce::assume_unique_for_key(nonce);
    cipher.open_in_place(nonce, Aad::from(associated), text).ok().map(drop)
}

/// The longest key that a suite has.
pub(crate) const MAX_KEY_LENGTH: usize = 32;

/// The length of a nonce, all of it, in every suite.
pub(crate) const NONCE_LENGTH: usize = 12;

const MAX_TAG_LENGTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_with_an_aead_are_known() {
        for (number, suite) in KNOWN {
            assert_eq!(Suite::from_number(number), Some(suite), "{number:#06x}");
        }
        let count = (0..=u16::MAX).filter(|number| Suite::from_number(*number).is_some()).count();
        assert_eq!(count, KNOWN.len());
    }

    /// As IANA lists them, in the order of PSK, ECDHE_PSK, ECDHE_ECDSA and ECDHE_RSA.
    const KNOWN: [(u16, Suite); 22] = [
        (0x00a8, Suite::Aes128Gcm),
        (0x00a9, Suite::Aes256Gcm),
        (0xc0a4, Suite::Aes128Ccm),
        (0xc0a5, Suite::Aes256Ccm),
        (0xc0a8, Suite::Aes128Ccm8),
        (0xc0a9, Suite::Aes256Ccm8),
        (0xccab, Suite::ChaCha20Poly1305),
        (0xd001, Suite::Aes128Gcm),
        (0xd002, Suite::Aes256Gcm),
        (0xd003, Suite::Aes128Ccm8),
        (0xd005, Suite::Aes128Ccm),
        (0xccac, Suite::ChaCha20Poly1305),
        (0xc02b, Suite::Aes128Gcm),
        (0xc02c, Suite::Aes256Gcm),
        (0xc0ac, Suite::Aes128Ccm),
        (0xc0ad, Suite::Aes256Ccm),
        (0xc0ae, Suite::Aes128Ccm8),
        (0xc0af, Suite::Aes256Ccm8),
        (0xcca9, Suite::ChaCha20Poly1305),
        (0xc02f, Suite::Aes128Gcm),
        (0xc030, Suite::Aes256Gcm),
        (0xcca8, Suite::ChaCha20Poly1305),
    ];
}
