//! A configuration that is read again while sessions live.

mod support;

use std::process::Command;

use support::broker::{Broker, free_port};
use support::packets::{BOTH, Version, connect, publish};
use support::peer::{Peer, Upstream};
use support::{ALLOW_ALL, Files, Mgate, config};

#[test]
fn new_rules_count_for_live_sessions() {
    let (broker, files) = (Broker::mosquitto(), Files::new(&[("acl.toml", ALLOW_ALL)]));
    let mgate = Mgate::start(&files, &config(broker.port, "", ""));
    for version in BOTH {
        files.write("acl.toml", ALLOW_ALL);
        mgate.reload();
        let mut listener = Peer::connected(mgate.address(), version, "listener");
        listener.subscribe(version, &[("a", 0), ("b", 0)]);
        let mut client = Peer::connected(mgate.address(), version, "dev-1");
        client.send(&publish(version, "a", "before"));
        listener.expect(&publish(version, "a", "before"));
        files.write("acl.toml", &(ALLOW_ALL.to_owned() + &deny("publish", "topic:a")));
        mgate.reload();
        client.send(&publish(version, "a", "after"));
        client.send(&publish(version, "b", "after"));
        listener.expect(&publish(version, "b", "after"));
    }
}

#[test]
fn bad_configuration_changes_nothing_and_is_reported() {
    let (broker, files) = (Broker::mosquitto(), Files::new(&[("acl.toml", ALLOW_ALL)]));
    let text = config(broker.port, "", ADMIN);
    let mgate = Mgate::start(&files, &text);
    let admin = mgate.admin();
    let mut client = Peer::connected(mgate.address(), Version::V5, "dev-1");
    client.subscribe(Version::V5, &[("a", 0)]);
    files.write("acl.toml", &(ALLOW_ALL.to_owned() + &deny("subscribe", "topic:a") + "colour = 'red'\n"));
    mgate.hang_up();
    let line = mgate.log.wait_for("colour: unknown key");
    assert!(line.contains("acl.toml"), "{line}");
    mgate.log.wait_for("configuration not reloaded");
    let (status, problem) = admin.post("/reload", "");
    assert_eq!(status, 422);
    let message = problem["problems"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("unknown key"), "{problem}");
    let (_, health) = admin.get("/healthz");
    assert_eq!(health["last_reload"]["ok"], false);
    client.send(&publish(Version::V5, "a", "still here"));
    client.expect(&publish(Version::V5, "a", "still here"));
    // a test that a policy's file brings must hold too
    files.write("acl.toml", &(ALLOW_ALL.to_owned() + FAILING_TEST));
    assert_eq!(admin.post("/reload", "").0, 422);
    files.write("acl.toml", ALLOW_ALL);
    let (status, reload) = admin.post("/reload", "{}");
    assert_eq!((status, &reload["ok"], &reload["told"]["sessions"]), (200, &true.into(), &1.into()));
    assert_eq!(admin.get("/healthz").1["last_reload"], reload);
    client.expect_nothing_but_pong();
}

#[test]
fn reload_that_hangs_keeps_nobody_from_stopping_it() {
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
    let mut mgate = Mgate::start(&files, &config(free_port(), "", ""));
    std::fs::remove_file(files.path("acl.toml")).unwrap();
    // nobody will ever write to it
    assert!(Command::new("mkfifo").arg(files.path("acl.toml")).status().unwrap().success());
    mgate.hang_up();
    mgate.log.wait_for("asked to reload");
    mgate.terminate();
    assert!(mgate.wait().success());
}

#[test]
fn new_connections_go_where_the_new_configuration_leads() {
    let (one, other) = (Upstream::start(), Upstream::start());
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
    let mgate = Mgate::start(&files, &config(one.port(), "", ""));
    let (mut old, mut behind_old) = one.session(mgate.address(), &connect(Version::V5, "dev-1"), Version::V5);
    files.write("mgate.toml", &config(other.port(), "limits = { packet_bytes = 200 }", ""));
    mgate.reload();
    let (mut new, mut behind_new) =
        other.session(mgate.address(), &connect(Version::V5, "dev-2"), Version::V5);
    for (client, behind) in [(&mut old, &mut behind_old), (&mut new, &mut behind_new)] {
        client.send(&publish(Version::V5, "a", "x"));
        behind.expect(&publish(Version::V5, "a", "x"));
        client.send(&publish(Version::V5, "a", &"x".repeat(300)));
        assert_eq!(client.until_closed()[2], 0x95, "packet too large");
    }
}

#[test]
fn what_needs_a_restart_is_named() {
    let upstream = Upstream::start();
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
    let text = config(upstream.port(), "", ADMIN);
    let mgate = Mgate::start(&files, &text);
    let renamed = text.replace("'devices'", "'others'").replace("127.0.0.1:0'\nup", "127.0.0.2:0'\nup");
    files.write("mgate.toml", &format!("workers = 7\n{renamed}"));
    let (status, reload) = mgate.admin().post("/reload", "");
    assert_eq!(status, 200);
    let names: Vec<_> = reload["needs_restart"].as_array().unwrap().iter().map(|key| key.as_str()).collect();
    let expected =
        ["workers", "route.devices, which goes on with its old rules", "route.others, which is new"];
    assert_eq!(names, expected.map(Some));
    let moved = text.replace("127.0.0.1:0'\nup", "127.0.0.2:0'\nup");
    files.write("mgate.toml", &moved);
    assert_eq!(mgate.admin().post("/reload", "").1["needs_restart"][0], "route.devices.listen");
    upstream.session(mgate.address(), &connect(Version::V5, "dev-1"), Version::V5);
}

fn deny(action: &str, resource: &str) -> String {
    format!(
        "[[statements]]\nsid = 'no'\neffect = 'deny'\nprincipals = ['*']\nactions = ['{action}']\n\
         resources = ['{resource}']\n"
    )
}

const ADMIN: &str = "[admin]\nlisten = 'http://127.0.0.1:0'\n";

const FAILING_TEST: &str = "\
[[tests]]
name = 'nobody publishes'
principal = 'dev-1'
action = 'publish'
topic = 'a'
expect = 'deny'
";
