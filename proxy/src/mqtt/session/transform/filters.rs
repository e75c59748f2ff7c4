//! SUBSCRIBE and UNSUBSCRIBE, transformed filter by filter.

use std::borrow::Cow;

use mgate_policies::{Action, Cause, EditableFilter, Part, Reason, Refusal, TopicFilter};

use super::super::close::suback_code;
use super::super::rights::Change;
use super::super::subscribe::{MAX_PARTIAL_SUBSCRIBES, Verdicts};
use super::super::{Close, CloseReason, Context, Session, Violation};
use super::{another_part, too_long};
use crate::gate::{Fate, Side};
use crate::mqtt::codec::{decode, encode_unsuback, rewrite_subscribe, rewrite_unsubscribe, splice_suback};
use crate::mqtt::packet::Packet;

/// What transforms made of the filters of a packet.
#[derive(Default)]
struct Filters {
    /// One for each filter: what stands in its place, if it was changed.
    texts: Vec<Option<String>>,
    /// Those that were refused, by index, and what the client hears.
    refused: Vec<(usize, u8)>,
}

impl Session {
    pub(super) fn transform_subscribe(&mut self, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
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
        let mut new = Vec::new();
        let is_written =
            !filters.is_changed() || rewrite_subscribe(&mut new, frame, self.version, &filters.texts).is_ok();
        if !is_written || new.len() > self.longest(Side::Client, frame, cx) {
            let reason = too_long(&self.transforms);
            let each = subscribe.filters.clone().map(|entry| entry.text);
            filters.refused = self.refuse_all(each, suback_code(self.version, reason.cause), &reason, cx);
            new.clear();
        }
        let frame = if new.is_empty() { frame } else { &new };
        self.subscribe(frame, Verdicts::refused(filters.refused), None, cx)
    }

    pub(super) fn transform_unsubscribe(&mut self, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
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
        let is_same = passing.is_empty() || !filters.is_changed() && filters.refused.is_empty();
        let mut new = Vec::new();
        let is_written = is_same || rewrite_unsubscribe(&mut new, frame, self.version, &passing).is_ok();
        if !is_written || new.len() > self.longest(Side::Client, frame, cx) {
            let reason = too_long(&self.transforms);
            let each = unsubscribe.filters.clone();
            filters.refused = self.refuse_all(each, unsuback_code(reason.cause), &reason, cx);
        }
        let frame = if new.is_empty() { frame } else { &new };
        self.pass_unsubscribe(&packet, frame, filters.verdicts(), cx)
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
            self.report((Side::Client, frame), packet, Fate::Taken, cx);
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
    pub(super) fn merge_unsuback(&mut self, frame: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        let malformed = |error| CloseReason::Malformed(Side::Upstream, error);
        let packet = decode(frame, self.version).map_err(malformed)?;
        let Packet::UnsubAck(unsuback) = &packet else { return Ok(()) };
        let partial = &mut self.as_it_came(Side::Client).partial_unsubscribes;
        let Some(at) = partial.iter().position(|(id, _)| *id == unsuback.packet_id) else {
            return self.handle_other(Side::Upstream, frame, cx);
        };
        let (_, verdicts) = partial.swap_remove(at);
        self.note_answered(unsuback.packet_id, Change::Unsubscribe, unsuback.codes, cx);
        splice_suback(&mut cx.out.to_client, frame, self.version, &verdicts).map_err(malformed)?;
        self.report((Side::Upstream, frame), &packet, Fate::Taken, cx);
        Ok(())
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
        let Part::Filter(new) = self.transformed(part, cx)? else {
            return Err(another_part(&self.transforms));
        };
        if new.filter == text {
            return Ok(None);
        }
        Ok(Some(match share_group {
            Some(group) => format!("$share/{group}/{}", new.filter),
            None => new.filter.into_owned(),
        }))
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

/// The code that refuses to end one subscription. MQTT 5.0 §3.11.3
fn unsuback_code(cause: Cause) -> u8 {
    match cause {
        Cause::NotAuthorized => 0x87,
        _ => 0x83,
    }
}
