use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use mgate_policies::static_rules::{Condition, Effect, ResourcePattern, Statement, StaticRules, Who};
use mgate_policies::{SessionLimits, SessionTerms, TopicPrefix};
use mgate_proxy::gate::Limits;
use serde_json::{Map, Value};

use super::dialect::{AnswerError, seconds};
use crate::question::ACTIONS;

/// What an answer to `connect` says about the session that begins.
#[derive(Debug)]
pub struct Terms {
    /// What the session may do, all of it; `None` where the service is asked about each thing.
    pub(super) rules: Option<StaticRules>,
    /// When to ask again, while the answer still counts.
    pub(super) refresh_after: Option<Duration>,
    /// When the session ends.
    pub(super) disconnect_after: Option<Duration>,
    /// What it is bounded by, and behind which prefix it stands.
    pub(super) session: SessionTerms,
    /// What they cost in memory, more or less.
    pub(super) bytes: usize,
}

impl Terms {
    /// Reads the member `mgate` of an answer: what stands there and is not understood makes the answer none.
    pub(super) fn read(answer: &Value) -> Result<Option<Arc<Self>>, AnswerError> {
        let terms = match answer.get("mgate") {
            None => return Ok(None),
            Some(Value::Object(terms)) => terms,
            Some(_) => return Err(NOT_UNDERSTOOD),
        };
        only(terms, &["statements", "refresh_after", "disconnect_after", "limits", "topic_prefix"])?;
        let statements = terms.get("statements");
        let rules = statements.map(|statements| {
            let statements = statements.as_array().ok_or(NOT_UNDERSTOOD)?.iter().map(statement);
            let statements = statements.collect::<Option<_>>().ok_or(NOT_UNDERSTOOD)?;
            StaticRules::compile("session", statements).map_err(|_| NOT_UNDERSTOOD)
        });
        let limits = terms.get("limits").map_or(Ok(SessionLimits::default()), limits)?;
        let topic_prefix = terms.get("topic_prefix").map(topic_prefix).transpose()?;
        Ok(Some(Arc::new(Self {
            rules: rules.transpose()?,
            refresh_after: duration(terms.get("refresh_after"))?,
            disconnect_after: duration(terms.get("disconnect_after"))?,
            // compiled, a statement takes some times what its text does
            bytes: statements.map_or(0, |statements| statements.to_string().len() * 8)
                + topic_prefix.as_ref().map_or(0, |prefix| prefix.as_str().len()),
            session: SessionTerms::new(limits, topic_prefix),
        })))
    }
}

/// Limits as those of a route, within the same bounds.
fn limits(value: &Value) -> Result<SessionLimits, AnswerError> {
    let limits = value.as_object().ok_or(NOT_UNDERSTOOD)?;
    only(limits, &["messages_per_second", "packet_bytes", "subscriptions"])?;
    let limit = |key, bounds: RangeInclusive<u64>| match limits.get(key) {
        None => Ok(None),
        Some(value) => {
            value.as_u64().filter(|number| bounds.contains(number)).map(Some).ok_or(NOT_UNDERSTOOD)
        }
    };
    let size = |number: u64| usize::try_from(number).map_err(|_| NOT_UNDERSTOOD);
    let messages_per_second = limit("messages_per_second", Limits::MESSAGES_PER_SECOND)?;
    Ok(SessionLimits {
        messages_per_second: messages_per_second
            .map(u32::try_from)
            .transpose()
            .map_err(|_| NOT_UNDERSTOOD)?,
        packet_bytes: limit("packet_bytes", Limits::PACKET_BYTES)?.map(size).transpose()?,
        subscriptions: limit("subscriptions", Limits::SUBSCRIPTIONS)?.map(size).transpose()?,
    })
}

fn topic_prefix(value: &Value) -> Result<TopicPrefix, AnswerError> {
    let text = value.as_str().ok_or(NOT_UNDERSTOOD)?;
    TopicPrefix::parse(text).map_err(|_| NOT_UNDERSTOOD)
}

/// A statement as in the file of a static policy; whom it speaks of may be left out.
fn statement(value: &Value) -> Option<Statement> {
    let statement = value.as_object()?;
    only(statement, &["sid", "effect", "principals", "actions", "resources", "conditions"]).ok()?;
    let principals = statement.get("principals");
    let empty = Value::Array(Vec::new());
    Some(Statement {
        sid: statement.get("sid").map_or(Some(""), Value::as_str)?.to_owned(),
        effect: match statement.get("effect")?.as_str()? {
            "allow" => Effect::Allow,
            "deny" => Effect::Deny,
            _ => return None,
        },
        principals: match principals {
            Some(principals) => each(principals, |text| Who::parse(text).ok())?,
            None => vec![Who::Anyone],
        },
        actions: each(statement.get("actions")?, |text| {
            ACTIONS.iter().find(|(word, _)| *word == text).map(|(_, action)| *action)
        })?,
        resources: each(statement.get("resources").unwrap_or(&empty), |text| {
            ResourcePattern::parse(text).ok()
        })?,
        conditions: statement.get("conditions").map_or(Some(Vec::new()), conditions)?,
    })
}

