//! The end of a session: why, whose fault it is, and how the client is told.

use std::fmt;
use std::io::ErrorKind;

use mgate_policies::{Action, Cause, Reason};

use super::{Context, Output, Session, State};
use crate::gate::no_decision_in_time;
use crate::gate::{Blame, SessionEvent, Side};
use crate::mqtt::aliases::AliasError;
use crate::mqtt::client_ids::Claim;
use crate::mqtt::codec::{DecodeError, encode_connack, encode_disconnect};
use crate::mqtt::packet::{PacketType, Version};

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed the connection without DISCONNECT.
    ClientClosed,
    /// The client said DISCONNECT.
    ClientDisconnected,
    /// The client did not send CONNECT in time.
    ConnectTimeout,
    /// What the client wanted was denied, and the session cannot go on without it.
    Denied(Action, Reason),
    /// mgate stops.
    Draining,
    /// The client's credentials are no longer valid.
    Expired,
    /// A connection broke.
    Io(Side, ErrorKind),
    /// The client was silent for one and a half times its keep alive, or for the idle time-out.
    KeepAliveTimeout,
    /// A side sent something that is not MQTT.
    Malformed(Side, DecodeError),
    /// The mirror did not store a message, and its version has no word for that.
    NotStored(Reason),
    /// A side sent a packet of so many bytes.
    PacketTooLarge(Side, usize),
    /// A side sent something that it must not send.
    Protocol(Side, Violation),
    /// The upstream refused the client, with this code.
    Refused(u8),
    /// What the client was allowed before is denied now.
    Revoked(Action, Reason),
    /// A side did not take what waited for it.
    Stalled(Side),
    /// The upstream ended the session, for its client has a newer one.
    TakenOver,
    /// The session began behind another topic prefix than it would now.
    TermsChanged,
    /// The upstream closed the connection.
    UpstreamClosed,
    /// The upstream said DISCONNECT, with this code.
    UpstreamDisconnected(u8),
    /// The upstream did not answer CONNECT in time.
    UpstreamTimeout,
    /// The upstream could not be reached, and why.
    UpstreamUnreachable(Box<str>),
}

/// Something that the protocol forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A topic alias that stands for nothing.
    Alias(AliasError),
    /// An empty client identifier where the client wants its session kept. [MQTT-3.1.3-8]
    ClientIdRequired,
    /// A packet that goes the other way only, or not in this version.
    Direction(PacketType),
    /// Something else than CONNECT, or CONNACK, came first. [MQTT-3.1.0-1], [MQTT-3.2.0-1]
    FirstPacket(PacketType),
    /// More unacknowledged messages than the receiver takes. [MQTT-3.3.4-9]
    ReceiveMaximum,
    /// CONNECT came twice. [MQTT-3.1.0-2]
    SecondConnect,
    /// Too many SUBSCRIBEs wait for their SUBACK.
    SubscribesInFlight,
    /// A protocol version that the route does not allow.
    Version(Version),
}

/// An end on its way up; boxed, for it is rare and large.
pub(super) struct Close(Box<CloseReason>);

impl Session {
    pub(super) fn close_on_error(&mut self, done: Result<(), Close>, cx: &mut Context<'_>) {
        if let Err(close) = done {
            self.close(close, cx);
        }
    }

    /// Tells the client in its protocol's words, tells the observer, and ends.
    #[cold]
    pub(super) fn close(&mut self, Close(reason): Close, cx: &mut Context<'_>) {
        let text = self.reason_string(reason.text());
        let out = &mut cx.out.to_client;
        match (self.state, reason.connack_code(self.version), reason.disconnect_code()) {
            (State::Open, _, Some(code)) if self.version.is_5() => encode_disconnect(out, code, text),
            (State::Authorizing | State::Dialing | State::AwaitingConnAck, Some(code), _) => {
                encode_connack(out, self.version, code, text);
            }
            _ => {}
        }
        // a will that nobody allows any more is taken back, if the client did not do so. [MQTT-3.14.4-3]
        let is_left = *reason != CloseReason::ClientDisconnected && self.is_will_in_doubt();
        if is_left && matches!(self.state, State::AwaitingConnAck | State::Open) {
            encode_disconnect(&mut cx.out.to_upstream, 0, None);
        }
        self.tell_closed(&reason, cx);
        self.state = State::Closed;
        self.claim = None;
        self.outputs.push_back(Output::Close);
    }

