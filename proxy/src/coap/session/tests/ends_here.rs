//! Messages that are mirrored alone, as their route has no upstream.

use super::*;

#[test]
fn message_is_mirrored_and_answered() {
    let mut story = Story::that_ends_here();
    story.client("CON POST 1 t /channels/1/messages/a ?auth=good-1 format=110 =21");
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t"]);
    story.client("NON POST 2 u /channels/1/messages =22");
    assert!(story.client_hears()[0].starts_with("NON 2.04 "));
    let (one, other) = ("-1 publish channels/1/messages/a", "guest publish channels/1/messages");
    assert_eq!(story.mirrored(), [(one.into(), b"21".to_vec()), (other.into(), b"22".to_vec())]);
    assert_eq!(story.events(), ["opened -1"]);
    assert!(story.upstream_hears().is_empty() && story.session.poll_output().is_none());
}

#[test]
fn what_is_denied_is_not_mirrored() {
    let mut story = Story::that_ends_here();
    story.client("CON POST 1 t /channels/1/messages/secret =21");
    assert_eq!(story.client_hears(), ["ACK 4.03 1 t"]);
    assert!(story.mirrored().is_empty());
}

#[test]
fn message_that_comes_again_is_answered_again_and_nothing_else() {
    let mut story = Story::that_ends_here();
    for _ in 0..3 {
        story.client("CON POST 1 t /channels/1/messages =21");
        assert_eq!(story.client_hears(), ["ACK 2.04 1 t"]);
    }
    assert_eq!((story.asked().len(), story.mirrored().len()), (1, 1));
}

#[test]
fn there_is_nothing_to_be_asked_for() {
    let mut story = Story::that_ends_here();
    for (id, request) in
        ["GET", "GET 1 observe=0", "GET 1 observe=1", "GET 1 block2=1/0/2", "PUT", "FETCH 1 observe=0"]
            .into_iter()
            .enumerate()
    {
        let (method, options) = request.split_once(" 1").unwrap_or((request, ""));
        story.client(&format!("CON {method} {id} t /channels/1/messages{options}"));
        assert_eq!(story.client_hears(), [format!("ACK 4.05 {id} t")], "{request}");
    }
    story.client("CON POST 9 t if-match=1 /channels/1/messages =21");
    assert_eq!(story.client_hears(), ["ACK 4.02 9 t"]);
    assert!(story.asked().is_empty() && story.mirrored().is_empty() && story.upstream_hears().is_empty());
}

#[test]
fn body_in_blocks_is_one_message() {
    let mut story = Story::that_ends_here();
    story.client("CON POST 1 t /channels/1/messages block1=0/1/0 =0123456789abcdef");
    assert_eq!(story.client_hears(), ["ACK 2.31 1 t block1=0/1/0"]);
    assert!(story.mirrored().is_empty());
    story.client("CON POST 2 t /channels/1/messages block1=1/1/0 =ghijklmnopqrstuv");
    assert_eq!(story.client_hears(), ["ACK 2.31 2 t block1=1/1/0"]);
    story.client("CON POST 3 t /channels/1/messages block1=2/0/0 =wxyz");
    assert_eq!(story.client_hears(), ["ACK 2.04 3 t block1=2/0/0"]);
    let [(_, body)] = story.mirrored().try_into().unwrap();
    assert_eq!(body, b"0123456789abcdefghijklmnopqrstuvwxyz");
    assert_eq!(story.asked().len(), 1);
    story.client("CON POST 4 t /channels/1/messages block1=1/0/0 =gh");
    assert_eq!(story.client_hears(), ["ACK 4.08 4 t"]);
}

#[test]
fn message_is_answered_when_its_copy_is_stored() {
    let mut story = storing("CON");
    story.client("CON POST 1 t /channels/1/messages block1=0/0/2 =21");
    assert!(story.client_hears().is_empty() && story.upstream_hears().is_empty());
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t block1=0/0/2"]);
    story.client("CON POST 1 t /channels/1/messages block1=0/0/2 =21");
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t block1=0/0/2"]);
    assert_eq!((story.asked().len(), story.mirrored().len()), (1, 1));
}

#[test]
fn message_without_a_stored_copy_fails() {
    let mut story = storing("CON");
    story.input(Input::Stored(Err(Reason::new(Cause::Unavailable))));
    assert_eq!(story.client_hears(), ["ACK 5.03 1 t max-age=5"]);
    let mut late = storing("CON");
    late.pass(11 * SECOND);
    assert_eq!(late.client_hears(), ["ACK 5.03 1 t max-age=5"]);
    late.input(Input::Stored(Ok(())));
    assert!(late.client_hears().is_empty());
}

#[test]
fn copy_that_nobody_waits_for_any_more_fails_like_any() {
    let mut story = Story::with(|gate, options| {
        options.profile = Profile::Messages;
        gate.limits.store_timeout = 10 * MINUTE;
    });
    story.endpoint.upstream = None;
    story.seen.stores.store(true, Ordering::Relaxed);
    story.client("CON POST 1 t /channels/1/messages =21").pass(11 * MINUTE);
    assert_eq!(story.client_hears(), ["ACK 5.03 1 t max-age=5"]);
}

#[test]
fn who_wants_to_hear_of_failures_alone_hears_nothing_else() {
    let mut story = storing("NON");
    story.input(Input::Stored(Ok(())));
    assert!(story.client_hears().is_empty());
    let mut failing = storing("NON");
    failing.input(Input::Stored(Err(Reason::new(Cause::Unavailable))));
    assert!(failing.client_hears()[0].starts_with("NON 5.03 "));
    let mut taken = Story::that_ends_here();
    taken.client("NON POST 1 t /channels/1/messages none=2 =21");
    assert!(taken.client_hears().is_empty());
    assert_eq!(taken.mirrored().len(), 1);
}

#[test]
fn what_is_being_stored_is_answered_in_the_end() {
    let mut story = storing("CON");
    story.input(Input::Drain);
    assert_eq!(story.client_hears(), ["ACK 5.03 1 t max-age=5"]);
}

/// A message was published, and its copy is being stored; if it need not be confirmed, success is not to be told.
fn storing(kind: &str) -> Story {
    let mut story = Story::that_ends_here();
    story.seen.stores.store(true, Ordering::Relaxed);
    story.client(&match kind {
        "CON" => "CON POST 1 t /channels/1/messages block1=0/0/2 =21".to_owned(),
        _ => format!("{kind} POST 1 t /channels/1/messages none=2 =21"),
    });
    assert!(matches!(story.session.poll_output(), Some(Output::Store(_))));
    assert!(story.client_hears().is_empty());
    story
}
