//! One listener and where it leads: transport, protocol and everything around a session.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use mgate_policies::Scope;
use mgate_proxy::gate::{Gate, Limits, Observer};
use mgate_proxy::listener::{Admission, Bounds, Permit};
use mgate_proxy::mqtt::relay::Relaying;
use mgate_proxy::mqtt::{Endpoint, Options};
use mgate_proxy::signal::Signal;
use mgate_proxy::transport::{Acceptor, Connector};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::config::RouteConfig;
use crate::observer::LogObserver;

/// One route, as all its connections share it.
pub(crate) struct Route {
    name: Arc<str>,
    ways: RwLock<Arc<Ways>>,
    signal: watch::Receiver<Signal<Endpoint>>,
}

/// What changes a route while it serves; without it, the route's sessions end.
pub(crate) struct Steering {
    route: Arc<Route>,
    signal: watch::Sender<Signal<Endpoint>>,
    admission: Admission,
    observer: Arc<dyn Observer>,
}

/// How new connections come and where they are led.
struct Ways {
    acceptor: Acceptor,
    connector: Arc<Connector>,
}

/// A connection to be served.
pub(crate) struct Connection {
    pub(crate) tcp: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) permit: Permit,
    /// Dropped when it ends.
    pub(crate) _counted: Counted,
}

/// What tells that a connection is open: to the gateway, and to its worker.
pub(crate) struct Counted {
    pub(crate) _of_gateway: mpsc::Sender<Infallible>,
    pub(crate) _of_worker: Arc<()>,
}

impl Steering {
    /// The route that the configuration describes.
    pub(crate) fn new(config: RouteConfig) -> Self {
        let observer: Arc<dyn Observer> = Arc::new(LogObserver::new(&config.name));
        let admission = Admission::new(bounds(&config.limits), config.trusted.clone());
        let name = Arc::clone(&config.name);
        let (ways, gate, options) = parts(config, &observer);
        let (signal, watched) = watch::channel(Signal::new(Endpoint::new(gate, options)));
        let route = Arc::new(Route { name, ways: RwLock::new(Arc::new(ways)), signal: watched });
        Self { route, signal, admission, observer }
    }

    /// Takes over what the configuration says: for new connections all of it, for live sessions what they ask
    /// and are limited by. Returns the new epoch.
    pub(crate) fn renew(&self, config: RouteConfig) -> u64 {
        self.admission.limit(bounds(&config.limits));
        let (ways, gate, options) = parts(config, &self.observer);
        *self.route.ways.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ways);
        let endpoint = self.signal.borrow().endpoint().renewed(gate, options);
        self.change(|signal| signal.renew(endpoint))
    }

    /// Has its policies forget what they decided.
    pub(crate) fn forget(&self, scope: &Scope) {
        self.endpoint().gate.policies.forget(scope);
    }

    /// Has live sessions ask again for all that they hold. Returns the new epoch.
    pub(crate) fn revoke(&self, scope: &Scope) -> u64 {
        self.change(|signal| signal.revoke(scope.clone()))
    }

    /// Tells all sessions to end.
    pub(crate) fn stop(&self) {
        self.change(Signal::stop);
    }

    pub(crate) fn route(&self) -> &Arc<Route> {
        &self.route
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(crate) fn endpoint(&self) -> Arc<Endpoint> {
        Arc::clone(self.signal.borrow().endpoint())
    }

    fn change<T: Default>(&self, change: impl FnOnce(&mut Signal<Endpoint>) -> T) -> T {
        let mut result = T::default();
        self.signal.send_modify(|signal| result = change(signal));
        result
    }
}

impl Route {
    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, connection: Connection) {
        let Connection { tcp, peer, mut permit, _counted } = connection;
        // registered again: with the runtime of this thread
        let Ok(tcp) = TcpStream::from_std(tcp) else { return };
        let ways = Arc::clone(&self.ways.read().unwrap_or_else(PoisonError::into_inner));
        let accepted = tokio::select! {
            accepted = ways.acceptor.accept(tcp, peer, |address| permit.charge(address)) => accepted,
            () = stopped(self.signal.clone()) => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(route = %self.name, %peer, %error, "no connection came about");
                return;
            }
        };
        let connector = Arc::clone(&ways.connector);
        drop(ways);
        Relaying::new(connector, accepted, self.signal.clone()).await;
    }
}

/// Waits until sessions are to end.
async fn stopped(mut signal: watch::Receiver<Signal<Endpoint>>) {
    let _ = signal.wait_for(Signal::is_stopping).await;
}

fn bounds(limits: &Limits) -> Bounds {
    Bounds { connections: limits.connections, connections_per_address: limits.connections_per_address }
}

fn parts(config: RouteConfig, observer: &Arc<dyn Observer>) -> (Ways, Gate, Options) {
    let ways = Ways { acceptor: config.acceptor, connector: Arc::new(config.connector) };
    let gate = Gate {
        route: config.name,
        authenticators: config.authenticators,
        transforms: config.transforms,
        policies: config.policies,
        mirror: config.mirror,
        observer: Arc::clone(observer),
        limits: config.limits,
    };
    (ways, gate, config.mqtt)
}
