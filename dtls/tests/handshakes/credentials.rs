//! Keys and certificates: who is let in, and what settings are refused.

use std::time::Duration;

use mgate_certs::{Authority, Revoked, Timestamp};
use mgate_dtls::openssl::{ClientAuth, Engine, EngineSettings, Fault, Psk};
use mgate_dtls::{DtlsEndpoint, Event, HandshakeFault, Refusal, Settings};

use crate::support::client::{Client, certificate_context, psk_context};
use crate::support::device::{Credential, Device, Options};
use crate::support::pki::{Pki, valid};
use crate::support::{Server, address, key_of, psk};
use crate::{device_at, failures, wanted};

#[test]
fn a_wrong_key_and_an_unknown_identity_look_the_same() {
    let mut server = Server::with_psk();
    let mut said = Vec::new();
    for identity in ["device 1", "nobody"] {
        let mut options = Options::psk(identity);
        options.credential =
            Credential::Psk { identity: identity.as_bytes().to_vec(), key: b"guessed".to_vec() };
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
        options.credential = Credential::Psk { identity: identity.to_vec(), key: b"key".to_vec() };
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
fn who_has_what_the_other_one_cannot_use_is_refused_at_once() {
    let pki = Pki::new();
    for (engine, options) in
        [(pki.server(), Options::psk("device 1")), (psk(), Options::certificate(pki.client("device 1")))]
    {
        let mut server = Server::new(&engine, Settings::default());
        let mut device = Device::new(options, address(1), server.now);
        device.start(server.now);
        server.converse(&mut device);
        assert_eq!(device.alerts, [[2, 40]]);
        assert_eq!(failures(&server), [HandshakeFault::Refused(Refusal("no shared cipher".to_owned()))]);
        assert!(!server.events.iter().any(|event| matches!(event, Event::KeyWanted { .. })));
        assert_eq!(server.statistics().handshakes_pending, 0);
    }
}

#[test]
fn certificates_that_are_not_good_are_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let as_server = pki.authority.issue_server(&["device.example"], valid()).unwrap();
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

fn with_certificate(
    settings: &EngineSettings,
    change: impl FnOnce(&mut mgate_dtls::openssl::Certificate),
) -> EngineSettings {
    let mut settings = settings.clone();
    change(settings.certificate.as_mut().unwrap());
    settings
}

fn revocation_list(authority: &Authority, revoked: &[&mgate_certs::Issued]) -> Vec<u8> {
    let at: Timestamp = valid().from();
    let revoked: Vec<_> =
        revoked.iter().map(|issued| Revoked { serial: issued.certificate.serial, at }).collect();
    authority.revocation_list(&revoked, 1, valid()).unwrap().into_bytes()
}
