use std::fmt;

use super::DecodeError;
use super::cursor::Cursor;
use crate::mqtt::packet::PacketType;

/// The properties of one packet or will, checked and as they came; none before MQTT 5.0.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    bytes: &'a [u8],
}

/// What a property is, by the number that stands in the packet. MQTT 5.0 §2.2.2.2
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the specification")]
pub enum PropertyId {
    PayloadFormatIndicator = 1,
    MessageExpiryInterval = 2,
    ContentType = 3,
    ResponseTopic = 8,
    CorrelationData = 9,
    SubscriptionIdentifier = 11,
    SessionExpiryInterval = 17,
    AssignedClientIdentifier = 18,
    ServerKeepAlive = 19,
    AuthenticationMethod = 21,
    AuthenticationData = 22,
    RequestProblemInformation = 23,
    WillDelayInterval = 24,
    RequestResponseInformation = 25,
    ResponseInformation = 26,
    ServerReference = 28,
    ReasonString = 31,
    ReceiveMaximum = 33,
    TopicAliasMaximum = 34,
    TopicAlias = 35,
    MaximumQos = 36,
    RetainAvailable = 37,
    UserProperty = 38,
    MaximumPacketSize = 39,
    WildcardSubscriptionAvailable = 40,
    SubscriptionIdentifierAvailable = 41,
    SharedSubscriptionAvailable = 42,
}

/// The value of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyValue<'a> {
    /// Binary data.
    Binary(&'a [u8]),
    /// A byte, two byte, four byte or variable byte integer.
    Number(u32),
    /// A pair of texts: name and value.
    Pair(&'a str, &'a str),
    /// A text.
    Text(&'a str),
}

impl<'a> Properties<'a> {
    /// The properties one by one, in the order in which they stand.
    pub fn iter(self) -> impl Iterator<Item = (PropertyId, PropertyValue<'a>)> + use<'a> {
        let mut cursor = Cursor::new(self.bytes);
        std::iter::from_fn(move || {
            let rule = rule(cursor.byte().ok()?).ok()?;
            Some((rule.id, rule.kind.read(&mut cursor).ok()?))
        })
    }

    /// The bytes of the same properties without those that go, and with one more, which is a text.
    pub(super) fn with_text(
        self,
        goes: impl Fn(PropertyId, PropertyValue<'a>) -> bool,
        more: Option<(PropertyId, &str)>,
    ) -> Vec<u8> {
        let more_bytes = more.map_or(0, |(_, text)| 3 + text.len());
        let mut written = Vec::with_capacity(self.bytes.len() + more_bytes);
        let mut cursor = Cursor::new(self.bytes);
        while let Some((id, value, bytes)) = next_with_bytes(&mut cursor) {
            if !goes(id, value) {
                written.extend_from_slice(bytes);
            }
        }
        if let Some((id, text)) = more {
            written.push(id as u8);
            written.extend_from_slice(&(text.len() as u16).to_be_bytes());
            written.extend_from_slice(text.as_bytes());
        }
        written
    }

    /// The bytes behind the property length.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads and checks the properties of a packet at `place`, and hands each of them to `each`.
    #[inline]
    pub(super) fn read(
        cursor: &mut Cursor<'a>,
        place: Place,
        mut each: impl FnMut(PropertyId, PropertyValue<'a>),
    ) -> Result<Self, DecodeError> {
        let length = cursor.variable()?;
        let bytes = cursor.take(length as usize)?;
        let mut cursor = Cursor::new(bytes);
        let mut seen = 0;
        while !cursor.is_empty() {
            let rule = rule(cursor.byte()?)?;
            seen = rule.admit(place, seen)?;
            let value = rule.kind.read(&mut cursor)?;
            check_value(rule, value)?;
            each(rule.id, value);
        }
        // MQTT 5.0 §3.1.2.11.10
        if seen & bit(PropertyId::AuthenticationData) != 0
            && seen & bit(PropertyId::AuthenticationMethod) == 0
        {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        Ok(Self { bytes })
    }
}

impl<'a> PropertyValue<'a> {
    /// The number, if it is one.
    #[inline]
    pub fn number(self) -> Option<u32> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// The number, if it is one of at most two bytes.
    #[inline]
    pub fn two_bytes(self) -> Option<u16> {
        self.number()?.try_into().ok()
    }

    /// The number, if it is one of a single byte.
    #[inline]
    pub fn byte(self) -> Option<u8> {
        self.number()?.try_into().ok()
    }

    /// The text, if it is one.
    #[inline]
    pub fn text(self) -> Option<&'a str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }
}

/// Names each property with its value, of binary data only the length, of user properties only the count.
impl fmt::Display for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut gap, mut pairs) = ("", 0);
        for (id, value) in self.iter() {
            match value {
                PropertyValue::Binary(bytes) => write!(f, "{gap}{id}={}B", bytes.len())?,
                PropertyValue::Number(number) => write!(f, "{gap}{id}={number}")?,
                PropertyValue::Pair(..) => {
                    pairs += 1;
                    continue;
                }
                PropertyValue::Text(text) => write!(f, "{gap}{id}={text:?}")?,
            }
            gap = " ";
        }
        if pairs > 0 { write!(f, "{gap}user_properties={pairs}") } else { Ok(()) }
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Properties({self})")
    }
}

impl fmt::Display for PropertyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(rule(*self as u8).map_or("", |rule| rule.name))
    }
}

