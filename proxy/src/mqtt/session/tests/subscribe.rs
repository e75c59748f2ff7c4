use super::packets::{packet, suback, subscribe, text};
use super::*;

#[test]
fn allowed_subscribe_passes_as_it_came() {
    for version in BOTH {
        let mut story = Story::open(version);
        let bytes = subscribe(version, 1, &[("a/+", 0), ("$share/g/b/#", 1)]);
        story.client_sends(&bytes);
        assert_eq!(story.upstream_hears(), bytes);
        let answer = suback(version, 1, &[0, 1]);
        story.upstream_sends(&answer);
        assert_eq!(story.client_hears(), answer);
    }
}

#[test]
fn denied_filters_are_left_out_and_answered_in_their_places() {
    for (version, code) in [(Version::V311, 0x80), (Version::V5, 0x87)] {
        let mut story = Story::open(version);
        story.client_sends(&subscribe(version, 1, &[("secret/1", 0), ("a", 1), ("secret/2", 0), ("b", 2)]));
        assert_eq!(story.hears(), (Vec::new(), subscribe(version, 1, &[("a", 1), ("b", 2)])));
        story.upstream_sends(&suback(version, 1, &[1, 0x80]));
        assert_eq!(story.client_hears(), suback(version, 1, &[code, 1, code, 0x80]));
    }
}

#[test]
fn wholly_denied_subscribe_is_answered_at_once() {
    let mut story = Story::open(Version::V311);
    story.client_sends(&subscribe(Version::V311, 9, &[("secret/1", 0), ("secret/2", 0)]));
    assert_eq!(story.hears(), (suback(Version::V311, 9, &[0x80, 0x80]), Vec::new()));
    let mut story = Story::open(Version::V5);
    story.client_sends(&subscribe(Version::V5, 9, &[("$share/g/secret", 0)]));
    let why = [vec![0x1f], text(b"not authorized")].concat();
    let answer = packet(0x90, &[vec![0, 9, why.len() as u8], why, vec![0x87]].concat());
    assert_eq!(story.hears(), (answer, Vec::new()));
    assert_eq!(story.denials(), [(Action::Subscribe, "$share/g/secret".to_owned())]);
}

#[test]
fn policies_see_the_filter_without_its_share_group() {
    let shared = mgate_policies::TopicFilter::parse("$share/g/a/b").expect("well formed");
    assert_eq!((shared.as_str(), shared.share_group()), ("a/b", Some("g")));
}

#[test]
fn slow_decisions_go_filter_by_filter() {
    let mut story = Story::open(Version::V311);
    story.client_sends(&subscribe(Version::V311, 1, &[("slow/1", 0), ("a", 0), ("slow/2", 0)]));
    assert!(story.upstream_hears().is_empty());
    story.decides(Side::Client, deny());
    story.decides(Side::Client, allow());
    assert_eq!(story.upstream_hears(), subscribe(Version::V311, 1, &[("a", 0), ("slow/2", 0)]));
    story.upstream_sends(&suback(Version::V311, 1, &[0, 0]));
    assert_eq!(story.client_hears(), suback(Version::V311, 1, &[0x80, 0, 0]));
}

#[test]
fn suback_with_another_number_of_codes_is_the_upstreams_fault() {
    let mut story = Story::open(Version::V311);
    story.client_sends(&subscribe(Version::V311, 1, &[("secret", 0), ("a", 0)]));
    story.upstream_sends(&suback(Version::V311, 1, &[0, 0]));
    assert!(story.is_closed());
    assert_eq!(story.closing().map(|(_, blame)| blame), Some(Blame::Upstream));
}

#[test]
fn subscribes_that_wait_for_their_answer_are_bounded() {
    let mut story = Story::open(Version::V5);
    let closed_at = (1..1000).find(|&id| {
        story.client_sends(&subscribe(Version::V5, id, &[("secret", 0), ("a", 0)]));
        story.is_closed()
    });
    assert_eq!(closed_at, Some(65));
}
