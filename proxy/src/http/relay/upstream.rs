mod life;
mod shared;
mod upgrade;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;
use std::{io, slice};

use http::uri::Scheme;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore};

use self::life::Life;
use self::shared::{Place, Shared, in_http1, is_refused};
use super::body::Content;
use super::patient::Patient;
use crate::http::problem::Problem;
use crate::http::session::is_safe;
use crate::http::{Options, UpstreamProtocol};
use crate::transport::{ALPN_HTTP, ALPN_HTTP2, ConnectError, Connector, Stream};

/// The server behind a route, and the connections to it: each thread has its own.
pub(in crate::http) struct Upstream {
    connector: Connector,
    protocol: UpstreamProtocol,
    rows: Mutex<HashMap<ThreadId, Arc<Row>>>,
    /// For requests at a time.
    places: Arc<Semaphore>,
}

/// The connections of one thread.
#[derive(Default)]
struct Row {
    /// Those that wait for their next request.
    idle: Mutex<Vec<Alone>>,
    shared: Mutex<Vec<Arc<Shared>>>,
    /// Held by who makes a connection that others may share.
    dialing: AsyncMutex<()>,
    /// Whether the upstream chose HTTP/1.1 the last time.
    prefers_http1: AtomicBool,
}

/// A connection that has a request, and its place; whoever drops it closes a connection of HTTP/1.1.
pub(super) struct Lease {
    held: Held,
    row: Arc<Row>,
    _places: [OwnedSemaphorePermit; 2],
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum UpstreamError {
    /// No connection came about.
    Connect(ConnectError),
    /// The connection broke, or what came is no answer.
    Http(hyper::Error),
    /// It took too long.
    TimedOut,
}

/// What a request is sent on.
struct Held {
    /// Whether it is the first request on its connection.
    is_new: bool,
    by: Means,
}

enum Means {
    Alone(Alone),
    Shared(Place),
}

/// A connection of HTTP/1.1, which has one request at a time.
struct Alone {
    sender: http1::SendRequest<Content>,
    life: Arc<Life>,
}

impl Upstream {
    /// A server that is given so many requests at a time.
    pub(in crate::http) fn new(connector: Connector, options: &Options) -> Self {
        let (protocol, places) = (options.upstream_protocol, Semaphore::new(options.upstream_requests));
        Self { connector, protocol, rows: Mutex::default(), places: Arc::new(places) }
    }

    /// Sends a request, when it has its place in `share` too, and waits for the head of the answer. It is sent again
    /// only where the upstream surely did nothing with it, or where it is safe; and has no body, if that was begun.
    pub(super) async fn send(
        &self,
        request: Request<Content>,
        share: Arc<Semaphore>,
        stall_timeout: Duration,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let closed = |_| UpstreamError::TimedOut;
        // who waits for its share keeps no place from others
        let share = share.acquire_owned().await.map_err(closed)?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        let row = self.row();
        let lease = |held| Lease { held, row: Arc::clone(&row), _places: [share, place] };
        let mut held = match row.take() {
            Some(held) => held,
            None => Box::pin(self.connect(&row, stall_timeout)).await?,
        };
        let again = held.may_repeat(&request).then(|| repeat(&request));
        match held.send(request).await {
            Ok(response) => Ok((response, lease(held))),
            Err(error) => {
                let repeated = self.send_again(&row, stall_timeout, held, (error, again));
                Box::pin(repeated).await.map(|(response, held)| (response, lease(held)))
            }
        }
    }

    /// Sends a request once more, or a few times, if it may be.
    async fn send_again(
        &self,
        row: &Row,
        stall_timeout: Duration,
        mut held: Held,
        (mut error, mut again): (TrySendError<Request<Content>>, Option<Request<Content>>),
    ) -> Result<(Response<Incoming>, Held), UpstreamError> {
        for _ in 0..MAX_REPEATS {
            let request = held.unsent(error, again)?;
            held = self.connect(row, stall_timeout).await?;
            again = held.may_repeat(&request).then(|| repeat(&request));
            match held.send(request).await {
                Ok(response) => return Ok((response, held)),
                Err(another) => error = another,
            }
        }
        Err(UpstreamError::Http(error.into_error()))
    }

    /// The connections of this thread.
    fn row(&self) -> Arc<Row> {
        Arc::clone(lock(&self.rows).entry(thread::current().id()).or_default())
    }

    /// Makes a connection; of those who want to share one, the first does so for all.
    async fn connect(&self, row: &Row, stall_timeout: Duration) -> Result<Held, UpstreamError> {
        let may_share = self.protocol == UpstreamProtocol::Http2
            || (self.offers().contains(&ALPN_HTTP2) && !row.prefers_http1.load(Ordering::Relaxed));
        if !may_share {
            return self.dial(row, stall_timeout).await;
        }
        let turn = row.dialing.lock().await;
        if let Some(place) = row.place() {
            return Ok(Held { is_new: false, by: Means::Shared(place) });
        }
        if row.prefers_http1.load(Ordering::Relaxed) {
            drop(turn);
        }
        self.dial(row, stall_timeout).await
    }

