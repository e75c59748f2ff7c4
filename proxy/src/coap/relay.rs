//! Moves datagrams between the peers of one socket, their sessions and the upstream; decides nothing.
//!
//! One task serves all peers of a socket. What sessions ask others for is polled beside the sockets, so that the slow
//! decision of one device delays no other; a peer costs a socket only once something of its was allowed.

mod readable;
pub mod shard;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use mgate_policies::{BoxFuture, Cause, Decision, Now, Reason};
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::Sleep;
use tracing::{debug, error, warn};

use self::readable::{Connected, Readable};
use self::shard::{Passed, Shard, Siblings};
use super::session::{Context, Input, Outbox, Output, Peer, Session};
use super::table::{Key, Table};
use super::{Endpoint, Upstream};
use crate::background;
use crate::clock::Clock;
use crate::gate::{Side, Verdict};
use crate::listener::{Admission, Bound, Permit};
use crate::signal::Signal;
use crate::transport::udp::{self, Batch, Datagrams, Way};

/// Relays all that comes to one socket, until the signal says so or goes away.
pub struct Relay {
    datagrams: Datagrams,
    table: Table<Served>,
    events: FuturesUnordered<BoxFuture<'static, Option<(Key, Event)>>>,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    endpoint: Arc<Endpoint>,
    signal: watch::Receiver<Signal<Endpoint>>,
    /// The epoch that the sessions know of.
    epoch: u64,
    clock: Clock,
    now: Now,
    out: Outbox,
    readable: Readable,
    refused: u64,
    siblings: Siblings,
}

/// One peer, and what is on its way for it.
struct Served {
    session: Session,
    way: Way,
    upstream: Option<Connected>,
    asked: Asked,
}

/// What others were asked for; dropped with it.
#[derive(Default)]
struct Asked {
    dial: Asking,
    identify: Asking,
    decide_for_client: Asking,
    decide_for_upstream: Asking,
    review: Asking,
    store: Asking,
    /// One after the other.
    stores: VecDeque<BoxFuture<'static, Result<(), Reason>>>,
}

/// One question that is on its way; nobody waits for its answer any more once this is dropped.
#[derive(Default)]
struct Asking(Option<AbortHandle>);

/// What a peer was waiting for.
enum Event {
    Decided(Side, Decision),
    Dialed(io::Result<UdpSocket>),
    Identified(Verdict),
    Reviewed(Decision),
    Stored(Result<(), Reason>),
}

impl Relay {
    /// Takes the socket into the runtime of this thread.
    pub fn new(
        Shard { listener, siblings }: Shard,
        admission: Admission,
        signal: watch::Receiver<Signal<Endpoint>>,
    ) -> io::Result<Self> {
        let (endpoint, epoch) = {
            let signal = signal.borrow();
            (Arc::clone(signal.endpoint()), signal.epoch())
        };
        let mut clock = Clock::new();
        Ok(Self {
            datagrams: listener.register()?,
            table: Table::new(admission),
            events: FuturesUnordered::new(),
            timer: None,
            endpoint,
            signal,
            epoch,
            now: clock.read(),
            clock,
            out: Outbox::default(),
            readable: Readable::default(),
            refused: 0,
            siblings,
        })
    }

