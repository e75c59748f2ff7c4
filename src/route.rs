//! One listener and where it leads: transport, protocol and everything around a session.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use mgate_proxy::gate::{Gate, Observer};
use mgate_proxy::listener::{Admission, Bounds, Permit};
use mgate_proxy::mqtt::Endpoint;
use mgate_proxy::mqtt::relay::Relaying;
use mgate_proxy::transport::{Acceptor, Connector};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use crate::config::RouteConfig;

/// One route, as all its connections share it.
pub(crate) struct Route {
    name: Arc<str>,
    acceptor: Acceptor,
    connector: Arc<Connector>,
    endpoint: Endpoint,
}

/// A connection to be served.
pub(crate) struct Connection {
    pub(crate) tcp: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) permit: Permit,
    pub(crate) stop: watch::Receiver<bool>,
    /// Dropped when it ends.
    pub(crate) _counted: Counted,
}

/// What tells that a connection is open: to the gateway, and to its worker.
pub(crate) struct Counted {
    pub(crate) _of_gateway: mpsc::Sender<Infallible>,
    pub(crate) _of_worker: Arc<()>,
}

impl Route {
    /// The route that the configuration describes, and the bounds of its listener.
    pub(crate) fn new(config: RouteConfig, observer: Arc<dyn Observer>) -> (Self, Admission) {
        let limits = &config.limits;
        let bounds = Bounds {
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
        };
        let admission = Admission::new(bounds, config.trusted);
        let gate = Gate {
            route: Arc::clone(&config.name),
            authenticators: config.authenticators,
            policies: config.policies,
            mirror: config.mirror,
            observer,
            limits: config.limits,
        };
        let route = Self {
            name: config.name,
            acceptor: config.acceptor,
            connector: Arc::new(config.connector),
            endpoint: Endpoint::new(gate, config.mqtt),
        };
        (route, admission)
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, connection: Connection) {
        let Connection { tcp, peer, mut permit, mut stop, _counted } = connection;
        // registered again: with the runtime of this thread
        let Ok(tcp) = TcpStream::from_std(tcp) else { return };
        let accepted = tokio::select! {
            accepted = self.acceptor.accept(tcp, peer, |address| permit.charge(address)) => accepted,
            _ = stop.changed() => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(route = %self.name, %peer, %error, "no connection came about");
                return;
            }
        };
        Relaying::new(&self.endpoint, &self.connector, accepted, stop).await;
    }
}
