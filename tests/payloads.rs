//! Transforms of payloads, in front of clients and brokers: SenML, compression and signatures.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "harness/senml.rs"]
mod harness;
mod support;

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use flate2::Compression;
use flate2::bufread::{GzEncoder, ZlibEncoder};
use mgate_policies::Now;
use serde_json::{Value, json};

use support::broker::{Broker, mosquitto_sub};
use support::issuer::{SigningKey, base64url, jwks};
use support::packets::{BOTH, PUBACK, Version, ack, connect, packet, publish, suback, subscribe, text};
use support::peer::{Peer, Upstream};
use support::process::Process;
use support::{Files, Mgate, config};

#[test]
fn bad_senml_is_refused_and_never_reaches_the_upstream() {
    let (mgate, upstream) = start("['packs']", "[transform.packs]\ntype = 'senml'\n");
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        for (id, bad, fault) in [
            (1, &br#"[{"n":"a"}]"#[..], "record 1: has neither a value nor a sum"),
            (2, br#"[{"n":"a","v":1,"v":2}]"#, "record 1: a label stands twice"),
            (3, br#"[{"n":"a","v":1,"x_":2}]"#, "record 1: a label that must be understood is not known"),
            (4, b"\x9f\xa2\x00\x61a\x02\x01\xff", "is no list of records"),
            (5, b"21.5", "is no list of records"),
        ] {
            client.send(&message(version, id, "t", bad));
            expect_refusal(&mut client, version, id, 0x99);
            mgate.log.wait_for(&format!("transform packs: {fault}"));
        }
        for (id, good) in [(6, &br#" [{"n":"a","v":1.50}]"#[..]), (7, b"\x81\xa2\x00\x61a\x02\x01")] {
            client.send(&message(version, id, "t", good));
            behind.expect(&message(version, id, "t", good));
            behind.send(&ack(PUBACK, id));
            client.expect(&ack(PUBACK, id));
        }
    }
}

#[test]
fn will_that_is_no_senml_refuses_the_connection() {
    let (mgate, upstream) = start("['packs']", "[transform.packs]\ntype = 'senml'\nmode = 'resolve'\n");
    for (version, code) in [(Version::V311, 0x05), (Version::V5, 0x99)] {
        let mut client = mgate.dial();
        client.send(&connect(version, "dev-1").will("t", "gone").bytes());
        assert_eq!(client.packet()[3], code);
        assert!(upstream.try_accept().is_none());
        let good = connect(version, "dev-1").will("t", r#"[{"n":"a","vb":false}]"#);
        upstream.session(mgate.address(), &good, version);
    }
}

#[test]
fn filters_deliveries_and_other_topics_pass_untouched() {
    let rest =
        "[transform.packs]\ntype = 'senml'\ntopics = ['data/#']\n[transform.inflated]\ntype = 'inflate'\n";
    let (mgate, upstream) = start("['inflated', 'packs']", rest);
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&subscribe(version, 7, &[("data/#", 1)]));
        behind.expect(&subscribe(version, 7, &[("data/#", 1)]));
        behind.send(&suback(version, 7, &[1]));
        client.expect(&suback(version, 7, &[1]));
        behind.send(&publish(version, "data/x", "no SenML"));
        client.expect(&publish(version, "data/x", "no SenML"));
        client.send(&publish(version, "other", "no SenML"));
        behind.expect(&publish(version, "other", "no SenML"));
    }
}

#[test]
fn resolved_pack_arrives() {
    let broker = Broker::mosquitto();
    let files = Files::new(&[("acl.toml", support::ALLOW_ALL)]);
    let packs = "[transform.packs]\ntype = 'senml'\nmode = 'resolve'\n";
    let mgate = Mgate::start(&files, &config(broker.port, "transforms = ['packs']", packs));
    for version in ["mqttv311", "mqttv5"] {
        let mut command = mosquitto_sub(broker.port, version, "got %p");
        let (_subscriber, lines) = Process::start_with_stdout(command.args(["-t", "#", "-q", "1"]));
        lines.wait_for("Subscribed");
        let absolute =
            r#"[{"bn":"dev:","bt":1700000000,"bu":"Cel","n":"a","v":1},{"n":"b","t":-2,"v":21.5}]"#;
        mosquitto_pub(&mgate, version, absolute);
        let earlier = r#"{"n":"dev:b","u":"Cel","v":21.5,"t":1699999998}"#;
        lines.wait_for(&format!(r#"got [{earlier},{{"n":"dev:a","u":"Cel","v":1,"t":1700000000}}]"#));
        let before = Now::read().unix.as_secs_f64();
        mosquitto_pub(&mgate, version, r#"[{"n":"now","vb":true,"t":-60}]"#);
        let line = lines.wait_for(r#""n":"now""#);
        let pack: Value = serde_json::from_str(line.strip_prefix("got ").unwrap()).unwrap();
        let time = pack[0]["t"].as_f64().unwrap() + 60.0;
        assert!((before - 0.001..=Now::read().unix.as_secs_f64()).contains(&time), "{time}");
    }
}

#[test]
fn bad_senml_that_may_pass_is_told_with_client_and_topic() {
    let rest = "[transform.packs]\ntype = 'senml'\non_error = 'pass'\n";
    let (mgate, upstream) = start("['packs']", rest);
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    client.send(&publish(Version::V5, "t/secret", "hunter2"));
    behind.expect(&publish(Version::V5, "t/secret", "hunter2"));
    let line: Value =
        serde_json::from_str(&mgate.log.wait_for("a message that is no SenML has passed")).unwrap();
    let told = ["level", "transform", "client", "topic", "fault"].map(|field| line[field].as_str().unwrap());
    assert_eq!(told, ["WARN", "packs", "dev-1", "t/secret", "is no list of records"]);
    assert_eq!(line["count"], 1);
    assert!(!mgate.log.text().contains("hunter2"));
}

#[test]
fn compressed_payload_is_seen_inflated() {
    let rest = "[transform.inflated]\ntype = 'inflate'\n[mirror.log]\ntype = 'log'\n";
    let (mgate, upstream) = start("['inflated']\nmirror = 'log'", rest);
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        for (id, compressed) in [(1, gzip(b"21.5 degrees")), (2, zlib(b"21.5 degrees"))] {
            client.send(&message(version, id, "t", &compressed));
            behind.expect(&message(version, id, "t", b"21.5 degrees"));
            behind.send(&ack(PUBACK, id));
            client.expect(&ack(PUBACK, id));
        }
        let mut broken = gzip(b"21.5 degrees");
        broken.pop();
        client.send(&message(version, 3, "t", &broken));
        expect_refusal(&mut client, version, 3, 0x99);
    }
    assert!(mgate.log.wait_for("mgate::mirror").contains("21.5 degrees"));
}

#[test]
fn zip_bomb_is_refused_in_little_memory() {
    let (mgate, upstream) =
        start("['inflated']", "[transform.inflated]\ntype = 'inflate'\nmax_ratio = 10000\n");
    let bombs = [gzip(&vec![0; BOMB_BYTES]), zlib(&vec![0; BOMB_BYTES])];
    for version in BOTH {
        let (mut client, _behind) = session(&mgate, &upstream, version);
        client.send(&message(version, 1, "t", b"warmed up"));
        let before = mgate.peak_kib();
        for (id, bomb) in (2..).zip(bombs.iter().cycle().take(10)) {
            client.send(&message(version, id, "t", bomb));
            expect_refusal(&mut client, version, id, 0x97);
        }
        let grown = mgate.peak_kib() - before;
        assert!(grown < 8 * 1024, "{grown} KiB more for bombs of {} KiB", BOMB_BYTES / 1024);
    }
}

#[test]
fn only_signed_payloads_of_the_client_itself_go_on() {
    let (ours, theirs, unknown) = (SigningKey::p256(), SigningKey::p256(), SigningKey::p256());
    let keys = jwks(&[ours.jwk(&json!({"kid": "dev-1"})), theirs.jwk(&json!({"kid": "dev-2"}))]);
    let rest = "[transform.signed]\ntype = 'jws'\nalgorithms = ['ES256']\njwks_file = 'keys.json'\nkey_id = 'client_id'\n\
        [transform.inflated]\ntype = 'inflate'\n[transform.packs]\ntype = 'senml'\nmode = 'resolve'\n";
    let files = Files::new(&[("acl.toml", support::ALLOW_ALL), ("keys.json", &keys)]);
    let upstream = Upstream::start();
    let row = "transforms = ['signed', 'inflated', 'packs']";
    let mgate = Mgate::start(&files, &config(upstream.port(), row, rest));
    let pack = br#"[{"bn":"a:","n":"b","v":1,"t":1700000000}]"#;
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        let header = json!({"alg": "ES256", "kid": "dev-1"});
        for (id, payload, code) in [
            (1, sign(&unknown, &header, pack), 0x87),
            (2, sign(&theirs, &json!({"alg": "ES256", "kid": "dev-2"}), pack), 0x87),
            (3, sign(&ours, &json!({"alg": "ES256"}), pack), 0x87),
            (4, format!("{}.{}.", base64url(br#"{"alg":"none"}"#), base64url(pack)), 0x87),
            (
                5,
                sign(&ours, &json!({"alg": "ES256", "kid": "dev-1", "crit": ["b64"], "b64": false}), pack),
                0x87,
            ),
            (6, String::from_utf8(pack.to_vec()).unwrap(), 0x99),
            (7, sign(&ours, &header, b"no SenML"), 0x99),
        ] {
            client.send(&message(version, id, "t", payload.as_bytes()));
            expect_refusal(&mut client, version, id, code);
        }
        let resolved = br#"[{"n":"a:b","v":1,"t":1700000000}]"#;
        for (id, inner) in [(8, pack.to_vec()), (9, gzip(pack))] {
            client.send(&message(version, id, "t", sign(&ours, &header, &inner).as_bytes()));
            behind.expect(&message(version, id, "t", resolved));
            behind.send(&ack(PUBACK, id));
            client.expect(&ack(PUBACK, id));
        }
    }
}

#[test]
fn signed_payload_may_go_on_as_it_came() {
    let secret = "0123456789abcdef0123456789abcdef";
    let rest = "[transform.signed]\ntype = 'jws'\nalgorithms = ['HS256']\nsecret_file = 'secret'\n\
        require = false\nunwrap = false\n";
    let files = Files::new(&[("acl.toml", support::ALLOW_ALL), ("secret", secret)]);
    let upstream = Upstream::start();
    let mgate = Mgate::start(&files, &config(upstream.port(), "transforms = ['signed']", rest));
    let [good, bad] = [secret.as_bytes(), b"another"]
        .map(|secret| sign(&SigningKey::secret(secret), &json!({"alg": "HS256"}), b"21.5"));
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&message(version, 1, "t", bad.as_bytes()));
        expect_refusal(&mut client, version, 1, 0x87);
        for payload in [good.as_str(), "not signed"] {
            client.send(&publish(version, "t", payload));
            behind.expect(&publish(version, "t", payload));
        }
    }
}

#[test]
fn inputs_of_the_fuzzer_keep_what_packs_promise() {
    let seeds = files_of("seeds");
    assert!(!seeds.is_empty(), "no seed was found");
    for seed in &seeds {
        assert!(harness::check(seed), "a seed is a pack");
        for at in 0..seed.len() {
            for changed in [seed[at] ^ 1, seed[at] ^ 0x80, seed[at].wrapping_add(3)] {
                let mut bytes = seed.clone();
                bytes[at] = changed;
                harness::check(&bytes);
            }
            harness::check(&seed[..at]);
        }
    }
    for regression in files_of("regressions") {
        harness::check(&regression);
    }
}

/// An upstream, and mgate in front of it with these transforms.
fn start(transforms: &str, rest: &str) -> (Mgate, Upstream) {
    let upstream = Upstream::start();
    let files = Files::new(&[("acl.toml", support::ALLOW_ALL)]);
    let config = config(upstream.port(), &format!("transforms = {transforms}"), rest);
    (Mgate::start(&files, &config), upstream)
}

fn session(mgate: &Mgate, upstream: &Upstream, version: Version) -> (Peer, Peer) {
    upstream.session(mgate.address(), &connect(version, "dev-1"), version)
}

/// PUBLISH at QoS 1.
fn message(version: Version, id: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    packet(0x32, &[&text(topic), &id.to_be_bytes()[..], properties, payload].concat())
}

/// Before MQTT 5.0, PUBACK has no code.
fn expect_refusal(client: &mut Peer, version: Version, id: u16, code: u8) {
    let puback = client.packet();
    assert_eq!((puback[0], &puback[2..4]), (PUBACK, &id.to_be_bytes()[..]), "{puback:02x?}");
    assert_eq!(puback.get(4), (version == Version::V5).then_some(&code), "message {id}: {puback:02x?}");
}

fn mosquitto_pub(mgate: &Mgate, version: &str, payload: &str) {
    let mut command = Command::new("mosquitto_pub");
    let port = mgate.address().port().to_string();
    command.args(["-V", version, "-h", "127.0.0.1", "-p", &port, "-t", "t", "-q", "1", "-m", payload]);
    assert!(Process::start(&mut command).wait().success());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    read(GzEncoder::new(bytes, Compression::best()))
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    read(ZlibEncoder::new(bytes, Compression::best()))
}

fn read(mut encoder: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder.read_to_end(&mut bytes).unwrap();
    bytes
}

fn sign(key: &SigningKey, header: &Value, payload: &[u8]) -> String {
    let message = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(payload));
    let signature = key.sign(header["alg"].as_str().unwrap(), message.as_bytes());
    format!("{message}.{}", base64url(&signature))
}

fn files_of(kind: &str) -> Vec<Vec<u8>> {
    let folder: PathBuf = support::manifest("fuzz").join(kind).join("senml");
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// More than what is inflated at the most, less than a packet once it is compressed.
const BOMB_BYTES: usize = 32 * 1024 * 1024;
