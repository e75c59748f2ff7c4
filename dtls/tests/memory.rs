//! What a handshake keeps at most; alone in its process, whose memory it measures.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use mgate_dtls::{ContentType, Settings, records};

use support::device::{Device, Options, plain_record};
use support::pki::Pki;
use support::{Server, address};

#[test]
fn a_handshake_keeps_little_whatever_its_client_sends() {
    let pki = Pki::new();
    let own = pki.client("device 1");
    let mut server = Server::new(&pki.server(), Settings::default());
    stuff(&mut server, &own, 0);
    let before = resident_kilobytes();
    for number in 1..=HANDSHAKES {
        stuff(&mut server, &own, number);
    }
    let each = (resident_kilobytes() - before) / u64::from(HANDSHAKES);
    assert_eq!(server.statistics().handshakes_pending, usize::from(HANDSHAKES) + 1);
    assert!(each < 256, "{each} kB for each");
}

/// Sends all of a handshake but for what proves the certificate, and then as much as OpenSSL might keep.
fn stuff(server: &mut Server, own: &mgate_certs::Issued, number: u16) {
    let at = address(number);
    let mut device = Device::new(Options::certificate(own.clone()), at, server.now);
    device.start(server.now);
    for _ in 0..2 {
        for datagram in device.take_sent() {
            for (_, answer) in server.handle(at, &datagram) {
                device.handle(server.now, &answer);
            }
        }
    }
    let mut proof = 0;
    for datagram in device.take_sent() {
        for record in records(&datagram, 8).filter(|record| record.epoch == 0) {
            match &datagram[record.body.clone()] {
                [CERTIFICATE_VERIFY, _, _, _, high, low, ..] => proof = u16::from_be_bytes([*high, *low]),
                _ => drop(server.handle(at, &datagram[record.whole])),
            }
        }
    }
    let [high, low] = (proof + 1).to_be_bytes();
    for offset in 0..12 {
        let piece = device
            .seal(ContentType::Handshake, &[FINISHED, 0, 0, 12, high, low, 0, 0, offset, 0, 0, 1, offset]);
        server.handle(at, &piece);
        let mut long = vec![0; 1_400];
        long[0] = FINISHED;
        let long = device.seal(ContentType::Handshake, &long);
        server.handle(at, &long);
    }
    let [high, low] = proof.to_be_bytes();
    for sequence in 100..112 {
        let piece = [CERTIFICATE_VERIFY, 0, 0, 70, high, low, 0, 0, 0, 0, 0, 1, 4];
        server.handle(at, &plain_record(ContentType::Handshake, sequence, &piece));
    }
    server.sent.clear();
}

fn resident_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

const HANDSHAKES: u16 = 12;

const CERTIFICATE_VERIFY: u8 = 15;
const FINISHED: u8 = 20;
