use mgate_policies::Standing;

use super::*;
use crate::memory::tests::Counting;

#[test]
fn same_request_is_asked_about_once_as_long_as_the_answer_lasts() {
    let (mut story, asked) = counted(|gate, _| gate.authenticators = Authenticators::default());
    for id in 1..=3 {
        story.client(&format!("CON POST {id} t /a =x")).upstream(&format!("ACK 2.04 {id} t"));
    }
    assert_eq!((asked(), story.upstream_hears().len()), (1, 3));
    story.pass(Duration::from_millis(9_999));
    story.client("CON POST 4 t /a =another").upstream("ACK 2.04 4 t");
    assert_eq!(asked(), 1);
    story.pass(Duration::from_millis(1));
    story.client("CON POST 5 t /a =x");
    assert_eq!(asked(), 2);
}

#[test]
fn another_request_is_asked_about() {
    let (mut story, asked) = counted(|_, _| {});
    let others = [
        "CON GET 1 a /a",
        "CON GET 2 b /a/b",
        "CON POST 3 c /a",
        "NON GET 4 d /a",
        "CON GET 5 e /a observe=0",
        "CON GET 6 f /a ?auth=good1",
    ];
    for (before, other) in others.iter().enumerate() {
        story.client(other);
        assert_eq!(asked(), before + 1, "{other}");
    }
}

#[test]
fn same_options_under_another_method_are_another_request() {
    let mut story = Story::new();
    for (id, method) in ["GET", "DELETE", "PUT"].iter().enumerate() {
        story.client(&format!("CON {method} {id} t /a")).upstream(&format!("ACK 2.04 {id} t"));
    }
    assert_eq!(story.asked(), ["guest request GET /a ", "guest request DELETE /a ", "guest request PUT /a "]);
}

#[test]
fn what_goes_on_for_long_has_all_the_time_that_is_given() {
    let (mut story, asked) = counted(|_, _| {});
    story.client("CON PUT 1 t /a =x").upstream("ACK 2.04 1 t").pass(Duration::from_millis(9_900));
    story.client("CON PUT 2 u /a block1=0/1/0 =0123456789abcdef").upstream("ACK 2.31 2 u block1=0/1/0");
    story.pass(SECOND);
    story.client("CON PUT 3 v /a block1=1/0/0 =x").upstream("ACK 2.04 3 v block1=1/0/0");
    assert_eq!((asked(), story.upstream_hears().len()), (2, 3));
}

#[test]
fn device_that_sleeps_is_asked_about_when_it_wakes() {
    let counting = Arc::new(Counting::default());
    let mut story = Story::with(|gate, _| {
        gate.limits.idle_timeout = Some(1000 * SECOND);
        gate.policies = Chain::new(vec![counting.clone()]);
    });
    story.client("CON POST 1 t /a").upstream("ACK 2.04 1 t").pass(10 * SECOND);
    story.client("CON POST 2 t /a").upstream("ACK 2.04 2 t").pass(248 * SECOND);
    story.client("CON POST 3 t /a");
    assert_eq!(counting.asked(), 2);
}

#[test]
fn requests_with_other_options_go_by_what_was_said_of_their_path() {
    let (mut story, asked) = counted(|_, _| {});
    for (id, options) in ["", " format=50", " none=0", ""].iter().enumerate() {
        story.client(&format!("CON POST {id} t /a{options} =x")).upstream(&format!("ACK 2.04 {id} t"));
    }
    assert_eq!((asked(), story.upstream_hears().len()), (1, 4));
}

#[test]
fn what_was_allowed_before_is_asked_about_when_rights_changed() {
    let mut story =
        Story::with(|gate, _| gate.policies = Chain::new(vec![Arc::new(Counting::for_ten_seconds())]));
    story.client("CON POST 1 t /a =x").upstream("ACK 2.04 1 t").upstream_hears();
    story.endpoint.gate.policies = Chain::new(vec![Arc::new(Never)]);
    story.client("CON POST 2 t /a =x").upstream("ACK 2.04 2 t");
    assert_eq!(story.upstream_hears(), ["CON POST 2 t /a =x"], "nobody has said that rights changed");
    story.input(Input::Reauthorize);
    story.client_hears();
    story.client("CON POST 3 t /a =x");
    assert_eq!((story.client_hears(), story.upstream_hears()), (vec!["ACK 4.03 3 t".to_owned()], vec![]));
}

