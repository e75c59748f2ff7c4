//! A request of the client: who asks, whether it may, and on to the upstream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_policies::{
    Action, Cause, Client, Decision, Grant, Now, Objection, Outcome, Query, Reason, Suspended,
};

use super::answer::Ending;
use super::exchanges::{Copy, Open};
use super::observations::Observation;
use super::operations::{self, Grounds};
use super::shown::{as_the_upstream_sees_it, has_what_is_cut, judged_payload, qos};
use super::target::{Observe, Target, secrets};
use super::waiting::Question;
use super::{Context, Output, Session, Standing, Upstream};
use crate::coap::message::{Block, Code, Kind, Message, MessageOption, OptionFault, number};
use crate::gate::{Fate, SessionEvent, Side};
use crate::memory::Asked;

/// What a request is about, and who makes it.
pub(super) struct Judged {
    pub(super) target: Arc<Target>,
    pub(super) client: Arc<Client>,
}

/// A decision that was waited for, and where to go on with it.
pub(super) type Resumed = Option<(Suspended, Decision)>;

impl Session {
    /// Takes a request, unless it is one that came before or must wait for its turn.
    pub(super) fn request(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        if !self.from_client.is_busy() {
            self.begin(message, cx);
        } else if self.exchanges.find(message.id).is_some_and(|exchange| exchange.is_same(message)) {
            self.repeat(message, cx);
        } else {
            self.from_client.queue(message.bytes);
        }
    }

    /// Takes a request whose turn it is.
    pub(super) fn begin(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        match self.exchanges.find(message.id) {
            Some(exchange) if exchange.is_same(message) => return self.repeat(message, cx),
            Some(_) => self.abandon(message.id, cx),
            None => {}
        }
        if !self.exchanges.begin(message, cx.now.instant) {
            return;
        }
        match self.check(message, cx) {
            Ok(()) => self.identify(message, cx),
            // RFC 7252 §5.4.1
            Err(Ending { code: Code::BAD_OPTION, .. }) if message.kind == Kind::NonConfirmable => {}
            Err(refusal) => self.answer(message, refusal, cx),
        }
    }

    /// Asks whether the client may.
    pub(super) fn ask(&mut self, message: &Message<'_>, resumed: Resumed, cx: &mut Context<'_>) {
        let Some(known) = &mut self.identity else { return };
        let client = Arc::clone(&known.client);
        let target = match known.target(message, || target(message, cx)) {
            Ok(target) => target,
            Err(code) => return self.answer(message, code.into(), cx),
        };
        let judged = Judged { target, client };
        if resumed.is_some() {
            return self.judge(message, judged, resumed, cx);
        }
        if self.is_token_taken(message.token, &judged.target) {
            return self.answer(message, Code::BAD_REQUEST.into(), cx);
        }
        match self.go_on(message, &judged, cx) {
            Some(Ok(grounds)) => self.allowed(message, judged, &grounds, cx),
            Some(Err(refusal)) => self.answer(message, refusal, cx),
            None => match self.recall(message, &judged.target, cx) {
                Some(grounds) => self.allowed(message, judged, &grounds, cx),
                None => self.judge(message, judged, None, cx),
            },
        }
    }

    /// Asks the policies.
    fn judge(&mut self, message: &Message<'_>, judged: Judged, resumed: Resumed, cx: &mut Context<'_>) {
        let Judged { target, client } = &judged;
        let Some(resource) = target.resource() else { return };
        let payload = judged_payload(message);
        let query =
            Query { client, action: target.action, resource, payload, qos: qos(message), retain: false };
        let policies = &cx.endpoint.gate.policies;
        let outcome = match resumed {
            Some((suspended, decision)) => policies.resume(suspended, decision, &query, cx.now),
            None => policies.evaluate(&query, cx.now),
        };
        match outcome {
            Outcome::Allowed(grant, objection) => {
                tell_objection(client, target, objection.as_deref(), cx);
                if policies.is_repeatable()
                    && let Some(known) = &mut self.identity
                {
                    known.memory.remember(asked(message, target), &grant, cx.now.instant);
                }
                self.allowed(message, judged, &Grounds::of(grant, cx), cx);
            }
            Outcome::Denied(reason) => self.deny(message, (target.action, target.name()), &reason, cx),
            Outcome::Pending(suspended, future) => {
                self.wait(Side::Client, message.bytes, Question::Policies(suspended), cx);
                self.outputs.push_back(Output::Decide(Side::Client, future));
                self.report(Side::Client, message, Fate::Held, cx);
            }
        }
    }

