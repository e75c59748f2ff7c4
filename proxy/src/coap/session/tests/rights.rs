use super::waiting::allow;
use super::*;

#[test]
fn withdrawn_right_ends_the_observation() {
    let mut story = Story::new();
    story.client("CON GET 1 t /changing observe=0").upstream("ACK 2.05 1 t observe=2");
    story.client("CON GET 2 u /a observe=0").upstream("ACK 2.05 2 u observe=2");
    story.client_hears();
    story.upstream_hears();
    story.asked();
    story.withdraw();
    let heard = story.client_hears();
    assert!(heard.len() == 1 && heard[0].starts_with("NON 4.03 ") && heard[0].ends_with(" t"), "{heard:?}");
    assert_eq!(story.asked().len(), 2);
    let told = story.upstream_hears();
    assert!(
        told.len() == 1 && told[0].starts_with("NON GET ") && told[0].ends_with(" t observe=1 /changing")
    );
    story.upstream("CON 2.05 900 t observe=3 =x").upstream("CON 2.05 901 u observe=3 =x");
    assert_eq!(story.client_hears(), ["CON 2.05 901 u observe=3 =x"]);
    assert_eq!(story.upstream_hears(), ["RST 0.00 900 -"]);
    // what the upstream still says of it is no answer to something else
    story.client("CON GET 3 t /a observe=0").upstream("NON 2.05 902 t observe=4 =x");
    assert_eq!(story.client_hears(), ["ACK 4.00 3 t"]);
}

#[test]
fn right_that_is_withdrawn_before_the_upstream_answers_is_denied() {
    let mut story = Story::new();
    story.client("CON GET 1 t /changing observe=0").upstream_hears();
    story.withdraw();
    assert_eq!(story.client_hears(), ["ACK 4.03 1 t"]);
    story.upstream("ACK 2.05 1 t observe=2 =x").upstream("NON 2.05 900 t observe=3 =x");
    assert!(story.client_hears().is_empty());
}

#[test]
fn client_is_identified_anew() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a ?auth=good1").upstream("ACK 2.05 1 t");
    assert_eq!(story.session.clients().count(), 1);
    story.input(Input::Reauthorize);
    assert_eq!(story.session.clients().count(), 0);
    story.client("CON GET 2 t /a ?auth=good1");
    assert_eq!(story.asked().len(), 2);
}

#[test]
fn client_of_what_goes_on_counts_after_another_has_spoken() {
    let clients = |story: &Story| -> Vec<_> {
        story.session.clients().map(|client| client.principal.id.to_string()).collect()
    };
    let mut story = Story::new();
    story.client("CON PUT 1 t /a ?auth=good1 block1=0/1/0 =0123456789abcdef");
    story.upstream("ACK 2.31 1 t block1=0/1/0").client("CON GET 2 u /a ?auth=bad");
    assert_eq!(clients(&story), ["1"]);
    story.input(Input::Reauthorize);
    story.client("CON PUT 3 t /a ?auth=good1 block1=1/0/0 =x");
    assert_eq!(story.client_hears().last().unwrap(), "ACK 4.08 3 t");
    let mut open = Story::new();
    open.client("CON GET 1 t /a ?auth=good1").client("CON GET 2 u /a ?auth=bad");
    assert_eq!(clients(&open), ["1"]);
}

#[test]
fn what_waits_is_asked_about_from_the_start() {
    let mut story = Story::new();
    story.client("CON GET 1 t /slow/changing");
    story.withdraw();
    assert_eq!(story.client_hears(), ["ACK 4.03 1 t"]);
    story.input(Input::Decided(Side::Client, allow()));
    assert!(story.upstream_hears().is_empty());
}