    fn tell_closed(&self, reason: &CloseReason, cx: &Context<'_>) {
        let is_taken_over = || self.claim.as_ref().is_some_and(Claim::is_taken_over);
        let why =
            if reason.is_upstream_leaving() && is_taken_over() { &CloseReason::TakenOver } else { reason };
        let (client, peer) = (self.client.as_deref(), self.peer.address);
        let blame = match why {
            CloseReason::Expired if client.is_none() => Blame::Client,
            why => why.blame(),
        };
        let is_told = match why {
            // who waited in vain was not denied by anybody
            CloseReason::Denied(_, reason) => {
                self.state == State::Authorizing && *reason != no_decision_in_time()
            }
            // load balancers look like this whether somebody listens
            CloseReason::ClientClosed | CloseReason::Io(Side::Client, _) => client.is_none(),
            _ => false,
        };
        cx.tell(&SessionEvent::Closed { client, peer, why, blame, is_told });
    }

    /// What it means that the time of [`Session::poll_timeout`] has come.
    pub(super) fn timeout_reason(&self) -> CloseReason {
        match self.state {
            State::AwaitingConnect => CloseReason::ConnectTimeout,
            State::Authorizing => CloseReason::Denied(Action::Connect, no_decision_in_time()),
            State::Dialing | State::AwaitingConnAck => CloseReason::UpstreamTimeout,
            State::Open | State::Closed => CloseReason::KeepAliveTimeout,
        }
    }
}

impl CloseReason {
    pub(super) fn lost(side: Side, error: Option<ErrorKind>) -> Self {
        match (side, error) {
            (_, Some(error)) => Self::Io(side, error),
            (Side::Client, None) => Self::ClientClosed,
            (Side::Upstream, None) => Self::UpstreamClosed,
        }
    }

    pub(super) fn disconnected(side: Side, code: u8) -> Self {
        match side {
            Side::Client => Self::ClientDisconnected,
            Side::Upstream => Self::UpstreamDisconnected(code),
        }
    }

