use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming as Stream;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mgate_policies::BoxFuture;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, watch};
use tokio::time::Instant;
use tracing::debug;

use super::downstream::Downstream;
use super::exchange;
use super::identities::Identities;
use super::incoming::{Incoming, Lingering};
use super::patient::Patient;
use super::websocket::GoOver;
use crate::background::{sleep_until, timeout};
use crate::http::http1::Bounds;
use crate::http::session::Peer;
use crate::http::{Endpoint, Routes};
use crate::polling::Aside;
use crate::signal::Signal;
use crate::transport::{ALPN_HTTP2, Accepted};

/// One client's connection, as all its requests share it.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) identities: Identities,
    pub(super) signal: watch::Receiver<Signal<Routes>>,
    /// Held by who reads a message: its requests do so one after the other.
    pub(super) reading: AsyncMutex<()>,
    /// What its requests may take of the places that the upstream of each route has.
    shares: Mutex<BTreeMap<usize, Arc<Semaphore>>>,
    /// What becomes of it behind the last request of HTTP/1.1.
    pub(super) go_over: GoOver,
    /// Whether it has no request behind the one that it has.
    is_ending: AtomicBool,
    in_flight: AtomicUsize,
    /// Told when none is left of these.
    rested: Notify,
    /// When the last request was done, and whether there was one.
    rest: Mutex<(Instant, bool)>,
    /// Of the answers that are on their way.
    untaken: Mutex<Vec<Weak<Untaken>>>,
    /// Told when it is to end with what its client does not take.
    given_up: Notify,
    /// Is kept as long as anything of it goes on.
    _kept: Arc<dyn Send + Sync>,
}

/// A request that is not done yet.
pub(super) struct InFlight {
    connection: Arc<Connection>,
    /// Once a part of the answer has waited for the client.
    untaken: Option<Arc<Untaken>>,
}

/// Why a connection is to end.
enum Overdue {
    /// All that are of its listener do.
    Stopped,
    /// The client does not take what it asked for.
    Stuck,
    /// It has been without a request for too long.
    Tired,
}

/// Since when a part of an answer waits for the client; `None` while the next one is awaited.
struct Untaken(Mutex<Option<Instant>>);

/// Serves the requests of one connection until it ends, or until the signal says so or goes away. Returns what serves
/// it from then on where it became something else. Keeps `kept` until its last request is done.
pub async fn serve(
    mut accepted: Accepted,
    signal: watch::Receiver<Signal<Routes>>,
    kept: Arc<dyn Send + Sync>,
) -> Option<BoxFuture<'static, ()>> {
    let connection = Arc::new(Connection {
        peer: Peer::of(&mut accepted),
        identities: Identities::default(),
        signal,
        reading: AsyncMutex::default(),
        shares: Mutex::default(),
        go_over: GoOver::default(),
        is_ending: AtomicBool::new(false),
        in_flight: AtomicUsize::new(0),
        rested: Notify::new(),
        rest: Mutex::new((Instant::now(), false)),
        untaken: Mutex::default(),
        given_up: Notify::new(),
        _kept: kept,
    });
    let routes = connection.routes();
    let limits = &routes.leader().gate.limits;
    let speaks_http2 = accepted.stream.speaks(ALPN_HTTP2);
    let io = Patient::new(accepted.stream, limits.stall_timeout);
    if speaks_http2 {
        serve_streams(&connection, routes, io).await;
        // the upstreams of its WebSockets hear that they are over
        let _ = timeout(GOODBYES, connection.rested()).await;
        return None;
    }
    let options = &routes.leader().options;
    let bounds = Bounds { bytes: options.header_bytes, headers: options.headers };
    drop(routes);
    let served = Downstream::new(Arc::clone(&connection), io, bounds).serve();
    let handed = drive(&connection, served, |_| connection.end()).await.flatten();
    // what waits for a connection that is gone keeps it
    let next = connection.go_over.take();
    Some(next?.begin(handed?).await.0)
}

