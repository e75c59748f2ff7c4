//! Packets that came, with other fields: everything else stays byte for byte.

use std::borrow::Cow;

use mgate_policies::Outdated;

use super::encode::put_variable;
use super::splice::{before, put_frame};
use super::{Cursor, DecodeError, PASSWORD, Properties, PropertyId, PropertyValue, USERNAME, decode, open};
use crate::mqtt::packet::{Connect, Packet, Publish, Version, Will};

/// What a message is to say. Texts are at most 65,535 bytes long, as all that packets hold.
#[derive(Clone, Copy)]
pub struct NewMessage<'a> {
    /// The topic as it is to stand in the packet; empty where an alias says it.
    pub topic: &'a str,
    /// Where the receiver is asked to answer.
    pub response_topic: Option<&'a str>,
    /// The message itself.
    pub payload: &'a [u8],
    /// What is said of it no longer.
    pub outdated: Outdated,
}

/// What a CONNECT is to say.
#[derive(Clone, Copy)]
pub struct NewConnect<'a> {
    /// The client identifier.
    pub client_id: &'a str,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// What the will says, if there is one; a will is neither made nor taken away.
    pub will: Option<NewMessage<'a>>,
}

/// Appends to `out` the PUBLISH `frame`, which was decoded as `publish`, saying something else.
pub fn rewrite_publish(
    out: &mut Vec<u8>,
    frame: &[u8],
    version: Version,
    publish: &Publish<'_>,
    new: &NewMessage<'_>,
) -> Result<(), DecodeError> {
    let topic = field(new.topic.as_bytes())?;
    let packet_id = publish.packet_id.to_be_bytes();
    let packet_id = if publish.qos > 0 { &packet_id[..] } else { &[] };
    let properties = new_properties(publish.properties, publish.response_topic, new, version)?;
    put_frame(out, frame, &[&topic, packet_id, &properties, new.payload])
}

/// Appends to `out` the CONNECT `frame`, which was decoded as `connect`, saying something else.
pub fn rewrite_connect(
    out: &mut Vec<u8>,
    frame: &[u8],
    connect: &Connect<'_>,
    new: &NewConnect<'_>,
) -> Result<(), DecodeError> {
    let mut body = field(new.client_id.as_bytes())?;
    if let (Some(will), Some(new)) = (&connect.will, &new.will) {
        put_will(&mut body, will, new, connect.version)?;
    }
    let (mut head, mut login) = (head_of_connect(frame, connect.version)?.to_vec(), 0);
    if let Some(username) = new.username {
        login |= USERNAME;
        body.extend(field(username.as_bytes())?);
    }
    if let Some(password) = new.password {
        login |= PASSWORD;
        body.extend(field(password)?);
    }
    let at = flags_of_connect(&head)?;
    head[at] = head[at] & !(USERNAME | PASSWORD) | login;
    put_frame(out, frame, &[&head, &body])
}

/// Appends to `out` the SUBSCRIBE `frame`, with other filters where `new` has one.
pub fn rewrite_subscribe(
    out: &mut Vec<u8>,
    frame: &[u8],
    version: Version,
    new: &[Option<String>],
) -> Result<(), DecodeError> {
    let subscribe = match decode(frame, version)? {
        Packet::Subscribe(subscribe) => subscribe,
        other => return Err(DecodeError::UnexpectedPacket(other.packet_type())),
    };
    let mut entries = Vec::new();
    for (index, filter) in subscribe.filters.clone().enumerate() {
        match new.get(index).and_then(Option::as_ref) {
            Some(text) => {
                entries.extend(field(text.as_bytes())?);
                entries.push(filter.options.byte());
            }
            None => entries.extend_from_slice(filter.bytes),
        }
    }
    put_frame(out, frame, &[before(frame, subscribe.filters.as_bytes())?, &entries])
}

/// Appends to `out` the UNSUBSCRIBE `frame`, with `filters` in place of its own.
pub fn rewrite_unsubscribe(
    out: &mut Vec<u8>,
    frame: &[u8],
    version: Version,
    filters: &[String],
) -> Result<(), DecodeError> {
    let unsubscribe = match decode(frame, version)? {
        Packet::Unsubscribe(unsubscribe) => unsubscribe,
        other => return Err(DecodeError::UnexpectedPacket(other.packet_type())),
    };
    // [MQTT-3.10.3-2]
    if filters.is_empty() {
        return Err(DecodeError::NoFilters);
    }
    let mut entries = Vec::new();
    for filter in filters {
        entries.extend(field(filter.as_bytes())?);
    }
    put_frame(out, frame, &[before(frame, unsubscribe.filters.as_bytes())?, &entries])
}

