//! Moves datagrams between the peers of one socket, their sessions and the upstream; decides nothing.
//!
//! One task serves all peers of a socket. What sessions ask others for is polled beside the sockets, so that the slow
//! decision of one device delays no other; a peer costs a socket only once something of its was allowed.

mod asked;
mod moved;
mod readable;
mod room;
mod secured;
pub mod shard;
#[cfg(test)]
mod tests;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mgate_policies::{BoxFuture, Now};
use tokio::sync::watch::{self, error::RecvError};
use tokio::time::Sleep;
use tracing::{debug, error};

use self::asked::{Asking, Event, Served};
use self::readable::Readable;
use self::secured::Secured;
use self::shard::{Shard, Siblings};
use super::Endpoint;
use super::session::{Context, Input, Outbox, Session};
use super::table::{Key, Name, Table};
use crate::background;
use crate::clock::Clock;
use crate::gate::Side;
use crate::listener::Admission;
use crate::polling::Aside;
use crate::signal::Signal;
use crate::transport::udp::{self, Batch, Datagrams, Way};

/// Relays all that comes to one socket, until the signal says so or goes away.
pub struct Relay {
    datagrams: Datagrams,
    /// Where peers speak DTLS.
    secured: Option<Secured>,
    table: Table<Served>,
    events: FuturesUnordered<BoxFuture<'static, Option<(Key, Event)>>>,
    timer: Option<(Instant, Aside<Sleep>)>,
    endpoint: Arc<Endpoint>,
    signal: watch::Receiver<Signal<Endpoint>>,
    /// The epoch that the sessions know of.
    epoch: u64,
    clock: Clock,
    now: Now,
    out: Outbox,
    readable: Readable,
    siblings: Siblings,
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
            secured: endpoint.dtls.as_ref().map(|dtls| Secured::new(dtls, siblings.number())).transpose()?,
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
            siblings,
        })
    }

    /// Relays until it is told to end.
    pub async fn run(mut self) {
        let (mut requests, mut responses) = (Batch::new(), Batch::new());
        let (mut change, mut is_over) = (change_of(self.signal.clone()), self.is_over());
        while !is_over {
            self.arm_timer();
            let timer = async {
                match &mut self.timer {
                    Some((_, sleep)) => sleep.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.datagrams.receive(&mut requests) => match received {
                    Ok(()) => {
                        self.take_requests(&requests);
                        // whoever sends much leaves the others a turn
                        self.read_upstreams(&mut responses);
                    }
                    Err(error) => {
                        debug!(route = %self.endpoint.gate.route, %error, "cannot receive");
                        // one that stays must not keep this thread busy
                        background::sleep_until((Now::read().instant + PAUSE).into()).await;
                    }
                },
                () = self.readable.wait() => {
                    self.now = self.clock.read();
                    self.read_upstreams(&mut responses);
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
                (handshake, key) = Secured::next_key(&mut self.secured) => {
                    self.now = self.clock.read();
                    self.take_key(handshake, key.as_ref());
                }
                () = timer => self.pass_time(),
                changed = &mut change => {
                    if changed.is_ok() {
                        self.heed();
                    }
                    is_over = changed.is_err() || self.is_over();
                    change = change_of(self.signal.clone());
                }
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

    /// Gives a datagram to its peer's session, which begins with it if it is a request.
    fn take_datagram(&mut self, way: Way, datagram: &[u8]) {
        let is_single = |way: Way| {
            let own = way.own.map(|own| own.to_canonical());
            way.peer.port() != 0 && !own.is_some_and(|own| own.is_multicast() || is_broadcast(own))
        };
        if !is_single(way) {
            return;
        }
        if self.secured.is_some() {
            return self.take_records(way, datagram);
        }
        let address = canonical(way.peer);
        let key = match self.table.at(Name::Address(address)) {
            Some(key) => key,
            None => match self.admit(way, address, datagram) {
                Some(key) => key,
                None => return,
            },
        };
        self.take_request(key, way, datagram);
    }

    fn take_request(&mut self, key: Key, way: Way, datagram: &[u8]) {
        if let Some(served) = self.table.get(key) {
            served.way = way;
        }
        self.input(key, Input::Datagram(Side::Client, datagram));
        self.table.touch(key, self.now.instant);
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
        self.forget(key);
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
        let (mut lost, name) = (None, self.table.name(key));
        if let Some(served) = self.table.get(key) {
            for (side, datagram) in out.iter() {
                match (side, &served.upstream) {
                    (Side::Client, _) => match (name, &mut self.secured) {
                        (Some(Name::Session(session)), Some(secured)) => {
                            secured.send(session, datagram, &self.datagrams, (served, self.now));
                        }
                        _ => _ = self.datagrams.send(served.way, datagram),
                    },
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

    /// Tells sessions what the signal says.
    fn heed(&mut self) {
        let signal = self.signal.borrow_and_update();
        if signal.epoch() == self.epoch && Arc::ptr_eq(signal.endpoint(), &self.endpoint) {
            // of two changes in a row, the first word was of both
            return;
        }
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
        self.renew_dtls();
        if has_moved {
            // before anything is judged by the new rules, which are not about the old upstream
            let gone = io::Error::other("the route leads to another");
            self.table.keys().into_iter().for_each(|key| self.lose_upstream(key, &gone));
        }
        for key in concerned {
            self.input(key, Input::Reauthorize);
        }
    }

    fn pass_time(&mut self) {
        self.timer = None;
        // the clock of turns may not have come that far
        self.now = Now::read();
        while let Some(key) = self.table.pop_timer(self.now.instant) {
            self.turn(key, Session::handle_timeout);
        }
        self.pass_dtls_time();
    }

    /// Sets the timer where it must go off earlier than it would; one that goes off too early is set again.
    fn arm_timer(&mut self) {
        let next = [self.table.next_timer(), self.dtls_timeout()].into_iter().flatten().min();
        let Some(at) = next else { return };
        if self.timer.as_ref().is_none_or(|(armed, _)| at < *armed) {
            self.timer = Some((at, Aside::new(background::sleep_until(at.into()))));
        }
    }
}

/// Waits for the next change of a signal.
fn change_of(
    mut signal: watch::Receiver<Signal<Endpoint>>,
) -> Aside<impl Future<Output = Result<(), RecvError>>> {
    Aside::new(async move { signal.changed().await })
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

/// Upstreams that are read from before anything else has its turn.
const UPSTREAMS: usize = 16;

/// Datagrams of one upstream after which others have their turn. Room for more than come costs something each time.
const RESPONSES: usize = 2;
