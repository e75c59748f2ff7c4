//! Transforms: what the client says is changed before anybody judges it, and from then on is as if it had come
//! so. What it is given is changed last: policies know the topics of the upstream in both directions.

use std::borrow::Cow;

use mgate_policies::{
    Action, Cause, Editable, EditableFilter, EditableLogin, EditableMessage, Part, Reason, Refusal,
    TopicFilter, Transforms,
};

use super::close::suback_code;
use super::publish::{Allowed, Arrived, Topic, action_of};
use super::subscribe::{MAX_PARTIAL_SUBSCRIBES, Verdicts};
use super::{Close, CloseReason, Context, Lane, Session, Violation};
use crate::gate::{Fate, SessionEvent, Side};
use crate::mqtt::aliases::Aliases;
use crate::mqtt::codec::{
    FixedHeader, NewConnect, NewMessage, decode, decode_connect, encode_unsuback, rewrite_connect,
    rewrite_publish, rewrite_subscribe, rewrite_unsubscribe, splice_suback,
};
use crate::mqtt::packet::{Connect, Packet, PacketType, Publish, Will};

/// What must be known of the packets of one side as they came.
#[derive(Default)]
pub(super) struct AsItCame {
    /// The sender's topic aliases; those of the flow are as transforms made them.
    aliases: Aliases,
    /// UNSUBSCRIBEs of which the upstream saw only a part, by packet identifier.
    partial_unsubscribes: Vec<(u16, Vec<Option<u8>>)>,
}

