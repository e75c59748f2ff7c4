//! Replays the named packets of `corpus/mqtt` against the codec.
//!
//! A file is hex text; a malformed one begins with a comment that says what is wrong and cites the statement.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its packets must fail")]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use mgate_proxy::mqtt::codec::{
    DecodeError, decode, decode_connect, decode_header, splice_publish_topic, splice_suback, splice_subscribe,
};
use mgate_proxy::mqtt::packet::{Packet, PacketType, Version};
use mqttbytes::v4;

#[test]
fn valid_packets_are_decoded() {
    for case in cases("valid") {
        let packet = decode(&case.bytes, case.version).unwrap_or_else(|error| panic!("{case}: {error}"));
        let expected = case.name.split('_').next().unwrap_or_default().to_uppercase();
        assert_eq!(packet.packet_type().to_string(), expected, "{case}");
        assert!(packet.to_string().starts_with(&expected), "{case}: shown as {packet}");
    }
}

#[test]
fn malformed_packets_are_refused_for_the_reason_in_their_comment() {
    for case in cases("malformed") {
        let error = match decode(&case.bytes, case.version) {
            Ok(packet) => panic!("{case}: taken as {packet}"),
            Err(error) => error.to_string(),
        };
        let cited = format!("{error}, MQTT ");
        assert!(case.comment == error || case.comment.starts_with(&cited), "{case}: {error}");
    }
}

#[test]
fn malformed_packets_are_not_waited_for() {
    for case in cases("malformed") {
        let header = decode_header(&case.bytes);
        let is_whole = matches!(header, Ok(Some(header)) if header.frame_len == case.bytes.len());
        assert!(is_whole || header.is_err(), "{case}: {header:?}");
    }
}

#[test]
fn incomplete_packets_are_waited_for() {
    for case in cases("incomplete") {
        assert!(is_incomplete(&case.bytes), "{case}");
    }
}

#[test]
fn every_prefix_of_a_valid_packet_is_incomplete() {
    for case in cases("valid") {
        for length in 0..case.bytes.len() {
            assert!(is_incomplete(&case.bytes[..length]), "{case}: first {length} bytes");
        }
        let header = decode_header(&case.bytes).ok().flatten();
        assert_eq!(header.map(|header| header.frame_len), Some(case.bytes.len()), "{case}");
    }
}

#[test]
fn frame_cut_short_or_with_more_behind_is_refused() {
    for case in cases("valid") {
        let cut = &case.bytes[..case.bytes.len() - 1];
        assert_eq!(decode(cut, case.version), Err(DecodeError::Truncated), "{case}");
        let more = [&case.bytes[..], &[0]].concat();
        assert_eq!(decode(&more, case.version), Err(DecodeError::TrailingBytes), "{case}");
    }
}

/// The views read again what was checked when the packet was decoded; nothing may be lost on the second reading.
#[test]
fn changed_bytes_never_make_a_view_that_cannot_be_read() {
    let mut taken = 0;
    for case in cases("valid").into_iter().filter(|case| case.bytes.len() < 1000) {
        for (at, change) in (0..case.bytes.len()).flat_map(|at| CHANGES.map(|change| (at, change))) {
            let mut bytes = case.bytes.clone();
            bytes[at] ^= change;
            let Ok(packet) = decode(&bytes, case.version) else { continue };
            let _ = packet.to_string();
            match packet {
                Packet::Subscribe(subscribe) => {
                    assert_eq!(subscribe.filters.len(), subscribe.filters.count(), "{case}: {at}");
                }
                Packet::Unsubscribe(unsubscribe) => {
                    assert_eq!(unsubscribe.filters.len(), unsubscribe.filters.count(), "{case}: {at}");
                }
                _ => {}
            }
            taken += 1;
        }
    }
    assert!(taken > 1000, "only {taken} changed packets were taken");
}

#[test]
fn connect_is_judged_alike_whether_or_not_it_is_expected() {
    for case in cases("valid").into_iter().chain(cases("malformed")) {
        let connect = decode_connect(&case.bytes);
        match decode(&case.bytes, case.version) {
            Ok(Packet::Connect(expected)) => assert_eq!(connect, Ok(expected), "{case}"),
            Ok(other) => {
                assert_eq!(connect, Err(DecodeError::UnexpectedPacket(other.packet_type())), "{case}");
            }
            Err(_) => assert!(connect.is_err(), "{case}"),
        }
    }
}

#[test]
fn same_topic_spliced_in_gives_the_same_bytes() {
    for (case, packet) in decoded(&cases("valid"), PacketType::Publish) {
        let Packet::Publish(publish) = packet else { unreachable!() };
        let mut out = Vec::new();
        splice_publish_topic(&mut out, &case.bytes, header_len(case), publish.topic).unwrap();
        assert!(out == case.bytes, "{case}");
    }
}

