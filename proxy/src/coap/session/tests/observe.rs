use super::*;

#[test]
fn observation_lives_until_the_client_ends_it() {
    let mut story = observing();
    story.upstream("NON 2.05 901 t observe=3 =22").upstream("CON 2.05 902 t observe=4 =23");
    assert_eq!(story.client_hears(), ["NON 2.05 901 t observe=3 =22", "CON 2.05 902 t observe=4 =23"]);
    story.client("ACK 0.00 902 -");
    assert_eq!(story.upstream_hears(), ["ACK 0.00 902 -"]);
    story.client("CON GET 2 t /channels/1/messages observe=1").upstream("ACK 2.05 2 t =23");
    assert_eq!(story.client_hears(), ["ACK 2.05 2 t =23"]);
    story.upstream_hears();
    story.upstream("CON 2.05 903 t observe=5 =24");
    assert_eq!((story.client_hears().len(), story.upstream_hears()), (0, vec!["RST 0.00 903 -".to_owned()]));
    let topic = "channels/1/messages";
    assert_eq!(
        story.events(),
        ["opened guest".into(), format!("subscribed {topic}"), format!("unsubscribed {topic}")]
    );
}

#[test]
fn rejected_notification_ends_the_observation() {
    let mut story = observing();
    story.upstream("NON 2.05 901 t observe=3 =22").client("RST 0.00 901 -");
    assert_eq!(story.upstream_hears(), ["RST 0.00 901 -"]);
    assert!(story.session.observations.is_empty());
}

#[test]
fn upstream_ends_an_observation_with_an_error_or_a_last_value() {
    for last in ["NON 4.04 901 t", "NON 2.05 901 t =x"] {
        let mut story = observing();
        story.upstream(last);
        assert_eq!(story.client_hears(), [last]);
        assert!(story.session.observations.is_empty(), "{last}");
    }
}

#[test]
fn upstream_that_does_not_observe_makes_no_observation() {
    let mut story = Story::of_messages();
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t =x");
    assert!(story.session.observations.is_empty());
    assert_eq!(story.events(), ["opened guest"]);
}

#[test]
fn notifications_are_asked_about_and_denied_ones_are_acknowledged() {
    let mut story = observing();
    story.upstream("CON 2.05 901 t observe=3 =secret").upstream("CON 2.05 901 t observe=3 =secret");
    assert!(story.client_hears().is_empty());
    assert_eq!(story.upstream_hears(), ["ACK 0.00 901 -", "ACK 0.00 901 -"]);
    assert_eq!(story.asked(), ["guest deliver channels/1/messages secret"]);
    story.upstream("NON 2.05 902 t observe=4 =open");
    assert_eq!(story.client_hears(), ["NON 2.05 902 t observe=4 =open"]);
}

#[test]
fn notifications_pass_unasked_where_the_route_says_so() {
    let mut story = Story::with(|_, options| {
        (options.profile, options.deliveries) = (Profile::Messages, crate::coap::Deliveries::Pass);
    });
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2");
    story.asked();
    story.upstream("NON 2.05 901 t observe=3 =secret");
    assert_eq!(story.client_hears()[1], "NON 2.05 901 t observe=3 =secret");
    assert!(story.asked().is_empty());
}

#[test]
fn observation_outlives_silence() {
    let mut story = observing();
    story.pass(600 * SECOND).upstream("NON 2.05 901 t observe=3 =22");
    assert_eq!(story.client_hears(), ["NON 2.05 901 t observe=3 =22"]);
    story.pass(24 * 60 * MINUTE).upstream("NON 2.05 902 t observe=4 =23");
    assert_eq!(story.client_hears().len(), 1);
    story.pass(26 * 60 * MINUTE);
    assert!(story.session.is_closed);
}

#[test]
fn client_that_acknowledges_nothing_observes_nothing() {
    let mut story = observing();
    story.upstream("CON 2.05 901 t observe=3 =22").pass(92 * SECOND);
    assert_eq!(story.session.observations.len(), 1);
    story.pass(2 * SECOND);
    assert!(story.session.observations.is_empty());
}

