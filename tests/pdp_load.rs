//! A thousand clients and one service that decides about them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::broker::free_port;
use support::packets::{PUBACK, Version, connect, publish_with};
use support::peer::{Peer, Upstream};
use support::service::{Heard, Service, json};
use support::{Files, Mgate, wait_until};

#[test]
fn thousand_clients_that_ask_the_same_are_one_request() {
    let (decide, decided) = channel::<()>();
    let decided = Mutex::new(decided);
    let service = Service::start(move |_, tcp| {
        decided.lock().unwrap().recv().map_err(|_| io::ErrorKind::ConnectionAborted)?;
        tcp.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
    });
    let upstream = Upstream::start();
    let keys = "dialect = 'webhook'\npreset = 'status'\nbody = { topic = '${topic}' }\n";
    let mgate = start(&upstream, &service.url("/"), keys);
    let mut sessions = sessions(&mgate, &upstream);
    let question = publish_with(Version::V5, (1, 1), "the/same", b"", "x");
    for (client, _) in &mut sessions {
        client.send(&question);
    }
    wait_until("the service is asked", || !service.heard().is_empty());
    decide.send(()).unwrap();
    for (_, behind) in &mut sessions {
        behind.expect(&question);
    }
    assert_eq!(service.heard().len(), 1);
}

#[test]
fn outage_gives_nobody_a_right_and_ends_without_a_storm() {
    // of an address that none of the thousands of connections comes from: nobody takes the port meanwhile
    let address = SocketAddr::from(([127, 0, 0, 2], free_port()));
    let service = Service::start_at(address, yes);
    let upstream = Upstream::start();
    let keys = "dialect = 'authzen'\ncache = { allow_ttl = '1h', max_ttl = '1h' }\n";
    let mgate = start(&upstream, &service.url("/"), keys);
    let mut sessions = sessions(&mgate, &upstream);
    let [known, new] =
        [(1, "known"), (2, "new")].map(|(id, topic)| publish_with(Version::V5, (1, id), topic, b"", "x"));
    all_pass(&mut sessions, &known);
    assert_eq!(service.heard().len(), CLIENTS);
    stop(service);
    for (client, _) in &mut sessions {
        client.send(&new);
    }
    for (client, _) in &mut sessions {
        assert_eq!(acknowledged(&client.packet()), 0x83);
    }
    // what was granted still counts, and the new did not pass before it
    all_pass(&mut sessions, &known);
    let service = Service::start_at(address, yes);
    let more = publish_with(Version::V5, (0, 0), "more", b"", "x");
    // the longest pause is longer than the patience of tests
    let is_answered = (0..2000).any(|_| {
        sessions[0].0.send(&more);
        thread::sleep(Duration::from_millis(10));
        mgate.log.text().contains("answers again")
    });
    assert!(is_answered, "{}", mgate.log.text());
    let probes = service.heard().len();
    for (client, _) in &mut sessions[1..] {
        client.send(&new);
    }
    for (_, behind) in &mut sessions[1..] {
        behind.expect(&new);
    }
    assert_eq!(service.heard().len(), probes + CLIENTS - 1);
    assert!(probes < 10, "{probes}");
    // each connection that died with the service costs a question a second try, over one of its own
    assert!(service.connections() <= 2 * CONCURRENCY + probes, "{}", service.connections());
}

fn all_pass(sessions: &mut [(Peer, Peer)], message: &[u8]) {
    for (client, _) in sessions.iter_mut() {
        client.send(message);
    }
    for (_, behind) in sessions {
        behind.expect(message);
    }
}

/// The gateway inherits the limit.
fn start(upstream: &Upstream, url: &str, keys: &str) -> Mgate {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let config = format!(
        "[[route]]\nname = 'devices'\nlisten = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://127.0.0.1:{}'\n\
         policies = ['may_connect', 'auth']\n\
         [policy.may_connect]\ntype = 'static'\nfile = 'acl.toml'\n\
         [policy.auth]\ntype = 'pdp'\nurl = '{url}'\nactions = ['publish']\ntimeout = '60s'\n\
         concurrency = {CONCURRENCY}\n{keys}",
        upstream.port()
    );
    Mgate::start(&Files::new(&[("acl.toml", MAY_CONNECT)]), &config)
}

fn sessions(mgate: &Mgate, upstream: &Upstream) -> Vec<(Peer, Peer)> {
    let session = |number| {
        let connect = connect(Version::V5, &format!("dev-{number}"));
        upstream.session(mgate.address(), &connect, Version::V5)
    };
    (0..CLIENTS).map(session).collect()
}

fn yes(_: &Heard, tcp: &mut TcpStream) -> io::Result<()> {
    tcp.write_all(&json("{\"decision\":true}"))
}

/// Ends a service, so that nobody listens there any longer.
fn stop(service: Service) {
    let address = service.address();
    drop(service);
    wait_until("the service is gone", || TcpStream::connect(address).is_err());
}

fn acknowledged(puback: &[u8]) -> u8 {
    assert_eq!(puback[0], PUBACK, "{puback:02x?}");
    puback[4]
}

const CLIENTS: usize = 1000;
/// Sixteen times as many may wait: all of them.
const CONCURRENCY: usize = 64;

const MAY_CONNECT: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect']
resources = ['client_id:*']
";
