//! What a transform answers.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mgate_policies::{Cause, Part, Reason, Refusal};
use mgate_wasm::Reply;

use crate::pdp::entities::Payload;
use crate::pdp::for_people;

/// What becomes of a packet.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// It says this instead: new values by the names of members.
    Changes(BTreeMap<String, String>),
    /// It goes no further.
    Refuse(Refusal),
}

/// The answer of a module, or what is wrong with it: whatever is not documented is none.
pub(super) fn read(reply: &Reply) -> Result<Answer, &'static str> {
    match reply {
        Reply::Code(0 | 1) => Ok(Answer::Changes(BTreeMap::new())),
        Reply::Code(2) => Ok(Answer::Refuse(Refusal::Denied(Reason::new(Cause::NotAuthorized)))),
        Reply::Code(7) => Err("the plug-in says that it cannot decide"),
        Reply::Code(_) => Err("the plug-in answers with a code that has no meaning"),
        Reply::Text(text) => match serde_json::from_slice(text) {
            Ok(members) => read_members(members),
            Err(_) => Err("the plug-in's answer is not a JSON object of strings"),
        },
    }
}

/// Puts new values into a part; where that fails, the part is not to be used.
pub(super) fn put(
    changes: BTreeMap<String, String>,
    part: &mut Part<'_>,
    payload: Payload,
) -> Result<(), &'static str> {
    changes.into_iter().try_for_each(|(name, new)| put_one(&name, new, part, payload))
}

fn read_members(members: BTreeMap<String, String>) -> Result<Answer, &'static str> {
    let (deny, drop) = (members.get("deny"), members.get("drop"));
    if (deny.is_some() || drop.is_some()) && members.len() > 1 {
        return Err("the plug-in refuses and says something else too");
    }
    let reason = |why: &String| Reason::with_detail(Cause::NotAuthorized, for_people(why));
    Ok(match (deny, drop) {
        (Some(why), _) => Answer::Refuse(Refusal::Denied(reason(why))),
        (None, Some(why)) => Answer::Refuse(Refusal::Dropped(reason(why))),
        (None, None) => Answer::Changes(members),
    })
}

