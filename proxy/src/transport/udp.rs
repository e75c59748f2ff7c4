//! Datagrams of many peers by one socket, and of one upstream by another.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::task::{Poll, ready};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::lookup_host;

/// A socket that the datagrams of many peers come to.
pub struct UdpListener(UdpSocket);

impl UdpListener {
    /// Takes an address; a port of 0 takes a free one.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::new(UdpSocket::bind(address)?)
    }

    /// Takes an address with several sockets, of which the system leads each peer to one; with a single one where it
    /// does not do that. Fails where anybody else listens there; what the same user starts later may join.
    pub fn bind_several(address: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        // alone at first: to share is what other processes could want too
        let mut all = vec![Self::bind(address)?];
        if IS_BALANCED && count > 1 {
            let address = all[0].local_addr()?;
            share(&all[0].0)?;
            for _ in 1..count {
                all.push(Self::bind_beside(address)?);
            }
        }
        Ok(all)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Takes an address that another socket of ours has too.
    fn bind_beside(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        share(&socket)?;
        socket.bind(&address.into())?;
        Self::new(socket.into())
    }

    fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // as much as the system grants: a fleet that reports on the hour comes in one burst
        let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        Ok(Self(socket))
    }

    /// Registers it with the runtime of this thread.
    pub(crate) fn register(self) -> io::Result<Datagrams> {
        let socket = register(self.0)?;
        let state = UdpSocketState::new(socket.get_ref().into())?;
        allow_fragments(socket.get_ref());
        let is_anywhere = socket.get_ref().local_addr()?.ip().to_canonical().is_unspecified();
        Ok(Datagrams { socket, state, is_anywhere })
    }
}

/// A socket that the datagrams of many peers come to, in a runtime.
pub(crate) struct Datagrams {
    socket: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    /// Whether datagrams come to more addresses than one, so that answers must say where they leave from.
    is_anywhere: bool,
}

/// Room for what comes at once, used again and again.
pub(crate) struct Batch<const ROOM: usize> {
    buffers: [Box<[u8]>; ROOM],
    metas: [RecvMeta; ROOM],
    filled: usize,
}

/// Where a datagram came from, and which of our addresses it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) peer: SocketAddr,
    pub(crate) own: Option<IpAddr>,
}

impl Datagrams {
    /// Waits for datagrams and takes what is there, as far as there is room. Dropping the future loses none.
    pub(crate) async fn receive<const ROOM: usize>(&self, batch: &mut Batch<ROOM>) -> io::Result<()> {
        poll_fn(|cx| {
            loop {
                let _ = ready!(self.socket.poll_read_ready(cx))?;
                match self.try_receive(&self.socket, batch) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    received => return Poll::Ready(received),
                }
            }
        })
        .await
    }

    /// Takes the datagrams that are there, at this socket or at another of the same runtime.
    pub(crate) fn try_receive<const ROOM: usize>(
        &self,
        socket: &AsyncFd<UdpSocket>,
        batch: &mut Batch<ROOM>,
    ) -> io::Result<()> {
        batch.filled = 0;
        let received = socket.try_io(Interest::READABLE, |socket| {
            let mut slices = batch.buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
            batch.filled = self.state.recv(socket.into(), &mut slices, &mut batch.metas)?;
            // what is not full found the socket empty: the runtime need not find out by another call
            if batch.filled < ROOM.min(BATCH_SIZE) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        if batch.filled > 0 { Ok(()) } else { received }
    }

    /// Sends a datagram back the way that others came; what the system has no room for is lost.
    pub(crate) fn send(&self, way: Way, contents: &[u8]) -> io::Result<()> {
        let (socket, own) = (self.socket.get_ref(), way.own.filter(|_| self.is_anywhere));
        if own.is_none() {
            return socket.send_to(contents, way.peer).map(|_| ());
        }
        let transmit =
            Transmit { destination: way.peer, ecn: None, contents, segment_size: None, src_ip: own };
        self.state.try_send(socket.into(), &transmit)
    }
}

impl<const ROOM: usize> Batch<ROOM> {
    pub(crate) fn new() -> Self {
        let buffers = std::array::from_fn(|_| vec![0; DATAGRAM_BYTES].into());
        Self { buffers, metas: [RecvMeta::default(); ROOM], filled: 0 }
    }

    /// The datagrams that came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Way, &[u8])> {
        let filled = self.buffers.iter().zip(&self.metas).take(self.filled);
        filled.flat_map(|(buffer, meta)| {
            let way = Way { peer: meta.addr, own: meta.dst_ip };
            // the system may have put several datagrams of one peer together
            let datagrams = buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1));
            datagrams.map(move |datagram| (way, datagram))
        })
    }
}

