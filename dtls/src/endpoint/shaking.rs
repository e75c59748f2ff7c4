//! Handshakes that go on: what comes in, and what becomes of them.

use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::Instant;

use zeroize::Zeroizing;

use super::event::{CloseReason, Event, HandshakeFault, HandshakeId};
use super::flight::{CLIENT_HELLO, FATAL, FINISHED};
use super::handshakes::{PATIENCE, Pending};
use super::protection::Opened;
use super::sessions::{Last, Session};
use super::traffic::Verdict;
use super::{Endpoint, Outbox, Turn};
use crate::engine::{Flight, Identity, Input, Progress, Refusal};
use crate::record::{ContentType, Record, records};

impl Endpoint {
    /// Takes a handshake record or an alert that nothing protects; no session hears of it.
    pub(super) fn handle_plain(&mut self, turn: &mut Turn<'_>, body: &[u8], record: &Record) {
        if let (ContentType::Handshake, [CLIENT_HELLO, ..]) = (record.content_type, body) {
            return self.handle_hello(turn, body, record.sequence);
        }
        let Some(id) = self.handshakes.at(turn.from) else {
            return self.count(Verdict::Stray);
        };
        match (record.content_type, body) {
            (ContentType::Handshake, _) => self.put_in(turn, id, Input::Message(body)),
            (_, [FATAL, number]) => self.doubt(id, HandshakeFault::Alert(*number)),
            // a warning changes nothing
            _ => {}
        }
    }

    /// Notes why a handshake may come to nothing. It goes on: anybody can have sent that (RFC 6347 §4.1.2.7).
    fn doubt(&mut self, id: HandshakeId, fault: HandshakeFault) {
        if let Some(pending) = self.handshakes.get_mut(id) {
            pending.doubt = fault;
        }
        self.count(Verdict::Forged);
    }

    /// Opens a record for a handshake, if it can be opened yet.
    pub(super) fn open_in_handshake(
        &mut self,
        turn: &mut Turn<'_>,
        id: HandshakeId,
        mut sealed: Vec<u8>,
    ) -> Verdict {
        let record = records(&sealed, self.settings.cid_length).next();
        let (Some(pending), Some(record)) = (self.handshakes.get_mut(id), record) else {
            return Verdict::Stray;
        };
        let Some(protection) = &mut pending.protection else { return Verdict::TooEarly };
        let (content_type, text) = match protection.open(&mut sealed, &record) {
            Opened::Forged => return Verdict::Forged,
            Opened::Plain { content_type, text, .. } => (content_type, &sealed[text]),
            Opened::Replayed => return Verdict::Replayed,
        };
        match (content_type, text) {
            (ContentType::Handshake, [FINISHED, ..]) => self.put_in(turn, id, Input::Finished(text)),
            (ContentType::Handshake, _) => {}
            _ => pending.early.keep_opened(content_type, text),
        }
        Verdict::Taken
    }

    /// Does what must be done with a record that a handshake could not open.
    pub(super) fn reject(&mut self, turn: &mut Turn<'_>, id: HandshakeId, sealed: &[u8], verdict: Verdict) {
        self.count(verdict);
        match verdict {
            Verdict::Forged => self.doubt_key(turn.now, id, sealed),
            Verdict::TooEarly => {
                if let Some(pending) = self.handshakes.get_mut(id) {
                    pending.early.keep_sealed(sealed);
                }
            }
            _ => {}
        }
    }

    /// Goes on with what an engine said: sends, asks, or comes to an end.
    pub(super) fn proceed(
        &mut self,
        turn: &mut Turn<'_>,
        id: HandshakeId,
        progress: Result<Progress, Refusal>,
        flight: Flight,
    ) {
        let Some(pending) = self.handshakes.get_mut(id) else { return };
        pending.protect();
        if flight.is_empty() && progress.is_err() {
            pending.sender.send_alert(HANDSHAKE_FAILURE, pending.address, turn.out);
        }
        if !flight.is_empty() {
            pending.send(flight, turn.out);
            let retransmission = self.settings.retransmission;
            self.handshakes.rearm(id, |clock| clock.restart(turn.now, retransmission));
        }
        match progress {
            Ok(Progress::Done) => self.complete(turn.now, id, turn.out),
            Ok(Progress::Going) => self.catch_up(turn, id),
            Ok(Progress::KeyWanted(identity)) => self.ask_for_key(id, identity),
            Err(refusal) => self.fail(id, HandshakeFault::Refused(refusal)),
        }
    }

    /// Goes on with the key that a client named.
    pub(super) fn continue_with(
        &mut self,
        now: Instant,
        id: HandshakeId,
        key: Zeroizing<Vec<u8>>,
        out: &mut Outbox,
    ) {
        let Some(pending) = self.handshakes.get_mut(id).filter(|pending| pending.awaits_key) else { return };
        pending.awaits_key = false;
        let mut flight = Flight::default();
        let progress = pending.engine.give_key(key, &mut flight);
        let mut turn = Turn { now, from: pending.address, out, has_hello: false };
        self.proceed(&mut turn, id, progress, flight);
    }

    /// Sends again what may have been lost, and gives up what takes too long.
    pub(super) fn continue_handshakes(&mut self, now: Instant, out: &mut Outbox) {
        while let Some((_, id)) = self.handshakes.next().filter(|(at, _)| *at <= now) {
            let Some(pending) = self.handshakes.get_mut(id) else { return };
            if pending.clock.deadline <= now {
                self.give_up(id, out);
                continue;
            }
            if !pending.awaits_key {
                pending.send_again(out);
            }
            self.handshakes.rearm(id, |clock| clock.back_off(now));
        }
    }

