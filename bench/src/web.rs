use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::ends::{Counts, Ends};
use crate::link::Link;
use crate::world::wait;

/// Both ends of a load of HTTP, on one thread: clients that post, and a server that says the same to everybody.
pub(crate) struct Web {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    /// Clients that have no answer to wait for, the one that waits longest for its turn in front.
    free: VecDeque<usize>,
    payload_bytes: usize,
    scratch: Vec<u8>,
    counts: Counts,
}

struct Peer {
    link: Link,
    input: Vec<u8>,
    role: Role,
}

enum Role {
    /// With its request.
    Client(Vec<u8>),
    Server,
}

impl Web {
    /// Opens the server's port; requests carry `payload_bytes`.
    pub(crate) fn new(payload_bytes: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            listener,
            peers: Vec::new(),
            free: VecDeque::new(),
            payload_bytes,
            scratch: vec![0; 65_536],
            counts: Counts::default(),
        })
    }

    /// The port of the server.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Connects `count` clients, and lets each make a request.
    pub(crate) fn open(&mut self, to: SocketAddr, count: usize) -> io::Result<()> {
        for number in 0..count {
            let stream = TcpStream::connect(to)?;
            stream.set_nodelay(true)?;
            let request = request(number, self.payload_bytes);
            let client = self.admit(Link::new(stream, None), Role::Client(request))?;
            self.free.push_back(client);
            self.post()?;
            self.settle()?;
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nodelay(true)?;
                    self.admit(Link::new(stream, None), Role::Server)?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(&mut self, mut link: Link, role: Role) -> io::Result<usize> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(link.stream(), Token(self.peers.len()), interest)?;
        self.peers.push(Some(Peer { link, input: Vec::new(), role }));
        Ok(self.peers.len() - 1)
    }

    fn serve(&mut self, index: usize) -> io::Result<()> {
        let Some(mut peer) = self.peers[index].take() else { return Ok(()) };
        peer.link.flush()?;
        loop {
            match peer.link.read(&mut self.scratch) {
                Ok(Some(0)) => return peer.closed(),
                Ok(Some(count)) => peer.input.extend(&self.scratch[..count]),
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return peer.closed(),
                Err(error) => return Err(error),
            }
        }
        while let Some(length) = message_bytes(&peer.input) {
            match peer.role {
                Role::Client(_) if !peer.input.starts_with(b"HTTP/1.1 200 ") => {
                    let said = String::from_utf8_lossy(&peer.input);
                    return Err(io::Error::other(format!("a request was answered with {said}")));
                }
                Role::Client(_) => {
                    self.counts.answered += 1;
                    self.free.push_back(index);
                }
                Role::Server => {
                    self.counts.arrived += 1;
                    peer.link.pending.extend(ANSWER);
                }
            }
            peer.input.drain(..length);
        }
        peer.link.flush()?;
        self.peers[index] = Some(peer);
        Ok(())
    }
}

impl Ends for Web {
    fn counts(&self) -> Counts {
        self.counts
    }

    fn post(&mut self) -> io::Result<()> {
        let Some(index) = self.free.pop_front() else { return Ok(()) };
        if let Some(Peer { link, role: Role::Client(request), .. }) = &mut self.peers[index] {
            link.pending.extend(&*request);
            self.counts.sent += 1;
            link.flush()?;
        }
        Ok(())
    }

    fn turn(&mut self, patience: Duration) -> io::Result<()> {
        wait(&mut self.poll, &mut self.events, patience)?;
        let ready: Vec<_> = self.events.iter().map(mio::event::Event::token).collect();
        for token in ready {
            if token == LISTENER { self.accept()? } else { self.serve(token.0)? }
        }
        Ok(())
    }
}

impl Peer {
    fn closed(&self) -> io::Result<()> {
        match self.role {
            Role::Client(_) => Err(io::Error::other("the proxy closed a client's connection")),
            Role::Server => Ok(()),
        }
    }
}

fn request(client: usize, payload_bytes: usize) -> Vec<u8> {
    let payload = "x".repeat(payload_bytes);
    format!(
        "POST /devices/dev-{client}/telemetry HTTP/1.1\r\nHost: gate.example\r\nUser-Agent: device/1.0\r\n\
         Accept: */*\r\nContent-Type: application/json\r\nContent-Length: {payload_bytes}\r\n\r\n{payload}"
    )
    .into()
}

/// How long the message at the beginning of `input` is, once it is whole; its length must be said.
fn message_bytes(input: &[u8]) -> Option<usize> {
    let head = input.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&input[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    (input.len() >= head + length).then_some(head + length)
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
const LISTENER: Token = Token(usize::MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_where_their_length_says() {
        let request = request(7, 3);
        assert_eq!(message_bytes(&request), Some(request.len()));
        assert_eq!(message_bytes(&request[..request.len() - 1]), None);
        assert_eq!(message_bytes(&[ANSWER, ANSWER].concat()), Some(ANSWER.len()));
        assert_eq!(message_bytes(b"HTTP/1.1 200 OK\r\ncontent-LENGTH:0\r\n\r\n"), Some(37));
        assert_eq!(message_bytes(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
