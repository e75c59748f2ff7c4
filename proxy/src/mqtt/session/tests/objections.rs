//! Policies that are not enforced: they are asked, and change nothing.

use std::sync::Arc;

use mgate_policies::Standing;

use super::packets::{publish, suback, subscribe};
use super::*;

#[test]
fn what_a_policy_that_is_not_enforced_denies_passes_and_is_told() {
    for version in BOTH {
        let mut story = tried_out().opened(version);
        let message = publish(version, 0x32, "secret", 1, &[]);
        story.client_sends(&message);
        assert_eq!(story.hears(), (Vec::new(), message));
        let delivery = publish(version, 0x30, "secret/d", 0, &[]);
        story.upstream_sends(&delivery);
        assert_eq!(story.hears(), (delivery, Vec::new()));
        let filters = subscribe(version, 2, &[("$share/g/secret/#", 0), ("a", 1)]);
        story.client_sends(&filters);
        assert_eq!(story.upstream_hears(), filters);
        story.upstream_sends(&suback(version, 2, &[0, 1]));
        assert_eq!(story.client_hears(), suback(version, 2, &[0, 1]));
        assert!(story.denials().is_empty(), "nothing was denied");
        let told = [
            (Action::Publish, "secret"),
            (Action::Deliver, "secret/d"),
            (Action::Subscribe, "$share/g/secret/#"),
        ];
        assert_eq!(story.objections(), told.map(|(action, resource)| (action, resource.to_owned())));
    }
}

#[test]
fn client_whose_connect_and_will_would_be_denied_connects() {
    let mut story = tried_out();
    let mut packet = connect(Version::V5);
    packet.client_id = "secret-1";
    packet.will_topic = Some("secret/will");
    story.client_sends(&packet.bytes());
    story.upstream_opens();
    let told = [(Action::Connect, "secret-1"), (Action::Will, "secret/will")];
    assert_eq!(story.objections(), told.map(|(action, resource)| (action, resource.to_owned())));
}

#[test]
fn late_decision_of_a_policy_that_is_not_enforced_lets_the_message_pass() {
    let mut story = tried_out().opened(Version::V5);
    let message = publish(Version::V5, 0x32, "slow", 1, &[]);
    story.client_sends(&message);
    assert!(story.upstream_hears().is_empty(), "it is waited for");
    story.waits(Limits::default().decision_timeout);
    assert_eq!(story.hears(), (Vec::new(), message));
    assert_eq!(story.objections(), [(Action::Publish, "slow".to_owned())]);
}

#[test]
fn remembered_answer_is_told_once() {
    let mut story = Story::with(|gate, _| {
        let repeatable = Standing { policy: Arc::new(Never), is_enforced: false };
        gate.policies = Chain::of(vec![Standing::enforced(Arc::new(Anything)), repeatable]);
    })
    .opened(Version::V311);
    let before = story.objections().len();
    for _ in 0..3 {
        story.client_sends(&publish(Version::V311, 0x30, "a", 0, &[]));
    }
    assert_eq!(story.objections().len() - before, 1);
}

/// A story in which everything is allowed, and [`Rules`] are only tried out.
fn tried_out() -> Story {
    Story::with(|gate, _| {
        let rules = Standing { policy: Arc::new(Rules), is_enforced: false };
        gate.policies = Chain::of(vec![Standing::enforced(Arc::new(Anything)), rules]);
    })
}

/// Allows everything.
struct Anything;

/// Denies everything.
struct Never;

impl Policy for Anything {
    fn name(&self) -> &str {
        "anything"
    }

    fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
        Answer::Ready(allow())
    }

    fn is_repeatable(&self) -> bool {
        true
    }
}

impl Policy for Never {
    fn name(&self) -> &str {
        "rules"
    }

    fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
        Answer::Ready(deny())
    }

    fn is_repeatable(&self) -> bool {
        true
    }
}
