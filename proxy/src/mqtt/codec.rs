//! From bytes to packets and back.
//!
//! Decoding checks everything that MQTT 3.1.1 and 5.0 demand of one packet by itself, and allocates nothing.
//! Whether a packet may come at that moment, and from that side, is for the session to say. A citation like
//! [MQTT-3.1.0-1] is of MQTT 5.0 unless it says otherwise.

mod cursor;
mod encode;
mod error;
mod filters;
mod properties;
mod rewrite;
mod splice;

use mgate_policies::TopicName;

use self::cursor::Cursor;
pub use self::encode::{
    NewAck, encode_ack, encode_connack, encode_disconnect, encode_pingresp, encode_suback, encode_unsuback,
};
pub use self::error::DecodeError;
pub use self::filters::{Filters, SubscribeFilter, SubscriptionOptions, UnsubscribeFilters};
use self::properties::Place;
pub use self::properties::{Properties, PropertyId, PropertyValue};
pub use self::rewrite::{
    NewConnect, NewMessage, rewrite_connect, rewrite_publish, rewrite_subscribe, rewrite_unsubscribe,
};
pub use self::splice::{splice_publish_topic, splice_suback, splice_subscribe};
use super::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Publish, SubAck, Subscribe, Unsubscribe,
    Version, Will,
};

/// The first bytes of every packet. MQTT 5.0 §2.1.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// What packet it is.
    pub packet_type: PacketType,
    /// The lower half of the first byte; fits the packet type.
    pub flags: u8,
    /// How many bytes the fixed header has: 2 to 5.
    pub header_len: usize,
    /// How many bytes the packet has with its fixed header.
    pub frame_len: usize,
}

/// Reads the fixed header of the packet that `bytes` start with; `None` if it is not yet there in full.
///
/// The rest of the packet need not be there: a limit can be applied before any of it is kept.
#[inline]
pub fn decode_header(bytes: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let (packet_type, flags) = (packet_type(first >> 4)?, first & 0x0f);
    check_flags(packet_type, flags)?;
    Ok(cursor::variable(rest)?.map(|(remaining, length)| {
        let header_len = 1 + length;
        FixedHeader { packet_type, flags, header_len, frame_len: header_len + remaining as usize }
    }))
}

/// Decodes a frame: exactly one packet. The version of a CONNECT is what the packet itself says.
pub fn decode(frame: &[u8], version: Version) -> Result<Packet<'_>, DecodeError> {
    let (header, mut body) = open(frame)?;
    Ok(match header.packet_type {
        PacketType::Auth if version.is_5() => Packet::Auth(auth(&mut body)?),
        PacketType::Auth => return Err(DecodeError::ReservedPacketType(PacketType::Auth as u8)),
        PacketType::ConnAck => Packet::ConnAck(connack(&mut body, version)?),
        PacketType::Connect => Packet::Connect(connect(&mut body)?),
        PacketType::Disconnect => Packet::Disconnect(disconnect(&mut body, version)?),
        PacketType::PingReq => empty(body, Packet::PingReq)?,
        PacketType::PingResp => empty(body, Packet::PingResp)?,
        PacketType::PubAck => Packet::PubAck(ack(&mut body, header.packet_type, version)?),
        PacketType::PubComp => Packet::PubComp(ack(&mut body, header.packet_type, version)?),
        PacketType::PubRec => Packet::PubRec(ack(&mut body, header.packet_type, version)?),
        PacketType::PubRel => Packet::PubRel(ack(&mut body, header.packet_type, version)?),
        PacketType::Publish => Packet::Publish(decode_publish(frame, header.header_len, version)?),
        PacketType::SubAck => Packet::SubAck(suback(&mut body, header.packet_type, version)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe(&mut body, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(suback(&mut body, header.packet_type, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(&mut body, version)?),
    })
}

/// Decodes a frame that must be a CONNECT of any version.
///
/// An unknown protocol level is told from everything else that may be wrong: [MQTT-3.1.2-2].
pub fn decode_connect(frame: &[u8]) -> Result<Connect<'_>, DecodeError> {
    let (header, mut body) = open(frame)?;
    match header.packet_type {
        PacketType::Connect => connect(&mut body),
        other => Err(DecodeError::UnexpectedPacket(other)),
    }
}

/// Decodes a frame that [`decode_header`] found to be a PUBLISH.
#[inline]
pub fn decode_publish(frame: &[u8], header_len: usize, version: Version) -> Result<Publish<'_>, DecodeError> {
    let first = *frame.first().ok_or(DecodeError::Truncated)?;
    let mut body = Cursor::new(frame.get(header_len..).ok_or(DecodeError::Truncated)?);
    let qos = first >> 1 & 0x03;
    let topic = body.topic()?;
    let packet_id = if qos > 0 { body.packet_id()? } else { 0 };
    let (mut topic_alias, mut response_topic) = (None, None);
    let properties = properties(&mut body, version, Place::of(PacketType::Publish), |id, value| match id {
        PropertyId::ResponseTopic => response_topic = value.text(),
        PropertyId::TopicAlias => topic_alias = value.two_bytes(),
        _ => {}
    })?;
    // MQTT 5.0 §3.3.2.1
    if topic.is_empty() && topic_alias.is_none() {
        return Err(DecodeError::EmptyTopicName);
    }
    let (retain, dup) = (first & 0x01 != 0, first & 0x08 != 0);
    let payload = body.rest();
    Ok(Publish { topic, payload, response_topic, properties, topic_alias, packet_id, qos, retain, dup })
}

