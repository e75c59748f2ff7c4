//! Frames: RFC 6455 §5.2, without extensions.

use bytes::{BufMut, BytesMut};

use super::close::Close;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) is_final: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: Option<Mask>,
    /// Of the payload.
    pub(super) length: u64,
}

/// What a payload is combined with on its way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mask(pub(super) [u8; 4]);

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

impl Header {
    /// Reads the head at the beginning of `bytes`, and says how long it is; `None` where it is not whole.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Close> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let opcode = Opcode::of(first & 0x0f).ok_or(Close::PROTOCOL_ERROR)?;
        let (is_final, is_reserved) = (first & 0x80 != 0, first & 0x70 != 0);
        let (is_masked, short) = (second & 0x80 != 0, second & 0x7f);
        // §5.5: a control frame is short and whole
        if is_reserved || (opcode.is_control() && (!is_final || short > MAX_CONTROL)) {
            return Err(Close::PROTOCOL_ERROR);
        }
        let Some((length, rest)) = length(short, rest)? else { return Ok(None) };
        let mask = match (is_masked, rest) {
            (false, _) => None,
            (true, [a, b, c, d, ..]) => Some(Mask([*a, *b, *c, *d])),
            (true, _) => return Ok(None),
        };
        let size = bytes.len() - rest.len() + if is_masked { 4 } else { 0 };
        Ok(Some((Self { is_final, opcode, mask, length }, size)))
    }
}

impl Mask {
    /// Masks or unmasks the part of a payload that begins at `offset`.
    pub(super) fn apply(self, payload: &mut [u8], offset: usize) {
        let mut key = self.0;
        key.rotate_left(offset % 4);
        for chunk in payload.chunks_mut(4) {
            chunk.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        }
    }
}

/// Writes a whole frame that is final.
pub(super) fn encode(opcode: Opcode, payload: &[u8], mask: Option<Mask>, out: &mut BytesMut) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.reserve(MAX_HEADER + payload.len());
    out.put_u8(0x80 | opcode as u8);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=MAX_CONTROL), _) => out.put_u8(masked | length),
        (_, Ok(length)) => {
            out.put_u8(masked | LENGTH_16);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(masked | LENGTH_64);
            out.put_u64(payload.len() as u64);
        }
    }
    if let Some(mask) = mask {
        out.put_slice(&mask.0);
    }
    let start = out.len();
    out.put_slice(payload);
    if let Some(mask) = mask {
        mask.apply(&mut out[start..], 0);
    }
}

/// The length that begins with `short`, and what is behind it; it must be written as short as can be.
fn length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Close> {
    let (length, least, rest) = match short {
        LENGTH_16 => {
            let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u16::from_be_bytes(*length).into(), u64::from(LENGTH_16), rest)
        }
        LENGTH_64 => {
            let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(*length), 1 << 16, rest)
        }
        short => (short.into(), 0, rest),
    };
    if length < least || length >> 63 != 0 {
        return Err(Close::PROTOCOL_ERROR);
    }
    Ok(Some((length, rest)))
}

/// Payload of a control frame, and of any frame whose length takes one byte.
const MAX_CONTROL: u8 = 125;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
const MAX_HEADER: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        for length in [0, 1, 125, 126, 65535, 65536, 70000] {
            for mask in [None, Some(Mask([1, 2, 3, 4]))] {
                let (payload, mut out) = (vec![7; length], BytesMut::new());
                encode(Opcode::Binary, &payload, mask, &mut out);
                let (header, size) = Header::decode(&out).unwrap().unwrap();
                let expected = Header { is_final: true, opcode: Opcode::Binary, mask, length: length as u64 };
                assert_eq!(header, expected);
                if let Some(mask) = mask {
                    mask.apply(&mut out[size..], 0);
                }
                assert_eq!(out[size..], payload);
                assert!((0..size).all(|end| Header::decode(&out[..end]) == Ok(None)), "{length}");
            }
        }
    }

    #[test]
    fn parts_are_unmasked_where_they_stand() {
        let (mask, mut whole) = (Mask([1, 2, 3, 4]), *b"a message in parts");
        mask.apply(&mut whole, 0);
        for cut in 0..whole.len() {
            let mut parts = whole;
            let (first, second) = parts.split_at_mut(cut);
            mask.apply(first, 0);
            mask.apply(second, cut);
            assert_eq!(&parts, b"a message in parts");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [
            &b"\xc1\x00"[..],
            b"\xa1\x00",
            b"\x91\x00",
            b"\x83\x00",
            b"\x8b\x00",
            b"\x09\x00",
            b"\x88\x7e\x00\x7e",
            b"\x82\x7e\x00\x7d",
            b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
            b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00",
        ] {
            assert_eq!(Header::decode(bytes), Err(Close::PROTOCOL_ERROR), "{bytes:02x?}");
        }
    }
}
