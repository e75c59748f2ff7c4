//! `mgate demo` as somebody meets it who has just built mgate: every command that it prints is run.
#![cfg(feature = "demo")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use support::packets::{self, Version};
use support::peer::Peer;
use support::process::{Lines, Process};
use support::websocket::WebSocket;
use support::{Files, mgate, wait_until};

#[test]
fn every_printed_command_does_what_is_said_of_it() {
    let mut demo = Demo::start(&["--log-level", "info,mgate::packet=debug"]);
    let [listen, allowed, denied, overridden, encrypted, with_certificate, wrong_password] =
        demo.commands_of("mosquitto_");
    let (_alice, heard) = Process::start_with_stdout(&mut shell(&format!("exec {listen}")));
    demo.shown.wait_for("SUBACK");

    assert_eq!(run(&allowed), "");
    heard.wait_for("devices/device-1/data/temperature 21.5");
    demo.shown.wait_for("device-1   publish    devices/device-1/data/temperature    21.5");

    assert!(run(&denied).contains("Not authorized"));
    demo.shown.wait_for(
        "device-1   publish    devices/device-7/data/temperature    DENIED: no policy allows it (acl)",
    );

    assert!(run(&overridden).contains("Not authorized"));
    let by = "alice      publish    devices/device-7/firmware            DENIED by statement \"firmware-only-encrypted\"";
    demo.shown.wait_for(by);

    assert_eq!(run(&encrypted), "");
    heard.wait_for("devices/device-7/firmware v2");

    assert_eq!(run(&with_certificate), "");
    heard.wait_for("devices/device-7/data/temperature 18.0");
    demo.shown.wait_for("device-7   connected  device-7");

    assert!(run(&wrong_password).contains("bad user name or password"));
    demo.shown.wait_for("DENIED: bad credentials");

    assert_eq!(heard.lines().len(), 3, "{}", heard.text());
    demo.stop();
}

#[test]
fn printed_commands_of_coap_do_what_is_said_of_them() {
    let mut demo = Demo::start(&[]);
    let [allowed, denied, by_key, by_certificate] = demo.commands_of("coap-client");
    assert_eq!(run(&allowed).trim(), "");
    demo.shown.wait_for("?          connected ");
    demo.shown.wait_for("?          publish    channels/public/messages             21.5");
    assert!(run(&denied).contains("4.03"));
    demo.shown.wait_for(
        "?          publish    channels/private/messages            DENIED: no policy allows it (acl)",
    );
    for (command, device) in [(by_key, "device-1"), (by_certificate, "device-7")] {
        assert_eq!(run(&command).trim(), "");
        demo.shown.wait_for(&format!("{device}   publish    channels/{device}/messages           21.5"));
    }
    demo.stop();
}

#[test]
fn temporary_files_are_deleted_in_the_end() {
    let mut demo = Json::start(&[]);
    let directory = demo.text("directory");
    assert!(Path::new(&directory).join("acl.toml").exists());
    demo.stop();
    assert!(!Path::new(&directory).exists(), "{directory}");
}

#[test]
fn kept_configuration_is_good_by_itself() {
    let files = Files::new(&[]);
    let directory = files.path("kept");
    for _ in 0..2 {
        let mut demo = Json::start(&["--dir", directory.to_str().unwrap()]);
        demo.stop();
        let configuration = demo.text("configuration");
        let checked = mgate(&["check", "--json", &configuration]).output().unwrap();
        let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
        assert_eq!(checked["routes"].as_array().unwrap().len(), 6, "{checked}");
        assert_eq!(checked["warnings"], Value::Array(Vec::new()), "{checked}");
    }
}

#[test]
fn configuration_of_others_is_refused() {
    let files = Files::new(&[("mgate.toml", "# mine\n")]);
    let file = files.path("mgate.toml");
    let refused = mgate(&["demo", "--dir"]).arg(file.parent().unwrap()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("was not written by `mgate demo`"));
    assert_eq!(fs::read_to_string(file).unwrap(), "# mine\n");
}

