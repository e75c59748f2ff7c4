use super::packets::{
    DISCONNECT, PINGREQ, PINGRESP, ack, connack, connect, disconnect_why, packet, publish, suback, subscribe,
};
use super::*;

#[test]
fn first_packet_must_be_connect() {
    let strangers = [
        publish(Version::V311, 0x30, "t", 0, &[]),
        PINGREQ.to_vec(),
        subscribe(Version::V311, 1, &[("a", 0)]),
    ];
    for stranger in strangers {
        let mut story = Story::new();
        story.client_sends(&stranger);
        assert!(story.is_closed());
        assert_eq!(story.hears(), (Vec::new(), Vec::new()));
    }
}

#[test]
fn second_connect_ends_the_session() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&connect(Version::V5).bytes());
    assert_eq!(story.hears(), (disconnect_why(0x82, "protocol error"), Vec::new()));
    assert!(story.is_closed());
}

#[test]
fn client_must_not_send_what_only_servers_send() {
    let foreign =
        [connack(Version::V5, 0, &[]), suback(Version::V5, 1, &[0]), PINGRESP.to_vec(), packet(0xf0, &[])];
    for packet in foreign {
        let mut story = Story::open(Version::V5);
        story.client_sends(&packet);
        assert!(story.is_closed());
        assert!(story.upstream_hears().is_empty());
        assert_eq!(story.closing().map(|(_, blame)| blame), Some(Blame::Client));
    }
}

#[test]
fn upstream_must_not_send_what_only_clients_send() {
    let foreign = [
        connect(Version::V311).bytes(),
        subscribe(Version::V311, 1, &[("a", 0)]),
        PINGREQ.to_vec(),
        DISCONNECT.to_vec(),
        connack(Version::V311, 0, &[]),
    ];
    for packet in foreign {
        let mut story = Story::open(Version::V311);
        story.upstream_sends(&packet);
        assert!(story.is_closed());
        assert!(story.client_hears().is_empty());
        assert_eq!(story.closing().map(|(_, blame)| blame), Some(Blame::Upstream));
    }
}

#[test]
fn first_packet_of_the_upstream_must_be_connack() {
    let mut story = Story::new();
    story.client_sends(&connect(Version::V311).bytes());
    story.upstream_opens();
    story.upstream_sends(&publish(Version::V311, 0x30, "t", 0, &[]));
    assert_eq!(story.client_hears(), connack(Version::V311, 0x03, &[]));
    assert!(story.is_closed());
}

#[test]
fn malformed_packet_is_not_passed_on_and_ends_the_session() {
    let mut story = Story::open(Version::V5);
    let good = publish(Version::V5, 0x30, "t", 0, &[]);
    let wildcard = publish(Version::V5, 0x30, "t/#", 0, &[]);
    story.client_sends(&[good.clone(), wildcard].concat());
    assert_eq!(story.hears(), (disconnect_why(0x81, "malformed packet"), good));
    assert!(story.is_closed());
}

#[test]
fn length_over_the_limit_ends_the_session_before_the_body_comes() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(story.client_hears(), disconnect_why(0x95, "packet too large"));
    for connect in [&[0x10, 0xff, 0xff, 0xff, 0x7f], &[0x10, 0x80, 0x80, 0x08, 0]] {
        let mut story = Story::new();
        story.client_sends(connect);
        assert!(story.is_closed(), "{connect:02x?}");
    }
}

