//! gRPC to services that mgate asks: one message, one whole answer, within a time and a size.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mgate_proxy::transport::{Authorities, Certificate, ClientTls, TlsError};
use prost::Message;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::http::{UrlError, causes};

pub use tonic::Code;

/// Calls the methods of one service over a connection that it makes when it is needed, and makes anew when it
/// broke.
///
/// It must be used inside of a runtime that drives timers: in policies and authenticators, that of the
/// background.
#[derive(Clone)]
pub struct GrpcClient {
    grpc: Arc<Grpc<legacy::Client<HttpsConnector<HttpConnector>, Body>>>,
    metadata: Arc<MetadataMap>,
    /// The host and the port, for errors.
    server: Arc<str>,
}

/// How a client speaks to its service.
pub struct GrpcOptions {
    /// Where the service is, as [`parse_target`] reads it.
    pub target: Uri,
    /// Who vouches for servers; `None` for the authorities of the system.
    pub ca: Option<Authorities>,
    /// What is shown to servers that ask for a certificate.
    pub identity: Option<Certificate>,
    /// What goes along with every call: tokens of mgate itself.
    pub metadata: HeaderMap,
    /// The largest message, either way.
    pub max_message_bytes: usize,
}

/// Why there is no answer. None of these says more of the request than its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcError {
    /// The connection broke, or spoke no gRPC, before the answer was whole.
    Broken(String),
    /// There is no connection to be had, or none that can be trusted.
    Connect(String),
    /// The message of the answer is of another type.
    Message,
    /// The service refused the call, with its words.
    Status(Code, String),
    /// The answer was not whole after this time.
    TooLate(Duration),
}

impl GrpcClient {
    /// Checks the certificates; nothing is sent yet.
    pub fn new(options: GrpcOptions) -> Result<Self, TlsError> {
        let GrpcOptions { target, ca, identity, metadata, max_message_bytes } = options;
        let authorities = ca.or_else(|| Authorities::of_system().ok()).unwrap_or_else(Authorities::none);
        let tls = ClientTls::new(authorities, identity.as_ref())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls.to_rustls()).https_or_http();
        let http = legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            // a peer that went without a word is found out while calls are on their way
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector.enable_http2().wrap_connector(tcp));
        let server = target.authority().map_or("", |authority| authority.as_str()).into();
        let grpc = Grpc::with_origin(http, target)
            .max_encoding_message_size(max_message_bytes)
            .max_decoding_message_size(max_message_bytes);
        Ok(Self { grpc: Arc::new(grpc), metadata: Arc::new(MetadataMap::from_headers(metadata)), server })
    }

    /// Calls a method and waits for the whole answer.
    pub async fn unary<Q, A>(
        &self,
        method: PathAndQuery,
        question: &Q,
        within: Duration,
    ) -> Result<A, GrpcError>
    where
        Q: Message,
        A: Message + Default,
    {
        let answer = self.call(method, question.encode_to_vec().into(), within).await?;
        A::decode(answer).map_err(|_| GrpcError::Message)
    }

    /// The same with messages that are written already, or will be read elsewhere.
    pub async fn call(
        &self,
        method: PathAndQuery,
        message: Bytes,
        within: Duration,
    ) -> Result<Bytes, GrpcError> {
        let mut request = Request::new(message);
        *request.metadata_mut() = MetadataMap::clone(&self.metadata);
        request.set_timeout(within);
        match timeout(within, exchange(Grpc::clone(&self.grpc), method, request)).await {
            Ok(result) => result.map_err(|status| GrpcError::of(&status, &self.server)),
            Err(_) => Err(GrpcError::TooLate(within)),
        }
    }
}

impl fmt::Debug for GrpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrpcClient")
    }
}

impl GrpcError {
    fn of(status: &Status, server: &str) -> Self {
        let Some(cause) = status.source() else {
            return Self::Status(status.code(), status.message().to_owned());
        };
        let why = format!("{server}: {}", causes(cause));
        match cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect) {
            true => Self::Connect(why),
            false => Self::Broken(why),
        }
    }
}

