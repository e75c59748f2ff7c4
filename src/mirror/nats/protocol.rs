//! The protocol of NATS, as far as a publisher needs it. <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::letter::Letter;
use crate::neighbour::nats::NatsLogin;

/// Something that the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// It reports an error; most of them end the connection.
    Error(&'a str),
    /// What it is and wants.
    Info(&'a str),
    Message {
        subject: &'a str,
        /// The code in its first line of headers, such as 503 if nobody answers; `None` where there is none.
        status: Option<u16>,
        payload: &'a [u8],
    },
    Ok,
    Ping,
    Pong,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    /// The largest message that it takes; `None` if it does not say.
    pub(super) max_payload: Option<usize>,
    pub(super) wants_tls: bool,
    pub(super) has_headers: bool,
    nonce: String,
}

/// What came is not the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotNats;

/// The first frame, and how many bytes it takes; `None` while it is not whole.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, NotNats> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() > MAX_LINE { Err(NotNats) } else { Ok(None) };
    };
    let line = str::from_utf8(&bytes[..end]).map_err(|_| NotNats)?.trim_end();
    let at = end + 1;
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let frame = match verb {
        "PING" => Frame::Ping,
        "PONG" => Frame::Pong,
        "+OK" => Frame::Ok,
        "-ERR" => Frame::Error(rest.trim().trim_matches('\'')),
        "INFO" => Frame::Info(rest),
        "MSG" | "HMSG" => return parse_message(bytes, at, rest, verb == "HMSG"),
        _ => return Err(NotNats),
    };
    Ok(Some((frame, at)))
}

fn parse_message<'a>(
    bytes: &'a [u8],
    at: usize,
    words: &'a str,
    has_headers: bool,
) -> Result<Option<(Frame<'a>, usize)>, NotNats> {
    let mut words = words.split_ascii_whitespace();
    let subject = words.next().ok_or(NotNats)?;
    let size = |word: Option<&str>| word.and_then(|word| word.parse::<usize>().ok()).ok_or(NotNats);
    let all = size(words.next_back())?;
    let head = if has_headers { size(words.next_back())? } else { 0 };
    if all > MAX_MESSAGE || head > all {
        return Err(NotNats);
    }
    let Some(body) = bytes.get(at..at + all + 2) else { return Ok(None) };
    let (headers, payload) = body[..all].split_at(head);
    let frame = Frame::Message { subject, status: status(headers), payload };
    Ok(Some((frame, at + all + 2)))
}

/// `NATS/1.0 503`
fn status(headers: &[u8]) -> Option<u16> {
    let line = headers.split(|byte| *byte == b'\r').next()?;
    str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok()
}

impl Info {
    pub(super) fn parse(text: &str) -> Result<Self, NotNats> {
        let value: Value = serde_json::from_str(text).map_err(|_| NotNats)?;
        let is = |key: &str| value[key].as_bool().unwrap_or_default();
        let max_payload = value["max_payload"].as_u64().and_then(|bytes| usize::try_from(bytes).ok());
        Ok(Self {
            max_payload,
            wants_tls: is("tls_required"),
            has_headers: is("headers"),
            nonce: value["nonce"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// The largest message, as far as what comes before TLS can be believed.
    pub(super) fn first_max_payload(&self, is_encrypted_now: bool) -> usize {
        let max_payload = self.max_payload.unwrap_or(DEFAULT_MAX_PAYLOAD);
        // plain text may be forged: naming next to nothing would empty the spool, as too large for the server
        if is_encrypted_now { max_payload.max(LEAST_BEFORE_TLS) } else { max_payload }
    }

    /// The answer to it: who mgate is, and how it speaks.
    pub(super) fn connect(&self, login: &NatsLogin, is_encrypted: bool) -> Result<Vec<u8>, &'static str> {
        let mut options = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "echo": false,
            "protocol": 1, "lang": "rust", "name": "mgate", "version": env!("CARGO_PKG_VERSION"),
            "tls_required": is_encrypted,
        });
        match login {
            NatsLogin::None => {}
            NatsLogin::Token(token) => options["auth_token"] = json!(token),
            NatsLogin::User(user, password) => {
                options["user"] = json!(user);
                options["pass"] = json!(password);
            }
            NatsLogin::Seed(seed) => self.sign(&mut options, seed, None)?,
            NatsLogin::Credentials(text) => {
                let jwt = decorated(text, "JWT").ok_or("the credentials have no JWT")?;
                let seed = decorated(text, "SEED").ok_or("the credentials have no seed")?;
                self.sign(&mut options, seed, Some(jwt))?;
            }
        }
        Ok(format!("CONNECT {options}\r\nPING\r\n").into_bytes())
    }

    fn sign(&self, options: &mut Value, seed: &str, jwt: Option<&str>) -> Result<(), &'static str> {
        let pair = KeyPair::from_seed(seed).map_err(|_| "the seed is none of a user's NKey")?;
        let signature = pair.sign(self.nonce.as_bytes()).map_err(|_| "the NKey cannot sign")?;
        options["sig"] = json!(URL_SAFE_NO_PAD.encode(signature));
        match jwt {
            Some(jwt) => options["jwt"] = json!(jwt),
            None => options["nkey"] = json!(pair.public_key()),
        }
        Ok(())
    }
}

