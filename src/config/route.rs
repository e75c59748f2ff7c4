use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mgate_policies::{Chain, Cidr, Standing, Transform, Transforms};
use mgate_proxy::gate::{Authenticator, Authenticators, Limits, Mirror};
use mgate_proxy::http::Profile;
use mgate_proxy::mqtt;
use mgate_proxy::mqtt::packet::Version;
use mgate_proxy::mqtt::{OnDeniedPublish, Versions};
use mgate_proxy::transport::{
    Acceptor, AcceptorOptions, Connector, ConnectorOptions, ProxyProtocol, ProxyVersion, WebSocketOptions,
    WebSocketTarget,
};

use super::coap;
use super::definitions::Definitions;
use super::dtls;
use super::environment::variable_of;
use super::files::Files;
use super::http;
use super::limits;
use super::listener::{self, Front, Listen, Listener, Listeners};
use super::problem::{Place, Report};
use super::section::{Given, Section};
use super::tls;
use super::transform;
use super::values::{Address, Scheme};
use crate::authn::IdentityCharset;

/// One listener and where it leads.
#[derive(Clone)]
pub struct RouteConfig {
    /// Its name; no other route has it.
    pub name: Arc<str>,
    /// Where it listens, as written.
    pub listen: Address,
    /// Where it listens.
    pub listen_address: SocketAddr,
    pub(super) listen_place: Place,
    /// Where `http.path`, or `websocket.path`, is or would be.
    pub(super) path_place: Place,
    /// The name of the first of those that share its listener, which may be its own.
    pub(super) first: Arc<str>,
    /// Where it leads; `None` where messages are mirrored alone.
    pub upstream: Option<Address>,
    /// Shakes hands with clients; routes that share a listener share all of it but WebSockets.
    pub acceptor: Arc<Acceptor>,
    /// Shakes hands with clients that speak DTLS; `None` where they do not.
    pub dtls: Option<mgate_proxy::coap::Dtls>,
    /// Dials the upstream.
    pub connector: Option<Connector>,
    /// Load balancers in front, which speak for many clients.
    pub trusted: Vec<Cidr>,
    /// The names of `authenticators`.
    pub authn: Vec<String>,
    /// Find out who a client is.
    pub authenticators: Authenticators,
    /// The names of `transforms`.
    pub transform_names: Vec<String>,
    /// Change what packets say.
    pub transforms: Transforms,
    /// The names of `policies`.
    pub policy_names: Vec<String>,
    /// Say what a client may do.
    pub policies: Chain,
    /// The name of `mirror`.
    pub mirror_name: Option<String>,
    /// Takes copies of what passed.
    pub mirror: Option<Arc<dyn Mirror>>,
    /// What clients may use at the most.
    pub limits: Limits,
    /// What it speaks, and how.
    pub speech: Speech,
}

impl RouteConfig {
    /// What it takes of the requests that come to its listener; `None` where it does not speak HTTP.
    pub fn place(&self) -> Option<&mgate_proxy::http::Place> {
        match &self.speech {
            Speech::Http(options) => Some(&options.place),
            Speech::Coap(_) | Speech::Mqtt(_) => None,
        }
    }
}

/// What a route speaks, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Speech {
    /// CoAP.
    Coap(mgate_proxy::coap::Options),
    /// HTTP.
    Http(Box<mgate_proxy::http::Options>),
    /// MQTT.
    Mqtt(mqtt::Options),
}

impl Speech {
    /// Whether it takes messages, which may be mirrored alone.
    fn has_messages(&self) -> bool {
        match self {
            Self::Coap(options) => options.profile == mgate_proxy::coap::Profile::Messages,
            Self::Http(options) => options.profile != Profile::Proxy,
            Self::Mqtt(_) => false,
        }
    }
}

/// What routes are made of beside their own tables.
pub(super) struct Context<'a> {
    pub(super) authn: Definitions<Authn>,
    pub(super) policies: Definitions<Standing>,
    pub(super) mirrors: Definitions<Arc<dyn Mirror>>,
    pub(super) transforms: Definitions<Arc<dyn Transform>>,
    pub(super) files: &'a Files<'a>,
    pub(super) report: &'a Report,
}

