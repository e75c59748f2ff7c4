//! Hellos and cookies: nothing is kept before a client has shown where it is, and little after.

use std::net::SocketAddr;
use std::time::Duration;

use mgate_dtls::openssl::Engine;
use mgate_dtls::{DtlsEndpoint, EndpointError, HandshakeFault, Settings};

use crate::support::client::Client;
use crate::support::device::{Device, Options};
use crate::support::{Server, address, key_of, psk};
use crate::{device_at, failures, hello_with_cookie, wanted};

#[test]
fn a_hello_without_a_cookie_costs_nothing_and_gets_no_more_than_it_brought() {
    let mut server = Server::with_psk();
    let mut device = device(&server, 0);
    device.start(server.now);
    let hello = device.take_sent().remove(0);
    for number in 0..10_000_u16 {
        let [high, low] = number.to_be_bytes();
        let from = SocketAddr::from(([10, 0, high, low], 5684));
        let answers = server.handle(from, &hello);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].0, from);
        assert!(answers[0].1.len() <= hello.len(), "{} for {}", answers[0].1.len(), hello.len());
    }
    let statistics = server.statistics();
    assert_eq!(statistics.cookies_sent, 10_000);
    assert_eq!((statistics.handshakes_pending, statistics.sessions), (0, 0));
    assert_eq!(server.endpoint.poll_timeout(), None);
    assert!(server.events.is_empty());
}

#[test]
fn a_cookie_is_good_for_one_client_at_one_address() {
    let mut server = Server::with_psk();
    let hello = hello_with_cookie(&mut server, &mut device_at(1));
    assert_eq!(server.handle(address(2), &hello).len(), 1);
    let mut other = hello.clone();
    // another random
    other[13 + 12 + 2] ^= 1;
    server.handle(address(1), &other);
    // the client's first message, which cannot have one
    other.clone_from(&hello);
    other[13 + 4..13 + 6].fill(0);
    server.handle(address(1), &other);
    assert_eq!(server.statistics().handshakes_pending, 0);
    assert_eq!(server.statistics().cookies_sent, 4);
    server.handle(address(1), &hello);
    assert_eq!(server.statistics().handshakes_pending, 1);
}

#[test]
fn cookies_end() {
    let mut server = Server::with_psk();
    let hello = hello_with_cookie(&mut server, &mut device_at(1));
    for number in 2..4 {
        server.pass(Duration::from_secs(6 * 60));
        hello_with_cookie(&mut server, &mut device_at(number));
    }
    server.handle(address(1), &hello);
    assert_eq!(server.statistics().handshakes_pending, 0);
}

#[test]
fn cookies_end_where_nobody_says_hello_for_long() {
    for (minutes, pending) in [(6, 1), (10, 0), (60 * 24 * 7, 0)] {
        let mut server = Server::with_psk();
        let hello = hello_with_cookie(&mut server, &mut device_at(1));
        server.pass(Duration::from_secs(60 * minutes));
        server.handle(address(1), &hello);
        assert_eq!(server.statistics().handshakes_pending, pending, "after {minutes} minutes");
    }
}

#[test]
fn a_cookie_may_be_asked_for_once_more() {
    let mut server = Server::with_psk();
    let mut client = Client::with_psk("device 1", address(1));
    client.start();
    let hello = client.take_sent().remove(0);
    let answer = server.handle(address(1), &hello).remove(0).1;
    // a cookie of somebody else
    let mut stale = answer.clone();
    *stale.last_mut().unwrap() ^= 1;
    client.handle(&stale);
    let hello = client.take_sent().remove(0);
    let again = server.handle(address(1), &hello).remove(0).1;
    assert_eq!(again.len(), answer.len());
    assert_eq!(server.statistics().cookies_sent, 2);
}

#[test]
fn handshakes_are_bounded_in_all_and_by_address() {
    let settings = Settings { max_handshakes: 5, max_handshakes_per_address: 3, ..Settings::default() };
    let mut server = Server::new(&psk(), settings);
    for number in 0..4 {
        let hello = hello_with_cookie(&mut server, &mut device_at(number));
        server.handle(address(number), &hello);
    }
    assert_eq!(server.statistics().handshakes_pending, 3);
    assert_eq!(server.statistics().handshakes_refused, 1);
    for last in 1..=4 {
        // of one network
        let from: SocketAddr = format!("[2001:db8::{last}]:5684").parse().unwrap();
        let mut device = Device::new(Options::psk("device 1"), from, server.now);
        let hello = hello_with_cookie(&mut server, &mut device);
        server.handle(from, &hello);
    }
    assert_eq!(server.statistics().handshakes_pending, 5);
    assert_eq!(server.statistics().handshakes_refused, 2);
    assert_eq!(failures(&server), [HandshakeFault::Displaced]);
    server.pass(Duration::from_secs(30));
    assert_eq!(server.statistics().handshakes_pending, 0);
    assert_eq!(server.statistics().handshakes_failed, 6);
    let hello = hello_with_cookie(&mut server, &mut device_at(9));
    server.handle(address(9), &hello);
    assert_eq!(server.statistics().handshakes_pending, 1);
}

