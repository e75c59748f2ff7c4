use super::packets::{
    DISCONNECT, NewConnect, PINGREQ, ack_why, disconnect_why, packet, publish, suback, subscribe, text,
    unsuback, unsubscribe,
};
use super::*;

#[test]
fn rights_that_did_not_change_change_nothing() {
    for version in BOTH {
        let mut story = with_will(version).subscribed(version, 1, "a/#");
        story.rules_become(|_| allow_now());
        assert_eq!(story.hears(), (Vec::new(), Vec::new()));
        let message = publish(version, 0x30, "a", 0, &[]);
        story.client_sends(&message);
        assert_eq!(story.upstream_hears(), message);
        assert!(story.closing().is_none());
    }
}

#[test]
fn client_that_may_no_longer_connect_is_told_and_closed() {
    for version in BOTH {
        let mut story = Story::open(version);
        story.rules_become(|asked| deny_now(asked.starts_with("connect")));
        let bye = if version.is_5() { disconnect_why(0x87, "not authorized") } else { Vec::new() };
        assert_eq!(story.hears(), (bye, Vec::new()));
        assert!(story.is_closed());
        let why = "rights changed, connect denied: not authorized".to_owned();
        assert_eq!(story.closing(), Some((why, Blame::Nobody)));
        assert_eq!(story.denials(), [(Action::Connect, "dev-1".to_owned())]);
    }
}

#[test]
fn subscription_that_is_no_longer_allowed_closes() {
    let mut story =
        Story::open(Version::V5).subscribed(Version::V5, 1, "b").subscribed(Version::V5, 2, "$share/g/a");
    story.rules_become(|asked| deny_now(asked == "subscribe $share/g/a"));
    assert_eq!(story.client_hears(), disconnect_why(0x87, "not authorized"));
    assert_eq!(story.denials(), [(Action::Subscribe, "$share/g/a".to_owned())]);
}

#[test]
fn subscription_that_the_upstream_has_yet_to_answer_is_asked_for_too() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&subscribe(Version::V5, 1, &[("a", 0)]));
    story.rules_become(|asked| deny_now(asked.starts_with("subscribe")));
    assert!(story.is_closed());
}

#[test]
fn subscriptions_that_are_none_are_not_asked_for() {
    for version in BOTH {
        let mut story = Story::open(version).subscribed(version, 1, "given/up");
        story.client_sends(&subscribe(version, 2, &[("refused", 0), ("secret", 0), ("b", 0)]));
        story.upstream_sends(&suback(version, 2, &[0x80, 0]));
        story.client_sends(&unsubscribe(version, 3, "given/up"));
        story.upstream_sends(&unsuback(version, 3, if version.is_5() { &[0] } else { &[] }));
        let asked = story.rules_become(|_| allow_now());
        assert_eq!(asked, ["connect session", "subscribe b"]);
    }
}

#[test]
fn subscriptions_are_asked_for_where_it_is_not_clear_which_were_answered() {
    let mut story = Story::open(Version::V311);
    story.client_sends(&subscribe(Version::V311, 1, &[("a", 0)]));
    story.client_sends(&subscribe(Version::V311, 1, &[("b", 0)]));
    story.upstream_sends(&suback(Version::V311, 1, &[0x80]));
    story.upstream_sends(&suback(Version::V311, 1, &[0]));
    assert_eq!(story.rules_become(|_| allow_now()), ["connect session", "subscribe b", "subscribe a"]);
}

#[test]
fn subscription_that_the_upstream_keeps_is_asked_for() {
    let mut story = Story::open(Version::V5).subscribed(Version::V5, 1, "a");
    story.client_sends(&unsubscribe(Version::V5, 2, "a"));
    story.upstream_sends(&unsuback(Version::V5, 2, &[0x80]));
    assert_eq!(story.rules_become(|_| allow_now()), ["connect session", "subscribe a"]);
}

#[test]
fn will_that_is_no_longer_allowed_is_taken_back() {
    for version in BOTH {
        let mut story = with_will(version);
        story.rules_become(|asked| deny_now(asked == "will last/words"));
        let bye = if version.is_5() { disconnect_why(0x87, "not authorized") } else { Vec::new() };
        assert_eq!(story.hears(), (bye, DISCONNECT.to_vec()));
        assert!(story.is_closed());
    }
}

#[test]
fn will_that_is_still_allowed_is_left_to_the_upstream() {
    let mut story = with_will(Version::V5);
    story.rules_become(|asked| deny_now(asked.starts_with("connect")));
    assert_eq!(story.upstream_hears(), Vec::<u8>::new());
    assert!(story.is_closed());
}