/// Opens a socket that is connected with one upstream: what others send to it is not heard.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<AsyncFd<UdpSocket>> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host((host, port)).await? {
        let own: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((own, 0))?;
        socket.set_nonblocking(true)?;
        allow_fragments(&socket);
        match socket.connect(address) {
            Ok(()) => return register(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Has the runtime of this thread look what there is to be read. That there is room for more is no news: the system would
/// tell so whenever a datagram has reached its reader, and nobody waits for it.
#[expect(
    deprecated,
    reason = "what took its place is for types that need not own what they name; this one does"
)]
fn register(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

#[cfg(target_os = "linux")]
fn share(socket: impl std::os::fd::AsFd) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_reuseport(socket, true)?)
}

#[cfg(not(target_os = "linux"))]
fn share<S>(_: S) -> io::Result<()> {
    Ok(())
}

/// What is larger than the path takes would be lost: [`UdpSocketState`] forbids fragments, for protocols that look for
/// the size of the path, and so does the system for sockets of which it knows it.
#[cfg(target_os = "linux")]
fn allow_fragments(socket: &UdpSocket) {
    use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
    let _ = sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT);
    let _ = sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT);
}

#[cfg(not(target_os = "linux"))]
fn allow_fragments(_: &UdpSocket) {}

/// Sends a datagram to the upstream. Nobody waits for room, so the runtime need not know whether there is any.
pub(crate) fn send(upstream: &AsyncFd<UdpSocket>, contents: &[u8]) -> io::Result<usize> {
    upstream.get_ref().send(contents)
}

/// The error that a connected socket was told of since it was asked last, and takes back that there is one.
pub(crate) fn take_error(upstream: &AsyncFd<UdpSocket>) -> Option<io::Error> {
    let told = upstream.try_io(Interest::ERROR, |upstream| match upstream.take_error() {
        Ok(Some(error)) | Err(error) => Ok(error),
        Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
    });
    told.ok()
}

/// Whether an error means that nobody is there, and not that one datagram was too much for the way.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::WouldBlock && !is_too_large(error)
}

#[cfg(unix)]
fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

#[cfg(not(unix))]
fn is_too_large(_: &io::Error) -> bool {
    false
}

/// The largest datagram that there can be: none is ever cut short.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Whether sockets at one address share what comes there.
const IS_BALANCED: bool = cfg!(target_os = "linux");

