//! Byte streams to clients and to upstreams: TCP, TLS and WebSocket, with a PROXY protocol header in front.
//!
//! Datagrams come by an [`UdpListener`]. An [`Acceptor`] makes a [`Stream`] of what a listener accepted, a [`Connector`] dials one. Neither knows
//! what the bytes mean.

mod acceptor;
mod certificate;
mod connector;
mod proxy_protocol;
mod stream;
mod tcp;
mod tls;
mod tunnel;
pub(crate) mod udp;
mod upgrade;
mod websocket;
mod wire;

pub use acceptor::{AcceptError, Accepted, Acceptor, AcceptorOptions};
pub use certificate::{Authorities, Certificate, CipherSuites, RevocationLists, TlsError};
pub use connector::{ConnectError, Connector, ConnectorError, ConnectorOptions};
pub use proxy_protocol::{ProxyError, ProxyProtocol, ProxyVersion};
pub use stream::Stream;
#[cfg(test)]
pub(crate) use tls::certificates;
pub use tls::{
    ALPN_HTTP, ALPN_HTTP2, ALPN_MQTT, ClientAuth, ClientTls, Demand, MinVersion, ServerTls, ServerTlsOptions,
};
pub use tunnel::Tunnel;
pub use udp::UdpListener;
pub use upgrade::Upgrade;
pub(crate) use upgrade::{form_decoded, hex, read_basic};
pub use websocket::{WebSocket, WebSocketError, WebSocketOptions, WebSocketTarget};
pub(crate) use websocket::{may_connect, sub_protocol};
pub(crate) use wire::Wire;
