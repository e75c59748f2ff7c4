//! CloudEvents 1.0 in JSON, structured mode.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mgate_policies::Client;
use mgate_proxy::gate::Message;
use serde_json::Value;

use super::Described;
use super::content_type::{JSON, is_json};
use super::timestamp::rfc3339;
use crate::neighbour::body::percent_encode;
use crate::pdp::entities::{Object, object};

/// The media type of an event.
pub(super) const CLOUD_EVENT: &str = "application/cloudevents+json";

/// Writes a message as an event. CloudEvents 1.0 §3, JSON Event Format §3
pub(super) fn of_message(out: &mut Vec<u8>, message: &Message<'_>, described: &Described<'_>) {
    object(out, |event| {
        let id = str::from_utf8(&described.id).unwrap_or_default();
        begin(event, &message.client.route, id);
        event.text("type", &format!("mgate.message.{}", described.action));
        event.text("subject", message.topic);
        event.text("time", str::from_utf8(&rfc3339(message.now.unix)).unwrap_or_default());
        write_client(message.client, described.protocol, event);
        event.text("action", described.action);
        event.bare("qos", message.qos);
        event.bare("retain", message.retain);
        event.text("traceparent", described.trace.parent());
        write_some(event, "tracestate", described.trace.state());
        let encoding = message.notes.content_encoding.filter(|encoding| !encoding.is_empty());
        write_some(event, "contentencoding", encoding);
        write_data(event, message.payload, described.content_type);
    });
}

/// Writes what happened to a session, as an event whose data `data` writes.
pub(super) fn of_session(
    out: &mut Vec<u8>,
    (kind, route): (&str, &str),
    (id, time): (&str, &str),
    data: impl FnOnce(&mut Object<'_>),
) {
    object(out, |event| {
        begin(event, route, id);
        event.text("type", &format!("mgate.session.{kind}"));
        event.text("time", time);
        event.text("datacontenttype", JSON);
        event.object("data", data);
    });
}

fn begin(event: &mut Object<'_>, route: &str, id: &str) {
    let mut source = "/mgate/".to_owned();
    percent_encode(route, &mut source);
    event.text("specversion", "1.0");
    event.text("id", id);
    event.text("source", &source);
}

/// Extension attributes; none of them may be empty. CloudEvents 1.0 §3.1.1
fn write_client(client: &Client, protocol: &str, event: &mut Object<'_>) {
    event.text("protocol", protocol);
    for (name, value) in [
        ("client", &*client.client_id),
        ("principal", &client.principal.id),
        ("tenant", &client.principal.tenant),
        ("route", &client.route),
    ] {
        write_some(event, name, Some(value).filter(|value| !value.is_empty()));
    }
}

/// JSON as it came, a text as a string, anything else in Base64. JSON Event Format §3.1
fn write_data(event: &mut Object<'_>, payload: &[u8], content_type: Option<&str>) {
    let text = str::from_utf8(payload).ok();
    let may_be_json = content_type.is_none_or(is_json);
    match text {
        Some(text) if may_be_json && is_valid(text) => {
            event.text("datacontenttype", content_type.unwrap_or(JSON));
            event.bare("data", text);
        }
        Some(text) if !may_be_json => {
            write_some(event, "datacontenttype", content_type);
            event.text("data", text);
        }
        _ => {
            write_some(event, "datacontenttype", content_type);
            event.text("data_base64", &STANDARD.encode(payload));
        }
    }
}

/// Whether it is JSON that any reader can take: not too deep, with numbers in bounds.
fn is_valid(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok()
}

fn write_some(event: &mut Object<'_>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        event.text(name, value);
    }
}

#[cfg(test)]
mod tests {
    use mgate_proxy::gate::Notes;
    use serde_json::json;

    use super::super::tests::{client, header, message, writer};
    use super::super::{Dialect as _, Kind};
    use super::*;

    #[test]
    fn message_is_an_event_with_extensions() {
        let client = client();
        let notes = Notes {
            content_type: Some("application/json"),
            content_encoding: Some("identity"),
            traceparent: Some(TRACE),
            tracestate: Some("a=1"),
        };
        let message = Message { notes, ..message(&client, "a/b", b"{ \"t\": 21.50 }") };
        let record = writer(Kind::Json).message(&message, Vec::new()).unwrap();
        assert_eq!(header(&record, "Content-Type"), Some(CLOUD_EVENT));
        assert_eq!(header(&record, "Content-Encoding"), None);
        let event: Value = serde_json::from_slice(record.payload()).unwrap();
        let expected = json!({
            "specversion": "1.0",
            "id": header(&record, "Nats-Msg-Id"),
            "source": "/mgate/devices",
            "type": "mgate.message.publish",
            "subject": "a/b",
            "time": "2025-11-24T16:00:00.123456789Z",
            "datacontenttype": "application/json",
            "data": { "t": 21.50 },
            "protocol": "mqtt",
            "client": "dev-1",
            "principal": "thing-1",
            "tenant": "acme",
            "route": "devices",
            "action": "publish",
            "qos": 1,
            "retain": false,
            "traceparent": TRACE,
            "tracestate": "a=1",
            "contentencoding": "identity",
        });
        assert_eq!(event, expected);
        let is_name =
            |name: &String| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        // the one name of the standard that breaks its own rule is not there
        assert!(event.as_object().unwrap().keys().all(is_name));
    }

    #[test]
    fn data_is_what_the_content_type_makes_of_the_payload() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for (content_type, payload, key, expected) in [
            (None, &b"{\"a\":[1]}"[..], "data", json!({ "a": [1] })),
            (None, b"21", "data", json!(21)),
            (None, b"on", "data_base64", json!("b24=")),
            (None, b"", "data_base64", json!("")),
            (Some("application/senml+json"), b"[]", "data", json!([])),
            (Some("application/json"), b"{", "data_base64", json!("ew==")),
            (Some("application/json"), b"\"\\ud800\"", "data_base64", json!("Ilx1ZDgwMCI=")),
            (Some("application/json"), deep.as_bytes(), "data_base64", json!(STANDARD.encode(&deep))),
            (Some("application/json"), b"1} ,{", "data_base64", json!("MX0gLHs=")),
            (Some("text/plain"), b"21\n", "data", json!("21\n")),
            (Some("text/plain"), b"\xff", "data_base64", json!("/w==")),
        ] {
            let client = client();
            let notes = Notes { content_type, ..Notes::default() };
            let message = Message { notes, ..message(&client, "a", payload) };
            let record = writer(Kind::Json).message(&message, Vec::new()).unwrap();
            let event: Value = serde_json::from_slice(record.payload()).unwrap();
            assert_eq!(event[key], expected);
            let is_implied = content_type.is_none() && key == "data";
            assert_eq!(event["datacontenttype"], json!(if is_implied { Some(JSON) } else { content_type }));
            let data = ["data", "data_base64"].iter().filter(|key| event.get(key).is_some());
            assert_eq!(data.count(), 1);
        }
    }

    #[test]
    fn source_is_a_reference_whatever_the_route_is_called() {
        let client = Client { route: "my route/ü".into(), ..client() };
        let record = writer(Kind::Json).message(&message(&client, "a", b""), Vec::new()).unwrap();
        let event: Value = serde_json::from_slice(record.payload()).unwrap();
        assert_eq!(event["source"], "/mgate/my%20route%2F%C3%BC");
    }

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
}
