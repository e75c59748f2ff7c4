//! Datagrams that wait: one of each side for a decision, others behind it for their turn.

use std::collections::VecDeque;
use std::time::Instant;

use mgate_policies::{Decision, Suspended};

use super::answer::Ending;
use super::{Context, Input, Session};
use crate::coap::codec::decode;
use crate::coap::message::{Code, Token};
use crate::gate::{Side, Verdict, no_decision_in_time};

/// What belongs to the datagrams of one side.
#[derive(Default)]
pub(super) struct Lane {
    waiting: Option<Box<Waiting>>,
    queue: VecDeque<Box<[u8]>>,
}

/// A datagram that waits for a decision.
struct Waiting {
    datagram: Box<[u8]>,
    question: Question,
    deadline: Instant,
}

/// What is being decided.
pub(super) enum Question {
    Identity(usize),
    Policies(Suspended),
}

impl Lane {
    /// Whether what comes now must wait for its turn.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.is_some() || !self.queue.is_empty()
    }

    /// Until when there must be a decision.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.deadline)
    }

    /// Whether a message with this token waits for a decision.
    pub(super) fn has_waiting(&self, token: Token) -> bool {
        let waiting = self.waiting.as_ref().and_then(|waiting| decode(&waiting.datagram).ok());
        waiting.is_some_and(|message| message.token == token)
    }

    /// Has a datagram wait for its turn; says whether it does. One too many is lost, as datagrams are, and one that is
    /// there already is not queued twice.
    pub(super) fn queue(&mut self, datagram: &[u8]) -> bool {
        let may = self.queue.len() < MAX_QUEUED && !self.queue.iter().any(|queued| **queued == *datagram);
        if may {
            self.queue.push_back(datagram.into());
        }
        may
    }
}

impl Session {
    /// Puts a datagram aside until somebody has decided.
    #[cold]
    pub(super) fn wait(&mut self, side: Side, datagram: &[u8], question: Question, cx: &Context<'_>) {
        let deadline = cx.now.instant + cx.endpoint.gate.limits.decision_timeout;
        self.lane_mut(side).waiting =
            Some(Box::new(Waiting { datagram: datagram.into(), question, deadline }));
    }

    /// Goes on with the datagram that waited.
    pub(super) fn decided(&mut self, side: Side, decision: Decision, cx: &mut Context<'_>) {
        // an answer that nobody waits for any more must not end another wait
        let is_meant = |waiting: &mut Box<Waiting>| matches!(waiting.question, Question::Policies(_));
        let Some(waiting) = self.lane_mut(side).waiting.take_if(is_meant) else { return };
        let Waiting { datagram, question, .. } = *waiting;
        let Question::Policies(suspended) = question else { return };
        let Ok(message) = decode(&datagram) else { return };
        match side {
            Side::Client => self.ask(&message, Some((suspended, decision)), cx),
            Side::Upstream => self.notify(&message, Some((suspended, decision)), cx),
        }
    }

    /// Goes on with the request whose client was not known.
    pub(super) fn identified(&mut self, verdict: Verdict, cx: &mut Context<'_>) {
        let is_meant = |waiting: &mut Box<Waiting>| matches!(waiting.question, Question::Identity(_));
        let Some(waiting) = self.from_client.waiting.take_if(is_meant) else { return };
        let Question::Identity(asked) = waiting.question else { return };
        if let Ok(message) = decode(&waiting.datagram) {
            self.resume_identification(&message, asked, verdict, cx);
        }
    }

    /// Asks from the start what a datagram waits for; what it is answered from then on is not what was asked
    /// before. It does not get more time, unless it has to wait for the review first.
    pub(super) fn ask_anew(&mut self, side: Side, cx: &mut Context<'_>) {
        let Some(waiting) = self.lane_mut(side).waiting.take() else { return };
        let Ok(message) = decode(&waiting.datagram) else { return };
        match side {
            Side::Client => self.identify(&message, cx),
            Side::Upstream if self.must_wait_for_review(&message, cx) => {
                return self.from_upstream.queue.push_front(waiting.datagram);
            }
            Side::Upstream => self.notify(&message, None, cx),
        }
        if let Some(again) = &mut self.lane_mut(side).waiting {
            again.deadline = again.deadline.min(waiting.deadline);
        }
    }

    /// Ends the request that waits: nobody hears any more what is decided.
    pub(super) fn end_waiting(&mut self, cx: &mut Context<'_>) {
        let Some(waiting) = self.from_client.waiting.take() else { return };
        if let Ok(message) = decode(&waiting.datagram) {
            self.answer(&message, Ending::for_a_while(Code::SERVICE_UNAVAILABLE), cx);
        }
    }

    /// Nobody has decided in time, so the answer is no.
    pub(super) fn decision_is_late(&mut self, side: Side, cx: &mut Context<'_>) {
        let reason = no_decision_in_time();
        let is_identity = |waiting: &Waiting| matches!(waiting.question, Question::Identity(_));
        let input = match self.lane(side).waiting.as_deref().is_some_and(is_identity) {
            true => Input::Identified(Verdict::Rejected(reason)),
            false => Input::Decided(side, Decision::Deny(reason)),
        };
        self.handle_input(input, cx);
    }

    /// Gives those their turn that waited for it.
    pub(super) fn take_queued(&mut self, cx: &mut Context<'_>) {
        for side in [Side::Client, Side::Upstream] {
            while !self.is_closed && self.lane(side).waiting.is_none() {
                let Some(datagram) = self.lane_mut(side).queue.pop_front() else { break };
                let Ok(message) = decode(&datagram) else { continue };
                if side == Side::Upstream && self.must_wait_for_review(&message, cx) {
                    self.lane_mut(side).queue.push_front(datagram);
                    break;
                }
                match side {
                    Side::Client => self.begin(&message, cx),
                    Side::Upstream => self.notify(&message, None, cx),
                }
            }
            let queue = &mut self.lane_mut(side).queue;
            if queue.is_empty() && queue.capacity() > 0 {
                *queue = VecDeque::new();
            }
        }
    }
}

/// Datagrams of one side that wait for their turn.
const MAX_QUEUED: usize = 8;
