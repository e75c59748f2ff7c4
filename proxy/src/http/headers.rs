//! Headers as they go on: without those of this connection, and with word of where the request came from.

use std::borrow::Cow;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, Entry, FORWARDED, HOST, TE, TRAILER,
    TRANSFER_ENCODING, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

/// Where a request came from, and what of it may go on.
#[derive(Clone)]
pub(super) struct Origin<'a> {
    /// The address of the peer.
    pub(super) ip: &'a HeaderValue,
    pub(super) is_encrypted: bool,
    /// Its [`element`], which says the same and names the host.
    pub(super) element: &'a HeaderValue,
    /// Whether the peer is a proxy whose word counts.
    pub(super) is_trusted: bool,
    /// Whether the upstream is to see the `Authorization`.
    pub(super) forwards_authorization: bool,
    pub(super) host: &'a HeaderValue,
    pub(super) version: Version,
    /// What was taken off the path, if anything was.
    pub(super) prefix: Option<HeaderValue>,
}

/// Makes the headers of a request those that the upstream gets.
pub(super) fn towards_upstream(headers: &mut HeaderMap, origin: &Origin<'_>) {
    // most messages have none: looking once is cheaper than looking for each
    if headers.keys().any(does_not_pass) {
        clean(headers, origin);
    }
    headers.insert(HOST, origin.host.clone());
    tell_origin(headers, origin);
    // RFC 9110 §7.6.3
    headers.append(
        VIA,
        HeaderValue::from_static(match origin.version {
            Version::HTTP_10 => "1.0 mgate",
            Version::HTTP_2 => "2.0 mgate",
            _ => "1.1 mgate",
        }),
    );
}

/// Takes out what does not go on, and joins what stands in pieces.
fn clean(headers: &mut HeaderMap, origin: &Origin<'_>) {
    let takes_trailers = headers.get_all(TE).iter().any(|value| has_token(value, "trailers"));
    remove_hop_by_hop(headers);
    headers.remove(EXPECT);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if !origin.forwards_authorization {
        headers.remove(AUTHORIZATION);
    }
    remove_all(headers, |name| {
        let name = &*dashed(name);
        is_override(name) || (!origin.is_trusted && is_forwarding(name))
    });
    join_cookies(headers);
}

/// Whether a header may not go on as it came.
fn does_not_pass(name: &HeaderName) -> bool {
    let name = &*dashed(name);
    let is_special = matches!(name, "authorization" | "cookie" | "expect");
    is_special || is_hop_by_hop(name) || is_override(name) || is_forwarding(name)
}

/// What `Forwarded` says of a request. RFC 7239 §4
pub(super) fn element(ip: &HeaderValue, host: &HeaderValue, is_encrypted: bool) -> HeaderValue {
    let [ip, host] = [ip, host].map(|value| value.to_str().unwrap_or_default());
    let (open, close) = if ip.contains(':') { ("\"[", "]\"") } else { ("", "") };
    let text = ["for=", open, ip, close, ";host=\"", host, "\";proto=", proto(is_encrypted)].concat();
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// Makes trailers of a request those that the upstream gets: they say nothing that its head could not.
pub(super) fn trailers_towards_upstream(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    remove_all(trailers, |name| is_override(&dashed(name)) || is_forwarding(&dashed(name)));
    for name in [AUTHORIZATION, CONTENT_LENGTH, COOKIE, HOST, VIA] {
        trailers.remove(name);
    }
}

/// Makes the headers of an answer those that the client gets.
pub(super) fn towards_client(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}

/// Makes trailers of an answer those that the client gets: they say nothing of the connection, nor where a body ends.
pub(super) fn trailers_towards_client(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    for name in [CONTENT_LENGTH, TRAILER] {
        trailers.remove(name);
    }
}

/// Whether one of the elements of a list is `token`.
pub(super) fn has_token(value: &HeaderValue, token: &str) -> bool {
    tokens(value).any(|one| one.eq_ignore_ascii_case(token))
}

/// RFC 9110 §7.6.1
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // most messages have none
    if !headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        return;
    }
    let named: Vec<HeaderName> =
        headers.get_all(CONNECTION).iter().flat_map(tokens).filter_map(|name| name.parse().ok()).collect();
    // RFC 9112 §6.3: of the two, the length is wrong
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    // how long the body is belongs to the message, whatever the connection says
    for name in named.iter().filter(|name| **name != CONTENT_LENGTH) {
        headers.remove(name);
    }
    remove_all(headers, |name| is_hop_by_hop(name.as_str()));
}