#[test]
fn client_identifier_longer_than_its_packet_is_refused() {
    let body = [b"\0\x04MQTT\x04\x02\0\x3c".to_vec(), vec![0xff, 0xff], b"dev1".to_vec()].concat();
    let mut story = Story::new();
    story.client_sends(&packet(0x10, &body));
    assert!(story.is_closed());
    assert!(story.session.poll_output().is_none(), "nothing is dialled");
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_session() {
    for version in BOTH {
        let mut story = Story::open(version);
        story.waits(Duration::from_secs(89));
        assert!(!story.is_closed());
        story.client_sends(PINGREQ);
        story.waits(Duration::from_secs(89));
        assert!(!story.is_closed());
        story.waits(Duration::from_secs(1));
        assert!(story.is_closed());
        let expected = if version.is_5() { disconnect_why(0x8d, "keep alive timeout") } else { Vec::new() };
        assert_eq!(story.hears(), (expected, PINGREQ.to_vec()));
    }
}

#[test]
fn dribbled_bytes_are_no_sign_of_life() {
    let mut story = Story::open(Version::V311);
    for _ in 0..3 {
        story.waits(Duration::from_secs(30));
        story.client_sends(&[0x30, 5, 0]);
    }
    assert!(story.is_closed());
}

#[test]
fn client_that_could_not_be_read_is_not_called_silent() {
    let mut story = Story::open(Version::V311);
    story.waits(Duration::from_secs(80));
    story.session.excuse_silence(story.now);
    story.waits(Duration::from_secs(80));
    assert!(!story.is_closed());
}

#[test]
fn keep_alive_of_the_upstream_replaces_the_clients() {
    let mut story = Story::new();
    story.client_sends(&connect(Version::V5).bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(Version::V5, 0, &[0x13, 0, 10]));
    story.waits(Duration::from_secs(15));
    assert!(story.is_closed());
}

#[test]
fn client_without_keep_alive_may_be_silent_until_the_idle_timeout() {
    let silent = || packets::NewConnect { keep_alive_secs: 0, ..connect(Version::V311) }.bytes();
    for (idle_timeout, is_closed) in [(None, false), (Some(Duration::from_secs(3600)), true)] {
        let mut story = Story::with(|gate, _| gate.limits.idle_timeout = idle_timeout);
        story.client_sends(&silent());
        story.upstream_opens();
        story.upstream_sends(&connack(Version::V311, 0, &[]));
        story.waits(Duration::from_secs(3600));
        assert_eq!(story.is_closed(), is_closed);
    }
}

#[test]
fn disconnect_goes_upstream_before_the_end() {
    let mut story = Story::open(Version::V311);
    story.client_sends(DISCONNECT);
    assert_eq!(story.upstream_hears(), DISCONNECT);
    assert!(story.is_closed());
    assert_eq!(story.closing().map(|(_, blame)| blame), Some(Blame::Nobody));
}

#[test]
fn client_that_vanishes_says_no_disconnect_upstream() {
    let mut story = Story::open(Version::V311);
    story.input(Input::Closed(Side::Client, None));
    assert!(story.is_closed());
    assert!(story.upstream_hears().is_empty(), "the upstream must publish the will");
}

#[test]
fn disconnect_of_the_upstream_reaches_a_client_of_5() {
    let mut story = Story::open(Version::V5);
    let taken_over = packet(0xe0, &[0x8e]);
    story.upstream_sends(&taken_over);
    assert_eq!(story.client_hears(), taken_over);
    assert!(story.is_closed());
}

#[test]
fn drain_says_server_shutting_down_in_5() {
    for version in BOTH {
        let mut story = Story::open(version);
        story.input(Input::Drain);
        let expected = if version.is_5() { disconnect_why(0x8b, "the gateway stops") } else { Vec::new() };
        assert_eq!(story.hears(), (expected, Vec::new()));
        assert!(story.is_closed());
    }
}

#[test]
fn closed_session_takes_nothing_more() {
    let mut story = Story::open(Version::V311);
    story.input(Input::Drain);
    story.hears();
    assert_eq!(story.client_sends(&publish(Version::V311, 0x30, "t", 0, &[])), 0);
    story.input(Input::Stalled(Side::Client));
    assert_eq!(story.hears(), (Vec::new(), Vec::new()));
    assert!(story.session.poll_timeout().is_none());
}

#[test]
fn answers_and_pings_pass_both_ways_as_they_came() {
    let mut story = Story::open(Version::V311);
    let up =
        [PINGREQ.to_vec(), ack(0x40, 1), ack(0x50, 2), ack(0x70, 2), packet(0xa2, b"\0\x09\0\x01a")].concat();
    let down = [PINGRESP.to_vec(), ack(0x40, 3), ack(0x62, 2), packet(0xb0, &[0, 9])].concat();
    story.client_sends(&up);
    story.upstream_sends(&down);
    assert_eq!(story.hears(), (down, up));
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut story = Story::open(Version::V5);
    let bytes = publish(Version::V5, 0x32, "a/b", 1, &[]);
    for end in 1..bytes.len() {
        assert_eq!(story.client_sends(&bytes[..end]), 0);
    }
    assert_eq!(story.client_sends(&bytes), bytes.len());
    assert_eq!(story.upstream_hears(), bytes);
}
