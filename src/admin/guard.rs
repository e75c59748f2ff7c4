//! Who may ask: not everybody who reaches the socket, and no page in a browser that comes from elsewhere.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::{HeaderMap, StatusCode};

use super::answer::Fault;
use crate::config::Token;
use crate::neighbour::body::{JSON, is_of_type};

/// Refuses what a page of another site can have a browser send. On a loopback address, the host must be this
/// machine by a name that nobody else can give to it.
pub(super) fn check_site(headers: &HeaderMap, is_loopback: bool) -> Result<(), Fault> {
    let forbidden = |detail| Err(Fault::new(StatusCode::FORBIDDEN, detail));
    let host = text(headers, &HOST).unwrap_or_default();
    if is_loopback && !is_this_machine(host) {
        return forbidden("the host is not this machine");
    }
    match headers.get(ORIGIN).map(|origin| origin.to_str()) {
        None => Ok(()),
        Some(Ok(origin)) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        Some(_) => forbidden("the request comes from another site"),
    }
}

/// Refuses whoever does not show the token.
pub(super) fn check_token(headers: &HeaderMap, token: Option<&Token>) -> Result<(), Fault> {
    let Some(token) = token else { return Ok(()) };
    let shown = text(headers, &AUTHORIZATION).and_then(|value| value.split_once(' '));
    let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match shown.is_some_and(|(_, shown)| token.is(shown.trim())) {
        true => Ok(()),
        false => Err(Fault::new(StatusCode::UNAUTHORIZED, "the token is missing or wrong")),
    }
}

/// Refuses bodies of types that forms can send.
pub(super) fn check_type(headers: &HeaderMap) -> Result<(), Fault> {
    match is_of_type(headers, JSON) {
        true => Ok(()),
        false => Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json")),
    }
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn this_machine_has_names_that_nobody_else_can_give_it() {
        for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "127.8.8.8", "[::1]:9090", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["", "localhost.evil.example", "127.0.0.1.evil.example:9090", "10.0.0.1", "[::2]", "::1x"]
        {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn other_sites_are_refused() {
        let check = |host, origin| check_site(&headers(&[(HOST, host), (ORIGIN, origin)]), true).is_ok();
        assert!(check("127.0.0.1:9090", "http://127.0.0.1:9090"));
        assert!(!check("127.0.0.1:9090", "http://127.0.0.1:8080"));
        assert!(!check("127.0.0.1:9090", "http://evil.example"));
        assert!(!check("127.0.0.1:9090", "null"));
        assert!(!check("evil.example", "http://evil.example"), "its name may lead here");
    }

    #[test]
    fn only_json_is_taken() {
        for (content_type, is_good) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("text/plain; application/json", false),
        ] {
            let headers = headers(&[(CONTENT_TYPE, content_type)]);
            assert_eq!(check_type(&headers).is_ok(), is_good, "{content_type}");
        }
        assert!(check_type(&HeaderMap::new()).is_err());
    }

    fn headers(given: &[(HeaderName, &'static str)]) -> HeaderMap {
        let given = given.iter().map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value)));
        given.collect()
    }
}
