use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use http::Version;
use http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use mgate_policies::{BoxFuture, Cause, Client, Decision, Now};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::Sleep;

use super::connection::{Connection, stopped};
use super::exchange::Arriving;
use crate::background::{sleep_until, timeout, timeout_at};
use crate::gate::{Side, no_decision_in_time};
use crate::http::problem::Problem;
use crate::http::websocket::{Context, Session};
use crate::listener::Permit;
use crate::polling::poll_once;

pub(super) use super::handed::Handed;

/// Places for the WebSockets of a route.
pub(in crate::http) struct Places {
    most: usize,
    /// Also by rules from before.
    taken: Arc<AtomicUsize>,
}

/// That of one WebSocket.
pub(super) struct Place(Arc<AtomicUsize>);

/// What becomes of a connection of HTTP/1.1 when it is no longer one.
#[derive(Default)]
pub(super) struct GoOver(Mutex<Option<Next>>);

/// How the client's side of a request is handed over.
pub(super) enum HandOver {
    /// With its connection of HTTP/1.1, behind the answer.
    Connection,
    /// As a stream of HTTP/2.
    Stream(OnUpgrade),
}

/// What becomes of the client's side.
pub(super) enum Next {
    /// It speaks another protocol.
    Guest(Arriving),
    WebSocket(Relaying),
}

/// A WebSocket that the upstream took, and soon the client.
pub(super) struct Relaying {
    pub(super) connection: Arc<Connection>,
    /// The number of its route.
    pub(super) route: usize,
    /// Of the rights that it was opened by.
    pub(super) epoch: u64,
    pub(super) client: Arc<Client>,
    /// Of its messages.
    pub(super) topic: Box<str>,
    pub(super) upstream: Upgraded,
    /// Done when the client may no longer have it.
    pub(super) revoked: BoxFuture<'static, Problem>,
    pub(super) place: Place,
}

/// A WebSocket between its two connections.
struct Relay {
    connection: Arc<Connection>,
    route: usize,
    epoch: u64,
    session: Session,
    wires: [Wire; 2],
    decisions: [Option<BoxFuture<'static, Decision>>; 2],
    revoked: Option<BoxFuture<'static, Problem>>,
    stopped: Option<BoxFuture<'static, ()>>,
    /// Not subject to the budget of a turn: polled without any left, it would not be registered.
    timer: Option<(Instant, Pin<Box<Unconstrained<Sleep>>>)>,
}

/// The connection of one side.
enum Wire {
    Open {
        io: Handed,
        needs_flush: bool,
    },
    /// The peer hears the last words; or has not, when this says so.
    Closing(BoxFuture<'static, bool>),
    Closed,
}

impl Places {
    pub(in crate::http) fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// Counts what has a place among `others` too.
    pub(in crate::http) fn share(&mut self, others: &Self) {
        self.taken = Arc::clone(&others.taken);
    }

