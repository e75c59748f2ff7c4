use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::proxy_protocol::{ProxyError, ProxyProtocol};
use super::stream::Stream;
use super::tcp;
use super::tls::{self, ServerTls};
use super::upgrade::Upgrade;
use super::websocket::{WebSocket, WebSocketError, WebSocketOptions};
use crate::background::timeout;
use crate::listener::Bound;

/// One listener's handshakes: PROXY protocol, TLS, WebSocket, in this order, each if wanted.
pub struct Acceptor {
    options: AcceptorOptions,
}

/// Which handshakes a listener expects.
#[derive(Clone)]
pub struct AcceptorOptions {
    /// Load balancers in front; `None` takes connections as they come.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `None` for plain text.
    pub tls: Option<ServerTls>,
    /// `None` for bytes without frames.
    pub websocket: Option<WebSocketOptions>,
    /// Time for all handshakes together.
    pub timeout: Duration,
    /// How long a client may be silent until TCP asks whether it is there; `None` never wakes a sleeping
    /// device.
    pub keepalive: Option<Duration>,
}

/// A connection after its handshakes.
#[derive(Debug)]
pub struct Accepted {
    /// The client's bytes.
    pub stream: Stream,
    /// Where the client is, as its load balancer says if one is trusted.
    pub peer: SocketAddr,
    /// The client's certificate in DER, verified against the listener's authorities.
    pub certificate: Option<Vec<u8>>,
    /// What it showed in its request for a WebSocket.
    pub upgrade: Option<Box<Upgrade>>,
    /// Whether TLS protects the connection up to mgate.
    pub is_encrypted: bool,
}

/// Why a connection was not accepted.
#[derive(Debug)]
pub enum AcceptError {
    /// The connection broke.
    Io(io::Error),
    /// The header in front of the connection is not as it should be.
    Proxy(ProxyError),
    /// The client took too long.
    TimedOut,
    /// The TLS handshake failed.
    Tls(io::Error),
    /// There are as many connections as there may be from this client.
    Refused(SocketAddr, Bound),
    /// The connection does not come from a trusted load balancer.
    Untrusted,
    /// The client did not get a WebSocket.
    WebSocket(WebSocketError),
}

impl Acceptor {
    /// Shakes hands as `options` say.
    pub fn new(options: AcceptorOptions) -> Self {
        Self { options }
    }

    /// The same with other WebSockets, or with none.
    #[must_use]
    pub fn with_websocket(&self, websocket: Option<WebSocketOptions>) -> Self {
        Self { options: AcceptorOptions { websocket, ..self.options.clone() } }
    }

    /// Which WebSocket clients it takes; `None` for bytes without frames.
    pub fn websocket(&self) -> Option<&WebSocketOptions> {
        self.options.websocket.as_ref()
    }

    /// Shakes hands with one client, once its address is known and `admit` takes it. Takes its time: it must
    /// not be awaited where connections are accepted.
    pub async fn accept(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        admit: impl FnOnce(IpAddr) -> Result<(), Bound>,
    ) -> Result<Accepted, AcceptError> {
        // Boxed, so that what handshakes need is freed with them and does not stay in the connection's task.
        match timeout(self.options.timeout, Box::pin(self.shake_hands(tcp, peer, admit))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(AcceptError::TimedOut),
        }
    }

    async fn shake_hands(
        &self,
        mut tcp: TcpStream,
        peer: SocketAddr,
        admit: impl FnOnce(IpAddr) -> Result<(), Bound>,
    ) -> Result<Accepted, AcceptError> {
        tcp::tune(&tcp, self.options.keepalive).map_err(AcceptError::Io)?;
        let peer = self.announced_peer(&mut tcp, peer).await?;
        admit(peer.ip()).map_err(|bound| AcceptError::Refused(peer, bound))?;
        let (stream, certificate) = match &self.options.tls {
            Some(server) => {
                let stream = server.accept(tcp).await.map_err(AcceptError::Tls)?;
                let certificate = tls::leaf(&stream);
                (Stream::Tls(Box::new(stream)), certificate)
            }
            None => (Stream::Tcp(tcp), None),
        };
        let (stream, upgrade) = match &self.options.websocket {
            Some(options) => {
                let accepted = WebSocket::accept(stream, options).await;
                let (socket, upgrade) = accepted.map_err(AcceptError::WebSocket)?;
                let upgrade = (!upgrade.is_empty()).then(|| Box::new(upgrade));
                (Stream::WebSocket(Box::new(socket)), upgrade)
            }
            None => (stream, None),
        };
        Ok(Accepted { stream, peer, certificate, upgrade, is_encrypted: self.options.tls.is_some() })
    }

    async fn announced_peer(&self, tcp: &mut TcpStream, peer: SocketAddr) -> Result<SocketAddr, AcceptError> {
        let announced = match &self.options.proxy_protocol {
            Some(proxy) if !proxy.trusts(peer.ip()) => return Err(AcceptError::Untrusted),
            Some(proxy) => proxy.read(tcp).await.map_err(AcceptError::Proxy)?,
            None => None,
        };
        let peer = announced.unwrap_or(peer);
        Ok(SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }
}

impl AcceptError {
    /// Whether the client went away in the middle of it, as those do who only look whether somebody listens.
    pub fn is_departure(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        match self {
            Self::Io(error)
            | Self::Proxy(ProxyError::Io(error))
            | Self::Tls(error)
            | Self::WebSocket(WebSocketError::Io(error)) => {
                matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
            }
            _ => false,
        }
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "connection broke: {error}"),
            Self::Proxy(error) => error.fmt(f),
            Self::TimedOut => f.write_str("handshakes took too long"),
            Self::Tls(error) => write!(f, "TLS handshake failed: {error}"),
            Self::Refused(peer, bound) => write!(f, "{bound}: {}", peer.ip()),
            Self::Untrusted => f.write_str("not from a trusted load balancer"),
            Self::WebSocket(error) => write!(f, "WebSocket handshake failed: {error}"),
        }
    }
}

impl Error for AcceptError {}
