//! One listener and where it leads: transport, protocol and everything around a session. Routes of HTTP may share
//! one, and have guests there that speak MQTT over WebSocket.

mod guests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use mgate_dtls::Statistics;
use mgate_policies::Scope;
use mgate_proxy::coap::relay::shard::Shard;
use mgate_proxy::gate::{Gate, Limits, Observer};
use mgate_proxy::http::Member;
use mgate_proxy::listener::{Admission, Bounds, Permit};
use mgate_proxy::mqtt::relay::Relaying;
use mgate_proxy::signal::Signal;
use mgate_proxy::transport::{Acceptor, Connector};
use mgate_proxy::{coap, http, mqtt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::config::{Address, RouteConfig, Speech};
use crate::observer::{LogObserver, Strangers};
use guests::Guests;

/// The routes of one listener, as all its connections share them.
pub(crate) struct Route {
    /// The names of those that were there at the start.
    name: Box<str>,
    ways: RwLock<Arc<Ways>>,
    protocol: Protocol,
    strangers: Strangers,
}

/// What changes the routes of a listener while they serve; without it, their sessions end.
pub(crate) struct Steering {
    route: Arc<Route>,
    sender: Sender,
    admission: Admission,
    /// Where it listens, as written.
    address: SocketAddr,
}

/// How new connections come and, where each has an upstream connection of its own, where they are led.
struct Ways {
    acceptor: Arc<Acceptor>,
    connector: Option<Arc<Connector>>,
}

/// What the sessions of a route watch, whatever they speak.
enum Protocol {
    Coap(watch::Receiver<Signal<coap::Endpoint>>),
    Http(watch::Receiver<Signal<http::Routes>>),
    Mqtt(watch::Receiver<Signal<mqtt::Endpoint>>),
}

/// The other end of that.
enum Sender {
    Coap(watch::Sender<Signal<coap::Endpoint>>),
    Http(watch::Sender<Signal<http::Routes>>, Guests),
    Mqtt(watch::Sender<Signal<mqtt::Endpoint>>),
}

/// What a configuration makes of a route.
struct Parts {
    ways: Ways,
    gate: Gate,
    speech: Speech,
    /// Where the protocol shares connections to it.
    upstream: Option<Connector>,
    /// Where datagrams go.
    address: Option<coap::Upstream>,
    /// How peers speak DTLS.
    dtls: Option<coap::Dtls>,
}

/// A connection to be served.
pub(crate) struct Connection {
    pub(crate) tcp: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) permit: Permit,
    /// Dropped when it ends.
    pub(crate) counted: Counted,
}

/// What tells that a connection is open: to the gateway, and to its worker.
pub(crate) struct Counted {
    pub(crate) _of_gateway: mpsc::Sender<Infallible>,
    pub(crate) _of_worker: Arc<()>,
}

impl Steering {
    /// The route that the configuration describes, and others that share its listener.
    pub(crate) fn new(config: RouteConfig, others: Vec<RouteConfig>) -> Self {
        let names: Vec<&str> = [&config].into_iter().chain(&others).map(|config| &*config.name).collect();
        let name: Box<str> = names.join(", ").into();
        let strangers = Strangers::new(&name);
        let (admission, listen_address) =
            (Admission::new(bounds(&config.limits), config.trusted.clone()), config.listen_address);
        let Parts { ways, gate, speech, upstream, address, dtls } = Parts::new(config);
        let (sender, protocol) = match speech {
            Speech::Coap(options) => {
                let endpoint = coap::Endpoint::new(gate, options, address).secured(dtls);
                let (sender, watched) = watch::channel(Signal::new(endpoint));
                (Sender::Coap(sender), Protocol::Coap(watched))
            }
            Speech::Http(options) => {
                let first = Some(http::Endpoint::new(gate, *options, upstream));
                let (others, guests): (Vec<_>, Vec<_>) = others.into_iter().partition(speaks_http);
                let others = others.into_iter().map(|config| Parts::new(config).endpoint());
                let members = [first].into_iter().chain(others).flatten().map(stays).collect();
                let guests = Guests::new(guests, admission.clone());
                let routes = http::Routes::new(members, guests.seen());
                let (sender, watched) = watch::channel(Signal::new(routes));
                (Sender::Http(sender, guests), Protocol::Http(watched))
            }
            Speech::Mqtt(options) => {
                let (sender, watched) = watch::channel(Signal::new(mqtt::Endpoint::new(gate, options)));
                (Sender::Mqtt(sender), Protocol::Mqtt(watched))
            }
        };
        let route = Arc::new(Route { name, ways: RwLock::new(Arc::new(ways)), protocol, strangers });
        Self { route, sender, admission, address: listen_address }
    }

