//! Clients of libcoap, tinydtls, Mbed TLS and OpenSSL.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::UNIX_EPOCH;

use mgate_certs::{Existing, Store, Validity};
use mgate_policies::Now;

use crate::support::broker::python;
use crate::support::coap::{CoapServer, coap_client_with, said_by};
use crate::support::process::Process;
use crate::support::{Mgate, wait_until};
use crate::{ACL, KEY, assert_no_key, files, get, hex, url, with_keys};

#[test]
fn who_has_the_key_is_who_its_identity_says() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &with_keys(server.port, ""));
    for library in ["openssl", "gnutls"] {
        let say = |identity: &str, key: &str, arguments: &[&str]| {
            let url = url(&mgate, "/dynamic");
            let all = [&["-u", identity, "-k", key, "-B", "3"], arguments, &[url.as_str()]].concat();
            said_by(&mut coap_client_with(library, &all))
        };
        assert_eq!(say("dev-1", KEY, &["-m", "put", "-e", library]), "", "{library}");
        assert_eq!(say("dev-1", KEY, &[]), library);
        assert!(say("dev-2", KEY, &[]).starts_with("4.03"), "{library}: dev-2 may do nothing");
        for (identity, key) in [("dev-1", "fedcba9876543210"), ("dev-3", KEY)] {
            let said = say(identity, key, &["-m", "put", "-e", "wrong"]);
            assert!(!said.contains("4.") && !said.contains("2."), "{library} {identity}: {said}");
        }
        assert_eq!(say("dev-1", KEY, &[]), library);
    }
    assert_no_key(&mgate.log.text());
}

#[test]
fn small_libraries_speak_with_it_too() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &with_keys(server.port, "").replace("127.0.0.1:0", "[::]:0"));
    let port = mgate.address().port().to_string();
    for (library, host) in [("tinydtls", "::ffff:127.0.0.1"), ("mbedtls", "127.0.0.1")] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/dtls_peers.py");
        let arguments = [script, library, host, &port, "dev-1", &hex(KEY.as_bytes())];
        let messages = [get(1, "time"), get(2, "secret")].map(|message| hex(&message));
        let output = python().args(arguments).args(&messages).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<_> = said.lines().collect();
        let failure = String::from_utf8_lossy(&output.stderr);
        assert!(lines.len() == 2 && lines[0].starts_with("60450001"), "{library}: {said}{failure}");
        assert_eq!(lines[1], "60830002", "{library}");
    }
}

#[test]
fn who_shows_a_certificate_is_who_that_says_beside_those_with_keys() {
    let (files, server) = (files().with_certificates(), CoapServer::start());
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key', client_ca = 'ca.pem' }\n";
    let config = with_keys(server.port, tls).replace("['keys']", "['keys', 'certs']");
    let mgate = Mgate::start(&files, &format!("{config}[authn.certs]\ntype = 'x509'\n"));
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let [ca, certificate, key] = ["ca.pem", "dev-1.pem", "dev-1.key"].map(path);
    for library in ["openssl", "gnutls"] {
        let say = |arguments: &[&str]| {
            let url = format!("coaps://localhost:{}/dynamic", mgate.address().port());
            said_by(&mut coap_client_with(library, &[arguments, &["-B", "3", &url]].concat()))
        };
        let shown = ["-c", &certificate, "-j", &key, "-R", &ca];
        assert_eq!(say(&[&shown[..], &["-m", "put", "-e", library]].concat()), "", "{library}");
        assert_eq!(say(&shown), library);
        assert_eq!(say(&["-u", "dev-1", "-k", KEY]), library);
        let nothing_shown = say(&["-R", &ca]);
        assert!(!nothing_shown.contains(library), "{library} without a certificate: {nothing_shown}");
    }
}

