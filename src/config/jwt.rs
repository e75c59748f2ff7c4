//! `[authn.NAME]` with `type = "jwt"`.

use std::ops::RangeInclusive;
use std::time::Duration;

use mgate_proxy::transport::Authorities;

use super::claims::{self, not_empty};
use super::files::Files;
use super::section::Section;
use super::service::secure_url;
use super::values;
use crate::authn::jwt::{
    ALGORITHMS, Algorithm, IssuerKeys, Jwt, JwtOptions, KeyError, KeySet, RemoteKeys, Schedule, fetch_from,
};
use crate::neighbour::http::{HttpClient, HttpOptions};

/// The authenticator, if nothing is wrong with it.
pub(super) fn read(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<Jwt> {
    section.require(&["issuer", "audience", "algorithms"]);
    section.forbid_empty("algorithms");
    let algorithms = section.several_of("algorithms", ALGORITHMS);
    let keys = keys(name, section, &algorithms, files);
    let options = options(section, algorithms);
    Some(Jwt::new(name, options?, keys?))
}

fn options(section: &mut Section<'_>, algorithms: Vec<Algorithm>) -> Option<JwtOptions> {
    let issuer = section.parse("issuer", not_empty);
    let token_in = claims::token_in(section);
    let claims = claims::rules(section, true);
    Some(JwtOptions { issuer: issuer?.value, algorithms, token_in, claims })
}

fn keys(
    name: &str,
    section: &mut Section<'_>,
    algorithms: &[Algorithm],
    files: &Files<'_>,
) -> Option<IssuerKeys> {
    let useless: Vec<_> = ONLY_WITH_URL.iter().copied().filter(|key| section.has(key)).collect();
    if !section.has("jwks_url") {
        useless.into_iter().for_each(|key| section.problem(key, "has no use without `jwks_url`"));
    }
    let source = the_only(section, SOURCES)?;
    check_algorithms(section, algorithms, source);
    match source {
        "jwks_url" => remote(name, section, files),
        _ => fixed(section, source, algorithms, files).map(IssuerKeys::Fixed),
    }
}

/// Keys from a file, and which key of the section names it.
pub(super) fn keys_of_file(
    section: &mut Section<'_>,
    algorithms: &[Algorithm],
    files: &Files<'_>,
) -> Option<(&'static str, KeySet)> {
    let source = the_only(section, FILES)?;
    check_algorithms(section, algorithms, source);
    Some((source, fixed(section, source, algorithms, files)?))
}

/// The one of some keys that is given.
fn the_only(section: &mut Section<'_>, sources: &[&'static str]) -> Option<&'static str> {
    let given: Vec<_> = sources.iter().copied().filter(|key| section.has(key)).collect();
    match given.as_slice() {
        [source] => Some(source),
        [] => {
            let others: Vec<_> = sources[1..].iter().map(|key| format!("`{key}`")).collect();
            let (last, others) = others.split_last()?;
            let message = format!("is missing, and so are {} and {last}", others.join(", "));
            section.problem(sources[0], message);
            None
        }
        [first, second, ..] => {
            section.problem(second, format!("cannot stand beside `{first}`"));
            None
        }
    }
}

/// Whoever has a public key could sign with it as if it were a secret: the two never go together.
fn check_algorithms(section: &Section<'_>, algorithms: &[Algorithm], source: &str) {
    let secret = algorithms.iter().find(|algorithm| algorithm.is_hmac());
    let public = algorithms.iter().find(|algorithm| !algorithm.is_hmac());
    match (secret, public) {
        (Some(secret), Some(public)) => {
            section.problem("algorithms", format!("{secret} and {public} cannot stand together"));
        }
        (Some(secret), None) if source != "secret_file" => {
            section.problem("algorithms", format!("{secret} needs `secret_file`"));
        }
        (None, Some(public)) if source == "secret_file" => {
            section.problem("algorithms", format!("{public} needs public keys, not `secret_file`"));
        }
        _ => {}
    }
}

fn fixed(
    section: &mut Section<'_>,
    key: &'static str,
    algorithms: &[Algorithm],
    files: &Files<'_>,
) -> Option<KeySet> {
    let name = section.text(key)?;
    let keys = files.load(&name, |text| match key {
        "jwks_file" => KeySet::from_jwks(text),
        "public_key_file" => KeySet::from_pem(text),
        _ => secret(text, algorithms),
    })?;
    if !algorithms.is_empty() && !algorithms.iter().any(|algorithm| keys.has_key_for(*algorithm)) {
        files.problem(&name, "has no key for any of `algorithms`");
    }
    Some(keys)
}

/// The file's text without the line break that editors put at the end.
fn secret(text: &[u8], algorithms: &[Algorithm]) -> Result<KeySet, KeyError> {
    let secret = text.strip_suffix(b"\n").unwrap_or(text);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    KeySet::from_secret(secret, algorithms)
}

fn remote(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<IssuerKeys> {
    let url = section.parse("jwks_url", secure_url);
    let has_ca = section.has("jwks_ca");
    let ca = section.text("jwks_ca").and_then(|name| files.load(&name, Authorities::from_pem));
    let refresh = section.duration("jwks_refresh", REFRESH).unwrap_or(DEFAULT_REFRESH);
    let max_age = section.duration("jwks_max_age", MAX_AGE).unwrap_or(DEFAULT_MAX_AGE);
    if max_age < refresh {
        let refresh = values::show_millis(values::whole_millis(&refresh));
        section.problem("jwks_max_age", format!("must not be less than `jwks_refresh` ({refresh})"));
    }
    if has_ca && ca.is_none() {
        return None;
    }
    let options = HttpOptions { ca, identity: None, timeout: TIMEOUT, max_body_bytes: MAX_JWKS_BYTES };
    let client = section.check(section.place(), HttpClient::new(options))?;
    let fetch = fetch_from(client, url?.value);
    Some(IssuerKeys::Remote(RemoteKeys::new(name, Schedule { refresh, max_age }, fetch)))
}

const SOURCES: &[&str] = &["jwks_file", "jwks_url", "public_key_file", "secret_file"];
const FILES: &[&str] = &["jwks_file", "public_key_file", "secret_file"];
const ONLY_WITH_URL: &[&str] = &["jwks_ca", "jwks_max_age", "jwks_refresh"];

const REFRESH: RangeInclusive<Duration> = Duration::from_secs(10)..=DAY;
const DEFAULT_REFRESH: Duration = Duration::from_secs(5 * 60);
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(30 * 24 * 60 * 60);
const DEFAULT_MAX_AGE: Duration = DAY;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_JWKS_BYTES: usize = 1024 * 1024;
