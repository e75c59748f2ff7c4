//! What a client observes, and what the upstream sent lately. RFC 7641

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_policies::Client;

use super::exchanges::{EXCHANGE_LIFETIME, Open};
use super::target::Target;
use super::{Context, Session, Upstream, hash};
use crate::coap::codec::decode;
use crate::coap::encode::{encode, encode_deregistration};
use crate::coap::message::{Code, Kind, Message, Token};
use crate::gate::{SessionEvent, Side};

/// Something that the client is told the changes of.
pub(super) struct Observation {
    pub(super) token: Token,
    pub(super) client: Arc<Client>,
    pub(super) target: Arc<Target>,
    /// The request that began it.
    pub(super) request: Box<[u8]>,
    /// What that has in common with the requests for the rest of a notification.
    pub(super) key: Box<[u8]>,
    /// Whether the upstream took it.
    pub(super) is_confirmed: bool,
    /// When what allowed it has to be asked again before anything else follows from it; `None` for never.
    pub(super) until: Option<Instant>,
    /// When the client's credentials end.
    expires: Option<Instant>,
}

/// Who has an observation end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ender {
    /// The client, by a rejection that the upstream hears too.
    Client,
    /// mgate, which tells both, the client with a code; or without, where that is not there to hear it.
    Gateway(Option<Code>),
    /// The upstream, which has said its last word about it, or never heard of it.
    Upstream,
}

impl Ender {
    /// Who has an observation end with the request that was to begin it: of what was never sent nobody is told.
    pub(super) fn with(open: &Open) -> Self {
        if open.passed_at.is_some() { Self::Gateway(None) } else { Self::Upstream }
    }
}

/// The last messages of the upstream that were no acknowledgements.
#[derive(Default)]
pub(super) struct Arrivals {
    row: VecDeque<Arrival>,
    last_id: u16,
}

/// One of them.
pub(super) struct Arrival {
    id: u16,
    pub(super) token: Token,
    hash: u64,
    came_at: Instant,
    pub(super) fate: Fated,
    /// Whether the client has yet to acknowledge it.
    pub(super) is_unacknowledged: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fated {
    Held,
    Passed,
    Refused,
}

impl Session {
    /// Keeps what the client wants to observe, until the upstream has said whether it may. One with the same token
    /// takes the place of the other, which is the same. RFC 7641 §4.1
    pub(super) fn begin_observation(&mut self, mut observation: Observation) {
        let is_other = |it: &Observation| it.token != observation.token;
        observation.is_confirmed = self.observations.iter().any(|it| !is_other(it) && it.is_confirmed);
        self.observations.retain(is_other);
        // who asks for more is there
        self.arrivals.hear_of(observation.token);
        self.observations.push(observation);
    }

    /// Whether the client may observe one thing more, unless it does so already.
    pub(super) fn has_room_for(&self, token: Token, cx: &Context<'_>) -> bool {
        let is_other = |it: &&Observation| it.token != token;
        let others = self.observations.iter().filter(is_other).count();
        let is_new = others == self.observations.len();
        others < cx.endpoint.gate.limits.subscriptions && !(is_new && self.retired.is_full())
    }

    /// Whether a token is one by which the client is told something else, so that nobody could say what a message
    /// of the upstream is about. RFC 7252 §5.3.1
    pub(super) fn is_token_taken(&self, token: Token, target: &Target) -> bool {
        let is_other =
            |other: &Target| !other.is_same(target) || other.observe.is_some() != target.observe.is_some();
        self.observations.iter().any(|it| it.token == token && is_other(&it.target))
            || self.retired.has(token, is_other)
            || self.exchanges.is_kept_for(token, is_other)
    }

    /// The upstream took an observation.
    pub(super) fn confirm_observation(&mut self, token: Token, cx: &Context<'_>) {
        if let Some(found) = self.observations.iter_mut().find(|it| it.token == token && !it.is_confirmed) {
            found.is_confirmed = true;
            let (client, filter) = (&found.client, found.target.name());
            cx.tell(&SessionEvent::Subscribed { client, filter, qos: 0 });
        }
    }

