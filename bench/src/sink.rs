use std::io;

use crate::counts::Counts;
use crate::packet::{self, Version, kind};

/// One connection of the least broker that a proxy can have behind it: it acknowledges, counts, and delivers
/// to the first filter subscribed to, which must have no wildcard.
pub(crate) struct Sink {
    version: Version,
    payload_bytes: usize,
    /// The PUBLISH that a delivery is, once the client subscribed.
    delivery: Option<Vec<u8>>,
}

impl Sink {
    /// Makes a connection whose deliveries carry `payload_bytes`.
    pub(crate) fn new(payload_bytes: usize) -> Self {
        Self { version: Version::V311, payload_bytes, delivery: None }
    }

    /// The PUBLISH that a delivery is, once the client subscribed.
    pub(crate) fn delivery(&self) -> Option<&[u8]> {
        self.delivery.as_deref()
    }

    /// Takes one packet from the proxy and appends what a broker answers.
    pub(crate) fn answer(&mut self, input: &[u8], out: &mut Vec<u8>, counts: &mut Counts) -> io::Result<()> {
        match input[0] >> 4 {
            kind::CONNECT => {
                self.version = Version::of_connect(input)?;
                out.extend(packet::connack(self.version));
            }
            kind::PUBLISH => {
                counts.arrived += 1;
                out.extend(packet::puback(input)?.iter().flatten());
            }
            kind::SUBSCRIBE => {
                let filter = packet::first_filter(self.version, input)?;
                self.delivery = Some(packet::publish(self.version, filter, 0, self.payload_bytes));
                out.extend(packet::suback(self.version, input)?);
            }
            kind::PINGREQ => out.extend([0xD0, 0]),
            kind::DISCONNECT => {}
            other => return Err(io::Error::other(format!("the upstream got a packet of type {other}"))),
        }
        Ok(())
    }
}
