//! Packets, framed by hand.

use crate::mqtt::packet::Version;

/// A CONNECT under construction.
#[derive(Clone, Copy)]
pub(super) struct NewConnect {
    pub(super) version: Version,
    pub(super) client_id: &'static str,
    pub(super) clean_start: bool,
    pub(super) keep_alive_secs: u16,
    pub(super) login: Option<(&'static str, &'static [u8])>,
    pub(super) will_topic: Option<&'static str>,
    pub(super) properties: &'static [u8],
}

pub(super) fn connect(version: Version) -> NewConnect {
    NewConnect {
        version,
        client_id: "dev-1",
        clean_start: true,
        keep_alive_secs: 60,
        login: None,
        will_topic: None,
        properties: &[],
    }
}

impl NewConnect {
    pub(super) fn bytes(self) -> Vec<u8> {
        let (name, level): (&[u8], u8) = match self.version {
            Version::V31 => (b"MQIsdp", 3),
            Version::V311 => (b"MQTT", 4),
            Version::V5 => (b"MQTT", 5),
        };
        let login = if self.login.is_some() { 0xc0 } else { 0 };
        let will = if self.will_topic.is_some() { 0x04 } else { 0 };
        let mut body = text(name);
        body.extend([level, login | will | u8::from(self.clean_start) << 1]);
        body.extend(self.keep_alive_secs.to_be_bytes());
        body.extend(properties(self.version, self.properties));
        body.extend(text(self.client_id.as_bytes()));
        if let Some(topic) = self.will_topic {
            body.extend([properties(self.version, &[]), text(topic.as_bytes()), text(b"gone")].concat());
        }
        if let Some((username, password)) = self.login {
            body.extend([text(username.as_bytes()), text(password)].concat());
        }
        packet(0x10, &body)
    }
}

pub(super) fn connack(version: Version, code: u8, with: &[u8]) -> Vec<u8> {
    packet(0x20, &[vec![0, code], properties(version, with)].concat())
}

/// `first` holds type, DUP, QoS and RETAIN.
pub(super) fn publish(version: Version, first: u8, topic: &str, packet_id: u16, with: &[u8]) -> Vec<u8> {
    let id = if first & 0x06 != 0 { packet_id.to_be_bytes().to_vec() } else { Vec::new() };
    packet(first, &[text(topic.as_bytes()), id, properties(version, with), b"payload".to_vec()].concat())
}

pub(super) fn subscribe(version: Version, packet_id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let filters =
        filters.iter().flat_map(|(filter, options)| [text(filter.as_bytes()), vec![*options]].concat());
    let head = [packet_id.to_be_bytes().to_vec(), properties(version, &[])].concat();
    packet(0x82, &head.into_iter().chain(filters).collect::<Vec<_>>())
}

pub(super) fn unsubscribe(version: Version, packet_id: u16, filter: &str) -> Vec<u8> {
    let head = [packet_id.to_be_bytes().to_vec(), properties(version, &[])].concat();
    packet(0xa2, &[head, text(filter.as_bytes())].concat())
}

pub(super) fn unsuback(version: Version, packet_id: u16, codes: &[u8]) -> Vec<u8> {
    packet(0xb0, &[packet_id.to_be_bytes().to_vec(), properties(version, &[]), codes.to_vec()].concat())
}

pub(super) fn suback(version: Version, packet_id: u16, codes: &[u8]) -> Vec<u8> {
    packet(0x90, &[packet_id.to_be_bytes().to_vec(), properties(version, &[]), codes.to_vec()].concat())
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70), in the form that all versions have.
pub(super) fn ack(first: u8, packet_id: u16) -> Vec<u8> {
    packet(first, &packet_id.to_be_bytes())
}

/// The same with an MQTT 5.0 reason code and reason string.
pub(super) fn ack_why(first: u8, packet_id: u16, reason: u8, why: &str) -> Vec<u8> {
    let why = [vec![0x1f], text(why.as_bytes())].concat();
    let body = [packet_id.to_be_bytes().to_vec(), vec![reason], properties(Version::V5, &why)];
    packet(first, &body.concat())
}

/// A DISCONNECT of MQTT 5.0 with a reason string.
pub(super) fn disconnect_why(reason: u8, why: &str) -> Vec<u8> {
    let why = [vec![0x1f], text(why.as_bytes())].concat();
    packet(0xe0, &[vec![reason], properties(Version::V5, &why)].concat())
}

pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 16_384, "two bytes of length are enough for tests");
    let length = match body.len() {
        short @ 0..=127 => vec![short as u8],
        long => vec![(long & 0x7f) as u8 | 0x80, (long >> 7) as u8],
    };
    [vec![first], length, body.to_vec()].concat()
}

pub(super) fn text(bytes: &[u8]) -> Vec<u8> {
    [(bytes.len() as u16).to_be_bytes().to_vec(), bytes.to_vec()].concat()
}

/// The property `topic alias`.
pub(super) fn alias(alias: u16) -> Vec<u8> {
    [vec![0x23], alias.to_be_bytes().to_vec()].concat()
}

fn properties(version: Version, bytes: &[u8]) -> Vec<u8> {
    if version.is_5() { [vec![bytes.len() as u8], bytes.to_vec()].concat() } else { Vec::new() }
}

pub(super) const PINGREQ: &[u8] = &[0xc0, 0];
pub(super) const PINGRESP: &[u8] = &[0xd0, 0];
pub(super) const DISCONNECT: &[u8] = &[0xe0, 0];
