//! The admin listener: where operators and their programs ask how a gateway is, and change it.
//!
//! It speaks HTTP, a request a connection, and serves few at a time: whoever is slow waits for a place.

mod answer;
mod endpoints;
mod guard;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::control::Control;

/// A socket at which nobody is answered yet.
pub(crate) struct Listener(TcpListener);

impl Listener {
    /// Listens; must be called in a tokio runtime.
    pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let bound = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        bound().map(Self).with_context(|| format!("admin: cannot listen at {address}"))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers for ever.
    pub(crate) async fn serve(self, control: Arc<Control>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.0.accept().await {
                Ok((tcp, peer)) => {
                    let serving = serve(tcp, peer, Arc::clone(&control));
                    connections.spawn(async move {
                        let _place = place;
                        serving.await;
                    });
                }
                Err(error) => {
                    warn!(%error, "the admin listener cannot accept");
                    sleep(PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn serve(tcp: TcpStream, peer: SocketAddr, control: Arc<Control>) {
    let is_loopback = tcp.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let answer = service_fn(move |request| {
        let control = Arc::clone(&control);
        async move { Ok::<_, Infallible>(endpoints::answer(request, &control, is_loopback).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tcp), answer);
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, %error, "a connection of the admin listener broke"),
        Err(_) => debug!(%peer, "a connection of the admin listener took too long"),
    }
}

const MAX_CONNECTIONS: usize = 32;
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;
const HEADER_TIME: Duration = Duration::from_secs(5);
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// What there is too little of to accept may be back by then.
const PAUSE: Duration = Duration::from_millis(200);
