use std::error::Error;
use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::http::Uri;

use super::stream::Stream;
use super::tcp;
use super::tls::ClientTls;
use super::websocket::{WebSocket, WebSocketError, WebSocketTarget};
use crate::background::timeout_at;

/// Dials one upstream.
#[derive(Clone)]
pub struct Connector {
    host: String,
    port: u16,
    tls: Option<(ClientTls, ServerName<'static>)>,
    websocket: Option<(Uri, usize)>,
    timeout: Duration,
}

/// Where an upstream is and how it is spoken to.
pub struct ConnectorOptions {
    /// A name or an address; IPv6 with or without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `None` for plain text.
    pub tls: Option<ClientTls>,
    /// The name that its certificate must bear; `None` for `host`.
    pub server_name: Option<String>,
    /// `None` for bytes without frames.
    pub websocket: Option<WebSocketTarget>,
    /// Time for name look-up, connecting and handshakes together.
    pub timeout: Duration,
}

/// What is wrong with the description of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectorError {
    /// No certificate can bear this name.
    ServerName(String),
    /// The path, or the host, cannot stand in a URL.
    WebSocketUrl(String),
}

/// Why an upstream could not be reached.
#[derive(Debug)]
pub enum ConnectError {
    /// No TCP connection came about.
    Tcp(io::Error),
    /// It took too long.
    TimedOut,
    /// The TLS handshake failed.
    Tls(io::Error),
    /// The upstream gave no WebSocket.
    WebSocket(WebSocketError),
}

impl Connector {
    /// Checks the options; connects to nothing yet.
    pub fn new(options: ConnectorOptions) -> Result<Self, ConnectorError> {
        let ConnectorOptions { host, port, tls, server_name, websocket, timeout } = options;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server_name = server_name.unwrap_or_else(|| host.clone());
        let tls = tls.map(|tls| parse_name(server_name).map(|name| (tls, name))).transpose()?;
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let websocket = match websocket {
            Some(target) => {
                let url = format!("{scheme}://{}:{port}{}", InUrl(&host), target.path);
                let uri = url.parse().map_err(|_| ConnectorError::WebSocketUrl(url))?;
                Some((uri, target.max_message_bytes))
            }
            None => None,
        };
        Ok(Self { host, port, tls, websocket, timeout })
    }

    /// Whether it speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Where it connects to, for logs: the host and the port.
    pub(crate) fn authority(&self) -> impl fmt::Display {
        Authority(self)
    }

    /// Makes one connection.
    pub async fn connect(&self) -> Result<Stream, ConnectError> {
        self.connect_offering(&[]).await
    }

    /// Makes one connection; over TLS, the upstream may choose one of these application protocols (RFC 7301).
    pub(crate) async fn connect_offering(&self, protocols: &[&str]) -> Result<Stream, ConnectError> {
        let deadline = Instant::now() + self.timeout;
        // Boxed, so that what handshakes need is freed with them and does not stay in the connection's task.
        match timeout_at(deadline, Box::pin(self.connect_until(deadline, protocols))).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::TimedOut),
        }
    }

    async fn connect_until(&self, deadline: Instant, protocols: &[&str]) -> Result<Stream, ConnectError> {
        let tcp = tcp::connect(&self.host, self.port, deadline).await.map_err(ConnectError::Tcp)?;
        tcp::tune(&tcp, Some(KEEPALIVE)).map_err(ConnectError::Tcp)?;
        let stream = match &self.tls {
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), tcp, protocols).await.map_err(ConnectError::Tls)?;
                Stream::Tls(Box::new(stream))
            }
            None => Stream::Tcp(tcp),
        };
        let Some((uri, max_message_bytes)) = &self.websocket else { return Ok(stream) };
        let socket = WebSocket::connect(stream, uri, *max_message_bytes).await;
        Ok(Stream::WebSocket(Box::new(socket.map_err(ConnectError::WebSocket)?)))
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", InUrl(&self.0.host), self.0.port)
    }
}

impl fmt::Display for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.tls, &self.websocket) {
            (None, None) => "mqtt",
            (None, Some(_)) => "mqtt+ws",
            (Some(_), None) => "mqtts",
            (Some(_), Some(_)) => "mqtt+wss",
        };
        write!(f, "{scheme}://{}", self.authority())?;
        self.websocket.as_ref().map_or(Ok(()), |(uri, _)| f.write_str(uri.path()))
    }
}

impl fmt::Display for ConnectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerName(name) => write!(f, "no certificate can bear the name {name:?}"),
            Self::WebSocketUrl(url) => write!(f, "not a URL: {url:?}"),
        }
    }
}

impl Error for ConnectorError {}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(error) => write!(f, "no connection: {error}"),
            Self::TimedOut => f.write_str("connecting took too long"),
            Self::Tls(error) => write!(f, "TLS handshake failed: {error}"),
            Self::WebSocket(error) => write!(f, "WebSocket handshake failed: {error}"),
        }
    }
}

impl Error for ConnectError {}

/// The host and the port of an upstream.
struct Authority<'a>(&'a Connector);

/// A host as URLs write it.
struct InUrl<'a>(&'a str);

impl fmt::Display for InUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.parse::<Ipv6Addr>().is_ok() { write!(f, "[{}]", self.0) } else { f.write_str(self.0) }
    }
}

fn parse_name(name: String) -> Result<ServerName<'static>, ConnectorError> {
    ServerName::try_from(name.clone()).map_err(|_| ConnectorError::ServerName(name))
}

/// Silence after which TCP asks an upstream whether it is there: finds one that went away without a word.
const KEEPALIVE: Duration = Duration::from_secs(60);
