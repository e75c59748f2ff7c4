//! One request: what its head means, what is asked about it, and what of it goes on. It does no input or output.

use std::fmt;
use std::sync::{Arc, OnceLock};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use mgate_policies::{Action, Client, Protocol, Query, RequestPath, Resource, TopicFilter, TopicName};

use super::credentials::Shown;
use super::headers::{Origin, element, towards_upstream};
use super::messages;
use super::path;
use super::problem::Problem;
use super::websocket::{Asked, check_origin};
use super::{Options, Profile, Routes};
use crate::gate::Credentials;
use crate::transport::Accepted;

/// The connection that requests come by.
pub(super) struct Peer {
    pub(super) address: std::net::SocketAddr,
    /// That of its address as it is told to others.
    ip: HeaderValue,
    pub(super) certificate: Option<Vec<u8>>,
    pub(super) is_encrypted: bool,
    /// The host that its first request named; nearly all name the same.
    first: OnceLock<Arc<Host>>,
}

/// Whom and what a request is for, by which its route is found.
pub(super) struct Target {
    /// That of HTTP/1.1, for what HTTP/2 says otherwise.
    pub(super) method: Method,
    pub(super) host: Arc<Host>,
    /// Decoded.
    pub(super) path: Box<str>,
    /// What it asks for, if that is a WebSocket.
    pub(super) websocket: Option<Asked>,
}

/// The host that a request names.
pub(super) struct Host {
    /// As it was named.
    pub(super) text: HeaderValue,
    /// Without a port.
    name: Box<str>,
    /// What others are told of a request for it.
    element: HeaderValue,
}

/// What the head of a request means.
pub(super) struct Head {
    pub(super) target: Target,
    /// Path and query as they go on.
    forwarded: PathAndQuery,
    version: Version,
    pub(super) shown: Shown,
    /// Of the body, where it is said.
    content_length: Option<u64>,
}

impl Peer {
    pub(super) fn of(accepted: &mut Accepted) -> Self {
        let Accepted { peer, is_encrypted, .. } = *accepted;
        let ip = peer.ip().to_canonical().to_string();
        let ip = HeaderValue::try_from(ip).unwrap_or(HeaderValue::from_static("unknown"));
        let certificate = accepted.certificate.take();
        Self { address: peer, ip, certificate, is_encrypted, first: OnceLock::new() }
    }

    /// What an authenticator is shown.
    pub(super) fn credentials<'a>(&'a self, shown: &'a Shown) -> Credentials<'a> {
        Credentials {
            client_id: "",
            username: shown.username.as_deref(),
            password: shown.password.as_deref(),
            upgrade: Some(&shown.upgrade),
            certificate: self.certificate.as_deref(),
            psk_identity: None,
            peer: self.address,
            protocol: Protocol::Http,
        }
    }

    /// The host that a request names so.
    fn host(&self, text: &HeaderValue) -> Result<Arc<Host>, Problem> {
        if let Some(first) = self.first.get().filter(|first| first.text == *text) {
            return Ok(Arc::clone(first));
        }
        let host = Arc::new(Host::read(text.to_str().map_err(|_| Problem::BadHost)?, self)?);
        self.first.get_or_init(|| Arc::clone(&host));
        Ok(host)
    }
}

impl Target {
    /// Finds it in the head of a request, which has so many headers at the most; or says why there is none.
    pub(super) fn read(parts: &Parts, peer: &Peer, headers: usize) -> Result<Self, Problem> {
        if parts.headers.len() > headers {
            return Err(Problem::HeadTooLarge);
        }
        let websocket = Asked::read(parts)?;
        // RFC 8441 §4: what is a GET in HTTP/1.1 is a CONNECT in HTTP/2
        let method = if websocket.is_some() { Method::GET } else { parts.method.clone() };
        check_method(&method)?;
        check_framing(&parts.headers)?;
        let host = host(parts, peer)?;
        Ok(Self { method, host, path: path::decoded(parts.uri.path())?, websocket })
    }

