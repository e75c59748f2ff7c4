//! Copies for the mirror, and acknowledgements that wait until a copy is stored.

use std::collections::VecDeque;
use std::time::Instant;

use mgate_policies::{Cause, Reason};

use super::close::{NOT_STORED, publish_code};
use super::publish::{Arrived, action_of};
use super::{Close, CloseReason, Context, Output, Session};
use crate::gate::{Copied, Message, Notes, Side, Trouble};
use crate::mqtt::codec::{NewAck, encode_ack};
use crate::mqtt::flow::PacketIds;
use crate::mqtt::packet::{Ack, Packet, PacketType, Properties, PropertyId, PropertyValue, Publish};

/// Messages of the client whose copies are not stored yet. A session that waits for none has none.
#[derive(Default)]
pub(super) struct Copies {
    /// In the order in which they were handed over.
    storing: VecDeque<Storing>,
    /// Those that were not stored, and that the upstream has yet to acknowledge.
    failed: Vec<(Exchange, Reason)>,
    /// QoS 2 exchanges that failed for the client, and that the session ends towards the upstream.
    ending: PacketIds,
}

/// A message that is to be acknowledged, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Exchange {
    packet_id: u16,
    ack: PacketType,
}

/// A copy on its way.
struct Storing {
    exchange: Exchange,
    deadline: Instant,
    /// What the upstream said to the message, for the client to hear once the copy is stored.
    ack: Option<Box<[u8]>>,
    /// Whether nobody waits for it any more.
    is_over: bool,
}

impl Session {
    /// Gives the mirror its copy of a message that was passed on, as it was judged.
    pub(super) fn mirror(&mut self, judged: &Arrived<'_>, cx: &Context<'_>) {
        let Some(mirror) = &cx.endpoint.gate.mirror else { return };
        let Some(client) = self.client.as_deref() else { return };
        let Arrived { from, publish, topic, .. } = judged;
        if *from == Side::Upstream && !mirror.wants_deliveries() {
            return;
        }
        let Publish { payload, qos, retain, packet_id, properties, .. } = *publish;
        let (action, topic, notes) = (action_of(*from), topic.as_str(), notes(properties));
        let (now, is_acknowledged) = (cx.now, qos > 0);
        let message = Message { client, action, now, topic, payload, qos, retain, is_acknowledged, notes };
        let copied = mirror.message_of_session(&message, &mut self.memo);
        let Copied::Storing(future) = copied else { return };
        // a message that nobody acknowledges keeps nobody waiting
        if *from == Side::Client && is_acknowledged {
            let deadline = cx.now.instant + cx.endpoint.gate.limits.store_timeout;
            let ack = if qos == 1 { PacketType::PubAck } else { PacketType::PubRec };
            let exchange = Exchange { packet_id, ack };
            let storing = Storing { exchange, deadline, ack: None, is_over: false };
            self.copies.get_or_insert_default().storing.push_back(storing);
            self.outputs.push_back(Output::Store(future));
        }
    }

    /// Whether an acknowledgement of the upstream goes no further as it is: it waits for a copy, it became a
    /// refusal, or the client knows nothing of its exchange any more.
    pub(super) fn takes_ack(
        &mut self,
        packet: &Packet<'_>,
        ack: &Ack<'_>,
        frame: &[u8],
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(copies) = self.copies.as_deref_mut() else { return false };
        let packet_type = packet.packet_type();
        if packet_type == PacketType::PubComp {
            let is_taken = copies.ending.remove(ack.packet_id);
            self.copies.take_if(|copies| copies.is_empty());
            return is_taken;
        }
        let exchange = Exchange { packet_id: ack.packet_id, ack: packet_type };
        let is_refusal = ack.reason >= 0x80;
        if let Some(storing) = copies.last_of(exchange) {
            // who was refused is not to hear that all is well, nor of a copy
            storing.is_over = is_refusal;
            storing.ack = (!is_refusal).then(|| frame.into());
            return !is_refusal;
        }
        if copies.storing.iter().any(|storing| storing.exchange.packet_id == ack.packet_id) {
            // no answer to this message, and a careless client would take it for one
            return true;
        }
        let failed = copies.take_failed(exchange).filter(|_| !is_refusal);
        if let Some(reason) = &failed {
            self.refuse_unstored(exchange, reason, cx);
        }
        self.copies.take_if(|copies| copies.is_empty());
        failed.is_some()
    }

