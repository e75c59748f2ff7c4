//! Second opinions on the MQTT codec: what it takes, others must take alike.
//!
//! Only this way round: the other codecs check less. What they are known to read wrongly is in the tables below.

#![expect(clippy::expect_used, reason = "a test that cannot read its packets must fail")]

#[path = "harness/corpus.rs"]
mod corpus;
#[path = "harness/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;

use bytes::BytesMut;
use mgate_proxy::mqtt::codec::{decode, decode_header};
use mgate_proxy::mqtt::packet::{Packet, PacketType, Version};
use mqtt_protocol_core::mqtt::Arc;
use mqtt_protocol_core::mqtt::packet::v5_0;
use mqtt_protocol_core::mqtt::result_code::MqttError;
use mqttbytes::v4;

use self::corpus::Case;
use self::mutate::{Chance, mutate};

#[test]
fn what_is_taken_of_3_1_1_mqttbytes_takes_alike() {
    compare(Version::V311, |packet, bytes| {
        let theirs = v4::read(&mut BytesMut::from(bytes), bytes.len());
        match theirs.map_err(|error| format!("{error:?}")).and_then(|theirs| compare_3_1_1(packet, theirs)) {
            Ok(()) => None,
            Err(why) => Some(Difference { known: known_of_mqttbytes(packet), why }),
        }
    });
}

#[test]
fn what_is_taken_of_5_0_mqtt_protocol_core_takes_alike() {
    compare(Version::V5, |packet, bytes| {
        let theirs = read_5_0(packet, bytes).map_err(|error| format!("{error:?}"));
        match theirs.and_then(|theirs| same("packet", &theirs[..], bytes)) {
            Ok(()) => None,
            Err(why) => Some(Difference { known: known_of_mqtt_protocol_core(packet, bytes), why }),
        }
    });
}

/// The two codecs do not agree on a packet.
struct Difference {
    /// What is known to be wrong with the other one; `None` fails the test.
    known: Option<&'static str>,
    why: String,
}

/// Shows all packets of one version, and many changed ones, to the other codec if ours takes them.
fn compare(version: Version, difference: impl Fn(&Packet<'_>, &[u8]) -> Option<Difference>) {
    let mut taken = BTreeMap::<_, u32>::new();
    let mut excused = BTreeMap::<_, u32>::new();
    let mut show = |name: &str, bytes: &[u8]| {
        let Ok(packet) = decode(bytes, version) else { return };
        if matches!(&packet, Packet::Connect(connect) if connect.version != version) {
            return;
        }
        *taken.entry(packet.packet_type() as u8).or_default() += 1;
        match difference(&packet, bytes) {
            None => {}
            Some(Difference { known: Some(known), .. }) => *excused.entry(known).or_default() += 1,
            Some(Difference { why, .. }) => panic!("{name}: {bytes:02x?}, {packet}: {why}"),
        }
    };
    let cases: Vec<_> = corpus::cases().into_iter().filter(|case| case.version == version).collect();
    cases.iter().for_each(|case| show(&case.name, &case.bytes));
    let short: Vec<_> = cases.iter().filter(|case| (2..1000).contains(&case.bytes.len())).collect();
    let valid: Vec<_> = short.iter().filter(|case| decode(&case.bytes, version).is_ok()).collect();
    let mut chance = Chance::new(version as u64 + 1);
    for _ in 0..MUTATIONS {
        let (Case { name, bytes, .. }, other) = (chance.pick(&valid), chance.pick(&short));
        show(name, &mutate(bytes, &other.bytes, &mut chance));
    }
    let types = if version.is_5() { 15 } else { 14 };
    assert_eq!(taken.len(), types, "packets of every type are taken: {taken:?}");
    assert!(taken.values().sum::<u32>() > MUTATIONS / 10, "taken by type: {taken:?}, excused: {excused:?}");
}

fn same<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, theirs: &T, ours: &T) -> Result<(), String> {
    if theirs == ours { Ok(()) } else { Err(format!("{what}: theirs {theirs:02x?}, ours {ours:02x?}")) }
}

