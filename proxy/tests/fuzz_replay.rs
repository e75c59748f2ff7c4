//! Replays the named packets, what fuzzing found before, and stories made by chance, without a fuzzer.

#![expect(clippy::expect_used, reason = "a test that cannot read its inputs must fail")]

#[path = "harness/answers.rs"]
mod answers;
#[path = "harness/coap.rs"]
mod coap;
#[expect(dead_code, reason = "other tests read the comments")]
#[path = "harness/coap_corpus.rs"]
mod coap_corpus;
#[path = "harness/corpus.rs"]
mod corpus;
#[path = "harness/decode.rs"]
mod decode;
#[path = "harness/mutate.rs"]
mod mutate;
#[path = "harness/requests.rs"]
mod requests;
#[path = "harness/session/mod.rs"]
mod session;
#[path = "harness/topics.rs"]
mod topics;
#[path = "harness/websocket.rs"]
mod websocket;
#[path = "harness/websocket_frames.rs"]
mod websocket_frames;
#[path = "harness/wire.rs"]
mod wire;

use std::path::Path;

use self::mutate::{Chance, mutate};

#[test]
fn named_packets_keep_what_decoding_promises() {
    for case in corpus::cases() {
        println!("{}", case.name);
        for version in decode::VERSIONS {
            decode::check_packet(&case.bytes, version);
        }
    }
}

#[test]
fn changed_packets_keep_what_decoding_promises() {
    let cases: Vec<_> =
        corpus::cases().into_iter().filter(|case| (2..1000).contains(&case.bytes.len())).collect();
    let mut chance = Chance::new(1);
    for _ in 0..20_000 {
        let (case, other) = (chance.pick(&cases), chance.pick(&cases));
        decode::check_packet(&mutate(&case.bytes, &other.bytes, &mut chance), case.version);
    }
}

#[test]
fn changed_answers_keep_what_reading_promises() {
    check_changed("http_response", answers::check);
}

#[test]
fn changed_requests_keep_what_reading_promises() {
    check_changed("http_request", requests::check);
}

#[test]
fn named_packets_keep_what_a_session_promises() {
    for case in corpus::cases() {
        println!("{}", case.name);
        let version = decode::VERSIONS.iter().position(|version| *version == case.version);
        session::check(&story_of(version.expect("a known version") as u8, &case.bytes));
    }
}

#[test]
fn stories_made_by_chance_keep_what_a_session_promises() {
    let (mut chance, mut passed) = (Chance::new(1), 0);
    for _ in 0..STORIES {
        let mut story = opening_of(&mut chance);
        for _ in 0..chance.below(60) {
            let step = if chance.below(16) == 0 { chance.byte() } else { *chance.pick(&LIVELY) };
            story.extend([chance.byte() << 4 | step & 0x0f, chance.byte()]);
        }
        passed += session::check(&story);
    }
    assert!(passed > 5 * STORIES, "only {passed} packets came through");
}

#[test]
fn named_datagrams_keep_what_decoding_promises() {
    for case in ["valid", "refused", "malformed"].into_iter().flat_map(coap_corpus::cases) {
        println!("{}", case.name);
        coap::check_datagram(&case.bytes);
        let length = u8::try_from(case.bytes.len()).unwrap_or(u8::MAX);
        for options in 0..4 {
            coap::check_session(
                &[&[options, 0x09, length], &case.bytes[..], &[0x19, length], &case.bytes].concat(),
            );
        }
    }
}

#[test]
fn changed_datagrams_keep_what_decoding_promises() {
    let cases: Vec<_> = ["valid", "refused"].into_iter().flat_map(coap_corpus::cases).collect();
    let mut chance = Chance::new(1);
    for _ in 0..20_000 {
        let (case, other) = (chance.pick(&cases), chance.pick(&cases));
        coap::check_datagram(&mutate(&case.bytes, &other.bytes, &mut chance));
    }
}

#[test]
fn stories_of_datagrams_keep_what_a_session_promises() {
    let (mut chance, mut passed) = (Chance::new(1), 0);
    for _ in 0..STORIES {
        let mut story = vec![chance.byte()];
        for _ in 0..chance.below(150) {
            let step = if chance.below(16) == 0 { chance.byte() } else { *chance.pick(&LIVELY_COAP) };
            story.push(chance.byte() << 4 | step & 0x0f);
            story.extend((0..coap::arguments(step)).map(|_| chance.byte()));
        }
        passed += coap::check_session(&story);
    }
    assert!(passed > 4 * STORIES, "only {passed} messages came through");
}