#[test]
fn observations_are_bounded() {
    let mut story = Story::with(|gate, _| gate.limits.subscriptions = 2);
    for id in 1..=3 {
        story
            .client(&format!("CON GET {id} t{id} /a observe=0"))
            .upstream(&format!("ACK 2.05 {id} t{id} observe=1"));
    }
    assert_eq!(story.client_hears()[2], "ACK 4.29 3 t3 max-age=1");
    // the same one again is not one more
    story.client("CON GET 4 t1 /a observe=0");
    assert!(story.client_hears().is_empty());
}

#[test]
fn observing_a_path_is_asked_about_as_such() {
    let mut story = Story::new();
    story
        .client("CON GET 1 t /a observe=0")
        .upstream("ACK 2.05 1 t observe=2 =x")
        .upstream("NON 2.05 9 t observe=3 =y");
    assert_eq!(story.asked(), ["guest observe GET /a ", "guest observe GET /a x", "guest observe GET /a y"]);
    story.client("CON GET 2 u /secret observe=0");
    assert_eq!(story.client_hears().last().unwrap(), "ACK 4.03 2 u");
    assert_eq!(story.session.observations.len(), 1);
}

#[test]
fn notification_answers_only_who_observes() {
    let mut story = observing();
    story.client("NON POST 3 t /channels/1/messages =1");
    let heard = story.client_hears();
    assert!(heard.len() == 1 && heard[0].starts_with("NON 4.00 ") && heard[0].ends_with(" t"), "{heard:?}");
    assert!(story.upstream_hears().is_empty());
    story.client("CON GET 4 t /channels/1/messages block2=1/0/0");
    assert_eq!(story.client_hears(), ["ACK 4.00 4 t"]);
    // asked for at the same time, under the same token
    let mut story = Story::new();
    story.client("NON GET 1 t /a").client("CON GET 2 t /a observe=0").upstream("ACK 2.05 2 t observe=2");
    story.client_hears();
    story.asked();
    story.upstream("NON 2.05 900 t observe=3 =secret").upstream("NON 2.05 901 t =secret");
    let heard = story.client_hears();
    assert!(heard.len() == 1 && heard[0].starts_with("NON 4.03 ") && heard[0].ends_with(" t"), "{heard:?}");
    assert_eq!(story.asked(), ["guest observe GET /a secret", "guest observe GET /a secret"]);
    assert!(story.session.observations.is_empty());
}

#[test]
fn answer_of_who_ends_an_observation_is_no_answer_to_something_else() {
    let mut story = Story::of_messages();
    story.client("NON GET 1 t /channels/1/messages observe=1").client("NON POST 2 t /channels/1/messages =1");
    let heard = story.client_hears();
    assert!(heard.len() == 1 && heard[0].starts_with("NON 4.00 ") && heard[0].ends_with(" t"), "{heard:?}");
    story.asked();
    story.upstream("NON 2.05 900 t =secret");
    assert_eq!(story.asked(), ["guest deliver channels/1/messages secret"]);
    assert!(story.client_hears().iter().all(|heard| !heard.contains("secret")));
}

#[test]
fn notification_that_waits_is_for_who_observes_by_then() {
    let mut story = Story::of_messages();
    let begin = |id: u16, key: &str| format!("NON GET {id} t /channels/1/messages ?auth={key} observe=0");
    story.client(&begin(1, "good1")).upstream("NON 2.05 900 t observe=2");
    story.upstream("NON 2.05 901 t observe=3 =slow");
    story.client(&begin(2, "good2")).client_hears();
    story.input(Input::Decided(Side::Upstream, waiting::allow()));
    assert_eq!(story.client_hears(), ["NON 2.05 901 t observe=3 =slow"]);
    let asked = story.asked();
    assert_eq!(asked.last().unwrap(), "2 deliver channels/1/messages slow", "{asked:?}");
}

