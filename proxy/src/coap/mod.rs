//! CoAP over datagrams: views of messages, and the session that judges them. RFC 7252

mod challenge;
pub mod codec;
mod counts;
pub mod encode;
pub mod message;
pub mod relay;
pub mod session;
mod table;

use std::sync::Arc;
use std::time::Duration;

use mgate_dtls::{CID_LENGTH, HandshakeEngine, Settings, Statistics};

use crate::gate::Gate;
use challenge::Challenges;
use counts::Counts;

/// What all CoAP sessions of one route share.
pub struct Endpoint {
    /// What the sessions ask, tell and are limited by.
    pub gate: Gate,
    /// How they speak CoAP.
    pub options: Options,
    /// Where their requests go; `None` where messages are mirrored alone.
    pub upstream: Option<Upstream>,
    /// How their peers speak DTLS, if they do.
    pub dtls: Option<Dtls>,
    challenges: Challenges,
    counts: Arc<Counts>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// How the peers of a route speak DTLS.
#[derive(Clone)]
pub struct Dtls {
    /// Shakes hands with them.
    pub engine: Arc<dyn HandshakeEngine>,
    /// Whether they may go by connection ids, so that they can move. RFC 9146
    pub has_connection_ids: bool,
    /// Handshakes that go on at a time.
    pub handshakes: usize,
    /// The same with one address, or network.
    pub handshakes_per_address: usize,
    /// Time for a handshake.
    pub handshake_timeout: Duration,
}

/// How a route speaks CoAP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What a request means to policies.
    pub profile: Profile,
    /// The names that clients may call the route by, and which the upstream sees; where there are none, they may call it
    /// as they like, and the upstream sees nothing of that.
    pub hosts: Vec<String>,
    /// Whether policies are asked about notifications.
    pub deliveries: Deliveries,
    /// Whether a peer must show first that it is where it says. RFC 9175 §2.4
    pub has_challenge: bool,
}

/// What a request means to policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Messages of channels: POST publishes, GET with Observe subscribes, at `channels/<id>/messages…`.
    Messages,
    /// A method and a path.
    #[default]
    Proxy,
}

/// Whether policies are asked about notifications.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deliveries {
    /// About each.
    #[default]
    Ask,
    /// No: who may observe is given what it observes.
    Pass,
}

impl Dtls {
    /// What one of the sockets does; the bound on sessions is the route's.
    fn settings(&self, shard: u8) -> Settings {
        Settings {
            shard,
            cid_length: if self.has_connection_ids { CID_LENGTH } else { 0 },
            max_handshakes: self.handshakes,
            max_handshakes_per_address: self.handshakes_per_address,
            max_sessions: usize::MAX,
            handshake_timeout: self.handshake_timeout,
            ..Settings::default()
        }
    }
}

impl Options {
    /// Whether the route goes by that name; who says none means the address.
    fn is_at(&self, host: Option<&str>) -> bool {
        let is_ours = |host: &str| self.hosts.iter().any(|name| name.eq_ignore_ascii_case(host));
        self.hosts.is_empty() || host.is_none_or(is_ours)
    }
}

impl Endpoint {
    /// An endpoint without sessions.
    pub fn new(gate: Gate, options: Options, upstream: Option<Upstream>) -> Self {
        let (challenges, counts) = Default::default();
        Self { gate, options, upstream, dtls: None, challenges, counts }
    }

    /// The same where peers speak DTLS.
    pub fn secured(self, dtls: Option<Dtls>) -> Self {
        Self { dtls, ..self }
    }

    /// Another endpoint for the same sessions: what peers have yet to show stays good, and what was counted counts.
    pub fn renewed(&self, gate: Gate, options: Options, upstream: Option<Upstream>) -> Self {
        let (challenges, counts) = (self.challenges.clone(), Arc::clone(&self.counts));
        Self { gate, options, upstream, dtls: None, challenges, counts }
    }

    /// What all its sockets have counted of DTLS, where peers speak it; but for what is at the moment.
    pub fn statistics(&self) -> Option<Statistics> {
        self.dtls.as_ref().map(|_| self.counts.read())
    }

    /// Whether what is published goes to the mirror and nowhere else.
    fn ends_here(&self) -> bool {
        self.upstream.is_none() && self.options.profile == Profile::Messages
    }
}
