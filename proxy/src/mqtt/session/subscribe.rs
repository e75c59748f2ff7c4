//! SUBSCRIBE, asked filter by filter, and the SUBACK that answers all of them.

use mgate_policies::{Action, Cause, Client, Outcome, Query, Reason, Resource};

use super::close::{suback_code, suback_text};
use super::connect::{Resumed, ask, foresee};
use super::rights::{Change, weight};
use super::{Close, CloseReason, Context, Output, Question, Session, Violation};
use crate::gate::{Fate, Side};
use crate::mqtt::codec::{SubscribeFilter, decode, encode_suback, splice_suback, splice_subscribe};
use crate::mqtt::packet::{Packet, SubAck, Subscribe, Unsubscribe};

/// What is decided about the filters of a SUBSCRIBE.
#[derive(Default)]
pub(super) struct Verdicts {
    /// One for each filter so far; `Some(code)` is a denial.
    codes: Vec<Option<u8>>,
    /// Filters that nobody is asked about, in order of their index, with their codes: transforms refused them.
    refused: Vec<(usize, u8)>,
}

impl Session {
    /// Asks for each filter after those that have a verdict.
    pub(super) fn subscribe(
        &mut self,
        frame: &[u8],
        mut verdicts: Verdicts,
        mut resumed: Resumed,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let packet =
            decode(frame, self.version).map_err(|error| CloseReason::Malformed(Side::Client, error))?;
        let Packet::Subscribe(subscribe) = &packet else { return Ok(()) };
        let allowed: usize = allowed(subscribe, &verdicts.codes).map(|filter| weight(filter.text)).sum();
        let mut asked = allowed + self.unanswered(Change::Subscribe);
        if verdicts.codes.is_empty() && resumed.is_none() {
            self.foresee_filters(subscribe, &verdicts, asked, cx);
        }
        for filter in subscribe.filters.clone().skip(verdicts.codes.len()) {
            if let Some(code) = verdicts.refusal(verdicts.codes.len()) {
                verdicts.codes.push(Some(code));
                continue;
            }
            let Some(client) = self.client.as_deref() else { return Ok(()) };
            // an answer is to one question, whether or not it is asked again
            let resumed = resumed.take();
            // a packet of many thousand filters must not be as many questions
            let is_early = verdicts.codes.len() < self.subscriptions(cx);
            let outcome = match is_early && self.has_room_for(filter.text, asked, cx) {
                true => ask(&query(client, &filter), resumed, cx),
                false => Outcome::Denied(Reason::with_detail(Cause::QuotaExceeded, "too many subscriptions")),
            };
            self.heed(&outcome, cx)?;
            match outcome {
                Outcome::Allowed(..) => {
                    asked += weight(filter.text);
                    verdicts.codes.push(None);
                }
                Outcome::Denied(reason) => {
                    self.report_denial(Action::Subscribe, filter.text, &reason, cx);
                    verdicts.codes.push(Some(suback_code(self.version, reason.cause)));
                }
                Outcome::Pending(suspended, future) => {
                    let question = Question::Subscribe(suspended, verdicts);
                    self.wait(Side::Client, frame.to_vec(), question, cx);
                    self.outputs.push_back(Output::Decide(Side::Client, future));
                    return Ok(());
                }
            }
        }
        self.report_subscribe(frame, &packet, &verdicts.codes, cx);
        self.pass_subscribe(frame, subscribe, verdicts.codes, cx)
    }

    /// Puts the denials into the upstream's SUBACK, if it saw only a part of the SUBSCRIBE.
    pub(super) fn merge_suback(
        &mut self,
        suback: &SubAck<'_>,
        frame: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<bool, Close> {
        let partial = self.partial_subscribes.iter().position(|(id, _)| *id == suback.packet_id);
        let Some(at) = partial else { return Ok(false) };
        let (_, verdicts) = self.partial_subscribes.swap_remove(at);
        splice_suback(&mut cx.out.to_client, frame, self.version, &verdicts)
            .map_err(|error| CloseReason::Malformed(Side::Upstream, error))?;
        Ok(true)
    }

    /// Notes what the client gives up, as far as there is room to; what it keeps by that is asked for in vain.
    pub(super) fn note_unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, cx: &Context<'_>) {
        let asked: usize = unsubscribe.filters.clone().map(weight).sum();
        if asked + self.unanswered(Change::Unsubscribe) <= cx.endpoint.gate.limits.subscriptions {
            let filters = unsubscribe.filters.clone().map(|filter| (filter.into(), 0)).collect();
            self.note_asked(unsubscribe.packet_id, Change::Unsubscribe, filters);
        }
    }

