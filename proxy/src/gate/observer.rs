//! What is told of sessions to people and to programs of theirs.

use std::fmt;
use std::net::SocketAddr;

use mgate_policies::{Action, Client, Objection, Reason};

use super::Side;

/// Is told what happens in sessions: for logs, metrics and people who debug. It must not wait.
pub trait Observer: Send + Sync {
    /// Whether [`Observer::packet`] wants to be called; asked once per packet.
    fn wants_packets(&self) -> bool;

    /// One packet was judged.
    fn packet(&self, packet: &PacketSeen<'_>);

    /// Something happened to a session.
    fn session(&self, event: &SessionEvent<'_>);

    /// Something went wrong that ends no session. Mirrors are not told.
    fn trouble(&self, _trouble: &Trouble<'_>) {}
}

/// What goes wrong while sessions go on.
#[derive(Clone, Copy)]
pub enum Trouble<'a> {
    /// A message was passed on, and its sender heard that it failed: its copy was not stored.
    NotStored {
        /// Who sent it.
        client: &'a Client,
        /// Why.
        reason: &'a Reason,
    },
    /// A client sends more messages than it may, and is read no faster than that.
    Slowed {
        /// Which client.
        client: &'a Client,
    },
    /// Nobody is where the upstream should be.
    UpstreamGone {
        /// Where that is.
        address: &'a dyn fmt::Display,
        /// How it shows.
        why: &'a dyn fmt::Display,
    },
}

/// One packet and what became of it.
pub struct PacketSeen<'a> {
    /// Whose session; `None` before the client has said who it is.
    pub client: Option<&'a Client>,
    /// Where the connection came from.
    pub peer: SocketAddr,
    /// Who sent it.
    pub from: Side,
    /// The decoded packet; shows neither credentials nor payloads.
    pub packet: &'a dyn fmt::Display,
    /// Its bytes, as they came or as transforms made them; `None` where there may be credentials in them.
    pub frame: Option<&'a [u8]>,
    /// What became of it.
    pub fate: Fate<'a>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub enum Fate<'a> {
    /// It was not passed on, for this reason, and the sender was told in the protocol's words.
    Denied(&'a Reason),
    /// It waits for a decision.
    Held,
    /// It was passed on; with what allowed it, where that was asked.
    Passed(Option<&'a str>),
    /// The session took it and answered it itself.
    Taken,
}

/// Something that happened to a session.
#[derive(Clone, Copy)]
pub enum SessionEvent<'a> {
    /// The upstream took the client; its session is open.
    Opened(&'a Client),
    /// The upstream took a subscription.
    Subscribed {
        /// Whose session.
        client: &'a Client,
        /// The filter, with its group if it is shared.
        filter: &'a str,
        /// The highest QoS that was asked for.
        qos: u8,
    },
    /// The upstream ended a subscription.
    Unsubscribed {
        /// Whose session.
        client: &'a Client,
        /// The filter, with its group if it is shared.
        filter: &'a str,
    },
    /// An action was denied.
    Denied {
        /// Who wanted it; `None` before the client was identified.
        client: Option<&'a Client>,
        /// Where the connection came from.
        peer: SocketAddr,
        /// What it wanted.
        action: Action,
        /// To what.
        resource: &'a str,
        /// Why not.
        reason: &'a Reason,
    },
    /// A transform dropped something; the sender was told that all is well.
    Dropped {
        /// Whose session.
        client: &'a Client,
        /// What was to be done.
        action: Action,
        /// To what.
        resource: &'a str,
        /// Who dropped it, and why.
        reason: &'a Reason,
    },
    /// The session ended.
    Closed {
        /// Whose; `None` where no client was identified.
        client: Option<&'a Client>,
        /// Where the connection came from.
        peer: SocketAddr,
        /// Why.
        why: &'a dyn fmt::Display,
        /// Whose fault it is, which makes the log level.
        blame: Blame,
        /// Whether it is no news: a denial told of it just before, or the client left before it said who it is.
        is_told: bool,
    },
    /// A request that may pass had no answer of the upstream.
    Failed {
        /// Who made it.
        client: &'a Client,
        /// What it wanted to do.
        action: Action,
        /// To what.
        resource: &'a str,
        /// What kept the upstream from answering.
        why: &'a dyn fmt::Display,
    },
    /// An action passed that a policy which is not enforced would deny. What the session remembers is not
    /// asked again, and so not told again.
    WouldBeDenied {
        /// Who did it.
        client: &'a Client,
        /// What it did.
        action: Action,
        /// To what.
        resource: &'a str,
        /// Who would deny it, and why.
        objection: &'a Objection,
    },
}

/// Whose fault the end of a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client did something wrong or strange.
    Client,
    /// Nobody: it ended as sessions end.
    Nobody,
    /// The upstream did not do its part.
    Upstream,
    /// mgate itself.
    Us,
}
