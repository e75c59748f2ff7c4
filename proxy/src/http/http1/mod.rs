//! HTTP/1.1 as clients and upstreams speak it: how requests and answers are written, where the head of either ends and
//! what it says, and where the body ends. It does no input or output.

mod answer;
mod body;
mod head;
mod request;
mod request_head;

use std::error::Error;
use std::fmt;

pub(super) use answer::Asked;
pub use body::{Decoder, Part};
pub use head::{Framing, Head};
pub(super) use request::{Outbox, WrongLength};
pub use request_head::{Bounds, RequestHead};

/// Why what came is no answer; nothing that follows in its connection is one either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// A chunk has no size, or no end.
    Chunk,
    /// The connection ended too early.
    Cut,
    /// The head is none.
    Head,
    /// The length is none, or not the only one.
    Length,
    /// The head, an extension of a chunk or the trailers have too many bytes or lines.
    TooLarge,
    /// The trailers are none.
    Trailers,
    /// The body is coded in another way than chunks.
    TransferEncoding,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chunk => "malformed chunk",
            Self::Cut => "the connection ended too early",
            Self::Head => "malformed head",
            Self::Length => "malformed length",
            Self::TooLarge => "the head is too large",
            Self::Trailers => "malformed trailers",
            Self::TransferEncoding => "unknown transfer encoding",
        })
    }
}

impl Error for AnswerError {}

/// Why what came is no request; nothing that follows in its connection is one either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The body is coded in another way before it is cut into chunks.
    Coding,
    /// The head is none.
    Head,
    /// The length is none, or not the only one.
    Length,
    /// The target is too long.
    Target,
    /// The head has too many bytes or lines.
    TooLarge,
    /// The body has no end that could be found.
    TransferEncoding,
    /// It is neither HTTP/1.1 nor HTTP/1.0.
    Version,
}

/// The most bytes of a head.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most lines of a head, and of the trailers.
const MAX_LINES: usize = 100;
