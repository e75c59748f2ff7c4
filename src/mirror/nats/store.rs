//! The spool of a mirror that has one, with what it takes to keep it going.

use std::borrow::Borrow;
use std::mem;
use std::time::{Duration, Instant};

use mgate_policies::Now;

use super::letter::Letter;
use super::notices::{Notice, Notices};
use super::spool::{Spool, SpoolConfig};

/// Where letters are kept while NATS is away.
pub(super) enum Store {
    None,
    /// The spool failed, and is opened again at this time.
    Broken(SpoolConfig, Instant),
    Open(Box<OpenSpool>),
}

/// A spool in use.
pub(super) struct OpenSpool {
    config: SpoolConfig,
    spool: Spool,
    /// What it need not keep any longer.
    done: Vec<u64>,
    next_change: Instant,
    next_sweep: Instant,
}

impl Store {
    pub(super) fn new(config: SpoolConfig, spool: Spool, now: Instant) -> Self {
        Self::Open(Box::new(OpenSpool {
            config,
            spool,
            done: Vec::new(),
            next_change: now,
            next_sweep: now + SWEEP_INTERVAL,
        }))
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Whether letters may be sent without having been in the spool.
    pub(super) fn is_passed_by(&self, is_connected: bool) -> bool {
        match self {
            Self::None => true,
            Self::Broken(..) => false,
            Self::Open(open) => is_connected && !open.spool.has_unread(),
        }
    }

    pub(super) fn has_unread(&self) -> bool {
        matches!(self, Self::Open(open) if open.spool.has_unread())
    }

    /// Whether it has something to do soon.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Open(open) if !open.done.is_empty() || open.spool.has_unread())
    }

    /// Whether it is time for [`Store::change`].
    pub(super) fn is_due(&self, has_letters: bool, now: Instant) -> bool {
        let Self::Open(open) = self else { return false };
        let has_work = has_letters || !open.done.is_empty() || now >= open.next_sweep;
        has_work && now >= open.next_change
    }

    /// The next change need not wait.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Self::Open(open) = self {
            open.next_change = now;
        }
    }

    /// Puts letters in and takes out what is done with; says whether that is on disk.
    pub(super) fn change(
        &mut self,
        letters: &[impl Borrow<Letter>],
        notices: &Notices,
        now: Instant,
    ) -> bool {
        let Self::Open(open) = self else { return false };
        let letters = letters.iter().map(Borrow::borrow);
        match open.spool.change(letters, &mem::take(&mut open.done), Now::read().unix) {
            Ok(shed) => {
                open.next_change = now + CHANGE_PAUSE;
                open.next_sweep = now + SWEEP_INTERVAL;
                notices.add(Notice::SpoolFull, shed.for_room, String::new);
                notices.add(Notice::TooOld, shed.for_age, String::new);
                true
            }
            Err(error) => {
                self.fail(&error, notices, now);
                false
            }
        }
    }

    /// The next letters to be sent.
    pub(super) fn read(&mut self, notices: &Notices, now: Instant) -> Vec<Letter> {
        let Self::Open(open) = self else { return Vec::new() };
        if !open.spool.has_unread() {
            return Vec::new();
        }
        open.spool.read(READ_BYTES).unwrap_or_else(|error| {
            self.fail(&error, notices, now);
            Vec::new()
        })
    }

    /// Counts all as read.
    pub(super) fn skip(&mut self) {
        if let Self::Open(open) = self {
            open.spool.skip();
        }
    }

    /// Counts all as not read.
    pub(super) fn rewind(&mut self) {
        if let Self::Open(open) = self {
            open.spool.rewind();
        }
    }

    /// Letters with these numbers are where they should be.
    pub(super) fn forget(&mut self, numbers: Vec<u64>) {
        if let Self::Open(open) = self {
            open.done.extend(numbers);
        }
    }

    /// Opens a spool that failed some time ago; says whether it did.
    pub(super) fn reopen(&mut self, notices: &Notices, now: Instant) -> bool {
        let Self::Broken(config, at) = self else { return false };
        if now < *at {
            return false;
        }
        match Spool::open(config) {
            Ok(spool) => {
                *self = Self::new(config.clone(), spool, now);
                true
            }
            Err(error) => {
                *at = now + REOPEN_PAUSE;
                notices.add(Notice::Spool, 1, || error.to_string());
                false
            }
        }
    }

    fn fail(&mut self, error: &redb::Error, notices: &Notices, now: Instant) {
        notices.add(Notice::Spool, 1, || error.to_string());
        if let Self::Open(open) = self {
            *self = Self::Broken(open.config.clone(), now + REOPEN_PAUSE);
        }
    }
}

/// Time between two changes: what comes meanwhile goes to disk together.
const CHANGE_PAUSE: Duration = Duration::from_millis(20);
/// Time between two looks for what is too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// What is read at a time.
const READ_BYTES: usize = 1024 * 1024;
