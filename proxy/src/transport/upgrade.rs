use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, COOKIE};
use tokio_tungstenite::tungstenite::http::{HeaderMap, Uri};

/// What a client shows in the request for its WebSocket, or in any other request of HTTP. Its `Debug` tells nothing
/// of it.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Upgrade {
    bearer: Option<Box<str>>,
    basic: Option<(Box<str>, Box<[u8]>)>,
    query: Vec<(String, String)>,
    cookies: Vec<(String, String)>,
}

impl Upgrade {
    /// What is in a request to this address with these headers, or what is wrong with it. Credentials of kinds that
    /// are not known are left out.
    pub fn of(uri: &Uri, headers: &HeaderMap) -> Result<Self, &'static str> {
        let mut upgrade = Self {
            query: uri.query().map(read_query).unwrap_or_default(),
            cookies: read_cookies(headers),
            ..Self::default()
        };
        let mut given = headers.get_all(AUTHORIZATION).into_iter();
        match (given.next(), given.next()) {
            (None, _) => {}
            (Some(header), None) => {
                let header = header.to_str().map_err(|_| BAD_AUTHORIZATION)?;
                upgrade.authorize(header).ok_or(BAD_AUTHORIZATION)?;
            }
            (Some(_), Some(_)) => return Err("several Authorization headers"),
        }
        Ok(upgrade)
    }

    /// What is in a request whose `Authorization` and query somebody else looks at: the token and the names and
    /// values that were found there, and the cookies of `headers`.
    pub fn found(bearer: Option<&str>, query: Vec<(String, String)>, headers: &HeaderMap) -> Self {
        Self { bearer: bearer.map(Into::into), basic: None, query, cookies: read_cookies(headers) }
    }

    /// The token of `Authorization: Bearer …`. RFC 6750 §2.1
    pub fn bearer(&self) -> Option<&str> {
        self.bearer.as_deref()
    }

    /// User name and password of `Authorization: Basic …`. RFC 7617 §2
    pub fn basic(&self) -> Option<(&str, &[u8])> {
        self.basic.as_ref().map(|(name, password)| (&**name, &**password))
    }

    /// The value of this name in the query, decoded; none if there are several.
    pub fn query(&self, name: &str) -> Option<&str> {
        only(&self.query, name)
    }

    /// The value of the cookie of this name; none if there are several.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        only(&self.cookies, name)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn authorize(&mut self, header: &str) -> Option<()> {
        let (scheme, credentials) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let credentials = credentials.trim_start();
        // RFC 9110 §11.1: the name of a scheme is taken in upper and lower case
        if scheme.eq_ignore_ascii_case("bearer") {
            self.bearer = Some((!credentials.is_empty()).then(|| credentials.into())?);
        } else if scheme.eq_ignore_ascii_case("basic") {
            self.basic = Some(read_basic(credentials)?);
        }
        Some(())
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}

pub(crate) fn read_basic(credentials: &str) -> Option<(Box<str>, Box<[u8]>)> {
    let decoded = STANDARD.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let name = str::from_utf8(&decoded[..colon]).ok()?;
    Some((name.into(), decoded[colon + 1..].into()))
}

/// What is not encoded as it must be is left out.
fn read_query(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((form_decoded(name)?, form_decoded(value)?))
    };
    query.split('&').filter_map(pair).collect()
}

/// RFC 6265 §4.2.1
fn read_cookies(headers: &HeaderMap) -> Vec<(String, String)> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|header| header.to_str().ok());
    let pair = |cookie: &str| {
        let (name, value) = cookie.trim().split_once('=')?;
        let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        Some((name.to_owned(), unquoted.unwrap_or(value).to_owned()))
    };
    all.flat_map(|header| header.split(';')).filter_map(pair).collect()
}

/// As forms are decoded: `+` is a space.
pub(crate) fn form_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        decoded.push(match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                hex(*high)? << 4 | hex(*low)?
            }
            (b'%', _) => return None,
            (b'+', _) => b' ',
            (byte, _) => *byte,
        });
    }
    String::from_utf8(decoded).ok()
}

pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| value.try_into().ok())
}

/// One that somebody else could have added to those of the client is none.
fn only<'a>(pairs: &'a [(String, String)], wanted: &str) -> Option<&'a str> {
    let mut values = pairs.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    values.next().filter(|_| values.next().is_none())
}

const BAD_AUTHORIZATION: &str = "bad Authorization header";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorization_is_read() {
        let bearer = of("/mqtt", &[("authorization", "bEARER  a.b.c")]).unwrap();
        assert_eq!((bearer.bearer(), bearer.basic()), (Some("a.b.c"), None));
        let basic = of("/mqtt", &[("authorization", "Basic ZGV2LTE6YTpi/w==")]).unwrap();
        assert_eq!(basic.basic(), Some(("dev-1", b"a:b\xff".as_slice())));
        for other in ["Negotiate", "Negotiate abc"] {
            assert!(of("/mqtt", &[("authorization", other)]).unwrap().is_empty(), "{other}");
        }
    }

    #[test]
    fn bad_authorization_is_refused() {
        for header in [
            "Bearer",
            "Bearer ",
            "Basic",
            "Basic ZGV2",
            "Basic ZGV2LTE6YTpi/w",
            "Basic /zph",
            "Basic !",
            "é x",
        ] {
            assert_eq!(of("/mqtt", &[("authorization", header)]), Err(BAD_AUTHORIZATION), "{header}");
        }
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert!(of("/mqtt", &twice).is_err());
    }

    #[test]
    fn query_is_decoded_once() {
        let upgrade = of("/mqtt?access_token=a%2Bb+%2525%C3%BC&x&bad=%zz&half=%2&x=1&twice=1&twice=2", &[]);
        let upgrade = upgrade.unwrap();
        assert_eq!(upgrade.query("access_token"), Some("a+b %25ü"));
        assert_eq!(upgrade.query("x"), Some("1"));
        for name in ["bad", "half", "twice", "other", ""] {
            assert_eq!(upgrade.query(name), None, "{name}");
        }
    }

    #[test]
    fn cookies_are_found_by_name() {
        let cookies = [("cookie", "a=1; token=\"x=y\";b=2"), ("cookie", "a=3")];
        let upgrade = of("/mqtt", &cookies).unwrap();
        assert_eq!((upgrade.cookie("token"), upgrade.cookie("b")), (Some("x=y"), Some("2")));
        assert_eq!((upgrade.cookie("a"), upgrade.cookie("Token")), (None, None));
    }

    #[test]
    fn nothing_is_shown_of_it() {
        let upgrade = of("/mqtt?token=secret", &[("cookie", "a=secret"), ("authorization", "Bearer secret")]);
        assert!(!format!("{upgrade:?}").contains("secret"));
    }

    fn of(target: &str, headers: &[(&str, &str)]) -> Result<Upgrade, &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        Upgrade::of(&target.parse().unwrap(), &map)
    }
}