    /// Why a request may pass, where policies said lately that the client may make such a one, and say so still.
    fn recall(&self, message: &Message<'_>, target: &Target, cx: &Context<'_>) -> Option<Grounds> {
        // what goes on for long is to begin with all the time that policies give
        let is_long = is_partial(message) || target.observe == Some(Observe::Begin);
        if is_long || !cx.endpoint.gate.policies.is_repeatable() {
            return None;
        }
        let memory = &self.identity.as_ref()?.memory;
        let entry = memory.recall(asked(message, target), cx.now.instant)?;
        let (by, until) = (memory.allowed_by(entry).cloned(), memory.until(entry));
        Some(Grounds { by, until, is_fetch: false })
    }

    /// The upstream's socket is there: what waited for it goes out.
    pub(super) fn upstream_open(&mut self, cx: &mut Context<'_>) {
        self.upstream = Upstream::Open;
        self.heard_at = cx.now.instant;
        self.send_unsent(cx);
        self.tell_opened(cx);
    }

    /// Sends what waited for the upstream's socket, but for what may not pass as long as nobody says that it still may.
    pub(super) fn send_unsent(&mut self, cx: &mut Context<'_>) {
        if self.upstream != Upstream::Open {
            return;
        }
        for open in self.exchanges.open_mut().iter_mut().filter(|open| open.is_unsent()) {
            open.passed_at = Some(cx.now.instant);
            cx.out.push(Side::Upstream, &open.request);
        }
    }

    /// Tells once that the session is open.
    pub(super) fn tell_opened(&mut self, cx: &Context<'_>) {
        if let Some(identity) = &self.identity
            && !std::mem::replace(&mut self.is_opened, true)
        {
            cx.tell(&SessionEvent::Opened(&identity.client));
        }
    }

    /// A request that came before: what it was answered is said again. It is neither judged nor counted; one that
    /// has no answer yet may have been lost on its way, and the upstream knows it by its identifier.
    fn repeat(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        let is_open = self.upstream == Upstream::Open;
        let Some(exchange) = self.exchanges.find(message.id) else { return };
        if !exchange.is_confirmable || !exchange.may_repeat() {
            return;
        }
        if let Some(answer) = exchange.answer() {
            return cx.out.push(Side::Client, answer);
        }
        let open = self.exchanges.find_open(message.id).filter(|_| is_open);
        if let Some(open) = open.filter(|open| open.held.is_none() && !open.is_doubted) {
            cx.out.push(Side::Upstream, &open.request);
        }
    }

    /// What is wrong with a request whoever it comes from: the answer, and what the client is told beside it.
    fn check(&mut self, message: &Message<'_>, cx: &Context<'_>) -> Result<(), Ending> {
        let now = cx.now.instant;
        self.adopt_rate(cx);
        if let Some(Err(at)) = self.rate.as_mut().map(|rate| rate.take(now)) {
            let secs = (at - now).as_secs() + 1;
            let max_age = u32::try_from(secs).unwrap_or(u32::MAX);
            return Err(too_many(max_age));
        }
        let packet_bytes = cx.endpoint.gate.limits.packet_bytes;
        if message.bytes.len() > packet_bytes {
            return Err(too_large(packet_bytes));
        }
        match message.known.fault {
            Some(OptionFault::Proxying) => return Err(Code::PROXYING_NOT_SUPPORTED.into()),
            Some(_) => return Err(Code::BAD_OPTION.into()),
            None => {}
        }
        if message.code.method().is_none() {
            return Err(Code::METHOD_NOT_ALLOWED.into());
        }
        // who of two it is nobody can say
        if secrets(message).nth(1).is_some() {
            return Err(Code::BAD_REQUEST.into());
        }
        if !cx.endpoint.options.is_at(message.host()) {
            return Err(Code::PROXYING_NOT_SUPPORTED.into());
        }
        let is_full = self.exchanges.open().len() >= MAX_OPEN && !self.exchanges.give_up_one();
        if is_full || self.copies.len() >= MAX_COPIES {
            return Err(too_many(1));
        }
        Ok(())
    }

