use super::packets::{NewConnect, ack, alias, connack, connect, publish};
use super::*;

#[test]
fn allowed_delivery_passes_as_it_came() {
    for version in BOTH {
        let mut story = Story::open(version);
        let bytes = publish(version, 0x33, "a/b", 7, &[]);
        story.upstream_sends(&bytes);
        assert_eq!(story.hears(), (bytes, Vec::new()));
        assert!(story.seen.mirrored.lock().expect("free").is_empty(), "only what devices send is mirrored");
    }
}

#[test]
fn denied_delivery_is_dropped_and_acknowledged_upstream() {
    for version in BOTH {
        let mut story = Story::open(version);
        for (first, id) in [(0x30, 0), (0x32, 7), (0x34, 8)] {
            story.upstream_sends(&publish(version, first, "secret", id, &[]));
        }
        story.upstream_sends(&ack(0x62, 8));
        assert_eq!(story.hears(), (Vec::new(), [ack(0x40, 7), ack(0x50, 8), ack(0x70, 8)].concat()));
        assert_eq!(story.denials(), vec![(Action::Deliver, "secret".to_owned()); 3]);
    }
}

#[test]
fn alias_of_a_dropped_delivery_gets_its_topic_back() {
    let mut story = with_connect(&[0x22, 0, 1]);
    story.upstream_sends(&publish(Version::V5, 0x31, "unretained", 0, &alias(1)));
    assert!(story.client_hears().is_empty());
    story.upstream_sends(&publish(Version::V5, 0x30, "", 0, &alias(1)));
    assert_eq!(story.client_hears(), publish(Version::V5, 0x30, "unretained", 0, &alias(1)));
}

#[test]
fn upstream_over_the_clients_limits_is_to_blame() {
    let two = || [1, 2].map(|id| publish(Version::V5, 0x32, "a", id, &[])).concat();
    let cases: [(&'static [u8], Vec<u8>); 2] =
        [(&[0x22, 0, 1], publish(Version::V5, 0x30, "a", 0, &alias(2))), (&[0x21, 0, 1], two())];
    for (properties, deliveries) in cases {
        let mut story = with_connect(properties);
        story.upstream_sends(&deliveries);
        assert!(story.is_closed());
        assert_eq!(story.closing().map(|(_, blame)| blame), Some(Blame::Upstream));
    }
}

#[test]
fn acknowledged_delivery_frees_the_clients_receive_maximum() {
    let mut story = with_connect(&[0x21, 0, 1]);
    for id in 1..5 {
        story.upstream_sends(&publish(Version::V5, 0x34, "a", id, &[]));
        for (first, side) in [(0x50, Side::Client), (0x62, Side::Upstream), (0x70, Side::Client)] {
            let ack = ack(first, id);
            story.input(Input::Bytes(side, &ack));
        }
    }
    assert!(!story.is_closed());
}

fn with_connect(properties: &'static [u8]) -> Story {
    let mut story = Story::new();
    story.client_sends(&NewConnect { properties, ..connect(Version::V5) }.bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(Version::V5, 0, &[]));
    story.hears();
    story
}
