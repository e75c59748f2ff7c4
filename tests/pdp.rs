//! Decisions by another service, from the device to the service and back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mgate_policies::Now;
use serde_json::Value;
use support::broker::{Broker, free_port, mosquitto_sub};
use support::packets::{
    BOTH, PINGREQ, PUBACK, Version, ack, connack, connect, packet, publish, publish_with, reason_string,
    suback, subscribe,
};
use support::peer::{Peer, Upstream};
use support::process::Process;
use support::service::{Heard, Service, json};
use support::{Files, Mgate, PASSWORD, PASSWORD_HASH, mgate, wait_until};

#[test]
fn service_decides_about_everything_in_each_versions_words() {
    let (service, upstream) = (Service::start(by_name), Upstream::start());
    let mgate = start(&upstream, &service, "");
    for (version, refused_connect, refused_filter) in
        [(Version::V311, vec![0x20, 2, 0, 0x05], 0x80), (Version::V5, refusal(0x87, "not authorized"), 0x87)]
    {
        for denied in [connect(version, "bad"), connect(version, "dev-1").will("bad/will", "gone")] {
            let mut client = mgate.dial();
            client.send(&denied.bytes());
            assert_eq!(client.until_closed(), refused_connect);
        }
        assert!(upstream.try_accept().is_none());
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&publish_with(version, (1, 1), "bad/data", b"", "x"));
        assert_eq!(acknowledged(&client.packet()), denied_publish(version, 0x87));
        client.send(&publish_with(version, (1, 2), "good/data", b"", "x"));
        behind.expect(&publish_with(version, (1, 2), "good/data", b"", "x"));
        client.send(&subscribe(version, 3, &[("good/#", 1), ("bad/#", 1)]));
        behind.expect(&subscribe(version, 3, &[("good/#", 1)]));
        behind.send(&suback(version, 3, &[1]));
        client.expect(&suback(version, 3, &[1, refused_filter]));
    }
}

#[test]
fn service_that_is_not_there_denies_everything() {
    let (service, upstream) = (Service::start(by_name), Upstream::start());
    let mgate = start(&upstream, &service, "cache = { allow_ttl = '0s' }");
    let sessions = BOTH.map(|version| session(&mgate, &upstream, version));
    let url = service.url("");
    stop(service);
    let words = [
        (Version::V311, vec![0x20, 2, 0, 0x03], 0x80),
        (Version::V5, refusal(0x88, "no decision to be had"), 0x83),
    ];
    for ((version, refused_connect, refused_filter), (mut client, mut behind)) in
        words.into_iter().zip(sessions)
    {
        client.send(&publish_with(version, (1, 1), "good/data", b"", "x"));
        assert_eq!(acknowledged(&client.packet()), denied_publish(version, 0x83));
        client.send(&subscribe(version, 2, &[("good/#", 1)]));
        assert_eq!(client.packet().last(), Some(&refused_filter));
        client.send(&PINGREQ);
        behind.expect(&PINGREQ);
        let mut late = mgate.dial();
        late.send(&connect(version, "dev-2").bytes());
        assert_eq!(late.until_closed(), refused_connect);
    }
    assert!(upstream.try_accept().is_none());
    mgate.log.wait_for(&format!("no connection to {}: ", url.trim_start_matches("http://")));
}

#[test]
fn service_that_comes_back_is_asked_again() {
    let (address, upstream) = (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), Upstream::start());
    let service = Service::start_at(address, by_name);
    let mgate = start(&upstream, &service, "cache = { allow_ttl = '0s' }");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    stop(service);
    for id in 1..=6 {
        client.send(&publish_with(Version::V5, (1, id), "good/data", b"", "x"));
        assert_eq!(acknowledged(&client.packet()), 0x83);
    }
    mgate.log.wait_for("it is left alone");
    mgate.log.wait_for("the service did not answer lately");
    let _service = Service::start_at(address, by_name);
    wait_until("the service is asked again", || {
        client.send(&publish_with(Version::V5, (1, 7), "good/data", b"", "x"));
        // nobody acknowledges what passes
        client.send(&publish_with(Version::V5, (1, 8), "bad/data", b"", "x"));
        client.packet()[2..4] == [0, 8] || {
            client.packet();
            false
        }
    });
    behind.expect(&publish_with(Version::V5, (1, 7), "good/data", b"", "x"));
    mgate.log.wait_for("answers again");
}

