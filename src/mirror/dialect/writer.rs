//! Writes one dialect.

use std::sync::atomic::{AtomicU64, Ordering};

use mgate_policies::{Action, Now};
use mgate_proxy::gate::{Memo, Message, Notes, PacketSeen, SessionEvent};

use super::channels::Grammar;
use super::content_type::{self, JSON};
use super::dojot::Device;
use super::envelope::{Envelope, Version};
use super::headers::Marks;
use super::kind::Family;
use super::random::{ID_LEN, message_id};
use super::stencil::Stencil;
use super::subject::Values;
use super::timestamp::{TIME_LEN, nanos, rfc3339};
use super::trace_context::{PARENT_LEN, TraceContext};
use super::{Described, Dialect, Kind, SubjectTemplate, cloud_events, events, headers, identity, packets};
use crate::mirror::draft::{Draft, Rest, Shared};
use crate::mirror::record::{Headers, Record};

/// A dialect as an operator wants it.
pub struct Writer {
    options: WriterOptions,
    /// No other writer of the process has it.
    number: u64,
}

/// What an operator says about a dialect.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Which one it is.
    pub kind: Kind,
    /// Where messages go; `None` for where the dialect has them.
    pub subject: Option<SubjectTemplate>,
    /// Where events go; `None` for nowhere.
    pub events_subject: Option<SubjectTemplate>,
    /// Where packets go; `None` for nowhere.
    pub trace_subject: Option<SubjectTemplate>,
    /// The media type of payloads about which nobody says anything.
    pub content_type: Option<Box<str>>,
    /// Whether the last level of a topic may be a media type.
    pub content_type_from_topic: bool,
}

impl Writer {
    /// A writer of one dialect.
    pub fn new(options: WriterOptions) -> Self {
        let default = || SubjectTemplate::parse(options.kind.subject()?).ok();
        let subject = options.subject.clone().or_else(default);
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { options: WriterOptions { subject, ..options }, number }
    }

    /// What it is known by.
    #[cfg(test)]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The media type of a payload; what the topic says counts most.
    fn content_type<'a>(&'a self, message: &Message<'a>) -> Option<&'a str> {
        let of_topic =
            self.options.content_type_from_topic.then(|| content_type::of_topic(message.topic)).flatten();
        let given = of_topic.or(message.notes.content_type).filter(|given| !given.is_empty());
        given.or(self.options.content_type.as_deref())
    }

    /// Writes where a message goes; `by_dialect` does, where nobody else says it.
    fn subject(
        &self,
        (message, action): (&Message<'_>, &str),
        room: Vec<u8>,
        by_dialect: impl FnOnce(Vec<u8>) -> Result<Headers, &'static str>,
    ) -> Result<Headers, &'static str> {
        let Some(subject) = &self.options.subject else { return by_dialect(room) };
        subject.fill(&Values { action, topic: message.topic, ..Values::of(Some(message.client)) }, room)
    }

