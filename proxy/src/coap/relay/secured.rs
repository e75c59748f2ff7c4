//! The DTLS of a socket: whose a datagram is, and what becomes of handshakes.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use mgate_dtls::{
    DtlsEndpoint, Endpoint, Event, HandshakeEngine, HandshakeId, Identity, Outbox, SessionId, Settings,
    Statistics, shard_of,
};
use mgate_policies::{BoxFuture, Now};
use tracing::{debug, warn};

use super::asked::Served;
use super::{Relay, canonical};
use crate::background;
use crate::coap::Dtls;
use crate::coap::session::{Input, Peer, Session};
use crate::coap::table::{Key, Name};
use crate::psk::{KeySearch, Psk};
use crate::transport::udp::{Datagrams, Way};

/// What a relay has where its peers speak DTLS.
pub(super) struct Secured {
    endpoint: Box<dyn DtlsEndpoint>,
    engine: Arc<dyn HandshakeEngine>,
    settings: Settings,
    out: Outbox,
    /// What came, to be decrypted in place.
    came: Vec<u8>,
    /// Keys that are looked for.
    searches: FuturesUnordered<BoxFuture<'static, (HandshakeId, Option<Psk>)>>,
    /// What the route knows of that the endpoint counted.
    counted: Statistics,
}

impl Secured {
    pub(super) fn new(dtls: &Dtls, shard: u8) -> io::Result<Self> {
        let settings = dtls.settings(shard);
        let endpoint = Endpoint::new(Arc::clone(&dtls.engine), settings.clone()).map_err(io::Error::other)?;
        Ok(Self {
            endpoint: Box::new(endpoint),
            engine: Arc::clone(&dtls.engine),
            settings,
            out: Outbox::new(),
            came: Vec::new(),
            searches: FuturesUnordered::new(),
            counted: Statistics::default(),
        })
    }

    /// A key that was found, or not. Dropping the future loses nothing.
    pub(super) async fn next_key(secured: &mut Option<Self>) -> (HandshakeId, Option<Psk>) {
        match secured {
            Some(secured) if !secured.searches.is_empty() => match secured.searches.next().await {
                Some(found) => found,
                None => std::future::pending().await,
            },
            _ => std::future::pending().await,
        }
    }

    /// Sends a message of a session; what cannot or may not be sent is lost, as datagrams are.
    pub(super) fn send(
        &mut self,
        session: SessionId,
        message: &[u8],
        datagrams: &Datagrams,
        (served, now): (&mut Served, Now),
    ) {
        if let Err(fault) = self.endpoint.send(now.instant, session, message, &mut self.out) {
            debug!(%fault, "a message is lost");
        }
        let bytes = self.out.iter().map(|(_, datagram)| datagram.len()).sum();
        if served.unproven.as_mut().is_some_and(|unproven| !unproven.may_send(bytes)) {
            debug!(peer = %canonical(served.way.peer), bytes, "a message is lost: the peer has not shown where it is");
            self.out.clear();
        }
        self.flush(datagrams, Some(served.way));
    }

    /// Sends what there is to send; what goes where something came from leaves from where that was sent to.
    fn flush(&mut self, datagrams: &Datagrams, way: Option<Way>) {
        for (peer, datagram) in self.out.iter() {
            let own = way.filter(|way| way.peer == peer).and_then(|way| way.own);
            let _ = datagrams.send(Way { peer, own }, datagram);
        }
        self.out.clear();
    }
}

impl Relay {
    /// Takes a datagram of a peer that speaks DTLS, or lets the shard have it that the peer belongs to.
    pub(super) fn take_records(&mut self, way: Way, datagram: &[u8]) {
        let Some(secured) = &mut self.secured else { return };
        let shard = shard_of(datagram, secured.settings.cid_length);
        // what names no shard at all is counted here, as all that is of no session
        if let Some(shard) = shard.filter(|shard| self.siblings.has_other(*shard)) {
            return self.siblings.pass_datagram(shard, way, datagram);
        }
        let mut came = std::mem::take(&mut secured.came);
        came.clear();
        came.extend_from_slice(datagram);
        secured.endpoint.handle_datagram(self.now.instant, way.peer, &mut came, &mut secured.out);
        self.take_dtls_events(Some((way, &came)));
        if let Some(secured) = &mut self.secured {
            secured.came = came;
        }
    }

    /// Goes on with a handshake for which a key was looked for.
    pub(super) fn take_key(&mut self, handshake: HandshakeId, key: Option<&Psk>) {
        self.give_key(handshake, key);
        self.take_dtls_events(None);
    }

    /// Does what is due of handshakes.
    pub(super) fn pass_dtls_time(&mut self) {
        let Some(secured) = &mut self.secured else { return };
        if secured.endpoint.poll_timeout().is_some_and(|at| at <= self.now.instant) {
            secured.endpoint.handle_timeout(self.now.instant, &mut secured.out);
            self.take_dtls_events(None);
        }
    }

    /// When something of handshakes is due.
    pub(super) fn dtls_timeout(&self) -> Option<Instant> {
        self.secured.as_ref()?.endpoint.poll_timeout()
    }

    /// Forgets a peer, which hears of it if it speaks DTLS.
    pub(super) fn forget(&mut self, key: Key) {
        let name = self.table.name(key);
        let Some(served) = self.table.remove(key) else { return };
        if let (Some(Name::Session(session)), Some(secured)) = (name, &mut self.secured) {
            secured.endpoint.close(self.now.instant, session, &mut secured.out);
            secured.flush(&self.datagrams, Some(served.way));
        }
    }

