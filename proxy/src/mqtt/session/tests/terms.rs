use mgate_policies::{SessionLimits, TopicPrefix};

use super::packets::{
    DISCONNECT, NewConnect, ack, alias, connack, connect, disconnect_why, publish, suback, subscribe, text,
    unsuback, unsubscribe,
};
use super::*;

#[test]
fn all_that_a_client_says_and_hears_stands_behind_its_prefix() {
    for version in BOTH {
        let mut story = told(&behind("acme/")).opened(version);
        story.client_sends(&publish(version, 0x32, "a/b", 7, &[]));
        assert_eq!(story.upstream_hears(), publish(version, 0x32, "acme/a/b", 7, &[]));
        story.client_sends(&subscribe(version, 1, &[("#", 1), ("$share/g/+/x", 0)]));
        let moved = subscribe(version, 1, &[("acme/#", 1), ("$share/g/acme/+/x", 0)]);
        assert_eq!(story.upstream_hears(), moved);
        story.upstream_sends(&suback(version, 1, &[1, 0]));
        assert_eq!(story.client_hears(), suback(version, 1, &[1, 0]));
        story.upstream_sends(&publish(version, 0x30, "acme/b", 0, &[]));
        assert_eq!(story.client_hears(), publish(version, 0x30, "b", 0, &[]));
        story.upstream_sends(&publish(version, 0x32, "acmes/b", 9, &[]));
        assert_eq!(story.hears(), (Vec::new(), ack(0x40, 9)));
        story.client_sends(&unsubscribe(version, 2, "#"));
        assert_eq!(story.upstream_hears(), unsubscribe(version, 2, "acme/#"));
        let answer = unsuback(version, 2, if version.is_5() { &[0] } else { &[] });
        story.upstream_sends(&answer);
        assert_eq!(story.client_hears(), answer);
        assert_eq!(story.denials(), [(Action::Deliver, "acmes/b".to_owned())]);
    }
}

#[test]
fn response_topic_and_alias_stand_behind_the_prefix_too() {
    let mut story = told(&behind("acme/"));
    story.client_sends(&connect(Version::V5).bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(Version::V5, 0, &[0x22, 0, 3]));
    story.hears();
    let message = |topic, answer: &str| {
        let with = [alias(1), vec![0x08], text(answer.as_bytes())].concat();
        publish(Version::V5, 0x30, topic, 0, &with)
    };
    story.client_sends(&[message("a", "r"), message("", "r")].concat());
    assert_eq!(story.upstream_hears(), [message("acme/a", "acme/r"), message("", "acme/r")].concat());
}

#[test]
fn will_is_moved_before_it_is_asked_for_and_sent() {
    for version in BOTH {
        let mut story = told(&behind("acme/"));
        let will = |topic| NewConnect { will_topic: Some(topic), ..connect(version) }.bytes();
        story.client_sends(&will("last/words"));
        assert_eq!(story.asked(), ["connect session", "will acme/last/words"]);
        story.upstream_opens();
        assert_eq!(story.upstream_hears(), will("acme/last/words"));
        story.upstream_sends(&connack(version, 0, &[]));
        story.input(Input::Reauthorize);
        assert_eq!(story.asked()[2..], ["will acme/last/words", "connect session"]);
        assert!(story.closing().is_none());
    }
}

#[test]
fn connect_without_a_will_goes_on_as_it_came() {
    for version in BOTH {
        let mut story = told(&behind("acme/"));
        story.client_sends(&connect(version).bytes());
        story.upstream_opens();
        assert_eq!(story.upstream_hears(), connect(version).bytes());
    }
}

#[test]
fn will_that_is_too_long_behind_the_prefix_is_refused() {
    let will = NewConnect { will_topic: Some("last/words"), ..connect(Version::V5) }.bytes();
    let mut story = told_on(&behind("acme/"), |gate| gate.limits.packet_bytes = will.len() + 4);
    story.client_sends(&will);
    assert!(story.is_closed());
    assert_eq!(story.denials(), [(Action::Will, "last/words".to_owned())]);
    let why = "will denied: quota exceeded: transform topic_prefix: makes a packet that is too long";
    assert_eq!(story.closing().map(|(why, _)| why).as_deref(), Some(why));
}

