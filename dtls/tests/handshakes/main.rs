//! How handshakes begin, go on and end: without state at first, within bounds, and whatever is lost or forged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod credentials;
mod flights;
mod hellos;
#[path = "../support/mod.rs"]
mod support;

use mgate_dtls::{Event, HandshakeFault, HandshakeId};

use support::device::{Device, Options};
use support::{Peer, Server, address};

/// Shakes hands until the flight of the device that has its Finished is to be sent.
fn shake_until_flight(server: &mut Server, device: &mut Device) {
    device.start(server.now);
    for _ in 0..2 {
        for datagram in device.take_sent() {
            for (_, answer) in server.handle(device.address, &datagram) {
                device.handle(server.now, &answer);
            }
        }
    }
}

fn device_at(number: u16) -> Device {
    Device::new(Options::psk("device 1"), address(number), support::start())
}

/// Says hello for a device until it has a cookie; the hello that has it.
fn hello_with_cookie(server: &mut Server, device: &mut Device) -> Vec<u8> {
    device.start(server.now);
    let hello = device.take_sent().remove(0);
    let answer = server.handle(device.address(), &hello).remove(0).1;
    device.handle(server.now, &answer);
    device.take_sent().remove(0)
}

fn wanted(server: &Server) -> HandshakeId {
    match server.events.last() {
        Some(Event::KeyWanted { handshake, .. }) => *handshake,
        other => panic!("{other:?}"),
    }
}

fn failures(server: &Server) -> Vec<HandshakeFault> {
    let failed = |event: &Event| match event {
        Event::Failed { fault, .. } => Some(fault.clone()),
        _ => None,
    };
    server.events.iter().filter_map(failed).collect()
}
