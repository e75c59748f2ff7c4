mod alone;
mod life;
mod passing;
mod row;
mod shared;
mod upgrade;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::Duration;
use std::{io, slice};

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use mgate_policies::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::alone::Alone;
pub(super) use self::passing::Passing;
use self::passing::Rest;
use self::row::Row;
use self::shared::{Place, Shared, in_http1, is_refused};
use super::body::{BodyError, Content, Source};
use super::patient::Patient;
use crate::http::http1::{AnswerError, Head};
use crate::http::problem::Problem;
use crate::http::session::is_safe;
use crate::http::{Options, UpstreamProtocol};
use crate::transport::{ALPN_HTTP, ALPN_HTTP2, ConnectError, Connector, Stream};

/// The server behind a route, and the connections to it: each thread has its own.
pub(in crate::http) struct Upstream {
    connector: Connector,
    protocol: UpstreamProtocol,
    rows: Mutex<Vec<(ThreadId, Arc<Row>)>>,
    /// For requests at a time.
    places: Arc<Semaphore>,
}

/// A connection that has a request, and its place. Whoever drops it keeps the connection for the next request, or
/// closes it.
pub(super) struct Lease {
    /// Until it is dropped.
    held: Option<Held>,
    row: Arc<Row>,
    _places: [OwnedSemaphorePermit; 2],
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum UpstreamError {
    /// What came is no answer.
    Answer(AnswerError),
    /// No connection to this host and port came about.
    Connect(Box<str>, ConnectError),
    /// The connection broke, or what came is no answer.
    Http(hyper::Error),
    /// The connection broke.
    Io(io::Error),
    /// The client did not send the whole request.
    Request(BodyError),
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
    Alone(Box<Alone>),
    Shared(Place),
}

/// An answer, where its body comes from if that is not the connection itself.
type Answered = Response<Option<Incoming>>;

/// A request without an answer.
struct Failed {
    error: UpstreamError,
    /// The request, if none of it was sent.
    request: Option<Box<Request<Content>>>,
    /// Whether the upstream surely did nothing with it.
    is_refused: bool,
}

impl Upstream {
    /// A server that is given so many requests at a time.
    pub(in crate::http) fn new(connector: Connector, options: &Options) -> Self {
        let (protocol, places) = (options.upstream_protocol, Semaphore::new(options.upstream_requests));
        Self { connector, protocol, rows: Mutex::default(), places: Arc::new(places) }
    }

    /// Sends a request, when it has its place in `share` too, and waits for the head of the answer. It is sent again
    /// only where the upstream surely did nothing with it, or where it is safe; and has no body, if that was begun.
    /// What is sent of it behind the answer ends when `revoked` does, which is called where there is any.
    pub(super) async fn send(
        &self,
        request: Box<Request<Content>>,
        share: Arc<Semaphore>,
        stall_timeout: Duration,
        revoked: impl FnOnce() -> BoxFuture<'static, Problem>,
    ) -> Result<Response<Source>, UpstreamError> {
        let closed = |_| UpstreamError::TimedOut;
        // who waits for its share keeps no place from others
        let share = share.acquire_owned().await.map_err(closed)?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        let row = self.row();
        let mut held = match row.take() {
            Some(held) => held,
            None => Box::pin(self.connect(&row, stall_timeout)).await?,
        };
        let again = held.may_repeat(&request).then(|| repeat(&request));
        let (answered, held) = match held.send(request).await {
            Ok(answered) => (answered, held),
            Err(failed) => Box::pin(self.send_again(&row, stall_timeout, held, (failed, again))).await?,
        };
        let lease = Lease { held: Some(held), row, _places: [share, place] };
        let status = answered.status();
        let rest = || Rest { stall_timeout, revoked: revoked() };
        Ok(answered.map(|incoming| lease.source(incoming, status, rest)))
    }

    /// Sends a request once more, or a few times, if it may be.
    async fn send_again(
        &self,
        row: &Row,
        stall_timeout: Duration,
        mut held: Held,
        (mut failed, mut again): (Failed, Option<Box<Request<Content>>>),
    ) -> Result<(Answered, Held), UpstreamError> {
        for _ in 0..MAX_REPEATS {
            let request = held.unsent(failed, again)?;
            held = self.connect(row, stall_timeout).await?;
            again = held.may_repeat(&request).then(|| repeat(&request));
            match held.send(request).await {
                Ok(answered) => return Ok((answered, held)),
                Err(another) => failed = another,
            }
        }
        Err(failed.error)
    }

