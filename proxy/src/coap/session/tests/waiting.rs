use super::*;

#[test]
fn later_requests_wait_in_order_and_deliveries_go_on() {
    let mut story = Story::of_messages();
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2");
    story.client("CON POST 2 u /channels/1/messages/slow =a").client("CON POST 3 v /channels/1/messages =b");
    story.client_hears();
    story.upstream_hears();
    story.upstream("NON 2.05 900 t observe=3 =x");
    assert_eq!(story.client_hears(), ["NON 2.05 900 t observe=3 =x"]);
    story.input(Input::Decided(Side::Client, allow()));
    let heard = story.upstream_hears();
    assert_eq!(heard, ["CON POST 2 u /channels/1/messages/slow =a", "CON POST 3 v /channels/1/messages =b"]);
}

#[test]
fn request_that_comes_again_while_it_waits_is_not_asked_about_again() {
    let mut story = Story::new();
    story
        .client("CON GET 1 t /slow")
        .client("CON GET 1 t /slow")
        .client("CON GET 2 u /a")
        .client("CON GET 2 u /a");
    assert_eq!(story.asked().len(), 1);
    story.input(Input::Decided(Side::Client, allow()));
    assert_eq!(story.asked(), ["guest request GET /a "]);
    story.input(Input::Upstream(Ok(())));
    assert_eq!(story.upstream_hears().len(), 2);
}

#[test]
fn decision_that_is_late_is_a_no() {
    let mut story = Story::new();
    story.client("CON GET 1 t /slow").client("CON GET 2 t /a").pass(6 * SECOND);
    assert_eq!(story.client_hears(), ["ACK 5.03 1 t max-age=5"]);
    story.input(Input::Decided(Side::Client, allow()));
    story.input(Input::Upstream(Ok(())));
    assert_eq!(story.upstream_hears(), ["CON GET 2 t /a"]);
}

#[test]
fn decision_that_comes_when_the_request_is_forgotten_is_too_late() {
    let mut story = Story::with(|gate, _| {
        gate.limits.decision_timeout = 10 * MINUTE;
        gate.limits.idle_timeout = Some(60 * MINUTE);
    });
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t").client("CON PUT 2 u /slow =1");
    story.client_hears();
    story.upstream_hears();
    story.pass(5 * MINUTE);
    story.input(Input::Decided(Side::Client, allow()));
    assert!(story.upstream_hears().is_empty());
    assert!(story.mirrored().is_empty());
    story.client("CON GET 3 v /a");
    assert_eq!(story.upstream_hears(), ["CON GET 3 v /a"]);
}

#[test]
fn client_that_was_quiet_is_not_forgotten_while_its_request_waits() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a").upstream("ACK 2.05 1 t").pass(246 * SECOND);
    story.client("CON GET 2 u /slow").pass(2 * SECOND);
    story.upstream_hears();
    story.input(Input::Decided(Side::Client, allow()));
    story.input(Input::Upstream(Ok(())));
    assert_eq!(story.upstream_hears(), ["CON GET 2 u /slow"]);
    let mut late = Story::new();
    late.client("CON GET 1 t /a").upstream("ACK 2.05 1 t").pass(246 * SECOND);
    late.client_hears();
    late.client("CON GET 2 u /slow").pass(5 * SECOND);
    assert_eq!(late.client_hears(), ["ACK 5.03 2 u max-age=5"]);
    assert!(late.session.poll_timeout(&late.endpoint).is_none(), "nothing is waited for any more");
}

#[test]
fn unknown_client_waits_for_its_name() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a ?auth=slow");
    assert!(matches!(story.session.poll_output(), Some(Output::Identify(_))));
    story.input(Input::Decided(Side::Client, allow()));
    assert!(story.asked().is_empty());
    story
        .input(Input::Identified(Verdict::Accepted(Principal { id: "late".into(), ..Principal::default() })));
    assert_eq!(story.asked(), ["late request GET /a "]);
    let mut never = Story::new();
    never.client("CON GET 1 t /a ?auth=slow").pass(6 * SECOND);
    assert_eq!(never.client_hears(), ["ACK 5.03 1 t max-age=5"]);
}

#[test]
fn what_waits_is_bounded() {
    let mut story = Story::new();
    story.client("NON GET 0 t /slow");
    (1..100).for_each(|id| _ = story.client(&format!("NON GET {id} t{id} /a")));
    story.input(Input::Decided(Side::Client, allow()));
    story.input(Input::Upstream(Ok(())));
    assert_eq!(story.upstream_hears().len(), 9);
}

#[test]
fn notification_that_waits_keeps_those_behind_it_in_order() {
    let mut story = Story::of_messages();
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2");
    story.client_hears();
    story.upstream("CON 2.05 900 t observe=3 =slow").upstream("CON 2.05 900 t observe=3 =slow");
    story.upstream("NON 2.05 901 t observe=4 =x");
    assert!(story.client_hears().is_empty());
    story.input(Input::Decided(Side::Upstream, Decision::Deny(Reason::new(Cause::NotAuthorized))));
    assert_eq!(story.client_hears(), ["NON 2.05 901 t observe=4 =x"]);
    assert_eq!(story.upstream_hears().last().unwrap(), "ACK 0.00 900 -");
}

#[test]
fn notification_that_waits_is_not_let_pass_by_an_answer_with_its_identifier() {
    let topic = "/channels/1/messages";
    let mut story = Story::of_messages();
    story.client(&format!("CON GET 1 t {topic} observe=0")).upstream("ACK 2.05 1 t observe=2");
    story.client_hears();
    story.upstream("CON 2.05 5 t observe=3 =slow");
    story.client(&format!("CON POST 5 u {topic} =x")).upstream("ACK 2.04 5 u");
    story.upstream("CON 2.05 5 t observe=3 =slow");
    assert_eq!(story.client_hears(), ["ACK 2.04 5 u"]);
    story.input(Input::Decided(Side::Upstream, allow()));
    assert_eq!(story.client_hears(), ["CON 2.05 5 t observe=3 =slow"]);
}

#[test]
fn notification_that_finds_no_room_is_taken_when_it_comes_again() {
    let mut story = Story::of_messages();
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2");
    story.client_hears();
    let notifications: Vec<_> =
        (0..10).map(|id| format!("CON 2.05 {} t observe={} =x", 900 + id, 3 + id)).collect();
    story.upstream("CON 2.05 800 t observe=2 =slow");
    notifications.iter().for_each(|notification| _ = story.upstream(notification));
    story.input(Input::Decided(Side::Upstream, allow()));
    assert_eq!(story.client_hears().len(), 1 + 8);
    story.upstream(&notifications[8]).upstream(&notifications[9]);
    assert_eq!(story.client_hears(), notifications[8..]);
}

#[test]
fn request_of_a_stranger_who_is_forgotten_is_answered() {
    let mut story = Story::new();
    story.client("CON GET 1 t /secret").pass(9 * SECOND);
    story.client_hears();
    story.client("CON GET 2 u /a ?auth=slow").pass(2 * SECOND);
    assert!(story.session.is_closed);
    assert_eq!(story.client_hears(), ["ACK 5.03 2 u max-age=5"]);
}

pub(super) fn allow() -> Decision {
    Decision::Allow(Grant::default())
}
