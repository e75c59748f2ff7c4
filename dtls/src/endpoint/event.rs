//! What an endpoint tells.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;

use crate::engine::{Identity, Refusal};
use crate::keys::SealError;

/// Names a session; never used again by the same endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) u64);

/// Names a handshake; never used again by the same endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandshakeId(pub(super) u64);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is over; it is known no more.
    Closed {
        /// Which one.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// A handshake is complete; the session takes and sends data.
    Connected {
        /// The new session.
        session: SessionId,
        /// Where the client is.
        address: SocketAddr,
        /// Who it is.
        identity: Identity,
        /// Whether it went on with an earlier session; then nobody asked for its key.
        is_resumed: bool,
    },
    /// A session's client sent something.
    Data {
        /// Which one.
        session: SessionId,
        /// Where it is, within the datagram that was just handled.
        payload: Range<usize>,
    },
    /// The same, of a datagram that overtook the end of the handshake.
    EarlyData {
        /// Which one.
        session: SessionId,
        /// What it is.
        payload: Box<[u8]>,
    },
    /// A handshake ended before it was complete.
    Failed {
        /// Which one.
        handshake: HandshakeId,
        /// Where the client is.
        address: SocketAddr,
        /// Why.
        fault: HandshakeFault,
    },
    /// A client named its key. It waits for [`give_key`](super::DtlsEndpoint::give_key).
    KeyWanted {
        /// Which handshake waits.
        handshake: HandshakeId,
        /// The name of the key, of one to 256 bytes, none of them zero.
        identity: Box<[u8]>,
        /// Where the client is.
        address: SocketAddr,
    },
    /// A session's client sends from another address now.
    Moved {
        /// Which one.
        session: SessionId,
        /// The address.
        address: SocketAddr,
    },
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client reported an error: the number of its alert (RFC 5246 §7.2.2).
    Alert(u8),
    /// The client said goodbye.
    CloseNotify,
    /// The same address began, and completed, another session.
    Replaced,
}

/// Why a handshake ended before it was complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// It took too long, and the client seemed to report an error: the number of the alert (RFC 5246 §7.2.2).
    Alert(u8),
    /// Another client needed its place before this one had said more than hello.
    Displaced,
    /// It was refused.
    Refused(Refusal),
    /// Another handshake began at the same address.
    Replaced,
    /// It took too long.
    TimedOut,
    /// What the client protected cannot be opened: its key is another one, or nobody knows its identity.
    WrongKey,
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// The session has no more sequence numbers.
    Exhausted,
    /// The payload does not fit into a record.
    TooLong,
    /// There is no such session.
    UnknownSession,
}

/// What an endpoint has counted since it began, but for `handshakes_pending` and `sessions`, which are what is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Cookies that were sent, which cost no memory.
    pub cookies_sent: u64,
    /// Handshakes that completed.
    pub handshakes_done: u64,
    /// Handshakes that ended before.
    pub handshakes_failed: u64,
    /// Handshakes that go on.
    pub handshakes_pending: usize,
    /// Hellos with a good cookie that found no place.
    pub handshakes_refused: u64,
    /// Records that were not authentic.
    pub records_forged: u64,
    /// Records that had come before, or are too old to know.
    pub records_replayed: u64,
    /// Records that belong to nothing that is known, and what is no record.
    pub records_stray: u64,
    /// Sessions that are.
    pub sessions: usize,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(number) => write!(formatter, "the client sent alert {number}"),
            Self::CloseNotify => formatter.write_str("the client said goodbye"),
            Self::Replaced => formatter.write_str("the client began another session"),
        }
    }
}

impl fmt::Display for HandshakeFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alert(number) => write!(formatter, "the client sent alert {number}"),
            Self::Displaced => formatter.write_str("other clients needed the place"),
            Self::Refused(refusal) => refusal.fmt(formatter),
            Self::Replaced => formatter.write_str("the client began another handshake"),
            Self::TimedOut => formatter.write_str("the handshake took too long"),
            Self::WrongKey => formatter.write_str("the client has another key, or an unknown identity"),
        }
    }
}

impl fmt::Display for SendFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Exhausted => "the session has no more sequence numbers",
            Self::TooLong => "the payload does not fit into a record",
            Self::UnknownSession => "there is no such session",
        })
    }
}

impl From<SealError> for SendFault {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Exhausted => Self::Exhausted,
            SealError::TooLong => Self::TooLong,
        }
    }
}

impl Error for HandshakeFault {}
impl Error for SendFault {}
