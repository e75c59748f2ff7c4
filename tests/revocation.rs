//! Rights that change while sessions live: who loses them is told and closed, and nobody else notices.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use mgate_policies::Now;
use serde_json::Value;
use support::broker::Broker;
use support::packets::{
    BOTH, Connect, PINGREQ, PINGRESP, Version, connack, connect, publish, suback, subscribe,
};
use support::peer::{Peer, Upstream};
use support::service::{Heard, Service, json};
use support::{ALLOW_ALL, Files, Mgate, config, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

#[test]
fn who_loses_a_right_is_closed_and_others_lose_no_message() {
    let (broker, files) = (Broker::mosquitto(), Files::new(&[("acl.toml", ALLOW_ALL)]));
    let mgate = Mgate::start(&files, &config(broker.port, "", ""));
    for version in BOTH {
        files.write("acl.toml", ALLOW_ALL);
        mgate.reload();
        let mut loser = Peer::connected(mgate.address(), version, "loser");
        loser.subscribe(version, &[("room/1", 0), ("lost", 0)]);
        let mut stays = Peer::connected(mgate.address(), version, "stays");
        stays.subscribe(version, &[("room/1", 0)]);
        let mut sender = Peer::connected(mgate.address(), version, "sender");
        for number in 0..20 {
            sender.send(&publish(version, "room/1", &number.to_string()));
            if number == 10 {
                files.write("acl.toml", &denying("subscribe", "topic:lost"));
                mgate.reload();
            }
        }
        for number in 0..20 {
            stays.expect(&publish(version, "room/1", &number.to_string()));
        }
        let last_words = loser.until_closed();
        let bye = last_words.windows(3).any(|words| words[0] == 0xe0 && words[2] == 0x87);
        assert_eq!(bye, version == Version::V5, "{last_words:02x?}");
        mgate.log.wait_for("rights changed, subscribe denied");
    }
}

#[test]
fn will_that_is_no_longer_allowed_is_not_published() {
    let (broker, files) = (Broker::mosquitto(), Files::new(&[("acl.toml", ALLOW_ALL)]));
    let mgate = Mgate::start(&files, &config(broker.port, "", ""));
    for version in BOTH {
        files.write("acl.toml", ALLOW_ALL);
        mgate.reload();
        let mut watcher = Peer::connected(mgate.address(), version, "watcher");
        watcher.subscribe(version, &[("#", 0)]);
        let mut denied = with_will(&mgate, version, "denied");
        files.write("acl.toml", &denying("publish", "topic:wills/denied"));
        mgate.reload();
        assert_eq!(denied.until_closed().get(2), (version == Version::V5).then_some(&0x87));
        watcher.expect_nothing_but_pong();
        // who may no longer connect, but has said what is still allowed, is heard like one who breaks off
        let mut broken = with_will(&mgate, version, "broken");
        files.write("acl.toml", &denying("connect", "client_id:broken"));
        mgate.reload();
        broken.until_closed();
        watcher.expect(&publish(version, "wills/broken", "gone"));
    }
}

#[test]
fn invalidation_of_one_principal_asks_about_it_again_and_about_nobody_else() {
    let refused = Mutex::new(String::new());
    let refused: &'static Mutex<String> = Box::leak(Box::new(refused));
    let service = Service::start(move |heard, tcp| {
        let is_allowed = principal(heard) != *refused.lock().unwrap();
        tcp.write_all(&json(&format!("{{\"decision\":{is_allowed}}}")))
    });
    let upstream = Upstream::start();
    let files = Files::new(&[("users.toml", &users())]);
    let mgate = Mgate::start(&files, &remote(&upstream, &service));
    let admin = mgate.admin();
    let mut sessions: Vec<_> = ["alice", "bob", "carol"].map(|name| session(&mgate, &upstream, name)).into();
    let asked_about = |name: &str| service.heard().iter().filter(|heard| principal(heard) == name).count();
    let before: Vec<_> = ["alice", "bob", "carol"].map(asked_about).into();
    let (status, told) = admin.post("/authz/invalidate", r#"{"principal":"bob"}"#);
    assert_eq!((status, &told["sessions"]), (200, &3.into()));
    wait_until("bob is asked about", || asked_about("bob") == before[1] * 2);
    // none of them is closed, and what others were allowed is still remembered
    for ((client, behind), name) in sessions.iter_mut().zip(["alice", "bob", "carol"]) {
        client.send(&publish(Version::V5, "a", name));
        behind.expect(&publish(Version::V5, "a", name));
    }
    refused.lock().unwrap().push_str("carol");
    admin.post("/authz/invalidate", r#"{"principal":"carol","tenant":""}"#);
    assert_eq!(sessions[2].0.until_closed()[2], 0x87);
    let epoch = admin.post("/authz/invalidate", r#"{"client_id":"nobody"}"#).1["epoch"].clone();
    assert_eq!(epoch, told["epoch"].as_u64().unwrap() + 2);
    assert_eq!(asked_about("alice"), before[0] + 1, "for its PUBLISH alone");
}

#[test]
fn answer_that_was_asked_for_before_does_not_count() {
    let (decide, decided) = channel::<()>();
    let decided = Mutex::new(decided);
    let is_first = Mutex::new(true);
    let service = Service::start(move |heard, tcp| {
        let is_late = topic(heard) == "late" && std::mem::take(&mut *is_first.lock().unwrap());
        if is_late {
            decided.lock().unwrap().recv().map_err(|_| std::io::ErrorKind::ConnectionAborted)?;
        }
        let is_allowed = topic(heard) != "late" || is_late;
        tcp.write_all(&json(&format!("{{\"decision\":{is_allowed}}}")))
    });
    let upstream = Upstream::start();
    let files = Files::new(&[("users.toml", &users())]);
    let mgate = Mgate::start(&files, &remote(&upstream, &service));
    let (mut client, mut behind) = session(&mgate, &upstream, "alice");
    client.send(&publish(Version::V5, "late", "x"));
    wait_until("the service is asked", || service.heard().iter().any(|heard| topic(heard) == "late"));
    mgate.admin().post("/authz/invalidate", "{}");
    decide.send(()).unwrap();
    wait_until("the service is asked again", || {
        service.heard().iter().filter(|heard| topic(heard) == "late").count() == 2
    });
    client.send(&publish(Version::V5, "a", "y"));
    behind.expect(&publish(Version::V5, "a", "y"));
}

#[test]
fn service_that_is_away_after_a_revocation_denies() {
    let service = Service::saying(json("{\"decision\":true}"));
    let upstream = Upstream::start();
    let files = Files::new(&[("users.toml", &users())]);
    let text =
        remote(&upstream, &service).replace("[policy", "limits = { decision_timeout = '500ms' }\n[policy");
    let mgate = Mgate::start(&files, &text);
    let (mut client, mut behind) = session(&mgate, &upstream, "alice");
    let address = service.address();
    drop(service);
    wait_until("the service is gone", || std::net::TcpStream::connect(address).is_err());
    // by itself, that it is away takes nobody's session
    client.send(&PINGREQ);
    behind.expect(&PINGREQ);
    mgate.admin().post("/authz/invalidate", "{}");
    assert_eq!(client.until_closed()[2], 0x83);
    assert_eq!(behind.until_closed(), b"");
}

#[test]
fn more_sessions_than_a_service_can_answer_at_once_are_asked_about_later() {
    let service = Service::saying(json("{\"decision\":true}"));
    let upstream = Upstream::start();
    let text = remote(&upstream, &service).replace("authn = ['users']\n", "");
    let text = text.replace("[authn", "concurrency = 1\n[authn");
    let mgate = Mgate::start(&Files::new(&[("users.toml", &users())]), &text);
    let names: Vec<_> = (0..CROWD).map(|number| format!("dev-{number}")).collect();
    let mut sessions: Vec<_> = names
        .iter()
        .map(|name| upstream.session(mgate.address(), &connect(Version::V5, name), Version::V5))
        .collect();
    assert_eq!(service.heard().len(), CROWD, "each is a question of its own");
    mgate.admin().post("/authz/invalidate", "{}");
    wait_until("all are asked about", || service.heard().len() == 2 * CROWD);
    for (client, behind) in &mut sessions {
        client.send(&PINGREQ);
        behind.expect(&PINGREQ);
    }
}

#[test]
fn thousands_of_sessions_are_asked_about_within_a_moment() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
        let mgate = Mgate::start(&files, &config(upstream.local_addr().unwrap().port(), "", ADMIN));
        tokio::spawn(broker(upstream));
        let mut clients = Vec::new();
        for number in 0..sessions() {
            clients.push(subscribed(&mgate, number).await);
        }
        let (losers, stay): (Vec<_>, Vec<_>) =
            clients.into_iter().partition(|(number, _)| number.is_multiple_of(2));
        files.write("acl.toml", &denying("subscribe", "topic:even"));
        let count = losers.len();
        let mut closing: JoinSet<_> = losers.into_iter().map(|(_, client)| until_closed(client)).collect();
        let (start, busy) = (Now::read().instant, mgate.busy());
        mgate.hang_up();
        while let Some(last_words) = timeout(Duration::from_secs(60), closing.join_next()).await.unwrap() {
            assert_eq!(last_words.unwrap().get(2), Some(&0x87));
        }
        let (all, busy) = (start.elapsed(), mgate.busy() - busy);
        let reload = mgate.admin().get("/healthz").1["last_reload"].clone();
        assert_eq!(reload["told"]["sessions"], 2 * count);
        println!("{count} of {} sessions closed {all:?} after SIGHUP, with {busy:?} of work", 2 * count);
        for (_, mut client) in stay {
            client.write_all(&PINGREQ).await.unwrap();
            let mut pong = [0; 2];
            client.read_exact(&mut pong).await.unwrap();
            assert_eq!(pong, PINGRESP);
        }
    });
}

/// As many as the limit of descriptors lets this process have both ends of.
fn sessions() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    let descriptors = limit.current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    (descriptors.saturating_sub(500) / 2).min(9000) / 2 * 2
}

