use std::error::Error;
use std::fmt;

use mgate_policies::FilterError;

use super::properties::PropertyId;
use crate::mqtt::packet::PacketType;

/// What is wrong with a packet. Whoever sent it must be disconnected. [MQTT-4.8.0-1] in 3.1.1, [MQTT-4.13.1-1]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Authentication data without an authentication method.
    AuthenticationDataWithoutMethod,
    /// AUTH without an authentication method.
    AuthenticationMethodMissing,
    /// CONNACK with a reserved acknowledge flag.
    ConnAckFlags,
    /// CONNECT with its reserved flag set.
    ConnectFlags,
    /// A property that may stand once stands twice.
    DuplicateProperty(PropertyId),
    /// DUP is set at QoS 0.
    DupWithoutQos,
    /// A topic filter has no characters.
    EmptyTopicFilter,
    /// A topic name has no characters, and no topic alias stands for it.
    EmptyTopicName,
    /// The flags of the fixed header are not those of the packet type.
    Flags,
    /// SUBSCRIBE or UNSUBSCRIBE without a topic filter.
    NoFilters,
    /// A shared subscription asks for no local messages.
    NoLocalOnShared,
    /// SUBACK or UNSUBACK without a reason code.
    NoReasonCodes,
    /// A variable byte integer takes more bytes than it needs.
    NotMinimal,
    /// A text is not UTF-8.
    NotUtf8,
    /// A text holds U+0000.
    NulInText,
    /// A packet identifier is 0.
    PacketIdZero,
    /// A 3.1.1 CONNECT has a password but no user name.
    PasswordWithoutUsername,
    /// The value of a property is not one that it may have.
    PropertyValue(PropertyId),
    /// CONNECT names another protocol than MQTT.
    ProtocolName,
    /// A QoS of 3.
    Qos,
    /// A reason or return code that the packet cannot have.
    ReasonCode(u8),
    /// A packet type that the protocol version does not have.
    ReservedPacketType(u8),
    /// CONNACK refuses and says that there is a session.
    SessionPresentWithError,
    /// A `$share` filter without a group, with a wildcard in the group, or without a filter.
    SharedSubscription,
    /// A SUBACK has more or fewer codes than its SUBSCRIBE had filters.
    SubscriptionCount,
    /// Subscription options that are reserved.
    SubscriptionOptions(u8),
    /// A text or packet that is longer than its length can say.
    TooLong,
    /// The packet goes on after its last field.
    TrailingBytes,
    /// The packet ends before its fields do.
    Truncated,
    /// Another packet than the one that must stand here.
    UnexpectedPacket(PacketType),
    /// A property that the packet cannot have.
    UnexpectedProperty(PropertyId),
    /// A property identifier that no property has.
    UnknownProperty(u8),
    /// CONNECT asks for a protocol level that is not spoken here.
    UnsupportedProtocolLevel(u8),
    /// A variable byte integer goes on after its fourth byte.
    VariableInteger,
    /// A wildcard in a topic filter does not stand alone in its level, or `#` is not the last level.
    WildcardInTopicFilter,
    /// A topic name holds a wildcard.
    WildcardInTopicName,
    /// Will QoS or will retain without a will.
    WillFlags,
}

impl DecodeError {
    /// The MQTT 5.0 reason code for a CONNACK or DISCONNECT that answers it.
    pub fn reason_code(self) -> u8 {
        match self {
            Self::PropertyValue(PropertyId::TopicAlias) => TOPIC_ALIAS_INVALID,
            Self::ProtocolName | Self::UnsupportedProtocolLevel(_) => UNSUPPORTED_PROTOCOL_VERSION,
            Self::AuthenticationDataWithoutMethod
            | Self::AuthenticationMethodMissing
            | Self::DuplicateProperty(_)
            | Self::DupWithoutQos
            | Self::EmptyTopicName
            | Self::NoFilters
            | Self::NoLocalOnShared
            | Self::NoReasonCodes
            | Self::PacketIdZero
            | Self::PropertyValue(_)
            | Self::ReasonCode(_)
            | Self::SessionPresentWithError
            | Self::SubscriptionCount
            | Self::UnexpectedPacket(_) => PROTOCOL_ERROR,
            _ => MALFORMED_PACKET,
        }
    }
}