    /// Whether a request goes on with something that was allowed: nobody is asked about it then.
    fn go_on(
        &mut self,
        message: &Message<'_>,
        Judged { target, client }: &Judged,
        cx: &Context<'_>,
    ) -> Option<Result<Grounds, Ending>> {
        let (now, max_bytes) = (cx.now.instant, cx.endpoint.gate.limits.packet_bytes);
        let is_later = |block: &Block| block.number > 0;
        if let Some(block) = message.known.block1.filter(is_later) {
            let done = self.operations.go_on(message, block, client, (max_bytes, now));
            return Some(done.map_err(|code| match code {
                Code::REQUEST_ENTITY_TOO_LARGE => too_large(max_bytes),
                code => code.into(),
            }));
        }
        message.known.block2.filter(is_later)?;
        match self.operations.may_fetch(message, client, now) {
            Some(grounds) => Some(Ok(grounds)),
            None => target.is_rest.then_some(Err(Code::BAD_OPTION.into())),
        }
    }

    /// Goes on with a request that may pass, for all that policies say, and for which the client still waits.
    fn allowed(&mut self, message: &Message<'_>, judged: Judged, grounds: &Grounds, cx: &mut Context<'_>) {
        if self.exchanges.find(message.id).is_none() {
            return;
        }
        let Judged { target, client } = &judged;
        if target.observe == Some(Observe::Begin) && !self.has_room_for(message.token, cx) {
            let reason = Reason::with_detail(Cause::QuotaExceeded, "too many observations");
            return self.deny(message, (target.action, target.name()), &reason, cx);
        }
        if is_partial(message) {
            let is_copied = cx.endpoint.gate.mirror.is_some() && target.action == Action::Publish;
            self.operations.begin_upload(message, client, grounds.until, (is_copied, cx.now.instant));
        }
        self.pass(message, judged, grounds, cx);
    }

    /// Lets a request go where it is to go, which is the mirror alone where the route leads nowhere.
    fn pass(&mut self, message: &Message<'_>, judged: Judged, grounds: &Grounds, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        self.last_active = now;
        self.standing = self.standing.max(standing(&judged.client, cx));
        if cx.endpoint.ends_here() {
            // who hears of the message has heard of the session
            self.tell_opened(cx);
        }
        let copy = if grounds.is_fetch { Copy::Done } else { self.copy(message, &judged, cx) };
        let Judged { client, target } = judged;
        let open = Open {
            id: message.id,
            token: message.token,
            is_confirmable: message.kind == Kind::Confirmable,
            expires: expires(&client, cx.now),
            client,
            request: as_the_upstream_sees_it(message, self.peer.address, cx),
            key: has_what_is_cut(message).then(|| operations::key(message)),
            target,
            until: grounds.until,
            passed_at: None,
            deadline: now + cx.endpoint.gate.limits.upstream_timeout,
            is_doubted: false,
            is_acknowledged: false,
            ends_here: cx.endpoint.ends_here(),
            copy,
            held: None,
        };
        match open.ends_here {
            true => self.keep(message, open, cx),
            false => self.hand_on(message, open, cx),
        }
        self.report(Side::Client, message, Fate::Passed(grounds.by.as_deref()), cx);
    }

