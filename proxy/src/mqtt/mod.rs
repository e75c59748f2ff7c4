//! MQTT 3.1, 3.1.1 and 5.0: views of packets, the session that judges them and the relay that moves them.

mod aliases;
mod client_ids;
pub mod codec;
mod flow;
pub mod packet;
pub mod relay;
pub mod session;

use crate::gate::Gate;
use client_ids::ClientIds;
use packet::Version;

/// What all MQTT sessions of one route share.
pub struct Endpoint {
    /// What the sessions ask, tell and are limited by.
    pub gate: Gate,
    /// How they speak MQTT.
    pub options: Options,
    client_ids: ClientIds,
}

/// How a route speaks MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The versions that clients may speak.
    pub versions: Versions,
    /// What a client before MQTT 5.0 hears when its PUBLISH is denied.
    pub on_denied_publish: OnDeniedPublish,
}

/// A set of protocol versions; 3.1.1 and 5.0 unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    v31: bool,
    v311: bool,
    v5: bool,
}

/// What a client hears when its PUBLISH is denied, in versions that have no word for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDeniedPublish {
    /// The message is dropped and acknowledged as if it had been taken.
    #[default]
    Ack,
    /// The connection is closed.
    Disconnect,
}

impl Endpoint {
    /// An endpoint without sessions.
    pub fn new(gate: Gate, options: Options) -> Self {
        Self { gate, options, client_ids: ClientIds::default() }
    }

    /// Another endpoint for the same sessions: who holds a client identifier goes on to hold it.
    pub fn renewed(&self, gate: Gate, options: Options) -> Self {
        Self { gate, options, client_ids: self.client_ids.clone() }
    }
}

impl Versions {
    /// The set of exactly these versions.
    pub fn only(versions: &[Version]) -> Self {
        let has = |version| versions.contains(&version);
        Self { v31: has(Version::V31), v311: has(Version::V311), v5: has(Version::V5) }
    }

    /// Whether clients may speak this version.
    pub fn allow(self, version: Version) -> bool {
        match version {
            Version::V31 => self.v31,
            Version::V311 => self.v311,
            Version::V5 => self.v5,
        }
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self::only(&[Version::V311, Version::V5])
    }
}
