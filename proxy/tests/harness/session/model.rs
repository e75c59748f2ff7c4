//! What a broker, or a client, makes of the bytes that a session sends it.

use std::collections::{HashMap, HashSet};

use super::rules::Permit;
use crate::wire::{Fields, Frame, Message};

/// One receiver of messages, and what it may be sent.
#[derive(Default)]
pub(crate) struct Receiver {
    aliases: HashMap<u16, String>,
    in_flight: HashSet<u16>,
    alias_maximum: u16,
    receive_maximum: Option<u16>,
    maximum_packet_size: Option<u32>,
    /// Packets so far.
    pub(crate) heard: usize,
    /// Whether what it heard last was the end.
    pub(crate) is_over: bool,
}

impl Receiver {
    /// Takes the limits out of the properties of CONNECT or CONNACK.
    pub(crate) fn limit(&mut self, properties: Fields<'_>) {
        let number = |id| { properties }.property(id).flatten();
        self.alias_maximum = number(0x22).unwrap_or(0) as u16;
        self.receive_maximum = number(0x21).map(|maximum| maximum as u16);
        self.maximum_packet_size = number(0x27);
    }

    /// Notes that it acknowledged a message, as far as the packet can be read.
    pub(crate) fn acknowledges(&mut self, ack: Frame<'_>) {
        let mut fields = Fields(ack.body);
        let Some(id) = fields.number(2) else { return };
        let is_refusal = fields.number(1).is_some_and(|reason| reason >= 0x80);
        if matches!(ack.kind(), PUBACK | PUBCOMP) || ack.kind() == PUBREC && is_refusal {
            self.in_flight.remove(&(id as u16));
        }
    }

    /// A message comes, within the limits; says what it is, whatever stands for its topic.
    pub(crate) fn message(&mut self, frame: Frame<'_>, is_v5: bool) -> Permit {
        let message = frame.message(is_v5).expect("a PUBLISH that can be read");
        let resource = self.resolve(&message);
        let Message { payload, qos, retain, packet_id, .. } = message;
        if qos > 0 {
            self.in_flight.insert(packet_id);
            let maximum = self.receive_maximum.unwrap_or(u16::MAX);
            assert!(self.in_flight.len() <= maximum.into(), "more in flight than {maximum}");
        }
        let maximum = self.maximum_packet_size.map_or(usize::MAX, |maximum| maximum as usize);
        assert!(frame.bytes.len() <= maximum, "{} bytes of at most {maximum}", frame.bytes.len());
        Permit { resource, payload: payload.to_vec(), qos, retain }
    }

    fn resolve(&mut self, message: &Message<'_>) -> String {
        let Some(alias) = message.alias else { return message.topic.to_owned() };
        assert!((1..=self.alias_maximum).contains(&alias), "alias {alias} above {}", self.alias_maximum);
        if !message.topic.is_empty() {
            self.aliases.insert(alias, message.topic.to_owned());
        }
        self.aliases.get(&alias).expect("an alias that stands for something").clone()
    }
}

/// The filters of a SUBSCRIBE, each without its share group; `None` if it cannot be read.
pub(crate) fn filters(frame: Frame<'_>, is_v5: bool) -> Option<Vec<Permit>> {
    let mut fields = Fields(frame.body);
    fields.number(2)?;
    if is_v5 {
        fields.property(0)?;
    }
    let mut filters = Vec::new();
    while !fields.0.is_empty() {
        let filter = fields.text()?;
        let shared = filter.strip_prefix("$share/").and_then(|shared| shared.split_once('/'));
        let resource = shared.map_or(filter, |(_, filter)| filter).to_owned();
        let qos = fields.number(1)? as u8 & 3;
        filters.push(Permit { resource, payload: Vec::new(), qos, retain: false });
    }
    Some(filters)
}

/// The will's topic, payload, QoS and retain flag, if CONNECT has one; `None` if it cannot be read.
pub(crate) fn will(frame: Frame<'_>) -> Option<Option<Permit>> {
    let mut fields = Fields(frame.body);
    fields.binary()?;
    let (level, flags) = (fields.number(1)?, fields.number(1)? as u8);
    fields.number(2)?;
    if level == 5 {
        fields.property(0)?;
    }
    fields.text()?;
    if flags & 0x04 == 0 {
        return Some(None);
    }
    if level == 5 {
        fields.property(0)?;
    }
    let (resource, payload) = (fields.text()?.to_owned(), fields.binary()?.to_vec());
    Some(Some(Permit { resource, payload, qos: flags >> 3 & 3, retain: flags & 0x20 != 0 }))
}

pub(crate) const CONNECT: u8 = 1;
pub(crate) const CONNACK: u8 = 2;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBACK: u8 = 4;
pub(crate) const PUBREC: u8 = 5;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const PUBCOMP: u8 = 7;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const UNSUBSCRIBE: u8 = 10;
pub(crate) const PINGREQ: u8 = 12;
pub(crate) const DISCONNECT: u8 = 14;
pub(crate) const AUTH: u8 = 15;
