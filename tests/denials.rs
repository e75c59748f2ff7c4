//! What must not pass does not, whichever way it tries, and everybody is told in MQTT's own words.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::broker::Broker;
use support::packets::{
    BOTH, PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, Version, ack, connack, connect, packet, publish,
    publish_with, reason_string, retained, suback, subscribe, text,
};
use support::peer::{Peer, Upstream};
use support::websocket::WebSocket;
use support::{Files, Mgate, PASSWORD, PASSWORD_HASH, config};

#[test]
fn publish_before_connect_closes() {
    let (mgate, upstream) = start("");
    for version in BOTH {
        let mut client = mgate.dial();
        client.send(&publish(version, "open/a", "x"));
        assert_eq!(client.until_closed(), b"");
        assert!(upstream.try_accept().is_none());
    }
}

#[test]
fn second_connect_closes() {
    let (mgate, upstream) = start("");
    let (mut client, mut behind) =
        upstream.session(mgate.address(), &connect(Version::V311, "a"), Version::V311);
    client.send(&connect(Version::V311, "b").bytes());
    assert_eq!(client.until_closed(), b"");
    assert_eq!(behind.until_closed(), b"");
}

#[test]
fn overlong_client_id_is_refused() {
    let (mgate, upstream) = start("");
    for (level, properties) in [(4, b"".as_slice()), (5, b"\0")] {
        let body = [&text("MQTT"), [level, 2, 0, 60].as_slice(), properties, b"\xff\xffdev1"].concat();
        let mut client = mgate.dial();
        client.send(&packet(0x10, &body));
        assert_eq!(client.until_closed(), b"");
        assert!(upstream.try_accept().is_none());
    }
}

#[test]
fn will_topic_is_authorized() {
    let (mgate, upstream) = start("");
    for (version, refusal) in refusals(0x05, 0x87, "not authorized") {
        let mut client = mgate.dial();
        client.send(&connect(version, "dev-1").will("other/commands", "open the valve").bytes());
        assert_eq!(client.until_closed(), refusal);
        assert!(upstream.try_accept().is_none());
        let allowed = connect(version, "dev-1").will("open/will", "gone");
        upstream.session(mgate.address(), &allowed, version);
    }
}

#[test]
fn denied_client_id_is_refused() {
    let (mgate, upstream) = start("");
    for (version, refusal) in refusals(0x05, 0x87, "not authorized") {
        let mut client = mgate.dial();
        client.send(&connect(version, "stranger").bytes());
        assert_eq!(client.until_closed(), refusal);
        assert!(upstream.try_accept().is_none());
    }
}

#[test]
fn wrong_and_missing_passwords_are_refused() {
    let (mgate, upstream) = start_with_users();
    for (version, refusal) in refusals(0x04, 0x86, "bad user name or password") {
        let with_user = |name, password| connect(version, "dev-1").user(name, password);
        for wrong in [with_user("dev-1", "wrong"), with_user("nobody", PASSWORD), connect(version, "dev-1")] {
            let mut client = mgate.dial();
            client.send(&wrong.bytes());
            assert_eq!(client.until_closed(), refusal);
        }
        assert!(upstream.try_accept().is_none());
        upstream.session(mgate.address(), &with_user("dev-1", PASSWORD), version);
    }
}

#[test]
fn version_that_the_route_does_not_speak_is_refused() {
    let (mgate, upstream) = start("mqtt = { versions = ['3.1.1'] }");
    let mut client = mgate.dial();
    client.send(&connect(Version::V5, "dev-1").bytes());
    let answer = client.until_closed();
    assert_eq!((answer[0], &answer[2..4]), (0x20, [0, 0x84].as_slice()), "{answer:02x?}");
    let mut client = mgate.dial();
    client.send(&connect(Version::V31, "dev-1").bytes());
    assert_eq!(client.until_closed(), [0x20, 2, 0, 0x01]);
    assert!(upstream.try_accept().is_none());
}

#[test]
fn session_that_is_kept_needs_a_client_id_in_3_1_1() {
    let (mgate, upstream) = start("");
    let mut client = mgate.dial();
    client.send(&connect(Version::V311, "").keep_session().bytes());
    assert_eq!(client.until_closed(), [0x20, 2, 0, 0x02]);
    assert!(upstream.try_accept().is_none());
}

#[test]
fn each_filter_has_its_own_answer() {
    let (mgate, upstream) = start("");
    for (version, refused) in REFUSED {
        let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
        let filters = [("open/a", 1), ("other/b", 1), ("#", 0), ("open/#", 2), ("+/a", 0)];
        client.send(&subscribe(version, 10, &filters));
        behind.expect(&subscribe(version, 10, &[("open/a", 1), ("open/#", 2)]));
        behind.send(&suback(version, 10, &[1, 0]));
        client.expect(&suback(version, 10, &[1, refused, refused, 0, refused]));
    }
}

