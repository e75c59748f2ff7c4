//! What sessions go through: connection ids, restarts, resumption, goodbye, and whatever others may try.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mgate_certs::Issued;
use mgate_dtls::openssl::{Engine, EngineSettings, Resumption};
use mgate_dtls::{
    CloseReason, ContentType, DtlsEndpoint, Event, HandshakeFault, Identity, Refusal, SendFault, SessionId,
    Settings, records, shard_of,
};

use support::device::{Device, Options, plain_record};
use support::pki::{Below, Pki, wait_until};
use support::{Server, address, psk};

#[test]
fn a_device_connects_with_and_without_connection_ids() {
    let mut server = Server::with_psk();
    for (number, cid) in (0..).zip([None, Some(&b""[..]), Some(b"mine"), Some(&[7; 20])]) {
        let mut options = Options::psk("device 1");
        options.cid = cid.map(<[u8]>::to_vec);
        let mut device = Device::new(options, address(number), server.now);
        let session = server.connect(&mut device);
        assert_eq!(device.server_cid.len(), if cid.is_some() { 8 } else { 0 });
        server.exchange(&mut device, session);
    }
}

#[test]
fn connection_ids_name_their_endpoint_and_no_two_sessions() {
    let mut server = Server::new(&psk(), Settings { shard: 5, ..Settings::default() });
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..20 {
        let (mut device, _) = with_cid(&mut server, number);
        assert_eq!(device.server_cid[0], 5);
        let datagram = device.seal(ContentType::ApplicationData, b"data");
        assert_eq!(shard_of(&datagram, 8), Some(5));
        assert!(seen.insert(device.server_cid));
    }
    assert_eq!(shard_of(&plain_record(ContentType::Handshake, 0, &[1]), 8), None);
    assert_eq!(shard_of(&[25], 8), None);
}

#[test]
fn connection_ids_are_not_given_out_where_they_have_no_bytes() {
    let mut server = Server::new(&psk(), Settings { cid_length: 0, ..Settings::default() });
    let (mut device, session) = with_cid(&mut server, 1);
    assert!(device.server_cid.is_empty());
    server.exchange(&mut device, session);
}

#[test]
fn a_record_without_the_connection_id_that_was_agreed_on_is_dropped() {
    let mut server = Server::with_psk();
    let (mut device, session) = with_cid(&mut server, 1);
    let cid = std::mem::take(&mut device.server_cid);
    let bare = device.seal(ContentType::ApplicationData, b"bare");
    assert!(server.handle(device.address, &bare).is_empty());
    assert!(server.data.is_empty());
    assert_eq!(server.statistics().records_stray, 1);
    device.server_cid = cid;
    server.exchange(&mut device, session);
}

#[test]
fn a_session_moves_with_a_newer_authentic_record_only() {
    let mut server = Server::with_psk();
    let (mut device, session) = with_cid(&mut server, 1);
    let older = device.seal(ContentType::ApplicationData, b"older");
    let mut forged = device.seal(ContentType::ApplicationData, b"forged");
    let newer = device.seal(ContentType::ApplicationData, b"newer");
    *forged.last_mut().unwrap() ^= 1;
    server.handle(address(2), &forged);
    assert_eq!(moves(&server), []);
    server.handle(address(3), &newer);
    assert_eq!(moves(&server), [address(3)]);
    server.handle(address(4), &older);
    server.handle(address(5), &newer);
    assert_eq!(moves(&server), [address(3)]);
    assert_eq!(server.data, [(session, b"newer".to_vec()), (session, b"older".to_vec())]);
    assert_eq!(server.send(session, b"answer")[0].0, address(3));
    device.address = address(3);
    server.exchange(&mut device, session);
}

#[test]
fn a_session_without_connection_id_does_not_move() {
    let mut server = Server::with_psk();
    let (mut device, session) = plain(&mut server, 1);
    let datagram = device.seal(ContentType::ApplicationData, b"data");
    server.handle(address(2), &datagram);
    assert!(server.data.is_empty());
    assert_eq!(server.statistics().records_stray, 1);
    server.exchange(&mut device, session);
}