/// Reads the address of a service: `grpc://host:port`, or `grpcs://host:port` for TLS, and nothing more.
pub fn parse_target(text: &str) -> Result<Uri, UrlError> {
    let uri: Uri = text.parse().map_err(|_| UrlError::Syntax)?;
    let mut parts = uri.into_parts();
    let authority = parts.authority.as_ref().ok_or(UrlError::Syntax)?;
    if authority.as_str().contains('@') {
        return Err(UrlError::Credentials);
    }
    let is_bare = parts.path_and_query.as_ref().is_none_or(|path| path == "/") && !text.contains('#');
    if !is_bare || authority.host().is_empty() {
        return Err(UrlError::Syntax);
    }
    parts.scheme = match parts.scheme.as_ref().map(Scheme::as_str) {
        Some("grpc") => Some(Scheme::HTTP),
        Some("grpcs") => Some(Scheme::HTTPS),
        _ => return Err(UrlError::Scheme),
    };
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).map_err(|_| UrlError::Syntax)
}

impl fmt::Display for GrpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "no whole answer: {why}"),
            Self::Connect(why) => write!(f, "no connection to {why}"),
            Self::Message => f.write_str("the answer is no message of the method's type"),
            Self::Status(code, _) => write!(f, "the call's status is {code:?}"),
            Self::TooLate(within) => write!(f, "no whole answer within {within:?}"),
        }
    }
}

impl Error for GrpcError {}

/// One call, whose answer is exactly one message.
async fn exchange(
    mut grpc: Grpc<legacy::Client<HttpsConnector<HttpConnector>, Body>>,
    method: PathAndQuery,
    request: Request<Bytes>,
) -> Result<Bytes, Status> {
    let mut answer = grpc.server_streaming(request, method, AsItIs).await?.into_inner();
    let message = answer.message().await?.ok_or_else(|| Status::internal("the answer has no message"))?;
    // the status comes last: what is cut off before it is no answer
    match answer.message().await? {
        None => Ok(message),
        Some(_) => Err(Status::internal("the answer has two messages")),
    }
}

/// Messages whose bytes are known.
struct AsItIs;

impl Codec for AsItIs {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for AsItIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::grpc_service::{Call, GrpcService, Reply, framed};

    #[tokio::test]
    async fn call_and_answer_go_as_they_are() {
        let service = GrpcService::start(|call| Reply::Message(call.message.to_vec()));
        let mut metadata = HeaderMap::new();
        metadata.insert("authorization", "Bearer t".parse().unwrap());
        let client = GrpcClient::new(GrpcOptions { metadata, ..options(&service.url()) }).unwrap();
        let answer: String = client.unary(METHOD, &"dev-1".to_owned(), TIME).await.unwrap();
        assert_eq!(answer, "dev-1");
        let Call { path, headers, message } = service.heard().remove(0);
        assert_eq!((path.as_str(), &message[..]), ("/a.B/C", b"\x0a\x05dev-1".as_slice()));
        assert_eq!(headers["authorization"], "Bearer t");
        assert_eq!(headers["grpc-timeout"], "5000000u");
        assert_eq!(headers["content-type"], "application/grpc");
        assert!(!headers.contains_key("grpc-accept-encoding"));
    }