#[test]
fn subscribe_with_denied_filters_only_does_not_reach_the_upstream() {
    let (mgate, upstream) = start("");
    for (version, refused) in REFUSED {
        let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
        client.send(&subscribe(version, 10, &[("#", 0), ("other/b", 2)]));
        let answer = client.packet();
        assert_eq!((answer[0], &answer[2..4]), (0x90, [0, 10].as_slice()));
        assert_eq!(answer[answer.len() - 2..], [refused, refused]);
        client.send(&PINGREQ);
        behind.expect(&PINGREQ);
    }
}

#[test]
fn shared_subscription_is_authorized_by_its_filter() {
    let (mgate, upstream) = start("");
    for (version, refused) in REFUSED {
        let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
        let filters = [("$share/group/other/x", 0), ("$share/group/open/x", 1), ("$share/open/#", 1)];
        client.send(&subscribe(version, 4, &filters));
        behind.expect(&subscribe(version, 4, &filters[1..2]));
        behind.send(&suback(version, 4, &[1]));
        client.expect(&suback(version, 4, &[refused, 1, refused]));
    }
}

#[test]
fn denied_message_is_acknowledged_and_dropped() {
    let (mgate, upstream) = start("");
    let version = Version::V311;
    let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
    client.send(&publish(version, "other/a", "x"));
    client.send(&publish_with(version, (1, 21), "other/a", b"", "x"));
    client.expect(&ack(PUBACK, 21));
    client.send(&publish_with(version, (2, 22), "other/a", b"", "x"));
    client.expect(&ack(PUBREC, 22));
    client.send(&ack(PUBREL, 22));
    client.expect(&ack(PUBCOMP, 22));
    client.send(&publish(version, "open/a", "y"));
    behind.expect(&publish(version, "open/a", "y"));
}

#[test]
fn denied_message_is_refused_in_words_in_5() {
    let (mgate, upstream) = start("");
    let version = Version::V5;
    let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
    let refusal = |first, id: u8| {
        let words = reason_string("not authorized");
        packet(first, &[&[0, id, 0x87, u8::try_from(words.len()).unwrap()], words.as_slice()].concat())
    };
    client.send(&publish(version, "other/a", "x"));
    client.send(&publish_with(version, (1, 21), "other/a", b"", "x"));
    client.expect(&refusal(PUBACK, 21));
    client.send(&publish_with(version, (2, 22), "other/a", b"", "x"));
    client.expect(&refusal(PUBREC, 22));
    client.send(&publish(version, "open/a", "y"));
    behind.expect(&publish(version, "open/a", "y"));
}

#[test]
fn client_that_wants_no_words_is_told_the_code_alone() {
    let (mgate, upstream) = start("");
    let version = Version::V5;
    let quiet = connect(version, "dev-1").properties(b"\x17\0");
    let (mut client, _behind) = upstream.session(mgate.address(), &quiet, version);
    client.send(&publish_with(version, (1, 21), "other/a", b"", "x"));
    client.expect(&packet(PUBACK, &[0, 21, 0x87]));
}

#[test]
fn denied_message_disconnects_where_that_is_wanted() {
    let (mgate, upstream) = start("mqtt = { on_denied_publish = 'disconnect' }");
    let (mut client, mut behind) =
        upstream.session(mgate.address(), &connect(Version::V311, "dev-1"), Version::V311);
    client.send(&publish_with(Version::V311, (1, 21), "other/a", b"", "x"));
    assert_eq!(client.until_closed(), b"");
    assert_eq!(behind.until_closed(), b"");
    let (mut client, _behind) =
        upstream.session(mgate.address(), &connect(Version::V5, "dev-1"), Version::V5);
    client.send(&publish_with(Version::V5, (1, 21), "other/a", b"", "x"));
    assert_eq!(client.packet()[..5], [0x40, 0x15, 0, 21, 0x87]);
}

#[test]
fn retain_flag_is_authorized() {
    let (mgate, upstream) = start("");
    for version in BOTH {
        let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
        client.send(&retained(publish(version, "open/live", "x")));
        client.send(&publish(version, "open/live", "x"));
        behind.expect(&publish(version, "open/live", "x"));
        let kept = retained(publish(version, "open/kept", "x"));
        client.send(&kept);
        behind.expect(&kept);
    }
}