#[test]
fn a_hello_that_is_repeated_at_once_is_not_answered_twice() {
    let mut server = Server::with_psk();
    let hello = hello_with_cookie(&mut server, &mut device_at(1));
    assert_eq!(server.handle(address(1), &hello).len(), 1);
    assert_eq!(server.handle(address(1), &hello).len(), 0);
}

#[test]
fn another_hello_at_the_same_address_takes_the_place_of_a_handshake() {
    let mut server = Server::with_psk();
    let hello = hello_with_cookie(&mut server, &mut device_at(1));
    server.handle(address(1), &hello);
    server.pass(Duration::from_millis(100));
    let mut again = device_at(1);
    server.connect(&mut again);
    assert_eq!(failures(&server), [HandshakeFault::Replaced]);
    assert_eq!(server.statistics().handshakes_pending, 0);
}

#[test]
fn hellos_that_come_in_turns_begin_few_handshakes() {
    let mut server = Server::with_psk();
    let hellos = [1, 1].map(|number| hello_with_cookie(&mut server, &mut device_at(number)));
    server.sent.clear();
    for _ in 0..50 {
        for hello in &hellos {
            server.handle(address(1), hello);
            server.pass(Duration::from_millis(10));
        }
    }
    assert!((2..=10).contains(&failures(&server).len()), "{} in a second", failures(&server).len());
    assert!(server.sent.len() <= 20, "{} answers in a second", server.sent.len());
}

#[test]
fn hellos_in_one_datagram_get_one_answer() {
    let mut server = Server::with_psk();
    let mut device = device_at(1);
    device.start(server.now);
    let hello = device.take_sent().remove(0);
    assert_eq!(server.handle(address(1), &hello.repeat(5)).len(), 1);
    assert_eq!(server.statistics().records_stray, 4);
}

#[test]
fn who_only_says_hello_keeps_out_nobody() {
    let mut server = Server::with_psk();
    for network in 0..10 {
        for port in 0..100 {
            let from: SocketAddr = format!("[2001:db8:0:{network}::1]:{}", 2_000 + port).parse().unwrap();
            let mut silent = Device::new(Options::psk("device 2"), from, server.now);
            let hello = hello_with_cookie(&mut server, &mut silent);
            server.handle(from, &hello);
        }
    }
    assert_eq!(server.statistics().handshakes_pending, 1_000);
    server.connect(&mut device_at(1));
    assert_eq!(failures(&server), [HandshakeFault::Displaced]);
    assert_eq!(server.statistics().handshakes_pending, 999);
}

#[test]
fn who_has_named_a_key_is_not_displaced() {
    let mut server = Server::new(&psk(), Settings { max_handshakes: 1, ..Settings::default() });
    server.answers = false;
    let mut slow = device_at(1);
    slow.start(server.now);
    server.converse(&mut slow);
    let waiting = wanted(&server);
    let hello = hello_with_cookie(&mut server, &mut device_at(2));
    assert!(server.handle(address(2), &hello).is_empty());
    assert_eq!(server.statistics().handshakes_refused, 1);
    for (_, answer) in server.give_key(waiting, key_of(b"device 1").as_deref()) {
        slow.handle(server.now, &answer);
    }
    assert!(slow.is_connected);
}

#[test]
fn a_late_hello_of_a_handshake_that_is_done_begins_none() {
    let mut server = Server::with_psk();
    let mut device = device_at(1);
    let hello = hello_with_cookie(&mut server, &mut device);
    for (_, answer) in server.handle(address(1), &hello) {
        device.handle(server.now, &answer);
    }
    server.converse(&mut device);
    assert!(device.is_connected);
    assert!(server.handle(address(1), &hello).is_empty());
    assert_eq!(server.statistics().handshakes_pending, 0);
}

#[test]
fn a_hello_in_pieces_is_not_served() {
    let mut server = Server::with_psk();
    let mut device = Device::new(Options { piece: 20, ..Options::psk("device 1") }, address(1), server.now);
    device.start(server.now);
    server.converse(&mut device);
    assert_eq!(server.sent.len(), 0);
    assert!(server.statistics().records_stray > 0);
}

#[test]
fn bounds_that_make_no_sense_are_refused() {
    let engine = std::sync::Arc::new(Engine::new(&psk()).unwrap());
    for (settings, expected) in [
        (Settings { cid_length: 4, ..Settings::default() }, EndpointError::BadCidLength),
        (Settings { mtu: 100, ..Settings::default() }, EndpointError::BadMtu),
        (Settings { retransmission: Duration::ZERO, ..Settings::default() }, EndpointError::BadTime),
        (Settings { handshake_timeout: Duration::ZERO, ..Settings::default() }, EndpointError::BadTime),
    ] {
        assert_eq!(mgate_dtls::Endpoint::new(engine.clone(), settings).err(), Some(expected));
    }
}

fn device(server: &Server, number: u16) -> Device {
    Device::new(Options::psk("device 1"), address(number), server.now)
}
