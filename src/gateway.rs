//! Starts all routes, hands connections to workers, and stops.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mgate_policies::Policy;
use mgate_proxy::gate::{Authenticator, Mirror};
use mgate_proxy::listener::Listener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::config::{Config, Environment, Extensions};
use crate::observer::LogObserver;
use crate::route::{Connection, Counted, Route};
use crate::workers::Workers;

/// A gateway that serves; it stops when told to, or when dropped.
pub struct Gateway {
    listening: Vec<Listening>,
    stop: watch::Sender<bool>,
    accepting: JoinSet<()>,
    /// Yields nothing: it ends when the last connection has given its sender back.
    connections: mpsc::Receiver<Infallible>,
    workers: Arc<Workers>,
    drain_timeout: Duration,
}

/// A route and the address that it listens at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The route's name.
    pub route: Arc<str>,
    /// Where it listens; a port of 0 in the configuration became a real one.
    pub address: SocketAddr,
}

/// Makes a gateway with policies, authenticators and mirrors of one's own.
#[derive(Default)]
pub struct Builder {
    extensions: Extensions,
}

impl Gateway {
    /// A gateway to which things can be added before it starts.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Listens for all routes, or for none if one of them cannot; must be called in a tokio runtime.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        raise_descriptor_limit();
        let mut routes = Vec::new();
        for route in config.routes {
            let (address, name) = (route.listen_address, Arc::clone(&route.name));
            let observer = Arc::new(LogObserver::new(&name));
            let (route, admission) = Route::new(route, observer);
            let listener = Listener::bind(address, admission)
                .with_context(|| format!("route {name}: cannot listen at {address}"))?;
            routes.push((Listening { route: name, address: listener.local_addr()? }, listener, route));
        }
        let workers = Arc::new(Workers::start(config.workers)?);
        let (stop, stopping) = watch::channel(false);
        let (connection, connections) = mpsc::channel(1);
        let mut accepting = JoinSet::new();
        let mut listening = Vec::new();
        for (place, listener, route) in routes {
            info!(route = %place.route, address = %place.address, "listening");
            listening.push(place);
            let serving = Serving {
                route: Arc::new(route),
                workers: Arc::clone(&workers),
                stopping: stopping.clone(),
                connection: connection.clone(),
            };
            accepting.spawn(accept(listener, serving));
        }
        let drain_timeout = config.drain_timeout;
        Ok(Self { listening, stop, accepting, connections, workers, drain_timeout })
    }

    /// Where it listens.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// Stops listening, says goodbye to every client, and waits for their sessions to end, not longer than
    /// the configuration's `drain_timeout`.
    pub async fn stop(mut self) {
        info!(sessions = self.workers.connections(), "stopping");
        self.accepting.shutdown().await;
        self.stop.send_replace(true);
        if timeout(self.drain_timeout, self.connections.recv()).await.is_err() {
            warn!(sessions = self.workers.connections(), "sessions did not end in time and are cut off");
        }
        info!("stopped");
    }
}

impl Builder {
    /// Adds a policy that routes can name, as if the configuration had a `[policy.<its name>]`.
    pub fn policy(mut self, policy: Arc<dyn Policy>) -> Self {
        self.extensions.policies.push(policy);
        self
    }

    /// Adds an authenticator that routes can name, as if there were an `[authn.<its name>]`.
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.extensions.authenticators.push(authenticator);
        self
    }

    /// Adds a mirror that routes can name, as if there were a `[mirror.<name>]`.
    pub fn mirror(mut self, name: &str, mirror: Arc<dyn Mirror>) -> Self {
        self.extensions.mirrors.push((name.into(), mirror));
        self
    }

    /// Reads the configuration and starts; must be called in a tokio runtime.
    pub fn start(self, file: &Path) -> anyhow::Result<Gateway> {
        Gateway::start(Config::load_with(file, &Environment::of_process(), self.extensions)?)
    }
}

/// What each accept loop hands to the connections that it accepts.
struct Serving {
    route: Arc<Route>,
    workers: Arc<Workers>,
    stopping: watch::Receiver<bool>,
    connection: mpsc::Sender<Infallible>,
}

async fn accept(listener: Listener, serving: Serving) {
    loop {
        let (tcp, peer, permit) = listener.accept().await;
        let tcp = match tcp.into_std() {
            Ok(tcp) => tcp,
            Err(error) => {
                debug!(%peer, %error, "the connection broke before it was served");
                continue;
            }
        };
        let route = Arc::clone(&serving.route);
        let (stop, of_gateway) = (serving.stopping.clone(), serving.connection.clone());
        serving.workers.spawn(|of_worker| {
            let _counted = Counted { _of_gateway: of_gateway, _of_worker: of_worker };
            route.serve(Connection { tcp, peer, permit, stop, _counted })
        });
    }
}

/// Every client costs two descriptors, and the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open descriptors stays as it is");
    }
}
