//! The shards of one route: each serves the peers that the kernel leads to its socket, and asks the others for what is
//! theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tracing::warn;

use crate::listener::Permit;
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
    counts: Arc<Counts>,
    lost: u64,
}

/// What one shard leaves to another.
pub(super) enum Passed {
    /// A datagram that came to the wrong socket.
    Datagram(Way, Box<[u8]>),
    /// A peer finds no place.
    Wish(Wish),
    /// A place for the peer that found none.
    Place(Wish, Permit),
}

/// What a peer that finds no place is waiting for; it goes from one shard to the next.
pub(super) struct Wish {
    /// Whose peer it is.
    shard: u8,
    pub(super) way: Way,
    /// What it began with; `None` for a peer that begins anew.
    pub(super) datagram: Option<Box<[u8]>>,
    /// How often it may go round once more.
    rounds: u8,
    /// How many places had changed hands when it last set out.
    handed_over: u64,
}

/// What all shards of a route count together.
#[derive(Default)]
struct Counts {
    /// Places that one shard made for a peer of another.
    handed_over: AtomicU64,
    refused: AtomicU64,
}

impl Shard {
    /// How many there are numbers for.
    pub const MAX: usize = 1 << u8::BITS;

    /// The shards that serve one address by these sockets.
    pub fn of(listeners: Vec<UdpListener>) -> Vec<Self> {
        let numbered: Vec<_> = (0..=u8::MAX).zip(listeners).collect();
        let (senders, inboxes): (Vec<_>, Vec<_>) = numbered.iter().map(|_| mpsc::channel(MAX_PASSED)).unzip();
        let counts = Arc::new(Counts::default());
        let shards = numbered.into_iter().zip(inboxes).map(|((number, listener), inbox)| {
            let (senders, counts) = (senders.clone(), Arc::clone(&counts));
            Self { listener, siblings: Siblings { number, senders, inbox, counts, lost: 0 } }
        });
        shards.collect()
    }
}

impl Siblings {
    /// Leaves a datagram to the shard that its peer belongs to; one that has too much to do loses it, as sockets do.
    pub(super) fn pass_datagram(&mut self, shard: u8, way: Way, datagram: &[u8]) {
        if !self.pass(shard, Passed::Datagram(way, datagram.into())) {
            self.lost += 1;
            // told as often as it doubles: there may be a flood of them
            if self.lost.is_power_of_two() {
                warn!(shard, count = self.lost, "datagrams for another worker are lost");
            }
        }
    }

    /// Has one after the other look for a place for a peer, and this one again as the last. Says whether anybody does.
    pub(super) fn wish(&self, way: Way, datagram: Option<&[u8]>) -> bool {
        let (datagram, handed_over) = (datagram.map(Into::into), self.handed_over());
        self.are_there()
            && self.pass_on(Wish { shard: self.number, way, datagram, rounds: MAX_ROUNDS, handed_over })
    }

    /// Has the next one look for a place, where this one has none. What went round goes on only if a place changed
    /// hands meanwhile, which may have been on its way past. Says whether anybody looks.
    pub(super) fn pass_wish(&self, mut wish: Wish) -> bool {
        if self.is_own(&wish) {
            let handed_over = self.handed_over();
            if wish.rounds == 0 || wish.handed_over == handed_over {
                return false;
            }
            (wish.rounds, wish.handed_over) = (wish.rounds - 1, handed_over);
        }
        self.pass_on(wish)
    }

    /// Gives a place to the shard whose peer wants it; `false` if that has too much to do.
    pub(super) fn hand_over(&self, wish: Wish, place: Permit) -> bool {
        let is_taken = self.pass(wish.shard, Passed::Place(wish, place));
        // no earlier: who counts it finds the place there
        self.counts.handed_over.fetch_add(1, Ordering::AcqRel);
        is_taken
    }

    /// Whether a wish is this shard's own.
    pub(super) fn is_own(&self, wish: &Wish) -> bool {
        wish.shard == self.number
    }

