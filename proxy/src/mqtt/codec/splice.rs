//! Changes to packets that came: new bytes and lengths around slices that stay as they are.

use super::encode::{MAX_VARIABLE, put_variable};
use super::{Cursor, DecodeError, decode, open};
use crate::mqtt::packet::{Packet, Version};

/// Appends to `out` the PUBLISH `frame` with another topic; properties and payload stay byte for byte.
pub fn splice_publish_topic(
    out: &mut Vec<u8>,
    frame: &[u8],
    header_len: usize,
    topic: &str,
) -> Result<(), DecodeError> {
    let mut body = Cursor::new(frame.get(header_len..).ok_or(DecodeError::Truncated)?);
    body.binary()?;
    let length = u16::try_from(topic.len()).map_err(|_| DecodeError::TooLong)?;
    put_frame(out, frame, &[&length.to_be_bytes(), topic.as_bytes(), body.rest()])
}

/// Appends to `out` the SUBSCRIBE `frame` with only the filters whose index `keep` wants; the rest stays.
pub fn splice_subscribe(
    out: &mut Vec<u8>,
    frame: &[u8],
    version: Version,
    keep: impl Fn(usize) -> bool,
) -> Result<(), DecodeError> {
    let subscribe = match decode(frame, version)? {
        Packet::Subscribe(subscribe) => subscribe,
        other => return Err(DecodeError::UnexpectedPacket(other.packet_type())),
    };
    let before = before(frame, subscribe.filters.as_bytes())?;
    let mut slices = vec![before];
    slices.extend(subscribe.filters.enumerate().filter(|(at, _)| keep(*at)).map(|(_, filter)| filter.bytes));
    // [MQTT-3.8.3-2]
    if slices.len() == 1 { Err(DecodeError::NoFilters) } else { put_frame(out, frame, &slices) }
}

/// Appends to `out` the upstream's SUBACK `frame` as the client must see it that sent one filter for each of
/// `verdicts`: `Some` is a code that was decided here, `None` takes the upstream's next one.
pub fn splice_suback(
    out: &mut Vec<u8>,
    frame: &[u8],
    version: Version,
    verdicts: &[Option<u8>],
) -> Result<(), DecodeError> {
    let suback = match decode(frame, version)? {
        Packet::SubAck(suback) => suback,
        other => return Err(DecodeError::UnexpectedPacket(other.packet_type())),
    };
    if suback.codes.len() != verdicts.iter().filter(|verdict| verdict.is_none()).count() {
        return Err(DecodeError::SubscriptionCount);
    }
    let mut upstream = suback.codes.iter().copied();
    let codes: Vec<u8> = verdicts.iter().filter_map(|verdict| verdict.or_else(|| upstream.next())).collect();
    put_frame(out, frame, &[before(frame, suback.codes)?, &codes])
}

/// The body of `frame` without the `tail` that it ends with.
fn before<'a>(frame: &'a [u8], tail: &[u8]) -> Result<&'a [u8], DecodeError> {
    let body = open(frame)?.1.rest();
    Ok(&body[..body.len() - tail.len()])
}

/// Appends a packet with the first byte of `frame` and a body of `slices`.
fn put_frame(out: &mut Vec<u8>, frame: &[u8], slices: &[&[u8]]) -> Result<(), DecodeError> {
    let first = *frame.first().ok_or(DecodeError::Truncated)?;
    let length = slices.iter().map(|slice| slice.len()).sum();
    if length > MAX_VARIABLE {
        return Err(DecodeError::TooLong);
    }
    out.push(first);
    put_variable(out, length);
    for slice in slices {
        out.extend_from_slice(slice);
    }
    Ok(())
}
