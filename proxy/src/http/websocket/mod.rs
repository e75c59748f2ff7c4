//! WebSocket (RFC 6455): each message is put together, asked about, and only then goes on.
//!
//! A WebSocket ends here on both sides: there are two handshakes and two sets of frames, and no extension. What passes
//! from one side to the other is whole messages, and the code and reason of a close.

mod close;
mod frame;
mod handshake;
mod reader;
mod session;

pub(super) use handshake::{Asked, Challenge, check_origin};
pub use session::{Context, Session};
