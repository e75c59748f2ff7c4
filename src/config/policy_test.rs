//! What a policy file expects of its own statements.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mgate_policies::static_rules::StaticRules;
use mgate_policies::{Action, Answer, Attributes, Client, Decision, Now, Policy, Principal, Protocol};

use super::problem::{Place, Report};
use super::section::Section;
use super::static_policy::instant;
use crate::question::{ACTIONS, Question};

/// One test of a policy file, run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTest {
    /// Its name, or its number in the file.
    pub name: String,
    /// Where it says what it expects.
    pub place: Place,
    /// What was expected and what was said instead; `None` if it came true.
    pub failure: Option<String>,
}

/// A test as it stands in the file.
pub(super) struct Expectation {
    name: String,
    place: Place,
    question: Question,
    /// The time at which it is asked, since the Unix epoch.
    at: Option<Duration>,
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Abstain,
    Allow,
    Deny,
}

impl Expectation {
    /// Reads one test; where answers hang on the time, a test must say when it is asked, or it would come true
    /// on some days only.
    pub(super) fn read(mut section: Section<'_>, hangs_on_time: bool, report: &Report) -> Option<Self> {
        let before = report.problems();
        section.require(&["action", "expect"]);
        let name = section.text("name").map(|name| name.value);
        let action = section.one_of("action", ACTIONS);
        let (resource, method) = resource(&mut section, action);
        let at = section.parse("at", instant).map(|at| at.value);
        if hangs_on_time && at.is_none() {
            section.problem("at", "is missing: some statement hangs on the time");
        }
        let question = Question {
            client: client(&mut section),
            action: action.unwrap_or(Action::Connect),
            resource,
            method,
            qos: section.integer("qos", 0..=2).and_then(|qos| u8::try_from(qos).ok()).unwrap_or(0),
            retain: section.boolean("retain").unwrap_or(false),
        };
        let expected = section.one_of("expect", EXPECTED).unwrap_or(Expected::Deny);
        section.finish();
        if report.problems() == before {
            let key = match question.action {
                Action::Observe | Action::Request => "path",
                Action::Subscribe => "filter",
                _ => "topic",
            };
            section.check(&section.place_at(key), question.query());
        }
        let place = section.place_at("expect");
        let name = name.unwrap_or_else(|| section.place().key.clone());
        (report.problems() == before).then_some(Self { name, place, question, at, expected })
    }

    /// Asks the rules.
    pub(super) fn run(self, rules: &StaticRules) -> PolicyTest {
        let Self { name, place, question, at, expected } = self;
        let now = Now::read();
        let now = Now { unix: at.unwrap_or(now.unix), ..now };
        let failure = match question.query().map(|query| rules.evaluate(&query, now)) {
            Ok(Answer::Ready(decision)) if expected.is(&decision) => None,
            Ok(Answer::Ready(decision)) => Some(said(&decision)),
            Ok(Answer::Pending(_)) => Some("it takes time".into()),
            Err(error) => Some(error.to_string()),
        };
        let failure = failure.map(|said| format!("expected {}, but {said}", expected.word()));
        PolicyTest { name, place, failure }
    }
}

impl Expected {
    fn is(self, decision: &Decision) -> bool {
        match decision {
            Decision::Abstain => self == Self::Abstain,
            Decision::Allow(_) => self == Self::Allow,
            Decision::Deny(_) => self == Self::Deny,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Abstain => "abstain",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// The topic, filter or path, where the action has one, and the method of a request; keys that the action has no
/// use of are recorded.
fn resource(section: &mut Section<'_>, action: Option<Action>) -> (String, String) {
    let texts = ["topic", "filter", "path"].map(|key| section.text(key).map(|text| text.value));
    let method = section.text("method").map(|text| text.value).unwrap_or_default();
    let Some(action) = action else { return (String::new(), method) };
    let (wanted, useless): (&[&'static str], &[&'static str]) = match action {
        Action::Connect => (&[], &["topic", "filter", "path", "method", "qos", "retain"]),
        Action::Observe | Action::Request => (&["path", "method"], &["topic", "filter", "qos", "retain"]),
        Action::Subscribe => (&["filter"], &["topic", "path", "method", "retain"]),
        _ => (&["topic"], &["filter", "path", "method"]),
    };
    section.require(wanted);
    for key in useless {
        if section.has(key) {
            section.problem(key, format!("has no use with `{action}`"));
        }
    }
    (texts.into_iter().flatten().next().unwrap_or_default(), method)
}

fn client(section: &mut Section<'_>) -> Client {
    let mut text = |key| section.text(key).map(|text| text.value.into_boxed_str());
    let [client_id, username] = ["client_id", "username"].map(&mut text);
    let [id, tenant, listener] = ["principal", "tenant", "listener"].map(|key| text(key).unwrap_or_default());
    let groups = section.texts("groups").unwrap_or_default();
    let principal = Principal {
        tenant,
        id,
        groups: groups.into_iter().map(|group| group.value.into()).collect(),
        attributes: attributes(section),
        expires: None,
    };
    let peer = section
        .parse("peer", |text| text.parse::<IpAddr>().map_err(|_| format!("\"{text}\" is not an IP address")));
    Client {
        principal,
        client_id: client_id.unwrap_or_default(),
        username,
        peer: SocketAddr::new(peer.map_or(Ipv4Addr::LOCALHOST.into(), |peer| peer.value), 0),
        route: listener.into(),
        protocol: Protocol::Mqtt,
        is_encrypted: section.boolean("tls").unwrap_or(false),
    }
}

fn attributes(section: &mut Section<'_>) -> Attributes {
    let mut attributes = Attributes::default();
    for (name, values) in section.pairs("attributes") {
        if !name.value.contains('.') {
            section.problem("attributes", format!("\"{}\" is not a dotted name", name.value));
        }
        for value in values {
            attributes.add(&name.value, &value);
        }
    }
    attributes
}

/// What a static policy said, and which statement it was.
fn said(decision: &Decision) -> String {
    match decision {
        Decision::Abstain => "no statement speaks of it".into(),
        Decision::Allow(grant) => format!("{} allows it", grant.by.as_deref().unwrap_or("a statement")),
        Decision::Deny(reason) => format!("{} denies it", reason.detail.as_deref().unwrap_or("a statement")),
    }
}

const EXPECTED: &[(&str, Expected)] =
    &[("allow", Expected::Allow), ("deny", Expected::Deny), ("abstain", Expected::Abstain)];
