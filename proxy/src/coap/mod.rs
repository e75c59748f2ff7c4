//! CoAP over datagrams: views of messages, and the session that judges them. RFC 7252

mod challenge;
pub mod codec;
pub mod encode;
pub mod message;
pub mod relay;
pub mod session;
mod table;

use crate::gate::Gate;
use challenge::Challenges;

/// What all CoAP sessions of one route share.
pub struct Endpoint {
    /// What the sessions ask, tell and are limited by.
    pub gate: Gate,
    /// How they speak CoAP.
    pub options: Options,
    /// Where their requests go; `None` where messages are mirrored alone.
    pub upstream: Option<Upstream>,
    challenges: Challenges,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// A name or an address; IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
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
        Self { gate, options, upstream, challenges: Challenges::default() }
    }

    /// Another endpoint for the same sessions: what peers have yet to show stays good.
    pub fn renewed(&self, gate: Gate, options: Options, upstream: Option<Upstream>) -> Self {
        Self { gate, options, upstream, challenges: self.challenges.clone() }
    }

    /// Whether what is published goes to the mirror and nowhere else.
    fn ends_here(&self) -> bool {
        self.upstream.is_none() && self.options.profile == Profile::Messages
    }
}
