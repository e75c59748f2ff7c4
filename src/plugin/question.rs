//! What a transform is asked: who it is, and a part of a packet.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mgate_policies::{Editable, EditableFilter, EditableLogin, EditableMessage, Part};

use crate::pdp::entities::{Object, Payload, object, write_context, write_subject};
use crate::pdp::is_token;

/// Writes a question as one JSON object; a password or a token is never in it.
pub(super) fn write(packet: &Editable<'_>, payload: Payload, out: &mut Vec<u8>) {
    object(out, |question| {
        write_subject(packet.client, question);
        question.object("part", |part| match &packet.part {
            Part::Filter(filter) => part.object("filter", |members| write_filter(filter, members)),
            Part::Login(login) => part.object("login", |members| write_login(login, members)),
            Part::Message(message) => {
                part.object("message", |members| write_message(message, payload, members));
            }
        });
        write_context(packet.client, question);
    });
}

fn write_filter(filter: &EditableFilter<'_>, members: &mut Object<'_>) {
    members.text("filter", &filter.filter);
    if let Some(group) = filter.share_group {
        members.text("share_group", group);
    }
    if let Some(qos) = filter.qos {
        members.bare("qos", qos);
    }
}

fn write_login(login: &EditableLogin<'_>, members: &mut Object<'_>) {
    members.text("client_id", &login.client_id);
    if let Some(username) = login.username.as_deref().filter(|username| !is_token(username)) {
        members.text("username", username);
    }
}

fn write_message(message: &EditableMessage<'_>, payload: Payload, members: &mut Object<'_>) {
    members.text("action", &message.action.to_string());
    members.text("topic", &message.topic);
    if let Some(topic) = &message.response_topic {
        members.text("response_topic", topic);
    }
    if payload == Payload::Shown {
        members.text("payload", &STANDARD.encode(&message.payload));
    }
    members.bare("qos", message.qos);
    members.bare("retain", message.retain);
}

#[cfg(test)]
mod tests {
    use mgate_policies::{Action, Outdated};
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin::tests::client;

    #[test]
    fn question_says_who_asks_and_where() {
        let asked = asked(Part::Filter(filter()), Payload::Hidden);
        assert_eq!(
            asked["subject"],
            json!({
                "type": "client", "id": "", "properties": { "client_id": "dev-1" }
            })
        );
        assert_eq!(
            asked["context"],
            json!({
                "protocol": "mqtt", "listener": "devices", "peer": "127.0.0.1", "tls": false
            })
        );
    }

    #[test]
    fn message_is_shown_with_its_payload_only_where_that_is_said() {
        let message = || {
            Part::Message(EditableMessage {
                action: Action::Deliver,
                topic: "a/\"b\"".into(),
                response_topic: Some("r".into()),
                payload: b"\xff21".into(),
                qos: 1,
                retain: true,
                outdated: Outdated::default(),
            })
        };
        let mut expected = json!({ "message": {
            "action": "deliver", "topic": "a/\"b\"", "response_topic": "r", "qos": 1, "retain": true
        } });
        assert_eq!(asked(message(), Payload::Hidden)["part"], expected);
        expected["message"]["payload"] = json!("/zIx");
        assert_eq!(asked(message(), Payload::Shown)["part"], expected);
    }

    #[test]
    fn filter_is_shown_with_its_group_and_qos() {
        let part = |filter| asked(Part::Filter(filter), Payload::Shown)["part"].take();
        assert_eq!(part(filter()), json!({ "filter": { "filter": "a/#" } }));
        let shared = EditableFilter { share_group: Some("g"), qos: Some(2), ..filter() };
        assert_eq!(part(shared), json!({ "filter": { "filter": "a/#", "share_group": "g", "qos": 2 } }));
    }

    #[test]
    fn login_is_shown_without_secrets() {
        let part = |username: &'static str| {
            let (username, password) = (Some(username.into()), Some(b"hunter2".into()));
            let login = EditableLogin { client_id: "c".into(), username, password };
            asked(Part::Login(login), Payload::Shown)["part"].take()
        };
        assert_eq!(part("eve"), json!({ "login": { "client_id": "c", "username": "eve" } }));
        assert_eq!(part("eyJh.e30.c2ln"), json!({ "login": { "client_id": "c" } }));
    }

    fn filter() -> EditableFilter<'static> {
        EditableFilter { filter: "a/#".into(), share_group: None, qos: None }
    }

    fn asked(part: Part<'_>, payload: Payload) -> Value {
        let (client, mut out) = (client(), Vec::new());
        write(&Editable { client: &client, part }, payload, &mut out);
        serde_json::from_slice(&out).unwrap()
    }
}
