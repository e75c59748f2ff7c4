//! What an endpoint is told once.

use std::time::Duration;

/// Bounds and times of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The first byte of the connection ids that are given out: which of several endpoints gave them.
    pub shard: u8,
    /// The length of those connection ids, 8, or 0: none are given out. Endpoints of one address have the same.
    pub cid_length: usize,
    /// How many handshakes may go on at once; each takes some 60 kB meanwhile, 130 at worst.
    pub max_handshakes: usize,
    /// How many of them with one IPv4 address, or one IPv6 network of 64 bits.
    pub max_handshakes_per_address: usize,
    /// How many sessions may be; a handshake that would complete one more fails.
    pub max_sessions: usize,
    /// How long a handshake may take, the wait for its key included.
    pub handshake_timeout: Duration,
    /// When an answer in a handshake is first sent again; the time doubles with each (RFC 6347 §4.2.4.1).
    pub retransmission: Duration,
    /// How long the last answer of a handshake is kept, for clients that did not get it.
    pub linger: Duration,
    /// The longest datagram that a handshake sends, in bytes.
    pub mtu: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shard: 0,
            cid_length: CID_LENGTH,
            max_handshakes: 1_000,
            max_handshakes_per_address: 100,
            max_sessions: 1_000_000,
            handshake_timeout: Duration::from_secs(30),
            retransmission: Duration::from_secs(1),
            linger: Duration::from_secs(60),
            mtu: 1_200,
        }
    }
}

/// How long the connection ids are that an endpoint gives out.
pub const CID_LENGTH: usize = 8;