    /// Counts what all shards refuse.
    pub(super) fn count_refusal(&self) -> u64 {
        self.counts.refused.fetch_add(1, Ordering::Relaxed) + 1
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

    /// Whether there is another one of that number.
    pub(super) fn has_other(&self, shard: u8) -> bool {
        shard != self.number && usize::from(shard) < self.senders.len()
    }

    fn pass_on(&self, wish: Wish) -> bool {
        let is_last = usize::from(self.number) + 1 == self.senders.len();
        self.pass(if is_last { 0 } else { self.number + 1 }, Passed::Wish(wish))
    }

    fn pass(&self, shard: u8, passed: Passed) -> bool {
        self.senders.get(usize::from(shard)).is_some_and(|sender| sender.try_send(passed).is_ok())
    }

    fn handed_over(&self) -> u64 {
        self.counts.handed_over.load(Ordering::Acquire)
    }
}

/// What waits for one shard.
const MAX_PASSED: usize = 256;

/// How often a wish goes round once more.
const MAX_ROUNDS: u8 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::{Admission, Bounds};

    #[tokio::test]
    async fn what_is_anothers_comes_to_it_and_is_bounded() {
        let [mut one, mut two] = shards();
        for number in 0..MAX_PASSED as u16 + 5 {
            one.pass_datagram(1, way(), &number.to_be_bytes());
        }
        assert_eq!((one.lost, two.lost), (5, 0));
        assert_eq!([0, 1, 2].map(|shard| one.has_other(shard)), [false, true, false]);
        assert!(!one.wish(way(), None), "there is no room for it");
        for number in 0..MAX_PASSED as u16 {
            let came = two.next().await.unwrap();
            assert!(matches!(came, Passed::Datagram(_, datagram) if *datagram == number.to_be_bytes()));
        }
        assert!(two.inbox.try_recv().is_err());
    }

    #[tokio::test]
    async fn wish_goes_round_for_as_long_as_places_change_hands() {
        let [mut one, mut two] = shards();
        assert!(one.wish(way(), Some(b"request")));
        for is_handed_over in [true, true, false] {
            let Some(Passed::Wish(wish)) = two.next().await else { panic!("the other one is asked") };
            assert!(!two.is_own(&wish) && two.pass_wish(wish));
            let Some(Passed::Wish(wish)) = one.next().await else { panic!("it comes back") };
            assert!(one.is_own(&wish));
            if is_handed_over {
                assert!(one.wish(way(), None));
                let Some(Passed::Wish(other)) = two.next().await else { panic!("the other one is asked") };
                assert!(two.hand_over(other, place()));
                assert!(matches!(one.next().await, Some(Passed::Place(..))));
            }
            assert_eq!(one.pass_wish(wish), is_handed_over);
        }
        assert!(two.inbox.try_recv().is_err());
    }

    #[tokio::test]
    async fn shard_that_is_gone_loses_what_is_its_own() {
        let [mut one, two] = shards();
        drop(two);
        one.pass_datagram(1, way(), b"late");
        assert_eq!(one.lost, 1);
        assert!(!one.wish(way(), None));
    }

    #[tokio::test]
    async fn refusals_are_counted_together() {
        let [one, two] = shards();
        assert_eq!([one.count_refusal(), two.count_refusal(), one.count_refusal()], [1, 2, 3]);
    }

    fn way() -> Way {
        Way { peer: "192.0.2.1:5683".parse().unwrap(), own: None }
    }

    fn place() -> Permit {
        let bounds = Bounds { connections: 1, connections_per_address: 1 };
        Admission::new(bounds, Vec::new()).admit(way().peer.ip()).ok().unwrap()
    }

    fn shards() -> [Siblings; 2] {
        let listeners = UdpListener::bind_several("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let shards: Vec<_> = Shard::of(listeners).into_iter().map(|shard| shard.siblings).collect();
        shards.try_into().ok().unwrap()
    }
}
