use std::io;
use std::str::FromStr;

/// The protocol version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

impl Version {
    /// The protocol level of CONNECT. MQTT 3.1.1 §3.1.2.2, MQTT 5.0 §3.1.2.2
    pub(crate) fn level(self) -> u8 {
        match self {
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }

    /// Reads the version off a CONNECT packet.
    pub(crate) fn of_connect(connect: &[u8]) -> io::Result<Self> {
        match body(connect).get(6) {
            Some(4) => Ok(Self::V311),
            Some(5) => Ok(Self::V5),
            level => Err(io::Error::other(format!("CONNECT of protocol level {level:?}"))),
        }
    }

    fn no_properties(self) -> &'static [u8] {
        match self {
            Self::V311 => &[],
            Self::V5 => &[0],
        }
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "3.1.1" => Ok(Self::V311),
            "5" | "5.0" => Ok(Self::V5),
            _ => Err("expected 3.1.1 or 5.0"),
        }
    }
}

/// A user name and its password.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

/// Packet types, as the upper half of a packet's first byte.
pub(crate) mod kind {
    pub(crate) const CONNECT: u8 = 1;
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBACK: u8 = 4;
    pub(crate) const SUBSCRIBE: u8 = 8;
    pub(crate) const SUBACK: u8 = 9;
    pub(crate) const PINGREQ: u8 = 12;
    pub(crate) const DISCONNECT: u8 = 14;
}

/// Builds a CONNECT with a clean session.
pub(crate) fn connect(version: Version, client_id: &str, credentials: Option<&Credentials>) -> Vec<u8> {
    let flags = 0x02 | if credentials.is_some() { 0xC0 } else { 0 };
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend([version.level(), flags]);
    body.extend(KEEP_ALIVE_SECS.to_be_bytes());
    body.extend(version.no_properties());
    push_text(&mut body, client_id);
    if let Some(Credentials { username, password }) = credentials {
        push_text(&mut body, username);
        push_text(&mut body, password);
    }
    packet(0x10, &body)
}

/// Builds the CONNACK that accepts.
pub(crate) fn connack(version: Version) -> Vec<u8> {
    packet(0x20, &[&[0, 0], version.no_properties()].concat())
}

/// Builds a PUBLISH, with packet id 1 where the QoS asks for one.
pub(crate) fn publish(version: Version, topic: &str, qos: u8, payload_bytes: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload_bytes + 5);
    push_text(&mut body, topic);
    if qos > 0 {
        body.extend([0, 1]);
    }
    body.extend(version.no_properties());
    body.resize(body.len() + payload_bytes, b'x');
    packet(0x30 | (qos << 1), &body)
}

/// Where the packet id stands in a PUBLISH of QoS 1 or 2.
pub(crate) fn packet_id_offset(publish: &[u8], topic: &str) -> usize {
    publish.len() - body(publish).len() + 2 + topic.len()
}

/// Builds a PUBACK that answers `publish`; none is due to QoS 0.
pub(crate) fn puback(publish: &[u8]) -> io::Result<Option<[u8; 4]>> {
    if publish[0] & 0x06 == 0 {
        return Ok(None);
    }
    let body = body(publish);
    let id_at = text_end(body, 0).ok_or_else(|| cut_short("PUBLISH"))?;
    let id = body.get(id_at..id_at + 2).ok_or_else(|| cut_short("PUBLISH"))?;
    Ok(Some([0x40, 2, id[0], id[1]]))
}

/// Builds a SUBSCRIBE for one filter at QoS 0, with packet id 1.
pub(crate) fn subscribe(version: Version, filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    body.extend(version.no_properties());
    push_text(&mut body, filter);
    body.push(0);
    packet(0x82, &body)
}

/// The first filter of a SUBSCRIBE without properties.
pub(crate) fn first_filter(version: Version, subscribe: &[u8]) -> io::Result<&str> {
    let body = body(subscribe);
    let start = 2 + version.no_properties().len();
    let end = text_end(body, start).ok_or_else(|| cut_short("SUBSCRIBE"))?;
    let text = body.get(start + 2..end).ok_or_else(|| cut_short("SUBSCRIBE"))?;
    str::from_utf8(text).map_err(|_| io::Error::other("SUBSCRIBE to a filter that is not UTF-8"))
}