    /// Tells the policies which filters they will be asked about, where there are several.
    fn foresee_filters(
        &self,
        subscribe: &Subscribe<'_>,
        verdicts: &Verdicts,
        mut asked: usize,
        cx: &Context<'_>,
    ) {
        let Some(client) = self.client.as_deref() else { return };
        let filters = subscribe.filters.clone().enumerate();
        let filters = filters.filter(|(at, _)| verdicts.refusal(*at).is_none()).map(|(_, filter)| filter);
        let filters: Vec<_> = filters
            .take_while(|filter| {
                let has_room = self.has_room_for(filter.text, asked, cx);
                asked += weight(filter.text);
                has_room
            })
            .collect();
        foresee(filters.iter().map(|filter| query(client, filter)), cx);
    }

    /// What is left of the packet goes on; the session answers by itself if nothing is left.
    fn pass_subscribe(
        &mut self,
        frame: &[u8],
        subscribe: &Subscribe<'_>,
        verdicts: Vec<Option<u8>>,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        let filters = allowed(subscribe, &verdicts);
        let filters: Vec<_> = filters.map(|filter| (filter.text.into(), filter.options.qos())).collect();
        if !filters.is_empty() {
            self.note_asked(subscribe.packet_id, Change::Subscribe, filters);
        }
        if verdicts.iter().all(Option::is_none) {
            cx.out.to_upstream.extend_from_slice(frame);
        } else if verdicts.iter().all(Option::is_some) {
            let codes: Vec<u8> = verdicts.into_iter().flatten().collect();
            let is_denial = codes.iter().any(|code| *code >= 0x80);
            let text = self.reason_string(suback_text(&codes)).filter(|_| is_denial);
            encode_suback(&mut cx.out.to_client, self.version, subscribe.packet_id, &codes, text);
        } else {
            if self.partial_subscribes.len() == MAX_PARTIAL_SUBSCRIBES {
                return Err(Violation::SubscribesInFlight.from(Side::Client));
            }
            let is_allowed = |index: usize| verdicts.get(index) == Some(&None);
            splice_subscribe(&mut cx.out.to_upstream, frame, self.version, is_allowed)
                .map_err(|error| CloseReason::Malformed(Side::Client, error))?;
            self.partial_subscribes.retain(|(id, _)| *id != subscribe.packet_id);
            self.partial_subscribes.push((subscribe.packet_id, verdicts));
        }
        Ok(())
    }

    fn report_subscribe(&self, frame: &[u8], packet: &Packet<'_>, verdicts: &[Option<u8>], cx: &Context<'_>) {
        let is_passed = verdicts.iter().any(Option::is_none);
        let fate = if is_passed { Fate::Passed(None) } else { Fate::Taken };
        self.report((Side::Client, frame), packet, fate, cx);
    }
}

impl Verdicts {
    /// None yet, but for filters that were refused.
    pub(super) fn refused(refused: Vec<(usize, u8)>) -> Self {
        Self { codes: Vec::new(), refused }
    }

    /// None again, but for those.
    pub(super) fn anew(self) -> Self {
        Self::refused(self.refused)
    }

    fn refusal(&self, at: usize) -> Option<u8> {
        let found = self.refused.binary_search_by_key(&at, |(index, _)| *index);
        found.ok().map(|at| self.refused[at].1)
    }
}

fn query<'a>(client: &'a Client, filter: &SubscribeFilter<'a>) -> Query<'a> {
    let (action, resource) = (Action::Subscribe, Resource::Filter(filter.filter));
    Query { client, action, resource, payload: b"", qos: filter.options.qos(), retain: false }
}

/// The filters that are not denied, of those that have a verdict.
fn allowed<'a>(
    subscribe: &Subscribe<'a>,
    verdicts: &[Option<u8>],
) -> impl Iterator<Item = SubscribeFilter<'a>> {
    let judged = subscribe.filters.clone().zip(verdicts);
    judged.filter(|(_, verdict)| verdict.is_none()).map(|(filter, _)| filter)
}

/// SUBSCRIBEs with a denied filter that may wait for their SUBACK at a time.
pub(super) const MAX_PARTIAL_SUBSCRIBES: usize = 64;
