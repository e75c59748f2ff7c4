//! Puts the messages of one side together. RFC 6455 §5.4

use bytes::{Bytes, BytesMut};

use super::close::Close;
use super::frame::{Header, Mask, Opcode};
use crate::gate::Side;

/// What came from one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Close(Close),
    Message(Message),
    Ping(Bytes),
    Pong(Bytes),
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) is_text: bool,
    pub(super) payload: Bytes,
}

/// Reads the frames of one side, and keeps a message until it is whole.
pub(super) struct Reader {
    side: Side,
    max_bytes: usize,
    frame: Option<Frame>,
    partial: Option<Partial>,
}

/// A data frame whose payload is to come.
struct Frame {
    is_final: bool,
    mask: Option<Mask>,
    left: usize,
    /// What came of it.
    offset: usize,
}

/// A message whose last frame is to come.
struct Partial {
    is_text: bool,
    payload: BytesMut,
    frames: usize,
    /// So many bytes of a text are UTF-8.
    checked: usize,
}

impl Reader {
    /// Reads what comes from `side`, messages of `max_bytes` at the most.
    pub(super) fn new(side: Side, max_bytes: usize) -> Self {
        Self { side, max_bytes, frame: None, partial: None }
    }

    /// Takes what it can use of `bytes`; `None` where more must come first, or how the WebSocket is to end.
    pub(super) fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Event>, Close> {
        loop {
            if self.frame.is_some() {
                match self.take_payload(bytes)? {
                    Some(message) => return Ok(Some(Event::Message(message))),
                    None if self.frame.is_some() => return Ok(None),
                    None => {}
                }
            }
            let Some((header, size)) = Header::decode(bytes)? else { return Ok(None) };
            // §5.1: clients mask, servers do not
            if header.mask.is_some() != (self.side == Side::Client) {
                return Err(Close::PROTOCOL_ERROR);
            }
            if header.opcode.is_control() {
                return control(header, size, bytes);
            }
            self.begin(header)?;
            let _ = bytes.split_to(size);
        }
    }

    /// Whether a part of a message came.
    pub(super) fn is_within_message(&self) -> bool {
        self.partial.is_some()
    }

    /// Begins a frame with a part of a message.
    fn begin(&mut self, header: Header) -> Result<(), Close> {
        let mut partial = match (self.partial.take(), header.opcode) {
            (Some(partial), Opcode::Continuation) => partial,
            (None, Opcode::Text | Opcode::Binary) => {
                let is_text = header.opcode == Opcode::Text;
                Partial { is_text, payload: BytesMut::new(), frames: 0, checked: 0 }
            }
            _ => return Err(Close::PROTOCOL_ERROR),
        };
        let room = self.max_bytes - partial.payload.len();
        let left = usize::try_from(header.length).unwrap_or(usize::MAX);
        partial.frames += 1;
        if left > room || partial.frames > MAX_FRAMES {
            return Err(Close::TOO_LARGE);
        }
        self.partial = Some(partial);
        self.frame = Some(Frame { is_final: header.is_final, mask: header.mask, left, offset: 0 });
        Ok(())
    }

    /// Moves what came of a frame into its message; returns that if it is whole.
    fn take_payload(&mut self, bytes: &mut BytesMut) -> Result<Option<Message>, Close> {
        let (Some(frame), Some(partial)) = (&mut self.frame, &mut self.partial) else { return Ok(None) };
        let mut part = bytes.split_to(frame.left.min(bytes.len()));
        if let Some(mask) = frame.mask {
            mask.apply(&mut part, frame.offset);
        }
        frame.left -= part.len();
        frame.offset += part.len();
        partial.payload.extend_from_slice(&part);
        let is_whole = frame.left == 0 && frame.is_final;
        partial.check(is_whole)?;
        if frame.left == 0 {
            self.frame = None;
        }
        let whole = if is_whole { self.partial.take() } else { None };
        Ok(whole.map(|partial| Message { is_text: partial.is_text, payload: partial.payload.freeze() }))
    }
}