    /// Whether the upstream went away from a client that it had taken.
    fn is_upstream_leaving(&self) -> bool {
        matches!(self, Self::Io(Side::Upstream, _) | Self::UpstreamClosed | Self::UpstreamDisconnected(_))
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::ClientDisconnected
            | Self::Draining
            | Self::Expired
            | Self::Revoked(..)
            | Self::TakenOver
            | Self::TermsChanged => Blame::Nobody,
            Self::Io(side, _)
            | Self::Malformed(side, _)
            | Self::PacketTooLarge(side, _)
            | Self::Protocol(side, _)
            | Self::Stalled(side) => match side {
                Side::Client => Blame::Client,
                Side::Upstream => Blame::Upstream,
            },
            Self::Refused(_)
            | Self::UpstreamClosed
            | Self::UpstreamDisconnected(_)
            | Self::UpstreamTimeout
            | Self::UpstreamUnreachable(_) => Blame::Upstream,
            Self::NotStored(_) => Blame::Us,
            _ => Blame::Client,
        }
    }

    /// The code of the CONNACK that refuses a client; `None` where none may be sent. MQTT 3.1.1 table 3.1,
    /// MQTT 5.0 §3.2.2.2
    fn connack_code(&self, version: Version) -> Option<u8> {
        let (v5, before) = match self {
            Self::Denied(_, reason) | Self::Revoked(_, reason) => connack_codes(reason.cause),
            Self::Expired => connack_codes(Cause::BadCredentials),
            Self::Draining
            | Self::Io(Side::Upstream, _)
            | Self::Malformed(Side::Upstream, _)
            | Self::PacketTooLarge(Side::Upstream, _)
            | Self::Protocol(Side::Upstream, _)
            | Self::TermsChanged
            | Self::UpstreamClosed
            | Self::UpstreamTimeout
            | Self::UpstreamUnreachable(_) => (0x88, 0x03),
            Self::Malformed(Side::Client, DecodeError::UnsupportedProtocolLevel(_)) => (0x84, 0x01),
            Self::Malformed(Side::Client, error) => return version.is_5().then(|| error.reason_code()),
            Self::Protocol(Side::Client, Violation::ClientIdRequired) => (0x85, 0x02),
            Self::Protocol(Side::Client, Violation::Version(_)) => (0x84, 0x01),
            Self::Protocol(Side::Client, _) => return version.is_5().then_some(0x82),
            _ => return None,
        };
        Some(if version.is_5() { v5 } else { before })
    }

    /// The code of the DISCONNECT that a client of MQTT 5.0 is sent; `None` where none may be. MQTT 5.0
    /// §3.14.2.1
    fn disconnect_code(&self) -> Option<u8> {
        match self {
            Self::ClientClosed
            | Self::ClientDisconnected
            | Self::ConnectTimeout
            | Self::Io(Side::Client, _)
            | Self::Refused(_)
            | Self::Stalled(Side::Client)
            | Self::TakenOver
            | Self::UpstreamDisconnected(_) => None,
            Self::Denied(_, reason) | Self::NotStored(reason) | Self::Revoked(_, reason) => {
                Some(disconnect_code(reason.cause))
            }
            Self::Draining => Some(0x8b),
            Self::Expired => Some(0x87),
            Self::KeepAliveTimeout => Some(0x8d),
            Self::Malformed(Side::Client, error) => Some(error.reason_code()),
            Self::PacketTooLarge(Side::Client, _) => Some(0x95),
            Self::Protocol(Side::Client, violation) => Some(violation.disconnect_code()),
            Self::TermsChanged => Some(0x98),
            Self::Io(Side::Upstream, _)
            | Self::Malformed(Side::Upstream, _)
            | Self::PacketTooLarge(Side::Upstream, _)
            | Self::Protocol(Side::Upstream, _)
            | Self::Stalled(Side::Upstream)
            | Self::UpstreamClosed
            | Self::UpstreamTimeout
            | Self::UpstreamUnreachable(_) => Some(0x8b),
        }
    }

    /// What a device is told: the kind, never what operators configured.
    fn text(&self) -> &'static str {
        match self {
            Self::Denied(_, reason) | Self::Revoked(_, reason) => denial_text(reason.cause),
            Self::Draining => "the gateway stops",
            Self::Expired => "credentials expired",
            Self::KeepAliveTimeout => "keep alive timeout",
            Self::Malformed(Side::Client, _) => "malformed packet",
            Self::NotStored(_) => NOT_STORED,
            Self::PacketTooLarge(Side::Client, _) => "packet too large",
            Self::Protocol(Side::Client, _) => "protocol error",
            Self::TermsChanged => "the session's terms changed",
            _ => "the upstream is not available",
        }
    }
}

impl Violation {
    #[cold]
    pub(super) fn from(self, side: Side) -> Close {
        CloseReason::Protocol(side, self).into()
    }

    fn disconnect_code(self) -> u8 {
        match self {
            Self::Alias(AliasError::OutOfRange(_)) => 0x94,
            Self::Alias(AliasError::TooMuch) | Self::SubscribesInFlight => 0x97,
            Self::ReceiveMaximum => 0x93,
            _ => 0x82,
        }
    }
}

/// The reason code of a PUBACK or PUBREC that refuses a message. MQTT 5.0 §3.4.2.1
pub(super) fn publish_code(cause: Cause) -> u8 {
    match cause {
        Cause::PayloadInvalid => 0x99,
        Cause::QuotaExceeded | Cause::RateExceeded => 0x97,
        Cause::Unavailable => 0x83,
        _ => 0x87,
    }
}

/// The code that refuses one filter. MQTT 3.1.1 §3.9.3, MQTT 5.0 §3.9.3
pub(super) fn suback_code(version: Version, cause: Cause) -> u8 {
    match cause {
        _ if !version.is_5() => 0x80,
        // there is no payload, nor a code for it
        Cause::PayloadInvalid => 0x87,
        cause => publish_code(cause),
    }
}

/// What a device is told in words of filters that were refused.
pub(super) fn suback_text(codes: &[u8]) -> &'static str {
    match codes.iter().max() {
        Some(0x97) => denial_text(Cause::QuotaExceeded),
        Some(0x83) => denial_text(Cause::Unavailable),
        _ => denial_text(Cause::NotAuthorized),
    }
}