fn open(frame: &[u8]) -> Result<(FixedHeader, Cursor<'_>), DecodeError> {
    let header = decode_header(frame)?.ok_or(DecodeError::Truncated)?;
    let mut rest = Cursor::new(frame);
    rest.take(header.header_len)?;
    let body = rest.take(header.frame_len - header.header_len)?;
    rest.finish()?;
    Ok((header, Cursor::new(body)))
}

#[inline]
fn packet_type(number: u8) -> Result<PacketType, DecodeError> {
    Ok(match number {
        1 => PacketType::Connect,
        2 => PacketType::ConnAck,
        3 => PacketType::Publish,
        4 => PacketType::PubAck,
        5 => PacketType::PubRec,
        6 => PacketType::PubRel,
        7 => PacketType::PubComp,
        8 => PacketType::Subscribe,
        9 => PacketType::SubAck,
        10 => PacketType::Unsubscribe,
        11 => PacketType::UnsubAck,
        12 => PacketType::PingReq,
        13 => PacketType::PingResp,
        14 => PacketType::Disconnect,
        15 => PacketType::Auth,
        _ => return Err(DecodeError::ReservedPacketType(number)),
    })
}

/// [MQTT-2.1.3-1]
#[inline]
fn check_flags(packet_type: PacketType, flags: u8) -> Result<(), DecodeError> {
    match (packet_type, flags) {
        // [MQTT-3.3.1-4]
        (PacketType::Publish, _) if flags & 0x06 == 0x06 => Err(DecodeError::Qos),
        // [MQTT-3.3.1-2]
        (PacketType::Publish, _) if flags & 0x0e == 0x08 => Err(DecodeError::DupWithoutQos),
        (PacketType::Publish, _) => Ok(()),
        // [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
        (PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe, 0x02) => Ok(()),
        (PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe, _) => Err(DecodeError::Flags),
        (_, 0) => Ok(()),
        _ => Err(DecodeError::Flags),
    }
}

#[inline]
fn properties<'a>(
    body: &mut Cursor<'a>,
    version: Version,
    place: Place,
    each: impl FnMut(PropertyId, PropertyValue<'a>),
) -> Result<Properties<'a>, DecodeError> {
    if version.is_5() { Properties::read(body, place, each) } else { Ok(Properties::default()) }
}

/// Reads a reason code and properties, where the sender may leave out both or the properties.
fn reason_and_properties<'a>(
    body: &mut Cursor<'a>,
    packet_type: PacketType,
    version: Version,
    each: impl FnMut(PropertyId, PropertyValue<'a>),
) -> Result<(u8, Properties<'a>), DecodeError> {
    if !version.is_5() || body.is_empty() {
        return Ok((0, Properties::default()));
    }
    let reason = body.byte()?;
    check_reason(packet_type, reason)?;
    if body.is_empty() {
        return Ok((reason, Properties::default()));
    }
    Ok((reason, Properties::read(body, Place::of(packet_type), each)?))
}

