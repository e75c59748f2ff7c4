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
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use mgate_policies::{Action, Cause, Now, Reason};
use mgate_proxy::gate::{Copied, Memo, Message, Mirror, PacketSeen, SessionEvent};
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinError;
use tokio::time::timeout_at;
use tracing::error;

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
use super::draft::Draft;
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

    fn copy(
        &self,
        message: &Message<'_>,
        write: impl FnOnce(&dyn Dialect, Vec<u8>) -> Result<Draft, &'static str>,
    ) -> Copied {
        match self.running.get() {
            Some(running) => running.message(message, write),
            None if self.plan.mode == Mode::Acked && is_awaited(message) => {
                refused(Cause::Unavailable, "the mirror was not started")
            }
            None => Copied::Taken,
        }
    }
}

impl Mirror for NatsMirror {
    fn message(&self, message: &Message<'_>) -> Copied {
        self.copy(message, |dialect, room| dialect.message(message, room).map(Draft::from))
    }

    fn message_of_session(&self, message: &Message<'_>, memo: &mut Memo) -> Copied {
        self.copy(message, |dialect, room| dialect.message_of_session(message, memo, room))
    }

    fn wants_deliveries(&self) -> bool {
        self.running.get().is_some_and(|running| running.deliveries)
    }

    fn session(&self, event: &SessionEvent<'_>, now: Now) {
        let Some(running) = self.running.get() else { return };
        if let Some(record) = running.dialect.event(event, now) {
            running.send(record.into(), peer_of(event), now);
        }
    }

    fn wants_packets(&self) -> bool {
        self.running.get().is_some_and(|running| running.dialect.wants_packets())
    }

    fn packet(&self, seen: &PacketSeen<'_>, now: Now) {
        let Some(running) = self.running.get() else { return };
        if let Some(record) = running.dialect.packet(seen, now) {
            running.send(record.into(), seen.peer, now);
        }
    }
}

impl Running {
    fn start(plan: &Plan) -> anyhow::Result<Self> {
        let spool = match &plan.mode {
            Mode::Spool(config) => Some(Spool::open(config)?),
            Mode::Acked | Mode::BestEffort => None,
        };
        let shared = Arc::new(Shared::new(plan));
        let server = if plan.way.is_random { random() as usize % plan.way.servers.len().max(1) } else { 0 };
        let sender = Sender::new(Arc::clone(&shared), plan, spool, server);
        Ok(Self {
            is_acked: plan.mode == Mode::Acked,
            deliveries: plan.deliveries,
            dialect: Arc::clone(&plan.dialect),
            written: plan.written.clone(),
            ended: Mutex::new(Some(spawn(Arc::clone(&shared), sender)?)),
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

    fn message(
        &self,
        message: &Message<'_>,
        write: impl FnOnce(&dyn Dialect, Vec<u8>) -> Result<Draft, &'static str>,
    ) -> Copied {
        let is_awaited = self.is_acked && is_awaited(message);
        let room = match is_awaited {
            true => Some(self.shared.queue.room()),
            // a bus that is away is to cost nothing
            false => self.shared.queue.room_for(message.payload.len()),
        };
        let Some(room) = room else { return Copied::Taken };
        let draft = match write(&*self.dialect, room) {
            Ok(draft) => draft,
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
            self.send(draft, message.client.peer, message.now);
            return Copied::Taken;
        }
        let mut letter = Letter::new(draft, message.client.peer, message.now.unix);
        let (told, stored) = oneshot::channel();
        letter.waiting = Some(told);
        match self.shared.queue.push(letter) {
            true => Copied::Storing(Box::pin(async {
                stored.await.unwrap_or_else(|_| Err(Reason::with_detail(Cause::Unavailable, STOPPED)))
            })),
            false => refused(Cause::QuotaExceeded, "the mirror's queue is full"),
        }
    }

    fn send(&self, draft: Draft, session: SocketAddr, now: Now) {
        // the queue counts what it has no room for
        self.shared.queue.push(Letter::new(draft, session, now.unix));
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
    fn new(plan: &Plan) -> Self {
        let is_needed = plan.mode == Mode::Acked;
        Self {
            name: Arc::clone(&plan.name),
            run: format!("{:016x}{:016x}", random(), random()),
            queue: Queue::new(plan.bounds),
            notices: Notices::default(),
            way: Mutex::new(Arc::clone(&plan.way)),
            deadline: Mutex::default(),
            stopped: Notify::new(),
            health: Mutex::new(Standing {
                component: None,
                is_needed,
                lacks: is_needed.then(|| "is starting".to_owned()),
            }),
        }
    }

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

/// Says so if the thread of a mirror fails: nobody else would notice.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            error!(mirror = %self.0.name, "the mirror has failed, and copies nothing until the next start");
            let mut standing = lock(&self.0.health);
            (standing.is_needed, standing.lacks) = (true, Some("has failed".to_owned()));
            standing.tell();
        }
    }
}

fn spawn(shared: Arc<Shared>, sender: Sender) -> io::Result<oneshot::Receiver<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (ending, ended) = oneshot::channel();
    thread::Builder::new().name(format!("mirror-{}", shared.name)).spawn(move || {
        let _alarm = Alarm(shared);
        // the runtime wakes its tasks with less than what it blocks on, which takes a system call each time
        let sending = runtime.spawn(sender.run());
        if let Err(Ok(panic)) = runtime.block_on(sending).map_err(JoinError::try_into_panic) {
            resume_unwind(panic);
        }
        runtime.shutdown_background();
        drop(ending);
    })?;
    Ok(ended)
}

/// Whether somebody is to hear that the message arrived.
fn is_awaited(message: &Message<'_>) -> bool {
    message.action == Action::Publish && message.is_acknowledged
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

#[cfg(test)]
mod tests {
    use mgate_proxy::transport::{Authorities, ClientTls};

    use super::*;
    use crate::mirror::dialect::Kind;
    use crate::mirror::dialect::tests::{client, message, writer};
    use crate::neighbour::nats::NatsLogin;

    #[tokio::test]
    async fn mirror_that_was_not_started_stores_nothing() {
        let client = client();
        let bounds = Bounds { messages: 1, bytes: 1024 };
        for (is_acknowledged, is_refused) in [(true, true), (false, false)] {
            let message =
                Message { qos: u8::from(is_acknowledged), is_acknowledged, ..message(&client, "a", b"x") };
            match NatsMirror::new(plan(Mode::Acked, bounds)).message(&message) {
                Copied::Storing(stored) => {
                    assert!(is_refused && stored.await.is_err_and(|why| why.cause == Cause::Unavailable));
                }
                Copied::Taken => assert!(!is_refused),
            }
        }
    }

    /// A mirror without a server.
    pub(super) fn plan(mode: Mode, bounds: Bounds) -> Plan {
        let tls = ClientTls::new(Authorities::none(), None).unwrap();
        let way = Way { servers: Vec::new(), is_random: false, tls, is_tls: false, login: NatsLogin::None };
        Plan {
            name: "test".into(),
            jetstream: mode == Mode::Acked,
            mode,
            stream: None,
            bounds,
            deliveries: false,
            dialect: Arc::new(writer(Kind::Plain)),
            way: Arc::new(way),
            written: String::new(),
        }
    }
}
