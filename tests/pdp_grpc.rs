//! Decisions by services that speak gRPC: the peer is Python's library, and shares nothing with the gateway.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::broker::{free_port, python};
use support::packets::{BOTH, PUBACK, Version, connect, publish_with, suback, subscribe};
use support::peer::{Peer, Upstream};
use support::process::{Lines, Process};
use support::{Files, Mgate, PASSWORD, PASSWORD_HASH};

#[test]
fn each_dialect_is_understood_by_another_library() {
    let service = GrpcService::start(0, &[]);
    for (dialect, path, topic, fields) in DIALECTS {
        let upstream = Upstream::start();
        let files = files();
        let mgate = start(&files, &upstream, &service, dialect, "bearer_token_file = 'token'");
        let before = service.heard().len();
        for version in BOTH {
            let (mut client, mut behind) = session(&mgate, &upstream, version);
            let [good, bad] = ["good", "bad"].map(|name| topic.replace("NAME", named(topic, name)));
            client.send(&publish_with(version, (1, 1), &bad, b"", "x"));
            assert_eq!(acknowledged(&client.packet()), denied(version, 0x87), "{dialect}");
            client.send(&publish_with(version, (1, 2), &good, b"", "x"));
            behind.expect(&publish_with(version, (1, 2), &good, b"", "x"));
            client.send(&subscribe(version, 3, &[(&format!("{good}/#"), 1), (&format!("{bad}/#"), 1)]));
            behind.expect(&subscribe(version, 3, &[(&format!("{good}/#"), 1)]));
            behind.send(&suback(version, 3, &[1]));
            let refused = if version == Version::V5 { 0x87 } else { 0x80 };
            client.expect(&suback(version, 3, &[1, refused]));
        }
        let heard = &service.heard_more_than(before)[before..];
        let first = &heard[0];
        assert_eq!(first["path"], *path);
        let expected: Value = serde_json::from_str(&fields.replace("NAME", named(topic, "bad"))).unwrap();
        assert_eq!(first["fields"], expected, "{dialect}");
        assert_eq!(first["metadata"]["authorization"], "Bearer t0ken");
        assert!(first["remaining"].as_f64().unwrap() < 5.1, "{first}");
        assert!(!heard.iter().any(|call| call.to_string().contains(PASSWORD)));
    }
}

#[test]
fn every_status_but_ok_is_a_denial() {
    let (service, upstream) = (GrpcService::start(0, &[]), Upstream::start());
    let files = files();
    let mgate = start(&files, &upstream, &service, "mainflux-0.13", "");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    for (id, (status, code)) in (1..).step_by(2).zip(STATUSES) {
        let before = service.heard().len();
        client.send(&publish_with(Version::V5, (1, id), &format!("channels/{status}/messages"), b"", "x"));
        assert_eq!(acknowledged(&client.packet()), *code, "{status}");
        // the service is there: what is asked next is answered
        let good = publish_with(Version::V5, (1, id + 1), &format!("channels/{id}/messages"), b"", "x");
        client.send(&good);
        behind.expect(&good);
        assert_eq!(service.heard_more_than(before + 1).len(), before + 2, "{status}");
    }
}

#[test]
fn service_and_gateway_know_each_other_by_certificate() {
    let (files, upstream) = (files().with_certificates(), Upstream::start());
    let other = Files::new(&[]).with_certificates();
    let names = ["localhost.pem", "localhost.key", "ca.pem"].map(|name| files.path(name));
    let names: Vec<_> = names.iter().map(|path| path.to_str().unwrap()).collect();
    let service = GrpcService::start(0, &names);
    let url = format!("grpcs://localhost:{}", service.port);
    let ca = other.path("ca.pem");
    for (tls, is_good) in [
        ("{ ca = 'ca.pem', cert = 'dev-1.pem', key = 'dev-1.key' }".to_owned(), true),
        ("{ ca = 'ca.pem' }".to_owned(), false),
        (format!("{{ ca = '{}', cert = 'dev-1.pem', key = 'dev-1.key' }}", ca.display()), false),
    ] {
        let keys = format!("tls = {tls}\ntimeout = '5s'");
        let text = config(&upstream, "broker.auth.v1", &url, &keys);
        let mgate = Mgate::start(&files, &text);
        let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
        let good = publish_with(Version::V5, (1, 1), "good", b"", "x");
        client.send(&good);
        match is_good {
            true => behind.expect(&good),
            false => assert_eq!(acknowledged(&client.packet()), 0x83, "{tls}"),
        }
    }
}

