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

#[cfg(test)]
mod tests {
    use crate::mqtt::codec::decode;

    use super::*;

    #[test]
    fn connect_shows_that_there_are_credentials_but_not_which() {
        let packet = decode(CONNECT, Version::V5).unwrap();
        let expected = "CONNECT version=5.0 client_id=\"dev\" clean_start=true keep_alive=60 username password \
                        authentication_method=\"M\" authentication_data=5B user_properties=1 \
                        will_topic=\"w\" will_qos=1 will_payload=7B will_delay=5";
        assert_eq!(packet.to_string(), expected);
    }

    #[test]
    fn debug_shows_no_secret_either() {
        let shown = format!("{:?}", decode(CONNECT, Version::V5));
        for secret in ["alice", "s3cret", "proof", "goodbye", "key"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let shown = format!("{:?}", decode(PUBLISH, Version::V311));
        assert!(shown.contains("payload=6B") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn publish_shows_its_flags_and_the_length_of_its_payload() {
        let packet = decode(PUBLISH, Version::V311).unwrap();
        let expected = "PUBLISH topic=\"a\\nb\" qos=1 retain dup packet_id=7 payload=6B";
        assert_eq!(packet.to_string(), expected);
    }

    #[test]
    fn subscribe_shows_what_is_asked_for() {
        let packet = decode(b"\x82\x0f\0\x01\x02\x0b\x05\0\x03a/#\x2e\0\x01b\0", Version::V5).unwrap();
        let expected = "SUBSCRIBE packet_id=1 filter=\"a/#\" qos=2 no_local retain_as_published \
                        retain_handling=2 filter=\"b\" qos=0 subscription_id=5";
        assert_eq!(packet.to_string(), expected);
    }

    #[test]
    fn acknowledgement_shows_its_reason() {
        let packet = decode(b"\x40\x08\0\x01\x87\x04\x1f\0\x01n", Version::V5).unwrap();
        assert_eq!(packet.to_string(), "PUBACK packet_id=1 reason=0x87 reason_string=\"n\"");
    }

    const CONNECT: &[u8] = b"\x10\x46\0\x04MQTT\x05\xce\0\x3c\
        \x15\x15\0\x01M\x16\0\x05proof\x26\0\x03key\0\x01v\0\x03dev\
        \x05\x18\0\0\0\x05\0\x01w\0\x07goodbye\0\x05alice\0\x06s3cret";
    const PUBLISH: &[u8] = b"\x3b\x0d\0\x03a\nb\0\x07hidden";
}
