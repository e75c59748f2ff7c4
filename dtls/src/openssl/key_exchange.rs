//! The message in which a client names its key (RFC 4279 §2, RFC 5489 §2).

use super::piece::{HEADER, Piece};
use crate::engine::Refusal;

/// Puts the ClientKeyExchange together, in whatever pieces and order it comes.
#[derive(Default)]
pub(super) struct KeyExchange {
    /// The message with its header, as if it had come whole.
    message: Vec<u8>,
    /// Which of the body has come, as far as it is not behind a gap.
    received: usize,
    /// Pieces behind a gap: where they begin, and their bytes.
    ahead: Vec<(usize, Box<[u8]>)>,
}

impl KeyExchange {
    /// Takes handshake messages or pieces of them, and ignores others than this one.
    ///
    /// The client's identity, when the message is whole; and then never again.
    pub(super) fn handle(&mut self, mut messages: &[u8]) -> Result<Option<Box<[u8]>>, Refusal> {
        while let Some((piece, rest)) = Piece::split(messages) {
            messages = rest;
            if piece.kind == CLIENT_KEY_EXCHANGE && self.take(&piece)? {
                return identity(self.body()).map(Some).ok_or_else(|| Refusal(BAD_IDENTITY.to_owned()));
            }
        }
        Ok(None)
    }

    /// The message, once it is whole, as one piece.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Whether this piece made the message whole.
    fn take(&mut self, piece: &Piece<'_>) -> Result<bool, Refusal> {
        if self.message.is_empty() {
            if piece.length > MAX_BODY {
                return Err(Refusal("the key exchange is too long".to_owned()));
            }
            self.message = piece.header();
            self.message.resize(HEADER + piece.length, 0);
        }
        let is_other = self.message[..HEADER] != piece.header();
        if is_other || self.received == self.body().len() || self.ahead.len() == MAX_AHEAD {
            return Ok(false);
        }
        self.ahead.push((piece.offset, piece.bytes.into()));
        while let Some(next) = self.ahead.iter().position(|(offset, _)| *offset <= self.received) {
            let (offset, bytes) = self.ahead.swap_remove(next);
            self.message[HEADER + offset..][..bytes.len()].copy_from_slice(&bytes);
            self.received = self.received.max(offset + bytes.len());
        }
        Ok(self.received == self.body().len())
    }

    fn body(&self) -> &[u8] {
        self.message.get(HEADER..).unwrap_or_default()
    }
}

/// The name of the key, of one to 256 bytes; OpenSSL takes it for a C string.
fn identity(body: &[u8]) -> Option<Box<[u8]>> {
    let (length, rest) = body.split_first_chunk()?;
    let identity = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
    let is_good = (1..=MAX_IDENTITY).contains(&identity.len()) && !identity.contains(&0);
    is_good.then(|| identity.into())
}

const BAD_IDENTITY: &str = "the client names no usable key";
const CLIENT_KEY_EXCHANGE: u8 = 16;

/// More than any identity and any point on a curve need.
const MAX_BODY: usize = 512;

/// How many pieces may come too early.
const MAX_AHEAD: usize = 16;

/// OpenSSL takes no longer ones.
const MAX_IDENTITY: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_found_in_pieces_of_any_order() {
        let whole = message(BODY, 0..BODY.len());
        for pieces in
            [&[(0, 8)][..], &[(0, 1), (1, 2), (2, 8)], &[(5, 8), (2, 6), (0, 3)], &[(4, 8), (4, 8), (0, 4)]]
        {
            let mut exchange = KeyExchange::default();
            let (&(start, end), before) = pieces.split_last().unwrap();
            for &(start, end) in before {
                assert_eq!(exchange.handle(&message(BODY, start..end)), Ok(None), "{pieces:?}");
            }
            let found = exchange.handle(&message(BODY, start..end)).unwrap();
            assert_eq!(found.as_deref(), Some(&b"device"[..]), "{pieces:?}");
            assert_eq!(exchange.message(), whole);
            assert_eq!(exchange.handle(&whole), Ok(None), "it is told once");
        }
    }

    #[test]
    fn other_messages_and_what_is_none_are_passed_over() {
        let mut other = message(BODY, 0..BODY.len());
        other[0] = 11;
        let mut exchange = KeyExchange::default();
        for bytes in [&[][..], &[16], &other, &other[..20]] {
            assert_eq!(exchange.handle(bytes), Ok(None));
        }
        // a piece that ends behind the message
        let mut outside = message(BODY, 0..BODY.len());
        outside[8] = 1;
        assert_eq!(exchange.handle(&outside), Ok(None));
        let both = [other, message(BODY, 0..BODY.len())].concat();
        assert!(exchange.handle(&both).unwrap().is_some());
    }

    #[test]
    fn identities_that_no_key_can_have_are_refused() {
        for body in [&[0, 0][..], &[0, 2, b'x'], &[0], &[0, 3, b'x', 0, b'y']] {
            assert!(KeyExchange::default().handle(&message(body, 0..body.len())).is_err(), "{body:?}");
        }
        let long = [&[1, 1][..], &[b'x'; 257]].concat();
        assert!(KeyExchange::default().handle(&message(&long, 0..long.len())).is_err());
        let longest = [&[1, 0][..], &[b'x'; 256]].concat();
        assert!(KeyExchange::default().handle(&message(&longest, 0..longest.len())).unwrap().is_some());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut exchange = KeyExchange::default();
        let huge = message(&[0; MAX_BODY + 1], 0..1);
        assert!(exchange.handle(&huge).is_err());
        for _ in 0..100 {
            assert_eq!(exchange.handle(&message(BODY, 3..4)), Ok(None));
        }
        assert_eq!(exchange.ahead.len(), MAX_AHEAD);
    }

    /// A piece of a ClientKeyExchange, the third message of a client.
    fn message(body: &[u8], piece: std::ops::Range<usize>) -> Vec<u8> {
        let number = |number: usize| (number as u32).to_be_bytes()[1..].to_vec();
        let header = [number(body.len()), vec![0, 2], number(piece.start), number(piece.len())].concat();
        [&[CLIENT_KEY_EXCHANGE], &header[..], &body[piece]].concat()
    }

    const BODY: &[u8] = b"\0\x06device";
}
