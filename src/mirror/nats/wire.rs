//! One connection to a server of NATS.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use mgate_policies::Now;
use mgate_proxy::transport::{ClientTls, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use async_nats::ServerAddr;

use super::letter::Letter;
use super::protocol::{self, Frame, Info, NotNats};
use crate::neighbour::nats::NatsLogin;

/// Where servers are, and how they are spoken to.
pub struct Way {
    /// The servers, any of which will do.
    pub servers: Vec<ServerAddr>,
    /// Whether the first to be tried is any of them.
    pub is_random: bool,
    /// How TLS is spoken.
    pub tls: ClientTls,
    /// Whether nothing may go unencrypted.
    pub is_tls: bool,
    /// Who mgate is.
    pub login: NatsLogin,
}

/// A connection that the server took.
pub(super) struct Wire {
    stream: Stream,
    pub(super) server: String,
    /// The largest message that it takes, headers included.
    pub(super) max_payload: usize,
    out: Vec<u8>,
    written: usize,
    /// The bytes of the largest letter that was written.
    largest: usize,
    /// The bytes of the longest subject that was written, and of those that may be.
    longest: usize,
    max_subject: usize,
    /// What the server says is more than it takes.
    pub(super) exceeded: Option<Exceeded>,
    incoming: Vec<u8>,
    /// What is read into.
    chunk: Box<[u8]>,
    /// What each PING that is not answered stands for.
    pings: VecDeque<usize>,
    needs_flush: bool,
    /// When bytes that wait were taken last, or began to wait.
    moved: Instant,
    heard: Instant,
}

/// What a server closes a connection over: the largest that was written is too large in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// The bytes of a message, headers included.
    Payload(usize),
    /// The bytes of a subject.
    Subject(usize),
}

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Something came in under this subject.
    Answer { subject: String, status: Option<u16>, payload: Vec<u8> },
    /// It refuses something.
    Error(String),
    /// It has read all that was written before a ping, which stood for this.
    Pong(usize),
}

impl Way {
    /// Makes a connection to one of the servers.
    pub(super) async fn dial(&self, attempt: usize) -> Result<Wire, String> {
        let Some(server) = self.servers.get(attempt % self.servers.len().max(1)) else {
            return Err("there is no server".to_owned());
        };
        let name = format!("{}:{}", server.host(), server.port());
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect(server, &name)).await {
            Ok(Ok(wire)) => Ok(wire),
            Ok(Err(error)) => Err(format!("{name}: {error}")),
            Err(_) => Err(format!("{name}: does not answer within {CONNECT_TIMEOUT:?}")),
        }
    }

    async fn connect(&self, server: &ServerAddr, name: &str) -> io::Result<Wire> {
        let host = server.host().trim_start_matches('[').trim_end_matches(']');
        let mut tcp = TcpStream::connect((host, server.port())).await?;
        tcp.set_nodelay(true)?;
        let mut incoming = Vec::new();
        let info = greeting(&mut tcp, &mut incoming).await?;
        let is_encrypted = self.is_tls || server.tls_required() || info.wants_tls;
        let mut stream = match is_encrypted {
            true => {
                // what was said in plain text counts for nothing behind it
                incoming.clear();
                self.tls.connect_to(host, tcp).await?
            }
            false => Stream::Tcp(tcp),
        };
        if !info.has_headers {
            return Err(io::Error::other("the server knows no headers: it is older than 2.2"));
        }
        let connect = info.connect(&self.login, is_encrypted).map_err(io::Error::other)?;
        stream.write_all(&connect).await?;
        stream.flush().await?;
        let max_payload = welcome(&mut stream, &mut incoming).await?;
        let max_payload = max_payload.unwrap_or(info.first_max_payload(is_encrypted));
        Ok(Wire::new(stream, name, max_payload, incoming))
    }
}

impl Wire {
    fn new(stream: Stream, server: &str, max_payload: usize, incoming: Vec<u8>) -> Self {
        let now = Now::read().instant;
        Self {
            stream,
            server: server.to_owned(),
            max_payload,
            out: Vec::new(),
            written: 0,
            largest: 0,
            longest: 0,
            max_subject: usize::MAX,
            exceeded: None,
            incoming,
            chunk: vec![0; READ_BYTES].into(),
            pings: VecDeque::new(),
            needs_flush: false,
            moved: now,
            heard: now,
        }
    }

    /// Whether more may be written now.
    pub(super) fn has_room(&self) -> bool {
        self.unwritten() < MAX_UNWRITTEN
    }

    pub(super) fn publish(&mut self, letter: &Letter, reply: Option<std::fmt::Arguments<'_>>, now: Instant) {
        self.largest = self.largest.max(letter.draft.body_len());
        self.longest = self.longest.max(letter.draft.subject_bytes().len());
        protocol::publish(self.writing(now), letter, reply);
    }

    /// Whether the server takes a letter as large as this one.
    pub(super) fn takes(&self, letter: &Letter) -> bool {
        letter.draft.body_len() <= self.max_payload && letter.draft.subject_bytes().len() <= self.max_subject
    }

