use std::sync::Arc;
use std::time::Duration;

use mgate_policies::{Cause, Decision, Grant, Reason};
use mgate_wasm::Reply;
use serde_json::{Map, Value};

use crate::pdp::for_people;

/// The decision in a module's answer, or what is wrong with it: whatever is not documented is no decision.
pub(super) fn read(reply: &Reply) -> Result<Decision, &'static str> {
    match reply {
        Reply::Code(0) => Ok(Decision::Abstain),
        Reply::Code(1) => Ok(Decision::Allow(Grant::default())),
        Reply::Code(2) => Ok(Decision::Deny(Reason::new(Cause::NotAuthorized))),
        Reply::Code(7) => Err("the plug-in says that it cannot decide"),
        Reply::Code(_) => Err("the plug-in answers with a code that has no meaning"),
        Reply::Text(text) => match serde_json::from_slice(text) {
            Ok(Value::Object(answer)) => read_object(&answer),
            _ => Err("the plug-in's answer is not a JSON object"),
        },
    }
}

fn read_object(answer: &Map<String, Value>) -> Result<Decision, &'static str> {
    if answer.keys().any(|key| !["decision", "reason", "ttl"].contains(&key.as_str())) {
        return Err("the plug-in's answer has a key without a meaning");
    }
    let words = match answer.get("reason") {
        None => None,
        Some(Value::String(words)) => Some(for_people(words)),
        Some(_) => return Err("the plug-in's reason is not a string"),
    };
    let ttl = answer.get("ttl").map(seconds).transpose()?;
    match answer.get("decision").and_then(Value::as_str) {
        Some("abstain") => Ok(Decision::Abstain),
        Some("allow") => Ok(Decision::Allow(grant(words, ttl))),
        Some("deny") => Ok(Decision::Deny(Reason { detail: words, ..Reason::new(Cause::NotAuthorized) })),
        _ => Err("the plug-in's answer has no decision"),
    }
}

fn grant(by: Option<Arc<str>>, ttl: Option<Duration>) -> Grant {
    let mut grant = Grant::default();
    (grant.by, grant.ttl) = (by, ttl);
    grant
}

fn seconds(value: &Value) -> Result<Duration, &'static str> {
    let time = value.as_f64().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    time.ok_or("the plug-in's ttl is not a number of seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_meaning() {
        assert_eq!(read(&Reply::Code(0)), Ok(Decision::Abstain));
        assert_eq!(read(&Reply::Code(1)), Ok(Decision::Allow(Grant::default())));
        assert_eq!(read(&Reply::Code(2)), Ok(Decision::Deny(Reason::new(Cause::NotAuthorized))));
        for code in 3..8 {
            assert!(read(&Reply::Code(code)).is_err(), "{code}");
        }
    }

    #[test]
    fn objects_say_more() {
        assert_eq!(said(r#"{"decision":"abstain"}"#), Ok(Decision::Abstain));
        let allow = grant(Some("own topic".into()), Some(Duration::from_millis(1500)));
        let text = r#"{"decision":"allow","reason":"own\n topic","ttl":1.5}"#;
        assert_eq!(said(text), Ok(Decision::Allow(allow)));
        let deny = Reason::with_detail(Cause::NotAuthorized, "too hot");
        assert_eq!(said(r#"{"decision":"deny","reason":"too hot"}"#), Ok(Decision::Deny(deny)));
    }

    #[test]
    fn whatever_else_is_no_decision() {
        for text in [
            "",
            "true",
            "\"allow\"",
            "{}",
            "{\"decision\":true}",
            "{\"decision\":\"Allow\"}",
            "{\"decision\":\"allow\"",
            "{\"decision\":\"allow\"} ",
            "{\"decision\":\"allow\"}x",
            "{\"decision\":\"allow\",\"reason\":1}",
            "{\"decision\":\"allow\",\"ttl\":\"5\"}",
            "{\"decision\":\"allow\",\"ttl\":-1}",
            "{\"decision\":\"allow\",\"ttl\":1e300}",
            "{\"decision\":\"allow\",\"tll\":1}",
            "\u{fffd}",
        ] {
            assert_eq!(said(text).is_ok(), text.ends_with("} "), "{text}");
        }
        assert!(read(&Reply::Text(vec![0xff])).is_err());
    }

    fn said(text: &str) -> Result<Decision, &'static str> {
        read(&Reply::Text(text.into()))
    }
}
