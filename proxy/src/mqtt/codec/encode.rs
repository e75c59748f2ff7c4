//! What the gateway says itself. Everything is appended to `out`.

use super::PropertyId;
use crate::mqtt::packet::{PacketType, Version};

/// A PUBACK, PUBREC, PUBREL or PUBCOMP to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewAck<'a> {
    /// Which of the four.
    pub packet_type: PacketType,
    /// The packet identifier of the message.
    pub packet_id: u16,
    /// The reason code; not said before MQTT 5.0.
    pub reason: u8,
    /// Words for people; not said before MQTT 5.0.
    pub reason_string: Option<&'a str>,
}

/// Writes a CONNACK without a session; `code` is a return code before MQTT 5.0.
pub fn encode_connack(out: &mut Vec<u8>, version: Version, code: u8, reason_string: Option<&str>) {
    let no_session = 0;
    let mut body = vec![no_session, code];
    if version.is_5() {
        put_properties(&mut body, reason_string);
    }
    put_packet(out, PacketType::ConnAck, &body);
}

/// Writes an acknowledgement, in MQTT 5.0 as short as it can be said.
pub fn encode_ack(out: &mut Vec<u8>, version: Version, ack: &NewAck<'_>) {
    let mut body = ack.packet_id.to_be_bytes().to_vec();
    if version.is_5() {
        put_reason(&mut body, ack.reason, ack.reason_string);
    }
    put_packet(out, ack.packet_type, &body);
}

/// Writes a SUBACK with one code for each filter.
pub fn encode_suback(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    codes: &[u8],
    reason_string: Option<&str>,
) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_5() {
        put_properties(&mut body, reason_string);
    }
    body.extend_from_slice(codes);
    put_packet(out, PacketType::SubAck, &body);
}

/// Writes an UNSUBACK; before MQTT 5.0 it says no codes.
pub fn encode_unsuback(out: &mut Vec<u8>, version: Version, packet_id: u16, codes: &[u8]) {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_5() {
        put_properties(&mut body, None);
        body.extend_from_slice(codes);
    }
    put_packet(out, PacketType::UnsubAck, &body);
}

/// Writes a DISCONNECT; with reason 0 and no words it is the one of 3.1.1, too.
pub fn encode_disconnect(out: &mut Vec<u8>, reason: u8, reason_string: Option<&str>) {
    let mut body = Vec::new();
    put_reason(&mut body, reason, reason_string);
    put_packet(out, PacketType::Disconnect, &body);
}

/// Writes a PINGRESP.
pub fn encode_pingresp(out: &mut Vec<u8>) {
    put_packet(out, PacketType::PingResp, &[]);
}

