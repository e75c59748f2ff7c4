use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming as Stream, SizeHint};
use mgate_policies::BoxFuture;
use tokio::time::{Instant, Sleep};

use super::connection::InFlight;
use super::incoming::Incoming;
use super::upstream::{Lease, Passing};
use super::websocket::Place;
use crate::background::sleep_until;
use crate::http::headers::{trailers_towards_client, trailers_towards_upstream};
use crate::http::problem::Problem;

/// What kept a body from coming to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The connection that it came by broke.
    Broken,
    /// The client may no longer have it.
    Revoked(Problem),
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
    incoming: Incoming,
    awaited: Awaited,
    left: u64,
    progress: Arc<Mutex<Progress>>,
}

/// The body of an answer; its connection can be used again when it has come to its end.
struct Download {
    source: Source,
    awaited: Awaited,
    /// Of the WebSocket that it was to become.
    _place: Option<Place>,
}

/// Where the body of an answer comes from.
pub(super) enum Source {
    /// From the connection that it has to itself.
    Alone(Lease),
    /// From one that is shared, or used no more.
    Other {
        /// What it brings.
        incoming: Stream,
        /// The place on it.
        _lease: Option<Lease>,
    },
    /// From such a one whose request is not sent yet.
    Passing(Passing),
    /// It is here, or what is left of it.
    Whole(Bytes),
}

/// A body of any kind.
pub(super) struct Content {
    body: Kind,
    /// Ends it too early, when its client may no longer have it.
    revoked: Option<BoxFuture<'static, Problem>>,
}

enum Kind {
    Download(Box<Download>),
    Upload(Upload),
    Whole(Bytes),
}

/// A body that is told to a client, while its request counts.
pub(super) struct Answer {
    content: Content,
    in_flight: InFlight,
}

/// The time that the next part of a body has.
struct Awaited {
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    pub(super) fn new(incoming: Incoming, most: u64, timeout: Duration) -> Self {
        let progress = Progress { since: Instant::now(), awaits_client: false, error: None };
        let awaited = Awaited { timeout, timer: None };
        Self { incoming, awaited, left: most, progress: Arc::new(Mutex::new(progress)) }
    }

    /// How far it has got, for who waits for the answer.
    pub(super) fn progress(&self) -> Arc<Mutex<Progress>> {
        Arc::clone(&self.progress)
    }