#[test]
fn who_moved_or_shows_another_key_is_asked_about_anew() {
    let (mut story, asked) = counted(|_, _| {});
    story.client("CON POST 1 t /a").upstream("ACK 2.04 1 t");
    story.input(Input::Moved(SocketAddr::from(([192, 0, 2, 7], 1))));
    story.client("CON POST 2 t /a").upstream("ACK 2.04 2 t");
    assert_eq!(asked(), 2);
    story.client("CON POST 3 t /a ?auth=good1").upstream("ACK 2.04 3 t");
    story.client("CON POST 4 t /a ?auth=good1").upstream("ACK 2.04 4 t");
    assert_eq!(asked(), 3);
    story.client("CON POST 5 t /a ?auth=good2").upstream("ACK 2.04 5 t");
    story.client("CON POST 6 t /a").upstream("ACK 2.04 6 t");
    assert_eq!(asked(), 5);
}

#[test]
fn credentials_that_end_take_what_they_allowed_with_them() {
    let (mut story, asked) = counted(|_, _| {});
    let mut post = |id, after| {
        story.pass(after);
        story.client(&format!("CON POST {id} t /a ?auth=good-soon")).upstream(&format!("ACK 2.04 {id} t"));
        asked()
    };
    assert_eq!(post(1, Duration::ZERO), 1);
    assert_eq!(post(2, 55 * SECOND), 2);
    assert_eq!(post(3, Duration::from_millis(4_999)), 2);
    assert_eq!(post(4, Duration::from_millis(1)), 3);
}

#[test]
fn policies_that_look_at_more_are_asked_each_time() {
    let mut story = Story::new();
    for id in 1..=3 {
        story.client(&format!("CON POST {id} t /a")).upstream(&format!("ACK 2.04 {id} t"));
    }
    assert_eq!(story.asked().len(), 3);
}

#[test]
fn denials_are_not_remembered() {
    let mut story = Story::with(|gate, _| gate.policies = Chain::new(vec![Arc::new(Never)]));
    story.client("CON POST 1 t /a");
    story.endpoint.gate.policies = Chain::new(vec![Arc::new(Counting::for_ten_seconds())]);
    story.client("CON POST 2 t /a");
    assert_eq!(story.client_hears(), ["ACK 4.03 1 t"]);
    assert_eq!(story.upstream_hears(), ["CON POST 2 t /a"]);
}

#[test]
fn objection_to_what_was_allowed_before_is_told_once() {
    let mut story = Story::with(|gate, _| {
        let tried_out = Standing { policy: Arc::new(Never), is_enforced: false };
        gate.policies = Chain::of(vec![Standing::enforced(Arc::new(Counting::for_ten_seconds())), tried_out]);
    });
    for id in 1..=3 {
        story.client(&format!("CON POST {id} t /a")).upstream(&format!("ACK 2.04 {id} t"));
    }
    assert_eq!(story.events(), ["another", "opened guest"]);
}

/// A story in which everything is allowed for ten seconds, and how often that was asked for.
fn counted(change: impl FnOnce(&mut Gate, &mut Options)) -> (Story, impl Fn() -> usize) {
    let counting = Arc::new(Counting::for_ten_seconds());
    let story = Story::with(|gate, options| {
        gate.policies = Chain::new(vec![counting.clone()]);
        change(gate, options);
    });
    (story, move || counting.asked())
}

/// Denies everything.
struct Never;

impl Policy for Never {
    fn name(&self) -> &str {
        "never"
    }

    fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
        Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized)))
    }

    fn is_repeatable(&self) -> bool {
        true
    }
}
