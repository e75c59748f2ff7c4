//! Starts all routes, hands connections to workers, and stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mgate_policies::{Now, Policy, Transform};
use mgate_proxy::coap::relay::shard::Shard;
use mgate_proxy::gate::{Authenticator, Mirror};
use mgate_proxy::listener::{Admission, Listener};
use mgate_proxy::transport::UdpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::admin;
use crate::config::{Config, Environment, Extensions, RouteConfig, Speech};
use crate::control::{Control, Fixed, Steered};
use crate::mirror::RunningMirrors;
use crate::route::{Connection, Counted, Route, Steering};
use crate::workers::Workers;

/// A gateway that serves; it stops when told to, or when dropped.
pub struct Gateway {
    control: Arc<Control>,
    listening: Vec<Listening>,
    accepting: JoinSet<()>,
    admin: JoinSet<()>,
    /// Yields nothing: it ends when the last connection has given its sender back.
    connections: mpsc::Receiver<Infallible>,
    workers: Arc<Workers>,
}

/// A route and the address that it listens at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The route's name.
    pub route: Arc<str>,
    /// Where it listens; a port of 0 in the configuration became a real one.
    pub address: SocketAddr,
}

/// Makes a gateway with policies, authenticators, mirrors and transforms of one's own.
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
    pub fn start(mut config: Config) -> anyhow::Result<Self> {
        raise_descriptor_limit();
        let fixed = Fixed::of(&config);
        let workers = config.workers;
        let routes = by_listener(std::mem::take(&mut config.routes));
        let routes = routes.into_iter().map(|routes| listen(routes, workers));
        let (routes, listeners): (Vec<_>, Vec<_>) =
            routes.collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip();
        let admin = config.admin.as_ref().map(|admin| admin::Listener::bind(admin.listen)).transpose()?;
        let workers = Arc::new(Workers::start(config.workers)?);
        let mirrors = RunningMirrors::default();
        mirrors.start(&config.mirrors, &config.health)?;
        let control = Control::new(config, routes, &workers, (fixed, mirrors));
        control.start_authenticators();
        let (connection, connections) = mpsc::channel(1);
        let mut gateway = Self::idle(control, connections, workers);
        for (route, listener) in gateway.control.routes().iter().zip(listeners) {
            for (number, Listening { route: name, address }) in route.listening().into_iter().enumerate() {
                info!(route = %name, protocol = route.steering.protocol(number), %address, "listening");
            }
            let serving = Serving {
                route: Arc::clone(route.steering.route()),
                workers: Arc::clone(&gateway.workers),
                connection: connection.clone(),
            };
            match listener {
                Socket::Tcp(listener) => drop(gateway.accepting.spawn(accept(listener, serving))),
                Socket::Udp(shards) => serving.relay(shards, route.steering.admission()),
            }
        }
        if let Some(admin) = admin {
            info!(address = %admin.address()?, "listening for operators");
            gateway.admin.spawn(admin.serve(Arc::clone(&gateway.control)));
        }
        Ok(gateway)
    }

    /// Where its routes listen that were there at the start.
    pub fn listening(&self) -> &[Listening] {
        &self.listening
    }

    /// What changes it while it serves.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Stops listening, says goodbye to every client, and waits for their sessions to end, not longer than
    /// the configuration's `drain_timeout`. What mirrors still have goes out in the same time.
    pub async fn stop(mut self) {
        info!(sessions = self.workers.connections(), "stopping");
        let deadline = Now::read().instant + self.control.drain_timeout();
        self.accepting.shutdown().await;
        self.control.stop();
        if timeout(self.control.drain_timeout(), self.connections.recv()).await.is_err() {
            warn!(sessions = self.workers.connections(), "sessions did not end in time and are cut off");
        }
        // what the last sessions said goes out too
        let deadline = deadline.max(Now::read().instant + LAST_COPIES);
        self.control.mirrors().stop(deadline).await;
        self.admin.shutdown().await;
        info!("stopped");
    }

    fn idle(control: Arc<Control>, connections: mpsc::Receiver<Infallible>, workers: Arc<Workers>) -> Self {
        let listening = control.routes().iter().flat_map(Steered::listening).collect();
        Self { control, listening, accepting: JoinSet::new(), admin: JoinSet::new(), connections, workers }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.control.stop();
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

    /// Adds a transform that routes can name, as if there were a `[transform.<its name>]`.
    pub fn transform(mut self, transform: Arc<dyn Transform>) -> Self {
        self.extensions.transforms.push(transform);
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
    connection: mpsc::Sender<Infallible>,
}

/// The routes, with those behind each that share its listener.
fn by_listener(routes: Vec<RouteConfig>) -> Vec<(RouteConfig, Vec<RouteConfig>)> {
    let mut listeners: Vec<(RouteConfig, Vec<RouteConfig>)> = Vec::new();
    for route in routes {
        match listeners.iter_mut().find(|(first, _)| first.shares_listener(&route)) {
            Some((_, others)) => others.push(route),
            None => listeners.push((route, Vec::new())),
        }
    }
    listeners
}

/// What a route listens with.
enum Socket {
    Tcp(Listener),
    /// One for each worker.
    Udp(Vec<Shard>),
}

impl Socket {
    fn of_datagrams(address: SocketAddr, workers: NonZeroUsize) -> io::Result<(Self, SocketAddr)> {
        let listeners = UdpListener::bind_several(address, workers.get().min(Shard::MAX))?;
        let address = listeners[0].local_addr()?;
        Ok((Self::Udp(Shard::of(listeners)), address))
    }

    fn of_connections(address: SocketAddr, steering: &Steering) -> io::Result<(Self, SocketAddr)> {
        let listener = Listener::bind(address, steering.route().name(), steering.admission().clone())?;
        let address = listener.local_addr();
        Ok((Self::Tcp(listener), address))
    }
}

impl Serving {
    /// Has each worker serve the datagrams of a socket.
    fn relay(self, shards: Vec<Shard>, admission: &Admission) {
        let Self { route, workers, connection } = self;
        let relay = |shard| Arc::clone(&route).relay(shard, admission.clone(), connection.clone());
        workers.spread(shards.into_iter().map(relay));
    }
}

fn listen(
    (config, others): (RouteConfig, Vec<RouteConfig>),
    workers: NonZeroUsize,
) -> anyhow::Result<(Steered, Socket)> {
    let (address, route) = (config.listen_address, Arc::clone(&config.name));
    let is_datagrams = matches!(config.speech, Speech::Coap(_));
    let steering = Steering::new(config, others);
    let bound = match is_datagrams {
        true => Socket::of_datagrams(address, workers),
        false => Socket::of_connections(address, &steering),
    };
    let (socket, address) = bound.with_context(|| format!("route {route}: cannot listen at {address}"))?;
    Ok((Steered { address, steering }, socket))
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
        let of_gateway = serving.connection.clone();
        serving.workers.spawn(|of_worker| {
            let counted = Counted { _of_gateway: of_gateway, _of_worker: of_worker };
            route.serve(Connection { tcp, peer, permit, counted })
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

/// Time that mirrors have at least when all sessions have ended.
const LAST_COPIES: Duration = Duration::from_secs(1);
