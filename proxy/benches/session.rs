//! What a message costs in its session: read, judged and handed on, without any input or output.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has failed")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mgate_policies::static_rules::{Effect, ResourcePattern, Statement, StaticRules, Who};
use mgate_policies::{Action, Chain, Now, Transforms};
use mgate_proxy::gate::{Authenticators, Gate, Limits, Observer, PacketSeen, SessionEvent, Side};
use mgate_proxy::mqtt::session::{Context, Input, Outbox, Peer, Session};
use mgate_proxy::mqtt::{Endpoint, Options};

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = publish
}
criterion_main!(benches);

/// A session remembers the last four things that it was allowed: one topic is remembered, five are asked for.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("PUBLISH of 64 bytes, QoS 0");
    for (name, topics) in [("decision remembered", 1), ("static policy of 1,000 statements asked", 5)] {
        let frames: Vec<Vec<u8>> = (0..topics).map(message).collect();
        let mut open = Opened::new();
        let mut next = frames.iter().cycle();
        group.bench_function(name, |bencher| {
            bencher.iter(|| open.pass(black_box(next.next().expect("frames in a circle"))));
        });
    }
}

/// A session after its CONNACK.
struct Opened {
    endpoint: Endpoint,
    session: Session,
    out: Outbox,
    now: Now,
}

impl Opened {
    fn new() -> Self {
        let endpoint = Endpoint::new(gate(), Options::default());
        let now = Now::read();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let session = Session::new(
            &endpoint,
            Peer { address, certificate: None, upgrade: None, is_encrypted: false },
            now,
        );
        let mut open = Self { endpoint, session, out: Outbox::default(), now };
        open.input(Input::Bytes(Side::Client, CONNECT));
        open.input(Input::Upstream(Ok(())));
        open.input(Input::Bytes(Side::Upstream, CONNACK));
        while open.session.poll_output().is_some() {}
        open
    }

    fn pass(&mut self, frame: &[u8]) {
        self.out.to_upstream.clear();
        self.input(Input::Bytes(Side::Client, frame));
        assert_eq!(self.out.to_upstream.len(), frame.len(), "the message passes");
    }

    fn input(&mut self, input: Input<'_>) {
        let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        self.session.handle_input(input, cx);
    }
}

/// Hears nothing, as with logs at their usual level.
struct Quiet;

impl Observer for Quiet {
    fn wants_packets(&self) -> bool {
        false
    }

    fn packet(&self, _: &PacketSeen<'_>) {}

    fn session(&self, _: &SessionEvent<'_>) {}
}

fn gate() -> Gate {
    let statements = (0..1_000).map(|number| statement(&format!("topic:channels/{number}/messages/#")));
    let connect = statement("client_id:dev");
    let rules = StaticRules::compile("acl", statements.chain([connect]).collect()).expect("statements");
    Gate {
        route: "bench".into(),
        authenticators: Authenticators::default(),
        transforms: Transforms::default(),
        policies: Chain::new(vec![Arc::new(rules)]),
        mirror: None,
        observer: Arc::new(Quiet),
        limits: Limits::default(),
    }
}

fn statement(resource: &str) -> Statement {
    let action = if resource.starts_with("topic") { Action::Publish } else { Action::Connect };
    Statement {
        sid: String::new(),
        effect: Effect::Allow,
        principals: vec![Who::Anyone],
        actions: vec![action],
        resources: vec![ResourcePattern::parse(resource).expect("a pattern")],
        conditions: Vec::new(),
    }
}

fn message(number: usize) -> Vec<u8> {
    let topic = format!("channels/{}/messages/room", 100 + number);
    let remaining = 2 + topic.len() + 64;
    let mut frame = vec![0x30, u8::try_from(remaining).expect("a short message")];
    frame.extend([0, u8::try_from(topic.len()).expect("a short topic")]);
    frame.extend(topic.as_bytes());
    frame.extend([b'x'; 64]);
    frame
}

/// MQTT 3.1.1, clean session, keep-alive of 60 s, client identifier `dev`.
const CONNECT: &[u8] = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x03dev";

const CONNACK: &[u8] = b"\x20\x02\x00\x00";