    /// Writes a copy; with where the next one may differ from it, if that can be told.
    fn write(&self, message: &Message<'_>, room: Vec<u8>) -> Result<(Record, Option<Marks>), &'static str> {
        let described = &Described {
            id: message_id(),
            trace: TraceContext::of(&message.notes),
            content_type: self.content_type(message),
            action: message.action.as_str(),
            protocol: message.client.protocol.as_str(),
        };
        match self.options.kind.family() {
            Family::Channels(grammar, version) => {
                self.write_envelope(message, described, (grammar, version), room)
            }
            Family::CloudEvents => {
                let mut headers = self.subject((message, described.action), room, |_| Err(NO_SUBJECT))?;
                headers::of_message(&mut headers, message, described);
                headers.push_plain("Content-Type", cloud_events::CLOUD_EVENT);
                let mut record = headers.end();
                cloud_events::of_message(record.out(), message, described);
                Ok((record, None))
            }
            Family::Dojot => {
                let device = Device::of(message)?;
                let subject = |room| device.subject(room);
                let mut headers = self.subject((message, described.action), room, subject)?;
                headers::of_message(&mut headers, message, described);
                headers.push_plain("Content-Type", JSON);
                let mut record = headers.end();
                device.write_data(record.out(), message)?;
                Ok((record, None))
            }
            Family::Plain => {
                let mut headers = self.subject((message, described.action), room, |_| Err(NO_SUBJECT))?;
                let marks = headers::of_message(&mut headers, message, described);
                describe_payload(&mut headers, message, described.content_type);
                let mut record = headers.end();
                let tail_at = record.bytes().len();
                record.out().extend_from_slice(message.payload);
                Ok((record, Some(Marks { tail_at, ..marks })))
            }
        }
    }

    /// Writes a message of the Mainflux family.
    fn write_envelope(
        &self,
        message: &Message<'_>,
        described: &Described<'_>,
        (grammar, version): (Grammar, Version),
        room: Vec<u8>,
    ) -> Result<(Record, Option<Marks>), &'static str> {
        let place = grammar.read(message.topic)?;
        let content_type = place.content_type.as_deref().or(described.content_type);
        let subject = |room| grammar.subject(&place, room);
        let mut headers = self.subject((message, described.action), room, subject)?;
        let marks = headers::of_message(&mut headers, message, described);
        describe_payload(&mut headers, message, content_type);
        let metadata = metadata(content_type, &described.trace);
        let envelope = Envelope {
            channel: place.channel,
            domain: place.domain,
            subtopic: &place.subtopic,
            content_type: content_type.unwrap_or_default(),
            ..envelope(message, &metadata)
        };
        let mut record = headers.end();
        envelope.encode_start(version, record.out());
        let tail_at = record.bytes().len();
        envelope.encode_rest(version, record.out());
        Ok((record, Some(Marks { tail_at, ..marks })))
    }

    /// Writes a copy as far as it differs from those of the session that came before.
    fn write_rest(&self, shared: Shared, message: &Message<'_>, mut room: Vec<u8>) -> Draft {
        let trace = TraceContext::of(&message.notes);
        let (id, time) = (message_id(), rfc3339(message.now.unix));
        room.reserve(message.payload.len() + MOST_AROUND_PAYLOAD);
        let mut rest = Rest::new(shared, room, [&id, &time, trace.parent_bytes()]);
        match self.options.kind.family() {
            Family::Channels(_, version) => {
                let metadata = metadata(self.content_type(message), &trace);
                envelope(message, &metadata).encode_rest(version, rest.out());
            }
            _ => rest.out().extend_from_slice(message.payload),
        }
        Draft::Rest(rest)
    }
}

impl Dialect for Writer {
    fn message(&self, message: &Message<'_>, room: Vec<u8>) -> Result<Record, &'static str> {
        self.write(message, room).map(|(record, _)| record)
    }

    fn message_of_session(
        &self,
        message: &Message<'_>,
        memo: &mut Memo,
        room: Vec<u8>,
    ) -> Result<Draft, &'static str> {
        if message.notes != Notes::default() {
            return self.message(message, room).map(Draft::from);
        }
        let known = memo.read::<Stencil>().and_then(|stencil| stencil.shared(self.number, message));
        if let Some(shared) = known {
            return Ok(self.write_rest(shared, message, room));
        }
        let (record, marks) = self.write(message, room)?;
        if let Some(marks) = marks {
            memo.write::<Stencil>().keep(self.number, message, &record, marks);
        }
        Ok(record.into())
    }

    fn event(&self, event: &SessionEvent<'_>, now: Now) -> Option<Record> {
        let subject = self.options.events_subject.as_ref()?;
        Some(events::record(event, now, self.options.kind.vocabulary(), subject))
    }

    fn wants_packets(&self) -> bool {
        self.options.trace_subject.is_some()
    }

    fn packet(&self, seen: &PacketSeen<'_>, now: Now) -> Option<Record> {
        self.options.trace_subject.as_ref().map(|subject| packets::record(seen, now, subject))
    }
}