const RECEIVE_BUFFER_BYTES: usize = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    #[tokio::test]
    async fn datagrams_come_whole_and_answers_leave_from_where_they_were_sent_to() {
        let listener = UdpListener::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let datagrams = listener.register().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(("127.0.0.2", port)).await.unwrap();
        let sent = [vec![1; 10], vec![2; 60_000], vec![3; 10], vec![]];
        for datagram in &sent[..3] {
            client.send(datagram).await.unwrap();
        }
        let (mut batch, mut came) = (Batch::<2>::new(), Vec::new());
        while came.len() < 3 {
            datagrams.receive(&mut batch).await.unwrap();
            for (way, datagram) in batch.iter() {
                assert_eq!(way.peer, client.local_addr().unwrap());
                assert_eq!(way.own, Some("127.0.0.2".parse().unwrap()));
                came.push(datagram.to_vec());
                datagrams.send(way, &datagram[..1]).unwrap();
            }
        }
        assert_eq!(came, sent[..3]);
        let mut buffer = [0; 10];
        // a connected socket hears nobody else
        assert_eq!(client.recv(&mut buffer).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn answer_leaves_from_where_it_was_asked_for_at_a_mapped_address_too() {
        let listener = UdpListener::bind("[::ffff:0.0.0.0]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let datagrams = listener.register().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(("127.0.0.2", port)).await.unwrap();
        client.send(b"hello").await.unwrap();
        let mut batch = Batch::<1>::new();
        datagrams.receive(&mut batch).await.unwrap();
        batch.iter().for_each(|(way, datagram)| datagrams.send(way, datagram).unwrap());
        let answer =
            tokio::time::timeout(std::time::Duration::from_secs(20), client.recv(&mut [0; 10])).await;
        assert_eq!(answer.unwrap().unwrap(), 5);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn sockets_at_one_address_share_the_peers_and_who_does_not_share_is_kept_out() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listeners = UdpListener::bind_several(address.parse().unwrap(), 3).unwrap();
            let at = listeners[0].local_addr().unwrap();
            assert_eq!(UdpListener::bind(at).err().unwrap().kind(), io::ErrorKind::AddrInUse);
            assert!(UdpListener::bind_several(at, 2).is_err());
            let host = if at.ip().is_unspecified() { "127.0.0.1".parse().unwrap() } else { at.ip() };
            let clients: Vec<_> = (0..60).map(|_| std::net::UdpSocket::bind((host, 0)).unwrap()).collect();
            for client in clients.iter().chain(&clients) {
                client.send_to(b"hello", (host, at.port())).unwrap();
            }
            let heard = listeners.iter().map(|listener| {
                let from = || listener.0.recv_from(&mut [0; 10]).ok().map(|(_, from)| from.port());
                std::iter::from_fn(from).collect::<Vec<_>>()
            });
            let heard: Vec<_> = heard.collect();
            assert_eq!(heard.iter().map(Vec::len).sum::<usize>(), 120);
            for mut ports in heard {
                assert!(!ports.is_empty());
                // each comes to the same one again
                ports.sort_unstable();
                assert!(ports.chunks(2).all(|pair| pair.len() == 2 && pair[0] == pair[1]));
            }
        }
    }

    #[tokio::test]
    async fn one_datagram_that_is_too_large_is_no_reason_to_hang_up() {
        let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let upstream = connect("127.0.0.1", listener.local_addr().unwrap().port()).await.unwrap();
        let error = send(&upstream, &vec![0; 70_000]).unwrap_err();
        assert!(!is_gone(&error), "{error}");
        assert!(send(&upstream, b"still there").is_ok());
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::net::sockopt::ip_mtu_discover(upstream.get_ref()).unwrap(),
            rustix::net::sockopt::Ipv4PathMtuDiscovery::DONT
        );
    }

    #[tokio::test]
    async fn error_is_told_once() {
        let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = gone.local_addr().unwrap().port();
        drop(gone);
        let upstream = connect("127.0.0.1", port).await.unwrap();
        send(&upstream, b"is anybody there?").unwrap();
        drop(upstream.ready(Interest::ERROR).await.unwrap());
        let error = take_error(&upstream).unwrap();
        assert!(error.kind() == io::ErrorKind::ConnectionRefused && is_gone(&error));
        assert!(take_error(&upstream).is_none());
        tokio::select! {
            biased;
            _ = upstream.ready(Interest::ERROR) => panic!("there is no error any more"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn ipv6_peer_is_answered_too() {
        let listener = UdpListener::bind("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let datagrams = listener.register().unwrap();
        for host in ["::1", "127.0.0.1"] {
            let client = UdpSocket::bind((host, 0)).await.unwrap();
            client.connect((host, port)).await.unwrap();
            client.send(b"hello").await.unwrap();
            let mut batch = Batch::<2>::new();
            datagrams.receive(&mut batch).await.unwrap();
            let (way, datagram) = batch.iter().next().unwrap();
            datagrams.send(way, datagram).unwrap();
            let mut buffer = [0; 10];
            assert_eq!(client.recv(&mut buffer).await.unwrap(), 5, "{host}");
        }
    }
}
