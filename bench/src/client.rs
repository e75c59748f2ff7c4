use std::io;

use crate::counts::Counts;
use crate::packet::{self, Credentials, Version, kind};

/// What all clients of a load have in common; `{client}` in a topic or filter is the client id.
#[derive(Clone)]
pub(crate) struct Profile {
    pub(crate) version: Version,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) topic: String,
    /// The filter that each client subscribes to, if any.
    pub(crate) filter: Option<String>,
    pub(crate) qos: u8,
    pub(crate) payload_bytes: usize,
    /// Whether clients stop reading once they are subscribed.
    pub(crate) is_deaf: bool,
}

/// One device: it connects, subscribes where its profile says so, and publishes when told.
pub(crate) struct Client {
    version: Version,
    connect: Vec<u8>,
    filter: Option<String>,
    publish: Vec<u8>,
    packet_id_at: Option<usize>,
    packet_id: u16,
    is_deaf: bool,
    is_watcher: bool,
    is_ready: bool,
}

impl Client {
    /// Builds the packets of the client `id`.
    pub(crate) fn new(profile: &Profile, id: &str) -> Self {
        let topic = profile.topic.replace("{client}", id);
        let publish = packet::publish(profile.version, &topic, profile.qos, profile.payload_bytes);
        Self {
            version: profile.version,
            connect: packet::connect(profile.version, id, profile.credentials.as_ref()),
            filter: profile.filter.as_ref().map(|filter| filter.replace("{client}", id)),
            packet_id_at: (profile.qos > 0).then(|| packet::packet_id_offset(&publish, &topic)),
            packet_id: 0,
            publish,
            is_deaf: profile.is_deaf,
            is_watcher: false,
            is_ready: false,
        }
    }

    /// Builds the packets of a client that sees what arrives at a broker.
    pub(crate) fn watcher() -> Self {
        let profile = Profile {
            version: Version::V311,
            credentials: None,
            topic: String::new(),
            filter: Some("#".to_owned()),
            qos: 0,
            payload_bytes: 0,
            is_deaf: false,
        };
        Self { is_watcher: true, ..Self::new(&profile, "mgate-bench-watcher") }
    }

    /// The CONNECT to begin with.
    pub(crate) fn connect(&self) -> &[u8] {
        &self.connect
    }

    /// Appends the next PUBLISH.
    pub(crate) fn append_publish(&mut self, out: &mut Vec<u8>) {
        if let Some(at) = self.packet_id_at {
            self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
            self.publish[at..at + 2].copy_from_slice(&self.packet_id.to_be_bytes());
        }
        out.extend(&self.publish);
    }

    /// Takes one packet from the proxy and appends what it calls for.
    pub(crate) fn answer(&mut self, input: &[u8], out: &mut Vec<u8>, counts: &mut Counts) -> io::Result<()> {
        match input[0] >> 4 {
            kind::CONNACK => self.connected(input, out, counts)?,
            kind::PUBLISH if self.is_watcher => counts.arrived += 1,
            kind::PUBLISH => counts.received += 1,
            kind::PUBACK => acknowledged(input, counts)?,
            kind::SUBACK if packet::body(input).last().is_some_and(|code| *code < 0x80) => self.ready(counts),
            kind::SUBACK => return Err(io::Error::other("a subscription was refused")),
            other => return Err(io::Error::other(format!("a client got a packet of type {other}"))),
        }
        Ok(())
    }

    /// Whether this client has stopped reading for good.
    pub(crate) fn is_deaf_now(&self) -> bool {
        self.is_deaf && self.is_ready
    }

    fn connected(&mut self, connack: &[u8], out: &mut Vec<u8>, counts: &mut Counts) -> io::Result<()> {
        let code = packet::body(connack).get(1).copied().unwrap_or(0xFF);
        if code != 0 {
            return Err(io::Error::other(format!("a connection was refused with code {code}")));
        }
        match &self.filter {
            Some(filter) => out.extend(packet::subscribe(self.version, filter)),
            None => self.ready(counts),
        }
        Ok(())
    }

    fn ready(&mut self, counts: &mut Counts) {
        self.is_ready = true;
        counts.ready += 1;
    }
}

/// Without a reason code, or with one below 0x80, the message was taken. MQTT 5.0 §3.4.2.1
fn acknowledged(puback: &[u8], counts: &mut Counts) -> io::Result<()> {
    match packet::body(puback).get(2) {
        Some(code @ 0x80..) => Err(io::Error::other(format!("a message was refused with code {code:#04x}"))),
        _ => {
            counts.acknowledged += 1;
            Ok(())
        }
    }
}