fn put_will(
    out: &mut Vec<u8>,
    will: &Will<'_>,
    new: &NewMessage<'_>,
    version: Version,
) -> Result<(), DecodeError> {
    out.extend_from_slice(&new_properties(will.properties, will.response_topic(), new, version)?);
    out.extend(field(new.topic.as_bytes())?);
    out.extend(field(new.payload)?);
    Ok(())
}

/// Properties and their length, with another response topic, and without what is outdated.
fn new_properties(
    properties: Properties<'_>,
    old_response_topic: Option<&str>,
    new: &NewMessage<'_>,
    version: Version,
) -> Result<Vec<u8>, DecodeError> {
    if !version.is_5() {
        let is_sayable = new.response_topic.is_none();
        return if is_sayable { Ok(Vec::new()) } else { Err(DecodeError::PropertyValue(RESPONSE_TOPIC)) };
    }
    let is_moved = old_response_topic != new.response_topic;
    let bytes = match is_moved || new.outdated != Outdated::default() {
        true => {
            let goes = |id, value| is_moved && id == RESPONSE_TOPIC || is_outdated(new.outdated, id, value);
            let text = new.response_topic.filter(|_| is_moved);
            Cow::Owned(properties.with_text(goes, text.map(|text| (RESPONSE_TOPIC, text))))
        }
        false => Cow::Borrowed(properties.as_bytes()),
    };
    let mut written = Vec::with_capacity(bytes.len() + 4);
    put_variable(&mut written, bytes.len());
    written.extend_from_slice(&bytes);
    Ok(written)
}

/// Whether it is said of a payload that is another by now.
fn is_outdated(outdated: Outdated, id: PropertyId, value: PropertyValue<'_>) -> bool {
    match (id, value) {
        (PropertyId::UserProperty, PropertyValue::Pair(name, _)) => {
            outdated.encoding && name.eq_ignore_ascii_case("content-encoding")
        }
        (PropertyId::PayloadFormatIndicator, _) => outdated.signature,
        (PropertyId::ContentType, PropertyValue::Text(media_type)) => {
            let essence = media_type.split(';').next().unwrap_or_default();
            outdated.signature && essence.trim().eq_ignore_ascii_case("application/jose")
        }
        _ => false,
    }
}

/// All before the client identifier.
fn head_of_connect(frame: &[u8], version: Version) -> Result<&[u8], DecodeError> {
    let body = open(frame)?.1.rest();
    let mut cursor = Cursor::new(body);
    cursor.take(flags_of_connect(body)? + FLAGS_AND_KEEP_ALIVE)?;
    if version.is_5() {
        let length = cursor.variable()?;
        cursor.take(length as usize)?;
    }
    Ok(&body[..body.len() - cursor.rest().len()])
}

/// Where the connect flags stand: behind the protocol's name and level.
fn flags_of_connect(body: &[u8]) -> Result<usize, DecodeError> {
    let mut cursor = Cursor::new(body);
    cursor.binary()?;
    cursor.byte()?;
    let at = body.len() - cursor.rest().len();
    cursor.byte().map(|_| at)
}

/// The bytes and their length.
fn field(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let length = u16::try_from(bytes.len()).map_err(|_| DecodeError::TooLong)?;
    Ok([&length.to_be_bytes(), bytes].concat())
}