/// Serves one of HTTP/2 until it ends.
async fn serve_streams(connection: &Arc<Connection>, routes: Arc<Routes>, io: Patient) {
    let options = &routes.leader().options;
    let shared = Arc::clone(connection);
    let service = service_fn(move |request: Request<Stream>| {
        let connection = Arc::clone(&shared);
        let (parts, stream) = request.into_parts();
        // boxed: a stream without a request needs no room for it
        Box::pin(async move {
            Ok::<_, Infallible>(
                exchange::answer(connection, parts, Incoming::Stream(Lingering::new(stream))).await,
            )
        })
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let (streams, window_bytes) = streams(&routes);
    builder
        .max_concurrent_streams(streams)
        .max_header_list_size(options.header_bytes.try_into().unwrap_or(u32::MAX))
        .enable_connect_protocol()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(window_bytes)
        .max_send_buf_size(WINDOW_BYTES as usize);
    drop(routes);
    let served = builder.serve_connection(TokioIo::new(io), service);
    drive(connection, served, http2::Connection::graceful_shutdown).await;
}

impl Connection {
    /// The routes of the listener, as they are now.
    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::clone(self.signal.borrow().endpoint())
    }

    /// The same, with the epoch of the rights that they know.
    pub(super) fn routes_and_epoch(&self) -> (Arc<Routes>, u64) {
        let signal = self.signal.borrow();
        (Arc::clone(signal.endpoint()), signal.epoch())
    }

    /// The same, and whether somebody's rights may have changed since an epoch.
    pub(super) fn routes_since(&self, epoch: u64) -> (Arc<Routes>, u64, bool) {
        let signal = self.signal.borrow();
        (Arc::clone(signal.endpoint()), signal.epoch(), signal.concerns(None, epoch))
    }

    /// What its requests may take of the places that the upstream of a route has; a reload does not change it.
    pub(super) fn share(&self, route: usize, endpoint: &Endpoint) -> Arc<Semaphore> {
        Arc::clone(lock(&self.shares).entry(route).or_insert_with(|| share(endpoint)))
    }

    /// What belongs to the listener, as it is now.
    fn endpoint(&self) -> Arc<Endpoint> {
        Arc::clone(self.signal.borrow().endpoint().leader())
    }

    /// Counts one more request.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight { connection: Arc::clone(self), untaken: None }
    }

    /// One more answer that has waited for the client since now.
    fn watch(&self) -> Arc<Untaken> {
        let untaken = Arc::new(Untaken(Mutex::new(Some(Instant::now()))));
        let mut all = lock(&self.untaken);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&untaken));
        untaken
    }

    /// Ends a connection of HTTP/2, as nothing else lets go of what a client does not take of one stream.
    pub(super) fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Has no request behind the one that it has.
    fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Whether it has no request behind the one that it has.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    fn is_idle(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    /// Waits until no request is left.
    async fn rested(&self) {
        while !self.is_idle() {
            self.rested.notified().await;
        }
    }

    /// Until when it may be without a request; `None` while it has one.
    fn rests_until(&self) -> Option<Instant> {
        let (since, had_one) = *lock(&self.rest);
        let endpoint = self.endpoint();
        let time = if had_one { endpoint.keep_alive() } else { endpoint.gate.limits.connect_timeout };
        self.is_idle().then(|| since + time)
    }

    /// Waits until it is to end: without a request for too long, or with an answer that the client does not take. Over
    /// HTTP/2 it need not read what it asked for, and reads all else.
    async fn overdue(&self) -> Overdue {
        loop {
            let (now, endpoint) = (Instant::now(), self.endpoint());
            let stall_timeout = endpoint.gate.limits.stall_timeout;
            // the first request may end meanwhile, and another time counts behind it
            let next = endpoint.keep_alive().min(stall_timeout);
            let tired = self.rests_until().map_or(now + next, |until| until.min(now + next));
            if self.is_given_up_before(tired).await || self.is_stuck(stall_timeout) {
                return Overdue::Stuck;
            }
            if self.rests_until().is_some_and(|until| until <= Instant::now()) {
                return Overdue::Tired;
            }
        }
    }

    /// Whether the client has not taken a part of an answer for so long.
    fn is_stuck(&self, stall_timeout: Duration) -> bool {
        let is_stuck = |one: &Weak<Untaken>| {
            let since = one.upgrade().and_then(|one| *lock(&one.0));
            since.is_some_and(|since| since.elapsed() >= stall_timeout)
        };
        lock(&self.untaken).iter().any(is_stuck)
    }

    /// Waits until the client has not taken a part of an answer for too long.
    async fn stuck(&self) {
        let stall_timeout = self.endpoint().gate.limits.stall_timeout;
        while !self.is_given_up_before(Instant::now() + stall_timeout).await && !self.is_stuck(stall_timeout)
        {
        }
    }

    async fn is_given_up_before(&self, deadline: Instant) -> bool {
        tokio::select! {
            biased;
            () = sleep_until(deadline) => false,
            () = self.given_up.notified() => true,
        }
    }

    /// Waits until nothing is to be done for it, and a little longer.
    async fn quiet(&self) {
        loop {
            sleep_until(Instant::now() + LAST_WORDS).await;
            if self.is_idle() {
                return;
            }
        }
    }
}

