//! Clients that people use, over every transport and version, through mgate to brokers that people use.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::{Event, Incoming, MqttOptions, QoS, Transport};
use support::broker::{Broker, node, python};
use support::process::Process;
use support::{ACL, ALLOW_ALL, Files, Mgate, config, manifest, wait_until};

#[test]
fn mosquitto_clients_speak_3_1_and_3_1_1_and_5_over_tcp_and_tls() {
    let (files, broker) = (files(), Broker::mosquitto());
    let packets = ["--log-level", "info,mgate::packet=debug"];
    let mgate = Mgate::start_with(&files, &all_transports(broker.port), &packets);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for route in ["tcp", "tls", "mtls"] {
            let address = mgate.address_of(route);
            let topic = format!("mosquitto/{version}/{route}");
            let mut arguments = vec!["-V".to_owned(), version.into(), "-h".into(), "localhost".into()];
            arguments.extend(["-p".to_owned(), address.port().to_string(), "-t".into(), topic]);
            arguments.extend(tls_arguments(route, &files));
            publish_to_subscriber(&arguments, &format!("{version}-{route}"), &mgate);
        }
    }
}

#[test]
fn paho_speaks_3_1_1_and_5_over_all_transports() {
    let (files, broker) = (files(), Broker::mosquitto());
    let mgate = Mgate::start(&files, &all_transports(broker.port));
    for (version, transport) in matrix() {
        run_script(paho(), mgate.address_of(transport), version, transport, &files);
    }
}

#[test]
fn mqtt_js_speaks_3_1_1_and_5_over_all_transports() {
    let (files, broker) = (files(), Broker::mosquitto());
    let mgate = Mgate::start(&files, &all_transports(broker.port));
    for (version, transport) in matrix() {
        run_script(mqtt_js(), mgate.address_of(transport), version, transport, &files);
    }
}

#[test]
fn rumqttc_speaks_3_1_1_over_all_transports() {
    let (files, broker) = (files(), Broker::mosquitto());
    let mgate = Mgate::start(&files, &all_transports(broker.port));
    for transport in TRANSPORTS {
        rumqttc_3_1_1(transport, &mgate, &files);
    }
}

#[test]
fn rumqttc_speaks_5_over_all_transports() {
    let (files, broker) = (files(), Broker::mosquitto());
    let mgate = Mgate::start(&files, &all_transports(broker.port));
    for transport in TRANSPORTS {
        rumqttc_5(transport, &mgate, &files);
    }
}

#[test]
fn aedes_is_an_upstream_too() {
    let (files, broker) = (files(), Broker::aedes("tcp"));
    let mgate = Mgate::start(&files, &all_transports(broker.port));
    for transport in ["tcp", "wss"] {
        run_script(mqtt_js(), mgate.address_of(transport), "4", transport, &files);
    }
}