#[test]
fn notification_is_not_told_again_once_the_right_to_it_is_gone() {
    let mut story = Story::new();
    story.client("CON GET 1 t /changing observe=0").upstream("ACK 2.05 1 t observe=2");
    story.upstream("CON 2.05 900 t observe=3 =x");
    story.seen.has_changed.store(true, Ordering::Relaxed);
    story.input(Input::Reauthorize);
    story.client_hears();
    story.upstream_hears();
    story.upstream("CON 2.05 900 t observe=3 =x");
    assert!(story.client_hears().is_empty());
    assert_eq!(story.upstream_hears(), ["ACK 0.00 900 -"]);
}

#[test]
fn notification_answers_nobody_who_asks_again() {
    let mut story = observing();
    story.client("CON GET 2 t /channels/1/messages observe=0");
    story.upstream("NON 2.05 900 t observe=3 =secret").upstream("NON 2.05 901 t observe=4 =open");
    assert_eq!(story.client_hears(), ["NON 2.05 901 t observe=4 =open"]);
    story.upstream("ACK 2.05 2 t observe=5 =22");
    assert_eq!(story.client_hears(), ["ACK 2.05 2 t observe=5 =22"]);
    assert_eq!(story.session.observations.len(), 1);
}

#[test]
fn first_notification_is_asked_about_like_others() {
    let mut story = Story::of_messages();
    let begin = "CON GET 1 t /channels/1/messages observe=0";
    story.client(begin).upstream("ACK 2.05 1 t observe=2 =secret");
    assert_eq!(story.client_hears(), ["ACK 0.00 1 -"]);
    story.client(begin);
    assert_eq!(story.client_hears(), ["ACK 0.00 1 -"]);
    story.upstream("CON 2.05 900 t observe=3 =open");
    assert_eq!(story.client_hears(), ["CON 2.05 900 t observe=3 =open"]);
    let mut never = Story::of_messages();
    never.client(begin).upstream("ACK 2.05 1 t =secret");
    assert_eq!(never.client_hears(), ["ACK 4.03 1 t"]);
    assert!(never.session.observations.is_empty());
    let mut apart = Story::of_messages();
    apart.client(begin).upstream("ACK 0.00 1 -").upstream("CON 2.05 900 t observe=2 =secret");
    assert_eq!(apart.client_hears(), ["ACK 0.00 1 -"]);
    assert_eq!(apart.upstream_hears()[1..], ["ACK 0.00 900 -"]);
    apart.pass(20 * SECOND).upstream("NON 2.05 901 t observe=3 =open");
    assert_eq!(apart.client_hears(), ["NON 2.05 901 t observe=3 =open"]);
}

#[test]
fn nothing_is_told_by_the_way_of_ending_an_observation() {
    let mut story = observing();
    story.client("CON GET 2 t /channels/1/messages observe=1").upstream("ACK 2.05 2 t =secret");
    assert_eq!(story.client_hears(), ["ACK 4.03 2 t"]);
    assert!(story.session.observations.is_empty());
    story.client("CON GET 3 u /channels/1/messages observe=1").upstream("ACK 2.05 3 u =open");
    story.client("CON GET 4 v /channels/1/messages observe=1").upstream("ACK 2.05 4 v");
    assert_eq!(story.client_hears(), ["ACK 2.05 3 u =open", "ACK 2.05 4 v"]);
    let subscribe = "guest subscribe channels/1/messages ";
    let deliver = |payload| format!("guest deliver channels/1/messages {payload}");
    let expected =
        [subscribe.to_owned(), deliver("secret"), subscribe.into(), deliver("open"), subscribe.into()];
    assert_eq!(story.asked(), expected);
}

#[test]
fn first_notification_waits_for_its_decision() {
    let mut story = Story::of_messages();
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2 =slow");
    story.upstream("ACK 2.05 1 t observe=2 =slow").upstream("NON 2.05 900 t observe=3 =x");
    assert!(story.client_hears().is_empty());
    story.input(Input::Decided(Side::Upstream, waiting::allow()));
    assert_eq!(story.client_hears(), ["ACK 2.05 1 t observe=2 =slow", "NON 2.05 900 t observe=3 =x"]);
}

