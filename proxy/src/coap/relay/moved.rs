//! Peers with sessions of DTLS that move: until one has shown that it is where its datagrams come from, little is sent
//! there. RFC 9146 §6

use std::hash::{BuildHasher, RandomState};

use super::{Relay, canonical};
use crate::coap::codec::decode;
use crate::coap::encode::encode_empty;
use crate::coap::message::{Code, Kind};
use crate::coap::session::Input;
use crate::coap::table::{Key, Name};
use crate::gate::Side;
use crate::transport::udp::Way;

/// What is known of a peer that has yet to show where it is: whoever has a session can write any address on its
/// datagrams. What it gets is bounded by what it sent, as in RFC 9000 §8.1, and it is pinged.
pub(super) struct Unproven {
    received: usize,
    sent: usize,
    /// The message identifier of the ping, which nobody knows who does not get it.
    ping: u16,
}

impl Unproven {
    fn new() -> Self {
        Self { received: 0, sent: 0, ping: random_id() }
    }

    fn receive(&mut self, message: &[u8]) {
        self.received = self.received.saturating_add(message.len() + RECORD_BYTES);
    }

    /// Counts what is about to be sent, if it may be.
    pub(super) fn may_send(&mut self, bytes: usize) -> bool {
        let sent = self.sent.saturating_add(bytes);
        let may = sent <= self.received.saturating_mul(AMPLIFICATION);
        if may {
            self.sent = sent;
        }
        may
    }

    /// Whether a message rejects the ping. There is one guess: who was wrong gets another. RFC 7252 §4.3
    fn is_proven_by(&mut self, message: &[u8]) -> bool {
        let Ok(message) = decode(message) else { return false };
        let is_rejection = message.kind == Kind::Reset && message.code == Code::EMPTY;
        let is_proven = is_rejection && message.id == self.ping;
        if is_rejection {
            self.ping = random_id();
        }
        is_proven
    }
}

impl Relay {
    /// Takes a message of a session; one that came with its handshake has no way.
    pub(super) fn take_message(&mut self, key: Key, way: Option<Way>, message: &[u8]) {
        let is_proof = way.is_some_and(|way| self.is_proof(key, way, message));
        if !is_proof {
            self.ping(key);
            self.input(key, Input::Datagram(Side::Client, message));
        }
        self.table.touch(key, self.now.instant);
    }

    /// A session's datagrams come from another address. It counts for that, and is judged by it, once it is shown to be
    /// there.
    pub(super) fn relocate(&mut self, key: Key, way: Way) {
        let Some(served) = self.table.get(key) else { return };
        served.way = way;
        served.unproven = Some(Box::new(Unproven::new()));
    }

    /// Whether a message shows that its peer is where it moved to.
    fn is_proof(&mut self, key: Key, way: Way, message: &[u8]) -> bool {
        let Some(served) = self.table.get(key).filter(|served| served.way.peer == way.peer) else {
            return false;
        };
        served.way = way;
        let Some(unproven) = &mut served.unproven else { return false };
        unproven.receive(message);
        let is_proof = unproven.is_proven_by(message);
        if is_proof {
            served.unproven = None;
            self.table.relocate(key, canonical(way.peer));
            self.input(key, Input::Moved(canonical(way.peer)));
        }
        is_proof
    }

    /// Asks a peer that has yet to show where it is; again with each message, as each may be lost.
    fn ping(&mut self, key: Key) {
        let Some(Name::Session(session)) = self.table.name(key) else { return };
        let (Some(served), Some(secured)) = (self.table.get(key), &mut self.secured) else { return };
        let Some(unproven) = &served.unproven else { return };
        let mut ping = Vec::new();
        encode_empty(Kind::Confirmable, unproven.ping, &mut ping);
        secured.send(session, &ping, &self.datagrams, (served, self.now));
    }
}

fn random_id() -> u16 {
    RandomState::new().hash_one(()) as u16
}

/// How many times what came from a place may be sent there. RFC 9000 §8.1
const AMPLIFICATION: usize = 3;

/// By which each record is longer than its message, at least: a header, and a tag or a nonce and half of one.
const RECORD_BYTES: usize = 13 + 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_as_much_is_sent_as_came() {
        let mut unproven = Unproven::new();
        assert!(!unproven.may_send(1));
        unproven.receive(&[0; 11]);
        assert!(unproven.may_send(100));
        assert!(!unproven.may_send(21), "what is not sent does not count");
        assert!(unproven.may_send(20));
        assert!(!unproven.may_send(1));
        unproven.receive(&[]);
        assert!(unproven.may_send(87));
    }

    #[test]
    fn only_the_ping_is_rejected_and_each_guess_is_about_another() {
        let mut unproven = Unproven::new();
        let said = |kind, id| {
            let mut said = Vec::new();
            encode_empty(kind, id, &mut said);
            said
        };
        let ping = unproven.ping;
        assert!(!unproven.is_proven_by(&said(Kind::Acknowledgement, ping)));
        assert!(!unproven.is_proven_by(&said(Kind::Confirmable, ping)));
        assert_eq!(unproven.ping, ping);
        let guesses = (0..64).map(|_| {
            assert!(!unproven.is_proven_by(&said(Kind::Reset, unproven.ping ^ 1)));
            unproven.ping
        });
        let guesses: std::collections::HashSet<_> = guesses.collect();
        assert!(guesses.len() > 32);
        assert!(unproven.is_proven_by(&said(Kind::Reset, unproven.ping)));
    }
}
