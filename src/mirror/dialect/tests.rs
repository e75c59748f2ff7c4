//! What the tests of dialects are told with.

use std::time::Duration;

use mgate_policies::{Action, Client, Now, Principal, Protocol};
use mgate_proxy::gate::{Message, Notes};

use super::{Kind, SubjectTemplate, Writer, WriterOptions};
use crate::mirror::record::Record;

/// A dialect with all that it can write, and nothing said about it.
pub(super) fn options(kind: Kind) -> WriterOptions {
    WriterOptions {
        kind,
        subject: None,
        events_subject: SubjectTemplate::parse_without_topic(kind.events_subject()).ok(),
        trace_subject: SubjectTemplate::parse_without_topic("trace.{client}.{action}").ok(),
        content_type: None,
        content_type_from_topic: false,
    }
}

pub(crate) fn writer(kind: Kind) -> Writer {
    Writer::new(options(kind))
}

pub(crate) fn message<'a>(client: &'a Client, topic: &'a str, payload: &'a [u8]) -> Message<'a> {
    let (action, notes) = (Action::Publish, Notes::default());
    Message {
        client,
        action,
        now: now(),
        topic,
        payload,
        qos: 1,
        retain: false,
        is_acknowledged: true,
        notes,
    }
}

/// A client that has shown a secret.
pub(crate) fn client() -> Client {
    Client {
        principal: Principal { id: "thing-1".into(), tenant: "acme".into(), ..Principal::default() },
        client_id: "dev-1".into(),
        username: Some("hunter2".into()),
        peer: ([10, 0, 0, 7], 1234).into(),
        route: "devices".into(),
        protocol: Protocol::Mqtt,
        is_encrypted: true,
    }
}

/// 2025-11-24T16:00:00.123456789Z
pub(super) fn now() -> Now {
    Now { unix: Duration::new(1_764_000_000, 123_456_789), ..Now::read() }
}

/// The value of a header, which stands there once.
pub(super) fn header<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    let mut values = record.headers().filter(|(known, _)| *known == name).map(|(_, value)| value);
    let value = values.next();
    assert_eq!(values.next(), None, "{name}");
    value
}
