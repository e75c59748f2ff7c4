//! Parts of handshake messages.

use crate::engine::Refusal;

/// A part of a handshake message (RFC 6347 §4.2.2).
pub(super) struct Piece<'a> {
    pub(super) kind: u8,
    pub(super) length: usize,
    pub(super) sequence: u16,
    pub(super) offset: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Takes the first part of a record; none if there is no whole one.
    pub(super) fn split(messages: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = messages.split_first_chunk::<HEADER>()?;
        let &[kind, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2] = header;
        let number =
            |bytes: [u8; 3]| usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let (bytes, rest) = rest.split_at_checked(number([f0, f1, f2]))?;
        let (length, offset) = (number([l0, l1, l2]), number([o0, o1, o2]));
        let is_within = offset + bytes.len() <= length;
        is_within
            .then_some((Self { kind, length, sequence: u16::from_be_bytes([s0, s1]), offset, bytes }, rest))
    }

    /// The header of the whole message.
    pub(super) fn header(&self) -> Vec<u8> {
        let length = &(self.length as u32).to_be_bytes()[1..];
        [&[self.kind], length, &self.sequence.to_be_bytes(), &[0; 3], length].concat()
    }
}

/// Whether OpenSSL is to see messages: it would keep a hundred kilobytes of each, and ten that come too early.
pub(super) fn are_expected(mut messages: &[u8], last_sequence: u16) -> Result<bool, Refusal> {
    while let Some((piece, rest)) = Piece::split(messages) {
        if piece.length > MAX_LENGTH {
            return Err(Refusal("a message of the client is too long".to_owned()));
        }
        if piece.sequence > last_sequence {
            return Ok(false);
        }
        messages = rest;
    }
    Ok(messages.is_empty())
}

/// Whether a record's text is a piece of a Finished, and nothing else.
pub(super) fn is_of_finished(text: &[u8], last_sequence: u16) -> bool {
    Piece::split(text).is_some_and(|(piece, rest)| {
        let is_alone = rest.is_empty() && !piece.bytes.is_empty();
        is_alone && (piece.kind, piece.length) == (FINISHED, VERIFY_DATA) && piece.sequence <= last_sequence
    })
}

/// The length of the header that is in front of each part.
pub(super) const HEADER: usize = 12;

const FINISHED: u8 = 20;

/// The length of a Finished in all suites that there are (RFC 5246 §7.4.9).
const VERIFY_DATA: usize = 12;

/// The longest message that is taken: room for a chain of some certificates.
const MAX_LENGTH: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_comes_in_pieces_and_alone() {
        let whole = [&[20, 0, 0, 12, 0, 5, 0, 0, 0, 0, 0, 12][..], &[7; 12]].concat();
        let piece = [20, 0, 0, 12, 0, 5, 0, 0, 11, 0, 0, 1, 7];
        assert!(is_of_finished(&whole, 5) && is_of_finished(&piece, 6));
        assert!(!is_of_finished(&whole, 4));
        assert!(!is_of_finished(&[&whole[..], &[0]].concat(), 5));
        assert!(!is_of_finished(&[20; 16_000], 5));
        for (at, byte) in [(0, 14), (3, 13), (8, 12), (11, 0)] {
            let mut other = piece;
            other[at] = byte;
            assert!(!is_of_finished(&other, 5), "byte {at}");
        }
    }

    #[test]
    fn messages_that_no_client_needs_are_not_expected() {
        let piece = |length: u32, sequence: u16, bytes: &[u8]| {
            let length = &length.to_be_bytes()[1..];
            let here = &(bytes.len() as u32).to_be_bytes()[1..];
            [&[11], length, &sequence.to_be_bytes(), &[0; 3], here, bytes].concat()
        };
        let good = piece(3, 5, b"abc");
        assert_eq!(are_expected(&good, 5), Ok(true));
        assert_eq!(are_expected(&[&good[..], &piece(16 * 1024, 2, b"a")].concat(), 5), Ok(true));
        assert_eq!(are_expected(&piece(3, 6, b"abc"), 5), Ok(false));
        assert_eq!(are_expected(&[&good[..], &piece(3, 6, b"abc")].concat(), 5), Ok(false));
        assert_eq!(are_expected(&[&good[..], &[11, 0]].concat(), 5), Ok(false));
        assert_eq!(are_expected(&piece(2, 5, b"abc"), 5), Ok(false));
        assert!(are_expected(&piece(16 * 1024 + 1, 5, b"abc"), 5).is_err());
    }
}