fn connect<'a>(body: &mut Cursor<'a>) -> Result<Connect<'a>, DecodeError> {
    let version = protocol_version(body)?;
    let flags = body.byte()?;
    check_connect_flags(flags, version)?;
    let keep_alive_secs = body.two_bytes()?;
    let mut connect = Connect::new(version, flags & 0x02 != 0, keep_alive_secs);
    let all = properties(body, version, Place::of(PacketType::Connect), |id, value| match id {
        PropertyId::AuthenticationMethod => connect.authentication_method = value.text(),
        PropertyId::MaximumPacketSize => connect.maximum_packet_size = value.number(),
        PropertyId::ReceiveMaximum => connect.receive_maximum = value.two_bytes(),
        PropertyId::RequestProblemInformation => {
            connect.request_problem_information = value.number() != Some(0);
        }
        PropertyId::SessionExpiryInterval => connect.session_expiry_secs = value.number(),
        PropertyId::TopicAliasMaximum => connect.topic_alias_maximum = value.two_bytes(),
        _ => {}
    })?;
    connect.properties = all;
    // [MQTT-3.1.3-1]: this order
    connect.client_id = body.text()?;
    connect.will = if flags & WILL != 0 { Some(will(body, flags, version)?) } else { None };
    connect.username = if flags & USERNAME != 0 { Some(body.text()?) } else { None };
    connect.password = if flags & PASSWORD != 0 { Some(body.binary()?) } else { None };
    body.finish()?;
    Ok(connect)
}

/// [MQTT-3.1.2-1], [MQTT-3.1.2-2]
fn protocol_version(body: &mut Cursor<'_>) -> Result<Version, DecodeError> {
    let name = body.binary()?;
    if !matches!(name, b"MQTT" | b"MQIsdp") {
        return Err(DecodeError::ProtocolName);
    }
    match (name, body.byte()?) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (_, level) => Err(DecodeError::UnsupportedProtocolLevel(level)),
    }
}

fn check_connect_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    // [MQTT-3.1.2-3]
    if flags & 0x01 != 0 {
        return Err(DecodeError::ConnectFlags);
    }
    // [MQTT-3.1.2-12]
    if will_qos(flags) == 3 {
        return Err(DecodeError::Qos);
    }
    // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        return Err(DecodeError::WillFlags);
    }
    // 3.1.1: [MQTT-3.1.2-22]
    if !version.is_5() && flags & (USERNAME | PASSWORD) == PASSWORD {
        return Err(DecodeError::PasswordWithoutUsername);
    }
    Ok(())
}

fn will<'a>(body: &mut Cursor<'a>, flags: u8, version: Version) -> Result<Will<'a>, DecodeError> {
    let properties = properties(body, version, Place::WILL, |_, _| {})?;
    let topic = TopicName::parse(body.topic()?).map_err(|_| DecodeError::EmptyTopicName)?;
    let payload = body.binary()?;
    Ok(Will { topic, payload, qos: will_qos(flags), retain: flags & WILL_RETAIN != 0, properties })
}

fn will_qos(connect_flags: u8) -> u8 {
    (connect_flags & WILL_QOS) >> 3
}

fn connack<'a>(body: &mut Cursor<'a>, version: Version) -> Result<ConnAck<'a>, DecodeError> {
    let (flags, code) = (body.byte()?, body.byte()?);
    // [MQTT-3.2.2-1]
    if flags > 1 {
        return Err(DecodeError::ConnAckFlags);
    }
    // [MQTT-3.2.2-6]
    if flags == 1 && code != 0 {
        return Err(DecodeError::SessionPresentWithError);
    }
    if version.is_5() {
        check_reason(PacketType::ConnAck, code)?;
    } else if code > 5 {
        return Err(DecodeError::ReasonCode(code));
    }
    let mut connack = ConnAck { session_present: flags == 1, code, ..ConnAck::default() };
    let all = properties(body, version, Place::of(PacketType::ConnAck), |id, value| match id {
        PropertyId::AssignedClientIdentifier => connack.assigned_client_id = value.text(),
        PropertyId::AuthenticationMethod => connack.authentication_method = value.text(),
        PropertyId::MaximumPacketSize => connack.maximum_packet_size = value.number(),
        PropertyId::MaximumQos => connack.maximum_qos = value.byte(),
        PropertyId::ReceiveMaximum => connack.receive_maximum = value.two_bytes(),
        PropertyId::ServerKeepAlive => connack.server_keep_alive_secs = value.two_bytes(),
        PropertyId::TopicAliasMaximum => connack.topic_alias_maximum = value.two_bytes(),
        _ => {}
    })?;
    connack.properties = all;
    body.finish()?;
    Ok(connack)
}

