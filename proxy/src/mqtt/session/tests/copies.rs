//! Acknowledgements that wait until the mirror has stored a copy.

use super::packets::{
    ack, ack_why, connack, connect, packet, publish, suback, subscribe, text, unsuback, unsubscribe,
};
use super::*;

#[test]
fn acknowledgement_waits_until_the_copy_is_stored() {
    for version in BOTH {
        for (first, acknowledged) in [(0x32, 0x40), (0x34, 0x50)] {
            let mut story = Story::storing(version);
            story.client_sends(&publish(version, first, "a", 7, &[]));
            story.upstream_sends(&ack(acknowledged, 7));
            assert_eq!(story.client_hears(), [], "not stored yet");
            assert_eq!(story.stores(), 1);
            story.input(Input::Stored(Ok(())));
            assert_eq!(story.client_hears(), ack(acknowledged, 7));
        }
    }
}

#[test]
fn copy_that_is_stored_first_holds_nothing_back() {
    for version in BOTH {
        let mut story = Story::storing(version);
        story.client_sends(&publish(version, 0x32, "a", 7, &[]));
        story.input(Input::Stored(Ok(())));
        assert_eq!(story.client_hears(), []);
        story.upstream_sends(&ack(0x40, 7));
        assert_eq!(story.client_hears(), ack(0x40, 7));
    }
}

#[test]
fn copy_that_is_not_stored_is_a_refusal_in_5() {
    for is_acknowledged_first in [true, false] {
        let mut story = Story::storing(Version::V5);
        story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
        if is_acknowledged_first {
            story.upstream_sends(&ack(0x40, 7));
        }
        story.input(Input::Stored(Err(Reason::new(Cause::QuotaExceeded))));
        if !is_acknowledged_first {
            assert_eq!(story.client_hears(), [], "what the upstream says is not known yet");
            story.upstream_sends(&ack(0x40, 7));
        }
        assert_eq!(story.client_hears(), ack_why(0x40, 7, 0x97, "message not stored"));
        story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
        story.input(Input::Stored(Ok(())));
        story.upstream_sends(&ack(0x40, 7));
        assert_eq!(story.client_hears(), ack(0x40, 7), "the next try is another message");
    }
}

#[test]
fn exchange_that_failed_for_the_client_is_ended_towards_the_upstream() {
    let mut story = Story::storing(Version::V5);
    story.client_sends(&publish(Version::V5, 0x34, "a", 7, &[]));
    story.upstream_sends(&ack(0x50, 7));
    story.hears();
    story.input(Input::Stored(Err(Reason::new(Cause::Unavailable))));
    let refusal = ack_why(0x50, 7, 0x83, "message not stored");
    assert_eq!(story.hears(), (refusal, ack(0x62, 7)));
    assert_eq!(story.troubles(), ["not stored: no decision to be had"]);
    story.upstream_sends(&ack(0x70, 7));
    assert_eq!(story.client_hears(), [], "its exchange is over");
    story.upstream_sends(&ack(0x70, 7));
    assert_eq!(story.client_hears(), ack(0x70, 7), "that was one exchange");
}

#[test]
fn copy_that_is_not_stored_ends_the_session_without_acknowledgement_before_5() {
    let mut story = Story::storing(Version::V311);
    story.client_sends(&publish(Version::V311, 0x32, "a", 7, &[]));
    story.upstream_sends(&ack(0x40, 7));
    story.input(Input::Stored(Err(Reason::with_detail(Cause::Unavailable, "bus: away"))));
    assert_eq!(story.client_hears(), []);
    assert!(story.is_closed());
    let (why, blame) = story.closing().expect("an end");
    assert!(why.ends_with("bus: away") && blame == Blame::Us, "{why}");
}

#[test]
fn copy_that_is_not_stored_in_time_is_not_stored() {
    let mut story = Story::storing(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
    story.upstream_sends(&ack(0x40, 7));
    story.waits(Duration::from_secs(9));
    assert_eq!(story.client_hears(), []);
    story.waits(Duration::from_secs(2));
    assert_eq!(story.client_hears(), ack_why(0x40, 7, 0x83, "message not stored"));
    let outputs = std::iter::from_fn(|| story.session.poll_output());
    assert_eq!(outputs.filter(|output| matches!(output, Output::Forget)).count(), 1);
    story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
    story.input(Input::Stored(Ok(())));
    story.upstream_sends(&ack(0x40, 7));
    assert_eq!(story.client_hears(), ack(0x40, 7), "the next is another message");
    let mut story = Story::storing(Version::V311);
    story.client_sends(&publish(Version::V311, 0x32, "a", 7, &[]));
    story.waits(Duration::from_secs(11));
    assert!(story.is_closed());
}

#[test]
fn refusal_of_the_upstream_waits_for_nothing() {
    let mut story = Story::storing(Version::V5);
    story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
    let refusal = ack_why(0x40, 7, 0x87, "no");
    story.upstream_sends(&refusal);
    assert_eq!(story.client_hears(), refusal);
    story.input(Input::Stored(Err(Reason::new(Cause::Unavailable))));
    story.client_sends(&publish(Version::V5, 0x32, "a", 7, &[]));
    story.input(Input::Stored(Ok(())));
    story.upstream_sends(&ack(0x40, 7));
    assert_eq!(story.client_hears(), ack(0x40, 7), "the failure was that of an earlier message");
}

#[test]
fn message_that_is_sent_again_waits_for_its_last_copy() {
    let mut story = Story::storing(Version::V311);
    story.client_sends(&publish(Version::V311, 0x32, "a", 7, &[]));
    story.client_sends(&publish(Version::V311, 0x3a, "a", 7, &[]));
    story.upstream_sends(&ack(0x40, 7));
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), []);
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), ack(0x40, 7));
}

