use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConnection;

use crate::client::Client;
use crate::clock;
use crate::counts::Counts;
use crate::link::Link;
use crate::packet::packet_length;
use crate::sink::Sink;

/// Both ends of the load, on one thread: clients, and the upstream behind the proxy.
pub(crate) struct World {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    /// Upstream connections to deliver to, in the order of their turns.
    subscribed: VecDeque<usize>,
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
    Client(Client),
    Sink(Sink),
}

impl World {
    /// Opens the upstream's port; its deliveries carry `payload_bytes`.
    pub(crate) fn new(payload_bytes: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            listener,
            peers: Vec::new(),
            free: Vec::new(),
            subscribed: VecDeque::new(),
            payload_bytes,
            scratch: vec![0; 65_536],
            counts: Counts::default(),
        })
    }

    /// The port of the built-in upstream.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// What passed so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Connects a client and writes its CONNECT; returns its name for [`Self::publish`].
    pub(crate) fn open(
        &mut self,
        to: SocketAddr,
        client: Client,
        tls: Option<ClientConnection>,
    ) -> io::Result<usize> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        let mut link = Link::new(stream, tls);
        link.pending.extend(client.connect());
        self.admit(link, Role::Client(client))
    }

    /// Subscribes to all that arrives at a real broker, and counts it as the built-in upstream would.
    pub(crate) fn watch(&mut self, broker: SocketAddr) -> io::Result<()> {
        self.open(broker, Client::watcher(), None)?;
        self.turn_to("the broker is watched", |counts| counts.ready > 0)?;
        self.counts = Counts::default();
        Ok(())
    }

    /// Lets a client write `count` messages at once.
    pub(crate) fn publish(&mut self, client: usize, count: u64) -> io::Result<()> {
        let Some(Some(Peer { link, role: Role::Client(client), .. })) = self.peers.get_mut(client) else {
            return Err(io::Error::other("a publishing client was disconnected"));
        };
        for _ in 0..count {
            client.append_publish(&mut link.pending);
        }
        self.counts.sent += count;
        link.flush()
    }

    /// Lets the upstream write `count` messages at once to the subscriber whose turn it is.
    pub(crate) fn deliver(&mut self, count: u64) -> io::Result<()> {
        let gone = || io::Error::other("a subscriber was disconnected");
        let subscriber = self.subscribed.pop_front().ok_or_else(gone)?;
        self.subscribed.push_back(subscriber);
        let peer = self.peers[subscriber].as_mut().ok_or_else(gone)?;
        let Role::Sink(sink) = &peer.role else { return Err(gone()) };
        for _ in 0..count {
            peer.link.pending.extend(sink.delivery().unwrap_or_default());
        }
        self.counts.delivered += count;
        peer.link.flush()
    }

    /// Writes messages to each subscriber that the kernel took all earlier ones of; returns how many bytes.
    pub(crate) fn deliver_without_rest(&mut self) -> io::Result<u64> {
        let mut bytes = 0;
        for subscriber in &self.subscribed {
            let Some(Peer { link, role: Role::Sink(sink), .. }) = &mut self.peers[*subscriber] else {
                continue;
            };
            let Some(delivery) = sink.delivery().filter(|_| link.pending.is_empty()) else { continue };
            let count = self.scratch.len().div_ceil(delivery.len());
            link.pending.extend(delivery.repeat(count));
            bytes += link.pending.len() as u64;
            self.counts.delivered += count as u64;
            link.flush()?;
        }
        Ok(bytes)
    }

    /// Handles what happens until `deadline`.
    pub(crate) fn turn_until(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            let rest = deadline.saturating_duration_since(clock::now());
            self.turn(rest)?;
            if rest.is_zero() {
                return Ok(());
            }
        }
    }

    /// Handles what happens until `is_done`, which has to be within [`PATIENCE`].
    pub(crate) fn turn_to(&mut self, what: &str, is_done: impl Fn(&Counts) -> bool) -> io::Result<()> {
        let deadline = clock::now() + PATIENCE;
        while !is_done(&self.counts) {
            if clock::now() >= deadline {
                let Counts { ready, sent, arrived, acknowledged, delivered, received } = self.counts;
                return Err(io::Error::other(format!(
                    "waited in vain until {what}: {ready} ready, {sent} sent, {arrived} arrived, \
                     {acknowledged} acknowledged, {delivered} delivered, {received} received"
                )));
            }
            self.turn(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Handles what happened, waiting for it no longer than `patience`.
    fn turn(&mut self, patience: Duration) -> io::Result<()> {
        wait(&mut self.poll, &mut self.events, patience)?;
        let ready: Vec<_> = self.events.iter().map(|event| (event.token(), event.is_writable())).collect();
        for (token, is_writable) in ready {
            if token == LISTENER { self.accept()? } else { self.serve(token.0, is_writable)? }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nodelay(true)?;
                    self.admit(Link::new(stream, None), Role::Sink(Sink::new(self.payload_bytes)))?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(&mut self, mut link: Link, role: Role) -> io::Result<usize> {
        let index = self.free.pop().unwrap_or(self.peers.len());
        self.poll.registry().register(
            link.stream(),
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let peer = Some(Peer { link, input: Vec::new(), role });
        if index == self.peers.len() {
            self.peers.push(peer);
        } else {
            self.peers[index] = peer;
        }
        Ok(index)
    }

    fn serve(&mut self, index: usize, is_writable: bool) -> io::Result<()> {
        let Some(mut peer) = self.peers.get_mut(index).and_then(Option::take) else { return Ok(()) };
        let had_subscribed = peer.is_subscribed();
        if is_writable {
            peer.link.flush()?;
        }
        let is_open = peer.read(&mut self.scratch, &mut self.counts)?;
        if peer.is_subscribed() && !had_subscribed {
            self.subscribed.push_back(index);
        }
        if is_open {
            self.peers[index] = Some(peer);
            return Ok(());
        }
        self.free.push(index);
        self.subscribed.retain(|subscribed| *subscribed != index);
        match peer.role {
            Role::Client(_) => Err(io::Error::other("the proxy closed a client's connection")),
            Role::Sink(_) => Ok(()),
        }
    }
}

/// Waits for something to happen, no longer than `patience`.
pub(crate) fn wait(poll: &mut Poll, events: &mut Events, patience: Duration) -> io::Result<()> {
    // The kernel's poll counts in milliseconds: shorter waits would be rounded up, and paces with them.
    let patience = if patience < Duration::from_millis(1) {
        std::thread::sleep(patience);
        Duration::ZERO
    } else {
        Duration::from_millis(patience.as_millis() as u64)
    };
    match poll.poll(events, Some(patience)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

impl Peer {
    fn is_subscribed(&self) -> bool {
        matches!(&self.role, Role::Sink(sink) if sink.delivery().is_some())
    }

    /// Takes all that came and answers it; says whether the connection is still open.
    fn read(&mut self, scratch: &mut [u8], counts: &mut Counts) -> io::Result<bool> {
        while !matches!(&self.role, Role::Client(client) if client.is_deaf_now()) {
            match self.link.read(scratch) {
                Ok(Some(0)) => return Ok(false),
                Ok(Some(count)) => self.take(&scratch[..count], counts)?,
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.link.flush()?;
        Ok(true)
    }

    fn take(&mut self, bytes: &[u8], counts: &mut Counts) -> io::Result<()> {
        self.input.extend(bytes);
        let mut taken = 0;
        while let Some(length) = packet_length(&self.input[taken..])? {
            let Some(packet) = self.input.get(taken..taken + length) else { break };
            match &mut self.role {
                Role::Client(client) => client.answer(packet, &mut self.link.pending, counts)?,
                Role::Sink(sink) => sink.answer(packet, &mut self.link.pending, counts)?,
            }
            taken += length;
        }
        self.input.drain(..taken);
        if self.input.is_empty() {
            // Thousands of idle connections hold no buffers here either.
            self.input = Vec::new();
        }
        Ok(())
    }
}

const LISTENER: Token = Token(usize::MAX);
const PATIENCE: Duration = Duration::from_secs(30);