    /// The upstream did not take what the client wanted to observe.
    pub(super) fn forget_unconfirmed(&mut self, token: Token, ender: Ender, cx: &mut Context<'_>) {
        self.end_observations(|it| it.token == token && !it.is_confirmed, ender, cx);
    }

    /// Ends observations; who does not know of it is told. RFC 7641 §3.6, §4.2
    pub(super) fn end_observations(
        &mut self,
        is_over: impl Fn(&Observation) -> bool,
        ender: Ender,
        cx: &mut Context<'_>,
    ) {
        let (over, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.observations).into_iter().partition(is_over);
        self.observations = left;
        for observation in over {
            self.tell_client(&observation, ender, cx);
            if matches!(ender, Ender::Gateway(_)) {
                self.arrivals.refuse(observation.token);
                self.deregister(&observation, cx);
            }
            if observation.is_confirmed {
                let (client, filter) = (&observation.client, observation.target.name());
                cx.tell(&SessionEvent::Unsubscribed { client, filter });
            }
            if ender != Ender::Upstream {
                self.operations.end_download(&observation.key);
                self.retired.add(observation.token, observation.target, cx.now.instant);
            }
        }
    }

    /// Ends observations of clients that are gone, or whose credentials are.
    pub(super) fn pass_observation_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let is_expired = |it: &Observation| it.expires.is_some_and(|at| at <= now);
        self.end_observations(is_expired, Ender::Gateway(Some(Code::UNAUTHORIZED)), cx);
        while let Some(token) = self.arrivals.take_unheard(now) {
            self.end_observations(|it| it.token == token, Ender::Gateway(None), cx);
        }
        self.retired.forget_until(now);
    }

    /// When an observation may have to end.
    pub(super) fn observation_timeout(&self) -> Option<Instant> {
        if self.observations.is_empty() && self.arrivals.row.is_empty() && self.retired.is_empty() {
            return None;
        }
        let expires = self.observations.iter().filter_map(|it| it.expires);
        let arrivals = self.arrivals.next_unheard().into_iter().chain(self.arrivals.forgets_at());
        expires.chain(arrivals).chain(self.retired.forgets_at()).min()
    }

    /// Answers the request of an observation that ends before it began, or tells of the end.
    fn tell_client(&mut self, observation: &Observation, ender: Ender, cx: &mut Context<'_>) {
        let Ender::Gateway(Some(code)) = ender else { return };
        let token = observation.token;
        if let Some(id) = self.exchanges.find_by_token(token, Open::is_begin) {
            self.reply(id, code.into(), 0, cx);
        } else if observation.is_confirmed {
            let id = self.fresh_id();
            cx.out.write(Side::Client, |out| encode(Kind::NonConfirmable, code, (id, token), &[], out));
        }
    }

    /// Has the upstream send no more of what is observed.
    fn deregister(&mut self, observation: &Observation, cx: &mut Context<'_>) {
        let Ok(request) = decode(&observation.request) else { return };
        if self.upstream != Upstream::Open {
            return;
        }
        let id = self.fresh_upstream_id();
        cx.out.write(Side::Upstream, |out| encode_deregistration(&request, id, out));
    }
}

