use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::alone::Alone;
use super::shared::{Place, Shared};
use super::{Held, Means, lock};
use crate::background::sleep_until;

/// The connections of one thread.
#[derive(Default)]
pub(super) struct Row {
    idle: Mutex<Idle>,
    shared: Mutex<Vec<Arc<Shared>>>,
    /// Held by who makes a connection that others may share.
    pub(super) dialing: AsyncMutex<()>,
    /// Whether the upstream chose HTTP/1.1 the last time.
    pub(super) prefers_http1: AtomicBool,
}

/// The connections that wait for their next request.
#[derive(Default)]
struct Idle {
    /// The last one that was used is the next one.
    #[expect(clippy::vec_box, reason = "they go from hand to hand")]
    connections: Vec<Box<Alone>>,
    /// How often they were looked at.
    ticks: u64,
    /// Whether somebody looks at them.
    are_watched: bool,
}

impl Row {
    /// A connection that is ready for a request.
    pub(super) fn take(&self) -> Option<Held> {
        let by = self.idle_connection().map(Means::Alone).or_else(|| self.place().map(Means::Shared))?;
        Some(Held { is_new: false, by })
    }

    /// Keeps a connection for the next request, if there is room.
    pub(super) fn keep(self: &Arc<Self>, mut connection: Box<Alone>) {
        let mut idle = lock(&self.idle);
        if idle.connections.len() >= MAX_IDLE {
            return;
        }
        connection.rest(idle.ticks);
        idle.connections.push(connection);
        if !idle.are_watched
            && let Ok(runtime) = Handle::try_current()
        {
            idle.are_watched = true;
            runtime.spawn(watch(Arc::downgrade(self)));
        }
    }

    /// Room on a connection that others use too.
    pub(super) fn place(&self) -> Option<Place> {
        let mut shared = lock(&self.shared);
        shared.retain(|connection| connection.is_open());
        shared.iter().find_map(Shared::reserve)
    }

    /// Lets others use a connection too.
    pub(super) fn share(&self, connection: &Arc<Shared>) {
        lock(&self.shared).push(Arc::clone(connection));
    }

    fn idle_connection(&self) -> Option<Box<Alone>> {
        let mut idle = lock(&self.idle);
        while let Some(mut connection) = idle.connections.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }
}

impl Idle {
    /// Takes out what the upstream closed, and what was idle for too long, which is to be closed.
    fn clear(&mut self, close: impl FnMut(Box<Alone>)) {
        self.ticks += 1;
        let ticks = self.ticks;
        self.connections.retain_mut(|connection| connection.is_quiet());
        let is_tired = |connection: &mut Box<Alone>| connection.idle_since() + IDLE_TICKS <= ticks;
        self.connections.extract_if(.., is_tired).for_each(close);
    }
}

/// Looks after connections that wait, as long as there are any.
async fn watch(row: Weak<Row>) {
    loop {
        sleep_until(Instant::now() + TICK).await;
        let Some(row) = row.upgrade() else { return };
        let mut idle = lock(&row.idle);
        idle.clear(|tired| drop(tokio::spawn(tired.close())));
        if idle.connections.is_empty() {
            idle.are_watched = false;
            return;
        }
    }
}

/// Connections that wait for a request, for each thread.
const MAX_IDLE: usize = 64;
const TICK: Duration = Duration::from_secs(1);
/// Less than servers usually wait themselves.
const IDLE_TICKS: u64 = 30;