    /// The number of the route that it is for. None of them takes MQTT.
    pub(super) fn route(&self, routes: &Routes) -> Result<usize, Problem> {
        if self.websocket.as_ref().is_some_and(Asked::offers_mqtt) {
            return Err(Problem::MqttElsewhere);
        }
        routes.find(&self.host.name, &self.path)
    }
}

impl Host {
    fn read(text: &str, peer: &Peer) -> Result<Self, Problem> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        let authority: Authority = text.parse().map_err(|_| Problem::BadHost)?;
        let name = authority.host().into();
        let text = HeaderValue::from_str(text).map_err(|_| Problem::BadHost)?;
        if authority.host().is_empty() || !text.as_bytes().iter().all(|byte| is_good(*byte)) {
            return Err(Problem::BadHost);
        }
        Ok(Self { name, element: element(&peer.ip, &text, peer.is_encrypted), text })
    }
}

impl Head {
    /// Reads the head of a request, or says what keeps it from being one for its route.
    pub(super) fn read(parts: &Parts, target: Target, options: &Options) -> Result<Self, Problem> {
        let (shown, query) = Shown::read(&parts.uri, &parts.headers, &options.query_credentials)?;
        let forwarded = forwarded(&parts.uri, query.as_deref(), options)?;
        let content_length = match parts.headers.get(CONTENT_LENGTH) {
            Some(length) => Some(number(length).ok_or(Problem::BadRequest)?),
            None => None,
        };
        let head = Self { target, forwarded, version: parts.version, shown, content_length };
        head.check_length(options)?;
        head.check_websocket(&parts.headers, options)?;
        head.check_profile(&parts.headers, options)?;
        Ok(head)
    }

    /// What is asked about the request; `payload` is what it carries, if that was read.
    pub(super) fn query<'a>(
        &'a self,
        client: &'a Client,
        payload: &'a [u8],
        options: &Options,
    ) -> Result<Query<'a>, Problem> {
        let (action, resource) = match options.profile {
            Profile::Messages { .. } if self.target.websocket.is_some() => {
                let filter =
                    TopicFilter::parse(self.topic(options)?.as_str()).map_err(|_| Problem::BadMessage)?;
                (Action::Subscribe, Resource::Filter(filter))
            }
            Profile::Messages { .. } => (Action::Publish, Resource::Topic(self.topic(options)?)),
            Profile::Proxy => {
                let path = RequestPath::parse(&self.target.path).map_err(|_| Problem::BadPath)?;
                (Action::Request, Resource::Request { method: self.target.method.as_str(), path })
            }
        };
        Ok(Query { client, action, resource, payload, qos: 0, retain: false })
    }

    /// Where its message is published to.
    pub(super) fn topic(&self, options: &Options) -> Result<TopicName<'_>, Problem> {
        messages::topic(options.rewriting.rest(&self.target.path, &options.place))
    }

    /// The topic of the messages of its WebSocket: that of the channel, or its path.
    pub(super) fn websocket_topic(&self, options: &Options) -> Result<TopicName<'_>, Problem> {
        match options.profile {
            Profile::Messages { .. } => self.topic(options),
            Profile::Proxy => {
                let path = &*self.target.path;
                let topic = path.strip_prefix('/').filter(|topic| !topic.is_empty());
                TopicName::parse(topic.unwrap_or(path)).map_err(|_| Problem::BadPath)
            }
        }
    }

    /// The head as the upstream gets it.
    pub(super) fn forward(&self, mut headers: HeaderMap, peer: &Peer, options: &Options) -> Parts {
        let host = &self.target.host.text;
        let origin = Origin {
            ip: &peer.ip,
            is_encrypted: peer.is_encrypted,
            element: &self.target.host.element,
            is_trusted: options.trusted.iter().any(|block| block.contains(peer.address.ip())),
            forwards_authorization: options.forward_authorization,
            host,
            version: self.version,
            prefix: options.rewriting.prefix(&options.place),
        };
        towards_upstream(&mut headers, &origin);
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.method = self.target.method.clone();
        parts.uri = Uri::from(self.forwarded.clone());
        parts.headers = headers;
        parts
    }

    /// Has an answer of the upstream lead where the client finds it.
    pub(super) fn redirect(&self, headers: &mut HeaderMap, options: &Options) {
        options.rewriting.redirect(headers, &options.place, &self.target.host.text);
    }

    fn check_length(&self, options: &Options) -> Result<(), Problem> {
        let is_too_large = self.content_length.is_some_and(|length| length > options.body_bytes);
        if is_too_large { Err(Problem::TooLarge) } else { Ok(()) }
    }

    fn check_websocket(&self, headers: &HeaderMap, options: &Options) -> Result<(), Problem> {
        if self.target.websocket.is_none() {
            return Ok(());
        }
        self.websocket_topic(options)?;
        check_origin(headers, &options.origins, &self.target.host.text)
    }

    /// A message is checked before anybody is asked: what is refused later was published already.
    fn check_profile(&self, headers: &HeaderMap, options: &Options) -> Result<(), Problem> {
        let Profile::Messages { content_types } = &options.profile else { return Ok(()) };
        self.topic(options)?;
        if self.target.websocket.is_some() {
            return Ok(());
        }
        if self.target.method != Method::POST {
            return Err(Problem::Method);
        }
        if headers.get_all(CONTENT_TYPE).iter().count() > 1 {
            return Err(Problem::BadRequest);
        }
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if messages::is_taken(content_type, content_types) {
            Ok(())
        } else {
            Err(Problem::UnsupportedMediaType)
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.target.method, self.target.path)
    }
}

