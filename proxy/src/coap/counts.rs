//! What is counted of DTLS.

use std::sync::atomic::{AtomicU64, Ordering};

use mgate_dtls::Statistics;

/// What all sockets of a route have counted together.
#[derive(Default)]
pub(super) struct Counts {
    cookies_sent: AtomicU64,
    handshakes_done: AtomicU64,
    handshakes_failed: AtomicU64,
    handshakes_refused: AtomicU64,
    records_forged: AtomicU64,
    records_replayed: AtomicU64,
    records_stray: AtomicU64,
}

impl Counts {
    /// Adds what one socket has counted, that had counted `before` the last time. Returns the number of forged records if
    /// it has reached the next power of two.
    pub(super) fn add(&self, before: &Statistics, now: &Statistics) -> Option<u64> {
        let add = |total: &AtomicU64, count: fn(&Statistics) -> u64| {
            let news = count(now) - count(before);
            if news == 0 { (0, 0) } else { (total.fetch_add(news, Ordering::Relaxed), news) }
        };
        add(&self.cookies_sent, |counted| counted.cookies_sent);
        add(&self.handshakes_done, |counted| counted.handshakes_done);
        add(&self.handshakes_failed, |counted| counted.handshakes_failed);
        add(&self.handshakes_refused, |counted| counted.handshakes_refused);
        add(&self.records_replayed, |counted| counted.records_replayed);
        add(&self.records_stray, |counted| counted.records_stray);
        let (earlier, news) = add(&self.records_forged, |counted| counted.records_forged);
        let total = earlier + news;
        (total.checked_ilog2() > earlier.checked_ilog2()).then_some(total)
    }

    /// All of it; what is at the moment, each socket knows for itself.
    pub(super) fn read(&self) -> Statistics {
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Statistics {
            cookies_sent: read(&self.cookies_sent),
            handshakes_done: read(&self.handshakes_done),
            handshakes_failed: read(&self.handshakes_failed),
            handshakes_refused: read(&self.handshakes_refused),
            records_forged: read(&self.records_forged),
            records_replayed: read(&self.records_replayed),
            records_stray: read(&self.records_stray),
            ..Statistics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_count_together_and_tell_when_forgeries_double() {
        let counts = Counts::default();
        let mut sockets = [Statistics::default(); 2];
        let mut told = Vec::new();
        for number in 0..9 {
            let before = sockets[number % 2];
            sockets[number % 2].records_forged += 1;
            sockets[number % 2].records_replayed += 2;
            told.extend(counts.add(&before, &sockets[number % 2]));
        }
        assert_eq!(told, [1, 2, 4, 8]);
        let expected = Statistics { records_forged: 9, records_replayed: 18, ..Statistics::default() };
        assert_eq!(counts.read(), expected);
        assert_eq!(counts.add(&sockets[0], &sockets[0]), None);
        let many = Statistics { records_forged: sockets[0].records_forged + 100, ..sockets[0] };
        assert_eq!(counts.add(&sockets[0], &many), Some(109));
    }
}
