//! Moves bytes between a client, its session and its upstream; decides nothing.
//!
//! Reads go into a buffer that all connections of a thread share, and what the session lets pass is written
//! in the same turn. Only what a peer does not take at once is kept, so an idle connection holds no buffer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use mgate_policies::{BoxFuture, Decision, Now, Reason};
use tokio::io::ReadBuf;
use tokio::sync::watch;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::Sleep;

use super::Endpoint;
use super::session::{Context, Input, Outbox, Output, Peer, Session};
use crate::background::sleep_until;
use crate::clock::Clock;
use crate::gate::{Side, Verdict};
use crate::polling::poll_once;
use crate::signal::Signal;
use crate::transport::{Accepted, ConnectError, Connector, Stream, Wire};

/// Relays one accepted connection until either side is done, or until the signal says so or goes away.
///
/// A future by hand: each `async fn` around it would be one more place in memory to look at for
/// every packet.
pub struct Relaying {
    relay: Option<Relay>,
    finishing: Option<BoxFuture<'static, ()>>,
}

/// One client's connection, its session and its upstream connection.
struct Relay {
    endpoint: Arc<Endpoint>,
    connector: Arc<Connector>,
    session: Session,
    client: Wire,
    upstream: Wire,
    asked: Option<Box<Asked>>,
    /// Not subject to the budget of a turn: polled without any left, it would not be registered.
    timer: Option<(Instant, Pin<Box<Unconstrained<Sleep>>>)>,
    signal: watch::Receiver<Signal<Endpoint>>,
    /// The epoch that the session knows of.
    epoch: u64,
    /// Tells the relay when the signal changes. Polled only when it did so: a waker that was woken is no longer
    /// registered, even if the signal is no other than before.
    changing: Unconstrained<BoxFuture<'static, ()>>,
    /// Whether it did; `None` before the first turn.
    told: Option<Arc<Told>>,
    is_done: bool,
}

/// What others were asked for and have not answered yet.
#[derive(Default)]
struct Asked {
    upstream: Option<BoxFuture<'static, Result<Stream, ConnectError>>>,
    verdict: Option<BoxFuture<'static, Verdict>>,
    decision_for_client: Option<BoxFuture<'static, Decision>>,
    decision_for_upstream: Option<BoxFuture<'static, Decision>>,
    review: Option<BoxFuture<'static, Decision>>,
    /// One after the other.
    stores: VecDeque<BoxFuture<'static, Result<(), Reason>>>,
}

/// Wakes a relay, and leaves word why.
struct Told {
    is_told: AtomicBool,
    task: Waker,
}

/// What all relays of a thread work with, one at a time.
struct Scratch {
    input: Vec<u8>,
    out: Outbox,
    clock: Clock,
}

/// One turn of a relay: what it works with until it can move nothing more.
struct Turn<'t, 'w> {
    now: Now,
    input: &'t mut Vec<u8>,
    out: &'t mut Outbox,
    cx: &'t mut TaskContext<'w>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch {
            input: vec![0; READ_BYTES],
            out: Outbox::default(),
            clock: Clock::new(),
        });
}

impl Relaying {
    /// Relays `accepted` once it is polled.
    pub fn new(
        connector: Arc<Connector>,
        accepted: Accepted,
        signal: watch::Receiver<Signal<Endpoint>>,
    ) -> Self {
        Self { relay: Some(Relay::new(connector, accepted, signal)), finishing: None }
    }
}

impl Future for Relaying {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(relay) = &mut this.relay {
            ready!(relay.poll(cx));
        }
        if let Some(relay) = this.relay.take() {
            this.finishing = Some(Box::pin(relay.finish()));
        }
        this.finishing.as_mut().map_or(Poll::Ready(()), |finishing| finishing.as_mut().poll(cx))
    }
}

impl Relay {
    fn new(connector: Arc<Connector>, accepted: Accepted, signal: watch::Receiver<Signal<Endpoint>>) -> Self {
        let Accepted { stream, peer: address, certificate, upgrade, is_encrypted } = accepted;
        let peer = Peer { address, certificate, upgrade, is_encrypted };
        let (endpoint, epoch) = {
            let signal = signal.borrow();
            (Arc::clone(signal.endpoint()), signal.epoch())
        };
        let changing = unconstrained(changing(signal.clone()));
        Self {
            session: Session::new(&endpoint, peer, Now::read()),
            endpoint,
            connector,
            client: Wire::new(stream),
            upstream: Wire::default(),
            asked: None,
            timer: None,
            signal,
            epoch,
            changing,
            told: None,
            is_done: false,
        }
    }

