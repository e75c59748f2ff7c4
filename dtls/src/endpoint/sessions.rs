//! The table of sessions: by id, by connection id, by address.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use super::event::SessionId;
use super::flight::Sender;
use super::outbox::Outbox;
use super::protection::{ConnectionId, Protection};
use crate::keys::SealError;
use crate::record::ContentType;

/// A client whose handshake is complete.
pub(super) struct Session {
    pub(super) protection: Protection,
    /// Where it is.
    pub(super) address: SocketAddr,
    /// What its records have in them for us; without one, they are known by their address.
    pub(super) cid: Option<ConnectionId>,
    /// What its identity hashes to.
    pub(super) identity: u64,
}

/// What is kept of a session's handshake for a while.
pub(super) struct Last {
    /// The last flight, if it was ours; the client may not have got it.
    pub(super) sender: Option<Sender>,
    /// The client's random bytes.
    pub(super) random: [u8; 32],
    /// Where the client has shown to be in its handshake; not so where it moved to since.
    pub(super) address: SocketAddr,
    /// When the last flight was sent, for the first time or again.
    pub(super) last_sent: Instant,
    pub(super) until: Instant,
}

/// The sessions of one endpoint.
#[derive(Default)]
pub(super) struct Sessions {
    by_id: HashMap<SessionId, Box<Session>>,
    by_cid: HashMap<ConnectionId, SessionId>,
    /// At most one for each address; every session without a connection id has its place here.
    by_address: HashMap<SocketAddr, SessionId>,
    lasts: HashMap<SessionId, Last>,
    /// When what is kept of handshakes is forgotten.
    timers: BTreeSet<(Instant, SessionId)>,
    last_id: u64,
}

impl Session {
    /// Protects something and sends it to where the client is.
    pub(super) fn send(
        &mut self,
        content_type: ContentType,
        text: &[u8],
        out: &mut Outbox,
    ) -> Result<(), SealError> {
        out.write(self.address, |datagram| self.protection.seal(content_type, text, datagram))
    }
}

impl Sessions {
    /// Adds a session, and removes the one in whose place it is: at the same address, of the same client or without
    /// a connection id.
    pub(super) fn add(&mut self, session: Session) -> (SessionId, Option<SessionId>) {
        self.last_id += 1;
        let id = SessionId(self.last_id);
        let replaced = self.at(session.address).filter(|other| {
            let other = self.by_id.get(other);
            other.is_some_and(|other| other.cid.is_none() || other.identity == session.identity)
        });
        if let Some(replaced) = replaced {
            self.remove(replaced);
        }
        self.by_address.insert(session.address, id);
        if let Some(cid) = session.cid {
            self.by_cid.insert(cid, id);
        }
        self.by_id.insert(id, Box::new(session));
        (id, replaced)
    }

    /// Keeps the end of a session's handshake.
    pub(super) fn keep(&mut self, id: SessionId, last: Last) {
        self.timers.insert((last.until, id));
        self.lasts.insert(id, last);
    }

    /// Forgets a session and all that belongs to it.
    pub(super) fn remove(&mut self, id: SessionId) -> Option<Box<Session>> {
        self.forget_last(id);
        let session = self.by_id.remove(&id)?;
        if let Some(cid) = session.cid {
            self.by_cid.remove(&cid);
        }
        self.leave(session.address, id);
        Some(session)
    }

