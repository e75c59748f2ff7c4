//! The requests that open a WebSocket: that of the client, and ours to the upstream. RFC 6455 §4, RFC 8441 §5

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::headers::{has_token, tokens};
use crate::http::problem::Problem;
use crate::transport::may_connect;

/// What a client asks for.
pub(in crate::http) struct Asked {
    /// What proves to the client that it was understood; `None` over HTTP/2, where nothing must.
    accept: Option<HeaderValue>,
    protocols: Vec<Box<str>>,
}

/// What the answer of an upstream must say.
pub(in crate::http) struct Challenge<'a> {
    accept: String,
    protocols: &'a [Box<str>],
}

impl Asked {
    /// What a request asks for; `None` where that is no WebSocket, or what is wrong with it.
    pub(in crate::http) fn read(parts: &Parts) -> Result<Option<Self>, Problem> {
        let headers = &parts.headers;
        let accept = match parts.extensions.get::<Protocol>() {
            Some(protocol) if protocol.as_str().eq_ignore_ascii_case(WEBSOCKET) => None,
            Some(_) => return Err(Problem::NotImplemented),
            None if !wants_upgrade(headers) => return Ok(None),
            None => {
                check_upgrade(parts)?;
                Some(headers)
            }
        };
        if only(headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
            return Err(Problem::UpgradeRequired);
        }
        let accept = match accept {
            Some(headers) => Some(accept_of(headers)?),
            None => None,
        };
        Ok(Some(Self { accept, protocols: protocols(headers)? }))
    }

    /// Whether it is to carry MQTT, if that is taken.
    pub(in crate::http) fn offers_mqtt(&self) -> bool {
        self.protocols.iter().any(|name| is_mqtt(name))
    }

    /// Makes the headers that go to the upstream ask it for a WebSocket, without extensions.
    pub(in crate::http) fn challenge(&self, headers: &mut HeaderMap) -> Challenge<'_> {
        let key = generate_key();
        headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        if let Ok(key) = HeaderValue::from_str(&key) {
            headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        Challenge { accept: derive_accept_key(key.as_bytes()), protocols: &self.protocols }
    }

    /// Makes the headers of an upstream's answer those that the client gets, and says with which status.
    pub(in crate::http) fn accept(&self, headers: &mut HeaderMap) -> StatusCode {
        headers.remove(SEC_WEBSOCKET_ACCEPT);
        headers.remove(CONTENT_LENGTH);
        // RFC 8441 §5.1: over HTTP/2 there is nothing to switch to
        let Some(accept) = &self.accept else { return StatusCode::OK };
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
        StatusCode::SWITCHING_PROTOCOLS
    }

    /// Whether an answer of this status, which opens nothing, could be taken for one that does.
    pub(in crate::http) fn is_opened_by(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || (self.accept.is_none() && status.is_success())
    }
}

impl Challenge<'_> {
    /// Looks whether an answer of 101 opens what was asked for; says what is wrong with it otherwise.
    pub(in crate::http) fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let is_upgrade = headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"));
        let is_websocket = only(headers, &UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case(WEBSOCKET));
        if !is_upgrade || !is_websocket {
            return Err("it switched to no WebSocket");
        }
        if only(headers, &SEC_WEBSOCKET_ACCEPT) != Some(&self.accept) {
            return Err("it did not prove that it speaks WebSocket");
        }
        if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
            return Err("it chose an extension that was not offered");
        }
        let chosen = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().count();
        let is_offered = |name: &str| self.protocols.iter().any(|offered| **offered == *name);
        match chosen {
            0 => Ok(()),
            1 if only(headers, &SEC_WEBSOCKET_PROTOCOL).is_some_and(is_offered) => Ok(()),
            _ => Err("it chose a sub-protocol that was not offered"),
        }
    }
}

/// Whether a page of this site may ask for a WebSocket.
pub(in crate::http) fn check_origin(
    headers: &HeaderMap,
    origins: &[String],
    host: &HeaderValue,
) -> Result<(), Problem> {
    let mut given = headers.get_all(ORIGIN).iter();
    let (origin, another) = (given.next(), given.next());
    if another.is_none() && may_connect(origins, origin, Some(host)) {
        Ok(())
    } else {
        Err(Problem::Forbidden)
    }
}

/// RFC 9110 §7.8: an `Upgrade` that `Connection` does not name is for somebody else.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"))
}

fn check_upgrade(parts: &Parts) -> Result<(), Problem> {
    let is_websocket = parts.headers.get_all(UPGRADE).iter().any(|value| has_token(value, WEBSOCKET));
    if !is_websocket || parts.version != Version::HTTP_11 {
        return Err(Problem::NotImplemented);
    }
    let has_body = parts.headers.contains_key(TRANSFER_ENCODING)
        || parts.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if parts.method != Method::GET || has_body { Err(Problem::BadRequest) } else { Ok(()) }
}

/// What answers the key, which must be one. RFC 6455 §4.2.1
fn accept_of(headers: &HeaderMap) -> Result<HeaderValue, Problem> {
    let key = only(headers, &SEC_WEBSOCKET_KEY).ok_or(Problem::BadRequest)?;
    let is_key = STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    if !is_key {
        return Err(Problem::BadRequest);
    }
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| Problem::BadRequest)
}

/// The sub-protocols, each of which is a token that is there once.
fn protocols(headers: &HeaderMap) -> Result<Vec<Box<str>>, Problem> {
    let mut protocols: Vec<Box<str>> = Vec::new();
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        value.to_str().map_err(|_| Problem::BadRequest)?;
        for name in tokens(value) {
            let is_token = name.parse::<HeaderName>().is_ok();
            if !is_token || protocols.iter().any(|known| **known == *name) {
                return Err(Problem::BadRequest);
            }
            protocols.push(name.into());
        }
    }
    Ok(protocols)
}

