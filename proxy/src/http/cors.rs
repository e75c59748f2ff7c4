//! Which pages of other sites may read a route's answers: said here, for the upstream. Fetch standard §3.3

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::headers::has_token;

/// Which pages may use a route from browsers, and how; lists with `*` alone are for whatever there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// The sites of the pages as browsers write them, `null` for pages without one, or `*` for all but those.
    pub origins: Vec<String>,
    /// The methods that pages may use.
    pub methods: Vec<String>,
    /// The headers that pages may set.
    pub headers: Vec<String>,
    /// The headers of answers that pages may read.
    pub expose: Vec<String>,
    /// Whether cookies, certificates and what else browsers know go along.
    pub credentials: bool,
    /// How long browsers may remember what they were told; `None` for their own time.
    pub max_age: Option<Duration>,
}

/// What an answer says of the page that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The origin that may read it; `None` for none.
    allowed: Option<HeaderValue>,
}

impl Cors {
    /// The page that a request with this origin comes from.
    pub(super) fn page(&self, origin: Option<&HeaderValue>) -> Page {
        let is_named = |origin: &HeaderValue| self.origins.iter().any(|named| origin == named.as_str());
        let is_any = self.origins.iter().any(|named| named == ANY);
        let allowed = origin.and_then(|origin| match origin {
            origin if origin == ANY => None,
            origin if is_named(origin) => Some(origin.clone()),
            origin if is_any && origin != NULL => Some(HeaderValue::from_static(ANY)),
            _ => None,
        });
        Page { allowed }
    }

    /// Answers a browser that wants to know what a page may ask for.
    pub(super) fn preflight(&self, page: &Page) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if page.allowed.is_some() {
            let max_age = self.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default();
            tell(headers, ACCESS_CONTROL_ALLOW_METHODS, &self.methods.join(", "));
            tell(headers, ACCESS_CONTROL_ALLOW_HEADERS, &self.headers.join(", "));
            tell(headers, ACCESS_CONTROL_MAX_AGE, &max_age);
        }
        self.tell_origin(headers, page);
        for name in [ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_REQUEST_HEADERS] {
            vary(headers, &name);
        }
        response
    }

    /// Says in the headers of an answer who may read it, whatever the upstream said of that.
    pub(super) fn mark(&self, headers: &mut HeaderMap, page: &Page) {
        let is_ours = |name: &&HeaderName| name.as_str().starts_with("access-control-");
        let said: Vec<HeaderName> = headers.keys().filter(is_ours).cloned().collect();
        for name in said {
            headers.remove(name);
        }
        self.tell_origin(headers, page);
        if page.allowed.is_some() {
            tell(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose.join(", "));
        }
    }

    fn tell_origin(&self, headers: &mut HeaderMap, page: &Page) {
        vary(headers, &ORIGIN);
        let Some(origin) = &page.allowed else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            tell(headers, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
        }
    }
}

/// The origin that a request names, if it is one.
pub(super) fn origin(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut given = headers.get_all(ORIGIN).iter();
    given.next().filter(|_| given.next().is_none()).cloned()
}

/// Whether a browser asks what a page may ask for.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    let has = |name: HeaderName| headers.contains_key(name);
    *method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
}

