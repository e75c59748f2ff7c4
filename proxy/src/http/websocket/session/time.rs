use std::time::Instant;

use super::{Context, SIDES, Session, Waiting};
use crate::gate::{Blame, Side};
use crate::http::websocket::close::Close;
use crate::http::websocket::frame::Opcode;

impl Session {
    /// Does what is due.
    pub fn pass_time(&mut self, cx: &Context<'_>) {
        let now = cx.now.instant;
        for side in SIDES {
            self.pass_time_of(side, cx);
        }
        if self.until.is_some_and(|until| until <= now) {
            match self.is_ended {
                true => self.halves.iter_mut().for_each(|half| half.is_gone = true),
                false => self.end(
                    [Close::GOING_AWAY, Close::GOING_AWAY],
                    "a close was not answered",
                    Blame::Nobody,
                    cx,
                ),
            }
        }
    }

    /// When [`Session::pass_time`] has something to do.
    pub fn poll_timeout(&self, cx: &Context<'_>) -> Option<Instant> {
        let of_sides = SIDES.into_iter().filter_map(|side| self.timeout_of(side, cx));
        of_sides.chain(self.until.filter(|_| !self.is_over())).min()
    }

    fn pass_time_of(&mut self, side: Side, cx: &Context<'_>) {
        let now = cx.now.instant;
        let is_due = self.timeout_of(side, cx).is_some_and(|due| due <= now);
        if !is_due {
            return;
        }
        if let Some(Waiting::Turn(message, _)) = self
            .half_mut(side)
            .waiting
            .take_if(|waiting| matches!(waiting, Waiting::Turn(_, until) if *until <= now))
        {
            self.judge(side, message, cx);
            self.half_mut(side).heard = now;
            self.go_on(side, cx);
        }
        let (half, limits) = (self.half(side), &cx.endpoint.gate.limits);
        if half.stalls_at(limits.stall_timeout).is_some_and(|until| until <= now) {
            self.gone(side, "it takes nothing", cx);
        } else if self.watches(side) && half.heard + cx.endpoint.keep_alive() <= now {
            self.gone(side, "it is silent", cx);
        } else if self.ends_message_by(side, cx).is_some_and(|until| until <= now) {
            self.violated(side, Close::TOO_SLOW, cx);
        } else if self.watches(side) && self.asks_at(side, cx) <= now {
            self.half_mut(side).is_probed = true;
            let number = self.next_number();
            self.send(side, Opcode::Ping, &number.to_be_bytes(), cx);
        }
    }

    fn timeout_of(&self, side: Side, cx: &Context<'_>) -> Option<Instant> {
        let half = self.half(side);
        let turn = match half.waiting {
            Some(Waiting::Turn(_, until)) => Some(until),
            _ => None,
        };
        let silence = self.watches(side).then(|| self.asks_at(side, cx));
        let stall = half.stalls_at(cx.endpoint.gate.limits.stall_timeout);
        [turn, silence, stall, self.ends_message_by(side, cx)].into_iter().flatten().min()
    }

    /// When a message of a side must be whole.
    fn ends_message_by(&self, side: Side, cx: &Context<'_>) -> Option<Instant> {
        let within = cx.endpoint.gate.limits.stall_timeout.saturating_mul(MOST_STALLS);
        self.half(side).begun.filter(|_| self.watches(side)).map(|begun| begun + within)
    }

    /// Whether the silence of a side means something.
    fn watches(&self, side: Side) -> bool {
        self.until.is_none() && self.wants(side)
    }

    /// When a silent side is asked whether it is there; or given up, if it was.
    fn asks_at(&self, side: Side, cx: &Context<'_>) -> Instant {
        let (half, patience) = (self.half(side), cx.endpoint.keep_alive());
        half.heard + if half.is_probed { patience } else { patience / 2 }
    }
}

/// So many times what a peer may take for one step is for a message of it.
const MOST_STALLS: u32 = 10;