#[test]
fn slow_decision_delays_only_its_client() {
    let (service, decide) = gated();
    let upstream = Upstream::start();
    let mgate = start(&upstream, &service, "timeout = '5s'");
    for version in BOTH {
        let (mut waiting, mut behind_waiting) = session(&mgate, &upstream, version);
        let other = connect(version, "dev-2");
        let (mut other, mut behind_other) = upstream.session(mgate.address(), &other, version);
        let slow = format!("slow/{version:?}");
        waiting.send(&[publish(version, &slow, "1"), publish(version, "good", "2")].concat());
        wait_until("the service is asked", || service.heard().iter().any(|heard| topic(heard) == slow));
        other.send(&publish(version, "good", "3"));
        behind_other.expect(&publish(version, "good", "3"));
        decide.send(()).unwrap();
        behind_waiting.expect(&publish(version, &slow, "1"));
        behind_waiting.expect(&publish(version, "good", "2"));
    }
}

#[test]
fn decision_that_takes_too_long_is_a_denial() {
    let (service, _decide) = gated();
    let upstream = Upstream::start();
    let mgate = start(&upstream, &service, "timeout = '100ms'");
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    client.send(&publish_with(Version::V5, (1, 1), "slow", b"", "x"));
    assert_eq!(acknowledged(&client.packet()), 0x83);
    client.send(&publish(Version::V5, "good", "y"));
    behind.expect(&publish(Version::V5, "good", "y"));
    mgate.log.wait_for("no decision within 100ms");
}

#[test]
fn client_is_given_what_it_subscribed_to() {
    let (service, upstream) = (Service::start(by_name), Upstream::start());
    let mgate = start(&upstream, &service, "");
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&subscribe(version, 1, &[("good/#", 1)]));
        behind.expect(&subscribe(version, 1, &[("good/#", 1)]));
        behind.send(&suback(version, 1, &[1]));
        client.expect(&suback(version, 1, &[1]));
        // nobody subscribed to this one: the service is asked about the topic
        behind.send(&publish_with(version, (1, 5), "bad/news", b"", "x"));
        behind.expect(&ack(PUBACK, 5));
        // the service would say no to this topic, had it not said yes to the filter
        let delivery = publish_with(version, (1, 6), "good/a/bad", b"", "x");
        behind.send(&delivery);
        client.expect(&delivery);
        assert!(service.heard().iter().all(|heard| topic(heard) != "good/a/bad"));
    }
}

#[test]
fn client_behind_a_mountpoint_is_given_what_it_subscribed_to() {
    let (service, upstream) = (Service::start(by_name), Upstream::start());
    let more = "[transform.mine]\ntype = 'mountpoint'\nprefix = 'clients/${client_id}/'\n";
    let text =
        config(&upstream, &service.url("/"), more).replace("['auth']", "['auth']\ntransforms = ['mine']");
    let mgate = Mgate::start(&Files::new(&[]), &text);
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&subscribe(version, 1, &[("good/#", 0)]));
        behind.expect(&subscribe(version, 1, &[("clients/dev-1/good/#", 0)]));
        behind.send(&suback(version, 1, &[0]));
        client.expect(&suback(version, 1, &[0]));
        behind.send(&publish(version, "clients/dev-1/bad/news", "nobody subscribed to it"));
        // the service would say no to this topic, had it not said yes to the filter
        behind.send(&publish(version, "clients/dev-1/good/a/bad", "x"));
        client.expect(&publish(version, "good/a/bad", "x"));
    }
}