/// Where properties stand: a packet type, or the will inside CONNECT.
#[derive(Clone, Copy)]
pub(super) struct Place(u16);

impl Place {
    pub(super) const WILL: Self = Self(1);

    #[inline]
    pub(super) const fn of(packet_type: PacketType) -> Self {
        Self(1 << packet_type as u8)
    }

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Binary,
    Byte,
    FourBytes,
    Pair,
    Text,
    Topic,
    TwoBytes,
    Variable,
}

impl Kind {
    #[inline]
    fn read<'a>(self, cursor: &mut Cursor<'a>) -> Result<PropertyValue<'a>, DecodeError> {
        Ok(match self {
            Self::Binary => PropertyValue::Binary(cursor.binary()?),
            Self::Byte => PropertyValue::Number(cursor.byte()?.into()),
            Self::FourBytes => PropertyValue::Number(cursor.four_bytes()?),
            Self::Pair => PropertyValue::Pair(cursor.text()?, cursor.text()?),
            Self::Text => PropertyValue::Text(cursor.text()?),
            Self::Topic => PropertyValue::Text(cursor.topic()?),
            Self::TwoBytes => PropertyValue::Number(cursor.two_bytes()?.into()),
            Self::Variable => PropertyValue::Number(cursor.variable()?),
        })
    }
}

#[derive(Clone, Copy)]
struct Rule {
    id: PropertyId,
    name: &'static str,
    kind: Kind,
    places: Place,
}

impl Rule {
    /// Notes in `seen` that the property stands at `place`, if it may.
    #[inline]
    fn admit(&self, place: Place, seen: u64) -> Result<u64, DecodeError> {
        if self.places.0 & place.0 == 0 {
            return Err(DecodeError::UnexpectedProperty(self.id));
        }
        if seen & bit(self.id) != 0 && !self.may_repeat(place) {
            return Err(DecodeError::DuplicateProperty(self.id));
        }
        Ok(seen | bit(self.id))
    }

    /// A message carries the identifiers of all subscriptions that it matched: MQTT 5.0 §3.3.2.3.8
    #[inline]
    fn may_repeat(&self, place: Place) -> bool {
        match self.id {
            PropertyId::UserProperty => true,
            PropertyId::SubscriptionIdentifier => place.0 == PUBLISH.0,
            _ => false,
        }
    }
}

/// The next property and its bytes, the number before its value included.
fn next_with_bytes<'a>(cursor: &mut Cursor<'a>) -> Option<(PropertyId, PropertyValue<'a>, &'a [u8])> {
    let before = cursor.rest();
    let rule = rule(cursor.byte().ok()?).ok()?;
    let value = rule.kind.read(cursor).ok()?;
    Some((rule.id, value, &before[..before.len() - cursor.rest().len()]))
}

#[inline]
fn rule(id: u8) -> Result<&'static Rule, DecodeError> {
    RULE_OF_ID.get(usize::from(id)).and_then(Option::as_ref).ok_or(DecodeError::UnknownProperty(id))
}

#[inline]
fn check_value(rule: &Rule, value: PropertyValue<'_>) -> Result<(), DecodeError> {
    let is_allowed = match (rule.id, value) {
        (
            PropertyId::MaximumPacketSize
            | PropertyId::ReceiveMaximum
            | PropertyId::SubscriptionIdentifier
            // [MQTT-3.3.2-8]
            | PropertyId::TopicAlias,
            PropertyValue::Number(number),
        ) => number != 0,
        (_, PropertyValue::Number(number)) if matches!(rule.kind, Kind::Byte) => number <= 1,
        // [MQTT-4.7.3-1]
        (PropertyId::ResponseTopic, PropertyValue::Text(topic)) => !topic.is_empty(),
        _ => true,
    };
    if is_allowed { Ok(()) } else { Err(DecodeError::PropertyValue(rule.id)) }
}

#[inline]
const fn bit(id: PropertyId) -> u64 {
    1 << id as u8
}

