//! What is sent and not yet confirmed, and what waits to be sent.

use std::collections::VecDeque;
use std::time::Instant;

use mgate_policies::{Cause, Reason};

use super::jetstream::Lanes;
use super::letter::Letter;
use super::queue::Freed;
use super::wire::Wire;

/// How letters are sent: in one row, or in a lane for each session.
pub(super) enum Flow {
    /// NATS acknowledges each that it has stored.
    Lanes(Box<Lanes>),
    /// NATS says how far it has read.
    Row(Row),
}

/// Letters in one row. Those in front are written and not yet known to have come.
#[derive(Default)]
pub(super) struct Row {
    letters: VecDeque<Letter>,
    written: usize,
    /// How many left the front: marks count from the first letter of the connection.
    left: usize,
}

/// What letters have come to since the last time.
#[derive(Default)]
pub(super) struct Outcome {
    /// What has room in the queue again.
    pub(super) freed: Freed,
    /// What the spool need not keep any longer.
    pub(super) unspooled: Vec<u64>,
    /// How many were given up, and why the last one was.
    pub(super) lost: u64,
    pub(super) why: Option<String>,
}

impl Flow {
    pub(super) fn push(&mut self, letter: Letter) {
        match self {
            Self::Lanes(lanes) => lanes.push(letter),
            Self::Row(row) => row.letters.push_back(letter),
        }
    }

    /// Writes as much as the wire has room for.
    pub(super) fn fill(&mut self, wire: &mut Wire, outcome: &mut Outcome, now: Instant) {
        match self {
            Self::Lanes(lanes) => lanes.fill(wire, outcome, now),
            Self::Row(row) => row.fill(wire, outcome, now),
        }
    }

    /// Asks the server for an answer, as far as has been written.
    pub(super) fn ping(&self, wire: &mut Wire, now: Instant) {
        let mark = match self {
            Self::Lanes(_) => 0,
            Self::Row(row) => row.left + row.written,
        };
        wire.ping(mark, now);
    }

    /// The server has read all before a ping.
    pub(super) fn pong(&mut self, mark: usize, outcome: &mut Outcome) {
        if let Self::Row(row) = self {
            row.confirm(mark, outcome);
        }
    }

    /// The connection broke: what is not confirmed is sent again.
    pub(super) fn broke(&mut self) {
        match self {
            Self::Lanes(lanes) => lanes.broke(),
            Self::Row(row) => (row.written, row.left) = (0, 0),
        }
    }

    /// How many letters there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Lanes(lanes) => lanes.len(),
            Self::Row(row) => row.letters.len(),
        }
    }

    /// Whether more of the spool may come in.
    pub(super) fn wants_more(&self) -> bool {
        let moving = match self {
            Self::Lanes(lanes) => lanes.moving(),
            Self::Row(row) => row.letters.len(),
        };
        moving < MAX_READ && self.len() < MAX_HELD
    }

    /// The bytes of letters that are in the spool too.
    pub(super) fn spooled_bytes(&self) -> usize {
        match self {
            Self::Lanes(lanes) => spooled_bytes(lanes.letters()),
            Self::Row(row) => spooled_bytes(row.letters.iter()),
        }
    }

    /// Whether something was written that a ping must ask after.
    pub(super) fn wants_ping(&self) -> bool {
        matches!(self, Self::Row(row) if row.written > 0)
    }

    /// All letters in their order.
    pub(super) fn letters_mut(&mut self) -> Vec<&mut Letter> {
        match self {
            Self::Lanes(lanes) => lanes.letters_mut(),
            Self::Row(row) => row.letters.iter_mut().collect(),
        }
    }

    /// Forgets all letters.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Lanes(lanes) => lanes.clear(),
            Self::Row(row) => *row = Row::default(),
        }
    }
}

impl Row {
    fn fill(&mut self, wire: &mut Wire, outcome: &mut Outcome, now: Instant) {
        while wire.has_room() {
            let Some(letter) = self.letters.get(self.written) else { break };
            if !wire.takes(letter) {
                if let Some(letter) = self.letters.remove(self.written) {
                    outcome.lose(letter, TOO_LARGE);
                }
                continue;
            }
            wire.publish(letter, None, now);
            self.written += 1;
        }
    }

    fn confirm(&mut self, mark: usize, outcome: &mut Outcome) {
        let confirmed = mark.saturating_sub(self.left).min(self.written);
        for letter in self.letters.drain(..confirmed) {
            outcome.done(letter);
        }
        self.written -= confirmed;
        self.left += confirmed;
    }
}

impl Outcome {
    /// A letter is where it should be.
    pub(super) fn stored(&mut self, mut letter: Letter) {
        letter.settle(Ok(()));
        self.done(letter);
    }

    /// A letter will never be there.
    pub(super) fn lose(&mut self, mut letter: Letter, why: &str) {
        letter.settle(Err(Reason::with_detail(Cause::Unavailable, why)));
        self.lost += 1;
        self.why = Some(format!("{}: {why}", letter.draft.subject()));
        self.done(letter);
    }

    /// A letter is of no interest any longer.
    pub(super) fn done(&mut self, letter: Letter) {
        if letter.is_spooled {
            self.unspooled.push(letter.number);
        }
        self.freed.take(letter);
    }
}

fn spooled_bytes<'a>(letters: impl Iterator<Item = &'a Letter>) -> usize {
    letters.filter(|letter| letter.is_spooled).map(Letter::bytes).sum()
}

/// Letters on their way above which none is read from the spool.
const MAX_READ: usize = 1024;
/// The same, with those behind one that NATS refuses.
const MAX_HELD: usize = 16 * MAX_READ;
pub(super) const TOO_LARGE: &str = "is larger than NATS takes";
