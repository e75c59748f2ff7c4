//! What a client observes, and what the upstream sent lately. RFC 7641

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_policies::{Client, Now};

use super::exchanges::EXCHANGE_LIFETIME;
use super::request::Judged;
use super::target::Target;
use super::{Context, Session};
use crate::coap::encode::encode;
use crate::coap::message::{Code, Kind, Message, Token};
use crate::gate::{SessionEvent, Side};

/// Something that the client is told the changes of.
pub(super) struct Observation {
    pub(super) token: Token,
    pub(super) client: Arc<Client>,
    pub(super) target: Target,
    /// The request that began it.
    pub(super) request: Box<[u8]>,
    /// Whether the upstream took it.
    pub(super) is_confirmed: bool,
    /// When the client's credentials end.
    expires: Option<Instant>,
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
    /// takes the place of the other. RFC 7641 §4.1
    pub(super) fn begin_observation(&mut self, mut observation: Observation) {
        let is_other = |it: &Observation| it.token != observation.token;
        let same = self.observations.iter().find(|it| !is_other(it));
        observation.is_confirmed =
            same.is_some_and(|it| it.is_confirmed && it.target.name() == observation.target.name());
        self.observations.retain(is_other);
        self.observations.push(observation);
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
    pub(super) fn forget_unconfirmed(&mut self, token: Token) {
        self.observations.retain(|it| it.token != token || it.is_confirmed);
    }

    /// Ends observations; the client is told with a code where it does not know. RFC 7641 §4.2
    pub(super) fn end_observations(
        &mut self,
        is_over: impl Fn(&Observation) -> bool,
        code: Option<Code>,
        cx: &mut Context<'_>,
    ) {
        let (over, left) = std::mem::take(&mut self.observations).into_iter().partition(is_over);
        self.observations = left;
        let over: Vec<Observation> = over;
        for Observation { token, client, target, .. } in over.into_iter().filter(|it| it.is_confirmed) {
            if let Some(code) = code {
                let id = self.fresh_id();
                cx.out.write(Side::Client, |out| encode(Kind::NonConfirmable, code, (id, token), &[], out));
            }
            cx.tell(&SessionEvent::Unsubscribed { client: &client, filter: target.name() });
        }
    }

    /// Ends observations of clients that are gone, or whose credentials are.
    pub(super) fn pass_observation_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let is_expired = |it: &Observation| it.expires.is_some_and(|at| at <= now);
        self.end_observations(is_expired, Some(Code::UNAUTHORIZED), cx);
        while let Some(token) = self.arrivals.take_unheard(now) {
            self.end_observations(|it| it.token == token, None, cx);
        }
    }

    /// When an observation may have to end.
    pub(super) fn observation_timeout(&self) -> Option<Instant> {
        let expires = self.observations.iter().filter_map(|it| it.expires);
        expires.chain(self.arrivals.next_unheard()).chain(self.arrivals.forgets_at()).min()
    }
}

impl Observation {
    /// One that the upstream has yet to take.
    pub(super) fn new(token: Token, judged: Judged, request: &[u8], now: Now) -> Self {
        let Judged { target, client } = judged;
        let expires = client.principal.expires.and_then(|at| at.checked_sub(now.unix));
        let expires = expires.map(|after| now.instant + after);
        Self { token, client, target, request: request.into(), is_confirmed: false, expires }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

impl Arrivals {
    /// Keeps a message that came; the oldest of many makes room.
    pub(super) fn add(&mut self, arrival: Arrival) {
        if self.row.len() >= MAX_ARRIVALS {
            self.row.pop_front();
        }
        self.last_id = arrival.id;
        self.row.push_back(arrival);
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

    pub(super) fn set(&mut self, id: u16, fate: Fated) {
        if let Some(arrival) = self.find(id).filter(|arrival| arrival.fate == Fated::Held) {
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
    pub(super) fn of(message: &Message<'_>, now: Instant) -> Self {
        Self {
            id: message.id,
            token: message.token,
            hash: hash(message.bytes),
            came_at: now,
            fate: Fated::Held,
            is_unacknowledged: message.kind == Kind::Confirmable,
        }
    }

    fn unheard_at(&self) -> Option<Instant> {
        let is_unheard = self.is_unacknowledged && self.fate == Fated::Passed;
        is_unheard.then(|| self.came_at + MAX_TRANSMIT_WAIT)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Messages of the upstream that are remembered.
const MAX_ARRIVALS: usize = 16;

/// After that, the upstream does not expect an acknowledgement any more. RFC 7252 §4.8.2
const MAX_TRANSMIT_WAIT: Duration = Duration::from_secs(93);