#[test]
fn stories_of_websockets_keep_what_a_session_promises() {
    let (mut chance, mut passed) = (Chance::new(1), 0);
    for _ in 0..STORIES {
        let mut story = vec![chance.byte()];
        for _ in 0..chance.below(60) {
            let step = if chance.below(16) == 0 { chance.byte() } else { *chance.pick(&LIVELY_WEBSOCKET) };
            story.push(chance.byte() & 0xf0 | step & 0x0f);
            match step & 0x0f {
                // most of what messages carry may pass, and is short
                0..=4 => {
                    let size = if chance.below(64) == 0 { 0xc0 } else { 0 };
                    story.extend([size | 5 | chance.byte() & 0x3f, chance.byte()]);
                }
                5 | 6 => story.extend([1, chance.byte()]),
                7 | 15 => story.extend([chance.byte(), chance.byte()]),
                10 => story.push(chance.byte() >> 2),
                _ => {}
            }
        }
        passed += websocket::check(&story);
    }
    assert!(passed > 2 * STORIES, "only {passed} messages came through");
}

#[test]
fn filters_made_by_chance_keep_what_matching_promises() {
    let mut chance = Chance::new(1);
    for _ in 0..20_000 {
        let length = 1 + chance.below(40);
        let lines: Vec<_> = (0..length).map(|_| *chance.pick(b"ab$+#//\n\n")).collect();
        topics::check(&lines);
    }
}

#[test]
fn what_was_found_before_stays_mended() {
    let sessions = replay("mqtt_session", |story| {
        session::check(story);
    });
    let others = replay("mqtt_decode", decode::check)
        + replay("topic_filter", topics::check)
        + replay("coap_decode", coap::check_datagram)
        + replay("coap_session", |story| _ = coap::check_session(story))
        + replay("websocket_session", |story| _ = websocket::check(story));
    assert!(sessions + others > 0, "no input was found");
}

/// Checks what one fuzz target starts from, and what chance makes of that.
fn check_changed(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let read = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.expect("an entry").path());
    let seeds: Vec<_> = folder.read_dir().expect("seeds").map(|entry| read(entry).expect("a seed")).collect();
    assert!(!seeds.is_empty());
    let mut chance = Chance::new(1);
    for seed in &seeds {
        check(seed);
    }
    for _ in 0..5_000 {
        let (seed, other) = (chance.pick(&seeds), chance.pick(&seeds));
        check(&mutate(seed, other, &mut chance));
    }
}

/// Checks the inputs that one fuzz target once failed with; says how many there are.
fn replay(target: &str, check: impl Fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/regressions").join(target);
    let files = corpus::files(&folder);
    for file in &files {
        check(&std::fs::read(file).expect("a readable input"));
    }
    files.len()
}

/// A session that is open from the start; or one that opens, perhaps, with a will and limits of its own.
fn opening_of(chance: &mut Chance) -> Vec<u8> {
    let options = chance.byte();
    if chance.below(2) == 0 {
        return vec![options | session::IS_OPENED];
    }
    let mut story = vec![options & !session::IS_OPENED, chance.byte() << 4 | 8, chance.byte(), chance.byte()];
    for step in [10, 5, 5, 11, 9] {
        story.extend([step, chance.byte()]);
    }
    story
}

/// The story in which a session is opened, and then the client and the upstream send these bytes.
fn story_of(version: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes();
    let [from_client, from_upstream] = [6, 7].map(|raw| [&[raw], &length[..], bytes].concat());
    [vec![version | session::IS_OPENED], from_client, from_upstream].concat()
}

const STORIES: usize = 10_000;

/// Requests, responses, acknowledgements, decisions, time and copies.
const LIVELY_COAP: [u8; 12] = [0, 0, 0, 0, 5, 5, 5, 8, 10, 11, 12, 14];

/// Messages in one part and in several, pings, decisions, time, and what is taken.
const LIVELY_WEBSOCKET: [u8; 16] = [0, 0, 0, 0, 0, 1, 2, 3, 3, 4, 5, 6, 9, 9, 10, 15];

/// Messages, subscriptions, answers, decisions and time: what keeps a session going.
const LIVELY: [u8; 16] = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 5, 5, 12];
