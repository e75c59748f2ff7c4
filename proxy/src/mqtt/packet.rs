//! MQTT control packets as views into the bytes that came.

mod display;

use mgate_policies::TopicName;

pub use super::codec::{
    Filters, Properties, PropertyId, PropertyValue, SubscribeFilter, SubscriptionOptions, UnsubscribeFilters,
};

/// A protocol version that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1, protocol level 3.
    V31,
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// What a packet is, by the number in its first byte. MQTT 5.0 table 2-1
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum PacketType {
    Connect = 1,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

/// One packet.
///
/// Shown, it says what is in it except payloads, user names, passwords and authentication data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum Packet<'a> {
    Auth(Auth<'a>),
    ConnAck(ConnAck<'a>),
    Connect(Connect<'a>),
    Disconnect(Disconnect<'a>),
    PingReq,
    PingResp,
    PubAck(Ack<'a>),
    PubComp(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    Publish(Publish<'a>),
    SubAck(SubAck<'a>),
    Subscribe(Subscribe<'a>),
    UnsubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
}

/// A client asks for a session. MQTT 5.0 §3.1
#[derive(Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The protocol version that the client speaks.
    pub version: Version,
    /// The client identifier; empty if the server is to assign one.
    pub client_id: &'a str,
    /// Whether an earlier session is to be forgotten.
    pub clean_start: bool,
    /// The longest silence of the client; 0 for no limit.
    pub keep_alive_secs: u16,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password or token.
    pub password: Option<&'a [u8]>,
    /// The message to publish when the connection breaks.
    pub will: Option<Will<'a>>,
    /// How long the session outlives the connection.
    pub session_expiry_secs: Option<u32>,
    /// How many unacknowledged messages the client takes at once.
    pub receive_maximum: Option<u16>,
    /// The longest packet that the client takes.
    pub maximum_packet_size: Option<u32>,
    /// The highest topic alias that the client takes.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client wants reason strings and user properties; true if it does not say.
    pub request_problem_information: bool,
    /// The name of the enhanced authentication method.
    pub authentication_method: Option<&'a str>,
    /// All properties.
    pub properties: Properties<'a>,
}

/// A message that is published when the connection breaks. MQTT 5.0 §3.1.2.5
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// The topic to publish to.
    pub topic: TopicName<'a>,
    /// The message itself.
    pub payload: &'a [u8],
    /// The quality of service: 0, 1 or 2.
    pub qos: u8,
    /// Whether the message is to be retained.
    pub retain: bool,
    /// All properties of the will.
    pub properties: Properties<'a>,
}

/// The server's answer to CONNECT. MQTT 5.0 §3.2
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server knew the session.
    pub session_present: bool,
    /// The reason code, before MQTT 5.0 the return code; 0 is success.
    pub code: u8,
    /// How many unacknowledged messages the server takes at once.
    pub receive_maximum: Option<u16>,
    /// The highest QoS that the server supports; 2 if it does not say.
    pub maximum_qos: Option<u8>,
    /// The longest packet that the server takes.
    pub maximum_packet_size: Option<u32>,
    /// The highest topic alias that the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// The client identifier that the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// The keep alive that the server uses instead of the client's.
    pub server_keep_alive_secs: Option<u16>,
    /// The name of the enhanced authentication method.
    pub authentication_method: Option<&'a str>,
    /// All properties.
    pub properties: Properties<'a>,
}

/// A message. MQTT 5.0 §3.3
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The topic name; empty if only a topic alias stands for it.
    pub topic: &'a str,
    /// The message itself.
    pub payload: &'a [u8],
    /// Where the receiver is asked to answer.
    pub response_topic: Option<&'a str>,
    /// All properties.
    pub properties: Properties<'a>,
    /// The topic alias, never 0.
    pub topic_alias: Option<u16>,
    /// The packet identifier; 0 at QoS 0, and only there.
    pub packet_id: u16,
    /// The quality of service: 0, 1 or 2.
    pub qos: u8,
    /// Whether the message is to be retained, or was.
    pub retain: bool,
    /// Whether it may have been sent before.
    pub dup: bool,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. MQTT 5.0 §3.4 to §3.7
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The packet identifier of the message.
    pub packet_id: u16,
    /// The reason code; 0 before MQTT 5.0.
    pub reason: u8,
    /// All properties.
    pub properties: Properties<'a>,
}

/// A client asks for messages. MQTT 5.0 §3.8
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The packet identifier.
    pub packet_id: u16,
    /// The number that matching messages are to carry, never 0.
    pub subscription_id: Option<u32>,
    /// All properties.
    pub properties: Properties<'a>,
    /// What is subscribed to.
    pub filters: Filters<'a>,
}

/// SUBACK, or UNSUBACK, whose codes are empty before MQTT 5.0. MQTT 5.0 §3.9, §3.11
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The packet identifier of the request.
    pub packet_id: u16,
    /// One reason code, before MQTT 5.0 return code, for each filter.
    pub codes: &'a [u8],
    /// All properties.
    pub properties: Properties<'a>,
}

/// A client no longer wants messages. MQTT 5.0 §3.10
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The packet identifier.
    pub packet_id: u16,
    /// All properties.
    pub properties: Properties<'a>,
    /// What is unsubscribed from, as it stands in the packet.
    pub filters: UnsubscribeFilters<'a>,
}

/// The end of a connection. MQTT 5.0 §3.14
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// The reason code; 0 before MQTT 5.0.
    pub reason: u8,
    /// How long the session outlives the connection, if that changes.
    pub session_expiry_secs: Option<u32>,
    /// All properties.
    pub properties: Properties<'a>,
}

/// One step of enhanced authentication. MQTT 5.0 §3.15
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// The reason code.
    pub reason: u8,
    /// The name of the method; `None` only with reason 0.
    pub authentication_method: Option<&'a str>,
    /// All properties.
    pub properties: Properties<'a>,
}

impl Version {
    /// Whether packets have properties and reason codes.
    #[inline]
    pub fn is_5(self) -> bool {
        self == Self::V5
    }
}

impl Packet<'_> {
    /// What packet it is.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Auth(_) => PacketType::Auth,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Connect(_) => PacketType::Connect,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubComp(_) => PacketType::PubComp,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::Publish(_) => PacketType::Publish,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
        }
    }
}

impl<'a> Will<'a> {
    /// Where the receiver is asked to answer.
    pub fn response_topic(&self) -> Option<&'a str> {
        let found = self.properties.iter().find(|(id, _)| *id == PropertyId::ResponseTopic);
        found.and_then(|(_, value)| value.text())
    }
}

impl Connect<'_> {
    /// Whether it has no client identifier and needs one. [MQTT-3.1.3-8]; MQTT 3.1 knows no empty one at all
    pub(super) fn lacks_client_id(&self) -> bool {
        let may_be_empty = self.clean_start && self.version != Version::V31;
        self.client_id.is_empty() && !self.version.is_5() && !may_be_empty
    }

    /// A CONNECT that says no more than it must.
    pub(super) fn new(version: Version, clean_start: bool, keep_alive_secs: u16) -> Self {
        Self {
            version,
            client_id: "",
            clean_start,
            keep_alive_secs,
            username: None,
            password: None,
            will: None,
            session_expiry_secs: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: None,
            request_problem_information: true,
            authentication_method: None,
            properties: Properties::default(),
        }
    }
}