#[test]
fn secrets_are_neither_sent_nor_logged() {
    let (service, upstream) = (Service::start(by_name), Upstream::start());
    let files = Files::new(&[
        ("token", "hunter2-token\n"),
        ("users.toml", &format!("[users.dev-1]\npassword = \"{PASSWORD_HASH}\"\n")),
    ]);
    let more = "bearer_token_file = 'token'\nheaders = { x-api-key = 'hunter2-key' }";
    let text = config(&upstream, &service.url("/"), more)
        .replace("policies", "authn = ['users']\npolicies")
        .replace("[policy.auth]", "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n[policy.auth]");
    let mgate = Mgate::start_with(&files, &text, &["--log-level", "trace"]);
    let dev = connect(Version::V5, "dev-1").user("dev-1", PASSWORD);
    let (mut client, mut behind) = upstream.session(mgate.address(), &dev, Version::V5);
    client.send(&publish(Version::V5, "good", "a secret reading"));
    behind.expect(&publish(Version::V5, "good", "a secret reading"));
    let heard = service.heard();
    assert!(heard.len() == 2 && heard.iter().all(|heard| heard.headers.contains("bearer hunter2-token")));
    assert!(heard.iter().all(|heard| heard.headers.contains("x-api-key: hunter2-key")));
    assert!(heard.iter().all(|heard| heard.body.contains("\"id\":\"dev-1\"")));
    stop(service);
    client.send(&publish_with(Version::V5, (1, 1), "another", b"", "a secret reading"));
    assert_eq!(acknowledged(&client.packet()), 0x83);
    mgate.log.wait_for("no connection");
    for secret in ["hunter2", PASSWORD, "a secret reading"] {
        assert!(!mgate.log.text().contains(secret), "{secret} is in the log");
        assert!(heard.iter().all(|heard| !heard.body.contains(secret)), "{secret} was sent");
    }
}

#[test]
fn proxies_of_the_environment_are_not_heeded() {
    let (service, elsewhere) = (Service::start(by_name), Service::start(by_name));
    let upstream = Upstream::start();
    let files = Files::new(&[]);
    let file = files.write("mgate.toml", &config(&upstream, &service.url("/"), ""));
    let mut command = mgate(&["run", "-c"]);
    command.arg(file);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"] {
        command.env(name, elsewhere.url(""));
    }
    let (_mgate, log) = Process::start_with_stderr(&mut command);
    let line = log.wait_for("address=");
    let address = line.rsplit_once("address=").unwrap().1.parse().unwrap();
    upstream.session(address, &connect(Version::V5, "dev-1"), Version::V5);
    assert_eq!((service.heard().len(), elsewhere.heard().len()), (1, 0));
}

#[test]
fn answer_to_connect_decides_about_the_session_and_ends_it() {
    let terms = "{'decision':true,'context':{'ttl':60,'mgate':{'statements':[{'effect':'allow',\
                 'actions':['publish'],'resources':['topic:good']}],'disconnect_after':1}}}"
        .replace('\'', "\"");
    let (service, upstream) = (Service::saying(json(&terms)), Upstream::start());
    let mgate = start(&upstream, &service, "session_terms = true\ncache = { max_ttl = '1m' }");
    for version in BOTH {
        let before = service.heard().len();
        let dev = connect(version, &format!("dev-{version:?}"));
        let (mut client, mut behind) = upstream.session(mgate.address(), &dev, version);
        client.send(&publish_with(version, (1, 1), "bad", b"", "x"));
        assert_eq!(acknowledged(&client.packet()), denied_publish(version, 0x87));
        client.send(&publish_with(version, (1, 2), "good", b"", "x"));
        behind.expect(&publish_with(version, (1, 2), "good", b"", "x"));
        assert_eq!(service.heard().len(), before + 1);
        client.until_closed();
    }
}