#[test]
fn will_is_taken_back_while_nobody_knows_whether_it_is_allowed() {
    for ends in [Input::Closed(Side::Client, None), Input::Drain] {
        let mut story = with_will(Version::V5);
        story.rules_become(|asked| slow_now(asked.starts_with("will")));
        story.input(ends);
        assert!(story.is_closed());
        assert_eq!(story.upstream_hears(), DISCONNECT);
    }
}

#[test]
fn client_that_leaves_takes_its_will_back_and_keeps_its_session() {
    let mut story = with_will(Version::V5);
    story.rules_become(|asked| slow_now(asked.starts_with("will")));
    // the property is Session Expiry Interval
    story.client_sends(&[0xe0, 7, 4, 5, 0x11, 0, 0, 0, 60]);
    assert_eq!(story.upstream_hears(), [0xe0, 7, 0, 5, 0x11, 0, 0, 0, 60]);
}

#[test]
fn late_answers_are_awaited_one_after_the_other() {
    let mut story = with_will(Version::V5).subscribed(Version::V5, 1, "a");
    assert_eq!(story.rules_become(|_| slow_now(true)), ["will last/words"]);
    story.reviews(allow());
    story.reviews(allow());
    assert!(story.closing().is_none());
    story.reviews(deny());
    assert_eq!(story.denials(), [(Action::Subscribe, "a".to_owned())]);
}

#[test]
fn session_goes_on_while_answers_are_awaited() {
    let mut story = Story::open(Version::V5);
    story.rules_become(|asked| slow_now(asked.starts_with("connect")));
    story.client_sends(PINGREQ);
    assert_eq!(story.upstream_hears(), PINGREQ);
    story.reviews(allow());
    story.waits(Duration::from_secs(60));
    assert!(story.closing().is_none());
    assert!(story.session.rights.is_none(), "nothing is kept where nothing is held");
}

#[test]
fn answer_that_does_not_come_is_a_denial() {
    let mut story = Story::open(Version::V5);
    story.rules_become(|asked| slow_now(asked.starts_with("connect")));
    story.waits(Limits::default().decision_timeout - Duration::from_millis(1));
    assert!(story.closing().is_none());
    story.waits(Duration::from_millis(1));
    assert_eq!(story.client_hears(), disconnect_why(0x83, "no decision to be had"));
    assert!(story.is_closed());
}

#[test]
fn who_cannot_decide_is_asked_again_and_denies_in_the_end() {
    let mut story = Story::open(Version::V5);
    let unavailable = || Answer::Ready(Decision::Deny(Reason::new(Cause::Unavailable)));
    story.rules_become(move |_| unavailable());
    story.waits(Limits::default().decision_timeout - Duration::from_millis(1));
    assert!(story.closing().is_none());
    story.waits(Duration::from_millis(1));
    assert!(story.is_closed());

    let tries = Arc::new(Mutex::new(0));
    let mut story = Story::open(Version::V5);
    story.rules_become(move |_| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        if *tries < 3 { unavailable() } else { allow_now() }
    });
    story.waits(Duration::from_secs(60));
    assert!(story.closing().is_none());
}

#[test]
fn what_was_asked_before_does_not_count() {
    let mut story = Story::open(Version::V5);
    let message = publish(Version::V5, 0x32, "slow", 1, &[]);
    story.client_sends(&message);
    story.hears();
    story.rules_become(|asked| deny_now(asked == "publish slow"));
    assert_eq!(story.client_hears(), ack_why(0x40, 1, 0x87, "not authorized"));
    story.decides(Side::Client, allow());
    assert!(story.upstream_hears().is_empty());
}

#[test]
fn what_was_asked_before_is_asked_again_and_gets_no_more_time() {
    let mut story = Story::open(Version::V5);
    story.client_sends(&subscribe(Version::V5, 1, &[("slow/1", 0), ("slow/2", 0)]));
    story.waits(Duration::from_secs(4));
    assert_eq!(
        story.rules_become(|asked| slow_now(asked.contains("slow"))),
        ["connect session", "subscribe slow/1"]
    );
    story.waits(Duration::from_secs(1));
    assert_eq!(story.denials(), [(Action::Subscribe, "slow/1".to_owned())]);
}