fn put_one(name: &str, new: String, part: &mut Part<'_>, payload: Payload) -> Result<(), &'static str> {
    match (part, name) {
        (Part::Filter(filter), "filter") => filter.filter = Cow::Owned(new),
        (Part::Login(login), "client_id") => login.client_id = Cow::Owned(new),
        (Part::Login(login), "username") => login.username = Some(Cow::Owned(new)),
        (Part::Message(message), "topic") => message.topic = Cow::Owned(new),
        // one that asks for no answer does not begin to: MQTT before 5.0 has no way to say so
        (Part::Message(message), "response_topic") if message.response_topic.is_some() => {
            message.response_topic = Some(Cow::Owned(new));
        }
        (Part::Message(message), "payload") if payload == Payload::Shown => {
            let bytes = STANDARD.decode(new).map_err(|_| "the plug-in's payload is not Base64")?;
            message.payload = Cow::Owned(bytes);
        }
        _ => return Err("the plug-in changes what the packet does not have"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mgate_policies::{Action, EditableFilter, EditableLogin, EditableMessage, Outdated};

    use super::*;

    #[test]
    fn codes_have_their_meaning() {
        for code in [0, 1] {
            assert_eq!(read(&Reply::Code(code)), Ok(Answer::Changes(BTreeMap::new())));
        }
        let denied = Refusal::Denied(Reason::new(Cause::NotAuthorized));
        assert_eq!(read(&Reply::Code(2)), Ok(Answer::Refuse(denied)));
        for code in 3..8 {
            assert!(read(&Reply::Code(code)).is_err(), "{code}");
        }
    }

    #[test]
    fn refusals_have_words() {
        let reason = |why: &str| Reason::with_detail(Cause::NotAuthorized, why);
        assert_eq!(said(r#"{"deny":"too\n hot"}"#), Ok(Answer::Refuse(Refusal::Denied(reason("too hot")))));
        assert_eq!(said(r#"{"drop":"again"}"#), Ok(Answer::Refuse(Refusal::Dropped(reason("again")))));
    }

    #[test]
    fn whatever_else_is_no_answer() {
        for text in [
            "",
            "true",
            "\"a\"",
            "[]",
            "{",
            "{}x",
            "{\"topic\":1}",
            "{\"topic\":null}",
            "{\"deny\":true}",
            "{\"deny\":\"no\",\"topic\":\"a\"}",
            "{\"drop\":\"no\",\"deny\":\"no\"}",
        ] {
            assert!(said(text).is_err(), "{text}");
        }
        assert!(read(&Reply::Text(vec![0xff])).is_err());
    }

    #[test]
    fn what_is_named_is_changed_and_nothing_else() {
        let Ok(Part::Message(after)) = changed(message(), r#"{"topic":"b","payload":"Mg=="}"#) else {
            panic!("it is a message");
        };
        assert_eq!((&*after.topic, after.response_topic.as_deref()), ("b", Some("r")));
        assert_eq!(&*after.payload, b"2");
        let Ok(Part::Message(after)) = changed(message(), r#"{"response_topic":"s"}"#) else {
            panic!("it is a message");
        };
        assert_eq!((&*after.topic, after.response_topic.as_deref()), ("a", Some("s")));
        let Ok(Part::Filter(after)) = changed(filter(), r#"{"filter":"b/#"}"#) else {
            panic!("it is a filter");
        };
        assert_eq!((&*after.filter, after.share_group, after.qos), ("b/#", Some("g"), Some(1)));
        let Ok(Part::Login(after)) = changed(login(), r#"{"client_id":"d","username":"u"}"#) else {
            panic!("it is a login");
        };
        assert_eq!((&*after.client_id, after.username.as_deref()), ("d", Some("u")));
        assert_eq!(after.password.as_deref(), Some(&b"hunter2"[..]));
    }

    #[test]
    fn what_the_part_does_not_have_cannot_be_changed() {
        let why = Err("the plug-in changes what the packet does not have");
        for (part, text) in [
            (message(), r#"{"filter":"b"}"#),
            (message(), r#"{"qos":"1"}"#),
            (filter(), r#"{"topic":"b"}"#),
            (filter(), r#"{"share_group":"b"}"#),
            (login(), r#"{"password":"b"}"#),
            (login(), r#"{"client_id":"b","topic":"b"}"#),
        ] {
            assert_eq!(changed(part, text).map(|_| ()), why, "{text}");
        }
        let Part::Message(message) = message() else { panic!("it is a message") };
        let without = EditableMessage { response_topic: None, ..message.clone() };
        assert_eq!(changed(Part::Message(without), r#"{"response_topic":"b"}"#).map(|_| ()), why);
        let bad = changed(Part::Message(message.clone()), r#"{"payload":"?"}"#).map(|_| ());
        assert_eq!(bad, Err("the plug-in's payload is not Base64"));
        let payload = BTreeMap::from([("payload".to_owned(), "Mg==".to_owned())]);
        assert_eq!(put(payload, &mut Part::Message(message), Payload::Hidden), why);
    }

    fn said(text: &str) -> Result<Answer, &'static str> {
        read(&Reply::Text(text.into()))
    }

    fn changed(mut part: Part<'static>, text: &str) -> Result<Part<'static>, &'static str> {
        let Answer::Changes(changes) = said(text)? else { panic!("it refuses") };
        put(changes, &mut part, Payload::Shown).map(|()| part)
    }

    fn message() -> Part<'static> {
        Part::Message(EditableMessage {
            action: Action::Publish,
            topic: "a".into(),
            response_topic: Some("r".into()),
            payload: b"1".into(),
            qos: 0,
            retain: false,
            outdated: Outdated::default(),
        })
    }

    fn filter() -> Part<'static> {
        Part::Filter(EditableFilter { filter: "a/#".into(), share_group: Some("g"), qos: Some(1) })
    }

    fn login() -> Part<'static> {
        let password = Some(b"hunter2".into());
        Part::Login(EditableLogin { client_id: "c".into(), username: None, password })
    }
}