    /// Whether the route of this number goes on to speak what it speaks: its sessions can take over nothing else.
    pub(crate) fn can_become(&self, number: usize, config: &RouteConfig) -> bool {
        match (&self.sender, &config.speech) {
            (Sender::Coap(sender), Speech::Coap(_)) => {
                sender.borrow().endpoint().dtls.is_some() == config.dtls.is_some()
            }
            (Sender::Mqtt(_), Speech::Mqtt(_)) => true,
            (Sender::Http(sender, _), Speech::Http(_)) => number < members(sender),
            // also without a WebSocket: what it allows is for those who are there
            (Sender::Http(sender, _), Speech::Mqtt(_)) => number >= members(sender),
            _ => false,
        }
    }

    /// Whether a route belongs to its listener, which others may share.
    pub(crate) fn takes_in(&self, config: &RouteConfig) -> bool {
        let is_shared = matches!(self.sender, Sender::Http(..)) && self.address.port() != 0;
        is_shared && config.may_share() && config.listen_address == self.address
    }

    /// The names of its routes, in the order of their numbers, which those of guests follow.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.with_gates(|gate| Arc::clone(&gate.route))
    }

    /// What the route of this number speaks.
    pub(crate) fn protocol(&self, number: usize) -> &'static str {
        match &self.sender {
            Sender::Coap(sender) if sender.borrow().endpoint().dtls.is_some() => "coaps",
            Sender::Coap(_) => "coap",
            Sender::Http(sender, _) if number < members(sender) => "http",
            Sender::Http(..) | Sender::Mqtt(_) => "mqtt",
        }
    }

    /// Takes over what the configuration says of each route, or of some of them, and of new ones behind them: for new
    /// connections all of it, for live sessions what they ask and are limited by. Returns the new epoch.
    pub(crate) fn renew(&self, mut configs: Vec<Option<RouteConfig>>) -> u64 {
        match &self.sender {
            Sender::Http(sender, guests) => self.renew_all(sender, guests, configs),
            Sender::Coap(_) | Sender::Mqtt(_) => match configs.pop().flatten() {
                Some(config) => self.renew_one(config),
                None => self.revoke(&Scope::Everyone),
            },
        }
    }

    /// Has its policies forget what they decided.
    pub(crate) fn forget(&self, scope: &Scope) {
        self.with_gates(|gate| gate.policies.forget(scope));
    }

    /// Has live sessions ask again for all that they hold. Returns the new epoch.
    pub(crate) fn revoke(&self, scope: &Scope) -> u64 {
        match &self.sender {
            Sender::Coap(sender) => change(sender, |signal| signal.revoke(scope.clone())),
            Sender::Http(sender, guests) => {
                change(sender, |signal| signal.revoke(scope.clone())).max(guests.revoke(scope))
            }
            Sender::Mqtt(sender) => change(sender, |signal| signal.revoke(scope.clone())),
        }
    }

    /// Tells all sessions to end.
    pub(crate) fn stop(&self) {
        match &self.sender {
            Sender::Coap(sender) => change(sender, Signal::stop),
            Sender::Http(sender, guests) => {
                guests.stop();
                change(sender, Signal::stop);
            }
            Sender::Mqtt(sender) => change(sender, Signal::stop),
        }
    }

    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// What was counted of DTLS, where peers speak it.
    pub(crate) fn statistics(&self) -> Option<Statistics> {
        match &self.sender {
            Sender::Coap(sender) => sender.borrow().endpoint().statistics(),
            Sender::Http(..) | Sender::Mqtt(_) => None,
        }
    }

    /// What the sessions of each route ask, as it is now.
    pub(crate) fn with_gates<T>(&self, mut look: impl FnMut(&Gate) -> T) -> Vec<T> {
        match &self.sender {
            Sender::Coap(sender) => {
                let endpoint = Arc::clone(sender.borrow().endpoint());
                vec![look(&endpoint.gate)]
            }
            Sender::Http(sender, guests) => {
                let routes = Arc::clone(sender.borrow().endpoint());
                let mut seen: Vec<T> =
                    routes.endpoints().iter().map(|endpoint| look(&endpoint.gate)).collect();
                seen.extend(guests.with_gates(look));
                seen
            }
            Sender::Mqtt(sender) => {
                let endpoint = Arc::clone(sender.borrow().endpoint());
                vec![look(&endpoint.gate)]
            }
        }
    }

    /// Takes over what it says of a route that has its listener for itself.
    fn renew_one(&self, config: RouteConfig) -> u64 {
        self.admission.limit(bounds(&config.limits));
        let observer = self.with_gates(|gate| Arc::clone(&gate.observer)).pop();
        let Parts { ways, gate, speech, address, dtls, .. } = Parts::of(config, observer);
        self.lead(ways);
        match (&self.sender, speech) {
            (Sender::Coap(sender), Speech::Coap(options)) => change(sender, |signal| {
                let endpoint = signal.endpoint().renewed(gate, options, address).secured(dtls);
                signal.renew(endpoint)
            }),
            (Sender::Mqtt(sender), Speech::Mqtt(options)) => change(sender, |signal| {
                let endpoint = signal.endpoint().renewed(gate, options);
                signal.renew(endpoint)
            }),
            _ => 0,
        }
    }

    /// Takes over what it says of routes that share a listener, all at once.
    fn renew_all(
        &self,
        sender: &watch::Sender<Signal<http::Routes>>,
        guests: &Guests,
        mut configs: Vec<Option<RouteConfig>>,
    ) -> u64 {
        let is_here = |config: &RouteConfig| config.listen_address == self.address;
        // where all are to listen elsewhere, what they say of their listener is not for this one
        if let Some(leader) = configs.iter().flatten().find(|config| is_here(config)) {
            self.admission.limit(bounds(&leader.limits));
            let acceptor = Arc::new(leader.acceptor.with_websocket(None));
            self.lead(Ways { acceptor, connector: None });
        }
        let routes = Arc::clone(sender.borrow().endpoint());
        let behind = configs.split_off(routes.endpoints().len());
        let (new, of_guests) =
            behind.into_iter().partition(|config| config.as_ref().is_some_and(speaks_http));
        configs.extend::<Vec<_>>(new);
        let epoch = guests.renew(of_guests, is_here);
        let mut known = routes.endpoints().iter();
        let member = |config: Option<RouteConfig>| {
            let before = known.next();
            let renewed = config.and_then(|config| {
                let is_leaving = !is_here(&config);
                let observer = before.map(|before| Arc::clone(&before.gate.observer));
                let endpoint = Parts::of(config, observer).endpoint()?;
                let endpoint = match before {
                    Some(before) => endpoint.following(before),
                    None => endpoint,
                };
                Some(Member { endpoint: Arc::new(endpoint), is_leaving })
            });
            // one that is gone goes on as it is, where no other one takes its requests
            let stays = |before: &Arc<_>| Member { endpoint: Arc::clone(before), is_leaving: true };
            renewed.or_else(|| before.map(stays))
        };
        let members = configs.into_iter().filter_map(member).collect();
        change(sender, |signal| signal.renew(http::Routes::new(members, guests.seen()))).max(epoch)
    }

    /// Has new connections come and go on like this.
    fn lead(&self, ways: Ways) {
        *self.route.ways.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ways);
    }
}