fn tell(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

/// Tells caches that another value of this header may have another answer.
fn vary(headers: &mut HeaderMap, name: &HeaderName) {
    let says = |value: &HeaderValue| has_token(value, name.as_str()) || has_token(value, ANY);
    if !headers.get_all(VARY).iter().any(says) {
        headers.append(VARY, HeaderValue::from_name(name.clone()));
    }
}

const ANY: &str = "*";
const NULL: &str = "null";

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://app.example";

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        for (origins, origin, expected) in [
            (&[PAGE][..], &[PAGE][..], Some(PAGE)),
            (&[PAGE, "https://b.example:8443"], &["https://b.example:8443"], Some("https://b.example:8443")),
            (&[PAGE], &["https://APP.example"], None),
            (&[PAGE], &["https://app.example.evil.example"], None),
            (&[PAGE], &["http://app.example"], None),
            (&[PAGE], &["null"], None),
            (&[PAGE], &["*"], None),
            (&[PAGE], &[PAGE, PAGE], None),
            (&[PAGE], &[], None),
            (&["*"], &[PAGE], Some("*")),
            (&["*"], &["*"], None),
            (&["*"], &["null"], None),
            (&["*", "null"], &["null"], Some("null")),
            (&["null"], &["null"], Some("null")),
        ] {
            let cors = cors(origins);
            let headers = headers(&origin.iter().map(|origin| ("origin", *origin)).collect::<Vec<_>>());
            let allowed = cors.page(super::origin(&headers).as_ref());
            assert_eq!(
                allowed.allowed.as_ref().map(|value| value.to_str().unwrap()),
                expected,
                "{origins:?} {origin:?}"
            );
        }
    }

    #[test]
    fn preflight_says_what_pages_may_do() {
        let cors = Cors { credentials: true, ..cors(&[PAGE]) };
        let response = cors.preflight(&cors.page(Some(&HeaderValue::from_static(PAGE))));
        assert_eq!(response.status(), 204);
        let expected = [
            ("access-control-allow-origin", PAGE),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "x-a"),
            ("access-control-max-age", "600"),
        ];
        for (name, value) in expected {
            assert_eq!(response.headers()[name], value);
        }
        let varies: Vec<_> = response.headers().get_all(VARY).iter().collect();
        assert_eq!(varies, ["origin", "access-control-request-method", "access-control-request-headers"]);
        assert!(!response.headers().contains_key(ACCESS_CONTROL_EXPOSE_HEADERS));
    }

    #[test]
    fn preflight_of_a_stranger_says_nothing() {
        let response = cors(&[PAGE]).preflight(&Page { allowed: None });
        assert_eq!(response.headers().keys().collect::<Vec<_>>(), ["vary"]);
    }

    #[test]
    fn what_upstreams_say_of_it_is_replaced() {
        let said = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-private-network", "true"),
            ("access-control-expose-headers", "x-secret"),
            ("vary", "accept, Origin"),
            ("x-kept", "1"),
        ];
        let (cors, mut known) = (cors(&[PAGE]), headers(&said));
        cors.mark(&mut known, &cors.page(Some(&HeaderValue::from_static(PAGE))));
        let expected = headers(&[
            ("access-control-allow-origin", PAGE),
            ("access-control-expose-headers", "x-b"),
            ("vary", "accept, Origin"),
            ("x-kept", "1"),
        ]);
        assert_eq!(known, expected);
        let mut unknown = headers(&said[..4]);
        cors.mark(&mut unknown, &Page { allowed: None });
        assert_eq!(unknown, headers(&[("vary", "origin")]));
    }

    #[test]
    fn only_browsers_that_ask_first_are_answered() {
        for (method, names, expected) in [
            (Method::OPTIONS, &["origin", "access-control-request-method"][..], true),
            (Method::OPTIONS, &["origin"], false),
            (Method::OPTIONS, &["access-control-request-method"], false),
            (Method::GET, &["origin", "access-control-request-method"], false),
        ] {
            let headers = headers(&names.iter().map(|name| (*name, "x")).collect::<Vec<_>>());
            assert_eq!(is_preflight(&method, &headers), expected, "{method} {names:?}");
        }
    }

    fn cors(origins: &[&str]) -> Cors {
        Cors {
            origins: origins.iter().map(ToString::to_string).collect(),
            methods: ["GET", "PUT"].map(str::to_owned).into(),
            headers: vec!["x-a".into()],
            expose: vec!["x-b".into()],
            credentials: false,
            max_age: Some(Duration::from_secs(600)),
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }
}
