use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming as Stream, SizeHint};
use tokio::runtime::Handle;

use super::body::{BodyError, Came, part_of};
use super::downstream::Rest;
use crate::background::timeout;

/// The body of a request, as it comes from the client.
pub(super) enum Incoming {
    /// What follows the head in a connection of HTTP/1.1.
    Rest(Rest),
    /// That of a stream of HTTP/2.
    Stream(Lingering),
    /// It is here.
    Whole(Bytes),
}

/// The body of a stream of HTTP/2. What is left of it when nobody wants it any more is read and thrown away, if it is
/// little: clients take a stream that is reset for a failure, whatever was answered. RFC 9113 §8.1
pub(super) struct Lingering(Option<Stream>);

impl Lingering {
    pub(super) fn new(stream: Stream) -> Self {
        Self(Some(stream))
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take()
            && !stream.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(timeout(LINGER_TIME, throw_away(stream)));
        }
    }
}

async fn throw_away(mut stream: Stream) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut stream).poll_frame(cx)).await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > LINGER_BYTES {
            return;
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Came> {
        match self.get_mut() {
            Self::Rest(rest) => rest.poll_frame(cx),
            Self::Stream(Lingering(Some(stream))) => {
                Pin::new(stream).poll_frame(cx).map_err(|_| BodyError::Broken)
            }
            Self::Stream(Lingering(None)) => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(part_of(bytes)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Rest(rest) => rest.is_over(),
            Self::Stream(Lingering(stream)) => stream.as_ref().is_none_or(Stream::is_end_stream),
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Rest(rest) => rest.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Stream(Lingering(stream)) => stream.as_ref().map(Stream::size_hint).unwrap_or_default(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// What is thrown away of a body, and how long it is waited for.
const LINGER_BYTES: usize = 64 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(5);
