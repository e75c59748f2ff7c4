//! Bodies that come in parts: what was allowed with the first part holds for the others. RFC 7959

use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_policies::Client;

use super::exchanges::EXCHANGE_LIFETIME;
use crate::coap::message::{Block, Code, Message, number};

/// The transfers of one client that are going on.
#[derive(Default)]
pub(super) struct Operations(Vec<Operation>);

/// One body on its way.
struct Operation {
    /// Method and options: what all its parts have in common.
    key: Box<[u8]>,
    client: Arc<Client>,
    /// When what was allowed has to be asked for again; `None` for never.
    until: Option<Instant>,
    used_at: Instant,
    way: Way,
}

enum Way {
    /// To the client.
    Down,
    /// From the client: the bytes that came so far, and the bytes themselves where a mirror wants them.
    Up { len: usize, body: Option<Vec<u8>> },
}

impl Operations {
    /// Keeps that a body may be sent, of which this is the first part.
    pub(super) fn begin_upload(
        &mut self,
        message: &Message<'_>,
        client: &Arc<Client>,
        ttl: Option<Duration>,
        (is_copied, now): (bool, Instant),
    ) {
        let body = is_copied.then(|| message.payload.to_vec());
        let way = Way::Up { len: message.payload.len(), body };
        self.keep(key(message), client, ttl, (way, now));
    }

    /// Keeps that the rest of a body may be fetched.
    pub(super) fn begin_download(&mut self, message: &Message<'_>, client: &Arc<Client>, now: Instant) {
        self.keep(key(message), client, None, (Way::Down, now));
    }

    /// Takes a later part of a body. Says whether it goes on with what was allowed; an error is what the client
    /// hears. RFC 7959 §2.9.2, §2.9.3
    pub(super) fn go_on(
        &mut self,
        message: &Message<'_>,
        block: Block,
        client: &Arc<Client>,
        (max_bytes, now): (usize, Instant),
    ) -> Result<(), Code> {
        let operation = self.find(message, client, now).ok_or(Code::REQUEST_ENTITY_INCOMPLETE)?;
        let Way::Up { len, body } = &mut operation.way else { return Err(Code::REQUEST_ENTITY_INCOMPLETE) };
        let offset = block.offset();
        // a part may come again, under another message identifier
        if offset > *len {
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
        Ok(())
    }

    /// Whether a request for a later part of a body goes on with what was allowed.
    pub(super) fn may_fetch(&mut self, message: &Message<'_>, client: &Arc<Client>, now: Instant) -> bool {
        let found = self.find(message, client, now);
        found.is_some_and(|operation| {
            operation.used_at = now;
            matches!(operation.way, Way::Down)
        })
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

    fn keep(
        &mut self,
        key: Box<[u8]>,
        client: &Arc<Client>,
        ttl: Option<Duration>,
        (way, now): (Way, Instant),
    ) {
        self.0.retain(|operation| operation.key != key && !operation.is_stale(now));
        if self.0.len() >= MAX_OPERATIONS {
            let oldest = (0..self.0.len()).min_by_key(|index| self.0[*index].used_at);
            oldest.map(|index| self.0.swap_remove(index));
        }
        let until = ttl.and_then(|ttl| now.checked_add(ttl));
        self.0.push(Operation { key, client: Arc::clone(client), until, used_at: now, way });
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
        self.used_at + EXCHANGE_LIFETIME <= now || self.until.is_some_and(|until| until <= now)
    }

    fn is_of(&self, client: &Arc<Client>) -> bool {
        self.client.principal == client.principal
    }
}

/// Method and options that all parts have in common, Request-Tag among them. RFC 7959 §2.5, RFC 9175 §3.3
fn key(message: &Message<'_>) -> Box<[u8]> {
    let mut key = vec![message.code.0];
    for option in message.options.iter() {
        let is_own = matches!(
            option.number,
            number::BLOCK1 | number::BLOCK2 | number::SIZE1 | number::SIZE2 | number::OBSERVE | number::ECHO
        );
        if !is_own && !super::request::is_secret(&option) {
            key.extend_from_slice(&option.number.to_be_bytes());
            key.extend_from_slice(&(option.value.len() as u32).to_be_bytes());
            key.extend_from_slice(option.value);
        }
    }
    key.into()
}

/// Transfers of one client at a time; one more ends the one that was not used for longest.
const MAX_OPERATIONS: usize = 4;
