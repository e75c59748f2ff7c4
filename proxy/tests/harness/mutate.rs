//! Bytes changed by chance that a seed repeats.

/// A generator of numbers by chance: xorshift64*.
pub(crate) struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        number as usize % end
    }

    /// Any byte.
    pub(crate) fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    /// One of several.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Changes a packet in one to three places; often its remaining length is set right after that.
pub(crate) fn mutate(packet: &[u8], other: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    for _ in 0..=chance.below(3) {
        change(&mut bytes, other, chance);
    }
    if chance.below(4) > 0 {
        fix_length(&mut bytes);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    let at = chance.below(bytes.len() + 1);
    match (chance.below(6), bytes.get_mut(at)) {
        (0, Some(byte)) => *byte ^= 1 << chance.below(8),
        (1, Some(byte)) => *byte = chance.byte(),
        (2, Some(byte)) => *byte = *chance.pick(&TELLING),
        (3, Some(_)) => {
            bytes.remove(at);
        }
        (4, _) if !other.is_empty() => {
            let from = chance.below(other.len());
            let to = other.len().min(from + 1 + chance.below(8));
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        _ => bytes.insert(at, *chance.pick(&TELLING)),
    }
}

/// Replaces the remaining length by that of the body; only packets of short lengths.
fn fix_length(bytes: &mut [u8]) {
    let length = bytes.len().wrapping_sub(2);
    if length < 0x80 {
        bytes[1] = length as u8;
    }
}

/// Bytes on which codecs like to stumble.
const TELLING: [u8; 12] = [0, 1, 2, 3, 4, 0x0b, 0x23, 0x26, b'#', b'/', 0x7f, 0xff];
