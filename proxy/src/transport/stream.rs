use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::tunnel::Tunnel;
use super::websocket::WebSocket;

/// The bytes between mgate and one peer, whatever carries them.
///
/// What was written is sure to be on its way only after a flush. A peer that leaves without the good-byes of
/// TLS or WebSocket shows as [`io::ErrorKind::UnexpectedEof`].
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP, as server or as client.
    Tls(Box<TlsStream<TcpStream>>),
    /// One stream of HTTP/2.
    Tunnel(Box<Tunnel>),
    /// The payloads of binary WebSocket messages, over any of the others.
    WebSocket(Box<WebSocket>),
}

impl Stream {
    /// Whether nothing is known to have come since a read was pending; `false` where only a read can tell.
    pub(crate) fn is_idle(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(())).is_err(),
            Self::Tls(_) | Self::Tunnel(_) | Self::WebSocket(_) => false,
        }
    }

    /// Ends it at once: the peer sees a reset, where there is such a thing.
    pub(crate) fn reset(self) {
        let tcp = match &self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Tunnel(_) | Self::WebSocket(_) => return,
        };
        // if it cannot be had, closing must do
        let _ = tcp.set_zero_linger();
    }

    /// Whether the peer wants this application protocol (RFC 7301).
    pub(crate) fn speaks(&self, protocol: &str) -> bool {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(protocol.as_bytes()),
            Self::Tcp(_) | Self::Tunnel(_) | Self::WebSocket(_) => false,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::WebSocket(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::WebSocket(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tunnel(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::WebSocket(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(context),
            Self::WebSocket(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(context),
            Self::WebSocket(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Tls(_) => "Tls",
            Self::Tunnel(_) => "Tunnel",
            Self::WebSocket(_) => "WebSocket",
        })
    }
}

// Every connection has two: what is large is boxed, so that plain TCP pays nothing for it.
const _: () = assert!(size_of::<Stream>() <= 64);
