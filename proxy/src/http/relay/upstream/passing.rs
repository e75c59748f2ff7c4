use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Frame;
use mgate_policies::BoxFuture;
use tokio::sync::mpsc::{self, Permit, Receiver, Sender};

use super::alone::Alone;
use super::{Lease, UpstreamError};
use crate::background::timeout;
use crate::http::problem::Problem;
use crate::http::relay::body::BodyError;

/// The body of an answer that came before its request was sent. A task moves both on: a client that writes before it
/// reads is not waited for.
pub(in crate::http::relay) struct Passing {
    parts: Receiver<Came>,
    left: Option<u64>,
}

/// How the rest of a request is sent whose answer has come.
pub(super) struct Rest {
    /// As long as that may take.
    pub(super) stall_timeout: Duration,
    /// Done when its client may no longer make it.
    pub(super) revoked: BoxFuture<'static, Problem>,
}

impl Passing {
    /// Begins with it; the rest of the request is sent behind the answer too, if somebody wants it.
    pub(super) fn begin(lease: Lease, rest: Option<Rest>) -> Self {
        let (sender, parts) = mpsc::channel(MOST_PARTS);
        let left = lease.left();
        tokio::spawn(run(lease, sender, rest));
        Self { parts, left }
    }

    /// The next part of the body.
    pub(in crate::http::relay) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        let came = ready!(self.parts.poll_recv(cx)).unwrap_or(Some(Err(BodyError::Broken)));
        let data = came.as_ref().and_then(|came| came.as_ref().ok()?.data_ref());
        if let (Some(left), Some(data)) = (&mut self.left, data) {
            *left = left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(came)
    }

    /// How many bytes of it are left, where that is known.
    pub(in crate::http::relay) fn left(&self) -> Option<u64> {
        self.left
    }
}

impl Rest {
    /// Sends it; if that comes to no end, the connection is closed.
    pub(super) async fn finish(self, mut lease: Lease) {
        if let Some(connection) = lease.alone() {
            tokio::select! {
                biased;
                _ = self.revoked => {}
                _ = timeout(self.stall_timeout, connection.finish()) => {}
            }
        }
    }
}

async fn run(mut lease: Lease, sender: Sender<Came>, rest: Option<Rest>) {
    let Some(connection) = lease.alone() else { return };
    let outcome = pass(connection, &sender).await;
    drop(sender);
    // who knows the length does not wait for the end
    let is_passed = outcome.is_ok() && lease.left() == Some(0);
    if let Some(rest) = rest.filter(|_| is_passed) {
        rest.finish(lease).await;
    }
}

/// Passes the answer on until it ends, or nobody wants it.
async fn pass(connection: &mut Alone, sender: &Sender<Came>) -> Result<(), UpstreamError> {
    while let Some(permit) = turn(connection, sender).await? {
        let came = tokio::select! {
            biased;
            () = sender.closed() => return Ok(()),
            came = poll_fn(|cx| connection.poll_frame(cx)) => came,
        };
        let is_last = !matches!(came, Some(Ok(_)));
        permit.send(came);
        if is_last {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits for room, and moves the request on meanwhile; there is none where nobody wants more.
async fn turn<'a>(
    connection: &mut Alone,
    sender: &'a Sender<Came>,
) -> Result<Option<Permit<'a, Came>>, UpstreamError> {
    tokio::select! {
        biased;
        permit = sender.reserve() => return Ok(permit.ok()),
        sent = connection.finish() => sent?,
    }
    Ok(sender.reserve().await.ok())
}

/// The next part of a body, or its end.
type Came = Option<Result<Frame<Bytes>, BodyError>>;

/// Parts that wait for the client.
const MOST_PARTS: usize = 1;
