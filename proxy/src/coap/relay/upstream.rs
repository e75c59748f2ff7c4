//! What a relay does for one peer: its socket to the upstream, and what others are asked.

use std::io;
use std::net::UdpSocket;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use mgate_policies::{Cause, Reason};
use tokio::io::unix::AsyncFd;

use super::asked::{Asked, Asking, Event};
use super::readable::Connected;
use super::{RESPONSES, Relay, UPSTREAMS};
use crate::background;
use crate::coap::session::{Input, Output};
use crate::coap::table::Key;
use crate::coap::{Endpoint, Upstream};
use crate::gate::{Side, Trouble};
use crate::transport::udp::{self, Batch};

impl Relay {
    /// Takes what those upstreams sent that are ready by now; each once.
    pub(super) fn read_upstreams(&mut self, responses: &mut Batch<RESPONSES>) {
        for _ in 0..self.readable.len().min(UPSTREAMS) {
            let Some(key) = self.readable.take() else { break };
            self.read_upstream(key, responses);
        }
    }

    /// Takes what an upstream sent to one peer, as far as it is this peer's turn.
    fn read_upstream(&mut self, key: Key, responses: &mut Batch<RESPONSES>) {
        let Some(upstream) = self.upstream(key) else { return };
        let Some(ready) = upstream.ready() else { return };
        let socket = Arc::clone(upstream.socket());
        if ready.is_error()
            && let Some(error) = udp::take_error(&socket).filter(udp::is_gone)
        {
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
    fn take_responses(&mut self, key: Key, socket: &Arc<AsyncFd<UdpSocket>>, responses: &Batch<RESPONSES>) {
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
    pub(super) fn lose_upstream(&mut self, key: Key, error: &io::Error) {
        if let Some(Upstream { host, port }) = &self.endpoint.upstream {
            let (address, why) = (&format_args!("{host}:{port}"), error);
            self.endpoint.gate.observer.trouble(&Trouble::UpstreamGone { address, why });
        }
        self.hang_up(key);
        self.input(key, Input::Lost);
    }

    /// Closes the socket to the upstream, or has none opened.
    pub(super) fn hang_up(&mut self, key: Key) {
        let Some(served) = self.table.get(key) else { return };
        served.upstream = None;
        served.asked.dial = Asking::default();
    }

    /// Has something done that a session wants.
    pub(super) fn start(&mut self, key: Key, output: Output) {
        let Some(served) = self.table.get(key) else { return };
        let asked = &mut served.asked;
        match output {
            Output::Close => self.forget(key),
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
    pub(super) fn store_next(&mut self, key: Key) {
        let Some(served) = self.table.get(key) else { return };
        let Asked { store, stores, .. } = &mut served.asked;
        if !store.is_on()
            && let Some(future) = stores.pop_front()
        {
            let panicked = |_| Err(Reason::with_detail(Cause::Unavailable, "the mirror panicked"));
            let stored = AssertUnwindSafe(background::run(future)).catch_unwind();
            let answer = async move { Event::Stored(stored.await.unwrap_or_else(panicked)) };
            self.events.push(store.about(key, answer));
        }
    }
}

async fn dial(endpoint: Arc<Endpoint>) -> io::Result<AsyncFd<UdpSocket>> {
    let Some(Upstream { host, port }) = &endpoint.upstream else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    let timeout = endpoint.gate.limits.upstream_timeout;
    let connected = background::timeout(timeout, Box::pin(udp::connect(host, *port))).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
