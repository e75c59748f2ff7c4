//! Packets as clients and upstreams write them.

use mgate_proxy::mqtt::packet::Version;

/// A CONNECT with the given flags, properties and will topic.
pub(crate) fn connect(
    version: Version,
    client_id: &str,
    flags: u8,
    properties: &[u8],
    will: Option<&str>,
) -> Vec<u8> {
    let (name, level) = match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    let will_flag = if will.is_some() { 0x04 } else { 0 };
    let mut body = [text(name), vec![level, flags | will_flag, 0, KEEP_ALIVE_SECS]].concat();
    body.extend(self::properties(version, properties));
    body.extend(text(client_id));
    if let Some(topic) = will {
        body.extend([self::properties(version, &[]), text(topic), text("gone")].concat());
    }
    if flags & 0x80 != 0 {
        body.extend(text(client_id));
    }
    packet(0x10, &body)
}

/// A CONNACK.
pub(crate) fn connack(version: Version, code: u8, properties: &[u8]) -> Vec<u8> {
    packet(0x20, &[vec![0, code], self::properties(version, properties)].concat())
}

/// A PUBLISH; `first` holds DUP, QoS and RETAIN.
pub(crate) fn publish(
    version: Version,
    first: u8,
    (topic, id): (&str, u16),
    properties: &[u8],
    payload: u16,
) -> Vec<u8> {
    let id = if first & 0x06 == 0 { Vec::new() } else { id.to_be_bytes().to_vec() };
    let properties = self::properties(version, properties);
    packet(0x30 | first, &[text(topic), id, properties, payload.to_be_bytes().to_vec()].concat())
}

/// SUBSCRIBE (0x82), SUBACK (0x90), UNSUBSCRIBE (0xa2) or UNSUBACK (0xb0).
pub(crate) fn with_id(version: Version, first: u8, id: u16, entries: &[u8]) -> Vec<u8> {
    packet(first, &[id.to_be_bytes().to_vec(), properties(version, &[]), entries.to_vec()].concat())
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70); with a reason if it is not 0.
pub(crate) fn ack(version: Version, first: u8, id: u16, reason: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version.is_5() && reason != 0 {
        body.push(reason);
    }
    packet(first, &body)
}

/// Any packet; its body is short.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let length = match body.len() {
        short @ 0..=127 => vec![short as u8],
        long => vec![long as u8 | 0x80, (long >> 7) as u8],
    };
    [vec![first], length, body.to_vec()].concat()
}

/// A text behind its length.
pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn properties(version: Version, bytes: &[u8]) -> Vec<u8> {
    if version.is_5() { [&[bytes.len() as u8], bytes].concat() } else { Vec::new() }
}

const KEEP_ALIVE_SECS: u8 = 20;
