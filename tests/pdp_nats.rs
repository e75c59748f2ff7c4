//! Decisions by a service behind a real NATS server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use serde_json::{Value, json};
use support::broker::free_port;
use support::nats::{Asked, NatsServer, Responder};
use support::packets::{BOTH, PUBACK, Version, connect, publish, publish_with, suback, subscribe};
use support::peer::{Peer, Upstream};
use support::{Files, Mgate, wait_until};

#[test]
fn service_behind_nats_decides() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let service = Responder::start(nats.port(), "", "mgate.authz.v1.evaluation", by_name);
    let mgate = start(&nats, &upstream, "timeout = '2s'");
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&publish_with(version, (1, 1), "bad", b"", "x"));
        assert_eq!(acknowledged(&client.packet()), denied(version, 0x87));
        client.send(&publish_with(version, (1, 2), "good", b"", "x"));
        behind.expect(&publish_with(version, (1, 2), "good", b"", "x"));
    }
    let asked = service.heard().remove(0);
    assert!(asked.headers.contains("Nats-Expected-Deadline-Ms: 2000\r\n"), "{}", asked.headers);
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body["action"], json!({ "name": "connect" }));
}

#[test]
fn filters_of_one_subscribe_are_one_request() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let single = Responder::start(nats.port(), "", "mgate.authz.v1.evaluation", by_name);
    let batch = Responder::start(nats.port(), "", "mgate.authz.v1.evaluations", |asked| {
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        let is_bad = |question: &Value| question["resource"]["id"].as_str().unwrap().contains("bad");
        let questions = body["evaluations"].as_array().unwrap().iter();
        let decisions = questions.map(|question| json!({ "decision": !is_bad(question) }));
        Some(json!({ "evaluations": decisions.collect::<Vec<_>>() }).to_string())
    });
    let mgate = start(&nats, &upstream, "batch = true");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    client.send(&subscribe(Version::V5, 3, &[("good/1", 1), ("bad", 1), ("good/2", 1)]));
    behind.expect(&subscribe(Version::V5, 3, &[("good/1", 1), ("good/2", 1)]));
    behind.send(&suback(Version::V5, 3, &[1, 1]));
    client.expect(&suback(Version::V5, 3, &[1, 0x87, 1]));
    assert_eq!((single.heard().len(), batch.heard().len()), (1, 1));
}

#[test]
fn whatever_is_no_answer_is_a_denial() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let service = Responder::start(nats.port(), "", "a.b", |asked| match topic(asked).as_str() {
        "silence" => None,
        "html" => Some("<html>".into()),
        "empty" => Some(String::new()),
        "nothing" => Some("{}".into()),
        "text" => Some("{\"decision\":\"true\"}".into()),
        "half" => Some("{\"decision\":true".into()),
        "long" => Some(format!("{{\"decision\":true}}{}", " ".repeat(65_536))),
        _ => by_name(asked),
    });
    let mgate = start(&nats, &upstream, "nats = { subject = 'a.b' }");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    let wrongs = ["silence", "html", "empty", "nothing", "text", "half", "long"];
    for (id, topic) in (1..).step_by(2).zip(wrongs) {
        client.send(&publish_with(Version::V5, (1, id), topic, b"", "x"));
        assert_eq!(acknowledged(&client.packet()), 0x83, "{topic}");
        // what is asked next is answered
        let good = publish_with(Version::V5, (1, id + 1), &format!("good/{topic}"), b"", "x");
        client.send(&good);
        behind.expect(&good);
    }
    assert_eq!(service.heard().len(), 1 + 2 * wrongs.len());
}

#[test]
fn stream_that_takes_the_subject_denies_and_is_named() {
    let (files, upstream) = (Files::new(&[]), Upstream::start());
    let nats = NatsServer::with_jetstream(free_port(), &files.path(""));
    nats.create_stream("everything", "mgate.>");
    let mgate = start(&nats, &upstream, "");
    let mut client = mgate.dial();
    client.send(&connect(Version::V5, "dev-1").bytes());
    assert_eq!(client.packet()[3], 0x88);
    mgate.log.wait_for("the answer is that of JetStream: a stream takes the subject of the questions");
}

#[test]
fn nobody_who_answers_is_a_denial_at_once() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let service = Responder::start(nats.port(), "", "mgate.authz.v1.evaluation", by_name);
    // the test would not wait as long as a decision may
    let mgate = start(&nats, &upstream, "timeout = '60s'\ncache = { allow_ttl = '0s' }");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    drop(service);
    wait_until("the service is gone", || {
        client.send(&publish_with(Version::V5, (1, 1), "good", b"", "x"));
        client.send(&publish_with(Version::V5, (1, 2), "bad", b"", "x"));
        let first = client.packet();
        first[2..4] == [0, 1] && {
            client.packet();
            true
        }
    });
    mgate.log.wait_for("nobody answers on the subject");
    wait_until("another one is asked", || {
        let _service = Responder::start(nats.port(), "", "mgate.authz.v1.evaluation", by_name);
        client.send(&publish_with(Version::V5, (0, 0), "good/again", b"", "x"));
        client.send(&publish_with(Version::V5, (1, 3), "bad", b"", "x"));
        acknowledged(&client.packet()) == 0x87
    });
    behind.send(&publish(Version::V5, "to/the/client", "x"));
}

