//! `[authn.NAME]` with `type = "introspection"`.

use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::claims::{self, not_empty};
use super::files::Files;
use super::section::Section;
use super::service::{headers, secure_url, trust};
use crate::authn::InquiryOptions;
use crate::authn::introspection::{Introspection, IntrospectionOptions, client_secret_basic};
use crate::neighbour::http::{HttpClient, HttpOptions};

/// The authenticator, if nothing is wrong with it.
pub(super) fn read(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<Introspection> {
    let before = files.report().problems();
    section.require(&["url"]);
    let url = section.parse("url", secure_url);
    let is_tls = url.as_ref().map(|url| url.value.scheme_str() == Some("https"));
    let (ca, identity) = trust(section, is_tls, files);
    let issuer = section.parse("issuer", not_empty).map(|issuer| issuer.value);
    let token_in = claims::token_in(section);
    let claims = claims::rules(section, false);
    let headers = credentials(section, files);
    let inquiry = inquiry(section, DEFAULT_CACHE);
    let options = HttpOptions {
        ca,
        identity,
        // the time for the answer ends first, and says so
        timeout: inquiry.timeout + Duration::from_secs(1),
        max_body_bytes: MAX_ANSWER_BYTES,
    };
    let http = section.check(section.place(), HttpClient::new(options))?;
    (files.report().problems() == before).then_some(())?;
    let endpoint = url?.value;
    let options = IntrospectionOptions { endpoint, http, headers, token_in, issuer, claims, inquiry };
    Some(Introspection::new(name, options))
}

/// How a service is asked about clients.
pub(super) fn inquiry(section: &mut Section<'_>, cache: Duration) -> InquiryOptions {
    let concurrency = section.integer("concurrency", 1..=u64::from(u16::MAX));
    let concurrency = concurrency.and_then(|number| u16::try_from(number).ok()).and_then(NonZeroU16::new);
    InquiryOptions {
        timeout: section.duration("timeout", TIMEOUT).unwrap_or(DEFAULT_TIMEOUT),
        concurrency: concurrency.unwrap_or(DEFAULT_CONCURRENCY),
        cache: section.duration("cache", CACHE).unwrap_or(cache),
    }
}

/// What mgate is known by to the server; anybody else could find out by it which tokens are good.
fn credentials(section: &mut Section<'_>, files: &Files<'_>) -> HeaderMap {
    let mut headers = headers(section, files);
    let has_secret = section.has("client_id") || section.has("client_secret_file");
    if has_secret {
        section.require(&["client_id", "client_secret_file"]);
    }
    let id = section.parse("client_id", not_empty);
    let secret = section.text("client_secret_file").and_then(|name| files.load(&name, secret));
    if let (Some(id), Some(secret)) = (id, secret) {
        match client_secret_basic(&id.value, &secret) {
            Some(basic) if !headers.contains_key(AUTHORIZATION) => headers.extend(basic),
            Some(_) => section.problem("client_id", "cannot stand beside another `authorization`"),
            None => section.problem("client_id", "cannot be written into a header"),
        }
    }
    if !has_secret && !headers.contains_key(AUTHORIZATION) {
        let place = section.place();
        files.report().warning(place, "shows the server nothing: most want `client_id` or a bearer token");
    }
    headers
}

fn secret(file: &[u8]) -> Result<String, &'static str> {
    let secret = str::from_utf8(file).map_err(|_| "is not UTF-8")?.trim_end_matches(['\r', '\n']);
    if secret.is_empty() { Err("is empty") } else { Ok(secret.into()) }
}

/// More than an answer with its claims needs.
pub(super) const MAX_ANSWER_BYTES: usize = 64 * 1024;

const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_CONCURRENCY: NonZeroU16 = NonZeroU16::MIN.saturating_add(63);
const CACHE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60 * 60);
const DEFAULT_CACHE: Duration = Duration::from_secs(30);
