//! What happened to sessions, in JSON.

use std::net::SocketAddr;
use std::sync::LazyLock;

use mgate_policies::{Action, Client, Now, TopicFilter};
use mgate_proxy::gate::{Blame, SessionEvent};

use super::channels::subscription;
use super::cloud_events::{self, CLOUD_EVENT};
use super::content_type::JSON;
use super::envelope::Envelope;
use super::headers;
use super::identity;
use super::kind::Vocabulary;
use super::random::{self, message_id};
use super::subject::{SubjectTemplate, Values};
use super::timestamp::{nanos, rfc3339};
use crate::mirror::record::Record;
use crate::pdp::entities::{Object, object};

/// Word of an event.
pub(super) fn record(
    event: &SessionEvent<'_>,
    now: Now,
    vocabulary: Vocabulary,
    subject: &SubjectTemplate,
) -> Record {
    let news = News::of(event, now);
    let (id, time) = (message_id(), rfc3339(now.unix));
    let [id, time] = [&id[..], &time].map(|text| str::from_utf8(text).unwrap_or_default());
    let content_type = if vocabulary == Vocabulary::CloudEvents { CLOUD_EVENT } else { JSON };
    let values = Values { action: news.operation(vocabulary), ..Values::of(news.client) };
    let mut headers = subject.fill_in_short(&values, Vec::new());
    headers::of_session(&mut headers, news.client, news.peer, (id, time));
    headers.push_plain("Content-Type", content_type);
    headers.push_plain("Mgate-Event", news.name);
    let mut record = headers.end();
    let route = news.client.map_or("", |client| &client.route);
    match vocabulary {
        Vocabulary::Ours => object(record.out(), |words| news.write(time, words)),
        Vocabulary::CloudEvents => {
            let write = |words: &mut Object<'_>| news.write(time, words);
            cloud_events::of_session(record.out(), (news.name, route), (id, time), write);
        }
        Vocabulary::Things(version) | Vocabulary::Clients(version) => {
            let mut payload = Vec::new();
            object(&mut payload, |words| {
                news.write_for(vocabulary, words);
                news.write(time, words);
            });
            Envelope { payload: &payload, ..Envelope::default() }.encode(version, record.out());
        }
    }
    record
}

/// What is told of any event.
struct News<'a> {
    name: &'static str,
    client: Option<&'a Client>,
    peer: SocketAddr,
    event: &'a SessionEvent<'a>,
    now: Now,
}

impl<'a> News<'a> {
    fn of(event: &'a SessionEvent<'a>, now: Now) -> Self {
        let (name, client, peer) = match *event {
            SessionEvent::Opened(client) => ("connect", Some(client), client.peer),
            SessionEvent::Subscribed { client, .. } => ("subscribe", Some(client), client.peer),
            SessionEvent::Unsubscribed { client, .. } => ("unsubscribe", Some(client), client.peer),
            SessionEvent::Denied { client, peer, .. } => ("deny", client, peer),
            SessionEvent::Dropped { client, .. } => ("drop", Some(client), client.peer),
            SessionEvent::Closed { client, peer, .. } => ("disconnect", client, peer),
            SessionEvent::Failed { client, .. } => ("fail", Some(client), client.peer),
            SessionEvent::WouldBeDenied { client, .. } => ("would_deny", Some(client), client.peer),
        };
        Self { name, client, peer, event, now }
    }

