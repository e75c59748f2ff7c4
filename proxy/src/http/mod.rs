//! HTTP/1.1 and HTTP/2: what a request asks for, who asks, what may go on to the upstream, and what is said where it
//! may not.

mod cors;
mod credentials;
mod guest;
mod headers;
pub mod http1;
mod messages;
mod path;
mod place;
mod problem;
pub mod relay;
mod rewrite;
mod routes;
mod session;
pub mod websocket;

use std::time::Duration;

use mgate_policies::Cidr;

use crate::gate::{Gate, Limits};
use crate::transport::Connector;
use relay::{Places, Rates, Upstream};

pub use cors::Cors;
pub use guest::Guest;
pub use place::Place;
pub use rewrite::Rewriting;
pub use routes::{Member, Routes};

/// What all requests of one route share.
pub struct Endpoint {
    /// What is asked, told and limited.
    pub gate: Gate,
    /// How the route speaks HTTP.
    pub options: Options,
    /// Where it leads; nowhere if messages are mirrored alone.
    upstream: Option<Upstream>,
    rates: Rates,
    websockets: Places,
}

/// How a route speaks HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What requests are.
    pub profile: Profile,
    /// What it takes of the requests that come to its listener.
    pub place: Place,
    /// What becomes of the paths of its requests.
    pub rewriting: Rewriting,
    /// Which pages of other sites may use it; `None` where the upstream says that.
    pub cors: Option<Cors>,
    /// The web sites whose pages may open a WebSocket; `*` allows each. A page of the very host that it connects to
    /// always may, and so may a client that names no origin.
    pub origins: Vec<String>,
    /// Proxies in front: what they say of their clients is passed on.
    pub trusted: Vec<Cidr>,
    /// Whether the upstream sees the `Authorization` of requests.
    pub forward_authorization: bool,
    /// The names in a query whose values are credentials.
    pub query_credentials: Vec<String>,
    /// The most bytes that a request may carry.
    pub body_bytes: u64,
    /// The most bytes that the head of a request may have.
    pub header_bytes: usize,
    /// The most headers that a request may have.
    pub headers: usize,
    /// The most requests that the upstream is given at a time; more wait for `upstream_timeout`.
    pub upstream_requests: usize,
    /// What the upstream speaks.
    pub upstream_protocol: UpstreamProtocol,
}

/// What the requests of a route are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Messages of Mainflux: each is published to the topic that is its path.
    Messages {
        /// The media types that a message may have; none for any.
        content_types: Vec<String>,
    },
    /// Requests for the upstream, judged by method and path.
    #[default]
    Proxy,
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, over TCP from the first byte on (RFC 9113 §3.3).
    Http2,
    /// Over TLS what it chooses (RFC 7301), otherwise HTTP/1.1.
    #[default]
    Negotiated,
}

impl Options {
    /// The defaults for a route with these limits.
    pub fn of(limits: &Limits) -> Self {
        Self {
            profile: Profile::default(),
            place: Place::default(),
            rewriting: Rewriting::default(),
            cors: None,
            origins: Vec::new(),
            trusted: Vec::new(),
            forward_authorization: false,
            query_credentials: QUERY_CREDENTIALS.map(str::to_owned).into(),
            body_bytes: limits.packet_bytes.try_into().unwrap_or(u64::MAX),
            header_bytes: 16 * 1024,
            headers: 64,
            upstream_requests: 1000,
            upstream_protocol: UpstreamProtocol::default(),
        }
    }

    /// Whether the head of a request means the same by both.
    fn reads_alike(&self, other: &Self) -> bool {
        let Self { profile, rewriting, place, .. } = self;
        *profile == other.profile && *rewriting == other.rewriting && place.path == other.place.path
    }
}

impl Endpoint {
    /// An endpoint that nobody has asked anything yet.
    pub fn new(gate: Gate, options: Options, upstream: Option<Connector>) -> Self {
        let upstream = upstream.map(|connector| Upstream::new(connector, &options));
        let rates = Rates::new(gate.limits.connections);
        let websockets = Places::new(gate.limits.connections);
        Self { gate, options, upstream, rates, websockets }
    }

    /// The same for sessions that have begun by `before`: what is open stays counted.
    #[must_use]
    pub fn following(mut self, before: &Self) -> Self {
        self.websockets.share(&before.websockets);
        self
    }

    /// How long a connection may be without a request.
    fn keep_alive(&self) -> Duration {
        self.gate.limits.idle_timeout.unwrap_or(KEEP_ALIVE)
    }
}

/// Those of Mainflux and mProxy, and that of RFC 6750 §2.3.
const QUERY_CREDENTIALS: [&str; 3] = ["access_token", "auth", "authorization"];

const KEEP_ALIVE: Duration = Duration::from_secs(60);
