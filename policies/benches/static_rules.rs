//! What one decision by a static policy of 1,000 statements costs.

#![expect(clippy::expect_used, reason = "a benchmark that cannot go on has failed")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mgate_policies::static_rules::{Effect, ResourcePattern, Statement, StaticRules, Who};
use mgate_policies::{
    Action, Answer, Client, Decision, Now, Policy, Principal, Protocol, Query, Resource, TopicFilter,
    TopicName,
};

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3));
    targets = decide
}
criterion_main!(benches);

/// One statement a client, one for everyone in each of many channels, and denials for all.
fn decide(criterion: &mut Criterion) {
    let rules = StaticRules::compile("acl", statements()).expect("statements without mistakes");
    let (client, now) = (client(), Now::read());
    let mut group = criterion.benchmark_group("static policy of 1,000 statements");
    for (name, action, resource, expected) in [
        ("publish to a topic of one's own", Action::Publish, topic("devices/dev-250/up/temperature"), ALLOW),
        ("publish to a topic for everyone", Action::Publish, topic("channels/123/messages/room/4"), ALLOW),
        ("publish that is denied", Action::Publish, topic("channels/123/admin/now"), DENY),
        ("publish that no statement names", Action::Publish, topic("elsewhere/a/b/c"), ABSTAIN),
        ("subscribe", Action::Subscribe, filter("channels/321/messages/#"), ALLOW),
        ("delivery", Action::Deliver, topic("channels/321/messages/a"), ALLOW),
        ("connect", Action::Connect, Resource::Session, ALLOW),
    ] {
        let query = Query { client: &client, action, resource, payload: &[], qos: 0, retain: false };
        assert_eq!(said(&rules.evaluate(&query, now)), expected, "{name}");
        group.bench_function(name, |bencher| bencher.iter(|| rules.evaluate(black_box(&query), now)));
    }
}

fn statements() -> Vec<Statement> {
    let everyone = statement(Effect::Allow, "*", &[Action::Connect], "client_id:${principal}");
    let own = (0..500).map(|number| {
        let (who, pattern) = (format!("client:dev-{number}"), format!("topic:devices/dev-{number}/up/#"));
        statement(Effect::Allow, &who, &[Action::Publish], &pattern)
    });
    let channels = (0..499).map(|number| {
        let (effect, pattern) = match number % 10 {
            3 => (Effect::Deny, format!("topic:channels/{number}/admin/#")),
            _ => (Effect::Allow, format!("topic:channels/{number}/messages/#")),
        };
        statement(effect, "*", &[Action::Publish, Action::Subscribe], &pattern)
    });
    let open = statement(Effect::Allow, "group:meters", &[Action::Publish], "topic:channels/123/messages/#");
    [everyone, open].into_iter().chain(own).chain(channels.take(498)).collect()
}

fn statement(effect: Effect, who: &str, actions: &[Action], pattern: &str) -> Statement {
    Statement {
        sid: String::new(),
        effect,
        principals: vec![Who::parse(who).expect("a principal")],
        actions: actions.to_vec(),
        resources: vec![ResourcePattern::parse(pattern).expect("a pattern")],
        conditions: Vec::new(),
    }
}

fn client() -> Client {
    Client {
        principal: Principal { id: "dev-250".into(), groups: vec!["meters".into()], ..Principal::default() },
        client_id: "dev-250".into(),
        username: None,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
        route: "devices".into(),
        protocol: Protocol::Mqtt,
        is_encrypted: true,
    }
}

fn topic(text: &str) -> Resource<'_> {
    Resource::Topic(TopicName::parse(text).expect("a topic"))
}

fn filter(text: &str) -> Resource<'_> {
    Resource::Filter(TopicFilter::parse(text).expect("a filter"))
}

fn said(answer: &Answer) -> &'static str {
    match answer {
        Answer::Ready(Decision::Allow(_)) => ALLOW,
        Answer::Ready(Decision::Deny(_)) => DENY,
        Answer::Ready(Decision::Abstain) => ABSTAIN,
        Answer::Pending(_) => "pending",
    }
}

const ALLOW: &str = "allow";
const DENY: &str = "deny";
const ABSTAIN: &str = "abstain";