const AUTH: Place = Place::of(PacketType::Auth);
const CONNACK: Place = Place::of(PacketType::ConnAck);
const CONNECT: Place = Place::of(PacketType::Connect);
const DISCONNECT: Place = Place::of(PacketType::Disconnect);
const PUBLISH: Place = Place::of(PacketType::Publish);
const SUBSCRIBE: Place = Place::of(PacketType::Subscribe);
const MESSAGE: Place = PUBLISH.or(Place::WILL);
const CONNECTING: Place = CONNECT.or(CONNACK);
const AUTHENTICATING: Place = CONNECTING.or(AUTH);
const ANSWER: Place = CONNACK
    .or(Place::of(PacketType::PubAck))
    .or(Place::of(PacketType::PubRec))
    .or(Place::of(PacketType::PubRel))
    .or(Place::of(PacketType::PubComp))
    .or(Place::of(PacketType::SubAck))
    .or(Place::of(PacketType::UnsubAck))
    .or(DISCONNECT)
    .or(AUTH);
const ANYWHERE: Place = ANSWER.or(MESSAGE).or(CONNECT).or(SUBSCRIBE).or(Place::of(PacketType::Unsubscribe));

const fn row(id: PropertyId, name: &'static str, kind: Kind, places: Place) -> Rule {
    Rule { id, name, kind, places }
}

/// MQTT 5.0 table 2-4.
const RULES: [Rule; 27] = [
    row(PropertyId::PayloadFormatIndicator, "payload_format", Kind::Byte, MESSAGE),
    row(PropertyId::MessageExpiryInterval, "message_expiry", Kind::FourBytes, MESSAGE),
    row(PropertyId::ContentType, "content_type", Kind::Text, MESSAGE),
    // [MQTT-3.3.2-14]
    row(PropertyId::ResponseTopic, "response_topic", Kind::Topic, MESSAGE),
    row(PropertyId::CorrelationData, "correlation_data", Kind::Binary, MESSAGE),
    row(PropertyId::SubscriptionIdentifier, "subscription_id", Kind::Variable, PUBLISH.or(SUBSCRIBE)),
    row(PropertyId::SessionExpiryInterval, "session_expiry", Kind::FourBytes, CONNECTING.or(DISCONNECT)),
    row(PropertyId::AssignedClientIdentifier, "assigned_client_id", Kind::Text, CONNACK),
    row(PropertyId::ServerKeepAlive, "server_keep_alive", Kind::TwoBytes, CONNACK),
    row(PropertyId::AuthenticationMethod, "authentication_method", Kind::Text, AUTHENTICATING),
    row(PropertyId::AuthenticationData, "authentication_data", Kind::Binary, AUTHENTICATING),
    row(PropertyId::RequestProblemInformation, "request_problem_information", Kind::Byte, CONNECT),
    row(PropertyId::WillDelayInterval, "will_delay", Kind::FourBytes, Place::WILL),
    row(PropertyId::RequestResponseInformation, "request_response_information", Kind::Byte, CONNECT),
    row(PropertyId::ResponseInformation, "response_information", Kind::Text, CONNACK),
    row(PropertyId::ServerReference, "server_reference", Kind::Text, CONNACK.or(DISCONNECT)),
    row(PropertyId::ReasonString, "reason_string", Kind::Text, ANSWER),
    row(PropertyId::ReceiveMaximum, "receive_maximum", Kind::TwoBytes, CONNECTING),
    row(PropertyId::TopicAliasMaximum, "topic_alias_maximum", Kind::TwoBytes, CONNECTING),
    row(PropertyId::TopicAlias, "topic_alias", Kind::TwoBytes, PUBLISH),
    row(PropertyId::MaximumQos, "maximum_qos", Kind::Byte, CONNACK),
    row(PropertyId::RetainAvailable, "retain_available", Kind::Byte, CONNACK),
    row(PropertyId::UserProperty, "user_property", Kind::Pair, ANYWHERE),
    row(PropertyId::MaximumPacketSize, "maximum_packet_size", Kind::FourBytes, CONNECTING),
    row(PropertyId::WildcardSubscriptionAvailable, "wildcard_subscription_available", Kind::Byte, CONNACK),
    row(PropertyId::SubscriptionIdentifierAvailable, "subscription_id_available", Kind::Byte, CONNACK),
    row(PropertyId::SharedSubscriptionAvailable, "shared_subscription_available", Kind::Byte, CONNACK),
];

static RULE_OF_ID: [Option<Rule>; 43] = {
    let mut table = [None; 43];
    let mut at = 0;
    while at < RULES.len() {
        table[RULES[at].id as usize] = Some(RULES[at]);
        at += 1;
    }
    table
};
