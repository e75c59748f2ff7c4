//! Bodies that come in parts: what was allowed with the first part holds for the others. RFC 7959

use std::sync::Arc;
use std::time::Instant;

use mgate_policies::Client;

use super::exchanges::EXCHANGE_LIFETIME;
use crate::coap::message::{Block, Code, Message, MessageOption, number};

/// The transfers of one client that are going on.
#[derive(Default)]
pub(super) struct Operations(Vec<Operation>);

/// One body on its way.
struct Operation {
    /// What all its parts have in common.
    key: Box<[u8]>,
    /// What the first part was to begin or end, which the others cannot change.
    observe: Option<u32>,
    client: Arc<Client>,
    /// When what was allowed has to be asked for again; `None` for never.
    until: Option<Instant>,
    used_at: Instant,
    way: Way,
}

/// Why a request may pass.
#[derive(Default)]
pub(super) struct Grounds {
    /// What allowed it, for people who ask why.
    pub(super) by: Option<Arc<str>>,
    /// When that has to be asked again; `None` for never.
    pub(super) until: Option<Instant>,
    /// Whether it does no more than fetch the rest of an answer.
    pub(super) is_fetch: bool,
}

enum Way {
    /// To the client.
    Down,
    /// From the client: the bytes that came so far, and the bytes themselves where a mirror wants them.
    Up { len: usize, body: Option<Vec<u8>> },
}

impl Operations {
    /// Keeps that a body may be sent, of which this is the first part, until then.
    pub(super) fn begin_upload(
        &mut self,
        message: &Message<'_>,
        client: &Arc<Client>,
        until: Option<Instant>,
        (is_copied, now): (bool, Instant),
    ) {
        let body = is_copied.then(|| message.payload.to_vec());
        let (key, way) = (key(message), Way::Up { len: message.payload.len(), body });
        let (client, observe) = (Arc::clone(client), message.known.observe);
        self.keep(Operation { key, observe, client, until, used_at: now, way });
    }

    /// Keeps that the rest of the answer to a request with this key may be fetched until then, and for no longer than
    /// an exchange lasts: what is fetched later may be the rest of another answer.
    pub(super) fn begin_download(
        &mut self,
        key: Box<[u8]>,
        client: Arc<Client>,
        until: Option<Instant>,
        now: Instant,
    ) {
        let until = until.into_iter().chain([now + EXCHANGE_LIFETIME]).min();
        self.keep(Operation { key, observe: None, client, until, used_at: now, way: Way::Down });
    }

    /// The rest of an answer may be fetched no more: by now it is that of another, which is not for the client.
    pub(super) fn end_download(&mut self, key: &[u8]) {
        self.0.retain(|operation| *operation.key != *key || !matches!(operation.way, Way::Down));
    }

    /// Takes a later part of a body, if it goes on with what was allowed; an error is what the client hears.
    /// RFC 7959 §2.9.2, §2.9.3
    pub(super) fn go_on(
        &mut self,
        message: &Message<'_>,
        block: Block,
        client: &Arc<Client>,
        (max_bytes, now): (usize, Instant),
    ) -> Result<Grounds, Code> {
        let operation = self.find(message, client, now).ok_or(Code::REQUEST_ENTITY_INCOMPLETE)?;
        let Way::Up { len, body } = &mut operation.way else { return Err(Code::REQUEST_ENTITY_INCOMPLETE) };
        let offset = block.offset();
        // a part may come again, under another message identifier
        if offset > *len || operation.observe != message.known.observe {
            return Err(Code::REQUEST_ENTITY_INCOMPLETE);
        }
        *len = offset + message.payload.len();
        if *len > max_bytes {
            return Err(Code::REQUEST_ENTITY_TOO_LARGE);
        }
        if let Some(body) = body {
            body.truncate(offset);
            body.extend_from_slice(message.payload);
        }
        operation.used_at = now;
        Ok(Grounds { until: operation.until, ..Grounds::default() })
    }

