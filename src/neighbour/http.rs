//! HTTP/1.1 to services that mgate asks: one request, one whole answer, within a time and a size.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use mgate_proxy::transport::{Authorities, Certificate, ClientTls, TlsError};
use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::time::timeout;

/// Sends requests over connections that it keeps for the next ones.
///
/// It follows no redirects, heeds no proxy of the environment, keeps no cookies and decodes no compression.
/// It must be used inside of a runtime that drives timers: in policies and authenticators, that of the
/// background.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client,
    /// Keeps no connection.
    anew: Client,
    timeout: Duration,
    max_body_bytes: usize,
}

/// How a client speaks to its service.
pub struct HttpOptions {
    /// Who vouches for servers; `None` for the authorities of the system. Where it has none, no server is
    /// trusted, and only `http://` works.
    pub ca: Option<Authorities>,
    /// What is shown to servers that ask for a certificate.
    pub identity: Option<Certificate>,
    /// Time for a connection, the request and the whole answer together.
    pub timeout: Duration,
    /// The largest body of an answer.
    pub max_body_bytes: usize,
}

/// Why a client cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpClientError {
    /// The system gives the client nothing to start with.
    Start(String),
    /// Its certificates cannot be used.
    Tls(TlsError),
}

/// Why there is no answer. None of these says more of the request than its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// The answer ended before it was whole.
    Broken(String),
    /// There is no connection to be had, or none that can be trusted.
    Connect(String),
    /// The body of the answer is larger than this number of bytes.
    TooLarge(usize),
    /// The answer was not whole after this time.
    TooLate(Duration),
    /// The connection broke, or spoke no HTTP, before anything was known of the answer.
    Unanswered(String),
    /// Nothing can be sent to this address.
    Url,
}

/// What is wrong with the address of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// A user name or a password, which everybody could read who sees the address.
    Credentials,
    /// What stands behind `#` is never sent.
    Fragment,
    /// Neither `http` nor `https`.
    Scheme,
    /// Not an address with a scheme and a host.
    Syntax,
}

impl HttpClient {
    /// Checks the certificates; nothing is sent yet.
    pub fn new(options: HttpOptions) -> Result<Self, HttpClientError> {
        let HttpOptions { ca, identity, timeout, max_body_bytes } = options;
        let authorities = ca.or_else(|| Authorities::of_system().ok()).unwrap_or_else(Authorities::none);
        let tls = ClientTls::new(authorities, identity.as_ref()).map_err(HttpClientError::Tls)?;
        let client = |max_idle| {
            Client::builder()
                .tls_backend_preconfigured(tls.to_rustls())
                .redirect(Policy::none())
                .no_proxy()
                .retry(reqwest::retry::never())
                .referer(false)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(max_idle)
                .build()
                .map_err(|error| HttpClientError::Start(causes(&error)))
        };
        Ok(Self { client: client(MAX_IDLE)?, anew: client(0)?, timeout, max_body_bytes })
    }

    /// Sends a request and waits for the whole answer, whatever its status.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.send_by(&self.client, request).await
    }

    /// The same; where nothing was heard of the request, once more over a connection of its own: those that are
    /// kept may all have died with a service that is back.
    pub async fn send_twice(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match self.send(request.clone()).await {
            Err(HttpError::Connect(_) | HttpError::Unanswered(_)) => self.send_by(&self.anew, request).await,
            sent => sent,
        }
    }

    async fn send_by(&self, client: &Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = request.try_into().map_err(|_| HttpError::Url)?;
        match timeout(self.timeout, self.exchange(client, request)).await {
            Ok(result) => result,
            Err(_) => Err(HttpError::TooLate(self.timeout)),
        }
    }

    async fn exchange(
        &self,
        client: &Client,
        request: reqwest::Request,
    ) -> Result<Response<Bytes>, HttpError> {
        let mut answer = client.execute(request).await.map_err(HttpError::of)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(HttpError::of)? {
            if chunk.len() > self.max_body_bytes - body.len() {
                return Err(HttpError::TooLarge(self.max_body_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        let mut whole = Response::new(body.freeze());
        *whole.status_mut() = answer.status();
        *whole.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(whole)
    }
}

impl HttpError {
    fn of(error: reqwest::Error) -> Self {
        let kind = match () {
            () if error.is_connect() => Self::Connect,
            () if error.is_request() => Self::Unanswered,
            () => Self::Broken,
        };
        // the address may have what is nobody's business in its query
        let host =
            error.url().and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)));
        let why = causes(&error.without_url());
        kind(match host {
            Some((host, port)) => format!("{host}:{port}: {why}"),
            None => why,
        })
    }
}

