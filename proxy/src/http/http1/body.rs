use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use httparse::{EMPTY_HEADER, Status};

use super::head::{Source, ends_lines, fields};
use super::{AnswerError, Bounds, Framing, MAX_HEAD_BYTES, MAX_LINES};

/// Finds the parts of a body in what comes, and its end.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes that extensions of chunks may still have.
    extension_bytes: usize,
    /// Of the trailers.
    bounds: Bounds,
}

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Some bytes, at least one.
    Data(Bytes),
    /// What follows the last chunk. RFC 9112 §7.1.2
    Trailers(HeaderMap),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    /// So many bytes of them were looked at.
    Trailers(usize),
    Data(u64),
    UntilClose,
    Over,
}

impl Decoder {
    /// Finds those of a body that ends in this way.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Chunked => State::ChunkSize,
            Framing::Empty | Framing::Length(0) => State::Over,
            Framing::Length(length) => State::Data(length),
            Framing::UntilClose => State::UntilClose,
        };
        let bounds = Bounds { bytes: MAX_HEAD_BYTES, headers: MAX_LINES };
        Self { state, extension_bytes: MAX_EXTENSION_BYTES, bounds }
    }

    /// Takes no more trailers than a head may have, and never more than without this.
    pub fn within(mut self, head: Bounds) -> Self {
        self.bounds.bytes = self.bounds.bytes.min(head.bytes);
        self.bounds.headers = self.bounds.headers.min(head.headers);
        self
    }

    /// Takes the next part from what came; `None` where more must come, or nothing is left.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Option<Part>, AnswerError> {
        loop {
            match self.state {
                State::ChunkSize => match self.chunk_size(input)? {
                    Some(0) => self.state = State::Trailers(0),
                    Some(size) => self.state = State::ChunkData(size),
                    None => return Ok(None),
                },
                State::ChunkData(left) => return Ok(self.data(input, left, State::ChunkData)),
                State::ChunkEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.state = State::ChunkSize;
                    }
                    Some(_) => return Err(AnswerError::Chunk),
                    None => return Ok(None),
                },
                State::Trailers(known) => return self.trailers(input, known),
                State::Data(left) => return Ok(self.data(input, left, State::Data)),
                State::UntilClose if input.is_empty() => return Ok(None),
                State::UntilClose => return Ok(Some(Part::Data(input.split().freeze()))),
                State::Over => return Ok(None),
            }
        }
    }

    /// No more comes: that is the end, or an error.
    pub fn close(&mut self) -> Result<(), AnswerError> {
        if !matches!(self.state, State::UntilClose | State::Over) {
            return Err(AnswerError::Cut);
        }
        self.state = State::Over;
        Ok(())
    }

    /// Whether nothing of it is left.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// How many bytes are left, where that is known.
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Data(left) => Some(left),
            State::Over => Some(0),
            _ => None,
        }
    }

    fn data(&mut self, input: &mut BytesMut, left: u64, state: fn(u64) -> State) -> Option<Part> {
        if input.is_empty() {
            return None;
        }
        let length = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let rest = left - length as u64;
        self.state = match state(rest) {
            State::ChunkData(0) => State::ChunkEnd,
            State::Data(0) => State::Over,
            state => state,
        };
        Some(Part::Data(input.split_to(length).freeze()))
    }

    /// The size in front of a chunk. RFC 9112 §7.1
    fn chunk_size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, AnswerError> {
        let Some(end) = input.iter().take(MAX_SIZE_BYTES).position(|byte| *byte == b'\n') else {
            return if input.len() < MAX_SIZE_BYTES { Ok(None) } else { Err(AnswerError::TooLarge) };
        };
        let line = input[..end].strip_suffix(b"\r").ok_or(AnswerError::Chunk)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        if digits.is_empty() || digits.len() > MAX_DIGITS || !is_extension(extension) {
            return Err(AnswerError::Chunk);
        }
        self.extension_bytes =
            self.extension_bytes.checked_sub(extension.len()).ok_or(AnswerError::TooLarge)?;
        let size = digits.iter().fold(0, |size, digit| size << 4 | u64::from(value(*digit)));
        input.advance(end + 1);
        Ok(Some(size))
    }

    /// RFC 9112 §7.1.2
    fn trailers(&mut self, input: &mut BytesMut, known: usize) -> Result<Option<Part>, AnswerError> {
        // most bodies have none
        if input.starts_with(b"\r\n") {
            input.advance(2);
            self.state = State::Over;
            return Ok(None);
        }
        // they are looked at again only where another line of them came
        let end = input[known..].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| known + end + 1);
        let mut lines = [EMPTY_HEADER; MAX_LINES];
        match httparse::parse_headers(&input[..end], &mut lines[..self.bounds.headers]) {
            Ok(Status::Complete((length, _))) if length > self.bounds.bytes => Err(AnswerError::TooLarge),
            Ok(Status::Complete((length, _))) if !ends_lines(&input[..length]) => Err(AnswerError::Trailers),
            Ok(Status::Complete((length, lines))) => {
                let trailers =
                    fields(&Source::of(&input[..length]), lines, 0).ok_or(AnswerError::Trailers)?;
                input.advance(length);
                self.state = State::Over;
                Ok((!trailers.is_empty()).then_some(Part::Trailers(trailers)))
            }
            Ok(Status::Partial) if input.len() < self.bounds.bytes => {
                self.state = State::Trailers(input.len());
                Ok(None)
            }
            Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => Err(AnswerError::TooLarge),
            Err(_) => Err(AnswerError::Trailers),
        }
    }
}

