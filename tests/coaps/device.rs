//! The program in `examples/coaps_device`.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use coap_lite::{CoapOption, ContentFormat, MessageType, Packet};
use serde_json::Value;

use crate::support::coap::{receive_from, upstream};
use crate::support::process::{Lines, Process};
use crate::support::{Files, Mgate, local_address, manifest, wait_until};
use crate::{KEY, hex, port_of};

#[test]
fn example_device_publishes_to_its_channel() {
    let files = files().with_certificates();
    let mut config = fs::read_to_string(manifest("examples/coaps_device/mgate.toml")).unwrap();
    config = config.replace("127.0.0.1:5684", "127.0.0.1:0").replace("../readings.toml", "readings.toml");
    let tls =
        "tls = { cert = 'localhost.pem', key = 'localhost.key', client_ca = 'ca.pem' }\n[authn.certs]\n";
    config = config.replacen("[authn.keys]", &format!("{tls}type = 'x509'\n[authn.keys]"), 1);
    let mgate = Mgate::start(&files, &config.replace("[\"keys\"]", "['keys', 'certs']"));
    for credential in [&["--psk", "devices.psk"][..], &["--certificate", "dev-1.pem", "dev-1.key", "ca.pem"]]
    {
        let before = mgate.log.count("uptime");
        let (mut device, said) = start(&files, &mgate, &[credential, &["--count", "2"]].concat());
        assert!(device.wait().success(), "{}", said.text());
        assert_eq!(said.lines(), ["answered: 2.04", "answered: 2.04"]);
        mgate.log.wait_for_times("uptime", before + 2);
    }
    let (mut device, said) = start(&files, &mgate, &["--psk", "devices.psk", "--count", "1", "--observe"]);
    assert!(device.wait().success());
    assert_eq!(said.lines(), ["observing: 4.05", "answered: 2.04"], "there is nothing to hear");
}

#[test]
fn example_device_sends_again_what_nobody_answered_and_hears_what_it_observes() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &with_upstream(0, &upstream));
    let (mut device, said) = start(&files, &mgate, &["--psk", "devices.psk", "--count", "1", "--observe"]);
    let (observe, way) = receive(&upstream);
    assert_eq!(observe.get_observe_value(), Some(Ok(0)));
    answer(&upstream, way, &observe, "2.05", |answer| answer.set_observe_value(1));
    let (first, _) = receive(&upstream);
    let (again, way) = receive(&upstream);
    assert_eq!(again.to_bytes(), first.to_bytes());
    assert_eq!(first.get_content_format(), Some(ContentFormat::ApplicationSenmlJSON));
    let reading = &serde_json::from_slice::<Value>(&first.payload).unwrap()[0];
    assert_eq!([&reading["n"], &reading["u"]], ["uptime", "s"]);
    assert!(
        reading["v"].is_number() && reading["t"].as_u64().unwrap() > 1 << 28,
        "RFC 8428 §4.5.3: {reading}"
    );
    // a notification comes first, and the answer by itself
    let mut told = Packet::new();
    told.header.set_type(MessageType::Confirmable);
    told.header.set_code("2.05");
    told.header.message_id = 0x1234;
    told.set_token(observe.get_token().to_vec());
    told.set_observe_value(2);
    told.payload = b"news".to_vec();
    upstream.send_to(&told.to_bytes().unwrap(), way).unwrap();
    assert_eq!(receive_from(&upstream).0, [0x60, 0, 0x12, 0x34]);
    // one that was overtaken says nothing any more
    told.header.message_id = 0x1235;
    told.set_observe_value(1);
    told.payload = b"old news".to_vec();
    upstream.send_to(&told.to_bytes().unwrap(), way).unwrap();
    assert_eq!(receive_from(&upstream).0, [0x60, 0, 0x12, 0x35]);
    let [high, low] = first.header.message_id.to_be_bytes();
    upstream.send_to(&[0x60, 0, high, low], way).unwrap();
    answer(&upstream, way, &first, "2.04", |answer| {
        answer.header.set_type(MessageType::Confirmable);
        answer.header.message_id = 0x5678;
    });
    assert_eq!(receive(&upstream).0.header.message_id, 0x5678);
    assert!(device.wait().success(), "{}", said.text());
    assert_eq!(said.lines(), ["observing: 2.05", "heard: 2.05 news", "answered: 2.04"]);
}

#[test]
fn example_device_goes_on_when_its_gateway_is_back() {
    let (files, upstream) = (files(), upstream());
    // where nothing else is bound while mgate is away
    let port = local_address().port();
    let mut mgate = Mgate::start(&files, &with_upstream(port, &upstream));
    let (mut device, said) = start(&files, &mgate, &["--psk", "devices.psk", "--count", "2"]);
    let (first, way) = receive(&upstream);
    answer(&upstream, way, &first, "2.04", |_| ());
    let (unanswered, _) = receive(&upstream);
    assert!(device.is_running());
    mgate.terminate();
    assert!(mgate.wait().success());
    let _mgate = Mgate::start(&files, &with_upstream(port, &upstream));
    // the first may have come more than once
    let (second, way) = receive_other(&upstream, &unanswered);
    assert_eq!(second.payload, unanswered.payload, "nothing is lost");
    answer(&upstream, way, &second, "2.04", |_| ());
    assert!(device.wait().success(), "{}", said.text());
    assert_eq!(said.lines(), ["answered: 2.04", "answered: 5.03", "answered: 2.04"]);
}

