//! The peers of one socket: bounded, and with room for those who show who they are.

use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mgate_dtls::SessionId;

use super::session::Standing;
use crate::listener::{Admission, Bound, Permit};

/// The peers of one socket, and when each wants to be called.
pub(super) struct Table<P> {
    slots: Vec<Option<Box<Entry<P>>>>,
    /// Places in `slots` without a peer.
    free: Vec<usize>,
    at: HashMap<Name, usize>,
    /// Those who make room for others, in that order: strangers, then guests, then who is known and has nothing going
    /// on; of these two, who was quiet for longest.
    evictable: BTreeSet<(Standing, u64, usize)>,
    /// The same for each address, or network, that is bounded.
    evictable_at: BTreeSet<(Option<IpAddr>, Standing, u64, usize)>,
    timers: BTreeSet<(Instant, usize)>,
    admission: Admission,
    last_serial: u64,
}

/// What a peer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Where its datagrams come from.
    Address(SocketAddr),
    /// Its session of DTLS, which may move.
    Session(SessionId),
}

/// Names one peer for as long as it is in the table, and none that goes by the same later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    slot: usize,
    serial: u64,
}

struct Entry<P> {
    peer: P,
    name: Name,
    /// Whom it counts for.
    charged: Option<IpAddr>,
    serial: u64,
    standing: Standing,
    /// Grows when the peer says something.
    rank: u64,
    /// When it did so last.
    ranked_at: Option<Instant>,
    armed: Option<Instant>,
    permit: Permit,
}

/// As few words as may be: this is looked for with every datagram.
impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Address(address) => {
                match address.ip() {
                    IpAddr::V4(ip) => state.write_u32(ip.to_bits()),
                    IpAddr::V6(ip) => state.write_u128(ip.to_bits()),
                }
                state.write_u32(address.port().into());
            }
            Self::Session(session) => session.hash(state),
        }
    }
}