    /// The first copy on its way is stored, or is not.
    pub(super) fn stored(&mut self, result: Result<(), Reason>, cx: &mut Context<'_>) -> Result<(), Close> {
        let Some(copies) = self.copies.as_deref_mut() else { return Ok(()) };
        let Some(storing) = copies.storing.pop_front() else { return Ok(()) };
        match (storing, result) {
            (Storing { is_over: true, .. }, _) => {}
            (storing, Err(reason)) => self.not_stored(&storing, reason, cx)?,
            (Storing { exchange, ack: Some(ack), .. }, Ok(())) => match copies.take_failed(exchange) {
                Some(reason) => self.refuse_unstored(exchange, &reason, cx),
                None => cx.out.to_client.extend_from_slice(&ack),
            },
            (Storing { ack: None, .. }, Ok(())) => {}
        }
        self.copies.take_if(|copies| copies.is_empty());
        Ok(())
    }

    /// Whether so many copies are on their way that the client's next message has to wait.
    pub(super) fn has_many_copies(&self) -> bool {
        self.copies.as_ref().is_some_and(|copies| copies.storing.len() >= MAX_STORING)
    }

    /// When the first copy must be stored.
    pub(super) fn copy_timeout(&self) -> Option<Instant> {
        self.copies.as_deref()?.storing.front().map(|storing| storing.deadline)
    }

    /// Lets the time pass that [`Session::copy_timeout`] said.
    pub(super) fn pass_copy_time(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let now = cx.now.instant;
        let is_due = |storing: &mut Storing| storing.deadline <= now;
        while let Some(storing) =
            self.copies.as_deref_mut().and_then(|copies| copies.storing.pop_front_if(is_due))
        {
            self.outputs.push_back(Output::Forget);
            if !storing.is_over {
                let reason = Reason::with_detail(Cause::Unavailable, "its copy was not stored in time");
                self.not_stored(&storing, reason, cx)?;
            }
        }
        self.copies.take_if(|copies| copies.is_empty());
        Ok(())
    }

    /// A client of MQTT 5.0 hears that its message failed. For others there is no such word, and to say nothing
    /// while the session goes on would hold a place in flight for ever.
    fn not_stored(&mut self, storing: &Storing, reason: Reason, cx: &mut Context<'_>) -> Result<(), Close> {
        if !self.version.is_5() {
            return Err(CloseReason::NotStored(reason).into());
        }
        if storing.ack.is_some() {
            self.refuse_unstored(storing.exchange, &reason, cx);
            return Ok(());
        }
        let copies = self.copies.get_or_insert_default();
        if !copies.failed.iter().any(|(failed, _)| *failed == storing.exchange) {
            copies.failed.push((storing.exchange, reason));
        }
        Ok(())
    }

    /// Tells the client that its message failed, after the upstream acknowledged it.
    fn refuse_unstored(&mut self, exchange: Exchange, reason: &Reason, cx: &mut Context<'_>) {
        let Exchange { packet_id, ack: packet_type } = exchange;
        let (code, text) = (publish_code(reason.cause), self.reason_string(NOT_STORED));
        let ack = NewAck { packet_type, packet_id, reason: code, reason_string: text };
        encode_ack(&mut cx.out.to_client, self.version, &ack);
        if let Some(client) = self.client.as_deref() {
            cx.endpoint.gate.observer.trouble(&Trouble::NotStored { client, reason });
        }
        if packet_type == PacketType::PubRec {
            // for the client the exchange is over, the upstream waits for its end. MQTT 5.0 §4.3.3
            let packet_type = PacketType::PubRel;
            let ack = NewAck { packet_type, packet_id, reason: 0, reason_string: None };
            encode_ack(&mut cx.out.to_upstream, self.version, &ack);
            self.copies.get_or_insert_default().ending.insert(packet_id);
        }
    }
}

impl Copies {
    /// A message that was sent again has several copies, and one acknowledgement.
    fn last_of(&mut self, exchange: Exchange) -> Option<&mut Storing> {
        let is_meant = |storing: &&mut Storing| storing.exchange == exchange && !storing.is_over;
        self.storing.iter_mut().rev().find(is_meant)
    }

    fn take_failed(&mut self, exchange: Exchange) -> Option<Reason> {
        let at = self.failed.iter().position(|(failed, _)| *failed == exchange)?;
        Some(self.failed.swap_remove(at).1)
    }

    fn is_empty(&self) -> bool {
        self.storing.is_empty() && self.failed.is_empty() && self.ending.len() == 0
    }
}

/// What a sender says about its message.
fn notes(properties: Properties<'_>) -> Notes<'_> {
    let mut notes = Notes::default();
    for property in properties.iter() {
        match property {
            (PropertyId::ContentType, PropertyValue::Text(text)) => notes.content_type = Some(text),
            (_, PropertyValue::Pair("content-encoding", text)) => notes.content_encoding = Some(text),
            (_, PropertyValue::Pair("traceparent", text)) => notes.traceparent = Some(text),
            (_, PropertyValue::Pair("tracestate", text)) => notes.tracestate = Some(text),
            _ => {}
        }
    }
    notes
}

/// Copies of one session that may be on their way at a time.
const MAX_STORING: usize = 1024;