    /// Relays until it is told to end.
    pub async fn run(mut self) {
        let (mut requests, mut responses) = (Batch::new(), Batch::new());
        while !self.is_over() {
            self.arm_timer();
            let timer = async {
                match &mut self.timer {
                    Some((_, sleep)) => sleep.as_mut().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.datagrams.receive(&mut requests) => match received {
                    Ok(()) => self.take_requests(&requests),
                    Err(error) => {
                        debug!(route = %self.endpoint.gate.route, %error, "cannot receive");
                        // one that stays must not keep this thread busy
                        background::sleep_until((Now::read().instant + PAUSE).into()).await;
                    }
                },
                key = self.readable.next() => {
                    self.now = self.clock.read();
                    self.read_upstream(key, &mut responses);
                }
                Some(event) = self.events.next(), if !self.events.is_empty() => {
                    self.now = self.clock.read();
                    if let Some((key, event)) = event {
                        self.take_event(key, event);
                    }
                }
                Some(passed) = self.siblings.next(), if self.siblings.are_there() => {
                    self.now = self.clock.read();
                    self.take_passed(passed);
                }
                () = timer => self.pass_time(),
                changed = self.signal.changed() => match changed {
                    Ok(()) => self.heed(),
                    Err(_) => break,
                },
            }
        }
        self.now = Now::read();
        self.table.keys().into_iter().for_each(|key| self.input(key, Input::Drain));
    }

    fn is_over(&self) -> bool {
        self.signal.borrow().is_stopping()
    }

    fn take_requests(&mut self, batch: &Batch<REQUESTS>) {
        self.now = self.clock.read();
        for (way, datagram) in batch.iter() {
            self.take_datagram(way, datagram);
        }
    }

    fn take_passed(&mut self, passed: Passed) {
        match passed {
            Passed::Datagram(way, datagram) => self.take_datagram(way, &datagram),
            // who was given a place meanwhile needs none
            Passed::Room(address) => drop(self.make_room(address)),
        }
    }

    /// Gives a datagram to its peer's session, which begins with it if it is a request.
    fn take_datagram(&mut self, way: Way, datagram: &[u8]) {
        let is_single = |way: Way| {
            let own = way.own.map(|own| own.to_canonical());
            way.peer.port() != 0 && !own.is_some_and(|own| own.is_multicast() || is_broadcast(own))
        };
        if !is_single(way) {
            return;
        }
        let address = canonical(way.peer);
        let key = match self.table.at(address) {
            Some(key) => key,
            None => match self.admit(way, address, datagram) {
                Some(key) => key,
                None => return,
            },
        };
        if let Some(served) = self.table.get(key) {
            served.way = way;
        }
        self.input(key, Input::Datagram(Side::Client, datagram));
        self.table.touch(key, self.now.instant);
    }

    fn admit(&mut self, way: Way, address: SocketAddr, datagram: &[u8]) -> Option<Key> {
        let mut context = Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        let is_admitted = Session::admits(datagram, address, &mut context);
        self.out.iter().for_each(|(_, answer)| _ = self.datagrams.send(way, answer));
        self.out.clear();
        if !is_admitted {
            return None;
        }
        match self.make_room(address) {
            Ok(permit) => {
                let peer = Peer { address, certificate: None, psk_identity: None, is_encrypted: false };
                let session = Session::new(&self.endpoint, peer, self.now);
                let served = Served { session, way, upstream: None, asked: Asked::default() };
                Some(self.table.add(address, served, permit))
            }
            Err(bound) => {
                debug!(route = %self.endpoint.gate.route, peer = %address, %bound, "request refused");
                self.siblings.ask_for_room(address);
                self.refused += 1;
                // told as often as it doubles: there may be a flood of them
                if self.refused.is_power_of_two() {
                    warn!(route = %self.endpoint.gate.route, count = self.refused, %bound, "requests refused");
                }
                None
            }
        }
    }

    /// A place for one more peer. Where there are as many as there may be, one that need not be there leaves.
    fn make_room(&mut self, address: SocketAddr) -> Result<Permit, Bound> {
        // one who has gone for all may have left too many of one address
        for _ in 0..2 {
            let bound = match self.table.admit(address) {
                Ok(permit) => return Ok(permit),
                Err(bound) => bound,
            };
            let first = self.table.first_to_go(address, bound).ok_or(bound)?;
            self.input(first, Input::Displaced);
            self.table.remove(first);
        }
        self.table.admit(address)
    }

    fn take_event(&mut self, key: Key, event: Event) {
        let Some(served) = self.table.get(key) else { return };
        match event {
            Event::Decided(side, decision) => self.input(key, Input::Decided(side, decision)),
            Event::Dialed(Ok(socket)) => {
                served.asked.dial = Asking::default();
                served.upstream = Some(self.readable.watch(key, socket));
                self.input(key, Input::Upstream(Ok(())));
            }
            Event::Dialed(Err(error)) => {
                debug!(route = %self.endpoint.gate.route, %error, "no socket to the upstream");
                self.input(key, Input::Upstream(Err(error.to_string().into())));
            }
            Event::Identified(verdict) => self.input(key, Input::Identified(verdict)),
            Event::Reviewed(decision) => self.input(key, Input::Reviewed(decision)),
            Event::Stored(result) => {
                served.asked.store = Asking::default();
                self.input(key, Input::Stored(result));
                self.store_next(key);
            }
        }
    }

    /// Takes what an upstream sent to one peer, as far as it is this peer's turn.
    fn read_upstream(&mut self, key: Key, responses: &mut Batch<RESPONSES>) {
        let Some(upstream) = self.upstream(key) else { return };
        if !upstream.is_readable() {
            return;
        }
        let socket = Arc::clone(upstream.socket());
        if let Some(error) = udp::take_error(&socket).filter(udp::is_gone) {
            return self.lose_upstream(key, &error);
        }
        match self.datagrams.try_receive(&socket, responses) {
            Ok(()) => self.take_responses(key, &socket, responses),
            Err(error) if udp::is_gone(&error) => self.lose_upstream(key, &error),
            Err(_) => {}
        }
        // it may have been lost
        self.upstream(key).into_iter().for_each(Connected::listen);
    }

    /// Gives a peer's session what came by its socket, for as long as it has that.
    fn take_responses(&mut self, key: Key, socket: &Arc<UdpSocket>, responses: &Batch<RESPONSES>) {
        for (_, datagram) in responses.iter() {
            if self.upstream(key).is_some_and(|upstream| Arc::ptr_eq(upstream.socket(), socket)) {
                self.input(key, Input::Datagram(Side::Upstream, datagram));
            }
        }
    }

    fn upstream(&mut self, key: Key) -> Option<&mut Connected> {
        self.table.get(key)?.upstream.as_mut()
    }

    /// Nobody is where the upstream was. RFC 1122 §4.1.3.3
    fn lose_upstream(&mut self, key: Key, error: &io::Error) {
        debug!(route = %self.endpoint.gate.route, %error, "the upstream is not there");
        self.hang_up(key);
        self.input(key, Input::Lost);
    }

    /// Closes the socket to the upstream, or has none opened.
    fn hang_up(&mut self, key: Key) {
        let Some(served) = self.table.get(key) else { return };
        served.upstream = None;
        served.asked.dial = Asking::default();
    }

    fn input(&mut self, key: Key, input: Input<'_>) {
        self.turn(key, |session, context| session.handle_input(input, context));
    }

    /// Lets a session do something. A policy that panics ends its own client's session, not those of the others.
    fn turn(&mut self, key: Key, act: impl FnOnce(&mut Session, &mut Context<'_>)) {
        if self.attempt(key, act) {
            return self.perform(key);
        }
        error!(route = %self.endpoint.gate.route, "a session of CoAP panicked and is gone");
        if self.attempt(key, |session, context| session.handle_input(Input::Failed, context)) {
            self.perform(key);
        }
        self.table.remove(key);
    }

    /// Says whether a session did something without a panic; what it said in one is forgotten.
    fn attempt(&mut self, key: Key, act: impl FnOnce(&mut Session, &mut Context<'_>)) -> bool {
        let Some(served) = self.table.get(key) else { return true };
        let mut context = Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        let done = catch_unwind(AssertUnwindSafe(|| act(&mut served.session, &mut context)));
        if done.is_err() {
            self.out.clear();
        }
        done.is_ok()
    }

    /// Sends what a session said and starts what it wants done.
    fn perform(&mut self, key: Key) {
        let lost = self.send(key);
        while let Some(output) = self.table.get(key).and_then(|served| served.session.poll_output()) {
            self.start(key, output);
        }
        let Some(served) = self.table.get(key) else { return };
        let (standing, at) = (served.session.standing(), served.session.poll_timeout(&self.endpoint));
        self.table.settle(key, standing);
        self.table.arm(key, at);
        if let Some(error) = lost {
            self.lose_upstream(key, &error);
        }
    }

    /// Sends what is in the outbox; what the system has no room for is lost, as datagrams are. Returns the error by
    /// which the upstream is gone.
    fn send(&mut self, key: Key) -> Option<io::Error> {
        let mut out = std::mem::take(&mut self.out);
        let mut lost = None;
        if let Some(served) = self.table.get(key) {
            for (side, datagram) in out.iter() {
                match (side, &served.upstream) {
                    (Side::Client, _) => _ = self.datagrams.send(served.way, datagram),
                    (Side::Upstream, Some(upstream)) => {
                        let sent = udp::send(upstream.socket(), datagram);
                        lost = lost
                            .or(sent.err().filter(|error| error.kind() == io::ErrorKind::ConnectionRefused));
                    }
                    (Side::Upstream, None) => {}
                }
            }
        }
        out.clear();
        self.out = out;
        lost
    }

    fn start(&mut self, key: Key, output: Output) {
        let Some(served) = self.table.get(key) else { return };
        let asked = &mut served.asked;
        match output {
            Output::Close => drop(self.table.remove(key)),
            Output::Decide(side, future) => {
                let asking = match side {
                    Side::Client => &mut asked.decide_for_client,
                    Side::Upstream => &mut asked.decide_for_upstream,
                };
                let answer = async move { Event::Decided(side, background::run(future).await) };
                self.events.push(asking.about(key, answer));
            }
            Output::Dial => {
                let answer = dial(Arc::clone(&self.endpoint));
                self.events.push(asked.dial.about(key, async move { Event::Dialed(answer.await) }));
            }
            Output::HangUp => self.hang_up(key),
            Output::Identify(future) => {
                let answer = async move { Event::Identified(background::run(future).await) };
                self.events.push(asked.identify.about(key, answer));
            }
            Output::Review(future) => {
                let answer = async move { Event::Reviewed(background::run(future).await) };
                self.events.push(asked.review.about(key, answer));
            }
            Output::Store(future) => {
                asked.stores.push_back(future);
                self.store_next(key);
            }
        }
    }

    /// Has the next copy stored, if none is on its way.
    fn store_next(&mut self, key: Key) {
        let Some(served) = self.table.get(key) else { return };
        let Asked { store, stores, .. } = &mut served.asked;
        if store.0.is_none()
            && let Some(future) = stores.pop_front()
        {
            let panicked = |_| Err(Reason::with_detail(Cause::Unavailable, "the mirror panicked"));
            let stored = AssertUnwindSafe(background::run(future)).catch_unwind();
            let answer = async move { Event::Stored(stored.await.unwrap_or_else(panicked)) };
            self.events.push(store.about(key, answer));
        }
    }

    /// Tells sessions what the signal says.
    fn heed(&mut self) {
        let signal = self.signal.borrow_and_update();
        let since = std::mem::replace(&mut self.epoch, signal.epoch());
        let before = std::mem::replace(&mut self.endpoint, Arc::clone(signal.endpoint()));
        let has_moved = before.upstream != self.endpoint.upstream;
        let is_concerned = |served: &Served| {
            served.session.is_waiting()
                || served.session.clients().any(|client| signal.concerns(Some(client), since))
        };
        let keys = self.table.keys().into_iter();
        let table = &mut self.table;
        let concerned: Vec<_> =
            keys.filter(|key| table.get(*key).is_some_and(|served| is_concerned(served))).collect();
        drop(signal);
        self.now = self.clock.read();
        for key in concerned {
            self.input(key, Input::Reauthorize);
        }
        if has_moved {
            let gone = io::Error::other("the route leads to another");
            self.table.keys().into_iter().for_each(|key| self.lose_upstream(key, &gone));
        }
    }

    fn pass_time(&mut self) {
        self.timer = None;
        // the clock of turns may not have come that far
        self.now = Now::read();
        while let Some(key) = self.table.pop_timer(self.now.instant) {
            self.turn(key, Session::handle_timeout);
        }
    }

    /// Sets the timer where it must go off earlier than it would; one that goes off too early is set again.
    fn arm_timer(&mut self) {
        let Some(at) = self.table.next_timer() else { return };
        if self.timer.as_ref().is_none_or(|(armed, _)| at < *armed) {
            self.timer = Some((at, Box::pin(background::sleep_until(at.into()))));
        }
    }
}

impl Asking {
    /// Asks, in place of what was asked before.
    fn about(
        &mut self,
        key: Key,
        answer: impl Future<Output = Event> + Send + 'static,
    ) -> BoxFuture<'static, Option<(Key, Event)>> {
        // who panics never answers, which is a no after a while
        let (answer, handle) = abortable(AssertUnwindSafe(answer).catch_unwind());
        drop(std::mem::replace(self, Self(Some(handle))));
        Box::pin(async move { answer.await.ok()?.ok().map(|event| (key, event)) })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.abort();
        }
    }
}

async fn dial(endpoint: Arc<Endpoint>) -> io::Result<UdpSocket> {
    let Some(Upstream { host, port }) = &endpoint.upstream else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    let timeout = endpoint.gate.limits.upstream_timeout;
    let connected = background::timeout(timeout, Box::pin(udp::connect(host, *port))).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

const PAUSE: Duration = Duration::from_millis(5);

/// Datagrams of all peers that are taken at once.
const REQUESTS: usize = 8;

/// Datagrams of one upstream after which others have their turn.
const RESPONSES: usize = 4;
