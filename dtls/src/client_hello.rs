//! The first message of a handshake, as far as an answer without state needs it (RFC 5246 §7.4.1.2, RFC 6347 §4.2).

use std::error::Error;
use std::fmt;

/// A ClientHello that came whole, in one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// Its number among the client's messages of this handshake.
    pub message_sequence: u16,
    /// The newest version that the client speaks.
    pub version: u16,
    /// The client's random bytes.
    pub random: &'a [u8; 32],
    /// The session to go on with; empty if there is none.
    pub session_id: &'a [u8],
    /// The cookie; empty if the client has none yet.
    pub cookie: &'a [u8],
    /// The message without its header.
    pub body: &'a [u8],
    before_cookie: &'a [u8],
    suites_and_compressions: &'a [u8],
    extensions: &'a [u8],
}

/// Why something is no ClientHello that can be answered without state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// It is a part of a message; to put one together takes memory, so it is not served.
    Fragmented,
    /// It does not have the form of one.
    Malformed,
    /// It is a message of another type.
    OtherMessage,
}

impl<'a> ClientHello<'a> {
    /// Reads the body of a handshake record, which must be one whole ClientHello.
    pub fn parse(message: &'a [u8]) -> Result<Self, HelloError> {
        let mut reader = Reader(message);
        if reader.byte()? != CLIENT_HELLO {
            return Err(HelloError::OtherMessage);
        }
        let length = reader.array::<3>()?;
        let message_sequence = u16::from_be_bytes(reader.array()?);
        if (reader.array::<3>()?, reader.array::<3>()?) != ([0; 3], length) {
            return Err(HelloError::Fragmented);
        }
        let [high, middle, low] = length.map(usize::from);
        if high << 16 | middle << 8 | low != reader.0.len() {
            return Err(HelloError::Malformed);
        }
        Self::parse_body(message_sequence, reader.0)
    }

    /// Appends the message without its header, as it was before the client had a cookie.
    pub fn without_cookie(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.before_cookie);
        out.push(0);
        let after_cookie = self.before_cookie.len() + 1 + self.cookie.len();
        out.extend_from_slice(&self.body[after_cookie..]);
    }

    /// What the client wants to find in records that it is sent (RFC 9146 §3); empty: nothing, but it can send
    /// what the server wants.
    pub fn connection_id(&self) -> Option<&'a [u8]> {
        let mut reader = Reader(self.extensions);
        while let (Ok(number), Ok(data)) = (reader.array(), reader.prefixed::<2>()) {
            if u16::from_be_bytes(number) == CONNECTION_ID {
                return Reader(data).last(Reader::prefixed::<1>).ok();
            }
        }
        None
    }

    /// What a client must not change when it sends its hello once more, with a cookie (RFC 6347 §4.2.1).
    pub(crate) fn constant_parts(&self) -> [&'a [u8]; 2] {
        [self.before_cookie, self.suites_and_compressions]
    }

    fn parse_body(message_sequence: u16, body: &'a [u8]) -> Result<Self, HelloError> {
        let mut reader = Reader(body);
        let version = u16::from_be_bytes(reader.array()?);
        let random = reader.array_ref()?;
        let session_id = reader.prefixed::<1>()?;
        let before_cookie = reader.since(body);
        let cookie = reader.prefixed::<1>()?;
        let choices = reader.0;
        let suites = reader.prefixed::<2>()?;
        let compressions = reader.prefixed::<1>()?;
        let suites_and_compressions = reader.since(choices);
        // a client that knows no extensions leaves even their length out
        let extensions = if reader.0.is_empty() { &[] } else { reader.last(Reader::prefixed::<2>)? };
        let is_well_formed = version >> 8 == DTLS_MAJOR
            && session_id.len() <= MAX_SESSION_ID
            && !suites.is_empty()
            && suites.len().is_multiple_of(2)
            && !compressions.is_empty()
            && are_extensions(extensions);
        if !is_well_formed {
            return Err(HelloError::Malformed);
        }
        Ok(Self {
            message_sequence,
            version,
            random,
            session_id,
            cookie,
            body,
            before_cookie,
            suites_and_compressions,
            extensions,
        })
    }
}

