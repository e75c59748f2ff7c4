//! Who asks: found out by what a request shows, and good for the requests after it that show the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_policies::{Action, Cause, Client, Protocol, Reason};

use super::target::{Target, secrets};
use super::waiting::Question;
use super::{Context, Output, Session};
use crate::coap::message::{Code, Message};
use crate::gate::{Credentials, Identification, Side, Verdict};
use crate::memory::Memory;

/// Who a peer was found to be, and by what. All that hangs on that is forgotten with it.
pub(super) struct Identity {
    secret: Option<Box<[u8]>>,
    pub(super) client: Arc<Client>,
    /// When it is to be found out again.
    until: Instant,
    /// What it may do.
    pub(super) memory: Memory,
    last: Option<Last>,
}

/// What a client asked for last: mostly, it asks for the same again.
struct Last {
    code: Code,
    options: Box<[u8]>,
    target: Arc<Target>,
}

impl Session {
    /// Finds out who asks.
    pub(super) fn identify(&mut self, message: &Message<'_>, cx: &mut Context<'_>) {
        let secret = secret(message);
        if self.identity.as_ref().is_some_and(|known| known.is_good(secret, cx.now.instant)) {
            return self.ask(message, None, cx);
        }
        let authenticators = &cx.endpoint.gate.authenticators;
        let identification = authenticators.identify(&self.credentials(secret), cx.now);
        self.take_identification(message, identification, cx);
    }

    /// Goes on after the authenticator that needed time.
    pub(super) fn resume_identification(
        &mut self,
        message: &Message<'_>,
        asked: usize,
        verdict: Verdict,
        cx: &mut Context<'_>,
    ) {
        let credentials = self.credentials(secret(message));
        let authenticators = &cx.endpoint.gate.authenticators;
        let identification = authenticators.resume(asked, verdict, &credentials, cx.now);
        self.take_identification(message, identification, cx);
    }

    fn credentials<'a>(&'a self, secret: Option<&'a [u8]>) -> Credentials<'a> {
        Credentials {
            client_id: "",
            username: None,
            password: secret,
            upgrade: None,
            certificate: self.peer.certificate.as_deref(),
            psk_identity: self.peer.psk_identity.as_deref(),
            peer: self.peer.address,
            protocol: Protocol::Coap,
        }
    }

    fn take_identification(
        &mut self,
        message: &Message<'_>,
        identification: Identification,
        cx: &mut Context<'_>,
    ) {
        let expired = || Reason::with_detail(Cause::BadCredentials, "expired");
        let reason = match identification {
            Identification::Accepted(principal) if principal.expires.is_some_and(|at| at <= cx.now.unix) => {
                expired()
            }
            Identification::Accepted(principal) => {
                let expires = principal.expires.map(|at| at - cx.now.unix);
                let lasts = expires.into_iter().chain([IDENTITY_LIFETIME]).min().unwrap_or_default();
                let client = Arc::new(Client {
                    principal,
                    client_id: "".into(),
                    username: None,
                    peer: self.peer.address,
                    route: Arc::clone(&cx.endpoint.gate.route),
                    protocol: Protocol::Coap,
                    is_encrypted: self.peer.is_encrypted,
                });
                let (secret, until) = (secret(message).map(Into::into), cx.now.instant + lasts);
                let identity = Identity { secret, client, until, memory: Memory::default(), last: None };
                self.identity = Some(Box::new(identity));
                return self.ask(message, None, cx);
            }
            Identification::Pending(asked, future) => {
                self.wait(Side::Client, message.bytes, Question::Identity(asked), cx);
                self.outputs.push_back(Output::Identify(future));
                return;
            }
            Identification::Rejected(reason) => reason,
        };
        self.identity = None;
        self.deny(message, (Action::Connect, ""), &reason, cx);
    }
}

impl Identity {
    /// It is to be found out again.
    pub(super) fn expire(&mut self, now: Instant) {
        self.until = now;
    }

    /// What a request is about, which is only looked for where the last one had other options.
    pub(super) fn target(
        &mut self,
        message: &Message<'_>,
        find: impl FnOnce() -> Result<Target, Code>,
    ) -> Result<Arc<Target>, Code> {
        let options = message.options.as_bytes();
        if let Some(last) = &self.last
            && last.code == message.code
            && *last.options == *options
        {
            return Ok(Arc::clone(&last.target));
        }
        let target = Arc::new(find()?);
        let is_small = options.len() <= MAX_OPTION_BYTES;
        self.last = is_small.then(|| Last {
            code: message.code,
            options: options.into(),
            target: Arc::clone(&target),
        });
        Ok(target)
    }

    /// Forgets what it may do, which can be found out again: a device that sleeps costs no more than it must.
    pub(super) fn rest(&mut self) {
        (self.memory, self.last) = (Memory::default(), None);
    }

    fn is_good(&self, secret: Option<&[u8]>, now: Instant) -> bool {
        now < self.until && is_same(self.secret.as_deref(), secret)
    }
}

fn secret<'a>(message: &Message<'a>) -> Option<&'a [u8]> {
    secrets(message).next()
}

/// Takes as long for every secret of this length.
fn is_same(one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            let differing = one.iter().zip(other).fold(0, |found, (one, other)| found | (one ^ other));
            one.len() == other.len() && differing == 0
        }
        (None, None) => true,
        _ => false,
    }
}

/// A peer may be somebody else by then, or no longer be welcome.
const IDENTITY_LIFETIME: Duration = Duration::from_secs(300);

/// Options of the last request that are kept.
const MAX_OPTION_BYTES: usize = 512;