#[test]
fn denied_delivery_is_dropped_and_acknowledged() {
    let (mgate, upstream) = start("");
    for version in BOTH {
        let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
        for topic in ["open/secret", "other/a"] {
            behind.send(&publish(version, topic, "x"));
            behind.send(&publish_with(version, (1, 31), topic, b"", "x"));
            behind.expect(&ack(PUBACK, 31));
            behind.send(&publish_with(version, (2, 32), topic, b"", "x"));
            behind.expect(&ack(PUBREC, 32));
            behind.send(&ack(PUBREL, 32));
            behind.expect(&ack(PUBCOMP, 32));
        }
        behind.send(&publish(version, "open/a", "y"));
        client.expect(&publish(version, "open/a", "y"));
    }
}

#[test]
fn broker_does_not_send_a_denied_delivery_again() {
    let broker = Broker::mosquitto();
    let mgate = Mgate::start(&Files::new(&[("acl.toml", RULES)]), &config(broker.port, "", ""));
    let version = Version::V311;
    let keeping = connect(version, "dev-1").keep_session();
    let mut device = Peer::connected_with(mgate.address(), &keeping);
    assert_eq!(device.subscribe(version, &[("open/#", 1)]), [1]);
    let mut other = Peer::connected(broker.address(), version, "other");
    other.send(&publish_with(version, (1, 1), "open/secret", b"", "x"));
    other.expect(&ack(PUBACK, 1));
    device.expect_nothing_but_pong();
    drop(device);
    mgate.log.wait_for("the client closed the connection");
    other.send(&publish_with(version, (1, 2), "open/a", b"", "y"));
    other.expect(&ack(PUBACK, 2));
    let mut device = Peer::connected_with(mgate.address(), &keeping);
    assert!(device.packet().ends_with(b"y"));
    device.expect_nothing_but_pong();
    let mut seen_by_broker = Peer::connected_with(broker.address(), &keeping);
    assert!(seen_by_broker.packet().ends_with(b"y"), "only what was not acknowledged comes again");
    seen_by_broker.expect_nothing_but_pong();
}

#[test]
fn wildcard_in_a_client_id_never_widens() {
    let (mgate, upstream) = start("identity_charset = false");
    for (version, refused) in REFUSED {
        for client_id in ["dev-+", "dev-#", "dev-1/#", "+", "#"] {
            let mut client = mgate.dial();
            let connect = connect(version, client_id).bytes();
            client.send(&connect);
            let mut behind = upstream.accept();
            behind.expect(&connect);
            behind.send(&connack(version));
            client.expect(&connack(version));
            client.send(&publish(version, "own/dev-1/a", "x"));
            client.send(&publish(version, &format!("own/{}/a", client_id.replace(['+', '#'], "x")), "x"));
            client.send(&subscribe(version, 5, &[("own/+/a", 0), ("own/#", 0)]));
            let answer = client.packet();
            assert_eq!(answer[answer.len() - 2..], [refused; 2], "{client_id}");
            client.send(&PINGREQ);
            behind.expect(&PINGREQ);
        }
        let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
        client.send(&publish(version, "own/dev-2/a", "x"));
        client.send(&publish(version, "own/dev-1/a", "x"));
        behind.expect(&publish(version, "own/dev-1/a", "x"));
    }
}

#[test]
fn alias_of_a_denied_topic_stays_denied() {
    let (mgate, upstream) = start("");
    let (mut client, mut behind) = with_aliases(&mgate, &upstream);
    let by_alias = |qos_and_id, topic| publish_with(Version::V5, qos_and_id, topic, ALIAS_1, "x");
    for topic in ["other/a", ""] {
        client.send(&by_alias((1, 21), topic));
        assert_eq!(client.packet()[2..5], [0, 21, 0x87], "{topic}");
    }
    client.send(&by_alias((0, 0), "open/a"));
    behind.expect(&by_alias((0, 0), "open/a"));
    client.send(&by_alias((0, 0), ""));
    behind.expect(&by_alias((0, 0), ""));
}

#[test]
fn alias_that_the_upstream_never_saw_is_spelled_out() {
    let (mgate, upstream) = start("");
    let (mut client, mut behind) = with_aliases(&mgate, &upstream);
    let by_alias = |qos_and_id, topic| publish_with(Version::V5, qos_and_id, topic, ALIAS_1, "x");
    client.send(&by_alias((1, 21), "fast/a"));
    assert_eq!(client.packet()[2..5], [0, 21, 0x87], "no more than QoS 0 is allowed there");
    client.send(&by_alias((0, 0), ""));
    behind.expect(&by_alias((0, 0), "fast/a"));
}

#[test]
fn unknown_alias_is_a_protocol_error() {
    let (mgate, upstream) = start("");
    let (mut client, mut behind) = with_aliases(&mgate, &upstream);
    client.send(&publish_with(Version::V5, (0, 0), "", ALIAS_1, "x"));
    let last = client.until_closed();
    assert_eq!((last[0], last[2]), (0xe0, 0x82), "{last:02x?}");
    assert!(!behind.until_closed().contains(&0x30));
}

