//! Keys of a session, and how records are protected with them (RFC 5246 §6.2.3.3, RFC 9146 §5).

use std::error::Error;
use std::fmt;
use std::ops::Range;

use ring::hmac;
use zeroize::Zeroize;

use crate::record::{ContentType, HEADER_LENGTH, Head, MAX_SEQUENCE, Record, Version};
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
        let start = out.len();
        self.seal_inner(head, &[plaintext, inner_type], out).ok_or_else(|| {
            // nothing that was not encrypted may stay
            out.truncate(start);
            SealError::TooLong
        })
    }

    /// Decrypts a record of `datagram` where it stands; tells what it carries and where that is.
    ///
    /// `None` if it is not authentic, or carries nothing known. Its body is then lost.
    pub fn open(&self, datagram: &mut [u8], record: &Record) -> Option<(ContentType, Range<usize>)> {
        if record.version != Version::Dtls12 || record.cid.len() > MAX_CID {
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

    /// How much longer than its plaintext a record is, in bytes, with a connection id of `cid_length`.
    pub fn overhead(&self, cid_length: usize) -> usize {
        let inner_type = usize::from(cid_length > 0);
        HEADER_LENGTH + cid_length + self.suite.explicit_nonce_length() + inner_type + self.suite.tag_length()
    }

    fn new(suite: Suite, key: &[u8], iv: &[u8]) -> Self {
        let mut direction = Self { suite, key: [0; MAX_KEY_LENGTH], iv: [0; NONCE_LENGTH] };
        direction.key[..key.len()].copy_from_slice(key);
        direction.iv[..iv.len()].copy_from_slice(iv);
        direction
    }

    fn seal_inner(&self, head: &Head<'_>, inner: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
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
        self.suite.seal(self.key(), self.nonce(number), associated.bytes(), &mut out[text..])
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
        if head.cid.is_empty() {
            associated.add(&head.number());
            associated.add(&[outer_type]);
            associated.add(&version);
        } else {
            // no record has this number: so the one form is never taken for the other
            associated.add(&[0xff; 8]);
            associated.add(&[outer_type, head.cid.len() as u8, outer_type]);
            associated.add(&version);
            associated.add(&head.number());
            associated.add(head.cid);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::records;

    #[test]
    fn the_pseudorandom_function_gives_what_is_known() {
        for (algorithm, secret, seed, expected) in KNOWN_PRF {
            let mut out = vec![0; expected.len() / 2];
            prf(algorithm, &bytes(secret), b"test label", &[&bytes(seed)], &mut out);
            assert_eq!(out, bytes(expected));
        }
    }

    #[test]
    fn records_of_another_implementation_are_opened() {
        for (suite, from_client, _) in KNOWN_RECORDS {
            let mut datagram = bytes(from_client);
            let record = records(&datagram, 3).next().unwrap();
            let (content_type, plaintext) = keys(suite).client.open(&mut datagram, &record).unwrap();
            assert_eq!((content_type, &datagram[plaintext]), (ContentType::ApplicationData, &b"hello"[..]));
        }
    }

    #[test]
    fn records_are_those_of_another_implementation() {
        let sequence = 0x01_0203_0405;
        let head = Head { content_type: ContentType::ApplicationData, epoch: 1, sequence, cid: &[] };
        for (suite, _, from_server) in KNOWN_RECORDS {
            let mut sealed = Vec::new();
            keys(suite).server.seal(&head, b"hello", &mut sealed).unwrap();
            assert_eq!(sealed, bytes(from_server), "{suite:?}");
        }
    }

    #[test]
    fn every_bit_of_a_record_counts() {
        for (suite, from_client, _) in KNOWN_RECORDS {
            let (client, datagram) = (keys(suite).client, bytes(from_client));
            for bit in 0..datagram.len() * 8 {
                let mut changed = datagram.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let Some(record) = records(&changed, 3).next() else { continue };
                assert_eq!(client.open(&mut changed, &record), None, "{suite:?}, bit {bit}");
            }
        }
    }

    #[test]
    fn bodies_too_short_for_a_tag_are_refused() {
        for (suite, _, _) in KNOWN_RECORDS {
            for (content_type, cid) in [(ContentType::Alert, &[][..]), (ContentType::ConnectionId, &[1, 2])] {
                for length in 0..32 {
                    let mut datagram = Vec::new();
                    Head { content_type, epoch: 1, sequence: 9, cid }.write(length, &mut datagram);
                    datagram.resize(datagram.len() + length, 0);
                    let record = records(&datagram, cid.len()).next().unwrap();
                    assert_eq!(keys(suite).client.open(&mut datagram, &record), None);
                }
            }
        }
    }

    #[test]
    fn a_record_of_another_datagram_is_refused() {
        let datagram = bytes(KNOWN_RECORDS[0].1);
        let record = records(&datagram, 3).next().unwrap();
        for length in 0..datagram.len() {
            let mut other = datagram[..length].to_vec();
            assert_eq!(keys(Suite::Aes128Ccm).client.open(&mut other, &record), None);
        }
    }

    #[test]
    fn a_connection_id_hides_only_types_that_are_known() {
        let client = keys(Suite::Aes128Gcm).client;
        let open = |inner: &[u8]| {
            let head = Head { content_type: ContentType::Alert, epoch: 1, sequence: 0, cid: &[7] };
            let mut datagram = Vec::new();
            client.seal_inner(&head, &[inner], &mut datagram).unwrap();
            let record = records(&datagram, 1).next().unwrap();
            client.open(&mut datagram, &record).map(|(inner_type, place)| (inner_type, place.len()))
        };
        assert_eq!(open(&[1, 2, 21, 0, 0]), Some((ContentType::Alert, 2)));
        assert_eq!(open(&[22]), Some((ContentType::Handshake, 0)));
        for nothing in [&[][..], &[0, 0, 0], &[1, 25], &[1, 24, 0], &[23, 1]] {
            assert_eq!(open(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_connection_id_that_is_too_long_is_refused() {
        let mut datagram = Vec::new();
        let head = Head { content_type: ContentType::Alert, epoch: 1, sequence: 0, cid: &[7; MAX_CID + 1] };
        head.write(30, &mut datagram);
        datagram.extend([0; 30]);
        let record = records(&datagram, MAX_CID + 1).next().unwrap();
        assert_eq!(keys(Suite::Aes128Ccm8).client.open(&mut datagram, &record), None);
    }

    #[test]
    fn what_fits_into_no_record_is_not_sealed() {
        let server = keys(Suite::ChaCha20Poly1305).server;
        let (long, cid) = ([0; MAX_PLAINTEXT + 1], [1; MAX_CID + 1]);
        let fits =
            Head { content_type: ContentType::Alert, epoch: 1, sequence: MAX_SEQUENCE, cid: &cid[1..] };
        let mut out = vec![9];
        assert_eq!(server.seal(&fits, &long, &mut out), Err(SealError::TooLong));
        assert_eq!(server.seal(&Head { cid: &cid, ..fits }, &[], &mut out), Err(SealError::TooLong));
        let after = Head { sequence: MAX_SEQUENCE + 1, ..fits };
        assert_eq!(server.seal(&after, &[], &mut out), Err(SealError::Exhausted));
        assert_eq!(out, [9]);
        server.seal(&fits, &long[1..], &mut out).unwrap();
        assert_eq!(records(&out[1..], MAX_CID).next().unwrap().whole.len(), out.len() - 1);
    }

    #[test]
    fn keys_are_small_and_tell_nothing_of_themselves() {
        assert!(size_of::<Direction>() <= 64);
        let told = format!("{:?}", keys(Suite::Aes128Ccm8));
        let direction = "Direction { suite: Aes128Ccm8, .. }";
        assert_eq!(told, format!("Keys {{ client: {direction}, server: {direction} }}"));
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened(message in message()) {
            let mut datagram = message.sealed();
            let record = records(&datagram, message.cid.len()).next().unwrap();
            prop_assert_eq!(record.whole.len(), datagram.len());
            prop_assert_eq!(datagram.len(), message.plaintext.len() + message.direction().overhead(message.cid.len()));
            let (content_type, place) = message.direction().open(&mut datagram, &record).unwrap();
            prop_assert_eq!(content_type, message.content_type);
            prop_assert_eq!(&datagram[place], &message.plaintext[..]);
        }

        #[test]
        fn what_was_changed_is_refused(message in message(), bit: prop::sample::Index) {
            let mut datagram = message.sealed();
            let bit = bit.index(datagram.len() * 8);
            datagram[bit / 8] ^= 1 << (bit % 8);
            for record in records(&datagram.clone(), message.cid.len()) {
                prop_assert_eq!(message.direction().open(&mut datagram, &record), None);
            }
        }

        #[test]
        fn keys_of_the_other_direction_open_nothing(message in message()) {
            let mut datagram = message.sealed();
            let record = records(&datagram, message.cid.len()).next().unwrap();
            prop_assert_eq!(keys(message.suite).server.open(&mut datagram, &record), None);
        }
    }

    #[derive(Debug)]
    struct Message {
        suite: Suite,
        content_type: ContentType,
        epoch: u16,
        sequence: u64,
        cid: Vec<u8>,
        plaintext: Vec<u8>,
    }

    impl Message {
        fn direction(&self) -> Direction {
            keys(self.suite).client
        }

        fn sealed(&self) -> Vec<u8> {
            let &Self { content_type, epoch, sequence, .. } = self;
            let mut out = Vec::new();
            let head = Head { content_type, epoch, sequence, cid: &self.cid };
            self.direction().seal(&head, &self.plaintext, &mut out).unwrap();
            out
        }
    }

    fn message() -> impl Strategy<Value = Message> {
        (
            prop::sample::select(KNOWN_RECORDS.map(|(suite, _, _)| suite).to_vec()),
            prop::sample::select(vec![
                ContentType::Alert,
                ContentType::ApplicationData,
                ContentType::Handshake,
            ]),
            1u16..,
            0..=MAX_SEQUENCE,
            prop_oneof![Just(vec![]), prop::collection::vec(any::<u8>(), 1..20)],
            prop::collection::vec(any::<u8>(), 0..100),
        )
            .prop_map(|(suite, content_type, epoch, sequence, cid, plaintext)| Message {
                suite,
                content_type,
                epoch,
                sequence,
                cid,
                plaintext,
            })
    }

    fn keys(suite: Suite) -> Keys {
        let bytes_from = |first: u8| std::array::from_fn(|at| first + at as u8);
        key_block(suite, &std::array::from_fn(|at| at as u8), &bytes_from(0xc0), &bytes_from(0x50))
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Secret, seed and output, as they went over the IETF's list of TLS in 2010; the label is "test label".
    const KNOWN_PRF: [(hmac::Algorithm, &str, &str, &str); 2] = [
        (
            hmac::HMAC_SHA256,
            "9bbe436ba940f017b17652849a71db35",
            "a0ba9f936cda311827a6f796ffd5198c",
            "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af\
             0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701\
             87347b66",
        ),
        (
            hmac::HMAC_SHA384,
            "b80b733d6ceefcdc71566ea48e5567df",
            "cd665cf6a8447dd6ff8b27555edb7465",
            "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0\
             e534cb400fed2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425\
             9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e099070\
             3d73e56f",
        ),
    ];

    /// Made with Python's `cryptography` and `hmac` of the secrets in `keys`: "hello" from the client, with the
    /// connection id 07c1d2, three bytes of padding and a nonce of its own; and from the server, with neither.
    const KNOWN_RECORDS: [(Suite, &str, &str); 7] = [
        (
            Suite::Aes128Ccm,
            "19fefd000100010203040507c1d20021a1a2a3a4a5a6a7a814dcf0651946d0f4001aed7c731ea779a680608e61ee191f6a",
            "17fefd0001000102030405001d0001000102030405c3c0d62354b45a6eec7cb52230df9714975f4ef842",
        ),
        (
            Suite::Aes128Ccm8,
            "19fefd000100010203040507c1d20019a1a2a3a4a5a6a7a814dcf0651946d0f4003bc1b766621adc93",
            "17fefd000100010203040500150001000102030405c3c0d62354884cf51af08cc178",
        ),
        (
            Suite::Aes128Gcm,
            "19fefd000100010203040507c1d20021a1a2a3a4a5a6a7a890ecc91908d076c48e80b7c4d8273b9f687ad0b6a6b6bfdb9d",
            "17fefd0001000102030405001d0001000102030405b0892730da7f146a963665016647df12c03517e64d",
        ),
        (
            Suite::Aes256Ccm,
            "19fefd000100010203040507c1d20021a1a2a3a4a5a6a7a822b9c05648e2993fac624580dedfd2dc2a1f7629c2cf7ac4fc",
            "17fefd0001000102030405001d00010001020304055e94d826e38d72bb3a38161ba2644e019a5c20c7b5",
        ),
        (
            Suite::Aes256Ccm8,
            "19fefd000100010203040507c1d20019a1a2a3a4a5a6a7a822b9c05648e2993faca84fa0c8f6bc4d2e",
            "17fefd0001000102030405001500010001020304055e94d826e33e120eaa71bc6753",
        ),
        (
            Suite::Aes256Gcm,
            "19fefd000100010203040507c1d20021a1a2a3a4a5a6a7a8411a426feaf224f2740b654d2eac0248fa85a908c048a584e7",
            "17fefd0001000102030405001d0001000102030405ca1cfb7e7f2e7112288f9da66c673c10d00f8551f9",
        ),
        (
            Suite::ChaCha20Poly1305,
            "19fefd000100010203040507c1d200192bb4263665896b06acb76f9302e0a4988add972d275ac65766",
            "17fefd000100010203040500157ab73ee18e2592afe6e92878797ae58a13ed69c7f5",
        ),
    ];
}
