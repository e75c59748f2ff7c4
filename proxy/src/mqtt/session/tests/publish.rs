use super::packets::{ack, ack_why, alias, connack, connect, publish};
use super::*;
use crate::memory::tests::Counting;

#[test]
fn allowed_publish_passes_as_it_came_and_is_mirrored() {
    for version in BOTH {
        let mut story = Story::open(version);
        let bytes = [publish(version, 0x30, "a/b", 0, &[]), publish(version, 0x33, "a/b", 7, &[])].concat();
        assert_eq!(story.client_sends(&bytes), bytes.len());
        assert_eq!(story.upstream_hears(), bytes);
        let copy = ("a/b".to_owned(), b"payload".to_vec());
        assert_eq!(*story.seen.mirrored.lock().expect("free"), [copy.clone(), copy]);
    }
}

#[test]
fn denied_publish_is_acknowledged_with_the_reason_in_5() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "secret", 0, &[]));
    story.client_sends(&publish(Version::V5, 0x32, "secret", 7, &[]));
    story.client_sends(&publish(Version::V5, 0x34, "secret", 8, &[]));
    let expected = [ack_why(0x40, 7, 0x87, "not authorized"), ack_why(0x50, 8, 0x87, "not authorized")];
    assert_eq!(story.hears(), (expected.concat(), Vec::new()));
    assert_eq!(story.denials().len(), 3);
    assert!(story.seen.mirrored.lock().expect("free").is_empty());
}

#[test]
fn denied_publish_is_acknowledged_as_if_taken_in_3_1_1() {
    let mut story = Story::open(Version::V311);
    story.client_sends(&publish(Version::V311, 0x32, "secret", 7, &[]));
    story.client_sends(&publish(Version::V311, 0x34, "secret", 8, &[]));
    story.client_sends(&ack(0x62, 8));
    let expected = [ack(0x40, 7), ack(0x50, 8), ack(0x70, 8)].concat();
    assert_eq!(story.hears(), (expected, Vec::new()));
}

#[test]
fn denied_publish_closes_in_3_1_1_where_the_route_says_so() {
    let disconnect =
        |_: &mut Gate, options: &mut Options| options.on_denied_publish = OnDeniedPublish::Disconnect;
    let mut story = Story::with(disconnect).opened(Version::V311);
    story.client_sends(&publish(Version::V311, 0x30, "secret", 0, &[]));
    assert!(story.is_closed());
    let mut story = Story::with(disconnect).opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "secret", 0, &[]));
    assert!(!story.is_closed(), "MQTT 5.0 has words for it");
}

#[test]
fn retransmission_of_a_denied_qos_2_publish_is_denied_again() {
    let mut story = Story::open(Version::V311);
    story.client_sends(&publish(Version::V311, 0x34, "secret", 8, &[]));
    story.client_sends(&publish(Version::V311, 0x3c, "secret", 8, &[]));
    story.client_sends(&ack(0x62, 8));
    assert_eq!(story.hears(), ([ack(0x50, 8), ack(0x50, 8), ack(0x70, 8)].concat(), Vec::new()));
    let foreign = ack(0x62, 8);
    story.client_sends(&foreign);
    assert_eq!(story.upstream_hears(), foreign, "the exchange was over: this PUBREL is not ours");
}

#[test]
fn exchange_of_a_message_that_is_allowed_at_last_is_the_upstreams() {
    let mut story = Story::open(Version::V311);
    story.client_sends(&publish(Version::V311, 0x34, "slow", 8, &[]));
    story.decides(Side::Client, deny());
    story.client_sends(&publish(Version::V311, 0x3c, "slow", 8, &[]));
    story.decides(Side::Client, allow());
    story.hears();
    story.client_sends(&ack(0x62, 8));
    assert_eq!(story.hears(), (Vec::new(), ack(0x62, 8)));
}

#[test]
fn policies_see_qos_and_retain() {
    let mut story = Story::open(Version::V311);
    story.client_sends(&publish(Version::V311, 0x31, "unretained", 0, &[]));
    story.client_sends(&publish(Version::V311, 0x34, "qos1", 1, &[]));
    assert!(story.upstream_hears().is_empty());
    let passing =
        [publish(Version::V311, 0x30, "unretained", 0, &[]), publish(Version::V311, 0x32, "qos1", 1, &[])];
    story.client_sends(&passing.concat());
    assert_eq!(story.upstream_hears(), passing.concat());
}

#[test]
fn topic_alias_is_resolved_before_asking() {
    let mut story = with_aliases(2);
    story.client_sends(&publish(Version::V5, 0x32, "secret", 1, &alias(1)));
    story.client_sends(&publish(Version::V5, 0x32, "", 2, &alias(1)));
    let (to_client, to_upstream) = story.hears();
    assert!(to_upstream.is_empty());
    let denied = |id| ack_why(0x40, id, 0x87, "not authorized");
    assert_eq!(to_client, [denied(1), denied(2)].concat());
}

#[test]
fn alias_that_the_upstream_knows_passes_as_it_came() {
    let mut story = with_aliases(2);
    let bytes = [publish(Version::V5, 0x30, "a", 0, &alias(2)), publish(Version::V5, 0x30, "", 0, &alias(2))]
        .concat();
    story.client_sends(&bytes);
    assert_eq!(story.upstream_hears(), bytes);
    assert_eq!(story.seen.mirrored.lock().expect("free")[1].0, "a");
}

