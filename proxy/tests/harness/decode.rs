//! What must hold for whatever bytes the MQTT codec is given.

use mgate_proxy::mqtt::codec::{
    DecodeError, decode, decode_connect, decode_header, splice_publish_topic, splice_suback, splice_subscribe,
};
use mgate_proxy::mqtt::packet::{Packet, PacketType, Publish, SubAck, Subscribe, Version};

use super::wire::{self, Message};

/// One byte that says the version, then the bytes of a packet.
pub(crate) fn check(input: &[u8]) {
    if let Some((version, bytes)) = input.split_first() {
        check_packet(bytes, VERSIONS[usize::from(*version) % VERSIONS.len()]);
    }
}

/// Decodes, shows and splices one packet.
pub(crate) fn check_packet(bytes: &[u8], version: Version) {
    let decoded = decode(bytes, version);
    check_header(bytes, decoded.is_ok());
    check_connect(bytes, &decoded);
    let Ok(packet) = decoded else { return };
    let shown = packet.to_string();
    assert!(shown.starts_with(&packet.packet_type().to_string()), "shown as {shown}");
    match packet {
        Packet::Publish(publish) => check_publish(bytes, publish, version),
        Packet::SubAck(suback) => check_suback(bytes, &suback, version),
        Packet::Subscribe(subscribe) => check_subscribe(bytes, &subscribe, version),
        Packet::Unsubscribe(unsubscribe) => {
            assert_eq!(unsubscribe.filters.len(), unsubscribe.filters.count(), "every filter is read again");
        }
        _ => {}
    }
}

/// The header says the length of the frame, from its own bytes alone.
fn check_header(bytes: &[u8], is_packet: bool) {
    let Ok(Some(header)) = decode_header(bytes) else {
        return assert!(!is_packet, "no packet without header");
    };
    assert!((2..=5).contains(&header.header_len) && header.frame_len >= header.header_len);
    assert_eq!(decode_header(&bytes[..header.header_len]), Ok(Some(header)));
    assert_eq!(decode_header(&bytes[..header.header_len - 1]), Ok(None));
    assert!(!is_packet || header.frame_len == bytes.len(), "a packet is exactly one frame");
    let model = wire::next(bytes).map(|frame| frame.bytes.len());
    assert_eq!(model, (header.frame_len <= bytes.len()).then_some(header.frame_len));
}

fn check_connect(bytes: &[u8], decoded: &Result<Packet<'_>, DecodeError>) {
    match (decode_connect(bytes), decoded) {
        (Ok(connect), Ok(Packet::Connect(expected))) => assert_eq!(&connect, expected),
        (Ok(_), other) => panic!("CONNECT taken otherwise as {other:?}"),
        (Err(error), Ok(packet)) => assert_eq!(error, DecodeError::UnexpectedPacket(packet.packet_type())),
        (Err(_), Err(_)) => {}
    }
}

fn check_publish(bytes: &[u8], publish: Publish<'_>, version: Version) {
    let Publish { topic, topic_alias, packet_id, payload, qos, retain, .. } = publish;
    let message = Message { topic, alias: topic_alias, packet_id, payload, qos, retain };
    assert_eq!(wire::next(bytes).and_then(|frame| frame.message(version.is_5())), Some(message));
    let header_len = decode_header(bytes).ok().flatten().map_or(0, |header| header.header_len);
    let spliced = |topic: &str| {
        let mut out = Vec::new();
        splice_publish_topic(&mut out, bytes, header_len, topic).expect("a short topic");
        out
    };
    assert_eq!(spliced(topic), bytes, "the same topic gives the same bytes");
    for topic in ["t", LONG_TOPIC] {
        let expected = Packet::Publish(Publish { topic, ..publish });
        assert_eq!(decode(&spliced(topic), version), Ok(expected), "nothing but the topic changes");
    }
}

fn check_subscribe(bytes: &[u8], subscribe: &Subscribe<'_>, version: Version) {
    let filters: Vec<_> = subscribe.filters.clone().collect();
    assert_eq!(filters.len(), subscribe.filters.len(), "every filter is read again");
    let mut out = Vec::new();
    assert_eq!(splice_subscribe(&mut out, bytes, version, |_| true), Ok(()));
    assert_eq!(out, bytes, "all filters kept give the same bytes");
    out.clear();
    if splice_subscribe(&mut out, bytes, version, |at| at % 2 == 1).is_err() {
        return assert_eq!((filters.len(), out.len()), (1, 0), "one filter of two is kept");
    }
    let Ok(Packet::Subscribe(spliced)) = decode(&out, version) else { panic!("no SUBSCRIBE: {out:02x?}") };
    let kept = filters.into_iter().skip(1).step_by(2).collect::<Vec<_>>();
    assert_eq!((spliced.packet_id, spliced.properties), (subscribe.packet_id, subscribe.properties));
    assert_eq!(spliced.filters.collect::<Vec<_>>(), kept);
}

fn check_suback(bytes: &[u8], suback: &SubAck<'_>, version: Version) {
    let mut out = Vec::new();
    let mut verdicts = vec![None; suback.codes.len()];
    assert_eq!(splice_suback(&mut out, bytes, version, &verdicts), Ok(()));
    assert_eq!(out, bytes, "nothing denied gives the same bytes");
    out.clear();
    verdicts.insert(0, Some(0x80));
    assert_eq!(splice_suback(&mut out, bytes, version, &verdicts), Ok(()));
    let codes = &[&[0x80], suback.codes].concat()[..];
    assert_eq!(decode(&out, version), Ok(Packet::SubAck(SubAck { codes, ..*suback })));
    assert_eq!(PacketType::SubAck as u8, out[0] >> 4);
}

/// The versions by the first byte of an input.
pub(crate) const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Takes two bytes more of length than a short one.
const LONG_TOPIC: &str = "0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/\
    0123456789/0123456789/0123456789/0123456789/0123456789/0123456789";
