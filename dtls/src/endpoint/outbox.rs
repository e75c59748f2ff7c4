//! Datagrams that wait to be sent.

use std::net::SocketAddr;
use std::ops::Range;

/// Datagrams and where they go, in one buffer that is used again and again.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    datagrams: Vec<(SocketAddr, Range<usize>)>,
}

impl Outbox {
    /// An empty one, without memory of its own yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the datagrams, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }

    /// The datagrams, in the order in which they are to be sent.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.datagrams.iter().map(|(address, range)| (*address, &self.bytes[range.clone()]))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Adds a datagram.
    pub(super) fn push(&mut self, to: SocketAddr, datagram: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(datagram);
        self.datagrams.push((to, start..self.bytes.len()));
    }

    /// Adds a datagram that `write` appends to the buffer; none if it fails.
    pub(super) fn write<E>(
        &mut self,
        to: SocketAddr,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        let written = write(&mut self.bytes);
        match written {
            Ok(()) => self.datagrams.push((to, start..self.bytes.len())),
            Err(_) => self.bytes.truncate(start),
        }
        written
    }
}
