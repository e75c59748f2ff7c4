//! `[policy.NAME]` with `type = "pdp"`.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;
use mgate_policies::Action;

use super::files::Files;
use super::section::{Given, Section};
use super::service::{headers, is_here, trust};
use crate::neighbour::http::{HttpClient, HttpOptions, UrlError, parse_url};
use crate::pdp::{
    ALL_ACTIONS, Authzen, Body, BrokerAuth, CacheOptions, Dialect, Mainflux, Opa, Pdp, PdpOptions, Reply,
    Template, UrlTemplate, VerneMq, Vocabulary, Webhook,
};

/// The policy, if nothing is wrong with it.
pub(super) fn read(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<Pdp> {
    let before = files.report().problems();
    section.require(&["dialect", "url"]);
    let url = section.text("url");
    let scheme = url.as_ref().and_then(|url| scheme(section, url, files));
    let dialect = section.parse("dialect", dialect_named).map(|given| given.value);
    let dialect = match dialect {
        Some(Kind::Webhook) => webhook(section, url.as_ref().filter(|_| scheme.is_some())),
        kind => {
            only_with_webhook(section, kind.is_some());
            scheme.as_ref().and_then(|_| service(section, kind?, url.as_ref()?))
        }
    };
    let actions = actions(section, dialect.as_ref().map_or(ALL_ACTIONS, |dialect| dialect.actions()));
    let (ca, identity) = trust(section, scheme.map(|scheme| scheme == Scheme::Https), files);
    let timeout = section.duration("timeout", TIMEOUT).unwrap_or(DEFAULT_TIMEOUT);
    let concurrency = section.integer("concurrency", 1..=u64::from(u16::MAX));
    let headers = headers(section, files);
    let cache = cache(section);
    // the time for the decision ends first, and says so
    let http_timeout = timeout + Duration::from_secs(1);
    let options = HttpOptions { ca, identity, timeout: http_timeout, max_body_bytes: MAX_ANSWER_BYTES };
    let http = section.check(section.place(), HttpClient::new(options))?;
    (files.report().problems() == before).then_some(())?;
    Some(Pdp::new(PdpOptions {
        name: name.into(),
        dialect: dialect?,
        http,
        headers,
        timeout,
        concurrency: concurrency
            .and_then(|number| u16::try_from(number).ok())
            .and_then(NonZeroU16::new)
            .unwrap_or(DEFAULT_CONCURRENCY),
        actions,
        cache,
    }))
}

/// How a service is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// The kinds of services.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Authzen,
    BrokerAuth,
    Mainflux,
    Opa,
    Webhook,
}

/// Services that webhooks were written for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preset {
    Emqx,
    MosquittoGoAuth,
    Status,
    VerneMq,
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
fn scheme(section: &Section<'_>, url: &Given<String>, files: &Files<'_>) -> Option<Scheme> {
    let (scheme, rest) = url.value.split_once("://").unwrap_or(("", &url.value));
    match scheme {
        "http" => {
            if !is_here(rest) {
                let message = "answers come unencrypted: whoever is on their way can forge them";
                files.report().warning(&url.place, message);
            }
            Some(Scheme::Http)
        }
        "https" => Some(Scheme::Https),
        "grpc" | "grpcs" | "nats" | "tls" | "unix" => {
            section.problem(
                "url",
                format!("scheme \"{scheme}\" is not supported by this version (http, https)"),
            );
            None
        }
        _ => {
            section.check(&url.place, Err::<(), _>(UrlError::Scheme));
            None
        }
    }
}

fn service(section: &Section<'_>, kind: Kind, url: &Given<String>) -> Option<Box<dyn Dialect>> {
    let address = section.check(&url.place, parse_url(&url.value))?;
    let has_path = !matches!(address.path(), "" | "/") || address.query().is_some();
    match kind {
        Kind::Authzen if has_path => Some(Box::new(Authzen::new(address))),
        Kind::Authzen => {
            let endpoint = format!("{}{}", url.value.trim_end_matches('/'), Authzen::PATH);
            Some(Box::new(Authzen::new(section.check(&url.place, parse_url(&endpoint))?)))
        }
        Kind::Opa if has_path => Some(Box::new(Opa::new(address))),
        Kind::Opa => {
            section.problem("url", "must name a document, as in http://127.0.0.1:8181/v1/data/mgate");
            None
        }
        Kind::BrokerAuth => base(section, BrokerAuth::new(&address).map(|dialect| Box::new(dialect) as _)),
        Kind::Mainflux => base(section, Mainflux::new(&address).map(|dialect| Box::new(dialect) as _)),
        Kind::Webhook => None,
    }
}

fn base(section: &Section<'_>, dialect: Option<Box<dyn Dialect>>) -> Option<Box<dyn Dialect>> {
    if dialect.is_none() {
        section.problem("url", "must have no query: the dialect's own paths follow");
    }
    dialect
}

fn only_with_webhook(section: &mut Section<'_>, is_another: bool) {
    for key in WEBHOOK_KEYS {
        if section.has(key) && is_another {
            section.problem(key, "has a meaning with dialect = \"webhook\" only");
        }
    }
}

