use super::*;

#[test]
fn answer_waits_for_the_copy() {
    let mut story = storing();
    story.upstream("ACK 2.04 1 t");
    assert!(story.client_hears().is_empty());
    story.client("CON POST 1 t /channels/1/messages =1");
    assert!(story.client_hears().is_empty() && story.upstream_hears().is_empty());
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t"]);
    story.client("CON POST 1 t /channels/1/messages =1");
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t"]);
    assert_eq!(story.mirrored().len(), 1);
}

#[test]
fn copy_that_is_stored_first_holds_nothing_back() {
    let mut story = storing();
    story.input(Input::Stored(Ok(())));
    story.upstream("ACK 2.04 1 t");
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t"]);
}

#[test]
fn copy_that_is_not_stored_fails_the_request() {
    let mut story = storing();
    story.upstream("ACK 2.04 1 t");
    story.input(Input::Stored(Err(Reason::new(Cause::Unavailable))));
    assert_eq!(story.client_hears(), ["ACK 5.03 1 t max-age=5"]);
    let mut late = storing();
    late.upstream("ACK 2.04 1 t").pass(11 * SECOND);
    assert_eq!(late.client_hears(), ["ACK 5.03 1 t max-age=5"]);
    late.input(Input::Stored(Ok(())));
    assert!(late.client_hears().is_empty());
}

#[test]
fn separate_response_waits_too_and_is_acknowledged_where_it_is_dropped() {
    let mut story = storing();
    story.upstream("ACK 0.00 1 -").upstream("CON 2.04 900 t").upstream("CON 2.04 900 t");
    assert_eq!(story.client_hears(), ["ACK 0.00 1 -"]);
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), ["CON 2.04 900 t"]);
    story.client("ACK 0.00 900 -");
    assert_eq!(story.upstream_hears(), ["ACK 0.00 900 -"]);
    let mut failed = storing();
    failed.upstream("ACK 0.00 1 -").upstream("CON 2.04 900 t");
    failed.input(Input::Stored(Err(Reason::new(Cause::Unavailable))));
    assert!(failed.client_hears()[1].starts_with("NON 5.03 "));
    assert_eq!(failed.upstream_hears(), ["ACK 0.00 900 -"]);
}

#[test]
fn what_the_upstream_refused_waits_for_nothing() {
    let mut story = storing();
    story.upstream("ACK 4.04 1 t");
    assert_eq!(story.client_hears(), ["ACK 4.04 1 t"]);
}

#[test]
fn copies_are_told_apart_by_their_order() {
    let mut story = storing();
    story.client("CON POST 2 u /channels/1/messages =2");
    story.upstream("ACK 2.04 2 u").upstream("ACK 2.04 1 t");
    story.input(Input::Stored(Ok(())));
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t"]);
    story.input(Input::Stored(Err(Reason::new(Cause::Unavailable))));
    assert_eq!(story.client_hears(), ["ACK 5.03 2 u max-age=5"]);
}

#[test]
fn copy_is_given_up_in_time_behind_one_that_was_given_up() {
    let mut story = storing();
    story.upstream("ACK 2.04 1 t").pass(5 * SECOND);
    story.client("CON POST 2 u /channels/1/messages =2").upstream("ACK 2.04 2 u").pass(6 * SECOND);
    assert_eq!(story.client_hears(), ["ACK 5.03 1 t max-age=5"]);
    story.pass(5 * SECOND);
    assert_eq!(story.client_hears(), ["ACK 5.03 2 u max-age=5"]);
}

#[test]
fn error_that_ends_an_observation_is_no_message() {
    let mut story = Story::of_messages();
    story.seen.wants_deliveries.store(true, Ordering::Relaxed);
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2 =1");
    story.upstream("NON 2.05 900 t observe=3 =2").upstream("NON 4.04 901 t =gone");
    assert_eq!(story.client_hears().len(), 3);
    let delivered: Vec<_> = story.mirrored().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(delivered, [b"1", b"2"]);
}

/// A message was published, and its copy is being stored.
fn storing() -> Story {
    let mut story = Story::of_messages();
    story.seen.stores.store(true, Ordering::Relaxed);
    story.client("CON POST 1 t /channels/1/messages =1");
    assert!(matches!(story.session.poll_output(), Some(Output::Store(_))));
    assert_eq!(story.upstream_hears().len(), 1);
    story
}
