//! Transforms: what the client says is changed before anybody judges it, and from then on is as if it had come
//! so. What it is given is changed last: policies know the topics of the upstream in both directions.

mod connect;
mod filters;

use std::borrow::Cow;

use mgate_policies::{Action, Cause, Editable, EditableMessage, Outdated, Part, Reason, Refusal, Transforms};

use super::publish::{Allowed, Arrived, Topic, action_of};
use super::{Close, Context, Lane, Session, Violation};
use crate::gate::{Fate, SessionEvent, Side};
use crate::mqtt::aliases::Aliases;
use crate::mqtt::codec::{FixedHeader, NewMessage, rewrite_publish};
use crate::mqtt::packet::{Packet, PacketType, Publish};

/// What must be known of the packets of one side as they came.
#[derive(Default)]
pub(super) struct AsItCame {
    /// The sender's topic aliases; those of the flow are as transforms made them.
    aliases: Aliases,
    /// UNSUBSCRIBEs of which the upstream saw only a part, by packet identifier.
    partial_unsubscribes: Vec<(u16, Vec<Option<u8>>)>,
}

impl Session {
    /// Judges a frame; where the route has transforms, what they make of it.
    #[inline]
    pub(super) fn take_frame(
        &mut self,
        side: Side,
        header: FixedHeader,
        frame: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        if self.transforms.is_empty() {
            return self.handle_frame(side, header, frame, cx);
        }
        match header.packet_type {
            PacketType::Publish if side == Side::Client => self.transform_publish(frame, cx),
            PacketType::Subscribe => self.transform_subscribe(frame, cx),
            PacketType::Unsubscribe => self.transform_unsubscribe(frame, cx),
            PacketType::UnsubAck => self.merge_unsuback(frame, cx),
            _ => self.handle_frame(side, header, frame, cx),
        }
    }

    /// A delivery that policies allowed goes on, as transforms make it.
    pub(super) fn pass_transformed(
        &mut self,
        arrived: &Arrived<'_>,
        allowed: &Allowed,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let frame = match self.transformed_publish(arrived, cx) {
            Ok(frame) => frame,
            Err(refusal) => return self.refuse_publish(arrived, &refusal, cx),
        };
        let from = arrived.from;
        let publish = self.decode_message(from, &frame)?;
        let topic = self.resolve_topic(from, &publish)?;
        self.forward(&Arrived { from, frame: &frame, publish, topic }, arrived, allowed, cx)
    }

    fn transform_publish(&mut self, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        let from = Side::Client;
        let publish = self.decode_message(from, frame)?;
        let topic = self.topic_as_sent(from, &publish)?;
        let arrived = Arrived { from, frame, publish, topic };
        match self.transformed_publish(&arrived, cx) {
            Ok(frame) => self.publish(from, &frame, None, cx),
            Err(refusal) => self.refuse_publish(&arrived, &refusal, cx),
        }
    }

    fn refuse_publish(
        &mut self,
        arrived: &Arrived<'_>,
        refusal: &Refusal,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let Arrived { from, publish, topic, .. } = arrived;
        let reason = match refusal {
            Refusal::Denied(reason) => return self.deny(arrived, reason, cx),
            Refusal::Dropped(reason) => reason,
        };
        self.report_drop(action_of(*from), topic.as_str(), reason, cx);
        self.report((*from, arrived.frame), &Packet::Publish(*publish), Fate::Taken, cx);
        self.acknowledge(*from, publish, (0, None), cx);
        Ok(())
    }