#[test]
fn no_message_passes_without_a_copy_whatever_its_packet_identifier() {
    for version in BOTH {
        let mut story = Story::storing(version);
        for first in [0x32, 0x34, 0x34, 0x3c] {
            story.client_sends(&publish(version, first, "a", 7, &[]));
        }
        assert_eq!((story.stores(), story.mirrored()), (4, 4));
        story.upstream_sends(&[ack(0x40, 7), ack(0x50, 7)].concat());
        story.input(Input::Stored(Ok(())));
        assert_eq!(story.client_hears(), ack(0x40, 7));
        (0..3).for_each(|_| _ = story.input(Input::Stored(Ok(()))));
        assert_eq!(story.client_hears(), ack(0x50, 7));
    }
}

#[test]
fn acknowledgement_of_another_kind_is_none() {
    let mut story = Story::storing(Version::V311);
    story.client_sends(&publish(Version::V311, 0x34, "a", 7, &[]));
    story.upstream_sends(&[ack(0x40, 7), ack(0x50, 7)].concat());
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), ack(0x50, 7));
}

#[test]
fn next_try_of_a_failed_exchange_waits_for_its_own_copy() {
    let mut story = Story::storing(Version::V5);
    story.client_sends(&publish(Version::V5, 0x34, "a", 7, &[]));
    story.upstream_sends(&ack(0x50, 7));
    story.input(Input::Stored(Err(Reason::new(Cause::Unavailable))));
    story.client_sends(&publish(Version::V5, 0x34, "a", 7, &[]));
    story.hears();
    story.upstream_sends(&[ack(0x70, 7), ack(0x50, 7)].concat());
    assert_eq!(story.client_hears(), []);
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), ack(0x50, 7));
}

#[test]
fn message_without_acknowledgement_waits_for_nothing() {
    let mut story = Story::storing(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[]));
    assert_eq!((story.stores(), story.mirrored()), (0, 1));
}

#[test]
fn client_with_many_copies_on_their_way_is_not_read() {
    let mut story = Story::storing(Version::V311);
    for id in 1..=1024 {
        let message = publish(Version::V311, 0x32, "a", id, &[]);
        assert_eq!(story.client_sends(&message), message.len());
    }
    let message = publish(Version::V311, 0x32, "a", 1025, &[]);
    assert_eq!(story.client_sends(&message), 0);
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_sends(&message), message.len());
}

#[test]
fn mirror_hears_what_a_sender_says_about_its_message() {
    let mut story = Story::open(Version::V5);
    let pair = |name: &[u8], value: &[u8]| [vec![0x26], text(name), text(value)].concat();
    let notes = [
        [vec![0x03], text(b"text/plain")].concat(),
        pair(b"content-encoding", b"gzip"),
        pair(b"traceparent", b"00-1-2-01"),
        pair(b"tracestate", b"a=b"),
        pair(b"other", b"thing"),
    ];
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &notes.concat()));
    let seen = story.seen.notes.lock().expect("free").clone();
    assert_eq!(seen, [["text/plain", "gzip", "00-1-2-01", "a=b"].map(str::to_owned)]);
}

#[test]
fn mirror_takes_deliveries_where_it_wants_them() {
    for (is_wanted, copies) in [(false, 0), (true, 1)] {
        let mut story = Story::open(Version::V5);
        story.seen.wants_deliveries.store(is_wanted, Ordering::Relaxed);
        story.upstream_sends(&publish(Version::V5, 0x30, "a", 0, &[]));
        assert_eq!(story.mirrored(), copies);
    }
}

#[test]
fn mirror_hears_of_a_session_from_its_beginning_to_its_end() {
    for version in BOTH {
        let mut story = Story::open(version);
        story.client_sends(&subscribe(version, 1, &[("a/#", 1), ("secret", 0), ("b", 0)]));
        story.upstream_sends(&suback(version, 1, &[1, 0x80]));
        story.client_sends(&unsubscribe(version, 2, "a/#"));
        story.upstream_sends(&unsuback(version, 2, if version.is_5() { &[0] } else { &[] }));
        story.client_sends(&packet(0xe0, &[]));
        let events = story.seen.events.lock().expect("free").clone();
        assert_eq!(events, ["opened", "denied secret", "subscribed a/#", "unsubscribed a/#", "closed"]);
    }
}

#[test]
fn mirror_is_shown_packets_without_credentials() {
    let mut story = Story::new();
    story.client_sends(&connect(Version::V5).bytes());
    story.upstream_opens();
    let connack = connack(Version::V5, 0, &[]);
    story.upstream_sends(&connack);
    let message = publish(Version::V5, 0x30, "a", 0, &[]);
    story.client_sends(&message);
    let frames = story.seen.frames.lock().expect("free").clone();
    assert_eq!(frames, [None, Some(connack), Some(message)]);
}

impl Story {
    /// A session whose mirror stores what it takes.
    fn storing(version: Version) -> Self {
        let story = Self::open(version);
        story.seen.stores.store(true, Ordering::Relaxed);
        story
    }

    /// The copies that were handed over to be stored.
    fn stores(&mut self) -> usize {
        let outputs = std::iter::from_fn(|| self.session.poll_output());
        outputs.filter(|output| matches!(output, Output::Store(_))).count()
    }

    fn mirrored(&self) -> usize {
        self.seen.mirrored.lock().expect("free").len()
    }
}