/// Whether that may stand behind the size of a chunk: blanks, or parameters in text that can be read. RFC 9112 §7.1.1
fn is_extension(text: &[u8]) -> bool {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begins = text.iter().find(|byte| !is_blank(byte)).is_none_or(|byte| *byte == b';');
    begins && text.iter().all(|byte| is_blank(byte) || !byte.is_ascii_control())
}

fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The most digits of a size that is less than 2⁶⁰.
const MAX_DIGITS: usize = 15;
/// The most bytes of a line with the size of a chunk.
const MAX_SIZE_BYTES: usize = 4096;
/// The most bytes of all extensions of chunks together.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chunks_are_taken_apart() {
        for (text, data, trailers) in [
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("5 \t;a=\"b\tc\u{e4}\"\r\nhello\r\n00 ;x\r\n\r\n", "hello", 0),
            ("2\r\nhe\r\n003\r\nllo\r\n0\r\nA: b\r\nC: d\r\n\r\n", "hello", 2),
            ("a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a", 0),
            ("0\r\n\r\n", "", 0),
        ] {
            assert_eq!(
                decode(Framing::Chunked, &[text.as_bytes()]),
                Ok((data.into(), trailers, true)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for (text, expected) in [
            ("\r\n", AnswerError::Chunk),
            ("\n", AnswerError::Chunk),
            ("5\nhello\r\n", AnswerError::Chunk),
            (" 5\r\nhello\r\n", AnswerError::Chunk),
            ("+5\r\nhello\r\n", AnswerError::Chunk),
            ("-1\r\nhello\r\n", AnswerError::Chunk),
            ("0x5\r\nhello\r\n", AnswerError::Chunk),
            ("5 5\r\nhello\r\n", AnswerError::Chunk),
            ("5;a\rb\r\nhello\r\n", AnswerError::Chunk),
            ("5\x0c\r\nhello\r\n", AnswerError::Chunk),
            ("5;\0\r\nhello\r\n", AnswerError::Chunk),
            ("5;a\x7f\r\nhello\r\n", AnswerError::Chunk),
            ("number\r\nhalf\r\n", AnswerError::Chunk),
            ("10000000000000000\r\nhello", AnswerError::Chunk),
            ("5\r\nhelloo\r\n", AnswerError::Chunk),
            ("5\r\nhello\n0\r\n\r\n", AnswerError::Chunk),
            ("0\r\nA\r\n\r\n", AnswerError::Trailers),
            ("0\r\nA : b\r\n\r\n", AnswerError::Trailers),
            ("0\r\nA: b\r\n folded\r\n\r\n", AnswerError::Trailers),
            ("0\r\nHTTP/1.1 200 OK\r\n\r\n", AnswerError::Trailers),
            ("0\r\n\n", AnswerError::Trailers),
            ("0\r\nA: b\n\r\n", AnswerError::Trailers),
            ("0\r\nA: b\r\n\n", AnswerError::Trailers),
            ("5\r\nhell", AnswerError::Cut),
            ("5\r\nhello", AnswerError::Cut),
            ("5\r\nhello\r\n", AnswerError::Cut),
            ("5\r\nhello\r\n0\r\n", AnswerError::Cut),
            ("5\r\nhello\r\n0\r\nA: b\r\n", AnswerError::Cut),
        ] {
            assert_eq!(decode(Framing::Chunked, &[text.as_bytes()]), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn chunks_have_bounds() {
        let extended = |bytes: usize| format!("1;{}\r\na\r\n", "x".repeat(bytes));
        let fits = extended(4000).repeat(4) + "0\r\n\r\n";
        assert_eq!(decode(Framing::Chunked, &[fits.as_bytes()]), Ok((b"aaaa".into(), 0, true)));
        let many = "0\r\n".to_owned() + &"a: b\r\n".repeat(MAX_LINES + 1);
        let long = format!("0\r\na: {}", "b".repeat(MAX_HEAD_BYTES));
        for text in
            [extended(MAX_SIZE_BYTES), extended(4000).repeat(5), "5".repeat(MAX_SIZE_BYTES), many, long]
        {
            assert_eq!(decode(Framing::Chunked, &[text.as_bytes()]), Err(AnswerError::TooLarge));
        }
    }

    #[test]
    fn trailers_have_the_same_bound_however_they_come() {
        let line = |bytes: usize| format!("a: {}\r\n", "b".repeat(bytes - 5));
        let sized = |bytes: usize| {
            let rest = bytes - 2 - 4 * 16_000;
            format!("0\r\n{}{}\r\n", line(16_000).repeat(4), line(rest))
        };
        for (bytes, expected) in
            [(MAX_HEAD_BYTES, Ok((Vec::new(), 5, true))), (MAX_HEAD_BYTES + 1, Err(AnswerError::TooLarge))]
        {
            let text = sized(bytes);
            for at_once in [1, 1000, text.len()] {
                let pieces: Vec<_> = text.as_bytes().chunks(at_once).collect();
                assert_eq!(decode(Framing::Chunked, &pieces), expected, "{bytes} {at_once}");
            }
        }
    }

    #[test]
    fn trailers_may_have_less_room() {
        for (bounds, is_refused) in [
            (Bounds { bytes: 16, headers: 2 }, false),
            (Bounds { bytes: 13, headers: 2 }, true),
            (Bounds { bytes: 16, headers: 1 }, true),
            (Bounds { bytes: usize::MAX, headers: usize::MAX }, false),
        ] {
            let mut decoder = Decoder::new(Framing::Chunked).within(bounds);
            let taken = decoder.take(&mut "0\r\nA: b\r\nC: d\r\n\r\n".into());
            assert_eq!(taken.err(), is_refused.then_some(AnswerError::TooLarge), "{bounds:?}");
        }
    }

    #[test]
    fn other_bodies_end_with_their_length_or_the_connection() {
        assert_eq!(decode(Framing::Length(3), &[b"hel"]), Ok((b"hel".into(), 0, true)));
        assert_eq!(decode(Framing::Length(3), &[b"he"]), Err(AnswerError::Cut));
        assert_eq!(
            decode(Framing::Length(3), &[b"he", b"llo"]),
            Ok((b"hel".into(), 0, false)),
            "two are left"
        );
        assert_eq!(decode(Framing::Empty, &[b"x"]), Ok((b"".into(), 0, false)), "it is left");
        assert_eq!(decode(Framing::UntilClose, &[b"hel", b"lo"]), Ok((b"hello".into(), 0, true)));
        assert_eq!(Decoder::new(Framing::Length(7)).left(), Some(7));
        assert_eq!(Decoder::new(Framing::UntilClose).left(), None);
    }

    proptest! {
        #[test]
        fn parts_are_the_same_however_they_come(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5),
            cuts in prop::collection::vec(0..200_usize, 0..9),
        ) {
            let mut text = Vec::new();
            for body in &bodies {
                text.extend(format!("{:x}\r\n", body.len()).as_bytes());
                text.extend(body);
                text.extend(b"\r\n");
            }
            text.extend(b"0\r\nA: b\r\n\r\n");
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect();
            prop_assert_eq!(decode(Framing::Chunked, &pieces), Ok((bodies.concat(), 1, true)));
        }

        #[test]
        fn nothing_is_made_up(
            text in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'3'), Just(b';'), any::<u8>()], 0..60),
        ) {
            let whole = decode(Framing::Chunked, &[&text]);
            let bytewise: Vec<_> = text.chunks(1).collect();
            prop_assert_eq!(whole, decode(Framing::Chunked, &bytewise));
        }
    }

    /// The body, how many trailers it has, and whether nothing is behind it.
    fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), AnswerError> {
        let (mut decoder, mut input) = (Decoder::new(framing), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), 0);
        for piece in pieces {
            input.extend_from_slice(piece);
            while let Some(part) = decoder.take(&mut input)? {
                match part {
                    Part::Data(bytes) => data.extend_from_slice(&bytes),
                    Part::Trailers(fields) => trailers = fields.len(),
                }
            }
        }
        decoder.close()?;
        Ok((data, trailers, input.is_empty()))
    }
}