#[test]
fn notification_that_nobody_is_asked_about_waits_for_the_review() {
    let reviewed = || {
        let mut story = Story::with(|_, options| options.deliveries = crate::coap::Deliveries::Pass);
        story.client("CON GET 1 t /slow observe=0");
        story.input(Input::Decided(Side::Client, allow()));
        story.input(Input::Upstream(Ok(())));
        story.upstream("ACK 2.05 1 t observe=2").client("CON GET 2 u /a observe=0");
        story.upstream("ACK 2.05 2 u observe=2").client_hears();
        story.input(Input::Reauthorize);
        story.upstream("NON 2.05 900 u observe=3 =x").upstream("CON 2.05 901 t observe=3 =x");
        story.upstream("CON 2.05 901 t observe=3 =x").upstream_hears();
        assert_eq!(story.client_hears(), ["NON 2.05 900 u observe=3 =x"]);
        story
    };
    let mut allowed = reviewed();
    allowed.input(Input::Reviewed(allow()));
    assert_eq!(allowed.client_hears(), ["CON 2.05 901 t observe=3 =x"]);
    let mut denied = reviewed();
    denied.input(Input::Reviewed(Decision::Deny(Reason::new(Cause::NotAuthorized))));
    let heard = denied.client_hears();
    assert!(heard.len() == 1 && heard[0].starts_with("NON 4.03 ") && heard[0].ends_with(" t"), "{heard:?}");
    assert_eq!(denied.upstream_hears().last().unwrap(), "RST 0.00 901 -");
}

#[test]
fn notification_that_waits_for_a_decision_waits_for_the_review_where_there_is_none_any_more() {
    for is_allowed in [true, false] {
        let mut story = Story::new();
        story.client("CON GET 1 t /slow observe=0");
        story.input(Input::Decided(Side::Client, allow()));
        story.input(Input::Upstream(Ok(())));
        story.upstream("ACK 2.05 1 t observe=2").upstream("NON 2.05 900 t observe=3 =x").client_hears();
        story.endpoint.options.deliveries = crate::coap::Deliveries::Pass;
        story.input(Input::Reauthorize);
        assert!(story.client_hears().is_empty());
        let decision = if is_allowed { allow() } else { Decision::Deny(Reason::new(Cause::NotAuthorized)) };
        story.input(Input::Reviewed(decision));
        let told = story.client_hears().iter().any(|heard| heard == "NON 2.05 900 t observe=3 =x");
        assert_eq!(told, is_allowed);
    }
}

#[test]
fn first_notification_does_not_come_too_late_by_the_review() {
    let mut story = Story::with(|gate, options| {
        gate.limits.upstream_timeout = 2 * SECOND;
        options.deliveries = crate::coap::Deliveries::Pass;
    });
    story.client("CON GET 1 t /slow observe=0");
    story.input(Input::Decided(Side::Client, allow()));
    story.input(Input::Upstream(Ok(())));
    story.input(Input::Reauthorize);
    story.upstream("ACK 2.05 1 t observe=2 =x").pass(3 * SECOND);
    assert!(story.client_hears().is_empty());
    story.input(Input::Reviewed(allow()));
    assert!(story.client_hears().is_empty(), "the observation is asked about, too");
    story.input(Input::Reviewed(allow()));
    assert_eq!(story.client_hears(), ["ACK 2.05 1 t observe=2 =x"]);
}

#[test]
fn oldest_request_is_asked_about_first() {
    let mut story = Story::new();
    (1..4).for_each(|id| _ = story.client(&format!("CON GET {id} t{id} /{id}")));
    let before = story.asked();
    story.input(Input::Reauthorize);
    assert_eq!(story.asked(), before);
}

#[test]
fn first_notification_waits_for_the_review_of_its_request() {
    for is_allowed in [true, false] {
        let mut story = Story::of_messages();
        story.client("CON GET 1 t /channels/1/messages/slow observe=0");
        story.input(Input::Decided(Side::Client, allow()));
        story.input(Input::Upstream(Ok(())));
        story.input(Input::Reauthorize);
        story.upstream("ACK 2.05 1 t observe=2 =x");
        story.input(Input::Decided(Side::Upstream, allow()));
        assert!(story.client_hears().is_empty());
        let decision = if is_allowed { allow() } else { Decision::Deny(Reason::new(Cause::NotAuthorized)) };
        story.input(Input::Reviewed(decision));
        story.input(Input::Decided(Side::Upstream, allow()));
        let expected = if is_allowed { "ACK 2.05 1 t observe=2 =x" } else { "ACK 4.03 1 t" };
        assert_eq!(story.client_hears(), [expected]);
    }
}

