//! The peers of one socket: bounded, and with room for those who may over those who only knock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use crate::listener::{Admission, Bound, Permit};

/// The peers of one socket, and when each wants to be called.
pub(super) struct Table<P> {
    peers: HashMap<SocketAddr, Entry<P>>,
    /// Those of whom nothing was allowed yet, oldest first: they make room for others.
    strangers: BTreeMap<u64, SocketAddr>,
    timers: BTreeSet<(Instant, SocketAddr)>,
    admission: Admission,
    last_serial: u64,
}

/// Names one peer for as long as it is in the table, and none that comes from the same address later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    address: SocketAddr,
    serial: u64,
}

struct Entry<P> {
    peer: P,
    serial: u64,
    armed: Option<Instant>,
    _permit: Permit,
}

impl<P> Table<P> {
    pub(super) fn new(admission: Admission) -> Self {
        Self {
            peers: HashMap::new(),
            strangers: BTreeMap::new(),
            timers: BTreeSet::new(),
            admission,
            last_serial: 0,
        }
    }

    /// Adds a peer. Where there are as many as there may be, the stranger that came first makes room.
    pub(super) fn add(&mut self, address: SocketAddr, peer: P) -> Result<Key, Bound> {
        let ip = address.ip();
        let permit = self.admission.admit(ip).or_else(|bound| match self.oldest_stranger() {
            Some(oldest) if bound == Bound::Connections => {
                self.remove(oldest);
                self.admission.admit(ip)
            }
            _ => Err(bound),
        })?;
        self.last_serial += 1;
        let serial = self.last_serial;
        self.strangers.insert(serial, address);
        self.peers.insert(address, Entry { peer, serial, armed: None, _permit: permit });
        Ok(Key { address, serial })
    }

    /// The peer at an address.
    pub(super) fn at(&self, address: SocketAddr) -> Option<Key> {
        self.peers.get(&address).map(|entry| Key { address, serial: entry.serial })
    }

    /// The peer that was named, if it is still there.
    pub(super) fn get(&mut self, key: Key) -> Option<&mut P> {
        let entry = self.peers.get_mut(&key.address).filter(|entry| entry.serial == key.serial)?;
        Some(&mut entry.peer)
    }

    /// All peers.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.peers.iter().map(|(address, entry)| Key { address: *address, serial: entry.serial }).collect()
    }

    /// Something was allowed: this one need not make room.
    pub(super) fn welcome(&mut self, key: Key) {
        self.strangers.remove(&key.serial);
    }

    /// Takes a peer away.
    pub(super) fn remove(&mut self, key: Key) -> Option<P> {
        self.get(key)?;
        let entry = self.peers.remove(&key.address)?;
        self.strangers.remove(&key.serial);
        if let Some(at) = entry.armed {
            self.timers.remove(&(at, key.address));
        }
        Some(entry.peer)
    }

    /// Has a peer called no later than it wants to; earlier is no harm, so what moves on is left where it is.
    pub(super) fn arm(&mut self, key: Key, at: Option<Instant>) {
        let Some(entry) = self.peers.get_mut(&key.address).filter(|entry| entry.serial == key.serial) else {
            return;
        };
        let Some(at) = at.filter(|at| entry.armed.is_none_or(|armed| *at < armed)) else { return };
        if let Some(armed) = entry.armed.replace(at) {
            self.timers.remove(&(armed, key.address));
        }
        self.timers.insert((at, key.address));
    }

    /// When the first peer is to be called.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A peer whose time has come.
    pub(super) fn pop_timer(&mut self, now: Instant) -> Option<Key> {
        let (at, address) = *self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, address));
        let entry = self.peers.get_mut(&address)?;
        entry.armed = None;
        Some(Key { address, serial: entry.serial })
    }

    fn oldest_stranger(&self) -> Option<Key> {
        let (serial, address) = self.strangers.first_key_value()?;
        Some(Key { address: *address, serial: *serial })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use mgate_policies::Now;

    use super::*;
    use crate::listener::Bounds;

    #[test]
    fn ten_thousand_strangers_take_no_more_than_there_is() {
        let mut table = table(100, 100);
        let known = table.add(address(0), 0).unwrap();
        table.welcome(known);
        for number in 1..10_000 {
            table.add(address(number), number).unwrap();
            assert!(table.peers.len() <= 100 && table.strangers.len() <= 100);
        }
        assert_eq!(table.get(known), Some(&mut 0));
        assert_eq!(table.at(address(1)), None);
        assert!(table.at(address(9_999)).is_some());
    }

    #[test]
    fn who_may_is_not_pushed_out_and_bounds_of_addresses_hold() {
        let mut table = table(3, 2);
        for number in [0, 1] {
            let key = table.add(SocketAddr::from((Ipv4Addr::LOCALHOST, number)), 0).unwrap();
            table.welcome(key);
        }
        let third = table.add(SocketAddr::from((Ipv4Addr::LOCALHOST, 3)), 0);
        assert_eq!(third, Err(Bound::ConnectionsPerAddress));
        let key = table.add(address(1), 0).unwrap();
        table.welcome(key);
        assert_eq!(table.add(address(2), 0), Err(Bound::Connections));
        table.remove(key);
        assert!(table.add(address(2), 0).is_ok());
    }

    #[test]
    fn key_of_a_peer_that_is_gone_names_nobody() {
        let mut table = table(3, 3);
        let old = table.add(address(1), 1).unwrap();
        assert_eq!(table.remove(old), Some(1));
        let new = table.add(address(1), 2).unwrap();
        assert_eq!(table.get(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.get(new), Some(&mut 2));
        assert_eq!(table.at(address(1)), Some(new));
    }

    #[test]
    fn peers_are_called_in_the_order_of_their_times() {
        let (mut table, now) = (table(9, 9), Now::read().instant);
        let at = |secs| Some(now + Duration::from_secs(secs));
        let [one, two, three] = [1, 2, 3].map(|number| table.add(address(number), number).unwrap());
        table.arm(one, at(5));
        table.arm(two, at(3));
        table.arm(three, at(1));
        table.arm(one, at(2));
        table.arm(two, at(9));
        table.remove(three);
        assert_eq!(table.next_timer(), at(2));
        assert_eq!(table.pop_timer(now), None);
        let later = now + Duration::from_secs(4);
        assert_eq!(
            [table.pop_timer(later), table.pop_timer(later), table.pop_timer(later)],
            [Some(one), Some(two), None]
        );
    }

    fn table(connections: usize, connections_per_address: usize) -> Table<u32> {
        Table::new(Admission::new(Bounds { connections, connections_per_address }, Vec::new()))
    }

    fn address(number: u32) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + number), 5683))
    }
}
