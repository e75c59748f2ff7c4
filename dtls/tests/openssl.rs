//! Clients of OpenSSL connect, and exchange data, with each suite and each kind of credential.

mod support;

use mgate_dtls::openssl::{ClientAuth, EngineSettings, Psk};
use mgate_dtls::{Event, Settings};

use support::client::{Client, certificate_context, old_context, psk_context, unverified_context};
use support::pki::{Pki, rsa_settings};
use support::{Server, address, key_of};

#[test]
fn a_client_with_a_key_connects() {
    let mut server = Server::with_psk();
    for (number, suite) in (0..).zip(PSK_SUITES) {
        let context = psk_context("device 1", &key_of(b"device 1").unwrap(), suite);
        let mut client = Client::new(&context, address(number));
        let session = server.connect(&mut client);
        assert_eq!(client.suite(), suite);
        let Some(Event::Connected { identity, is_resumed: false, .. }) = server.last_connected() else {
            panic!("{:?}", server.events);
        };
        assert_eq!(identity.psk.as_deref(), Some(&b"device 1"[..]));
        assert!(identity.certificates.is_empty());
        server.exchange(&mut client, session);
    }
}

#[test]
fn a_client_with_a_certificate_connects() {
    let pki = Pki::new();
    let own = pki.client("device 1");
    let mut server = Server::new(&pki.server(), Settings::default());
    for (number, suite) in (0..).zip(ECDSA_SUITES) {
        let context = certificate_context(&pki.authority, Some(&own), suite);
        let mut client = Client::new(&context, address(number));
        let session = server.connect(&mut client);
        assert_eq!(client.suite(), suite);
        let Some(Event::Connected { identity, .. }) = server.last_connected() else {
            panic!("{:?}", server.events);
        };
        let leaf = openssl::x509::X509::from_pem(own.certificate.pem.as_bytes()).unwrap();
        assert_eq!(identity.certificates[0], leaf.to_der().unwrap());
        assert_eq!(identity.psk, None);
        server.exchange(&mut client, session);
    }
}

#[test]
fn a_server_may_have_an_rsa_key() {
    let mut server = Server::new(&rsa_settings(), Settings::default());
    for (number, suite) in (0..).zip(RSA_SUITES) {
        let mut client = Client::new(&unverified_context(suite), address(number));
        let session = server.connect(&mut client);
        assert_eq!(client.suite(), suite);
        server.exchange(&mut client, session);
    }
}

#[test]
fn suites_and_versions_that_are_not_good_enough_are_refused() {
    let pki = Pki::new();
    let engine = EngineSettings { client_auth: ClientAuth::Off, psk: Psk::On, ..pki.server() };
    for (number, suite) in (0..).zip(WEAK_SUITES) {
        let mut server = Server::new(&engine, Settings::default());
        let key = key_of(b"device 1").unwrap();
        let mut client = Client::new(&psk_context("device 1", &key, suite), address(number));
        client.start();
        server.converse(&mut client);
        assert!(client.fault.is_some(), "{suite}");
        assert!(matches!(server.events[..], [Event::Failed { .. }]), "{suite}: {:?}", server.events);
    }
    let mut server = Server::new(&engine, Settings::default());
    let mut client = Client::new(&old_context(), address(1));
    client.start();
    server.converse(&mut client);
    let Some(Event::Failed { fault, .. }) = server.events.last() else { panic!("{:?}", server.events) };
    assert_eq!(fault.to_string(), "unsupported protocol");
}

const PSK_SUITES: [&str; 8] = [
    "ECDHE-PSK-CHACHA20-POLY1305",
    "PSK-AES128-CCM",
    "PSK-AES128-CCM8",
    "PSK-AES128-GCM-SHA256",
    "PSK-AES256-CCM",
    "PSK-AES256-CCM8",
    "PSK-AES256-GCM-SHA384",
    "PSK-CHACHA20-POLY1305",
];

const ECDSA_SUITES: [&str; 7] = [
    "ECDHE-ECDSA-AES128-CCM",
    "ECDHE-ECDSA-AES128-CCM8",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-CCM",
    "ECDHE-ECDSA-AES256-CCM8",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
];

const RSA_SUITES: [&str; 3] =
    ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"];

const WEAK_SUITES: [&str; 4] =
    ["PSK-AES128-CBC-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-PSK-AES128-GCM-SHA256", "AES128-GCM-SHA256"];