#[test]
fn review_that_takes_too_long_ends_what_was_allowed() {
    let mut story = Story::new();
    story.client("CON GET 1 t /slow observe=0");
    story.input(Input::Decided(Side::Client, allow()));
    story.input(Input::Upstream(Ok(())));
    story.upstream("ACK 2.05 1 t observe=2");
    story.input(Input::Decided(Side::Upstream, allow()));
    assert_eq!(story.client_hears().len(), 1);
    story.input(Input::Reauthorize);
    story.pass(6 * SECOND);
    assert!(story.client_hears()[0].starts_with("NON 5.03 "));
    assert!(story.session.observations.is_empty());
}

#[test]
fn answer_to_a_request_that_is_allowed_no_more_is_not_delivered() {
    let mut story = Story::new();
    story
        .client("CON GET 1 t /changing")
        .client("CON GET 2 u /a")
        .client("CON PUT 3 v /changing block1=1/0/0 =x");
    story
        .client("CON PUT 4 w /changing block1=0/1/0 =0123456789abcdef")
        .upstream("ACK 2.31 4 w block1=0/1/0");
    story.client("CON PUT 5 w /changing block1=1/0/0 =x");
    story.client_hears();
    story.events();
    story.withdraw();
    assert_eq!(sorted(story.client_hears()), ["ACK 4.03 1 t", "ACK 4.03 5 w"]);
    assert_eq!(story.events().len(), 2, "each is told of");
    story.upstream("ACK 2.05 1 t =x").upstream("ACK 2.04 5 w block1=1/0/0").upstream("ACK 2.05 2 u =x");
    assert_eq!(story.client_hears(), ["ACK 2.05 2 u =x"]);
    story.client("CON GET 1 t /changing");
    assert_eq!(story.client_hears(), ["ACK 4.03 1 t"]);
}

#[test]
fn response_that_comes_apart_and_the_rest_of_one_are_not_delivered_either() {
    let mut story = Story::new();
    story.client("CON GET 1 t /changing").upstream("ACK 0.00 1 -");
    story.client("NON GET 2 u /changing").client_hears();
    story.withdraw();
    let heard = sorted(story.client_hears());
    assert!(heard.len() == 2 && heard.iter().all(|heard| heard.starts_with("NON 4.03 ")), "{heard:?}");
    story.upstream_hears();
    story.upstream("CON 2.05 900 t =x").upstream("NON 2.05 901 u =x");
    assert!(story.client_hears().is_empty());
    assert_eq!(story.upstream_hears(), ["RST 0.00 900 -", "RST 0.00 901 -"]);
    let mut rest = Story::new();
    rest.client("CON GET 1 t /changing").upstream("ACK 2.05 1 t block2=0/1/0 =0123456789abcdef");
    rest.client("CON GET 2 t /changing block2=1/0/0").client_hears();
    rest.withdraw();
    assert_eq!(rest.client_hears(), ["ACK 4.03 2 t"]);
}

#[test]
fn request_is_asked_about_again_as_it_came() {
    let mut story = Story::new();
    story
        .client("CON PUT 1 t /a ?auth=good1 =21")
        .client("NON PUT 2 u /a ?auth=good1 block1=0/1/0 =0123456789abcdef");
    let before = story.asked();
    story.input(Input::Reauthorize);
    assert_eq!(sorted(story.asked()), sorted(before));
    assert_eq!(story.upstream_hears().len(), 2, "neither is sent again");
}

#[test]
fn answer_waits_until_it_is_known_whether_it_may_be_delivered() {
    let mut allowed = in_doubt();
    allowed.input(Input::Reviewed(allow()));
    assert_eq!(allowed.client_hears(), ["CON 2.05 900 t =x"]);
    allowed.client("ACK 0.00 900 -");
    assert_eq!(allowed.upstream_hears(), ["ACK 0.00 900 -"]);
    let mut denied = in_doubt();
    denied.input(Input::Reviewed(Decision::Deny(Reason::new(Cause::NotAuthorized))));
    let mut late = in_doubt();
    late.pass(6 * SECOND);
    for (mut story, code) in [(denied, "4.03"), (late, "5.03")] {
        let heard = story.client_hears();
        assert!(heard.len() == 1 && heard[0].starts_with(&format!("NON {code} ")), "{heard:?}");
        assert_eq!(story.upstream_hears(), ["ACK 0.00 900 -"], "it need not send that again");
        story.upstream("CON 2.05 900 t =x");
        assert_eq!(story.upstream_hears(), ["ACK 0.00 900 -"], "it did not hear that");
    }
}

