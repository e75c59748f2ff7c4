//! gRPC to services that mgate asks: one message, one whole answer, within a time and a size.

use std::error::Error;
use std::fmt;
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
    grpc: Grpc<legacy::Client<HttpsConnector<HttpConnector>, Body>>,
    metadata: MetadataMap,
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
        let grpc = Grpc::with_origin(http, target)
            .max_encoding_message_size(max_message_bytes)
            .max_decoding_message_size(max_message_bytes);
        Ok(Self { grpc, metadata: MetadataMap::from_headers(metadata) })
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
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(within);
        match timeout(within, exchange(self.grpc.clone(), method, request)).await {
            Ok(result) => result.map_err(|status| GrpcError::of(&status)),
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
    fn of(status: &Status) -> Self {
        let Some(cause) = status.source() else {
            return Self::Status(status.code(), status.message().to_owned());
        };
        match cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect) {
            true => Self::Connect(causes(cause)),
            false => Self::Broken(causes(cause)),
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
            Self::Connect(why) => write!(f, "no connection: {why}"),
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
