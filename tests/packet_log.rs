//! What people see who debug: every packet, decoded, with what became of it and why; and what nobody may see.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::Value;
use support::packets::{BOTH, Version, ack, connect, publish, publish_with, suback, subscribe, text};
use support::peer::{Peer, Upstream};
use support::{Files, Mgate, PASSWORD, PASSWORD_HASH, config};

#[test]
fn every_packet_is_shown_with_its_fate() {
    let (mgate, upstream) = start("info,mgate::packet=debug");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V311);
    client.send(&subscribe(Version::V311, 5, &[("open/#", 1), ("#", 0)]));
    behind.expect(&subscribe(Version::V311, 5, &[("open/#", 1)]));
    behind.send(&suback(Version::V311, 5, &[1]));
    client.expect(&suback(Version::V311, 5, &[1, 0x80]));
    client.send(&publish_with(Version::V311, (1, 6), "other/a", b"", PAYLOAD));
    client.expect(&ack(0x40, 6));
    client.send(&publish(Version::V311, "open/a", PAYLOAD));
    behind.expect(&publish(Version::V311, "open/a", PAYLOAD));
    behind.send(&publish_with(Version::V311, (1, 7), "other/a", b"", PAYLOAD));
    behind.expect(&ack(0x40, 7));
    drop(client);
    mgate.log.wait_for("session closed");
    let bytes = PAYLOAD.len();
    let expected = [
        "client CONNECT version=3.1.1 client_id=\"dev-1\"".to_owned(),
        "upstream CONNACK code=0x00".to_owned(),
        "client SUBSCRIBE packet_id=5".to_owned(),
        "upstream SUBACK packet_id=5".to_owned(),
        format!("client PUBLISH topic=\"other/a\" qos=1 packet_id=6 payload={bytes}B: denied not authorized"),
        format!("client PUBLISH topic=\"open/a\" qos=0 payload={bytes}B: passed statement \"open\""),
        format!(
            "upstream PUBLISH topic=\"other/a\" qos=1 packet_id=7 payload={bytes}B: denied not authorized"
        ),
    ];
    let shown = packets(&mgate);
    assert_eq!(shown.len(), expected.len(), "{shown:#?}");
    for (shown, expected) in shown.iter().zip(&expected) {
        assert!(shown.starts_with(expected), "{shown:#?} is not {expected}");
    }
}

#[test]
fn denials_are_told_without_debugging() {
    let (mgate, upstream) = start("info");
    let (mut client, _behind) = session(&mgate, &upstream, Version::V311);
    client.send(&publish_with(Version::V311, (1, 6), "other/a", b"", PAYLOAD));
    client.expect(&ack(0x40, 6));
    let line: Value = serde_json::from_str(&mgate.log.wait_for("denied")).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!((&line["client"], &line["principal"]), (&"dev-1".into(), &"dev-1".into()));
    assert_eq!((&line["action"], &line["resource"]), (&"publish".into(), &"other/a".into()));
    assert!(packets(&mgate).is_empty());
}

#[test]
fn secrets_and_payloads_are_in_no_line() {
    let (mgate, upstream) = start("trace");
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        for topic in ["open/a", "other/a"] {
            let message = publish_with(version, (1, 6), topic, CORRELATION, PAYLOAD);
            client.send(&message);
            behind.send(&message);
        }
        let rejected = connect(version, "dev-2").user("dev-1", WRONG).will("open/w", PAYLOAD);
        let mut stranger = mgate.dial();
        stranger.send(&rejected.bytes());
        stranger.until_closed();
        let mut broken = mgate.dial();
        broken.send(&[0x10, 0x30, 0, 4]);
        broken
            .send(&[b"MQTT\x04\xc2\0\x3c".as_slice(), &text("dev-1"), &text("dev-1"), &text(WRONG)].concat());
        drop((client, broken));
        behind.until_closed();
    }
    mgate.terminate();
    mgate.log.wait_for("stopped");
    let log = mgate.log.text();
    assert!(log.contains("PUBLISH") && log.contains("bad credentials"), "{log}");
    for secret in [PASSWORD, WRONG, PAYLOAD, "correlation-7f3a"] {
        for shown in [secret.to_owned(), decimals(secret), hex(secret)] {
            assert!(!log.contains(&shown), "{shown} is in\n{log}");
        }
    }
}

/// What is said of packets: who sent what, and what became of it.
fn packets(mgate: &Mgate) -> Vec<String> {
    let lines = mgate.log.lines().into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let shown = lines.filter(|line| line["target"] == "mgate::packet").map(|line| {
        let why = [word(&line, "reason"), word(&line, "by")].concat();
        format!("{} {}: {} {why}", word(&line, "from"), word(&line, "packet"), word(&line, "message"))
    });
    shown.collect()
}

fn start(level: &str) -> (Mgate, Upstream) {
    let upstream = Upstream::start();
    let users = format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n");
    let files = Files::new(&[("acl.toml", RULES), ("users.toml", &users)]);
    let authn = "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n";
    let text = config(upstream.port(), "authn = ['users']", authn);
    (Mgate::start_with(&files, &text, &["--log-level", level]), upstream)
}

fn session(mgate: &Mgate, upstream: &Upstream, version: Version) -> (Peer, Peer) {
    let connect = connect(version, "dev-1").user("dev-1", PASSWORD).will("open/will", PAYLOAD);
    upstream.session(mgate.address(), &connect, version)
}

/// The bytes as Rust shows them.
fn decimals(text: &str) -> String {
    let bytes = format!("{:?}", text.as_bytes());
    bytes.trim_matches(['[', ']']).to_owned()
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

const WRONG: &str = "guess-4711-guess";
const PAYLOAD: &str = "payload-0815-payload";

/// The property Correlation Data.
const CORRELATION: &[u8] = b"\x09\0\x10correlation-7f3a";

const RULES: &str = "\
version = 1
[[statements]]
sid = 'open'
effect = 'allow'
principals = ['*']
actions = ['connect', 'publish', 'subscribe']
resources = ['topic:open/#', 'client_id:*']
";