/// Packets of MQTT are more than messages on one topic: `mqtt`, `mqttv3.1`, and what they are called otherwise.
fn is_mqtt(protocol: &str) -> bool {
    protocol.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("mqtt"))
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

const WEBSOCKET: &str = "websocket";
const VERSION: &str = "13";

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn tokens_are_compared_as_lists() {
        for connection in ["Upgrade", "keep-alive, Upgrade", "upgrade,keep-alive", "close ,UPGRADE"] {
            for upgrade in ["websocket", "WebSocket", "h2c, websocket"] {
                let asked = read(&[("connection", connection), ("upgrade", upgrade)]);
                assert!(asked.is_ok_and(|asked| asked.is_some()), "{connection} {upgrade}");
            }
        }
        for (connection, upgrade) in [("keep-alive", "websocket"), ("close", "h2c"), ("upgraded", "x")] {
            assert!(
                read(&[("connection", connection), ("upgrade", upgrade)]).is_ok_and(|asked| asked.is_none())
            );
        }
        assert_eq!(
            read(&[("connection", "upgrade"), ("upgrade", "h2c")]).err(),
            Some(Problem::NotImplemented)
        );
    }

    #[test]
    fn requests_that_are_not_as_they_must_be_are_refused() {
        for (name, value, expected) in [
            ("sec-websocket-version", "8", Problem::UpgradeRequired),
            ("sec-websocket-key", "c2hvcnQ=", Problem::BadRequest),
            ("sec-websocket-key", "", Problem::BadRequest),
            ("content-length", "1", Problem::BadRequest),
            ("transfer-encoding", "chunked", Problem::BadRequest),
            ("sec-websocket-protocol", "a, a", Problem::BadRequest),
            ("sec-websocket-protocol", "a b", Problem::BadRequest),
        ] {
            let headers = [("connection", "upgrade"), ("upgrade", "websocket"), (name, value)];
            assert_eq!(read(&headers).err(), Some(expected), "{name}: {value}");
        }
    }

    #[test]
    fn mqtt_is_known_among_what_is_offered() {
        for (protocols, expected) in [("chat, mqtt", true), ("MQTTv3.1", true), ("chat", false)] {
            let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
            let asked = read(&[upgrade[0], upgrade[1], ("sec-websocket-protocol", protocols)]).ok().flatten();
            assert_eq!(asked.map(|asked| asked.offers_mqtt()), Some(expected), "{protocols}");
        }
    }

    #[test]
    fn request_of_http2_is_understood() {
        let mut parts = parts(&[]);
        parts.headers.remove(SEC_WEBSOCKET_KEY);
        parts.method = Method::CONNECT;
        parts.extensions.insert(Protocol::from_static("websocket"));
        let asked = Asked::read(&parts).unwrap().unwrap();
        assert_eq!(asked.accept(&mut HeaderMap::new()), StatusCode::OK);
        assert!(asked.is_opened_by(StatusCode::OK) && !asked.is_opened_by(StatusCode::FORBIDDEN));
        parts.extensions.insert(Protocol::from_static("connect-ip"));
        assert_eq!(Asked::read(&parts).err(), Some(Problem::NotImplemented));
    }

    #[test]
    fn client_is_answered_by_its_own_key() {
        let asked = read(&[("connection", "upgrade"), ("upgrade", "websocket")]).ok().flatten().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("that of the upstream"));
        assert_eq!(asked.accept(&mut headers), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(headers[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn answer_must_be_one_to_what_was_asked() {
        let protocol = ("sec-websocket-protocol", "a, b");
        let asked = read(&[("connection", "upgrade"), ("upgrade", "websocket"), protocol]).ok().flatten();
        let (asked, mut request) = (asked.unwrap(), HeaderMap::new());
        request.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("permessage-deflate"));
        let challenge = asked.challenge(&mut request);
        assert!(!request.contains_key(SEC_WEBSOCKET_EXTENSIONS));
        let good = [
            ("connection", "Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-accept", &*challenge.accept),
            ("sec-websocket-protocol", "b"),
        ];
        assert_eq!(challenge.check(&map(&good)), Ok(()));
        assert_eq!(challenge.check(&map(&good[..3])), Ok(()));
        for (name, value) in [
            ("connection", "close"),
            ("upgrade", "h2c"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("sec-websocket-protocol", "mqtt"),
            ("sec-websocket-protocol", "a, b"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ] {
            let mut bad = map(&good);
            bad.insert(name, HeaderValue::from_static(value));
            assert!(challenge.check(&bad).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let host = HeaderValue::from_static("gate.example");
        let origins = ["https://app.example".to_owned()];
        for (origin, is_good) in [
            (&[][..], true),
            (&[("origin", "https://gate.example")], true),
            (&[("origin", "https://app.example")], true),
            (&[("origin", "https://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "https://app.example"), ("origin", "https://app.example")], false),
        ] {
            assert_eq!(check_origin(&map(origin), &origins, &host).is_ok(), is_good, "{origin:?}");
        }
    }

    fn read(headers: &[(&'static str, &str)]) -> Result<Option<Asked>, Problem> {
        Asked::read(&parts(headers))
    }

    fn parts(headers: &[(&'static str, &str)]) -> Parts {
        let mut request = Request::get("/").body(()).unwrap();
        *request.headers_mut() =
            map(&[("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request.into_parts().0
    }

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }
}
