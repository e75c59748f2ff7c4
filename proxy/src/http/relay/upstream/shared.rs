use std::error::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::Instant;

use super::life::Life;
use crate::http::relay::body::Content;
use crate::http::relay::patient::Patient;

/// A connection of HTTP/2, which has many requests at a time.
pub(super) struct Shared {
    sender: http2::SendRequest<Content>,
    scheme: Scheme,
    life: Arc<Life>,
    streams: Arc<Streams>,
    /// When it last answered, or got a request after a rest.
    heard: Mutex<Instant>,
    /// Whether it gets no more requests: it broke, or kept silent for too long.
    is_spent: AtomicBool,
}

/// The requests that the upstream takes at a time.
struct Streams {
    most: AtomicUsize,
    /// Whether it has said that: it does so before it answers.
    are_known: AtomicBool,
}

/// The place that one request has on a connection of HTTP/2.
pub(super) struct Place {
    shared: Arc<Shared>,
    is_answered: bool,
}

impl Shared {
    /// Begins HTTP/2 on a connection; there is room for one request on it, which the place is for.
    pub(super) async fn begin(io: TokioIo<Patient>, scheme: Scheme) -> hyper::Result<Place> {
        let (sender, mut driver) = http2::Builder::new(TokioExecutor::new())
            // more when it said how many it takes: what it refuses is not sent again if it has a body
            .initial_max_send_streams(1)
            .initial_stream_window_size(WINDOW_BYTES)
            // those whose clients do not read leave room for all others
            .initial_connection_window_size(WINDOW_BYTES * MAX_STREAMS)
            .max_send_buf_size(WINDOW_BYTES as usize)
            .max_header_list_size(MAX_HEAD_BYTES)
            .handshake(io)
            .await?;
        let (life, streams) = (Arc::new(Life::busy()), Arc::new(Streams::unknown()));
        let (alive, counted) = (Arc::clone(&life), Arc::clone(&streams));
        tokio::spawn(async move {
            let driver = std::future::poll_fn(|cx| {
                let ended = Pin::new(&mut driver).poll(cx);
                counted.note(driver.current_max_send_streams());
                ended
            });
            alive.drive(driver).await;
        });
        let (heard, is_spent) = (Mutex::new(Instant::now()), AtomicBool::new(false));
        let shared = Self { sender, scheme, life, streams, heard, is_spent };
        Ok(Place { shared: Arc::new(shared), is_answered: false })
    }

    /// Whether it may have requests, now or later.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.is_spent.load(Ordering::Relaxed)
    }

    /// A place for one more request, if there is one.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Place> {
        let most = self.streams.most.load(Ordering::Relaxed);
        if !self.is_open() {
            return None;
        }
        let was_idle = self.life.is_idle();
        self.life.take(most).then(|| {
            if was_idle {
                *lock(&self.heard) = Instant::now();
            }
            Place { shared: Arc::clone(self), is_answered: false }
        })
    }
}

impl Place {
    /// The connection that it is on.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sends the request and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Content>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Content>>> {
        let request = in_http2(request, &self.shared.scheme);
        let mut sender = self.shared.sender.clone();
        let answered = sender.try_send_request(request).await;
        self.is_answered = true;
        match &answered {
            Ok(_) => {
                *lock(&self.shared.heard) = Instant::now();
                self.shared.streams.are_known.store(true, Ordering::Relaxed);
            }
            Err(error) if cause(error.error()).is_some_and(h2::Error::is_reset) => {}
            Err(_) => self.shared.is_spent.store(true, Ordering::Relaxed),
        }
        answered
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.life.rest();
        if !self.is_answered && lock(&self.shared.heard).elapsed() >= SILENCE {
            self.shared.is_spent.store(true, Ordering::Relaxed);
        }
    }
}

impl Streams {
    fn unknown() -> Self {
        Self { most: AtomicUsize::new(MAX_STREAMS as usize), are_known: AtomicBool::new(false) }
    }

    fn note(&self, most: usize) {
        if self.are_known.load(Ordering::Relaxed) {
            self.most.store(most.clamp(1, MAX_STREAMS as usize), Ordering::Relaxed);
        }
    }
}

/// Whether the upstream did surely nothing with the request. RFC 9113 §8.7
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    // of those that a GOAWAY speaks of, only requests behind the last one fail by it
    cause(error).is_some_and(|cause| {
        cause.is_remote() && (cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|cause| cause.downcast_ref())
}

/// The same request with its host in the target. RFC 9113 §8.3.1
fn in_http2(mut request: Request<Content>, scheme: &Scheme) -> Request<Content> {
    let host = request.headers_mut().remove(HOST);
    if let (Some(host), Some(path)) = (host, request.uri().path_and_query().cloned()) {
        let uri = Uri::builder().scheme(scheme.clone()).authority(host.as_bytes()).path_and_query(path);
        if let Ok(uri) = uri.build() {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The request as it was before [`in_http2`].
pub(super) fn in_http1(mut request: Box<Request<Content>>) -> Box<Request<Content>> {
    let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let (Some(host), Some(path)) = (host, request.uri().path_and_query().cloned()) {
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = Uri::from(path);
    }
    request
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Requests on one connection.
const MAX_STREAMS: u32 = 64;
/// What one request may have on its way, each way.
const WINDOW_BYTES: u32 = 64 * 1024;
const MAX_HEAD_BYTES: u32 = 64 * 1024;
/// Who says nothing for so long, while somebody waits in vain, gets no more requests.
const SILENCE: Duration = Duration::from_secs(1);
