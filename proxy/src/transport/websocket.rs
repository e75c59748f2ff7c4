use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response, create_response, write_response};
use tokio_tungstenite::tungstenite::http::header::{HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as TungsteniteError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::stream::Stream;
use super::upgrade::Upgrade;

/// Which WebSocket clients a listener takes.
#[derive(Clone, Debug)]
pub struct WebSocketOptions {
    /// The path that they must ask for, query excepted.
    pub path: String,
    /// The web sites (`https://app.example`) whose pages may connect; `*` allows each. A page of the very
    /// host that it connects to always may, and so may a client that names no origin: it is not a browser.
    pub origins: Vec<String>,
    /// The largest message that they may send; one message may hold many packets, or a part of one.
    pub max_message_bytes: usize,
}

/// How an upstream's WebSocket is reached.
#[derive(Clone, Debug)]
pub struct WebSocketTarget {
    /// The path to ask for.
    pub path: String,
    /// The largest message that the upstream may send.
    pub max_message_bytes: usize,
}

/// The payloads of binary messages as a stream of bytes: where messages begin and end means nothing
/// [MQTT-6.0.0-2].
pub struct WebSocket {
    socket: WebSocketStream<Stream>,
    /// What the reader has not taken yet of the last message.
    unread: Bytes,
}

/// Why there is no WebSocket.
#[derive(Debug)]
pub enum WebSocketError {
    /// The connection broke.
    Io(io::Error),
    /// The upstream did not answer as asked.
    Upstream(String),
    /// The client's request was refused, with this status and for this reason.
    Refused(u16, &'static str),
}

impl WebSocket {
    /// Answers a client's request for a WebSocket, with an HTTP error where it is refused (RFC 6455 §4.2).
    /// Says what the client showed in it.
    pub(super) async fn accept(
        mut stream: Stream,
        options: &WebSocketOptions,
    ) -> Result<(Self, Upgrade), WebSocketError> {
        let answered = match read_head(&mut stream).await {
            Ok((request, rest)) => options.answer(&request).map(|answer| (answer, rest)),
            Err(error) => Err(error),
        };
        match answered {
            Ok(((response, upgrade), rest)) => {
                let mut head = Vec::new();
                write_response(&mut head, &response).map_err(io::Error::other)?;
                stream.write_all(&head).await?;
                stream.flush().await?;
                Ok((Self::granted(stream, rest, options).await, upgrade))
            }
            Err(WebSocketError::Refused(status, reason)) => {
                stream.write_all(refusal(status, reason).as_bytes()).await?;
                stream.shutdown().await?;
                Err(WebSocketError::Refused(status, reason))
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on with a client that was told by somebody else that it has its WebSocket; `rest` came behind its request.
    pub(crate) async fn granted(stream: Stream, rest: Vec<u8>, options: &WebSocketOptions) -> Self {
        let limits = Some(limits(options.max_message_bytes));
        Self::new(WebSocketStream::from_partially_read(stream, rest, Role::Server, limits).await)
    }

    /// Asks an upstream for a WebSocket that carries MQTT (RFC 6455 §4.1).
    pub(super) async fn connect(
        stream: Stream,
        uri: &Uri,
        max_message_bytes: usize,
    ) -> Result<Self, WebSocketError> {
        // [MQTT-6.0.0-3]; the handshake checks that the upstream chose it, [MQTT-6.0.0-4].
        let request = ClientRequestBuilder::new(uri.clone()).with_sub_protocol(SUB_PROTOCOLS[0]);
        let limits = Some(limits(max_message_bytes));
        let (socket, _) = client_async_with_config(request, stream, limits).await.map_err(upstream_error)?;
        Ok(Self::new(socket))
    }

    fn new(socket: WebSocketStream<Stream>) -> Self {
        Self { socket, unread: Bytes::new() }
    }

    /// Sends one message with the first bytes of `slices`, once nothing before it waits.
    fn poll_send(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_sent(context))?;
        let payload = gather(slices);
        let sent = payload.len();
        if sent > 0 {
            self.socket.start_send_unpin(Message::Binary(payload)).map_err(io_error)?;
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush_unpin(context).map_err(io_error)
    }

    /// Says good-bye with `code`, as far as the connection takes it without waiting.
    fn fail(&mut self, context: &mut Context<'_>, code: CloseCode) {
        let frame = CloseFrame { code, reason: "".into() };
        if self.socket.start_send_unpin(Message::Close(Some(frame))).is_ok() {
            let _ = self.socket.poll_flush_unpin(context);
        }
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.socket.poll_next_unpin(context)) {
                Some(Ok(Message::Binary(payload))) => self.unread = payload,
                // [MQTT-6.0.0-1]: anything but binary closes the connection.
                Some(Ok(Message::Text(_))) => {
                    self.fail(context, CloseCode::Unsupported);
                    return Poll::Ready(Err(invalid("a WebSocket message of text")));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    close_code(&error).into_iter().for_each(|code| self.fail(context, code));
                    return Poll::Ready(Err(io_error(error)));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..taken]);
        self.unread.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whether the peer could still be told does not change that this is the end.
        let _ = ready!(self.socket.poll_close_unpin(context));
        Pin::new(self.socket.get_mut()).poll_shutdown(context)
    }
}

impl WebSocketOptions {
    fn answer(&self, request: &Request) -> Result<(Response, Upgrade), WebSocketError> {
        if request.uri().path() != self.path {
            return Err(WebSocketError::Refused(404, "no such path"));
        }
        let (origin, host) = (request.headers().get(ORIGIN), request.headers().get(HOST));
        if !may_connect(&self.origins, origin, host) {
            return Err(WebSocketError::Refused(403, "origin not allowed"));
        }
        let mut response = create_response(request).map_err(request_error)?;
        // [MQTT-6.0.0-3], [MQTT-6.0.0-4]: the client offers the name, the server returns it.
        let chosen = sub_protocol(request.headers())
            .ok_or(WebSocketError::Refused(400, "sub-protocol mqtt not offered"))?;
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
        let upgrade = Upgrade::of(request.uri(), request.headers())
            .map_err(|reason| WebSocketError::Refused(400, reason))?;
        Ok((response, upgrade))
    }
}

/// The first sub-protocol in the client's row that carries MQTT.
pub(crate) fn sub_protocol(headers: &HeaderMap) -> Option<&'static str> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut names = offers.filter_map(|offer| offer.to_str().ok()).flat_map(|offer| offer.split(','));
    names.find_map(|name| SUB_PROTOCOLS.into_iter().find(|known| *known == name.trim()))
}

/// Whether a page of this origin may connect to this host: if its site is one of `origins`, or the very host. What names
/// no origin is no browser. RFC 6455 §10.2
pub(crate) fn may_connect(
    origins: &[String],
    origin: Option<&HeaderValue>,
    host: Option<&HeaderValue>,
) -> bool {
    let Some(origin) = origin.map(HeaderValue::as_bytes) else { return true };
    let is_origin = |allowed: &String| allowed == "*" || allowed.as_bytes().eq_ignore_ascii_case(origin);
    origins.iter().any(is_origin) || host.is_some_and(|host| is_same_host(origin, host.as_bytes()))
}

/// Whether an origin is of this host and port, whatever its scheme: TLS may end in front of mgate.
fn is_same_host(origin: &[u8], host: &[u8]) -> bool {
    let of_origin =
        [b"http://".as_slice(), b"https://"].into_iter().find_map(|scheme| origin.strip_prefix(scheme));
    of_origin.is_some_and(|of_origin| of_origin.eq_ignore_ascii_case(host))
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

impl fmt::Display for WebSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Upstream(what) => f.write_str(what),
            Self::Refused(status, reason) => write!(f, "refused with status {status}: {reason}"),
        }
    }
}

impl Error for WebSocketError {}

impl From<io::Error> for WebSocketError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a request up to the empty line, and what came with it.
async fn read_head(stream: &mut Stream) -> Result<(Request, Vec<u8>), WebSocketError> {
    let mut head = BytesMut::with_capacity(1024);
    loop {
        let scanned = head.len().saturating_sub(END_OF_HEAD.len() - 1);
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if !head[0].is_ascii_alphabetic() {
            return Err(WebSocketError::Refused(400, "not HTTP"));
        }
        let is_whole = head[scanned..].windows(END_OF_HEAD.len()).any(|window| window == END_OF_HEAD);
        if is_whole {
            let (length, request) = Request::try_parse(&head)
                .map_err(request_error)?
                .ok_or(WebSocketError::Refused(400, "not HTTP"))?;
            return Ok((request, head.split_off(length).to_vec()));
        }
        if head.len() > HEAD_BYTES {
            return Err(WebSocketError::Refused(431, "header too large"));
        }
    }
}

fn request_error(error: TungsteniteError) -> WebSocketError {
    match error {
        TungsteniteError::Io(error) => WebSocketError::Io(error),
        TungsteniteError::Protocol(error) => match error {
            ProtocolError::WrongHttpMethod => WebSocketError::Refused(405, "method is not GET"),
            ProtocolError::WrongHttpVersion => WebSocketError::Refused(505, "version is not HTTP/1.1"),
            ProtocolError::MissingConnectionUpgradeHeader
            | ProtocolError::MissingUpgradeWebSocketHeader
            | ProtocolError::MissingSecWebSocketVersionHeader => {
                WebSocketError::Refused(426, "no request for a WebSocket of version 13")
            }
            _ => WebSocketError::Refused(400, "bad request for a WebSocket"),
        },
        _ => WebSocketError::Refused(400, "bad HTTP request"),
    }
}

fn upstream_error(error: TungsteniteError) -> WebSocketError {
    match error {
        TungsteniteError::Io(error) => WebSocketError::Io(error),
        TungsteniteError::Http(response) => {
            WebSocketError::Upstream(format!("the upstream answered with status {}", response.status()))
        }
        error => WebSocketError::Upstream(error.to_string()),
    }
}

/// The HTTP response that refuses a WebSocket.
fn refusal(status: u16, reason: &str) -> String {
    let name = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("");
    let hint = match status {
        405 => "Allow: GET\r\n",
        // RFC 9110 §15.5.22, RFC 6455 §4.4
        426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        _ => "",
    };
    let connection = if status == 426 { "Upgrade, close" } else { "close" };
    format!(
        "HTTP/1.1 {status} {name}\r\n{hint}Connection: {connection}\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{reason}\n",
        reason.len() + 1
    )
}

fn gather(slices: &[IoSlice<'_>]) -> Bytes {
    let length = slices.iter().map(|slice| slice.len()).sum::<usize>().min(SENT_MESSAGE_BYTES);
    let mut payload = BytesMut::with_capacity(length);
    for slice in slices {
        let taken = slice.len().min(length - payload.len());
        payload.extend_from_slice(&slice[..taken]);
    }
    payload.freeze()
}

/// How to say good-bye to a peer that broke the rules (RFC 6455 §7.4.1); `None` where it is gone already.
fn close_code(error: &TungsteniteError) -> Option<CloseCode> {
    match error {
        TungsteniteError::Capacity(_) => Some(CloseCode::Size),
        TungsteniteError::Utf8(_) => Some(CloseCode::Invalid),
        TungsteniteError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        TungsteniteError::Protocol(_) => Some(CloseCode::Protocol),
        _ => None,
    }
}

fn io_error(error: TungsteniteError) -> io::Error {
    match error {
        TungsteniteError::Io(error) => error,
        TungsteniteError::ConnectionClosed | TungsteniteError::AlreadyClosed => {
            io::ErrorKind::BrokenPipe.into()
        }
        TungsteniteError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            io::ErrorKind::UnexpectedEof.into()
        }
        TungsteniteError::Protocol(ProtocolError::SendAfterClosing) => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn limits(max_message_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(SENT_MESSAGE_BYTES + CONTROL_BYTES)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes))
}

/// `mqttv3.1` is what clients of MQTT 3.1 offered before there was a standard; some offer both.
const SUB_PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Room for cookies and tokens that browsers send along.
const HEAD_BYTES: usize = 8 * 1024;

/// Each idle connection keeps this.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What one write sends at the most; more goes into further messages.
const SENT_MESSAGE_BYTES: usize = 16 * 1024;

/// Room for frame headers, pongs and a close beside a message.
const CONTROL_BYTES: usize = 1024;