#[test]
fn will_moves_once_however_often_it_is_asked_for() {
    let mut story = told(&behind("acme/"));
    let will = |topic| NewConnect { will_topic: Some(topic), ..connect(Version::V5) }.bytes();
    story.client_sends(&will("slow"));
    story.input(Input::Reauthorize);
    story.input(Input::Reauthorize);
    let again = ["connect session", "will acme/slow"];
    assert_eq!(story.asked(), [again, again, again].concat());
    story.decides(Side::Client, allow());
    while let Some(output) = story.session.poll_output() {
        if matches!(output, Output::Dial) {
            story.input(Input::Upstream(Ok(())));
        }
    }
    assert_eq!(story.upstream_hears(), will("acme/slow"));
}

#[test]
fn prefix_that_changes_while_the_will_waits_refuses_the_client() {
    for (version, code) in [(Version::V311, 0x03), (Version::V5, 0x88)] {
        let mut story = told(&behind("acme/"));
        story.client_sends(&NewConnect { will_topic: Some("slow"), ..connect(version) }.bytes());
        story.say(&behind("other/"));
        story.input(Input::Reauthorize);
        assert_eq!(story.client_hears()[3], code);
        assert_eq!(story.closing(), Some(terms_changed()));
    }
}

#[test]
fn prefix_is_nearest_to_the_upstream() {
    let under = TopicPrefix::parse("route/").expect("a prefix");
    let story = told_on(&behind("acme/"), |gate| gate.transforms = Transforms::new(vec![Arc::new(under)]));
    let mut story = story.opened(Version::V5);
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[]));
    assert_eq!(story.upstream_hears(), publish(Version::V5, 0x30, "acme/route/a", 0, &[]));
    story.upstream_sends(&publish(Version::V5, 0x30, "acme/route/a", 0, &[]));
    assert_eq!(story.client_hears(), publish(Version::V5, 0x30, "a", 0, &[]));
    assert_eq!(story.asked(), ["connect session", "publish acme/route/a", "deliver acme/route/a"]);
}

#[test]
fn tighter_rate_of_route_and_session_counts() {
    for (of_route, own, counts) in [(None, 2, 2), (Some(5), 2, 2), (Some(2), 5, 2)] {
        let own = SessionLimits { messages_per_second: Some(own), ..SessionLimits::default() };
        let story = told_on(&limited(own), |gate| gate.limits.messages_per_second = of_route);
        let mut story = story.opened(Version::V311);
        let message = publish(Version::V311, 0x30, "a", 0, &[]);
        assert_eq!(story.client_sends(&message.repeat(6)), counts * message.len());
        assert!(!story.session.wants(Side::Client));
        story.waits(Duration::from_millis(500));
        assert_eq!(story.client_sends(&message.repeat(4)), message.len());
    }
}

#[test]
fn tighter_packet_limit_of_route_and_session_counts() {
    for (of_route, own) in [(4096, 100), (100, 4096)] {
        let own = SessionLimits { packet_bytes: Some(own), ..SessionLimits::default() };
        let story = told_on(&limited(own), |gate| gate.limits.packet_bytes = of_route);
        let mut story = story.opened(Version::V311);
        let message = |bytes: usize| publish(Version::V311, 0x30, &"t".repeat(bytes - 11), 0, &[]);
        story.client_sends(&message(100));
        assert!(story.closing().is_none());
        story.client_sends(&message(101));
        let why = "packet of 101 bytes from the client is over the limit";
        assert_eq!(story.closing().map(|(why, _)| why).as_deref(), Some(why));
    }
}

#[test]
fn delivery_that_is_too_long_for_the_session_is_dropped_and_acknowledged() {
    let own = SessionLimits { packet_bytes: Some(100), ..SessionLimits::default() };
    let mut story = told(&limited(own)).opened(Version::V311);
    let delivery = |bytes: usize| publish(Version::V311, 0x32, &"t".repeat(bytes - 13), 7, &[]);
    story.upstream_sends(&[delivery(101), delivery(100)].concat());
    assert_eq!(story.hears(), (delivery(100), ack(0x40, 7)));
    assert_eq!((story.denials().len(), story.closing()), (1, None));
}