    /// The connections of this thread.
    fn row(&self) -> Arc<Row> {
        let (mut rows, thread) = (lock(&self.rows), thread::current().id());
        if let Some((_, row)) = rows.iter().find(|(known, _)| *known == thread) {
            return Arc::clone(row);
        }
        let row = Arc::default();
        rows.push((thread, Arc::clone(&row)));
        row
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

    fn unreachable(&self, error: ConnectError) -> UpstreamError {
        UpstreamError::Connect(self.connector.authority().to_string().into(), error)
    }

    async fn dial(&self, row: &Row, stall_timeout: Duration) -> Result<Held, UpstreamError> {
        let stream =
            self.connector.connect_offering(self.offers()).await.map_err(|error| self.unreachable(error))?;
        let speaks_http2 = self.speaks_http2(&stream)?;
        row.prefers_http1.store(!speaks_http2, Ordering::Relaxed);
        let io = Patient::new(stream, stall_timeout);
        if speaks_http2 {
            let scheme = if self.connector.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
            let place = Shared::begin(TokioIo::new(io), scheme).await.map_err(UpstreamError::Http)?;
            row.share(place.shared());
            Ok(Held { is_new: true, by: Means::Shared(place) })
        } else {
            Ok(Held { is_new: true, by: Means::Alone(Box::new(Alone::new(io))) })
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
                Err(self.unreachable(ConnectError::Tls(error)))
            }
            UpstreamProtocol::Http2 => Ok(true),
            UpstreamProtocol::Http1 | UpstreamProtocol::Negotiated => Ok(is_chosen),
        }
    }
}

impl Lease {
    /// Where the body of the answer comes from. The rest of a request that failed already is of no use.
    fn source(
        mut self,
        incoming: Option<Incoming>,
        status: StatusCode,
        rest: impl FnOnce() -> Rest,
    ) -> Source {
        if let Some(incoming) = incoming {
            return Source::Other { incoming, _lease: Some(self) };
        }
        let is_rest_wanted = !status.is_client_error() && !status.is_server_error();
        let is_sending = self.alone().is_some_and(|connection| connection.is_sending());
        match self.alone().and_then(Alone::whole_body) {
            Some(body) => {
                if is_sending && is_rest_wanted {
                    tokio::spawn(rest().finish(self));
                }
                Source::Whole(body)
            }
            None if is_sending => Source::Passing(Passing::begin(self, is_rest_wanted.then(rest))),
            None => Source::Alone(self),
        }
    }

    /// The next part of a body that comes from the connection itself.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.alone().map_or(Poll::Ready(None), |connection| connection.poll_frame(cx))
    }

    /// How many bytes of such a body are left, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        match &self.held {
            Some(Held { by: Means::Alone(connection), .. }) => connection.left(),
            _ => Some(0),
        }
    }

    fn alone(&mut self) -> Option<&mut Alone> {
        match &mut self.held {
            Some(Held { by: Means::Alone(connection), .. }) => Some(connection),
            _ => None,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(Held { by: Means::Alone(connection), .. }) = self.held.take()
            && connection.is_free()
        {
            self.row.keep(connection);
        }
    }
}

impl Held {
    async fn send(&mut self, request: Box<Request<Content>>) -> Result<Answered, Failed> {
        match &mut self.by {
            Means::Alone(connection) => match connection.send(request).await {
                Ok(head) => Ok(answered(head)),
                Err(error) => Err(Failed { error, request: connection.take_request(), is_refused: false }),
            },
            // boxed: HTTP/1.1 needs no room for it
            Means::Shared(place) => match Box::pin(place.send(*request)).await {
                Ok(response) => Ok(response.map(Some)),
                Err(mut error) => {
                    let request = error.take_message().map(Box::new);
                    let error = error.into_error();
                    Err(Failed { is_refused: is_refused(&error), request, error: UpstreamError::Http(error) })
                }
            },
        }
    }

    /// Whether there are cases in which the request may be sent again after it was sent on this.
    fn may_repeat(&self, request: &Request<Content>) -> bool {
        let may_be_refused = matches!(self.by, Means::Shared(_));
        request.body().is_end_stream() && (may_be_refused || (is_safe(request.method()) && !self.is_new))
    }

    /// The request to send on another connection, if it may be: `again` is its like.
    fn unsent(
        &self,
        failed: Failed,
        again: Option<Box<Request<Content>>>,
    ) -> Result<Box<Request<Content>>, UpstreamError> {
        let unsent = failed.request.filter(|_| !self.is_new);
        let has_broken = !self.is_new && failed.error.is_of_the_connection();
        let may_be = |again: &Request<Content>| failed.is_refused || (is_safe(again.method()) && has_broken);
        unsent.map(in_http1).or(again.filter(|again| may_be(again))).ok_or(failed.error)
    }
}

fn answered(head: Head) -> Answered {
    let mut answered = Response::new(None);
    *answered.status_mut() = head.status;
    *answered.headers_mut() = head.headers;
    answered
}

/// The same request; it has no body.
fn repeat(request: &Request<Content>) -> Box<Request<Content>> {
    let mut again = Request::new(Content::empty());
    again.method_mut().clone_from(request.method());
    again.uri_mut().clone_from(request.uri());
    again.headers_mut().clone_from(request.headers());
    Box::new(again)
}

impl UpstreamError {
    /// Whether the connection broke before there was an answer, rather than that the upstream is slow or says what is
    /// none.
    fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Answer(error) => *error == AnswerError::Cut,
            Self::Http(_) => true,
            Self::Io(error) => error.kind() != io::ErrorKind::TimedOut,
            Self::Connect(..) | Self::Request(_) | Self::TimedOut => false,
        }
    }

    /// What the client hears of it.
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Connect(_, ConnectError::TimedOut) | Self::TimedOut => Problem::UpstreamSlow,
            Self::Answer(_) | Self::Connect(..) | Self::Http(_) | Self::Io(_) | Self::Request(_) => {
                Problem::BadGateway
            }
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(error) => write!(f, "no answer: {error}"),
            Self::Connect(to, error) => write!(f, "{to}: {error}"),
            Self::Http(error) => write!(f, "no answer: {error}"),
            Self::Io(error) => write!(f, "no answer: {error}"),
            Self::Request(error) => write!(f, "no whole request: {error}"),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So often may a request be sent again.
const MAX_REPEATS: usize = 2;