fn conditions(value: &Value) -> Option<Vec<Condition>> {
    let condition = |(name, value): (&String, &Value)| match name.as_str() {
        "qos_max" => {
            let qos = value.as_u64().and_then(|qos| u8::try_from(qos).ok());
            qos.filter(|qos| *qos <= 2).map(Condition::QosMax)
        }
        "retain" => value.as_bool().map(Condition::Retain),
        _ => None,
    };
    value.as_object()?.iter().map(condition).collect()
}

fn each<T>(list: &Value, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    list.as_array()?.iter().map(|item| read(item.as_str()?)).collect()
}

fn duration(value: Option<&Value>) -> Result<Option<Duration>, AnswerError> {
    match value {
        Some(value) if !value.is_number() => Err(NOT_UNDERSTOOD),
        value => Ok(seconds(value)),
    }
}

fn only(object: &Map<String, Value>, known: &[&str]) -> Result<(), AnswerError> {
    let is_known = object.keys().all(|key| known.contains(&key.as_str()));
    is_known.then_some(()).ok_or(NOT_UNDERSTOOD)
}

const NOT_UNDERSTOOD: AnswerError = AnswerError::Meaning("has an `mgate` that is not understood");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_are_read() {
        let terms = Terms::read(&json!({ "mgate": {
            "statements": [
                { "effect": "allow", "actions": ["publish", "subscribe"], "resources": ["topic:a/${client_id}/#"] },
                { "sid": "no", "effect": "deny", "principals": ["*"], "actions": ["publish"],
                  "resources": ["topic:a/b"], "conditions": { "qos_max": 1, "retain": false } },
            ],
            "refresh_after": 30,
            "disconnect_after": 3600.5,
            "limits": { "messages_per_second": 5, "packet_bytes": 1024, "subscriptions": 1 },
            "topic_prefix": "tenants/acme/",
        }}));
        let terms = terms.unwrap().unwrap();
        assert!(terms.rules.is_some());
        assert_eq!(terms.refresh_after, Some(Duration::from_secs(30)));
        assert_eq!(terms.disconnect_after, Some(Duration::from_millis(3_600_500)));
        let limits =
            SessionLimits { messages_per_second: Some(5), packet_bytes: Some(1024), subscriptions: Some(1) };
        let prefix = TopicPrefix::parse("tenants/acme/").ok();
        assert_eq!(terms.session, SessionTerms::new(limits, prefix));
        assert!(Terms::read(&json!({ "policy": 7 })).unwrap().is_none());
        assert!(Terms::read(&Value::Null).unwrap().is_none());
        let nothing = Terms::read(&json!({ "mgate": { "limits": {} } })).unwrap().unwrap();
        assert!(nothing.rules.is_none() && nothing.session.is_none());
    }

    #[test]
    fn limits_have_the_bounds_of_a_route() {
        for (key, least, most) in [
            ("messages_per_second", 1, 1_000_000),
            ("packet_bytes", 64, 268_435_460),
            ("subscriptions", 1, 10_000_000),
        ] {
            let is_read =
                |value: Value| Terms::read(&json!({ "mgate": { "limits": { key: value } } })).is_ok();
            assert!(is_read(json!(least)) && is_read(json!(most)), "{key}");
            for wrong in
                [json!(least - 1), json!(most + 1), json!(-1), json!(100.5), json!("100"), json!(null)]
            {
                assert!(!is_read(wrong.clone()), "{key}: {wrong}");
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_no_answer() {
        let allow = json!({ "effect": "allow", "actions": ["publish"], "resources": ["topic:a"] });
        assert!(Terms::read(&json!({ "mgate": { "statements": [allow] } })).is_ok());
        for (key, value) in [
            ("effect", json!("permit")),
            ("effect", Value::Null),
            ("actions", json!("publish")),
            ("actions", json!(["write"])),
            ("resources", json!(["a/b"])),
            ("resources", json!(["topic:a/#/b"])),
            ("resources", json!([7])),
            ("principals", json!(["dev-1"])),
            ("conditions", json!({ "qos_max": 3 })),
            ("conditions", json!({ "weather": "fine" })),
            ("conditions", json!([])),
            ("sid", json!(7)),
            ("not_actions", json!([])),
        ] {
            let mut statement = allow.clone();
            statement[key] = value;
            let answer = json!({ "mgate": { "statements": [statement] } });
            assert!(Terms::read(&answer).is_err(), "{answer}");
        }
        for terms in [
            json!([]),
            json!(null),
            json!({ "statements": {} }),
            json!({ "statements": [[]] }),
            json!({ "refresh_after": "30s" }),
            json!({ "disconnect_after": null }),
            json!({ "disconnect": 30 }),
            json!({ "limits": null }),
            json!({ "limits": [] }),
            json!({ "limits": { "connections": 1 } }),
            json!({ "topic_prefix": null }),
            json!({ "topic_prefix": 7 }),
            json!({ "topic_prefix": "" }),
            json!({ "topic_prefix": "acme" }),
            json!({ "topic_prefix": "$SYS/" }),
            json!({ "topic_prefix": "a/+/" }),
            json!({ "topic_prefix": "a\u{0}/" }),
            json!({ "topic_prefix": "tenants/${tenant}/" }),
            json!({ "topic_prefix": format!("{}/", "a".repeat(1024)) }),
        ] {
            assert!(Terms::read(&json!({ "mgate": terms })).is_err(), "{terms}");
        }
    }
}