/// Whether requests of this method have no effect, so that one may be made twice. RFC 9110 §9.2.1
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// A method is passed on if it could stand in a registry: actions of other protocols are written in small letters.
fn check_method(method: &Method) -> Result<(), Problem> {
    let is_good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    let is_passed_on = *method != Method::CONNECT && *method != Method::TRACE;
    if is_passed_on && method.as_str().bytes().all(is_good) { Ok(()) } else { Err(Problem::NotImplemented) }
}

/// RFC 9112 §6.1: nobody behind may see other ends of a message than we do.
fn check_framing(headers: &HeaderMap) -> Result<(), Problem> {
    let encodings: Vec<_> = headers.get_all(TRANSFER_ENCODING).iter().collect();
    if !encodings.is_empty() && headers.contains_key(CONTENT_LENGTH) {
        return Err(Problem::BadRequest);
    }
    match encodings[..] {
        [] => {}
        [encoding] if encoding.as_bytes().eq_ignore_ascii_case(b"chunked") => {}
        [_] => return Err(Problem::NotImplemented),
        _ => return Err(Problem::BadRequest),
    }
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(Problem::BadRequest);
    }
    let is_expected = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !headers.get_all(EXPECT).iter().all(is_expected) {
        return Err(Problem::Expectation);
    }
    Ok(())
}

/// The host that a request names, once and nowhere else. RFC 9112 §3.2
fn host(parts: &Parts, peer: &Peer) -> Result<Arc<Host>, Problem> {
    let mut given = parts.headers.get_all(HOST).iter();
    let (header, None) = (given.next(), given.next()) else { return Err(Problem::BadHost) };
    // a target that names it does not stand for the header
    let is_needed = parts.version == Version::HTTP_11;
    let target = parts.uri.authority().filter(|_| header.is_some() || !is_needed);
    let Some(target) = target else { return peer.host(header.ok_or(Problem::BadHost)?) };
    let is_other = |header: &HeaderValue| header.to_str().map_or(true, |header| target != header);
    if header.is_some_and(is_other) {
        return Err(Problem::BadHost);
    }
    peer.host(&HeaderValue::from_str(target.as_str()).map_err(|_| Problem::BadHost)?)
}