/// Builds the SUBACK that grants QoS 0 to the one filter of `subscribe`.
pub(crate) fn suback(version: Version, subscribe: &[u8]) -> io::Result<Vec<u8>> {
    let id = body(subscribe).get(..2).ok_or_else(|| cut_short("SUBSCRIBE"))?;
    Ok(packet(0x90, &[id, version.no_properties(), &[0]].concat()))
}

/// The length of the first packet of `input`, or nothing while its fixed header is incomplete.
pub(crate) fn packet_length(input: &[u8]) -> io::Result<Option<usize>> {
    let mut length = 0;
    for (index, byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some(2 + index + length));
        }
    }
    // [MQTT-2.2.3]: four bytes at most.
    if input.len() > 4 { Err(io::Error::other("remaining length of more than four bytes")) } else { Ok(None) }
}

/// What stands behind the fixed header of a whole packet.
pub(crate) fn body(packet: &[u8]) -> &[u8] {
    let length_bytes = packet.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    &packet[1 + length_bytes..]
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    while length > 0x7F {
        packet.push((length & 0x7F) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend(body);
    packet
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    body.extend(length.to_be_bytes());
    body.extend(&text.as_bytes()[..usize::from(length)]);
}

fn text_end(body: &[u8], start: usize) -> Option<usize> {
    let length = body.get(start..start + 2)?;
    Some(start + 2 + usize::from(u16::from_be_bytes([length[0], length[1]])))
}

fn cut_short(what: &str) -> io::Error {
    io::Error::other(format!("{what} cut short"))
}

const KEEP_ALIVE_SECS: u16 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_the_standard_says() {
        let credentials = Credentials { username: "u".into(), password: "p".into() };
        assert_eq!(connect(Version::V311, "c", None), b"\x10\x0d\0\x04MQTT\x04\x02\x02\x58\0\x01c");
        let with_password = connect(Version::V5, "c", Some(&credentials));
        assert_eq!(with_password, b"\x10\x14\0\x04MQTT\x05\xc2\x02\x58\0\0\x01c\0\x01u\0\x01p");
        assert_eq!(publish(Version::V311, "a/b", 0, 2), b"\x30\x07\0\x03a/bxx");
        assert_eq!(publish(Version::V5, "a/b", 1, 1), b"\x32\x09\0\x03a/b\0\x01\0x");
        assert_eq!(subscribe(Version::V5, "a"), b"\x82\x07\0\x01\0\0\x01a\0");
    }

    #[test]
    fn answers_carry_the_packet_id() {
        let mut publish = publish(Version::V5, "a/b", 1, 200);
        let offset = packet_id_offset(&publish, "a/b");
        publish[offset..offset + 2].copy_from_slice(&[7, 9]);
        assert_eq!(puback(&publish).unwrap(), Some([0x40, 2, 7, 9]));
        let subscribe = subscribe(Version::V5, "a/b");
        assert_eq!(suback(Version::V5, &subscribe).unwrap(), [0x90, 4, 0, 1, 0, 0]);
        assert_eq!(first_filter(Version::V5, &subscribe).unwrap(), "a/b");
    }

    #[test]
    fn length_waits_for_the_fixed_header() {
        let publish = publish(Version::V311, "a", 0, 300);
        assert_eq!(packet_length(&publish[..2]).unwrap(), None);
        assert_eq!(packet_length(&publish[..3]).unwrap(), Some(publish.len()));
        assert!(packet_length(&[0x30, 0x80, 0x80, 0x80, 0x80]).is_err());
    }

    #[test]
    fn connect_says_its_version() {
        assert_eq!(Version::of_connect(&connect(Version::V5, "c", None)).unwrap(), Version::V5);
        assert!(Version::of_connect(b"\x10\x02\0\0").is_err());
    }
}