#[test]
fn each_message_over_websocket_is_authorized() {
    let upstream = Upstream::start();
    let text = config(upstream.port(), "", "").replace("'mqtt://127.0.0.1:0'", "'mqtt+ws://127.0.0.1:0'");
    let mgate = Mgate::start(&Files::new(&[("acl.toml", RULES)]), &text);
    for (version, refused) in REFUSED {
        let mut client = Peer::new(WebSocket::dial(mgate.address(), "/mqtt", 5));
        let connect = connect(version, "dev-1").bytes();
        client.send(&connect);
        let mut behind = upstream.accept();
        behind.expect(&connect);
        behind.send(&connack(version));
        client.expect(&connack(version));
        client.send(&[publish(version, "other/a", "x"), publish(version, "open/a", "y")].concat());
        behind.expect(&publish(version, "open/a", "y"));
        client.send(&subscribe(version, 3, &[("other/a", 0), ("open/a", 0)]));
        behind.expect(&subscribe(version, 3, &[("open/a", 0)]));
        behind.send(&suback(version, 3, &[0]));
        client.expect(&suback(version, 3, &[refused, 0]));
    }
}

#[test]
fn another_principal_cannot_take_a_live_client_id() {
    let (mgate, upstream) = start_with_users();
    for (version, refusal) in refusals(0x02, 0x85, "client identifier not valid") {
        let owner = connect(version, "shared").user("dev-1", PASSWORD);
        let (mut client, mut behind) = upstream.session(mgate.address(), &owner, version);
        let mut thief = mgate.dial();
        thief.send(&connect(version, "shared").user("dev-2", PASSWORD).bytes());
        assert_eq!(thief.until_closed(), refusal);
        assert!(upstream.try_accept().is_none());
        client.send(&PINGREQ);
        behind.expect(&PINGREQ);
    }
}

#[test]
fn same_principal_takes_its_session_over() {
    let broker = Broker::mosquitto();
    let mgate = Mgate::start(&Files::new(&[("acl.toml", RULES)]), &config(broker.port, "", ""));
    for version in BOTH {
        let mut older = Peer::connected(mgate.address(), version, "dev-1");
        let mut newer = Peer::connected(mgate.address(), version, "dev-1");
        older.until_closed();
        newer.expect_nothing_but_pong();
    }
}

fn start(more: &str) -> (Mgate, Upstream) {
    let upstream = Upstream::start();
    let mgate = Mgate::start(&Files::new(&[("acl.toml", RULES)]), &config(upstream.port(), more, ""));
    (mgate, upstream)
}

/// Two users with one password.
fn start_with_users() -> (Mgate, Upstream) {
    let upstream = Upstream::start();
    let users =
        format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n[users.dev-2]\npassword = '{PASSWORD_HASH}'\n");
    let files = Files::new(&[("acl.toml", RULES), ("users.toml", &users)]);
    let authn = "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n";
    let mgate = Mgate::start(&files, &config(upstream.port(), "authn = ['users']", authn));
    (mgate, upstream)
}

/// A session whose upstream takes topic aliases.
fn with_aliases(mgate: &Mgate, upstream: &Upstream) -> (Peer, Peer) {
    let mut client = mgate.dial();
    let connect = connect(Version::V5, "dev-1").bytes();
    client.send(&connect);
    let mut behind = upstream.accept();
    behind.expect(&connect);
    let connack = packet(0x20, b"\0\0\x03\x22\0\x0a");
    behind.send(&connack);
    client.expect(&connack);
    (client, behind)
}

/// CONNACK with a code, for each version.
fn refusals(v311: u8, v5: u8, words: &str) -> [(Version, Vec<u8>); 2] {
    let words = reason_string(words);
    let body = [&[0, v5, u8::try_from(words.len()).unwrap()], words.as_slice()].concat();
    [(Version::V311, vec![0x20, 2, 0, v311]), (Version::V5, packet(0x20, &body))]
}

/// The code that refuses a filter.
const REFUSED: [(Version, u8); 2] = [(Version::V311, 0x80), (Version::V5, 0x87)];

const ALIAS_1: &[u8] = b"\x23\0\x01";

const RULES: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect', 'publish', 'subscribe']
resources = ['topic:open/#', 'topic:own/${client_id}/#', 'client_id:*']
[[statements]]
effect = 'deny'
principals = ['*']
actions = ['connect']
resources = ['client_id:stranger']
[[statements]]
effect = 'deny'
principals = ['*']
actions = ['deliver']
resources = ['topic:open/secret']
[[statements]]
effect = 'deny'
principals = ['*']
actions = ['publish']
resources = ['topic:open/live']
conditions = { retain = true }
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['publish']
resources = ['topic:fast/#']
conditions = { qos_max = 0 }
";
