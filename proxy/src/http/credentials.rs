//! What a request shows of who sends it.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

use super::problem::Problem;
use crate::transport::{Upgrade, form_decoded, read_basic};

/// What a request shows of who sends it. It has no `Debug`: all of it is secret.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Shown {
    /// Of `Authorization: Basic …`.
    pub(super) username: Option<Box<str>>,
    /// With the user name; or a key, or a token, that is shown alone.
    pub(super) password: Option<Box<[u8]>>,
    /// The token, the credentials in the query by their names, and the cookies.
    pub(super) upgrade: Upgrade,
}

impl Shown {
    /// What a request shows, and its query without that; `names` are those of credentials in a query.
    pub(super) fn read<'a>(
        uri: &'a Uri,
        headers: &HeaderMap,
        names: &[String],
    ) -> Result<(Self, Option<Cow<'a, str>>), Problem> {
        let (in_query, rest) = split_query(uri.query(), names)?;
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let authorization = match (given.next(), given.next(), in_query.as_slice()) {
            (None, None, []) => None,
            (None, None, [(_, value)]) => Some(value.as_str()),
            (Some(header), None, []) => Some(header.to_str().map_err(|_| Problem::BadAuthorization)?),
            // somebody else could have added one of them
            _ => return Err(Problem::BadAuthorization),
        };
        let mut shown = Self::default();
        let mut bearer = None;
        if let Some(text) = authorization {
            bearer = shown.authorize(text.trim())?;
        }
        let bearer = bearer.map(str::to_owned);
        shown.upgrade = Upgrade::found(bearer.as_deref(), in_query, headers);
        Ok((shown, rest))
    }

    /// Takes what an `Authorization` says; returns the token, if it is one.
    fn authorize<'a>(&mut self, text: &'a str) -> Result<Option<&'a str>, Problem> {
        let (scheme, value) = match text.split_once(' ') {
            Some((scheme, value)) => (scheme, value.trim_start()),
            // a key alone, as the first adapters of Mainflux have it
            None => ("", text),
        };
        if value.is_empty() || KEYLESS.iter().any(|known| known.eq_ignore_ascii_case(value)) {
            return Err(Problem::BadAuthorization);
        }
        let is = |known: &str| scheme.eq_ignore_ascii_case(known);
        if is("basic") {
            let (username, password) = read_basic(value).ok_or(Problem::BadAuthorization)?;
            (self.username, self.password) = (Some(username), Some(password));
            return Ok(None);
        }
        let (is_bearer, is_key) = (is("bearer"), is("thing") || is("client") || scheme.is_empty());
        if is_bearer || is_key {
            self.password = Some(value.as_bytes().into());
        }
        Ok(is_bearer.then_some(value))
    }
}

/// Names and values.
type Pairs = Vec<(String, String)>;

/// The pairs of a query that are credentials, and all others as they stand; `None` for a query without others.
fn split_query<'a>(
    query: Option<&'a str>,
    names: &[String],
) -> Result<(Pairs, Option<Cow<'a, str>>), Problem> {
    let Some(query) = query else { return Ok((Vec::new(), None)) };
    let (mut shown, mut rest) = (Vec::new(), Vec::new());
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match form_decoded(name).filter(|name| names.contains(name)) {
            Some(name) => shown.push((name, form_decoded(value).ok_or(Problem::BadAuthorization)?)),
            None => rest.push(pair),
        }
    }
    if shown.is_empty() {
        return Ok((shown, Some(query.into())));
    }
    let rest = (!rest.is_empty()).then(|| rest.join("&").into());
    Ok((shown, rest))
}

/// Schemes that mean nothing alone.
const KEYLESS: [&str; 4] = ["basic", "bearer", "client", "thing"];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn each_scheme_is_understood() {
        for (authorization, username, password, bearer) in [
            ("Basic ZGV2LTE6cDp3", Some("dev-1"), Some("p:w"), None),
            ("bearer  a.b.c", None, Some("a.b.c"), Some("a.b.c")),
            ("Thing key", None, Some("key"), None),
            ("Client key", None, Some("key"), None),
            ("key", None, Some("key"), None),
            ("Digest username=x", None, None, None),
        ] {
            let (shown, _) = read("/", &[authorization]).ok().unwrap();
            assert_eq!(shown.username.as_deref(), username, "{authorization}");
            assert_eq!(shown.password.as_deref(), password.map(str::as_bytes), "{authorization}");
            assert_eq!(shown.upgrade.bearer(), bearer, "{authorization}");
        }
    }

    #[test]
    fn credentials_are_taken_out_of_the_query() {
        for (target, rest, key) in [
            ("/a?auth=k", None, Some("k")),
            ("/a?x=%20&authorization=Thing%20k&y", Some("x=%20&y"), Some("k")),
            ("/a?%61uth=Bearer+k", None, Some("k")),
            ("/a?x=1&&y=2", Some("x=1&&y=2"), None),
            ("/a?", Some(""), None),
            ("/a?Auth=k", Some("Auth=k"), None),
            ("/a", None, None),
        ] {
            let (shown, kept) = read(target, &[]).ok().unwrap();
            assert_eq!(kept.as_deref(), rest, "{target}");
            assert_eq!(shown.password.as_deref(), key.map(str::as_bytes), "{target}");
        }
    }

    #[test]
    fn what_is_there_twice_or_cannot_be_read_is_refused() {
        for (target, headers) in [
            ("/?auth=a&auth=b", &[][..]),
            ("/?auth=a&authorization=b", &[]),
            ("/?auth=a", &["Bearer b"]),
            ("/", &["Bearer a", "Bearer b"]),
            ("/?auth=%zz", &[]),
            ("/?auth=", &[]),
            ("/", &[""]),
            ("/", &["Bearer"]),
            ("/", &["Basic !"]),
        ] {
            assert!(read(target, headers).err() == Some(Problem::BadAuthorization), "{target} {headers:?}");
        }
    }

    fn read(target: &str, authorization: &[&str]) -> Result<(Shown, Option<String>), Problem> {
        let mut request = Request::get(target);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        let request = request.body(()).unwrap();
        let names = ["auth", "authorization"].map(str::to_owned);
        let (shown, rest) = Shown::read(request.uri(), request.headers(), &names)?;
        Ok((shown, rest.map(Cow::into_owned)))
    }
}