#[test]
fn handshakes_take_what_was_read_again_and_revoked_certificates_are_refused() {
    let (files, server) = (files().with_certificates(), CoapServer::start());
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key', client_ca = 'ca.pem', client_crl = 'crl.pem' }\n";
    let config = with_keys(server.port, tls).replace("['keys']", "['certs']");
    let valid = Validity::days(UNIX_EPOCH + Now::read().unix, 1).unwrap();
    let mut store = Store::open(files.path("ca.pem").parent().unwrap()).unwrap();
    store.write_revocation_list(valid).unwrap();
    let mgate = Mgate::start(&files, &format!("{config}[authn.certs]\ntype = 'x509'\n"));
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let [ca, certificate, key] = ["ca.pem", "dev-1.pem", "dev-1.key"].map(path);
    let url = format!("coaps://localhost:{}/dynamic", mgate.address().port());
    let shown = ["-c", &certificate, "-j", &key, "-R", &ca, "-B", "3"];
    let say = |arguments: &[&str]| {
        said_by(&mut coap_client_with("openssl", &[&shown[..], arguments, &[url.as_str()]].concat()))
    };
    assert_eq!(say(&["-m", "put", "-e", "hello"]), "");
    assert_eq!(say(&[]), "hello");
    store.revoke("dev-1", UNIX_EPOCH + Now::read().unix).unwrap();
    store.write_revocation_list(valid).unwrap();
    mgate.reload();
    assert_ne!(say(&[]), "hello", "a revoked certificate opens nothing");
    store.issue_client("dev-1", &[], valid, Existing::Replace).unwrap();
    assert_eq!(say(&[]), "hello", "a new one does");
}

#[test]
fn observer_is_told_of_changes_until_its_right_is_withdrawn() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &with_keys(server.port, ""));
    let url = url(&mgate, "/time");
    for library in ["openssl", "gnutls"] {
        let arguments = ["-u", "dev-1", "-k", KEY, "-w", "-s", "60", "-B", "60", &url];
        let (_observer, heard) = Process::start_with_stdout(&mut coap_client_with(library, &arguments));
        wait_until("three times were told", || {
            heard.lines().iter().filter(|line| line.contains(':')).count() > 2
        });
        files.write("acl.toml", &ACL.replace("'request', 'observe'", "'request'"));
        let denials = mgate.log.count("\"action\":\"observe\"");
        mgate.reload();
        wait_until("the observation is denied", || mgate.log.count("\"action\":\"observe\"") > denials);
        files.write("acl.toml", ACL);
        mgate.reload();
    }
}

#[test]
fn bodies_in_blocks_pass_both_ways() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &with_keys(server.port, ""));
    let body: String = (0..900).map(|number| format!("{number:04}\n")).collect();
    let (file, url) = (files.write("body", &body), url(&mgate, "/dynamic"));
    for library in ["openssl", "gnutls"] {
        let say = |arguments: &[&str]| {
            let all = [&["-u", "dev-1", "-k", KEY], arguments, &[url.as_str()]].concat();
            said_by(&mut coap_client_with(library, &all))
        };
        assert_eq!(say(&["-m", "put", "-b", "256", "-f", file.to_str().unwrap()]), "", "{library}");
        assert_eq!(say(&["-b", "512"]).trim(), body.trim(), "{library}");
    }
}

#[test]
fn openssl_goes_on_with_an_earlier_session() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &with_keys(server.port, ""));
    let session = files.path("session").to_str().unwrap().to_owned();
    let shake = |option: &str| {
        let (address, key) = (mgate.address().to_string(), hex(KEY.as_bytes()));
        let mut command = Command::new("openssl");
        command.args(["s_client", "-dtls1_2", "-connect", &address, "-psk_identity", "dev-1", "-psk", &key]);
        let command = command.args(["-cipher", "PSK", option, &session]);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = pipes.spawn().unwrap();
        let before = mgate.log.count("session opened");
        child.stdin.as_mut().unwrap().write_all(&get(1, "time")).unwrap();
        wait_until("the session is open", || mgate.log.count("session opened") > before);
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(shake("-sess_out").contains("New, TLSv1.2, Cipher is"));
    assert!(shake("-sess_in").contains("Reused, TLSv1.2, Cipher is"));
}
