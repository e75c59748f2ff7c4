//! A question as subject, action, resource and context: what AuthZEN, OPA and plug-ins are asked with.

use std::fmt::Display;
use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mgate_policies::{Action, Client, Query, Resource};

use super::dialect::{Unaskable, username};

/// Whether a question tells what the message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Hidden,
    /// In Base64, so that any bytes can be told.
    Shown,
}

/// Writes a question as one JSON object. OpenID AuthZEN Authorization API 1.0 §5
pub(crate) fn write(query: &Query<'_>, payload: Payload, out: &mut Vec<u8>) -> Result<(), Unaskable> {
    let (kind, id, share_group) = resource(query)?;
    let client = query.client;
    object(out, |entities| {
        write_subject(client, entities);
        entities.object("action", |action| {
            if let Resource::Request { method, .. } = query.resource {
                action.text("name", method);
                return;
            }
            action.text("name", &query.action.to_string());
            if query.action != Action::Connect {
                action.object("properties", |properties| {
                    properties.bare("qos", query.qos);
                    properties.bare("retain", query.retain);
                    if payload == Payload::Shown && query.action != Action::Subscribe {
                        properties.text("payload", &STANDARD.encode(query.payload));
                    }
                });
            }
        });
        entities.object("resource", |resource| {
            resource.text("type", kind);
            resource.text("id", id);
            if let Some(group) = share_group {
                resource.object("properties", |properties| properties.text("share_group", group));
            }
        });
        write_context(client, entities);
    });
    Ok(())
}

/// Writes who it is that acts.
pub(crate) fn write_subject(client: &Client, entities: &mut Object<'_>) {
    entities.object("subject", |subject| {
        subject.text("type", "client");
        subject.text("id", &client.principal.id);
        subject.object("properties", |properties| write_properties(client, properties));
    });
}

/// Writes where the client came from, and how.
pub(crate) fn write_context(client: &Client, entities: &mut Object<'_>) {
    entities.object("context", |context| {
        context.text("protocol", &client.protocol.to_string());
        context.text("listener", &client.route);
        context.text("peer", &client.peer.ip().to_canonical().to_string());
        context.bare("tls", client.is_encrypted);
    });
}

/// Kind and identity of what the question is about, and the group of a shared subscription.
pub(super) fn resource<'a>(query: &Query<'a>) -> Result<(&'static str, &'a str, Option<&'a str>), Unaskable> {
    match query.resource {
        Resource::Session => Ok(("session", &query.client.client_id, None)),
        Resource::Filter(filter) => Ok(("topic_filter", filter.as_str(), filter.share_group())),
        Resource::Request { path, .. } => Ok(("path", path.as_str(), None)),
        Resource::Topic(topic) => Ok(("topic", topic.as_str(), None)),
        _ => Err(Unaskable("there is no word for this resource")),
    }
}

fn write_properties(client: &Client, properties: &mut Object<'_>) {
    let principal = &client.principal;
    properties.text("client_id", &client.client_id);
    if let Some(name) = username(client) {
        properties.text("username", name);
    }
    if !principal.tenant.is_empty() {
        properties.text("tenant", &principal.tenant);
    }
    if !principal.groups.is_empty() {
        properties.texts("groups", principal.groups.iter().map(|group| &**group));
    }
    for (key, prefix) in [("cert", "cert."), ("claims", "claims.")] {
        write_attributes(client, properties, key, |name| name.strip_prefix(prefix));
    }
    write_attributes(client, properties, "attributes", |name| {
        (!name.starts_with("cert.") && !name.starts_with("claims.")).then_some(name)
    });
}

/// Writes those attributes that `short` has a name for, each as a list; nothing where there is none.
fn write_attributes<'a>(
    client: &'a Client,
    properties: &mut Object<'_>,
    key: &str,
    short: impl Fn(&'a str) -> Option<&'a str>,
) {
    let attributes = &client.principal.attributes;
    let mut names: Vec<_> = attributes.iter().filter(|(name, _)| short(name).is_some()).collect();
    // they are sorted by name
    names.dedup_by_key(|(name, _)| *name);
    if names.is_empty() {
        return;
    }
    properties.object(key, |object| {
        for (name, _) in names {
            object.texts(short(name).unwrap_or(name), attributes.values(name));
        }
    });
}

/// An object that is being written.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

/// Writes an object with the members that `members` writes.
pub(crate) fn object(out: &mut Vec<u8>, members: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    members(&mut Object { out, is_empty: true });
    out.push(b'}');
}

