use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use httparse::{Header, ParserConfig, Status};

use super::head::{Source, ends_lines, fields, number};
use super::{Framing, MAX_LINES, RequestError};
use crate::http::headers::has_token;

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// As they came; of two lengths, the one that counts.
    pub parts: Parts,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection may have another request when this one is answered.
    pub may_stay: bool,
    /// Whether the client sends the body only when it is told to go on.
    pub expects_continue: bool,
}

/// How large the head of a request may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// All of it.
    pub bytes: usize,
    /// Its headers.
    pub headers: usize,
}

impl RequestHead {
    /// Takes a head from what came; `None` while it is not whole. Nothing that follows an error is a request.
    pub fn take(input: &mut BytesMut, bounds: Bounds) -> Result<Option<Self>, RequestError> {
        let read = if bounds.headers <= MAX_LINES {
            Self::read(input, &mut [const { MaybeUninit::uninit() }; MAX_LINES][..bounds.headers])
        } else {
            Self::read(input, &mut vec![MaybeUninit::uninit(); bounds.headers])
        };
        match read? {
            Some((_, length)) if length > bounds.bytes => Err(RequestError::TooLarge),
            Some((head, length)) => {
                input.advance(length);
                Ok(Some(head))
            }
            None if input.len() < bounds.bytes => Ok(None),
            None => Err(RequestError::TooLarge),
        }
    }

    /// The head that `input` begins with, and its length.
    fn read<'a>(
        input: &'a [u8],
        room: &mut [MaybeUninit<Header<'a>>],
    ) -> Result<Option<(Self, usize)>, RequestError> {
        let mut read = httparse::Request::new(&mut []);
        let length = match ParserConfig::default().parse_request_with_uninit_headers(&mut read, input, room) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(RequestError::TooLarge),
            Err(httparse::Error::Version) => return Err(RequestError::Version),
            Err(_) => return Err(RequestError::Head),
        };
        let (Some(method), Some(target)) = (read.method, read.path) else { return Err(RequestError::Head) };
        if target.len() > MAX_TARGET_BYTES {
            return Err(RequestError::Target);
        }
        if !ends_lines(&input[..length]) {
            return Err(RequestError::Head);
        }
        let source = Source::of(&input[..length]);
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| RequestError::Head)?;
        parts.uri = Uri::from_maybe_shared(source.part(target.as_bytes())).map_err(|_| RequestError::Head)?;
        parts.version = if read.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        parts.headers = fields(&source, read.headers, ROOM).ok_or(RequestError::Head)?;
        Ok(Some((Self::of(parts, Special::of(read.headers))?, length)))
    }

    fn of(mut parts: Parts, special: Special<'_>) -> Result<Self, RequestError> {
        let (framing, is_clear) = framing(&mut parts, special)?;
        // where two things say where the body ends, nothing behind it is believed
        let may_stay = stays(&parts, special) && is_clear;
        let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        let expects_continue = special.has_expect
            && framing != Framing::Empty
            && parts.version == Version::HTTP_11
            && parts.headers.get(EXPECT).is_some_and(expects);
        Ok(Self { parts, framing, may_stay, expects_continue })
    }
}

/// What headers say about the frame of a request: looking for each of them in a map takes longer.
#[derive(Clone, Copy, Default)]
struct Special<'a> {
    coding: Said<'a>,
    length: Said<'a>,
    has_connection: bool,
    has_expect: bool,
    has_upgrade: bool,
}

/// What one header says.
#[derive(Clone, Copy, Default)]
enum Said<'a> {
    #[default]
    Nothing,
    Once(&'a [u8]),
    Often,
}

