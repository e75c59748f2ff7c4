use std::cell::RefCell;
use std::io::Write as _;
use std::time::UNIX_EPOCH;

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRAILER, TRANSFER_ENCODING};
use http::request::Parts;
use http::response::Parts as Answer;
use http::{HeaderMap, Method, StatusCode, Version};
use httpdate::HttpDate;
use mgate_policies::Now;

use super::head::{number, only};
use super::request::{Coding, HEAD_BYTES, Outbox, announced, write_fields};
use crate::http::headers::has_token;

/// What of a request says how it is answered.
#[derive(Clone, Debug)]
pub(in crate::http) struct Asked {
    method: Method,
    version: Version,
    takes_trailers: bool,
    /// Whether the connection may have another request behind the answer.
    pub(in crate::http) may_stay: bool,
}

impl Asked {
    /// That of a request whose connection may stay if this says so.
    pub(in crate::http) fn of(parts: &Parts, may_stay: bool) -> Self {
        let takes_trailers = parts.headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
        Self { method: parts.method.clone(), version: parts.version, takes_trailers, may_stay }
    }

    /// That of what is no request.
    pub(in crate::http) fn nothing() -> Self {
        let (method, version) = (Method::GET, Version::HTTP_11);
        Self { method, version, takes_trailers: false, may_stay: false }
    }

    /// Whether an answer of this status has a body, whatever its head says. RFC 9112 §6.3
    pub(in crate::http) fn allows_body(&self, status: StatusCode) -> bool {
        self.method != Method::HEAD && may_have_length(status)
    }
}

impl Outbox {
    /// Begins with the head of an answer given now, whose body has so many bytes, where that is known. Says whether the
    /// connection may stay.
    pub(in crate::http) fn begin_answer(
        &mut self,
        answer: &Answer,
        asked: &Asked,
        body_bytes: Option<u64>,
        now: Now,
    ) -> bool {
        let is_old = asked.version == Version::HTTP_10;
        let output = &mut self.small;
        output.reserve(HEAD_BYTES);
        output.put_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        output.put_slice(answer.status.as_str().as_bytes());
        output.put_slice(b" ");
        output.put_slice(answer.status.canonical_reason().unwrap_or_default().as_bytes());
        output.put_slice(b"\r\n");
        let own = [CONTENT_LENGTH, TRANSFER_ENCODING, TRAILER];
        write_fields(answer.headers.iter().filter(|(name, _)| !own.contains(name)), output);
        self.coding = coding(answer, asked, body_bytes, output);
        let stays = asked.may_stay && self.coding != Coding::UntilClose && !ends(&answer.headers);
        write_connection(answer, stays, is_old, output);
        if !answer.headers.contains_key(DATE) {
            write_date(now, output);
        }
        output.put_slice(b"\r\n");
        stays
    }
}

/// How the body is written, with the line that says so.
fn coding(answer: &Answer, asked: &Asked, body_bytes: Option<u64>, output: &mut BytesMut) -> Coding {
    if !may_have_length(answer.status) {
        return Coding::Length(0);
    }
    let said = only(&answer.headers, &CONTENT_LENGTH).and_then(number);
    if asked.method == Method::HEAD {
        // RFC 9110 §8.6: that of the body which is left out, or none
        if let Some(length) = said.or(body_bytes.filter(|length| *length > 0)) {
            write_length(length, output);
        }
        return Coding::Length(0);
    }
    if let Some(length) = body_bytes.or(said) {
        write_length(length, output);
        return Coding::Length(length);
    }
    if asked.version == Version::HTTP_10 {
        return Coding::UntilClose;
    }
    output.put_slice(b"transfer-encoding: chunked\r\n");
    let trailers = answer.headers.get_all(TRAILER).iter().map(|value| (&TRAILER, value));
    write_fields(trailers, output);
    // RFC 9110 §6.5.1
    Coding::Chunked(if asked.takes_trailers { announced(&answer.headers) } else { Vec::new() })
}

/// RFC 9110 §8.6
fn may_have_length(status: StatusCode) -> bool {
    let has_none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    !has_none && !status.is_informational()
}

fn ends(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| has_token(value, "close"))
}

/// RFC 9112 §9.3
fn write_connection(answer: &Answer, stays: bool, is_old: bool, output: &mut BytesMut) {
    if stays && is_old {
        output.put_slice(b"connection: keep-alive\r\n");
    } else if !stays && answer.status != StatusCode::SWITCHING_PROTOCOLS && !ends(&answer.headers) {
        output.put_slice(b"connection: close\r\n");
    }
}

fn write_length(length: u64, output: &mut BytesMut) {
    output.put_slice(b"content-length: ");
    let mut digits = [0; 20];
    let (mut start, mut left) = (digits.len(), length);
    loop {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    output.put_slice(&digits[start..]);
    output.put_slice(b"\r\n");
}

/// RFC 9110 §6.6.1; it is put into words once a second.
fn write_date(now: Now, output: &mut BytesMut) {
    let second = now.unix.as_secs();
    LINE.with_borrow_mut(|(told, line)| {
        if *told != second {
            *told = second;
            line.clear();
            // writing to memory does not fail
            let _ = write!(line, "date: {}\r\n", HttpDate::from(UNIX_EPOCH + now.unix));
        }
        output.put_slice(line);
    });
}

thread_local! {
    /// The second, and the line that says which it is.
    static LINE: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
}