#[test]
fn topic_is_put_back_in_where_the_upstream_never_heard_of_the_alias() {
    let mut story = with_aliases(2);
    story.client_sends(&publish(Version::V5, 0x31, "unretained", 0, &alias(1)));
    assert!(story.upstream_hears().is_empty(), "denied: it was to be retained");
    story.client_sends(&publish(Version::V5, 0x30, "", 0, &alias(1)));
    assert_eq!(story.upstream_hears(), publish(Version::V5, 0x30, "unretained", 0, &alias(1)));
    let now_known = publish(Version::V5, 0x30, "", 0, &alias(1));
    story.client_sends(&now_known);
    assert_eq!(story.upstream_hears(), now_known);
}

#[test]
fn alias_out_of_range_or_unknown_is_a_protocol_error() {
    for (topic, number, code) in [("a", 3, 0x94), ("", 1, 0x82)] {
        let mut story = with_aliases(2);
        story.client_sends(&publish(Version::V5, 0x30, topic, 0, &alias(number)));
        let heard = story.client_hears();
        assert_eq!((heard[0], heard[2]), (0xe0, code));
        assert!(story.is_closed());
    }
}

#[test]
fn message_over_the_receive_maximum_of_the_upstream_is_a_protocol_error() {
    let mut story = with_connack(&[0x21, 0, 2]);
    for id in [1, 2] {
        story.client_sends(&publish(Version::V5, 0x32, "a", id, &[]));
    }
    story.upstream_sends(&ack(0x40, 1));
    story.client_sends(&publish(Version::V5, 0x32, "a", 3, &[]));
    assert!(!story.is_closed());
    story.hears();
    story.client_sends(&publish(Version::V5, 0x32, "a", 4, &[]));
    assert_eq!(story.client_hears()[2], 0x93);
    assert!(story.is_closed());
}

#[test]
fn denied_messages_do_not_count_against_the_receive_maximum() {
    let mut story = with_connack(&[0x21, 0, 1]);
    for id in 1..50 {
        story.client_sends(&publish(Version::V5, 0x34, "secret", id, &[]));
    }
    let allowed = publish(Version::V5, 0x34, "a", 50, &[]);
    story.client_sends(&allowed);
    assert_eq!(story.upstream_hears(), allowed);
}

#[test]
fn refusing_pubrec_ends_the_exchange() {
    let mut story = with_connack(&[0x21, 0, 1]);
    story.client_sends(&publish(Version::V5, 0x34, "a", 1, &[]));
    story.upstream_sends(&ack_why(0x50, 1, 0x97, "quota"));
    story.client_sends(&publish(Version::V5, 0x34, "a", 2, &[]));
    assert!(!story.is_closed());
}

#[test]
fn topic_that_makes_the_packet_too_large_for_the_upstream_is_not_put_back_in() {
    let mut story = with_connack(&[0x22, 0, 2, 0x27, 0, 0, 0, 20]);
    story.client_sends(&publish(Version::V5, 0x31, "unretained/and/long", 0, &alias(1)));
    story.client_sends(&publish(Version::V5, 0x30, "", 0, &alias(1)));
    assert!(story.upstream_hears().is_empty());
    assert!(story.is_closed());
}

#[test]
fn client_over_its_rate_is_read_more_slowly_and_loses_nothing() {
    let mut story = Story::with(|gate, _| gate.limits.messages_per_second = Some(2)).opened(Version::V311);
    let message = publish(Version::V311, 0x30, "a", 0, &[]);
    let burst = message.repeat(3);
    assert_eq!(story.client_sends(&burst), 2 * message.len());
    assert!(!story.session.wants(Side::Client));
    story.waits(Duration::from_millis(500));
    assert!(story.session.wants(Side::Client));
    assert_eq!(story.client_sends(&message), message.len());
    assert_eq!(story.upstream_hears(), burst);
}

#[test]
fn repeatable_answer_is_remembered_for_the_same_message_only() {
    let asked = Arc::new(Counting::for_ten_seconds());
    let mut story =
        Story::with(|gate, _| gate.policies = Chain::new(vec![asked.clone()])).opened(Version::V311);
    let before = asked.asked();
    let message = |first, topic| publish(Version::V311, first, topic, 1, &[]);
    for bytes in
        [message(0x30, "a"), message(0x30, "a"), message(0x32, "a"), message(0x31, "a"), message(0x30, "b")]
    {
        story.client_sends(&bytes);
    }
    assert_eq!(asked.asked() - before, 4);
    story.waits(Duration::from_secs(10));
    story.client_sends(&message(0x30, "a"));
    assert_eq!(asked.asked() - before, 5, "the grant lasted ten seconds");
}

#[test]
fn denial_is_not_remembered() {
    let mut story = Story::open(Version::V311);
    for _ in 0..3 {
        story.client_sends(&publish(Version::V311, 0x30, "secret", 0, &[]));
    }
    assert_eq!(story.denials().len(), 3);
}

#[test]
fn client_must_not_send_a_subscription_identifier() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[0x0b, 1]));
    assert!(story.is_closed());
    assert!(story.upstream_hears().is_empty());
}

fn with_aliases(maximum: u8) -> Story {
    with_connack(&[0x22, 0, maximum])
}

fn with_connack(properties: &[u8]) -> Story {
    let mut story = Story::new();
    story.client_sends(&connect(Version::V5).bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(Version::V5, 0, properties));
    story.hears();
    story
}
