use super::packets::{PINGREQ, PINGRESP, ack_why, publish};
use super::*;

#[test]
fn later_packets_wait_in_order_and_deliveries_flow() {
    let mut story = Story::open(Version::V5);
    let slow = publish(Version::V5, 0x32, "slow", 1, &[]);
    let later = [publish(Version::V5, 0x30, "a", 0, &[]), PINGREQ.to_vec()].concat();
    assert_eq!(story.client_sends(&[slow.clone(), later.clone()].concat()), slow.len());
    assert!(!story.session.wants(Side::Client));
    let delivery = publish(Version::V5, 0x30, "d", 0, &[]);
    story.upstream_sends(&delivery);
    assert_eq!(story.hears(), (delivery, Vec::new()));
    story.decides(Side::Client, allow());
    assert!(story.session.wants(Side::Client));
    story.client_sends(&later);
    assert_eq!(story.upstream_hears(), [slow, later].concat());
}

#[test]
fn no_decision_in_time_is_a_denial() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "slow", 1, &[]));
    story.waits(Limits::default().decision_timeout);
    let expected = ack_why(0x40, 1, 0x83, "no decision to be had");
    assert_eq!(story.hears(), (expected, Vec::new()));
}

#[test]
fn side_that_waits_for_a_decision_is_not_read() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "slow", 0, &[]));
    assert!(!story.session.wants(Side::Client), "its end would take the message with it");
    story.decides(Side::Client, allow());
    assert!(story.session.wants(Side::Client));
}

#[test]
fn decision_that_comes_too_late_changes_nothing() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "slow", 1, &[]));
    story.waits(Limits::default().decision_timeout);
    story.hears();
    story.decides(Side::Client, allow());
    assert_eq!(story.hears(), (Vec::new(), Vec::new()));
}

#[test]
fn slow_delivery_holds_deliveries_and_nothing_else() {
    let mut story = Story::open(Version::V5);
    let slow = publish(Version::V5, 0x30, "slow", 0, &[]);
    let next = PINGRESP.to_vec();
    assert_eq!(story.upstream_sends(&[slow.clone(), next.clone()].concat()), slow.len());
    assert!(!story.session.wants(Side::Upstream) && story.session.wants(Side::Client));
    story.client_sends(PINGREQ);
    assert_eq!(story.hears(), (Vec::new(), PINGREQ.to_vec()));
    story.decides(Side::Upstream, allow());
    story.upstream_sends(&next);
    assert_eq!(story.client_hears(), [slow, next].concat());
}

#[test]
fn client_that_waits_for_us_is_not_called_silent() {
    let mut story = Story::with(|gate, _| gate.limits.decision_timeout = Duration::from_secs(600));
    story.client_sends(&connect(Version::V5).bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(Version::V5, 0, &[]));
    let slow = publish(Version::V5, 0x30, "slow", 0, &[]);
    story.client_sends(&[slow, PINGREQ.to_vec()].concat());
    story.waits(Duration::from_secs(300));
    story.decides(Side::Client, allow());
    story.waits(Duration::from_secs(80));
    assert!(story.closing().is_none());
}
