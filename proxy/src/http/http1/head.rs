use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use httparse::{ParserConfig, Status};

use super::{AnswerError, MAX_HEAD_BYTES, MAX_LINES};
use crate::http::headers::has_token;

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// What became of the request.
    pub status: StatusCode,
    /// As they came.
    pub headers: HeaderMap,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection may have another request when the body has come.
    pub may_stay: bool,
}

/// Where the body of an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// With the last chunk.
    Chunked,
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// With the connection.
    UntilClose,
}

impl Head {
    /// Takes the head of the answer to a request of this method from what came; `None` while it is not whole. What an
    /// upstream says before it answers is left out.
    pub fn take(input: &mut BytesMut, method: &Method) -> Result<Option<Self>, AnswerError> {
        loop {
            match Self::read(input, method)? {
                Some((_, length)) if length > MAX_HEAD_BYTES => return Err(AnswerError::TooLarge),
                Some((head, length)) => {
                    input.advance(length);
                    // RFC 9110 §15.2
                    if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                        return Ok(Some(head));
                    }
                }
                None if input.len() < MAX_HEAD_BYTES => return Ok(None),
                None => return Err(AnswerError::TooLarge),
            }
        }
    }

    /// The head that `input` begins with, and its length.
    fn read(input: &[u8], method: &Method) -> Result<Option<(Self, usize)>, AnswerError> {
        let mut room = [const { MaybeUninit::uninit() }; MAX_LINES];
        let mut read = httparse::Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut read, input, &mut room);
        let length = match parsed {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::TooLarge),
            Err(_) => return Err(AnswerError::Head),
        };
        let status = read.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(AnswerError::Head)?;
        let version = if read.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let headers = fields(&Source::of(&input[..length]), read.headers, 0).ok_or(AnswerError::Head)?;
        let framing = framing(status, version, &headers, method)?;
        let may_stay = stays(version, &headers, framing) && status != StatusCode::SWITCHING_PROTOCOLS;
        Ok(Some((Self { status, headers, framing, may_stay }, length)))
    }
}

/// A copy of what came, all parts of which share its memory.
pub(super) struct Source {
    copy: Bytes,
    /// Where that stands of which it is one.
    address: usize,
}

impl Source {
    pub(super) fn of(input: &[u8]) -> Self {
        Self { copy: Bytes::copy_from_slice(input), address: input.as_ptr().addr() }
    }

    /// The same part of it as `part` is of the original.
    pub(super) fn part(&self, part: &[u8]) -> Bytes {
        let start = part.as_ptr().addr() - self.address;
        self.copy.slice(start..start + part.len())
    }
}

