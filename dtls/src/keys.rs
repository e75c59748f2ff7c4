//! Keys of a session, and how records are protected with them (RFC 5246 §6.2.3.3, RFC 9146 §5).

use std::error::Error;
use std::fmt;
use std::ops::Range;

use ring::hmac;
use zeroize::Zeroize;

use crate::record::{ContentType, Head, MAX_SEQUENCE, Record, Version};
use crate::suite::{MAX_KEY_LENGTH, NONCE_LENGTH, Suite};

/// What protects the records of a session, one way and the other.
#[derive(Debug)]
pub struct Keys {
    /// For what the client sends.
    pub client: Direction,
    /// For what the server sends.
    pub server: Direction,
}

/// What protects the records that one side sends: the bare key, whose schedule is made for each record anew.
pub struct Direction {
    suite: Suite,
    key: [u8; MAX_KEY_LENGTH],
    iv: [u8; NONCE_LENGTH],
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The epoch has no more sequence numbers (RFC 6347 §4.1).
    Exhausted,
    /// The plaintext is longer than [`MAX_PLAINTEXT`], or the connection id than 255 bytes.
    TooLong,
}

/// Derives the keys of a session (RFC 5246 §6.3).
pub fn key_block(
    suite: Suite,
    master: &[u8; 48],
    client_random: &[u8; 32],
    server_random: &[u8; 32],
) -> Keys {
    let mut block = [0; 2 * (MAX_KEY_LENGTH + NONCE_LENGTH)];
    prf(suite.prf(), master, b"key expansion", &[server_random, client_random], &mut block);
    let (key_length, iv_length) = (suite.key_length(), suite.iv_length());
    let ivs = 2 * key_length;
    let keys = Keys {
        client: Direction::new(suite, &block[..key_length], &block[ivs..ivs + iv_length]),
        server: Direction::new(suite, &block[key_length..ivs], &block[ivs + iv_length..ivs + 2 * iv_length]),
    };
    block.zeroize();
    keys
}

impl Direction {
    /// Appends a whole record to `out`; on an error, nothing.
    ///
    /// No two records may have the same epoch and sequence number.
    pub fn seal(&self, head: &Head<'_>, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if head.sequence > MAX_SEQUENCE {
            return Err(SealError::Exhausted);
        }
        if plaintext.len() > MAX_PLAINTEXT || head.cid.len() > MAX_CID {
            return Err(SealError::TooLong);
        }
        let inner_type: &[u8] = if head.cid.is_empty() { &[] } else { &[head.content_type as u8] };
        self.seal_inner(head, &[plaintext, inner_type], out);
        Ok(())
    }

    /// Decrypts a record of `datagram` where it stands; tells what it carries and where that is.
    ///
    /// `None` if it is not authentic, or carries nothing known. Its body is then lost.
    pub fn open(&self, datagram: &mut [u8], record: &Record) -> Option<(ContentType, Range<usize>)> {
        if record.version != Version::Dtls12 {
            return None;
        }
        let explicit = self.suite.explicit_nonce_length();
        let text = record.body.start + explicit..record.body.end;
        let length = text.len().checked_sub(self.suite.tag_length())?;
        let head = Head::of(record, datagram)?;
        let associated = Associated::new(&head, length);
        let number = match explicit {
            0 => head.number(),
            _ => *datagram.get(record.body.clone())?.first_chunk()?,
        };
        let sealed = datagram.get_mut(text.clone())?;
        self.suite.open(self.key(), self.nonce(number), associated.bytes(), sealed)?;
        let plaintext = text.start..text.start + length;
        match record.content_type {
            ContentType::ConnectionId => unpadded(datagram, plaintext),
            content_type => Some((content_type, plaintext)),
        }
    }

    fn new(suite: Suite, key: &[u8], iv: &[u8]) -> Self {
        let mut direction = Self { suite, key: [0; MAX_KEY_LENGTH], iv: [0; NONCE_LENGTH] };
        direction.key[..key.len()].copy_from_slice(key);
        direction.iv[..iv.len()].copy_from_slice(iv);
        direction
    }

    fn seal_inner(&self, head: &Head<'_>, inner: &[&[u8]], out: &mut Vec<u8>) {
        let (explicit, tag) = (self.suite.explicit_nonce_length(), self.suite.tag_length());
        let inner_length = inner.iter().map(|part| part.len()).sum();
        head.write(explicit + inner_length + tag, out);
        // RFC 5288 §3, RFC 6655 §3: any nonce that is not used twice, and a record's number is not
        let number = head.number();
        out.extend_from_slice(&number[..explicit]);
        let text = out.len();
        for part in inner {
            out.extend_from_slice(part);
        }
        out.resize(out.len() + tag, 0);
        let associated = Associated::new(head, inner_length);
        let sealed = self.suite.seal(self.key(), self.nonce(number), associated.bytes(), &mut out[text..]);
        debug_assert!(sealed.is_some(), "a key has the length of its suite, and a record is short");
    }

    fn key(&self) -> &[u8] {
        &self.key[..self.suite.key_length()]
    }

    /// What is derived comes first, or is xored with the number (RFC 5288 §3, RFC 6655 §3, RFC 7905 §2).
    ///
    /// The one and the other are the same, as what is derived is filled up with zeros.
    fn nonce(&self, number: [u8; 8]) -> [u8; NONCE_LENGTH] {
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LENGTH - number.len()..].iter_mut().zip(number) {
            *byte ^= number;
        }
        nonce
    }
}