#[test]
fn other_topic_spliced_in_changes_nothing_else() {
    for (case, packet) in decoded(&cases("valid"), PacketType::Publish) {
        let Packet::Publish(mut expected) = packet else { unreachable!() };
        expected.topic = "tenant/another topic";
        let mut out = Vec::new();
        splice_publish_topic(&mut out, &case.bytes, header_len(case), expected.topic).unwrap();
        assert_eq!(decode(&out, case.version), Ok(Packet::Publish(expected)), "{case}");
    }
}

#[test]
fn subscribe_with_all_filters_kept_gives_the_same_bytes() {
    for (case, _) in decoded(&cases("valid"), PacketType::Subscribe) {
        let mut out = Vec::new();
        splice_subscribe(&mut out, &case.bytes, case.version, |_| true).unwrap();
        assert_eq!(out, case.bytes, "{case}");
    }
}

#[test]
fn suback_with_nothing_denied_gives_the_same_bytes() {
    for (case, packet) in decoded(&cases("valid"), PacketType::SubAck) {
        let Packet::SubAck(suback) = packet else { unreachable!() };
        let mut out = Vec::new();
        splice_suback(&mut out, &case.bytes, case.version, &vec![None; suback.codes.len()]).unwrap();
        assert_eq!(out, case.bytes, "{case}");
    }
}

#[test]
fn mqttbytes_takes_each_3_1_1_publish_alike() {
    let publishes =
        cases("valid").into_iter().filter(|case| case.version == Version::V311).collect::<Vec<_>>();
    for (case, packet) in decoded(&publishes, PacketType::Publish) {
        let Packet::Publish(ours) = packet else { unreachable!() };
        let mut stream = BytesMut::from(&case.bytes[..]);
        let Ok(v4::Packet::Publish(theirs)) = v4::read(&mut stream, case.bytes.len()) else {
            panic!("{case}: refused by mqttbytes");
        };
        assert_eq!((ours.topic, ours.payload), (&theirs.topic[..], &theirs.payload[..]), "{case}");
        assert_eq!((ours.qos, ours.packet_id), (theirs.qos as u8, theirs.pkid), "{case}");
        assert_eq!((ours.retain, ours.dup), (theirs.retain, theirs.dup), "{case}");
    }
}

#[test]
fn corpus_is_whole() {
    let count: usize =
        ["incomplete", "malformed", "valid"].map(|judgement| cases(judgement).len()).iter().sum();
    assert!(count >= 320, "only {count} packets");
}

struct Case {
    name: String,
    version: Version,
    comment: String,
    bytes: Vec<u8>,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (MQTT {})", self.name, self.version)
    }
}

/// The packets of both versions with one judgement: `valid`, `malformed` or `incomplete`. There are some.
fn cases(judgement: &str) -> Vec<Case> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/mqtt");
    [("v311", Version::V311), ("v5", Version::V5)]
        .into_iter()
        .flat_map(|(folder, version)| {
            let files = files(&corpus.join(folder).join(judgement));
            assert!(!files.is_empty(), "no {judgement} packet of {version}");
            files.into_iter().map(move |file| read(&file, version))
        })
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn read(file: &Path, version: Version) -> Case {
    let text = fs::read_to_string(file).unwrap();
    let (comments, hex): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('#'));
    let byte =
        |digits| u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{}: {digits}", file.display()));
    Case {
        name: file.file_stem().unwrap().to_string_lossy().into_owned(),
        version,
        comment: comments.concat().trim_start_matches("# ").to_owned(),
        bytes: hex.into_iter().flat_map(str::split_whitespace).map(byte).collect(),
    }
}

/// Those of `cases` that are of one type, decoded. There are some.
fn decoded(cases: &[Case], packet_type: PacketType) -> Vec<(&Case, Packet<'_>)> {
    let decoded: Vec<_> = cases
        .iter()
        .filter_map(|case| Some((case, decode(&case.bytes, case.version).ok()?)))
        .filter(|(_, packet)| packet.packet_type() == packet_type)
        .collect();
    assert!(!decoded.is_empty(), "no {packet_type}");
    decoded
}

fn header_len(case: &Case) -> usize {
    decode_header(&case.bytes).unwrap().unwrap().header_len
}

fn is_incomplete(bytes: &[u8]) -> bool {
    match decode_header(bytes) {
        Ok(Some(header)) => header.frame_len > bytes.len(),
        Ok(None) => true,
        Err(_) => false,
    }
}

const CHANGES: [u8; 8] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x80, 0xff];
