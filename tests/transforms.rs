//! Transforms, as clients that people use and their brokers see them.

mod support;

use std::process::Command;

use support::broker::{Broker, mosquitto_sub};
use support::packets::{BOTH, Version, connect, publish, publish_with};
use support::peer::Upstream;
use support::process::{Lines, Process};
use support::{Files, Mgate, config};

#[test]
fn tenants_behind_a_mountpoint_do_not_meet() {
    for version in ["mqttv311", "mqttv5"] {
        let (broker, mgate) = mounted();
        let (_direct, direct) = subscribe(broker.port, version, &["-t", "#"]);
        let (_acme, acme) = subscribe(mgate.address().port(), version, &["-u", "acme", "-t", "#"]);
        let (_other, other) = subscribe(mgate.address().port(), version, &["-u", "other", "-t", "+/x"]);
        for (user, topic, message) in [
            ("other", "a/x", "theirs"),
            ("acme", "a/x", "ours"),
            ("acme", "b", "last"),
            ("other", "b/x", "last"),
        ] {
            publish_as(&mgate, version, user, &["-t", topic, "-m", message, "-q", "1"]);
        }
        acme.wait_for("got b last");
        other.wait_for("got b/x last");
        direct.wait_for("got tenants/other/b/x last");
        assert_eq!(got(&acme), ["got a/x ours", "got b last"], "{version}");
        assert_eq!(got(&other), ["got a/x theirs", "got b/x last"], "{version}");
        let all = ["other/a/x theirs", "acme/a/x ours", "acme/b last", "other/b/x last"];
        assert_eq!(got(&direct), all.map(|message| format!("got tenants/{message}")), "{version}");
    }
}

#[test]
fn retained_messages_and_shared_subscriptions_are_mounted() {
    for version in ["mqttv311", "mqttv5"] {
        let (_broker, mgate) = mounted();
        let port = mgate.address().port();
        publish_as(&mgate, version, "acme", &["-t", "a/kept", "-m", "kept", "-r", "-q", "1"]);
        let (_late, late) = subscribe(port, version, &["-u", "acme", "-t", "a/+"]);
        late.wait_for("got a/kept kept");
        let (_shared, shared) = subscribe(port, version, &["-u", "acme", "-t", "$share/group/b/+"]);
        publish_as(&mgate, version, "other", &["-t", "b/x", "-m", "theirs", "-q", "1"]);
        publish_as(&mgate, version, "acme", &["-t", "b/x", "-m", "ours", "-q", "1"]);
        shared.wait_for("got b/x ours");
        assert_eq!(got(&shared), ["got b/x ours"], "{version}");
    }
}

#[test]
fn subscription_ends_under_its_own_name() {
    for version in ["mqttv311", "mqttv5"] {
        let (_broker, mgate) = mounted();
        let more = ["-u", "acme", "-t", "a", "-t", "b", "-U", "a"];
        let (_subscriber, lines) = subscribe(mgate.address().port(), version, &more);
        lines.wait_for("received UNSUBACK");
        for topic in ["a", "b"] {
            publish_as(&mgate, version, "acme", &["-t", topic, "-m", "x", "-q", "1"]);
        }
        lines.wait_for("got b x");
        assert_eq!(got(&lines), ["got b x"], "{version}");
    }
}

#[test]
fn will_is_published_under_the_prefix() {
    for version in ["mqttv311", "mqttv5"] {
        let (_broker, mgate) = mounted();
        let port = mgate.address().port();
        let (_watching, watching) = subscribe(port, version, &["-u", "acme", "-t", "wills/#"]);
        let will = ["-u", "acme", "-t", "a", "--will-topic", "wills/1", "--will-payload", "gone"];
        let (dying, _lines) = subscribe(port, version, &will);
        dying.kill();
        watching.wait_for("got wills/1 gone");
    }
}

#[test]
fn request_is_answered_where_the_mountpoint_says() {
    let (broker, mgate) = mounted();
    let (_direct, direct) =
        subscribe_with(broker.port, "mqttv5", "got %t %R", &["-t", "tenants/acme/requests"]);
    let (_device, device) =
        subscribe_with(mgate.address().port(), "mqttv5", "got %t %R", &["-u", "acme", "-t", "requests"]);
    let mut asking = Command::new("mosquitto_rr");
    asking.args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &mgate.address().port().to_string(), "-u", "acme"]);
    asking.args(["-t", "requests", "-e", "answers/1", "-m", "how warm?"]);
    let (mut asking, answer) = Process::start_with_stdout(&mut asking);
    direct.wait_for("got tenants/acme/requests tenants/acme/answers/1");
    device.wait_for("got requests answers/1");
    publish_as(&mgate, "mqttv5", "acme", &["-t", "answers/1", "-m", "21.5"]);
    answer.wait_for("21.5");
    assert!(asking.wait().success());
}

