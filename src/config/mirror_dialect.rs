//! How a `[mirror.NAME]` writes what it tells.

use std::sync::Arc;

use super::section::Section;
use crate::mirror::dialect::{Dialect, Kind, SubjectTemplate, Writer, WriterOptions};

/// A dialect, and where it sends what it tells.
pub(super) struct Told {
    pub(super) dialect: Arc<dyn Dialect>,
    /// The subject of messages; `None` where it follows from the topic.
    pub(super) messages: Option<SubjectTemplate>,
    /// The subject of events; `None` where none is told.
    pub(super) events: Option<SubjectTemplate>,
}

/// The dialect that a mirror's table asks for.
pub(super) fn dialect(section: &mut Section<'_>) -> Option<Told> {
    let kind = match section.has("dialect") {
        true => section.one_of("dialect", Kind::NAMES),
        false => Some(Kind::Mainflux0_13),
    };
    let subject = section.parse("subject", SubjectTemplate::parse).map(|subject| subject.value);
    let events_subject = events_subject(section, kind);
    let trace_subject = section.parse("trace_subject", SubjectTemplate::parse_without_topic);
    let content_type = section.parse("content_type", media_type);
    let content_type_from_topic = section.boolean("content_type_from_topic").unwrap_or_default();
    let kind = kind?;
    let default = || SubjectTemplate::parse(kind.subject()?).ok();
    let (messages, events) = (subject.clone().or_else(default), events_subject.clone());
    let dialect = Arc::new(Writer::new(WriterOptions {
        kind,
        subject,
        events_subject,
        trace_subject: trace_subject.map(|subject| subject.value),
        content_type: content_type.map(|kind| kind.value),
        content_type_from_topic,
    }));
    Some(Told { dialect, messages, events })
}

fn events_subject(section: &mut Section<'_>, kind: Option<Kind>) -> Option<SubjectTemplate> {
    let is_wanted = section.boolean("events").unwrap_or(true);
    let given = section.parse("events_subject", SubjectTemplate::parse_without_topic);
    if !is_wanted {
        if given.is_some() {
            section.problem("events_subject", "is of no use where `events` is false");
        }
        return None;
    }
    match given {
        Some(given) => Some(given.value),
        None => SubjectTemplate::parse_without_topic(kind?.events_subject()).ok(),
    }
}

/// A type, a subtype and maybe parameters. RFC 9110 §8.3.1
fn media_type(text: &str) -> Result<Box<str>, String> {
    let is_token = |part: &str| {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !part.is_empty() && part.bytes().all(is_part)
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    let is_media_type =
        essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    let is_printable = text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    match is_media_type && is_printable {
        true => Ok(text.into()),
        false => Err(format!("\"{text}\" is not a media type such as application/senml+json")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mgate_policies::Now;
    use mgate_proxy::gate::SessionEvent;

    use super::super::document::parse_toml;
    use super::super::problem::{Place, Report};
    use super::*;
    use crate::mirror::dialect::tests::{client, message};

    #[test]
    fn without_keys_it_is_mainflux_with_events() {
        let dialect = read("").unwrap();
        let client = client();
        let record = dialect.message(&message(&client, "channels/a/messages/b", b"x"), Vec::new()).unwrap();
        assert_eq!(record.subject(), "channels.a.b");
        let event = dialect.event(&SessionEvent::Opened(&client), Now::read()).unwrap();
        assert_eq!(event.subject(), "events.mainflux.mqtt");
        assert!(!dialect.wants_packets());
    }

    #[test]
    fn keys_say_where_and_how() {
        let dialect = read(
            "dialect = 'plain'\nsubject = 'm.{route}.{topic}'\nevents_subject = 'e.{action}'\n\
             trace_subject = 't'\ncontent_type = 'text/plain; charset=utf-8'\ncontent_type_from_topic = true",
        )
        .unwrap();
        let client = client();
        for (topic, subject, content_type) in [
            ("a/b", "m.devices.a.b", "text/plain; charset=utf-8"),
            ("a/json", "m.devices.a.json", "application/json"),
        ] {
            let record = dialect.message(&message(&client, topic, b"x"), Vec::new()).unwrap();
            assert_eq!(record.subject(), subject);
            assert!(record.headers().any(|header| header == ("Content-Type", content_type)));
        }
        let event = dialect.event(&SessionEvent::Opened(&client), Now::read()).unwrap();
        assert_eq!(event.subject(), "e.connect");
        assert!(dialect.wants_packets());
        let silent = read("events = false").unwrap();
        assert!(silent.event(&SessionEvent::Opened(&client), Now::read()).is_none());
    }

    #[test]
    fn every_dialect_can_be_named() {
        for (name, _) in Kind::NAMES {
            assert!(read(&format!("dialect = '{name}'")).is_ok());
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, problem) in [
            (
                "dialect = 'mainflux'",
                "mgate.toml:1: dialect: unknown value \"mainflux\" (mainflux-0.13, mainflux-legacy, magistrala-0.14, \
                 magistrala-0.15, magistrala-0.20, magistrala-0.50, supermq-0.16, supermq-0.17, plain, json, dojot)",
            ),
            ("subject = 'a.*'", "mgate.toml:1: subject: \"a.*\": must not have '*' in it"),
            ("subject = 'a..b'", "mgate.toml:1: subject: \"a..b\": a token is empty"),
            (
                "\nsubject = '{device}'",
                "mgate.toml:2: subject: \"{device}\": {device} is unknown ({tenant}, {client}, {principal}, {topic}, \
                 {route}, {action})",
            ),
            (
                "events_subject = 'a.{topic}'",
                "mgate.toml:1: events_subject: \"a.{topic}\": {topic} is for messages only",
            ),
            (
                "trace_subject = '{topic}'",
                "mgate.toml:1: trace_subject: \"{topic}\": {topic} is for messages only",
            ),
            (
                "events = false\nevents_subject = 'a'",
                "mgate.toml:2: events_subject: is of no use where `events` is false",
            ),
            (
                "content_type = 'json'",
                "mgate.toml:1: content_type: \"json\" is not a media type such as application/senml+json",
            ),
            (
                "content_type_from_topic = 1",
                "mgate.toml:1: content_type_from_topic: must be a boolean, not an integer",
            ),
            ("tpoic = 1", "mgate.toml:1: tpoic: unknown key"),
        ] {
            let problems = read(text).err().unwrap_or_default();
            assert!(problems.starts_with(problem), "{problems}");
        }
    }

    fn read(text: &str) -> Result<Arc<dyn Dialect>, String> {
        let (node, report) = (parse_toml(text).unwrap(), Report::default());
        let mut section = Section::root(&node, &Place::file(Path::new("mgate.toml")), None, &report);
        let dialect = dialect(&mut section);
        section.finish();
        report.finish().map_err(|problems| problems.to_string())?;
        Ok(dialect.unwrap().dialect)
    }
}