/// What transforms made of the filters of a packet.
#[derive(Default)]
struct Filters {
    /// One for each filter: what stands in its place, if it was changed.
    texts: Vec<Option<String>>,
    /// Those that were refused, by index, and what the client hears.
    refused: Vec<(usize, u8)>,
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
        if cx.endpoint.gate.transforms.is_empty() {
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

    /// CONNECT as it goes on, if anything of it changes; otherwise what was refused, and why. From here on the
    /// client has the identifier that the upstream sees.
    pub(super) fn transform_connect(
        &mut self,
        frame: &[u8],
        cx: &Context<'_>,
    ) -> Result<Option<Vec<u8>>, (Action, Reason)> {
        if cx.endpoint.gate.transforms.is_empty() {
            return Ok(None);
        }
        let Ok(connect) = decode_connect(frame) else { return Err(no_connect(cx)) };
        let login = self.transformed_login(&connect, cx).map_err(|reason| (Action::Connect, reason))?;
        if let Some(client) = &mut self.client {
            client.client_id = login.client_id.as_ref().into();
        }
        let will = match &connect.will {
            Some(will) => Some(self.transformed_will(will, cx).map_err(|reason| (Action::Will, reason))?),
            None => None,
        };
        let new = NewConnect {
            client_id: &login.client_id,
            username: login.username.as_deref(),
            password: login.password.as_deref(),
            will: will.as_ref().map(said),
        };
        match is_same_connect(&connect, &new) {
            true => Ok(None),
            false => rewritten_connect(frame, &connect, &new, cx).map(Some),
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
        self.forward(&Arrived { from, frame: &frame, publish, topic }, allowed, cx)
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
        self.report(*from, &Packet::Publish(*publish), Fate::Taken, cx);
        self.acknowledge(*from, publish, (0, None), cx);
        Ok(())
    }

    fn transform_subscribe(&mut self, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        let malformed = |error| CloseReason::Malformed(Side::Client, error);
        let packet = decode(frame, self.version).map_err(malformed)?;
        let Packet::Subscribe(subscribe) = &packet else { return Ok(()) };
        let mut filters = Filters::default();
        for entry in subscribe.filters.clone() {
            let qos = entry.options.qos();
            let new = self.transformed_filter(entry.filter, Some(qos), cx);
            filters.take(new.map_err(|refusal| match &refusal {
                Refusal::Denied(reason) => {
                    self.report_denial(Action::Subscribe, entry.text, reason, cx);
                    suback_code(self.version, reason.cause)
                }
                Refusal::Dropped(reason) => {
                    self.report_drop(Action::Subscribe, entry.text, reason, cx);
                    qos
                }
            }));
        }
        let mut new = Cow::Borrowed(frame);
        if filters.is_changed() {
            let mut rewritten = Vec::with_capacity(frame.len() + MORE);
            rewrite_subscribe(&mut rewritten, frame, self.version, &filters.texts).map_err(malformed)?;
            new = Cow::Owned(rewritten);
        }
        if new.len() > self.longest(Side::Client, frame, cx) {
            let reason = too_long(&cx.endpoint.gate.transforms);
            let each = subscribe.filters.clone().map(|entry| entry.text);
            filters.refused = self.refuse_all(each, suback_code(self.version, reason.cause), &reason, cx);
            new = Cow::Borrowed(frame);
        }
        self.subscribe(&new, Verdicts::refused(filters.refused), None, cx)
    }

    fn transform_unsubscribe(&mut self, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        let malformed = |error| CloseReason::Malformed(Side::Client, error);
        let packet = decode(frame, self.version).map_err(malformed)?;
        let Packet::Unsubscribe(unsubscribe) = &packet else { return Ok(()) };
        let (mut filters, mut passing) = (Filters::default(), Vec::new());
        for text in unsubscribe.filters.clone() {
            let parsed = TopicFilter::parse(text).map_err(|error| malformed(error.into()))?;
            let new = self.transformed_filter(parsed, None, cx);
            if let Ok(new) = &new {
                passing.push(new.clone().unwrap_or_else(|| text.to_owned()));
            }
            filters.take(new.map_err(|refusal| match &refusal {
                Refusal::Denied(reason) => {
                    self.report_denial(Action::Subscribe, text, reason, cx);
                    unsuback_code(reason.cause)
                }
                Refusal::Dropped(reason) => {
                    self.report_drop(Action::Subscribe, text, reason, cx);
                    0
                }
            }));
        }
        let mut new = Cow::Borrowed(frame);
        if !passing.is_empty() && (filters.is_changed() || !filters.refused.is_empty()) {
            let mut rewritten = Vec::with_capacity(frame.len() + MORE);
            rewrite_unsubscribe(&mut rewritten, frame, self.version, &passing).map_err(malformed)?;
            new = Cow::Owned(rewritten);
        }
        if new.len() > self.longest(Side::Client, frame, cx) {
            let reason = too_long(&cx.endpoint.gate.transforms);
            let each = unsubscribe.filters.clone();
            filters.refused = self.refuse_all(each, unsuback_code(reason.cause), &reason, cx);
        }
        self.pass_unsubscribe(&packet, &new, filters.verdicts(), cx)
    }

    /// What is left of an UNSUBSCRIBE goes on; the session answers by itself if nothing is left.
    fn pass_unsubscribe(
        &mut self,
        packet: &Packet<'_>,
        frame: &[u8],
        verdicts: Vec<Option<u8>>,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let Packet::Unsubscribe(unsubscribe) = packet else { return Ok(()) };
        let packet_id = unsubscribe.packet_id;
        if verdicts.iter().all(Option::is_some) {
            let codes: Vec<u8> = verdicts.into_iter().flatten().collect();
            encode_unsuback(&mut cx.out.to_client, self.version, packet_id, &codes);
            self.report(Side::Client, packet, Fate::Taken, cx);
            return Ok(());
        }
        // an UNSUBACK of 3.1.1 says nothing of single filters
        if self.version.is_5() && verdicts.iter().any(Option::is_some) {
            let partial = &mut self.as_it_came(Side::Client).partial_unsubscribes;
            partial.retain(|(id, _)| *id != packet_id);
            if partial.len() == MAX_PARTIAL_SUBSCRIBES {
                return Err(Violation::SubscribesInFlight.from(Side::Client));
            }
            partial.push((packet_id, verdicts));
        }
        self.handle_other(Side::Client, frame, cx)
    }

    /// Puts refusals into the upstream's UNSUBACK, if it saw only a part of the UNSUBSCRIBE.
    fn merge_unsuback(&mut self, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        let malformed = |error| CloseReason::Malformed(Side::Upstream, error);
        let packet = decode(frame, self.version).map_err(malformed)?;
        let Packet::UnsubAck(unsuback) = &packet else { return Ok(()) };
        let partial = &mut self.as_it_came(Side::Client).partial_unsubscribes;
        let Some(at) = partial.iter().position(|(id, _)| *id == unsuback.packet_id) else {
            return self.handle_other(Side::Upstream, frame, cx);
        };
        let (_, verdicts) = partial.swap_remove(at);
        splice_suback(&mut cx.out.to_client, frame, self.version, &verdicts).map_err(malformed)?;
        self.report(Side::Upstream, &packet, Fate::Taken, cx);
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
        };
        let Part::Message(message) = self.transformed(Part::Message(message), cx)? else {
            return Err(another_part(cx));
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
            return Err(Refusal::Denied(too_long(&cx.endpoint.gate.transforms)));
        }
        Ok(Cow::Owned(rewritten))
    }

    /// The text that stands in place of a filter, if it changes.
    fn transformed_filter(
        &self,
        filter: TopicFilter<'_>,
        qos: Option<u8>,
        cx: &Context<'_>,
    ) -> Result<Option<String>, Refusal> {
        let (text, share_group) = (filter.as_str(), filter.share_group());
        let part = Part::Filter(EditableFilter { filter: Cow::Borrowed(text), share_group, qos });
        let Part::Filter(new) = self.transformed(part, cx)? else { return Err(another_part(cx)) };
        if new.filter == text {
            return Ok(None);
        }
        Ok(Some(match share_group {
            Some(group) => format!("$share/{group}/{}", new.filter),
            None => new.filter.into_owned(),
        }))
    }

    fn transformed_login(
        &self,
        connect: &Connect<'_>,
        cx: &Context<'_>,
    ) -> Result<EditableLogin<'static>, Reason> {
        let login = EditableLogin {
            client_id: Cow::Borrowed(connect.client_id),
            username: connect.username.map(Cow::Borrowed),
            password: connect.password.map(Cow::Borrowed),
        };
        match self.transformed(Part::Login(login), cx).map_err(reason_of)? {
            Part::Login(login) => Ok(EditableLogin {
                client_id: Cow::Owned(login.client_id.into_owned()),
                username: login.username.map(|username| Cow::Owned(username.into_owned())),
                password: login.password.map(|password| Cow::Owned(password.into_owned())),
            }),
            _ => Err(reason_of(another_part(cx))),
        }
    }

