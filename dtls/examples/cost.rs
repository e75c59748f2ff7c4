//! What sessions cost the server: processor time for each handshake, memory for each session that is idle.
//!
//! `cargo run --release -p mgate-dtls --features openssl --example cost`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "it is run by hand, on Linux")]

#[path = "../tests/support/client.rs"]
mod client;
#[path = "../tests/support/pki.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod pki;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mgate_dtls::openssl::{Engine, EngineSettings, Psk};
use mgate_dtls::{DtlsEndpoint, Endpoint, Event, Outbox, Settings};

use openssl::ssl::SslContext;

use self::client::{Client, certificate_context, psk_context};
use self::pki::Pki;

fn main() {
    let by_key = EngineSettings { psk: Psk::On, ..EngineSettings::default() };
    measure("key", &by_key, SESSIONS, &psk_context("device", KEY, "PSK-AES128-CCM8"));
    let pki = Pki::new();
    let own = pki.client("device");
    let context = certificate_context(&pki.authority, Some(&own), "ECDHE-ECDSA-AES128-CCM8");
    measure("certificate", &pki.server(), SESSIONS / 5, &context);
}

fn measure(credential: &str, engine: &EngineSettings, sessions: u32, context: &SslContext) {
    let settings = Settings { linger: Duration::ZERO, ..Settings::default() };
    let mut endpoint = Endpoint::new(Arc::new(Engine::new(engine).unwrap()), settings).unwrap();
    let mut spent = Duration::ZERO;
    // what is allocated once for all is there before the first look
    for number in 0..WARM_UP {
        connect(&mut endpoint, number, context);
    }
    let before = resident_bytes();
    for number in WARM_UP..WARM_UP + sessions {
        spent += connect(&mut endpoint, number, context);
    }
    let grown = resident_bytes().saturating_sub(before) / u64::from(sessions);
    assert_eq!(endpoint.statistics().sessions, (WARM_UP + sessions) as usize);
    println!("{credential}: {} µs a handshake, {grown} B a session", (spent / sessions).as_micros());
}

/// Connects a client; the time that the server spent on it.
fn connect(endpoint: &mut Endpoint, number: u32, context: &SslContext) -> Duration {
    let address = SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + number), 5684));
    let mut client = Client::new(context, address);
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