impl Object<'_> {
    /// A string.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        write_text(self.out, value);
    }

    /// A number, or `true` and `false`.
    pub(crate) fn bare(&mut self, key: &str, value: impl Display) {
        self.key(key);
        // memory takes all that is written to it
        let _ = write!(self.out, "{value}");
    }

    /// An object with the members that `members` writes.
    pub(crate) fn object(&mut self, key: &str, members: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        object(self.out, members);
    }

    /// A list of strings.
    fn texts<'a>(&mut self, key: &str, values: impl Iterator<Item = &'a str>) {
        self.key(key);
        self.out.push(b'[');
        for (index, value) in values.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write_text(self.out, value);
        }
        self.out.push(b']');
    }

    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        write_text(self.out, key);
        self.out.push(b':');
    }
}

/// RFC 8259 §7
fn write_text(out: &mut Vec<u8>, text: &str) {
    // memory takes all that is written to it
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use mgate_policies::{Attributes, Principal, RequestPath, TopicFilter, TopicName};
    use serde_json::{Value, json};

    use super::super::tests::{client, query};
    use super::*;

    #[test]
    fn question_says_all_that_is_known() {
        let mut attributes = Attributes::default();
        for (name, value) in
            [("claims.scope", "a"), ("claims.scope", "b"), ("cert.san.dns", "x.example"), ("site", "north")]
        {
            attributes.add(name, value);
        }
        let principal = Principal {
            tenant: "acme".into(),
            id: "dev-\"1\"".into(),
            groups: vec!["sensors".into(), "north".into()],
            attributes,
            expires: None,
        };
        let client = Client { principal, username: Some("eve\n".into()), ..client() };
        let filter = Resource::Filter(TopicFilter::parse("$share/workers/a/+/ü").unwrap());
        let question = Query { qos: 2, ..query(&client, Action::Subscribe, filter) };
        let expected = json!({
            "subject": {
                "type": "client",
                "id": "dev-\"1\"",
                "properties": {
                    "client_id": "dev-1",
                    "username": "eve\n",
                    "tenant": "acme",
                    "groups": ["sensors", "north"],
                    "cert": { "san.dns": ["x.example"] },
                    "claims": { "scope": ["a", "b"] },
                    "attributes": { "site": ["north"] },
                },
            },
            "action": { "name": "subscribe", "properties": { "qos": 2, "retain": false } },
            "resource": { "type": "topic_filter", "id": "a/+/ü", "properties": { "share_group": "workers" } },
            "context": { "protocol": "mqtt", "listener": "devices", "peer": "10.0.0.7", "tls": true },
        });
        assert_eq!(written(&question), expected);
    }

    #[test]
    fn question_leaves_out_what_is_not_there() {
        let client = Client { principal: Principal::default(), ..client() };
        let expected = json!({
            "subject": { "type": "client", "id": "", "properties": { "client_id": "dev-1" } },
            "action": { "name": "connect" },
            "resource": { "type": "session", "id": "dev-1" },
            "context": { "protocol": "mqtt", "listener": "devices", "peer": "10.0.0.7", "tls": true },
        });
        assert_eq!(written(&query(&client, Action::Connect, Resource::Session)), expected);
    }

    #[test]
    fn request_is_its_method_and_its_path() {
        let client = client();
        let path = RequestPath::parse("/a/\"b\"").unwrap();
        let mut out = Vec::new();
        let resource = Resource::Request { method: "PATCH", path };
        write(&query(&client, Action::Request, resource), Payload::Shown, &mut out).unwrap();
        let written: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(written["action"], json!({ "name": "PATCH" }));
        assert_eq!(written["resource"], json!({ "type": "path", "id": "/a/\"b\"" }));
    }

    #[test]
    fn payload_is_written_where_it_is_shown() {
        let client = client();
        let topic = Resource::Topic(TopicName::parse("a").unwrap());
        for (payload, expected) in [(&b"\xff21"[..], "/zIx"), (b"", "")] {
            let mut out = Vec::new();
            let question = Query { payload, ..query(&client, Action::Publish, topic) };
            write(&question, Payload::Shown, &mut out).unwrap();
            let written: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(written["action"]["properties"]["payload"], expected);
        }
    }

    #[test]
    fn payload_and_token_are_not_written_otherwise() {
        let client = Client { username: Some("eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmF0dXJl".into()), ..client() };
        let topic = Resource::Topic(TopicName::parse("a").unwrap());
        let mut out = Vec::new();
        let question = Query { payload: b"hunter2", ..query(&client, Action::Publish, topic) };
        write(&question, Payload::Hidden, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("eyJ"), "{text}");
    }

    fn written(query: &Query<'_>) -> Value {
        let mut out = Vec::new();
        write(query, Payload::Hidden, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }
}