/// Appends a publication; `reply` is where the answer goes.
pub(super) fn publish(out: &mut Vec<u8>, letter: &Letter, reply: Option<fmt::Arguments<'_>>) {
    let (mut head, mut all) = (Decimal::default(), Decimal::default());
    out.extend_from_slice(b"HPUB ");
    out.extend_from_slice(letter.draft.subject_bytes());
    if let Some(reply) = reply {
        out.push(b' ');
        append(out, reply);
    }
    out.push(b' ');
    out.extend_from_slice(head.of(letter.draft.head_len()));
    out.push(b' ');
    out.extend_from_slice(all.of(letter.draft.body_len()));
    out.extend_from_slice(b"\r\n");
    letter.draft.write_body(out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a request without headers.
pub(super) fn request(out: &mut Vec<u8>, subject: &str, reply: &str, payload: &str) {
    append(out, format_args!("PUB {subject} {reply} {}\r\n{payload}\r\n", payload.len()));
}

pub(super) fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // a vector takes everything
    let _ = std::io::Write::write_fmt(out, text);
}

/// A number as text: faster than what formats anything.
#[derive(Default)]
struct Decimal([u8; 20]);

impl Decimal {
    fn of(&mut self, mut number: usize) -> &[u8] {
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b"0123456789"[number % 10];
            number /= 10;
            if number == 0 {
                return &self.0[at..];
            }
        }
    }
}

/// The line behind the one that begins with dashes and names `what`.
fn decorated<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(what))?;
    lines.find(|line| !line.is_empty())
}

/// More than any server says in one line.
const MAX_LINE: usize = 256 * 1024;
/// More than any answer to a publisher.
const MAX_MESSAGE: usize = 1024 * 1024;
const DEFAULT_MAX_PAYLOAD: usize = 1024 * 1024;
/// The least that a greeting in plain text can make of the largest message of a connection that then uses TLS. Servers
/// do not repeat their greeting behind TLS; one that takes less closes the connection on what is larger.
const LEAST_BEFORE_TLS: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn frames_are_read_as_soon_as_they_are_whole() {
        let none = b"HMSG _INBOX.a.7 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n".as_slice();
        let no_responders = Frame::Message { subject: "_INBOX.a.7", status: Some(503), payload: b"" };
        let stored = Frame::Message { subject: "_INBOX.a.8", status: None, payload: b"{}" };
        for (bytes, frame) in [
            (b"PING\r\n".as_slice(), Frame::Ping),
            (b"PONG\r\n", Frame::Pong),
            (b"+OK\r\n", Frame::Ok),
            (b"-ERR 'Stale Connection'\r\n", Frame::Error("Stale Connection")),
            (b"INFO {\"a\":1} \r\n", Frame::Info("{\"a\":1}")),
            (none, no_responders),
            (b"MSG _INBOX.a.8 1 2\r\n{}\r\n", stored),
            (b"MSG _INBOX.a.8 1 reply 2\r\n{}\r\n", stored),
        ] {
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length]), Ok(None), "{frame:?} at {length}");
            }
            let more = [bytes, b"PING\r\n"].concat();
            assert_eq!(parse(&more), Ok(Some((frame, bytes.len()))));
        }
    }

    #[test]
    fn what_is_no_frame_ends_it() {
        for bytes in
            ["HTTP/1.1 400\r\n", "MSG a\r\n", "MSG a 1 x\r\n", "HMSG a 1 5 4\r\n", "MSG a 1 1048577\r\n"]
        {
            assert_eq!(parse(bytes.as_bytes()), Err(NotNats), "{bytes}");
        }
        assert_eq!(parse(&[b'a'; MAX_LINE + 1]), Err(NotNats));
    }

    #[test]
    fn plain_text_before_tls_makes_no_letter_of_normal_size_too_large() {
        let first = |text: &str, is_encrypted| Info::parse(text).unwrap().first_max_payload(is_encrypted);
        let small = "{\"max_payload\":1}";
        assert_eq!((first(small, true), first(small, false)), (64 * 1024, 1));
        assert_eq!(first("{\"max_payload\":8388608}", true), 8 * 1024 * 1024);
        assert_eq!((first("{}", true), first("{}", false)), (DEFAULT_MAX_PAYLOAD, DEFAULT_MAX_PAYLOAD));
    }

    #[test]
    fn publication_says_where_headers_end() {
        let mut out = Vec::new();
        publish(&mut out, &letter(1, "a.b", "xyz"), Some(format_args!("_INBOX.{}", 7)));
        let text = "HPUB a.b _INBOX.7 29 32\r\nNATS/1.0\r\nNats-Msg-Id: id\r\n\r\nxyz\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }

    #[test]
    fn credentials_are_found_between_their_lines() {
        let text = "-----BEGIN NATS USER JWT-----\nabc.def\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\
                    -----BEGIN USER NKEY SEED-----\nSUAB\n------END USER NKEY SEED------\n";
        assert_eq!((decorated(text, "JWT"), decorated(text, "SEED")), (Some("abc.def"), Some("SUAB")));
    }
}