#[test]
fn a_session_that_moves_takes_no_other_ones_place() {
    let mut server = Server::with_psk();
    let (mut victim, victims) = plain(&mut server, 1);
    let (mut device, session) = with_cid(&mut server, 2);
    let datagram = device.seal(ContentType::ApplicationData, b"data");
    server.handle(victim.address, &datagram);
    assert_eq!(moves(&server), [victim.address]);
    server.exchange(&mut victim, victims);
    device.address = victim.address;
    server.exchange(&mut device, session);
}

#[test]
fn replayed_records_are_dropped() {
    let mut server = Server::with_psk();
    for cid in [None, Some(&b"id"[..])] {
        let mut options = Options::psk("device 1");
        options.cid = cid.map(<[u8]>::to_vec);
        let mut device = Device::new(options, address(1), server.now);
        server.connect(&mut device);
        server.data.clear();
        let before = server.statistics().records_replayed;
        let first = device.seal(ContentType::ApplicationData, b"first");
        let second = device.seal(ContentType::ApplicationData, b"second");
        for datagram in [&second, &first, &first, &second] {
            server.handle(device.address, datagram);
        }
        assert_eq!(server.data.len(), 2);
        assert_eq!(server.statistics().records_replayed, before + 2);
    }
}

#[test]
fn forged_records_change_nothing_and_are_counted() {
    for cid in [None, Some(&b"id"[..])] {
        let mut server = Server::with_psk();
        let mut options = Options::psk("device 1");
        options.cid = cid.map(<[u8]>::to_vec);
        let mut device = Device::new(options, address(1), server.now);
        let session = server.connect(&mut device);
        let events = server.events.len();
        let genuine = device.seal(ContentType::ApplicationData, b"genuine");
        let head = genuine.len() - 8 - 7 - 8 - usize::from(cid.is_some());
        let mut forged = 0;
        for length in 0..16 {
            // bodies that are too short for a nonce and a tag
            let body: Vec<u8> = (0..length).collect();
            let mut datagram = genuine[..head - 2].to_vec();
            datagram.extend([0, length]);
            datagram.extend(body);
            forged += 1;
            assert!(server.handle(device.address, &datagram).is_empty());
            assert_eq!(server.statistics().records_forged, forged, "{length} bytes");
        }
        for at in head..genuine.len() {
            let mut datagram = genuine.clone();
            datagram[at] ^= 1;
            forged += 1;
            assert!(server.handle(device.address, &datagram).is_empty());
            assert_eq!(server.statistics().records_forged, forged, "byte {at}");
        }
        for epoch in [0, 2, 0xffff_u16] {
            let mut datagram = genuine.clone();
            datagram[3..5].copy_from_slice(&epoch.to_be_bytes());
            assert!(server.handle(device.address, &datagram).is_empty());
        }
        for content_type in [ContentType::Alert, ContentType::Handshake, ContentType::ChangeCipherSpec] {
            for body in [&[2, 40][..], &[1, 0], &[1], &[], &[20, 0, 0, 12]] {
                assert!(server.handle(device.address, &plain_record(content_type, 9, body)).is_empty());
            }
        }
        assert_eq!(server.events.len(), events);
        server.handle(device.address, &genuine);
        assert_eq!(server.data.pop(), Some((session, b"genuine".to_vec())));
        server.exchange(&mut device, session);
    }
}

