//! Replays the named messages of `corpus/coap` against the codec, and asks `coap-lite` for a second opinion.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot read its messages must fail"
)]

#[path = "harness/coap_corpus.rs"]
mod corpus;
#[path = "harness/mutate.rs"]
mod mutate;

use coap_lite::Packet;
use mgate_proxy::coap::codec::decode;
use mgate_proxy::coap::encode::encode_without;
use mgate_proxy::coap::message::Message;

use self::mutate::{Chance, mutate};

#[test]
fn valid_messages_are_decoded() {
    for case in corpus::cases("valid") {
        let message = decode(&case.bytes).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let kind = case.name.split(['_', '.']).next().unwrap_or_default().to_uppercase();
        assert_eq!(message.kind.to_string(), kind, "{}", case.name);
        assert_eq!(message.known.fault, None, "{}", case.name);
        assert!(message.to_string().starts_with(&kind), "{}: shown as {message}", case.name);
    }
}

#[test]
fn malformed_messages_are_refused_for_the_reason_in_their_comment() {
    for case in corpus::cases("malformed") {
        let error = match decode(&case.bytes) {
            Ok(message) => panic!("{}: taken as {message}", case.name),
            Err(error) => error.to_string(),
        };
        assert!(case.comment.starts_with(&format!("{error}, RFC ")), "{}: {error}", case.name);
    }
}

#[test]
fn options_that_must_not_be_passed_over_are_named() {
    for case in corpus::cases("refused") {
        let message = decode(&case.bytes).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let fault = message.known.fault.unwrap_or_else(|| panic!("{}: no fault", case.name)).to_string();
        assert!(case.comment.starts_with(&format!("{fault}, RFC ")), "{}: {fault}", case.name);
    }
}

#[test]
fn message_cut_anywhere_is_never_taken_for_the_whole() {
    for case in corpus::cases("valid") {
        for length in 0..case.bytes.len() {
            let Ok(message) = decode(&case.bytes[..length]) else { continue };
            assert_eq!(message.bytes.len(), length, "{}", case.name);
            assert!(seen(&message) != seen(&decode(&case.bytes).unwrap()), "{}: {length}", case.name);
        }
    }
}

#[test]
fn encoding_without_cutting_gives_the_same_bytes() {
    for case in corpus::cases("valid").into_iter().chain(corpus::cases("refused")) {
        let message = decode(&case.bytes).unwrap();
        let mut out = Vec::new();
        encode_without(&message, |_| false, &mut out);
        assert_eq!(out, case.bytes, "{}", case.name);
    }
}

#[test]
fn cut_options_are_gone_and_the_others_stay() {
    for case in corpus::cases("valid") {
        let message = decode(&case.bytes).unwrap();
        for cut in message.options.iter().map(|option| option.number) {
            let mut out = Vec::new();
            encode_without(&message, |option| option.number == cut, &mut out);
            let left = decode(&out).unwrap();
            let expected = message.options.iter().filter(|option| option.number != cut);
            assert!(left.options.iter().eq(expected), "{}: without {cut}", case.name);
            assert_eq!((left.id, left.token, left.payload), (message.id, message.token, message.payload));
        }
    }
}

#[test]
fn coap_lite_sees_what_we_see() {
    let mut agreed = 0;
    for case in corpus::cases("valid").into_iter().chain(corpus::cases("refused")) {
        agree(&case.bytes);
        agreed += 1;
    }
    assert!(agreed > 50, "only {agreed} messages");
}

#[test]
fn coap_lite_sees_what_we_see_in_messages_made_by_chance() {
    let cases: Vec<_> = corpus::cases("valid").into_iter().chain(corpus::cases("refused")).collect();
    let (mut chance, mut taken) = (Chance::new(1), 0);
    for _ in 0..20_000 {
        let (case, other) = (chance.pick(&cases), chance.pick(&cases));
        let bytes = mutate(&case.bytes, &other.bytes, &mut chance);
        if decode(&bytes).is_ok() {
            agree(&bytes);
            taken += 1;
        }
    }
    assert!(taken > 1000, "only {taken} messages were well formed");
}

/// What we take, the other must take too, for the same; it takes more than we do.
fn agree(bytes: &[u8]) {
    let ours = decode(bytes).unwrap();
    let theirs = Packet::from_bytes(bytes).unwrap_or_else(|error| panic!("{bytes:02x?}: {error}"));
    assert_eq!(u8::from(theirs.header.code), ours.code.0, "{bytes:02x?}");
    assert_eq!(theirs.header.message_id, ours.id, "{bytes:02x?}");
    assert_eq!(theirs.get_token(), ours.token.as_bytes(), "{bytes:02x?}");
    assert_eq!(theirs.payload, ours.payload, "{bytes:02x?}");
    let options = theirs
        .options()
        .flat_map(|(number, values)| values.iter().map(|value| (*number, value.clone())).collect::<Vec<_>>());
    let expected = ours.options.iter().map(|option| (option.number, option.value.to_vec()));
    assert!(options.eq(expected), "{bytes:02x?}");
}

fn seen(message: &Message<'_>) -> (usize, usize, usize) {
    (message.token.as_bytes().len(), message.options.iter().count(), message.payload.len())
}
