use std::borrow::Cow;
use std::fmt;

use crate::client::Client;
use crate::query::{Action, Query, Resource};
use crate::static_rules::Effect;
use crate::topic::{TopicFilter, is_literal};

/// One rule of an access list that came with a client's credentials.
///
/// As text it is one line, `allow publish 012 any like a/${clientid}/#`, which is how it is kept among a
/// client's attributes: reading it again costs no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclRule<'a> {
    /// What it says where it matches.
    pub effect: Effect,
    /// What it speaks of.
    pub action: AclAction,
    /// The qualities of service, by number.
    pub qos: [bool; 3],
    /// Whether messages are to be retained; `None` for both. It binds what is published alone.
    pub retain: Option<bool>,
    /// To what.
    pub topic: AclTopic<'a>,
}

/// What a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAction {
    /// Both.
    All,
    /// Messages from the client, and its will.
    Publish,
    /// Subscriptions, and what comes of them.
    Subscribe,
}

/// The topics of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclTopic<'a> {
    /// This very text; no wildcard stands for anything.
    Exactly(&'a str),
    /// What a filter covers; `${clientid}`, `${username}` and other names stand for their values.
    Like(&'a str),
}

impl<'a> AclRule<'a> {
    /// Reads what its `Display` wrote.
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let mut word = || words.next();
        let effect = if word()? == "allow" { Effect::Allow } else { Effect::Deny };
        let action = match word()? {
            "all" => AclAction::All,
            "publish" => AclAction::Publish,
            _ => AclAction::Subscribe,
        };
        let numbers = word()?;
        let retain = match word()? {
            "any" => None,
            retain => Some(retain == "retained"),
        };
        let topic = if word()? == "like" { AclTopic::Like } else { AclTopic::Exactly };
        let qos = ['0', '1', '2'].map(|number| numbers.contains(number));
        Some(Self { effect, action, qos, retain, topic: topic(word()?) })
    }

    /// Whether it has the word on a query.
    pub(super) fn decides(&self, query: &Query<'_>) -> bool {
        self.speaks_of(query.action) && self.conditions_hold(query) && self.reaches(query)
    }

    fn speaks_of(&self, action: Action) -> bool {
        match action {
            Action::Publish | Action::Will => self.action != AclAction::Subscribe,
            Action::Deliver | Action::Subscribe => self.action != AclAction::Publish,
            Action::Connect | Action::Observe | Action::Request => false,
        }
    }

    fn conditions_hold(&self, query: &Query<'_>) -> bool {
        let has_qos = self.qos.get(usize::from(query.qos)).copied().unwrap_or_default();
        match query.action {
            Action::Publish | Action::Will => {
                has_qos && self.retain.is_none_or(|wanted| wanted == query.retain)
            }
            // a delivery does not tell the quality of the subscription
            Action::Deliver => self.effect == Effect::Allow || self.qos == [true; 3],
            _ => has_qos,
        }
    }

    fn reaches(&self, query: &Query<'_>) -> bool {
        match self.topic {
            AclTopic::Exactly(text) => match (query.action, self.effect) {
                // who may subscribe to this filter is given what comes of it
                (Action::Deliver, Effect::Allow) => is_covered(text, query.resource).unwrap_or_default(),
                (Action::Deliver, Effect::Deny) => false,
                _ => text_of(query.resource) == Some(text),
            },
            // where a value cannot stand in a topic, nothing is allowed and all is denied
            AclTopic::Like(text) => filled_in(text, query.client)
                .and_then(|text| is_covered(&text, query.resource))
                .unwrap_or(self.effect == Effect::Deny),
        }
    }
}

impl fmt::Display for AclRule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let effect = if self.effect == Effect::Allow { "allow" } else { "deny" };
        let action = match self.action {
            AclAction::All => "all",
            AclAction::Publish => "publish",
            AclAction::Subscribe => "subscribe",
        };
        let qos: String =
            ['0', '1', '2'].into_iter().zip(self.qos).filter(|(_, has)| *has).map(|(n, _)| n).collect();
        let retain = match self.retain {
            None => "any",
            Some(true) => "retained",
            Some(false) => "unretained",
        };
        let (kind, topic) = match self.topic {
            AclTopic::Exactly(topic) => ("exactly", topic),
            AclTopic::Like(topic) => ("like", topic),
        };
        write!(f, "{effect} {action} {qos} {retain} {kind} {topic}")
    }
}

/// Whether `filter` covers all of a resource; `None` if it is no filter.
pub(super) fn is_covered(filter: &str, resource: Resource<'_>) -> Option<bool> {
    let filter = TopicFilter::parse(filter).ok().filter(|filter| filter.share_group().is_none())?;
    Some(match resource {
        Resource::Request { .. } | Resource::Session => false,
        Resource::Filter(wanted) => filter.covers(wanted),
        Resource::Topic(topic) => filter.matches(topic),
    })
}

fn text_of(resource: Resource<'_>) -> Option<&str> {
    match resource {
        Resource::Request { .. } | Resource::Session => None,
        Resource::Filter(filter) => Some(filter.as_str()),
        Resource::Topic(topic) => Some(topic.as_str()),
    }
}

/// The text with values in place of names; `None` where one is missing or is more than a part of a level.
fn filled_in<'a>(text: &'a str, client: &Client) -> Option<Cow<'a, str>> {
    if !text.contains(['$', '%']) {
        return Some(text.into());
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['$', '%']) {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let placeholder = placeholder(rest);
        match placeholder {
            Some((name, length)) => {
                let value = value_of(name, client)?;
                // [MQTT-4.7.2-1]: topics of servers are named literally or not at all
                if filled.is_empty() && value.starts_with('$') {
                    return None;
                }
                filled.push_str(&value);
                rest = &rest[length..];
            }
            None => {
                filled.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    Some(filled.into())
}

/// The name at the beginning of a text, and how long it is there.
fn placeholder(text: &str) -> Option<(&str, usize)> {
    if let Some((name, _)) = text.strip_prefix("${").and_then(|rest| rest.split_once('}')) {
        let name = match name {
            "clientid" => "client_id",
            "cert_common_name" => "cert.cn",
            name => name,
        };
        let length = text.find('}')? + 1;
        return Some((name, length));
    }
    match text.get(..2)? {
        "%c" => Some(("client_id", 2)),
        "%u" => Some(("username", 2)),
        _ => None,
    }
}

fn value_of(name: &str, client: &Client) -> Option<String> {
    let mut values = Vec::new();
    client.any_value(name, |value| {
        values.push(value.to_owned());
        false
    });
    let [value] = values.as_slice() else { return None };
    (!value.is_empty() && is_literal(value) && !value.contains('/')).then(|| value.clone())
}
