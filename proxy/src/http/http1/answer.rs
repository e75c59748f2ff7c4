use std::cell::RefCell;
use std::io::Write as _;
use std::time::UNIX_EPOCH;

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TE, TRAILER, TRANSFER_ENCODING};
use http::request::Parts;
use http::response::Parts as Answer;
use http::{HeaderMap, Method, StatusCode, Version};
use httpdate::HttpDate;
use mgate_policies::Now;

use super::head::number;
use super::request::{Coding, HEAD_BYTES, Outbox, announced, write_fields, write_length};
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
        let takes_trailers = parts.headers.contains_key(TE)
            && parts.headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
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
        output.extend_from_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        output.extend_from_slice(answer.status.as_str().as_bytes());
        output.extend_from_slice(b" ");
        output.extend_from_slice(answer.status.canonical_reason().unwrap_or_default().as_bytes());
        output.extend_from_slice(b"\r\n");
        let said = Said::write(&answer.headers, output);
        self.coding = coding(answer, asked, said.length_of(asked, body_bytes), output);
        let stays = asked.may_stay && self.coding != Coding::UntilClose && !said.ends;
        if stays && is_old {
            output.extend_from_slice(b"connection: keep-alive\r\n");
        } else if !stays && !said.ends && answer.status != StatusCode::SWITCHING_PROTOCOLS {
            // RFC 9112 §9.3
            output.extend_from_slice(b"connection: close\r\n");
        }
        if !said.has_date {
            write_date(now, output);
        }
        output.extend_from_slice(b"\r\n");
        stays
    }
}

/// What the headers of an answer say about its frame.
struct Said {
    /// Whether the connection ends.
    ends: bool,
    has_date: bool,
    /// Of the body.
    length: Option<u64>,
}

impl Said {
    /// Writes them, without those that say where the body ends.
    fn write(headers: &HeaderMap, output: &mut Vec<u8>) -> Self {
        let mut said = Self { ends: false, has_date: false, length: None };
        for (name, value) in headers {
            match *name {
                CONTENT_LENGTH => {
                    said.length = number(value.as_bytes());
                    continue;
                }
                TRAILER | TRANSFER_ENCODING => continue,
                CONNECTION => said.ends |= has_token(value, "close"),
                DATE => said.has_date = true,
                _ => {}
            }
            write_fields([(name, value)], output);
        }
        said
    }

    /// How long the body is, if that is known; of one that is left out, what the head says about it.
    fn length_of(&self, asked: &Asked, body_bytes: Option<u64>) -> Option<u64> {
        if asked.method == Method::HEAD { self.length.or(body_bytes) } else { body_bytes.or(self.length) }
    }
}

