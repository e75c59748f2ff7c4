//! Has peers show that they are where they say, without remembering any of them. RFC 9175 §2

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use mgate_policies::Now;

use super::encode::encode_with;
use super::message::{Code, Kind, Message, MessageOption, number};

/// What makes the values of Echo options: only who got one can send it back.
#[derive(Clone, Default)]
pub(super) struct Challenges {
    keys: RandomState,
}

impl Challenges {
    /// Whether a request shows what its peer was sent not long ago.
    pub(super) fn is_met(&self, peer: SocketAddr, message: &Message<'_>, now: Now) -> bool {
        let Some(echo) = message.known.echo else { return false };
        let slot = slot(now);
        [slot, slot.saturating_sub(1)].iter().any(|slot| self.value(peer, *slot) == echo)
    }

    /// Appends the answer that asks for it: 10 bytes more than the shortest request. RFC 9175 §2.3
    pub(super) fn ask(&self, peer: SocketAddr, message: &Message<'_>, now: Now, out: &mut Vec<u8>) {
        let kind = match message.kind {
            Kind::Confirmable => Kind::Acknowledgement,
            _ => Kind::NonConfirmable,
        };
        let value = self.value(peer, slot(now));
        let option = MessageOption { number: number::ECHO, value: &value };
        encode_with(kind, Code::UNAUTHORIZED, (message.id, message.token), option, out);
    }

    fn value(&self, peer: SocketAddr, slot: u64) -> [u8; 8] {
        self.keys.hash_one((peer, slot)).to_be_bytes()
    }
}

fn slot(now: Now) -> u64 {
    now.unix.as_secs() / SLOT_SECS
}

/// A value is good for one to two of these.
const SLOT_SECS: u64 = 128;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::codec::decode;
    use super::*;

    #[test]
    fn only_who_was_asked_can_answer_and_not_for_ever() {
        let (challenges, now) = (Challenges::default(), Now::read());
        let asked = decode(GET).unwrap();
        assert!(!challenges.is_met(peer(1), &asked, now));
        let mut answer = Vec::new();
        challenges.ask(peer(1), &asked, now, &mut answer);
        assert_eq!(answer.len(), GET.len() + 10);
        let answer = decode(&answer).unwrap();
        assert_eq!((answer.kind, answer.id), (Kind::Acknowledgement, asked.id));
        // the same bytes in a request
        let again = [&[0x40, 1, 0, 2], answer.options.0].concat();
        let again = decode(&again).unwrap();
        assert!(challenges.is_met(peer(1), &again, now));
        assert!(challenges.is_met(peer(1), &again, now.later(Duration::from_secs(SLOT_SECS))));
        assert!(!challenges.is_met(peer(1), &again, now.later(Duration::from_secs(2 * SLOT_SECS))));
        assert!(!challenges.is_met(peer(2), &again, now));
        assert!(!Challenges::default().is_met(peer(1), &again, now));
    }

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    const GET: &[u8] = &[0x40, 1, 0, 1];
}