    #[tokio::test]
    async fn empty_message_is_one() {
        let service = GrpcService::start(|_| Reply::Message(Vec::new()));
        assert_eq!(call(&service).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn connection_is_kept_and_made_anew() {
        let service = GrpcService::start(|_| Reply::Message(Vec::new()));
        let client = GrpcClient::new(options(&service.url())).unwrap();
        for _ in 0..9 {
            client.call(METHOD, Bytes::new(), TIME).await.unwrap();
        }
        assert_eq!(service.connections(), 1);
        let address = service.address();
        drop(service);
        // until the port is free again, which is when nobody answers
        while client.call(METHOD, Bytes::new(), TIME).await.is_ok() {}
        let service = restarted(address).await;
        assert!(client.call(METHOD, Bytes::new(), TIME).await.is_ok());
        assert_eq!(service.connections(), 1);
    }

    #[tokio::test]
    async fn whatever_is_no_answer_is_an_error() {
        let (message, mut compressed) = (framed(b"abc"), framed(b"abc"));
        compressed[0] = 1;
        for reply in [
            Reply::Raw(message.clone(), None),
            Reply::Raw(message[..7].to_vec(), Some(0)),
            Reply::Raw(message[..3].to_vec(), Some(0)),
            Reply::Raw([&message[..], &message[..]].concat(), Some(0)),
            Reply::Raw(message.clone(), Some(14)),
            Reply::Raw(message, Some(99)),
            Reply::Raw(compressed, Some(0)),
            Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), Some(0)),
            Reply::Message(vec![0; 65]),
            Reply::Status(0),
            Reply::Http(200),
            Reply::Http(302),
            Reply::Http(404),
            Reply::Http(503),
            Reply::Reset,
        ] {
            let said = reply.clone();
            let service = GrpcService::start(move |_| said.clone());
            let answer = call(&service).await;
            assert!(answer.is_err(), "{reply:?}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn status_is_told() {
        for number in 1..=16 {
            let service = GrpcService::start(move |_| Reply::Status(number));
            let status = GrpcError::Status(Code::from_i32(number.into()), "as told".into());
            assert_eq!(call(&service).await, Err(status));
        }
    }

    #[tokio::test]
    async fn answer_that_never_ends_is_too_late() {
        for reply in [Reply::Silence, Reply::Drip] {
            let said = reply.clone();
            let service = GrpcService::start(move |_| said.clone());
            let client =
                GrpcClient::new(GrpcOptions { max_message_bytes: 20_000, ..options(&service.url()) });
            let within = Duration::from_millis(100);
            let answer = client.unwrap().call(METHOD, Bytes::new(), within).await;
            assert_eq!(answer, Err(GrpcError::TooLate(within)), "{reply:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_no_connection() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let http = crate::service::Service::saying(crate::service::json("{}"));
        for url in
            [format!("grpc://{address}"), format!("grpcs://{address}"), format!("grpcs://{}", http.address())]
        {
            let client = GrpcClient::new(options(&url)).unwrap();
            let error = client.call(METHOD, Bytes::new(), TIME).await.unwrap_err();
            assert!(matches!(error, GrpcError::Connect(_)), "{url}: {error:?}");
        }
        let client = GrpcClient::new(options(&format!("grpc://{}", http.address()))).unwrap();
        let error = client.call(METHOD, Bytes::new(), TIME).await.unwrap_err();
        assert!(matches!(error, GrpcError::Broken(_) | GrpcError::Connect(_)), "{error:?}");
    }

    #[tokio::test]
    async fn message_of_another_type_is_none() {
        let service = GrpcService::start(|_| Reply::Message(b"\x08\x01".to_vec()));
        let client = GrpcClient::new(options(&service.url())).unwrap();
        let answer = client.unary::<(), String>(METHOD, &(), TIME).await;
        assert_eq!(answer, Err(GrpcError::Message));
    }

    #[test]
    fn targets_are_checked() {
        for (good, uri) in [
            ("grpc://auth:7016", "http://auth:7016/"),
            ("grpcs://[::1]:7016/", "https://[::1]:7016/"),
            ("grpcs://auth", "https://auth/"),
        ] {
            assert_eq!(parse_target(good).unwrap(), uri, "{good}");
        }
        for (bad, error) in [
            ("grpc://user@auth", UrlError::Credentials),
            ("grpc://auth/path", UrlError::Syntax),
            ("grpc://auth/?a=b", UrlError::Syntax),
            ("grpc://auth/#a", UrlError::Syntax),
            ("http://auth", UrlError::Scheme),
            ("auth:80", UrlError::Scheme),
            ("grpc://:80", UrlError::Syntax),
            ("", UrlError::Syntax),
        ] {
            assert_eq!(parse_target(bad), Err(error), "{bad}");
        }
    }

    async fn call(service: &GrpcService) -> Result<Bytes, GrpcError> {
        let client = GrpcClient::new(GrpcOptions { max_message_bytes: 64, ..options(&service.url()) });
        client.unwrap().call(METHOD, Bytes::from_static(b"question"), TIME).await
    }

    /// The port is free when the last connection of the one before is gone.
    async fn restarted(address: std::net::SocketAddr) -> GrpcService {
        while TcpListener::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
        GrpcService::start_at(address, |_| Reply::Message(Vec::new()))
    }

    fn options(url: &str) -> GrpcOptions {
        GrpcOptions {
            target: parse_target(url).unwrap(),
            ca: Some(Authorities::none()),
            identity: None,
            metadata: HeaderMap::new(),
            max_message_bytes: 4096,
        }
    }

    const METHOD: PathAndQuery = PathAndQuery::from_static("/a.B/C");
    const TIME: Duration = Duration::from_secs(5);
}