fn ack<'a>(body: &mut Cursor<'a>, packet_type: PacketType, version: Version) -> Result<Ack<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let (reason, properties) = reason_and_properties(body, packet_type, version, |_, _| {})?;
    body.finish()?;
    Ok(Ack { packet_id, reason, properties })
}

fn subscribe<'a>(body: &mut Cursor<'a>, version: Version) -> Result<Subscribe<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let mut subscription_id = None;
    let properties = properties(body, version, Place::of(PacketType::Subscribe), |id, value| {
        if id == PropertyId::SubscriptionIdentifier {
            subscription_id = value.number();
        }
    })?;
    Ok(Subscribe { packet_id, subscription_id, properties, filters: Filters::read(*body, version)? })
}

fn unsubscribe<'a>(body: &mut Cursor<'a>, version: Version) -> Result<Unsubscribe<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = properties(body, version, Place::of(PacketType::Unsubscribe), |_, _| {})?;
    Ok(Unsubscribe { packet_id, properties, filters: UnsubscribeFilters::read(*body)? })
}

fn suback<'a>(
    body: &mut Cursor<'a>,
    packet_type: PacketType,
    version: Version,
) -> Result<SubAck<'a>, DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = properties(body, version, Place::of(packet_type), |_, _| {})?;
    let codes = body.rest();
    if packet_type == PacketType::UnsubAck && !version.is_5() {
        body.finish()?;
    } else if codes.is_empty() {
        return Err(DecodeError::NoReasonCodes);
    }
    for &code in codes {
        match code {
            _ if version.is_5() => check_reason(packet_type, code)?,
            // 3.1.1: [MQTT-3.9.3-2]
            0..=2 | 0x80 => {}
            _ => return Err(DecodeError::ReasonCode(code)),
        }
    }
    Ok(SubAck { packet_id, codes, properties })
}

fn disconnect<'a>(body: &mut Cursor<'a>, version: Version) -> Result<Disconnect<'a>, DecodeError> {
    let mut session_expiry_secs = None;
    let (reason, properties) = reason_and_properties(body, PacketType::Disconnect, version, |id, value| {
        if id == PropertyId::SessionExpiryInterval {
            session_expiry_secs = value.number();
        }
    })?;
    body.finish()?;
    Ok(Disconnect { reason, session_expiry_secs, properties })
}

fn auth<'a>(body: &mut Cursor<'a>) -> Result<Auth<'a>, DecodeError> {
    let mut authentication_method = None;
    let (reason, properties) = reason_and_properties(body, PacketType::Auth, Version::V5, |id, value| {
        if id == PropertyId::AuthenticationMethod {
            authentication_method = value.text();
        }
    })?;
    body.finish()?;
    // MQTT 5.0 §3.15.2.2.2
    if reason != 0 && authentication_method.is_none() {
        return Err(DecodeError::AuthenticationMethodMissing);
    }
    Ok(Auth { reason, authentication_method, properties })
}

fn empty<'a>(body: Cursor<'a>, packet: Packet<'a>) -> Result<Packet<'a>, DecodeError> {
    body.finish()?;
    Ok(packet)
}