impl<'a> Special<'a> {
    fn of(lines: &[Header<'a>]) -> Self {
        let mut special = Self::default();
        for line in lines {
            let is = |name: &HeaderName| line.name.eq_ignore_ascii_case(name.as_str());
            // most are none of these
            match (line.name.len(), line.name.as_bytes().first().map_or(0, u8::to_ascii_lowercase)) {
                (6, b'e') => special.has_expect |= is(&EXPECT),
                (7, b'u') => special.has_upgrade |= is(&UPGRADE),
                (10, b'c') => special.has_connection |= is(&CONNECTION),
                (14, b'c') if is(&CONTENT_LENGTH) => special.length = special.length.and(line.value),
                (17, b't') if is(&TRANSFER_ENCODING) => special.coding = special.coding.and(line.value),
                _ => {}
            }
        }
        special
    }
}

impl<'a> Said<'a> {
    fn and(self, value: &'a [u8]) -> Self {
        if matches!(self, Self::Nothing) { Self::Once(value) } else { Self::Often }
    }
}

/// Where the body ends, and whether only one thing says so. RFC 9112 §6.3
fn framing(parts: &mut Parts, special: Special<'_>) -> Result<(Framing, bool), RequestError> {
    let length = match special.length {
        Said::Nothing => None,
        Said::Once(length) => Some(number(length).ok_or(RequestError::Length)?),
        Said::Often => return Err(RequestError::Length),
    };
    match special.coding {
        Said::Nothing => {
            let length = length.filter(|length| *length > 0);
            return Ok((length.map_or(Framing::Empty, Framing::Length), true));
        }
        Said::Once(coding) if parts.version == Version::HTTP_11 => check_coding(coding)?,
        Said::Once(_) | Said::Often => return Err(RequestError::TransferEncoding),
    }
    // of the two, the length is wrong
    parts.headers.remove(CONTENT_LENGTH);
    Ok((Framing::Chunked, length.is_none()))
}

/// Looks whether the body comes in chunks and nothing else. RFC 9112 §6.1
fn check_coding(coding: &[u8]) -> Result<(), RequestError> {
    let last = coding.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    if coding.eq_ignore_ascii_case(b"chunked") {
        Ok(())
    } else if last.eq_ignore_ascii_case(b"chunked") {
        Err(RequestError::Coding)
    } else {
        Err(RequestError::TransferEncoding)
    }
}

/// RFC 9112 §9.3; what follows a request for another protocol may be of that one.
fn stays(parts: &Parts, special: Special<'_>) -> bool {
    let is_old = parts.version == Version::HTTP_10;
    let asks_for_another = parts.method == Method::CONNECT || special.has_upgrade;
    if asks_for_another && !is_old {
        return false;
    }
    if !special.has_connection {
        return !is_old;
    }
    let says = |token| parts.headers.get_all(CONNECTION).iter().any(|value| has_token(value, token));
    !says("close") && (!is_old || says("keep-alive"))
}

/// For the headers that are put in before a request goes on.
const ROOM: usize = 6;
/// More are not in one URI.
const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn head_says_where_the_body_ends() {
        for (more, framing, may_stay) in [
            ("", Framing::Empty, true),
            ("Content-Length: 0\r\n", Framing::Empty, true),
            ("Content-Length: 5\r\n", Framing::Length(5), true),
            ("Content-Length: 005 \r\n", Framing::Length(5), true),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked, true),
            ("TRANSFER-ENCODING: Chunked\r\n", Framing::Chunked, true),
            // of the two, the length is wrong, and nothing behind it is believed
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Framing::Chunked, false),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Framing::Chunked, false),
        ] {
            let head = read(&format!("POST /a HTTP/1.1\r\nHost: a\r\n{more}\r\n")).unwrap();
            assert_eq!((head.framing, head.may_stay), (framing, may_stay), "{more}");
            let is_chunked = framing == Framing::Chunked;
            assert!(!is_chunked || !head.parts.headers.contains_key(CONTENT_LENGTH), "{more}");
        }
    }

    #[test]
    fn what_has_no_end_or_two_is_refused() {
        use RequestError::{Coding, Length, TransferEncoding};
        for (more, expected) in [
            ("Content-Length: +1", Length),
            ("Content-Length: -1", Length),
            ("Content-Length: 0x1", Length),
            ("Content-Length: 1 1", Length),
            ("Content-Length:", Length),
            ("Content-Length: 1, 1", Length),
            ("Content-Length: 18446744073709551616", Length),
            ("Content-Length: 1\r\nContent-Length: 1", Length),
            ("Content-Length: 1\r\nContent-Length: 2", Length),
            ("Content-Length: x\r\nTransfer-Encoding: chunked", Length),
            ("Transfer-Encoding: gzip, chunked", Coding),
            ("Transfer-Encoding: chunked, chunked", Coding),
            ("Transfer-Encoding: chunked, gzip", TransferEncoding),
            ("Transfer-Encoding: gzip", TransferEncoding),
            ("Transfer-Encoding: identity", TransferEncoding),
            ("Transfer-Encoding: xchunked", TransferEncoding),
            ("Transfer-Encoding: \"chunked\"", TransferEncoding),
            ("Transfer-Encoding: chunked;a=b", TransferEncoding),
            ("Transfer-Encoding:", TransferEncoding),
            ("Transfer-Encoding: \x0bchunked", TransferEncoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", TransferEncoding),
            ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", TransferEncoding),
        ] {
            let refused = read(&format!("POST /a HTTP/1.1\r\nHost: a\r\n{more}\r\n\r\n")).err();
            let is_refused = refused == Some(expected) || (more.contains('\x0b') && refused.is_some());
            assert!(is_refused, "{more:?}: {refused:?}");
        }
        let old = read("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old.err(), Some(TransferEncoding));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        use RequestError::{Head, Target, Version};
        let long = format!("GET /{} HTTP/1.1", "a".repeat(MAX_TARGET_BYTES));
        for (head, expected) in [
            ("GET /a HTTP/2.0", Version),
            ("GET /a HTTP/0.9", Version),
            ("GET /a HTTP/1.2", Version),
            ("GET /a http/1.1", Version),
            ("PRI * HTTP/2.0", Version),
            ("GET /a", Head),
            ("GET  /a HTTP/1.1", Head),
            ("GET /a  HTTP/1.1", Version),
            (" GET /a HTTP/1.1", Head),
            ("GET\t/a HTTP/1.1", Head),
            ("G(T /a HTTP/1.1", Head),
            ("GET /a b HTTP/1.1", Version),
            ("GET /\0 HTTP/1.1", Head),
            ("GET /\u{e4}\u{0} HTTP/1.1", Head),
            ("GET a:b@/ HTTP/1.1", Head),
            ("\x16\x03\x01\x02", Head),
            ("GET /a HTTP/1.1\r\n Host: a", Head),
            ("GET /a HTTP/1.1\r\nHost : a", Head),
            ("GET /a HTTP/1.1\r\nHost\t: a", Head),
            ("GET /a HTTP/1.1\r\nHost: a\r\n folded", Head),
            ("GET /a HTTP/1.1\r\nHost: a\r\n\tfolded", Head),
            ("GET /a HTTP/1.1\r\nHost", Head),
            ("GET /a HTTP/1.1\r\n: a", Head),
            ("GET /a HTTP/1.1\r\nH(st: a", Head),
            ("GET /a HTTP/1.1\r\nHost: a\rb: c", Head),
            ("GET /a HTTP/1.1\r\nHost: a\r", Head),
            ("GET /a HTTP/1.1\rHost: a", Head),
            ("GET /a HTTP/1.1\nHost: a", Head),
            ("GET /a HTTP/1.1\r\nHost: a\nb: c", Head),
            ("GET /a HTTP/1.1\r\nHost: a\r\n\n", Head),
            ("\nGET /a HTTP/1.1\r\nHost: a", Head),
            ("GET /a HTTP/1.1\r\nHost: a\0b", Head),
            ("GET /a HTTP/1.1\r\nHost: a\x7f", Head),
            ("GET /a HTTP/1.1\r\nHo\0st: a", Head),
            (&long, Target),
        ] {
            let refused = RequestHead::take(&mut format!("{head}\r\n\r\n").as_str().into(), WIDE).err();
            assert!(refused.is_some(), "{head:?}");
            assert_eq!(refused, Some(expected), "{head:?}");
        }
    }

    #[test]
    fn heads_have_bounds() {
        let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
        for headers in [8, MAX_LINES, 1000] {
            let bounds = Bounds { bytes: 16 * 1024, headers };
            assert!(RequestHead::take(&mut lines(headers).as_str().into(), bounds).is_ok(), "{headers}");
            let many = RequestHead::take(&mut lines(headers + 1).as_str().into(), bounds);
            assert_eq!(many.err(), Some(RequestError::TooLarge), "{headers}");
        }
        let sized = |bytes: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(bytes - 23));
        assert!(read(&sized(BOUNDS.bytes)).is_ok());
        let long = sized(BOUNDS.bytes + 1);
        for text in [&long, &long[..BOUNDS.bytes], &"\r\n".repeat(BOUNDS.bytes)] {
            assert_eq!(read(text).err(), Some(RequestError::TooLarge));
        }
    }

    #[test]
    fn connections_stay_where_nothing_else_is_said() {
        for (version, more, may_stay) in [
            ("1.1", "", true),
            ("1.1", "Connection: keep-alive\r\n", true),
            ("1.1", "Connection: Keep-Alive, Close\r\n", false),
            ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
            ("1.1", "Connection: upgrade\r\nUpgrade: websocket\r\n", false),
            ("1.1", "Upgrade: h2c\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive\r\nUpgrade: h2c\r\n", true),
            ("1.0", "Connection: close, keep-alive\r\n", false),
        ] {
            let head = read(&format!("GET / HTTP/{version}\r\n{more}\r\n")).unwrap();
            assert_eq!(head.may_stay, may_stay, "{version} {more}");
        }
        assert!(!read("CONNECT a:80 HTTP/1.1\r\n\r\n").unwrap().may_stay);
    }

    #[test]
    fn only_who_has_something_to_send_is_told_to_go_on() {
        for (version, more, expects) in [
            ("1.1", "Content-Length: 5\r\nExpect: 100-Continue\r\n", true),
            ("1.1", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", true),
            ("1.1", "Expect: 100-continue\r\n", false),
            ("1.1", "Content-Length: 5\r\nExpect: more\r\n", false),
            ("1.0", "Content-Length: 5\r\nExpect: 100-continue\r\n", false),
        ] {
            let head = read(&format!("PUT / HTTP/{version}\r\n{more}\r\n")).unwrap();
            assert_eq!(head.expects_continue, expects, "{version} {more}");
        }
    }

    #[test]
    fn headers_stay_as_they_came() {
        let text = "\r\n\r\nPUT http://a:80/b?c=%2F HTTP/1.1\r\nX-A:  1 \r\nHost: a\r\nx-a:\t\r\nX-A: \u{e4}\r\n\r\nrest";
        let mut input = BytesMut::from(text);
        let head = RequestHead::take(&mut input, BOUNDS).unwrap().unwrap();
        assert_eq!((head.parts.method.as_str(), head.parts.uri.path()), ("PUT", "/b"));
        assert_eq!(head.parts.uri, "http://a:80/b?c=%2F");
        let values: Vec<_> = head.parts.headers.get_all("x-a").iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(values, [b"1".as_slice(), b"", "\u{e4}".as_bytes()]);
        assert_eq!((&head.parts.headers["host"], input), (&"a".parse().unwrap(), "rest".into()));
    }

    proptest! {
        #[test]
        fn head_is_whole_or_not_there(
            text in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(b'a'), any::<u8>()], 0..60),
        ) {
            let text = [b"GET / HTTP/1.1\r\n", &*text, b"\r\n\r\n"].concat();
            let whole = RequestHead::take(&mut text.as_slice().into(), BOUNDS);
            let (mut input, mut bytewise) = (BytesMut::new(), Ok(None));
            for byte in &text {
                input.extend_from_slice(&[*byte]);
                bytewise = RequestHead::take(&mut input, BOUNDS);
                if !matches!(bytewise, Ok(None)) {
                    break;
                }
            }
            let headers = |read: Result<Option<RequestHead>, _>| {
                read.map(|head| head.map(|head| head.parts.headers)).map_err(drop)
            };
            prop_assert_eq!(headers(whole), headers(bytewise));
        }
    }

    fn read(text: &str) -> Result<RequestHead, RequestError> {
        Ok(RequestHead::take(&mut text.into(), BOUNDS)?.unwrap())
    }

    const BOUNDS: Bounds = Bounds { bytes: 16 * 1024, headers: 64 };
    const WIDE: Bounds = Bounds { bytes: 128 * 1024, headers: 64 };
}