#[test]
fn prefix_of_the_answer_to_connect_holds_in_both_directions_and_for_the_will() {
    let statements = "'statements':[{'effect':'allow','actions':['publish','subscribe','will','deliver'],\
                      'resources':['topic:tenants/acme/#']}]";
    let (service, upstream) = (with_terms(&format!("{PREFIX},{statements}")), Upstream::start());
    let more = "session_terms = true\n[transform.mine]\ntype = 'mountpoint'\nprefix = '${client_id}/'\n";
    let text =
        config(&upstream, &service.url("/"), more).replace("['auth']", "['auth']\ntransforms = ['mine']");
    let mgate = Mgate::start(&Files::new(&[]), &text);
    for version in BOTH {
        // the second finds the answer in the cache
        for _ in 0..2 {
            let id = format!("dev-{version:?}");
            let mut client = mgate.dial();
            client.send(&connect(version, &id).will("last", "gone").bytes());
            let mut behind = upstream.accept();
            behind.expect(&connect(version, &id).will(&format!("tenants/acme/{id}/last"), "gone").bytes());
            behind.send(&connack(version));
            client.expect(&connack(version));
            client.send(&subscribe(version, 1, &[("#", 1), ("$share/g/a/+", 0)]));
            let moved = [format!("tenants/acme/{id}/#"), format!("$share/g/tenants/acme/{id}/a/+")];
            behind.expect(&subscribe(version, 1, &[(&moved[0], 1), (&moved[1], 0)]));
            behind.send(&suback(version, 1, &[1, 0]));
            client.expect(&suback(version, 1, &[1, 0]));
            client.send(&publish(version, "data", "x"));
            behind.expect(&publish(version, &format!("tenants/acme/{id}/data"), "x"));
            behind.send(&publish(version, &format!("tenants/other/{id}/news"), "not for it"));
            behind.send(&publish(version, &format!("tenants/acme/{id}/news"), "x"));
            client.expect(&publish(version, "news", "x"));
        }
    }
    assert_eq!(service.heard().len(), 2);
}

#[test]
fn limits_of_the_answer_to_connect_are_obeyed() {
    let limits = "'limits':{'messages_per_second':4,'packet_bytes':100,'subscriptions':1}";
    let (service, upstream) = (with_terms(limits), Upstream::start());
    let mgate = start(&upstream, &service, "session_terms = true");
    for (version, too_many) in [(Version::V311, 0x80), (Version::V5, 0x97)] {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&subscribe(version, 1, &[("a", 0), ("b", 0)]));
        behind.expect(&subscribe(version, 1, &[("a", 0)]));
        behind.send(&suback(version, 1, &[0]));
        client.expect(&suback(version, 1, &[0, too_many]));
        let since = Now::read().instant;
        let burst = publish(version, "a", "x").repeat(8);
        client.send(&burst);
        behind.expect(&burst);
        let took = Now::read().instant - since;
        assert!(took >= Duration::from_millis(900), "{took:?}");
        client.send(&publish(version, "a", &"x".repeat(100)));
        let told = if version == Version::V5 { reason_string("packet too large") } else { Vec::new() };
        assert!(client.until_closed().ends_with(&told));
        mgate.log.wait_for("is over the limit");
    }
}

#[test]
fn answer_that_changes_the_prefix_ends_the_session_and_one_that_changes_limits_does_not() {
    let terms = Arc::new(Mutex::new(String::new()));
    let said = Arc::clone(&terms);
    let service = Service::start(move |_, tcp| tcp.write_all(&json(&of_session(&said.lock().unwrap()))));
    let upstream = Upstream::start();
    let mgate = start(&upstream, &service, "session_terms = true\ncache = { max_ttl = '0s' }");
    for version in BOTH {
        *terms.lock().unwrap() = PREFIX.to_owned();
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&publish(version, "a", &"x".repeat(100)));
        behind.expect(&publish(version, "tenants/acme/a", &"x".repeat(100)));
        *terms.lock().unwrap() = format!("{PREFIX},'limits':{{'subscriptions':1}}");
        client.send(&publish(version, "a", "x"));
        behind.expect(&publish(version, "tenants/acme/a", "x"));
        wait_until("the other limits count", || {
            client.send(&subscribe(version, 1, &[("a", 0), ("b", 0)]));
            let passed = behind.packet();
            let codes = if passed.ends_with(b"a\0") { 1 } else { 2 };
            behind.send(&suback(version, 1, &[0x80, 0x80][..codes]));
            client.packet();
            codes == 1
        });
        *terms.lock().unwrap() = PREFIX.replace("acme", "other");
        client.send(&publish(version, "a", "x"));
        let bye = client.until_closed();
        if version == Version::V5 {
            assert_eq!((bye[0], bye[2]), (0xe0, 0x98), "{bye:02x?}");
        }
        mgate.log.wait_for("the session's terms changed: it has another topic prefix now");
    }
}