impl InFlight {
    /// A part of the answer waits for the client, or the next one is awaited.
    pub(super) fn note(&mut self, is_untaken: bool) {
        match &self.untaken {
            Some(untaken) => *lock(&untaken.0) = is_untaken.then(Instant::now),
            None if is_untaken => self.untaken = Some(self.connection.watch()),
            None => {}
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        *lock(&self.connection.rest) = (Instant::now(), true);
        if self.connection.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.connection.rested.notify_one();
        }
    }
}

/// Moves a connection on until it ends; where it is to end, lets it do so in its own words. Returns what it came to.
async fn drive<T, E: fmt::Display, C: Future<Output = Result<T, E>>>(
    connection: &Connection,
    served: C,
    shut_down: impl FnOnce(Pin<&mut C>),
) -> Option<T> {
    let mut served = pin!(served);
    // aside: requests come far more often
    let done = Aside::new(async {
        tokio::select! {
            biased;
            overdue = connection.overdue() => overdue,
            () = stopped(connection.signal.clone()) => Overdue::Stopped,
        }
    });
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => Some(ended),
        overdue = done => match overdue {
            Overdue::Stuck => return None,
            Overdue::Stopped | Overdue::Tired => None,
        },
    };
    let ended = match ended {
        Some(ended) => Some(ended),
        None => {
            shut_down(served.as_mut());
            tokio::select! {
                ended = served.as_mut() => Some(ended),
                () = connection.stuck() => return None,
                () = connection.quiet() => None,
            }
        }
    };
    ended?.inspect_err(|error| debug!(peer = %connection.peer.address, %error, "a connection ended")).ok()
}

/// Requests at a time, and how much of all of them may be on its way.
fn streams(routes: &Routes) -> (u32, u32) {
    match routes.takes_messages() {
        true => (MAX_MESSAGES, MAX_MESSAGES * WINDOW_BYTES),
        false => (MAX_STREAMS, 4 * WINDOW_BYTES),
    }
}

fn share(endpoint: &Endpoint) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((endpoint.options.upstream_requests / SHARES).max(1)))
}

/// Waits until sessions are to end.
pub(super) async fn stopped(mut signal: watch::Receiver<Signal<Routes>>) {
    let _ = signal.wait_for(Signal::is_stopping).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client does not take all places of an upstream.
const SHARES: usize = 8;
/// Requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 64;
/// The same, where those that wait for their turn are to leave room for the one that is read.
const MAX_MESSAGES: u32 = 16;
const WINDOW_BYTES: u32 = 64 * 1024;
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Longer than a WebSocket takes to end.
const GOODBYES: Duration = Duration::from_secs(12);
