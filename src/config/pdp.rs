//! `[policy.NAME]` with `type = "pdp"`.

mod webhook;

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderMap, Uri};
use mgate_policies::Action;
use mgate_proxy::transport::{Authorities, Certificate};

use super::files::Files;
use super::section::{Given, Section};
use super::service::{headers, is_here, nats_login, trust};
use crate::neighbour::grpc::{self, GrpcClient, GrpcOptions};
use crate::neighbour::http::{HttpClient, HttpOptions, parse_url};
use crate::neighbour::nats::{self, NatsClient, NatsOptions};
use crate::pdp::{
    ALL_ACTIONS, Authzen, BrokerAuth, BrokerAuthGrpc, CacheOptions, Dialect, Magistrala, Mainflux,
    MainfluxGrpc, OnError, Opa, Pdp, PdpOptions, Transport,
};
use crate::withdrawals::Withdrawals;

/// The policy, if nothing is wrong with it.
pub(super) fn read(
    name: &str,
    section: &mut Section<'_>,
    files: &Files<'_>,
    withdrawals: &Withdrawals,
) -> Option<Pdp> {
    let before = files.report().problems();
    section.require(&["dialect", "url"]);
    let url = section.text("url");
    let kind = section.parse("dialect", dialect_named).map(|given| given.value);
    let scheme = url.as_ref().and_then(|url| scheme(section, url, kind, files));
    let batch = section.boolean("batch").unwrap_or_default();
    if batch && kind.is_some_and(|kind| kind != Kind::Authzen) {
        section.problem("batch", "needs the dialect \"authzen\"");
    }
    let dialect = match kind {
        Some(Kind::Webhook) => webhook::read(section, url.as_ref().filter(|_| scheme.is_some())),
        kind => {
            webhook::only_here(section, kind.is_some());
            scheme.and_then(|scheme| service(section, kind?, scheme, url.as_ref()?, batch))
        }
    };
    let actions = actions(section, dialect.as_ref().map_or(ALL_ACTIONS, |dialect| dialect.actions()));
    let session_terms = section.boolean("session_terms").unwrap_or_default();
    if session_terms && (!has_terms(kind) || !actions.contains(&Action::Connect)) {
        let message = "needs \"connect\" among `actions`, and a dialect whose answers can carry terms";
        section.problem("session_terms", message);
    }
    let timeout = section.duration("timeout", TIMEOUT).unwrap_or(DEFAULT_TIMEOUT);
    let concurrency = section.integer("concurrency", 1..=u64::from(u16::MAX));
    let transport = transport(section, scheme, url.as_ref(), timeout, files);
    let (on_error, cache) = cache(section, files);
    (files.report().problems() == before).then_some(())?;
    Some(Pdp::new(PdpOptions {
        name: name.into(),
        dialect: dialect?,
        transport: transport?,
        timeout,
        concurrency: concurrency
            .and_then(|number| u16::try_from(number).ok())
            .and_then(NonZeroU16::new)
            .unwrap_or(DEFAULT_CONCURRENCY),
        actions,
        session_terms,
        on_error,
        cache,
        withdrawals: withdrawals.clone(),
    }))
}

/// How a service is spoken to.
#[derive(Clone, Copy)]
struct Scheme {
    way: Way,
    /// Whether it is always encrypted.
    is_tls: bool,
}

/// The protocols to services.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Grpc,
    Http,
    Nats,
}

/// The kinds of services.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Authzen,
    BrokerAuth,
    FluxmqAuth,
    Magistrala(Magistrala),
    Mainflux,
    Opa,
    Webhook,
}

impl Kind {
    /// The schemes of its addresses.
    fn schemes(self) -> &'static str {
        match self {
            Self::Authzen => "http, https, nats, tls",
            Self::BrokerAuth | Self::Mainflux => "http, https, grpc, grpcs",
            Self::FluxmqAuth | Self::Magistrala(_) => "grpc, grpcs",
            Self::Opa | Self::Webhook => "http, https",
        }
    }
}