#[test]
fn services_that_disagree_about_the_prefix_let_nobody_in() {
    let (service, other) = (with_terms(PREFIX), with_terms(&PREFIX.replace("acme", "other")));
    let upstream = Upstream::start();
    let more = format!("[policy.other]\ntype = 'pdp'\ndialect = 'authzen'\nurl = '{}'", other.url("/"));
    let text = config(&upstream, &service.url("/"), &more).replace("['auth']", "['auth', 'other']");
    let files = Files::new(&[]);
    let mgate = Mgate::start(&files, &text);
    for (version, refused) in
        [(Version::V311, vec![0x20, 2, 0, 0x03]), (Version::V5, refusal(0x88, "no decision to be had"))]
    {
        let mut client = mgate.dial();
        client.send(&connect(version, "dev-1").bytes());
        assert_eq!(client.until_closed(), refused);
    }
    mgate.log.wait_for(r#"different prefixes, \"tenants/acme/\" and \"tenants/other/\""#);
    assert!(upstream.try_accept().is_none());
    let shown = explained(&files, &text, &[]);
    assert!(shown.contains("result: deny, no decision to be had: policies put the session"), "{shown}");
}

#[test]
fn explanation_shows_what_is_true_for_the_session() {
    let limits = "'limits':{'messages_per_second':4,'packet_bytes':100},'disconnect_after':60";
    let (service, upstream) = (with_terms(&format!("{PREFIX},{limits}")), Upstream::start());
    let text = config(&upstream, &service.url("/"), "");
    let files = Files::new(&[]);
    let shown = explained(&files, &text, &[]);
    assert!(shown.contains("session: ") && shown.contains("topic_prefix = \"tenants/acme/\""), "{shown}");
    let shown = explained(&files, &text, &["--json"]);
    let session = &serde_json::from_str::<Value>(&shown).unwrap()["session"];
    let expected = ["4", "100", "\"tenants/acme/\""];
    let shown = ["messages_per_second", "packet_bytes", "topic_prefix"].map(|term| session[term].to_string());
    assert_eq!(shown, expected);
    assert!(session["disconnect_after"].as_u64().is_some_and(|secs| secs <= 60), "{session}");
}

#[test]
fn filters_of_one_subscribe_are_one_request() {
    let (service, broker) = (Service::start(by_name), Broker::mosquitto());
    let mgate = Mgate::start(&Files::new(&[]), &to_port(broker.port, &service.url(""), "batch = true"));
    let mut command = mosquitto_sub(mgate.address().port(), "mqttv5", "%t");
    command.args(["-q", "1", "-i", "dev-1", "--will-topic", "good/will"]);
    for topic in ["good/1", "bad/2", "good/3", "good/4", "bad/5"] {
        command.args(["-t", topic]);
    }
    let (_subscriber, said) = Process::start_with_stdout(&mut command);
    // the codes of SUBACK
    said.wait_for("Subscribed (mid: 1): 1, 135, 1, 1, 135");
    let heard = service.heard();
    assert!(heard.iter().all(|heard| heard.line == "POST /access/v1/evaluations"), "{heard:?}");
    let asked: Vec<_> = heard.iter().map(topics).collect();
    let filters = ["good/1", "bad/2", "good/3", "good/4", "bad/5"];
    assert_eq!(asked, [vec!["dev-1", "good/will"], filters.to_vec()]);
}

#[test]
fn filter_that_is_too_many_is_not_asked_about() {
    let (service, upstream) = (Service::start(by_name), Upstream::start());
    let text = config(&upstream, &service.url(""), "batch = true")
        .replace("['auth']", "['auth']\nlimits = { subscriptions = 2 }");
    let mgate = Mgate::start(&Files::new(&[]), &text);
    let (mut client, mut behind) = session(&mgate, &upstream, Version::V5);
    client.send(&subscribe(Version::V5, 3, &[("good/1", 1), ("good/2", 1), ("good/3", 1)]));
    behind.expect(&subscribe(Version::V5, 3, &[("good/1", 1), ("good/2", 1)]));
    behind.send(&suback(Version::V5, 3, &[1, 1]));
    client.expect(&suback(Version::V5, 3, &[1, 1, 0x97]));
    let asked: Vec<_> = service.heard().iter().map(topics).collect();
    assert_eq!(asked, [vec!["dev-1"], vec!["good/1", "good/2"]]);
}

#[test]
fn review_of_a_session_is_one_request() {
    let (service, upstream) = (Service::start(by_name), Upstream::start());
    let files = Files::new(&[]);
    let text = config(&upstream, &service.url(""), "batch = true\n[admin]\nlisten = 'http://127.0.0.1:0'");
    let mgate = Mgate::start(&files, &text);
    let admin = mgate.admin();
    for version in BOTH {
        let id = format!("dev-{version:?}");
        let dev = connect(version, &id).will("good/will", "gone");
        let (mut client, mut behind) = upstream.session(mgate.address(), &dev, version);
        client.send(&subscribe(version, 3, &[("good/1", 1), ("good/2", 1)]));
        behind.expect(&subscribe(version, 3, &[("good/1", 1), ("good/2", 1)]));
        behind.send(&suback(version, 3, &[1, 1]));
        client.expect(&suback(version, 3, &[1, 1]));
        let before = service.heard().len();
        assert_eq!(admin.post("/authz/invalidate", "{}").0, 200);
        wait_until("the session asks again", || service.heard().len() > before);
        client.send(&publish(version, "good/after", "x"));
        behind.expect(&publish(version, "good/after", "x"));
        let heard = service.heard();
        assert_eq!(topics(&heard[before]), ["good/will", &id, "good/2", "good/1"]);
        let more: Vec<_> = heard[before + 1..].iter().map(topics).collect();
        assert_eq!(more, [["good/after"]]);
    }
}

#[test]
fn webhook_of_another_broker_decides() {
    let service = Service::start(|heard, tcp| match heard.body.contains("topic=good") {
        true => tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        false => tcp.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
    });
    let upstream = Upstream::start();
    let dialect = "dialect = 'webhook'\npreset = 'mosquitto-go-auth'\nformat = 'form'\nresponse = 'text'";
    let text = config(&upstream, &service.url("/aclcheck"), "")
        .replace("dialect = 'authzen'", dialect)
        .replace("['auth']", "['may_connect', 'auth']")
        + "[policy.may_connect]\ntype = 'static'\nfile = 'acl.toml'\n";
    let files = Files::new(&[("acl.toml", MAY_CONNECT)]);
    let mgate = Mgate::start(&files, &text);
    for version in BOTH {
        let (mut client, mut behind) = session(&mgate, &upstream, version);
        client.send(&publish_with(version, (1, 1), "bad&topic=good", b"", "x"));
        assert_eq!(acknowledged(&client.packet()), denied_publish(version, 0x87));
        client.send(&publish(version, "good", "x"));
        behind.expect(&publish(version, "good", "x"));
    }
    let heard = service.heard();
    assert_eq!(heard[0].line, "POST /aclcheck");
    assert_eq!(heard[0].body, "username=&clientid=dev-1&topic=bad%26topic%3Dgood&acc=2");
}

fn start(upstream: &Upstream, service: &Service, more: &str) -> Mgate {
    Mgate::start(&Files::new(&[]), &config(upstream, &service.url("/"), more))
}

/// A route with no policy but the service at `url`; `more` are further keys of the policy.
fn config(upstream: &Upstream, url: &str, more: &str) -> String {
    to_port(upstream.port(), url, more)
}

/// The same before a broker of its own.
fn to_port(port: u16, url: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = 'devices'\nlisten = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://127.0.0.1:{port}'\n\
         policies = ['auth']\n[policy.auth]\ntype = 'pdp'\ndialect = 'authzen'\nurl = '{url}'\n{more}\n"
    )
}

