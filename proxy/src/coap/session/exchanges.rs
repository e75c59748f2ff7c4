//! What became of a client's requests, so that one that comes again is not a new one. RFC 7252 §4.5

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_policies::Client;

use super::target::{Observe, Target};
use super::{hash, operations};
use crate::coap::codec::decode;
use crate::coap::message::{Kind, Message, Token};

/// The requests of one client that are not forgotten yet.
#[derive(Default)]
pub(super) struct Exchanges {
    /// All of them, oldest first.
    row: VecDeque<Exchange>,
    /// The message identifiers of `row`, side by side: nearly every request is looked for in vain.
    ids: VecDeque<u16>,
    /// The few that the upstream has yet to answer, in the order in which they were passed on.
    open: Vec<Open>,
    /// Bytes of kept answers.
    answer_bytes: usize,
}

/// One request and what became of it.
pub(super) struct Exchange {
    pub(super) token: Token,
    pub(super) is_confirmable: bool,
    /// Of all its bytes: another message under its identifier is not the same request.
    hash: u64,
    /// How often it may still come again.
    repeats: u8,
    came_at: Instant,
    /// What a confirmable request was answered, for the case that it comes again.
    answer: Option<Box<[u8]>>,
}

/// What the upstream has yet to answer.
pub(super) struct Open {
    pub(super) id: u16,
    pub(super) token: Token,
    pub(super) is_confirmable: bool,
    pub(super) client: Arc<Client>,
    /// The request as the upstream gets it.
    pub(super) request: Box<[u8]>,
    /// What it has in common with the requests for the rest of its answer, where the upstream does not get all of that.
    pub(super) key: Option<Box<[u8]>>,
    pub(super) target: Arc<Target>,
    /// When what allowed it has to be asked again; `None` for never.
    pub(super) until: Option<Instant>,
    /// When it went to the upstream, if it did.
    pub(super) passed_at: Option<Instant>,
    /// When nobody waits for an answer any more.
    pub(super) deadline: Instant,
    /// When the client's credentials end.
    pub(super) expires: Option<Instant>,
    /// Whether rights changed since it was allowed: until it is allowed again, nothing of it goes either way.
    pub(super) is_doubted: bool,
    /// Whether the upstream said that the response will come apart.
    pub(super) is_acknowledged: bool,
    /// Whether it goes to the mirror and nowhere else.
    pub(super) ends_here: bool,
    pub(super) copy: Copy,
    /// What the upstream answered, until the copy is stored and there is no doubt.
    pub(super) held: Option<Box<[u8]>>,
}

/// What the mirror makes of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// Nobody waits for it.
    Done,
    Failed,
    Storing,
}

impl Exchanges {
    /// Keeps a request that came. What is oldest and over is forgotten for it; `false` where nothing is.
    pub(super) fn begin(&mut self, message: &Message<'_>, now: Instant) -> bool {
        self.forget_until(now);
        if self.row.len() >= MAX_EXCHANGES {
            let Some(index) = self.oldest_over() else { return false };
            self.remove(index);
        }
        if self.row.is_empty() {
            // most devices make one request, and the next when this one is forgotten
            self.row.reserve_exact(1);
            self.ids.reserve_exact(1);
        }
        self.ids.push_back(message.id);
        self.row.push_back(Exchange {
            token: message.token,
            is_confirmable: message.kind == Kind::Confirmable,
            hash: hash(message.bytes),
            repeats: MAX_REPEATS,
            came_at: now,
            answer: None,
        });
        true
    }

    /// Keeps that a request was passed on, unless it is forgotten.
    pub(super) fn pass_on(&mut self, open: Open) {
        if self.index(open.id).is_some() {
            if self.open.is_empty() {
                self.open.reserve_exact(1);
            }
            self.open.push(open);
        }
    }

    /// The request with this message identifier, if it has not been forgotten.
    pub(super) fn find(&mut self, id: u16) -> Option<&mut Exchange> {
        let index = self.index(id)?;
        self.row.get_mut(index)
    }