fn compare_3_1_1(packet: &Packet<'_>, theirs: v4::Packet) -> Result<(), String> {
    match (packet, theirs) {
        (Packet::Connect(ours), v4::Packet::Connect(theirs)) => {
            same("client id", &theirs.client_id[..], ours.client_id)?;
            same("keep alive", &theirs.keep_alive, &ours.keep_alive_secs)?;
            same("clean session", &theirs.clean_session, &ours.clean_start)?;
            let will =
                ours.will.as_ref().map(|will| (will.topic.as_str(), will.payload, will.qos, will.retain));
            let their_will = theirs.last_will.as_ref();
            let their_will =
                their_will.map(|will| (&will.topic[..], &will.message[..], will.qos as u8, will.retain));
            same("will", &their_will, &will)?;
            let login =
                theirs.login.unwrap_or(v4::Login { username: String::new(), password: String::new() });
            same("user name", &login.username[..], ours.username.unwrap_or_default())?;
            same("password", login.password.as_bytes(), ours.password.unwrap_or_default())
        }
        (Packet::ConnAck(ours), v4::Packet::ConnAck(theirs)) => {
            same("code", &(theirs.code as u8), &ours.code)?;
            same("session present", &theirs.session_present, &ours.session_present)
        }
        (Packet::Publish(ours), v4::Packet::Publish(theirs)) => {
            same("topic", &theirs.topic[..], ours.topic)?;
            same("payload", &theirs.payload[..], ours.payload)?;
            let flags = (theirs.qos as u8, theirs.retain, theirs.dup, theirs.pkid);
            same("QoS, retain, DUP, id", &flags, &(ours.qos, ours.retain, ours.dup, ours.packet_id))
        }
        (Packet::Subscribe(ours), v4::Packet::Subscribe(theirs)) => {
            same("id", &theirs.pkid, &ours.packet_id)?;
            let filters = theirs.filters.iter().map(|filter| (&filter.path[..], filter.qos as u8));
            let expected = ours.filters.clone().map(|filter| (filter.text, filter.options.qos()));
            same("filters", &filters.collect::<Vec<_>>(), &expected.collect())
        }
        (Packet::Unsubscribe(ours), v4::Packet::Unsubscribe(theirs)) => {
            same("id", &theirs.pkid, &ours.packet_id)?;
            let expected: Vec<_> = ours.filters.clone().collect();
            same("filters", &theirs.topics.iter().map(|topic| &topic[..]).collect(), &expected)
        }
        (Packet::SubAck(ours), v4::Packet::SubAck(theirs)) => {
            same("id", &theirs.pkid, &ours.packet_id)?;
            let codes = theirs.return_codes.iter().map(|code| match code {
                v4::SubscribeReasonCode::Success(qos) => *qos as u8,
                v4::SubscribeReasonCode::Failure => 0x80,
            });
            same("codes", &codes.collect::<Vec<_>>()[..], ours.codes)
        }
        (Packet::PubAck(ours), v4::Packet::PubAck(theirs)) => same("id", &theirs.pkid, &ours.packet_id),
        (Packet::PubComp(ours), v4::Packet::PubComp(theirs)) => same("id", &theirs.pkid, &ours.packet_id),
        (Packet::PubRec(ours), v4::Packet::PubRec(theirs)) => same("id", &theirs.pkid, &ours.packet_id),
        (Packet::PubRel(ours), v4::Packet::PubRel(theirs)) => same("id", &theirs.pkid, &ours.packet_id),
        (Packet::UnsubAck(ours), v4::Packet::UnsubAck(theirs)) => same("id", &theirs.pkid, &ours.packet_id),
        (Packet::PingReq, v4::Packet::PingReq)
        | (Packet::PingResp, v4::Packet::PingResp)
        | (Packet::Disconnect(_), v4::Packet::Disconnect) => Ok(()),
        (_, theirs) => Err(format!("another packet: {theirs:?}")),
    }
}

/// What mqttbytes 0.6 is known to read wrongly.
fn known_of_mqttbytes(packet: &Packet<'_>) -> Option<&'static str> {
    match packet {
        Packet::Connect(connect)
            if connect.password.is_some_and(|password| str::from_utf8(password).is_err()) =>
        {
            Some("takes passwords for texts")
        }
        _ => None,
    }
}

/// What mqtt-protocol-core makes of a packet, written again; of a PUBLISH, every field is compared as well.
fn read_5_0(packet: &Packet<'_>, bytes: &[u8]) -> Result<Vec<u8>, MqttError> {
    let header = decode_header(bytes).ok().flatten().expect("a packet that was taken");
    let body = &bytes[header.header_len..];
    Ok(match header.packet_type {
        PacketType::Auth => v5_0::Auth::parse(body)?.0.to_continuous_buffer(),
        PacketType::ConnAck => v5_0::Connack::parse(body)?.0.to_continuous_buffer(),
        PacketType::Connect => v5_0::Connect::parse(body)?.0.to_continuous_buffer(),
        PacketType::Disconnect => v5_0::Disconnect::parse(body)?.0.to_continuous_buffer(),
        PacketType::PingReq => v5_0::Pingreq::parse(body)?.0.to_continuous_buffer(),
        PacketType::PingResp => v5_0::Pingresp::parse(body)?.0.to_continuous_buffer(),
        PacketType::PubAck => v5_0::Puback::parse(body)?.0.to_continuous_buffer(),
        PacketType::PubComp => v5_0::Pubcomp::parse(body)?.0.to_continuous_buffer(),
        PacketType::PubRec => v5_0::Pubrec::parse(body)?.0.to_continuous_buffer(),
        PacketType::PubRel => v5_0::Pubrel::parse(body)?.0.to_continuous_buffer(),
        PacketType::Publish => {
            let theirs = v5_0::Publish::parse(header.flags, Arc::from(body))?.0;
            let Packet::Publish(ours) = packet else { return Err(MqttError::MalformedPacket) };
            assert_eq!((theirs.topic_name(), theirs.payload().as_slice()), (ours.topic, ours.payload));
            assert_eq!((theirs.qos() as u8, theirs.packet_id().unwrap_or(0)), (ours.qos, ours.packet_id));
            assert_eq!((theirs.retain(), theirs.dup()), (ours.retain, ours.dup));
            theirs.to_continuous_buffer()
        }
        PacketType::SubAck => v5_0::Suback::parse(body)?.0.to_continuous_buffer(),
        PacketType::Subscribe => v5_0::Subscribe::parse(body)?.0.to_continuous_buffer(),
        PacketType::UnsubAck => v5_0::Unsuback::parse(body)?.0.to_continuous_buffer(),
        PacketType::Unsubscribe => v5_0::Unsubscribe::parse(body)?.0.to_continuous_buffer(),
    })
}

/// What mqtt-protocol-core 0.7 is known to read wrongly.
fn known_of_mqtt_protocol_core(packet: &Packet<'_>, _bytes: &[u8]) -> Option<&'static str> {
    match packet {
        Packet::Connect(connect) if connect.username.is_none() && connect.password.is_some() => {
            Some("wants a user name with each password, as 3.1.1 did")
        }
        _ => None,
    }
}

const MUTATIONS: u32 = 200_000;