/// Reads the address of a service: `http://host:port/path?query` or `https://…`, without credentials.
pub fn parse_url(text: &str) -> Result<Uri, UrlError> {
    if text.contains('#') {
        return Err(UrlError::Fragment);
    }
    let uri: Uri = text.parse().map_err(|_| UrlError::Syntax)?;
    let authority = uri.authority().ok_or(UrlError::Syntax)?;
    if authority.as_str().contains('@') {
        return Err(UrlError::Credentials);
    }
    match uri.scheme_str() {
        _ if authority.host().is_empty() => Err(UrlError::Syntax),
        Some("http" | "https") => Ok(uri),
        _ => Err(UrlError::Scheme),
    }
}

impl fmt::Display for HttpClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(why) => write!(f, "no HTTP client can be made: {why}"),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl Error for HttpClientError {}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "no whole answer: {why}"),
            Self::Connect(why) => write!(f, "no connection to {why}"),
            Self::TooLarge(bytes) => write!(f, "the answer is larger than {bytes} bytes"),
            Self::TooLate(timeout) => write!(f, "no whole answer within {timeout:?}"),
            Self::Unanswered(why) => write!(f, "no answer: {why}"),
            Self::Url => f.write_str("nothing can be sent to this address"),
        }
    }
}

impl Error for HttpError {}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Credentials => "credentials must not stand in an address",
            Self::Fragment => "`#` has no meaning in the address of a service",
            Self::Scheme => "must begin with http:// or https://",
            Self::Syntax => "is not an address such as https://host:port/path",
        })
    }
}

impl Error for UrlError {}

