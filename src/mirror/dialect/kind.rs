//! The dialects that there are.

use super::channels::Grammar;
use super::envelope::Version;

/// A way to write copies, by the platform that reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The device data of dojot, in JSON.
    Dojot,
    /// CloudEvents 1.0, in JSON.
    Json,
    /// Magistrala 0.14.
    Magistrala0_14,
    /// Magistrala 0.15.
    Magistrala0_15,
    /// Magistrala 0.20 to 0.40.
    Magistrala0_20,
    /// Magistrala 0.50 and 0.51.
    Magistrala0_50,
    /// Mainflux 0.11 to 0.13.
    Mainflux0_13,
    /// Mainflux 0.8 to 0.10.
    MainfluxLegacy,
    /// Payloads as they came.
    Plain,
    /// SuperMQ 0.16.
    Supermq0_16,
    /// SuperMQ 0.17 to 0.19.
    Supermq0_17,
}

/// How copies of a message look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Channels(Grammar, Version),
    CloudEvents,
    Dojot,
    Plain,
}

/// How a platform names what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// In our own words alone.
    Ours,
    /// In ours, as a CloudEvent.
    CloudEvents,
    /// With those of Magistrala 0.14 to SuperMQ 0.16 beside ours, in an envelope.
    Things(Version),
    /// With those of SuperMQ 0.17 and later beside ours, in an envelope.
    Clients(Version),
}

impl Kind {
    /// All, by the names that configurations have for them.
    pub const NAMES: &[(&str, Self)] = &[
        ("mainflux-0.13", Self::Mainflux0_13),
        ("mainflux-legacy", Self::MainfluxLegacy),
        ("magistrala-0.14", Self::Magistrala0_14),
        ("magistrala-0.15", Self::Magistrala0_15),
        ("magistrala-0.20", Self::Magistrala0_20),
        ("magistrala-0.50", Self::Magistrala0_50),
        ("supermq-0.16", Self::Supermq0_16),
        ("supermq-0.17", Self::Supermq0_17),
        ("plain", Self::Plain),
        ("json", Self::Json),
        ("dojot", Self::Dojot),
    ];

    /// The subject of messages where none is given; `None` where it follows from the topic.
    pub fn subject(self) -> Option<&'static str> {
        matches!(self, Self::Json | Self::Plain).then_some("mgate.messages.{tenant}.{topic}")
    }

    /// The subject of events where none is given.
    pub fn events_subject(self) -> &'static str {
        match self {
            Self::Dojot | Self::Json | Self::Plain => "mgate.events.{tenant}.{action}",
            Self::Magistrala0_14 | Self::Magistrala0_15 => "events.magistrala.mqtt",
            Self::Magistrala0_20 | Self::Magistrala0_50 => "events.magistrala.mqtt.{action}",
            Self::Mainflux0_13 | Self::MainfluxLegacy => "events.mainflux.mqtt",
            Self::Supermq0_16 => "events.supermq.mqtt",
            Self::Supermq0_17 => "events.supermq.mqtt.{action}",
        }
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::Dojot => Family::Dojot,
            Self::Json => Family::CloudEvents,
            Self::Magistrala0_14 | Self::Magistrala0_15 | Self::Mainflux0_13 | Self::Supermq0_16 => {
                Family::Channels(Grammar::Classic, Version::Classic)
            }
            Self::Magistrala0_20 => Family::Channels(Grammar::Slashed, Version::ClientId),
            Self::Magistrala0_50 => Family::Channels(Grammar::Slashed, Version::Metadata),
            Self::MainfluxLegacy => Family::Channels(Grammar::Suffixed, Version::ContentType),
            Self::Plain => Family::Plain,
            Self::Supermq0_17 => Family::Channels(Grammar::Dotted, Version::Domain),
        }
    }

    pub(super) fn vocabulary(self) -> Vocabulary {
        match self {
            Self::Dojot | Self::Mainflux0_13 | Self::MainfluxLegacy | Self::Plain => Vocabulary::Ours,
            Self::Json => Vocabulary::CloudEvents,
            Self::Magistrala0_14 | Self::Magistrala0_15 | Self::Supermq0_16 => {
                Vocabulary::Things(Version::Classic)
            }
            Self::Magistrala0_20 => Vocabulary::Clients(Version::ClientId),
            Self::Magistrala0_50 => Vocabulary::Clients(Version::Metadata),
            Self::Supermq0_17 => Vocabulary::Clients(Version::Domain),
        }
    }
}
