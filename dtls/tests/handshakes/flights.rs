//! Flights: lost, late, in pieces, out of order, forged.

use std::time::Duration;

use mgate_dtls::openssl::{EngineSettings, Psk};
use mgate_dtls::{ContentType, DtlsEndpoint, Event, HandshakeFault, Refusal, Settings, records};

use crate::support::device::{Device, Options, plain_record};
use crate::support::pki::Pki;
use crate::support::{Server, address, key_of};
use crate::{device_at, failures, hello_with_cookie, shake_until_flight, wanted};

#[test]
fn a_handshake_ends_when_its_time_is_over() {
    let mut server = Server::with_psk();
    let hello = hello_with_cookie(&mut server, &mut device_at(1));
    server.handle(address(1), &hello);
    server.sent.clear();
    server.pass(Duration::from_millis(9_999));
    // after 1, 3 and 7 seconds
    assert_eq!(server.sent.len(), 3);
    assert!(failures(&server).is_empty());
    server.pass(Duration::from_millis(1));
    assert_eq!(failures(&server), [HandshakeFault::TimedOut]);
    assert_eq!(server.endpoint.poll_timeout(), None);
}

#[test]
fn a_flight_that_is_repeated_has_new_record_numbers() {
    let mut server = Server::with_psk();
    let hello = hello_with_cookie(&mut server, &mut device_at(1));
    server.sent.clear();
    for _ in 0..3 {
        server.handle(address(1), &hello);
        server.pass(Duration::from_millis(200));
    }
    assert_eq!(server.sent.len(), 3);
    let numbers: Vec<_> = server
        .sent
        .iter()
        .flat_map(|(_, datagram)| records(datagram, 0).map(|record| record.sequence).collect::<Vec<_>>())
        .collect();
    // RFC 6347 §4.2.1: it begins with the number of the hello, the second of the client
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn what_the_library_sends_again_by_its_own_clock_is_not_sent() {
    let pki = Pki::new();
    let mut server = Server::new(&pki.server(), Settings::default());
    let mut device = Device::new(Options::certificate(pki.client("device 1")), address(1), server.now);
    let hello = hello_with_cookie(&mut server, &mut device);
    let flight = server.handle(address(1), &hello);
    // its first timer takes a second
    std::thread::sleep(Duration::from_millis(1_200));
    let old_message = [11, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
    assert!(server.handle(address(1), &plain_record(ContentType::Handshake, 9, &old_message)).is_empty());
    for (_, answer) in flight {
        device.handle(server.now, &answer);
    }
    server.converse(&mut device);
    assert!(device.is_connected);
}

#[test]
fn a_finished_that_is_repeated_gets_the_last_flight_for_a_while() {
    let mut server = Server::with_psk();
    for cid in [None, Some(b"id".to_vec())] {
        let mut device = Device::new(Options { cid, ..Options::psk("device 1") }, address(1), server.now);
        shake_until_flight(&mut server, &mut device);
        // the server's last flight is lost
        let flight = device.take_sent();
        assert_eq!(flight.len(), 1);
        assert_eq!(server.handle(address(1), &flight[0]).len(), 1);
        assert!(!device.is_connected);
        server.pass(Duration::from_secs(1));
        device.handle_timeout(server.now);
        server.converse(&mut device);
        assert!(device.is_connected);
        server.pass(Duration::from_secs(60));
        assert_eq!(server.endpoint.poll_timeout(), None);
        device.send_flight();
        assert!(device.take_sent().iter().all(|datagram| server.handle(address(1), datagram).is_empty()));
    }
}

#[test]
fn messages_in_pieces_are_put_together() {
    let pki = Pki::new();
    for piece in [4, 7, 100] {
        let mut server = Server::with_psk();
        let options = Options { piece, ..Options::psk("device 1") };
        server.connect(&mut whole_hello(&options, &server));
        let mut server = Server::new(&pki.server(), Settings { mtu: 256, ..Settings::default() });
        let options = Options { piece: piece.max(40), ..Options::certificate(pki.client("device 1")) };
        server.connect(&mut whole_hello(&options, &server));
        assert!(server.sent.iter().all(|(_, datagram)| datagram.len() <= 256));
        assert!(server.sent.len() > 4);
    }
}

#[test]
fn a_message_that_is_too_long_is_refused() {
    let pki = Pki::new();
    let mut server = Server::new(&pki.server(), Settings::default());
    let mut device = Device::new(Options::certificate(pki.client("device 1")), address(2), server.now);
    let hello = hello_with_cookie(&mut server, &mut device);
    server.handle(address(2), &hello);
    let long = [&[11, 0, 0x40, 1, 0, 2][..], &[0, 0, 0, 0, 0, 1, 0]].concat();
    server.handle(address(2), &plain_record(ContentType::Handshake, 9, &long));
    let refusal = Refusal("a message of the client is too long".to_owned());
    assert_eq!(failures(&server), [HandshakeFault::Refused(refusal)]);
}

#[test]
fn what_overtakes_the_finished_is_kept() {
    let mut server = Server::with_psk();
    let options = Options { takes_tickets: true, ..Options::psk("device 1").with_cid(b"id") };
    let mut device = Device::new(options.clone(), address(1), server.now);
    server.connect(&mut device);
    let earlier = Some(device.earlier());
    let mut device = Device::new(Options { earlier, ..options }, address(2), server.now);
    shake_until_flight(&mut server, &mut device);
    assert!(device.is_connected && device.is_resumed);
    device.send(b"first");
    device.send(b"second");
    let [finished, first, second] = device.take_sent().try_into().unwrap();
    for datagram in [first, second, finished] {
        server.handle(address(2), &datagram);
    }
    let said: Vec<_> = server.data.iter().map(|(_, payload)| &payload[..]).collect();
    assert_eq!(said, [b"first".as_slice(), b"second"]);
    assert!(server.events.iter().any(|event| matches!(event, Event::EarlyData { .. })));
}

#[test]
fn records_in_any_order_complete_a_handshake() {
    let pki = Pki::new();
    let engine = EngineSettings { psk: Psk::On, ..pki.server() };
    for options in [Options::psk("device 1"), Options::certificate(pki.client("device 1"))] {
        let mut server = Server::new(&engine, Settings::default());
        let mut device = Device::new(options.with_cid(b"id"), address(1), server.now);
        shake_until_flight(&mut server, &mut device);
        let flight = device.take_sent().concat();
        let mut found: Vec<_> = records(&flight, 8).collect();
        found.reverse();
        for record in found {
            for (_, answer) in server.handle(address(1), &flight[record.whole]) {
                device.handle(server.now, &answer);
            }
        }
        assert!(device.is_connected, "{:?}", server.events);
    }
}

#[test]
fn forged_records_do_not_end_a_handshake_before_there_are_keys() {
    let mut server = Server::with_psk();
    server.answers = false;
    let mut device = device_at(1);
    shake_until_flight(&mut server, &mut device);
    let mut forged = plain_record(ContentType::Handshake, 0, &[0; 40]);
    forged[4] = 1;
    server.handle(address(1), &forged);
    // a warning, and an alert without a level
    server.handle(address(1), &plain_record(ContentType::Alert, 5, &[1, 0]));
    server.handle(address(1), &plain_record(ContentType::Alert, 6, &[2]));
    server.answers = true;
    server.converse(&mut device);
    assert!(device.is_connected, "{:?}", server.events);
    assert_eq!(server.statistics().records_forged, 1);
}

#[test]
fn what_anybody_can_send_ends_no_handshake() {
    let pki = Pki::new();
    let engine = EngineSettings { psk: Psk::On, ..pki.server() };
    let mut forged = plain_record(ContentType::Handshake, 0, &[]);
    forged[4] = 1;
    let alert = plain_record(ContentType::Alert, 50, &[2, 42]);
    for options in [Options::psk("device 1"), Options::certificate(pki.client("device 1"))] {
        let mut server = Server::new(&engine, Settings::default());
        let mut device = Device::new(options, address(1), server.now);
        shake_until_flight(&mut server, &mut device);
        let flight = device.take_sent().concat();
        let (plain, sealed): (Vec<_>, Vec<_>) = records(&flight, 8).partition(|record| record.epoch == 0);
        server.handle(address(1), &alert);
        for record in plain {
            server.handle(address(1), &forged);
            server.handle(address(1), &flight[record.whole]);
        }
        server.handle(address(1), &forged);
        server.handle(address(1), &alert);
        assert_eq!(failures(&server), []);
        for record in sealed {
            for (_, answer) in server.handle(address(1), &flight[record.whole]) {
                device.handle(server.now, &answer);
            }
        }
        assert!(device.is_connected && device.alerts.is_empty(), "{:?}", server.events);
        assert!(server.statistics().records_forged > 3);
    }
}

#[test]
fn an_alert_is_reported_when_nothing_better_comes() {
    let mut server = Server::with_psk();
    let hello = hello_with_cookie(&mut server, &mut device_at(1));
    server.handle(address(1), &hello);
    server.handle(address(1), &plain_record(ContentType::Alert, 5, &[2, 42]));
    assert_eq!((failures(&server), server.statistics().records_forged), (Vec::new(), 1));
    server.pass(Duration::from_secs(10));
    assert_eq!(failures(&server), [HandshakeFault::Alert(42)]);
}

#[test]
fn nothing_is_told_of_a_session_behind_its_end() {
    let mut server = Server::with_psk();
    server.answers = false;
    let mut device = device_at(1);
    shake_until_flight(&mut server, &mut device);
    let flight = device.take_sent().concat();
    let goodbye = device.seal(ContentType::Alert, &[1, 0]);
    let late = device.seal(ContentType::ApplicationData, b"late");
    for datagram in [flight, goodbye, late] {
        server.handle(address(1), &datagram);
    }
    let waiting = wanted(&server);
    server.give_key(waiting, key_of(b"device 1").as_deref());
    assert!(matches!(server.events.last(), Some(Event::Closed { .. })), "{:?}", server.events);
    assert!(server.data.is_empty());
}

/// A device whose hello comes whole, and the rest in pieces.
fn whole_hello(options: &Options, server: &Server) -> Device {
    let mut device = Device::new(Options { piece: 1_000, ..options.clone() }, address(1), server.now);
    device.piece_behind_hello = Some(options.piece);
    device
}
