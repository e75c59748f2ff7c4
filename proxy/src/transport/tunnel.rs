use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream of HTTP/2 that carries bytes, as one of many of its connection. RFC 8441 §5
pub struct Tunnel {
    io: TokioIo<Upgraded>,
    /// What is left to do where the peer has not taken all that was written; `None` once it has, or is gone.
    give_up: Option<Box<dyn FnOnce() + Send>>,
}

impl Tunnel {
    /// The stream, and what ends its connection: nothing else lets go of what a peer does not take of a stream.
    pub(crate) fn new(io: TokioIo<Upgraded>, give_up: impl FnOnce() + Send + 'static) -> Self {
        Self { io, give_up: Some(Box::new(give_up)) }
    }

    /// Looks whether the peer is gone.
    fn judge<T>(&mut self, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &moved {
            self.give_up = None;
        }
        moved
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        self.judge(read)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.judge(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.judge(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(context);
        if shut.is_ready() {
            self.give_up = None;
        }
        shut
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(give_up) = self.give_up.take() {
            give_up();
        }
    }
}
