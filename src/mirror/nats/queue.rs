//! Letters between the workers, which never wait, and the one thread that sends them.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::letter::Letter;

/// A bounded queue. What was taken out of it counts until it is released.
pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    woken: Notify,
}

/// What may be held at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages.
    pub messages: usize,
    /// Bytes, headers and subjects included.
    pub bytes: usize,
}

#[derive(Default)]
struct State {
    letters: Vec<Letter>,
    held: Held,
    /// Memory for the next letters: one thread allocates and another one frees, which is what allocators like least.
    rooms: Vec<Vec<u8>>,
    dropped: u64,
    /// Whether the one who takes waits to be woken.
    is_asleep: bool,
}

/// What letters that have gone leave behind.
#[derive(Default)]
pub(super) struct Freed {
    pub(super) held: Held,
    rooms: Vec<Vec<u8>>,
}

/// How much of a queue is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), woken: Notify::new() }
    }

    /// Takes a letter in, if there is room; says whether there was.
    pub(super) fn push(&self, letter: Letter) -> bool {
        let mut state = self.lock();
        let bytes = state.held.bytes + letter.bytes();
        if state.held.messages >= self.bounds.messages || bytes > self.bounds.bytes {
            state.dropped += u64::from(letter.waiting.is_none());
            return false;
        }
        state.held = Held { messages: state.held.messages + 1, bytes };
        state.letters.push(letter);
        let is_asleep = mem::take(&mut state.is_asleep);
        drop(state);
        if is_asleep {
            self.woken.notify_one();
        }
        true
    }

    /// Memory to write a letter into that nobody waits for. `None` if it has at least so many bytes and there is no
    /// room for it: it need not be written, and is counted.
    pub(super) fn room_for(&self, bytes: usize) -> Option<Vec<u8>> {
        let mut state = self.lock();
        if state.held.messages >= self.bounds.messages || state.held.bytes + bytes > self.bounds.bytes {
            state.dropped += 1;
            return None;
        }
        Some(state.rooms.pop().unwrap_or_default())
    }

    /// Memory to write a letter into.
    pub(super) fn room(&self) -> Vec<u8> {
        self.lock().rooms.pop().unwrap_or_default()
    }

    /// Swaps what is there for `empty`, which keeps its room.
    pub(super) fn take(&self, empty: &mut Vec<Letter>) {
        mem::swap(&mut self.lock().letters, empty);
    }

    /// Makes room for as much as was held.
    pub(super) fn release(&self, freed: Freed) {
        let Freed { held, rooms } = freed;
        if held.messages > 0 || !rooms.is_empty() {
            let mut state = self.lock();
            state.held.messages -= held.messages;
            state.held.bytes -= held.bytes;
            let missing = MAX_ROOMS.saturating_sub(state.rooms.len());
            state.rooms.extend(rooms.into_iter().take(missing));
        }
    }

    /// How many letters found no room since the last time; those that somebody waits for are not among them.
    pub(super) fn take_dropped(&self) -> u64 {
        mem::take(&mut self.lock().dropped)
    }

    /// Whether more than half of it is in use.
    pub(super) fn is_half_full(&self) -> bool {
        let held = self.lock().held;
        held.messages > self.bounds.messages / 2 || held.bytes > self.bounds.bytes / 2
    }

    pub(super) fn held(&self) -> Held {
        self.lock().held
    }

    /// Ends when the next letter comes; at once, if there is one.
    pub(super) async fn next(&self) {
        let is_empty = {
            let mut state = self.lock();
            state.is_asleep = state.letters.is_empty();
            state.is_asleep
        };
        if is_empty {
            self.woken.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Freed {
    /// A letter has gone.
    pub(super) fn take(&mut self, letter: Letter) {
        if !letter.is_spooled {
            self.held.add(&letter);
        }
        let mut room = letter.draft.into_room();
        if room.capacity() <= MAX_ROOM_BYTES && self.rooms.len() < MAX_ROOMS {
            room.clear();
            self.rooms.push(room);
        }
    }
}

impl Held {
    /// One letter more.
    pub(super) fn add(&mut self, letter: &Letter) {
        self.messages += 1;
        self.bytes += letter.bytes();
    }
}

/// Memory that is kept for the next letters: what comes between two turns of the thread that sends, at some ten
/// thousand a second.
const MAX_ROOMS: usize = 512;
const MAX_ROOM_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn queue_that_is_full_does_not_take_the_newest() {
        let queue = Queue::new(Bounds { messages: 2, bytes: 1 << 20 });
        let pushed: Vec<_> = (1..=3).map(|port| queue.push(letter(port, "a", "x"))).collect();
        assert_eq!(pushed, [true, true, false]);
        assert_eq!((queue.take_dropped(), queue.take_dropped()), (1, 0));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let size = letter(1, "a", "x").bytes();
        let queue = Queue::new(Bounds { messages: 100, bytes: 2 * size });
        let pushed: Vec<_> = (1..=3).map(|port| queue.push(letter(port, "a", "x"))).collect();
        assert_eq!(pushed, [true, true, false]);
    }

    #[test]
    fn letter_without_room_is_turned_away_before_it_is_written_and_counted() {
        let queue = Queue::new(Bounds { messages: 1, bytes: 1000 });
        assert_eq!([1000, 1001].map(|bytes| queue.room_for(bytes).is_some()), [true, false]);
        assert!(queue.push(letter(1, "a", "x")));
        assert_eq!(queue.room_for(0), None);
        assert_eq!(queue.take_dropped(), 2);
    }

    #[test]
    fn what_is_taken_counts_until_it_is_released() {
        let queue = Queue::new(Bounds { messages: 1, bytes: 1 << 20 });
        assert!(queue.push(letter(1, "a", "x")));
        let mut taken = Vec::new();
        queue.take(&mut taken);
        assert!(!queue.push(letter(2, "a", "x")));
        let mut freed = Freed::default();
        taken.drain(..).for_each(|letter| freed.take(letter));
        queue.release(freed);
        assert_eq!(queue.held(), Held::default());
        assert!(queue.push(letter(3, "a", "x")));
    }

    #[test]
    fn memory_of_letters_is_used_again_but_not_kept_without_bound() {
        let queue = Queue::new(Bounds { messages: 1000, bytes: 1 << 30 });
        let freed = |payload: &str| {
            let mut freed = Freed::default();
            for _ in 0..MAX_ROOMS + 1 {
                freed.take(Letter { is_spooled: true, ..letter(1, "a", payload) });
            }
            freed
        };
        queue.release(freed(&"x".repeat(MAX_ROOM_BYTES + 1)));
        assert_eq!(queue.room().capacity(), 0);
        (0..2).for_each(|_| queue.release(freed("x")));
        let is_used_again = |room: &Vec<u8>| room.is_empty() && room.capacity() > 0;
        assert!((0..MAX_ROOMS).all(|_| queue.room_for(1).is_some_and(|room| is_used_again(&room))));
        assert_eq!(queue.room().capacity(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn next_ends_when_a_letter_is_there() {
        let queue = Queue::new(Bounds { messages: 9, bytes: 1 << 20 });
        let asleep = tokio::time::timeout(std::time::Duration::from_secs(1), queue.next());
        assert!(asleep.await.is_err());
        assert!(queue.push(letter(1, "a", "x")));
        queue.next().await;
    }
}
