//! What passes leaves exactly as it came: every packet, both ways, however its bytes are cut.

mod support;

use support::packets::{BOTH, Version, connack, connect, corpus, packet, publish_with, text};
use support::peer::{Peer, Upstream};
use support::websocket::WebSocket;
use support::{ACL, Files, Mgate, config};

#[test]
fn every_connect_and_its_answer_pass_unchanged() {
    let (mgate, upstream) = start();
    for version in BOTH {
        for (name, connect) in from_client(version, &[CONNECT]) {
            let mut client = Peer::dial(mgate.address_of("tcp"));
            client.send(&connect);
            upstream.accept().expect(&connect);
            println!("{name} passed");
        }
        for (name, connack) in corpus(version, CONNACK) {
            let mut client = Peer::dial(mgate.address_of("tcp"));
            let connect = connect(version, "dev-1").bytes();
            client.send(&connect);
            let mut upstream = upstream.accept();
            upstream.expect(&connect);
            upstream.send(&connack);
            client.expect(&connack);
            println!("{name} passed");
        }
    }
}

#[test]
fn every_packet_of_a_client_passes_unchanged() {
    let (mgate, upstream) = start();
    for version in BOTH {
        for (name, packet) in from_client(version, FROM_CLIENT) {
            let (mut client, mut upstream) = session(&mgate, &upstream, version, Through::Tcp);
            client.send(&packet);
            upstream.expect(&packet);
            println!("{name} passed");
        }
    }
}

#[test]
fn every_packet_of_an_upstream_passes_unchanged() {
    let (mgate, upstream) = start();
    for version in BOTH {
        for (name, packet) in from_upstream(version) {
            let (mut client, mut upstream) = session(&mgate, &upstream, version, Through::Tcp);
            upstream.send(&packet);
            client.expect(&packet);
            println!("{name} passed");
        }
    }
}

#[test]
fn message_with_every_property_that_a_client_may_send_passes_unchanged() {
    let (mgate, upstream) = start();
    let properties = [
        vec![0x01, 1, 0x02, 0, 0, 0, 9, 0x23, 0, 7],
        [vec![0x03], text("text/plain"), vec![0x08], text("answers/here")].concat(),
        vec![0x09, 0, 3, 0, 0xff, 0x80],
        [vec![0x26], text("unit"), text("mm"), vec![0x26], text("unit"), text("cm")].concat(),
    ];
    let message = publish_with(Version::V5, (2, 513), "a/b", &properties.concat(), "21.5");
    let (mut client, mut upstream) = session(&mgate, &upstream, Version::V5, Through::Tcp);
    client.send(&message);
    upstream.expect(&message);
    upstream.send(&message);
    client.expect(&message);
}

#[test]
fn message_without_topic_passes_unchanged_behind_its_alias() {
    let (mgate, upstream) = start();
    let messages = [
        publish_with(Version::V5, (0, 0), "a/b", b"\x23\x00\x01", "x"),
        publish_with(Version::V5, (0, 0), "", b"\x23\x00\x01", "y"),
    ]
    .concat();
    let (mut client, mut upstream) = session(&mgate, &upstream, Version::V5, Through::Tcp);
    client.send(&messages);
    upstream.expect(&messages);
    upstream.send(&messages);
    client.expect(&messages);
}

#[test]
fn packets_cut_at_every_byte_arrive_whole() {
    let (mgate, upstream) = start();
    for version in BOTH {
        let (up, down) = streams(version);
        let (mut client, mut upstream) = session(&mgate, &upstream, version, Through::Tcp);
        for cut in 1..up.len().max(down.len()) {
            let (first, rest) = up.split_at(cut.min(up.len()));
            client.send(first);
            let (first_down, rest_down) = down.split_at(cut.min(down.len()));
            upstream.send(first_down);
            client.send(rest);
            upstream.send(rest_down);
            upstream.expect(&up);
            client.expect(&down);
        }
    }
}

#[test]
fn packets_arrive_whole_byte_by_byte() {
    let (mgate, upstream) = start();
    for version in BOTH {
        let (up, down) = streams(version);
        let (mut client, mut upstream) = session(&mgate, &upstream, version, Through::Tcp);
        up.iter().for_each(|byte| client.send(&[*byte]));
        down.iter().for_each(|byte| upstream.send(&[*byte]));
        upstream.expect(&up);
        client.expect(&down);
    }
}

#[test]
fn fragments_of_websocket_messages_are_one_stream() {
    let (mgate, upstream) = start();
    for version in BOTH {
        let (up, down) = streams(version);
        for fragment in [1, 2, 7, 100, 1_000_000] {
            let (mut client, mut upstream) =
                session(&mgate, &upstream, version, Through::WebSocket(fragment));
            client.send(&up);
            upstream.expect(&up);
            upstream.send(&down);
            client.expect(&down);
            for piece in up.chunks(fragment.min(13)) {
                client.send(piece);
            }
            upstream.expect(&up);
        }
    }
}

#[test]
fn large_messages_pass_unchanged_both_ways() {
    let (mgate, upstream) = start();
    let payload: String = ('a'..='z').cycle().take(250_000).collect();
    let message = publish_with(Version::V311, (1, 9), "a/b", b"", &payload);
    for through in [Through::Tcp, Through::WebSocket(1000), Through::WebSocket(usize::MAX)] {
        let (mut client, mut upstream) = session(&mgate, &upstream, Version::V311, through);
        client.send(&message);
        upstream.expect(&message);
        upstream.send(&message);
        client.expect(&message);
    }
}