/// What an envelope says of a message that does not follow from its topic.
fn envelope<'a>(message: &Message<'a>, metadata: &'a [(&'a str, &'a [u8])]) -> Envelope<'a> {
    // of a delivery, it is not known who published it
    let publisher = Some(message.client).filter(|_| message.action != Action::Deliver);
    Envelope {
        publisher: publisher.map_or("", identity),
        protocol: message.client.protocol.as_str(),
        payload: message.payload,
        created: nanos(message.now.unix),
        client_id: publisher.map_or("", |client| &client.client_id),
        metadata,
        ..Envelope::default()
    }
}

fn metadata<'a>(content_type: Option<&'a str>, trace: &'a TraceContext<'_>) -> [(&'static str, &'a [u8]); 2] {
    let content_type = content_type.unwrap_or_default();
    [("content_type", content_type.as_bytes()), ("traceparent", trace.parent_bytes())]
}

/// Writes headers that say what a payload is.
fn describe_payload(headers: &mut Headers, message: &Message<'_>, content_type: Option<&str>) {
    for (name, value) in
        [("Content-Type", content_type), ("Content-Encoding", message.notes.content_encoding)]
    {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            headers.push(name, value);
        }
    }
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// What a copy has for itself beside its payload, in most dialects.
const MOST_AROUND_PAYLOAD: usize = ID_LEN + TIME_LEN + PARENT_LEN + 32;
const NO_SUBJECT: &str = "it has no subject";

#[cfg(test)]
mod tests {
    use mgate_policies::{Client, Principal};
    use mgate_proxy::gate::Notes;
    use prost::Message as _;

    use super::super::tests::{client, header, message, options, writer};
    use super::*;

    #[test]
    fn headers_tell_all_about_a_message() {
        let client = client();
        let notes = Notes {
            content_type: Some("text/plain"),
            content_encoding: Some("gzip"),
            traceparent: Some(TRACE),
            tracestate: Some("a=1,b=%"),
        };
        let message = Message { notes, retain: true, ..message(&client, CLASSIC, b"x") };
        let record = writer(Kind::Mainflux0_13).message(&message, Vec::new()).unwrap();
        let mut headers: Vec<_> = record.headers().collect();
        let (name, id) = headers.remove(0);
        assert_eq!((name, id.len()), ("Nats-Msg-Id", 33));
        let expected = [
            ("Mgate-Received", "2025-11-24T16:00:00.123456789Z"),
            ("Mgate-Protocol", "mqtt"),
            ("Mgate-Client", "dev-1"),
            ("Mgate-Principal", "thing-1"),
            ("Mgate-Tenant", "acme"),
            ("Mgate-Route", "devices"),
            ("Mgate-Topic", CLASSIC),
            ("Mgate-Action", "publish"),
            ("Mgate-QoS", "1"),
            ("Mgate-Retain", "true"),
            ("traceparent", TRACE),
            ("tracestate", "a=1,b=%"),
            ("Content-Type", "text/plain"),
            ("Content-Encoding", "gzip"),
        ];
        assert_eq!(headers, expected);
    }

    #[test]
    fn every_dialect_has_headers_and_defaults() {
        let client = client();
        for (_, kind) in Kind::NAMES {
            let topic = match kind.family() {
                Family::Channels(Grammar::Dotted | Grammar::Slashed, _) => "m/d/c/x",
                Family::Dojot => "acme:dev/attrs",
                _ => CLASSIC,
            };
            let record = writer(*kind).message(&message(&client, topic, b"{}"), Vec::new()).unwrap();
            assert_eq!(header(&record, "Mgate-Topic"), Some(topic));
            let trace = header(&record, "traceparent").unwrap();
            assert_eq!((&trace[..3], trace.len()), ("00-", 55));
            let is_own = options(*kind).events_subject.is_some();
            assert!(is_own && kind.subject().is_none_or(|subject| SubjectTemplate::parse(subject).is_ok()));
        }
    }

    #[test]
    fn anonymous_client_publishes_under_its_client_identifier() {
        let client = Client { principal: Principal::default(), ..client() };
        let record =
            writer(Kind::Mainflux0_13).message(&message(&client, CLASSIC, b"x"), Vec::new()).unwrap();
        let envelope = Envelope6::decode(record.payload()).unwrap();
        assert_eq!(envelope.publisher, "dev-1");
        assert_eq!(header(&record, "Mgate-Principal"), None);
    }

