//! How other services are reached: what stands in every table that names one.

use std::net::IpAddr;

use http::Uri;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use mgate_proxy::transport::{Authorities, Certificate};

use super::files::Files;
use super::section::Section;
use super::tls;
use crate::neighbour::http::parse_url;
use crate::neighbour::nats::NatsLogin;

/// Whether what follows a scheme is on this machine.
pub(super) fn is_here(rest: &str) -> bool {
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host =
        authority.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// An address from which nothing comes that was changed on its way.
pub(super) fn secure_url(text: &str) -> Result<Uri, String> {
    let url = parse_url(text).map_err(|error| error.to_string())?;
    let is_local = text.split_once("://").is_some_and(|(_, rest)| is_here(rest));
    match url.scheme_str() == Some("https") || is_local {
        true => Ok(url),
        false => Err("must begin with https://, unless it is of this machine".into()),
    }
}

/// Whose certificates are good, and which one is shown.
pub(super) fn trust(
    section: &mut Section<'_>,
    is_tls: Option<bool>,
    files: &Files<'_>,
) -> (Option<Authorities>, Option<Certificate>) {
    let mut tls = section.section("tls");
    let is_given = tls.is_given(&["ca", "cert", "key"]);
    let authorities = match tls.text("ca") {
        Some(name) => files.load(&name, Authorities::from_pem),
        None if is_tls == Some(true) && !tls.has("ca") => tls.check(tls.place(), Authorities::of_system()),
        None => Some(Authorities::none()),
    };
    let identity = (tls.has("cert") || tls.has("key")).then(|| tls::pair(&mut tls, files)).flatten();
    tls.finish();
    if is_given && is_tls == Some(false) {
        section.problem("tls", "has no meaning with an address that is not encrypted");
    }
    (authorities, identity)
}

/// Who mgate is for NATS: one of four ways to say it, or none.
pub(super) fn nats_login(table: &mut Section<'_>, files: &Files<'_>) -> Option<NatsLogin> {
    let ways = ["credentials_file", "nkey_file", "token_file", "user"];
    let given: Vec<_> = ways.into_iter().filter(|key| table.has(key)).collect();
    if let [first, second, ..] = given[..] {
        table.problem(second, format!("cannot stand beside `{first}`"));
    }
    if table.has("user") != table.has("password_file") {
        table.problem("user", "needs `password_file`, as that needs `user`");
    }
    let user = table.text("user").map(|given| given.value);
    let mut secret = |key| {
        let name = table.text(key)?;
        Some(files.text(&name).map(|text| text.trim().to_owned()))
    };
    let [credentials, seed, token, password] =
        ["credentials_file", "nkey_file", "token_file", "password_file"].map(&mut secret);
    Some(match (credentials, seed, token, user.zip(password)) {
        // the last line of such a file must end
        (Some(text), ..) => NatsLogin::Credentials(text? + "\n"),
        (_, Some(seed), ..) => NatsLogin::Seed(seed?),
        (_, _, Some(token), _) => NatsLogin::Token(token?),
        (.., Some((user, password))) => NatsLogin::User(user, password?),
        _ => NatsLogin::None,
    })
}

/// What goes along with every question.
pub(super) fn headers(section: &mut Section<'_>, files: &Files<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    for (name, values) in section.pairs("headers") {
        let read = header(&name.value, &values);
        if let Some((name, value)) = section.check(&name.place, read) {
            headers.insert(name, value);
        }
    }
    let token = section.text("bearer_token_file").and_then(|name| files.load(&name, bearer));
    if let Some(token) = token
        && headers.insert(header::AUTHORIZATION, token).is_some()
    {
        section.problem("bearer_token_file", "cannot stand beside the header `authorization`");
    }
    headers
}

fn header(name: &str, values: &[String]) -> Result<(HeaderName, HeaderValue), &'static str> {
    let [value] = values else { return Err("must be one string") };
    let name: HeaderName = name.parse().map_err(|_| "is no name of a header")?;
    if RESERVED_HEADERS.contains(&name) {
        return Err("is set by mgate itself");
    }
    let mut value: HeaderValue = value.parse().map_err(|_| "has characters that a header cannot have")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// RFC 6750 §2.1
fn bearer(file: &[u8]) -> Result<HeaderValue, &'static str> {
    let token = str::from_utf8(file).map_err(|_| "is not UTF-8")?.trim();
    if token.is_empty() {
        return Err("is empty");
    }
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let value = token.bytes().all(is_token).then(|| HeaderValue::try_from(format!("Bearer {token}")));
    let mut value = value.and_then(Result::ok).ok_or("is no bearer token")?;
    value.set_sensitive(true);
    Ok(value)
}

const RESERVED_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const USER_AGENT: &str = concat!("mgate/", env!("CARGO_PKG_VERSION"));