const RESPONSE_TOPIC: PropertyId = PropertyId::ResponseTopic;
const FLAGS_AND_KEEP_ALIVE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::{decode_connect, decode_publish};

    #[test]
    fn publish_keeps_what_is_not_changed() {
        let publish = decode_publish(PUBLISH, 2, Version::V5).unwrap();
        let same = NewMessage { topic: "a", response_topic: Some("r"), payload: b"x", ..NEW };
        assert_eq!(rewritten(&publish, &same), PUBLISH);
        let new = NewMessage { topic: "t/a", response_topic: Some("t/r"), payload: b"yy", ..NEW };
        let out = rewritten(&publish, &new);
        let publish = decode_publish(&out, 2, Version::V5).unwrap();
        assert_eq!(
            (publish.topic, publish.response_topic, publish.payload),
            ("t/a", Some("t/r"), &b"yy"[..])
        );
        assert_eq!(
            (publish.packet_id, publish.qos, publish.retain, publish.topic_alias),
            (9, 1, true, Some(3))
        );
        let ids: Vec<_> = publish.properties.iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [PropertyId::TopicAlias, PropertyId::UserProperty, PropertyId::ResponseTopic]);
    }

    #[test]
    fn response_topic_can_go_away() {
        let publish = decode_publish(PUBLISH, 2, Version::V5).unwrap();
        let out = rewritten(&publish, &NewMessage { topic: "a", response_topic: None, payload: b"x", ..NEW });
        let publish = decode_publish(&out, 2, Version::V5).unwrap();
        assert_eq!((publish.response_topic, publish.topic_alias), (None, Some(3)));
    }

    #[test]
    fn what_is_said_of_another_payload_goes_away() {
        let format = &b"\x01\x01"[..];
        let [jose, json] = [&b"\x03\0\x12Application/JOSE;x"[..], b"\x03\0\x10application/json"];
        let [encoding, pair] = [&b"\x26\0\x10Content-Encoding\0\x04gzip"[..], b"\x26\0\x01k\0\x01v"];
        let answer = &b"\x08\0\x01r"[..];
        let outdated = |encoding, signature| Outdated { encoding, signature };
        for (properties, outdated, kept) in [
            (vec![format, encoding, jose, pair], outdated(false, false), vec![format, encoding, jose, pair]),
            (vec![format, encoding, pair, jose, encoding], outdated(true, false), vec![format, pair, jose]),
            (vec![encoding, jose, answer, format], outdated(false, true), vec![encoding, answer]),
            (vec![json, format], outdated(true, true), vec![json]),
            (vec![encoding], outdated(true, true), vec![]),
        ] {
            let frame = of_properties(&properties.concat());
            let publish = decode_publish(&frame, 2, Version::V5).unwrap();
            let new = NewMessage { response_topic: publish.response_topic, outdated, ..NEW };
            let mut out = Vec::new();
            rewrite_publish(&mut out, &frame, Version::V5, &publish, &new).unwrap();
            assert_eq!(out, of_properties(&kept.concat()), "{publish:?} {outdated:?}");
        }
    }

    #[test]
    fn connect_keeps_what_is_not_changed() {
        let connect = decode_connect(CONNECT).unwrap();
        let will = NewMessage { topic: "w", response_topic: None, payload: b"bye", ..NEW };
        let same = NewConnect {
            client_id: "dev",
            username: Some("alice"),
            password: Some(b"\xff\0"),
            will: Some(will),
        };
        let mut out = Vec::new();
        rewrite_connect(&mut out, CONNECT, &connect, &same).unwrap();
        assert_eq!(out, CONNECT);
        let new = NewConnect { client_id: "t-dev", username: None, password: None, ..same };
        let mut out = Vec::new();
        rewrite_connect(&mut out, CONNECT, &connect, &new).unwrap();
        let changed = decode_connect(&out).unwrap();
        assert_eq!((changed.client_id, changed.username, changed.password), ("t-dev", None, None));
        assert_eq!(changed.will, connect.will);
        assert_eq!(changed.properties, connect.properties);
        assert_eq!((changed.keep_alive_secs, changed.clean_start), (60, true));
    }

    #[test]
    fn unsubscribe_without_any_filter_is_not_written() {
        let mut out = Vec::new();
        let frame = b"\xa2\x05\0\x01\0\x01a";
        assert_eq!(rewrite_unsubscribe(&mut out, frame, Version::V311, &[]), Err(DecodeError::NoFilters));
        assert!(out.is_empty());
    }

    #[test]
    fn text_longer_than_its_length_can_say_is_refused() {
        let mut out = Vec::new();
        let long = vec![Some("t".repeat(65_536))];
        let frame = b"\x82\x06\0\x01\0\x01a\0";
        assert_eq!(rewrite_subscribe(&mut out, frame, Version::V311, &long), Err(DecodeError::TooLong));
        assert!(out.is_empty());
    }

    /// A PUBLISH to `a` that carries nothing.
    fn of_properties(properties: &[u8]) -> Vec<u8> {
        let length = u8::try_from(properties.len()).unwrap();
        [b"\x30", &[length + 4][..], b"\0\x01a", &[length], properties].concat()
    }

    fn rewritten(publish: &Publish<'_>, new: &NewMessage<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        rewrite_publish(&mut out, PUBLISH, Version::V5, publish, new).unwrap();
        out
    }

    const NEW: NewMessage<'_> = NewMessage {
        topic: "a",
        response_topic: None,
        payload: b"",
        outdated: Outdated { encoding: false, signature: false },
    };
    /// QoS 1, retained; topic `a`, packet identifier 9, response topic last, payload `x`.
    const PUBLISH: &[u8] = b"\x33\x15\0\x01a\0\x09\x0e\x23\0\x03\x26\0\x01k\0\x01v\x08\0\x01rx";
    const CONNECT: &[u8] = b"\x10\x3f\0\x04MQTT\x05\xf6\0\x3c\
        \x16\x11\0\0\0\x0a\x21\0\x14\x27\0\0\x04\0\x22\0\x08\x17\0\x15\0\x01M\0\x03dev\
        \x05\x18\0\0\0\x05\0\x01w\0\x03bye\0\x05alice\0\x02\xff\0";
}
