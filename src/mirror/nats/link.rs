//! The connection to NATS: made, lost and made again, for ever.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mgate_policies::BoxFuture;

use super::wire::{Event, Way, Wire};
use crate::neighbour::nats::pause;

/// How the connection is.
pub(super) enum Link {
    Dialing(BoxFuture<'static, Result<Wire, String>>),
    Up(Box<Wire>),
    /// Until the next attempt.
    Waiting(Instant),
}

/// What became of the connection.
pub(super) enum Turn {
    /// It went on.
    Moved,
    /// There is one.
    Opened,
    /// There is none, and why.
    Failed(String),
}

impl Link {
    /// Waits before the next attempt, longer after each that failed.
    pub(super) fn waiting(attempts: usize, now: Instant) -> Self {
        Self::Waiting(now + pause(attempts).min(LONGEST_PAUSE))
    }

    /// Begins an attempt, if it is time.
    pub(super) fn begin(&mut self, way: impl FnOnce() -> Arc<Way>, attempts: usize, now: Instant) {
        if matches!(self, Self::Waiting(until) if *until <= now) {
            let way = way();
            *self = Self::Dialing(Box::pin(async move { way.dial(attempts).await }));
        }
    }

    pub(super) fn wire(&mut self) -> Option<&mut Wire> {
        match self {
            Self::Up(wire) => Some(wire),
            _ => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }

    /// Goes on as far as the network lets it.
    pub(super) async fn turn(&mut self, events: &mut Vec<Event>) -> Turn {
        poll_fn(|context| self.poll_turn(context, events)).await
    }

    /// The same without waiting; `None` where the network lets it do nothing now.
    pub(super) async fn turn_at_once(&mut self, events: &mut Vec<Event>) -> Option<Turn> {
        poll_fn(|context| match self.poll_turn(context, events) {
            Poll::Ready(turn) => Poll::Ready(Some(turn)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_turn(&mut self, context: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<Turn> {
        match self {
            Self::Waiting(_) => Poll::Pending,
            Self::Dialing(dialing) => Pin::new(dialing).poll(context).map(|dialled| match dialled {
                Ok(wire) => {
                    *self = Self::Up(Box::new(wire));
                    Turn::Opened
                }
                Err(error) => Turn::Failed(error),
            }),
            Self::Up(wire) => wire.poll_io(context, events).map(|moved| match moved {
                Ok(()) => Turn::Moved,
                Err(error) => Turn::Failed(failure(wire, &error)),
            }),
        }
    }
}

fn failure(wire: &Wire, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("{}: the server closed the connection", wire.server),
        _ => format!("{}: {error}", wire.server),
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(2);
