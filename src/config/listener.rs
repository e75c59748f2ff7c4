//! What belongs to a listener: routes of HTTP may share one, with routes of MQTT over WebSocket behind them, and then
//! the first of them says it for all.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mgate_policies::Cidr;
use mgate_proxy::gate::Limits;
use mgate_proxy::http::Options;
use mgate_proxy::transport::{Acceptor, WebSocketOptions};

use super::RouteConfig;
use super::problem::Report;
use super::section::{Given, Section};
use super::tls;
use super::values::{Address, Scheme};

/// Where a route listens, as far as nothing is wrong with it.
pub(super) struct Listen {
    pub(super) written: Option<Given<Address>>,
    pub(super) address: Option<SocketAddr>,
}

/// What tells listeners apart: the scheme is one of HTTP.
pub(super) type Key = (Scheme, SocketAddr);

/// How connections come to a listener.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) trusted: Vec<Cidr>,
}

/// A listener as the first of its routes says it.
pub(super) struct Listener {
    pub(super) key: Key,
    /// The first of its routes.
    pub(super) route: String,
    /// `None` where something is wrong with it, which is recorded.
    pub(super) front: Option<Front>,
    pub(super) asks_for_certificates: bool,
    pub(super) limits: Limits,
    pub(super) keepalive: Option<Duration>,
    pub(super) options: Options,
    /// Its `tls` and `proxy_protocol`, as they are written.
    pub(super) tables: [String; 2],
}

/// The listeners of the routes so far that others may share.
#[derive(Default)]
pub(super) struct Listeners(Vec<Rc<Listener>>);

impl Listen {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let written = section.parse("listen", str::parse::<Address>);
        let address =
            written.as_ref().and_then(|listen| section.check(&listen.place, resolve(&listen.value)));
        Self { written, address }
    }

    pub(super) fn scheme(&self) -> Option<Scheme> {
        self.written.as_ref().map(|listen| listen.value.scheme)
    }

    /// That of the listener which others may share with it; a port of 0 is another one each time.
    pub(super) fn key(&self) -> Option<Key> {
        self.scheme().and_then(Scheme::of_http).zip(self.address.filter(|address| address.port() != 0))
    }
}

impl Listeners {
    /// The one that a route shares which listens like this.
    pub(super) fn find(&self, listen: &Listen) -> Option<Rc<Listener>> {
        let key = listen.key()?;
        self.0.iter().find(|other| other.key == key).cloned()
    }

    pub(super) fn add(&mut self, listener: Listener) {
        self.0.push(Rc::new(listener));
    }
}

impl Listener {
    /// How connections come to one more of its routes, which may leave out what the first says, or say the same.
    pub(super) fn join(&self, section: &mut Section<'_>) -> Option<Front> {
        for (written, (key, keys)) in self.tables.iter().zip(TABLES) {
            let table = section.section(key);
            if table.is_given(keys) && table.written() != *written {
                section.problem(key, self.is_other());
            }
        }
        self.front.clone()
    }

    /// What limits are where a route of this scheme says nothing.
    pub(super) fn default_limits(&self, scheme: Scheme) -> Limits {
        let Limits { connections, connections_per_address, handshake_timeout, .. } = self.limits;
        let default = Limits { connections, connections_per_address, handshake_timeout, ..Limits::default() };
        let Limits { connect_timeout, idle_timeout, stall_timeout, .. } = self.limits;
        match scheme.is_http() {
            true => Limits { connect_timeout, idle_timeout, stall_timeout, ..default },
            // they are for its sessions
            false => default,
        }
    }

    /// Records what a route of this scheme says otherwise.
    pub(super) fn check_limits(
        &self,
        section: &Section<'_>,
        scheme: Scheme,
        limits: &Limits,
        keepalive: Option<Duration>,
    ) {
        let ours = &self.limits;
        let is_guest = !scheme.is_http();
        let same = [
            ("connections", limits.connections == ours.connections),
            ("connections_per_address", limits.connections_per_address == ours.connections_per_address),
            ("handshake_timeout", limits.handshake_timeout == ours.handshake_timeout),
            ("connect_timeout", is_guest || limits.connect_timeout == ours.connect_timeout),
            ("idle_timeout", is_guest || limits.idle_timeout == ours.idle_timeout),
            ("stall_timeout", is_guest || limits.stall_timeout == ours.stall_timeout),
            ("tcp_keepalive", keepalive == self.keepalive),
        ];
        self.check(section, &same);
    }

