//! The copy of a session's last message, for the next one that differs in little.

use mgate_policies::{Action, Protocol};
use mgate_proxy::gate::Message;

use super::headers::Marks;
use crate::mirror::draft::Shared;
use crate::mirror::record::Record;

/// What the copies of a session's messages begin with, while they agree in all that it was written of and have no
/// notes.
#[derive(Default)]
pub(super) struct Stencil {
    key: Option<Key>,
    /// The same one several times, for as many copies: to count one more each time would fetch the count from the
    /// processor on which the last copy was sent.
    stock: Vec<Shared>,
    /// The texts that belong to the key, each with an end.
    texts: Vec<u8>,
}

/// What a copy was written of, beside texts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    writer: u64,
    action: Action,
    protocol: Protocol,
    qos: u8,
    retain: bool,
}

impl Stencil {
    /// What the copy of a message begins with, if this writer would write it the same.
    pub(super) fn shared(&mut self, writer: u64, message: &Message<'_>) -> Option<Shared> {
        let mut known = &self.texts[..];
        let mut is_known = |text: &str| {
            let same = known.split_off(..text.len()).is_some_and(|known| known == text.as_bytes());
            same && known.split_off_first() == Some(&END)
        };
        if self.key != Some(Key::of(writer, message)) || !texts(message).into_iter().all(&mut is_known) {
            return None;
        }
        if let [last] = &self.stock[..] {
            let more = vec![last.clone(); STOCK];
            self.stock.extend(more);
        }
        self.stock.pop()
    }

    /// Keeps what stands before the payload, if it is not too much.
    pub(super) fn keep(&mut self, writer: u64, message: &Message<'_>, record: &Record, marks: Marks) {
        let texts = texts(message);
        let texts_bytes = texts.iter().map(|text| text.len() + 1).sum();
        self.key = None;
        if marks.tail_at + texts_bytes > MAX_BYTES {
            (self.texts, self.stock) = (Vec::new(), Vec::new());
            return;
        }
        self.texts.clear();
        self.texts.reserve_exact(texts_bytes);
        for text in texts {
            self.texts.extend_from_slice(text.as_bytes());
            self.texts.push(END);
        }
        self.stock.truncate(1);
        // copies that are on their way may still need what was there
        if !self.stock.first_mut().is_some_and(|last| last.set(record, marks.tail_at, marks.gaps())) {
            self.stock.clear();
            self.stock.push(Shared::new(record, marks.tail_at, marks.gaps()));
        }
        self.key = Some(Key::of(writer, message));
    }
}

impl Key {
    fn of(writer: u64, message: &Message<'_>) -> Self {
        let Message { action, qos, retain, client, .. } = *message;
        Self { writer, action, protocol: client.protocol, qos, retain }
    }
}

/// What clients and messages are told by; the topic, which differs most often, comes first.
fn texts<'a>(message: &Message<'a>) -> [&'a str; 5] {
    let client = message.client;
    [message.topic, &client.client_id, &client.principal.id, &client.principal.tenant, &client.route]
}