#[test]
fn client_that_is_being_identified_is_identified_again() {
    let mut story = Story::new();
    story.client_sends(&NewConnect { login: Some(("slow", b"")), ..connect(Version::V5) }.bytes());
    assert!(matches!(story.session.poll_output(), Some(Output::Identify(_))));
    story.input(Input::Reauthorize);
    assert!(matches!(story.session.poll_output(), Some(Output::Identify(_))));
    story.input(Input::Identified(Verdict::Accepted(Principal::default())));
    story.upstream_opens();
}

#[test]
fn verdict_that_nobody_awaits_leaves_the_next_question_alone() {
    let mut story = Story::new();
    let slow = NewConnect { client_id: "slow", ..connect(Version::V5) };
    story.client_sends(&slow.bytes());
    story.input(Input::Identified(Verdict::Accepted(Principal::default())));
    story.decides(Side::Client, allow());
    assert!(story.session.client().is_some() && story.closing().is_none());
}

#[test]
fn client_that_is_not_open_yet_is_refused_in_words_of_connack() {
    let mut story = Story::new();
    story.client_sends(&connect(Version::V311).bytes());
    story.upstream_opens();
    story.hears();
    story.rules_become(|asked| deny_now(asked.starts_with("connect")));
    assert_eq!(story.client_hears(), connack(Version::V311, 5, &[]));
}

#[test]
fn memory_is_dropped() {
    let mut story = Story::with(|gate, _| gate.policies = chain(|_| allow_now()).1).opened(Version::V5);
    let message = publish(Version::V5, 0x30, "a", 0, &[]);
    story.client_sends(&message);
    story.hears();
    story.rules_become(|asked| deny_now(asked == "publish a"));
    story.client_sends(&message);
    assert!(story.upstream_hears().is_empty());
}

#[test]
fn session_ends_as_early_as_the_new_rules_say() {
    let lasting = |secs| {
        move |_: &str| {
            let mut grant = Grant::default();
            grant.ends_after = Some(Duration::from_secs(secs));
            Answer::Ready(Decision::Allow(grant))
        }
    };
    let mut story = Story::open(Version::V5);
    story.rules_become(lasting(30));
    story.rules_become(lasting(60));
    story.waits(Duration::from_millis(29_999));
    assert!(story.closing().is_none());
    story.waits(Duration::from_millis(1));
    assert_eq!(story.client_hears(), disconnect_why(0x87, "credentials expired"));
}

#[test]
fn another_change_starts_the_review_anew_without_more_time() {
    let mut story = Story::open(Version::V5);
    story.rules_become(|_| slow_now(true));
    story.waits(Duration::from_secs(4));
    story.rules_become(|_| slow_now(true));
    story.waits(Duration::from_secs(1));
    assert!(story.is_closed());
}

#[test]
fn subscriptions_are_bounded() {
    let mut story = Story::with(|gate, _| gate.limits.subscriptions = 2).opened(Version::V5);
    story.client_sends(&subscribe(Version::V5, 1, &[("a", 0), ("b", 0), ("c", 0)]));
    assert_eq!(story.upstream_hears(), subscribe(Version::V5, 1, &[("a", 0), ("b", 0)]));
    story.upstream_sends(&suback(Version::V5, 1, &[0, 0]));
    assert_eq!(story.client_hears(), suback(Version::V5, 1, &[0, 0, 0x97]));
    let again = subscribe(Version::V5, 2, &[("a", 1)]);
    story.client_sends(&again);
    assert_eq!(story.upstream_hears(), again);
    story.upstream_sends(&suback(Version::V5, 2, &[1]));
    story.client_sends(&unsubscribe(Version::V5, 3, "b"));
    story.upstream_sends(&unsuback(Version::V5, 3, &[0]));
    story.hears();
    let long = "c".repeat(300);
    story.client_sends(&subscribe(Version::V5, 4, &[(&long, 0), ("d", 0)]));
    assert_eq!(story.upstream_hears(), subscribe(Version::V5, 4, &[("d", 0)]), "a long filter counts twice");
    story.client_sends(&subscribe(Version::V5, 5, &[(&long, 0)]));
    let why = [vec![0, 5, 17, 0x1f], text(b"quota exceeded"), vec![0x97]].concat();
    assert_eq!(story.client_hears(), packet(0x90, &why));
}

#[test]
fn no_more_filters_of_a_packet_are_asked_about_than_a_client_may_hold() {
    let mut story = Story::with(|gate, _| gate.limits.subscriptions = 2).opened(Version::V5);
    story.client_sends(&subscribe(
        Version::V5,
        1,
        &[("secret/1", 0), ("secret/2", 0), ("secret/3", 0), ("a", 0)],
    ));
    let answer = story.client_hears();
    assert_eq!(answer[answer.len() - 4..], [0x87, 0x87, 0x97, 0x97]);
}