/// An authenticator and what it needs of a route.
pub(super) struct Authn {
    /// `None` for one with problems.
    pub(super) authenticator: Option<Arc<dyn Authenticator>>,
    pub(super) needs_certificates: bool,
    /// Whether it has pre-shared keys.
    pub(super) keys: Keys,
}

/// Whether an authenticator has pre-shared keys, which are of use in DTLS alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    None,
    Some,
    /// Only the program knows that brought it.
    Unknown,
}

/// Reads all routes; what is wrong with one of them, or with them together, is recorded.
pub(super) fn read_all(file: &mut Section<'_>, context: &Context<'_>) -> Vec<RouteConfig> {
    if !file.has("route") {
        file.problem("route", "is missing: without a [[route]] nothing is served");
    }
    file.forbid_empty("route");
    let (mut taken, mut listeners) = (HashMap::new(), Listeners::default());
    let read = |mut section: Section<'_>| {
        let name = name(&mut section, &mut taken);
        read(section, name, context, &mut listeners)
    };
    let routes: Vec<_> = file.list("route", "name").into_iter().filter_map(read).collect();
    listener::check_all(&routes, context.report);
    routes
}

fn read(
    mut section: Section<'_>,
    name: Option<String>,
    context: &Context<'_>,
    listeners: &mut Listeners,
) -> Option<RouteConfig> {
    section.require(&["name", "listen"]);
    let listen = Listen::read(&mut section);
    let scheme = listen.scheme();
    let shared = listeners.find(&listen);
    let (limits, keepalive) = limits::read(section.section("limits"), scheme, shared.as_deref());
    let (asks_for_certificates, front) = match &shared {
        Some(listener) => (listener.asks_for_certificates, join(&mut section, scheme, listener, &limits)),
        None => (
            tls::asks_for_certificates(&mut section.section("tls")),
            front(&mut section, scheme, (&limits, keepalive), context),
        ),
    };
    let (authn, row, has_keys) = authenticators(&mut section, scheme, asks_for_certificates, context);
    check_use(&mut section, "dtls", dtls::KEYS, scheme, Scheme::is_dtls);
    let is_dtls = scheme.is_some_and(Scheme::is_dtls);
    let dtls = is_dtls.then(|| dtls::server(&mut section, has_keys, &limits, context.files));
    let (transform_names, transforms) = transform::of_route(&mut section, context);
    let (policy_names, policies) = policies(&mut section, context);
    let authenticators = Authenticators::new(with_charset(&mut section, row, &policies));
    let mirror_name = section.text("mirror");
    let mirror = mirror_name.as_ref().map(|name| context.mirrors.find(name, context.report).cloned());
    let has_websocket = scheme.is_some_and(Scheme::is_websocket);
    let path_place = section.section(if has_websocket { "websocket" } else { "http" }).place_at("path");
    let speech = speech(&mut section, scheme, &limits, !authn.is_empty(), shared.as_deref());
    if let (None, Speech::Http(options), Some(key)) = (&shared, &speech, listen.key()) {
        listeners.add(Listener {
            key,
            route: name.clone().unwrap_or_default(),
            front: front.clone(),
            asks_for_certificates,
            limits: limits.clone(),
            keepalive,
            options: options.as_ref().clone(),
            tables: listener::written(&mut section),
        });
    }
    if let Some(scheme) = scheme.filter(|scheme| !scheme.is_mqtt() && !transform_names.is_empty()) {
        section.problem("transforms", format!("have no use with {scheme}"));
    }
    let ends_here = speech.has_messages() && mirror_name.is_some() && !section.has("upstream");
    let upstream = match ends_here {
        true => Some((None, None)),
        false => {
            section.require(&["upstream"]);
            upstream(&mut section, scheme, &limits, context.files)
                .map(|(address, connector)| (Some(address), Some(connector)))
        }
    };
    section.finish();
    let (front, (upstream, connector)) = (front?, upstream?);
    let dtls = match dtls {
        Some(dtls) => Some(dtls?),
        None => None,
    };
    let (Given { value: written, place: listen_place }, listen_address) = (listen.written?, listen.address?);
    let name: Arc<str> = name?.into();
    Some(RouteConfig {
        first: shared.map_or_else(|| Arc::clone(&name), |listener| listener.route.as_str().into()),
        name,
        listen: written,
        listen_address,
        listen_place,
        path_place,
        upstream,
        acceptor: front.acceptor,
        dtls,
        connector,
        trusted: front.trusted,
        authn,
        authenticators,
        transform_names,
        transforms,
        policy_names,
        policies,
        mirror_name: mirror_name.map(|name| name.value),
        mirror: mirror.flatten(),
        limits,
        speech,
    })
}