#[test]
fn upstream_is_told_where_mgate_ends_an_observation() {
    let end = |heard: Vec<String>, path: &str| {
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(
            heard[0].starts_with("NON GET ") && heard[0].ends_with(&format!(" t observe=1 {path}")),
            "{heard:?}"
        );
    };
    let mut expired = Story::new();
    expired.client("CON GET 1 t /a ?auth=good-soon observe=0").upstream("ACK 2.05 1 t observe=2");
    expired.upstream_hears();
    expired.pass(61 * SECOND);
    end(expired.upstream_hears(), "/a");
    let mut drained = observing();
    drained.input(Input::Drain);
    end(drained.upstream_hears(), "/channels/1/messages");
    let mut unheard = observing();
    unheard.upstream("CON 2.05 901 t observe=3 =22").pass(94 * SECOND);
    end(unheard.upstream_hears(), "/channels/1/messages");
    let mut unanswered = Story::new();
    unanswered.client("CON GET 1 t /a observe=0").pass(SECOND).upstream("CON 0.00 9 -").upstream_hears();
    unanswered.pass(10 * SECOND);
    end(unanswered.upstream_hears(), "/a");
    assert_eq!(unanswered.client_hears(), ["ACK 5.04 1 t max-age=5"]);
}

#[test]
fn upstream_hears_nothing_of_an_observation_that_was_never_asked_for() {
    let unsent = || {
        let mut story = Story::new();
        story.input(Input::Datagram(Side::Client, &m("CON GET 1 t /slow observe=0")));
        story.input(Input::Decided(Side::Client, waiting::allow()));
        story.input(Input::Reauthorize);
        story.input(Input::Upstream(Ok(())));
        story
    };
    let mut denied = unsent();
    denied.input(Input::Reviewed(Decision::Deny(Reason::new(Cause::NotAuthorized))));
    assert_eq!(denied.client_hears(), ["ACK 4.03 1 t"]);
    assert!(denied.upstream_hears().is_empty());
    denied.client("CON GET 2 t /a observe=0");
    assert_eq!(denied.upstream_hears(), ["CON GET 2 t observe=0 /a"], "the token is free");
    let mut abandoned = unsent();
    abandoned.client("CON GET 1 u /a");
    assert_eq!(abandoned.upstream_hears(), ["CON GET 1 u /a"]);
}

#[test]
fn token_of_an_observation_that_is_over_is_not_free_at_once() {
    let mut story = observing();
    story.upstream("NON 2.05 901 t observe=3 =22").client("RST 0.00 901 -").client_hears();
    story.client("CON GET 2 t /channels/2/messages observe=0");
    assert_eq!(story.client_hears(), ["ACK 4.00 2 t"]);
    story.client("CON GET 3 t /channels/1/messages observe=0").upstream("ACK 2.05 3 t observe=2");
    assert_eq!(story.client_hears(), ["ACK 2.05 3 t observe=2"]);
    // the upstream said its last word about it
    story.client("CON GET 4 t /channels/1/messages observe=1").upstream("ACK 2.05 4 t").client_hears();
    story.pass(248 * SECOND).client("CON GET 5 t /channels/2/messages observe=0");
    assert!(story.client_hears().is_empty());
}

#[test]
fn observations_that_end_are_bounded_too() {
    let mut story = Story::new();
    for id in 1..=65 {
        story.client(&format!("CON GET {id} t{id} /a observe=0"));
        story.upstream(&format!("ACK 2.05 {id} t{id} observe=1")).client_hears();
        story.upstream(&format!("NON 2.05 {} t{id} observe=2", 900 + id)).client_hears();
        story.client(&format!("RST 0.00 {} -", 900 + id));
    }
    story.client("CON GET 66 t66 /a observe=0");
    assert_eq!(story.client_hears(), ["ACK 4.29 66 t66 max-age=1"]);
}

