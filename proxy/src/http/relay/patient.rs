use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::background::sleep_until;
use crate::transport::Stream;

/// A connection whose peer must take some of what is written in a given time, and is heard out at the end: closing
/// with unread bytes would take the last words from it.
pub(super) struct Patient {
    stream: Stream,
    stall_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub(super) fn new(stream: Stream, stall_timeout: Duration) -> Self {
        Self { stream, stall_timeout, stalled: None, lingering: None }
    }

    /// The connection alone.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Ends it at once, with a reset.
    pub(super) fn reset(self) {
        self.stream.reset();
    }

    /// Whether nothing is known to have come since a read was pending; `false` where only a read can tell.
    pub(super) fn is_idle(&self) -> bool {
        self.stream.is_idle()
    }

    /// What a write came to; an error if the peer took nothing for too long.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stall_timeout = self.stall_timeout;
        let stalled = self.stalled.get_or_insert_with(|| after(stall_timeout));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let written = match slices {
            // one piece takes the kernel less work
            [piece, others @ ..] if others.iter().all(|other| other.is_empty()) => {
                stream.poll_write(cx, piece)
            }
            _ => stream.poll_write_vectored(cx, slices),
        };
        self.judge(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.judge(shut, cx))?;
            self.lingering = Some(after(LINGER));
        }
        let mut ignored = [0; 4096];
        loop {
            if self.lingering.as_mut().is_none_or(|lingering| lingering.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let mut buf = ReadBuf::new(&mut ignored);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

fn after(time: Duration) -> Pin<Box<Sleep>> {
    Box::pin(sleep_until(Instant::now() + time))
}

/// Time for the peer to hear the last words.
const LINGER: Duration = Duration::from_secs(2);
