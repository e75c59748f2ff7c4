//! How handshakes begin, go on and end: without state at first, within bounds, and whatever is lost or forged.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use mgate_certs::{Authority, Revoked, Timestamp};
use mgate_dtls::openssl::{ClientAuth, Engine, EngineSettings, Fault, Psk};
use mgate_dtls::{
    ContentType, DtlsEndpoint, EndpointError, Event, HandshakeFault, HandshakeId, Refusal, Settings, records,
};

use support::client::{Client, certificate_context, psk_context};
use support::device::{Device, Options, plain_record};
use support::pki::Pki;
use support::{Peer, Server, address, key_of, psk};

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
fn a_finished_that_is_repeated_gets_the_last_flight_for_a_while() {
    let mut server = Server::with_psk();
    for cid in [None, Some(b"id".to_vec())] {
        let mut device = Device::new(Options { cid, ..Options::psk("device 1") }, address(1), server.now);
        device.start(server.now);
        for _ in 0..2 {
            for datagram in device.take_sent() {
                for (_, answer) in server.handle(address(1), &datagram) {
                    device.handle(server.now, &answer);
                }
            }
        }
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
fn a_wrong_key_and_an_unknown_identity_look_the_same() {
    let mut server = Server::with_psk();
    let mut said = Vec::new();
    for identity in ["device 1", "nobody"] {
        let mut options = Options::psk(identity);
        options.credential = support::device::Credential::Psk {
            identity: identity.as_bytes().to_vec(),
            key: b"guessed".to_vec(),
        };
        let mut device = Device::new(options, address(1), server.now);
        device.start(server.now);
        server.converse(&mut device);
        assert!(!device.is_connected && device.alerts.is_empty());
        for (_, datagram) in server.pass(Duration::from_secs(10)) {
            device.handle(server.now, &datagram);
        }
        said.push(std::mem::take(&mut device.alerts));
    }
    assert_eq!(said[0], [[2, 51]]);
    assert_eq!(said[0], said[1]);
    assert_eq!(failures(&server), [HandshakeFault::WrongKey, HandshakeFault::WrongKey]);
    assert_eq!(server.statistics().handshakes_pending, 0);
}

#[test]
fn a_finished_that_is_wrong_is_refused() {
    let pki = Pki::new();
    for (engine, options) in
        [(psk(), Options::psk("device 1")), (pki.server(), Options::certificate(pki.client("device 1")))]
    {
        let mut server = Server::new(&engine, Settings::default());
        let mut device = Device::new(options, address(1), server.now);
        device.lies = true;
        device.start(server.now);
        server.converse(&mut device);
        assert!(!device.is_connected);
        assert_eq!(failures(&server), [HandshakeFault::Refused(Refusal("digest check failed".to_owned()))]);
        assert_eq!(device.alerts.last(), Some(&[2, 51]));
        assert_eq!(server.statistics().sessions, 0);
    }
}

#[test]
fn an_identity_that_no_key_can_have_is_refused() {
    let mut server = Server::with_psk();
    for identity in [&b""[..], b"device\0 1", &[b'x'; 257]] {
        let mut options = Options::psk("device 1");
        options.credential =
            support::device::Credential::Psk { identity: identity.to_vec(), key: b"key".to_vec() };
        let mut device = Device::new(options, address(1), server.now);
        device.start(server.now);
        server.converse(&mut device);
        assert!(!device.is_connected);
        assert_eq!(device.alerts, [[2, 40]]);
    }
    assert_eq!(failures(&server).len(), 3);
    assert!(!server.events.iter().any(|event| matches!(event, Event::KeyWanted { .. })));
}

#[test]
fn who_waits_for_a_key_holds_up_nobody() {
    let mut server = Server::with_psk();
    server.answers = false;
    let mut slow = device_at(1);
    slow.start(server.now);
    server.converse(&mut slow);
    let waiting = wanted(&server);
    server.answers = true;
    for number in 2..5 {
        let mut device = device_at(number);
        let session = server.connect(&mut device);
        server.exchange(&mut device, session);
    }
    // meanwhile, the client repeats itself, and is heard once
    server.pass(Duration::from_secs(2));
    slow.handle_timeout(server.now);
    server.converse(&mut slow);
    let asked = server.events.iter().filter(|event| matches!(event, Event::KeyWanted { .. })).count();
    assert_eq!(asked, 4);
    for (_, answer) in server.give_key(waiting, key_of(b"device 1").as_deref()) {
        slow.handle(server.now, &answer);
    }
    assert!(slow.is_connected);
    assert!(server.give_key(waiting, Some(b"late")).is_empty());
}

#[test]
fn a_key_that_comes_too_late_is_of_no_use() {
    let mut server = Server::with_psk();
    server.answers = false;
    let mut device = device_at(1);
    device.start(server.now);
    server.converse(&mut device);
    let waiting = wanted(&server);
    server.sent.clear();
    server.pass(Duration::from_secs(30));
    assert_eq!(failures(&server), [HandshakeFault::TimedOut]);
    assert!(server.sent.is_empty(), "the client has done what it can");
    assert!(server.give_key(waiting, key_of(b"device 1").as_deref()).is_empty());
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
fn a_hello_in_pieces_is_not_served() {
    let mut server = Server::with_psk();
    let mut device = Device::new(Options { piece: 20, ..Options::psk("device 1") }, address(1), server.now);
    device.start(server.now);
    server.converse(&mut device);
    assert_eq!(server.sent.len(), 0);
    assert!(server.statistics().records_stray > 0);
}

#[test]
fn what_overtakes_the_finished_is_kept() {
    let mut server = Server::with_psk();
    let options = Options { takes_tickets: true, ..Options::psk("device 1").with_cid(b"id") };
    let mut device = Device::new(options.clone(), address(1), server.now);
    server.connect(&mut device);
    let earlier = Some(device.earlier());
    let mut device = Device::new(Options { earlier, ..options }, address(2), server.now);
    device.start(server.now);
    for _ in 0..2 {
        for datagram in device.take_sent() {
            for (_, answer) in server.handle(address(2), &datagram) {
                device.handle(server.now, &answer);
            }
        }
    }
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
        device.start(server.now);
        for _ in 0..2 {
            for datagram in device.take_sent() {
                for (_, answer) in server.handle(address(1), &datagram) {
                    device.handle(server.now, &answer);
                }
            }
        }
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
fn keys_and_certificates_serve_at_one_place() {
    let pki = Pki::new();
    let engine = EngineSettings { psk: Psk::On, ..pki.server() };
    let mut server = Server::new(&engine, Settings::default());
    let own = pki.client("device 1");
    for (number, mut client) in [
        Client::new(&psk_context("device 1", &key_of(b"device 1").unwrap(), "PSK-AES128-CCM8"), address(1)),
        Client::new(&certificate_context(&pki.authority, Some(&own), "ECDHE-ECDSA-AES128-CCM8"), address(2)),
    ]
    .into_iter()
    .enumerate()
    {
        server.connect(&mut client);
        let Some(Event::Connected { identity, .. }) = server.last_connected() else { panic!() };
        assert_eq!((identity.psk.is_some(), !identity.certificates.is_empty()), (number == 0, number == 1));
    }
}

#[test]
fn certificates_that_are_not_good_are_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let as_server = pki.authority.issue_server(&["device.example"], support::pki::valid()).unwrap();
    for own in [None, Some(other.client("device 1")), Some(as_server)] {
        let mut server = Server::new(&pki.server(), Settings::default());
        let context = certificate_context(&pki.authority, own.as_ref(), "ECDHE-ECDSA-AES128-GCM-SHA256");
        let mut client = Client::new(&context, address(1));
        client.start();
        server.converse(&mut client);
        assert_eq!((failures(&server).len(), server.statistics().sessions), (1, 0), "{own:?}");
        assert!(client.fault.is_some());
    }
}

#[test]
fn who_may_have_no_certificate_may_have_none() {
    let pki = Pki::new();
    for (client_auth, own, expected) in [
        (ClientAuth::Optional, None, 0),
        (ClientAuth::Optional, Some(pki.client("device 1")), 1),
        (ClientAuth::Off, Some(pki.client("device 1")), 0),
    ] {
        let engine = EngineSettings { client_auth, ..pki.server() };
        let mut server = Server::new(&engine, Settings::default());
        let context = certificate_context(&pki.authority, own.as_ref(), "ECDHE-ECDSA-AES128-GCM-SHA256");
        server.connect(&mut Client::new(&context, address(1)));
        let Some(Event::Connected { identity, .. }) = server.last_connected() else { panic!() };
        assert_eq!(identity.certificates.len().min(1), expected);
    }
}

#[test]
fn a_revoked_certificate_is_refused() {
    let pki = Pki::new();
    let (good, bad) = (pki.client("device 1"), pki.client("device 2"));
    let mut engine = pki.server();
    engine.revocation_lists = vec![revocation_list(&pki.authority, &[&bad])];
    let mut server = Server::new(&engine, Settings::default());
    for (number, own, is_good) in [(1, &good, true), (2, &bad, false)] {
        let context = certificate_context(&pki.authority, Some(own), "ECDHE-ECDSA-AES128-GCM-SHA256");
        let mut client = Client::new(&context, address(number));
        client.start();
        server.converse(&mut client);
        assert_eq!(client.fault.is_none(), is_good);
        assert_eq!(server.statistics().sessions, 1);
    }
}

#[test]
fn settings_that_cannot_serve_are_refused_with_the_fault() {
    let (pki, other) = (Pki::new(), Pki::new());
    let good = pki.server();
    let mut mixed = good.clone();
    mixed.certificate.as_mut().unwrap().key = other.server().certificate.unwrap().key;
    let bad_list = vec![revocation_list(&other.authority, &[])];
    for (what, engine, expected) in [
        ("nothing", EngineSettings::default(), Fault::NoCredential),
        ("a key of another", mixed, Fault::KeyMismatch),
        ("no authority", EngineSettings { authorities: Vec::new(), ..good.clone() }, Fault::NoAuthority),
        (
            "a list of another",
            EngineSettings { revocation_lists: bad_list, ..good.clone() },
            Fault::BadRevocationList("it comes from none of the authorities".to_owned()),
        ),
        (
            "no list",
            EngineSettings { revocation_lists: vec![b"text".to_vec()], ..good.clone() },
            Fault::BadRevocationList("there is none".to_owned()),
        ),
    ] {
        assert_eq!(Engine::new(&engine).err(), Some(expected), "{what}");
    }
    for (what, engine) in [
        ("authority", EngineSettings { authorities: vec![b"text".to_vec()], ..good.clone() }),
        ("certificate", with_certificate(&good, |certificate| certificate.chain = b"text".to_vec())),
        ("key", with_certificate(&good, |certificate| certificate.key = b"text".to_vec().into())),
    ] {
        let fault = Engine::new(&engine).err().unwrap().to_string();
        assert!(fault.contains(what), "{fault}");
    }
}

#[test]
fn a_list_that_is_about_a_part_alone_is_refused() {
    use rcgen::{CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope};
    let pki = Pki::new();
    let key = rcgen::KeyPair::from_pem(pki.authority.key().pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(pki.authority.certificate_pem(), key).unwrap();
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2025, 1, 1),
        next_update: rcgen::date_time_ymd(2100, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec!["http://a.example".to_owned()] },
            scope: Some(CrlScope::CaCertsOnly),
        }),
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).unwrap().pem().unwrap().into_bytes();
    let engine = EngineSettings { revocation_lists: vec![list], ..pki.server() };
    let fault = Fault::BadRevocationList("it is about a part of the certificates alone".to_owned());
    assert_eq!(Engine::new(&engine).err(), Some(fault));
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

#[test]
fn another_engine_serves_from_the_next_handshake_on() {
    let mut server = Server::with_psk();
    let mut device = device_at(1);
    let session = server.connect(&mut device);
    let pki = Pki::new();
    server.endpoint.set_engine(std::sync::Arc::new(Engine::new(&pki.server()).unwrap()));
    let mut refused = device_at(2);
    refused.start(server.now);
    server.converse(&mut refused);
    assert!(!refused.is_connected);
    server.connect(&mut Device::new(Options::certificate(pki.client("x")), address(3), server.now));
    server.exchange(&mut device, session);
}

#[test]
fn forged_records_do_not_end_a_handshake_before_there_are_keys() {
    let mut server = Server::with_psk();
    server.answers = false;
    let mut device = device_at(1);
    device.start(server.now);
    for _ in 0..2 {
        for datagram in device.take_sent() {
            for (_, answer) in server.handle(address(1), &datagram) {
                device.handle(server.now, &answer);
            }
        }
    }
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

fn with_certificate(
    settings: &EngineSettings,
    change: impl FnOnce(&mut mgate_dtls::openssl::Certificate),
) -> EngineSettings {
    let mut settings = settings.clone();
    change(settings.certificate.as_mut().unwrap());
    settings
}

fn revocation_list(authority: &Authority, revoked: &[&mgate_certs::Issued]) -> Vec<u8> {
    let at: Timestamp = support::pki::valid().from();
    let revoked: Vec<_> =
        revoked.iter().map(|issued| Revoked { serial: issued.certificate.serial, at }).collect();
    authority.revocation_list(&revoked, 1, support::pki::valid()).unwrap().into_bytes()
}

/// A device whose hello comes whole, and the rest in pieces.
fn whole_hello(options: &Options, server: &Server) -> Device {
    let mut device = Device::new(Options { piece: 1_000, ..options.clone() }, address(1), server.now);
    device.piece_behind_hello = Some(options.piece);
    device
}

fn device(server: &Server, number: u16) -> Device {
    Device::new(Options::psk("device 1"), address(number), server.now)
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
