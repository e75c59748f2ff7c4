use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::patient::Patient;

/// What carries a WebSocket once HTTP has opened it.
pub(super) enum Handed {
    /// A client's connection of HTTP/1.1, and what came behind the request.
    Connection(Box<Patient>, BytesMut),
    /// A stream of HTTP/2, or the connection to an upstream.
    Upgraded(TokioIo<Upgraded>),
}

impl AsyncRead for Handed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(io, rest) if rest.is_empty() => Pin::new(&mut **io).poll_read(cx, buffer),
            Self::Connection(_, rest) => {
                let count = rest.len().min(buffer.remaining());
                buffer.put_slice(&rest.split_to(count));
                Poll::Ready(Ok(()))
            }
            Self::Upgraded(io) => Pin::new(io).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Handed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(io, _) => Pin::new(&mut **io).poll_write(cx, bytes),
            Self::Upgraded(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(io, _) => Pin::new(&mut **io).poll_flush(cx),
            Self::Upgraded(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(io, _) => Pin::new(&mut **io).poll_shutdown(cx),
            Self::Upgraded(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
