//! `http.cors`: which pages of other sites may use a route.

use std::time::Duration;

use http::{HeaderName, Method};
use mgate_proxy::http::Cors;

use super::section::Section;

/// The table; `None` where it is not there.
pub(super) fn read(mut section: Section<'_>) -> Option<Cors> {
    if !section.is_given(KEYS) {
        return None;
    }
    section.require(&["origins"]);
    section.forbid_empty("origins");
    let methods = section.parse_each("methods", method);
    let cors = Cors {
        origins: section.parse_each("origins", origin),
        methods: if methods.is_empty() { METHODS.map(str::to_owned).into() } else { methods },
        headers: section.parse_each("headers", header),
        expose: section.parse_each("expose", header),
        credentials: section.boolean("credentials").unwrap_or(false),
        max_age: section.duration("max_age", Duration::ZERO..=DAY),
    };
    let lists = [
        ("origins", &cors.origins),
        ("methods", &cors.methods),
        ("headers", &cors.headers),
        ("expose", &cors.expose),
    ];
    for (key, _) in lists.iter().filter(|(_, list)| cors.credentials && list.iter().any(|one| one == ANY)) {
        section.problem(key, "has `*`, which browsers do not take with `credentials`: name them");
    }
    if cors.credentials && cors.origins.iter().any(|one| one == NONE) {
        section.problem("origins", "has `null`, which any page may be, and `credentials` are for known ones");
    }
    section.finish();
    Some(cors)
}

/// An origin as browsers write it, as they are compared byte for byte.
fn origin(text: &str) -> Result<String, &'static str> {
    if text == ANY || text == NONE {
        return Ok(text.to_owned());
    }
    let (scheme, host) = text.split_once("://").ok_or("is no origin: write https://app.example.org")?;
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]+".contains(&byte);
    let is_default = |known, port| scheme == known && host.ends_with(port);
    if [scheme, host].iter().any(|part| part.is_empty() || !part.bytes().all(is_good)) {
        return Err(
            "is no origin as browsers write it: a scheme and a host in small letters, and nothing behind",
        );
    }
    if is_default("https", ":443") || is_default("http", ":80") {
        return Err("has the port of its scheme, which browsers leave out");
    }
    Ok(text.to_owned())
}

fn method(text: &str) -> Result<String, &'static str> {
    let is_good =
        text == ANY || Method::from_bytes(text.as_bytes()).is_ok_and(|method| method != Method::CONNECT);
    if is_good && text == text.to_ascii_uppercase() { Ok(text.to_owned()) } else { Err("is no method") }
}

fn header(text: &str) -> Result<String, &'static str> {
    match text == ANY || HeaderName::from_bytes(text.as_bytes()).is_ok() {
        true => Ok(text.to_owned()),
        false => Err("is no name of a header"),
    }
}

const KEYS: &[&str] = &["origins", "methods", "headers", "expose", "credentials", "max_age"];
/// Those that need no leave. Fetch standard §2.2.1
const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];
const ANY: &str = "*";
/// What browsers say of pages in sandboxes and files. Fetch standard §3.2.5
const NONE: &str = "null";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