/// What a device is told in words.
pub(super) fn denial_text(cause: Cause) -> &'static str {
    match cause {
        Cause::BadCredentials => "bad user name or password",
        Cause::ClientIdNotValid => "client identifier not valid",
        Cause::PayloadInvalid => "payload invalid",
        Cause::QuotaExceeded => "quota exceeded",
        Cause::RateExceeded => "rate exceeded",
        Cause::Unavailable => "no decision to be had",
        _ => "not authorized",
    }
}

/// MQTT 5.0 reason code and MQTT 3.1.1 return code.
fn connack_codes(cause: Cause) -> (u8, u8) {
    match cause {
        Cause::BadCredentials => (0x86, 0x04),
        Cause::ClientIdNotValid => (0x85, 0x02),
        Cause::PayloadInvalid => (0x99, 0x05),
        Cause::QuotaExceeded => (0x97, 0x03),
        Cause::RateExceeded => (0x9f, 0x03),
        Cause::Unavailable => (0x88, 0x03),
        _ => (0x87, 0x05),
    }
}

fn disconnect_code(cause: Cause) -> u8 {
    match cause {
        Cause::PayloadInvalid => 0x99,
        Cause::QuotaExceeded => 0x97,
        Cause::RateExceeded => 0x96,
        Cause::Unavailable => 0x83,
        _ => 0x87,
    }
}

/// What a device is told whose message the mirror did not store.
pub(super) const NOT_STORED: &str = "message not stored";

impl<R: Into<CloseReason>> From<R> for Close {
    #[cold]
    fn from(reason: R) -> Self {
        Self(Box::new(reason.into()))
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientClosed => f.write_str("the client closed the connection without DISCONNECT"),
            Self::ClientDisconnected => f.write_str("the client disconnected"),
            Self::ConnectTimeout => f.write_str("no CONNECT in time"),
            Self::Denied(action, reason) => write!(f, "{action} denied: {reason}"),
            Self::Draining => f.write_str("mgate stops"),
            Self::Expired => f.write_str("the client's credentials are no longer valid"),
            Self::Io(side, error) => write!(f, "the connection to the {side} broke: {error}"),
            Self::KeepAliveTimeout => f.write_str("the client was silent for too long"),
            Self::Malformed(side, error) => write!(f, "malformed packet from the {side}: {error}"),
            Self::NotStored(reason) => write!(f, "a message was not mirrored: {reason}"),
            Self::PacketTooLarge(side, bytes) => {
                write!(f, "packet of {bytes} bytes from the {side} is over the limit")
            }
            Self::Protocol(side, violation) => write!(f, "protocol error of the {side}: {violation}"),
            Self::Refused(code) => write!(f, "the upstream refused the client with code {code:#04x}"),
            Self::Revoked(action, reason) => write!(f, "rights changed, {action} denied: {reason}"),
            Self::Stalled(side) => write!(f, "the {side} takes no bytes"),
            Self::TakenOver => f.write_str("taken over by the same client"),
            Self::TermsChanged => f.write_str("the session's terms changed: it has another topic prefix now"),
            Self::UpstreamClosed => f.write_str("the upstream closed the connection"),
            Self::UpstreamDisconnected(code) => write!(f, "the upstream disconnected with code {code:#04x}"),
            Self::UpstreamTimeout => f.write_str("the upstream did not answer CONNECT in time"),
            Self::UpstreamUnreachable(why) => write!(f, "the upstream cannot be reached: {why}"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias(error) => error.fmt(f),
            Self::ClientIdRequired => f.write_str("a session that is kept needs a client identifier"),
            Self::Direction(packet_type) => write!(f, "{packet_type} is not for it to send"),
            Self::FirstPacket(packet_type) => write!(f, "{packet_type} came first"),
            Self::ReceiveMaximum => f.write_str("more messages in flight than the receive maximum"),
            Self::SecondConnect => f.write_str("a second CONNECT"),
            Self::SubscribesInFlight => f.write_str("too many SUBSCRIBEs wait for SUBACK"),
            Self::Version(version) => write!(f, "MQTT {version} is not allowed on this route"),
        }
    }
}