impl fmt::Debug for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Direction").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.key.zeroize();
        self.iv.zeroize();
    }
}

impl fmt::Display for SealError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Exhausted => "the epoch has no more sequence numbers",
            Self::TooLong => "the plaintext or the connection id is too long for a record",
        })
    }
}

impl Error for SealError {}

/// What a record's tag vouches for beside its text (RFC 5246 §6.2.3.3, RFC 9146 §5).
struct Associated {
    bytes: [u8; MAX_ASSOCIATED],
    length: usize,
}

impl Associated {
    fn new(head: &Head<'_>, length: usize) -> Self {
        let mut associated = Self { bytes: [0; MAX_ASSOCIATED], length: 0 };
        let version = (Version::Dtls12 as u16).to_be_bytes();
        let length = (length as u16).to_be_bytes();
        let outer_type = head.outer_type() as u8;
        if !head.cid.is_empty() {
            // it begins with what no record has for a number, and tells it from a record without an id
            associated.add(&[0xff; 8]);
            associated.add(&[outer_type, head.cid.len() as u8, outer_type]);
            associated.add(&version);
            associated.add(&head.number());
            associated.add(head.cid);
        } else {
            associated.add(&head.number());
            associated.add(&[outer_type]);
            associated.add(&version);
        }
        associated.add(&length);
        associated
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn add(&mut self, part: &[u8]) {
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
    }
}

/// Takes the zeros off the end, and the content type before them (RFC 9146 §4).
fn unpadded(datagram: &[u8], inner: Range<usize>) -> Option<(ContentType, Range<usize>)> {
    let start = inner.start;
    let inner = datagram.get(inner)?;
    let end = inner.iter().rposition(|byte| *byte != 0)?;
    match ContentType::from_number(inner[end])? {
        ContentType::ConnectionId => None,
        content_type => Some((content_type, start..start + end)),
    }
}

/// The pseudorandom function (RFC 5246 §5).
fn prf(algorithm: hmac::Algorithm, secret: &[u8], label: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    let key = hmac::Key::new(algorithm, secret);
    let seed = [&[label], seed].concat();
    let mut chain = authenticated(&key, &seed);
    for chunk in out.chunks_mut(algorithm.digest_algorithm().output_len()) {
        let block = authenticated(&key, &[&[chain.as_ref()], &*seed].concat());
        chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        chain = hmac::sign(&key, chain.as_ref());
    }
}

fn authenticated(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

/// What fits into a record (RFC 5246 §6.2.1).
pub const MAX_PLAINTEXT: usize = 1 << 14;

/// The longest connection id (RFC 9146 §3).
const MAX_CID: usize = 255;

/// With the longest connection id.
const MAX_ASSOCIATED: usize = 23 + MAX_CID;