impl Observation {
    /// One that the upstream has yet to take, begun by that request.
    pub(super) fn new(token: Token, open: &Open) -> Self {
        let (client, target) = (Arc::clone(&open.client), Arc::clone(&open.target));
        let (request, key) = (open.request.clone(), open.key());
        let (until, expires) = (open.until, open.expires);
        Self { token, client, target, request, key, is_confirmed: false, until, expires }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

impl Arrivals {
    /// Keeps a message that came. Of many, the oldest with which nothing is to happen makes room, or the oldest of all.
    pub(super) fn add(&mut self, message: &Message<'_>, now: Instant) {
        if message.kind == Kind::Acknowledgement {
            return;
        }
        if self.row.len() >= MAX_ARRIVALS {
            let settled = self.row.iter().position(Arrival::is_settled);
            self.row.remove(settled.unwrap_or_default());
        }
        self.last_id = message.id;
        self.row.push_back(Arrival::of(message, now));
    }

    /// What became of a message that came before.
    pub(super) fn came_before(&self, message: &Message<'_>) -> Option<Fated> {
        let hash = hash(message.bytes);
        let mut row = self.row.iter().rev();
        row.find(|it| it.id == message.id && it.hash == hash).map(|it| it.fate)
    }

    pub(super) fn find(&mut self, id: u16) -> Option<&mut Arrival> {
        self.row.iter_mut().rev().find(|it| it.id == id)
    }

    /// The client is there: what it was told by this token needs no acknowledgement any more.
    pub(super) fn hear_of(&mut self, token: Token) {
        self.row.iter_mut().filter(|it| it.token == token).for_each(|it| it.is_unacknowledged = false);
    }

    /// The client acknowledged a message: the upstream sends what came before it by the same token no more, as it is
    /// not the latest. RFC 7641 §4.5.2
    pub(super) fn acknowledge(&mut self, id: u16) {
        let Some(last) = self.row.iter().rposition(|it| it.id == id) else { return };
        let token = self.row[last].token;
        let heard = self.row.iter_mut().take(last + 1).filter(|it| it.token == token);
        heard.for_each(|it| it.is_unacknowledged = false);
    }

    /// What was told by this token is not told again.
    fn refuse(&mut self, token: Token) {
        let passed = self.row.iter_mut().filter(|it| it.token == token && it.fate == Fated::Passed);
        passed.for_each(|it| (it.fate, it.is_unacknowledged) = (Fated::Refused, false));
    }

    /// Keeps what became of a message. An acknowledgement is none of these, though one of them may be called the same.
    pub(super) fn set(&mut self, message: &Message<'_>, fate: Fated) {
        if message.kind == Kind::Acknowledgement {
            return;
        }
        if let Some(arrival) = self.find(message.id).filter(|arrival| arrival.fate == Fated::Held) {
            arrival.fate = fate;
        }
    }

    pub(super) fn last_id(&self) -> u16 {
        self.last_id
    }

    /// Forgets what cannot come again any more.
    pub(super) fn forget_until(&mut self, now: Instant) {
        self.row.retain(|it| now < it.came_at + EXCHANGE_LIFETIME);
        if self.row.is_empty() {
            self.row = VecDeque::new();
        }
    }

    fn forgets_at(&self) -> Option<Instant> {
        self.row.front().map(|it| it.came_at + EXCHANGE_LIFETIME)
    }

    /// The token of a message that the client did not acknowledge in all the time that it is sent again.
    fn take_unheard(&mut self, now: Instant) -> Option<Token> {
        let is_unheard = |it: &&mut Arrival| it.unheard_at().is_some_and(|at| at <= now);
        let arrival = self.row.iter_mut().find(is_unheard)?;
        arrival.is_unacknowledged = false;
        Some(arrival.token)
    }

    fn next_unheard(&self) -> Option<Instant> {
        self.row.iter().filter_map(Arrival::unheard_at).min()
    }
}

impl Arrival {
    fn of(message: &Message<'_>, now: Instant) -> Self {
        Self {
            id: message.id,
            token: message.token,
            hash: hash(message.bytes),
            came_at: now,
            fate: Fated::Held,
            is_unacknowledged: message.kind == Kind::Confirmable,
        }
    }

    /// Whether neither a decision nor the client's acknowledgement is to come.
    fn is_settled(&self) -> bool {
        self.fate != Fated::Held && !self.is_unacknowledged
    }

    fn unheard_at(&self) -> Option<Instant> {
        let is_unheard = self.is_unacknowledged && self.fate == Fated::Passed;
        is_unheard.then(|| self.came_at + MAX_TRANSMIT_WAIT)
    }
}

/// Messages of the upstream that are remembered.
const MAX_ARRIVALS: usize = 64;

/// After that, the upstream does not expect an acknowledgement any more. RFC 7252 §4.8.2
const MAX_TRANSMIT_WAIT: Duration = Duration::from_secs(93);