    /// What the upstream has yet to answer under this message identifier.
    pub(super) fn find_open(&mut self, id: u16) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.id == id)
    }

    /// The request with this token that is yet to be answered and for which `may` holds; of several, the last.
    pub(super) fn find_by_token(&self, token: Token, may: impl Fn(&Open) -> bool) -> Option<u16> {
        let is_meant = |open: &&Open| open.token == token && open.held.is_none() && may(open);
        self.open.iter().rev().find(is_meant).map(|open| open.id)
    }

    /// Ends a request: the upstream need not answer it any more.
    pub(super) fn close(&mut self, id: u16) -> Option<Open> {
        let index = self.open.iter().position(|open| open.id == id)?;
        let open = self.open.remove(index);
        if self.open.is_empty() {
            self.open = Vec::new();
        }
        Some(open)
    }

    /// Takes away the request with this message identifier: another has it from now on. Returns what the upstream has
    /// yet to answer of it.
    pub(super) fn take(&mut self, id: u16) -> Option<Open> {
        let index = self.index(id)?;
        self.remove(index);
        self.close(id)
    }

    /// The requests that the upstream has yet to answer.
    pub(super) fn open(&self) -> &[Open] {
        &self.open
    }

    /// The same, to be changed.
    pub(super) fn open_mut(&mut self) -> &mut [Open] {
        &mut self.open
    }

    /// The identifier of the request that came last.
    pub(super) fn last_id(&self) -> u16 {
        self.ids.back().copied().unwrap_or_default()
    }

    /// Gives up the oldest request that the upstream may never answer, as it need not be confirmed and nobody waits
    /// for what it brings about; `false` where there is none. RFC 7967
    pub(super) fn give_up_one(&mut self) -> bool {
        let oldest = self.open.iter().find(|open| open.is_forgettable()).map(|open| open.id);
        oldest.is_some_and(|id| self.close(id).is_some())
    }

    /// Gives up those requests with a token that [`Exchanges::give_up_one`] could: another has the token now.
    pub(super) fn give_up(&mut self, token: Token) {
        self.open.retain(|open| open.token != token || !open.is_forgettable());
    }

    /// Whether a request with this token that [`Exchanges::give_up`] leaves is for something of which `is_other` holds.
    pub(super) fn is_kept_for(&self, token: Token, is_other: impl Fn(&Target) -> bool) -> bool {
        let mut kept = self.open.iter().filter(|open| open.token == token && !open.is_forgettable());
        kept.any(|open| is_other(&open.target))
    }

    /// Keeps the answer to a confirmable request; others are not answered again. RFC 7252 §4.5
    pub(super) fn keep_answer(&mut self, id: u16, bytes: &[u8]) {
        let Some(exchange) = self.find(id).filter(|exchange| exchange.is_confirmable) else { return };
        let before = exchange.answer.replace(bytes.into());
        self.answer_bytes += bytes.len();
        self.answer_bytes -= before.map_or(0, |answer| answer.len());
        // what is over the bound is passed over in silence when it is asked for again
        let mut oldest = self.row.iter_mut();
        while self.answer_bytes > MAX_ANSWER_BYTES {
            let Some(exchange) = oldest.next() else { break };
            self.answer_bytes -= exchange.answer.take().map_or(0, |answer| answer.len());
        }
    }

    /// Forgets what cannot come again any more and is over.
    pub(super) fn forget_until(&mut self, now: Instant) {
        while let Some(index) = self.oldest_over().filter(|index| self.row[*index].forgotten_at() <= now) {
            self.remove(index);
        }
        if self.row.is_empty() {
            (self.row, self.ids) = (VecDeque::new(), VecDeque::new());
        }
    }

    /// When there is something to be forgotten.
    pub(super) fn forgets_at(&self) -> Option<Instant> {
        self.oldest_over().map(|index| self.row[index].forgotten_at())
    }

    /// Bytes of answers that are kept.
    #[cfg(test)]
    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    /// The oldest of which nothing is to come any more. What waits to be judged is not over, but not open either: it is
    /// never the oldest of many.
    fn oldest_over(&self) -> Option<usize> {
        let is_over = |id: &u16| self.open.iter().all(|open| open.id != *id);
        // mostly it is the first
        if is_over(self.ids.front()?) { Some(0) } else { self.ids.iter().position(is_over) }
    }

    fn index(&self, id: u16) -> Option<usize> {
        // what is there is mostly there as the last
        if self.ids.back() == Some(&id) {
            return Some(self.ids.len() - 1);
        }
        let (older, newer) = self.ids.as_slices();
        if newer.contains(&id) {
            return newer.iter().rposition(|it| *it == id).map(|index| older.len() + index);
        }
        if older.contains(&id) { older.iter().rposition(|it| *it == id) } else { None }
    }

    fn remove(&mut self, index: usize) {
        self.ids.remove(index);
        if let Some(exchange) = self.row.remove(index) {
            self.answer_bytes -= exchange.answer().map_or(0, <[u8]>::len);
        }
    }
}

impl Open {
    /// Whether it is to begin an observation.
    pub(super) fn is_begin(&self) -> bool {
        self.target.observe == Some(Observe::Begin)
    }

    /// What it has in common with the requests for the rest of its answer.
    pub(super) fn key(&self) -> Box<[u8]> {
        let of_request = || decode(&self.request).map(|request| operations::key(&request));
        self.key.clone().or_else(|| of_request().ok()).unwrap_or_default()
    }

    /// When it is over without an answer.
    pub(super) fn ends_at(&self) -> Instant {
        self.expires.map_or(self.deadline, |expires| expires.min(self.deadline))
    }

    /// Whether it waits for the upstream's socket, and for nothing else.
    pub(super) fn is_unsent(&self) -> bool {
        self.passed_at.is_none() && !self.is_doubted && !self.ends_here
    }

    /// Whether the upstream may never answer it, and nobody waits for what it brings about.
    fn is_forgettable(&self) -> bool {
        let is_waited_for =
            self.target.observe.is_some() || self.held.is_some() || self.copy == Copy::Storing;
        !self.is_confirmable && !is_waited_for
    }
}

impl Exchange {
    /// What it was answered, where that is to be said again.
    pub(super) fn answer(&self) -> Option<&[u8]> {
        self.answer.as_deref()
    }

    /// Whether a message is this request once more, and not another under its identifier.
    pub(super) fn is_same(&self, message: &Message<'_>) -> bool {
        self.hash == hash(message.bytes)
    }

    /// Counts that it came again; `false` if it did so more often than it may: whoever has its answer sent somewhere
    /// is not to do so for ever.
    pub(super) fn may_repeat(&mut self) -> bool {
        let may = self.repeats > 0;
        self.repeats = self.repeats.saturating_sub(1);
        may
    }

    fn forgotten_at(&self) -> Instant {
        self.came_at + EXCHANGE_LIFETIME
    }
}

/// RFC 7252 §4.8.2, with its own parameters
pub(super) const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);

/// How often a confirmable message is sent again. RFC 7252 §4.8
const MAX_REPEATS: u8 = 4;

/// Requests of one client that are remembered.
const MAX_EXCHANGES: usize = 64;

/// Bytes of answers that are kept for one client.
const MAX_ANSWER_BYTES: usize = 8 * 1024;
