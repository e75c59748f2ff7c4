//! What sessions cost the server: processor time for each handshake with a key, memory for each session that is idle.
//!
//! `cargo run --release -p mgate-dtls --features openssl --example cost`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it is run by hand, on Linux")]

#[path = "../tests/support/client.rs"]
mod client;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_dtls::openssl::{Engine, EngineSettings, Psk};
use mgate_dtls::{DtlsEndpoint, Endpoint, Event, Outbox, Settings};

use self::client::{Client, psk_context};

fn main() {
    let engine = EngineSettings { psk: Psk::On, ..EngineSettings::default() };
    let settings = Settings { linger: Duration::ZERO, ..Settings::default() };
    let mut endpoint = Endpoint::new(Arc::new(Engine::new(&engine).unwrap()), settings).unwrap();
    let mut spent = Duration::ZERO;
    // what is allocated once for all is there before the first look
    for number in 0..WARM_UP {
        connect(&mut endpoint, number);
    }
    let before = resident_bytes();
    for number in WARM_UP..WARM_UP + SESSIONS {
        spent += connect(&mut endpoint, number);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert_eq!(endpoint.statistics().sessions, (WARM_UP + SESSIONS) as usize);
    println!(
        "{} µs a handshake, {} B a session",
        (spent / SESSIONS).as_micros(),
        grown / u64::from(SESSIONS)
    );
}

/// Connects a client; the time that the server spent on it.
fn connect(endpoint: &mut Endpoint, number: u32) -> Duration {
    let address = SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + number), 5684));
    let mut client = Client::new(&psk_context("device", KEY, "PSK-AES128-CCM8"), address);
    let (mut spent, mut out) = (Duration::ZERO, Outbox::new());
    client.start();
    while !client.is_connected() {
        for mut datagram in client.take_sent() {
            let begin = now();
            endpoint.handle_datagram(begin, address, &mut datagram, &mut out);
            while let Some(event) = endpoint.poll_event() {
                if let Event::KeyWanted { handshake, .. } = event {
                    endpoint.give_key(begin, handshake, Some(KEY), &mut out);
                }
            }
            endpoint.handle_timeout(begin, &mut out);
            spent += now() - begin;
        }
        out.iter().for_each(|(_, datagram)| client.handle(datagram));
        out.clear();
    }
    spent
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}

const SESSIONS: u32 = 10_000;
const WARM_UP: u32 = 1_000;
const KEY: &[u8] = b"a key of sixteen";
