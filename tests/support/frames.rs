//! Both ends of a WebSocket, frame by frame, as a test says. RFC 6455

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::http::read_head;
use super::peer::{Upstream, tcp};

/// One end.
pub(crate) struct Frames {
    pub(crate) tcp: TcpStream,
    masks: bool,
    /// What was said before the frames.
    pub(crate) head: String,
}

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// What Firefox sends.
pub(crate) const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl Frames {
    /// Both ends of a WebSocket through mgate.
    pub(crate) fn pair(address: SocketAddr, path: &str, headers: &str, upstream: &Upstream) -> [Self; 2] {
        let client = Self::ask(address, path, headers);
        let behind = Self::answer(upstream, "");
        [client.taken(), behind]
    }

    /// A client that asked, and did not look at the answer yet.
    pub(crate) fn ask(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut tcp = tcp(address);
        let request = format!("GET {path} HTTP/1.1\r\nHost: gate.example\r\n{UPGRADE}{headers}\r\n");
        tcp.write_all(request.as_bytes()).unwrap();
        Self { tcp, masks: true, head: String::new() }
    }

    pub(crate) fn taken(mut self) -> Self {
        self.head = read_head(&mut self.tcp);
        assert!(self.head.starts_with("HTTP/1.1 101 "), "{}", self.head);
        assert!(self.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{}", self.head);
        self
    }

    /// The status that the client hears, and all that comes with it.
    pub(crate) fn refused(mut self) -> (u16, String) {
        let mut all = Vec::new();
        self.tcp.read_to_end(&mut all).expect("it is closed in time");
        let all = String::from_utf8(all).unwrap();
        (all.split(' ').nth(1).unwrap().parse().unwrap(), all)
    }

    /// The upstream takes the next WebSocket, with further headers.
    pub(crate) fn answer(upstream: &Upstream, headers: &str) -> Self {
        let mut tcp = upstream.accept_tcp();
        let head = read_head(&mut tcp);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n{headers}\r\n",
            accept_of(&head)
        );
        tcp.write_all(answer.as_bytes()).unwrap();
        Self { tcp, masks: false, head }
    }

    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        let bytes = if self.masks { masked(first, payload) } else { plain(first, payload) };
        self.tcp.write_all(&bytes).unwrap();
    }

    /// The next frame: its first byte and its payload.
    pub(crate) fn next(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.tcp.read_exact(&mut head).expect("a frame in time");
        let mut length = usize::from(head[1] & 0x7f);
        if length >= 126 {
            let mut long = [0; 8];
            self.tcp.read_exact(&mut long[if length == 126 { 6 } else { 0 }..]).unwrap();
            length = u64::from_be_bytes(long).try_into().unwrap();
        }
        assert_eq!(head[1] & 0x80 != 0, !self.masks, "clients mask, and nobody else");
        let mut mask = [0; 4];
        if !self.masks {
            self.tcp.read_exact(&mut mask).unwrap();
        }
        let mut payload = vec![0; length];
        self.tcp.read_exact(&mut payload).unwrap();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        (head[0], payload)
    }

    pub(crate) fn expect(&mut self, first: u8, payload: &[u8]) {
        assert_eq!(self.next(), (first, payload.to_vec()));
    }

    /// The next frame is a close with this code, and nothing comes behind it.
    pub(crate) fn expect_close(&mut self, code: u16) {
        let (first, payload) = self.next();
        assert_eq!((first, payload.get(..2)), (CLOSE, Some(&code.to_be_bytes()[..])), "{payload:?}");
        self.send(CLOSE, &code.to_be_bytes());
        let mut rest = Vec::new();
        self.tcp.read_to_end(&mut rest).expect("it is closed in time");
        assert_eq!(rest, b"");
    }
}

/// The right answer to the key in a request.
pub(crate) fn accept_of(head: &str) -> String {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let text = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.expect("a key"));
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, 0x80, payload.len());
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, 0, payload.len()), payload.to_vec()].concat()
}

fn header(first: u8, mask_bit: u8, length: usize) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => vec![first, mask_bit | length],
        (_, Ok(length)) => [&[first, mask_bit | 126][..], &length.to_be_bytes()].concat(),
        _ => [&[first, mask_bit | 127][..], &u64::try_from(length).unwrap().to_be_bytes()].concat(),
    }
}

const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x99];
