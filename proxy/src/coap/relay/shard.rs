//! The shards of one route: each serves the peers that the kernel leads to its socket, and asks the others for what is
//! theirs.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tracing::warn;

use crate::transport::UdpListener;
use crate::transport::udp::Way;

/// One of the sockets that a route listens with, and the way to the others.
pub struct Shard {
    pub(super) listener: UdpListener,
    pub(super) siblings: Siblings,
}

/// The other shards of a route, as one of them sees them.
pub(super) struct Siblings {
    number: u8,
    /// Of all, its own too, in the order of their numbers.
    senders: Vec<mpsc::Sender<Passed>>,
    inbox: mpsc::Receiver<Passed>,
    lost: u64,
}

/// What one shard leaves to another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// A datagram that came to the wrong socket.
    Datagram(Way, Box<[u8]>),
    /// A peer at this address finds no place.
    Room(SocketAddr),
}

impl Shard {
    /// How many there are numbers for.
    pub const MAX: usize = 1 << u8::BITS;

    /// The shards that serve one address by these sockets.
    pub fn of(listeners: Vec<UdpListener>) -> Vec<Self> {
        let numbered: Vec<_> = (0..=u8::MAX).zip(listeners).collect();
        let (senders, inboxes): (Vec<_>, Vec<_>) = numbered.iter().map(|_| mpsc::channel(MAX_PASSED)).unzip();
        let shards = numbered.into_iter().zip(inboxes).map(|((number, listener), inbox)| {
            let siblings = Siblings { number, senders: senders.clone(), inbox, lost: 0 };
            Self { listener, siblings }
        });
        shards.collect()
    }
}

impl Siblings {
    /// Leaves a datagram to the shard that its peer belongs to; one that has too much to do loses it, as sockets do.
    pub(super) fn pass_datagram(&mut self, shard: u8, way: Way, datagram: &[u8]) {
        let sender = self.senders.get(usize::from(shard)).filter(|_| shard != self.number);
        if sender.is_none_or(|sender| sender.try_send(Passed::Datagram(way, datagram.into())).is_err()) {
            self.lost += 1;
            // told as often as it doubles: there may be a flood of them
            if self.lost.is_power_of_two() {
                warn!(shard, count = self.lost, "datagrams for another worker are lost");
            }
        }
    }

    /// Has the others make room for a peer, by those of theirs who make room for others. Whoever has too much to do
    /// need not: the peer will ask again.
    pub(super) fn ask_for_room(&self, address: SocketAddr) {
        let others = self.senders.iter().enumerate().filter(|(shard, _)| *shard != usize::from(self.number));
        others.for_each(|(_, sender)| drop(sender.try_send(Passed::Room(address))));
    }

    /// What another shard left to this one. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Passed> {
        self.inbox.recv().await
    }

    /// Which one this is.
    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// Whether there are others.
    pub(super) fn are_there(&self) -> bool {
        self.senders.len() > 1
    }
}

/// What waits for one shard.
const MAX_PASSED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_anothers_comes_to_it_and_is_bounded() {
        let [mut one, mut two] = shards();
        let way = Way { peer: "192.0.2.1:5683".parse().unwrap(), own: None };
        assert!(one.are_there());
        for number in 0..MAX_PASSED as u16 + 5 {
            one.pass_datagram(1, way, &number.to_be_bytes());
        }
        one.pass_datagram(0, way, b"its own");
        one.pass_datagram(2, way, b"nobody's");
        assert_eq!((one.lost, two.lost), (7, 0));
        for number in 0..MAX_PASSED as u16 {
            assert_eq!(two.next().await, Some(Passed::Datagram(way, number.to_be_bytes().into())));
        }
        two.ask_for_room(way.peer);
        assert_eq!(one.next().await, Some(Passed::Room(way.peer)));
        assert!(two.inbox.try_recv().is_err(), "nobody asks itself");
    }

    #[tokio::test]
    async fn shard_that_is_gone_loses_what_is_its_own() {
        let [mut one, two] = shards();
        drop(two);
        one.pass_datagram(1, Way { peer: "192.0.2.1:5683".parse().unwrap(), own: None }, b"late");
        assert_eq!(one.lost, 1);
    }

    fn shards() -> [Siblings; 2] {
        let listeners = UdpListener::bind_several("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let shards: Vec<_> = Shard::of(listeners).into_iter().map(|shard| shard.siblings).collect();
        shards.try_into().ok().unwrap()
    }
}
