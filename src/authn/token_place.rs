use std::error::Error;
use std::fmt;

use mgate_proxy::gate::Credentials;
use mgate_proxy::transport::Upgrade;

/// Where a client shows its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// In a cookie of this name, with the request for its WebSocket.
    Cookie(String),
    /// As `Authorization: Bearer …`, with the request for its WebSocket.
    Header,
    /// As the password.
    Password,
    /// Under this name in the query of the request for its WebSocket.
    Query(String),
    /// As the user name.
    Username,
}

/// A text that names no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPlace;

impl TokenPlace {
    /// Takes `password`, `username`, `header`, `query:<name>` or `cookie:<name>`.
    pub fn parse(text: &str) -> Result<Self, UnknownPlace> {
        match text.split_once(':') {
            None => match text {
                "header" => Ok(Self::Header),
                "password" => Ok(Self::Password),
                "username" => Ok(Self::Username),
                _ => Err(UnknownPlace),
            },
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.into())),
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.into())),
            Some(_) => Err(UnknownPlace),
        }
    }

    /// What a client shows there.
    pub(super) fn text<'a>(&self, credentials: &Credentials<'a>) -> Option<&'a str> {
        match self {
            Self::Cookie(name) => credentials.upgrade?.cookie(name),
            Self::Header => credentials.upgrade.and_then(Upgrade::bearer),
            Self::Password => credentials.password.and_then(|password| str::from_utf8(password).ok()),
            Self::Query(name) => credentials.upgrade?.query(name),
            Self::Username => credentials.username,
        }
    }
}

impl fmt::Display for UnknownPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be password, username, header, query:NAME or cookie:NAME")
    }
}

impl Error for UnknownPlace {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::tests::shown;

    #[test]
    fn places_are_read() {
        for (text, place) in [
            ("password", Ok(TokenPlace::Password)),
            ("username", Ok(TokenPlace::Username)),
            ("header", Ok(TokenPlace::Header)),
            ("query:access_token", Ok(TokenPlace::Query("access_token".into()))),
            ("cookie:a:b", Ok(TokenPlace::Cookie("a:b".into()))),
            ("query:", Err(UnknownPlace)),
            ("cookie", Err(UnknownPlace)),
            ("Header", Err(UnknownPlace)),
            ("header:x", Err(UnknownPlace)),
            ("", Err(UnknownPlace)),
        ] {
            assert_eq!(TokenPlace::parse(text), place, "{text}");
        }
    }

    #[test]
    fn each_place_has_its_own_text() {
        let request = http::Request::get("/mqtt?t=in-query").header("cookie", "t=in-cookie");
        let request = request.header("authorization", "Bearer in-header").body(()).unwrap();
        let upgrade = Upgrade::of(request.uri(), request.headers()).unwrap();
        let credentials = Credentials {
            username: Some("in-username"),
            password: Some(b"in-password"),
            upgrade: Some(&upgrade),
            ..shown()
        };
        for place in ["cookie:t", "header", "password", "query:t", "username"] {
            let expected = format!("in-{}", place.trim_end_matches(":t"));
            let place = TokenPlace::parse(place).unwrap();
            assert_eq!(place.text(&credentials), Some(&*expected));
            assert_eq!(place.text(&shown()), None, "{place:?}");
        }
        let binary = Credentials { password: Some(b"\xff"), ..shown() };
        assert_eq!(TokenPlace::Password.text(&binary), None);
    }
}