/// Path and query as they go on, of which the latter is `query`.
fn forwarded(uri: &Uri, query: Option<&str>, options: &Options) -> Result<PathAndQuery, Problem> {
    let is_kept = |target: &&PathAndQuery| target.query() == query && target.as_str().starts_with('/');
    if options.rewriting.changes_nothing()
        && let Some(target) = uri.path_and_query().filter(is_kept)
    {
        return Ok(target.clone());
    }
    let path = options.rewriting.inward(uri.path(), &options.place);
    let forwarded = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    forwarded.parse().map_err(|_| Problem::BadPath)
}

fn number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::gate::Limits;

    #[test]
    fn target_goes_on_as_it_came_without_credentials() {
        for (target, forwarded) in [
            ("/a%20b/%C3%BC?x=%2f&y", "/a%20b/%C3%BC?x=%2f&y"),
            ("/a?auth=k&x=1", "/a?x=1"),
            ("/a?auth=k", "/a"),
            ("/a?", "/a?"),
            ("http://gate.example/a?b", "/a?b"),
        ] {
            let head = read(get(target), &options()).ok().unwrap();
            assert_eq!(head.forwarded.as_str(), forwarded, "{target}");
        }
    }

    #[test]
    fn hosts_are_checked() {
        for (hosts, expected) in [
            (&["gate.example"][..], None),
            (&["GATE.example:8080"], None),
            (&["[::1]:80"], None),
            (&[], Some(Problem::BadHost)),
            (&[""], Some(Problem::BadHost)),
            (&["gate.example", "gate.example"], Some(Problem::BadHost)),
            (&["a b"], Some(Problem::BadHost)),
            (&["user@gate.example"], Some(Problem::BadHost)),
            (&["gate.example/x"], Some(Problem::BadHost)),
            (&["a\"b"], Some(Problem::BadHost)),
        ] {
            let mut request = Request::get("/");
            for host in hosts {
                request = request.header(HOST, *host);
            }
            assert_eq!(read(request, &options()).err(), expected, "{hosts:?}");
        }
        for (header, expected) in [("other.example", Some(Problem::BadHost)), ("ONE.example", None)] {
            let request = Request::get("http://one.example/").header(HOST, header);
            assert_eq!(read(request, &options()).err(), expected, "{header}");
        }
        for (version, expected) in
            [(Version::HTTP_10, None), (Version::HTTP_11, Some(Problem::BadHost)), (Version::HTTP_2, None)]
        {
            let request = Request::get("http://one.example/").version(version);
            assert_eq!(read(request, &options()).err(), expected, "{version:?} without the header");
        }
    }

    #[test]
    fn each_request_of_a_connection_has_its_own_host() {
        let peer = peer();
        for host in ["one.example", "other.example:80", "ONE.example", "one.example", "bad host"] {
            let parts = Request::get("/").header(HOST, host).body(()).unwrap().into_parts().0;
            let read = Target::read(&parts, &peer, 1).map(|target| target.host).ok();
            let Some(read) = read else {
                assert_eq!(host, "bad host");
                continue;
            };
            assert_eq!(
                (&*read.name, &read.text),
                (host.trim_end_matches(":80"), &HeaderValue::from_static(host))
            );
            assert_eq!(read.element, format!("for=192.0.2.1;host=\"{host}\";proto=http"));
        }
    }

    #[test]
    fn what_is_not_passed_on_is_refused() {
        for (method, name, value, expected) in [
            ("TRACE", "x", "", Problem::NotImplemented),
            ("publish", "x", "", Problem::NotImplemented),
            ("GET", "expect", "the-best", Problem::Expectation),
            ("GET", "transfer-encoding", "gzip, chunked", Problem::NotImplemented),
            ("PUT", "content-length", "4097", Problem::TooLarge),
            ("PUT", "content-length", "+1", Problem::BadRequest),
            ("PUT", "content-length", "1, 1", Problem::BadRequest),
        ] {
            let request = get("/").method(method).header(name, value);
            assert_eq!(read(request, &options()).err(), Some(expected), "{method} {name}: {value}");
        }
        let both = get("/").header("transfer-encoding", "chunked").header("content-length", "1");
        assert_eq!(read(both, &options()).err(), Some(Problem::BadRequest));
        let upgrade = get("/").header("connection", "keep-alive, Upgrade");
        assert_eq!(read(upgrade.header("upgrade", "h2c"), &options()).err(), Some(Problem::NotImplemented));
        assert_eq!(read(get("/").method("PURGE"), &options()).err(), None);
    }

    #[test]
    fn headers_are_counted() {
        let two = Options { headers: 2, ..options() };
        assert_eq!(read(get("/").header("a", "1"), &two).err(), None);
        assert_eq!(read(get("/").header("a", "1").header("a", "2"), &two).err(), Some(Problem::HeadTooLarge));
    }

    #[test]
    fn websocket_is_asked_about_by_its_path() {
        let (client, messages) =
            (client(), Options { profile: Profile::Messages { content_types: vec![] }, ..options() });
        for (options, path, asked, topic) in [
            (options(), "/a/b", "request GET /a/b", "a/b"),
            (options(), "/a/", "request GET /a/", "a/"),
            (options(), "/", "request GET /", "/"),
            (messages, "/channels/7/messages/x", "subscribe channels/7/messages/x", "channels/7/messages/x"),
        ] {
            let head = read(websocket(path), &options).ok().unwrap();
            let query = head.query(&client, b"", &options).ok().unwrap();
            assert_eq!(format!("{} {}", query.action, query.resource), asked);
            assert_eq!(head.websocket_topic(&options).map(TopicName::as_str), Ok(topic));
        }
        assert_eq!(
            read(websocket("/a/%23"), &options()).err(),
            Some(Problem::BadPath),
            "no topic has a wildcard"
        );
        let foreign = websocket("/a").header("origin", "https://evil.example");
        assert_eq!(read(foreign, &options()).err(), Some(Problem::Forbidden));
    }

    #[test]
    fn messages_are_posts_of_a_known_type_to_a_channel() {
        let profile = Profile::Messages { content_types: vec!["application/json".into()] };
        let options = Options { profile, ..options() };
        let post = |path: &str| get(path).method("POST");
        let json = ("content-type", "application/json");
        for (request, expected) in [
            (post("/channels/7/messages/a").header(json.0, json.1), None),
            (
                post("/channels/7/messages").header(json.0, json.1).header(json.0, "text/plain"),
                Some(Problem::BadRequest),
            ),
            (post("/channels/7/messages"), Some(Problem::UnsupportedMediaType)),
            (get("/channels/7/messages").header(json.0, json.1), Some(Problem::Method)),
            (post("/channels/7/x").header(json.0, json.1), Some(Problem::BadMessage)),
            (post("/health").header(json.0, json.1), Some(Problem::NotFound)),
        ] {
            assert_eq!(read(request, &options).err(), expected);
        }
    }

    fn get(target: &str) -> http::request::Builder {
        Request::get(target).header(HOST, "gate.example")
    }

    fn websocket(target: &str) -> http::request::Builder {
        get(target)
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    fn client() -> Client {
        Client {
            principal: mgate_policies::Principal::default(),
            client_id: "".into(),
            username: None,
            peer: "192.0.2.1:4000".parse().unwrap(),
            route: "api".into(),
            protocol: Protocol::Http,
            is_encrypted: false,
        }
    }

    fn read(request: http::request::Builder, options: &Options) -> Result<Head, Problem> {
        let parts = request.body(()).unwrap().into_parts().0;
        Head::read(&parts, Target::read(&parts, &peer(), options.headers)?, options)
    }

    fn peer() -> Peer {
        Peer {
            address: client().peer,
            ip: HeaderValue::from_static("192.0.2.1"),
            certificate: None,
            is_encrypted: false,
            first: OnceLock::new(),
        }
    }

    fn options() -> Options {
        Options { body_bytes: 4096, ..Options::of(&Limits::default()) }
    }
}