#[test]
fn changes_in_a_row_give_no_more_time() {
    let mut story = in_doubt();
    for _ in 0..2 {
        story.pass(2 * SECOND);
        story.input(Input::Reauthorize);
    }
    story.pass(2 * SECOND);
    let heard = story.client_hears();
    assert!(heard.len() == 1 && heard[0].starts_with("NON 5.03 "), "{heard:?}");
}

#[test]
fn request_that_waits_for_its_socket_is_sent_once_it_is_allowed_again() {
    for is_allowed in [true, false] {
        let mut story = Story::new();
        story.input(Input::Datagram(Side::Client, &m("CON GET 1 t /slow")));
        story.input(Input::Decided(Side::Client, allow()));
        story.input(Input::Reauthorize);
        story.input(Input::Upstream(Ok(())));
        assert!(story.upstream_hears().is_empty());
        let decision = if is_allowed { allow() } else { Decision::Deny(Reason::new(Cause::NotAuthorized)) };
        story.input(Input::Reviewed(decision));
        let sent: &[&str] = if is_allowed { &["CON GET 1 t /slow"] } else { &[] };
        assert_eq!(story.upstream_hears(), sent);
    }
}

#[test]
fn decision_about_a_request_is_none_about_another_with_its_identifier() {
    let mut story = in_doubt();
    story.client("CON GET 1 t /a").client_hears();
    story.input(Input::Reviewed(Decision::Deny(Reason::new(Cause::NotAuthorized))));
    story.upstream("ACK 2.05 1 t =new");
    assert_eq!(story.client_hears(), ["ACK 2.05 1 t =new"]);
}

#[test]
fn copy_that_is_stored_answers_nobody_who_is_in_doubt() {
    let mut story = Story::that_ends_here();
    story.seen.stores.store(true, Ordering::Relaxed);
    story.client("CON POST 1 t /channels/1/messages/slow =1");
    story.input(Input::Decided(Side::Client, allow()));
    story.input(Input::Reauthorize);
    story.input(Input::Stored(Ok(())));
    assert!(story.client_hears().is_empty());
    story.input(Input::Reviewed(allow()));
    assert_eq!(story.client_hears(), ["ACK 2.04 1 t"]);
}

#[test]
fn request_of_the_upstream_is_not_answered_where_the_route_leads_nowhere_by_now() {
    let mut story = Story::of_messages();
    story.client("CON POST 1 t /channels/1/messages =1");
    story.endpoint.upstream = None;
    story.input(Input::Reauthorize);
    assert!(story.client_hears().is_empty());
    story.input(Input::Lost);
    assert_eq!(story.client_hears(), ["ACK 5.03 1 t max-age=5"]);
}

#[test]
fn answer_is_not_delivered_to_whose_credentials_end() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a ?auth=good-soon").upstream("ACK 0.00 1 -").client_hears();
    story.pass(59 * SECOND);
    assert!(story.client_hears().is_empty());
    story.pass(2 * SECOND);
    assert!(story.client_hears()[0].starts_with("NON 4.01 "));
    story.upstream("CON 2.05 900 t =x");
    assert!(story.client_hears().is_empty());
}

/// A story in which an answer came while it is asked whether it may still be delivered.
fn in_doubt() -> Story {
    let mut story = Story::new();
    story.client("CON GET 1 t /slow");
    story.input(Input::Decided(Side::Client, allow()));
    story.input(Input::Upstream(Ok(())));
    story.upstream("ACK 0.00 1 -").upstream_hears();
    story.input(Input::Reauthorize);
    story.client("CON GET 1 t /slow").upstream("CON 2.05 900 t =x").upstream("CON 2.05 900 t =x");
    assert_eq!(story.client_hears(), ["ACK 0.00 1 -"; 2]);
    assert!(story.upstream_hears().is_empty(), "nothing goes either way");
    story
}

fn sorted(mut all: Vec<String>) -> Vec<String> {
    all.sort();
    all
}