#[test]
fn subscriptions_without_an_answer_are_bounded_too() {
    let mut story = Story::with(|gate, _| gate.limits.subscriptions = 2).opened(Version::V311);
    for (id, passes) in [(1, true), (2, true), (3, false)] {
        story.client_sends(&subscribe(Version::V311, id, &[("a", 0)]));
        assert_eq!(story.upstream_hears().is_empty(), !passes, "{id}");
    }
    for id in 4..9 {
        story.client_sends(&unsubscribe(Version::V311, id, "a"));
    }
    assert_eq!(story.session.unanswered(Change::Unsubscribe), 2);
}

#[test]
fn answer_about_one_filter_is_none_about_the_next() {
    let mut story = Story::with(|gate, _| gate.limits.subscriptions = 2).opened(Version::V5);
    for (id, filter) in [(1, "slow/a"), (2, "slow/b")] {
        story.client_sends(&subscribe(Version::V5, id, &[(filter, 0)]));
        story.decides(Side::Client, allow());
        story.upstream_sends(&suback(Version::V5, id, &[0]));
    }
    story.client_sends(&unsubscribe(Version::V5, 3, "slow/a"));
    story.client_sends(&subscribe(Version::V5, 4, &[("slow/b", 0)]));
    story.decides(Side::Client, allow());
    story.client_sends(&subscribe(Version::V5, 5, &[("slow/a", 0), ("slow/b", 0)]));
    story.upstream_sends(&unsuback(Version::V5, 3, &[0]));
    story.hears();
    story.decides(Side::Client, allow());
    assert_eq!(story.denials(), [(Action::Subscribe, "slow/a".to_owned())], "there is no room any more");
    assert!(story.upstream_hears().is_empty(), "the next has yet to be decided");
    story.decides(Side::Client, allow());
    assert_eq!(story.upstream_hears(), subscribe(Version::V5, 5, &[("slow/b", 0)]));
}

impl Story {
    fn subscribed(mut self, version: Version, id: u16, filter: &str) -> Self {
        self.client_sends(&subscribe(version, id, &[(filter, 0)]));
        self.upstream_sends(&suback(version, id, &[0]));
        self.hears();
        self
    }

    /// The route gets other rules, and the session is told; returns what it asked.
    fn rules_become(&mut self, says: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Vec<String> {
        let (rules, policies) = chain(says);
        let Gate { route, authenticators, transforms, mirror, observer, limits, .. } = &self.endpoint.gate;
        let gate = Gate {
            route: route.clone(),
            authenticators: authenticators.clone(),
            transforms: transforms.clone(),
            policies,
            mirror: mirror.clone(),
            observer: observer.clone(),
            limits: limits.clone(),
        };
        self.endpoint = self.endpoint.renewed(gate, self.endpoint.options);
        self.input(Input::Reauthorize);
        rules.lock().unwrap().clone()
    }

    /// The session was waiting for the answer to a question of its review.
    fn reviews(&mut self, decision: Decision) {
        assert!(matches!(self.session.poll_output(), Some(Output::Review(_))));
        self.input(Input::Reviewed(decision));
    }
}

/// Says what the test says, and may be remembered.
struct Says<F>(F, Arc<Mutex<Vec<String>>>);

impl<F: Fn(&str) -> Answer + Send + Sync> Policy for Says<F> {
    fn name(&self) -> &str {
        "says"
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        let asked = format!("{} {}", query.action, query.resource);
        self.1.lock().unwrap().push(asked.clone());
        self.0(&asked)
    }

    fn is_repeatable(&self) -> bool {
        true
    }
}

fn chain(says: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Arc<Mutex<Vec<String>>>, Chain) {
    let asked = Arc::new(Mutex::default());
    (Arc::clone(&asked), Chain::new(vec![Arc::new(Says(says, asked))]))
}

fn with_will(version: Version) -> Story {
    let mut story = Story::new();
    story.client_sends(&NewConnect { will_topic: Some("last/words"), ..connect(version) }.bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(version, 0, &[]));
    story.hears();
    story
}

fn allow_now() -> Answer {
    Answer::Ready(allow())
}

fn deny_now(is_denied: bool) -> Answer {
    Answer::Ready(if is_denied { deny() } else { allow() })
}

fn slow_now(is_slow: bool) -> Answer {
    if is_slow { Answer::Pending(Box::pin(std::future::pending())) } else { allow_now() }
}
