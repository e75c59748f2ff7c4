//! One side's connection, with what it did not take at once.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::coop::has_budget_remaining;

use super::stream::Stream;
use crate::background::timeout;

/// One side's connection and what waits on it.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) stream: Option<Stream>,
    /// Came, and is not yet taken by the session.
    pub(crate) unread: Vec<u8>,
    /// The peer will send no more; with what broke the connection, if something did.
    pub(crate) ended: Option<Option<ErrorKind>>,
    /// Was to be sent, and is not yet taken by the peer.
    unsent: Vec<u8>,
    /// Since when the peer takes none of it.
    stalled_since: Option<Instant>,
    needs_flush: bool,
    /// Whether the connection had nothing to read and wakes the task when it has.
    is_awaited: bool,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream: Some(stream), ..Self::default() }
    }

    /// How many bytes wait for the peer.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Since when the peer takes nothing, if something waits for it.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        self.stalled_since
    }

    /// Reads what is there; pending where there is no connection.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(stream) = self.stream.as_mut() else { return Poll::Pending };
        // cheaper than to be told so by a poll, and most turns are about the other side
        if self.is_awaited && stream.is_idle() {
            return Poll::Pending;
        }
        let read = Pin::new(stream).poll_read(cx, buffer);
        // a task whose turn has been too long is told so too, and is not woken by the connection
        self.is_awaited = read.is_pending() && has_budget_remaining();
        read
    }

    /// Writes all of `bytes`, or keeps what the peer does not take now; `bytes` is empty after that.
    pub(crate) fn send(&mut self, bytes: &mut Vec<u8>, now: Instant, cx: &mut Context<'_>) {
        if bytes.is_empty() {
            return;
        }
        let taken = if self.unsent.is_empty() { self.write(bytes, cx) } else { 0 };
        if taken < bytes.len() {
            self.stalled_since.get_or_insert(now);
            self.unsent.extend_from_slice(&bytes[taken..]);
        }
        bytes.clear();
        bytes.shrink_to(SCRATCH_KEPT);
    }

    /// Goes on writing what was kept; says whether the peer took any of it.
    pub(crate) fn poll_write(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        if self.needs_flush {
            self.flush(cx);
        }
        if self.unsent.is_empty() {
            return false;
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        let taken = self.write(&unsent, cx);
        if taken < unsent.len() {
            unsent.drain(..taken);
            self.unsent = unsent;
        }
        if taken > 0 {
            self.stalled_since = (!self.unsent.is_empty()).then_some(now);
        }
        taken > 0
    }

    /// Sends what is left, says that no more comes, and hears the peer out: closing with unread bytes would
    /// take the last words from it.
    pub(crate) async fn finish(self, patience: Duration) {
        let Some(mut stream) = self.stream else { return };
        let said = timeout(patience, async {
            let written = stream.write_all(&self.unsent).await;
            // what it took before it took no more is still on its way
            stream.shutdown().await.and(written)
        });
        if matches!(said.await, Ok(Ok(()))) && self.ended.is_none() {
            // whoever goes on talking is not listened to for long
            let _ = timeout(LINGER, hear_out(&mut stream)).await;
        }
    }

    /// Writes until the peer takes no more; says how much it took. A connection that broke takes everything:
    /// reading from it tells why.
    fn write(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> usize {
        let Some(stream) = self.stream.as_mut() else { return 0 };
        let mut taken = 0;
        while taken < bytes.len() {
            match Pin::new(&mut *stream).poll_write(cx, &bytes[taken..]) {
                Poll::Ready(Ok(count)) if count > 0 => taken += count,
                Poll::Ready(_) => return bytes.len(),
                Poll::Pending => break,
            }
        }
        self.flush(cx);
        taken
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        let Some(stream) = self.stream.as_mut() else { return };
        self.needs_flush = Pin::new(stream).poll_flush(cx).is_pending();
    }
}

async fn hear_out(stream: &mut Stream) -> io::Result<()> {
    let mut ignored = [0; 512];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

/// What a thread's outbox may keep for the next burst.
const SCRATCH_KEPT: usize = 256 * 1024;

/// Time for the peer to hear the last words.
const LINGER: Duration = Duration::from_secs(2);