    /// Moves whatever can be moved; ready when the session is over.
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|Scratch { input, out, clock }| {
            // a policy that panicked may have left another client's bytes
            out.clear();
            self.take_turn(&mut Turn { now: clock.read(), input, out, cx })
        })
    }

    /// Time passes last: what has arrived counts, even if nobody looked at it for long.
    fn take_turn(&mut self, turn: &mut Turn<'_, '_>) -> Poll<()> {
        if self.told.as_ref().is_none_or(|told| told.is_due(turn.cx)) {
            self.heed(turn);
        }
        let has_more = !self.move_all(turn);
        if self.pass_time(turn) | has_more {
            turn.cx.waker().wake_by_ref();
        }
        if self.is_done {
            return Poll::Ready(());
        }
        self.arm_timer(turn.cx);
        Poll::Pending
    }

    /// Tells the session what the signal says.
    fn heed(&mut self, turn: &mut Turn<'_, '_>) {
        // before looking: of what changes after that, the relay is told
        let told = Arc::new(Told { is_told: AtomicBool::new(false), task: turn.cx.waker().clone() });
        let waker = Waker::from(Arc::clone(&told));
        let _ = Pin::new(&mut self.changing).poll(&mut TaskContext::from_waker(&waker));
        self.told = Some(told);
        let is_gone = self.signal.has_changed().is_err();
        let signal = self.signal.borrow();
        let is_over = is_gone || signal.is_stopping();
        let is_concerned = signal.concerns(self.session.client(), self.epoch);
        self.epoch = signal.epoch();
        self.endpoint = Arc::clone(signal.endpoint());
        drop(signal);
        if is_over {
            self.input(Input::Drain, turn);
        } else if is_concerned {
            self.input(Input::Reauthorize, turn);
        }
    }

    /// Moves what can be moved; `false` if there may be more and it is another connection's turn.
    fn move_all(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let (mut side, mut idle_sides) = (Side::Client, 0);
        for _ in 0..MOVES_PER_TURN {
            let has_moved = self.poll_answers(turn) | self.poll_side(side, turn);
            if self.is_done || (!has_moved && idle_sides == 1) {
                return true;
            }
            if has_moved {
                idle_sides = 0;
            } else {
                idle_sides += 1;
                side = side.other();
            }
        }
        false
    }

    /// Reads and writes one side; says whether anything happened.
    fn poll_side(&mut self, side: Side, turn: &mut Turn<'_, '_>) -> bool {
        let has_read = self.poll_read(side, turn);
        has_read | self.wire(side).poll_write(turn.now.instant, turn.cx)
    }

    /// Hands over what the session asked others for.
    fn poll_answers(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let Some(asked) = self.asked.as_mut() else { return false };
        let input = if let Some(dialled) = poll_once(&mut asked.upstream, turn.cx) {
            let dialled = dialled.map(|stream| self.upstream.stream = Some(stream));
            let connector = &self.connector;
            Input::Upstream(dialled.map_err(|error| format!("{}: {error}", connector.authority()).into()))
        } else if let Some(verdict) = poll_once(&mut asked.verdict, turn.cx) {
            Input::Identified(verdict)
        } else if let Some(decision) = poll_once(&mut asked.decision_for_client, turn.cx) {
            Input::Decided(Side::Client, decision)
        } else if let Some(decision) = poll_once(&mut asked.decision_for_upstream, turn.cx) {
            Input::Decided(Side::Upstream, decision)
        } else if let Some(decision) = poll_once(&mut asked.review, turn.cx) {
            Input::Reviewed(decision)
        } else if let Some(Poll::Ready(result)) =
            asked.stores.front_mut().map(|store| store.as_mut().poll(turn.cx))
        {
            asked.stores.pop_front();
            Input::Stored(result)
        } else {
            return false;
        };
        if asked.is_empty() {
            self.asked = None;
        }
        self.input(input, turn);
        true
    }

    /// Lets the session have what it left, then what comes; says whether anything happened.
    fn poll_read(&mut self, side: Side, turn: &mut Turn<'_, '_>) -> bool {
        if !self.has_room_for(side) {
            return false;
        }
        if !self.wire(side).unread.is_empty() && self.take_unread(side, turn) {
            return true;
        }
        if !self.session.wants(side) {
            return false;
        }
        if let Some(error) = self.wire(side).ended {
            self.input(Input::Closed(side, error), turn);
            return true;
        }
        let wire = self.wire(side);
        let mut buffer = ReadBuf::new(turn.input);
        match wire.poll_read(turn.cx, &mut buffer) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.wire(side).ended = Some(None),
            Poll::Ready(Ok(())) => {
                let count = buffer.filled().len();
                self.take(side, count, turn);
            }
            Poll::Ready(Err(error)) => self.wire(side).ended = Some(Some(error.kind())),
        }
        true
    }

    /// Gives the session `count` new bytes, behind those that it left; keeps what it leaves.
    fn take(&mut self, side: Side, count: usize, turn: &mut Turn<'_, '_>) {
        let came = &turn.input[..count];
        if !self.wire(side).unread.is_empty() {
            self.wire(side).unread.extend_from_slice(came);
            self.take_unread(side, turn);
            return;
        }
        let context = &mut Context { endpoint: &self.endpoint, now: turn.now, out: turn.out };
        let used = self.session.handle_input(Input::Bytes(side, came), context);
        self.wire(side).unread.extend_from_slice(&came[used..]);
        self.perform(turn);
    }

    /// Gives the session what it left before; says whether it took any of it.
    fn take_unread(&mut self, side: Side, turn: &mut Turn<'_, '_>) -> bool {
        let mut unread = std::mem::take(&mut self.wire(side).unread);
        let context = &mut Context { endpoint: &self.endpoint, now: turn.now, out: turn.out };
        let used = self.session.handle_input(Input::Bytes(side, &unread), context);
        if used < unread.len() {
            unread.drain(..used);
            self.wire(side).unread = unread;
        }
        self.perform(turn);
        used > 0
    }

    fn input(&mut self, input: Input<'_>, turn: &mut Turn<'_, '_>) {
        let context = &mut Context { endpoint: &self.endpoint, now: turn.now, out: turn.out };
        self.session.handle_input(input, context);
        self.perform(turn);
    }

    /// Sends what the session said and starts what it wants done.
    fn perform(&mut self, turn: &mut Turn<'_, '_>) {
        self.client.send(&mut turn.out.to_client, turn.now.instant, turn.cx);
        self.upstream.send(&mut turn.out.to_upstream, turn.now.instant, turn.cx);
        while let Some(output) = self.session.poll_output() {
            let asked = self.asked.get_or_insert_default();
            match output {
                Output::Close => self.is_done = true,
                Output::Decide(Side::Client, future) => asked.decision_for_client = Some(future),
                Output::Decide(Side::Upstream, future) => asked.decision_for_upstream = Some(future),
                Output::Dial => asked.upstream = Some(dial(Arc::clone(&self.connector))),
                Output::Forget => drop(asked.stores.pop_front()),
                Output::Identify(future) => asked.verdict = Some(future),
                Output::Review(future) => asked.review = Some(future),
                Output::Store(future) => asked.stores.push_back(future),
            }
        }
    }

    /// A side is read only while there is room for what it says, and for what it is answered.
    fn has_room_for(&mut self, side: Side) -> bool {
        self.wire(side.other()).unsent() < UNSENT_BYTES && self.wire(side).unsent() < 2 * UNSENT_BYTES
    }

    /// Tells the session what its clock and the peers' silence mean; says whether there was anything to tell.
    fn pass_time(&mut self, turn: &mut Turn<'_, '_>) -> bool {
        let Some((at, sleep)) = &mut self.timer else { return false };
        if *at > turn.now.instant + CLOCK_LAG || sleep.as_mut().poll(turn.cx).is_pending() {
            return false;
        }
        self.timer = None;
        // the clock of turns may not have come that far
        turn.now = Now::read();
        for side in [Side::Client, Side::Upstream] {
            if self.stalls_at(side).is_some_and(|at| at <= turn.now.instant) {
                self.input(Input::Stalled(side), turn);
            }
        }
        if !self.has_room_for(Side::Client) {
            self.session.excuse_silence(turn.now);
        }
        let context = &mut Context { endpoint: &self.endpoint, now: turn.now, out: turn.out };
        self.session.handle_timeout(context);
        self.perform(turn);
        true
    }

    /// Sets the timer where it must go off earlier than it would; one that goes off too early is set again.
    fn arm_timer(&mut self, cx: &mut TaskContext<'_>) {
        let stalls = [self.stalls_at(Side::Client), self.stalls_at(Side::Upstream)];
        let Some(at) = stalls.into_iter().flatten().chain(self.session.poll_timeout()).min() else { return };
        if self.timer.as_ref().is_some_and(|(armed, _)| *armed <= at) {
            return;
        }
        let mut sleep = Box::pin(unconstrained(sleep_until(at.into())));
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.timer = Some((at, sleep));
    }

    fn stalls_at(&mut self, side: Side) -> Option<Instant> {
        let stall_timeout = self.endpoint.gate.limits.stall_timeout;
        self.wire(side).stalled_since().map(|since| since + stall_timeout)
    }

    /// Sends what is left, as long as somebody takes it, and closes both sides.
    async fn finish(self) {
        let Self { endpoint, session, client, upstream, .. } = self;
        drop(session);
        let patience = endpoint.gate.limits.stall_timeout;
        tokio::join!(client.finish(patience), upstream.finish(patience));
    }

    fn wire(&mut self, side: Side) -> &mut Wire {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }
}

