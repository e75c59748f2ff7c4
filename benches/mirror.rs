//! What the copy of a message costs, in each dialect.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has failed")]

use std::hint::black_box;
use std::mem;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mgate::mirror::dialect::{Dialect, Kind, Writer, WriterOptions};
use mgate_policies::{Action, Client, Now, Principal, Protocol};
use mgate_proxy::gate::{Message, Notes};

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = copy
}
criterion_main!(benches);

/// A reading of a sensor, as small as most are.
fn copy(criterion: &mut Criterion) {
    let client = client();
    let mut group = criterion.benchmark_group("copy of a message");
    group.throughput(Throughput::Elements(1));
    for (name, kind) in Kind::NAMES {
        let options = WriterOptions {
            kind: *kind,
            subject: None,
            events_subject: None,
            trace_subject: None,
            content_type: Some("application/senml+json".into()),
            content_type_from_topic: false,
        };
        let writer = Writer::new(options);
        let topics = [CLASSIC, OF_DOMAIN, "acme:sensor17/attrs"];
        let message = topics.map(|topic| message(&client, topic));
        let message = message
            .iter()
            .find(|message| write(&writer, message, &mut Vec::new()))
            .expect("one topic has a place");
        let mut room = Vec::new();
        group.bench_function(*name, |bencher| {
            bencher.iter(|| write(&writer, black_box(message), &mut room));
        });
    }
}

/// Uses the memory of one copy for the next.
fn write(writer: &Writer, message: &Message<'_>, room: &mut Vec<u8>) -> bool {
    let Ok(record) = writer.message(message, mem::take(room)) else { return false };
    *room = black_box(record).into_bytes();
    room.clear();
    true
}

fn message<'a>(client: &'a Client, topic: &'a str) -> Message<'a> {
    let (action, now, notes) = (Action::Publish, Now::read(), Notes::default());
    Message {
        client,
        action,
        now,
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
        principal: Principal { id: "sensor17".into(), tenant: "acme".into(), ..Principal::default() },
        client_id: "sensor17-4711".into(),
        username: None,
        peer: ([10, 0, 0, 7], 1234).into(),
        route: "devices".into(),
        protocol: Protocol::Mqtt,
        is_encrypted: true,
    }
}

const CLASSIC: &str = "channels/0e4c7c1a-93d2-4b7a-8c55-b2f0a1d9e8f7/messages/room/4/temperature";
const OF_DOMAIN: &str =
    "m/2d8a1f60-7a4e-4b0c-9d53-0f1f5a3b6c7d/c/0e4c7c1a-93d2-4b7a-8c55-b2f0a1d9e8f7/room/4/temperature";
const PAYLOAD: &[u8] = br#"{"n":"temperature","u":"Cel","v":21.5,"t":1764000000}"#;