    fn transformed_will<'a>(
        &'a self,
        will: &Will<'a>,
        cx: &Context<'_>,
    ) -> Result<EditableMessage<'a>, Reason> {
        let message = EditableMessage {
            action: Action::Will,
            topic: Cow::Borrowed(will.topic.as_str()),
            response_topic: will.response_topic().map(Cow::Borrowed),
            payload: Cow::Borrowed(will.payload),
            qos: will.qos,
            retain: will.retain,
        };
        match self.transformed(Part::Message(message), cx).map_err(reason_of)? {
            Part::Message(message) => Ok(message),
            _ => Err(reason_of(another_part(cx))),
        }
    }

    fn transformed<'a>(&'a self, part: Part<'a>, cx: &Context<'_>) -> Result<Part<'a>, Refusal> {
        let Some(client) = self.client.as_deref() else {
            return Err(Refusal::Denied(Reason::new(Cause::BadCredentials)));
        };
        let mut packet = Editable { client, part };
        cx.endpoint.gate.transforms.apply(&mut packet, cx.now)?;
        Ok(packet.part)
    }

    /// How long a packet may be that was made of `frame`: what came is judged elsewhere.
    fn longest(&self, from: Side, frame: &[u8], cx: &Context<'_>) -> usize {
        let taken = self.lane(from).flow.maximum_packet_size as usize;
        taken.min(cx.endpoint.gate.limits.packet_bytes).max(frame.len())
    }

    fn refuse_all<'f>(
        &self,
        filters: impl Iterator<Item = &'f str>,
        code: u8,
        reason: &Reason,
        cx: &Context<'_>,
    ) -> Vec<(usize, u8)> {
        let refuse = |(index, text)| {
            self.report_denial(Action::Subscribe, text, reason, cx);
            (index, code)
        };
        filters.enumerate().map(refuse).collect()
    }

    /// Tells the observer of what was dropped.
    fn report_drop(&self, action: Action, resource: &str, reason: &Reason, cx: &Context<'_>) {
        if let Some(client) = self.client.as_deref() {
            let event = SessionEvent::Dropped { client, action, resource, reason };
            cx.endpoint.gate.observer.session(&event);
        }
    }
}