    /// Why a request for the later part of a body may pass; `None` where it goes on with nothing that was allowed, or
    /// asks for more than that.
    pub(super) fn may_fetch(
        &mut self,
        message: &Message<'_>,
        client: &Arc<Client>,
        now: Instant,
    ) -> Option<Grounds> {
        if message.known.observe.is_some() || !message.payload.is_empty() {
            return None;
        }
        let operation = self.find(message, client, now).filter(|it| matches!(it.way, Way::Down))?;
        operation.used_at = now;
        Some(Grounds { until: operation.until, is_fetch: true, ..Grounds::default() })
    }

    /// Ends a transfer; returns what came, where it was kept.
    pub(super) fn end(
        &mut self,
        message: &Message<'_>,
        client: &Arc<Client>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.find(message, client, now)?;
        let key = key(message);
        let index = self.0.iter().position(|operation| operation.key == key)?;
        match self.0.swap_remove(index).way {
            Way::Down => None,
            Way::Up { body, .. } => body,
        }
    }

    /// Those whose transfers they are.
    pub(super) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.0.iter().map(|operation| &*operation.client)
    }

    /// Forgets all: what is still to come is asked about anew.
    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Forgets what nobody goes on with.
    pub(super) fn forget_until(&mut self, now: Instant) {
        self.0.retain(|operation| !operation.is_stale(now));
        if self.0.is_empty() {
            self.clear();
        }
    }

    /// When there is something to be forgotten.
    pub(super) fn forgets_at(&self) -> Option<Instant> {
        self.0.iter().map(Operation::stale_at).min()
    }

    /// Whether nothing goes on.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn keep(&mut self, operation: Operation) {
        let now = operation.used_at;
        self.0.retain(|other| other.key != operation.key && !other.is_stale(now));
        if self.0.len() >= MAX_OPERATIONS {
            let oldest = (0..self.0.len()).min_by_key(|index| self.0[*index].used_at);
            oldest.map(|index| self.0.swap_remove(index));
        }
        self.0.push(operation);
    }

    fn find(&mut self, message: &Message<'_>, client: &Arc<Client>, now: Instant) -> Option<&mut Operation> {
        if self.0.is_empty() {
            return None;
        }
        let key = key(message);
        let is_meant = |operation: &&mut Operation| {
            operation.key == key && operation.is_of(client) && !operation.is_stale(now)
        };
        self.0.iter_mut().find(is_meant)
    }
}

impl Operation {
    fn is_stale(&self, now: Instant) -> bool {
        self.stale_at() <= now
    }

    fn stale_at(&self) -> Instant {
        let unused = self.used_at + EXCHANGE_LIFETIME;
        self.until.map_or(unused, |until| until.min(unused))
    }

    fn is_of(&self, client: &Arc<Client>) -> bool {
        self.client.principal == client.principal
    }
}

/// Method and options that all parts have in common, Request-Tag among them. RFC 7959 §2.5, RFC 9175 §3.3
pub(super) fn key(message: &Message<'_>) -> Box<[u8]> {
    let options = || message.options.iter().filter(is_common);
    let bytes: usize = options().map(|option| size_of::<u16>() + size_of::<u32>() + option.value.len()).sum();
    let mut key = Vec::with_capacity(1 + bytes);
    key.push(message.code.0);
    for option in options() {
        key.extend_from_slice(&option.number.to_be_bytes());
        key.extend_from_slice(&(option.value.len() as u32).to_be_bytes());
        key.extend_from_slice(option.value);
    }
    key.into()
}

/// Whether an option is the same in all parts.
fn is_common(option: &MessageOption<'_>) -> bool {
    let is_own = matches!(
        option.number,
        number::BLOCK1
            | number::BLOCK2
            | number::SIZE1
            | number::SIZE2
            | number::ETAG
            | number::OBSERVE
            | number::ECHO
    );
    !is_own && !super::target::is_secret(option)
}

/// Transfers of one client at a time; one more ends the one that was not used for longest.
const MAX_OPERATIONS: usize = 4;
