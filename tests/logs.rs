//! What an operator finds in the log who asks why somebody does not get in, or why somebody left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Write;

use serde_json::Value;
use support::broker::{Broker, free_port};
use support::packets::{BOTH, PINGREQ, Version, connect, publish};
use support::peer::{Peer, Upstream, tcp};
use support::process::Process;
use support::{ACL, ALLOW_ALL, Files, Mgate, PASSWORD, PASSWORD_HASH, config, mgate, wait_until};

#[test]
fn refused_connections_are_told_once_a_route_with_a_reason_and_a_peer() {
    let upstream = free_port();
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]).with_certificates();
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key', client_ca = 'ca.pem' }";
    let proxy = "proxy_protocol = { accept = 'v1', trusted = ['127.0.0.0/8'] }";
    let routes: String = [
        ("mtls", "mqtts", tls),
        ("old", "mqtt", ""),
        ("plain", "mqtt", ""),
        ("ws", "mqtt+ws", ""),
        ("behind", "mqtt", proxy),
    ]
    .iter()
    .map(|(name, scheme, more)| {
        format!(
            "[[route]]\nname = '{name}'\nlisten = '{scheme}://127.0.0.1:0'\n\
             upstream = 'mqtt://127.0.0.1:{upstream}'\npolicies = ['acl']\n{more}\n"
        )
    })
    .collect();
    let mgate = Mgate::start(&files, &(routes + ACL));
    let http = b"GET /other HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-protocol: mqtt\r\n\
                 sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    for (route, first, reason) in [
        ("mtls", http.to_vec(), "TLS handshake failed: "),
        ("old", connect(Version::V31, "a").bytes(), "MQTT 3.1 is not allowed on this route"),
        ("plain", http.to_vec(), "malformed packet from the client"),
        ("ws", http.to_vec(), "404"),
        ("behind", connect(Version::V311, "a").bytes(), "PROXY"),
    ] {
        let address = mgate.address_of(route);
        for _ in 0..3 {
            let mut client = tcp(address);
            client.write_all(&first).unwrap();
            Peer::new(client).until_closed();
        }
        let is_meant = |line: &Value| line["message"] == "no connection came about" && line["route"] == route;
        wait_until("it is told", || lines(&mgate).iter().any(is_meant));
        let told: Vec<_> = lines(&mgate).into_iter().filter(is_meant).collect();
        // the others are counted, for a line later on
        let line = &told[0];
        assert_eq!((&line["level"], &line["count"]), (&"WARN".into(), &1.into()));
        assert!(line["reason"].as_str().unwrap().contains(reason), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
}

#[test]
fn who_looks_whether_somebody_listens_leaves_no_line() {
    let mgate = start(free_port(), "", "");
    drop(tcp(mgate.address()));
    let mut client = mgate.dial();
    client.send(&connect(Version::V31, "a").bytes());
    client.until_closed();
    mgate.log.wait_for("no connection came about");
    assert_eq!(mgate.log.count("without DISCONNECT"), 0, "{}", mgate.log.text());
}

#[test]
fn connection_over_the_limit_is_told_with_its_route_and_the_limit() {
    let mgate = start(free_port(), "limits = { connections = 1 }", "");
    let _first = mgate.dial();
    let _second = mgate.dial();
    let line: Value = serde_json::from_str(&mgate.log.wait_for("connections refused")).unwrap();
    let address = mgate.address().to_string();
    assert_eq!((&line["route"], &line["address"]), (&"devices".into(), &address.into()));
    assert_eq!((&line["limit"], &line["reason"]), (&1.into(), &"too many connections".into()));
}

#[test]
fn denial_for_want_of_an_allow_names_the_policies_and_is_told_once() {
    let files = Files::new(&[("acl.toml", NOBODY)]);
    let mgate = Mgate::start(&files, &config(free_port(), "", ""));
    for (version, number) in BOTH.into_iter().zip(1..) {
        let mut client = mgate.dial();
        client.send(&connect(version, "dev-1").bytes());
        let heard = client.until_closed();
        assert!(!String::from_utf8_lossy(&heard).contains("policy"), "{heard:?}");
        mgate.log.wait_for_times("denied", number);
    }
    let line: Value = serde_json::from_str(&mgate.log.wait_for("denied")).unwrap();
    assert_eq!(line["reason"], "not authorized: no policy allows it (acl)");
    assert_eq!(mgate.log.count("session closed"), 0, "{}", mgate.log.text());
}

#[test]
fn bad_credentials_are_told_with_the_user_and_why_but_not_to_the_client() {
    let users = format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n");
    let files = Files::new(&[("acl.toml", ALLOW_ALL), ("users.toml", &users)]);
    let rest = "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n";
    let mgate = Mgate::start(&files, &config(free_port(), "authn = ['users']", rest));
    for (user, password, why) in [
        ("dev-1", "hunter2", r#"wrong password of user \"dev-1\" (users)"#),
        ("dev-2", PASSWORD, r#"nobody knows user \"dev-2\" (users)"#),
    ] {
        for version in BOTH {
            let mut client = mgate.dial();
            client.send(&connect(version, "c").user(user, password).bytes());
            let heard = client.until_closed();
            assert!(!String::from_utf8_lossy(&heard).contains("dev-"), "{heard:?}");
        }
        mgate.log.wait_for_times(why, 2);
    }
    for secret in ["hunter2", PASSWORD] {
        assert_eq!(mgate.log.count(secret), 0);
    }
}

#[test]
fn session_that_its_own_client_takes_over_is_no_warning() {
    let broker = Broker::mosquitto();
    let mgate = start(broker.port, "", "");
    for version in BOTH {
        let mut first = Peer::connected(mgate.address(), version, "dev-1");
        let _second = Peer::connected(mgate.address(), version, "dev-1");
        first.until_closed();
    }
    let _last = Peer::connected(mgate.address(), Version::V311, "dev-1");
    mgate.log.wait_for_times("taken over by the same client", 2);
    let closed = lines(&mgate).into_iter().filter(|line| line["message"] == "session closed");
    for line in closed.filter(|line| line["why"] == "taken over by the same client") {
        assert_eq!(line["level"], "INFO", "{line}");
    }
    broker.kill();
    let line: Value =
        serde_json::from_str(&mgate.log.wait_for("the upstream closed the connection")).unwrap();
    assert_eq!(line["level"], "WARN");
}

#[test]
fn upstream_that_is_not_there_is_named() {
    let port = free_port();
    let mgate = start(port, "", "");
    let mut client = mgate.dial();
    client.send(&connect(Version::V311, "dev-1").bytes());
    client.until_closed();
    mgate.log.wait_for(&format!("the upstream cannot be reached: 127.0.0.1:{port}: no connection: "));
}

#[test]
fn client_that_is_slowed_is_told() {
    let upstream = Upstream::start();
    let mgate = start(upstream.port(), "limits = { messages_per_second = 1 }", "");
    let (mut client, mut behind) =
        upstream.session(mgate.address(), &connect(Version::V311, "dev-1"), Version::V311);
    for _ in 0..3 {
        client.send(&publish(Version::V311, "a", "x"));
    }
    client.send(&PINGREQ);
    for _ in 0..3 {
        behind.expect(&publish(Version::V311, "a", "x"));
    }
    let line: Value = serde_json::from_str(&mgate.log.wait_for("slowed by messages_per_second")).unwrap();
    assert_eq!((&line["level"], &line["client"]), (&"WARN".into(), &"dev-1".into()));
}

#[test]
fn start_names_the_version_the_file_the_protocols_and_the_variables_that_count() {
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
    let file = files.write("mgate.toml", &config(free_port(), "", ""));
    let variables =
        [("MGATE_ROUTE_DEVICES_LIMITS_CONNECTIONS", "7"), ("MGATE_ROUTE_DEVICE_LISTEN", "secret")];
    let mut run = mgate(&["run", "-c"]);
    let (_process, log) = Process::start_with_stderr(run.arg(&file).envs(variables));
    let start = log.wait_for("mgate starts");
    let version = env!("CARGO_PKG_VERSION");
    assert!(start.contains(&format!("version={version} configuration={}", file.display())), "{start}");
    log.wait_for("values from the environment names=MGATE_ROUTE_DEVICES_LIMITS_CONNECTIONS");
    let unknown = log.wait_for("variables that stand for no key names=MGATE_ROUTE_DEVICE_LISTEN");
    assert!(unknown.contains("WARN"), "{unknown}");
    log.wait_for("listening route=devices protocol=mqtt address=127.0.0.1:");
    assert_eq!(log.count("secret"), 0);
    let check = mgate(&["check"]).arg(&file).envs(variables).output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(said.contains("\nfrom the environment: MGATE_ROUTE_DEVICES_LIMITS_CONNECTIONS\n"), "{said}");
    assert!(said.contains("stand for no key: MGATE_ROUTE_DEVICE_LISTEN"), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

fn start(upstream: u16, more: &str, rest: &str) -> Mgate {
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
    Mgate::start(&files, &config(upstream, more, rest))
}

fn lines(mgate: &Mgate) -> Vec<Value> {
    mgate.log.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A policy that allows others alone.
const NOBODY: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['client:somebody-else']
actions = ['connect']
resources = ['client_id:*']
";