#[test]
fn acknowledgement_of_a_notification_is_one_of_those_before_it() {
    let mut story = observing();
    story.upstream("CON 2.05 901 t observe=3 =22").upstream("CON 2.05 902 t observe=4 =23");
    story.client("ACK 0.00 902 -").pass(200 * SECOND);
    assert_eq!(story.session.observations.len(), 1);
    story.upstream("CON 2.05 903 t observe=5 =24").pass(80 * SECOND);
    story.client("CON GET 2 t /channels/1/messages observe=0").upstream("ACK 2.05 2 t observe=6");
    story.pass(80 * SECOND);
    assert_eq!(story.session.observations.len(), 1);
}

#[test]
fn notification_is_remembered_until_it_is_acknowledged() {
    let mut story = observing();
    story.upstream("CON 2.05 901 t observe=3 =22");
    for id in 1000..1100 {
        story.upstream(&format!("NON 2.05 {id} t observe=4 =23"));
    }
    story.client_hears();
    story.asked();
    story.upstream("CON 2.05 901 t observe=3 =22");
    assert_eq!((story.client_hears(), story.asked().len()), (vec!["CON 2.05 901 t observe=3 =22".into()], 0));
    story.client("ACK 0.00 901 -");
    assert_eq!(story.upstream_hears(), ["ACK 0.00 901 -"]);
    for id in 2000..2020 {
        story.upstream(&format!("CON 2.05 {id} t observe=5 =24"));
    }
    story.client("ACK 0.00 2000 -");
    assert_eq!(story.upstream_hears(), ["ACK 0.00 2000 -"]);
}

#[test]
fn observers_hear_of_the_end() {
    let mut story = observing();
    story.input(Input::Drain);
    let heard = story.client_hears();
    assert!(heard.len() == 1 && heard[0].starts_with("NON 5.03 ") && heard[0].ends_with(" t"), "{heard:?}");
    let mut lost = observing();
    lost.input(Input::Lost);
    assert!(lost.client_hears()[0].starts_with("NON 5.03 "));
}

#[test]
fn peer_that_makes_room_is_told_and_told_of() {
    let mut story = observing();
    story.events();
    story.client("CON GET 2 u /channels/1/messages observe=0").upstream_hears();
    story.input(Input::Displaced);
    let heard = story.client_hears();
    assert_eq!(heard[0], "ACK 5.03 2 u max-age=5");
    assert!(heard.len() == 2 && heard[1].starts_with("NON 5.03 ") && heard[1].ends_with(" t"), "{heard:?}");
    assert!(story.upstream_hears().last().unwrap().ends_with(" t observe=1 /channels/1/messages"));
    assert_eq!(story.events(), ["unsubscribed channels/1/messages", "closed: others needed its place"]);
    assert!(matches!(story.session.poll_output(), Some(Output::Close)));
}

#[test]
fn observation_ends_with_the_credentials() {
    let mut story = Story::new();
    story.client("CON GET 1 t /a ?auth=good-soon observe=0").upstream("ACK 2.05 1 t observe=2");
    assert_eq!(story.session.observations.len(), 1);
    story.client_hears();
    story.pass(61 * SECOND);
    assert!(story.client_hears()[0].starts_with("NON 4.01 "));
    assert!(story.session.observations.is_empty());
}

/// A client that observes the messages of channel 1 with the token `t`.
fn observing() -> Story {
    let mut story = Story::of_messages();
    story.client("CON GET 1 t /channels/1/messages observe=0").upstream("ACK 2.05 1 t observe=2 =21");
    assert_eq!(story.client_hears(), ["ACK 2.05 1 t observe=2 =21"]);
    assert_eq!(
        story.asked(),
        ["guest subscribe channels/1/messages ", "guest deliver channels/1/messages 21"]
    );
    story.upstream_hears();
    story
}
