use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use httparse::{Header, ParserConfig, Status};

use super::head::{Source, fields, number, only};
use super::{Framing, MAX_LINES, RequestError};
use crate::http::headers::{has_token, tokens};

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
        let source = Source::of(&input[..length]);
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| RequestError::Head)?;
        parts.uri = Uri::from_maybe_shared(source.part(target.as_bytes())).map_err(|_| RequestError::Head)?;
        parts.version = if read.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        parts.headers = fields(&source, read.headers).ok_or(RequestError::Head)?;
        Ok(Some((Self::of(parts)?, length)))
    }

    fn of(mut parts: Parts) -> Result<Self, RequestError> {
        let (framing, is_unambiguous) = framing(&mut parts)?;
        let may_stay = stays(&parts) && is_unambiguous;
        let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        let expects_continue = framing != Framing::Empty
            && parts.version == Version::HTTP_11
            && parts.headers.get(EXPECT).is_some_and(expects);
        Ok(Self { parts, framing, may_stay, expects_continue })
    }
}

/// Where the body ends, and whether only one thing says so. RFC 9112 §6.3
fn framing(parts: &mut Parts) -> Result<(Framing, bool), RequestError> {
    let length = match parts.headers.contains_key(CONTENT_LENGTH) {
        true => Some(only(&parts.headers, &CONTENT_LENGTH).and_then(number).ok_or(RequestError::Length)?),
        false => None,
    };
    if parts.headers.contains_key(TRANSFER_ENCODING) {
        check_coding(parts.version, &parts.headers)?;
        // of the two, the length is wrong
        parts.headers.remove(CONTENT_LENGTH);
        return Ok((Framing::Chunked, length.is_none()));
    }
    match length {
        None | Some(0) => Ok((Framing::Empty, true)),
        Some(length) => Ok((Framing::Length(length), true)),
    }
}

/// Looks whether the body comes in chunks and nothing else. RFC 9112 §6.1
fn check_coding(version: Version, headers: &HeaderMap) -> Result<(), RequestError> {
    let Some(coding) = only(headers, &TRANSFER_ENCODING) else { return Err(RequestError::TransferEncoding) };
    if version == Version::HTTP_10 {
        return Err(RequestError::TransferEncoding);
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let last = headers.get(TRANSFER_ENCODING).and_then(|value| tokens(value).last());
    if last.is_some_and(|last| last.eq_ignore_ascii_case("chunked")) {
        Err(RequestError::Coding)
    } else {
        Err(RequestError::TransferEncoding)
    }
}

/// RFC 9112 §9.3; what follows a request for another protocol may be of that one.
fn stays(parts: &Parts) -> bool {
    let is_old = parts.version == Version::HTTP_10;
    let asks_for_another = parts.method == Method::CONNECT || parts.headers.contains_key(UPGRADE);
    if asks_for_another && !is_old {
        return false;
    }
    if !parts.headers.contains_key(CONNECTION) {
        return !is_old;
    }
    let says = |token| parts.headers.get_all(CONNECTION).iter().any(|value| has_token(value, token));
    !says("close") && (!is_old || says("keep-alive"))
}

/// More are not in one URI.
const MAX_TARGET_BYTES: usize = u16::MAX as usize - 1;