#[test]
fn server_that_comes_back_is_asked_again_and_everything_with_it() {
    let (port, upstream) = (free_port(), Upstream::start());
    let nats = NatsServer::start(port, &[]);
    let service = Responder::start(port, "", "mgate.authz.v1.evaluation", by_name);
    let mgate = start(&nats, &upstream, "cache = { allow_ttl = '60s' }");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    let good = publish(Version::V5, "good", "x");
    client.send(&good);
    behind.expect(&good);
    nats.kill();
    let line: Value = serde_json::from_str(&mgate.log.wait_for("no connection to NATS")).unwrap();
    assert_eq!((&line["level"], &line["policy"]), (&"WARN".into(), &"auth".into()));
    // what is known still counts, what is new does not
    client.send(&good);
    behind.expect(&good);
    client.send(&publish_with(Version::V5, (1, 1), "good/new", b"", "x"));
    assert_eq!(acknowledged(&client.packet()), 0x83);
    drop(service);
    let _nats = NatsServer::start(port, &[]);
    let service = Responder::start(port, "", "mgate.authz.v1.evaluation", by_name);
    // whatever was said meanwhile was missed: all is asked again
    wait_until("what was known is asked about", || {
        client.send(&publish_with(Version::V5, (1, 2), "good", b"", "x"));
        client.send(&publish_with(Version::V5, (1, 3), "bad", b"", "x"));
        while client.packet()[2..4] != [0, 3] {}
        service.heard().iter().any(|asked| topic(asked) == "good")
    });
}

#[test]
fn withdrawn_rights_are_heard_of() {
    let (nats, upstream) = (NatsServer::start(free_port(), &["--auth", "t0ken"]), Upstream::start());
    let login = ",\"auth_token\":\"t0ken\"";
    let service = Responder::start(nats.port(), login, "mgate.authz.v1.evaluation", by_name);
    let files = Files::new(&[("token", "t0ken\n")]);
    let keys = "cache = { allow_ttl = '60s' }\nnats = { token_file = 'token' }";
    let mgate = Mgate::start(&files, &config(&nats, &upstream, keys));
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    let good = publish(Version::V5, "good", "x");
    let about_good = || service.heard().iter().filter(|asked| topic(asked) == "good").count();
    for requests in 1..3 {
        for _ in 0..2 {
            client.send(&good);
            behind.expect(&good);
        }
        assert_eq!(about_good(), requests);
        nats.publish(login, "mgate.authz.v1.invalidate", "{\"principal\":\"\"}");
        mgate.log.wait_for_times("rights changed", requests);
    }
    assert!(!mgate.log.text().contains("t0ken"));
}

#[test]
fn route_that_is_gone_from_the_configuration_hears_of_withdrawn_rights_too() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let _service = Responder::start(nats.port(), "", "mgate.authz.v1.evaluation", by_name);
    let (files, text) = (Files::new(&[]), config(&nats, &upstream, ""));
    let mgate = Mgate::start(&files, &text);
    files.write("mgate.toml", &text.replace("devices", "others"));
    mgate.reload();
    mgate.log.wait_for("route.devices, which goes on with its old rules");
    let _connected = session(&mgate, &upstream, Version::V5);
    nats.publish("", "mgate.authz.v1.invalidate", "{}");
    mgate.log.wait_for("rights changed");
}

fn start(nats: &NatsServer, upstream: &Upstream, keys: &str) -> Mgate {
    Mgate::start(&Files::new(&[]), &config(nats, upstream, keys))
}

fn config(nats: &NatsServer, upstream: &Upstream, keys: &str) -> String {
    format!(
        "[[route]]\nname = 'devices'\nlisten = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://127.0.0.1:{}'\n\
         policies = ['auth']\n[policy.auth]\ntype = 'pdp'\ndialect = 'authzen'\n\
         url = 'nats://127.0.0.1:{}'\n{keys}\n",
        upstream.port(),
        nats.port()
    )
}

fn session(mgate: &Mgate, upstream: &Upstream, version: Version) -> (Peer, Peer) {
    upstream.session(mgate.address(), &connect(version, "dev-1"), version)
}

/// Says no to what has `bad` in its name.
fn by_name(asked: &Asked) -> Option<String> {
    let is_allowed = !topic(asked).contains("bad");
    Some(format!("{{\"decision\":{is_allowed}}}"))
}

fn topic(asked: &Asked) -> String {
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    body["resource"]["id"].as_str().unwrap().to_owned()
}

/// The code of a PUBACK; before MQTT 5.0 there is none.
fn acknowledged(puback: &[u8]) -> u8 {
    assert_eq!(puback[0], PUBACK, "{puback:02x?}");
    puback.get(4).copied().unwrap_or_default()
}

fn denied(version: Version, code: u8) -> u8 {
    if version == Version::V5 { code } else { 0 }
}