impl<P> Table<P> {
    /// A table without peers.
    pub(super) fn new(admission: Admission) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            at: HashMap::new(),
            evictable: BTreeSet::new(),
            evictable_at: BTreeSet::new(),
            timers: BTreeSet::new(),
            admission,
            last_serial: 0,
        }
    }

    /// A place for one more peer, if there is one.
    pub(super) fn admit(&self, address: SocketAddr) -> Result<Permit, Bound> {
        self.admission.admit(address.ip())
    }

    /// Who is the first to make room for a peer, so that a bound is kept with one more.
    pub(super) fn first_to_go(&self, address: SocketAddr, bound: Bound) -> Option<Key> {
        let first = match bound {
            Bound::Connections => self.evictable.first().map(|(.., slot)| *slot),
            Bound::ConnectionsPerAddress => {
                let charged = self.admission.charged(address.ip());
                let lowest = (charged, Standing::Stranger, 0, 0);
                let first = self.evictable_at.range(lowest..).next();
                first.filter(|(other, ..)| *other == charged).map(|(.., slot)| *slot)
            }
        };
        self.key(first?)
    }

    /// Adds a peer that has a place, goes by a name and comes from an address.
    pub(super) fn add(&mut self, (name, address): (Name, SocketAddr), peer: P, permit: Permit) -> Key {
        self.last_serial += 1;
        let serial = self.last_serial;
        let entry = Entry {
            peer,
            name,
            charged: self.admission.charged(address.ip()),
            serial,
            standing: Standing::Stranger,
            rank: serial,
            ranked_at: None,
            armed: None,
            permit,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(Box::new(entry));
        self.at.insert(name, slot);
        self.line_up(slot);
        Key { slot, serial }
    }

    /// A peer comes from another address, for which it counts if there may be one more.
    pub(super) fn relocate(&mut self, key: Key, address: SocketAddr) {
        let charged = self.admission.charged(address.ip());
        if self.entry(key).is_none() {
            return;
        }
        self.line_out(key.slot);
        if let Some(entry) = self.entry(key)
            && entry.permit.charge(address.ip()).is_ok()
        {
            entry.charged = charged;
        }
        self.line_up(key.slot);
    }

    /// The peer of a name.
    pub(super) fn at(&self, name: Name) -> Option<Key> {
        self.key(*self.at.get(&name)?)
    }

    /// What a peer goes by.
    pub(super) fn name(&mut self, key: Key) -> Option<Name> {
        Some(self.entry(key)?.name)
    }

    /// The peer that was named, if it is still there.
    pub(super) fn get(&mut self, key: Key) -> Option<&mut P> {
        Some(&mut self.entry(key)?.peer)
    }

    /// All peers.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.at.values().filter_map(|slot| self.key(*slot)).collect()
    }

    /// Keeps how much there is to a peer.
    pub(super) fn settle(&mut self, key: Key, standing: Standing) {
        if self.entry(key).is_some_and(|entry| entry.standing != standing) {
            self.place(key.slot, standing);
        }
    }

    /// A peer said something: of its standing, it is the last to go, give or take a moment. Strangers go in the order in
    /// which they came.
    pub(super) fn touch(&mut self, key: Key, now: Instant) {
        let Some(entry) = self.entry(key) else { return };
        let is_late = entry.ranked_at.is_none_or(|at| at + MOMENT <= now);
        let standing = entry.standing;
        if is_late && matches!(standing, Standing::Guest | Standing::Known) {
            entry.ranked_at = Some(now);
            self.place(key.slot, standing);
        }
    }

    /// Takes a peer away.
    pub(super) fn remove(&mut self, key: Key) -> Option<P> {
        self.entry(key)?;
        self.line_out(key.slot);
        let entry = self.slots[key.slot].take()?;
        self.free.push(key.slot);
        self.at.remove(&entry.name);
        if let Some(at) = entry.armed {
            self.timers.remove(&(at, key.slot));
        }
        Some(entry.peer)
    }

    /// Has a peer called no later than it wants to; earlier is no harm, so what moves on is left where it is.
    pub(super) fn arm(&mut self, key: Key, at: Option<Instant>) {
        let Some(entry) = self.entry(key) else { return };
        let Some(at) = at.filter(|at| entry.armed.is_none_or(|armed| *at < armed)) else { return };
        if let Some(armed) = entry.armed.replace(at) {
            self.timers.remove(&(armed, key.slot));
        }
        self.timers.insert((at, key.slot));
    }

    /// When the first peer is to be called.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// A peer whose time has come.
    pub(super) fn pop_timer(&mut self, now: Instant) -> Option<Key> {
        let (at, slot) = *self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, slot));
        let key = self.key(slot)?;
        self.entry(key)?.armed = None;
        Some(key)
    }

    fn key(&self, slot: usize) -> Option<Key> {
        let entry = self.slots.get(slot)?.as_ref()?;
        Some(Key { slot, serial: entry.serial })
    }

    fn entry(&mut self, key: Key) -> Option<&mut Entry<P>> {
        let entry = self.slots.get_mut(key.slot)?.as_deref_mut()?;
        (entry.serial == key.serial).then_some(entry)
    }

    /// Gives a peer the last place of its standing.
    fn place(&mut self, slot: usize, standing: Standing) {
        self.line_out(slot);
        self.last_serial += 1;
        if let Some(entry) = &mut self.slots[slot] {
            (entry.standing, entry.rank) = (standing, self.last_serial);
        }
        self.line_up(slot);
    }

    fn line_up(&mut self, slot: usize) {
        let Some(entry) = &self.slots[slot] else { return };
        let Entry { charged, standing, rank, .. } = **entry;
        if standing != Standing::Busy {
            self.evictable.insert((standing, rank, slot));
            self.evictable_at.insert((charged, standing, rank, slot));
        }
    }

    fn line_out(&mut self, slot: usize) {
        let Some(entry) = &self.slots[slot] else { return };
        let Entry { charged, standing, rank, .. } = **entry;
        if standing != Standing::Busy {
            self.evictable.remove(&(standing, rank, slot));
            self.evictable_at.remove(&(charged, standing, rank, slot));
        }
    }
}

