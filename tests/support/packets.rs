//! MQTT packets made by hand.

use std::fs;

use super::manifest;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V31 = 3,
    V311 = 4,
    V5 = 5,
}

pub(crate) const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// CONNECT in the making.
#[derive(Clone)]
pub(crate) struct Connect {
    version: Version,
    client_id: String,
    flags: u8,
    keep_alive_secs: u16,
    properties: Vec<u8>,
    will: Vec<u8>,
    credentials: Vec<u8>,
}

/// CONNECT of a client that wants a clean session and 60 s of keep alive.
pub(crate) fn connect(version: Version, client_id: &str) -> Connect {
    Connect {
        version,
        client_id: client_id.into(),
        flags: 0x02,
        keep_alive_secs: 60,
        properties: Vec::new(),
        will: Vec::new(),
        credentials: Vec::new(),
    }
}

impl Connect {
    pub(crate) fn user(mut self, name: &str, password: &str) -> Self {
        self.flags |= 0xc0;
        self.credentials = [text(name), text(password)].concat();
        self
    }

    pub(crate) fn will(mut self, topic: &str, payload: &str) -> Self {
        self.flags |= 0x04;
        self.will = [properties(self.version, b""), text(topic), text(payload)].concat();
        self
    }

    /// Asks for the session that was left.
    pub(crate) fn keep_session(mut self) -> Self {
        self.flags &= !0x02;
        self
    }

    pub(crate) fn keep_alive_secs(mut self, secs: u16) -> Self {
        self.keep_alive_secs = secs;
        self
    }

    pub(crate) fn properties(mut self, properties: &[u8]) -> Self {
        self.properties = properties.into();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let name = if self.version == Version::V31 { "MQIsdp" } else { "MQTT" };
        let body = [
            text(name),
            vec![self.version as u8, self.flags],
            self.keep_alive_secs.to_be_bytes().into(),
            properties(self.version, &self.properties),
            text(&self.client_id),
            self.will.clone(),
            self.credentials.clone(),
        ];
        packet(0x10, &body.concat())
    }
}

/// CONNACK that takes the client.
pub(crate) fn connack(version: Version) -> Vec<u8> {
    packet(0x20, &[vec![0, 0], properties(version, b"")].concat())
}

/// PUBLISH at QoS 0 without properties.
pub(crate) fn publish(version: Version, topic: &str, payload: &str) -> Vec<u8> {
    publish_with(version, (0, 0), topic, b"", payload)
}

/// PUBLISH with a QoS and its packet identifier, and with properties where the version has them.
pub(crate) fn publish_with(
    version: Version,
    (qos, id): (u8, u16),
    topic: &str,
    properties_bytes: &[u8],
    payload: &str,
) -> Vec<u8> {
    let id = if qos == 0 { Vec::new() } else { id.to_be_bytes().into() };
    let body = [text(topic), id, properties(version, properties_bytes), payload.as_bytes().to_vec()];
    packet(0x30 | qos << 1, &body.concat())
}

/// The same message, to be retained.
pub(crate) fn retained(mut publish: Vec<u8>) -> Vec<u8> {
    publish[0] |= 0x01;
    publish
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP of success.
pub(crate) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;

/// SUBSCRIBE to filters at a QoS each.
pub(crate) fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let filters = filters.iter().flat_map(|(filter, qos)| [text(filter), vec![*qos]]).flatten();
    let body = [id.to_be_bytes().into(), properties(version, b""), filters.collect()];
    packet(0x82, &body.concat())
}

/// SUBACK with these codes.
pub(crate) fn suback(version: Version, id: u16, codes: &[u8]) -> Vec<u8> {
    packet(0x90, &[id.to_be_bytes().into(), properties(version, b""), codes.to_vec()].concat())
}

pub(crate) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(crate) const PINGRESP: [u8; 2] = [0xd0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// The property Reason String.
pub(crate) fn reason_string(words: &str) -> Vec<u8> {
    [vec![0x1f], text(words)].concat()
}

/// A whole packet with this first byte.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [vec![first], length(body.len()), body.to_vec()].concat()
}

/// A string with its length before it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [length.to_be_bytes().as_slice(), text.as_bytes()].concat()
}

/// All valid packets of the corpus, with their names, that begin with this packet type.
pub(crate) fn corpus(version: Version, packet_type: u8) -> Vec<(String, Vec<u8>)> {
    let version = if version == Version::V5 { "v5" } else { "v311" };
    let directory = manifest("proxy/corpus/mqtt").join(version).join("valid");
    let mut packets: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
        })
        .map(|(name, hex)| (name, bytes_of(&hex)))
        .filter(|(_, bytes)| bytes[0] >> 4 == packet_type)
        .collect();
    packets.sort();
    assert!(!packets.is_empty(), "the corpus has no {version} packet of type {packet_type}");
    packets
}

fn bytes_of(hex: &str) -> Vec<u8> {
    hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn properties(version: Version, properties: &[u8]) -> Vec<u8> {
    match version {
        Version::V5 => [length(properties.len()), properties.to_vec()].concat(),
        _ => Vec::new(),
    }
}

/// A variable byte integer.
fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(length % 128).unwrap();
        length /= 128;
        if length == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
