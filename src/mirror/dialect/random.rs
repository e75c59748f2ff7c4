//! Numbers that nobody else has, without a lock and without asking the system for each.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// Digits of a message's identifier: 16 for the thread, 16 for the message.
pub(super) const ID_LEN: usize = 33;

/// An identifier that no other message of any process has.
pub(super) fn message_id() -> [u8; ID_LEN] {
    let mut id = LAST_ID.get();
    count_up(&mut id[17..]);
    LAST_ID.set(id);
    id
}

/// Random numbers; good against chance, not against guessing.
pub(super) fn numbers<const COUNT: usize>() -> [u64; COUNT] {
    let mut generator = GENERATOR.get();
    let mut numbers = [0; COUNT];
    numbers.iter_mut().for_each(|number| *number = generator.next());
    GENERATOR.set(generator);
    numbers
}

/// The next number, of as many digits.
fn count_up(digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        match *digit {
            b'f' => *digit = b'0',
            b'9' => return *digit = b'a',
            _ => return *digit += 1,
        }
    }
}

/// The digits of a number, eight at a time.
pub(super) fn hex(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&half_hex(number >> 32));
    digits[8..].copy_from_slice(&half_hex(number & 0xffff_ffff));
    digits
}

/// The digits of a number of 32 bits.
fn half_hex(number: u64) -> [u8; 8] {
    // each half moves apart from the other, until each byte has four bits
    let halves = (number << 16 | number) & 0x0000_ffff_0000_ffff;
    let quarters = (halves << 8 | halves) & 0x00ff_00ff_00ff_00ff;
    let values = (quarters << 4 | quarters) & 0x0f0f_0f0f_0f0f_0f0f;
    // six more have a fifth bit where it is ten or above
    let letters = (values + 6 * ONES) >> 4 & ONES;
    (values + u64::from(b'0') * ONES + u64::from(b'a' - 10 - b'0') * letters).to_be_bytes()
}

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;

/// xoroshiro128++ of Blackman and Vigna.
#[derive(Clone, Copy)]
struct Generator([u64; 2]);

impl Generator {
    fn next(&mut self) -> u64 {
        let [one, mut two] = self.0;
        let number = one.wrapping_add(two).rotate_left(17).wrapping_add(one);
        two ^= one;
        self.0 = [one.rotate_left(49) ^ two ^ (two << 21), two.rotate_left(28)];
        number
    }
}

/// The identifier before the first one of a thread.
fn first_id() -> [u8; ID_LEN] {
    let mut id = [b'-'; ID_LEN];
    id[..16].copy_from_slice(&hex(seed()));
    id[17..].copy_from_slice(&hex(0));
    id
}

/// The system's own randomness, asked for once a thread.
fn seed() -> u64 {
    RandomState::new().hash_one(0_u8)
}

thread_local! {
    static LAST_ID: Cell<[u8; ID_LEN]> = Cell::new(first_id());
    static GENERATOR: Cell<Generator> = Cell::new(Generator([seed() | 1, seed()]));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_two_messages_have_one_identifier() {
        let ids = || (0..1000).map(|_| message_id()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(ids)).collect();
        let all: HashSet<_> =
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).chain(ids()).collect();
        assert_eq!(all.len(), 5000);
        assert!(all.iter().flatten().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-'));
    }

    #[test]
    fn generator_is_the_published_one() {
        let mut generator = Generator([1, 2]);
        let numbers = [(); 4].map(|()| generator.next());
        assert_eq!(numbers, [0x60001, 0x2_60c0_0066_0007, 0x180a_cc04_7186_06d3, 0x9e22_6d35_036f_c4c7]);
    }

    #[test]
    fn digits_are_those_of_the_number() {
        assert_eq!(&hex(0x0123_4567_89ab_cdef), b"0123456789abcdef");
        assert_eq!(&hex(0xf), b"000000000000000f");
    }

    proptest! {
        #[test]
        fn digits_are_those_that_all_write(number: u64) {
            prop_assert_eq!(hex(number).to_vec(), format!("{number:016x}").into_bytes());
        }

        #[test]
        fn counting_goes_on_to_the_next_number(number: u64, low in prop::sample::select(vec![0, 0xf, 0x9ff, u64::MAX])) {
            let mut digits = hex(number | low);
            count_up(&mut digits);
            prop_assert_eq!(digits, hex((number | low).wrapping_add(1)));
        }
    }
}