impl Told {
    fn is_due(&self, cx: &TaskContext<'_>) -> bool {
        self.is_told.load(Ordering::Acquire) || !self.task.will_wake(cx.waker())
    }
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.is_told.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Asked {
    fn is_empty(&self) -> bool {
        let decisions = [&self.decision_for_client, &self.decision_for_upstream, &self.review];
        self.upstream.is_none()
            && self.verdict.is_none()
            && self.stores.is_empty()
            && decisions.iter().all(|decision| decision.is_none())
    }
}

/// Ends never: as often as the signal changes, whoever polls is woken and has to poll again.
fn changing(mut signal: watch::Receiver<Signal<Endpoint>>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        while signal.changed().await.is_ok() {}
        std::future::pending::<()>().await;
    })
}

fn dial(connector: Arc<Connector>) -> BoxFuture<'static, Result<Stream, ConnectError>> {
    Box::pin(async move { connector.connect().await })
}

/// Bytes that one read takes at the most.
const READ_BYTES: usize = 64 * 1024;

/// Reads and writes after which another connection of the thread has its turn.
const MOVES_PER_TURN: usize = 16;

/// More than the clock of turns can be late: with less to go, the timer itself is asked.
const CLOCK_LAG: Duration = Duration::from_secs(2);

/// Bytes kept for a side from which on the other side is no longer read.
const UNSENT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use mgate_policies::Scope;
    use tokio::net::{TcpListener, TcpStream};

    use super::super::session::tests::endpoint;
    use super::*;
    use crate::transport::ConnectorOptions;

    #[test]
    fn every_change_wakes_a_relay_that_rests() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (signal, watched) = watch::channel(Signal::new(endpoint()));
        let (mut relaying, _client) = runtime.block_on(accepted(watched));
        let _guard = runtime.enter();
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut turn = || _ = Pin::new(&mut relaying).poll(&mut TaskContext::from_waker(&waker));
        let change = || signal.send_modify(|signal| _ = signal.revoke(Scope::Tenant("t".into())));
        let (begun, changed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let missed = std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    while begun.load(Ordering::SeqCst) < round {
                        std::thread::yield_now();
                    }
                    (0..round % 64).for_each(|_| std::hint::spin_loop());
                    change();
                    changed.store(round, Ordering::SeqCst);
                }
            });
            let missed = (1..=ROUNDS).find(|&round| {
                begun.store(round, Ordering::SeqCst);
                change();
                let mut is_changed = false;
                while woken.0.swap(false, Ordering::SeqCst) || !is_changed {
                    is_changed = changed.load(Ordering::SeqCst) >= round;
                    turn();
                }
                change();
                !woken.0.load(Ordering::SeqCst)
            });
            begun.store(ROUNDS, Ordering::SeqCst);
            missed
        });
        assert_eq!(missed, None, "the round whose last change woke nobody");
    }

    /// Whether a relay is to have another turn.
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    async fn accepted(signal: watch::Receiver<Signal<Endpoint>>) -> (Relaying, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let accepted = Accepted {
            stream: Stream::Tcp(stream),
            peer,
            certificate: None,
            upgrade: None,
            is_encrypted: false,
        };
        let (host, timeout) = ("127.0.0.1".to_owned(), Duration::from_secs(1));
        let options =
            ConnectorOptions { host, port: 1, tls: None, server_name: None, websocket: None, timeout };
        let connector = Connector::new(options).unwrap();
        (Relaying::new(Arc::new(connector), accepted, signal), client)
    }

    const ROUNDS: usize = 1000;
}
