//! A client or an upstream that does exactly what a test says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use super::packets::{self, Connect, PINGREQ, PINGRESP, Version};
use super::{PATIENCE, wait_until};

/// One end of a connection on which MQTT packets travel.
pub(crate) struct Peer(Box<dyn ReadWrite>);

/// An upstream that says and hears what a test wants.
pub(crate) struct Upstream(TcpListener);

/// Bytes both ways.
pub(crate) trait ReadWrite: Read + Write + Send {}

impl<T: Read + Write + Send> ReadWrite for T {}

impl Peer {
    pub(crate) fn new(stream: impl ReadWrite + 'static) -> Self {
        Self(Box::new(stream))
    }

    pub(crate) fn dial(address: SocketAddr) -> Self {
        Self::new(tcp(address))
    }

    /// A client of this name that the upstream has taken.
    pub(crate) fn connected(address: SocketAddr, version: Version, client_id: &str) -> Self {
        Self::connected_with(address, &packets::connect(version, client_id))
    }

    /// A client that the upstream has taken.
    pub(crate) fn connected_with(address: SocketAddr, connect: &Connect) -> Self {
        let mut client = Self::dial(address);
        client.send(&connect.bytes());
        let connack = client.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "CONNACK {connack:02x?}");
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    /// Sends to somebody who may have closed already.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// The next whole packet.
    pub(crate) fn packet(&mut self) -> Vec<u8> {
        self.try_packet().expect("a packet in time")
    }

    /// Waits for exactly these bytes.
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut came = vec![0; bytes.len()];
        self.0.read_exact(&mut came).unwrap_or_else(|error| panic!("{error} instead of {bytes:02x?}"));
        assert_eq!(came, bytes, "\ncame {came:02x?}\nnot  {bytes:02x?}");
    }

    /// What came until the other side closed.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        let mut came = Vec::new();
        match self.0.read_to_end(&mut came) {
            Ok(_) => came,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => came,
            Err(error) => panic!("it was not closed in time: {error}, {came:02x?}"),
        }
    }

    /// Shows that nothing is on its way: the next packet is the answer to a ping.
    pub(crate) fn expect_nothing_but_pong(&mut self) {
        self.send(&PINGREQ);
        self.expect(&PINGRESP);
    }

    /// Subscribes at the broker behind and waits for its word.
    pub(crate) fn subscribe(&mut self, version: Version, filters: &[(&str, u8)]) -> Vec<u8> {
        self.send(&packets::subscribe(version, 77, filters));
        let suback = self.packet();
        assert_eq!(suback[0], 0x90, "SUBACK {suback:02x?}");
        suback[suback.len() - filters.len()..].into()
    }

    fn try_packet(&mut self) -> io::Result<Vec<u8>> {
        let mut packet = vec![0];
        self.0.read_exact(&mut packet)?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            packet.push(byte[0]);
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let header = packet.len();
        packet.resize(header + length, 0);
        self.0.read_exact(&mut packet[header..])?;
        Ok(packet)
    }
}

impl Upstream {
    pub(crate) fn start() -> Self {
        Self(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> Peer {
        Peer::new(self.accept_tcp())
    }

    pub(crate) fn accept_tcp(&self) -> TcpStream {
        let mut accepted = None;
        wait_until("somebody connects to the upstream", || {
            accepted = self.try_accept();
            accepted.is_some()
        });
        accepted.unwrap()
    }

    /// The next connection, if somebody has connected.
    pub(crate) fn try_accept(&self) -> Option<TcpStream> {
        self.0.set_nonblocking(true).unwrap();
        let (tcp, _) = self.0.accept().ok()?;
        tcp.set_nonblocking(false).unwrap();
        Some(prepared(tcp))
    }

    /// A client that `address` leads here, taken by this upstream; both ends.
    pub(crate) fn session(&self, address: SocketAddr, connect: &Connect, version: Version) -> (Peer, Peer) {
        let mut client = Peer::dial(address);
        client.send(&connect.bytes());
        let mut upstream = self.accept();
        upstream.expect(&connect.bytes());
        upstream.send(&packets::connack(version));
        client.expect(&packets::connack(version));
        (client, upstream)
    }
}

/// A connection that waits for nothing longer than it should.
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    prepared(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
}

fn prepared(tcp: TcpStream) -> TcpStream {
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}
