//! One record on its way to NATS.

use std::net::SocketAddr;
use std::time::Duration;

use mgate_policies::Reason;
use tokio::sync::oneshot::Sender;

use crate::mirror::draft::Draft;
use crate::mirror::record::Record;

/// What goes over the wire as a record, and who waits for it.
pub(super) struct Letter {
    /// The session that it comes from; letters of one session keep their order.
    pub(super) session: SocketAddr,
    pub(super) draft: Draft,
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
    /// A record that nobody waits for.
    pub(super) fn new(draft: Draft, session: SocketAddr, at: Duration) -> Self {
        Self { session, draft, at, waiting: None, number: 0, is_spooled: false, refusals: 0 }
    }

    /// The memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.draft.capacity() + size_of::<Self>()
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
        let record = self.draft.record();
        let (subject, head, payload) = (record.subject_bytes(), record.head(), record.payload());
        let parts = [session.as_bytes(), subject, head];
        let length = parts.iter().map(|part| part.len() + size_of::<u32>()).sum::<usize>();
        let mut bytes = Vec::with_capacity(size_of::<u64>() + length + payload.len());
        bytes.extend_from_slice(&millis(self.at).to_be_bytes());
        for part in parts {
            // none of them is larger than a packet
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(payload);
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
        let session = str::from_utf8(session).ok()?.parse().ok()?;
        str::from_utf8(subject).ok()?;
        Some(Self {
            number,
            is_spooled: true,
            ..Self::new(Record::of_parts(subject, head, bytes).into(), session, at)
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

#[cfg(test)]
pub(super) mod tests {

    use super::*;

    #[test]
    fn spool_gives_back_what_it_was_given() {
        let letter = letter(7, "a.b", "payload");
        let read = Letter::from_bytes(9, &letter.to_bytes()).unwrap();
        assert_eq!((read.number, read.is_spooled, read.session), (9, true, letter.session));
        assert_eq!((read.at, read.draft), (letter.at, letter.draft.clone()));
        assert_eq!(Letter::age_of(&letter.to_bytes()), Some(letter.at));
    }

    #[test]
    fn what_is_cut_off_is_no_letter() {
        let bytes = letter(7, "a.b", "").to_bytes();
        for length in 0..bytes.len() {
            assert!(Letter::from_bytes(0, &bytes[..length]).is_none(), "{length}");
        }
    }

    /// A letter of the session `port`.
    pub(in crate::mirror::nats) fn letter(port: u16, subject: &str, payload: &str) -> Letter {
        let record =
            Record::of_parts(subject.as_bytes(), b"NATS/1.0\r\nNats-Msg-Id: id\r\n\r\n", payload.as_bytes());
        Letter::new(record.into(), session(port), Duration::from_millis(1_700_000_000_123))
    }

    fn session(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}
