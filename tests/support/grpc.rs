//! A gRPC service that says, frame for frame, what a test wants.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A service on a port of its own; gone when dropped.
pub(crate) struct GrpcService {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped, it ends the service.
    _life: oneshot::Sender<()>,
}

/// A call that came.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) message: Bytes,
}

/// What is said to a call.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A message and the status OK.
    Message(Vec<u8>),
    /// A status and no message.
    Status(u16),
    /// These bytes, frames and all, and this status, if any.
    Raw(Vec<u8>, Option<u16>),
    /// An answer of HTTP alone.
    Http(u16),
    /// The end of the stream in mid-answer.
    Reset,
    /// Nothing, for ever.
    Silence,
    /// A long message, byte for byte.
    Drip,
}

struct Shared {
    reply: Box<dyn Fn(&Call) -> Reply + Send + Sync>,
    heard: Mutex<Vec<Call>>,
    connections: AtomicUsize,
}

impl GrpcService {
    pub(crate) fn start(reply: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), reply)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        reply: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            reply: Box::new(reply),
            heard: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (life, end) = oneshot::channel();
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(TcpListener::from_std(listener).unwrap(), serving) => {}
                    _ = end => {}
                }
            });
        });
        Self { address, shared, _life: life }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("grpc://{}", self.address)
    }

    pub(crate) fn heard(&self) -> Vec<Call> {
        self.shared.heard.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(tcp, Arc::clone(&shared)));
    }
}

async fn serve(tcp: TcpStream, shared: Arc<Shared>) {
    let Ok(mut connection) = server::handshake(tcp).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, Arc::clone(&shared)));
    }
}

/// Ends when the peer does.
async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, shared: Arc<Shared>) {
    let (parts, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        message.extend_from_slice(&data);
    }
    let message = Bytes::from(message).slice(5..);
    let call = Call { path: parts.uri.path().to_owned(), headers: parts.headers, message };
    shared.heard.lock().unwrap().push(call.clone());
    match (shared.reply)(&call) {
        Reply::Message(message) => say(begin(&mut respond), &framed(&message), Some(0)),
        Reply::Status(status) => say(begin(&mut respond), &[], Some(status)),
        Reply::Raw(bytes, status) => say(begin(&mut respond), &bytes, status),
        Reply::Http(status) => {
            let answer = Response::builder().status(status).header("content-type", "text/html");
            let _ = respond.send_response(answer.body(()).unwrap(), true);
        }
        Reply::Reset => {
            let mut stream = begin(&mut respond);
            let _ = stream.send_data(Bytes::from_static(&[0, 0]), false);
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Reply::Silence => std::future::pending().await,
        Reply::Drip => {
            let mut stream = begin(&mut respond);
            let bytes = framed(&[0; 10_000]);
            for byte in bytes {
                if stream.send_data(Bytes::copy_from_slice(&[byte]), false).is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

fn begin(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    let answer = Response::builder().header("content-type", "application/grpc");
    respond.send_response(answer.body(()).unwrap(), false).unwrap()
}

fn say(mut stream: SendStream<Bytes>, bytes: &[u8], status: Option<u16>) {
    let _ = stream.send_data(Bytes::copy_from_slice(bytes), status.is_none());
    if let Some(status) = status {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(status));
        trailers.insert("grpc-message", HeaderValue::from_static("as%20told"));
        let _ = stream.send_trailers(trailers);
    }
}

/// A message as it goes over the wire, not compressed.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame
}
