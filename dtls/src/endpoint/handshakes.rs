//! The table of handshakes that go on: bounded, and each with a timer.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::event::{HandshakeFault, HandshakeId};
use super::flight::Sender;
use super::outbox::Outbox;
use super::protection::{ConnectionId, Opened, Protection};
use crate::engine::{Flight, Handshake};
use crate::record::{ContentType, records};

/// A client whose handshake goes on.
pub(super) struct Pending {
    pub(super) engine: Box<dyn Handshake>,
    pub(super) address: SocketAddr,
    /// What its records are to have in them for us, if it can do that.
    pub(super) cid: Option<ConnectionId>,
    /// What it wants to find in ours.
    pub(super) peer_cid: Box<[u8]>,
    /// Its random bytes.
    pub(super) random: [u8; 32],
    pub(super) sender: Sender,
    /// Once keys were exchanged.
    pub(super) protection: Option<Protection>,
    pub(super) early: Early,
    /// Whether it waits for a key: then it has done what it can.
    pub(super) awaits_key: bool,
    /// Whether it has named a key, which may be a wrong one.
    pub(super) named_key: bool,
    /// What is reported if its time comes to an end.
    pub(super) doubt: HandshakeFault,
    pub(super) clock: Clock,
}

/// When something is to be done for a handshake.
pub(super) struct Clock {
    began: Instant,
    /// When it is given up.
    pub(super) deadline: Instant,
    /// When the last flight is sent again.
    next: Instant,
    interval: Duration,
    last_sent: Instant,
}

/// What came too early, within bounds.
#[derive(Default)]
pub(super) struct Early {
    /// Records of epoch 1 from before their keys were known.
    sealed: Vec<Vec<u8>>,
    /// What came before the handshake was complete.
    opened: Vec<(ContentType, Box<[u8]>)>,
    bytes: usize,
}

/// The handshakes of one endpoint.
#[derive(Default)]
pub(super) struct Handshakes {
    by_id: HashMap<HandshakeId, Pending>,
    by_address: HashMap<SocketAddr, HandshakeId>,
    by_cid: HashMap<ConnectionId, HandshakeId>,
    /// How many there are with each network.
    networks: HashMap<IpAddr, usize>,
    timers: BTreeSet<(Instant, HandshakeId)>,
    /// Those whose clients have only said hello, the oldest first.
    silent: BTreeSet<HandshakeId>,
    last_id: u64,
}

impl Handshakes {
    /// Adds a handshake; there must be none at its address.
    pub(super) fn add(&mut self, pending: Pending) -> HandshakeId {
        let id = self.new_id();
        self.by_address.insert(pending.address, id);
        if let Some(cid) = pending.cid {
            self.by_cid.insert(cid, id);
        }
        *self.networks.entry(network(pending.address)).or_default() += 1;
        self.timers.insert((pending.clock.due(), id));
        self.silent.insert(id);
        self.by_id.insert(id, pending);
        id
    }

    /// An id that no handshake has or had.
    pub(super) fn new_id(&mut self) -> HandshakeId {
        self.last_id += 1;
        HandshakeId(self.last_id)
    }

    /// Forgets a handshake.
    pub(super) fn remove(&mut self, id: HandshakeId) -> Option<Pending> {
        let pending = self.by_id.remove(&id)?;
        self.by_address.remove(&pending.address);
        self.silent.remove(&id);
        if let Some(cid) = pending.cid {
            self.by_cid.remove(&cid);
        }
        self.timers.remove(&(pending.clock.due(), id));
        let network = network(pending.address);
        if let Some(count) = self.networks.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.networks.remove(&network);
            }
        }
        Some(pending)
    }

    /// Notes that a flight was just sent: anew, or once more.
    pub(super) fn rearm(&mut self, id: HandshakeId, change: impl FnOnce(&mut Clock)) {
        let Some(pending) = self.by_id.get_mut(&id) else { return };
        self.timers.remove(&(pending.clock.due(), id));
        change(&mut pending.clock);
        self.timers.insert((pending.clock.due(), id));
    }

    /// Notes that a client has gone on behind its hello: it may take its time.
    pub(super) fn note_answer(&mut self, id: HandshakeId, timeout: Duration) {
        self.silent.remove(&id);
        self.rearm(id, |clock| clock.deadline = clock.began + timeout);
    }

    /// The oldest whose client has only said hello.
    pub(super) fn oldest_silent(&self) -> Option<HandshakeId> {
        self.silent.first().copied()
    }

    pub(super) fn get_mut(&mut self, id: HandshakeId) -> Option<&mut Pending> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn at(&self, address: SocketAddr) -> Option<HandshakeId> {
        self.by_address.get(&address).copied()
    }

    pub(super) fn of(&self, cid: &[u8]) -> Option<HandshakeId> {
        self.by_cid.get(&ConnectionId::try_from(cid).ok()?).copied()
    }

    /// How many there are, and how many of them with the network of an address.
    pub(super) fn count(&self, address: SocketAddr) -> (usize, usize) {
        (self.len(), self.networks.get(&network(address)).copied().unwrap_or_default())
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The one whose time is next.
    pub(super) fn next(&self) -> Option<(Instant, HandshakeId)> {
        self.timers.first().copied()
    }
}

