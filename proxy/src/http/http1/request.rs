use std::error::Error;
use std::fmt;
use std::io::{IoSlice, Write as _};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::http::headers::tokens;

/// What of a request, or of an answer, is still to be written.
#[derive(Debug)]
pub(in crate::http) struct Outbox {
    /// Head, sizes of chunks, and parts of the body that are not worth a slice of their own.
    pub(super) small: Vec<u8>,
    /// A part of the body behind that.
    large: Bytes,
    /// What follows that.
    last: Vec<u8>,
    pub(super) coding: Coding,
}

/// How the body is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Behind it, these fields may stand.
    Chunked(Vec<HeaderName>),
    /// So many bytes are missing.
    Length(u64),
    /// As it is, until the connection ends.
    UntilClose,
}

/// A body that is not as long as the head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct WrongLength;

impl fmt::Display for WrongLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body is not as long as the head says")
    }
}

impl Error for WrongLength {}

impl Outbox {
    /// Nothing is to be written.
    pub(in crate::http) fn new() -> Self {
        Self { small: Vec::new(), large: Bytes::new(), last: Vec::new(), coding: Coding::Length(0) }
    }

    /// Begins with the head of a request; the length of its body is said there, where it is known.
    pub(in crate::http) fn begin<B>(&mut self, request: &Request<B>, body_bytes: Option<u64>) {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let output = &mut self.small;
        output.reserve(HEAD_BYTES);
        for piece in [request.method().as_str(), " ", target, " HTTP/1.1\r\n"] {
            output.extend_from_slice(piece.as_bytes());
        }
        write_fields(request.headers(), output);
        self.coding = coding(request.headers(), body_bytes, output);
        output.extend_from_slice(b"\r\n");
    }

    /// Adds a part of the body.
    pub(in crate::http) fn push(&mut self, data: Bytes) -> Result<(), WrongLength> {
        let length = data.len();
        match &mut self.coding {
            _ if length == 0 => return Ok(()),
            Coding::Chunked(_) => {
                // writing to memory does not fail
                let _ = write!(self.small, "{length:x}\r\n");
            }
            Coding::Length(left) => *left = left.checked_sub(length as u64).ok_or(WrongLength)?,
            Coding::UntilClose => {}
        }
        if length <= SMALL_BYTES {
            self.small.reserve(length + END_BYTES);
            self.small.extend_from_slice(&data);
            self.small.extend_from_slice(self.end_of_chunk());
        } else {
            self.last.extend_from_slice(self.end_of_chunk());
            self.large = data;
        }
        Ok(())
    }

    /// Ends the body.
    pub(in crate::http) fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        match std::mem::replace(&mut self.coding, Coding::Length(0)) {
            Coding::Length(0) | Coding::UntilClose => Ok(()),
            Coding::Length(_) => Err(WrongLength),
            Coding::Chunked(announced) => {
                let end = if self.last.is_empty() { &mut self.small } else { &mut self.last };
                end.extend_from_slice(b"0\r\n");
                let trailers = trailers.into_iter().flatten();
                write_fields(trailers.filter(|(name, _)| announced.contains(name)), end);
                end.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }

    /// Whether nothing of the body is missing, nor its end.
    pub(in crate::http) fn is_complete(&self) -> bool {
        self.coding == Coding::Length(0)
    }

    /// Whether only the end of the connection ends the body, and it has not come to its end.
    pub(in crate::http) fn is_endless(&self) -> bool {
        self.coding == Coding::UntilClose
    }

    /// Whether another part may be added.
    pub(in crate::http) fn has_room(&self) -> bool {
        self.large.is_empty() && self.last.is_empty() && self.small.len() < MOST_SMALL_BYTES
    }

    /// What is to be written, in order.
    pub(in crate::http) fn slices(&self) -> [IoSlice<'_>; 3] {
        [&*self.small, &self.large, &self.last].map(IoSlice::new)
    }

    /// Takes away what was written.
    pub(in crate::http) fn advance(&mut self, mut bytes: usize) {
        let mut take = |length: usize| {
            let taken = bytes.min(length);
            bytes -= taken;
            taken
        };
        let taken = [take(self.small.len()), take(self.large.len()), take(self.last.len())];
        self.small.drain(..taken[0]);
        self.large.advance(taken[1]);
        if self.large.is_empty() {
            // even what is left of nothing keeps all that was read with it
            self.large = Bytes::new();
        }
        self.last.drain(..taken[2]);
    }

    /// Has nothing to write for now; gives up what it took to write the last of it, if that is much.
    pub(in crate::http) fn rest(&mut self) {
        for output in [&mut self.small, &mut self.last] {
            if output.is_empty() && output.capacity() > MOST_KEPT_BYTES {
                *output = Vec::new();
            }
        }
    }

    pub(in crate::http) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty() && self.last.is_empty()
    }

    fn end_of_chunk(&self) -> &'static [u8] {
        if matches!(self.coding, Coding::Chunked(_)) { b"\r\n" } else { b"" }
    }
}

/// How the body is written, with the line that says so.
fn coding(headers: &HeaderMap, body_bytes: Option<u64>, output: &mut Vec<u8>) -> Coding {
    let said = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match (said, body_bytes) {
        (Some(length), _) => Coding::Length(length),
        (None, Some(0)) => Coding::Length(0),
        (None, Some(length)) => {
            write_length(length, output);
            Coding::Length(length)
        }
        (None, None) => {
            output.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Coding::Chunked(announced(headers))
        }
    }
}