impl Route {
    /// What logs call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, connection: Connection) {
        let Connection { tcp, peer, mut permit, counted } = connection;
        // registered again: with the runtime of this thread
        let Ok(tcp) = TcpStream::from_std(tcp) else { return };
        let ways = Arc::clone(&self.ways.read().unwrap_or_else(PoisonError::into_inner));
        let accepted = tokio::select! {
            accepted = ways.acceptor.accept(tcp, peer, |address| permit.charge(address)) => accepted,
            () = self.protocol.stopped() => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                match error.is_departure() {
                    true => self.strangers.left(peer, &error),
                    false => self.strangers.refused(peer, &error),
                }
                return;
            }
        };
        let connector = ways.connector.clone();
        drop(ways);
        match (&self.protocol, connector) {
            (Protocol::Http(signal), _) => {
                let counted = Arc::new(counted);
                let kept = Arc::<Counted>::clone(&counted);
                // boxed: a session of MQTT needs no room for it
                let next = Box::pin(http::relay::serve(accepted, signal.clone(), kept)).await;
                if let Some(next) = next {
                    next.await;
                }
            }
            (Protocol::Mqtt(signal), Some(connector)) => {
                Relaying::new(connector, accepted, signal.clone()).await;
            }
            // MQTT without an upstream is no configuration, and CoAP has no connections
            (Protocol::Mqtt(_), None) | (Protocol::Coap(_), _) => {}
        }
    }
}