    /// Takes only what is smaller.
    pub(super) fn lower(&mut self, exceeded: Exceeded) {
        match exceeded {
            Exceeded::Payload(bytes) => self.max_payload = self.max_payload.min(bytes.saturating_sub(1)),
            Exceeded::Subject(bytes) => self.max_subject = bytes.saturating_sub(1),
        }
    }

    pub(super) fn request(&mut self, subject: &str, reply: &str, payload: &str, now: Instant) {
        protocol::request(self.writing(now), subject, reply, payload);
    }

    pub(super) fn subscribe(&mut self, subject: &str, now: Instant) {
        protocol::append(self.writing(now), format_args!("SUB {subject} 1\r\n"));
    }

    /// Asks for an answer that stands for `mark`.
    pub(super) fn ping(&mut self, mark: usize, now: Instant) {
        if self.pings.is_empty() {
            self.heard = now;
        }
        self.pings.push_back(mark);
        self.writing(now).extend_from_slice(b"PING\r\n");
    }

    /// Whether a ping waits for its answer.
    pub(super) fn is_pinging(&self) -> bool {
        !self.pings.is_empty()
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_quiet(&self) -> bool {
        self.unwritten() == 0 && !self.needs_flush
    }

    /// Whether the server takes nothing, or does not answer, for too long.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let is_blocked = self.unwritten() > 0 && now >= self.moved + STALL_TIMEOUT;
        is_blocked || (self.is_pinging() && now >= self.heard + STALL_TIMEOUT)
    }