    /// Hands a request to the upstream.
    fn hand_on(&mut self, message: &Message<'_>, mut open: Open, cx: &mut Context<'_>) {
        if self.upstream == Upstream::Open {
            open.passed_at = Some(cx.now.instant);
            cx.out.push(Side::Upstream, &open.request);
        }
        if open.is_begin() {
            self.begin_observation(Observation::new(message.token, &open));
        }
        self.exchanges.give_up(message.token);
        self.exchanges.pass_on(open);
        if self.from_upstream.has_waiting(message.token) {
            // whom it is for may be another by now
            self.ask_anew(Side::Upstream, cx);
        }
        if self.upstream == Upstream::Closed {
            self.upstream = Upstream::Dialing;
            self.outputs.push_back(Output::Dial);
        }
    }
}

impl Grounds {
    fn of(grant: Grant, cx: &Context<'_>) -> Self {
        Self { by: grant.by, until: until(grant.ttl, cx), is_fetch: false }
    }
}

/// What policies are asked about a request, other than its payload.
fn asked<'a>(message: &Message<'_>, target: &'a Target) -> Asked<'a> {
    Asked { action: target.action, name: target.name(), qos: qos(message), retain: false }
}

/// What a request is about. A route that leads nowhere has nothing to be asked for, and nothing that a condition could
/// be true of.
fn target(message: &Message<'_>, cx: &Context<'_>) -> Result<Target, Code> {
    if cx.endpoint.ends_here() {
        let is_condition =
            |option: MessageOption<'_>| matches!(option.number, number::IF_MATCH | number::IF_NONE_MATCH);
        if message.code != Code::POST {
            return Err(Code::METHOD_NOT_ALLOWED);
        }
        if message.options.iter().any(is_condition) {
            return Err(Code::BAD_OPTION);
        }
    }
    Target::of(message, cx.endpoint.options.profile)
}

pub(super) fn tell_objection(
    client: &Client,
    target: &Target,
    objection: Option<&Objection>,
    cx: &Context<'_>,
) {
    if let Some(objection) = objection {
        let (action, resource) = (target.action, target.name());
        cx.tell(&SessionEvent::WouldBeDenied { client, action, resource, objection });
    }
}

/// When what was allowed for that long has to be asked again.
pub(super) fn until(ttl: Option<Duration>, cx: &Context<'_>) -> Option<Instant> {
    ttl.and_then(|ttl| cx.now.instant.checked_add(ttl))
}

/// When a client's credentials end.
fn expires(client: &Client, now: Now) -> Option<Instant> {
    now.instant.checked_add(client.principal.expires?.saturating_sub(now.unix))
}

/// What a client is that was allowed something. Who speaks DTLS has shown with its handshake that it is where it says.
fn standing(client: &Client, cx: &Context<'_>) -> Standing {
    let is_there = cx.endpoint.options.has_challenge || client.is_encrypted;
    match is_there || !client.principal.id.is_empty() {
        true => Standing::Known,
        false => Standing::Guest,
    }
}

/// Whether there is more of the body, so that nobody can judge it by what is there.
fn is_partial(message: &Message<'_>) -> bool {
    message.known.block1.is_some_and(|block| block.number == 0 && block.has_more)
}

/// RFC 7959 §2.9.3
fn too_large(max_bytes: usize) -> Ending {
    let max_bytes = u32::try_from(max_bytes).unwrap_or(u32::MAX);
    Ending { code: Code::REQUEST_ENTITY_TOO_LARGE, option: Some((number::SIZE1, max_bytes)) }
}

/// RFC 8516 §3
fn too_many(secs: u32) -> Ending {
    Ending { code: Code::TOO_MANY_REQUESTS, option: Some((number::MAX_AGE, secs)) }
}

/// Requests of one client that the upstream has yet to answer.
const MAX_OPEN: usize = 16;

/// Copies of one client that are being stored.
const MAX_COPIES: usize = 64;