/// How the body is written, with the line that says so.
fn coding(answer: &Answer, asked: &Asked, body_bytes: Option<u64>, output: &mut Vec<u8>) -> Coding {
    if !may_have_length(answer.status) {
        return Coding::Length(0);
    }
    if let Some(length) = body_bytes {
        // RFC 9110 §8.6: that of the body which is left out
        let is_head = asked.method == Method::HEAD;
        if !is_head || length > 0 {
            write_length(length, output);
        }
        return Coding::Length(if is_head { 0 } else { length });
    }
    if asked.method == Method::HEAD {
        return Coding::Length(0);
    }
    if asked.version == Version::HTTP_10 {
        return Coding::UntilClose;
    }
    output.extend_from_slice(b"transfer-encoding: chunked\r\n");
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

/// RFC 9110 §6.6.1; it is put into words once a second.
fn write_date(now: Now, output: &mut Vec<u8>) {
    let second = now.unix.as_secs();
    LINE.with_borrow_mut(|(told, line)| {
        if *told != second {
            *told = second;
            line.clear();
            // writing to memory does not fail
            let _ = write!(line, "date: {}\r\n", HttpDate::from(UNIX_EPOCH + now.unix));
        }
        output.extend_from_slice(line);
    });
}

thread_local! {
    /// The second, and the line that says which it is.
    static LINE: RefCell<(u64, Vec<u8>)> = const { RefCell::new((u64::MAX, Vec::new())) };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Request, Response};

    use super::*;

    #[test]
    fn head_says_how_long_the_body_is() {
        for (method, status, said, body_bytes, expected) in [
            ("GET", 200, "", Some(3), "content-length: 3\r\n"),
            ("GET", 200, "", Some(0), "content-length: 0\r\n"),
            ("GET", 200, "", Some(18_446_744_073_709_551_615), "content-length: 18446744073709551615\r\n"),
            ("GET", 200, "7", None, "content-length: 7\r\n"),
            ("GET", 200, "7", Some(3), "content-length: 3\r\n"),
            ("GET", 200, "", None, "transfer-encoding: chunked\r\n"),
            ("HEAD", 200, "7", Some(0), "content-length: 7\r\n"),
            ("HEAD", 200, "", Some(7), "content-length: 7\r\n"),
            ("HEAD", 200, "", Some(0), ""),
            ("HEAD", 200, "", None, ""),
            ("GET", 204, "7", Some(0), ""),
            ("GET", 304, "7", Some(0), ""),
            ("GET", 101, "", Some(0), ""),
        ] {
            let (text, stays, _) = begun(method, "1.1", status, &[("content-length", said)], body_bytes);
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(text, format!("HTTP/1.1 {status}\r\na: b\r\n{expected}{DATE_LINE}\r\n"), "{method}");
            assert!(stays);
        }
    }

    #[test]
    fn clients_of_the_old_version_get_what_they_know() {
        for (body_bytes, expected, stays) in [
            (Some(3), "content-length: 3\r\nconnection: keep-alive\r\n", true),
            (None, "connection: close\r\n", false),
        ] {
            let (text, stayed, mut outbox) = begun("GET", "1.0", 200, &[], body_bytes);
            assert_eq!(text, format!("HTTP/1.0 200 OK\r\na: b\r\n{expected}{DATE_LINE}\r\n"));
            assert_eq!(stayed, stays);
            outbox.push("abc".into()).unwrap();
            outbox.end(None).unwrap();
            assert_eq!(taken(&mut outbox), "abc", "as it is");
        }
    }

    #[test]
    fn end_of_a_connection_is_said_once() {
        for (said, expected) in [
            ("close", "connection: close\r\n"),
            ("Upgrade, close", "connection: Upgrade, close\r\n"),
            ("Upgrade", "connection: Upgrade\r\n"),
        ] {
            let (text, stays, _) = begun("GET", "1.1", 200, &[("connection", said)], Some(0));
            assert_eq!((text.matches("connection").count(), stays), (1, !said.contains("close")), "{text}");
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn only_announced_trailers_go_to_who_takes_them() {
        let trailers = [("x-sum", "7"), ("x-other", "8")]
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        let trailers: HeaderMap = trailers.into_iter().collect();
        for (te, expected) in [("trailers", "0\r\nx-sum: 7\r\n\r\n"), ("gzip", "0\r\n\r\n")] {
            let mut outbox = Outbox::new();
            let request = Request::get("/").header(TE, te).body(()).unwrap().into_parts().0;
            let answer = Response::builder().header(TRAILER, "X-Sum").body(()).unwrap().into_parts().0;
            outbox.begin_answer(&answer, &Asked::of(&request, true), None, now(0));
            assert!(taken(&mut outbox).contains("trailer: X-Sum\r\n"));
            outbox.end(Some(&trailers)).unwrap();
            assert_eq!(taken(&mut outbox), expected);
        }
    }

    #[test]
    fn date_is_that_of_the_answer() {
        for (said, seconds, expected) in [
            (None, 784_111_777, "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
            (None, 784_111_778, "date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"),
            (Some("then"), 784_111_778, "date: then\r\n"),
        ] {
            let mut answer = Response::new(()).into_parts().0;
            answer.headers.extend(said.map(|said| (DATE, said.parse().unwrap())));
            let mut outbox = Outbox::new();
            outbox.begin_answer(&answer, &Asked::nothing(), Some(0), now(seconds));
            let text = taken(&mut outbox);
            assert!(text.contains(expected) && text.matches("date:").count() == 1, "{text}");
        }
    }

    fn begun(
        method: &str,
        version: &str,
        status: u16,
        more: &[(&str, &str)],
        body_bytes: Option<u64>,
    ) -> (String, bool, Outbox) {
        let mut request = Request::builder().method(method).body(()).unwrap().into_parts().0;
        request.version = if version == "1.0" { Version::HTTP_10 } else { Version::HTTP_11 };
        let mut answer = Response::builder().status(status).header("a", "b");
        for (name, value) in more.iter().filter(|(_, value)| !value.is_empty()) {
            answer = answer.header(*name, *value);
        }
        let mut outbox = Outbox::new();
        let answer = answer.body(()).unwrap().into_parts().0;
        let stays = outbox.begin_answer(&answer, &Asked::of(&request, true), body_bytes, now(0));
        (taken(&mut outbox), stays, outbox)
    }

    fn taken(outbox: &mut Outbox) -> String {
        let all = outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>();
        outbox.advance(all.len());
        String::from_utf8(all).unwrap()
    }

    fn now(seconds: u64) -> Now {
        Now { unix: Duration::from_secs(seconds), ..Now::read() }
    }

    const DATE_LINE: &str = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
}