    /// The same for what a route says of HTTP.
    pub(super) fn check_options(&self, section: &Section<'_>, options: &Options) {
        let same = [
            ("trusted", options.trusted == self.options.trusted),
            ("header_bytes", options.header_bytes == self.options.header_bytes),
            ("headers", options.headers == self.options.headers),
        ];
        self.check(section, &same);
    }

    fn check(&self, section: &Section<'_>, same: &[(&str, bool)]) {
        for (key, _) in same.iter().filter(|(_, is_same)| !is_same) {
            section.problem(key, self.is_other());
        }
    }

    fn is_other(&self) -> String {
        format!("is other than for route {}, which has the listener too: leave it out here", self.route)
    }
}

impl RouteConfig {
    /// Whether the two are served by one listener.
    pub(crate) fn shares_listener(&self, other: &Self) -> bool {
        self.first == other.first
    }

    /// The path of what it takes of the requests, or WebSockets, that come to its listener.
    pub(crate) fn path(&self) -> Option<&str> {
        let of_place = self.place().map(|place| place.path.as_str());
        of_place.or_else(|| self.websocket().map(|websocket| websocket.path.as_str()))
    }

    /// Whether its listener may be one of HTTP that others have too.
    pub(crate) fn may_share(&self) -> bool {
        self.listen.scheme.of_http().is_some()
    }

    /// Which WebSockets it takes, if it speaks MQTT by them.
    pub(crate) fn websocket(&self) -> Option<&WebSocketOptions> {
        self.acceptor.websocket()
    }

    /// Whether the two could share a listener if the first of them stood before the other.
    fn could_lead(&self, other: &Self) -> bool {
        let is_same = self.listen_address == other.listen_address && self.listen.scheme.is_http();
        is_same && other.listen.scheme.of_http() == Some(self.listen.scheme)
    }

    /// Whether nothing could say which of the two some WebSockets are for.
    fn takes_websockets_of(&self, other: &Self) -> bool {
        self.websocket().is_some() && other.websocket().is_some() && self.path() == other.path()
    }
}

/// What is written in the tables of a route that belong to its listener.
pub(super) fn written(section: &mut Section<'_>) -> [String; 2] {
    TABLES.map(|(key, _)| section.section(key).written())
}

/// Records where two routes could not both be.
pub(super) fn check_all(routes: &[RouteConfig], report: &Report) {
    for (index, route) in routes.iter().enumerate() {
        let earlier = &routes[..index];
        let taken = earlier.iter().find(|earlier| collide(earlier, route) && !earlier.shares_listener(route));
        if let Some(earlier) = taken {
            let hint = match route.could_lead(earlier) {
                true => ": to share it, it must stand behind this one",
                false => "",
            };
            report.problem(&route.listen_place, format!("route {} listens there{hint}", earlier.name));
        }
        let takes_it =
            |earlier: &&RouteConfig| earlier.shares_listener(route) && earlier.takes_websockets_of(route);
        if let Some(earlier) = earlier.iter().find(takes_it) {
            let message = format!("route {} takes MQTT there", earlier.name);
            report.problem(&route.path_place, message);
        }
        let Some(place) = route.place() else { continue };
        let is_same = |earlier: &&RouteConfig| {
            earlier.shares_listener(route) && earlier.place().is_some_and(|other| other.collides(place))
        };
        if let Some(earlier) = earlier.iter().find(is_same) {
            let message = format!("route {} serves {} there, for the same host", earlier.name, place.path);
            report.problem(&route.path_place, message);
        }
    }
}

fn resolve(listen: &Address) -> Result<SocketAddr, String> {
    if listen.path.is_some() {
        return Err("the path belongs into `websocket.path`".into());
    }
    let mut addresses = (listen.host.as_str(), listen.port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot find the address of \"{}\": {error}", listen.host))?;
    addresses.next().ok_or_else(|| format!("\"{}\" has no address", listen.host))
}

/// Whether two listeners cannot both be: the unspecified address takes the port on all others of its family.
/// UDP and TCP have ports of their own.
fn collide(one: &RouteConfig, other: &RouteConfig) -> bool {
    let is_same_transport = one.listen.scheme.is_coap() == other.listen.scheme.is_coap();
    let (one, other) = (one.listen_address, other.listen_address);
    let same_host = one.ip() == other.ip()
        || (one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified()));
    is_same_transport && one.port() != 0 && one.port() == other.port() && same_host
}

/// The tables of a route that belong to its listener, with their keys.
const TABLES: [(&str, &[&str]); 2] = [("tls", tls::SERVER_KEYS), ("proxy_protocol", &["accept", "trusted"])];