    fn give_up(&mut self, id: HandshakeId, out: &mut Outbox) {
        let Some(pending) = self.handshakes.get_mut(id) else { return };
        let fault = pending.doubt.clone();
        if fault == HandshakeFault::WrongKey {
            pending.sender.send_alert(DECRYPT_ERROR, pending.address, out);
        }
        self.fail(id, fault);
    }

    /// Answers a hello that came before: its answer was lost, or is on its way.
    pub(super) fn repeat(&mut self, turn: &mut Turn<'_>, id: HandshakeId) {
        let pending = self.handshakes.get_mut(id).filter(|pending| pending.clock.may_repeat(turn.now));
        if let Some(pending) = pending {
            pending.send_again(turn.out);
            self.handshakes.rearm(id, |clock| clock.back_off(turn.now));
        }
    }

    /// Forgets a handshake.
    pub(super) fn fail(&mut self, id: HandshakeId, fault: HandshakeFault) {
        if let Some(pending) = self.handshakes.remove(id) {
            self.report_failure(id, pending.address, fault);
        }
    }

    pub(super) fn report_failure(
        &mut self,
        handshake: HandshakeId,
        address: SocketAddr,
        fault: HandshakeFault,
    ) {
        self.counts.handshakes_failed += 1;
        self.events.push_back(Event::Failed { handshake, address, fault });
    }

    fn put_in(&mut self, turn: &mut Turn<'_>, id: HandshakeId, input: Input<'_>) {
        let Some(pending) = self.handshakes.get_mut(id) else { return };
        let had_keys = pending.protection.is_some();
        let mut flight = Flight::default();
        let progress = pending.engine.handle(input, &mut flight);
        self.proceed(turn, id, progress, flight);
        if !had_keys && self.handshakes.get_mut(id).is_some_and(|pending| pending.protection.is_some()) {
            self.handshakes.note_answer(id, self.settings.handshake_timeout);
        }
    }

    /// Opens what came before there were keys.
    fn catch_up(&mut self, turn: &mut Turn<'_>, id: HandshakeId) {
        while let Some(pending) = self.handshakes.get_mut(id)
            && pending.protection.is_some()
            && let Some(sealed) = pending.early.take_sealed()
        {
            let verdict = self.open_in_handshake(turn, id, sealed.clone());
            self.reject(turn, id, &sealed, verdict);
        }
    }

    /// Notes that a client's key may be wrong: if it is, nothing better comes, and there is no use in waiting long.
    fn doubt_key(&mut self, now: Instant, id: HandshakeId, sealed: &[u8]) {
        let pending = self.handshakes.get_mut(id);
        let Some(pending) = pending.filter(|pending| pending.named_key && may_finish(sealed)) else { return };
        if pending.doubt != HandshakeFault::WrongKey {
            pending.doubt = HandshakeFault::WrongKey;
            self.handshakes.rearm(id, |clock| clock.end_by(now + PATIENCE));
        }
    }

    fn ask_for_key(&mut self, id: HandshakeId, identity: Box<[u8]>) {
        if let Some(pending) = self.handshakes.get_mut(id) {
            pending.awaits_key = true;
            pending.named_key = true;
            self.events.push_back(Event::KeyWanted { handshake: id, identity, address: pending.address });
            self.handshakes.note_answer(id, self.settings.handshake_timeout);
        }
    }

    /// Makes a session of a handshake.
    fn complete(&mut self, now: Instant, id: HandshakeId, out: &mut Outbox) {
        let Some(pending) = self.handshakes.remove(id) else { return };
        let Pending { engine, address, cid, random, sender, protection, mut early, .. } = pending;
        let Some(mut protection) = protection else {
            let refusal = Refusal("the engine gave no keys".to_owned());
            return self.report_failure(id, address, HandshakeFault::Refused(refusal));
        };
        early.open(&mut protection, self.settings.cid_length);
        let outcome = engine.outcome();
        // of a session that was resumed, the rest of the chain may be missing
        let Identity { psk, certificates } = &outcome.identity;
        let identity = self.hasher.hash_one((psk, certificates.first()));
        let (session, replaced) = self.sessions.add(Session { protection, address, cid, identity });
        if let Some(session) = replaced {
            self.events.push_back(Event::Closed { session, reason: CloseReason::Replaced });
        }
        // if the client spoke last, it has our last flight
        let sender = (!outcome.is_resumed).then_some(sender);
        let until = now + self.settings.linger;
        self.sessions.keep(session, Last { sender, random, address, last_sent: now, until });
        self.counts.handshakes_done += 1;
        self.events.push_back(Event::Connected {
            session,
            address,
            identity: outcome.identity,
            is_resumed: outcome.is_resumed,
        });
        for (content_type, text) in early.into_opened() {
            if self.sessions.get_mut(session).is_none() {
                break;
            }
            self.handle_early(session, content_type, text, out);
        }
    }
}

/// Whether a record of epoch 1 may hold the client's Finished.
fn may_finish(sealed: &[u8]) -> bool {
    let content_type = sealed.first().and_then(|number| ContentType::from_number(*number));
    matches!(content_type, Some(ContentType::ConnectionId | ContentType::Handshake))
}

/// What is said where the engine says nothing (RFC 5246 §7.2.2).
const HANDSHAKE_FAILURE: u8 = 40;

/// What a wrong key is answered with (RFC 4279 §2).
const DECRYPT_ERROR: u8 = 51;
