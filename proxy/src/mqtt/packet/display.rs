//! How packets look in a log: all that decides, no payload and no secret.

use std::fmt::{self, Display, Formatter};

use super::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketType, Properties, Publish, SubAck, Subscribe,
    SubscriptionOptions, Unsubscribe, Version, Will,
};

impl Display for Version {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}

impl Display for PacketType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        })
    }
}

impl Display for Packet<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.packet_type().fmt(f)?;
        match self {
            Self::Auth(auth) => auth.show(f),
            Self::ConnAck(connack) => connack.show(f),
            Self::Connect(connect) => connect.show(f),
            Self::Disconnect(disconnect) => disconnect.show(f),
            Self::PingReq | Self::PingResp => Ok(()),
            Self::PubAck(ack) | Self::PubComp(ack) | Self::PubRec(ack) | Self::PubRel(ack) => ack.show(f),
            Self::Publish(publish) => publish.show(f),
            Self::SubAck(suback) | Self::UnsubAck(suback) => suback.show(f),
            Self::Subscribe(subscribe) => subscribe.show(f),
            Self::Unsubscribe(unsubscribe) => unsubscribe.show(f),
        }
    }
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Connect")?;
        self.show(f)
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Will")?;
        self.show(f)
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Publish")?;
        self.show(f)
    }
}

impl Connect<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " version={} client_id={:?}", self.version, self.client_id)?;
        write!(f, " clean_start={} keep_alive={}", self.clean_start, self.keep_alive_secs)?;
        show_flag(f, "username", self.username.is_some())?;
        show_flag(f, "password", self.password.is_some())?;
        show_properties(f, self.properties)?;
        self.will.as_ref().map_or(Ok(()), |will| will.show(f))
    }
}

impl Will<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " will_topic={:?} will_qos={}", self.topic.as_str(), self.qos)?;
        show_flag(f, "will_retain", self.retain)?;
        write!(f, " will_payload={}B", self.payload.len())?;
        show_properties(f, self.properties)
    }
}

impl ConnAck<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " code={:#04x}", self.code)?;
        show_flag(f, "session_present", self.session_present)?;
        show_properties(f, self.properties)
    }
}

impl Publish<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " topic={:?} qos={}", self.topic, self.qos)?;
        show_flag(f, "retain", self.retain)?;
        show_flag(f, "dup", self.dup)?;
        if self.qos > 0 {
            write!(f, " packet_id={}", self.packet_id)?;
        }
        write!(f, " payload={}B", self.payload.len())?;
        show_properties(f, self.properties)
    }
}

impl Ack<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " packet_id={} reason={:#04x}", self.packet_id, self.reason)?;
        show_properties(f, self.properties)
    }
}

impl Subscribe<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " packet_id={}", self.packet_id)?;
        for entry in self.filters.clone() {
            write!(f, " filter={:?}", entry.text)?;
            show_options(f, entry.options)?;
        }
        show_properties(f, self.properties)
    }
}

impl Unsubscribe<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " packet_id={}", self.packet_id)?;
        for filter in self.filters.clone() {
            write!(f, " filter={filter:?}")?;
        }
        show_properties(f, self.properties)
    }
}

impl SubAck<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " packet_id={}", self.packet_id)?;
        for code in self.codes {
            write!(f, " code={code:#04x}")?;
        }
        show_properties(f, self.properties)
    }
}

impl Disconnect<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " reason={:#04x}", self.reason)?;
        show_properties(f, self.properties)
    }
}

impl Auth<'_> {
    fn show(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " reason={:#04x}", self.reason)?;
        show_properties(f, self.properties)
    }
}

fn show_options(f: &mut Formatter<'_>, options: SubscriptionOptions) -> fmt::Result {
    write!(f, " qos={}", options.qos())?;
    show_flag(f, "no_local", options.no_local())?;
    show_flag(f, "retain_as_published", options.retain_as_published())?;
    match options.retain_handling() {
        0 => Ok(()),
        handling => write!(f, " retain_handling={handling}"),
    }
}

fn show_flag(f: &mut Formatter<'_>, name: &str, is_set: bool) -> fmt::Result {
    if is_set { write!(f, " {name}") } else { Ok(()) }
}

fn show_properties(f: &mut Formatter<'_>, properties: Properties<'_>) -> fmt::Result {
    if properties.is_empty() { Ok(()) } else { write!(f, " {properties}") }
}