impl Filters {
    /// Takes what became of the next one.
    fn take(&mut self, new: Result<Option<String>, u8>) {
        let text = new.unwrap_or_else(|code| {
            self.refused.push((self.texts.len(), code));
            None
        });
        self.texts.push(text);
    }

    fn is_changed(&self) -> bool {
        self.texts.iter().any(Option::is_some)
    }

    fn verdicts(&self) -> Vec<Option<u8>> {
        let mut verdicts = vec![None; self.texts.len()];
        for (index, code) in &self.refused {
            verdicts[*index] = Some(*code);
        }
        verdicts
    }
}

fn rewritten_connect(
    frame: &[u8],
    connect: &Connect<'_>,
    new: &NewConnect<'_>,
    cx: &Context<'_>,
) -> Result<Vec<u8>, (Action, Reason)> {
    let mut rewritten = Vec::with_capacity(frame.len() + MORE);
    let is_written = rewrite_connect(&mut rewritten, frame, connect, new).is_ok();
    let is_good = is_written && decode_connect(&rewritten).is_ok_and(|connect| !connect.lacks_client_id());
    if !is_good {
        return Err(no_connect(cx));
    }
    if rewritten.len() > cx.endpoint.gate.limits.packet_bytes {
        return Err((Action::Connect, too_long(&cx.endpoint.gate.transforms)));
    }
    Ok(rewritten)
}

fn no_connect(cx: &Context<'_>) -> (Action, Reason) {
    let transforms = &cx.endpoint.gate.transforms;
    (Action::Connect, made_by(transforms, Cause::Unavailable, "a CONNECT that is none"))
}

fn said<'a>(message: &'a EditableMessage<'_>) -> NewMessage<'a> {
    let EditableMessage { topic, response_topic, payload, .. } = message;
    NewMessage { topic, response_topic: response_topic.as_deref(), payload }
}

fn is_same_connect(connect: &Connect<'_>, new: &NewConnect<'_>) -> bool {
    let is_same_will = match (&connect.will, &new.will) {
        (Some(will), Some(new)) => {
            (will.topic.as_str(), will.response_topic(), will.payload)
                == (new.topic, new.response_topic, new.payload)
        }
        _ => true,
    };
    is_same_will
        && (connect.client_id, connect.username, connect.password)
            == (new.client_id, new.username, new.password)
}

/// Whether they lie at the same place: what was not touched is not compared byte by byte.
fn is_same(new: &[u8], old: &[u8]) -> bool {
    std::ptr::eq(new, old)
}

fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Denied(reason) | Refusal::Dropped(reason) => reason,
    }
}

fn another_part(cx: &Context<'_>) -> Refusal {
    Refusal::Denied(made_by(&cx.endpoint.gate.transforms, Cause::Unavailable, "another kind of packet"))
}

fn too_long(transforms: &Transforms) -> Reason {
    made_by(transforms, Cause::QuotaExceeded, "a packet that is too long")
}

fn made_by(transforms: &Transforms, cause: Cause, what: &str) -> Reason {
    let names = transforms.names().collect::<Vec<_>>().join(", ");
    Reason::with_detail(cause, format!("transform {names}: makes {what}"))
}

/// The code that refuses to end one subscription. MQTT 5.0 §3.11.3
fn unsuback_code(cause: Cause) -> u8 {
    match cause {
        Cause::NotAuthorized => 0x87,
        _ => 0x83,
    }
}

/// Bytes by which packets usually grow.
const MORE: usize = 128;