#[test]
fn a_client_that_begins_anew_replaces_its_session_only_when_it_is_done() {
    let mut server = Server::with_psk();
    for cid in [None, Some(&b"id"[..])] {
        let mut options = Options::psk("device 1");
        options.cid = cid.map(<[u8]>::to_vec);
        let mut before = Device::new(options.clone(), address(1), server.now);
        let old = server.connect(&mut before);
        let mut after = Device::new(options, address(1), server.now);
        after.start(server.now);
        for _ in 0..2 {
            for datagram in after.take_sent() {
                for (_, answer) in server.handle(address(1), &datagram) {
                    after.handle(server.now, &answer);
                }
            }
            assert_eq!(server.statistics().sessions, 1);
            server.exchange(&mut before, old);
        }
        server.converse(&mut after);
        let closed = Event::Closed { session: old, reason: CloseReason::Replaced };
        assert!(server.events.contains(&closed), "{:?}", server.events);
        assert_eq!(server.statistics().sessions, 1);
        let new = session_of(&server);
        server.exchange(&mut after, new);
        assert_eq!(
            server.endpoint.send(server.now, old, b"late", &mut Default::default()),
            Err(SendFault::UnknownSession)
        );
    }
}

#[test]
fn a_sleeping_session_outlives_another_client_at_its_address() {
    let mut server = Server::with_psk();
    let (mut sleeper, session) = with_cid(&mut server, 1);
    let mut other = Device::new(Options::psk("device 2"), address(1), server.now);
    let others = server.connect(&mut other);
    assert_eq!(server.statistics().sessions, 2);
    server.exchange(&mut other, others);
    sleeper.address = address(2);
    server.exchange(&mut sleeper, session);
}

#[test]
fn goodbyes_are_said_and_answered() {
    let mut server = Server::with_psk();
    let (mut device, session) = plain(&mut server, 1);
    let goodbye = device.seal(ContentType::Alert, &[1, 0]);
    for (_, answer) in server.handle(device.address, &goodbye) {
        device.handle(server.now, &answer);
    }
    assert_eq!(device.alerts, [[1, 0]]);
    assert_eq!(server.events.last(), Some(&Event::Closed { session, reason: CloseReason::CloseNotify }));
    let (mut device, session) = with_cid(&mut server, 1);
    let events = server.events.len();
    for (_, datagram) in server.close(session) {
        device.handle(server.now, &datagram);
    }
    assert_eq!(device.alerts, [[1, 0]]);
    assert_eq!(server.events.len(), events);
    assert_eq!(server.statistics().sessions, 0);
    assert!(server.close(session).is_empty());
}

#[test]
fn a_fatal_alert_ends_a_session_and_a_warning_does_not() {
    let mut server = Server::with_psk();
    let (mut device, session) = plain(&mut server, 1);
    let warning = device.seal(ContentType::Alert, &[1, 90]);
    assert!(server.handle(device.address, &warning).is_empty());
    server.exchange(&mut device, session);
    let alert = device.seal(ContentType::Alert, &[2, 80]);
    assert!(server.handle(device.address, &alert).is_empty());
    assert_eq!(server.events.last(), Some(&Event::Closed { session, reason: CloseReason::Alert(80) }));
}

#[test]
fn renegotiation_is_refused() {
    let mut server = Server::with_psk();
    let (mut device, session) = plain(&mut server, 1);
    let hello = device.seal(ContentType::Handshake, &[1, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]);
    for (_, answer) in server.handle(device.address, &hello) {
        device.handle(server.now, &answer);
    }
    assert_eq!(device.alerts, [[1, 100]]);
    server.exchange(&mut device, session);
}

#[test]
fn sessions_are_bounded() {
    let mut server = Server::new(&psk(), Settings { max_sessions: 2, ..Settings::default() });
    let (_, first) = plain(&mut server, 1);
    plain(&mut server, 2);
    let mut third = Device::new(Options::psk("device 3"), address(3), server.now);
    third.start(server.now);
    server.converse(&mut third);
    assert!(!third.is_connected);
    assert_eq!((server.statistics().sessions, server.statistics().handshakes_refused), (2, 1));
    server.close(first);
    plain(&mut server, 3);
}