/// The lines of a head, or trailers, with names in small letters, and room for so many more.
pub(super) fn fields(source: &Source, lines: &[httparse::Header<'_>], room: usize) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(lines.len() + room);
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(source.part(line.value)).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some(headers)
}

/// Whether no line of a head, or of trailers, ends in LF alone: others may see the end of a message elsewhere then.
/// RFC 9112 §2.2
pub(super) fn ends_lines(lines: &[u8]) -> bool {
    // counted without a way out, which takes fewer instructions
    let is_bare = |(before, byte): &(&u8, &u8)| **byte == b'\n' && **before != b'\r';
    lines.first() != Some(&b'\n') && lines.iter().zip(lines.iter().skip(1)).filter(is_bare).count() == 0
}

/// RFC 9112 §6.3
fn framing(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Framing, AnswerError> {
    let has_none = status.is_informational()
        || [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
        || *method == Method::HEAD;
    if has_none {
        return Ok(Framing::Empty);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        return match only(headers, &TRANSFER_ENCODING) {
            Some(coding) if version == Version::HTTP_11 && coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Framing::Chunked)
            }
            _ => Err(AnswerError::TransferEncoding),
        };
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(Framing::UntilClose),
        (Some(length), None) => match number(length.as_bytes()).ok_or(AnswerError::Length)? {
            0 => Ok(Framing::Empty),
            length => Ok(Framing::Length(length)),
        },
        (Some(_), Some(_)) => Err(AnswerError::Length),
    }
}

/// RFC 9112 §9.3; where two things say how long the body is, nothing behind it is believed.
fn stays(version: Version, headers: &HeaderMap, framing: Framing) -> bool {
    let says = |token| headers.get_all(CONNECTION).iter().any(|value| has_token(value, token));
    let is_ambiguous = framing == Framing::Chunked && headers.contains_key(CONTENT_LENGTH);
    let stays = if version == Version::HTTP_11 { true } else { says("keep-alive") };
    stays && !says("close") && !is_ambiguous && framing != Framing::UntilClose
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_end_where_the_head_says() {
        for (head, expected, may_stay) in [
            ("200 OK\r\nContent-Length: 12", Framing::Length(12), true),
            ("200 OK\r\ncontent-length:0", Framing::Empty, true),
            ("200\r\nContent-Length: 1\r\nConnection: x, Close", Framing::Length(1), false),
            ("200 OK\r\nTransfer-Encoding: Chunked", Framing::Chunked, true),
            ("200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3", Framing::Chunked, false),
            ("200 OK", Framing::UntilClose, false),
            ("200 OK\r\nConnection: keep-alive", Framing::UntilClose, false),
            ("204 No Content\r\nContent-Length: 3", Framing::Empty, true),
            ("304 Not Modified\r\nContent-Length: 3", Framing::Empty, true),
            ("101 Switching Protocols", Framing::Empty, false),
        ] {
            let (framing, stays) = read(&format!("HTTP/1.1 {head}\r\n\r\n"), &Method::GET).unwrap();
            assert_eq!((framing, stays), (expected, may_stay), "{head}");
        }
        let to_head = read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &Method::HEAD);
        assert_eq!(to_head, Ok((Framing::Empty, true)));
    }

    #[test]
    fn connections_of_the_old_version_stay_where_that_is_said() {
        for (more, may_stay) in
            [("", false), ("Connection: Keep-Alive\r\n", true), ("Connection: keep-alive, close\r\n", false)]
        {
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n{more}\r\n");
            assert_eq!(read(&head, &Method::GET), Ok((Framing::Length(1), may_stay)), "{more}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for (head, expected) in [
            ("what is this\r\n\r\n", AnswerError::Head),
            ("\0\0\0\0\0\0\0\0", AnswerError::Head),
            ("HTTP/2.0 200 OK\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 99999 Odd\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 099 Odd\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 200 OK\r\n A: b\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 200 OK\r\nA\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 200 OK\r\nA: b\rc: d\r\n\r\n", AnswerError::Head),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", AnswerError::TransferEncoding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", AnswerError::TransferEncoding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", AnswerError::TransferEncoding),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", AnswerError::TransferEncoding),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", AnswerError::TransferEncoding),
        ] {
            assert_eq!(read(head, &Method::GET), Err(expected), "{head:?}");
        }
        let twice = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read(twice, &Method::GET), Err(AnswerError::TransferEncoding));
    }

    #[test]
    fn heads_have_bounds() {
        let lines = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert!(read(&lines(MAX_LINES), &Method::GET).is_ok());
        assert_eq!(read(&lines(MAX_LINES + 1), &Method::GET), Err(AnswerError::TooLarge));
        for end in ["", "\r\n\r\n"] {
            let long = format!("HTTP/1.1 200 OK\r\na: {}{end}", "b".repeat(MAX_HEAD_BYTES));
            assert_eq!(read(&long, &Method::GET), Err(AnswerError::TooLarge));
        }
    }

    #[test]
    fn answer_follows_what_is_said_before_it() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
                    HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n\r\nok";
        for cut in 0..text.len() - 3 {
            assert_eq!(
                Head::take(&mut text[..cut].into(), &Method::GET).map(|head| head.is_none()),
                Ok(true)
            );
        }
        let mut input = text.into();
        let head = Head::take(&mut input, &Method::GET).unwrap().unwrap();
        assert_eq!(
            (head.status, &head.headers["a"], head.headers.len()),
            (StatusCode::OK, &"b".parse().unwrap(), 2)
        );
        assert_eq!(input, "ok");
    }

    fn read(text: &str, method: &Method) -> Result<(Framing, bool), AnswerError> {
        let head = Head::take(&mut text.into(), method)?.unwrap();
        Ok((head.framing, head.may_stay))
    }
}