/// RFC 9113 §8.2.3: HTTP/2 may cut them into pieces, HTTP/1.1 may not.
fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&pieces.join(&b"; "[..]))
    {
        headers.insert(COOKIE, cookie);
    }
}

/// The elements of a list.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
}

fn remove_all(headers: &mut HeaderMap, is_bad: impl Fn(&HeaderName) -> bool) {
    let bad: Vec<HeaderName> = headers.keys().filter(|name| is_bad(name)).cloned().collect();
    for name in bad {
        headers.remove(name);
    }
}

/// A name as those read it who take `_` for `-`, as some upstreams do.
fn dashed(name: &HeaderName) -> Cow<'_, str> {
    match name.as_str() {
        name if name.contains('_') => name.replace('_', "-").into(),
        name => name.into(),
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What is authorized is this method and this path: nobody may say another one behind our back. CGI takes `Proxy` for
/// `HTTP_PROXY`.
fn is_override(name: &str) -> bool {
    matches!(
        name,
        "proxy"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "x-original-method"
            | "x-original-url"
            | "x-rewrite-url"
    )
}

fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "client-cert"
                | "client-cert-chain"
                | "client-ip"
                | "forwarded"
                | "true-client-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-forwarded"
                | "x-original-forwarded-for"
                | "x-original-host"
                | "x-original-uri"
                | "x-real-ip"
        )
}

/// RFC 7239 §4, and what was there before it.
fn tell_origin(headers: &mut HeaderMap, origin: &Origin<'_>) {
    append(headers, FORWARDED, origin.element.clone());
    append(headers, X_FORWARDED_FOR, origin.ip.clone());
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| origin.host.clone());
    let proto = || HeaderValue::from_static(proto(origin.is_encrypted));
    headers.entry(X_FORWARDED_PROTO).or_insert_with(proto);
    if let Some(prefix) = &origin.prefix {
        append(headers, X_FORWARDED_PREFIX, prefix.clone());
    }
}

fn proto(is_encrypted: bool) -> &'static str {
    if is_encrypted { "https" } else { "http" }
}