#[test]
fn a_session_is_resumed_by_ticket_and_by_id_and_its_identity_is_known() {
    let pki = Pki::new();
    let own = pki.client("device 1");
    let credentials = [(psk(), Options::psk("device 1")), (pki.server(), Options::certificate(own))];
    for (engine, options) in credentials {
        for takes_tickets in [false, true] {
            for cid in [None, Some(b"id".to_vec())] {
                let mut server = Server::new(&engine, Settings::default());
                let options = Options { cid, takes_tickets, ..options.clone() };
                let mut device = Device::new(options.clone(), address(1), server.now);
                server.connect(&mut device);
                let before = identity_of(&server);
                assert!(before.psk.is_some() != (before.certificates.len() == 1));
                // one with a certificate in it would make the next hello too long
                assert_eq!(device.has_ticket(), takes_tickets && before.psk.is_some());
                server.answers = false;
                let earlier = Some(device.earlier());
                let mut device = Device::new(Options { earlier, ..options }, address(2), server.now);
                let session = server.connect(&mut device);
                assert!(device.is_resumed);
                let Some(Event::Connected { identity, is_resumed: true, .. }) = server.last_connected()
                else {
                    panic!("{:?}", server.events);
                };
                assert_eq!(*identity, before);
                server.exchange(&mut device, session);
            }
        }
    }
}

#[test]
fn a_session_that_is_resumed_has_all_certificates_of_its_client() {
    let below = Below::new();
    let mut server = Server::new(&below.server(), Settings::default());
    let options = Options::certificate(below.client("device 1"));
    let mut device = Device::new(options.clone(), address(1), server.now);
    server.connect(&mut device);
    let before = identity_of(&server);
    assert_eq!(before.certificates.len(), 2, "its own, and that of who signed it");
    let earlier = Some(device.earlier());
    let mut device = Device::new(Options { earlier, ..options }, address(2), server.now);
    server.connect(&mut device);
    assert!(device.is_resumed);
    assert_eq!(identity_of(&server), before);
}

#[test]
fn the_keys_of_tickets_are_renewed() {
    let mut server = Server::with_psk();
    let options = Options { takes_tickets: true, ..Options::psk("device 1") };
    let mut device = Device::new(options.clone(), address(1), server.now);
    server.connect(&mut device);
    let earlier = Some(device.earlier());
    for (hours, is_resumed) in [(1, true), (24, false)] {
        server.pass(Duration::from_secs(hours * 60 * 60));
        let options = Options { earlier: earlier.clone(), ..options.clone() };
        let mut device = Device::new(options, address(2), server.now);
        server.connect(&mut device);
        assert_eq!(device.is_resumed, is_resumed, "after {hours} hours");
    }
}

#[test]
fn another_engine_knows_no_earlier_session() {
    for takes_tickets in [false, true] {
        let mut server = Server::with_psk();
        let options = Options { takes_tickets, ..Options::psk("device 1") };
        let mut device = Device::new(options.clone(), address(1), server.now);
        server.connect(&mut device);
        server.endpoint.set_engine(Arc::new(Engine::new(&psk()).unwrap()));
        let earlier = Some(device.earlier());
        let mut device = Device::new(Options { earlier, ..options }, address(2), server.now);
        server.connect(&mut device);
        assert!(!device.is_resumed);
    }
}

#[test]
fn a_session_whose_certificate_has_expired_is_not_resumed() {
    let (pki, below) = (Pki::new(), Below::new());
    let own = |time| pki.client_for("device 1", time);
    let of_authority = |time| below.client_for("device 1", time);
    for (takes_tickets, engine, issue) in [
        (false, pki.server(), &own as &dyn Fn(Duration) -> (Issued, SystemTime)),
        (true, pki.server(), &own),
        (false, below.server(), &of_authority),
    ] {
        let mut server = Server::new(&engine, Settings::default());
        let (mut device, end) = connect_with_short_certificate(issue, &mut server, takes_tickets);
        wait_until(end);
        let earlier = Some(device.earlier());
        device = Device::new(Options { earlier, ..device.options }, address(2), server.now);
        device.start(server.now);
        server.converse(&mut device);
        assert!(!device.is_resumed && !device.is_connected);
        let refused = HandshakeFault::Refused(Refusal("certificate verify failed".to_owned()));
        assert!(
            matches!(server.events.last(), Some(Event::Failed { fault, .. }) if *fault == refused),
            "{:?}",
            server.events
        );
    }
}

