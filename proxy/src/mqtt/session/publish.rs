//! PUBLISH in both directions: messages of the client, and deliveries to it.

use std::borrow::Cow;
use std::sync::Arc;

use mgate_policies::{Action, Grant, Outcome, Query, Reason, Resource, TopicName};

use super::close::{denial_text, publish_code};
use super::connect::{Resumed, allowed_by, ask};
use super::{Close, CloseReason, Context, Question, Session, Violation};
use crate::gate::{Fate, Message, Side};
use crate::mqtt::OnDeniedPublish;
use crate::mqtt::codec::{DecodeError, NewAck, decode_publish, encode_ack, splice_publish_topic};
use crate::mqtt::packet::{Packet, PacketType, Publish};

/// The topic that a message is about, whatever stands in its packet.
enum Topic<'a> {
    InPacket(&'a str),
    ByAlias(Arc<str>),
}

impl Session {
    /// Judges one message: topic first, then policies, then the receiver's limits.
    pub(super) fn publish(
        &mut self,
        from: Side,
        frame: &[u8],
        resumed: Resumed,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let malformed = |error| CloseReason::Malformed(from, error);
        let publish = decode_publish(frame, header_len(frame), self.version).map_err(malformed)?;
        let topic = self.resolve_topic(from, &publish)?;
        let Some(client) = self.client.as_deref() else { return Ok(()) };
        let name =
            TopicName::parse(topic.as_str()).map_err(|_| malformed(DecodeError::WildcardInTopicName))?;
        let action = action_of(from);
        let Publish { payload, qos, retain, .. } = publish;
        let query = Query { client, action, resource: Resource::Topic(name), payload, qos, retain };
        match ask(&query, resumed, cx) {
            Outcome::Allowed(grant) => self.pass(from, frame, &publish, &topic, &grant, cx),
            Outcome::Denied(reason) => self.deny(from, &publish, topic.as_str(), &reason, cx),
            Outcome::Pending(suspended, future) => {
                self.report(from, &Packet::Publish(publish), Fate::Held, cx);
                self.wait_for(from, frame.to_vec(), Question::Publish(suspended), future, cx);
                Ok(())
            }
        }
    }

    /// A message was acknowledged by its receiver, `from`.
    pub(super) fn acknowledged(&mut self, from: Side, packet: &Packet<'_>, reason: u8, packet_id: u16) {
        // A PUBREC that refuses is the end of the exchange. MQTT 5.0 §4.3.3
        if packet.packet_type() != PacketType::PubRec || reason >= 0x80 {
            self.lane_mut(from.other()).flow.in_flight.remove(packet_id);
        }
    }

    /// Ends the exchange of a QoS 2 message that was not passed on; says whether this was one.
    pub(super) fn complete_refused(&mut self, from: Side, packet_id: u16, cx: &mut Context<'_>) -> bool {
        let is_refused = self.lane_mut(from).flow.refused.remove(packet_id);
        if is_refused {
            let packet_type = PacketType::PubComp;
            let ack = NewAck { packet_type, packet_id, reason: 0, reason_string: None };
            encode_ack(cx.out.to(from), self.version, &ack);
        }
        is_refused
    }