fn session(mgate: &Mgate, upstream: &Upstream, version: Version) -> (Peer, Peer) {
    upstream.session(mgate.address(), &connect(version, "dev-1"), version)
}

/// Says yes, and this of the session; quotes are single.
fn with_terms(terms: &str) -> Service {
    Service::saying(json(&of_session(terms)))
}

fn of_session(terms: &str) -> String {
    format!("{{'decision':true,'context':{{'ttl':60,'mgate':{{{terms}}}}}}}").replace('\'', "\"")
}

/// What people are told of leave to connect.
fn explained(files: &Files, config: &str, more: &[&str]) -> String {
    let file = files.write("mgate.toml", config);
    let mut command = mgate(&["policy", "explain", "--route", "devices", "--action", "connect", "-c"]);
    let output = command.arg(file).args(more).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Says no to what has `bad` in its name.
fn by_name(heard: &Heard, tcp: &mut TcpStream) -> io::Result<()> {
    let decisions =
        topics(heard).into_iter().map(|topic| format!("{{\"decision\":{}}}", !topic.contains("bad")));
    let decisions = decisions.collect::<Vec<_>>().join(",");
    match heard.line.ends_with("/evaluations") {
        true => tcp.write_all(&json(&format!("{{\"evaluations\":[{decisions}]}}"))),
        false => tcp.write_all(&json(&decisions)),
    }
}

/// Says yes; to what begins with `slow`, when it is told to.
fn gated() -> (Service, Sender<()>) {
    let (decide, decided) = channel();
    let decided = Mutex::new(decided);
    let service = Service::start(move |heard, tcp| {
        if topic(heard).starts_with("slow") {
            decided.lock().unwrap().recv().map_err(|_| ErrorKind::ConnectionAborted)?;
        }
        tcp.write_all(&json("{\"decision\":true}"))
    });
    (service, decide)
}

/// Ends a service, so that nobody listens there any longer.
fn stop(service: Service) {
    let address = service.address();
    drop(service);
    wait_until("the service is gone", || TcpStream::connect(address).is_err());
}

/// What the service was asked about.
fn topic(heard: &Heard) -> String {
    topics(heard).remove(0)
}

/// The same where it may be several things.
fn topics(heard: &Heard) -> Vec<String> {
    let body: Value = serde_json::from_str(&heard.body).unwrap();
    let questions = body["evaluations"].as_array().cloned().unwrap_or_else(|| vec![body]);
    questions.iter().map(|question| question["resource"]["id"].as_str().unwrap().to_owned()).collect()
}

/// The code of a PUBACK; before MQTT 5.0 there is none.
fn acknowledged(puback: &[u8]) -> u8 {
    assert_eq!(puback[0], PUBACK, "{puback:02x?}");
    puback.get(4).copied().unwrap_or_default()
}

fn denied_publish(version: Version, code: u8) -> u8 {
    if version == Version::V5 { code } else { 0 }
}

/// CONNACK of MQTT 5.0 that refuses.
fn refusal(code: u8, words: &str) -> Vec<u8> {
    let words = reason_string(words);
    packet(0x20, &[&[0, code, u8::try_from(words.len()).unwrap()], words.as_slice()].concat())
}

const PREFIX: &str = "'topic_prefix':'tenants/acme/'";
const MAY_CONNECT: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect']
resources = ['client_id:*']
";
