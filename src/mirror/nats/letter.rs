//! One record on its way to NATS.

use std::fmt::Display;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use mgate_policies::Reason;
use tokio::sync::oneshot::Sender;

use crate::mirror::record::Record;

/// A record as it goes over the wire, and who waits for it.
pub(super) struct Letter {
    /// The session that it comes from; letters of one session keep their order.
    pub(super) session: SocketAddr,
    pub(super) subject: Box<str>,
    /// The block of headers, then the payload.
    pub(super) body: Vec<u8>,
    /// Where the payload begins in `body`.
    pub(super) payload_at: usize,
    /// When it was written, as time since the Unix epoch.
    pub(super) at: Duration,
    /// Who waits until it is stored; `None` where nobody does.
    pub(super) waiting: Option<Sender<Result<(), Reason>>>,
    /// Its place among all letters, and its key in the spool.
    pub(super) number: u64,
    /// Whether it is in the spool.
    pub(super) is_spooled: bool,
    /// How often NATS said that it does not store it.
    pub(super) refusals: u8,
}

impl Letter {
    /// Puts a record into an envelope; one without an identity gets `id`, so that NATS knows it again.
    pub(super) fn new(record: Record, session: SocketAddr, at: Duration, id: impl Display) -> Self {
        let lines = record.headers.as_bytes();
        let mut body = Vec::with_capacity(lines.len() + record.payload.len() + ROOM);
        body.extend_from_slice(VERSION);
        body.extend_from_slice(lines);
        if !has_identity(lines) {
            body.extend_from_slice(IDENTITY);
            // a vector takes everything
            let _ = write!(body, "{id}\r\n");
        }
        body.extend_from_slice(b"\r\n");
        let payload_at = body.len();
        body.extend_from_slice(&record.payload);
        Self {
            session,
            subject: record.subject,
            body,
            payload_at,
            at,
            waiting: None,
            number: 0,
            is_spooled: false,
            refusals: 0,
        }
    }

    /// The memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.body.capacity() + self.subject.len() + size_of::<Self>()
    }

    /// Whether somebody waited for it and does no longer.
    pub(super) fn is_given_up(&self) -> bool {
        self.waiting.as_ref().is_some_and(Sender::is_closed)
    }

    /// Tells who waits for it what became of it.
    pub(super) fn settle(&mut self, result: Result<(), Reason>) {
        if let Some(waiting) = self.waiting.take() {
            // whoever waited may have gone
            let _ = waiting.send(result);
        }
    }

    /// As it stands in the spool, without its number.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let session = self.session.to_string();
        let mut bytes = Vec::with_capacity(self.body.len() + self.subject.len() + session.len() + ROOM);
        bytes.extend_from_slice(&millis(self.at).to_be_bytes());
        for part in [session.as_bytes(), self.subject.as_bytes(), &self.body[..self.payload_at]] {
            // none of them is larger than a packet
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&self.body[self.payload_at..]);
        bytes
    }

    /// Reads what [`Letter::to_bytes`] wrote; `None` for anything else.
    pub(super) fn from_bytes(number: u64, mut bytes: &[u8]) -> Option<Self> {
        let at = Duration::from_millis(u64::from_be_bytes(*take(&mut bytes)?));
        let mut part = || {
            let length = u32::from_be_bytes(*take(&mut bytes)?);
            bytes.split_off(..usize::try_from(length).ok()?)
        };
        let [session, subject, head] = [part()?, part()?, part()?];
        Some(Self {
            session: str::from_utf8(session).ok()?.parse().ok()?,
            subject: str::from_utf8(subject).ok()?.into(),
            body: [head, bytes].concat(),
            payload_at: head.len(),
            at,
            waiting: None,
            number,
            is_spooled: true,
            refusals: 0,
        })
    }

    /// When a letter in the spool was written.
    pub(super) fn age_of(bytes: &[u8]) -> Option<Duration> {
        bytes.first_chunk().map(|millis| Duration::from_millis(u64::from_be_bytes(*millis)))
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(first)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn has_identity(lines: &[u8]) -> bool {
    // most dialects put it there, before all else
    lines.starts_with(IDENTITY) || lines.split(|byte| *byte == b'\n').any(|line| line.starts_with(IDENTITY))
}

/// NATS protocol, HPUB: the version line of headers.
const VERSION: &[u8] = b"NATS/1.0\r\n";
/// What JetStream knows a message by that is sent again.
const IDENTITY: &[u8] = b"Nats-Msg-Id: ";
/// More than all that is small.
const ROOM: usize = 96;

#[cfg(test)]
pub(super) mod tests {

    use super::*;
    use crate::mirror::record::Headers;

    #[test]
    fn spool_gives_back_what_it_was_given() {
        let letter = letter(7, "a.b", "payload");
        let read = Letter::from_bytes(9, &letter.to_bytes()).unwrap();
        assert_eq!((read.number, read.is_spooled, read.session), (9, true, letter.session));
        assert_eq!((read.at, &*read.subject), (letter.at, "a.b"));
        assert_eq!((&read.body, read.payload_at), (&letter.body, letter.payload_at));
        assert_eq!(Letter::age_of(&letter.to_bytes()), Some(letter.at));
    }

    #[test]
    fn what_is_cut_off_is_no_letter() {
        let bytes = letter(7, "a.b", "").to_bytes();
        for length in 0..bytes.len() {
            assert!(Letter::from_bytes(0, &bytes[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn identity_is_added_where_there_is_none() {
        let mut headers = Headers::default();
        headers.push("X", "Nats-Msg-Id: no");
        let mut record = Record { subject: "a".into(), headers, payload: b"x".to_vec() };
        let body = |record: &Record| {
            String::from_utf8(Letter::new(record.clone(), session(1), Duration::ZERO, 7).body).unwrap()
        };
        assert_eq!(body(&record), "NATS/1.0\r\nX: Nats-Msg-Id: no\r\nNats-Msg-Id: 7\r\n\r\nx");
        record.headers.push("Nats-Msg-Id", "own");
        assert_eq!(body(&record), "NATS/1.0\r\nX: Nats-Msg-Id: no\r\nNats-Msg-Id: own\r\n\r\nx");
    }

    /// A letter of the session `port`.
    pub(in crate::mirror::nats) fn letter(port: u16, subject: &str, payload: &str) -> Letter {
        let (headers, payload) = (Headers::default(), payload.as_bytes().to_vec());
        let record = Record { subject: subject.into(), headers, payload };
        Letter::new(record, session(port), Duration::from_millis(1_700_000_000_123), "id")
    }

    fn session(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}