#[derive(Clone, Copy)]
enum Through {
    Tcp,
    /// With fragments of so many bytes.
    WebSocket(usize),
}

fn start() -> (Mgate, Upstream) {
    let upstream = Upstream::start();
    let tcp = config(upstream.port(), VERSIONS, "").replace("'devices'", "'tcp'");
    let tcp = tcp.replace(ACL, "");
    let websocket = tcp.replace("'tcp'", "'ws'").replace("'mqtt://127.0.0.1:0'", "'mqtt+ws://127.0.0.1:0'");
    let mgate = Mgate::start(&Files::new(&[("acl.toml", EVERYTHING)]), &format!("{tcp}{websocket}{ACL}"));
    (mgate, upstream)
}

/// A session in which both sides may use all that the version has.
fn session(mgate: &Mgate, upstream: &Upstream, version: Version, through: Through) -> (Peer, Peer) {
    let mut client = match through {
        Through::Tcp => Peer::dial(mgate.address_of("tcp")),
        Through::WebSocket(fragment) => Peer::new(WebSocket::dial(mgate.address_of("ws"), "/mqtt", fragment)),
    };
    let connect =
        connect(version, "dev-1").properties(&[b"\x22\xff\xff".as_slice(), METHOD].concat()).bytes();
    let connack = match version {
        Version::V5 => packet(0x20, b"\x00\x00\x03\x22\xff\xff"),
        _ => connack(version),
    };
    client.send(&connect);
    let mut upstream = upstream.accept();
    upstream.expect(&connect);
    upstream.send(&connack);
    client.expect(&connack);
    (client, upstream)
}

fn from_client(version: Version, types: &[u8]) -> Vec<(String, Vec<u8>)> {
    let packets = types.iter().flat_map(|packet_type| of_type(version, *packet_type));
    // [MQTT-3.1.3-8] is about versions before 5.0
    let is_refused = |name: &str| version != Version::V5 && name == "connect_zero_length_id_not_clean";
    packets.filter(|(name, _)| !NOT_FROM_CLIENT.contains(&name.as_str()) && !is_refused(name)).collect()
}

fn from_upstream(version: Version) -> Vec<(String, Vec<u8>)> {
    let packets = FROM_UPSTREAM.iter().flat_map(|packet_type| of_type(version, *packet_type));
    let is_sent = |name: &str, version| {
        !NOT_FROM_UPSTREAM.contains(&name) && (version == Version::V5 || !name.starts_with("disconnect"))
    };
    packets.filter(|(name, _)| is_sent(name, version)).collect()
}

fn of_type(version: Version, packet_type: u8) -> Vec<(String, Vec<u8>)> {
    if packet_type == AUTH && version != Version::V5 {
        return Vec::new();
    }
    corpus(version, packet_type)
}

/// Packets of all kinds that do not end a session, one behind the other: of a client, of an upstream.
fn streams(version: Version) -> (Vec<u8>, Vec<u8>) {
    let is_short = |(name, bytes): &(String, Vec<u8>)| {
        bytes.len() < 100 && !["disconnect", "auth"].iter().any(|start| name.starts_with(start))
    };
    let one_stream = |packets: Vec<(String, Vec<u8>)>| {
        packets.into_iter().filter(is_short).flat_map(|(_, bytes)| bytes).collect::<Vec<u8>>()
    };
    (one_stream(from_client(version, FROM_CLIENT)), one_stream(from_upstream(version)))
}

const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const AUTH: u8 = 15;
/// PUBLISH to PUBCOMP, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT, AUTH.
const FROM_CLIENT: &[u8] = &[3, 4, 5, 6, 7, 8, 10, 12, 14, AUTH];
/// PUBLISH to PUBCOMP, SUBACK, UNSUBACK, PINGRESP, DISCONNECT, AUTH.
const FROM_UPSTREAM: &[u8] = &[3, 4, 5, 6, 7, 9, 11, 13, 14, AUTH];

/// Packets that only servers may send, one that needs another before it, and one that no policy can allow.
const NOT_FROM_CLIENT: &[&str] = &[
    "auth_empty",
    "auth_success_with_method",
    "disconnect_0x8b_reason_only",
    "disconnect_0x9d_server_moved_reference",
    "publish_2_subscription_ids_payload_format",
    "publish_alias_empty_topic",
    "publish_all_properties",
    "publish_subscription_id_then_user_property",
    "publish_three_subscription_ids",
    "publish_two_subscription_ids",
    "subscribe_share_alone_is_a_filter",
];

/// Packets that only clients may send, and one that needs another before it.
const NOT_FROM_UPSTREAM: &[&str] = &[
    "auth_0x19_reason_user_props",
    "disconnect_0x04_reason_only",
    "disconnect_session_expiry_reason_user",
    "publish_alias_empty_topic",
];

const VERSIONS: &str = "mqtt = { versions = ['3.1', '3.1.1', '5.0'] }";

/// The property Authentication Method, without which there is no AUTH.
const METHOD: &[u8] = b"\x15\x00\x05SCRAM";

const EVERYTHING: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect', 'publish', 'subscribe']
resources = ['topic:#', 'topic:$x /#', 'client_id:*']
";
