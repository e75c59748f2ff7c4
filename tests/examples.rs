//! The examples as somebody runs them who has just built mgate: with the commands of their headers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::broker::{Broker, mosquitto_sub};
use support::coap::CoapServer;
use support::nats::{NatsServer, Responder};
use support::process::{Lines, Process};
use support::{Files, local_address, manifest, mgate, wait_until};

#[test]
fn header_makes_all_that_an_example_needs() {
    let names = all();
    assert!(names.len() >= 17, "{names:?}");
    for name in names.iter().filter(|name| is_in_this_build(name)) {
        let example = Example::new(name);
        example.make();
        let file = format!("examples/{name}");
        let checked = example.mgate(&["check", "--json", &file]).output().unwrap();
        let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
        assert_eq!(checked["warnings"], Value::Array(Vec::new()), "{name}: {checked}");
        assert!(checked["routes"].as_array().is_some_and(|routes| !routes.is_empty()), "{name}: {checked}");
    }
}

#[test]
fn client_of_the_header_publishes_to_the_broker() {
    for (name, topic) in [
        ("minimal.toml", "devices/dev-1/data/t 21"),
        ("mountpoint.toml", "places/dev-1/data/t 21"),
        ("mtls.toml", "devices/dev-1/data/t 21"),
        ("payloads.toml", "devices/dev-1/data/t [{\"n\":\"t\",\"v\":21,\"t\":"),
    ] {
        let broker = Broker::mosquitto();
        let heard = Heard::by(&broker);
        let example = Example::new(name).with_port(1883, broker.port);
        example.make();
        let _mgate = example.serve();
        example.run_client();
        heard.lines.wait_for(topic);
    }
}

#[test]
fn copy_of_what_the_client_publishes_comes_to_nats() {
    let (nats, broker) = (NatsServer::start(free_port(), &[]), Broker::mosquitto());
    let listener = Responder::start(nats.port(), "", "mgate.messages.>", |_| None);
    let example = Example::new("mirror.toml").with_port(1883, broker.port).with_port(4222, nats.port());
    let _mgate = example.serve();
    example.run_client();
    wait_until("the copy is there", || !listener.heard().is_empty());
    let copy = listener.heard().remove(0);
    assert_eq!((&*copy.subject, &*copy.body), ("mgate.messages.%.devices.dev-1.data.t", "21"));
}

#[test]
fn stream_stores_messages_and_no_questions() {
    let (files, broker) = (Files::new(&[]), Broker::mosquitto());
    let nats = NatsServer::with_jetstream(free_port(), &files.path(""));
    let example = Example::new("mirror-acked.toml").with_port(1883, broker.port).with_port(4222, nats.port());
    let _mgate = example.serve();
    example.run_client();
    assert!(nats.contents("messages").contains(&"21".to_owned()));
    // where somebody stores it, that is an answer
    assert_eq!(nats.ask("mgate.authz.v1.evaluation", "{}"), "");
}

#[test]
fn workers_of_the_header_let_the_client_in() {
    let (nats, broker) = (NatsServer::start(free_port(), &[]), Broker::mosquitto());
    let heard = Heard::by(&broker);
    let _worker = Responder::start(nats.port(), "", "mgate.authz.v1.evaluation", |_| {
        Some("{\"decision\": true}".into())
    });
    let example = Example::new("pdp-nats.toml").with_port(1883, broker.port).with_port(4222, nats.port());
    let _mgate = example.serve();
    example.run_client();
    heard.lines.wait_for("devices/dev-1/data/t 21");
}

