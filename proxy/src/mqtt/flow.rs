//! Messages on their way in one direction of one connection.

use super::aliases::Aliases;

/// What must be known of the messages that one side sends.
#[derive(Debug)]
pub(super) struct Flow {
    /// The topic aliases of the sender.
    pub(super) aliases: Aliases,
    /// Passed on, at QoS 1 or 2, and not yet acknowledged by the receiver.
    pub(super) in_flight: PacketIds,
    /// Not passed on, at QoS 2: the session itself completes the exchange.
    pub(super) refused: PacketIds,
    /// How many messages the receiver takes unacknowledged. MQTT 5.0 §3.1.2.11.3
    pub(super) receive_maximum: u16,
    /// The longest packet that the receiver takes, in bytes.
    pub(super) maximum_packet_size: u32,
}

/// A set of packet identifiers; without any, it holds no memory.
#[derive(Debug, Default)]
pub(super) struct PacketIds(Vec<u16>);

impl Default for Flow {
    fn default() -> Self {
        Self {
            aliases: Aliases::default(),
            in_flight: PacketIds::default(),
            refused: PacketIds::default(),
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
        }
    }
}

impl Flow {
    /// Notes a message that is passed on; `false` if the receiver takes no more. [MQTT-3.3.4-9]
    pub(super) fn start(&mut self, packet_id: u16) -> bool {
        self.in_flight.insert(packet_id);
        self.in_flight.len() <= usize::from(self.receive_maximum)
    }
}

impl PacketIds {
    /// Adds an identifier that may be there already: a message sent once more is still one message.
    pub(super) fn insert(&mut self, id: u16) {
        if let Err(at) = self.0.binary_search(&id) {
            self.0.insert(at, id);
        }
    }

    /// Removes an identifier; says whether it was there.
    pub(super) fn remove(&mut self, id: u16) -> bool {
        let found = self.0.binary_search(&id);
        if let Ok(at) = found {
            self.0.remove(at);
            if self.0.is_empty() && self.0.capacity() > KEPT {
                self.0 = Vec::new();
            }
        }
        found.is_ok()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Room that an empty set may keep, so that one message after another costs no allocation.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifier_counts_once() {
        let mut ids = PacketIds::default();
        for id in [7, 3, 7] {
            ids.insert(id);
        }
        assert_eq!(ids.len(), 2);
        assert!(ids.remove(7) && !ids.remove(7) && ids.remove(3));
        assert_eq!(ids.len(), 0);
    }

    #[test]
    fn one_message_more_than_the_receiver_takes_is_refused() {
        let mut flow = Flow { receive_maximum: 2, ..Flow::default() };
        assert!(flow.start(1) && flow.start(2) && flow.start(2));
        assert!(!flow.start(3));
    }
}