    /// The topic that the sender means, whatever the receiver was told.
    pub(super) fn topic_as_sent<'a>(
        &mut self,
        from: Side,
        publish: &Publish<'a>,
    ) -> Result<Topic<'a>, Close> {
        let Some(alias) = publish.topic_alias else { return Ok(Topic::InPacket(publish.topic)) };
        let resolved = self.as_it_came(from).aliases.resolve(alias, publish.topic);
        resolved.map(Topic::ByAlias).map_err(|error| Violation::Alias(error).from(from))
    }

    fn as_it_came(&mut self, from: Side) -> &mut AsItCame {
        let Lane { as_it_came, flow, .. } = self.lane_mut(from);
        as_it_came.get_or_insert_with(|| {
            Box::new(AsItCame { aliases: flow.aliases.emptied(), ..AsItCame::default() })
        })
    }

    /// The frame that says what transforms made of a message. A topic that the receiver does not know by the
    /// message's alias stands in it, together with the alias: the receiver takes both as new.
    fn transformed_publish<'a>(
        &self,
        arrived: &Arrived<'a>,
        cx: &Context<'_>,
    ) -> Result<Cow<'a, [u8]>, Refusal> {
        let Arrived { from, frame, publish, topic } = arrived;
        let message = EditableMessage {
            action: action_of(*from),
            topic: Cow::Borrowed(topic.as_str()),
            response_topic: publish.response_topic.map(Cow::Borrowed),
            payload: Cow::Borrowed(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            outdated: Outdated::default(),
        };
        let Part::Message(message) = self.transformed(Part::Message(message), cx)? else {
            return Err(another_part(&self.transforms));
        };
        let aliases = &self.lane(*from).flow.aliases;
        let is_known = |alias| publish.topic.is_empty() && aliases.is_known_as(alias, &message.topic);
        let mut new = said(&message);
        if publish.topic_alias.is_some_and(is_known) {
            new.topic = "";
        }
        if new.topic == publish.topic
            && new.response_topic == publish.response_topic
            && is_same(new.payload, publish.payload)
        {
            return Ok(Cow::Borrowed(frame));
        }
        let mut rewritten = Vec::with_capacity(new.topic.len() + new.payload.len() + MORE);
        let is_written = rewrite_publish(&mut rewritten, frame, self.version, publish, &new).is_ok();
        if !is_written || rewritten.len() > self.longest(*from, frame, cx) {
            return Err(Refusal::Denied(too_long(&self.transforms)));
        }
        Ok(Cow::Owned(rewritten))
    }

    fn transformed<'a>(&'a self, part: Part<'a>, cx: &Context<'_>) -> Result<Part<'a>, Refusal> {
        self.transformed_by(&self.transforms, part, cx)
    }

    fn transformed_by<'a>(
        &'a self,
        row: &Transforms,
        part: Part<'a>,
        cx: &Context<'_>,
    ) -> Result<Part<'a>, Refusal> {
        let Some(client) = self.client.as_deref() else {
            return Err(Refusal::Denied(Reason::new(Cause::BadCredentials)));
        };
        let mut packet = Editable { client, part };
        row.apply(&mut packet, cx.now)?;
        Ok(packet.part)
    }

    /// How long a packet may be that was made of `frame`: what came is judged elsewhere.
    fn longest(&self, from: Side, frame: &[u8], cx: &Context<'_>) -> usize {
        let taken = self.lane(from).flow.maximum_packet_size as usize;
        taken.min(self.packet_bytes(cx)).max(frame.len())
    }

    /// Tells the observer of what was dropped.
    fn report_drop(&self, action: Action, resource: &str, reason: &Reason, cx: &Context<'_>) {
        if let Some(client) = self.client.as_deref() {
            let event = SessionEvent::Dropped { client, action, resource, reason };
            cx.tell(&event);
        }
    }
}

fn said<'a>(message: &'a EditableMessage<'_>) -> NewMessage<'a> {
    let EditableMessage { topic, response_topic, payload, outdated, .. } = message;
    NewMessage { topic, response_topic: response_topic.as_deref(), payload, outdated: *outdated }
}

/// Whether they lie at the same place: what was not touched is not compared byte by byte.
fn is_same(new: &[u8], old: &[u8]) -> bool {
    std::ptr::eq(new, old)
}

fn another_part(transforms: &Transforms) -> Refusal {
    Refusal::Denied(made_by(transforms, Cause::Unavailable, "another kind of packet"))
}

fn too_long(transforms: &Transforms) -> Reason {
    made_by(transforms, Cause::QuotaExceeded, "a packet that is too long")
}

fn made_by(transforms: &Transforms, cause: Cause, what: &str) -> Reason {
    let names = transforms.names().collect::<Vec<_>>().join(", ");
    Reason::with_detail(cause, format!("transform {names}: makes {what}"))
}

/// Bytes by which packets usually grow.
const MORE: usize = 128;