impl Pending {
    /// Derives what protects records, as soon as keys were exchanged.
    pub(super) fn protect(&mut self) {
        if self.protection.is_none()
            && let Some(secrets) = self.engine.secrets()
        {
            self.protection = Some(Protection::new(&secrets, std::mem::take(&mut self.peer_cid)));
        }
    }

    /// Sends a new flight.
    pub(super) fn send(&mut self, flight: Flight, out: &mut Outbox) {
        self.sender.send(flight, self.protection.as_mut(), self.address, out);
    }

    /// Sends the last flight once more.
    pub(super) fn send_again(&mut self, out: &mut Outbox) {
        self.sender.send_again(self.protection.as_mut(), self.address, out);
    }
}

impl Clock {
    pub(super) fn new(now: Instant, timeout: Duration, retransmission: Duration) -> Self {
        Self {
            began: now,
            deadline: now + timeout.min(PATIENCE),
            next: now + retransmission,
            interval: retransmission,
            last_sent: now,
        }
    }

    /// A new flight was sent.
    pub(super) fn restart(&mut self, now: Instant, retransmission: Duration) {
        let Self { began, deadline, .. } = *self;
        *self = Self { began, deadline, ..Self::new(now, Duration::ZERO, retransmission) };
    }

    /// The last flight was sent once more, or need not be.
    pub(super) fn back_off(&mut self, now: Instant) {
        self.interval = (self.interval * 2).min(MAX_INTERVAL);
        self.next = now + self.interval;
        self.last_sent = now;
    }

    /// It is given up by then, if not earlier.
    pub(super) fn end_by(&mut self, time: Instant) {
        self.deadline = self.deadline.min(time);
    }

    /// Whether it did not begin just now: another hello may take its place.
    pub(super) fn may_begin_anew(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= MIN_INTERVAL
    }

    /// Whether the last flight was not sent just now: a repetition may be answered.
    pub(super) fn may_repeat(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_sent) >= MIN_INTERVAL
    }

    fn due(&self) -> Instant {
        self.deadline.min(self.next)
    }
}

impl Early {
    /// Keeps a record of epoch 1 until it can be opened.
    pub(super) fn keep_sealed(&mut self, record: &[u8]) {
        if self.has_room(record.len()) {
            self.sealed.push(record.to_vec());
        }
    }

    /// Keeps what was opened until the handshake is complete.
    pub(super) fn keep_opened(&mut self, content_type: ContentType, text: &[u8]) {
        if self.has_room(text.len()) {
            self.opened.push((content_type, text.into()));
        }
    }

    /// A record that was kept, the oldest first.
    pub(super) fn take_sealed(&mut self) -> Option<Vec<u8>> {
        (!self.sealed.is_empty()).then(|| self.sealed.remove(0))
    }

    /// Opens what is still sealed, and loses what is not authentic.
    pub(super) fn open(&mut self, protection: &mut Protection, cid_length: usize) {
        for mut sealed in std::mem::take(&mut self.sealed) {
            let record = records(&sealed, cid_length).next();
            let opened = record.map(|record| protection.open(&mut sealed, &record));
            if let Some(Opened::Plain { content_type, text, .. }) = opened {
                self.opened.push((content_type, sealed[text].into()));
            }
        }
    }

    /// What came before the handshake was complete, in order.
    pub(super) fn into_opened(self) -> Vec<(ContentType, Box<[u8]>)> {
        self.opened
    }

    fn has_room(&mut self, length: usize) -> bool {
        let has_room =
            self.sealed.len() + self.opened.len() < MAX_EARLY && self.bytes + length <= MAX_EARLY_BYTES;
        self.bytes += if has_room { length } else { 0 };
        has_room
    }
}

