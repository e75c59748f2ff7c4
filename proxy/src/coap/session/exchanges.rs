//! What became of a client's requests, so that one that comes again is not a new one. RFC 7252 §4.5

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_policies::Client;

use super::target::Observe;
use crate::coap::message::{Kind, Message, Token};

/// The requests of one client that are not forgotten yet, oldest first.
#[derive(Default)]
pub(super) struct Exchanges {
    row: VecDeque<Exchange>,
    /// Bytes of kept answers.
    answer_bytes: usize,
}

/// One request and what became of it.
pub(super) struct Exchange {
    pub(super) id: u16,
    pub(super) token: Token,
    pub(super) is_confirmable: bool,
    came_at: Instant,
    /// What a confirmable request was answered, for the case that it comes again.
    answer: Option<Box<[u8]>>,
    /// `None` before the request is passed on, and once it is answered.
    pub(super) open: Option<Box<Open>>,
}

/// What the upstream has yet to answer.
pub(super) struct Open {
    pub(super) client: Arc<Client>,
    /// The request as the upstream gets it.
    pub(super) request: Box<[u8]>,
    pub(super) observe: Option<Observe>,
    /// When it is over without an answer.
    pub(super) deadline: Instant,
    /// Whether the upstream said that the response will come apart.
    pub(super) is_acknowledged: bool,
    pub(super) copy: Copy,
    /// What the upstream answered, until the copy is stored.
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
            let Some(index) = self.row.iter().position(Exchange::is_over) else { return false };
            self.remove(index);
        }
        self.row.push_back(Exchange {
            id: message.id,
            token: message.token,
            is_confirmable: message.kind == Kind::Confirmable,
            came_at: now,
            answer: None,
            open: None,
        });
        true
    }

    /// The request with this message identifier, if it has not been forgotten.
    pub(super) fn find(&mut self, id: u16) -> Option<&mut Exchange> {
        self.row.iter_mut().rev().find(|exchange| exchange.id == id)
    }

    /// The request with this token that is yet to be answered; of several, the last.
    pub(super) fn find_open(&mut self, token: Token) -> Option<&mut Exchange> {
        self.row.iter_mut().rev().find(|exchange| exchange.open.is_some() && exchange.token == token)
    }

    /// The requests that the upstream has yet to answer.
    pub(super) fn open(&self) -> impl Iterator<Item = (u16, &Open)> {
        self.row.iter().filter_map(|exchange| Some((exchange.id, exchange.open.as_deref()?)))
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

    /// Forgets what cannot come again any more.
    pub(super) fn forget_until(&mut self, now: Instant) {
        while self.forgets_at().is_some_and(|at| at <= now) {
            self.remove(0);
        }
        if self.row.is_empty() {
            self.row = VecDeque::new();
        }
    }

    /// When there is something to be forgotten.
    pub(super) fn forgets_at(&self) -> Option<Instant> {
        self.row.front().map(|exchange| exchange.came_at + EXCHANGE_LIFETIME)
    }

    /// Bytes of answers that are kept.
    #[cfg(test)]
    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes
    }

    fn remove(&mut self, index: usize) {
        if let Some(exchange) = self.row.remove(index) {
            self.answer_bytes -= exchange.answer.map_or(0, |answer| answer.len());
        }
    }
}

impl Exchange {
    /// What it was answered, where that is to be said again.
    pub(super) fn answer(&self) -> Option<&[u8]> {
        self.answer.as_deref()
    }

    /// Whether nothing is to come any more. What waits to be judged is not over, but has no answer either: it is
    /// never the oldest of many.
    fn is_over(&self) -> bool {
        self.open.is_none()
    }
}

/// RFC 7252 §4.8.2, with its own parameters
pub(super) const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);

/// Requests of one client that are remembered.
const MAX_EXCHANGES: usize = 64;

/// Bytes of answers that are kept for one client.
const MAX_ANSWER_BYTES: usize = 8 * 1024;
