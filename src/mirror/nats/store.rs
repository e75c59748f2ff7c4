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
    Broken(Box<BrokenSpool>),
    Open(Box<OpenSpool>),
}

/// A spool that failed.
pub(super) struct BrokenSpool {
    config: SpoolConfig,
    /// When it is opened again.
    at: Instant,
    /// What it need not keep any longer.
    done: Vec<u64>,
    /// The number of the first letter in it that was not read.
    unread: u64,
    has_unread: bool,
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

    /// Whether letters may be sent without having been in the spool: nothing in it must go before them.
    pub(super) fn is_passed_by(&self, is_connected: bool) -> bool {
        match self {
            Self::None => true,
            Self::Broken(broken) => is_connected && !broken.has_unread,
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
    pub(super) fn change<L: Borrow<Letter>>(
        &mut self,
        letters: &[L],
        notices: &Notices,
        now: Instant,
    ) -> bool {
        let Self::Open(open) = self else { return false };
        let letters = letters.iter().map(Borrow::borrow);
        match open.spool.change(letters, &open.done, Now::read().unix) {
            Ok(shed) => {
                open.done.clear();
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

    /// The next letters to be sent, about as many as fit into `max_bytes`.
    pub(super) fn read(&mut self, max_bytes: usize, notices: &Notices, now: Instant) -> Vec<Letter> {
        let Self::Open(open) = self else { return Vec::new() };
        if !open.spool.has_unread() {
            return Vec::new();
        }
        open.spool.read(max_bytes.min(READ_BYTES)).unwrap_or_else(|error| {
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

    /// Counts all as not read but what is done with; says whether it could.
    pub(super) fn start_over(&mut self, notices: &Notices, now: Instant) -> bool {
        let has_done = matches!(self, Self::Open(open) if !open.done.is_empty());
        if has_done && !self.change::<Letter>(&[], notices, now) {
            return false;
        }
        let Self::Open(open) = self else { return false };
        open.spool.rewind();
        true
    }

    /// Letters with these numbers are where they should be.
    pub(super) fn forget(&mut self, numbers: Vec<u64>) {
        match self {
            Self::None => {}
            Self::Broken(broken) => broken.done.extend(numbers),
            Self::Open(open) => open.done.extend(numbers),
        }
    }

    /// Opens a spool that failed some time ago; it goes on where it was.
    pub(super) fn reopen(&mut self, notices: &Notices, now: Instant) {
        let Self::Broken(broken) = self else { return };
        if now < broken.at {
            return;
        }
        match Spool::open(&broken.config) {
            Ok(mut spool) => {
                spool.seek(broken.unread);
                *self = Self::Open(Box::new(OpenSpool {
                    config: broken.config.clone(),
                    spool,
                    done: mem::take(&mut broken.done),
                    next_change: now,
                    next_sweep: now + SWEEP_INTERVAL,
                }));
            }
            Err(error) => {
                broken.at = now + REOPEN_PAUSE;
                notices.add(Notice::Spool, 1, || error.to_string());
            }
        }
    }

    fn fail(&mut self, error: &redb::Error, notices: &Notices, now: Instant) {
        notices.add(Notice::Spool, 1, || error.to_string());
        if let Self::Open(open) = self {
            *self = Self::Broken(Box::new(BrokenSpool {
                config: open.config.clone(),
                at: now + REOPEN_PAUSE,
                done: mem::take(&mut open.done),
                unread: open.spool.unread(),
                has_unread: open.spool.has_unread(),
            }));
        }
    }
}

/// Time between two changes: what comes meanwhile goes to disk together.
const CHANGE_PAUSE: Duration = Duration::from_millis(20);
/// Time between two looks for what is too old.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// What is read at a time, at most.
const READ_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io;

    use tempfile::TempDir;

    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn what_is_done_with_is_not_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, now) = opened(&directory);
        put(&mut store, 1..=3, now);
        assert_eq!(read(&mut store, now), [1, 2, 3]);
        store.forget(vec![1, 2]);
        assert!(store.start_over(&Notices::default(), now));
        assert_eq!(read(&mut store, now), [3]);
    }

    #[test]
    fn broken_spool_is_passed_by_if_all_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, now) = opened(&directory);
        put(&mut store, 1..=1, now);
        read(&mut store, now);
        fail(&mut store, now);
        assert_eq!((store.is_passed_by(true), store.is_passed_by(false)), (true, false));
        store.reopen(&Notices::default(), now + REOPEN_PAUSE);
        put(&mut store, 2..=2, now);
        fail(&mut store, now);
        assert!(!store.is_passed_by(true));
    }

    #[test]
    fn spool_that_was_opened_anew_goes_on_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, now) = opened(&directory);
        put(&mut store, 1..=3, now);
        read(&mut store, now);
        put(&mut store, 4..=4, now);
        store.forget(vec![1]);
        fail(&mut store, now);
        store.forget(vec![2]);
        store.reopen(&Notices::default(), now);
        assert!(!store.is_open());
        store.reopen(&Notices::default(), now + REOPEN_PAUSE);
        assert_eq!(read(&mut store, now), [4]);
        assert!(store.start_over(&Notices::default(), now));
        assert_eq!(read(&mut store, now), [3, 4]);
    }

    fn opened(directory: &TempDir) -> (Store, Instant) {
        let directory = directory.path().join("spool");
        let config = SpoolConfig { directory, max_bytes: 1 << 20, max_age: Duration::from_secs(60) };
        let (spool, now) = (Spool::open(&config).unwrap(), Now::read().instant);
        (Store::new(config, spool, now), now)
    }

    fn put(store: &mut Store, numbers: impl Iterator<Item = u64>, now: Instant) {
        let at = Now::read().unix;
        let letters: Vec<_> = numbers.map(|number| Letter { number, at, ..letter(1, "s", "") }).collect();
        assert!(store.change(&letters, &Notices::default(), now));
    }

    fn read(store: &mut Store, now: Instant) -> Vec<u64> {
        store.read(usize::MAX, &Notices::default(), now).iter().map(|letter| letter.number).collect()
    }

    fn fail(store: &mut Store, now: Instant) {
        store.fail(&redb::Error::Io(io::Error::other("the disk is full")), &Notices::default(), now);
    }
}
