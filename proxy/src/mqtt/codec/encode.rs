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
