//! PUBLISH in both directions: messages of the client, and deliveries to it.

use std::borrow::Cow;
use std::sync::Arc;

use mgate_policies::{Action, Cause, Grant, Outcome, Query, Reason, Resource, TopicName};

use super::close::{denial_text, publish_code};
use super::connect::{Resumed, ask};
use super::{Close, CloseReason, Context, Output, Question, Session, Violation};
use crate::gate::{Fate, Side};
use crate::memory::Asked;
use crate::mqtt::OnDeniedPublish;
use crate::mqtt::codec::{DecodeError, NewAck, decode_publish, encode_ack, splice_publish_topic};
use crate::mqtt::packet::{Packet, PacketType, PropertyId, Publish};

/// The topic that a message is about, whatever stands in its packet.
pub(super) enum Topic<'a> {
    InPacket(&'a str),
    ByAlias(Arc<str>),
}

/// A message that came.
pub(super) struct Arrived<'a> {
    pub(super) from: Side,
    pub(super) frame: &'a [u8],
    pub(super) publish: Publish<'a>,
    pub(super) topic: Topic<'a>,
}

/// Why a message may pass.
pub(super) enum Allowed {
    /// As the entry of the memory with this number says.
    Before(usize),
    Now(Grant),
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
        let publish = self.decode_message(from, frame)?;
        let topic = match self.is_transformed_last(from) {
            true => self.topic_as_sent(from, &publish)?,
            false => self.resolve_topic(from, &publish)?,
        };
        let arrived = Arrived { from, frame, publish, topic };
        if from == Side::Upstream && frame.len() > self.packet_bytes(cx) {
            let reason =
                Reason::with_detail(Cause::QuotaExceeded, "longer than packets of the session may be");
            return self.deny(&arrived, &reason, cx);
        }
        let topic = arrived.topic_name()?;
        let asked = arrived.asked();
        let is_repeatable = cx.endpoint.gate.policies.is_repeatable();
        if is_repeatable && let Some(entry) = self.lane(from).memory.recall(asked, cx.now.instant) {
            return self.pass(&arrived, &Allowed::Before(entry), cx);
        }
        let outcome = self.judge(&arrived, topic, resumed, cx);
        self.heed(&outcome, cx)?;
        match outcome {
            Outcome::Allowed(grant, _) => {
                if is_repeatable {
                    self.lane_mut(from).memory.remember(asked, &grant, cx.now.instant);
                }
                self.pass(&arrived, &Allowed::Now(grant), cx)
            }
            Outcome::Denied(reason) => self.deny(&arrived, &reason, cx),
            Outcome::Pending(suspended, future) => {
                self.report((from, frame), &Packet::Publish(publish), Fate::Held, cx);
                self.wait(from, frame.to_vec(), Question::Publish(suspended), cx);
                self.outputs.push_back(Output::Decide(from, future));
                Ok(())
            }
        }
    }

    /// The message that a frame is, as this side may send it.
    #[inline]
    pub(super) fn decode_message<'a>(&self, from: Side, frame: &'a [u8]) -> Result<Publish<'a>, Close> {
        let publish = decode_publish(frame, header_len(frame), self.version)
            .map_err(|error| CloseReason::Malformed(from, error))?;
        // [MQTT-3.3.4-6]
        let id = PropertyId::SubscriptionIdentifier;
        if from == Side::Client && publish.properties.iter().any(|(property, _)| property == id) {
            return Err(CloseReason::Malformed(from, DecodeError::UnexpectedProperty(id)).into());
        }
        Ok(publish)
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

    /// The topic that a message is about.
    pub(super) fn resolve_topic<'a>(
        &mut self,
        from: Side,
        publish: &Publish<'a>,
    ) -> Result<Topic<'a>, Close> {
        let Some(alias) = publish.topic_alias else { return Ok(Topic::InPacket(publish.topic)) };
        let resolved = self.lane_mut(from).flow.aliases.resolve(alias, publish.topic);
        resolved.map(Topic::ByAlias).map_err(|error| Violation::Alias(error).from(from))
    }

    /// Asks the policies.
    fn judge(
        &self,
        arrived: &Arrived<'_>,
        topic: TopicName<'_>,
        resumed: Resumed,
        cx: &Context<'_>,
    ) -> Outcome {
        let Some(client) = self.client.as_deref() else {
            return Outcome::Denied(Reason::new(Cause::BadCredentials));
        };
        let Asked { action, qos, retain, .. } = arrived.asked();
        let (resource, payload) = (Resource::Topic(topic), arrived.publish.payload);
        ask(&Query { client, action, resource, payload, qos, retain }, resumed, cx)
    }

    /// Whether transforms come behind the policies, which know the topics of the upstream in both directions.
    #[inline]
    fn is_transformed_last(&self, from: Side) -> bool {
        from == Side::Upstream && !self.transforms.is_empty()
    }

    fn pass(&mut self, arrived: &Arrived<'_>, allowed: &Allowed, cx: &mut Context<'_>) -> Result<(), Close> {
        match self.is_transformed_last(arrived.from) {
            true => self.pass_transformed(arrived, allowed, cx),
            false => self.forward(arrived, arrived, allowed, cx),
        }
    }

    /// Passes a message on; `judged` is what policies were asked about.
    pub(super) fn forward(
        &mut self,
        arrived: &Arrived<'_>,
        judged: &Arrived<'_>,
        allowed: &Allowed,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let Arrived { from, publish, .. } = arrived;
        let frame = self.frame_to_pass(arrived)?;
        let flow = &mut self.lane_mut(*from).flow;
        if frame.len() > flow.maximum_packet_size as usize {
            return Err(CloseReason::PacketTooLarge(*from, frame.len()).into());
        }
        if publish.qos > 0 && !flow.start(publish.packet_id) {
            return Err(Violation::ReceiveMaximum.from(*from));
        }
        // an earlier try may have been denied: now the exchange is the receiver's
        flow.refused.remove(publish.packet_id);
        if let Some(alias) = publish.topic_alias {
            flow.aliases.pass_on(alias);
        }
        cx.out.to(from.other()).extend_from_slice(&frame);
        let allowed_by = match allowed {
            Allowed::Before(entry) => self.lane(*from).memory.allowed_by(*entry).map(|by| &**by),
            Allowed::Now(grant) => grant.by.as_deref(),
        };
        self.report((*from, &frame), &Packet::Publish(*publish), Fate::Passed(allowed_by), cx);
        // one that is sent again too: whether it is the same message, its sender alone knows
        self.mirror(judged, cx);
        Ok(())
    }

    /// The frame as it came; or with its topic put back in, where the receiver does not know the alias.
    fn frame_to_pass<'a>(&self, arrived: &Arrived<'a>) -> Result<Cow<'a, [u8]>, Close> {
        let Arrived { from, frame, publish, topic } = arrived;
        let aliases = &self.lane(*from).flow.aliases;
        let is_known = publish.topic_alias.is_none_or(|alias| aliases.is_passed_on(alias));
        if is_known || !publish.topic.is_empty() {
            return Ok(Cow::Borrowed(frame));
        }
        let mut spliced = Vec::with_capacity(frame.len() + topic.as_str().len() + MAX_LENGTH_GROWTH);
        splice_publish_topic(&mut spliced, frame, header_len(frame), topic.as_str())
            .map_err(|error| CloseReason::Malformed(*from, error))?;
        Ok(Cow::Owned(spliced))
    }

    #[cold]
    pub(super) fn deny(
        &mut self,
        arrived: &Arrived<'_>,
        reason: &Reason,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let Arrived { from, publish, topic, .. } = arrived;
        self.report_denial(action_of(*from), topic.as_str(), reason, cx);
        self.report((*from, arrived.frame), &Packet::Publish(*publish), Fate::Denied(reason), cx);
        let disconnects = cx.endpoint.options.on_denied_publish == OnDeniedPublish::Disconnect;
        if *from == Side::Client && disconnects && !self.version.is_5() {
            return Err(CloseReason::Denied(Action::Publish, reason.clone()).into());
        }
        self.acknowledge_denied(*from, publish, reason, cx);
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
        self.acknowledge(from, publish, (code, text), cx);
    }

    /// Acknowledges a message that was not passed on.
    pub(super) fn acknowledge(
        &mut self,
        from: Side,
        publish: &Publish<'_>,
        (code, text): (u8, Option<&str>),
        cx: &mut Context<'_>,
    ) {
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

impl Arrived<'_> {
    fn topic_name(&self) -> Result<TopicName<'_>, Close> {
        TopicName::parse(self.topic.as_str())
            .map_err(|_| CloseReason::Malformed(self.from, DecodeError::WildcardInTopicName).into())
    }

    /// What policies are asked about it, other than its payload.
    fn asked(&self) -> Asked<'_> {
        let Publish { qos, retain, .. } = self.publish;
        Asked { action: action_of(self.from), name: self.topic.as_str(), qos, retain }
    }
}

impl Topic<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::InPacket(topic) => topic,
            Self::ByAlias(topic) => topic,
        }
    }
}

/// The first byte and those of the remaining length. MQTT 5.0 §2.1.1
pub(super) fn header_len(frame: &[u8]) -> usize {
    2 + frame.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count()
}

pub(super) fn action_of(from: Side) -> Action {
    match from {
        Side::Client => Action::Publish,
        Side::Upstream => Action::Deliver,
    }
}

/// Bytes by which the remaining length of a packet can grow.
const MAX_LENGTH_GROWTH: usize = 3;
