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

/// Appends to `out` the upstream's SUBACK, or UNSUBACK of MQTT 5.0, `frame` as the client must see it that sent
/// one filter for each of `verdicts`: `Some` is a code that was decided here, `None` takes the upstream's next
/// one.
pub fn splice_suback(
    out: &mut Vec<u8>,
    frame: &[u8],
    version: Version,
    verdicts: &[Option<u8>],
) -> Result<(), DecodeError> {
    let suback = match decode(frame, version)? {
        Packet::SubAck(suback) | Packet::UnsubAck(suback) => suback,
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
pub(super) fn before<'a>(frame: &'a [u8], tail: &[u8]) -> Result<&'a [u8], DecodeError> {
    let body = open(frame)?.1.rest();
    Ok(&body[..body.len() - tail.len()])
}

/// Appends a packet with the first byte of `frame` and a body of `slices`.
pub(super) fn put_frame(out: &mut Vec<u8>, frame: &[u8], slices: &[&[u8]]) -> Result<(), DecodeError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_topic_changes_the_lengths() {
        let mut out = Vec::new();
        let topic = "t".repeat(200);
        splice_publish_topic(&mut out, &PUBLISH, 2, &topic).unwrap();
        let expected = [&[0x33, 0xd1, 0x01, 0, 200], topic.as_bytes(), &PUBLISH[5..]].concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn alias_and_payload_survive_another_topic() {
        let mut out = Vec::new();
        splice_publish_topic(&mut out, &PUBLISH, 2, "tenant/a").unwrap();
        let Ok(Packet::Publish(publish)) = decode(&out, Version::V5) else { panic!("no PUBLISH") };
        assert_eq!((publish.topic, publish.topic_alias), ("tenant/a", Some(3)));
        assert_eq!((publish.payload, publish.packet_id, publish.retain), (&b"x"[..], 9, true));
    }

    #[test]
    fn topic_longer_than_its_length_can_say_is_refused() {
        let mut out = Vec::new();
        let topic = "t".repeat(65_536);
        assert_eq!(splice_publish_topic(&mut out, &PUBLISH, 2, &topic), Err(DecodeError::TooLong));
        assert!(out.is_empty());
    }

    #[test]
    fn dropped_filters_leave_the_others_as_they_were() {
        let mut out = Vec::new();
        splice_subscribe(&mut out, &SUBSCRIBE, Version::V5, |at| at != 1).unwrap();
        let kept = [&[0x82, 13, 0, 7, 2, 11, 1], &b"\0\x01a\x01"[..], b"\0\x01c\x2e"].concat();
        assert_eq!(out, kept);
    }

    #[test]
    fn subscribe_without_any_filter_is_not_written() {
        let mut out = Vec::new();
        let spliced = splice_subscribe(&mut out, &SUBSCRIBE, Version::V5, |_| false);
        assert_eq!((spliced, out.len()), (Err(DecodeError::NoFilters), 0));
    }

    #[test]
    fn denials_stand_where_their_filters_stood() {
        let mut out = Vec::new();
        let verdicts = [Some(0x87), None, Some(0x97), None];
        splice_suback(&mut out, &SUBACK, Version::V5, &verdicts).unwrap();
        assert_eq!(out, [0x90, 12, 0, 7, 5, 31, 0, 2, b'o', b'k', 0x87, 1, 0x97, 2]);
    }

    #[test]
    fn denials_are_merged_into_a_suback_of_3_1_1() {
        let mut out = Vec::new();
        splice_suback(&mut out, &[0x90, 3, 0, 7, 1], Version::V311, &[None, Some(0x80)]).unwrap();
        assert_eq!(out, [0x90, 4, 0, 7, 1, 0x80]);
    }

    #[test]
    fn suback_with_another_count_than_was_asked_for_is_refused() {
        for verdicts in [&[None][..], &[None, None, None], &[Some(0x87)], &[]] {
            let mut out = Vec::new();
            let spliced = splice_suback(&mut out, &SUBACK, Version::V5, verdicts);
            assert_eq!((spliced, out.len()), (Err(DecodeError::SubscriptionCount), 0));
        }
    }

    #[test]
    fn other_packets_are_refused() {
        let mut out = Vec::new();
        let error = DecodeError::UnexpectedPacket(crate::mqtt::packet::PacketType::Publish);
        assert_eq!(splice_subscribe(&mut out, &PUBLISH, Version::V5, |_| true), Err(error));
        assert_eq!(splice_suback(&mut out, &PUBLISH, Version::V5, &[]), Err(error));
    }

    /// QoS 1, retained; topic `a`, packet identifier 9, topic alias 3, payload `x`.
    const PUBLISH: [u8; 12] = [0x33, 10, 0, 1, b'a', 0, 9, 3, 35, 0, 3, b'x'];
    /// Packet identifier 7, subscription identifier 1; filters `a`, `b`, `c`.
    const SUBSCRIBE: [u8; 19] = [0x82, 17, 0, 7, 2, 11, 1, 0, 1, b'a', 1, 0, 1, b'b', 2, 0, 1, b'c', 0x2e];
    /// Packet identifier 7, reason string `ok`; codes 1 and 2.
    const SUBACK: [u8; 12] = [0x90, 10, 0, 7, 5, 31, 0, 2, b'o', b'k', 1, 2];
}
