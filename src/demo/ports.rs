use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use anyhow::Context;

use super::{Endpoint, ROUTES};
use crate::config::Scheme;

/// Ports that nobody else can take while this is kept.
pub(super) struct Reserved {
    pub(super) endpoints: Vec<Endpoint>,
    sockets: Vec<Socket>,
}

/// What holds a port.
enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Reserved {
    /// Takes each route's usual port plus `offset`, or a free one where it is taken.
    pub(super) fn take(host: IpAddr, offset: u16) -> anyhow::Result<Self> {
        let mut endpoints = Vec::new();
        let mut sockets = Vec::new();
        for (route, scheme, port) in ROUTES {
            let wanted = port.saturating_add(offset);
            let socket = Socket::bind(scheme, host, wanted)
                .or_else(|_| Socket::bind(scheme, host, 0))
                .with_context(|| format!("cannot listen at {host}"))?;
            endpoints.push(Endpoint { route, scheme, address: socket.address()?, wanted });
            sockets.push(socket);
        }
        Ok(Self { endpoints, sockets })
    }

    /// Leaves them to whoever listens there next.
    pub(super) fn release(self) -> Vec<Endpoint> {
        drop(self.sockets);
        self.endpoints
    }
}

impl Socket {
    fn bind(scheme: Scheme, host: IpAddr, port: u16) -> io::Result<Self> {
        let address = SocketAddr::new(host, port);
        match scheme.is_coap() {
            true => UdpSocket::bind(address).map(Self::Udp),
            false => TcpListener::bind(address).map(Self::Tcp),
        }
    }

    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn taken_port_is_replaced_by_a_free_one() {
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = Reserved::take(host, OFFSET).unwrap();
        let second = Reserved::take(host, OFFSET).unwrap();
        for (first, second) in first.endpoints.iter().zip(&second.endpoints) {
            assert_eq!(first.wanted, second.wanted);
            assert_ne!(first.address, second.address);
            assert_ne!(second.address.port(), second.wanted);
        }
    }

    const OFFSET: u16 = 20_000;
}
