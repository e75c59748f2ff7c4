//! Copies of what is published: whoever waits for one is answered once it is stored. Where a route leads nowhere, the
//! copy is all that becomes of a message.

use mgate_policies::Action;

use super::answer::Ending;
use super::exchanges::{Copy, EXCHANGE_LIFETIME, Open};
use super::request::Judged;
use super::shown::{notes, qos};
use super::{Context, Output, Session};
use crate::coap::codec::decode;
use crate::coap::message::{Code, Message, number};
use crate::gate::Copied;

impl Session {
    /// Gives the mirror its copy of a message that is published, once it is whole.
    pub(super) fn copy(&mut self, message: &Message<'_>, judged: &Judged, cx: &Context<'_>) -> Copy {
        let Judged { target, client } = judged;
        let is_last = message.known.block1.is_some_and(|block| block.number > 0 && !block.has_more);
        let body = is_last.then(|| self.operations.end(message, client, cx.now.instant)).flatten();
        let is_whole = message.known.block1.is_none_or(|block| !block.has_more);
        let Some(mirror) = cx.endpoint.gate.mirror.as_ref() else { return Copy::Done };
        if target.action != Action::Publish || !is_whole {
            return Copy::Done;
        }
        let copied = mirror.message(&crate::gate::Message {
            client,
            action: target.action,
            now: cx.now,
            topic: target.name(),
            payload: body.as_deref().unwrap_or(message.payload),
            qos: qos(message),
            retain: false,
            is_acknowledged: true,
            notes: notes(message),
        });
        match copied {
            Copied::Taken => Copy::Done,
            Copied::Storing(future) => {
                let until = cx.now.instant + cx.endpoint.gate.limits.store_timeout;
                self.copies.push_back((Some(message.id), until));
                self.outputs.push_back(Output::Store(future));
                Copy::Storing
            }
        }
    }

    /// Takes a message that goes nowhere else: it is answered when the mirror has it.
    pub(super) fn keep(&mut self, message: &Message<'_>, mut open: Open, cx: &mut Context<'_>) {
        if open.copy == Copy::Done {
            return self.answer(message, published(message), cx);
        }
        // the mirror is waited for, which has its own time
        open.deadline = cx.now.instant + EXCHANGE_LIFETIME.max(cx.endpoint.gate.limits.store_timeout);
        self.exchanges.pass_on(open);
    }

    /// The copies that were to be stored: what waited for the first of them.
    pub(super) fn stored(&mut self, copy: Copy, cx: &mut Context<'_>) {
        if let Some((Some(id), _)) = self.copies.pop_front() {
            self.copy_ended(id, copy, cx);
        }
    }

    /// Gives up what is not stored in time; its place in the row is kept until there is word of it.
    pub(super) fn pass_copy_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let late: Vec<_> =
            self.copies.iter().filter(|(_, until)| *until <= now).filter_map(|(id, _)| *id).collect();
        for id in late {
            self.copy_ended(id, Copy::Failed, cx);
        }
        let patience = cx.endpoint.gate.limits.store_timeout;
        self.copies
            .iter_mut()
            .filter(|(_, until)| *until <= now)
            .for_each(|(_, until)| *until = now + patience);
    }

    fn copy_ended(&mut self, id: u16, copy: Copy, cx: &mut Context<'_>) {
        let Some(open) = self.exchanges.find_open(id) else { return };
        if open.copy != Copy::Storing {
            return;
        }
        open.copy = copy;
        match copy {
            Copy::Failed => self.fail(id, Ending::for_a_while(Code::SERVICE_UNAVAILABLE), cx),
            _ => self.release(id, cx),
        }
    }

    /// Answers a request for which something was waited for that is there now.
    pub(super) fn release(&mut self, id: u16, cx: &mut Context<'_>) {
        let Some(open) = self.exchanges.find_open(id) else { return };
        // by now the route may lead elsewhere
        let may_answer = open.ends_here && open.copy == Copy::Done && !open.is_doubted;
        match open.held.take() {
            Some(held) => {
                if let Ok(message) = decode(&held) {
                    self.response(id, &message, cx);
                }
            }
            None if may_answer => self.answer_published(id, cx),
            None => {}
        }
    }

    fn answer_published(&mut self, id: u16, cx: &mut Context<'_>) {
        let Some(open) = self.exchanges.close(id) else { return };
        if let Ok(message) = decode(&open.request) {
            self.answer(&message, published(&message), cx);
        }
    }
}

/// What is said of a message that the mirror has, or of a part of one. RFC 7959 §2.3
fn published(message: &Message<'_>) -> Ending {
    let has_more = message.known.block1.is_some_and(|block| block.has_more);
    let mut options = message.options.iter();
    let block = options.find(|option| option.number == number::BLOCK1);
    Ending {
        code: if has_more { Code::CONTINUE } else { Code::CHANGED },
        option: block.map(|block| (number::BLOCK1, block.uint())),
    }
}