    /// Notes that a session is at another address now.
    ///
    /// It takes no place there that another one has: who may send from an address could else close others' sessions.
    pub(super) fn relocate(&mut self, id: SessionId, to: SocketAddr) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        let from = std::mem::replace(&mut session.address, to);
        self.leave(from, id);
        self.by_address.entry(to).or_insert(id);
    }

    /// Forgets what was kept of handshakes long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.forget_last(id);
        }
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id).map(|session| &mut **session)
    }

    /// A session, and what is kept of its handshake.
    pub(super) fn with_last(&mut self, id: SessionId) -> Option<(&mut Session, &mut Last)> {
        Some((self.by_id.get_mut(&id)?, self.lasts.get_mut(&id)?))
    }

    pub(super) fn at(&self, address: SocketAddr) -> Option<SessionId> {
        self.by_address.get(&address).copied()
    }

    pub(super) fn of(&self, cid: &[u8]) -> Option<SessionId> {
        self.by_cid.get(&ConnectionId::try_from(cid).ok()?).copied()
    }

    /// Whether the session at an address came from the handshake that began with these random bytes.
    pub(super) fn came_from(&self, address: SocketAddr, random: &[u8; 32]) -> bool {
        let last = self.at(address).and_then(|id| self.lasts.get(&id));
        last.is_some_and(|last| last.random == *random)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn forget_last(&mut self, id: SessionId) {
        if let Some(last) = self.lasts.remove(&id) {
            self.timers.remove(&(last.until, id));
        }
    }

    fn leave(&mut self, address: SocketAddr, id: SessionId) {
        if self.at(address) == Some(id) {
            self.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::protection::tests::protection;

    proptest! {
        #[test]
        fn the_tables_agree_after_each_step(steps in proptest::collection::vec(step(), 1..200)) {
            let start = start();
            let mut sessions = Sessions::default();
            let mut model: BTreeMap<SessionId, (u8, bool, u64)> = BTreeMap::new();
            let mut now = start;
            for step in steps {
                match step {
                    Step::Add { address, has_cid, identity } => {
                        let cid = has_cid.then(|| (sessions.last_id + 1).to_be_bytes());
                        let session = Session { protection: protection(), address: at(address), cid, identity };
                        let (id, replaced) = sessions.add(session);
                        if let Some(replaced) = replaced {
                            let (old, had_cid, who) = model.remove(&replaced).unwrap();
                            prop_assert!(old == address && (!had_cid || who == identity));
                        }
                        prop_assert!(model.insert(id, (address, has_cid, identity)).is_none());
                        let until = now + Duration::from_secs(60);
                        let (random, address) = ([address; 32], at(address));
                        sessions.keep(id, Last { sender: None, random, address, last_sent: now, until });
                    }
                    Step::Move { nth, to } => {
                        let movable = model.iter_mut().filter(|(_, session)| session.1);
                        if let Some((id, session)) = movable.collect::<Vec<_>>().into_iter().nth(nth) {
                            session.0 = to;
                            sessions.relocate(*id, at(to));
                        }
                    }
                    Step::Pass { seconds } => {
                        now += Duration::from_secs(seconds);
                        sessions.handle_timeout(now);
                    }
                    Step::Remove { nth } => {
                        if let Some(id) = model.keys().nth(nth).copied() {
                            model.remove(&id);
                            prop_assert!(sessions.remove(id).is_some());
                            prop_assert!(sessions.remove(id).is_none());
                        }
                    }
                }
                check(&sessions, &model, now);
            }
        }
    }

    fn check(sessions: &Sessions, model: &BTreeMap<SessionId, (u8, bool, u64)>, now: Instant) {
        assert_eq!(sessions.len(), model.len());
        for (id, (address, has_cid, _)) in model {
            let session = &sessions.by_id[id];
            assert_eq!((session.address, session.cid.is_some()), (at(*address), *has_cid));
            match session.cid {
                Some(cid) => assert_eq!(sessions.of(&cid), Some(*id)),
                None => assert_eq!(sessions.at(at(*address)), Some(*id)),
            }
        }
        assert_eq!(sessions.by_cid.len(), model.values().filter(|session| session.1).count());
        for (address, id) in &sessions.by_address {
            assert_eq!(sessions.by_id[id].address, *address);
        }
        assert_eq!(sessions.timers.len(), sessions.lasts.len());
        for (until, id) in &sessions.timers {
            assert!(sessions.by_id.contains_key(id) && sessions.lasts[id].until == *until && *until > now);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add { address: u8, has_cid: bool, identity: u64 },
        Move { nth: usize, to: u8 },
        Pass { seconds: u64 },
        Remove { nth: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..6, any::<bool>(), 0u64..3).prop_map(|(address, has_cid, identity)| Step::Add {
                address,
                has_cid,
                identity
            }),
            (0usize..6, 0u8..6).prop_map(|(nth, to)| Step::Move { nth, to }),
            (0u64..40).prop_map(|seconds| Step::Pass { seconds }),
            (0usize..6).prop_map(|nth| Step::Remove { nth }),
        ]
    }

    fn at(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 5684))
    }

    #[expect(clippy::disallowed_methods, reason = "it passes by hand from here on")]
    fn start() -> Instant {
        Instant::now()
    }
}
