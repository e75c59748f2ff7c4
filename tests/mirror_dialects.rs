//! What mirrors write, read by others.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mgate::mirror::dialect::{Dialect, Kind, SubjectTemplate, Writer, WriterOptions};
use mgate_policies::{Action, Client, Now, Principal, Protocol};
use mgate_proxy::gate::{Message, Notes, SessionEvent};
use serde_json::{Value, json};
use support::broker::python;

#[test]
fn envelopes_are_read_by_another_decoder() {
    let classic = "channels/c-1/messages/a/b";
    let domain = "m/d-1/c/c-1/a/b";
    for (release, name, topic, subject, more) in [
        ("0.8.0", "mainflux-legacy", classic, "channel.c-1.a.b", json!({ "contentType": "text/plain" })),
        ("0.11.0", "mainflux-0.13", classic, "channels.c-1.a.b", json!({ "created": NANOS })),
        ("0.11.0", "magistrala-0.14", classic, "channels.c-1.a.b", json!({ "created": NANOS })),
        ("0.11.0", "magistrala-0.15", classic, "channels.c-1.a.b", json!({ "created": NANOS })),
        ("0.11.0", "supermq-0.16", classic, "channels.c-1.a.b", json!({ "created": NANOS })),
        ("0.17.0", "supermq-0.17", domain, "m.d-1.c.c-1.a.b", json!({ "created": NANOS, "domain": "d-1" })),
        (
            "0.20.0",
            "magistrala-0.20",
            domain,
            "m.d-1.c.c-1.a.b",
            json!({ "created": NANOS, "domain": "d-1", "client_id": "dev-1", "subtopic": "a/b" }),
        ),
        (
            "0.50.0",
            "magistrala-0.50",
            domain,
            "m.d-1.c.c-1.a.b",
            json!({
                "created": NANOS,
                "domain": "d-1",
                "client_id": "dev-1",
                "subtopic": "a/b",
                "metadata": { "content_type": "text/plain", "traceparent": TRACE },
            }),
        ),
    ] {
        let record = writer(name).message(&message(&client(), topic), Vec::new()).unwrap();
        assert_eq!(record.subject(), subject, "{name}");
        let mut expected = json!({
            "channel": "c-1",
            "subtopic": "a.b",
            "publisher": "thing-1",
            "protocol": "mqtt",
            "payload": STANDARD.encode(PAYLOAD),
        });
        expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(decoded(release, record.payload()), expected, "{name}");
    }
}

#[test]
fn events_are_read_by_another_decoder() {
    let client = client();
    let event = SessionEvent::Subscribed { client: &client, filter: "m/d/c/x/+/b/#", qos: 1 };
    for (release, name, subject, words) in [
        (
            "0.11.0",
            "supermq-0.16",
            "events.supermq.mqtt",
            json!({ "operation": "subscribe", "event_type": "subscribe", "thing_id": "thing-1" }),
        ),
        (
            "0.17.0",
            "supermq-0.17",
            "events.supermq.mqtt.client_subscribe",
            json!({
                "operation": "client_subscribe",
                "client_id": "thing-1",
                "subscriber_id": "dev-1",
                "domainID": "d",
                "channel_id": "x",
                "subtopic": "*.b.>",
            }),
        ),
    ] {
        let record = writer(name).event(&event, now()).unwrap();
        assert_eq!(record.subject(), subject);
        let envelope = decoded(release, record.payload());
        assert_eq!(envelope.as_object().unwrap().len(), 1, "{envelope}");
        let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
        let told: Value = serde_json::from_slice(&payload).unwrap();
        for (key, value) in words.as_object().unwrap() {
            assert_eq!(&told[key], value, "{key}");
        }
        assert_eq!(told["occurred_at"].to_string(), NANOS);
        assert_eq!(told["details"]["filter"], "m/d/c/x/+/b/#");
        assert!(!told.to_string().contains("hunter2"));
    }
}

/// What the decoder of a release reads.
fn decoded(release: &str, bytes: &[u8]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/envelope.py");
    let mut decoder = python()
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = format!("{release} ");
    bytes.iter().for_each(|byte| write!(line, "{byte:02x}").unwrap());
    decoder.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    let output = decoder.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn writer(name: &str) -> Writer {
    let kind = Kind::NAMES.iter().find(|(known, _)| *known == name).unwrap().1;
    Writer::new(WriterOptions {
        kind,
        subject: None,
        events_subject: SubjectTemplate::parse_without_topic(kind.events_subject()).ok(),
        trace_subject: None,
        content_type: Some("text/plain".into()),
        content_type_from_topic: false,
    })
}

fn message<'a>(client: &'a Client, topic: &'a str) -> Message<'a> {
    let notes = Notes { traceparent: Some(TRACE), ..Notes::default() };
    Message {
        client,
        action: Action::Publish,
        now: now(),
        topic,
        payload: PAYLOAD,
        qos: 1,
        retain: false,
        is_acknowledged: true,
        notes,
    }
}

fn client() -> Client {
    Client {
        principal: Principal { id: "thing-1".into(), ..Principal::default() },
        client_id: "dev-1".into(),
        username: Some("hunter2".into()),
        peer: ([10, 0, 0, 7], 1234).into(),
        route: "devices".into(),
        protocol: Protocol::Mqtt,
        is_encrypted: true,
    }
}

fn now() -> Now {
    Now { unix: Duration::new(1_764_000_000, 123_456_789), ..Now::read() }
}

/// Not UTF-8.
const PAYLOAD: &[u8] = b"\xff\x00payload";
const NANOS: &str = "1764000000123456789";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