/// Ends a text: no text has it in it.
const END: u8 = 0xff;
/// How many copies are provided for at a time.
const STOCK: usize = 8;
/// What is not kept for a session, as it takes too much memory.
const MAX_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use mgate_policies::{Client, Now, Principal};
    use mgate_proxy::gate::{Memo, Notes};
    use proptest::prelude::*;

    use super::super::tests::{client, header, now, options, writer};
    use super::super::{Dialect as _, Kind, Writer, WriterOptions};
    use super::*;

    #[test]
    fn second_copy_is_written_by_the_first() {
        let client = client();
        let (first, second) =
            (message(&client, "channels/a/messages/t"), message(&client, "channels/a/messages/u"));
        let (writer, mut memo) = (writer(Kind::Mainflux0_13), Memo::default());
        let mut own = HashSet::new();
        for (message, fits) in
            [(first, false), (first, true), (second, false), (second, true), (first, false)]
        {
            let is_known = |stencil: &mut Stencil| stencil.shared(writer.number(), &message).is_some();
            assert_eq!(memo.read().is_some_and(is_known), fits);
            let copy = writer.message_of_session(&message, &mut memo, Vec::new()).unwrap();
            let copy = copy.record();
            for name in ["Nats-Msg-Id", "traceparent"] {
                assert!(own.insert(header(&copy, name).unwrap().to_owned()), "{name} came before");
            }
        }
    }

    #[test]
    fn copy_on_its_way_stays_what_it_is() {
        let client = client();
        let topics = ["channels/a/messages/t", "channels/a/messages/u"];
        let (writer, mut memo) = (writer(Kind::Mainflux0_13), Memo::default());
        let mut copy =
            |topic| writer.message_of_session(&message(&client, topic), &mut memo, Vec::new()).unwrap();
        // more of them than are provided for at a time
        let copies: Vec<_> =
            topics.iter().flat_map(|topic| [*topic; 2 * STOCK]).map(|topic| (topic, copy(topic))).collect();
        for (topic, copy) in copies {
            assert_eq!(header(&copy.record(), "Mgate-Topic"), Some(topic));
        }
    }

    #[test]
    fn nothing_large_is_kept() {
        let (client, topic) = (client(), format!("channels/a/messages/{}", "t".repeat(400)));
        let (writer, mut memo) = (writer(Kind::Mainflux0_13), Memo::default());
        for _ in 0..2 {
            writer.message_of_session(&message(&client, &topic), &mut memo, Vec::new()).unwrap();
            let stencil: &mut Stencil = memo.read().unwrap();
            assert_eq!((stencil.stock.capacity(), stencil.texts.capacity()), (0, 0));
        }
    }

    #[test]
    fn copy_of_another_message_is_not_taken() {
        let base = Step {
            texts: ["a"; 4],
            topic: "channels/a/messages/t",
            payload: b"{}".to_vec(),
            nanos: 1,
            qos: 0,
            is_delivery: false,
            retain: false,
            is_set: false,
            protocol: Protocol::Mqtt,
            content_type: None,
        };
        let mut others = vec![
            Step { topic: "channels/a/messages/u", ..base.clone() },
            Step { payload: b"{\"a\":1}".to_vec(), ..base.clone() },
            Step { nanos: 2, ..base.clone() },
            Step { qos: 1, ..base.clone() },
            Step { is_delivery: true, ..base.clone() },
            Step { retain: true, ..base.clone() },
            Step { is_set: true, ..base.clone() },
            Step { protocol: Protocol::Http, ..base.clone() },
            Step { content_type: Some("text/plain"), ..base.clone() },
        ];
        for at in 0..4 {
            let mut other = base.clone();
            other.texts[at] = "b";
            others.push(other);
        }
        for kind in [Kind::Mainflux0_13, Kind::Plain] {
            let writers = [
                writer(kind),
                Writer::new(WriterOptions { content_type: Some("a/b".into()), ..options(kind) }),
            ];
            for other in &others {
                let mut memo = Memo::default();
                let mut write = |step: &Step| {
                    let (client, writer) = (step.client(), &writers[usize::from(step.is_set)]);
                    let again =
                        writer.message_of_session(&step.message(&client), &mut memo, Vec::new()).unwrap();
                    let anew = writer.message(&step.message(&client), Vec::new()).unwrap();
                    assert_eq!(said(&again.record()), said(&anew), "{step:?}");
                };
                [&base, other, other, &base].into_iter().for_each(&mut write);
            }
        }
    }

    proptest! {
        /// Copies with a memo say what those without one say, whatever came before.
        #[test]
        fn copies_say_the_same_by_a_stencil(steps in prop::collection::vec(step(), 1..12)) {
            for (_, kind) in Kind::NAMES {
                let set = WriterOptions { content_type: Some("a/b".into()), ..options(*kind) };
                let writers = [writer(*kind), Writer::new(set)];
                let mut memo = Memo::default();
                for step in &steps {
                    let (client, writer) = (step.client(), &writers[usize::from(step.is_set)]);
                    let message = step.message(&client);
                    let again = writer.message_of_session(&message, &mut memo, Vec::new());
                    match (again, writer.message(&message, Vec::new())) {
                        (Ok(again), Ok(anew)) => prop_assert_eq!(said(&again.record()), said(&anew)),
                        (again, anew) => prop_assert_eq!(again.err(), anew.err()),
                    }
                }
            }
        }
    }

    /// All that a record says, without what each has for itself, in headers and in the payload.
    fn said(record: &Record) -> (String, Vec<(String, String)>, Vec<u8>) {
        let mut payload = record.payload().to_vec();
        for own in ["Nats-Msg-Id", "traceparent"] {
            let own = header(record, own).unwrap().as_bytes();
            if let Some(at) = payload.windows(own.len()).position(|window| window == own) {
                payload[at..at + own.len()].fill(b'x');
            }
        }
        let blank = |(name, value): (&str, &str)| match name {
            "Nats-Msg-Id" | "traceparent" => (name.to_owned(), value.len().to_string()),
            _ => (name.to_owned(), value.to_owned()),
        };
        (record.subject().to_owned(), record.headers().map(blank).collect(), payload)
    }

    fn message<'a>(client: &'a Client, topic: &'a str) -> Message<'a> {
        super::super::tests::message(client, topic, b"x")
    }

    #[derive(Clone, Debug)]
    struct Step {
        texts: [&'static str; 4],
        topic: &'static str,
        payload: Vec<u8>,
        nanos: u64,
        qos: u8,
        is_delivery: bool,
        retain: bool,
        is_set: bool,
        protocol: Protocol,
        content_type: Option<&'static str>,
    }

    impl Step {
        fn client(&self) -> Client {
            let [client_id, id, tenant, route] = self.texts;
            let principal = Principal { id: id.into(), tenant: tenant.into(), ..Principal::default() };
            Client {
                client_id: client_id.into(),
                principal,
                route: route.into(),
                protocol: self.protocol,
                ..client()
            }
        }

        fn message<'a>(&'a self, client: &'a Client) -> Message<'a> {
            Message {
                client,
                action: if self.is_delivery { Action::Deliver } else { Action::Publish },
                now: Now { unix: Duration::from_nanos(self.nanos), ..now() },
                payload: &self.payload,
                qos: self.qos,
                retain: self.retain,
                notes: Notes { content_type: self.content_type, ..Notes::default() },
                ..message(client, self.topic)
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        // few values, so that most steps differ from the last one in little
        let text = || prop::sample::select(vec!["", "a", "ab", "b", " %"]);
        let topics = vec![
            "channels/a/messages/t",
            "channels/a/messages/u/v",
            "channels/a/messages",
            "m/d/c/a/t",
            "m/d/c/a/v.2",
            "a:b/attrs",
            "x",
        ];
        let payload = prop::sample::select(vec![b"{}".to_vec(), Vec::new(), vec![b'x'; 300]]);
        let flags = (0..3_u8, any::<bool>(), any::<bool>(), any::<bool>());
        let protocol = prop::sample::select(vec![Protocol::Mqtt, Protocol::Http]);
        let content_type = prop::sample::select(vec![None, None, Some("text/plain")]);
        let texts = [text(), text(), text(), text()];
        (texts, prop::sample::select(topics), payload, 0..3_u64, flags, protocol, content_type).prop_map(
            |(texts, topic, payload, nanos, (qos, is_delivery, retain, is_set), protocol, content_type)| {
                Step {
                    texts,
                    topic,
                    payload,
                    nanos,
                    qos,
                    is_delivery,
                    retain,
                    is_set,
                    protocol,
                    content_type,
                }
            },
        )
    }
}
