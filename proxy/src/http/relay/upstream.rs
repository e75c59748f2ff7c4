use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::body::Content;
use super::patient::Patient;
use crate::background::sleep_until;
use crate::http::session::is_safe;
use crate::transport::{ConnectError, Connector};

/// The server behind a route, and the connections to it that wait for their next request: each thread has its own.
pub(in crate::http) struct Upstream {
    connector: Connector,
    idle: Arc<Mutex<HashMap<ThreadId, Vec<Connection>>>>,
    /// For requests at a time.
    places: Arc<Semaphore>,
}

/// A connection that has a request, and its place; whoever drops it closes the connection.
pub(super) struct Lease {
    connection: Connection,
    idle: Arc<Mutex<HashMap<ThreadId, Vec<Connection>>>>,
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

struct Connection {
    sender: http1::SendRequest<Content>,
    state: Arc<Mutex<State>>,
}

/// Whether a connection may go.
#[derive(Clone, Copy)]
enum State {
    Busy,
    Gone,
    IdleSince(Instant),
}

impl Upstream {
    /// A server that is given so many requests at a time.
    pub(in crate::http) fn new(connector: Connector, requests: usize) -> Self {
        Self { connector, idle: Arc::default(), places: Arc::new(Semaphore::new(requests)) }
    }

    /// Sends a request, when it has its place in `share` too, and waits for the head of the answer. Only what is safe, and has no body, is sent again where
    /// the connection turns out to have gone.
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
        let lease = |connection| Lease { connection, idle: Arc::clone(&self.idle), _places: [share, place] };
        let mut request = request;
        if let Some(mut connection) = self.idle_connection() {
            let again = is_repeatable(&request).then(|| repeat(&request));
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, lease(connection))),
                Err(mut error) => match error.take_message().or(again) {
                    Some(unsent) => request = unsent,
                    None => return Err(UpstreamError::Http(error.into_error())),
                },
            }
        }
        let mut connection = self.connect(stall_timeout).await?;
        let response = connection.sender.send_request(request).await.map_err(UpstreamError::Http)?;
        Ok((response, lease(connection)))
    }

    /// A connection of this thread that is ready for a request.
    fn idle_connection(&self) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        let row = idle.get_mut(&thread::current().id())?;
        while let Some(connection) = row.pop() {
            if connection.sender.is_ready() && connection.take() {
                return Some(connection);
            }
        }
        None
    }

    async fn connect(&self, stall_timeout: Duration) -> Result<Connection, UpstreamError> {
        let stream = self.connector.connect().await.map_err(UpstreamError::Connect)?;
        let io = TokioIo::new(Patient::new(stream, stall_timeout));
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(io)
            .await
            .map_err(UpstreamError::Http)?;
        let state = Arc::new(Mutex::new(State::Busy));
        tokio::spawn(drive(driver, Arc::clone(&state)));
        Ok(Connection { sender, state })
    }
}

impl Lease {
    /// Keeps the connection for the next request, if there is room.
    pub(super) fn give_back(self) {
        let Self { connection, idle, _places } = self;
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = lock(&idle);
        let row = idle.entry(thread::current().id()).or_default();
        row.retain(|connection| !connection.sender.is_closed());
        if row.len() < MAX_IDLE {
            *lock(&connection.state) = State::IdleSince(Instant::now());
            row.push(connection);
        }
    }
}

impl Connection {
    /// Makes it busy; `false` if it is about to go.
    fn take(&self) -> bool {
        let mut state = lock(&self.state);
        let is_there = !matches!(*state, State::Gone);
        if is_there {
            *state = State::Busy;
        }
        is_there
    }
}

/// Moves the bytes of a connection until it breaks, or was idle for too long.
async fn drive<D: Future<Output = hyper::Result<()>>>(driver: D, state: Arc<Mutex<State>>) {
    tokio::select! {
        ended = driver => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to an upstream broke");
            }
        }
        () = tired(&state) => {}
    }
}

/// Waits until the connection was idle for too long; nobody gets it after that.
async fn tired(state: &Mutex<State>) {
    loop {
        let since = match *lock(state) {
            State::IdleSince(since) => since,
            _ => Instant::now(),
        };
        sleep_until(since + IDLE_TIME).await;
        let mut state = lock(state);
        if matches!(*state, State::IdleSince(since) if since.elapsed() >= IDLE_TIME) {
            *state = State::Gone;
            return;
        }
    }
}

/// Whether nothing is lost if it is sent twice.
fn is_repeatable(request: &Request<Content>) -> bool {
    is_safe(request.method()) && request.body().is_end_stream()
}

/// The same request; it has no body.
fn repeat(request: &Request<Content>) -> Request<Content> {
    let mut again = Request::new(Content::empty());
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    again
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

/// Connections that wait for a request, for each thread.
const MAX_IDLE: usize = 64;
/// Less than servers usually wait themselves.
const IDLE_TIME: Duration = Duration::from_secs(30);
const MAX_HEAD_BYTES: usize = 64 * 1024;