#[test]
fn both_routes_of_http_take_the_requests_of_the_header() {
    let example = Example::new("http.toml");
    example.make();
    let server = example.commands.iter().find(|command| command.starts_with("python3 ")).unwrap();
    let _server = Process::start(&mut example.shell(&format!("exec {server}")));
    let port = example.port(8080);
    wait_until("the server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    let mgate = example.serve();
    assert_eq!(example.run_client(), "on\n");
    let line = mgate.log.wait_for("channels/42/messages");
    assert!(line.contains(r#""payload":"21""#), "{line}");
}

#[test]
fn client_comes_through_nginx() {
    let broker = Broker::mosquitto();
    let heard = Heard::by(&broker);
    let example = Example::new("behind-nginx.toml").with_port(1883, broker.port);
    example.make();
    let text = example.renumbered("nginx.conf").replace("/tmp/", &example.files.path("").to_string_lossy());
    let [start, _stop, module] = commands(&text).try_into().unwrap();
    example.files.write("examples/nginx.conf", &format!("{module}\n{text}"));
    let _nginx = Process::start(&mut example.shell(&format!("exec {start} -g 'daemon off;'")));
    let port = example.port(8883);
    wait_until("nginx listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    let _mgate = example.serve();
    example.run_client();
    heard.lines.wait_for("devices/dev-1/data/t 21");
}

#[test]
fn sensors_are_read_as_the_headers_say() {
    for name in ["coap.toml", "coaps.toml"].into_iter().filter(|name| is_in_this_build(name)) {
        let server = CoapServer::start();
        let port_of_the_server = if name == "coap.toml" { 5684 } else { 5683 };
        let example = Example::new(name).with_port(port_of_the_server, server.port);
        example.make();
        let _mgate = example.serve();
        let said = example.run_client();
        assert!(said.contains("</time>"), "{name}: {said}");
    }
}

/// A copy of one example with what it needs, at ports of its own.
struct Example {
    files: Files,
    name: String,
    commands: Vec<String>,
    ports: Vec<(u16, u16)>,
}

/// What a subscriber to everything hears of the broker.
struct Heard {
    _subscriber: Process,
    lines: Lines,
}

/// mgate as it serves an example.
struct Serving {
    _process: Process,
    log: Lines,
}

impl Example {
    fn new(name: &str) -> Self {
        let files = Files::new(&[]);
        for file in copied() {
            let copy = files.path(&format!("examples/{file}"));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(manifest("examples").join(file), copy).unwrap();
        }
        let mut example = Self { files, name: name.into(), commands: Vec::new(), ports: Vec::new() };
        for port in [1883, 1884, 4222, 5683, 5684, 5685, 5686, 8080, 8443, 8883] {
            example.ports.push((port, free_port()));
        }
        example.renumber();
        example
    }

    /// The same where a peer has one of the ports.
    fn with_port(mut self, written: u16, port: u16) -> Self {
        self.ports.retain(|(other, _)| *other != written);
        self.ports.push((written, port));
        self.renumber();
        self
    }

    fn renumber(&mut self) {
        let text = self.renumbered(&self.name);
        self.commands = commands(&text);
        self.files.write(&format!("examples/{}", self.name), &text);
    }

    /// A file of the examples with the ports of this one.
    fn renumbered(&self, name: &str) -> String {
        let text = fs::read_to_string(manifest("examples").join(name)).unwrap();
        // a port that was chosen may look like one that was written
        let mark = |at: usize| format!("<{at}>");
        let ports = || self.ports.iter().enumerate();
        let text =
            ports().fold(text, |text, (at, (written, _))| text.replace(&written.to_string(), &mark(at)));
        ports().fold(text, |text, (at, (_, port))| text.replace(&mark(at), &port.to_string()))
    }

    fn port(&self, written: u16) -> u16 {
        self.ports.iter().find(|(other, _)| *other == written).unwrap().1
    }

    /// Runs what the header says before mgate serves, but for peers.
    fn make(&self) {
        let run = self.commands.iter().position(|command| is_run(command)).unwrap();
        self.run(&script(&self.commands[..run]));
    }

    fn serve(&self) -> Serving {
        let file = format!("examples/{}", self.name);
        let (mut process, log) = Process::start_with_stderr(&mut self.mgate(&["run", &file]));
        let routes = fs::read_to_string(self.files.path(&file)).unwrap().matches("\n[[route]]").count();
        wait_until("mgate listens", || {
            assert!(process.is_running(), "mgate ended: {}", log.text());
            log.count("\"listening\"") == routes
        });
        Serving { _process: process, log }
    }

    /// Runs what the header says behind that, but for peers; returns what was printed.
    fn run_client(&self) -> String {
        let run = self.commands.iter().position(|command| is_run(command)).unwrap();
        let script = script(&self.commands[run + 1..]);
        assert!(!script.is_empty(), "{} tells of no client", self.name);
        self.run(&script)
    }

    fn run(&self, script: &str) -> String {
        let Output { status, stdout, stderr } = self.shell(script).output().unwrap();
        let [stdout, stderr] = [stdout, stderr].map(|said| String::from_utf8(said).unwrap());
        assert!(status.success(), "{}: {script}\n{stderr}", self.name);
        stdout
    }

    fn shell(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_mgate")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell.args(["-euc", script]).current_dir(self.files.path("")).env("PATH", path);
        shell.env("SECRET", "known to the issuer");
        shell
    }

    fn mgate(&self, arguments: &[&str]) -> Command {
        let mut command = mgate(arguments);
        command.args(["--log-format", "json"]).current_dir(self.files.path(""));
        command
    }
}

impl Heard {
    fn by(broker: &Broker) -> Self {
        let mut subscriber = mosquitto_sub(broker.port, "mqttv5", "%t %p");
        let (_subscriber, lines) = Process::start_with_stdout(subscriber.args(["-t", "#"]));
        lines.wait_for("SUBACK");
        Self { _subscriber, lines }
    }
}

/// Each configuration among the examples, but for the one that needs a program of its own.
fn all() -> Vec<String> {
    let is_configuration = |name: &String| {
        let text = fs::read_to_string(manifest("examples").join(name)).unwrap();
        text.contains("\n[[route]]")
    };
    copied().into_iter().filter(is_configuration).collect()
}

/// What is copied of the examples: nothing that somebody made beside them.
fn copied() -> Vec<String> {
    let entries = fs::read_dir(manifest("examples")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".toml")).collect();
    names.extend(["coaps_device/mgate.toml", "wasm-policy-rust/policy.rs"].map(str::to_owned));
    names
}

/// The commands in the header, each on one line.
fn commands(text: &str) -> Vec<String> {
    let header = text.lines().take_while(|line| line.starts_with('#'));
    let lines: Vec<_> = header.filter_map(|line| line.strip_prefix("#   ")).collect();
    lines.join("\n").replace("\\\n", "").lines().map(str::to_owned).collect()
}

/// All of them but those of peers.
fn script(commands: &[String]) -> String {
    let commands: Vec<_> = commands.iter().filter(|command| !is_peer(command)).map(String::as_str).collect();
    commands.join("\n")
}

fn is_run(command: &str) -> bool {
    command.starts_with("mgate run ")
}

/// What stands for a peer, or needs programs that tests do without.
fn is_peer(command: &str) -> bool {
    let programs = ["coap-server", "mosquitto_sub", "mqtt ", "nats", "opa ", "python3 ", "rustup "];
    programs.iter().any(|program| command.starts_with(program))
}

fn is_in_this_build(name: &str) -> bool {
    (cfg!(feature = "wasm") || name != "wasm.toml") && (cfg!(feature = "dtls") || !name.starts_with("coaps"))
}

/// A port at which nobody listens now, and which is none that the examples have.
fn free_port() -> u16 {
    local_address().port()
}
