//! The device data of dojot.

use mgate_proxy::gate::Message;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::subject::Subject;
use crate::mirror::record::Headers;
use crate::pdp::entities::object;

/// Whose data a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device<'a> {
    tenant: &'a str,
    id: &'a str,
}

impl<'a> Device<'a> {
    /// The device of `<tenant>:<device>/attrs` or `/<tenant>/<device>/attrs`, which must be of its client's
    /// tenant.
    pub(super) fn of(message: &Message<'a>) -> Result<Self, &'static str> {
        let device = Self::read(message.topic).ok_or("its topic is not <tenant>:<device>/attrs")?;
        let tenant = &*message.client.principal.tenant;
        match tenant.is_empty() || tenant == device.tenant {
            true => Ok(device),
            false => Err("its topic is that of another tenant"),
        }
    }

    fn read(topic: &'a str) -> Option<Self> {
        let name = topic.strip_suffix("/attrs")?;
        let (tenant, id) = match name.strip_prefix('/') {
            Some(name) => name.split_once('/')?,
            None => name.split_once(':')?,
        };
        (is_word(tenant) && is_word(id)).then_some(Self { tenant, id })
    }

    /// Writes where its data goes.
    pub(super) fn subject(self, room: Vec<u8>) -> Result<Headers, &'static str> {
        let mut subject = Subject::new(usize::MAX, room);
        subject.value(self.tenant);
        subject.literal(".device-data");
        subject.finish()
    }

    /// Writes what it says, with the time that it says itself, if it does.
    pub(super) fn write_data(self, out: &mut Vec<u8>, message: &Message<'_>) -> Result<(), &'static str> {
        let text = str::from_utf8(message.payload).map_err(|_| NO_OBJECT)?;
        let attributes: Map<String, Value> = serde_json::from_str(text).map_err(|_| NO_OBJECT)?;
        let timestamp = match attributes.get("timestamp") {
            // seconds stay seconds, as they do in dojot
            Some(Value::Number(number)) => Some(number.to_string()),
            Some(Value::String(text)) => millis(text).map(|millis| millis.to_string()),
            _ => None,
        };
        let timestamp = timestamp.unwrap_or_else(|| message.now.unix.as_millis().to_string());
        object(out, |data| {
            data.object("metadata", |metadata| {
                metadata.text("deviceid", self.id);
                metadata.text("tenant", self.tenant);
                metadata.bare("timestamp", timestamp);
            });
            data.bare("attrs", text.trim());
        });
        Ok(())
    }
}

fn millis(text: &str) -> Option<i128> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(time.unix_timestamp_nanos() / 1_000_000)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

const NO_OBJECT: &str = "its payload is not a JSON object";

#[cfg(test)]
mod tests {
    use mgate_policies::{Client, Principal};
    use serde_json::json;

    use super::super::tests::{client, header, message, writer};
    use super::super::{Dialect as _, Kind};
    use super::*;

    #[test]
    fn both_forms_of_topics_are_known() {
        let client = client();
        for topic in ["acme:dev_1/attrs", "/acme/dev_1/attrs"] {
            let record = writer(Kind::Dojot)
                .message(&message(&client, topic, b" {\"t\":21.50}\n"), Vec::new())
                .unwrap();
            assert_eq!(record.subject(), "acme.device-data");
            assert_eq!(header(&record, "Content-Type"), Some("application/json"));
            let metadata = r#"{"metadata":{"deviceid":"dev_1","tenant":"acme","timestamp":1764000000123}"#;
            assert_eq!(record.payload(), format!(r#"{metadata},"attrs":{{"t":21.50}}}}"#).into_bytes());
        }
    }

    #[test]
    fn device_may_say_when_it_was() {
        for (timestamp, expected) in [
            (json!(1_600_000_000), json!(1_600_000_000)),
            (json!(-1.5), json!(-1.5)),
            (json!("2025-11-24T16:00:00.5+01:00"), json!(1_763_996_400_500_u64)),
            (json!("yesterday"), json!(1_764_000_000_123_u64)),
            (json!(null), json!(1_764_000_000_123_u64)),
            (json!(true), json!(1_764_000_000_123_u64)),
        ] {
            let client = client();
            let payload = json!({ "timestamp": timestamp }).to_string();
            let message = message(&client, "acme:dev/attrs", payload.as_bytes());
            let record = writer(Kind::Dojot).message(&message, Vec::new()).unwrap();
            let data: Value = serde_json::from_slice(record.payload()).unwrap();
            assert_eq!(data["metadata"]["timestamp"], expected);
            assert_eq!(data["attrs"]["timestamp"], timestamp);
        }
    }

    #[test]
    fn what_is_no_device_data_is_refused() {
        let client = client();
        for topic in [
            "acme:dev/config",
            "acme/dev/attrs",
            "/acme:dev/attrs",
            "acme:dev/attrs/x",
            "acme:/attrs",
            ":dev/attrs",
            "a.b:dev/attrs",
            "acme:d:v/attrs",
            "*:dev/attrs",
            "//acme/dev/attrs",
            "/attrs",
        ] {
            let refused = writer(Kind::Dojot).message(&message(&client, topic, b"{}"), Vec::new());
            assert_eq!(refused, Err("its topic is not <tenant>:<device>/attrs"), "{topic}");
        }
        for payload in [&b"[]"[..], b"21", b"", b"{", b"{}{}", b"{\"a\":\"\xff\"}"] {
            let refused =
                writer(Kind::Dojot).message(&message(&client, "acme:dev/attrs", payload), Vec::new());
            assert_eq!(refused, Err(NO_OBJECT));
        }
    }

    #[test]
    fn client_of_a_tenant_speaks_for_no_other() {
        let refused = writer(Kind::Dojot)
            .message(&message(&client(), "other:dev/attrs", b"{}"), Vec::new())
            .map(|_| ());
        assert_eq!(refused, Err("its topic is that of another tenant"));
        let client = Client { principal: Principal::default(), ..client() };
        assert!(writer(Kind::Dojot).message(&message(&client, "other:dev/attrs", b"{}"), Vec::new()).is_ok());
    }
}