    /// The event's name in the words of a platform.
    fn operation(&self, vocabulary: Vocabulary) -> &'static str {
        match (vocabulary, self.name) {
            (Vocabulary::Clients(_), "connect") => "client_connect",
            (Vocabulary::Clients(_), "disconnect") => "client_disconnect",
            (Vocabulary::Clients(_), "subscribe") => "client_subscribe",
            (Vocabulary::Clients(_), "unsubscribe") => "client_unsubscribe",
            (_, name) => name,
        }
    }

    fn write(&self, time: &str, words: &mut Object<'_>) {
        words.text("event", self.name);
        words.text("time", time);
        if let Some(client) = self.client {
            words.text("client", &client.client_id);
            words.text("principal", &client.principal.id);
            words.text("tenant", &client.principal.tenant);
            words.text("route", &client.route);
            words.text("protocol", client.protocol.as_str());
        }
        words.text("peer", &headers::address(self.peer));
        words.object("details", |details| self.write_details(details));
    }

    fn write_details(&self, details: &mut Object<'_>) {
        match *self.event {
            SessionEvent::Opened(client) => details.bare("tls", client.is_encrypted),
            SessionEvent::Subscribed { filter, qos, .. } => {
                details.text("filter", filter);
                details.bare("qos", qos);
            }
            SessionEvent::Unsubscribed { filter, .. } => details.text("filter", filter),
            // the log alone hears more of who nobody knows: it may be what a stranger typed
            SessionEvent::Denied { client: None, action, resource, reason, .. } => {
                write_judgement(details, action, resource, &reason.cause.to_string());
            }
            SessionEvent::Denied { action, resource, reason, .. }
            | SessionEvent::Dropped { action, resource, reason, .. } => {
                write_judgement(details, action, resource, &reason.to_string());
            }
            SessionEvent::Closed { client, why, blame, is_told, .. } => {
                let why = if client.is_none() && is_told { "denied".to_owned() } else { why.to_string() };
                details.text("reason", &why);
                details.text("blame", word(blame));
            }
            SessionEvent::Failed { action, resource, why, .. } => {
                write_judgement(details, action, resource, &why.to_string());
            }
            SessionEvent::WouldBeDenied { action, resource, objection, .. } => {
                details.text("policy", &objection.policy);
                write_judgement(details, action, resource, &objection.reason.to_string());
            }
        }
    }

    /// What readers of a platform look for. Where it says a key, we say who was identified.
    fn write_for(&self, vocabulary: Vocabulary, words: &mut Object<'_>) {
        words.text("operation", self.operation(vocabulary));
        words.bare("occurred_at", nanos(self.now.unix));
        words.text("instance", &INSTANCE);
        let Some(client) = self.client else { return };
        if !matches!(vocabulary, Vocabulary::Clients(_)) {
            words.text("event_type", self.name);
            words.text("thing_id", identity(client));
            return;
        }
        words.text("client_id", identity(client));
        words.text("subscriber_id", &client.client_id);
        let SessionEvent::Subscribed { filter, .. } = *self.event else { return };
        let filter = TopicFilter::parse(filter).map_or(filter, TopicFilter::as_str);
        if let Some((domain, channel, subtopic)) = subscription(filter) {
            // spelled so
            words.text("domainID", domain);
            words.text("channel_id", channel);
            words.text("subtopic", &subtopic);
        }
    }
}

fn write_judgement(details: &mut Object<'_>, action: Action, resource: &str, reason: &str) {
    details.text("action", &action.to_string());
    details.text("resource", resource);
    details.text("reason", reason);
}

fn word(blame: Blame) -> &'static str {
    match blame {
        Blame::Client => "client",
        Blame::Nobody => "nobody",
        Blame::Upstream => "upstream",
        Blame::Us => "mgate",
    }
}

/// Tells this process from others.
static INSTANCE: LazyLock<String> = LazyLock::new(|| format!("{:016x}", random::numbers::<1>()[0]));

#[cfg(test)]
mod tests {
    use mgate_policies::{Cause, Objection, Principal, Reason};
    use serde_json::{Value, json};

    use super::super::tests::{client, header, now, writer};
    use super::super::{Dialect as _, Kind};
    use super::*;

    #[test]
    fn nothing_that_a_stranger_typed_is_told() {
        let peer = client().peer;
        let reason = Reason::with_detail(Cause::BadCredentials, "nobody knows user \"hunter2\" (users)");
        let (action, resource, why) = (Action::Connect, "dev-1", format!("connect denied: {reason}"));
        for (event, expected) in [
            (
                SessionEvent::Denied { client: None, peer, action, resource, reason: &reason },
                "bad credentials",
            ),
            (
                SessionEvent::Closed { client: None, peer, why: &why, blame: Blame::Client, is_told: true },
                "denied",
            ),
        ] {
            let record = writer(Kind::Plain).event(&event, now()).unwrap();
            let told: Value = serde_json::from_slice(record.payload()).unwrap();
            assert_eq!(told["details"]["reason"], expected);
            assert!(!record.into_bytes().windows(7).any(|window| window == b"hunter2"));
        }
    }