#[test]
fn policy_that_says_less_than_all_together_makes_the_session_ask_once() {
    let (one, all) = (
        SessionLimits { subscriptions: Some(9), ..SessionLimits::default() },
        SessionLimits { subscriptions: Some(9), packet_bytes: Some(100), ..SessionLimits::default() },
    );
    let mut story = told(&limited(all)).opened(Version::V5);
    story.said().terms[1] = Some(limited(one));
    for _ in 0..3 {
        story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[]));
    }
    let asked = story.asked();
    assert_eq!(asked.iter().filter(|asked| **asked == "connect session").count(), 2, "{asked:?}");
}

#[test]
fn tighter_number_of_subscriptions_of_route_and_session_counts() {
    for (of_route, own) in [(1000, 2), (2, 1000)] {
        let own = SessionLimits { subscriptions: Some(own), ..SessionLimits::default() };
        let story = told_on(&limited(own), |gate| gate.limits.subscriptions = of_route);
        let mut story = story.opened(Version::V5);
        story.client_sends(&subscribe(Version::V5, 1, &[("a", 0), ("b", 0), ("c", 0)]));
        assert_eq!(story.upstream_hears(), subscribe(Version::V5, 1, &[("a", 0), ("b", 0)]));
        story.upstream_sends(&suback(Version::V5, 1, &[0, 0]));
        assert_eq!(story.client_hears(), suback(Version::V5, 1, &[0, 0, 0x97]));
    }
}

#[test]
fn limits_that_change_count_when_any_leave_tells_of_them() {
    let two = SessionLimits { messages_per_second: Some(2), ..SessionLimits::default() };
    for (before, after) in [(two, SessionLimits::default()), (SessionLimits::default(), two)] {
        let mut story = told(&limited(before)).opened(Version::V5);
        story.say(&limited(after));
        story.client_sends(&subscribe(Version::V5, 1, &[("a", 0)]));
        assert_eq!(story.asked(), ["connect session", "subscribe a", "connect session"]);
        let message = publish(Version::V5, 0x30, "a", 0, &[]);
        let passed = if after == two { 2 } else { 9 };
        assert_eq!(story.client_sends(&message.repeat(9)), passed * message.len());
        assert_eq!(story.asked().len(), 3 + passed);
    }
}

#[test]
fn session_whose_prefix_changed_ends_before_anything_passes() {
    for (before, after) in [("acme/", "other/"), ("acme/", ""), ("", "acme/")] {
        for from in [Side::Client, Side::Upstream] {
            for version in BOTH {
                let mut story = told(&behind(before)).opened(version);
                story.say(&behind(after));
                let topic = if from == Side::Client { "a" } else { "acme/a" };
                story.input(Input::Bytes(from, &publish(version, 0x30, topic, 0, &[])));
                let words = "the session's terms changed";
                let bye = if version.is_5() { disconnect_why(0x98, words) } else { Vec::new() };
                assert_eq!(story.hears(), (bye, Vec::new()));
                assert!(story.is_closed());
                assert_eq!(story.closing(), Some(terms_changed()));
            }
        }
    }
}

#[test]
fn denial_tells_of_another_prefix_too() {
    let subscribe = subscribe(Version::V5, 1, &[("a", 0)]);
    let publish = publish(Version::V5, 0x32, "a", 1, &[]);
    for (denied, bytes) in [("publish acme/a", publish), ("subscribe acme/a", subscribe)] {
        let mut story = told(&behind("acme/")).opened(Version::V5);
        story.said().denied = Some(denied);
        story.client_sends(&bytes);
        assert!(story.closing().is_none());
        story.hears();
        story.say(&behind("other/"));
        story.client_sends(&bytes);
        assert_eq!(story.client_hears(), disconnect_why(0x98, "the session's terms changed"));
    }
}

#[test]
fn session_whose_prefix_changed_ends_when_its_rights_are_asked_for_again() {
    let mut story = told(&behind("acme/")).opened(Version::V5);
    story.say(&behind("other/"));
    story.input(Input::Reauthorize);
    assert_eq!(story.closing(), Some(terms_changed()));
}

#[test]
fn will_that_new_terms_deny_is_taken_back() {
    let mut story = told(&behind("acme/"));
    story.client_sends(&NewConnect { will_topic: Some("last/words"), ..connect(Version::V5) }.bytes());
    story.upstream_opens();
    story.upstream_sends(&connack(Version::V5, 0, &[]));
    story.hears();
    story.say(&behind("other/"));
    story.said().denied = Some("will acme/last/words");
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[]));
    assert_eq!(story.upstream_hears(), DISCONNECT);
    assert_eq!(story.denials(), [(Action::Will, "acme/last/words".to_owned())]);
}

