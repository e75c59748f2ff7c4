//! HTTP/2 frame by frame, as a client or a server that says what a test wants.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::Files;
use super::http::read_head;
use super::peer::{ReadWrite, Upstream, tcp};

/// One end of a connection of HTTP/2.
pub(crate) struct Http2(Box<dyn ReadWrite>);

/// Whoever sends events.
pub(crate) enum Events {
    Http1(TcpStream),
    Http2(Http2, u32),
}

/// A frame as it came. RFC 9113 §4.1
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Http2 {
    /// A client of a listener with TLS that has said its preface and nothing else.
    pub(crate) fn dial(files: &Files, address: SocketAddr) -> Self {
        let mut client = Self(Box::new(tls(files, address)));
        client.raw(PREFACE);
        client
    }

    /// A client that has exchanged settings with the server.
    pub(crate) fn connected(files: &Files, address: SocketAddr) -> Self {
        let mut client = Self::dial(files, address);
        client.send(SETTINGS, 0, 0, b"");
        client
    }

    /// A server that has read the preface and said its settings.
    pub(crate) fn accepted(mut tcp: TcpStream, settings: &[(u16, u32)]) -> Self {
        let mut preface = [0; PREFACE.len()];
        tcp.read_exact(&mut preface).unwrap();
        assert_eq!(preface, *PREFACE, "{}", String::from_utf8_lossy(&preface));
        let mut server = Self(Box::new(tcp));
        let payload: Vec<u8> = settings.iter().flat_map(|(name, value)| setting(*name, *value)).collect();
        server.send(SETTINGS, 0, 0, &payload);
        server
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes).unwrap();
    }

    /// Writes to somebody who may have closed already.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.raw(&frame(kind, flags, stream, payload));
    }

    /// The next frame; `None` if the connection was closed.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The next frame of this kind; those of other kinds are skipped, and settings and pings confirmed.
    pub(crate) fn wait_for(&mut self, kind: u8) -> Frame {
        let mut skipped = Vec::new();
        while let Some(frame) = self.next() {
            self.confirm(&frame);
            if frame.kind == kind {
                return frame;
            }
            skipped.push(frame);
        }
        panic!("no frame of kind {kind}, but {skipped:?}");
    }

    /// Confirms what is to be confirmed.
    pub(crate) fn confirm(&mut self, frame: &Frame) {
        if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
            let payload = if frame.kind == PING { &frame.payload[..] } else { b"" };
            let _ = self.try_raw(&self::frame(frame.kind, ACK, 0, payload));
        }
    }
}

impl Events {
    /// Reads a request and begins the answer.
    pub(crate) fn begin(mut tcp: TcpStream, speaks_http2: bool) -> Self {
        if !speaks_http2 {
            read_head(&mut tcp);
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            tcp.write_all(head.as_bytes()).unwrap();
            return Self::Http1(tcp);
        }
        let mut http2 = Http2::accepted(tcp, &[]);
        let Frame { stream, .. } = http2.wait_for(HEADERS);
        http2.send(HEADERS, END_HEADERS, stream, STATUS_200);
        Self::Http2(http2, stream)
    }

    pub(crate) fn event(&mut self, text: &str) {
        match self {
            Self::Http1(tcp) => tcp.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).unwrap(),
            Self::Http2(http2, stream) => http2.send(DATA, 0, *stream, text.as_bytes()),
        }
    }
}

/// Makes a first request, which the upstream answers; returns the upstream's end.
pub(crate) fn begin(client: &mut TcpStream, upstream: &Upstream) -> Http2 {
    client.write_all(b"GET /any/first HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut behind = Http2::accepted(upstream.accept_tcp(), &[]);
    answer_next(&mut behind);
    assert!(read_head(client).starts_with("HTTP/1.1 200 "));
    behind
}

pub(crate) fn answer_next(behind: &mut Http2) {
    let Frame { stream, .. } = behind.wait_for(HEADERS);
    behind.send(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200);
}

/// The bytes of a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One setting. RFC 9113 §6.5.1
pub(crate) fn setting(name: u16, value: u32) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (name.to_be_bytes(), value.to_be_bytes());
    [a, b, c, d, e, f]
}

/// A block of headers that stand in no table. RFC 7541 §6.2.2
pub(crate) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("short texts");
        [&[length], text.as_bytes()].concat()
    };
    headers.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// TLS that chooses HTTP/2.
fn tls(files: &Files, address: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files.path("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp(address))
}

pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Indexed fields. RFC 7541 Appendix A
pub(crate) const STATUS_200: &[u8] = &[0x88];
pub(crate) const STATUS_204: &[u8] = &[0x89];

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const HAS_PRIORITY: u8 = 0x20;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;