#[test]
fn without_resumption_clients_begin_anew() {
    let engine = EngineSettings { resumption: Resumption::Off, ..psk() };
    for takes_tickets in [false, true] {
        let mut server = Server::new(&engine, Settings::default());
        let options = Options { takes_tickets, ..Options::psk("device 1") };
        let mut device = Device::new(options.clone(), address(1), server.now);
        server.connect(&mut device);
        let earlier = Some(device.earlier());
        let mut device = Device::new(Options { earlier, ..options }, address(2), server.now);
        server.connect(&mut device);
        assert!(!device.is_resumed);
    }
}

#[test]
fn a_finished_that_comes_often_or_from_elsewhere_is_no_amplifier() {
    let mut server = Server::with_psk();
    let (mut device, _) = with_cid(&mut server, 1);
    server.sent.clear();
    for _ in 0..100 {
        let finished = device.seal(ContentType::Handshake, &[20]);
        server.handle(address(2), &finished);
        server.pass(Duration::from_millis(10));
    }
    assert_eq!(moves(&server), [address(2)]);
    assert!((1..=10).contains(&server.sent.len()), "{} answers in a second", server.sent.len());
    assert!(server.sent.iter().all(|(to, _)| *to == address(1)), "only there, the client has shown to be");
}

#[test]
fn no_number_of_a_record_is_used_twice() {
    let mut server = Server::with_psk();
    let mut device = Device::new(Options::psk("device 1"), address(1), server.now);
    let session = server.connect(&mut device);
    for _ in 0..5 {
        server.exchange(&mut device, session);
        // it lost the server's Finished, and repeats its own flight
        server.pass(Duration::from_millis(100));
        device.send_flight();
        server.converse(&mut device);
    }
    let sent = server.sent.iter().flat_map(|(_, datagram)| records(datagram, 0).collect::<Vec<_>>());
    let mut numbers: Vec<_> = sent.filter(|record| record.epoch == 1).map(|record| record.sequence).collect();
    assert_eq!(numbers.len(), 1 + 5 + 5);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 1 + 5 + 5);
}

/// Connects a device whose certificate ends as soon as the machine is fast enough for; and when that is.
fn connect_with_short_certificate(
    issue: &dyn Fn(Duration) -> (Issued, SystemTime),
    server: &mut Server,
    takes_tickets: bool,
) -> (Device, SystemTime) {
    for seconds in [1, 2, 4, 8, 16] {
        let (own, end) = issue(Duration::from_secs(seconds));
        let options = Options { takes_tickets, ..Options::certificate(own) };
        let mut device = Device::new(options, address(1), server.now);
        device.start(server.now);
        server.converse(&mut device);
        if device.is_connected {
            return (device, end);
        }
    }
    panic!("{:?}", server.events);
}

fn plain(server: &mut Server, number: u16) -> (Device, SessionId) {
    let mut device = Device::new(Options::psk("device 1"), address(number), server.now);
    let session = server.connect(&mut device);
    (device, session)
}

fn with_cid(server: &mut Server, number: u16) -> (Device, SessionId) {
    let mut device = Device::new(Options::psk("device 1").with_cid(b"id"), address(number), server.now);
    let session = server.connect(&mut device);
    (device, session)
}

fn moves(server: &Server) -> Vec<std::net::SocketAddr> {
    let moved = |event: &Event| match event {
        Event::Moved { address, .. } => Some(*address),
        _ => None,
    };
    server.events.iter().filter_map(moved).collect()
}

fn identity_of(server: &Server) -> Identity {
    match server.last_connected() {
        Some(Event::Connected { identity, .. }) => identity.clone(),
        _ => panic!("{:?}", server.events),
    }
}

fn session_of(server: &Server) -> SessionId {
    match server.last_connected() {
        Some(Event::Connected { session, .. }) => *session,
        _ => panic!("{:?}", server.events),
    }
}
