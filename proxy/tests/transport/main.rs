//! What clients meet when they knock: handshakes over real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accept;
mod certificates;
mod tls;
mod upstream;
mod websocket;

use std::time::Duration;

use mgate_proxy::transport::{AcceptError, Accepted, Acceptor, AcceptorOptions};
use tokio::net::{TcpListener, TcpStream};

/// Handshakes that do nothing; tests add what they are about.
fn plain() -> AcceptorOptions {
    AcceptorOptions { proxy_protocol: None, tls: None, websocket: None, timeout: LONG, keepalive: None }
}

/// Lets `client` speak to an acceptor; says what both made of it.
async fn shake_hands<T>(
    options: AcceptorOptions,
    client: impl AsyncFnOnce(TcpStream) -> T,
) -> (Result<Accepted, AcceptError>, T) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tcp, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (server, peer) = accepted.unwrap();
    let acceptor = Acceptor::new(options);
    tokio::join!(acceptor.accept(server, peer, |_| Ok(())), client(tcp.unwrap()))
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);
