//! Copies to NATS: whatever its state, no session waits for it, but for those that want to.

mod flow;
mod jetstream;
mod letter;
mod link;
mod notices;
mod protocol;
mod queue;
mod sender;
mod spool;
mod store;
mod stream;
mod wire;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use mgate_policies::{Action, Cause, Now, Reason};
use mgate_proxy::gate::{Copied, Message, Mirror, PacketSeen, SessionEvent};
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout_at;

use self::letter::Letter;
use self::notices::{Notice, Notices};
pub use self::queue::Bounds;
use self::queue::Queue;
use self::sender::Sender;
use self::spool::Spool;
pub use self::spool::SpoolConfig;
pub use self::stream::StreamConfig;
pub use self::wire::Way;
use super::dialect::Dialect;
use super::record::Record;
use crate::health::{Component, Health};

/// Copies to NATS. It takes them from when it was started, and does nothing before.
pub struct NatsMirror {
    plan: Plan,
    running: OnceLock<Arc<Running>>,
}

/// What a mirror does.
pub struct Plan {
    /// Its name, as configured.
    pub name: Arc<str>,
    /// What becomes of copies while NATS is away.
    pub mode: Mode,
    /// Whether JetStream acknowledges each copy.
    pub jetstream: bool,
    /// The stream that should be there.
    pub stream: Option<StreamConfig>,
    /// What may wait in memory.
    pub bounds: Bounds,
    /// Whether deliveries are copied too.
    pub deliveries: bool,
    /// Writes the copies.
    pub dialect: Arc<dyn Dialect>,
    /// Where NATS is, and how it is spoken to.
    pub way: Arc<Way>,
    /// All of this as it was written: where it is the same, the mirror is.
    pub written: String,
}

/// What becomes of copies while NATS is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Messages are not acknowledged before JetStream has stored their copies.
    Acked,
    /// As many as there is room for wait in memory.
    BestEffort,
    /// They wait on disk.
    Spool(SpoolConfig),
}

/// A mirror at work; it ends when the last one that has it is gone.
pub(crate) struct Running {
    is_acked: bool,
    deliveries: bool,
    dialect: Arc<dyn Dialect>,
    written: String,
    shared: Arc<Shared>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// What the workers and the mirror's thread share.
struct Shared {
    name: Arc<str>,
    /// Random: what NATS knows this start of this mirror by.
    run: String,
    identities: AtomicU64,
    queue: Queue,
    notices: Notices,
    way: Mutex<Arc<Way>>,
    deadline: Mutex<Option<Instant>>,
    stopped: Notify,
    health: Mutex<Standing>,
}

/// How the mirror is, and who is told.
struct Standing {
    component: Option<Component>,
    /// Whether the gateway is of no use without it: messages wait for their copies.
    is_needed: bool,
    lacks: Option<String>,
}

impl NatsMirror {
    /// A mirror that is not started yet.
    pub fn new(plan: Plan) -> Self {
        Self { plan, running: OnceLock::new() }
    }

    /// Its name, as configured.
    pub fn name(&self) -> &Arc<str> {
        &self.plan.name
    }

    /// Starts it. It connects to NATS in the background and takes copies at once.
    pub(crate) fn start(&self, health: &Health) -> anyhow::Result<()> {
        let running = Running::start(&self.plan).with_context(|| format!("mirror {}", self.plan.name))?;
        running.report_to(health);
        let _ = self.running.set(Arc::new(running));
        Ok(())
    }

    /// Goes on with what another one of its name began.
    pub(crate) fn go_on(&self, running: &Arc<Running>, health: &Health) {
        let _ = self.running.set(Arc::clone(running));
        running.report_to(health);
        if !self.is_other_than_running() {
            // files that it names may have changed: the next connection is made with what they say now
            *lock(&running.shared.way) = Arc::clone(&self.plan.way);
        }
    }

    /// Whether what is at work is not what is written here.
    pub(crate) fn is_other_than_running(&self) -> bool {
        self.running.get().is_some_and(|running| running.written != self.plan.written)
    }

    /// What is at work, once it was started.
    pub(crate) fn running(&self) -> Option<&Arc<Running>> {
        self.running.get()
    }
}

impl Mirror for NatsMirror {
    fn message(&self, message: &Message<'_>) -> Copied {
        self.running.get().map_or(Copied::Taken, |running| running.message(message))
    }

    fn wants_deliveries(&self) -> bool {
        self.running.get().is_some_and(|running| running.deliveries)
    }

    fn session(&self, event: &SessionEvent<'_>, now: Now) {
        let Some(running) = self.running.get() else { return };
        if let Some(record) = running.dialect.event(event, now) {
            running.send(record, peer_of(event), now);
        }
    }

    fn wants_packets(&self) -> bool {
        self.running.get().is_some_and(|running| running.dialect.wants_packets())
    }

