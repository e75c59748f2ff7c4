//! Paths as the upstream knows them: the same segments, without those that led to the route, below others.

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::place::Place;

/// What becomes of the paths of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewriting {
    /// Whether the path that the route serves is taken off.
    pub strip_path: bool,
    /// What is put before the rest: without a slash at its end, and empty for nothing.
    pub upstream_path: String,
}

impl Rewriting {
    /// Whether paths go on as they come.
    pub(super) fn changes_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The path as the upstream gets it, byte for byte what came from where the route's own path ends.
    pub(super) fn inward(&self, path: &str, place: &Place) -> String {
        let inward = format!("{}{}", self.upstream_path, self.rest(path, place));
        if inward.is_empty() { "/".into() } else { inward }
    }

    /// What of a path is not taken off: begins with a slash, or is empty.
    pub(super) fn rest<'a>(&self, path: &'a str, place: &Place) -> &'a str {
        if !self.strip_path || place.path == "/" {
            return path;
        }
        // a slash in a segment was refused: there are as many as in the path that was decoded
        let segments = place.path.matches('/').count();
        path.match_indices('/').nth(segments).map_or("", |(end, _)| &path[end..])
    }

    /// What was taken off, as an upstream may put it before its own links.
    pub(super) fn prefix(&self, place: &Place) -> Option<HeaderValue> {
        let is_stripped = self.strip_path && place.path != "/";
        is_stripped.then(|| HeaderValue::from_str(&encoded(&place.path)).ok()).flatten()
    }

    /// Has an answer lead where clients find it: what it says of this host and the upstream's paths.
    pub(super) fn redirect(&self, headers: &mut HeaderMap, place: &Place, host: &HeaderValue) {
        if self.changes_nothing() {
            return;
        }
        let host = host.to_str().unwrap_or_default();
        for name in [LOCATION, CONTENT_LOCATION] {
            self.redirect_one(headers, name, place, host);
        }
    }

    fn redirect_one(&self, headers: &mut HeaderMap, name: HeaderName, place: &Place, host: &str) {
        let outward = headers.get(&name).and_then(|value| self.outward(value.to_str().ok()?, place, host));
        if let Some(outward) = outward.and_then(|outward| HeaderValue::from_str(&outward).ok()) {
            headers.insert(name, outward);
        }
    }

    /// Where a reference leads for clients; `None` where it stays as it is.
    fn outward(&self, reference: &str, place: &Place, host: &str) -> Option<String> {
        let (origin, path) = split_origin(reference, host)?;
        let prefix = if self.strip_path && place.path != "/" { encoded(&place.path) } else { String::new() };
        let rest = below(path, &self.upstream_path).filter(|rest| is_plain(rest))?;
        // an upstream that was told the prefix may have used it
        if below(&prefix, &self.upstream_path).is_some() && below(path, &prefix).is_some() {
            return None;
        }
        let slash = if prefix.is_empty() && !rest.starts_with('/') { "/" } else { "" };
        Some(format!("{origin}{prefix}{slash}{rest}"))
    }
}

/// What stands before the path of a reference to this host, and the path with all behind it.
fn split_origin<'a>(reference: &'a str, host: &str) -> Option<(&'a str, &'a str)> {
    if reference.starts_with('/') {
        return (!reference.starts_with("//")).then_some(("", reference));
    }
    let (scheme, rest) = reference.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme));
    let end = rest.find('/')?;
    if !is_http || !rest[..end].eq_ignore_ascii_case(host) {
        return None;
    }
    Some(reference.split_at(reference.len() - rest.len() + end))
}

/// What of a path, with all behind it, is below `prefix`.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(rest)
}

/// Whether everybody reads the path alike, without what stood before it too: browsers drop tabs, take `\\` for `/`, and
/// two of them at the beginning for another host. WHATWG URL §4.4
fn is_plain(rest: &str) -> bool {
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    !path.starts_with("//") && !path.contains(|one: char| one == '\\' || one.is_control())
}

