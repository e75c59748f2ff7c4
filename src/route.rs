//! One listener and where it leads: transport, protocol and everything around a session.

use std::net::SocketAddr;
use std::sync::Arc;

use mgate_proxy::gate::{Gate, Observer};
use mgate_proxy::listener::{Admission, Bounds, Permit};
use mgate_proxy::mqtt::{Endpoint, relay};
use mgate_proxy::transport::{Acceptor, Connector};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::debug;

use crate::config::RouteConfig;

/// One route, as all its connections share it.
pub(crate) struct Route {
    name: Arc<str>,
    acceptor: Acceptor,
    connector: Arc<Connector>,
    endpoint: Endpoint,
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
    pub(crate) async fn serve(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        mut permit: Permit,
        mut stop: watch::Receiver<bool>,
    ) {
        let accepted = tokio::select! {
            accepted = self.acceptor.accept(tcp, peer) => accepted,
            _ = stop.changed() => return,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(route = %self.name, %peer, %error, "no connection came about");
                return;
            }
        };
        if let Err(bound) = permit.charge(accepted.peer.ip()) {
            debug!(route = %self.name, peer = %accepted.peer, %bound, "the client has too many connections");
            return;
        }
        relay::run(&self.endpoint, &self.connector, accepted, stop).await;
    }
}