impl Partial {
    /// Looks whether a text is one, as far as it came. RFC 6455 §8.1
    fn check(&mut self, is_whole: bool) -> Result<(), Close> {
        if !self.is_text {
            return Ok(());
        }
        match str::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            Err(error) if error.error_len().is_none() && !is_whole => self.checked += error.valid_up_to(),
            Err(_) => return Err(Close::INVALID_TEXT),
        }
        Ok(())
    }
}

/// Takes a control frame, if it is there.
fn control(header: Header, size: usize, bytes: &mut BytesMut) -> Result<Option<Event>, Close> {
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    if bytes.len() - size < length {
        return Ok(None);
    }
    let mut payload = bytes.split_to(size + length).split_off(size);
    if let Some(mask) = header.mask {
        mask.apply(&mut payload, 0);
    }
    let payload = payload.freeze();
    Ok(Some(match header.opcode {
        Opcode::Close => Event::Close(Close::read(&payload)?),
        Opcode::Ping => Event::Ping(payload),
        _ => Event::Pong(payload),
    }))
}

/// In one message: empty ones cost nothing of what it may have.
const MAX_FRAMES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_the_same_however_it_is_cut() {
        let bytes = b"\x01\x02a\xc3\x89\x02hi\x00\x00\x80\x01\xbc";
        let whole = Message { is_text: true, payload: Bytes::from_static("aü".as_bytes()) };
        for size in 1..=bytes.len() {
            let events = read(bytes.chunks(size));
            assert_eq!(
                events.unwrap(),
                [Event::Ping(Bytes::from_static(b"hi")), Event::Message(whole.clone())],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn payloads_of_clients_are_unmasked() {
        let mut reader = Reader::new(Side::Client, 10);
        let mut bytes = BytesMut::from(&b"\x82\x85\x01\x02\x03\x04\x69\x67\x6f\x68\x6e"[..]);
        let message = Message { is_text: false, payload: Bytes::from_static(b"hello") };
        assert_eq!(reader.next(&mut bytes), Ok(Some(Event::Message(message))));
    }

    #[test]
    fn rules_of_messages_are_kept() {
        for (bytes, expected) in [
            (&b"\x80\x00"[..], Close::PROTOCOL_ERROR),
            (b"\x00\x00", Close::PROTOCOL_ERROR),
            (b"\x01\x00\x81\x00", Close::PROTOCOL_ERROR),
            (b"\x81\x80\x00\x00\x00\x00", Close::PROTOCOL_ERROR),
            (b"\x82\x0b", Close::TOO_LARGE),
            (b"\x02\x0a0123456789\x80\x01", Close::TOO_LARGE),
            (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", Close::TOO_LARGE),
            (b"\x81\x01\xff", Close::INVALID_TEXT),
            (b"\x81\x01\xc3", Close::INVALID_TEXT),
            (b"\x01\x02\xed\xa0", Close::INVALID_TEXT),
            (b"\x88\x01\x03", Close::PROTOCOL_ERROR),
        ] {
            assert_eq!(read([bytes].into_iter()), Err(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn frames_of_a_message_are_counted() {
        let empty = |count: usize| [&b"\x02\x00"[..], &b"\x00\x00".repeat(count - 2), b"\x80\x00"].concat();
        let many = empty(MAX_FRAMES).repeat(2);
        assert_eq!(read([&many[..]].into_iter()).map(|events| events.len()), Ok(2));
        assert_eq!(read([&empty(MAX_FRAMES + 1)[..]].into_iter()), Err(Close::TOO_LARGE));
    }

    #[test]
    fn unmasked_frame_of_a_client_is_refused() {
        let mut reader = Reader::new(Side::Client, 10);
        assert_eq!(reader.next(&mut BytesMut::from(&b"\x82\x00"[..])), Err(Close::PROTOCOL_ERROR));
    }

    fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Event>, Close> {
        let (mut reader, mut bytes, mut events) =
            (Reader::new(Side::Upstream, 10), BytesMut::new(), Vec::new());
        for piece in pieces {
            bytes.extend_from_slice(piece);
            while let Some(event) = reader.next(&mut bytes)? {
                events.push(event);
            }
        }
        Ok(events)
    }
}
