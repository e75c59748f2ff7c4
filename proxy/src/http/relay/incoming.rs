use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Incoming as Stream, SizeHint};

use super::body::{BodyError, Came, part_of};
use super::downstream::Rest;

/// The body of a request, as it comes from the client.
pub(super) enum Incoming {
    /// What follows the head in a connection of HTTP/1.1.
    Rest(Rest),
    /// That of a stream of HTTP/2.
    Stream(Stream),
    /// It is here.
    Whole(Bytes),
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Came> {
        match self.get_mut() {
            Self::Rest(rest) => rest.poll_frame(cx),
            Self::Stream(stream) => Pin::new(stream).poll_frame(cx).map_err(|_| BodyError::Broken),
            Self::Whole(bytes) => Poll::Ready(part_of(bytes)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Rest(rest) => rest.is_over(),
            Self::Stream(stream) => stream.is_end_stream(),
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Rest(rest) => rest.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Stream(stream) => stream.size_hint(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