impl Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DuplicateProperty(id) => write!(f, "property {id} stands twice"),
            Self::PropertyValue(id) => write!(f, "property {id} has a value that it may not have"),
            Self::ReasonCode(code) => write!(f, "reason code {code:#04x} is not one of this packet"),
            Self::ReservedPacketType(number) => write!(f, "packet type {number} is reserved"),
            Self::SubscriptionOptions(options) => {
                write!(f, "subscription options {options:#04x} are reserved")
            }
            Self::UnexpectedPacket(other) => write!(f, "unexpected {other}"),
            Self::UnexpectedProperty(id) => write!(f, "property {id} does not belong to this packet"),
            Self::UnknownProperty(id) => write!(f, "property identifier {id:#04x} is unknown"),
            Self::UnsupportedProtocolLevel(level) => write!(f, "protocol level {level} is not supported"),
            plain => f.write_str(plain.text()),
        }
    }
}

impl From<FilterError> for DecodeError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Empty => Self::EmptyTopicFilter,
            FilterError::Share => Self::SharedSubscription,
            FilterError::Wildcard => Self::WildcardInTopicFilter,
        }
    }
}

impl DecodeError {
    fn text(self) -> &'static str {
        match self {
            Self::AuthenticationDataWithoutMethod => "authentication data without an authentication method",
            Self::AuthenticationMethodMissing => "AUTH without an authentication method",
            Self::ConnAckFlags => "reserved acknowledge flag in CONNACK",
            Self::ConnectFlags => "reserved flag in CONNECT",
            Self::DupWithoutQos => "DUP at QoS 0",
            Self::EmptyTopicFilter => "empty topic filter",
            Self::EmptyTopicName => "empty topic name",
            Self::Flags => "reserved flags in the fixed header",
            Self::NoFilters => "no topic filter",
            Self::NoLocalOnShared => "no local on a shared subscription",
            Self::NoReasonCodes => "no reason code",
            Self::NotMinimal => "variable byte integer longer than it needs to be",
            Self::NotUtf8 => "text that is not UTF-8",
            Self::NulInText => "U+0000 in a text",
            Self::PacketIdZero => "packet identifier 0",
            Self::PasswordWithoutUsername => "password without a user name",
            Self::ProtocolName => "protocol name other than MQTT",
            Self::Qos => "QoS 3",
            Self::SessionPresentWithError => "session present in a refusing CONNACK",
            Self::SharedSubscription => "shared subscription without a proper group or filter",
            Self::SubscriptionCount => "number of codes in SUBACK other than that of the filters",
            Self::TooLong => "text or packet longer than MQTT can say",
            Self::TrailingBytes => "packet longer than its fields",
            Self::Truncated => "packet shorter than its fields",
            Self::VariableInteger => "variable byte integer of more than four bytes",
            Self::WildcardInTopicFilter => "misplaced wildcard in a topic filter",
            Self::WildcardInTopicName => "wildcard in a topic name",
            Self::WillFlags => "will QoS or will retain without a will",
            Self::DuplicateProperty(_)
            | Self::PropertyValue(_)
            | Self::ReasonCode(_)
            | Self::ReservedPacketType(_)
            | Self::SubscriptionOptions(_)
            | Self::UnexpectedPacket(_)
            | Self::UnexpectedProperty(_)
            | Self::UnknownProperty(_)
            | Self::UnsupportedProtocolLevel(_) => "",
        }
    }
}

const MALFORMED_PACKET: u8 = 0x81;
const PROTOCOL_ERROR: u8 = 0x82;
const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
const TOPIC_ALIAS_INVALID: u8 = 0x94;