/// Appends the shortest form of a variable byte integer. `value` is at most [`MAX_VARIABLE`].
pub(super) fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push(value as u8 & 0x7f | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The highest number that a variable byte integer can say.
pub(super) const MAX_VARIABLE: usize = 268_435_455;

fn put_packet(out: &mut Vec<u8>, packet_type: PacketType, body: &[u8]) {
    // [MQTT-3.6.1-1]
    let flags = if packet_type == PacketType::PubRel { 0x02 } else { 0 };
    out.push((packet_type as u8) << 4 | flags);
    put_variable(out, body.len());
    out.extend_from_slice(body);
}

/// MQTT 5.0 §3.4.2.1: a success without properties need not be said, nor that there are no properties.
fn put_reason(body: &mut Vec<u8>, reason: u8, reason_string: Option<&str>) {
    if reason != 0 || reason_string.is_some() {
        body.push(reason);
    }
    if reason_string.is_some() {
        put_properties(body, reason_string);
    }
}

fn put_properties(body: &mut Vec<u8>, reason_string: Option<&str>) {
    let Some(text) = reason_string else { return body.push(0) };
    let text = &text[..text.floor_char_boundary(MAX_TEXT)];
    put_variable(body, 1 + 2 + text.len());
    body.push(PropertyId::ReasonString as u8);
    put_length(body, text.len() as u16);
    body.extend_from_slice(text.as_bytes());
}

fn put_length(out: &mut Vec<u8>, length: u16) {
    out.extend_from_slice(&length.to_be_bytes());
}

const MAX_TEXT: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use mqttbytes::v4;

    use super::*;
    use crate::mqtt::codec::{PropertyValue, decode};
    use crate::mqtt::packet::{Ack, ConnAck, Disconnect, Packet, Properties, SubAck};

    #[test]
    fn connack_says_its_code_in_every_version() {
        for version in [Version::V31, Version::V311, Version::V5] {
            let out = written(|out| encode_connack(out, version, 0, None));
            assert_eq!(decode(&out, version), Ok(Packet::ConnAck(ConnAck::default())));
        }
        assert_eq!(written(|out| encode_connack(out, Version::V311, 5, Some("unheard"))), [0x20, 2, 0, 5]);
        assert_eq!(written(|out| encode_connack(out, Version::V5, 0x87, None)), [0x20, 3, 0, 0x87, 0]);
    }

    #[test]
    fn connack_says_its_reason_string() {
        let out = written(|out| encode_connack(out, Version::V5, 0x87, Some("not you")));
        let Ok(Packet::ConnAck(connack)) = decode(&out, Version::V5) else { panic!("no CONNACK") };
        assert_eq!((connack.code, reason_string(connack.properties)), (0x87, Some("not you")));
    }

    #[test]
    fn success_is_acknowledged_in_two_bytes() {
        for version in [Version::V31, Version::V311, Version::V5] {
            for (packet_type, first) in ACKS {
                let ack = NewAck { packet_type, packet_id: 0x0102, reason: 0, reason_string: None };
                assert_eq!(written(|out| encode_ack(out, version, &ack)), [first, 2, 1, 2]);
            }
        }
    }

    #[test]
    fn reason_of_an_acknowledgement_is_said_in_5_0_only() {
        let ack = NewAck { packet_type: PacketType::PubAck, packet_id: 7, reason: 0x87, reason_string: None };
        assert_eq!(written(|out| encode_ack(out, Version::V5, &ack)), [0x40, 3, 0, 7, 0x87]);
        assert_eq!(written(|out| encode_ack(out, Version::V311, &ack)), [0x40, 2, 0, 7]);
    }

    #[test]
    fn reason_string_of_an_acknowledgement_is_said_in_5_0_only() {
        let ack = NewAck {
            packet_type: PacketType::PubRec,
            packet_id: 7,
            reason: 0x97,
            reason_string: Some("too much"),
        };
        let out = written(|out| encode_ack(out, Version::V5, &ack));
        let Ok(Packet::PubRec(Ack { packet_id: 7, reason: 0x97, properties })) = decode(&out, Version::V5)
        else {
            panic!("no PUBREC: {out:?}")
        };
        assert_eq!(reason_string(properties), Some("too much"));
        assert_eq!(written(|out| encode_ack(out, Version::V311, &ack)), [0x50, 2, 0, 7]);
    }

    #[test]
    fn suback_says_its_codes() {
        let codes = [0, 1, 0x80, 2];
        for version in [Version::V311, Version::V5] {
            let out = written(|out| encode_suback(out, version, 9, &codes, None));
            let expected = SubAck { packet_id: 9, codes: &codes, properties: Properties::default() };
            assert_eq!(decode(&out, version), Ok(Packet::SubAck(expected)));
        }
    }

    #[test]
    fn suback_says_its_reason_string_in_5_0_only() {
        let out = written(|out| encode_suback(out, Version::V5, 9, &[0x87], Some("no")));
        let Ok(Packet::SubAck(suback)) = decode(&out, Version::V5) else { panic!("no SUBACK") };
        assert_eq!((suback.codes, reason_string(suback.properties)), (&[0x87][..], Some("no")));
        let out = written(|out| encode_suback(out, Version::V311, 9, &[0x80], Some("no")));
        assert_eq!(out, [0x90, 3, 0, 9, 0x80]);
    }

    #[test]
    fn unsuback_says_its_codes_in_5_0_only() {
        let out = written(|out| encode_unsuback(out, Version::V5, 9, &[0, 0x87]));
        let expected = SubAck { packet_id: 9, codes: &[0, 0x87], properties: Properties::default() };
        assert_eq!(decode(&out, Version::V5), Ok(Packet::UnsubAck(expected)));
        assert_eq!(written(|out| encode_unsuback(out, Version::V311, 9, &[0x80])), [0xb0, 2, 0, 9]);
    }

    #[test]
    fn disconnect_without_reason_is_the_one_of_3_1_1() {
        let out = written(|out| encode_disconnect(out, 0, None));
        assert_eq!(out, [0xe0, 0]);
        assert!(matches!(decode(&out, Version::V311), Ok(Packet::Disconnect(Disconnect { reason: 0, .. }))));
    }

    #[test]
    fn disconnect_says_its_reason_and_string() {
        assert_eq!(written(|out| encode_disconnect(out, 0x8b, None)), [0xe0, 1, 0x8b]);
        let out = written(|out| encode_disconnect(out, 0x82, Some("order")));
        let Ok(Packet::Disconnect(disconnect)) = decode(&out, Version::V5) else { panic!("no DISCONNECT") };
        assert_eq!((disconnect.reason, reason_string(disconnect.properties)), (0x82, Some("order")));
    }

    #[test]
    fn pingresp_has_no_body() {
        assert_eq!(written(encode_pingresp), [0xd0, 0]);
    }

    #[test]
    fn reason_string_is_cut_between_characters_where_its_length_ends() {
        let long = "é".repeat(40_000);
        let out = written(|out| encode_disconnect(out, 0x80, Some(&long)));
        let Ok(Packet::Disconnect(disconnect)) = decode(&out, Version::V5) else { panic!("no DISCONNECT") };
        assert_eq!(reason_string(disconnect.properties).map(str::len), Some(65_534));
    }

    #[test]
    fn variable_integer_is_as_short_as_it_can_be() {
        for (value, length) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (MAX_VARIABLE, 4)] {
            let out = written(|out| put_variable(out, value));
            assert_eq!(crate::mqtt::codec::cursor::variable(&out), Ok(Some((value as u32, length))));
            assert_eq!(out.len(), length);
        }
    }

    #[test]
    fn what_is_there_already_stays() {
        let mut out = vec![1, 2];
        encode_pingresp(&mut out);
        assert_eq!(out, [1, 2, 0xd0, 0]);
    }

    #[test]
    fn mqttbytes_understands_what_is_said_in_3_1_1() {
        let mut out = Vec::new();
        encode_connack(&mut out, Version::V311, 4, None);
        encode_suback(&mut out, Version::V311, 3, &[2, 0x80], None);
        for (packet_type, _) in ACKS {
            let ack = NewAck { packet_type, packet_id: 3, reason: 0, reason_string: None };
            encode_ack(&mut out, Version::V311, &ack);
        }
        encode_pingresp(&mut out);
        encode_disconnect(&mut out, 0, None);

        let codes = vec![
            v4::SubscribeReasonCode::Success(mqttbytes::QoS::ExactlyOnce),
            v4::SubscribeReasonCode::Failure,
        ];
        let expected = [
            v4::Packet::ConnAck(v4::ConnAck::new(v4::ConnectReturnCode::BadUserNamePassword, false)),
            v4::Packet::SubAck(v4::SubAck::new(3, codes)),
            v4::Packet::PubAck(v4::PubAck::new(3)),
            v4::Packet::PubRec(v4::PubRec::new(3)),
            v4::Packet::PubRel(v4::PubRel::new(3)),
            v4::Packet::PubComp(v4::PubComp::new(3)),
            v4::Packet::PingResp,
            v4::Packet::Disconnect,
        ];
        let mut stream = BytesMut::from(&out[..]);
        for packet in expected {
            assert_eq!(v4::read(&mut stream, 100).ok(), Some(packet));
        }
        assert!(stream.is_empty());
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    fn reason_string(properties: Properties<'_>) -> Option<&str> {
        let mut all = properties.iter();
        match (all.next(), all.next()) {
            (Some((PropertyId::ReasonString, PropertyValue::Text(text))), None) => Some(text),
            _ => None,
        }
    }

    const ACKS: [(PacketType, u8); 4] = [
        (PacketType::PubAck, 0x40),
        (PacketType::PubRec, 0x50),
        (PacketType::PubRel, 0x62),
        (PacketType::PubComp, 0x70),
    ];
}
