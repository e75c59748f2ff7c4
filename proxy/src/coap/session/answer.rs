//! What a session answers itself: never more than was asked, and nothing of what was asked.

use mgate_policies::{Action, Cause, Reason};

use super::exchanges::Copy;
use super::{Context, Session, Upstream};
use crate::coap::codec::decode;
use crate::coap::encode::{encode, encode_empty};
use crate::coap::message::{Code, Kind, Message, number};
use crate::gate::{Fate, SessionEvent, Side};

/// How a request ends that goes no further, and what the client is told beside that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    /// An option by its number, left out where the answer would be larger than the request.
    pub(super) option: Option<(u16, u32)>,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, option: None }
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
        let max_age = match reason.cause {
            Cause::QuotaExceeded | Cause::RateExceeded => Some(1),
            Cause::Unavailable => Some(5),
            _ => None,
        };
        let option = max_age.map(|secs| (number::MAX_AGE, secs));
        self.answer(message, Refusal { code: code_of(reason.cause), option }, cx);
    }

    /// Answers a request that goes no further.
    pub(super) fn answer(&mut self, message: &Message<'_>, refusal: Refusal, cx: &mut Context<'_>) {
        self.reply(message.id, refusal, message.bytes.len(), cx);
    }

    /// The copies that were to be stored: what waited for the first of them.
    pub(super) fn stored(&mut self, copy: Copy, cx: &mut Context<'_>) {
        if let Some((id, _)) = self.copies.pop_front() {
            self.copy_ended(id, copy, cx);
        }
    }

    /// Gives up what is not stored in time; its place in the row is kept until there is word of it.
    pub(super) fn pass_copy_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let late: Vec<_> = self.copies.iter().filter(|(_, until)| *until <= now).map(|(id, _)| *id).collect();
        for id in late {
            self.copy_ended(id, Copy::Failed, cx);
        }
        let patience = cx.endpoint.gate.limits.store_timeout;
        self.copies
            .iter_mut()
            .filter(|(_, until)| *until <= now)
            .for_each(|(_, until)| *until = now + patience);
    }

    /// Answers for the upstream where it did not in time.
    pub(super) fn pass_exchange_time(&mut self, cx: &mut Context<'_>) {
        let is_late = |open: &super::exchanges::Open| open.deadline <= cx.now.instant;
        let late: Vec<_> =
            self.exchanges.open().filter(|(_, open)| is_late(open)).map(|(id, _)| id).collect();
        for id in late {
            self.fail(id, Code::GATEWAY_TIMEOUT, cx);
        }
    }

    /// The upstream is gone: whoever waits for it hears so, and the next request looks for it again.
    pub(super) fn upstream_lost(&mut self, cx: &mut Context<'_>) {
        self.upstream = Upstream::Closed;
        self.end_all(cx);
    }

    /// Ends all that goes on.
    pub(super) fn end_all(&mut self, cx: &mut Context<'_>) {
        let open: Vec<_> = self.exchanges.open().map(|(id, _)| id).collect();
        open.into_iter().for_each(|id| self.fail(id, Code::SERVICE_UNAVAILABLE, cx));
        self.end_observations(|_| true, Some(Code::SERVICE_UNAVAILABLE), cx);
    }

    /// Acknowledges, in the client's place, what it will never see.
    pub(super) fn acknowledge(message: &Message<'_>, cx: &mut Context<'_>) {
        if message.kind == Kind::Confirmable {
            cx.out.write(Side::Upstream, |out| encode_empty(Kind::Acknowledgement, message.id, out));
        }
    }

    /// Ends a request that was passed on, with an answer of our own.
    fn fail(&mut self, id: u16, code: Code, cx: &mut Context<'_>) {
        let Some(exchange) = self.exchanges.find(id) else { return };
        let (token, open) = (exchange.token, exchange.open.as_deref());
        let room = open.map_or(0, |open| open.request.len());
        let held = open.and_then(|open| open.held.as_deref()).map(Box::<[u8]>::from);
        if let Some(held) = held.as_deref().and_then(|held| decode(held).ok()) {
            Self::acknowledge(&held, cx);
        }
        self.forget_unconfirmed(token);
        self.reply(id, Refusal { code, option: Some((number::MAX_AGE, 5)) }, room, cx);
    }

    fn copy_ended(&mut self, id: u16, copy: Copy, cx: &mut Context<'_>) {
        let Some(open) = self.exchanges.find(id).and_then(|exchange| exchange.open.as_deref_mut()) else {
            return;
        };
        if open.copy != Copy::Storing {
            return;
        }
        open.copy = copy;
        match (copy, open.held.take()) {
            (Copy::Done, Some(held)) => {
                if let Ok(message) = decode(&held) {
                    self.pass_response(id, &message, cx);
                }
            }
            (Copy::Failed, held) => {
                open.held = held;
                self.fail(id, Code::SERVICE_UNAVAILABLE, cx);
            }
            _ => {}
        }
    }

    /// Answers by ourselves: with the acknowledgement where there was none, apart otherwise. It is never larger than
    /// what was asked: nobody is to be shouted at in another's name.
    fn reply(&mut self, id: u16, refusal: Refusal, room: usize, cx: &mut Context<'_>) {
        let Refusal { code, option } = refusal;
        let fresh = self.fresh_id();
        let Some(exchange) = self.exchanges.find(id) else { return };
        let is_acknowledged = exchange.open.take().is_some_and(|open| open.is_acknowledged);
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