#[test]
fn slow_decision_delays_only_its_client() {
    let (service, upstream) = (GrpcService::start(0, &[]), Upstream::start());
    let files = files();
    // far longer than the test waits
    let mgate = start(&files, &upstream, &service, "broker.auth.v1", "timeout = '60s'");
    for version in BOTH {
        let (mut waiting, mut behind_waiting) = session(&mgate, &upstream, version);
        let (mut other, mut behind_other) = session(&mgate, &upstream, version);
        let slow = publish_with(version, (1, 1), &format!("slow/{version:?}"), b"", "x");
        waiting.send(&slow);
        service.lines.wait_for(&format!("slow/{version:?}"));
        for number in 0..3 {
            let good = publish_with(version, (0, 0), &format!("{version:?}/{number}"), b"", "x");
            other.send(&good);
            behind_other.expect(&good);
        }
        let go = publish_with(version, (0, 0), &format!("{version:?}/go"), b"", "x");
        other.send(&go);
        behind_other.expect(&go);
        behind_waiting.expect(&slow);
    }
}

#[test]
fn service_that_comes_back_is_asked_again() {
    let (port, upstream) = (free_port(), Upstream::start());
    let service = GrpcService::start(port, &[]);
    let files = files();
    let mgate = start(&files, &upstream, &service, "broker.auth.v1", "cache = { allow_ttl = '0s' }");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    let good = publish_with(Version::V5, (1, 1), "good", b"", "x");
    client.send(&good);
    behind.expect(&good);
    drop(service);
    for id in 1..=6 {
        client.send(&publish_with(Version::V5, (1, id), "good", b"", "x"));
        assert_eq!(acknowledged(&client.packet()), 0x83);
    }
    mgate.log.wait_for("it is left alone");
    let _service = GrpcService::start(port, &[]);
    support::wait_until("the service is asked again", || {
        client.send(&publish_with(Version::V5, (1, 7), "bad", b"", "x"));
        acknowledged(&client.packet()) == 0x87
    });
    mgate.log.wait_for("answers again");
}

/// The Python service; gone when dropped.
struct GrpcService {
    _process: Process,
    lines: Lines,
    port: u16,
}

impl GrpcService {
    fn start(port: u16, certificates: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/grpc_service.py");
        let mut command = python();
        command.arg(script).arg(format!("127.0.0.1:{port}")).args(certificates);
        let (process, lines) = Process::start_with_stdout(&mut command);
        let ready: Value = serde_json::from_str(&lines.wait_for("\"port\"")).unwrap();
        let port = ready["port"].as_u64().unwrap().try_into().unwrap();
        Self { _process: process, lines, port }
    }

    /// What it heard, as soon as that is more than it was: it writes before it answers, and is read by a thread.
    fn heard_more_than(&self, before: usize) -> Vec<Value> {
        support::wait_until("what the service heard is read", || self.heard().len() > before);
        self.heard()
    }

    fn heard(&self) -> Vec<Value> {
        let calls = self.lines.lines().into_iter().filter(|line| line.contains("\"path\""));
        calls.map(|line| serde_json::from_str(&line).unwrap()).collect()
    }
}

fn start(files: &Files, upstream: &Upstream, service: &GrpcService, dialect: &str, keys: &str) -> Mgate {
    let keys = if keys.contains("timeout") { keys.to_owned() } else { format!("timeout = '5s'\n{keys}") };
    Mgate::start(files, &config(upstream, dialect, &format!("grpc://127.0.0.1:{}", service.port), &keys))
}

fn config(upstream: &Upstream, dialect: &str, url: &str, keys: &str) -> String {
    format!(
        "[[route]]\nname = 'devices'\nlisten = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://127.0.0.1:{}'\n\
         authn = ['users']\npolicies = ['may_connect', 'auth']\n\
         [authn.users]\ntype = 'password'\nfile = 'users.toml'\n\
         [policy.may_connect]\ntype = 'static'\nfile = 'acl.toml'\n\
         [policy.auth]\ntype = 'pdp'\ndialect = '{dialect}'\nurl = '{url}'\n{keys}\n",
        upstream.port()
    )
}