fn dialect_named(name: &str) -> Result<Kind, String> {
    let known = DIALECTS.iter().find(|(word, _)| *word == name).map(|(_, kind)| *kind);
    known.ok_or_else(|| {
        let known: Vec<_> = DIALECTS.iter().map(|(word, _)| *word).collect();
        let what = match DIALECTS_TO_COME.contains(&name) {
            true => format!("dialect \"{name}\" is not supported by this version"),
            false => format!("unknown dialect \"{name}\""),
        };
        format!("{what} ({})", known.join(", "))
    })
}

/// The scheme of an address that may have names in it; anything else that is wrong is found later.
fn scheme(
    section: &Section<'_>,
    url: &Given<String>,
    kind: Option<Kind>,
    files: &Files<'_>,
) -> Option<Scheme> {
    let (word, rest) = url.value.split_once("://").unwrap_or(("", &url.value));
    let schemes = kind.map_or("http, https", Kind::schemes);
    let known = SCHEMES.iter().find(|(known, ..)| *known == word);
    let Some((_, way, is_tls)) = known.filter(|_| schemes.split(", ").any(|scheme| scheme == word)) else {
        section.problem("url", format!("must begin with one of these and ://: {schemes}"));
        return None;
    };
    if !is_tls && !is_here(rest) {
        let message = "answers come unencrypted: whoever is on their way can forge them";
        files.report().warning(&url.place, message);
    }
    Some(Scheme { way: *way, is_tls: *is_tls })
}

fn service(
    section: &Section<'_>,
    kind: Kind,
    scheme: Scheme,
    url: &Given<String>,
    batch: bool,
) -> Option<Box<dyn Dialect>> {
    match (kind, scheme.way) {
        (Kind::BrokerAuth, Way::Grpc) => return Some(Box::new(BrokerAuthGrpc::CURRENT)),
        (Kind::FluxmqAuth, _) => return Some(Box::new(BrokerAuthGrpc::FLUXMQ)),
        (Kind::Magistrala(generation), _) => return Some(Box::new(generation)),
        (Kind::Mainflux, Way::Grpc) => return Some(Box::new(MainfluxGrpc)),
        // the subjects say where questions go
        (Kind::Authzen, Way::Nats) if batch => {
            return Some(Box::new(Authzen::default().with_evaluations(Uri::default())));
        }
        (Kind::Authzen, Way::Nats) => return Some(Box::new(Authzen::default())),
        _ => {}
    }
    let address = section.check(&url.place, parse_url(&url.value))?;
    let has_path = !matches!(address.path(), "" | "/") || address.query().is_some();
    match kind {
        Kind::Authzen if has_path => authzen(section, url, &url.value, batch),
        Kind::Authzen => {
            let endpoint = format!("{}{}", url.value.trim_end_matches('/'), Authzen::PATH);
            authzen(section, url, &endpoint, batch)
        }
        Kind::Opa if has_path => Some(Box::new(Opa::new(address))),
        Kind::Opa => {
            section.problem("url", "must name a document, as in http://127.0.0.1:8181/v1/data/mgate");
            None
        }
        Kind::BrokerAuth => base(section, BrokerAuth::new(&address).map(|dialect| Box::new(dialect) as _)),
        Kind::Mainflux => base(section, Mainflux::new(&address).map(|dialect| Box::new(dialect) as _)),
        Kind::FluxmqAuth | Kind::Magistrala(_) | Kind::Webhook => None,
    }
}

/// A service whose evaluations are at `endpoint`; several at once are at its plural.
fn authzen(
    section: &Section<'_>,
    url: &Given<String>,
    endpoint: &str,
    batch: bool,
) -> Option<Box<dyn Dialect>> {
    let dialect = Authzen::new(section.check(&url.place, parse_url(endpoint))?);
    if !batch {
        return Some(Box::new(dialect));
    }
    if !endpoint.ends_with("/evaluation") || endpoint.contains('?') {
        section.problem("batch", "needs an address without a path, or with one that ends in /evaluation");
        return None;
    }
    let evaluations = section.check(&url.place, parse_url(&format!("{endpoint}s")))?;
    Some(Box::new(dialect.with_evaluations(evaluations)))
}

/// Whether its answers to `connect` can say what is true for the session; what is no dialect may have any.
fn has_terms(kind: Option<Kind>) -> bool {
    kind.is_none_or(|kind| matches!(kind, Kind::Authzen | Kind::Opa))
}

