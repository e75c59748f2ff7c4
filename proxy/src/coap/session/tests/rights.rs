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
    story.seen.has_changed.store(true, Ordering::Relaxed);
    story.input(Input::Reauthorize);
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
    story.seen.has_changed.store(true, Ordering::Relaxed);
    story.input(Input::Reauthorize);
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
    story.seen.has_changed.store(true, Ordering::Relaxed);
    story.input(Input::Reauthorize);
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
