use mgate_policies::TopicFilter;

use super::DecodeError;
use super::cursor::Cursor;
use crate::mqtt::packet::Version;

/// The topic filters of a SUBSCRIBE that are still to come; there is at least one at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filters<'a> {
    entries: Cursor<'a>,
    left: usize,
}

/// One topic filter of a SUBSCRIBE and what is asked for with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// The filter, with its share group split off.
    pub filter: TopicFilter<'a>,
    /// The filter as it stands in the packet, `$share/<group>/` included.
    pub text: &'a str,
    /// The subscription options.
    pub options: SubscriptionOptions,
    /// The entry as it stands in the packet: length, filter and options.
    pub bytes: &'a [u8],
}

/// The subscription options byte; before MQTT 5.0 only the QoS can be set. MQTT 5.0 §3.8.3.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionOptions(u8);

/// The topic filters of an UNSUBSCRIBE that are still to come; there is at least one at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    entries: Cursor<'a>,
    left: usize,
}

impl<'a> Filters<'a> {
    /// Takes all that is left in `cursor`.
    pub(super) fn read(cursor: Cursor<'a>, version: Version) -> Result<Self, DecodeError> {
        let (mut unread, mut count) = (cursor, 0);
        while !unread.is_empty() {
            let entry = subscribe_entry(&mut unread)?;
            entry.options.check(entry.filter, version)?;
            count += 1;
        }
        // [MQTT-3.8.3-2]
        if count == 0 { Err(DecodeError::NoFilters) } else { Ok(Self { entries: cursor, left: count }) }
    }

    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.entries.rest()
    }
}

impl<'a> Iterator for Filters<'a> {
    type Item = SubscribeFilter<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = subscribe_entry(&mut self.entries).ok()?;
        self.left -= 1;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Filters<'_> {}

impl SubscriptionOptions {
    /// The byte as it stands in the packet.
    pub fn byte(self) -> u8 {
        self.0
    }

    /// The highest QoS that messages may be delivered with.
    pub fn qos(self) -> u8 {
        self.0 & 0x03
    }

    /// Whether the client does not want back what it publishes itself.
    pub fn no_local(self) -> bool {
        self.0 & NO_LOCAL != 0
    }

    /// Whether deliveries keep the retain flag that the message was published with.
    pub fn retain_as_published(self) -> bool {
        self.0 & 0x08 != 0
    }

    /// When retained messages are sent: 0 on subscribe, 1 on a new subscription, 2 never.
    pub fn retain_handling(self) -> u8 {
        self.0 >> 4 & 0x03
    }

    fn check(self, filter: TopicFilter<'_>, version: Version) -> Result<(), DecodeError> {
        // [MQTT-3.8.3-5]; 3.1.1: [MQTT-3-8.3-4]
        let reserved = if version.is_5() { 0xc0 } else { 0xfc };
        if self.0 & reserved != 0 || self.retain_handling() == 3 {
            return Err(DecodeError::SubscriptionOptions(self.0));
        }
        if self.qos() == 3 {
            return Err(DecodeError::Qos);
        }
        // [MQTT-3.8.3-4]
        if self.no_local() && filter.share_group().is_some() {
            return Err(DecodeError::NoLocalOnShared);
        }
        Ok(())
    }
}

impl<'a> UnsubscribeFilters<'a> {
    /// Takes all that is left in `cursor`.
    pub(super) fn read(cursor: Cursor<'a>) -> Result<Self, DecodeError> {
        let (mut unread, mut count) = (cursor, 0);
        while !unread.is_empty() {
            TopicFilter::parse(unread.text()?)?;
            count += 1;
        }
        // [MQTT-3.10.3-2]
        if count == 0 { Err(DecodeError::NoFilters) } else { Ok(Self { entries: cursor, left: count }) }
    }

    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.entries.rest()
    }
}

impl<'a> Iterator for UnsubscribeFilters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let filter = self.entries.text().ok()?;
        self.left -= 1;
        Some(filter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for UnsubscribeFilters<'_> {}

fn subscribe_entry<'a>(cursor: &mut Cursor<'a>) -> Result<SubscribeFilter<'a>, DecodeError> {
    let before = cursor.rest();
    let text = cursor.text()?;
    let options = SubscriptionOptions(cursor.byte()?);
    let bytes = &before[..before.len() - cursor.rest().len()];
    Ok(SubscribeFilter { filter: TopicFilter::parse(text)?, text, options, bytes })
}

const NO_LOCAL: u8 = 0x04;