/// Adds an element to a list that stands in one line.
fn append(headers: &mut HeaderMap, name: HeaderName, element: HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(list) => {
            list.insert(element);
        }
        Entry::Occupied(mut list) => {
            let texts = list.iter().chain([&element]).filter_map(|value| value.to_str().ok());
            if let Ok(joined) = HeaderValue::try_from(texts.collect::<Vec<_>>().join(", ")) {
                list.insert(joined);
            }
        }
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut headers = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "x-more, content-length, host"),
            ("x-secret", "1"),
            ("x-more", "1"),
            ("keep-alive", "1"),
            ("proxy-connection", "1"),
            ("te", "gzip, trailers"),
            ("trailer", "x"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("accept", "a"),
        ]);
        towards_upstream(&mut headers, &origin(&HOST_VALUE));
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let added = ["forwarded", "host", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        let mut expected = [&added[..], &["accept", "content-length", "te", "trailer"]].concat();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn length_that_chunks_belie_stays_behind() {
        let mut headers = headers(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        towards_client(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn pieces_of_a_cookie_are_joined() {
        let mut headers = headers(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        towards_upstream(&mut headers, &origin(&HOST_VALUE));
        assert_eq!(headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn trailers_say_nothing_that_the_head_could_not() {
        let names =
            ["x-sum", "x-forwarded-for", "X_Original_Url", "authorization", "host", "cookie", "connection"];
        let mut trailers = headers(&names.map(|name| (name, "1")));
        trailers_towards_upstream(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
    }

    #[test]
    fn trailers_of_an_answer_say_nothing_of_the_connection() {
        let names =
            ["grpc-status", "connection", "keep-alive", "transfer-encoding", "content-length", "trailer"];
        let mut trailers = headers(&names.map(|name| (name, "1")));
        trailers_towards_client(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["grpc-status"]);
    }

    #[test]
    fn word_of_strangers_is_replaced() {
        let mut headers = headers(LIES);
        towards_upstream(&mut headers, &origin(&HOST_VALUE));
        assert_eq!(headers["forwarded"], element(&IP, &HOST_VALUE, true));
        assert_eq!(headers["forwarded"], "for=192.0.2.1;host=\"gate.example\";proto=https");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-host"], "gate.example");
        assert_eq!(headers["x-forwarded-proto"], "https");
        for name in
            ["x-real-ip", "x_forwarded_for", "x-forwarded-prefix", "x-http-method-override", "x_original_url"]
        {
            assert!(!headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn no_word_of_strangers_is_left_in_other_headers() {
        let names = [
            "proxy",
            "x-client-ip",
            "client-ip",
            "true-client-ip",
            "true_client_ip",
            "x-cluster-client-ip",
            "x-original-forwarded-for",
            "x-original-host",
            "x-original-uri",
            "x-forwarded",
            "client-cert",
            "client-cert-chain",
        ];
        let lies = names.map(|name| (name, "lie"));
        for is_trusted in [false, true] {
            let mut headers = headers(&lies);
            towards_upstream(&mut headers, &Origin { is_trusted, ..origin(&HOST_VALUE) });
            assert_eq!(
                headers.values().filter(|value| *value == "lie").count(),
                if is_trusted { 11 } else { 0 }
            );
            assert!(!headers.contains_key("proxy"));
        }
    }

    #[test]
    fn word_of_trusted_proxies_is_kept_and_added_to() {
        let mut headers = headers(LIES);
        let ip = HeaderValue::from_static("2001:db8::7");
        let element = element(&ip, &HOST_VALUE, true);
        let origin = Origin { is_trusted: true, ip: &ip, element: &element, ..origin(&HOST_VALUE) };
        towards_upstream(&mut headers, &origin);
        assert_eq!(
            headers["forwarded"],
            "for=1.1.1.1, for=\"[2001:db8::7]\";host=\"gate.example\";proto=https"
        );
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 2001:db8::7");
        assert_eq!(headers["x-forwarded-proto"], "gopher");
        assert_eq!(headers["x-real-ip"], "1.1.1.1");
        assert!(!headers.contains_key("x-http-method-override"));
    }

    #[test]
    fn prefix_is_told_behind_that_of_trusted_proxies() {
        for (is_trusted, expected) in [(false, "/api"), (true, "/x, /api")] {
            let mut headers = headers(LIES);
            let prefix = Some(HeaderValue::from_static("/api"));
            towards_upstream(&mut headers, &Origin { is_trusted, prefix, ..origin(&HOST_VALUE) });
            assert_eq!(headers["x-forwarded-prefix"], expected);
        }
    }

    #[test]
    fn credentials_go_on_only_where_that_is_said() {
        for forwards_authorization in [false, true] {
            let mut headers = headers(&[("authorization", "Bearer a"), ("proxy-authorization", "x")]);
            towards_upstream(&mut headers, &Origin { forwards_authorization, ..origin(&HOST_VALUE) });
            assert_eq!(headers.contains_key("authorization"), forwards_authorization);
            assert!(!headers.contains_key("proxy-authorization"));
        }
    }

    fn origin(host: &HeaderValue) -> Origin<'_> {
        Origin {
            ip: &IP,
            is_encrypted: true,
            element: &ELEMENT,
            is_trusted: false,
            forwards_authorization: false,
            host,
            version: Version::HTTP_11,
            prefix: None,
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) {
            (name.parse().unwrap(), value.parse().unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    static IP: HeaderValue = HeaderValue::from_static("192.0.2.1");
    static ELEMENT: HeaderValue = HeaderValue::from_static("for=192.0.2.1;host=\"gate.example\";proto=https");
    static HOST_VALUE: HeaderValue = HeaderValue::from_static("gate.example");

    const LIES: &[(&str, &str)] = &[
        ("forwarded", "for=1.1.1.1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "gopher"),
        ("x-forwarded-prefix", "/x"),
        ("x_forwarded_for", "1.1.1.1"),
        ("x-real-ip", "1.1.1.1"),
        ("x-http-method-override", "DELETE"),
        ("x_original_url", "/admin"),
    ];
}
