//! Which records of an epoch have come already (RFC 6347 §4.1.2.6).

/// A sliding window over the sequence numbers of an epoch: it knows the newest and the 63 before it.
#[derive(Clone, Debug, Default)]
pub struct Window {
    newest: u64,
    /// Bit n: the one n before the newest has come. 0: none has.
    seen: u64,
}

impl Window {
    /// Notes that an authentic record came; whether it is newer than all before it.
    pub fn mark(&mut self, sequence: u64) -> bool {
        if self.seen == 0 || sequence > self.newest {
            let seen = shifted(self.seen, sequence.saturating_sub(self.newest));
            *self = Self { newest: sequence, seen: seen | 1 };
            return true;
        }
        self.seen |= shifted(1, self.newest - sequence);
        false
    }

    /// Whether a record may be new: it has not come, and is not too old to know.
    pub fn is_fresh(&self, sequence: u64) -> bool {
        match self.newest.checked_sub(sequence) {
            Some(age) => age < WIDTH && self.seen & shifted(1, age) == 0,
            None => true,
        }
    }
}

fn shifted(bits: u64, by: u64) -> u64 {
    if by < WIDTH { bits << by } else { 0 }
}

const WIDTH: u64 = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_is_the_newest_whatever_its_number() {
        for first in [0, 1, 64, (1 << 48) - 1] {
            let mut window = Window::default();
            assert!(window.is_fresh(first));
            assert!(window.mark(first));
            assert!(!window.is_fresh(first));
            assert!(!window.mark(first));
        }
    }

    #[test]
    fn sixty_three_before_the_newest_are_still_known() {
        let mut window = Window::default();
        window.mark(100);
        assert!(window.is_fresh(37));
        assert!(!window.is_fresh(36));
        assert!(!window.mark(37));
        assert!(!window.is_fresh(37));
        assert!(window.mark(164));
        assert!(!window.is_fresh(100));
    }

    proptest! {
        #[test]
        fn a_window_knows_what_a_set_knows(
            steps in proptest::collection::vec(prop_oneof![0u64..8, 0u64..300, 0u64..(1 << 48)], 1..200),
        ) {
            let mut window = Window::default();
            let mut came = BTreeSet::new();
            for sequence in steps {
                let newest = came.last().copied();
                let is_known = newest.is_none_or(|newest| sequence + WIDTH > newest);
                prop_assert_eq!(window.is_fresh(sequence), is_known && !came.contains(&sequence));
                prop_assert_eq!(window.mark(sequence), newest.is_none_or(|newest| sequence > newest));
                came.insert(sequence);
            }
        }
    }
}
