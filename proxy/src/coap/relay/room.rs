//! Who gets a place among the peers, and who makes room for it.

use std::net::SocketAddr;

use tracing::{debug, warn};

use super::asked::Served;
use super::shard::{Passed, Wish};
use super::{Relay, canonical};
use crate::coap::session::{Context, Input, Peer, Session};
use crate::coap::table::{Key, Name};
use crate::listener::{Bound, Permit};
use crate::transport::udp::Way;

impl Relay {
    /// The session of a peer that has none, if its datagram begins one and there is a place at once.
    pub(super) fn admit(&mut self, way: Way, address: SocketAddr, datagram: &[u8]) -> Option<Key> {
        let mut context = Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        let is_admitted = Session::admits(datagram, address, &mut context);
        self.out.iter().for_each(|(_, answer)| _ = self.datagrams.send(way, answer));
        self.out.clear();
        if !is_admitted {
            return None;
        }
        match self.make_room(address) {
            Ok(permit) => Some(self.add(way, address, permit)),
            Err(bound) => {
                if !self.siblings.wish(way, Some(datagram)) {
                    self.refuse(address, bound);
                }
                None
            }
        }
    }

    /// A place for one more peer. Where there are as many as there may be, one that need not be there leaves.
    pub(super) fn make_room(&mut self, address: SocketAddr) -> Result<Permit, Bound> {
        // one who has gone for all may have left too many of one address
        for _ in 0..2 {
            let bound = match self.table.admit(address) {
                Ok(permit) => return Ok(permit),
                Err(bound) => bound,
            };
            let first = self.table.first_to_go(address, bound).ok_or(bound)?;
            self.input(first, Input::Displaced);
            self.forget(first);
        }
        self.table.admit(address)
    }

    /// There is no place for a peer; it may ask again.
    pub(super) fn refuse(&self, address: SocketAddr, bound: Bound) {
        debug!(route = %self.endpoint.gate.route, peer = %address, %bound, "request refused");
        let count = self.siblings.count_refusal();
        // told as often as it doubles: there may be a flood of them
        if count.is_power_of_two() {
            warn!(route = %self.endpoint.gate.route, count, %bound, "requests refused");
        }
    }

    /// Takes what another shard left to this one.
    pub(super) fn take_passed(&mut self, passed: Passed) {
        match passed {
            Passed::Datagram(way, datagram) => self.take_datagram(way, &datagram),
            Passed::Wish(wish) => self.take_wish(wish),
            Passed::Place(wish, permit) => self.take_place(wish, permit),
        }
    }

    /// Makes room for a peer of another shard, or has the next one do it.
    fn take_wish(&mut self, wish: Wish) {
        let (address, is_request) = (canonical(wish.way.peer), wish.datagram.is_some());
        let refused = match self.make_room(address) {
            // who was refused and begins anew finds it
            Ok(_) if !is_request => return,
            Ok(permit) if self.siblings.is_own(&wish) => return self.take_place(wish, permit),
            Ok(permit) => (!self.siblings.hand_over(wish, permit)).then_some(Bound::Connections),
            Err(bound) => (!self.siblings.pass_wish(wish)).then_some(bound),
        };
        if let Some(bound) = refused.filter(|_| is_request) {
            self.refuse(address, bound);
        }
    }

    /// A peer has a place that found none; unless an earlier request of its got one.
    fn take_place(&mut self, wish: Wish, permit: Permit) {
        let Wish { way, datagram: Some(datagram), .. } = wish else { return };
        let address = canonical(way.peer);
        let key = match self.table.at(Name::Address(address)) {
            Some(key) => key,
            None => self.add(way, address, permit),
        };
        self.take_request(key, way, &datagram);
    }

    fn add(&mut self, way: Way, address: SocketAddr, permit: Permit) -> Key {
        let peer = Peer { address, certificate: None, psk_identity: None, is_encrypted: false };
        let session = Session::new(&self.endpoint, peer, self.now);
        self.table.add((Name::Address(address), address), Served::new(session, way), permit)
    }
}