#[test]
fn help_names_the_port_of_each_route() {
    let help = mgate(&["demo", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for port in ["1883", "8883", "8083", "8084", "5683", "5684"] {
        assert!(help.contains(port), "{help}");
    }
}

#[test]
fn second_demo_takes_other_ports() {
    let (first, second) = (Json::start(&[]), Json::start(&[]));
    for route in ["mqtt", "mqtts", "ws", "wss", "coap", "coaps"] {
        assert_ne!(first.url(route), second.url(route));
        assert_ne!(second.address(route), first.address(route));
    }
}

#[test]
fn websocket_leads_to_the_broker() {
    for version in [Version::V311, Version::V5] {
        // each with a broker of its own: the client that was there before may not be forgotten yet
        let demo = Json::start(&[]);
        let mut client = Peer::new(WebSocket::dial(demo.address("ws"), "/mqtt", 1000));
        client.send(&packets::connect(version, "device-1").user("device-1", "rabbit").bytes());
        assert_eq!(client.packet()[3], 0);
    }
}

#[test]
fn websocket_over_tls_shows_a_certificate_of_the_authority() {
    let demo = Json::start(&[]);
    let address = demo.address("wss");
    let request = "GET /mqtt HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\
                   Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\
                   Sec-WebSocket-Protocol: mqtt\\r\\n\\r\\n";
    let ca = demo.text("ca");
    let client = format!(
        "printf '{request}' | \
         openssl s_client -quiet -verify_return_error -CAfile {ca} -verify_hostname localhost -connect {address} 2>&1"
    );
    let (_client, said) = Process::start_with_stdout(&mut shell(&client));
    said.wait_for("HTTP/1.1 101 ");
}

/// A demo for people.
struct Demo {
    process: Process,
    _temporary: Files,
    shown: Lines,
}

/// A demo for programs.
struct Json {
    process: Process,
    _temporary: Files,
    places: Value,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let (process, shown, temporary) = start(&["demo"], arguments);
        shown.wait_for("until Ctrl-C");
        Self { process, _temporary: temporary, shown }
    }

    /// The commands that it prints to try and that begin like this, each on one line.
    fn commands_of<const COUNT: usize>(&self, program: &str) -> [String; COUNT] {
        let text = self.shown.text().replace("\\\n", "");
        let commands: Vec<_> = text
            .lines()
            .filter(|line| line.trim_start().starts_with(program))
            .map(|line| line.trim().into())
            .collect();
        commands.try_into().unwrap()
    }

    fn stop(&mut self) {
        self.process.terminate();
        assert!(self.process.wait().success());
        self.shown.wait_for("stopped");
    }
}

impl Json {
    fn start(arguments: &[&str]) -> Self {
        let (process, lines, temporary) = start(&["demo", "--json", "--log-level", "warn"], arguments);
        wait_until("the demo says where it is", || !lines.lines().is_empty());
        let places = serde_json::from_str(&lines.lines()[0]).unwrap();
        Self { process, _temporary: temporary, places }
    }

    fn text(&self, key: &str) -> String {
        self.places[key].as_str().unwrap().into()
    }

    fn url(&self, route: &str) -> &str {
        self.places["endpoints"][route].as_str().unwrap()
    }

    fn address(&self, route: &str) -> SocketAddr {
        self.url(route).split('/').nth(2).unwrap().parse().unwrap()
    }

    fn stop(&mut self) {
        self.process.terminate();
        assert!(self.process.wait().success());
    }
}

/// Starts the program; its temporary files go with the test even if it is killed.
fn start(command: &[&str], arguments: &[&str]) -> (Process, Lines, Files) {
    let temporary = Files::new(&[]);
    let mut mgate = mgate(command);
    let (process, lines) =
        Process::start_with_stdout(mgate.args(arguments).env("TMPDIR", temporary.path("")));
    (process, lines, temporary)
}

/// Runs a command to its end; returns what it says.
fn run(command: &str) -> String {
    let output = shell(command).stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

/// A command line as a person enters it.
fn shell(command: &str) -> Command {
    let program = command.trim_start_matches("exec ").split(' ').next().unwrap();
    let package = match program.split_once(['_', '-']) {
        Some(("mosquitto", _)) => Some("mosquitto-clients"),
        Some(("coap", _)) => Some("libcoap3-bin"),
        _ => None,
    };
    if let Some(package) = package {
        let found = Command::new(program).arg("--help").output();
        assert!(found.is_ok(), "{program} is not installed: install the package {package}");
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", command]);
    shell
}
