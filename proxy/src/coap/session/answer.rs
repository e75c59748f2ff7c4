//! What a session answers itself: never more than was asked, and nothing of what was asked.

use std::time::Instant;

use mgate_policies::{Action, Cause, Reason};

use super::exchanges::{EXCHANGE_LIFETIME, Open};
use super::observations::{Ender, Fated};
use super::{Context, Output, Session, Upstream};
use crate::coap::codec::decode;
use crate::coap::encode::{encode, encode_empty};
use crate::coap::message::{Code, Kind, Message, number};
use crate::gate::{Fate, SessionEvent, Side};

/// How a request ends that goes no further, and what the client is told beside that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) code: Code,
    /// An option by its number, left out where the answer would be larger than the request.
    pub(super) option: Option<(u16, u32)>,
}

impl Ending {
    /// Something is not there, but may be in a while.
    pub(super) fn for_a_while(code: Code) -> Self {
        Self { code, option: Some((number::MAX_AGE, 5)) }
    }
}

impl From<Code> for Ending {
    fn from(code: Code) -> Self {
        Self { code, option: None }
    }
}

impl From<&Reason> for Ending {
    fn from(reason: &Reason) -> Self {
        let code = code_of(reason.cause);
        match reason.cause {
            Cause::QuotaExceeded | Cause::RateExceeded => Self { code, option: Some((number::MAX_AGE, 1)) },
            Cause::Unavailable => Self::for_a_while(code),
            _ => code.into(),
        }
    }
}

impl Session {
    /// Refuses a request.
    pub(super) fn deny(
        &mut self,
        message: &Message<'_>,
        (action, resource): (Action, &str),
        reason: &Reason,
        cx: &mut Context<'_>,
    ) {
        let client = self.identity.as_ref().map(|identity| &*identity.client);
        cx.tell(&SessionEvent::Denied { client, peer: self.peer.address, action, resource, reason });
        self.report(Side::Client, message, Fate::Denied(reason), cx);
        self.answer(message, reason.into(), cx);
    }

    /// Answers a request that goes no further.
    pub(super) fn answer(&mut self, message: &Message<'_>, ending: Ending, cx: &mut Context<'_>) {
        if !message.has_no_use_for(ending.code) {
            self.reply(message.id, ending, message.bytes.len(), cx);
        }
    }

