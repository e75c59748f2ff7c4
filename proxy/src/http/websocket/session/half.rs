use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use mgate_policies::{BoxFuture, Decision, Now, Suspended};

use crate::http::websocket::reader::{Message, Reader};

/// One side.
pub(super) struct Half {
    pub(super) reader: Reader,
    /// Came, and is not taken yet.
    pub(super) unread: BytesMut,
    /// Since when a message of it is not whole.
    pub(super) begun: Option<Instant>,
    pub(super) waiting: Option<Waiting>,
    pub(super) question: Option<BoxFuture<'static, Decision>>,
    /// When the message that waits for decisions has waited long enough.
    pub(super) decided_by: Option<Instant>,
    /// Is to be sent.
    pub(super) unsent: BytesMut,
    /// Since when nothing of that was taken.
    pub(super) stalled_since: Instant,
    pub(super) heard: Instant,
    /// Whether it was asked if it is there, and said nothing since.
    pub(super) is_probed: bool,
    /// Pings of the other side that it has yet to answer.
    pub(super) pings: VecDeque<(u64, Bytes)>,
    /// What came of it after the WebSocket was ended here.
    pub(super) late_bytes: usize,
    /// It sent its close, or is not heard any more.
    pub(super) has_closed: bool,
    /// It was sent a close.
    pub(super) is_told: bool,
    /// Its connection is no more.
    pub(super) is_gone: bool,
}

/// A message that may not go on yet.
pub(super) enum Waiting {
    Decision(Message, Suspended),
    /// For its turn, as its client is too fast.
    Turn(Message, Instant),
}

impl Half {
    /// A side that has said nothing yet.
    pub(super) fn new(reader: Reader, now: Now) -> Self {
        Self {
            reader,
            unread: BytesMut::new(),
            begun: None,
            waiting: None,
            question: None,
            decided_by: None,
            unsent: BytesMut::new(),
            stalled_since: now.instant,
            heard: now.instant,
            is_probed: false,
            pings: VecDeque::new(),
            late_bytes: 0,
            has_closed: false,
            is_told: false,
            is_gone: false,
        }
    }

    /// Whether it heard the last word: its connection may end.
    pub(super) fn is_done(&self) -> bool {
        self.is_gone || (self.is_told && self.has_closed && self.unsent.is_empty())
    }

    /// When it is given up, as it takes nothing.
    pub(super) fn stalls_at(&self, patience: Duration) -> Option<Instant> {
        (!self.is_gone && !self.unsent.is_empty()).then(|| self.stalled_since + patience)
    }
}