/// The line that says how long a body is.
pub(super) fn write_length(length: u64, output: &mut Vec<u8>) {
    output.extend_from_slice(b"content-length: ");
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
    output.extend_from_slice(&digits[start..]);
    output.extend_from_slice(b"\r\n");
}

/// The trailers that a head announces.
pub(super) fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    headers.get_all(TRAILER).iter().flat_map(tokens).filter_map(|name| name.parse().ok()).collect()
}

pub(super) fn write_fields<'a>(
    fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
    output: &mut Vec<u8>,
) {
    for (name, value) in fields {
        for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            output.extend_from_slice(piece);
        }
    }
}

/// Room for most heads.
pub(super) const HEAD_BYTES: usize = 1024;
/// Room for what most often follows a part.
const END_BYTES: usize = 8;
/// The most bytes of a part that are copied.
const SMALL_BYTES: usize = 4 * 1024;
const MOST_SMALL_BYTES: usize = 16 * 1024;
/// A head and a part that is copied need less.
const MOST_KEPT_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_says_how_long_the_body_is() {
        for (method, length, body_bytes, expected) in [
            ("POST", None, Some(0), "POST /a?b HTTP/1.1\r\na: b\r\n\r\n"),
            ("POST", None, Some(3), "POST /a?b HTTP/1.1\r\na: b\r\ncontent-length: 3\r\n\r\n"),
            ("POST", Some("3"), None, "POST /a?b HTTP/1.1\r\na: b\r\ncontent-length: 3\r\n\r\n"),
            ("POST", None, None, "POST /a?b HTTP/1.1\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n"),
            ("GET", None, Some(0), "GET /a?b HTTP/1.1\r\na: b\r\n\r\n"),
            ("GET", None, None, "GET /a?b HTTP/1.1\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n"),
        ] {
            let mut outbox = begun(method, length, body_bytes);
            assert_eq!(written(&mut outbox, 7), expected);
            assert_eq!(outbox.is_complete(), body_bytes == Some(0), "{expected}");
        }
    }

    #[test]
    fn parts_become_chunks_and_only_announced_trailers_follow() {
        let mut outbox = begun("POST", None, None);
        written(&mut outbox, 99);
        outbox.push("hello".into()).unwrap();
        assert!(outbox.has_room());
        outbox.push(Bytes::from(vec![b'x'; SMALL_BYTES + 1])).unwrap();
        assert!(!outbox.has_room());
        let large = "x".repeat(SMALL_BYTES + 1);
        assert_eq!(written(&mut outbox, 1000), format!("5\r\nhello\r\n1001\r\n{large}\r\n"));
        let trailers = [("x-sum", "7"), ("x-other", "8")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        outbox.end(Some(&trailers.into_iter().collect())).unwrap();
        assert_eq!(written(&mut outbox, 3), "0\r\nx-sum: 7\r\n\r\n");
        assert!(outbox.is_empty() && outbox.is_complete());
    }

    #[test]
    fn what_was_written_is_not_kept() {
        let mut outbox = begun("POST", None, None);
        let large = Bytes::from(vec![b'x'; SMALL_BYTES + 1]);
        outbox.push(large.clone()).unwrap();
        written(&mut outbox, 1000);
        assert!(large.is_unique(), "who gave it has it alone");
        while outbox.small.len() < MOST_SMALL_BYTES {
            outbox.push(Bytes::from(vec![b'x'; SMALL_BYTES])).unwrap();
        }
        outbox.rest();
        assert!(!outbox.is_empty(), "what is not written stays");
        written(&mut outbox, 1000);
        outbox.rest();
        assert_eq!(outbox.small.capacity(), 0);
        let mut outbox = begun("POST", None, None);
        outbox.push(Bytes::from(vec![b'x'; SMALL_BYTES])).unwrap();
        written(&mut outbox, 1000);
        outbox.rest();
        assert!(outbox.small.capacity() > SMALL_BYTES, "what most requests need is kept");
    }

    #[test]
    fn body_of_another_length_is_none() {
        let mut outbox = begun("POST", Some("3"), None);
        assert_eq!(outbox.push("four".into()), Err(WrongLength));
        let mut outbox = begun("POST", Some("3"), None);
        outbox.push("ab".into()).unwrap();
        assert_eq!(outbox.end(None), Err(WrongLength));
    }

    fn begun(method: &str, length: Option<&str>, body_bytes: Option<u64>) -> Outbox {
        let mut request =
            Request::builder().method(method).uri("/a?b").header("a", "b").header("trailer", "X-Sum");
        if length.is_some() || body_bytes.is_some() || method == "GET" {
            request = Request::builder().method(method).uri("/a?b").header("a", "b");
        }
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        let mut outbox = Outbox::new();
        outbox.begin(&request.body(()).unwrap(), body_bytes);
        outbox
    }

    /// All that is to be written, so many bytes at a time; the announcement is left out.
    fn written(outbox: &mut Outbox, at_once: usize) -> String {
        let mut text = Vec::new();
        while !outbox.is_empty() {
            let all: Vec<u8> = outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            let count = all.len().min(at_once);
            text.extend(&all[..count]);
            outbox.advance(count);
        }
        String::from_utf8(text).unwrap().replace("trailer: X-Sum\r\n", "")
    }
}