/// How connections come to one more route of a listener of HTTP, which may take WebSockets for MQTT.
fn join(
    section: &mut Section<'_>,
    scheme: Option<Scheme>,
    listener: &Listener,
    limits: &Limits,
) -> Option<Front> {
    check_use(section, "websocket", WEBSOCKET_KEYS, scheme, Scheme::is_websocket);
    let front = listener.join(section);
    if !scheme?.is_websocket() {
        return front;
    }
    let websocket = websocket(section.section("websocket"), limits);
    let Front { acceptor, trusted } = front?;
    Some(Front { acceptor: Arc::new(acceptor.with_websocket(Some(websocket))), trusted })
}

fn front(
    section: &mut Section<'_>,
    scheme: Option<Scheme>,
    (limits, keepalive): (&Limits, Option<Duration>),
    context: &Context<'_>,
) -> Option<Front> {
    let is_encrypted = |scheme: Scheme| scheme.is_tls() || scheme.is_dtls();
    let has_tls = check_use(section, "tls", tls::SERVER_KEYS, scheme, is_encrypted);
    if let Some(scheme) = scheme.filter(|scheme| scheme.is_tls() && !has_tls) {
        section.problem("tls", format!("is missing: {scheme} needs a certificate"));
    }
    let is_tls = has_tls && !scheme.is_some_and(Scheme::is_dtls);
    let tls =
        is_tls.then(|| tls::server(section.section("tls"), scheme.unwrap_or(Scheme::Mqtts), context.files));
    check_use(section, "websocket", WEBSOCKET_KEYS, scheme, Scheme::is_websocket);
    let websocket = websocket(section.section("websocket"), limits);
    check_use(section, "proxy_protocol", PROXY_KEYS, scheme, |scheme| !scheme.is_coap());
    let proxy_protocol = proxy_protocol(section.section("proxy_protocol"));
    let trusted = proxy_protocol.as_ref().map(|proxy| proxy.trusted.clone()).unwrap_or_default();
    let options = AcceptorOptions {
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        websocket: scheme?.is_websocket().then_some(websocket),
        proxy_protocol,
        timeout: limits.handshake_timeout,
        keepalive,
    };
    Some(Front { acceptor: Arc::new(Acceptor::new(options)), trusted })
}

fn upstream(
    section: &mut Section<'_>,
    listen: Option<Scheme>,
    limits: &Limits,
    files: &Files<'_>,
) -> Option<(Address, Connector)> {
    let upstream = section.parse("upstream", str::parse::<Address>);
    if let (Some(listen), Some(upstream)) = (listen, &upstream) {
        let scheme = upstream.value.scheme;
        if scheme.is_dtls() {
            files.report().problem(&upstream.place, "an upstream cannot be spoken to by coaps yet");
        }
        if (listen.is_http(), listen.is_coap()) != (scheme.is_http(), scheme.is_coap()) {
            files
                .report()
                .problem(&upstream.place, format!("a listener of {listen} does not lead to {scheme}"));
        }
    }
    let scheme = upstream.as_ref().map(|upstream| upstream.value.scheme);
    let has_tls = check_use(section, "upstream_tls", tls::CLIENT_KEYS, scheme, Scheme::is_tls);
    let is_tls = scheme.is_some_and(Scheme::is_tls);
    let mut tls_section = section.section("upstream_tls");
    let server_name = tls_section.text("server_name").map(|name| name.value);
    let tls = (is_tls || has_tls).then(|| tls::client(&mut tls_section, files));
    tls_section.finish();
    let Given { value: upstream, place } = upstream?;
    let target = || WebSocketTarget {
        path: upstream.path.clone().unwrap_or_else(|| DEFAULT_PATH.into()),
        max_message_bytes: max_message_bytes(limits),
    };
    let options = ConnectorOptions {
        host: upstream.host.clone(),
        port: upstream.port,
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        server_name,
        websocket: upstream.scheme.is_websocket().then(target),
        timeout: limits.upstream_timeout,
    };
    let connector = section.check(&place, Connector::new(options))?;
    Some((upstream, connector))
}