fn webhook(section: &mut Section<'_>, url: Option<&Given<String>>) -> Option<Box<dyn Dialect>> {
    section.require(&["preset"]);
    let preset = section.one_of("preset", PRESETS);
    let has_template = ["body", "format", "method"].map(|key| section.has(key));
    if preset == Some(Preset::VerneMq) {
        for (key, _) in ["body", "format", "method"].iter().zip(has_template).filter(|(_, has)| *has) {
            section.problem(key, "cannot be chosen with preset = \"vernemq\"");
        }
    }
    let reply = reply(section, preset);
    let method = section.one_of("method", METHODS).unwrap_or(Method::POST);
    let body = body(section, preset, &method);
    let (preset, url) = (preset?, url?);
    if preset == Preset::VerneMq {
        return Some(Box::new(VerneMq::new(section.check(&url.place, parse_url(&url.value))?)));
    }
    let url = section.check(&url.place, UrlTemplate::parse(&url.value))?;
    let vocabulary = match preset {
        Preset::Emqx => Vocabulary::Emqx,
        Preset::MosquittoGoAuth => Vocabulary::Mosquitto,
        Preset::Status | Preset::VerneMq => Vocabulary::Whole,
    };
    Some(Box::new(Webhook { method, url, body: body?, vocabulary, reply }))
}

fn reply(section: &mut Section<'_>, preset: Option<Preset>) -> Reply {
    let reply = section.one_of("response", REPLIES);
    if reply.is_some() && preset.is_some_and(|preset| preset != Preset::MosquittoGoAuth) {
        section.problem("response", "can be chosen with preset = \"mosquitto-go-auth\" only");
    }
    match preset {
        Some(Preset::Emqx) => Reply::Emqx,
        _ => reply.unwrap_or(Reply::Status),
    }
}

fn body(section: &mut Section<'_>, preset: Option<Preset>, method: &Method) -> Option<Body> {
    let (has_body, has_format) = (section.has("body"), section.has("format"));
    let format: Option<Format> = section.one_of("format", FORMATS);
    let given = section.pairs("body");
    if method == Method::GET {
        for (key, _) in [("body", has_body), ("format", has_format)].iter().filter(|(_, has)| *has) {
            section.problem(key, "a GET has no body: put names into `url`");
        }
        return Some(Body::Empty);
    }
    let fields = match has_body {
        true => templates(section, given)?,
        false => default_body(preset?),
    };
    Some(format.unwrap_or(Body::Json)(fields))
}

fn templates(
    section: &Section<'_>,
    given: Vec<(Given<String>, Vec<String>)>,
) -> Option<Vec<(String, Template)>> {
    let fields = given.into_iter().map(|(name, values)| {
        let [text] = values.as_slice() else {
            section.check(&name.place, Err::<(), _>("must be one string"));
            return None;
        };
        Some((name.value, section.check(&name.place, Template::parse(text))?))
    });
    // all are read before one that is bad ends it
    let fields: Vec<_> = fields.collect();
    fields.into_iter().collect()
}

fn default_body(preset: Preset) -> Vec<(String, Template)> {
    let names = match preset {
        Preset::Emqx => "clientid username peerhost action topic qos retain",
        Preset::MosquittoGoAuth => "username clientid topic acc",
        Preset::Status => {
            "principal tenant client_id username listener peer protocol action topic qos retain"
        }
        Preset::VerneMq => "",
    };
    let field = |name: &str| Some((name.to_owned(), Template::parse(&format!("${{{name}}}")).ok()?));
    names.split_whitespace().filter_map(field).collect()
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

fn cache(section: &mut Section<'_>) -> CacheOptions {
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
    let is_stale_wanted = section.one_of("on_error", &[("deny", false), ("stale", true)]).unwrap_or_default();
    match (is_stale_wanted, grace.is_zero()) {
        (true, true) => section.problem("on_error", "\"stale\" needs `cache.grace`: for how long"),
        (false, false) => table.problem("grace", "needs on_error = \"stale\""),
        _ => {}
    }
    table.finish();
    options
}

type Format = fn(Vec<(String, Template)>) -> Body;

const DIALECTS: &[(&str, Kind)] = &[
    ("authzen", Kind::Authzen),
    ("opa", Kind::Opa),
    ("webhook", Kind::Webhook),
    ("broker.auth.v1", Kind::BrokerAuth),
    ("mainflux-0.13", Kind::Mainflux),
];

const DIALECTS_TO_COME: &[&str] =
    &["ext_authz", "fluxmq.auth.v1", "grpc", "magistrala-0.14", "mainflux-0.9", "nats", "supermq-0.17"];

const PRESETS: &[(&str, Preset)] = &[
    ("emqx", Preset::Emqx),
    ("mosquitto-go-auth", Preset::MosquittoGoAuth),
    ("vernemq", Preset::VerneMq),
    ("status", Preset::Status),
];

const WEBHOOK_KEYS: [&str; 5] = ["preset", "method", "format", "body", "response"];

const METHODS: &[(&str, Method)] = &[("POST", Method::POST), ("PUT", Method::PUT), ("GET", Method::GET)];

const FORMATS: &[(&str, Format)] = &[("json", Body::Json), ("form", Body::Form)];

const REPLIES: &[(&str, Reply)] = &[("status", Reply::Status), ("json", Reply::Ok), ("text", Reply::Text)];

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