    /// Answers for the upstream where it did not in time: before it was too late, or the client nobody any more. One
    /// that says nothing at all may be somewhere else by now.
    pub(super) fn pass_exchange_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let over = |ends_at: fn(&Open) -> Option<Instant>| {
            let over = self.exchanges.open().iter().filter(|open| ends_at(open).is_some_and(|at| at <= now));
            over.map(|open| open.id).collect::<Vec<_>>()
        };
        let (expired, late) = (over(|open| open.expires), over(|open| Some(open.deadline)));
        for id in expired {
            self.fail(id, Code::UNAUTHORIZED.into(), cx);
        }
        let is_silent = late.iter().any(|id| self.is_silent(*id, now));
        for id in late {
            self.fail(id, Ending::for_a_while(Code::GATEWAY_TIMEOUT), cx);
        }
        if is_silent {
            self.outputs.push_back(Output::HangUp);
            self.upstream_lost(cx);
        }
    }

    /// The upstream is gone: whoever waits for it hears so, and the next request looks for it again.
    pub(super) fn upstream_lost(&mut self, cx: &mut Context<'_>) {
        self.upstream = Upstream::Closed;
        self.end_all(cx);
        self.retired.clear();
    }

    /// Ends all that goes on.
    pub(super) fn end_all(&mut self, cx: &mut Context<'_>) {
        let open: Vec<_> = self.exchanges.open().iter().map(|open| open.id).collect();
        let unavailable = Ending::for_a_while(Code::SERVICE_UNAVAILABLE);
        open.into_iter().for_each(|id| self.fail(id, unavailable, cx));
        self.end_observations(|_| true, Ender::Gateway(Some(Code::SERVICE_UNAVAILABLE)), cx);
    }

    /// Gives up a request, as there is another under its identifier: the client began anew. RFC 7252 §4.4
    pub(super) fn abandon(&mut self, id: u16, cx: &mut Context<'_>) {
        self.copies.iter_mut().filter(|(copy, _)| *copy == Some(id)).for_each(|(copy, _)| *copy = None);
        let Some(open) = self.exchanges.take(id) else { return };
        self.drop_held(open.held.as_deref(), cx);
        if open.is_begin() {
            self.forget_unconfirmed(open.token, Ender::with(&open), cx);
        }
    }

    /// Acknowledges, in the client's place, what it will never see.
    pub(super) fn acknowledge(message: &Message<'_>, cx: &mut Context<'_>) {
        if message.kind == Kind::Confirmable {
            cx.out.write(Side::Upstream, |out| encode_empty(Kind::Acknowledgement, message.id, out));
        }
    }

    /// Ends a request that was passed on, with an answer of our own.
    pub(super) fn fail(&mut self, id: u16, ending: Ending, cx: &mut Context<'_>) {
        let Some(open) = self.exchanges.find_open(id) else { return };
        let (token, room, is_begin) = (open.token, open.request.len(), open.is_begin());
        let (held, ender) = (open.held.take(), Ender::with(open));
        let is_unwanted = decode(&open.request).is_ok_and(|request| request.has_no_use_for(ending.code));
        self.drop_held(held.as_deref(), cx);
        if is_begin {
            self.forget_unconfirmed(token, ender, cx);
        }
        if is_unwanted {
            self.exchanges.close(id);
            return;
        }
        self.reply(id, ending, room, cx);
    }

    /// The client will never see what was held; where it comes again, it is acknowledged again. RFC 7252 §4.5
    fn drop_held(&mut self, held: Option<&[u8]>, cx: &mut Context<'_>) {
        let held = held.and_then(|held| decode(held).ok());
        // an acknowledgement has the identifier of the request
        if let Some(held) = held.filter(|held| held.kind != Kind::Acknowledgement) {
            self.arrivals.set(&held, Fated::Refused);
            Self::acknowledge(&held, cx);
        }
    }

    /// Whether the upstream should have said something by now, and did not. One that answers no message that need not
    /// be confirmed may be there all the same.
    fn is_silent(&mut self, id: u16, now: Instant) -> bool {
        let (heard_at, is_observed) = (self.heard_at, !self.observations.is_empty());
        let Some(open) = self.exchanges.find_open(id) else { return false };
        match open.is_confirmable || open.is_begin() {
            true => open.passed_at.is_some_and(|passed_at| heard_at <= passed_at),
            false => !is_observed && heard_at + EXCHANGE_LIFETIME <= now,
        }
    }

    /// Answers by ourselves: with the acknowledgement where there was none, apart otherwise. It is never larger than
    /// what was asked: nobody is to be shouted at in another's name.
    pub(super) fn reply(&mut self, id: u16, ending: Ending, room: usize, cx: &mut Context<'_>) {
        let Ending { code, option } = ending;
        let fresh = self.fresh_id();
        let is_acknowledged = self.exchanges.close(id).is_some_and(|open| open.is_acknowledged);
        let Some(exchange) = self.exchanges.find(id) else { return };
        let is_apart = is_acknowledged || !exchange.is_confirmable;
        let (kind, reply_id) = match is_apart {
            true => (Kind::NonConfirmable, fresh),
            false => (Kind::Acknowledgement, id),
        };
        let mut reply = Vec::new();
        encode(kind, code, (reply_id, exchange.token), option.as_slice(), &mut reply);
        if reply.len() > room {
            reply.clear();
            encode(kind, code, (reply_id, exchange.token), &[], &mut reply);
        }
        cx.out.push(Side::Client, &reply);
        if !is_apart {
            self.exchanges.keep_answer(id, &reply);
        }
    }

    /// A message identifier of our own, far from those that the upstream uses.
    pub(super) fn fresh_id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1) & 0x3fff;
        self.arrivals.last_id().wrapping_add(0x8000).wrapping_add(self.next_id)
    }

    /// A message identifier for the upstream, far from those that the client uses.
    pub(super) fn fresh_upstream_id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1) & 0x3fff;
        self.exchanges.last_id().wrapping_add(0x8000).wrapping_add(self.next_id)
    }
}

/// What the client hears of a denial. RFC 7252 §5.9.2, §5.9.3, RFC 8516
pub(super) fn code_of(cause: Cause) -> Code {
    match cause {
        Cause::BadCredentials | Cause::ClientIdNotValid => Code::UNAUTHORIZED,
        Cause::QuotaExceeded | Cause::RateExceeded => Code::TOO_MANY_REQUESTS,
        Cause::Unavailable => Code::SERVICE_UNAVAILABLE,
        _ => Code::FORBIDDEN,
    }
}