#[test]
fn policy_log_and_mirror_know_the_topic_that_goes_on() {
    let (_broker, mgate) = mounted();
    publish_as(&mgate, "mqttv311", "acme", &["-t", "a", "-m", "x", "-q", "1"]);
    let line = mgate.log.wait_for("mgate::mirror");
    assert!(line.contains("tenants/acme/a"), "{line}");
    publish_as(&mgate, "mqttv311", "acme", &["-t", "secret", "-m", "x", "-q", "1"]);
    let line = mgate.log.wait_for("\"denied\"");
    assert!(line.contains("tenants/acme/secret"), "{line}");
}

#[test]
fn client_without_a_prefix_is_refused() {
    let (_broker, mgate) = mounted();
    for version in ["mqttv311", "mqttv5"] {
        let mut publisher = Command::new("mosquitto_pub");
        publisher.args(["-V", version, "-h", "127.0.0.1", "-p", &mgate.address().port().to_string()]);
        let status = Process::start(publisher.args(["-t", "a", "-m", "x"])).wait();
        assert!(!status.success(), "{version}");
    }
    mgate.log.wait_for("transform mine: ${username} has no value");
}

#[test]
fn rewrites_go_both_ways_where_the_rules_say_so() {
    let rules = "[transform.names]\ntype = 'rewrite'\nrules = [\n\
        { from = 'old/+/data/#', to = 'new/${1}/${2}' },\n\
        { from = 'new/+/#', to = 'old/${1}/data/${2}', actions = ['deliver'] },\n]\n";
    let broker = Broker::mosquitto();
    let files = Files::new(&[("acl.toml", support::ALLOW_ALL)]);
    let mgate = Mgate::start(&files, &config(broker.port, "transforms = ['names']", rules));
    for version in ["mqttv311", "mqttv5"] {
        let (_direct, direct) = subscribe(broker.port, version, &["-t", "#"]);
        let (_sub, lines) = subscribe(mgate.address().port(), version, &["-t", "old/+/data/x"]);
        publish_as(&mgate, version, "any", &["-t", "old/1/data/x", "-m", "x", "-q", "1"]);
        lines.wait_for("got old/1/data/x x");
        direct.wait_for("got new/1/x x");
    }
}

#[test]
fn long_topics_and_payloads_are_moved_whole() {
    let upstream = Upstream::start();
    let files = Files::new(&[("acl.toml", POLICY)]);
    let mgate = Mgate::start(&files, &config(upstream.port(), "transforms = ['mine']", MOUNTPOINT));
    for version in BOTH {
        let named = connect(version, "dev-1").user("acme", "");
        let (mut client, mut behind) = upstream.session(mgate.address(), &named, version);
        let (topic, payload) = ("t/".repeat(200), "p".repeat(20_000));
        client.send(&publish(version, &topic, &payload));
        behind.expect(&publish(version, &format!("tenants/acme/{topic}"), &payload));
        behind.send(&publish(version, &format!("tenants/acme/{topic}"), &payload));
        client.expect(&publish(version, &topic, &payload));
        let too_long = "t".repeat(65_530);
        client.send(&publish_with(version, (1, 7), &too_long, b"", "x"));
        let answer = client.packet();
        assert_eq!(answer[2..4], [0, 7]);
        assert_eq!(answer.get(4), (version == Version::V5).then_some(&0x83));
        mgate.log.wait_for("transform mine: makes a topic that is too long");
    }
}

/// mosquitto, and mgate with a mountpoint in front of it.
fn mounted() -> (Broker, Mgate) {
    let broker = Broker::mosquitto();
    let files = Files::new(&[("acl.toml", POLICY)]);
    let rest = format!("{MOUNTPOINT}[mirror.log]\ntype = 'log'\n");
    let more = "transforms = ['mine']\nmirror = 'log'";
    let mgate = Mgate::start(&files, &config(broker.port, more, &rest));
    (broker, mgate)
}

fn subscribe(port: u16, version: &str, more: &[&str]) -> (Process, Lines) {
    subscribe_with(port, version, "got %t %p", more)
}

/// `mosquitto_sub`, once it has subscribed.
fn subscribe_with(port: u16, version: &str, format: &str, more: &[&str]) -> (Process, Lines) {
    let mut command = mosquitto_sub(port, version, format);
    let (process, lines) = Process::start_with_stdout(command.args(["-q", "1"]).args(more));
    lines.wait_for("Subscribed");
    (process, lines)
}

fn publish_as(mgate: &Mgate, version: &str, user: &str, more: &[&str]) {
    let mut command = Command::new("mosquitto_pub");
    let port = mgate.address().port().to_string();
    command.args(["-V", version, "-h", "127.0.0.1", "-p", &port, "-u", user]).args(more);
    assert!(Process::start(&mut command).wait().success(), "{more:?}");
}

fn got(lines: &Lines) -> Vec<String> {
    lines.lines().into_iter().filter(|line| line.starts_with("got ")).collect()
}

const MOUNTPOINT: &str = "[transform.mine]\ntype = 'mountpoint'\nprefix = 'tenants/${username}/'\n";

/// Speaks of topics as the upstream knows them.
const POLICY: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect']
resources = ['client_id:*']
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['publish', 'will', 'subscribe']
resources = ['topic:tenants/${username}/#']
[[statements]]
effect = 'deny'
principals = ['*']
actions = ['publish']
resources = ['topic:tenants/+/secret']
";