/// MQTT 5.0 table 2-6 and the tables of the single packets.
fn check_reason(packet_type: PacketType, code: u8) -> Result<(), DecodeError> {
    let is_known = match packet_type {
        PacketType::Auth => matches!(code, 0 | 0x18 | 0x19),
        PacketType::ConnAck => {
            matches!(code, 0 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f)
        }
        PacketType::Disconnect => {
            matches!(code, 0 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b | 0x8d..=0x90 | 0x93..=0xa2)
        }
        PacketType::PubAck | PacketType::PubRec => {
            matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        PacketType::PubComp | PacketType::PubRel => matches!(code, 0 | 0x92),
        PacketType::SubAck => {
            matches!(code, 0..=2 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2)
        }
        PacketType::UnsubAck => matches!(code, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91),
        _ => false,
    };
    if is_known { Ok(()) } else { Err(DecodeError::ReasonCode(code)) }
}

const WILL: u8 = 0x04;
const WILL_QOS: u8 = 0x18;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_read_before_the_packet_is_there() {
        let header = decode_header(&[0x35, 0xff, 0xff, 0xff, 0x7f]).unwrap().unwrap();
        assert_eq!((header.packet_type, header.flags), (PacketType::Publish, 5));
        assert_eq!((header.header_len, header.frame_len), (5, 268_435_460));
    }

    #[test]
    fn connect_says_all_that_it_holds() {
        let connect = decode_connect(CONNECT).unwrap();
        assert_eq!((connect.version, connect.client_id), (Version::V5, "dev"));
        assert_eq!((connect.clean_start, connect.keep_alive_secs), (true, 60));
        assert_eq!((connect.username, connect.password), (Some("alice"), Some(&b"\xff\0"[..])));
        assert_eq!((connect.session_expiry_secs, connect.receive_maximum), (Some(10), Some(20)));
        assert_eq!((connect.maximum_packet_size, connect.topic_alias_maximum), (Some(1024), Some(8)));
        assert_eq!((connect.request_problem_information, connect.authentication_method), (false, Some("M")));
        let will = connect.will.unwrap();
        assert_eq!((will.topic.as_str(), will.payload), ("w", &b"bye"[..]));
        assert_eq!((will.qos, will.retain), (2, true));
        assert_eq!(
            will.properties.iter().collect::<Vec<_>>(),
            [(PropertyId::WillDelayInterval, PropertyValue::Number(5))]
        );
    }

    #[test]
    fn plain_connect_has_the_defaults_of_the_specification() {
        let connect = decode_connect(b"\x10\x0f\0\x04MQTT\x04\0\0\x3c\0\x03dev").unwrap();
        let expected = Connect { client_id: "dev", ..Connect::new(Version::V311, false, 60) };
        assert_eq!(connect, expected);
        assert!(connect.request_problem_information);
    }

    #[test]
    fn name_and_level_say_the_version() {
        for (name_and_level, version) in
            [(&b"\0\x06MQIsdp\x03"[..], Version::V31), (b"\0\x04MQTT\x04", Version::V311)]
        {
            let body = [name_and_level, b"\x02\0\x3c\0\x01d"].concat();
            let frame = [&[0x10, body.len() as u8], &body[..]].concat();
            assert_eq!(decode_connect(&frame).map(|connect| connect.version), Ok(version));
        }
    }

    #[test]
    fn unknown_level_is_told_even_if_the_rest_is_unknown_too() {
        let error = DecodeError::UnsupportedProtocolLevel(9);
        assert_eq!(decode_connect(b"\x10\x09\0\x04MQTT\x09\xff\xff"), Err(error));
        assert_eq!(error.reason_code(), 0x84);
    }

    #[test]
    fn connack_says_what_the_server_limits() {
        let frame = b"\x20\x18\x01\0\x15\x12\0\x02id\x13\0\x1e\x21\0\x09\x22\0\x08\x24\0\x27\0\0\x01\0";
        let Ok(Packet::ConnAck(connack)) = decode(frame, Version::V5) else { panic!("no CONNACK") };
        assert_eq!((connack.session_present, connack.code), (true, 0));
        assert_eq!((connack.assigned_client_id, connack.server_keep_alive_secs), (Some("id"), Some(30)));
        assert_eq!((connack.receive_maximum, connack.topic_alias_maximum), (Some(9), Some(8)));
        assert_eq!((connack.maximum_qos, connack.maximum_packet_size), (Some(0), Some(256)));
    }

    #[test]
    fn publish_says_all_that_it_holds() {
        let frame = b"\x3d\x12\0\x03a/b\0\x09\x09\x08\0\x03r/t\x23\0\x07x";
        let publish = decode_publish(frame, 2, Version::V5).unwrap();
        assert_eq!((publish.topic, publish.payload), ("a/b", &b"x"[..]));
        assert_eq!((publish.qos, publish.retain, publish.dup), (2, true, true));
        assert_eq!((publish.packet_id, publish.topic_alias), (9, Some(7)));
        assert_eq!(publish.response_topic, Some("r/t"));
    }

    #[test]
    fn property_bytes_never_become_payload() {
        let frame = b"\x30\x11\0\x01a\x06\x0b\x01\x0b\x02\x0b\x03PAYLOAD";
        let publish = decode_publish(frame, 2, Version::V5).unwrap();
        assert_eq!(publish.payload, b"PAYLOAD");
        let ids = [1, 2, 3].map(|id| (PropertyId::SubscriptionIdentifier, PropertyValue::Number(id)));
        assert_eq!(publish.properties.iter().collect::<Vec<_>>(), ids);
    }

    #[test]
    fn filters_are_split_and_kept_as_they_came() {
        let frame = b"\x82\x14\0\x07\0\0\x0a$share/g/a\x29\0\x01#\x02";
        let Ok(Packet::Subscribe(subscribe)) = decode(frame, Version::V5) else { panic!("no SUBSCRIBE") };
        assert_eq!((subscribe.packet_id, subscribe.filters.len()), (7, 2));
        let entries: Vec<_> = subscribe.filters.collect();
        assert_eq!((entries[0].text, entries[0].bytes), ("$share/g/a", &b"\0\x0a$share/g/a\x29"[..]));
        assert_eq!((entries[0].filter.as_str(), entries[0].filter.share_group()), ("a", Some("g")));
        let options = entries[0].options;
        assert_eq!((options.qos(), options.no_local(), options.retain_as_published()), (1, false, true));
        assert_eq!((options.retain_handling(), options.byte()), (2, 0x29));
        assert_eq!((entries[1].text, entries[1].bytes), ("#", &b"\0\x01#\x02"[..]));
    }

    #[test]
    fn unsubscribe_yields_its_filters() {
        let Ok(Packet::Unsubscribe(unsubscribe)) = decode(b"\xa2\x09\0\x01\0\x01a\0\x02+/", Version::V311)
        else {
            panic!("no UNSUBSCRIBE")
        };
        assert_eq!(unsubscribe.filters.len(), 2);
        assert_eq!(unsubscribe.filters.collect::<Vec<_>>(), ["a", "+/"]);
    }

    #[test]
    fn disconnect_says_that_the_session_expires_otherwise() {
        let Ok(Packet::Disconnect(disconnect)) = decode(b"\xe0\x07\x04\x05\x11\0\0\0\x09", Version::V5)
        else {
            panic!("no DISCONNECT")
        };
        assert_eq!((disconnect.reason, disconnect.session_expiry_secs), (4, Some(9)));
    }

    #[test]
    fn errors_are_answered_with_the_code_of_their_kind() {
        for (frame, code) in [
            (&b"\x30\x04\0\x01a\x01"[..], 0x81),
            (b"\x30\x07\0\x01a\x03\x23\0\0", 0x94),
            (b"\x30\x05\0\x01a\x02\x0b\0", 0x81),
            (b"\x30\x06\0\x01a\x02\x0b\0", 0x82),
            (b"\x30\x03\0\0\0", 0x82),
            (b"\x40\x02\0\0", 0x82),
        ] {
            let error = decode(frame, Version::V5).unwrap_err();
            assert_eq!(error.reason_code(), code, "{error}");
        }
    }

    const CONNECT: &[u8] = b"\x10\x3f\0\x04MQTT\x05\xf6\0\x3c\
        \x16\x11\0\0\0\x0a\x21\0\x14\x27\0\0\x04\0\x22\0\x08\x17\0\x15\0\x01M\0\x03dev\
        \x05\x18\0\0\0\x05\0\x01w\0\x03bye\0\x05alice\0\x02\xff\0";
}