    /// Has handshakes done as the endpoint has it from now on.
    pub(super) fn renew_dtls(&mut self) {
        if let (Some(secured), Some(dtls)) = (&mut self.secured, &self.endpoint.dtls)
            && !Arc::ptr_eq(&secured.engine, &dtls.engine)
        {
            secured.engine = Arc::clone(&dtls.engine);
            secured.endpoint.set_engine(Arc::clone(&dtls.engine));
        }
    }

    /// Sends what there is to send, and takes what happened; `came` is the datagram by which it did.
    fn take_dtls_events(&mut self, came: Option<(Way, &[u8])>) {
        let way = came.map(|(way, _)| way);
        loop {
            let Some(secured) = &mut self.secured else { return };
            if !secured.out.is_empty() {
                secured.flush(&self.datagrams, way);
            }
            let Some(event) = secured.endpoint.poll_event() else { break };
            self.take_dtls_event(event, came);
        }
        self.count();
    }

    fn take_dtls_event(&mut self, event: Event, came: Option<(Way, &[u8])>) {
        let way_of = |peer: SocketAddr| {
            let way = came.map(|(way, _)| way).filter(|way| way.peer == peer);
            way.unwrap_or(Way { peer, own: None })
        };
        match event {
            Event::Closed { session, reason } => {
                debug!(route = %self.endpoint.gate.route, %reason, "a session of DTLS is over");
                self.input_of(session, |relay, key| relay.input(key, Input::Left));
            }
            Event::Connected { session, address, identity, .. } => {
                self.welcome(session, way_of(address), identity);
            }
            Event::Data { session, payload } => {
                let Some((way, datagram)) = came else { return };
                let Some(payload) = datagram.get(payload) else { return };
                self.input_of(session, |relay, key| relay.take_message(key, Some(way), payload));
            }
            Event::EarlyData { session, payload } => {
                self.input_of(session, |relay, key| relay.take_message(key, None, &payload));
            }
            Event::Failed { address, fault, .. } => {
                debug!(route = %self.endpoint.gate.route, peer = %canonical(address), %fault, "no session came about");
            }
            Event::KeyWanted { handshake, identity, .. } => self.look_for_key(handshake, &identity),
            Event::Moved { session, address } => {
                let way = way_of(address);
                self.input_of(session, |relay, key| relay.relocate(key, way));
            }
        }
    }

    fn input_of(&mut self, session: SessionId, act: impl FnOnce(&mut Self, Key)) {
        if let Some(key) = self.table.at(Name::Session(session)) {
            act(self, key);
        }
    }

    /// A handshake is complete: its client gets a place, or hears that there is none.
    fn welcome(&mut self, session: SessionId, way: Way, identity: Identity) {
        let address = canonical(way.peer);
        match self.make_room(address) {
            Ok(permit) => {
                // only an identity in UTF-8 has a key
                let psk_identity = identity.psk.and_then(|name| String::from_utf8(name.into()).ok());
                let peer = Peer {
                    address,
                    certificate: identity.certificates.into_iter().next(),
                    psk_identity: psk_identity.map(Into::into),
                    is_encrypted: true,
                };
                let served = Served::new(Session::new(&self.endpoint, peer, self.now), way);
                let key = self.table.add((Name::Session(session), address), served, permit);
                self.perform(key);
            }
            Err(bound) => {
                self.refuse(address, bound);
                self.siblings.wish(way, None);
                if let Some(secured) = &mut self.secured {
                    secured.endpoint.close(self.now.instant, session, &mut secured.out);
                }
            }
        }
    }

    fn give_key(&mut self, handshake: HandshakeId, key: Option<&Psk>) {
        if let Some(secured) = &mut self.secured {
            let key = key.map(Psk::reveal);
            secured.endpoint.give_key(self.now.instant, handshake, key, &mut secured.out);
        }
    }

    fn look_for_key(&mut self, handshake: HandshakeId, identity: &[u8]) {
        let limits = &self.endpoint.gate.limits;
        let (authenticators, now) = (&self.endpoint.gate.authenticators, self.now);
        let search = match str::from_utf8(identity) {
            // who panics knows no key
            Ok(identity) => catch_unwind(AssertUnwindSafe(|| authenticators.key(identity, now))),
            Err(_) => Ok(KeySearch::Unknown),
        };
        match search {
            Ok(KeySearch::Found(key)) => self.give_key(handshake, Some(&key)),
            Ok(KeySearch::Pending(found)) => {
                let Some(secured) = &mut self.secured else { return };
                if secured.searches.len() >= secured.settings.max_handshakes {
                    return self.give_key(handshake, None);
                }
                let found = background::timeout(limits.decision_timeout, background::run(found));
                let found = AssertUnwindSafe(found).catch_unwind();
                secured.searches.push(Box::pin(async move {
                    (handshake, found.await.ok().and_then(Result::ok).flatten())
                }));
            }
            Ok(KeySearch::Unknown) | Err(_) => self.give_key(handshake, None),
        }
    }

    /// Lets the route know what was counted. Forged records are told of as often as they double: there may be a flood.
    fn count(&mut self) {
        let Some(secured) = &mut self.secured else { return };
        let now = secured.endpoint.statistics();
        if now == secured.counted {
            return;
        }
        if let Some(count) = self.endpoint.counts.add(&secured.counted, &now) {
            warn!(route = %self.endpoint.gate.route, count, "records of DTLS that are not authentic are dropped");
        }
        secured.counted = now;
    }
}
