//! Access lists as brokers put them into tokens and answers: EMQX's list of rules, and its older form with
//! `pub`, `sub` and `all`.

use mgate_policies::TopicFilter;
use mgate_policies::jwt_scopes::{AclAction, AclRule, AclTopic};
use mgate_policies::static_rules::Effect;
use serde_json::{Map, Value};

/// The rules, in their order, each as the line that policies read; `None` if there is something in the list
/// that has no meaning: a rule that was left out could be one that denies.
pub(super) fn lines(list: &Value) -> Option<Vec<String>> {
    match list {
        Value::Array(rules) => {
            let lines: Option<Vec<_>> = rules.iter().map(|rule| rule_lines(rule.as_object()?)).collect();
            lines.map(|lines| lines.concat())
        }
        Value::Object(topics) => {
            let lines: Option<Vec<_>> = topics.iter().map(|(word, topics)| allowed(word, topics)).collect();
            lines.map(|lines| lines.concat())
        }
        _ => None,
    }
}

/// The old form: topics by what may be done to them.
fn allowed(word: &str, topics: &Value) -> Option<Vec<String>> {
    let action = action(match word {
        "pub" => "publish",
        "sub" => "subscribe",
        "all" => "all",
        _ => return None,
    })?;
    let rule = |topic| Some(AclRule { topic, ..any(Effect::Allow, action) }.to_string());
    several(topics).map(|topic| rule(topic_of(topic.as_str()?)?)).collect()
}

fn rule_lines(rule: &Map<String, Value>) -> Option<Vec<String>> {
    // a condition that is not known would make a rule match more than it says
    let is_known =
        |key: &String| ["permission", "action", "topic", "topics", "qos", "retain"].contains(&&**key);
    if !rule.keys().all(is_known) {
        return None;
    }
    let effect = match rule.get("permission")?.as_str()? {
        "allow" => Effect::Allow,
        "deny" => Effect::Deny,
        _ => return None,
    };
    let action = action(rule.get("action").map_or(Some("all"), Value::as_str)?)?;
    let qos = rule.get("qos").map_or(Some([true; 3]), qos)?;
    let retain = rule.get("retain").map_or(Some(None), retain)?;
    let ((Some(topics), None) | (None, Some(topics))) = (rule.get("topic"), rule.get("topics")) else {
        return None;
    };
    let line = |topic| Some(AclRule { effect, action, qos, retain, topic }.to_string());
    several(topics).map(|topic| line(topic_of(topic.as_str()?)?)).collect()
}

fn any(effect: Effect, action: AclAction) -> AclRule<'static> {
    AclRule { effect, action, qos: [true; 3], retain: None, topic: AclTopic::Exactly("") }
}

fn action(word: &str) -> Option<AclAction> {
    match word {
        "all" => Some(AclAction::All),
        "publish" => Some(AclAction::Publish),
        "subscribe" => Some(AclAction::Subscribe),
        _ => None,
    }
}

/// A number, several, or a text with commas between them.
fn qos(value: &Value) -> Option<[bool; 3]> {
    let mut numbers = [false; 3];
    let mut add = |number: u64| {
        *numbers.get_mut(usize::try_from(number).ok()?)? = true;
        Some(())
    };
    match value {
        Value::String(text) => text.split(',').try_for_each(|number| add(number.trim().parse().ok()?))?,
        value => several(value).try_for_each(|number| add(number.as_u64()?))?,
    }
    Some(numbers)
}

fn retain(value: &Value) -> Option<Option<bool>> {
    match value {
        Value::Bool(retain) => Some(Some(*retain)),
        Value::String(word) if word == "all" => Some(None),
        Value::String(word) => word.parse().ok().map(Some),
        Value::Number(number) => match number.as_u64()? {
            0 => Some(Some(false)),
            1 => Some(Some(true)),
            _ => None,
        },
        _ => None,
    }
}

fn topic_of(text: &str) -> Option<AclTopic<'_>> {
    match text.strip_prefix("eq ") {
        Some(text) => (!text.is_empty()).then_some(AclTopic::Exactly(text)),
        None => {
            let filter = TopicFilter::parse(text).ok()?;
            filter.share_group().is_none().then_some(AclTopic::Like(text))
        }
    }
}

fn several(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    }
    .iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn list_of_rules_is_read() {
        let list = json!([
            {"permission": "allow", "action": "publish", "topic": "a/${username}", "qos": [0, 1], "retain": true},
            {"permission": "deny", "action": "subscribe", "topics": ["eq #", "b/#"], "qos": "1, 2", "retain": 0},
            {"permission": "allow", "topic": "c", "qos": 2, "retain": "all"},
        ]);
        let expected = [
            "allow publish 01 retained like a/${username}",
            "deny subscribe 12 unretained exactly #",
            "deny subscribe 12 unretained like b/#",
            "allow all 2 any like c",
        ];
        assert_eq!(lines(&list).unwrap(), expected);
        assert_eq!(lines(&json!([])), Some(Vec::new()));
    }

    #[test]
    fn old_form_is_read() {
        let list = json!({"pub": ["a/%c"], "sub": "b/#", "all": ["c", "d"]});
        let expected = [
            "allow all 012 any like c",
            "allow all 012 any like d",
            "allow publish 012 any like a/%c",
            "allow subscribe 012 any like b/#",
        ];
        let mut read = lines(&list).unwrap();
        read.sort();
        assert_eq!(read, expected);
    }

    #[test]
    fn list_with_anything_else_in_it_is_none() {
        let rule = json!({"permission": "allow", "action": "publish", "topic": "a"});
        for (key, value) in [
            ("permission", json!("Allow")),
            ("permission", json!(null)),
            ("action", json!("pub")),
            ("action", json!(1)),
            ("topic", json!("a#")),
            ("topic", json!("")),
            ("topic", json!("eq ")),
            ("topic", json!("$share/g/a")),
            ("topic", json!([1])),
            ("topics", json!(["b"])),
            ("qos", json!(3)),
            ("qos", json!("")),
            ("qos", json!("0,3")),
            ("qos", json!(-1)),
            ("retain", json!(2)),
            ("retain", json!("yes")),
            ("retain", json!(null)),
            ("ipaddr", json!("10.0.0.1")),
        ] {
            let mut rule = rule.clone();
            rule[key] = value;
            assert_eq!(lines(&json!([rule])), None, "{rule}");
        }
        for list in [json!(null), json!("a"), json!([1]), json!({"publish": ["a"]}), json!({"pub": [1]})] {
            assert_eq!(lines(&list), None, "{list}");
        }
        for missing in ["permission", "topic"] {
            let mut rule = rule.clone();
            rule.as_object_mut().unwrap().remove(missing);
            assert_eq!(lines(&json!([rule])), None, "{missing}");
        }
    }
}
