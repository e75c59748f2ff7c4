use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::Context;

use super::{Endpoint, ROUTES};

/// Ports that nobody else can take while this is kept.
pub(super) struct Reserved {
    pub(super) endpoints: Vec<Endpoint>,
    listeners: Vec<TcpListener>,
}

impl Reserved {
    /// Takes each route's usual port plus `offset`, or a free one where it is taken.
    pub(super) fn take(host: IpAddr, offset: u16) -> anyhow::Result<Self> {
        let mut endpoints = Vec::new();
        let mut listeners = Vec::new();
        for (route, scheme, port) in ROUTES {
            let wanted = port.saturating_add(offset);
            let listener = bind(host, wanted)
                .or_else(|_| bind(host, 0))
                .with_context(|| format!("cannot listen at {host}"))?;
            endpoints.push(Endpoint { route, scheme, address: listener.local_addr()?, wanted });
            listeners.push(listener);
        }
        Ok(Self { endpoints, listeners })
    }

    /// Leaves them to whoever listens there next.
    pub(super) fn release(self) -> Vec<Endpoint> {
        drop(self.listeners);
        self.endpoints
    }
}

fn bind(host: IpAddr, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::new(host, port))
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