    fn resolve_topic<'a>(&mut self, from: Side, publish: &Publish<'a>) -> Result<Topic<'a>, Close> {
        let Some(alias) = publish.topic_alias else { return Ok(Topic::InPacket(publish.topic)) };
        let resolved = self.lane_mut(from).flow.aliases.resolve(alias, publish.topic);
        resolved.map(Topic::ByAlias).map_err(|error| Violation::Alias(error).from(from))
    }

    fn pass(
        &mut self,
        from: Side,
        frame: &[u8],
        publish: &Publish<'_>,
        topic: &Topic<'_>,
        grant: &Grant,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let frame = self.with_topic(from, frame, publish, topic)?;
        let flow = &mut self.lane_mut(from).flow;
        if frame.len() > flow.maximum_packet_size as usize {
            return Err(CloseReason::PacketTooLarge(from, frame.len()).into());
        }
        if publish.qos > 0 && !flow.start(publish.packet_id) {
            return Err(Violation::ReceiveMaximum.from(from));
        }
        if let Some(alias) = publish.topic_alias {
            flow.aliases.pass_on(alias);
        }
        cx.out.to(from.other()).extend_from_slice(&frame);
        self.report(from, &Packet::Publish(*publish), allowed_by(grant), cx);
        self.mirror(from, publish, topic.as_str(), cx);
        Ok(())
    }

    /// The frame as it came; or with its topic put back in, where the receiver does not know the alias.
    fn with_topic<'a>(
        &self,
        from: Side,
        frame: &'a [u8],
        publish: &Publish<'_>,
        topic: &Topic<'_>,
    ) -> Result<Cow<'a, [u8]>, Close> {
        let aliases = &self.lane(from).flow.aliases;
        let is_known = publish.topic_alias.is_none_or(|alias| aliases.is_passed_on(alias));
        if is_known || !publish.topic.is_empty() {
            return Ok(Cow::Borrowed(frame));
        }
        let mut spliced = Vec::with_capacity(frame.len() + topic.as_str().len() + MAX_LENGTH_GROWTH);
        splice_publish_topic(&mut spliced, frame, header_len(frame), topic.as_str())
            .map_err(|error| CloseReason::Malformed(from, error))?;
        Ok(Cow::Owned(spliced))
    }

    fn mirror(&self, from: Side, publish: &Publish<'_>, topic: &str, cx: &Context<'_>) {
        let (Some(mirror), Some(client)) = (&cx.endpoint.gate.mirror, self.client.as_deref()) else { return };
        if from == Side::Client {
            let Publish { payload, qos, retain, .. } = *publish;
            mirror.message(&Message { client, action: action_of(from), topic, payload, qos, retain });
        }
    }

    fn deny(
        &mut self,
        from: Side,
        publish: &Publish<'_>,
        topic: &str,
        reason: &Reason,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        self.report_denial(action_of(from), topic, reason, cx);
        self.report(from, &Packet::Publish(*publish), Fate::Denied(reason), cx);
        let disconnects = cx.endpoint.options.on_denied_publish == OnDeniedPublish::Disconnect;
        if from == Side::Client && disconnects && !self.version.is_5() {
            return Err(CloseReason::Denied(Action::Publish, reason.clone()).into());
        }
        self.acknowledge_denied(from, publish, reason, cx);
        Ok(())
    }

    /// Takes the message off its sender's hands. A client of MQTT 5.0 is told why; an upstream is not to send
    /// the message for ever.
    fn acknowledge_denied(
        &mut self,
        from: Side,
        publish: &Publish<'_>,
        reason: &Reason,
        cx: &mut Context<'_>,
    ) {
        let is_told = from == Side::Client && self.version.is_5();
        let (code, text) = match is_told {
            true => (publish_code(reason.cause), self.reason_string(denial_text(reason.cause))),
            false => (0, None),
        };
        let packet_type = match publish.qos {
            0 => return,
            1 => PacketType::PubAck,
            _ => PacketType::PubRec,
        };
        if packet_type == PacketType::PubRec && code < 0x80 {
            self.lane_mut(from).flow.refused.insert(publish.packet_id);
        }
        let ack = NewAck { packet_type, packet_id: publish.packet_id, reason: code, reason_string: text };
        encode_ack(cx.out.to(from), self.version, &ack);
    }
}

impl Topic<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::InPacket(topic) => topic,
            Self::ByAlias(topic) => topic,
        }
    }
}

/// The first byte and those of the remaining length. MQTT 5.0 §2.1.1
fn header_len(frame: &[u8]) -> usize {
    2 + frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count()
}

fn action_of(from: Side) -> Action {
    match from {
        Side::Client => Action::Publish,
        Side::Upstream => Action::Deliver,
    }
}

/// Bytes by which the remaining length of a packet can grow.
const MAX_LENGTH_GROWTH: usize = 3;