impl Route {
    /// Serves all datagrams of one of its sockets, until sessions are to end.
    pub(crate) async fn relay(
        self: Arc<Self>,
        shard: Shard,
        admission: Admission,
        _of_gateway: mpsc::Sender<Infallible>,
    ) {
        let Protocol::Coap(signal) = &self.protocol else { return };
        match coap::relay::Relay::new(shard, admission, signal.clone()) {
            Ok(relay) => relay.run().await,
            Err(error) => error!(route = %self.name, %error, "cannot serve datagrams"),
        }
    }
}

impl Protocol {
    /// Waits until sessions are to end.
    async fn stopped(&self) {
        match self {
            Self::Coap(signal) => drop(signal.clone().wait_for(Signal::is_stopping).await),
            Self::Http(signal) => drop(signal.clone().wait_for(Signal::is_stopping).await),
            Self::Mqtt(signal) => drop(signal.clone().wait_for(Signal::is_stopping).await),
        }
    }
}

impl Parts {
    /// Of a route that was not there before.
    fn new(config: RouteConfig) -> Self {
        Self::of(config, None)
    }

    /// Of a route that has an observer, or gets one.
    fn of(config: RouteConfig, observer: Option<Arc<dyn Observer>>) -> Self {
        let observer = observer.unwrap_or_else(|| Arc::new(LogObserver::new(&config.name)));
        let (connector, upstream) = match config.speech {
            Speech::Coap(_) => (None, None),
            Speech::Http(_) => (None, config.connector),
            Speech::Mqtt(_) => (config.connector.map(Arc::new), None),
        };
        let gate = Gate {
            route: config.name,
            authenticators: config.authenticators,
            transforms: config.transforms,
            policies: config.policies,
            mirror: config.mirror,
            observer,
            limits: config.limits,
        };
        let address = config.upstream.map(|Address { host, port, .. }| coap::Upstream { host, port });
        let ways = Ways { acceptor: config.acceptor, connector };
        Self { ways, gate, speech: config.speech, upstream, address, dtls: config.dtls }
    }

    /// What requests of HTTP share.
    fn endpoint(self) -> Option<http::Endpoint> {
        match self.speech {
            Speech::Http(options) => Some(http::Endpoint::new(self.gate, *options, self.upstream)),
            Speech::Coap(_) | Speech::Mqtt(_) => None,
        }
    }
}

fn speaks_http(config: &RouteConfig) -> bool {
    matches!(config.speech, Speech::Http(_))
}

/// How many routes of HTTP there are.
fn members(sender: &watch::Sender<Signal<http::Routes>>) -> usize {
    sender.borrow().endpoint().endpoints().len()
}

fn stays(endpoint: http::Endpoint) -> Member {
    Member { endpoint: Arc::new(endpoint), is_leaving: false }
}

fn bounds(limits: &Limits) -> Bounds {
    Bounds { connections: limits.connections, connections_per_address: limits.connections_per_address }
}

fn change<E, T: Default>(sender: &watch::Sender<Signal<E>>, change: impl FnOnce(&mut Signal<E>) -> T) -> T {
    let mut result = T::default();
    sender.send_modify(|signal| result = change(signal));
    result
}