impl fmt::Display for HelloError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fragmented => "a ClientHello in fragments is not served",
            Self::Malformed => "the ClientHello is malformed",
            Self::OtherMessage => "the message is no ClientHello",
        })
    }
}

impl Error for HelloError {}

fn are_extensions(bytes: &[u8]) -> bool {
    let mut reader = Reader(bytes);
    while !reader.0.is_empty() {
        if reader.array::<2>().is_err() || reader.prefixed::<2>().is_err() {
            return false;
        }
    }
    true
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, HelloError> {
        self.array().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        self.array_ref().copied()
    }

    fn array_ref<const N: usize>(&mut self) -> Result<&'a [u8; N], HelloError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(array)
    }

    /// Reads bytes behind a length of `N` bytes.
    fn prefixed<const N: usize>(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.array::<N>()?.into_iter().fold(0, |length, byte| length << 8 | usize::from(byte));
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(HelloError::Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Reads something behind which nothing may follow.
    fn last<T>(mut self, read: fn(&mut Self) -> Result<T, HelloError>) -> Result<T, HelloError> {
        let value = read(&mut self)?;
        if self.0.is_empty() { Ok(value) } else { Err(HelloError::Malformed) }
    }

    /// What was read of `start`, of which the end is still to read.
    fn since(&self, start: &'a [u8]) -> &'a [u8] {
        &start[..start.len() - self.0.len()]
    }
}

const CLIENT_HELLO: u8 = 1;
const DTLS_MAJOR: u16 = 0xfe;
const MAX_SESSION_ID: usize = 32;

/// The extension `connection_id` (RFC 9146 §3).
const CONNECTION_ID: u16 = 54;

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hello_is_read() {
        let message = message(&body(b"session", b"cookie", EXTENSIONS));
        let hello = ClientHello::parse(&message).unwrap();
        assert_eq!((hello.message_sequence, hello.version), (1, 0xfefd));
        assert_eq!(
            (hello.random, hello.session_id, hello.cookie),
            (&[7; 32], &b"session"[..], &b"cookie"[..])
        );
        assert_eq!(hello.connection_id(), Some(&b"id"[..]));
        assert_eq!(hello.body, &message[12..]);
    }

    #[test]
    fn a_hello_without_its_cookie_is_the_one_before_it() {
        for extensions in [&[][..], EXTENSIONS] {
            let with = message(&body(b"session", b"cookie", extensions));
            let mut without = vec![1];
            ClientHello::parse(&with).unwrap().without_cookie(&mut without);
            assert_eq!(without[1..], body(b"session", b"", extensions));
        }
    }

    #[test]
    fn a_connection_id_is_found_where_there_is_one() {
        for (extensions, expected) in [
            (&[][..], None),
            (&[0, 0], None),
            (&[0, 6, 0, 23, 0, 2, 0, 54], None),
            (&[0, 5, 0, 54, 0, 1, 0], Some(&[][..])),
            (&[0, 11, 0, 23, 0, 0, 0, 54, 0, 3, 2, 8, 9], Some(&[8, 9])),
            // the length of the id does not fit the extension's
            (&[0, 6, 0, 54, 0, 2, 2, 8], None),
            (&[0, 7, 0, 54, 0, 3, 1, 8, 9], None),
            (&[0, 4, 0, 54, 0, 0], None),
        ] {
            let message = message(&body(b"", b"", extensions));
            let hello = ClientHello::parse(&message).unwrap();
            assert_eq!(hello.connection_id(), expected, "{extensions:?}");
        }
    }

    #[test]
    fn what_is_no_whole_hello_is_refused_with_its_fault() {
        let good = message(&body(b"session", b"cookie", EXTENSIONS));
        let changed = |at: usize, to: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + to.len()].copy_from_slice(to);
            bad
        };
        let more = |more: &[u8]| [&good, more].concat();
        for (what, bad, fault) in [
            ("nothing", vec![], HelloError::Malformed),
            ("a Finished", changed(0, &[20]), HelloError::OtherMessage),
            ("a first part", changed(11, &[9]), HelloError::Fragmented),
            ("a last part", changed(8, &[1]), HelloError::Fragmented),
            ("another length", changed(3, &[9]), HelloError::Fragmented),
            ("a length too large", message_of(0x100, &body(b"", b"", &[])), HelloError::Malformed),
            ("a message behind it", more(&good), HelloError::Malformed),
            ("a byte behind it", more(&[0]), HelloError::Malformed),
            ("the version of TLS 1.2", changed(12, &[3, 3]), HelloError::Malformed),
            ("a session id of 33 bytes", message(&body(&[1; 33], b"", &[])), HelloError::Malformed),
            ("no suites", message(&choices(&[0, 0, 1, 0])), HelloError::Malformed),
            ("half a suite", message(&choices(&[0, 3, 1, 2, 3, 1, 0])), HelloError::Malformed),
            ("no compression", message(&choices(&[0, 2, 1, 2, 0])), HelloError::Malformed),
            ("no end of the suites", message(&choices(&[0, 4, 1, 2])), HelloError::Malformed),
            ("half a length of extensions", message(&body(b"", b"", &[0])), HelloError::Malformed),
            ("a length of extensions too small", message(&body(b"", b"", &[0, 0, 0])), HelloError::Malformed),
            ("a length of extensions too large", message(&body(b"", b"", &[0, 1])), HelloError::Malformed),
            ("half an extension", message(&body(b"", b"", &[0, 3, 0, 54, 0])), HelloError::Malformed),
            ("an extension too long", message(&body(b"", b"", &[0, 4, 0, 54, 0, 1])), HelloError::Malformed),
        ] {
            assert_eq!(ClientHello::parse(&bad), Err(fault), "{what}");
        }
    }

    #[test]
    fn a_hello_that_is_cut_is_refused() {
        let good = body(b"session", b"cookie", EXTENSIONS);
        let choices_end = 2 + 32 + 8 + 7 + CHOICES.len();
        for length in (0..good.len()).filter(|length| *length != choices_end) {
            assert_eq!(ClientHello::parse(&message(&good[..length])), Err(HelloError::Malformed), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            start in 0usize..80,
            end in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut bytes = body(b"session", b"cookie", EXTENSIONS);
            bytes.truncate(start);
            bytes.extend(end);
            let bytes = message(&bytes);
            if let Ok(hello) = ClientHello::parse(&bytes) {
                let mut without = Vec::new();
                hello.without_cookie(&mut without);
                prop_assert_eq!(without.len() + hello.cookie.len(), hello.body.len());
                let without = message(&without);
                let again = ClientHello::parse(&without).unwrap();
                prop_assert_eq!(again.constant_parts(), hello.constant_parts());
                prop_assert_eq!((again.cookie, again.connection_id()), (&[][..], hello.connection_id()));
            }
        }
    }

    /// A ClientHello's body; `extensions` with their length in front, if there are any.
    pub(crate) fn body(session_id: &[u8], cookie: &[u8], extensions: &[u8]) -> Vec<u8> {
        let random = [7; 32];
        let (session_length, cookie_length) = ([session_id.len() as u8], [cookie.len() as u8]);
        [&[0xfe, 0xfd][..], &random, &session_length, session_id, &cookie_length, cookie, CHOICES, extensions]
            .concat()
    }

    /// The second message of a handshake, whole.
    pub(crate) fn message(body: &[u8]) -> Vec<u8> {
        message_of(body.len() as u32, body)
    }

    fn message_of(length: u32, body: &[u8]) -> Vec<u8> {
        let [_, length @ ..] = length.to_be_bytes();
        [&[CLIENT_HELLO][..], &length, &[0, 1, 0, 0, 0], &length, body].concat()
    }

    fn choices(choices: &[u8]) -> Vec<u8> {
        let mut body = body(b"", b"", &[]);
        body.truncate(body.len() - CHOICES.len());
        [&body, choices].concat()
    }

    /// TLS_PSK_WITH_AES_128_CCM_8 and TLS_PSK_WITH_AES_128_GCM_SHA256, no compression.
    const CHOICES: &[u8] = &[0, 4, 0xc0, 0xa8, 0, 0xa8, 1, 0];

    /// `extended_master_secret`, and a connection id.
    const EXTENSIONS: &[u8] = &[0, 11, 0, 23, 0, 0, 0, 54, 0, 3, 2, b'i', b'd'];
}
