//! The peers that a relay serves, and what each is waiting for.

use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, abortable};
use mgate_policies::{BoxFuture, Decision, Reason};
use tokio::io::unix::AsyncFd;

use super::moved::Unproven;
use super::readable::Connected;
use crate::coap::session::Session;
use crate::coap::table::Key;
use crate::gate::{Side, Verdict};
use crate::transport::udp::Way;

/// One peer, and what is on its way for it.
pub(super) struct Served {
    pub(super) session: Session,
    pub(super) way: Way,
    /// Of a peer that moved and has not shown yet that it is there.
    pub(super) unproven: Option<Box<Unproven>>,
    pub(super) upstream: Option<Connected>,
    pub(super) asked: Asked,
}

impl Served {
    pub(super) fn new(session: Session, way: Way) -> Self {
        Self { session, way, unproven: None, upstream: None, asked: Asked::default() }
    }
}

/// What others were asked for; dropped with it.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) dial: Asking,
    pub(super) identify: Asking,
    pub(super) decide_for_client: Asking,
    pub(super) decide_for_upstream: Asking,
    pub(super) review: Asking,
    pub(super) store: Asking,
    /// One after the other.
    pub(super) stores: VecDeque<BoxFuture<'static, Result<(), Reason>>>,
}

/// One question that is on its way; nobody waits for its answer any more once this is dropped.
#[derive(Default)]
pub(super) struct Asking(Option<AbortHandle>);

/// What a peer was waiting for.
pub(super) enum Event {
    Decided(Side, Decision),
    Dialed(io::Result<AsyncFd<UdpSocket>>),
    Identified(Verdict),
    Reviewed(Decision),
    Stored(Result<(), Reason>),
}

impl Asking {
    /// Whether something is asked.
    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Asks, in place of what was asked before.
    pub(super) fn about(
        &mut self,
        key: Key,
        answer: impl Future<Output = Event> + Send + 'static,
    ) -> BoxFuture<'static, Option<(Key, Event)>> {
        // who panics never answers, which is a no after a while
        let (answer, handle) = abortable(AssertUnwindSafe(answer).catch_unwind());
        drop(std::mem::replace(self, Self(Some(handle))));
        Box::pin(async move { answer.await.ok()?.ok().map(|event| (key, event)) })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.abort();
        }
    }
}