    /// Writes what waits and reads what came; ends when either went on.
    pub(super) fn poll_io(
        &mut self,
        context: &mut Context<'_>,
        events: &mut Vec<Event>,
    ) -> Poll<io::Result<()>> {
        let has_written = match self.poll_write(context) {
            Poll::Ready(Err(error)) => {
                // the server may have said why it closes
                let _ = self.poll_read(context, events);
                return Poll::Ready(Err(error));
            }
            written => written.is_ready(),
        };
        let has_read = self.poll_read(context, events)?.is_ready();
        if self.unwritten() > 4 * MAX_UNWRITTEN + self.largest {
            return Poll::Ready(Err(io::Error::other("the server asks for more than it takes")));
        }
        if has_written || has_read { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Ready if anything was written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.written;
        while self.written < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(context, &self.out[self.written..])? {
                Poll::Ready(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(count) => {
                    self.written += count;
                    self.needs_flush = true;
                }
                Poll::Pending => break,
            }
        }
        let has_written = self.written > before;
        if has_written {
            self.moved = Now::read().instant;
        }
        self.free_written();
        if self.needs_flush && Pin::new(&mut self.stream).poll_flush(context)?.is_ready() {
            self.needs_flush = false;
        }
        if has_written { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn free_written(&mut self) {
        if self.unwritten() > 0 && self.written < MAX_UNWRITTEN {
            return;
        }
        self.out.drain(..self.written);
        self.written = 0;
        if self.out.capacity() > 4 * MAX_UNWRITTEN {
            self.out.shrink_to(2 * MAX_UNWRITTEN);
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.chunk);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        self.incoming.extend_from_slice(buffer.filled());
        self.heard = Now::read().instant;
        self.take_frames(events, self.heard)?;
        Poll::Ready(Ok(()))
    }

    fn take_frames(&mut self, events: &mut Vec<Event>, now: Instant) -> io::Result<()> {
        let mut incoming = mem::take(&mut self.incoming);
        let mut taken = 0;
        while let Some((frame, length)) = protocol::parse(&incoming[taken..])? {
            taken += length;
            match frame {
                Frame::Error(text) => {
                    self.exceeded = self.exceeded_by(text).or(self.exceeded);
                    events.push(Event::Error(text.to_owned()));
                }
                Frame::Message { subject, status, payload } => events.push(Event::Answer {
                    subject: subject.to_owned(),
                    status,
                    payload: payload.to_owned(),
                }),
                Frame::Ping => self.writing(now).extend_from_slice(b"PONG\r\n"),
                Frame::Pong => events.extend(self.pings.pop_front().map(Event::Pong)),
                // the limit of an account may change at any time
                Frame::Info(text) => {
                    self.max_payload = Info::parse(text)?.max_payload.unwrap_or(self.max_payload);
                }
                Frame::Ok => {}
            }
        }
        incoming.drain(..taken);
        self.incoming = incoming;
        Ok(())
    }

    fn exceeded_by(&self, error: &str) -> Option<Exceeded> {
        match error.to_ascii_lowercase() {
            error if error.starts_with("maximum payload") => Some(Exceeded::Payload(self.largest)),
            error if error.starts_with("maximum control line") => Some(Exceeded::Subject(self.longest)),
            _ => None,
        }
    }

    fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    fn writing(&mut self, now: Instant) -> &mut Vec<u8> {
        if self.unwritten() == 0 {
            self.moved = now;
        }
        &mut self.out
    }
}

/// What the server says first.
async fn greeting(stream: &mut TcpStream, incoming: &mut Vec<u8>) -> io::Result<Info> {
    loop {
        if let Some((frame, length)) = protocol::parse(incoming)? {
            let Frame::Info(text) = frame else { return Err(NotNats.into()) };
            let info = Info::parse(text)?;
            incoming.drain(..length);
            return Ok(info);
        }
        read(stream, incoming).await?;
    }
}

/// Waits until the server has taken the client; the largest message is that of the account, if it says so.
async fn welcome(stream: &mut (impl AsyncRead + Unpin), incoming: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut max_payload = None;
    loop {
        while let Some((frame, length)) = protocol::parse(incoming)? {
            let is_welcome = match frame {
                Frame::Error(text) => return Err(io::Error::other(format!("the server says: {text}"))),
                Frame::Info(text) => {
                    max_payload = Info::parse(text)?.max_payload.or(max_payload);
                    false
                }
                frame => frame == Frame::Pong,
            };
            incoming.drain(..length);
            if is_welcome {
                return Ok(max_payload);
            }
        }
        read(stream, incoming).await?;
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), incoming: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(incoming).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

impl From<NotNats> for io::Error {
    fn from(_: NotNats) -> Self {
        Self::new(ErrorKind::InvalidData, "the peer does not speak the protocol of NATS")
    }
}

/// What is read at a time.
const READ_BYTES: usize = 16 * 1024;
/// What may wait in memory for the server to take it.
const MAX_UNWRITTEN: usize = 256 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time in which the server must take bytes that wait, and answer a ping.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
pub(super) mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;

    use super::*;

    /// A connection, and the other end of it.
    pub(in crate::mirror::nats) async fn wire(max_payload: usize) -> (Wire, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Wire::new(Stream::Tcp(tcp), "test", max_payload, Vec::new()), listener)
    }

    /// The payloads that were written since the last time, each with the last token of where its answer goes.
    pub(in crate::mirror::nats) fn written(wire: &mut Wire) -> Vec<String> {
        let text = String::from_utf8(mem::take(&mut wire.out)).unwrap();
        let lines: Vec<_> = text.split("\r\n").collect();
        let payload = |part: &[&str]| {
            let reply = part[0].split(' ').nth(2).unwrap().rsplit('.').next().unwrap();
            format!("{} {reply}", part[4])
        };
        lines[..lines.len() - 1].chunks(5).map(payload).collect()
    }

    #[tokio::test]
    async fn server_that_takes_nothing_is_found() {
        let (mut wire, _listener) = wire(1000).await;
        let now = Now::read().instant;
        assert!(!wire.is_stalled(now + 2 * STALL_TIMEOUT));
        wire.ping(0, now);
        assert!(!wire.is_stalled(now));
        assert!(wire.is_stalled(now + STALL_TIMEOUT));
    }

    #[tokio::test]
    async fn what_a_slow_server_has_taken_is_freed() {
        let (mut wire, _server) = pair(1 << 20).await;
        wire.out = [vec![b'a'; MAX_UNWRITTEN], vec![b'b'; MAX_UNWRITTEN]].concat();
        wire.written = MAX_UNWRITTEN - 1;
        wire.free_written();
        assert_eq!(wire.out.len(), 2 * MAX_UNWRITTEN);
        wire.written = MAX_UNWRITTEN;
        wire.free_written();
        assert_eq!((&wire.out, wire.written), (&vec![b'b'; MAX_UNWRITTEN], 0));
    }

    #[tokio::test]
    async fn server_that_pings_and_reads_nothing_is_left() {
        let (mut wire, mut server) = pair(1 << 20).await;
        let pings = b"PING\r\n".repeat(10_000);
        let pinging = tokio::spawn(async move { while server.write_all(&pings).await.is_ok() {} });
        let error = loop {
            assert!(wire.out.len() < 8 * MAX_UNWRITTEN);
            if let Err(error) = poll_fn(|context| wire.poll_io(context, &mut Vec::new())).await {
                break error;
            }
        };
        assert_eq!(error.to_string(), "the server asks for more than it takes");
        drop(wire);
        pinging.await.unwrap();
    }

    #[tokio::test]
    async fn server_may_take_less_than_it_said_first() {
        let mut incoming = b"INFO {\"max_payload\":100}\r\nPONG\r\nINFO {\"a\":1}\r\n".to_vec();
        assert_eq!(welcome(&mut tokio::io::empty(), &mut incoming).await.unwrap(), Some(100));
        let (mut wire, _server) = pair(1000).await;
        wire.incoming = incoming;
        wire.take_frames(&mut Vec::new(), Now::read().instant).unwrap();
        assert_eq!(wire.max_payload, 1000);
        wire.incoming = b"INFO {\"max_payload\":50}\r\n".to_vec();
        wire.take_frames(&mut Vec::new(), Now::read().instant).unwrap();
        assert_eq!(wire.max_payload, 50);
    }

    async fn pair(max_payload: usize) -> (Wire, TcpStream) {
        let (wire, listener) = wire(max_payload).await;
        (wire, listener.accept().await.unwrap().0)
    }
}
