//! `http`: how a route speaks HTTP.

use mgate_policies::{Cidr, RequestPath};
use mgate_proxy::gate::Limits;
use mgate_proxy::http::{Options, Place, Profile, Rewriting, UpstreamProtocol};

use super::cors;
use super::listener::Listener;
use super::section::Section;

/// The keys of the table.
pub(super) const KEYS: &[&str] = &[
    "profile",
    "content_types",
    "hosts",
    "path",
    "strip_path",
    "upstream_path",
    "cors",
    "origins",
    "trusted",
    "forward_authorization",
    "query_credentials",
    "body_bytes",
    "header_bytes",
    "headers",
    "upstream_requests",
    "upstream_protocol",
];

/// How a route with these limits, with or without authenticators, and maybe with others at its listener, speaks HTTP.
pub(super) fn read(
    mut section: Section<'_>,
    limits: &Limits,
    knows_clients: bool,
    shared: Option<&Listener>,
) -> Options {
    let mut default = Options::of(limits);
    if let Some(Listener { options, .. }) = shared {
        (default.header_bytes, default.headers) = (options.header_bytes, options.headers);
        default.trusted.clone_from(&options.trusted);
    }
    let mut texts = |key| {
        let texts = section.texts(key)?;
        Some(texts.into_iter().map(|text| text.value).collect::<Vec<_>>())
    };
    let [origins, query_credentials] = ["origins", "query_credentials"].map(&mut texts);
    // where nobody looks at credentials here, they are meant for the upstream
    let looked_at = if knows_clients { default.query_credentials } else { Vec::new() };
    let profile = profile(&mut section);
    let most = if profile == Profile::Proxy { MAX_BODY_BYTES } else { MAX_MESSAGE_BYTES };
    let options = Options {
        place: place(&mut section),
        rewriting: rewriting(&mut section),
        cors: cors::read(section.section("cors")),
        origins: origins.unwrap_or(default.origins),
        query_credentials: query_credentials.unwrap_or(looked_at),
        profile,
        trusted: match section.has("trusted") {
            true => section.parse_each("trusted", Cidr::parse),
            false => default.trusted,
        },
        forward_authorization: section.boolean("forward_authorization").unwrap_or(!knows_clients),
        body_bytes: section.bytes("body_bytes", 1..=most).unwrap_or(default.body_bytes.min(most)),
        header_bytes: number(section.bytes("header_bytes", 1024..=128 * 1024))
            .unwrap_or(default.header_bytes),
        headers: number(section.integer("headers", 8..=1000)).unwrap_or(default.headers),
        upstream_requests: number(section.integer("upstream_requests", 1..=1_000_000))
            .unwrap_or(default.upstream_requests),
        upstream_protocol: section.one_of("upstream_protocol", PROTOCOLS).unwrap_or_default(),
    };
    if let Some(listener) = shared {
        listener.check_options(&section, &options);
    }
    section.finish();
    options
}

fn place(section: &mut Section<'_>) -> Place {
    let path = section.parse("path", |text| match text {
        "/" => Ok(text.to_owned()),
        _ => path(text),
    });
    let path = path.map_or_else(|| Place::default().path, |path| path.value);
    Place { hosts: section.parse_each("hosts", host), path }
}

fn rewriting(section: &mut Section<'_>) -> Rewriting {
    let strip_path = section.boolean("strip_path").unwrap_or(false);
    if strip_path && !section.has("path") {
        section.problem("strip_path", "has no use without `path`");
    }
    let upstream_path = section.parse("upstream_path", upstream_path);
    Rewriting { strip_path, upstream_path: upstream_path.map(|path| path.value).unwrap_or_default() }
}

/// A path that others are below.
fn path(text: &str) -> Result<String, String> {
    RequestPath::parse(text).map_err(|error| error.to_string())?;
    match text.contains(['%', '?', '#']) || text.ends_with('/') {
        true => Err("must be a path as it is decoded, without a slash at its end, %, ? and #".into()),
        false => Ok(text.to_owned()),
    }
}

/// One that goes out as it is written.
fn upstream_path(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    match text.bytes().all(is_good) {
        true => path(text),
        false => Err("has characters that a URL does not have".into()),
    }
}

/// The name of a host, as it is compared.
fn host(text: &str) -> Result<String, &'static str> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_address = name.starts_with('[') && name.ends_with(']');
    match is_address || (!name.is_empty() && name.bytes().all(is_good)) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err("is no name of a host, which has neither scheme nor port"),
    }
}

fn profile(section: &mut Section<'_>) -> Profile {
    let is_messages = section.one_of("profile", &[("proxy", false), ("messages", true)]).unwrap_or(false);
    let content_types = section.texts("content_types");
    if content_types.is_some() && !is_messages {
        section.problem("content_types", "has no use without profile = \"messages\"");
    }
    if !is_messages {
        return Profile::Proxy;
    }
    let given = |texts: Vec<super::section::Given<String>>| -> Vec<String> {
        texts.into_iter().map(|text| text.value.to_ascii_lowercase()).collect()
    };
    Profile::Messages {
        content_types: content_types.map_or_else(|| CONTENT_TYPES.map(str::to_owned).into(), given),
    }
}

fn number(number: Option<u64>) -> Option<usize> {
    number.and_then(|number| number.try_into().ok())
}

const PROTOCOLS: &[(&str, UpstreamProtocol)] = &[
    ("auto", UpstreamProtocol::Negotiated),
    ("http/1.1", UpstreamProtocol::Http1),
    ("h2", UpstreamProtocol::Http2),
];

/// Those of Mainflux.
const CONTENT_TYPES: [&str; 3] = ["application/json", "application/senml+cbor", "application/senml+json"];

const MAX_BODY_BYTES: u64 = 1 << 40;
/// A message is kept whole until it was decided about.
const MAX_MESSAGE_BYTES: u64 = 16 * 1024 * 1024;