/// Records a problem if the table `key` is given and the scheme has no use of it; says whether it is given.
fn check_use(
    section: &mut Section<'_>,
    key: &'static str,
    keys: &[&'static str],
    scheme: Option<Scheme>,
    has_use: fn(Scheme) -> bool,
) -> bool {
    let is_given = section.section(key).is_given(keys);
    if let Some(scheme) = scheme.filter(|scheme| is_given && !has_use(*scheme)) {
        section.problem(key, format!("has no use with {scheme}"));
    }
    is_given
}

fn websocket(mut section: Section<'_>, limits: &Limits) -> WebSocketOptions {
    let path = section.parse("path", |path| match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Err(format!("\"{path}\" does not begin with /")),
    });
    let origins = section.texts("origins").unwrap_or_default();
    section.finish();
    WebSocketOptions {
        path: path.map_or_else(|| DEFAULT_PATH.into(), |path| path.value),
        origins: origins.into_iter().map(|origin| origin.value).collect(),
        max_message_bytes: max_message_bytes(limits),
    }
}

fn proxy_protocol(mut section: Section<'_>) -> Option<ProxyProtocol> {
    if !section.is_given(PROXY_KEYS) {
        return None;
    }
    section.require(&["accept", "trusted"]);
    let version = section.one_of("accept", PROXY_VERSIONS);
    let trusted = section.parse_each("trusted", Cidr::parse);
    section.forbid_empty("trusted");
    section.finish();
    Some(ProxyProtocol { trusted, version: version? })
}

fn authenticators(
    section: &mut Section<'_>,
    scheme: Option<Scheme>,
    asks_for_certificates: bool,
    context: &Context<'_>,
) -> (Vec<String>, Vec<Arc<dyn Authenticator>>, bool) {
    let names = section.texts("authn").unwrap_or_default();
    let (mut row, mut has_keys) = (Vec::new(), false);
    for name in &names {
        let Some(authn) = context.authn.find(name, context.report) else { continue };
        if authn.needs_certificates && !asks_for_certificates {
            let message = format!("\"{}\" needs client certificates: set `tls.client_ca`", name.value);
            context.report.problem(&name.place, message);
        }
        if let Some(scheme) = scheme.filter(|scheme| authn.keys == Keys::Some && !scheme.is_dtls()) {
            let message = format!("\"{}\" has keys for coaps, and no use with {scheme}", name.value);
            context.report.problem(&name.place, message);
        }
        has_keys |= authn.keys != Keys::None;
        row.extend(authn.authenticator.clone());
    }
    (names.into_iter().map(|name| name.value).collect(), row, has_keys)
}

/// The row, behind one who holds the names that clients choose to what policies can make of them.
fn with_charset(
    section: &mut Section<'_>,
    mut row: Vec<Arc<dyn Authenticator>>,
    policies: &Chain,
) -> Vec<Arc<dyn Authenticator>> {
    let is_wanted = section.boolean("identity_charset").unwrap_or(true);
    let uses = |name| is_wanted && policies.iter().any(|standing| standing.policy.uses_name(name));
    let (client_id, username) = (uses("client_id"), uses("username"));
    if client_id || username {
        row.insert(0, Arc::new(IdentityCharset { client_id, username, is_alone: row.is_empty() }));
    }
    row
}

