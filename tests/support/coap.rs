//! libcoap's client and server, and bare datagrams.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use super::process::Process;
use super::{Mgate, PATIENCE, wait_until};

/// libcoap's example server; gone when dropped.
pub(crate) struct CoapServer {
    _process: Process,
    pub(crate) port: u16,
}

impl CoapServer {
    pub(crate) fn start() -> Self {
        let port = upstream().local_addr().unwrap().port();
        let mut command = Command::new("coap-server-notls");
        let process = Process::start(command.args(["-A", "127.0.0.1", "-d", "10", "-p", &port.to_string()]));
        let probe = device(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        probe.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        wait_until("libcoap's server answers", || {
            let _ = probe.send(&[0x40, 0, 0, 1]);
            probe.recv(&mut [0; 10]).is_ok()
        });
        Self { _process: process, port }
    }
}

/// What libcoap's client says: the payload, or the code of an error.
pub(crate) fn client(arguments: &[&str]) -> String {
    said_by(&mut coap_client(arguments))
}

/// What a client says, on both ways to say something.
pub(crate) fn said_by(client: &mut Command) -> String {
    let output = client.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    [text(&output.stdout), text(&output.stderr)].concat()
}

pub(crate) fn coap_client(arguments: &[&str]) -> Command {
    coap_client_with("notls", arguments)
}

/// libcoap's client with a library for DTLS: `gnutls` or `openssl`.
pub(crate) fn coap_client_with(library: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(format!("coap-client-{library}"));
    command.args(["-v", "1"]).args(arguments);
    command
}

pub(crate) fn upstream() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn device(address: SocketAddr) -> UdpSocket {
    let socket = upstream();
    socket.connect(address).unwrap();
    socket
}

pub(crate) fn receive(socket: &UdpSocket) -> Vec<u8> {
    receive_from(socket).0
}

pub(crate) fn receive_from(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2000];
    let (count, from) = socket.recv_from(&mut buffer).expect("a datagram in time");
    (buffer[..count].to_vec(), from)
}

pub(crate) fn descriptors(mgate: &Mgate) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", mgate.id())).unwrap().count()
}

/// A confirmable POST with one part of a query, or none.
pub(crate) fn post(id: u16, path: &[&str], query: &str, payload: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut message = vec![0x40, 2, high, low];
    for (index, segment) in path.iter().enumerate() {
        message.push(if index == 0 { 0xb0 } else { 0 } | segment.len() as u8);
        message.extend_from_slice(segment.as_bytes());
    }
    if !query.is_empty() {
        message.push(0x40 | query.len() as u8);
        message.extend_from_slice(query.as_bytes());
    }
    [&message[..], &[0xff], payload.as_bytes()].concat()
}