/// How long a peer keeps its rank that says something all the time.
const MOMENT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use mgate_policies::Now;

    use super::*;
    use crate::listener::Bounds;

    #[test]
    fn ten_thousand_strangers_take_no_more_than_there_is() {
        let mut table = table(100, 100);
        let known = add(&mut table, address(0), 0).unwrap();
        table.settle(known, Standing::Known);
        for number in 1..10_000 {
            add(&mut table, address(number), number).unwrap();
            assert!(table.at.len() <= 100 && table.evictable.len() <= 100 && table.evictable_at.len() <= 100);
        }
        assert_eq!(table.get(known), Some(&mut 0));
        assert_eq!(table.at(named(address(1))), None);
        assert!(table.at(named(address(9_999))).is_some());
    }

    #[test]
    fn who_is_busy_is_not_pushed_out_and_bounds_hold() {
        let mut table = table(3, 2);
        for number in [0, 1] {
            let key = add(&mut table, SocketAddr::from((Ipv4Addr::LOCALHOST, number)), 0).unwrap();
            table.settle(key, Standing::Busy);
        }
        let third = add(&mut table, SocketAddr::from((Ipv4Addr::LOCALHOST, 3)), 0);
        assert_eq!(third, Err(Bound::ConnectionsPerAddress));
        let key = add(&mut table, address(1), 0).unwrap();
        table.settle(key, Standing::Busy);
        assert_eq!(add(&mut table, address(2), 0), Err(Bound::Connections));
        table.remove(key);
        assert!(add(&mut table, address(2), 0).is_ok());
    }

    #[test]
    fn guest_that_was_quiet_for_longest_makes_room_behind_strangers() {
        let mut table = table(3, 3);
        let [one, two] = [1, 2].map(|number| add(&mut table, address(number), number).unwrap());
        [one, two].iter().for_each(|key| table.settle(*key, Standing::Guest));
        table.touch(one, Now::read().instant);
        let stranger = add(&mut table, address(3), 3).unwrap();
        let four = add(&mut table, address(4), 4).unwrap();
        assert_eq!([stranger, two].map(|key| table.get(key).is_some()), [false, true]);
        table.settle(four, Standing::Known);
        let five = add(&mut table, address(5), 5).unwrap();
        assert_eq!([five, two, one].map(|key| table.get(key).is_some()), [true, false, true]);
    }

    #[test]
    fn who_is_known_and_quiet_makes_room_behind_all_others() {
        let mut table = table(5, 3);
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let [one, two, three] = [1, 2, 3].map(|port| add(&mut table, at(port), u32::from(port)).unwrap());
        [one, two, three].iter().for_each(|key| table.settle(*key, Standing::Known));
        table.touch(one, Now::read().instant);
        // of one address, then of all
        let four = add(&mut table, at(4), 4).unwrap();
        assert_eq!([two, one, three].map(|key| table.get(key).is_some()), [false, true, true]);
        table.settle(four, Standing::Busy);
        let others = [5, 6, 7].map(|number| add(&mut table, address(number), number).unwrap());
        assert_eq!([others[0], three].map(|key| table.get(key).is_some()), [false, true]);
        others.iter().for_each(|key| table.settle(*key, Standing::Known));
        let eight = add(&mut table, address(8), 8).unwrap();
        assert_eq!([three, one, four, eight].map(|key| table.get(key).is_some()), [false, true, true, true]);
    }

    #[test]
    fn ports_of_one_address_make_room_for_each_other_and_for_nobody_else() {
        let mut table = table(100, 3);
        let other = add(&mut table, address(1), 0).unwrap();
        let known = add(&mut table, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), 1).unwrap();
        table.settle(known, Standing::Known);
        for port in 2..100 {
            let key =
                add(&mut table, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), u32::from(port)).unwrap();
            table.settle(key, Standing::Guest);
            assert!(table.at.len() <= 4);
        }
        assert_eq!([other, known].map(|key| table.get(key).is_some()), [true, true]);
        let network = |host: u16| SocketAddr::from((Ipv6Addr::new(1, 2, 3, 4, 0, 0, 0, host), 5683));
        (0..10).for_each(|host| _ = add(&mut table, network(host), 0).unwrap());
        assert_eq!(table.at.len(), 7);
    }

    #[test]
    fn key_of_a_peer_that_is_gone_names_nobody() {
        let mut table = table(3, 3);
        let old = add(&mut table, address(1), 1).unwrap();
        assert_eq!(table.remove(old), Some(1));
        let new = add(&mut table, address(1), 2).unwrap();
        assert_eq!(table.get(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.get(new), Some(&mut 2));
        assert_eq!(table.at(named(address(1))), Some(new));
    }

    #[test]
    fn who_moves_keeps_its_place_and_counts_where_it_went() {
        let mut table = table(9, 1);
        let permit = table.admit(address(1)).unwrap();
        let key = table.add((named(address(9)), address(1)), 1, permit);
        table.settle(key, Standing::Busy);
        table.relocate(key, address(2));
        assert_eq!((table.at(named(address(9))), table.get(key)), (Some(key), Some(&mut 1)));
        assert!(add(&mut table, address(1), 0).is_ok());
        assert_eq!(add(&mut table, address(2), 0), Err(Bound::ConnectionsPerAddress));
        // where there is no room for it, it counts where it was
        table.relocate(key, address(1));
        table.settle(key, Standing::Known);
        assert!(add(&mut table, address(2), 0).is_ok());
        assert_eq!(table.get(key), None);
        assert_eq!((table.evictable.len(), table.evictable_at.len()), (2, 2));
    }

    #[test]
    fn peers_are_called_in_the_order_of_their_times() {
        let (mut table, now) = (table(9, 9), Now::read().instant);
        let at = |secs| Some(now + Duration::from_secs(secs));
        let [one, two, three] = [1, 2, 3].map(|number| add(&mut table, address(number), number).unwrap());
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

    /// Adds a peer for whom others make room, as the relay has it.
    fn add(table: &mut Table<u32>, address: SocketAddr, peer: u32) -> Result<Key, Bound> {
        let permit = loop {
            match table.admit(address) {
                Ok(permit) => break permit,
                Err(bound) => {
                    let first = table.first_to_go(address, bound).ok_or(bound)?;
                    table.remove(first);
                }
            }
        };
        Ok(table.add((named(address), address), peer, permit))
    }

    fn named(address: SocketAddr) -> Name {
        Name::Address(address)
    }

    fn address(number: u32) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + number), 5683))
    }
}