    /// A place, if there is one left.
    pub(super) fn take(&self) -> Option<Place> {
        let one_more = |taken| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Place(Arc::clone(&self.taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HandOver {
    /// That of a request which asks for a WebSocket.
    pub(super) fn of(parts: &mut Parts) -> Option<Self> {
        match parts.version < Version::HTTP_2 {
            true => Some(Self::Connection),
            false => parts.extensions.remove().map(Self::Stream),
        }
    }
}

impl GoOver {
    /// Goes on when the client's side is handed over: a stream of HTTP/2 here, a connection with [`GoOver::take`].
    pub(super) fn hand_over(&self, handed_over: HandOver, next: Next) {
        let HandOver::Stream(stream) = handed_over else {
            *lock(&self.0) = Some(next);
            return;
        };
        let in_flight = next.connection().begin();
        tokio::spawn(async move {
            if let Ok(client) = stream.await {
                let (serving, _permit) = next.begin(Handed::Upgraded(TokioIo::new(client))).await;
                serving.await;
            }
            drop(in_flight);
        });
    }

    /// What the connection becomes, if it becomes anything else.
    pub(super) fn take(&self) -> Option<Next> {
        lock(&self.0).take()
    }
}

impl Next {
    fn connection(&self) -> &Arc<Connection> {
        match self {
            Self::Guest(arriving) => &arriving.connection,
            Self::WebSocket(relaying) => &relaying.connection,
        }
    }

    /// What serves the client's side, and what is to be kept until that has ended.
    pub(super) async fn begin(self, client: Handed) -> (BoxFuture<'static, ()>, Option<Permit>) {
        match self {
            Self::Guest(arriving) => arriving.begin(client).await,
            Self::WebSocket(relaying) => (Box::pin(relaying.run(client)), None),
        }
    }
}

impl Relaying {
    /// Relays until both sides are done.
    async fn run(self, downstream: Handed) {
        let Self { connection, route, epoch, client, topic, upstream, revoked, place: _place } = self;
        let routes = connection.routes();
        let context = Context { endpoint: routes.endpoint(route), now: Now::read() };
        let session = Session::new(client, topic, &context);
        let upstream = Handed::Upgraded(TokioIo::new(upstream));
        let mut relay = Relay {
            stopped: Some(Box::pin(stopped(connection.signal.clone()))),
            connection,
            route,
            epoch,
            session,
            wires: [downstream, upstream].map(|io| Wire::Open { io, needs_flush: false }),
            decisions: [None, None],
            revoked: Some(revoked),
            timer: None,
        };
        poll_fn(|cx| relay.poll(cx)).await;
    }
}

impl Relay {
    /// Moves whatever can be moved; ready when both connections are closed.
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        for _ in 0..MOVES_PER_TURN {
            // both at once: what waits is asked about again by the rules that made it so
            let (routes, epoch, is_concerned) = self.connection.routes_since(self.epoch);
            self.epoch = epoch;
            let context = Context { endpoint: routes.endpoint(self.route), now: Now::read() };
            if is_concerned {
                self.session.reauthorize(&context);
            }
            let has_moved = self.take_turn(&context, cx);
            if self.wires.iter().all(|wire| matches!(wire, Wire::Closed)) {
                return Poll::Ready(());
            }
            if !has_moved && !self.is_due(&context, cx) {
                return Poll::Pending;
            }
        }
        // others may have something to move too
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_turn(&mut self, context: &Context<'_>, cx: &mut TaskContext<'_>) -> bool {
        self.heed(context, cx);
        self.session.pass_time(context);
        let mut has_moved = false;
        for side in [Side::Client, Side::Upstream] {
            has_moved |= self.poll_decision(side, context, cx);
            has_moved |= self.poll_read(side, context, cx);
            has_moved |= self.poll_write(side, context, cx);
            has_moved |= self.session.is_done(side) && self.poll_close(side, cx);
        }
        has_moved
    }

    /// Tells the session what ends it.
    fn heed(&mut self, context: &Context<'_>, cx: &mut TaskContext<'_>) {
        if let Some(problem) = poll_once(&mut self.revoked, cx) {
            self.session.revoke(cause_of(problem), context);
        }
        if poll_once(&mut self.stopped, cx).is_some() {
            self.session.drain(context);
        }
    }

    /// Asks what the session wants to know, and tells it the answer; says whether there was one.
    fn poll_decision(&mut self, side: Side, context: &Context<'_>, cx: &mut TaskContext<'_>) -> bool {
        let decision = &mut self.decisions[side as usize];
        if let Some((question, until)) = self.session.question(side) {
            let answer = timeout_at(until.into(), question);
            *decision = Some(Box::pin(async {
                answer.await.unwrap_or_else(|_| Decision::Deny(no_decision_in_time()))
            }));
        } else if !self.session.is_asking(side) {
            *decision = None;
        }
        let Some(decided) = poll_once(decision, cx) else { return false };
        self.session.decided(side, decided, context);
        true
    }

    /// Gives the session what came from a side, if it wants that; says whether anything happened.
    fn poll_read(&mut self, side: Side, context: &Context<'_>, cx: &mut TaskContext<'_>) -> bool {
        if !self.session.wants(side) {
            return false;
        }
        let Wire::Open { io, .. } = &mut self.wires[side as usize] else { return false };
        let mut bytes = [MaybeUninit::uninit(); READ_BYTES];
        let mut buffer = ReadBuf::uninit(&mut bytes);
        match Pin::new(io).poll_read(cx, &mut buffer) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.session.take(side, buffer.filled(), context);
            }
            Poll::Ready(_) => self.session.lose(side, context),
        }
        true
    }

    /// Sends what the session has for a side; says whether that took any of it.
    fn poll_write(&mut self, side: Side, context: &Context<'_>, cx: &mut TaskContext<'_>) -> bool {
        let Wire::Open { io, needs_flush } = &mut self.wires[side as usize] else { return false };
        let unsent = self.session.unsent(side);
        let written = match unsent.is_empty() {
            true => Poll::Pending,
            // over HTTP/2, a few of whatever is written are kept
            false => Pin::new(&mut *io).poll_write(cx, &unsent[..unsent.len().min(WRITE_BYTES)]),
        };
        match written {
            Poll::Pending => {
                *needs_flush = *needs_flush && Pin::new(io).poll_flush(cx).is_pending();
                return false;
            }
            Poll::Ready(Ok(count)) if count > 0 => {
                *needs_flush = true;
                self.session.sent(side, count, context);
            }
            Poll::Ready(_) => self.session.lose(side, context),
        }
        true
    }

    /// Closes the connection of one side; says whether it was closed now.
    fn poll_close(&mut self, side: Side, cx: &mut TaskContext<'_>) -> bool {
        let Some(is_heard) = self.wires[side as usize].poll_close(cx) else { return false };
        if side == Side::Client && !is_heard {
            self.connection.give_up();
        }
        true
    }

    /// Whether time brings something now; it wakes the task when it does.
    fn is_due(&mut self, context: &Context<'_>, cx: &mut TaskContext<'_>) -> bool {
        let Some(at) = self.session.poll_timeout(context) else { return false };
        let (_, timer) = match self.timer.take() {
            // one that goes off too early is set anew then
            Some(timer) if timer.0 <= at => self.timer.insert(timer),
            _ => self.timer.insert((at, Box::pin(unconstrained(sleep_until(at.into()))))),
        };
        let is_due = timer.as_mut().poll(cx).is_ready();
        if is_due {
            self.timer = None;
        }
        is_due
    }
}

impl Wire {
    /// Closes it; says whether the peer took all that was left when it is closed.
    fn poll_close(&mut self, cx: &mut TaskContext<'_>) -> Option<bool> {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Open { io, .. } => Self::Closing(Box::pin(finish(io))),
            other => other,
        };
        let Self::Closing(closing) = self else { return None };
        match closing.as_mut().poll(cx) {
            Poll::Ready(is_heard) => {
                *self = Self::Closed;
                Some(is_heard)
            }
            Poll::Pending => None,
        }
    }
}

/// Says that no more comes, and hears the peer out; says whether it took all that was left.
async fn finish(mut io: Handed) -> bool {
    timeout(LAST_WORDS, io.shutdown()).await.is_ok()
}

/// Why a client may no longer have what it was allowed.
fn cause_of(problem: Problem) -> Cause {
    match problem {
        Problem::BadCredentials => Cause::BadCredentials,
        Problem::TooMany(_) => Cause::QuotaExceeded,
        Problem::Unavailable => Cause::Unavailable,
        _ => Cause::NotAuthorized,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns after which other connections have theirs.
const MOVES_PER_TURN: usize = 32;
const READ_BYTES: usize = 8 * 1024;
const WRITE_BYTES: usize = 16 * 1024;
/// Time for the peer to take what is left, and to hear the last words.
const LAST_WORDS: Duration = Duration::from_secs(5);
