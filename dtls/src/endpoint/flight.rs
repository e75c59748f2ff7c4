//! What a handshake sends, as often as it must.

use std::net::SocketAddr;

use super::outbox::Outbox;
use super::protection::Protection;
use crate::engine::{Flight, FlightRecord};
use crate::record::{ContentType, Head};

/// The last flight of a handshake, and the numbers of records of epoch 0.
pub(super) struct Sender {
    flight: Flight,
    /// The number of the next record of epoch 0.
    next_sequence: u64,
    mtu: usize,
}

impl Sender {
    /// Begins with the number of the client's own record (RFC 6347 §4.2.1).
    pub(super) fn new(first_sequence: u64, mtu: u16) -> Self {
        Self { flight: Flight::default(), next_sequence: first_sequence, mtu: mtu.into() }
    }

    /// Takes a new flight in place of the last one, and sends it.
    pub(super) fn send(
        &mut self,
        flight: Flight,
        protection: Option<&mut Protection>,
        to: SocketAddr,
        out: &mut Outbox,
    ) {
        self.flight = flight;
        self.send_again(protection, to, out);
    }

    /// Sends the last flight: each record with a number of its own, each datagram as full as it may be.
    pub(super) fn send_again(
        &mut self,
        mut protection: Option<&mut Protection>,
        to: SocketAddr,
        out: &mut Outbox,
    ) {
        let mut datagram = Vec::new();
        for record in &self.flight.0 {
            let sealed = match (record.epoch, &mut protection) {
                (0, _) => plain(record, &mut self.next_sequence),
                (_, Some(protection)) => sealed(record, protection),
                (_, None) => Vec::new(),
            };
            if !datagram.is_empty() && datagram.len() + sealed.len() > self.mtu {
                out.push(to, &datagram);
                datagram.clear();
            }
            datagram.extend(sealed);
        }
        if !datagram.is_empty() {
            out.push(to, &datagram);
        }
    }

    /// Tells the client that this is the end; nobody can know that it was us (RFC 5246 §7.2).
    pub(super) fn send_alert(&mut self, description: u8, to: SocketAddr, out: &mut Outbox) {
        let fragment = [FATAL, description].into();
        let alert = FlightRecord { epoch: 0, content_type: ContentType::Alert, fragment };
        self.send(Flight(vec![alert]), None, to, out);
    }
}

fn plain(record: &FlightRecord, next_sequence: &mut u64) -> Vec<u8> {
    let head = Head { content_type: record.content_type, epoch: 0, sequence: *next_sequence, cid: &[] };
    *next_sequence += 1;
    let mut bytes = Vec::with_capacity(record.fragment.len() + 13);
    head.write(record.fragment.len(), &mut bytes);
    bytes.extend_from_slice(&record.fragment);
    bytes
}

fn sealed(record: &FlightRecord, protection: &mut Protection) -> Vec<u8> {
    let mut bytes = Vec::new();
    // a handshake's records are short, and its numbers few
    let _ = protection.seal(record.content_type, &record.fragment, &mut bytes);
    bytes
}

/// The level of an alert that ends a session (RFC 5246 §7.2).
pub(super) const FATAL: u8 = 2;

/// Types of handshake messages (RFC 5246 §7.4).
pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const FINISHED: u8 = 20;