    #[test]
    fn what_a_client_shows_is_never_told() {
        for principal in [client().principal, Principal::default()] {
            let client = Client { principal, ..client() };
            for (_, kind) in Kind::NAMES {
                for topic in [CLASSIC, "m/d/c/x", "acme:dev/attrs"] {
                    let Ok(record) = writer(*kind).message(&message(&client, topic, b"{}"), Vec::new())
                    else {
                        continue;
                    };
                    assert!(!record.into_bytes().windows(7).any(|window| window == b"hunter2"), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn topic_says_most_about_the_content_type() {
        let (client, given) = (client(), Notes { content_type: Some("a/given"), ..Notes::default() });
        let from_topic = WriterOptions {
            content_type_from_topic: true,
            content_type: Some("a/set".into()),
            ..options(Kind::Plain)
        };
        let set = WriterOptions { content_type_from_topic: false, ..from_topic.clone() };
        for (options, topic, notes, expected) in [
            (&from_topic, "a/json", given, Some("application/json")),
            (&from_topic, "a/b", given, Some("a/given")),
            (&from_topic, "a/b", Notes::default(), Some("a/set")),
            (&set, "a/json", given, Some("a/given")),
            (&set, "a/json", Notes { content_type: Some(""), ..Notes::default() }, Some("a/set")),
            (&options(Kind::Plain), "a/json", Notes::default(), None),
        ] {
            let message = Message { notes, ..message(&client, topic, b"x") };
            let record = Writer::new(options.clone()).message(&message, Vec::new()).unwrap();
            assert_eq!(header(&record, "Content-Type"), expected, "{topic}");
        }
    }

    #[test]
    fn legacy_topic_says_what_the_envelope_says() {
        let client = client();
        let message = message(&client, "channels/a/messages/x/ct/text_plain", b"x");
        let record = writer(Kind::MainfluxLegacy).message(&message, Vec::new()).unwrap();
        assert_eq!(record.subject(), "channel.a.x");
        assert_eq!(header(&record, "Content-Type"), Some("text/plain"));
    }

    #[test]
    fn plain_messages_keep_their_payload() {
        let client = client();
        let record =
            writer(Kind::Plain).message(&message(&client, "/a b//c", b"\xff\x00"), Vec::new()).unwrap();
        assert_eq!(record.subject(), "mgate.messages.acme.%.a%20b.%.c");
        assert_eq!(record.payload(), b"\xff\x00");
    }

    #[test]
    fn given_subject_takes_the_place_of_the_dialect_s_own() {
        let client = client();
        let subject = SubjectTemplate::parse("x.{tenant}.{action}.{topic}").ok();
        let writer = Writer::new(WriterOptions { subject, ..options(Kind::Mainflux0_13) });
        let delivery = Message { action: Action::Deliver, ..message(&client, CLASSIC, b"x") };
        let record = writer.message(&delivery, Vec::new()).unwrap();
        assert_eq!(record.subject(), "x.acme.deliver.channels.a.messages.t");
        assert_eq!(Envelope6::decode(record.payload()).unwrap().publisher, "");
        assert!(writer.message(&message(&client, "elsewhere", b"x"), Vec::new()).is_err());
    }

    #[test]
    fn packets_and_events_are_told_where_they_are_wanted() {
        let (client, now) = (client(), super::super::tests::now());
        let event = SessionEvent::Opened(&client);
        let wanted = writer(Kind::Plain);
        assert!(wanted.wants_packets() && wanted.event(&event, now).is_some());
        let unwanted =
            Writer::new(WriterOptions { events_subject: None, trace_subject: None, ..options(Kind::Plain) });
        assert!(!unwanted.wants_packets() && unwanted.event(&event, now).is_none());
    }

    /// The part of an envelope that is asked about.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Envelope6 {
        #[prost(string, tag = "3")]
        publisher: String,
    }

    const CLASSIC: &str = "channels/a/messages/t";
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
}
