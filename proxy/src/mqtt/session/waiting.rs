//! Frames that wait for a decision.

use mgate_policies::{Decision, Suspended};

use super::subscribe::Verdicts;
use super::{Close, Context, Input, Session};
use crate::gate::{Side, Verdict, no_decision_in_time};

/// A frame that waits for a decision.
pub(super) struct Waiting {
    pub(super) frame: Vec<u8>,
    pub(super) question: Question,
    pub(super) deadline: std::time::Instant,
}

/// What is being decided.
pub(super) enum Question {
    Connect(Suspended),
    Identify(usize),
    Publish(Suspended),
    Subscribe(Suspended, Verdicts),
    Will(Suspended),
}

impl Session {
    /// Goes on with the frame that waited.
    pub(super) fn decided(
        &mut self,
        side: Side,
        decision: Decision,
        cx: &mut Context<'_>,
    ) -> Result<(), Close> {
        // an answer that nobody waits for any more must not end another wait
        let is_meant = |waiting: &mut Box<Waiting>| !matches!(waiting.question, Question::Identify(_));
        let Some(waiting) = self.lane_mut(side).waiting.take_if(is_meant) else { return Ok(()) };
        let Waiting { frame, question, .. } = *waiting;
        match question {
            Question::Connect(suspended) => self.ask_connect(frame, Some((suspended, decision)), cx),
            Question::Identify(_) => Ok(()),
            Question::Publish(suspended) => self.publish(side, &frame, Some((suspended, decision)), cx),
            Question::Subscribe(suspended, verdicts) => {
                self.subscribe(&frame, verdicts, Some((suspended, decision)), cx)
            }
            Question::Will(suspended) => self.ask_will(frame, Some((suspended, decision)), cx),
        }
    }

    /// Puts a frame aside until somebody has decided.
    #[cold]
    pub(super) fn wait(&mut self, side: Side, frame: Vec<u8>, question: Question, cx: &Context<'_>) {
        let deadline = cx.now.instant + cx.endpoint.gate.limits.decision_timeout;
        self.lane_mut(side).waiting = Some(Box::new(Waiting { frame, question, deadline }));
    }

    /// Asks from the start what a frame waits for; what it is answered from then on is not what was asked
    /// before. It does not get more time.
    pub(super) fn ask_anew(&mut self, side: Side, cx: &mut Context<'_>) -> Result<(), Close> {
        let Some(waiting) = self.lane_mut(side).waiting.take() else { return Ok(()) };
        let Waiting { frame, question, deadline } = *waiting;
        match question {
            Question::Connect(_) | Question::Will(_) => self.ask_connect(frame, None, cx)?,
            Question::Identify(_) => self.identify(frame, cx)?,
            Question::Publish(_) => self.publish(side, &frame, None, cx)?,
            Question::Subscribe(_, verdicts) => self.subscribe(&frame, verdicts.anew(), None, cx)?,
        }
        if let Some(waiting) = &mut self.lane_mut(side).waiting {
            waiting.deadline = waiting.deadline.min(deadline);
        }
        Ok(())
    }

    /// Nobody has decided in time, so the answer is no.
    pub(super) fn decision_is_late(&mut self, side: Side, cx: &mut Context<'_>) {
        let reason = no_decision_in_time();
        let input = match self.lane(side).waiting.as_deref() {
            Some(Waiting { question: Question::Identify(_), .. }) => {
                Input::Identified(Verdict::Rejected(reason))
            }
            _ => Input::Decided(side, Decision::Deny(reason)),
        };
        self.handle_input(input, cx);
    }
}
