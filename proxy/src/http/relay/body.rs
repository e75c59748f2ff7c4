use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use mgate_policies::BoxFuture;
use tokio::time::{Instant, Sleep};

use super::connection::InFlight;
use super::upstream::Lease;
use super::websocket::Place;
use crate::background::sleep_until;
use crate::http::headers::trailers_towards_upstream;
use crate::http::problem::Problem;

/// What kept a body from coming to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The connection that it came by broke.
    Broken,
    /// The client may no longer have it.
    Revoked,
    /// Nothing came for too long.
    Stalled,
    /// It is longer than it may be.
    TooLarge,
}

/// How far the body of a request has got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// When the upstream last had something to do.
    pub(super) since: Instant,
    /// Whether the client is to send more.
    pub(super) awaits_client: bool,
    /// What ended it too early.
    pub(super) error: Option<BodyError>,
}

/// The body of a request, within its bounds.
pub(super) struct Upload {
    patient: Awaited,
    left: u64,
    progress: Arc<Mutex<Progress>>,
}

/// The body of an answer; its connection can be used again when it has come to its end.
pub(super) struct Download {
    patient: Awaited,
    lease: Option<Lease>,
    /// Of the WebSocket that it was to become.
    _place: Option<Place>,
}

/// A body of any kind.
pub(super) struct Content {
    body: UnsyncBoxBody<Bytes, BodyError>,
    /// Ends it too early, when its client may no longer have it.
    revoked: Option<BoxFuture<'static, Problem>>,
}

/// A body that is told to a client, while its request counts.
pub(super) struct Answer {
    content: Content,
    in_flight: InFlight,
}

/// A body whose next part must come in time.
struct Awaited {
    incoming: Incoming,
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub(super) fn new(incoming: Incoming, most: u64, timeout: Duration) -> Self {
        let progress = Progress { since: Instant::now(), awaits_client: false, error: None };
        let patient = Awaited { incoming, timeout, timer: None };
        Self { patient, left: most, progress: Arc::new(Mutex::new(progress)) }
    }

    /// How far it has got, for who waits for the answer.
    pub(super) fn progress(&self) -> Arc<Mutex<Progress>> {
        Arc::clone(&self.progress)
    }

    fn note(&self, awaits_client: bool, error: Option<BodyError>) {
        let since = Instant::now();
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) =
            Progress { since, awaits_client, error };
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let came = self.patient.poll_frame(cx);
        let Poll::Ready(came) = came else {
            self.note(true, None);
            return Poll::Pending;
        };
        let length = match &came {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len().try_into().unwrap_or(u64::MAX)),
            _ => 0,
        };
        let came = match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                came
            }
            None => Some(Err(BodyError::TooLarge)),
        };
        let came = came.map(|came| came.map(cleaned));
        self.note(false, came.as_ref().and_then(|came| came.as_ref().err().copied()));
        Poll::Ready(came)
    }

    fn is_end_stream(&self) -> bool {
        self.patient.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.patient.incoming.size_hint()
    }
}

impl Download {
    pub(super) fn new(incoming: Incoming, timeout: Duration, lease: Lease) -> Self {
        Self { patient: Awaited { incoming, timeout, timer: None }, lease: Some(lease), _place: None }
    }

    /// The last one of a connection that was to become a WebSocket, whose place it keeps.
    pub(super) fn last(incoming: Incoming, timeout: Duration, place: Place) -> Self {
        Self { patient: Awaited { incoming, timeout, timer: None }, lease: None, _place: Some(place) }
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let came = ready!(self.patient.poll_frame(cx));
        if came.is_none() {
            self.give_back();
        }
        Poll::Ready(came)
    }

    fn is_end_stream(&self) -> bool {
        self.patient.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.patient.incoming.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // nobody asks for the end of a body that has none, or whose length is known
        if self.is_end_stream() {
            self.give_back();
        }
    }
}

impl Content {
    pub(super) fn of(body: impl Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self { body: body.boxed_unsync(), revoked: None }
    }

    /// The same until `revoked` is done.
    pub(super) fn until(self, revoked: BoxFuture<'static, Problem>) -> Self {
        Self { revoked: Some(revoked), ..self }
    }

    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::of(Full::new(bytes).map_err(|never| match never {}))
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.revoked.as_mut().is_some_and(|revoked| revoked.as_mut().poll(cx).is_ready()) {
            // no more is asked for after that
            self.revoked = None;
            return Poll::Ready(Some(Err(BodyError::Revoked)));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Answer {
    pub(super) fn new(content: Content, in_flight: InFlight) -> Self {
        Self { content, in_flight }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let came = Pin::new(&mut self.content).poll_frame(cx);
        self.in_flight.note(matches!(came, Poll::Ready(Some(Ok(_)))));
        came
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

impl Awaited {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(came) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(came.map(|came| came.map_err(|_| BodyError::Broken)));
        }
        let timeout = self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Stalled)))
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the connection broke",
            Self::Revoked => "the client may no longer have it",
            Self::Stalled => "nothing came for too long",
            Self::TooLarge => "too much came",
        })
    }
}

impl Error for BodyError {}

/// The same part of a body; trailers lose what must not go on.
fn cleaned(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            trailers_towards_upstream(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