fn files() -> Files {
    let users = format!("[users.dev-1]\npassword = \"{PASSWORD_HASH}\"\n");
    Files::new(&[("users.toml", &users), ("acl.toml", MAY_CONNECT), ("token", "t0ken\n")])
}

fn session(mgate: &Mgate, upstream: &Upstream, version: Version) -> (Peer, Peer) {
    let connect = connect(version, "client-1").user("dev-1", PASSWORD);
    upstream.session(mgate.address(), &connect, version)
}

/// What is good or bad in the topics of a dialect: where identities stand, their first digits.
fn named<'a>(topic: &str, name: &'a str) -> &'a str {
    match (topic.contains("NAME-"), name) {
        (true, "bad") => "00000bad",
        (true, _) => "00000000",
        _ => name,
    }
}

/// The code of a PUBACK; before MQTT 5.0 there is none.
fn acknowledged(puback: &[u8]) -> u8 {
    assert_eq!(puback[0], PUBACK, "{puback:02x?}");
    puback.get(4).copied().unwrap_or_default()
}

fn denied(version: Version, code: u8) -> u8 {
    if version == Version::V5 { code } else { 0 }
}

/// Each with its method, a topic, and the fields of the question whether `dev-1` may publish to it.
const DIALECTS: &[(&str, &str, &str, &str)] = &[
    (
        "broker.auth.v1",
        "/broker.auth.v1.AuthService/Authorize",
        "m/NAME",
        r#"{"1": "dev-1", "2": "m/NAME", "3": 1}"#,
    ),
    (
        "fluxmq.auth.v1",
        "/fluxmq.auth.v1.AuthService/Authorize",
        "m/NAME",
        r#"{"1": "dev-1", "2": "m/NAME", "3": 1}"#,
    ),
    (
        "mainflux-0.13",
        "/mainflux.ThingsService/CanAccessByID",
        "channels/NAME/messages",
        r#"{"1": "dev-1", "2": "NAME"}"#,
    ),
    (
        "magistrala-0.14",
        "/magistrala.AuthzService/Authorize",
        "channels/NAME/messages",
        r#"{"2": "thing", "5": "dev-1", "7": "publish", "8": "NAME", "9": "group"}"#,
    ),
    (
        "magistrala-0.15",
        "/magistrala.ThingsService/Authorize",
        "channels/NAME/messages",
        r#"{"1": "NAME", "3": "dev-1", "4": "publish"}"#,
    ),
    (
        "supermq-0.16",
        "/channels.v1.ChannelsService/Authorize",
        "channels/NAME/messages",
        r#"{"2": "dev-1", "3": "client", "4": "NAME", "5": 1}"#,
    ),
    (
        "supermq-0.17",
        "/channels.v1.ChannelsService/Authorize",
        "m/2d8a1f60-7a4e-4b0c-9d53-0f1f5a3b6c7d/c/NAME-93d2-4b7a-8c55-b2f0a1d9e8f7",
        r#"{"1": "2d8a1f60-7a4e-4b0c-9d53-0f1f5a3b6c7d", "2": "dev-1", "3": "client",
            "4": "NAME-93d2-4b7a-8c55-b2f0a1d9e8f7", "5": 1}"#,
    ),
];

/// Each with the reason code of the denial: these three are the service's no.
const STATUSES: &[(&str, u8)] = &[
    ("CANCELLED", 0x83),
    ("UNKNOWN", 0x83),
    ("INVALID_ARGUMENT", 0x83),
    ("DEADLINE_EXCEEDED", 0x83),
    ("NOT_FOUND", 0x87),
    ("ALREADY_EXISTS", 0x83),
    ("PERMISSION_DENIED", 0x87),
    ("RESOURCE_EXHAUSTED", 0x83),
    ("FAILED_PRECONDITION", 0x83),
    ("ABORTED", 0x83),
    ("OUT_OF_RANGE", 0x83),
    ("UNIMPLEMENTED", 0x83),
    ("INTERNAL", 0x83),
    ("UNAVAILABLE", 0x83),
    ("DATA_LOSS", 0x83),
    ("UNAUTHENTICATED", 0x87),
];

const MAY_CONNECT: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect']
resources = ['client_id:*']
";