/// A path as a URL has it. RFC 3986 §3.3
fn encoded(path: &str) -> String {
    let encode = |byte: u8| match byte {
        _ if byte.is_ascii_alphanumeric() || PATH_MARKS.contains(&byte) => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    path.bytes().map(encode).collect()
}

const PATH_MARKS: &[u8] = b"/-._~!$&'()*+,;=:@";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_that_led_to_the_route_are_taken_off_and_others_put_before() {
        for (path, strip_path, upstream_path, from, to) in [
            ("/", false, "", "/a/b", "/a/b"),
            ("/", true, "", "/a/b", "/a/b"),
            ("/", true, "/v1", "/", "/v1/"),
            ("/api", false, "", "/api/x", "/api/x"),
            ("/api", false, "/v1", "/api/x", "/v1/api/x"),
            ("/api", true, "", "/api", "/"),
            ("/api", true, "", "/api/", "/"),
            ("/api", true, "", "/api/a%20b/%C3%BC/", "/a%20b/%C3%BC/"),
            ("/api", true, "", "/%61p%69/%61", "/%61"),
            ("/a b/c", true, "/v1/x", "/a%20b/c/d", "/v1/x/d"),
            ("/api", true, "/v1", "/api", "/v1"),
            ("/api", true, "/v1", "/api/", "/v1/"),
            ("/api", true, "", "/api/api/x", "/api/x"),
        ] {
            let (rewriting, place) = (rewriting(strip_path, upstream_path), place(path));
            assert_eq!(rewriting.inward(from, &place), to, "{path} {strip_path} {upstream_path} {from}");
        }
    }

    #[test]
    fn prefix_is_told_where_it_is_taken_off() {
        let told = |strip_path, path| rewriting(strip_path, "/v1").prefix(&place(path));
        assert_eq!(told(true, "/api/ä b").unwrap(), "/api/%C3%A4%20b");
        assert_eq!([told(true, "/"), told(false, "/api")], [None, None]);
    }

    #[test]
    fn answers_lead_where_clients_find_them() {
        for (strip_path, upstream_path, location, expected) in [
            (true, "", "/x?y#z", "/api/x?y#z"),
            (true, "", "http://gate.example:80/x", "http://gate.example:80/api/x"),
            (true, "", "HTTPS://Gate.example:80/", "HTTPS://Gate.example:80/api/"),
            (true, "", "/api/x", "/api/x"),
            (true, "", "/apis", "/api/apis"),
            (true, "/v1", "/v1/x", "/api/x"),
            (true, "/v1", "/v1", "/api"),
            (true, "/v1", "/v1?q", "/api?q"),
            (true, "/v1", "/v1/api/x", "/api/api/x"),
            (true, "/v1", "/v12", "/v12"),
            (true, "/v1", "/other", "/other"),
            (false, "/v1", "/v1", "/"),
            (false, "/v1", "/v1/api/x", "/api/x"),
            (false, "", "/x", "/x"),
            (true, "", "//other.example/x", "//other.example/x"),
            (true, "", "http://other.example/x", "http://other.example/x"),
            (true, "", "ftp://gate.example:80/x", "ftp://gate.example:80/x"),
            (true, "", "../x", "../x"),
            (true, "", "", ""),
            (false, "/v1", "/v1//evil.example/x", "/v1//evil.example/x"),
            (false, "/v1", "/v1/\\evil.example", "/v1/\\evil.example"),
            (false, "/v1", "/v1/\t/evil.example", "/v1/\t/evil.example"),
            (false, "/v1", "/v1/x//y?to=\\//", "/x//y?to=\\//"),
            (false, "/v1", "http://gate.example:80/v1//x", "http://gate.example:80/v1//x"),
            (true, "/v1", "/v1/\\x", "/v1/\\x"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().unwrap());
            let host = HeaderValue::from_static("gate.example:80");
            rewriting(strip_path, upstream_path).redirect(&mut headers, &place("/api"), &host);
            assert_eq!(headers[LOCATION], expected, "{strip_path} {upstream_path} {location}");
        }
    }

    #[test]
    fn upstream_may_use_the_prefix_where_its_own_paths_begin_like_it() {
        for (path, upstream_path, location, expected) in [
            ("/api/devices", "/api", "/api/devices/7", "/api/devices/7"),
            ("/api/devices", "/api", "/api/7", "/api/devices/7"),
            ("/api/devices", "/api", "/api/devicesX", "/api/devices/devicesX"),
            ("/api", "/api", "/api/7", "/api/7"),
            ("/api", "/api/devices", "/api/devices/7", "/api/7"),
            ("/", "", "/7", "/7"),
            ("/", "/api", "/api/7", "/7"),
        ] {
            let outward = rewriting(true, upstream_path).outward(location, &place(path), "h");
            assert_eq!(outward.as_deref().unwrap_or(location), expected, "{path} {upstream_path} {location}");
        }
    }

    fn rewriting(strip_path: bool, upstream_path: &str) -> Rewriting {
        Rewriting { strip_path, upstream_path: upstream_path.into() }
    }

    fn place(path: &str) -> Place {
        Place { path: path.into(), ..Place::default() }
    }
}