#[test]
fn example_device_tries_again_what_is_not_taken_now_and_gives_up_what_is_refused() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &with_upstream(0, &upstream));
    let (mut device, said) = start(&files, &mgate, &["--psk", "devices.psk", "--count", "2"]);
    let (first, way) = receive(&upstream);
    let mut latest = first.clone();
    answer(&upstream, way, &first, "4.29", |answer| answer.add_option(CoapOption::MaxAge, vec![1]));
    for code in ["5.03", "2.04"] {
        let (again, way) = receive_other(&upstream, &latest);
        assert_eq!(again.payload, first.payload, "nothing is lost");
        answer(&upstream, way, &again, code, |_| ());
        latest = again;
    }
    let (second, way) = receive_other(&upstream, &latest);
    assert_ne!(second.payload, first.payload);
    answer(&upstream, way, &second, "4.03", |_| ());
    assert!(!device.wait().success());
    let answered = ["answered: 4.29", "answered: 5.03", "answered: 2.04", "answered: 4.03"];
    assert_eq!(said.lines(), answered);
    mgate.log.wait_for("the client ended it");
    assert_eq!(mgate.log.count("session opened"), 1);
}

#[test]
fn example_device_observes_again_when_an_observation_ends() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &with_upstream(0, &upstream));
    let arguments = ["--psk", "devices.psk", "--interval", "3600", "--observe"];
    let (_device, said) = start(&files, &mgate, &arguments);
    let (observe, way) = receive(&upstream);
    answer(&upstream, way, &observe, "2.05", |answer| answer.set_observe_value(1));
    let (reading, _) = receive_other(&upstream, &observe);
    answer(&upstream, way, &reading, "2.04", |_| ());
    answer(&upstream, way, &observe, "4.04", |answer| {
        answer.header.set_type(MessageType::NonConfirmable);
        answer.header.message_id = 0x1234;
    });
    let (again, way) = receive_other(&upstream, &reading);
    assert_eq!(again.get_observe_value(), Some(Ok(0)));
    answer(&upstream, way, &again, "2.05", |answer| answer.set_observe_value(1));
    wait_until("it observes again", || said.lines().len() == 4);
    let expected = ["observing: 2.05", "answered: 2.04", "heard: 4.04 ", "observing: 2.05"];
    assert_eq!(said.lines(), expected);
}

/// Starts the device, in the folder with its files.
fn start(files: &Files, mgate: &Mgate, arguments: &[&str]) -> (Process, Lines) {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/coaps_device");
    assert!(program.exists(), "it is not built: run scripts/test, or cargo build --example coaps_device");
    let mut command = Command::new(program);
    let url = format!("coaps://{}/channels/dev-1/messages", mgate.address());
    let interval = if arguments.contains(&"--interval") { &[][..] } else { &["--interval", "0"] };
    command.current_dir(files.path(".")).args(interval).args(arguments).arg(url);
    Process::start_with_stdout(&mut command)
}

fn files() -> Files {
    let readings = fs::read_to_string(manifest("examples/readings.toml")).unwrap();
    let key = format!("dev-1:{}\n", hex(KEY.as_bytes()));
    Files::new(&[("readings.toml", &readings), ("devices.psk", &key)])
}

fn with_upstream(port: u16, upstream: &UdpSocket) -> String {
    format!(
        "[[route]]\nname = 'devices'\nlisten = 'coaps://127.0.0.1:{port}'\nupstream = 'coap://127.0.0.1:{}'\n\
         authn = ['keys']\npolicies = ['own-channel']\ncoap = {{ profile = 'messages' }}\n\
         [policy.own-channel]\ntype = 'static'\nfile = 'readings.toml'\n\
         [authn.keys]\ntype = 'psk'\nfile = 'devices.psk'\n",
        port_of(upstream)
    )
}

fn receive(upstream: &UdpSocket) -> (Packet, SocketAddr) {
    let (message, way) = receive_from(upstream);
    (Packet::from_bytes(&message).unwrap(), way)
}

/// What comes and is not `before`, which may come again.
fn receive_other(upstream: &UdpSocket, before: &Packet) -> (Packet, SocketAddr) {
    loop {
        let (message, way) = receive(upstream);
        if message.get_token() != before.get_token() {
            return (message, way);
        }
    }
}

fn answer(upstream: &UdpSocket, way: SocketAddr, request: &Packet, code: &str, change: impl Fn(&mut Packet)) {
    let mut answer = Packet::new();
    answer.header.set_type(MessageType::Acknowledgement);
    answer.header.set_code(code);
    answer.header.message_id = request.header.message_id;
    answer.set_token(request.get_token().to_vec());
    change(&mut answer);
    upstream.send_to(&answer.to_bytes().unwrap(), way).unwrap();
}