fn base(section: &Section<'_>, dialect: Option<Box<dyn Dialect>>) -> Option<Box<dyn Dialect>> {
    if dialect.is_none() {
        section.problem("url", "must have no query: the dialect's own paths follow");
    }
    dialect
}

/// The way to the service; where its address is not known, that through HTTP, so that all keys are looked at.
fn transport(
    section: &mut Section<'_>,
    scheme: Option<Scheme>,
    url: Option<&Given<String>>,
    timeout: Duration,
    files: &Files<'_>,
) -> Option<Transport> {
    let way = scheme.map(|scheme| scheme.way);
    // a server of NATS may want encryption although the address does not
    let is_tls = scheme.filter(|scheme| scheme.is_tls || scheme.way != Way::Nats).map(|scheme| scheme.is_tls);
    let (ca, identity) = trust(section, is_tls, files);
    if way == Some(Way::Nats) {
        return by_nats(section, url?, (ca, identity), timeout, files);
    }
    if section.has("nats") && way.is_some() {
        section.problem("nats", "has a meaning with an address that begins with nats:// or tls:// only");
    }
    let metadata = headers(section, files);
    // the time for the decision ends first, and says so
    let within = timeout + Duration::from_secs(1);
    match way {
        Some(Way::Grpc) => by_grpc(section, url?, (ca, identity), metadata),
        _ => {
            let options = HttpOptions { ca, identity, timeout: within, max_body_bytes: MAX_ANSWER_BYTES };
            let client = section.check(section.place(), HttpClient::new(options))?;
            Some(Transport::Http(client, metadata))
        }
    }
}

fn by_grpc(
    section: &Section<'_>,
    url: &Given<String>,
    (ca, identity): (Option<Authorities>, Option<Certificate>),
    metadata: HeaderMap,
) -> Option<Transport> {
    let target = section.check(&url.place, grpc::parse_target(&url.value))?;
    let max_message_bytes = MAX_ANSWER_BYTES;
    let options = GrpcOptions { target, ca, identity, metadata, max_message_bytes };
    section.check(section.place(), GrpcClient::new(options)).map(Transport::Grpc)
}

fn by_nats(
    section: &mut Section<'_>,
    url: &Given<String>,
    (ca, identity): (Option<Authorities>, Option<Certificate>),
    connect_timeout: Duration,
    files: &Files<'_>,
) -> Option<Transport> {
    for key in ["headers", "bearer_token_file"] {
        if section.has(key) {
            section.problem(key, "has no meaning with NATS");
        }
    }
    let server = section.check(&url.place, nats::parse_server(&url.value));
    let mut table = section.section("nats");
    let subject = table.parse("subject", nats::parse_subject).map(|given| given.value);
    let batch_subject = table.parse("batch_subject", nats::parse_subject).map(|given| given.value);
    let invalidations = table.parse("invalidations", nats::parse_subject).map(|given| given.value);
    let login = nats_login(&mut table, files);
    let place = table.place().clone();
    table.finish();
    let max_message_bytes = MAX_ANSWER_BYTES;
    let policy = section.place().key.trim_start_matches("policy.").into();
    let (server, login) = (server?, login?);
    let options = NatsOptions { policy, server, ca, identity, login, connect_timeout, max_message_bytes };
    Some(Transport::Nats {
        client: Box::new(section.check(&place, NatsClient::new(options))?),
        subject: subject.unwrap_or_else(|| SUBJECT.to_owned()),
        batch_subject: batch_subject.unwrap_or_else(|| BATCH_SUBJECT.to_owned()),
        invalidations: invalidations.unwrap_or_else(|| INVALIDATIONS.to_owned()),
    })
}

/// What the service is asked about, which is what its dialect has words for.
fn actions(section: &mut Section<'_>, known: &'static [Action]) -> Vec<Action> {
    section.forbid_empty("actions");
    let wanted = section.several_of("actions", ACTIONS);
    for action in wanted.iter().filter(|action| !known.contains(action)) {
        section.problem("actions", format!("the dialect has no word for \"{action}\""));
    }
    let mut actions = match wanted.is_empty() {
        true => known.iter().copied().filter(|action| *action != Action::Deliver).collect(),
        false => wanted,
    };
    if section.one_of("deliver", &[("inherit", false), ("ask", true)]) == Some(true) {
        actions.push(Action::Deliver);
        if !known.contains(&Action::Deliver) {
            section.problem("deliver", "the dialect has no word for \"deliver\"");
        }
    }
    actions
}