/// A client that has subscribed to `even` or `odd`.
async fn subscribed(mgate: &Mgate, number: usize) -> (usize, TcpStream) {
    let version = Version::V5;
    let mut client = TcpStream::connect(mgate.address()).await.unwrap();
    let filter = if number.is_multiple_of(2) { "even" } else { "odd" };
    client.write_all(&connect(version, &format!("dev-{number}")).bytes()).await.unwrap();
    expect(&mut client, &connack(version)).await;
    client.write_all(&subscribe(version, 1, &[(filter, 0)])).await.unwrap();
    expect(&mut client, &suback(version, 1, &[0])).await;
    (number, client)
}

async fn expect(client: &mut TcpStream, bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    client.read_exact(&mut came).await.unwrap();
    assert_eq!(came, bytes);
}

async fn until_closed(mut client: TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    let _ = client.read_to_end(&mut came).await;
    came
}

/// Takes everybody, and says what they want to hear.
async fn broker(listener: TcpListener) {
    loop {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut came = [0; 512];
            while let Ok(1..) = tcp.read(&mut came).await {
                let answer = match came[0] {
                    0x10 => connack(Version::V5),
                    0x82 => suback(Version::V5, 1, &[0]),
                    _ => PINGRESP.into(),
                };
                if tcp.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn with_will(mgate: &Mgate, version: Version, name: &str) -> Peer {
    let connect = connect(version, name).will(&format!("wills/{name}"), "gone");
    Peer::connected_with(mgate.address(), &connect)
}

fn session(mgate: &Mgate, upstream: &Upstream, name: &str) -> (Peer, Peer) {
    let connect: Connect = connect(Version::V5, name).user(name, support::PASSWORD);
    let (mut client, mut behind) = upstream.session(mgate.address(), &connect, Version::V5);
    client.send(&subscribe(Version::V5, 1, &[("a", 0)]));
    behind.expect(&subscribe(Version::V5, 1, &[("a", 0)]));
    behind.send(&suback(Version::V5, 1, &[0]));
    client.expect(&suback(Version::V5, 1, &[0]));
    (client, behind)
}

/// Everybody may do everything but this.
fn denying(action: &str, resource: &str) -> String {
    format!(
        "{ALLOW_ALL}[[statements]]\nsid = 'no'\neffect = 'deny'\nprincipals = ['*']\n\
         actions = ['{action}']\nresources = ['{resource}']\n"
    )
}

/// A route where a service decides about users with passwords.
fn remote(upstream: &Upstream, service: &Service) -> String {
    let (port, url) = (upstream.port(), service.url("/"));
    format!(
        "[[route]]\nname = 'devices'\nlisten = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://127.0.0.1:{port}'\n\
         authn = ['users']\npolicies = ['auth']\n[policy.auth]\ntype = 'pdp'\ndialect = 'authzen'\n\
         url = '{url}'\n[authn.users]\ntype = 'password'\nfile = 'users.toml'\n{ADMIN}"
    )
}

fn users() -> String {
    let user = |name: &str| format!("[users.{name}]\npassword = \"{}\"\n", support::PASSWORD_HASH);
    ["alice", "bob", "carol"].map(user).concat()
}

/// Whom the service was asked about.
fn principal(heard: &Heard) -> String {
    let body: Value = serde_json::from_str(&heard.body).unwrap();
    body["subject"]["id"].as_str().unwrap().to_owned()
}

/// What the service was asked about.
fn topic(heard: &Heard) -> String {
    let body: Value = serde_json::from_str(&heard.body).unwrap();
    body["resource"]["id"].as_str().unwrap().to_owned()
}

/// Many more than may wait for a service that is asked one question at a time.
const CROWD: usize = 60;

const ADMIN: &str = "[admin]\nlisten = 'http://127.0.0.1:0'\n";
