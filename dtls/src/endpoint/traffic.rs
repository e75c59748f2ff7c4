//! Records of epoch 1: finds whose they are, and what they mean for a session.

use super::event::{CloseReason, Event, SessionId};
use super::flight::FATAL;
use super::flight::{CLIENT_HELLO, FINISHED};
use super::handshakes::MIN_INTERVAL;
use super::protection::Opened;
use super::{Endpoint, Outbox, Turn};
use crate::record::{ContentType, Record};

/// What became of a record of epoch 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not authentic.
    Forged,
    /// It came before.
    Replayed,
    /// It belongs to nothing that is known.
    Stray,
    /// It was authentic.
    Taken,
    /// There are no keys yet.
    TooEarly,
}

impl Endpoint {
    /// Takes a record with a connection id: that alone says whose it is.
    pub(super) fn handle_with_cid(&mut self, turn: &mut Turn<'_>, datagram: &mut [u8], record: &Record) {
        let cid = &datagram[record.cid.clone()];
        let handshake = self.handshakes.of(cid);
        if let Some(session) = self.sessions.of(cid) {
            let verdict = self.open_in_session(turn, session, datagram, record);
            self.count(verdict);
        } else if let Some(id) = handshake.filter(|id| self.handshakes.at(turn.from) == Some(*id)) {
            let sealed = &datagram[record.whole.clone()];
            let verdict = self.open_in_handshake(turn, id, sealed.to_vec());
            self.reject(turn, id, sealed, verdict);
        } else {
            self.count(Verdict::Stray);
        }
    }

    /// Takes a record without a connection id: it belongs to the handshake or the session at its address.
    ///
    /// Where a connection id was agreed on, it belongs to neither (RFC 9146 §3).
    pub(super) fn handle_without_cid(&mut self, turn: &mut Turn<'_>, datagram: &mut [u8], record: &Record) {
        let Self { handshakes, sessions, .. } = self;
        let handshake = handshakes.at(turn.from);
        let handshake = handshake.filter(|id| handshakes.get_mut(*id).is_some_and(|one| one.cid.is_none()));
        let session = sessions.at(turn.from);
        let session = session.filter(|id| sessions.get_mut(*id).is_some_and(|one| one.cid.is_none()));
        let Some(handshake) = handshake else {
            let verdict = session.map(|session| self.open_in_session(turn, session, datagram, record));
            return self.count(verdict.unwrap_or(Verdict::Stray));
        };
        // what cannot be opened is lost, and may be for the other one
        let sealed = datagram[record.whole.clone()].to_vec();
        let mut verdict = self.open_in_handshake(turn, handshake, sealed.clone());
        if verdict != Verdict::Taken
            && let Some(session) = session
            && self.open_in_session(turn, session, datagram, record) == Verdict::Taken
        {
            verdict = Verdict::Taken;
        }
        self.reject(turn, handshake, &sealed, verdict);
    }

    pub(super) fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Forged => self.counts.records_forged += 1,
            Verdict::Replayed => self.counts.records_replayed += 1,
            Verdict::Stray => self.counts.records_stray += 1,
            Verdict::Taken | Verdict::TooEarly => {}
        }
    }

    /// Takes what came before the handshake was complete.
    pub(super) fn handle_early(
        &mut self,
        session: SessionId,
        content_type: ContentType,
        text: Box<[u8]>,
        out: &mut Outbox,
    ) {
        match content_type {
            ContentType::ApplicationData => {
                self.events.push_back(Event::EarlyData { session, payload: text });
            }
            ContentType::Alert => self.handle_alert(session, &text, out),
            _ => {}
        }
    }

    /// Says goodbye to a session's client, and forgets the session.
    pub(super) fn say_goodbye(&mut self, session: SessionId, out: &mut Outbox) {
        if let Some(mut session) = self.sessions.remove(session) {
            // a session without numbers left ends without a word
            let _ = session.send(ContentType::Alert, &[WARNING, CLOSE_NOTIFY], out);
        }
    }

    fn open_in_session(
        &mut self,
        turn: &mut Turn<'_>,
        id: SessionId,
        datagram: &mut [u8],
        record: &Record,
    ) -> Verdict {
        let Some(session) = self.sessions.get_mut(id) else { return Verdict::Stray };
        let (content_type, text, is_newest) = match session.protection.open(datagram, record) {
            Opened::Forged => return Verdict::Forged,
            Opened::Plain { content_type, text, is_newest } => (content_type, text, is_newest),
            Opened::Replayed => return Verdict::Replayed,
        };
        // RFC 9146 §6: an older record may come from where the client was before
        if is_newest && session.address != turn.from {
            self.sessions.relocate(id, turn.from);
            self.events.push_back(Event::Moved { session: id, address: turn.from });
        }
        match content_type {
            ContentType::ApplicationData => self.events.push_back(Event::Data { session: id, payload: text }),
            ContentType::Alert => self.handle_alert(id, &datagram[text], turn.out),
            ContentType::Handshake => self.handle_message(turn, id, &datagram[text]),
            _ => {}
        }
        Verdict::Taken
    }

    fn handle_alert(&mut self, id: SessionId, alert: &[u8], out: &mut Outbox) {
        let reason = match *alert {
            [_, CLOSE_NOTIFY] => CloseReason::CloseNotify,
            [FATAL, number] => CloseReason::Alert(number),
            _ => return,
        };
        match reason {
            // RFC 5246 §7.2.1: it is answered with the same
            CloseReason::CloseNotify => self.say_goodbye(id, out),
            _ => drop(self.sessions.remove(id)),
        }
        self.events.push_back(Event::Closed { session: id, reason });
    }

    /// Takes a message of a handshake that is over.
    fn handle_message(&mut self, turn: &mut Turn<'_>, id: SessionId, message: &[u8]) {
        match message.first() {
            Some(&FINISHED) => self.finish_again(turn, id),
            Some(&CLIENT_HELLO) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    let _ = session.send(ContentType::Alert, &[WARNING, NO_RENEGOTIATION], turn.out);
                }
            }
            _ => {}
        }
    }

    /// The client repeats its last flight: it has not got ours.
    ///
    /// Where it moved to, it need not be: what is longer than what it sent goes to where it was.
    fn finish_again(&mut self, turn: &mut Turn<'_>, id: SessionId) {
        if let Some((session, last)) = self.sessions.with_last(id)
            && turn.now.saturating_duration_since(last.last_sent) >= MIN_INTERVAL
            && let Some(sender) = &mut last.sender
        {
            last.last_sent = turn.now;
            sender.send_again(Some(&mut session.protection), last.address, turn.out);
        }
    }
}

/// The level of an alert that changes nothing (RFC 5246 §7.2).
const WARNING: u8 = 1;

/// Alerts (RFC 5246 §7.2).
const CLOSE_NOTIFY: u8 = 0;
const NO_RENEGOTIATION: u8 = 100;