fn policies(section: &mut Section<'_>, context: &Context<'_>) -> (Vec<String>, Chain) {
    let names = section.texts("policies").unwrap_or_default();
    if names.is_empty() {
        context.report.warning(&section.place_at("policies"), "names no policy: everything is denied");
    }
    let find = |name| context.policies.find(name, context.report).cloned();
    let row: Vec<Standing> = names.iter().filter_map(find).collect();
    let is_whole = !names.is_empty() && row.len() == names.len();
    if is_whole && !row.iter().any(|standing| standing.is_enforced) {
        let message = "names no policy that is enforced: everything would be denied";
        context.report.problem(&section.place_at("policies"), message);
    }
    (names.into_iter().map(|name| name.value).collect(), Chain::of(row))
}

/// What the route speaks, as its listener says; tables of other protocols are recorded.
fn speech(
    section: &mut Section<'_>,
    listen: Option<Scheme>,
    limits: &Limits,
    knows_clients: bool,
    shared: Option<&Listener>,
) -> Speech {
    check_use(section, "http", http::KEYS, listen, Scheme::is_http);
    check_use(section, "mqtt", MQTT_KEYS, listen, Scheme::is_mqtt);
    check_use(section, "coap", coap::KEYS, listen, Scheme::is_coap);
    let coap = coap::read(section.section("coap"));
    let mqtt = mqtt(section.section("mqtt"));
    let shared = shared.filter(|_| listen.is_some_and(Scheme::is_http));
    let http = http::read(section.section("http"), limits, knows_clients, shared);
    match listen {
        Some(listen) if listen.is_coap() => Speech::Coap(coap),
        Some(listen) if listen.is_http() => Speech::Http(Box::new(http)),
        _ => Speech::Mqtt(mqtt),
    }
}

fn mqtt(mut section: Section<'_>) -> mqtt::Options {
    let default = mqtt::Options::default();
    let versions = section.several_of("versions", VERSIONS);
    section.forbid_empty("versions");
    let options = mqtt::Options {
        versions: if versions.is_empty() { default.versions } else { Versions::only(&versions) },
        on_denied_publish: section.one_of("on_denied_publish", ON_DENIED_PUBLISH).unwrap_or_default(),
    };
    section.finish();
    options
}

/// A route's name, which must differ from those taken before, even as environment variables write it.
fn name(section: &mut Section<'_>, taken: &mut HashMap<String, String>) -> Option<String> {
    let name = section.text("name")?.value;
    if !is_name(&name) {
        section.problem("name", "must be 1 to 64 letters, digits, `-`, `_` or `.`");
    }
    if let Some(earlier) = taken.insert(variable_of("", &name), name.clone()) {
        section.problem("name", format!("is too like the name of route {earlier}"));
    }
    Some(name)
}

fn is_name(name: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_good)
}

/// A message of WebSocket may hold many small packets.
fn max_message_bytes(limits: &Limits) -> usize {
    limits.packet_bytes.max(MIN_MESSAGE_BYTES)
}

const MQTT_KEYS: &[&str] = &["versions", "on_denied_publish"];
const PROXY_KEYS: &[&str] = &["accept", "trusted"];
const WEBSOCKET_KEYS: &[&str] = &["path", "origins"];
const DEFAULT_PATH: &str = "/mqtt";
const MIN_MESSAGE_BYTES: usize = 1024 * 1024;

const PROXY_VERSIONS: &[(&str, ProxyVersion)] =
    &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2), ("any", ProxyVersion::Any)];

const VERSIONS: &[(&str, Version)] = &[("3.1", Version::V31), ("3.1.1", Version::V311), ("5.0", Version::V5)];

const ON_DENIED_PUBLISH: &[(&str, OnDeniedPublish)] =
    &[("ack", OnDeniedPublish::Ack), ("disconnect", OnDeniedPublish::Disconnect)];