    async fn dial(&self, row: &Row, stall_timeout: Duration) -> Result<Held, UpstreamError> {
        let stream = self.connector.connect_offering(self.offers()).await.map_err(UpstreamError::Connect)?;
        let speaks_http2 = self.speaks_http2(&stream)?;
        row.prefers_http1.store(!speaks_http2, Ordering::Relaxed);
        let io = TokioIo::new(Patient::new(stream, stall_timeout));
        if speaks_http2 {
            let scheme = if self.connector.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
            let place = Shared::begin(io, scheme).await.map_err(UpstreamError::Http)?;
            lock(&row.shared).push(Arc::clone(place.shared()));
            Ok(Held { is_new: true, by: Means::Shared(place) })
        } else {
            let connection = Alone::begin(io).await.map_err(UpstreamError::Http)?;
            Ok(Held { is_new: true, by: Means::Alone(connection) })
        }
    }

    /// What it may choose from over TLS (RFC 7301).
    fn offers(&self) -> &'static [&'static str] {
        match self.protocol {
            _ if !self.connector.is_tls() => &[],
            UpstreamProtocol::Http1 => &[],
            UpstreamProtocol::Http2 => slice::from_ref(&ALPN_HTTP2),
            UpstreamProtocol::Negotiated => &[ALPN_HTTP2, ALPN_HTTP],
        }
    }

    fn speaks_http2(&self, stream: &Stream) -> Result<bool, UpstreamError> {
        let is_chosen = stream.speaks(ALPN_HTTP2);
        match self.protocol {
            UpstreamProtocol::Http2 if self.connector.is_tls() && !is_chosen => {
                let error = io::Error::other("the upstream did not choose HTTP/2");
                Err(UpstreamError::Connect(ConnectError::Tls(error)))
            }
            UpstreamProtocol::Http2 => Ok(true),
            UpstreamProtocol::Http1 | UpstreamProtocol::Negotiated => Ok(is_chosen),
        }
    }
}

impl Row {
    /// A connection that is ready for a request.
    fn take(&self) -> Option<Held> {
        let by = self.idle_connection().map(Means::Alone).or_else(|| self.place().map(Means::Shared))?;
        Some(Held { is_new: false, by })
    }

    fn idle_connection(&self) -> Option<Alone> {
        let mut idle = lock(&self.idle);
        while let Some(connection) = idle.pop() {
            if connection.sender.is_ready() && connection.life.take(1) {
                return Some(connection);
            }
        }
        None
    }

    /// Room on a connection that others use too.
    fn place(&self) -> Option<Place> {
        let mut shared = lock(&self.shared);
        shared.retain(|connection| connection.is_open());
        shared.iter().find_map(Shared::reserve)
    }
}

impl Lease {
    /// Keeps the connection for the next request, if there is room.
    pub(super) fn give_back(self) {
        let Self { held: Held { by: Means::Alone(connection), .. }, row, _places } = self else { return };
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = lock(&row.idle);
        idle.retain(|connection| !connection.sender.is_closed());
        if idle.len() < MAX_IDLE {
            connection.life.rest();
            idle.push(connection);
        }
    }
}

impl Held {
    async fn send(
        &mut self,
        request: Request<Content>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Content>>> {
        match &mut self.by {
            Means::Alone(connection) => connection.sender.try_send_request(request).await,
            // boxed: HTTP/1.1 needs no room for it
            Means::Shared(place) => Box::pin(place.send(request)).await,
        }
    }

    /// Whether there are cases in which the request may be sent again after it was sent on this.
    fn may_repeat(&self, request: &Request<Content>) -> bool {
        let may_be_refused = matches!(self.by, Means::Shared(_));
        request.body().is_end_stream() && (may_be_refused || (is_safe(request.method()) && !self.is_new))
    }

    /// The request to send on another connection after this error, if it may be: `again` is its like.
    fn unsent(
        &self,
        mut error: TrySendError<Request<Content>>,
        again: Option<Request<Content>>,
    ) -> Result<Request<Content>, UpstreamError> {
        let unsent = error.take_message().filter(|_| !self.is_new);
        let error = error.into_error();
        let may_be =
            |again: &Request<Content>| is_refused(&error) || (is_safe(again.method()) && !self.is_new);
        unsent.map(in_http1).or(again.filter(may_be)).ok_or(UpstreamError::Http(error))
    }
}

impl Alone {
    async fn begin(io: TokioIo<Patient>) -> hyper::Result<Self> {
        let (sender, driver) = http1::Builder::new().max_buf_size(MAX_HEAD_BYTES).handshake(io).await?;
        let life = Arc::new(Life::busy());
        let alive = Arc::clone(&life);
        tokio::spawn(async move { alive.drive(driver).await });
        Ok(Self { sender, life })
    }
}

/// The same request; it has no body.
fn repeat(request: &Request<Content>) -> Request<Content> {
    let mut again = Request::new(Content::empty());
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    again
}

impl UpstreamError {
    /// What the client hears of it.
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Connect(ConnectError::TimedOut) | Self::TimedOut => Problem::UpstreamSlow,
            Self::Connect(_) | Self::Http(_) => Problem::BadGateway,
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Http(error) => write!(f, "no answer: {error}"),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So often may a request be sent again.
const MAX_REPEATS: usize = 2;
/// Connections that wait for a request, for each thread.
const MAX_IDLE: usize = 64;
const MAX_HEAD_BYTES: usize = 64 * 1024;