#[test]
fn certificate_says_who_a_client_is() {
    let files = Files::new(&[("acl.toml", OWN_TOPICS)]).with_certificates();
    let broker = Broker::mosquitto();
    let mgate = Mgate::start(&files, &all_transports(broker.port));
    let port = mgate.address_of("mtls").port().to_string();
    let publish = |more: &[String], topic: &str| {
        let mut publisher = Command::new("mosquitto_pub");
        publisher.args(["-V", "mqttv5", "-h", "localhost", "-p", &port, "-q", "1", "-m", "x", "-t", topic]);
        Process::start(publisher.args(more)).wait().success()
    };
    let (nobody, somebody) = (tls_arguments("tls", &files), tls_arguments("mtls", &files));
    assert!(!publish(&nobody, "devices/dev-1/a"), "without a certificate");
    assert!(publish(&somebody, "devices/dev-1/a"));
    assert!(!mgate.log.text().contains("denied"), "{}", mgate.log.text());
    publish(&somebody, "devices/dev-2/a");
    let line = mgate.log.wait_for("denied");
    assert!(line.contains(r#""principal":"dev-1""#) && line.contains("devices/dev-2/a"), "{line}");
}

#[test]
fn upstream_is_spoken_to_over_tls_with_a_certificate() {
    let files = files();
    let [ca, cert, key] =
        ["ca.pem", "localhost.pem", "localhost.key"].map(|name| files.path(name).display().to_string());
    let broker = Broker::mosquitto_with(&format!(
        "cafile {ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\nuse_identity_as_username true\n\
         allow_anonymous false\n"
    ));
    let text =
        config(broker.port, "upstream_tls = { ca = 'ca.pem', cert = 'dev-1.pem', key = 'dev-1.key' }", "");
    let mgate =
        Mgate::start(&files, &text.replace("upstream = 'mqtt://127.0.0.1", "upstream = 'mqtts://localhost"));
    for version in ["4", "5"] {
        run_script(mqtt_js(), mgate.address(), version, "tcp", &files);
    }
}

#[test]
fn upstream_is_spoken_to_over_websocket() {
    let (files, broker) = (files(), Broker::aedes("ws"));
    let text = config(broker.port, "", "");
    let mgate = Mgate::start(&files, &text.replace("upstream = 'mqtt:", "upstream = 'mqtt+ws:"));
    run_script(mqtt_js(), mgate.address(), "4", "tcp", &files);
}

/// Runs `mosquitto_sub` with these arguments, publishes at each QoS, and expects all three messages.
fn publish_to_subscriber(arguments: &[String], client_id: &str, mgate: &Mgate) {
    let mut subscriber = Command::new("mosquitto_sub");
    subscriber.args(arguments).args(["-i", client_id, "-q", "2", "-C", "3", "-F", "got %q %p"]);
    let (mut subscriber, lines) = Process::start_with_stdout(&mut subscriber);
    let is_subscribed = |line: &String| line.contains(client_id) && line.contains("SUBACK");
    wait_until("mosquitto_sub has subscribed", || mgate.log.lines().iter().any(is_subscribed));
    for qos in ["0", "1", "2"] {
        let mut publisher = Command::new("mosquitto_pub");
        publisher.args(arguments).args(["-q", qos, "-m", "hello"]);
        assert!(Process::start(&mut publisher).wait().success(), "{arguments:?} at QoS {qos}");
    }
    assert!(subscriber.wait().success(), "{arguments:?}");
    let mut got = lines.lines();
    got.sort();
    assert_eq!(got, ["got 0 hello", "got 1 hello", "got 2 hello"], "{arguments:?}");
}

fn rumqttc_3_1_1(transport: &str, mgate: &Mgate, files: &Files) {
    let client_id = format!("rumqttc-4-{transport}");
    let (address, port, transport) = rumqttc_target(transport, mgate, files);
    let mut options = MqttOptions::new(&client_id, address, port);
    options.set_transport(transport);
    let (client, mut connection) = rumqttc::Client::new(options, 10);
    client.subscribe("rumqttc", QoS::ExactlyOnce).unwrap();
    let mut received = Vec::new();
    let mut next = || connection.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    while received.len() < 3 {
        match next() {
            Event::Incoming(Incoming::SubAck(_)) => {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    client.publish("rumqttc", qos, false, "hello").unwrap();
                }
            }
            Event::Incoming(Incoming::Publish(publish)) => received.push(publish.qos),
            _ => {}
        }
    }
    received.sort_by_key(|qos| *qos as u8);
    assert_eq!(received, [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
    client.disconnect().unwrap();
    while !matches!(next(), Event::Outgoing(rumqttc::Outgoing::Disconnect)) {}
    let is_last = |line: &String| line.contains(&client_id) && line.contains("the client disconnected");
    wait_until("rumqttc has disconnected", || mgate.log.lines().iter().any(is_last));
}

fn rumqttc_5(transport: &str, mgate: &Mgate, files: &Files) {
    use rumqttc::v5::mqttbytes::v5::Packet;
    use rumqttc::v5::{Client, Event, MqttOptions};
    let client_id = format!("rumqttc-5-{transport}");
    let (address, port, transport) = rumqttc_target(transport, mgate, files);
    let mut options = MqttOptions::new(&client_id, address, port);
    options.set_transport(transport);
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe("rumqttc", QoS5::ExactlyOnce).unwrap();
    let mut received = Vec::new();
    let mut next = || connection.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    while received.len() < 3 {
        match next() {
            Event::Incoming(Packet::SubAck(_)) => {
                for qos in [QoS5::AtMostOnce, QoS5::AtLeastOnce, QoS5::ExactlyOnce] {
                    client.publish("rumqttc", qos, false, "hello").unwrap();
                }
            }
            Event::Incoming(Packet::Publish(publish)) => received.push(publish.qos),
            _ => {}
        }
    }
    received.sort_by_key(|qos| *qos as u8);
    assert_eq!(received, [QoS5::AtMostOnce, QoS5::AtLeastOnce, QoS5::ExactlyOnce]);
    client.disconnect().unwrap();
    while !matches!(next(), Event::Outgoing(rumqttc::Outgoing::Disconnect)) {}
    let is_last = |line: &String| line.contains(&client_id) && line.contains("the client disconnected");
    wait_until("rumqttc has disconnected", || mgate.log.lines().iter().any(is_last));
}

/// Where rumqttc finds a route, and how it gets there.
fn rumqttc_target(transport: &str, mgate: &Mgate, files: &Files) -> (String, u16, Transport) {
    let port = mgate.address_of(transport).port();
    let ca = || std::fs::read(files.path("ca.pem")).unwrap();
    let url = format!("{transport}://localhost:{port}/mqtt");
    match transport {
        "tls" => ("localhost".to_owned(), port, Transport::tls(ca(), None, None)),
        "ws" => (url, port, Transport::ws()),
        "wss" => (url, port, Transport::wss(ca(), None, None)),
        _ => ("localhost".to_owned(), port, Transport::tcp()),
    }
}

fn tls_arguments(route: &str, files: &Files) -> Vec<String> {
    let options: &[(&str, &str)] = match route {
        "tls" => &[("--cafile", "ca.pem")],
        "mtls" => &[("--cafile", "ca.pem"), ("--cert", "dev-1.pem"), ("--key", "dev-1.key")],
        _ => &[],
    };
    let path = |name: &str| files.path(name).display().to_string();
    options.iter().flat_map(|(option, name)| [(*option).to_owned(), path(name)]).collect()
}

fn matrix() -> impl Iterator<Item = (&'static str, &'static str)> {
    ["4", "5"].into_iter().flat_map(|version| TRANSPORTS.map(|transport| (version, transport)))
}

fn paho() -> Command {
    let mut command = python();
    command.arg(manifest("tests/support/paho_client.py"));
    command
}

fn mqtt_js() -> Command {
    let mut command = node();
    command.arg(manifest("tests/support/mqttjs_client.js"));
    command
}

/// Runs a client that says "ok" when it got all that it should.
fn run_script(mut command: Command, address: SocketAddr, version: &str, transport: &str, files: &Files) {
    command.args([&address.port().to_string(), version, transport]).arg(files.path("ca.pem")).arg("a/topic");
    let output = command.output().unwrap_or_else(|error| panic!("{error}: run scripts/test"));
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "ok\n", "MQTT {version} over {transport}: {error}");
}

fn files() -> Files {
    Files::new(&[("acl.toml", ALLOW_ALL)]).with_certificates()
}

/// A route for each transport, all to one broker.
fn all_transports(upstream: u16) -> String {
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key' }\n";
    let mutual =
        "tls = { cert = 'localhost.pem', key = 'localhost.key', client_ca = 'ca.pem' }\nauthn = ['x509']\n";
    let routes = [
        ("tcp", "mqtt", ""),
        ("tls", "mqtts", tls),
        ("mtls", "mqtts", mutual),
        ("ws", "mqtt+ws", ""),
        ("wss", "mqtt+wss", tls),
    ];

    let route = |(name, scheme, more): (&str, &str, &str)| {
        format!(
            "[[route]]\nname = '{name}'\nlisten = '{scheme}://127.0.0.1:0'\n\
             upstream = 'mqtt://127.0.0.1:{upstream}'\npolicies = ['acl']\n\
             mqtt = {{ versions = ['3.1', '3.1.1', '5.0'] }}\n{more}"
        )
    };
    let routes: String = routes.into_iter().map(route).collect();
    format!("{routes}{ACL}[authn.x509]\ntype = 'x509'\nid = 'cn'\n")
}

const TRANSPORTS: [&str; 4] = ["tcp", "tls", "ws", "wss"];

const OWN_TOPICS: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect', 'publish']
resources = ['topic:devices/${cert.cn}/#', 'client_id:*']
";