/// What happens while the service is away, and how its decisions are remembered.
fn cache(section: &mut Section<'_>, files: &Files<'_>) -> (OnError, CacheOptions) {
    let default = CacheOptions::default();
    let mut table = section.section("cache");
    let max_ttl = table.duration("max_ttl", Duration::ZERO..=DAY).unwrap_or(default.max_ttl);
    let allow_ttl = table.duration("allow_ttl", Duration::ZERO..=DAY);
    if allow_ttl.is_some_and(|allow_ttl| allow_ttl > max_ttl) {
        table.problem("allow_ttl", "must not be more than `max_ttl`");
    }
    let grace = table.duration("grace", Duration::ZERO..=MINUTE).unwrap_or_default();
    let options = CacheOptions {
        allow_ttl: allow_ttl.unwrap_or(default.allow_ttl.min(max_ttl)),
        max_ttl,
        deny_ttl: table.duration("deny_ttl", Duration::ZERO..=MINUTE).unwrap_or(default.deny_ttl),
        bytes: table.bytes("bytes", CACHE_BYTES).unwrap_or(default.bytes),
        grace,
    };
    let choices = [
        ("abstain", (OnError::Abstain, false)),
        ("deny", (OnError::Deny, false)),
        ("stale", (OnError::Deny, true)),
    ];
    let (on_error, is_stale_wanted) = section.one_of("on_error", &choices).unwrap_or_default();
    match (is_stale_wanted, grace.is_zero()) {
        (true, true) => section.problem("on_error", "\"stale\" needs `cache.grace`: for how long"),
        (false, false) => table.problem("grace", "needs on_error = \"stale\""),
        _ => {}
    }
    if on_error == OnError::Abstain {
        let message =
            "while the service is away, the other policies alone decide, but for `connect`: that is denied";
        files.report().warning(&section.place_at("on_error"), message);
    }
    table.finish();
    (on_error, options)
}

const DIALECTS: &[(&str, Kind)] = &[
    ("authzen", Kind::Authzen),
    ("opa", Kind::Opa),
    ("webhook", Kind::Webhook),
    ("broker.auth.v1", Kind::BrokerAuth),
    ("fluxmq.auth.v1", Kind::FluxmqAuth),
    ("mainflux-0.13", Kind::Mainflux),
    ("magistrala-0.14", Kind::Magistrala(Magistrala::V0_14)),
    ("magistrala-0.15", Kind::Magistrala(Magistrala::V0_15)),
    ("supermq-0.16", Kind::Magistrala(Magistrala::Supermq0_16)),
    ("supermq-0.17", Kind::Magistrala(Magistrala::Supermq0_17)),
];

const DIALECTS_TO_COME: &[&str] = &["ext_authz", "mainflux-0.9"];

/// With whether they are always encrypted.
const SCHEMES: &[(&str, Way, bool)] = &[
    ("http", Way::Http, false),
    ("https", Way::Http, true),
    ("grpc", Way::Grpc, false),
    ("grpcs", Way::Grpc, true),
    ("nats", Way::Nats, false),
    ("tls", Way::Nats, true),
];

/// Deliveries have a key of their own.
const ACTIONS: &[(&str, Action)] = &[
    ("connect", Action::Connect),
    ("publish", Action::Publish),
    ("subscribe", Action::Subscribe),
    ("will", Action::Will),
    ("request", Action::Request),
    ("observe", Action::Observe),
];

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);
const DEFAULT_CONCURRENCY: NonZeroU16 = NonZeroU16::MIN.saturating_add(63);
const CACHE_BYTES: RangeInclusive<u64> = 64 * 1024..=64 * 1024 * 1024 * 1024;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// More than any decision with its reason needs.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const SUBJECT: &str = "mgate.authz.v1.evaluation";
const BATCH_SUBJECT: &str = "mgate.authz.v1.evaluations";
const INVALIDATIONS: &str = "mgate.authz.v1.invalidate";
