//! What went wrong with single letters, told now and then.

use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

/// Things that happened and were not told yet, kind by kind.
#[derive(Default)]
pub(super) struct Notices([Mutex<Untold>; KINDS]);

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The queue was full.
    Full,
    /// The dialect has no word for it.
    NoWord,
    /// NATS does not take it, and it was given up.
    Lost,
    /// NATS does not take it at the moment.
    Refused,
    /// The server reports an error.
    Server,
    /// The spool was full.
    SpoolFull,
    /// It was in the spool for too long.
    TooOld,
    /// The spool does not work.
    Spool,
    /// Another stream than the configured one stores it.
    WrongStream,
}

#[derive(Default)]
struct Untold {
    count: u64,
    example: Option<String>,
    quiet_until: Option<Instant>,
}

impl Notices {
    /// So many more; the first example since the last word is told with them.
    pub(super) fn add(&self, notice: Notice, count: u64, example: impl FnOnce() -> String) {
        if count > 0 {
            let mut untold = self.of(notice).lock().unwrap_or_else(PoisonError::into_inner);
            untold.count += count;
            untold.example.get_or_insert_with(example);
        }
    }

    /// Logs what was not told, kind by kind, each once per interval.
    pub(super) fn tell(&self, mirror: &str, now: Instant) {
        for notice in ALL {
            let mut untold = self.of(notice).lock().unwrap_or_else(PoisonError::into_inner);
            if untold.count == 0 || untold.quiet_until.is_some_and(|until| now < until) {
                continue;
            }
            untold.quiet_until = Some(now + INTERVAL);
            let (count, example) = (mem::take(&mut untold.count), untold.example.take());
            drop(untold);
            let example = example.filter(|example| !example.is_empty());
            warn!(mirror, count, example, "{}", notice.text());
        }
    }

    fn of(&self, notice: Notice) -> &Mutex<Untold> {
        &self.0[notice as usize]
    }
}

impl Notice {
    fn text(self) -> &'static str {
        match self {
            Self::Full => "the mirror's queue is full: copies were dropped",
            Self::NoWord => "the mirror's dialect cannot say this: there is no copy",
            Self::Lost => "NATS does not take these copies: they were given up",
            Self::Refused => "NATS does not store these copies now",
            Self::Server => "NATS reports an error",
            Self::SpoolFull => "the mirror's spool is full: its oldest copies were dropped",
            Self::TooOld => "copies were in the mirror's spool for too long and were dropped",
            Self::Spool => "the mirror's spool does not work",
            Self::WrongStream => "copies are stored by another stream than `stream.name`",
        }
    }
}

const ALL: [Notice; KINDS] = [
    Notice::Full,
    Notice::NoWord,
    Notice::Lost,
    Notice::Refused,
    Notice::Server,
    Notice::SpoolFull,
    Notice::TooOld,
    Notice::Spool,
    Notice::WrongStream,
];
const KINDS: usize = 9;
const INTERVAL: Duration = Duration::from_secs(10);
