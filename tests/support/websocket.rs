//! A WebSocket client that cuts its messages as it is told, and peers of the Node world. RFC 6455

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use super::broker::node;
use super::frames::{BINARY, CLOSE, masked};
use super::http2::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Http2, block};
use super::manifest;
use super::peer::tcp;
use super::process::{Lines, Process};

/// A byte stream in binary messages.
pub(crate) struct WebSocket {
    tcp: BufReader<TcpStream>,
    /// Each write becomes one message in fragments of this size.
    fragment: usize,
    /// Payload that is still to come of the frame that is being read.
    left: usize,
}

/// A byte stream in binary messages on one stream of HTTP/2. RFC 8441
pub(crate) struct Tunnel {
    pub(crate) http2: Http2,
    stream: u32,
    /// Bytes of frames that came.
    frames: Vec<u8>,
    payload: Vec<u8>,
}

/// A server that echoes.
pub(crate) struct EchoServer {
    _process: Process,
    pub(crate) said: Lines,
    pub(crate) port: u16,
}

impl WebSocket {
    pub(crate) fn dial(address: SocketAddr, path: &str, fragment: usize) -> Self {
        Self::dial_with(address, path, "", fragment)
    }

    /// With further headers in the request, each with its line break.
    pub(crate) fn dial_with(address: SocketAddr, path: &str, headers: &str, fragment: usize) -> Self {
        let mut tcp = tcp(address);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n{headers}\r\n"
        );
        tcp.write_all(request.as_bytes()).unwrap();
        let mut tcp = BufReader::new(tcp);
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            assert!(tcp.read_line(&mut answer).unwrap() > 0, "{answer}");
        }
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        Self { tcp, fragment, left: 0 }
    }

    /// Reads headers until there is payload of a binary message; `false` where it was closed.
    fn next_payload(&mut self) -> io::Result<bool> {
        while self.left == 0 {
            if self.tcp.fill_buf()?.is_empty() {
                return Ok(false);
            }
            let mut header = [0; 2];
            self.tcp.read_exact(&mut header)?;
            let opcode = header[0] & 0x0f;
            if opcode == 0x8 {
                return Ok(false);
            }
            assert!(opcode <= 2 && header[1] & 0x80 == 0, "frame {header:02x?}");
            let extended = match header[1] {
                126 => 2,
                127 => 8,
                _ => 0,
            };
            let mut length = [0; 8];
            self.tcp.read_exact(&mut length[8 - extended..])?;
            let long = usize::try_from(u64::from_be_bytes(length)).unwrap();
            self.left = if extended == 0 { header[1].into() } else { long };
        }
        Ok(true)
    }
}

impl Tunnel {
    /// Opens one, for a sub-protocol and with further headers; returns what was answered as HPACK says it.
    pub(crate) fn ask(http2: &mut Http2, stream: u32, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        let head = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", path),
            ("sec-websocket-version", "13"),
        ];
        let head = block(&[&head[..], headers].concat());
        http2.send(HEADERS, END_HEADERS, stream, &head);
        let answer = http2.wait_for(HEADERS);
        assert_eq!(answer.stream, stream);
        answer.payload
    }

    /// The stream of a connection that opened it.
    pub(crate) fn of(http2: Http2, stream: u32) -> Self {
        Self { http2, stream, frames: Vec::new(), payload: Vec::new() }
    }

    /// Takes the next frame out of what came; `None` where it has not come yet.
    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, short) = (*self.frames.first()?, *self.frames.get(1)?);
        let (head, length) = match short {
            126 => (4, u16::from_be_bytes(self.frames.get(2..4)?.try_into().unwrap()).into()),
            short => (2, usize::from(short)),
        };
        let payload = self.frames.get(head..head + length)?.to_vec();
        self.frames.drain(..head + length);
        Some((first, payload))
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.payload.is_empty() {
            match self.take_frame() {
                Some((BINARY, payload)) => self.payload = payload,
                Some((CLOSE, _)) => return Ok(0),
                Some((first, _)) => panic!("frame {first:02x}"),
                None => {
                    let Some(frame) = self.http2.next() else { return Ok(0) };
                    self.http2.confirm(&frame);
                    let is_ours = frame.stream == self.stream;
                    if is_ours && (frame.kind == http2::RST_STREAM || frame.flags & END_STREAM != 0) {
                        return Ok(0);
                    }
                    if is_ours && frame.kind == DATA {
                        self.frames.extend(frame.payload);
                    }
                }
            }
        }
        let count = buffer.len().min(self.payload.len());
        buffer[..count].copy_from_slice(&self.payload[..count]);
        self.payload.drain(..count);
        Ok(count)
    }
}

impl Write for Tunnel {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let frame = http2::frame(DATA, 0, self.stream, &masked(BINARY, message));
        self.http2.try_raw(&frame)?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EchoServer {
    pub(crate) fn start() -> Self {
        let (process, said) = Process::start_with_stdout(&mut node_peers(&["server"]));
        let line = said.wait_for("listening ");
        Self { _process: process, said, port: line.trim_start_matches("listening ").parse().unwrap() }
    }
}

impl Read for WebSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.next_payload()? {
            return Ok(0);
        }
        let most = buffer.len().min(self.left);
        let count = self.tcp.read(&mut buffer[..most])?;
        self.left -= count;
        Ok(count)
    }
}

impl Write for WebSocket {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let fragments = message.chunks(self.fragment).enumerate();
        let last = message.len().div_ceil(self.fragment) - 1;
        for (index, fragment) in fragments {
            let opcode = if index == 0 { 0x2 } else { 0x0 };
            let is_last = if index == last { 0x80 } else { 0 };
            self.tcp.get_mut().write_all(&frame(is_last | opcode, fragment))?;
        }
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client or a server, as these arguments say.
pub(crate) fn node_peers(arguments: &[&str]) -> Command {
    let mut command = node();
    command.arg(manifest("tests/support/websocket_peers.js")).args(arguments);
    command
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend(u64::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

const MASK: [u8; 4] = [0x5a, 0xc3, 0x0f, 0x99];