/// An error and what caused it, in one line.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// How long a connection that nothing uses is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many of them.
const MAX_IDLE: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::net::TcpListener;
    use std::time::UNIX_EPOCH;

    use mgate_certs::{Authority, Issued, Validity};
    use mgate_policies::Now;
    use mgate_proxy::transport::{
        Acceptor, AcceptorOptions, CipherSuites, ClientAuth, Demand, MinVersion, RevocationLists, ServerTls,
        ServerTlsOptions,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::service::{Service, answer, json};

    #[tokio::test]
    async fn request_and_answer_go_as_they_are() {
        let service = Service::saying(answer("404 Not Found", "text/plain", "nobody"));
        let request =
            Request::post(service.url("/a/b?c=d")).header("x-id", "7").body("hello".into()).unwrap();
        let answer = client().send(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (404, b"nobody".as_slice()));
        assert_eq!(answer.headers()["content-type"], "text/plain");
        let heard = &service.heard()[0];
        assert_eq!((&*heard.line, &*heard.body), ("POST /a/b?c=d", "hello"));
        assert!(heard.headers.contains("x-id: 7\r\n"), "{}", heard.headers);
        for unasked in ["accept-encoding", "cookie", "referer"] {
            assert!(!heard.headers.contains(unasked), "{}", heard.headers);
        }
    }

    #[tokio::test]
    async fn connection_is_kept() {
        let service = Service::saying(json("{}"));
        let client = client();
        for _ in 0..9 {
            client.send(get(&service.url("/"))).await.unwrap();
        }
        // one may be opened while the last one is on its way back
        assert!(service.connections() < 9);
    }

    #[tokio::test]
    async fn redirect_is_an_answer_like_any_other() {
        let elsewhere = Service::saying(json("{}"));
        let location =
            format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", elsewhere.url("/"));
        let service = Service::saying(location);
        let answer = client().send(get(&service.url("/"))).await.unwrap();
        assert_eq!(answer.status().as_u16(), 302);
        assert_eq!(elsewhere.heard().len(), 0);
    }

    #[tokio::test]
    async fn answer_that_only_drips_ends_at_the_deadline() {
        let service = Service::start(|_, tcp| {
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
            loop {
                tcp.write_all(b"1")?;
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let timeout = Duration::from_millis(100);
        let client = client_with(HttpOptions { timeout, ..options() });
        let sent = tokio::time::timeout(timeout * 20, client.send(get(&service.url("/")))).await;
        assert_eq!(sent.unwrap().unwrap_err(), HttpError::TooLate(timeout));
    }

    #[tokio::test]
    async fn larger_answer_than_wanted_is_refused() {
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n4\r\n1234\r\n0\r\n\r\n";
        for (body, is_taken) in [("12345678", true), ("123456789", false)] {
            let service = Service::saying(answer("200 OK", "text/plain", body));
            let sent = client_with(HttpOptions { max_body_bytes: 8, ..options() })
                .send(get(&service.url("/")))
                .await;
            assert_eq!(sent.is_ok(), is_taken, "{sent:?}");
        }
        let service = Service::saying(chunked);
        let client = client_with(HttpOptions { max_body_bytes: 8, ..options() });
        assert_eq!(client.send(get(&service.url("/"))).await.unwrap_err(), HttpError::TooLarge(8));
    }

    #[tokio::test]
    async fn half_an_answer_is_none() {
        let body = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345";
        for (half, has_begun) in [(body, true), ("HTTP/1.1 20", false), ("", false), ("MQTT\r\n\r\n", false)]
        {
            let service = Service::start(move |_, tcp| {
                tcp.write_all(half.as_bytes())?;
                Err(ErrorKind::ConnectionAborted.into())
            });
            match client().send(get(&service.url("/"))).await {
                Err(HttpError::Broken(_)) => assert!(has_begun, "{half:?}"),
                Err(HttpError::Unanswered(_)) => assert!(!has_begun, "{half:?}"),
                sent => panic!("{half:?}: {sent:?}"),
            }
        }
    }

    #[tokio::test]
    async fn nobody_there_is_no_connection() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = client().send(get(&format!("http://{address}/?secret=hunter2"))).await.unwrap_err();
        assert!(matches!(error, HttpError::Connect(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn server_is_trusted_by_authority_and_name() {
        let (ours, others) = (authority(), authority());
        for (ca, name, is_trusted) in
            [(&ours, "localhost", true), (&ours, "elsewhere.example", false), (&others, "localhost", false)]
        {
            let url = tls_service(&ours, name).await;
            let ca = Some(Authorities::from_pem(ca.certificate_pem().as_bytes()).unwrap());
            let identity = Some(client_certificate(&ours));
            let sent = client_with(HttpOptions { ca, identity, ..options() }).send(get(&url)).await;
            match sent {
                Ok(answer) => assert!(is_trusted && answer.body() == "trusted", "{name}"),
                Err(error) => {
                    assert!(!is_trusted && matches!(error, HttpError::Connect(_)), "{name}: {error}");
                }
            }
        }
    }

    #[test]
    fn addresses_are_checked() {
        for good in ["http://pdp", "https://[::1]:8443/a/b?c=d", "http://127.0.0.1:8181/v1/data"] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("http://user:secret@pdp/", UrlError::Credentials),
            ("https://user@pdp", UrlError::Credentials),
            ("http://pdp/#here", UrlError::Fragment),
            ("ftp://pdp/", UrlError::Scheme),
            ("pdp:80", UrlError::Scheme),
            ("/v1/data", UrlError::Syntax),
            ("http:///path", UrlError::Syntax),
            ("http://:80/", UrlError::Syntax),
            ("http://a b/", UrlError::Syntax),
            ("", UrlError::Syntax),
        ] {
            assert_eq!(parse_url(bad), Err(error), "{bad}");
        }
    }

    /// Takes one connection of a client with a certificate, and answers it.
    async fn tls_service(authority: &Authority, name: &str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client_auth = ClientAuth {
            authorities: Authorities::from_pem(authority.certificate_pem().as_bytes()).unwrap(),
            demand: Demand::Required,
            revoked: RevocationLists::default(),
        };
        let tls = ServerTls::new(ServerTlsOptions {
            certificates: vec![server_certificate(authority, name)],
            client_auth: Some(client_auth),
            min_version: MinVersion::default(),
            cipher_suites: CipherSuites::default(),
            alpn: Vec::new(),
        });
        let timeout = Duration::from_secs(5);
        let acceptor = Acceptor::new(AcceptorOptions {
            proxy_protocol: None,
            tls: Some(tls.unwrap()),
            websocket: None,
            timeout,
            keepalive: None,
        });
        tokio::spawn(async move {
            let (tcp, peer) = listener.accept().await.unwrap();
            let Ok(mut accepted) = acceptor.accept(tcp, peer, |_| Ok(())).await else { return };
            let mut request = [0; 1024];
            let _ = accepted.stream.read(&mut request).await;
            let _ = accepted.stream.write_all(&answer("200 OK", "text/plain", "trusted")).await;
            let _ = accepted.stream.flush().await;
        });
        format!("https://localhost:{port}/")
    }

    fn authority() -> Authority {
        Authority::create("test", valid()).unwrap()
    }

    fn server_certificate(authority: &Authority, name: &str) -> Certificate {
        certificate(&authority.issue_server(&[name], valid()).unwrap())
    }

    fn client_certificate(authority: &Authority) -> Certificate {
        certificate(&authority.issue_client("gate", &[], valid()).unwrap())
    }

    fn certificate(issued: &Issued) -> Certificate {
        Certificate::from_pem(issued.certificate.pem.as_bytes(), issued.key.pem().as_bytes()).unwrap()
    }

    fn valid() -> Validity {
        Validity::days(UNIX_EPOCH + Now::read().unix, 1).unwrap()
    }

    fn get(url: &str) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    fn client() -> HttpClient {
        client_with(options())
    }

    fn client_with(options: HttpOptions) -> HttpClient {
        HttpClient::new(options).unwrap()
    }

    fn options() -> HttpOptions {
        let timeout = Duration::from_secs(5);
        HttpOptions { ca: Some(Authorities::none()), identity: None, timeout, max_body_bytes: 4096 }
    }
}