#[test]
fn leave_that_says_nothing_of_terms_changes_none() {
    let mut story = told(&behind("acme/")).opened(Version::V5);
    story.said().terms[1] = None;
    story.client_sends(&publish(Version::V5, 0x30, "a", 0, &[]));
    assert_eq!(story.upstream_hears(), publish(Version::V5, 0x30, "acme/a", 0, &[]));
    assert_eq!(story.asked(), ["connect session", "publish acme/a"]);
}

#[test]
fn terms_wait_for_an_answer_like_anything_else() {
    let mut story = told(&behind("acme/")).opened(Version::V5);
    story.say(&behind("other/"));
    story.said().is_slow = true;
    let message = publish(Version::V5, 0x30, "a", 0, &[]);
    story.client_sends(&message.repeat(3));
    assert_eq!(story.asked().iter().filter(|asked| *asked == "connect session").count(), 2, "it asks once");
    assert!(matches!(story.session.poll_output(), Some(Output::Review(_))));
    let mut grant = Grant::default();
    grant.session = Some(behind("other/"));
    story.input(Input::Reviewed(Decision::Allow(grant)));
    assert_eq!(story.closing(), Some(terms_changed()));
}

/// A story whose policy says something of the session.
struct Told {
    story: Story,
    says: Arc<Says>,
}

/// Allows everything but what it is told not to; what is called slow takes time.
#[derive(Default)]
struct Says(Mutex<Said>);

#[derive(Default)]
struct Said {
    /// What comes with leave to connect, and with any other.
    terms: [Option<SessionTerms>; 2],
    denied: Option<&'static str>,
    /// Whether connect takes time.
    is_slow: bool,
    asked: Vec<String>,
}

impl Policy for Says {
    fn name(&self) -> &str {
        "says"
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        let asked = format!("{} {}", query.action, query.resource);
        let mut said = self.0.lock().expect("nobody panics with it");
        let is_connect = query.action == Action::Connect;
        let is_slow = said.is_slow && is_connect || asked.contains("slow");
        let is_denied = said.denied == Some(&asked);
        said.asked.push(asked);
        if is_slow {
            return Answer::Pending(Box::pin(std::future::pending()));
        }
        let (mut grant, mut reason) = (Grant::default(), Reason::new(Cause::NotAuthorized));
        grant.session.clone_from(&said.terms[usize::from(!is_connect)]);
        reason.session.clone_from(&grant.session);
        Answer::Ready(if is_denied { Decision::Deny(reason) } else { Decision::Allow(grant) })
    }
}

impl Told {
    fn opened(self, version: Version) -> Self {
        Self { story: self.story.opened(version), ..self }
    }

    /// From now on, the policy says this.
    fn say(&self, terms: &SessionTerms) {
        self.said().terms = [(); 2].map(|()| Some(terms.clone()));
    }

    fn asked(&self) -> Vec<String> {
        self.said().asked.clone()
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.says.0.lock().expect("nobody panics with it")
    }
}

impl std::ops::Deref for Told {
    type Target = Story;

    fn deref(&self) -> &Story {
        &self.story
    }
}

impl std::ops::DerefMut for Told {
    fn deref_mut(&mut self) -> &mut Story {
        &mut self.story
    }
}

fn told(terms: &SessionTerms) -> Told {
    told_on(terms, |_| {})
}

/// The same on a route that `change` had a word on.
fn told_on(terms: &SessionTerms, change: impl FnOnce(&mut Gate)) -> Told {
    let says = Arc::new(Says::default());
    let story = Story::with(|gate, _| {
        gate.policies = Chain::new(vec![says.clone()]);
        change(gate);
    });
    let told = Told { story, says };
    told.say(terms);
    told
}

/// Terms with this prefix, or none.
fn behind(prefix: &str) -> SessionTerms {
    SessionTerms::new(SessionLimits::default(), TopicPrefix::parse(prefix).ok())
}

fn limited(limits: SessionLimits) -> SessionTerms {
    SessionTerms::new(limits, None)
}

fn terms_changed() -> (String, Blame) {
    ("the session's terms changed: it has another topic prefix now".to_owned(), Blame::Nobody)
}