    #[test]
    fn each_event_has_its_name_and_details() {
        let client = client();
        let peer = client.peer;
        let reason = Reason::with_detail(Cause::NotAuthorized, "acl");
        let objection = Objection { policy: "trial".into(), reason: reason.clone() };
        let (action, resource) = (Action::Publish, "a/b");
        let judged = json!({ "action": "publish", "resource": "a/b", "reason": "not authorized: acl" });
        let mut would_be = judged.clone();
        would_be["policy"] = json!("trial");
        let why = "the client disconnected";
        for (event, name, details) in [
            (SessionEvent::Opened(&client), "connect", json!({ "tls": true })),
            (
                SessionEvent::Subscribed { client: &client, filter: "a/#", qos: 2 },
                "subscribe",
                json!({ "filter": "a/#", "qos": 2 }),
            ),
            (
                SessionEvent::Unsubscribed { client: &client, filter: "a/#" },
                "unsubscribe",
                json!({ "filter": "a/#" }),
            ),
            (
                SessionEvent::Denied { client: Some(&client), peer, action, resource, reason: &reason },
                "deny",
                judged.clone(),
            ),
            (
                SessionEvent::Dropped { client: &client, action, resource, reason: &reason },
                "drop",
                judged.clone(),
            ),
            (SessionEvent::Failed { client: &client, action, resource, why: &reason }, "fail", judged),
            (
                SessionEvent::Closed {
                    client: Some(&client),
                    peer,
                    why: &why,
                    blame: Blame::Nobody,
                    is_told: false,
                },
                "disconnect",
                json!({ "reason": why, "blame": "nobody" }),
            ),
            (
                SessionEvent::WouldBeDenied { client: &client, action, resource, objection: &objection },
                "would_deny",
                would_be,
            ),
        ] {
            let record = writer(Kind::Plain).event(&event, now()).unwrap();
            assert_eq!(record.subject(), format!("mgate.events.acme.{name}"));
            assert_eq!(header(&record, "Mgate-Event"), Some(name));
            assert_eq!(header(&record, "Content-Type"), Some("application/json"));
            assert_eq!(header(&record, "Mgate-Principal"), Some("thing-1"));
            let told: Value = serde_json::from_slice(record.payload()).unwrap();
            let expected = json!({
                "event": name,
                "time": "2025-11-24T16:00:00.123456789Z",
                "client": "dev-1",
                "principal": "thing-1",
                "tenant": "acme",
                "route": "devices",
                "protocol": "mqtt",
                "peer": "10.0.0.7:1234",
                "details": details,
            });
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn denial_of_who_is_not_known_is_told() {
        let reason = Reason::new(Cause::BadCredentials);
        let peer = "[::ffff:10.0.0.7]:1234".parse().unwrap();
        let event = SessionEvent::Denied {
            client: None,
            peer,
            action: Action::Connect,
            resource: "dev-1",
            reason: &reason,
        };
        for (_, kind) in Kind::NAMES {
            let record = writer(*kind).event(&event, now()).unwrap();
            assert!(!record.subject().contains(['*', '>', ' ']), "{}", record.subject());
            assert_eq!(header(&record, "Mgate-Peer"), Some("10.0.0.7:1234"));
            assert_eq!(header(&record, "Mgate-Client"), None);
            let text = String::from_utf8_lossy(record.payload());
            assert!(
                text.contains("\"reason\":\"bad credentials\"")
                    && text.contains("\"peer\":\"10.0.0.7:1234\"")
            );
        }
    }

    #[test]
    fn client_cannot_hide_behind_a_long_name() {
        let principal = Principal { tenant: "acme".into(), ..Principal::default() };
        let client = Client { client_id: "x".repeat(60_000).into(), principal, ..client() };
        let subject = SubjectTemplate::parse_without_topic("events.{client}.{tenant}").ok();
        let options = super::super::tests::options(Kind::Plain);
        let writer =
            super::super::Writer::new(super::super::WriterOptions { events_subject: subject, ..options });
        let record = writer.event(&SessionEvent::Opened(&client), now()).unwrap();
        assert_eq!(record.subject(), "events.%%.acme");
        assert!(record.payload().len() > 60_000);
    }

    #[test]
    fn platforms_are_told_in_their_words() {
        let client = client();
        let open = SessionEvent::Opened(&client);
        let close = SessionEvent::Closed {
            client: Some(&client),
            peer: client.peer,
            why: &"x",
            blame: Blame::Us,
            is_told: false,
        };
        for (event, kind, subject, operation) in [
            (open, Kind::Magistrala0_14, "events.magistrala.mqtt", "connect"),
            (close, Kind::Magistrala0_15, "events.magistrala.mqtt", "disconnect"),
            (open, Kind::Supermq0_16, "events.supermq.mqtt", "connect"),
            (close, Kind::Supermq0_17, "events.supermq.mqtt.client_disconnect", "client_disconnect"),
            (open, Kind::Magistrala0_20, "events.magistrala.mqtt.client_connect", "client_connect"),
        ] {
            let record = writer(kind).event(&event, now()).unwrap();
            assert_eq!(record.subject(), subject);
            // the envelope has nothing but its payload
            let start = record.payload().iter().position(|byte| *byte == b'{').unwrap();
            assert!(start < 4);
            let told: Value = serde_json::from_slice(&record.payload()[start..]).unwrap();
            assert_eq!(told["operation"], operation);
            assert_eq!(told["occurred_at"], 1_764_000_000_123_456_789_u64);
            assert_eq!(told["instance"], **INSTANCE);
            let is_thing = operation == told["event"];
            assert_eq!(told[if is_thing { "thing_id" } else { "client_id" }], "thing-1");
            assert!(!told.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn cloud_event_has_what_happened_as_its_data() {
        let client = client();
        let record = writer(Kind::Json).event(&SessionEvent::Opened(&client), now()).unwrap();
        assert_eq!(header(&record, "Content-Type"), Some(CLOUD_EVENT));
        let event: Value = serde_json::from_slice(record.payload()).unwrap();
        assert_eq!(event["type"], "mgate.session.connect");
        assert_eq!(event["id"], header(&record, "Nats-Msg-Id").unwrap());
        assert_eq!(event["data"]["client"], "dev-1");
    }
}
