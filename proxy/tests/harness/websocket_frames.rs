//! Frames of WebSocket as somebody else reads and writes them. RFC 6455 §5.2

/// What a frame says that may be sent by a gateway: all of them are whole.
pub(crate) enum Heard {
    Close(Option<u16>, Vec<u8>),
    /// Whether it is text, and what it carries.
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

/// The first frame of `bytes` and its size; `None` where it is not whole yet.
pub(crate) fn decode(bytes: &[u8], is_masked: bool) -> Option<(Heard, usize)> {
    let [first, second, ..] = *bytes else { return None };
    assert_eq!(second & 0x80 != 0, is_masked, "what goes to servers is masked, and nothing else");
    let (head, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, short.into()),
    };
    let least =
        [(4, 126), (10, 1 << 16)].into_iter().find(|(size, _)| *size == head).map_or(0, |(_, least)| least);
    assert!(length >= least, "a length is as short as can be");
    let start = head + if is_masked { 4 } else { 0 };
    let end = start + usize::try_from(length).expect("a length");
    let mut payload = bytes.get(start..end)?.to_vec();
    if is_masked {
        payload.iter_mut().zip(bytes[head..start].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
    assert!(first & 8 == 0 || payload.len() <= 125, "control frames are short");
    let heard = match first {
        TEXT => Heard::Message(true, payload),
        BINARY => Heard::Message(false, payload),
        PING => Heard::Ping(payload),
        PONG => Heard::Pong(payload),
        CLOSE => match payload.split_first_chunk() {
            Some((code, reason)) => Heard::Close(Some(u16::from_be_bytes(*code)), reason.to_vec()),
            None => {
                assert!(payload.is_empty(), "half of a code");
                Heard::Close(None, payload)
            }
        },
        _ => panic!("a frame that begins with {first:02x}"),
    };
    Some((heard, end))
}

/// A frame with this first byte, whatever that is.
pub(crate) fn encode(first: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let mask_bit = if is_masked { 0x80 } else { 0 };
    let mut bytes = match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => vec![first, mask_bit | length],
        (_, Ok(length)) => [&[first, mask_bit | 126][..], &length.to_be_bytes()].concat(),
        _ => [&[first, mask_bit | 127][..], &(payload.len() as u64).to_be_bytes()].concat(),
    };
    match is_masked {
        true => {
            bytes.extend(MASK);
            bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        false => bytes.extend(payload),
    }
    bytes
}

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x99];