    /// All of it. What comes in pieces is copied: each of them has what it came in for itself, however small it is.
    pub(super) async fn whole(mut self) -> Result<Bytes, BodyError> {
        let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = self.frame().await.transpose()? {
            match frame.into_data() {
                Ok(data) if first.is_empty() => first = data,
                Ok(data) => {
                    if whole.is_empty() {
                        whole.extend_from_slice(&first);
                    }
                    whole.extend_from_slice(&data);
                }
                // nobody reads trailers of a message
                Err(_) => {}
            }
        }
        Ok(if whole.is_empty() { first } else { whole.freeze() })
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

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Came> {
        let came = Pin::new(&mut self.incoming).poll_frame(cx);
        let Poll::Ready(came) = self.awaited.judge(came, cx) else {
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
        let came = came.map(|came| came.map(|frame| cleaned(frame, trailers_towards_upstream)));
        self.note(false, came.as_ref().and_then(|came| came.as_ref().err().copied()));
        Poll::Ready(came)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Download {
    fn new(source: Source, timeout: Duration) -> Self {
        Self { source, awaited: Awaited { timeout, timer: None }, _place: None }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Came> {
        let came = self.source.poll_frame(cx);
        let came = ready!(self.awaited.judge(came, cx));
        if came.is_none() {
            self.source = Source::Whole(Bytes::new());
        }
        Poll::Ready(came.map(|came| came.map(|frame| cleaned(frame, trailers_towards_client))))
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Alone(lease) => lease.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Passing(passing) => passing.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Other { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        match self {
            Self::Alone(lease) => lease.poll_frame(cx),
            Self::Passing(passing) => passing.poll_frame(cx),
            Self::Whole(bytes) => Poll::Ready(part_of(bytes)),
            Self::Other { incoming, .. } => Pin::new(incoming).poll_frame(cx).map_err(|_| BodyError::Broken),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Alone(lease) => lease.left() == Some(0),
            Self::Passing(passing) => passing.left() == Some(0),
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Other { incoming, .. } => incoming.is_end_stream(),
        }
    }
}

impl Content {
    /// The body of an answer, whose parts must come in time.
    pub(super) fn download(source: Source, timeout: Duration) -> Self {
        match source {
            Source::Whole(bytes) => Self::whole(bytes),
            source => Self { body: Kind::Download(Box::new(Download::new(source, timeout))), revoked: None },
        }
    }

    /// That of an answer in place of a WebSocket, whose place it keeps.
    pub(super) fn in_place(incoming: Stream, timeout: Duration, place: Place) -> Self {
        let body = Download {
            _place: Some(place),
            ..Download::new(Source::Other { incoming, _lease: None }, timeout)
        };
        Self { body: Kind::Download(Box::new(body)), revoked: None }
    }

    pub(super) fn upload(body: Upload) -> Self {
        Self { body: Kind::Upload(body), revoked: None }
    }

    /// The same until `revoked` is done.
    pub(super) fn until(self, revoked: BoxFuture<'static, Problem>) -> Self {
        Self { revoked: Some(revoked), ..self }
    }

    /// Whether nothing of it is awaited.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.body, Kind::Whole(_))
    }

    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { body: Kind::Whole(bytes), revoked: None }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Came> {
        if let Some(revoked) = &mut self.revoked
            && let Poll::Ready(problem) = revoked.as_mut().poll(cx)
        {
            // no more is asked for after that
            self.revoked = None;
            return Poll::Ready(Some(Err(BodyError::Revoked(problem))));
        }
        match &mut self.body {
            Kind::Download(body) => Pin::new(&mut **body).poll_frame(cx),
            Kind::Upload(body) => Pin::new(body).poll_frame(cx),
            Kind::Whole(bytes) => Poll::Ready(part_of(bytes)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Kind::Download(body) => body.is_end_stream(),
            Kind::Upload(body) => body.is_end_stream(),
            Kind::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Kind::Download(body) => body.size_hint(),
            Kind::Upload(body) => body.size_hint(),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

impl Answer {
    pub(super) fn new(content: Content, in_flight: InFlight) -> Self {
        Self { content, in_flight }
    }

    /// The request alone, when nothing of its answer waits for the client any more.
    pub(super) fn into_in_flight(mut self) -> InFlight {
        self.in_flight.note(false);
        self.in_flight
    }

    /// All of it, if it is here.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.content.body {
            Kind::Whole(bytes) => Some(std::mem::take(bytes)),
            _ => None,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Came> {
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
    /// What came; or an error, if nothing did for too long.
    fn judge(&mut self, came: Poll<Came>, cx: &mut Context<'_>) -> Poll<Came> {
        if came.is_ready() {
            self.timer = None;
            return came;
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
            Self::Revoked(_) => "the client may no longer have it",
            Self::Stalled => "nothing came for too long",
            Self::TooLarge => "too much came",
        })
    }
}

impl Error for BodyError {}

/// The next part of a body, if there is one.
pub(super) type Came = Option<Result<Frame<Bytes>, BodyError>>;

/// All that is left of what is here.
pub(super) fn part_of(bytes: &mut Bytes) -> Came {
    (!bytes.is_empty()).then(|| Ok(Frame::data(std::mem::take(bytes))))
}

/// The same part of a body; trailers lose what must not go on.
fn cleaned(frame: Frame<Bytes>, clean: fn(&mut HeaderMap)) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            clean(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