    fn packet(&self, seen: &PacketSeen<'_>, now: Now) {
        let Some(running) = self.running.get() else { return };
        if let Some(record) = running.dialect.packet(seen, now) {
            running.send(record, seen.peer, now);
        }
    }
}

impl Running {
    fn start(plan: &Plan) -> anyhow::Result<Self> {
        let is_acked = plan.mode == Mode::Acked;
        let spool = match &plan.mode {
            Mode::Spool(config) => Some(Spool::open(config)?),
            Mode::Acked | Mode::BestEffort => None,
        };
        let shared = Arc::new(Shared {
            name: Arc::clone(&plan.name),
            run: format!("{:016x}{:016x}", random(), random()),
            identities: AtomicU64::new(0),
            queue: Queue::new(plan.bounds),
            notices: Notices::default(),
            way: Mutex::new(Arc::clone(&plan.way)),
            deadline: Mutex::default(),
            stopped: Notify::new(),
            health: Mutex::new(Standing {
                component: None,
                is_needed: is_acked,
                lacks: is_acked.then(|| "is starting".to_owned()),
            }),
        });
        let server = if plan.way.is_random { random() as usize % plan.way.servers.len().max(1) } else { 0 };
        let sender = Sender::new(Arc::clone(&shared), plan, spool, server);
        Ok(Self {
            is_acked,
            deliveries: plan.deliveries,
            dialect: Arc::clone(&plan.dialect),
            written: plan.written.clone(),
            ended: Mutex::new(Some(spawn(&plan.name, sender)?)),
            shared,
        })
    }

    /// The name of the mirror.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// Tells the thread to end by `deadline`, with as little left behind as possible.
    pub(crate) fn stop(&self, deadline: Instant) {
        lock(&self.shared.deadline).get_or_insert(deadline);
        self.shared.stopped.notify_one();
    }

    /// Waits until the thread has ended, after [`Running::stop`].
    pub(crate) async fn ended(&self) {
        let (ended, deadline) = (lock(&self.ended).take(), *lock(&self.shared.deadline));
        if let (Some(ended), Some(deadline)) = (ended, deadline) {
            // a disk that hangs keeps nobody for ever
            let _ = timeout_at((deadline + FINISH_TIME).into(), ended).await;
        }
    }

    fn message(&self, message: &Message<'_>) -> Copied {
        let is_awaited = self.is_acked && message.action == Action::Publish && message.is_acknowledged;
        let record = match self.dialect.message(message) {
            Ok(record) => record,
            Err(why) => {
                let example = || format!("{}: {why}", message.topic.escape_debug());
                self.shared.notices.add(Notice::NoWord, 1, example);
                return match is_awaited {
                    true => refused(Cause::NotAuthorized, &format!("the mirror cannot say this: {why}")),
                    false => Copied::Taken,
                };
            }
        };
        if !is_awaited {
            self.send(record, message.client.peer, message.now);
            return Copied::Taken;
        }
        let mut letter = self.letter(record, message.client.peer, message.now);
        let (told, stored) = oneshot::channel();
        letter.waiting = Some(told);
        match self.shared.queue.push(letter) {
            true => Copied::Storing(Box::pin(async {
                stored.await.unwrap_or_else(|_| Err(Reason::with_detail(Cause::Unavailable, STOPPED)))
            })),
            false => refused(Cause::QuotaExceeded, "the mirror's queue is full"),
        }
    }

    fn send(&self, record: Record, session: SocketAddr, now: Now) {
        // the queue counts what it has no room for
        self.shared.queue.push(self.letter(record, session, now));
    }

    fn letter(&self, record: Record, session: SocketAddr, now: Now) -> Letter {
        let Shared { run, identities, .. } = &*self.shared;
        let number = identities.fetch_add(1, Ordering::Relaxed);
        Letter::new(record, session, now.unix, format_args!("{run}-{number}"))
    }

    fn report_to(&self, health: &Health) {
        let component = health.component(&format!("mirror {}", self.shared.name));
        let mut standing = lock(&self.shared.health);
        standing.component = Some(component);
        standing.tell();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Now::read().instant);
    }
}

impl Shared {
    fn way(&self) -> Arc<Way> {
        Arc::clone(&lock(&self.way))
    }

    fn deadline(&self) -> Option<Instant> {
        *lock(&self.deadline)
    }

    /// Says what is missing.
    fn tell_health(&self, lacks: Option<&str>) {
        let mut standing = lock(&self.health);
        if standing.is_needed {
            standing.lacks = lacks.map(str::to_owned);
            standing.tell();
        }
    }
}

impl Standing {
    fn tell(&self) {
        let Some(component) = &self.component else { return };
        match &self.lacks {
            Some(why) => component.not_ready(why),
            None => component.ready(),
        }
    }
}

fn spawn(name: &str, sender: Sender) -> io::Result<oneshot::Receiver<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (ending, ended) = oneshot::channel();
    thread::Builder::new().name(format!("mirror-{name}")).spawn(move || {
        runtime.block_on(sender.run());
        runtime.shutdown_background();
        drop(ending);
    })?;
    Ok(ended)
}

fn refused(cause: Cause, detail: &str) -> Copied {
    let reason = Reason::with_detail(cause, detail);
    Copied::Storing(Box::pin(std::future::ready(Err(reason))))
}

fn peer_of(event: &SessionEvent<'_>) -> SocketAddr {
    match event {
        SessionEvent::Opened(client)
        | SessionEvent::Subscribed { client, .. }
        | SessionEvent::Unsubscribed { client, .. }
        | SessionEvent::Dropped { client, .. }
        | SessionEvent::Failed { client, .. }
        | SessionEvent::WouldBeDenied { client, .. } => client.peer,
        SessionEvent::Denied { peer, .. } | SessionEvent::Closed { peer, .. } => *peer,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}

const STOPPED: &str = "the mirror stopped before the copy was stored";
/// Time to leave the rest on disk.
const FINISH_TIME: Duration = Duration::from_secs(5);
