//! What protects the records of one client from the exchange of keys on.

use std::ops::Range;

use crate::engine::Secrets;
use crate::keys::{Keys, SealError, key_block};
use crate::record::{ContentType, Head, Record};
use crate::replay::Window;

/// The id that a client puts into its records for us.
pub(super) type ConnectionId = [u8; super::CID_LENGTH];

/// Keys, numbers and connection ids of epoch 1, the only one that there is.
pub(super) struct Protection {
    keys: Keys,
    /// The number of our next record; no two have the same, whoever made their contents.
    next_sequence: u64,
    received: Window,
    /// What the client wants to find in our records; empty: nothing.
    peer_cid: Box<[u8]>,
}

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is not authentic.
    Forged,
    /// It is authentic.
    Plain {
        content_type: ContentType,
        /// Where its contents are.
        text: Range<usize>,
        /// Whether it is newer than all before it.
        is_newest: bool,
    },
    /// It came before, or is too old to know.
    Replayed,
}

impl Protection {
    pub(super) fn new(secrets: &Secrets, peer_cid: Box<[u8]>) -> Self {
        let Secrets { suite, master, client_random, server_random } = secrets;
        let keys = key_block(*suite, master, client_random, server_random);
        Self { keys, next_sequence: 0, received: Window::default(), peer_cid }
    }

    /// Decrypts a record where it stands; what cannot be opened is lost.
    pub(super) fn open(&mut self, datagram: &mut [u8], record: &Record) -> Opened {
        if !self.received.is_fresh(record.sequence) {
            return Opened::Replayed;
        }
        let Some((content_type, text)) = self.keys.client.open(datagram, record) else {
            return Opened::Forged;
        };
        Opened::Plain { content_type, text, is_newest: self.received.mark(record.sequence) }
    }

    /// Appends a record.
    pub(super) fn seal(
        &mut self,
        content_type: ContentType,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let head = Head { content_type, epoch: EPOCH, sequence: self.next_sequence, cid: &self.peer_cid };
        self.keys.server.seal(&head, plaintext, out)?;
        self.next_sequence += 1;
        Ok(())
    }
}

/// The epoch of protected records: without renegotiation there is no other.
pub(super) const EPOCH: u16 = 1;

#[cfg(test)]
pub(super) mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::record::{MAX_SEQUENCE, records};
    use crate::suite::Suite;

    #[test]
    fn no_record_is_sealed_when_the_numbers_are_used_up() {
        let mut protection = Protection { next_sequence: MAX_SEQUENCE, ..protection() };
        let mut out = Vec::new();
        protection.seal(ContentType::ApplicationData, b"last", &mut out).unwrap();
        let length = out.len();
        let sealed = protection.seal(ContentType::ApplicationData, b"one more", &mut out);
        assert_eq!((sealed, out.len()), (Err(SealError::Exhausted), length));
    }

    #[test]
    fn a_record_is_opened_once() {
        let mut protection = protection();
        let mut datagram = Vec::new();
        let head = Head { content_type: ContentType::Alert, epoch: EPOCH, sequence: 7, cid: &[] };
        protection.keys.client.seal(&head, &[1, 0], &mut datagram).unwrap();
        let record = records(&datagram, 0).next().unwrap();
        let mut copy = datagram.clone();
        let opened = protection.open(&mut copy, &record);
        assert!(matches!(opened, Opened::Plain { content_type: ContentType::Alert, is_newest: true, .. }));
        assert_eq!(protection.open(&mut datagram, &record), Opened::Replayed);
    }

    pub(in crate::endpoint) fn protection() -> Protection {
        let secrets = Secrets {
            suite: Suite::Aes128Ccm8,
            master: Zeroizing::new([1; 48]),
            client_random: [2; 32],
            server_random: [3; 32],
        };
        Protection::new(&secrets, Box::default())
    }
}
