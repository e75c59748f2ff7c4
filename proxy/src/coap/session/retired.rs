//! Tokens of observations that are over for the client, though the upstream may still speak of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::exchanges::EXCHANGE_LIFETIME;
use super::target::Target;
use crate::coap::message::Token;

/// Those tokens, each with what it was used for; the oldest first.
#[derive(Default)]
pub(super) struct Retired(VecDeque<(Token, Arc<Target>, Instant)>);

impl Retired {
    /// Keeps a token, until nothing that has to do with it can be on its way any more.
    pub(super) fn add(&mut self, token: Token, target: Arc<Target>, now: Instant) {
        self.0.push_back((token, target, now + EXCHANGE_LIFETIME));
    }

    /// Whether a token was used for something of which `is_other` holds.
    pub(super) fn has(&self, token: Token, is_other: impl Fn(&Target) -> bool) -> bool {
        self.0.iter().any(|(used, target, _)| *used == token && is_other(target))
    }

    /// Whether there are as many as may be, so that no observation may begin that could become one more.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX_RETIRED
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets those that are free again.
    pub(super) fn forget_until(&mut self, now: Instant) {
        while self.forgets_at().is_some_and(|at| at <= now) {
            self.0.pop_front();
        }
        if self.0.is_empty() {
            self.clear();
        }
    }

    /// Forgets all: what the upstream says of them comes to nobody.
    pub(super) fn clear(&mut self) {
        self.0 = VecDeque::new();
    }

    /// When there is something to be forgotten.
    pub(super) fn forgets_at(&self) -> Option<Instant> {
        self.0.front().map(|(_, _, until)| *until)
    }
}

/// Observations that may end in the lifetime of an exchange before no more may begin.
const MAX_RETIRED: usize = 64;