/// What one client can send from: an address, or in IPv6 a network of 64 bits.
fn network(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// RFC 6347 §4.2.4.1.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// How long a client may take for its answer to a flight: slow ones compute for seconds, and then repeat themselves.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How soon a flight is sent once more because the client repeats its own.
pub(super) const MIN_INTERVAL: Duration = Duration::from_millis(100);

const MAX_EARLY: usize = 8;
const MAX_EARLY_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;
    use crate::engine::{Input, Outcome, Progress, Refusal, Secrets};

    proptest! {
        #[test]
        fn the_tables_agree_after_each_step(
            steps in proptest::collection::vec((0u8..5, 0u8..8, any::<bool>()), 1..200),
        ) {
            let start = start();
            let mut now = start;
            let mut handshakes = Handshakes::default();
            for (kind, number, has_cid) in steps {
                let address = at(number);
                let known = handshakes.at(address);
                match (kind, known) {
                    (0, None) => {
                        handshakes.add(pending(address, has_cid.then_some([number; 8]), now));
                    }
                    (1, Some(id)) => prop_assert_eq!(handshakes.remove(id).unwrap().address, address),
                    (2, Some(id)) => handshakes.rearm(id, |clock| clock.back_off(now)),
                    (4, Some(id)) => handshakes.note_answer(id, Duration::from_secs(30)),
                    (3, Some(id)) => handshakes.rearm(id, |clock| clock.restart(now, Duration::from_secs(1))),
                    _ => now += Duration::from_secs(1),
                }
                check(&handshakes);
            }
        }
    }

    fn check(handshakes: &Handshakes) {
        let count = handshakes.len();
        assert_eq!((handshakes.by_address.len(), handshakes.timers.len()), (count, count));
        assert_eq!(handshakes.networks.values().sum::<usize>(), count);
        assert!(handshakes.networks.values().all(|count| *count > 0));
        assert!(handshakes.silent.iter().all(|id| handshakes.by_id.contains_key(id)));
        for (id, pending) in &handshakes.by_id {
            assert_eq!(handshakes.at(pending.address), Some(*id));
            assert!(handshakes.timers.contains(&(pending.clock.due(), *id)));
            assert!(pending.clock.due() <= pending.clock.deadline);
            assert!(pending.cid.is_none_or(|cid| handshakes.of(&cid) == Some(*id)));
        }
        let with_cid = handshakes.by_id.values().filter(|pending| pending.cid.is_some()).count();
        assert_eq!(handshakes.by_cid.len(), with_cid);
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |text: &str| network(SocketAddr::new(text.parse().unwrap(), 1));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:2:3:4:5"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn what_is_kept_is_bounded_in_number_and_size() {
        let mut early = Early::default();
        for _ in 0..100 {
            early.keep_sealed(&[0; 100]);
            early.keep_opened(ContentType::ApplicationData, &[0; 100]);
        }
        assert_eq!(early.sealed.len() + early.opened.len(), MAX_EARLY);
        let mut early = Early::default();
        for _ in 0..3 {
            early.keep_sealed(&[0; MAX_EARLY_BYTES / 2]);
        }
        assert_eq!(early.sealed.len(), 2);
    }

    /// A handshake that never goes on.
    struct Silent;

    impl Handshake for Silent {
        fn handle(&mut self, _: Input<'_>, _: &mut Flight) -> Result<Progress, Refusal> {
            Ok(Progress::Going)
        }

        fn give_key(&mut self, _: Zeroizing<Vec<u8>>, _: &mut Flight) -> Result<Progress, Refusal> {
            Ok(Progress::Going)
        }

        fn secrets(&self) -> Option<Secrets> {
            None
        }

        fn outcome(&self) -> Outcome {
            Outcome::default()
        }
    }

    fn pending(address: SocketAddr, cid: Option<ConnectionId>, now: Instant) -> Pending {
        Pending {
            engine: Box::new(Silent),
            address,
            cid,
            peer_cid: Box::default(),
            random: [0; 32],
            sender: Sender::new(0, 1_200),
            protection: None,
            early: Early::default(),
            awaits_key: false,
            named_key: false,
            doubt: HandshakeFault::TimedOut,
            clock: Clock::new(now, Duration::from_secs(30), Duration::from_secs(1)),
        }
    }

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number % 3], 5_000 + u16::from(number)))
    }

    #[expect(clippy::disallowed_methods, reason = "it passes by hand from here on")]
    fn start() -> Instant {
        Instant::now()
    }
}
