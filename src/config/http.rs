//! `http`: how a route speaks HTTP.

use mgate_policies::Cidr;
use mgate_proxy::gate::Limits;
use mgate_proxy::http::{Options, Profile};

use super::section::Section;

/// The keys of the table.
pub(super) const KEYS: &[&str] = &[
    "profile",
    "content_types",
    "hosts",
    "trusted",
    "forward_authorization",
    "query_credentials",
    "body_bytes",
    "header_bytes",
    "headers",
    "upstream_requests",
];

/// How a route with these limits, and with or without authenticators, speaks HTTP.
pub(super) fn read(mut section: Section<'_>, limits: &Limits, knows_clients: bool) -> Options {
    let default = Options::of(limits);
    let mut texts = |key| {
        let texts = section.texts(key)?;
        Some(texts.into_iter().map(|text| text.value).collect::<Vec<_>>())
    };
    let [hosts, query_credentials] = ["hosts", "query_credentials"].map(&mut texts);
    // where nobody looks at credentials here, they are meant for the upstream
    let looked_at = if knows_clients { default.query_credentials } else { Vec::new() };
    let profile = profile(&mut section);
    let most = if profile == Profile::Proxy { MAX_BODY_BYTES } else { MAX_MESSAGE_BYTES };
    let options = Options {
        hosts: hosts.unwrap_or(default.hosts),
        query_credentials: query_credentials.unwrap_or(looked_at),
        profile,
        trusted: section.parse_each("trusted", Cidr::parse),
        forward_authorization: section.boolean("forward_authorization").unwrap_or(!knows_clients),
        body_bytes: section.bytes("body_bytes", 1..=most).unwrap_or(default.body_bytes.min(most)),
        header_bytes: number(section.bytes("header_bytes", 1024..=128 * 1024))
            .unwrap_or(default.header_bytes),
        headers: number(section.integer("headers", 8..=1000)).unwrap_or(default.headers),
        upstream_requests: number(section.integer("upstream_requests", 1..=1_000_000))
            .unwrap_or(default.upstream_requests),
    };
    section.finish();
    options
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

/// Those of Mainflux.
const CONTENT_TYPES: [&str; 3] = ["application/json", "application/senml+cbor", "application/senml+json"];

const MAX_BODY_BYTES: u64 = 1 << 40;
/// A message is kept whole until it was decided about.
const MAX_MESSAGE_BYTES: u64 = 16 * 1024 * 1024;
