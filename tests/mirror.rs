//! Copies to NATS: in memory, and on disk.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use support::broker::free_port;
use support::nats::{NatsServer, Responder};
use support::packets::{PUBACK, Version, ack, connect, publish_with};
use support::peer::{Peer, Upstream};
use support::{ALLOW_ALL, Files, Mgate, mgate, wait_until};

#[test]
fn copies_come_in_the_order_of_their_session() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let heard = Responder::listen(nats.port(), "mgate.>");
    let mgate = start(&files(), &upstream, &url(nats.port()));
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..500);
    wait_until("all copies came", || heard.heard().len() >= 500);
    assert_eq!(heard.bodies(), numbers(0..500));
    let copy = &heard.heard()[7];
    assert_eq!(copy.subject, "mgate.devices.dev-1");
    assert!(copy.headers.contains("Nats-Msg-Id: "), "{}", copy.headers);
}

#[test]
fn nats_that_is_dead_costs_devices_nothing_and_bounded_memory() {
    let (port, upstream) = (free_port(), Upstream::start());
    let mgate = start(&files(), &upstream, &url(port));
    memory_is_bounded(&mgate, &upstream);
    // what there was room for follows
    let _nats = NatsServer::start(port, &[]);
    mgate.log.wait_for("connected to NATS");
}

#[test]
fn nats_that_takes_nothing_costs_devices_nothing_and_bounded_memory() {
    let (listener, upstream) = (TcpListener::bind("127.0.0.1:0").unwrap(), Upstream::start());
    let port = listener.local_addr().unwrap().port();
    let (taken, held) = std::sync::mpsc::channel();
    thread::spawn(move || {
        for tcp in listener.incoming().map_while(Result::ok) {
            let _ = taken.send(welcomed(tcp));
        }
    });
    let mgate = start(&files(), &upstream, &url(port));
    let _held = held.recv().unwrap();
    mgate.log.wait_for("connected to NATS");
    memory_is_bounded(&mgate, &upstream);
}

#[test]
fn copies_that_the_dialect_refuses_are_counted_with_an_example() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let text = config(&upstream, &url(nats.port())).replace("'plain'", "'mainflux-0.13'");
    let mgate = Mgate::start(&files(), &text);
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..3);
    // the first may be told before the others
    let line = mgate.log.wait_for("dialect cannot say this");
    assert!(line.contains("a/b: "), "{line}");
}

#[test]
fn spool_follows_in_order_when_nats_is_back() {
    let (storage, upstream) = (Storage::new(), Upstream::start());
    let nats = storage.start();
    let mgate = start(&files(), &upstream, &spool(storage.port));
    mgate.log.wait_for("connected to NATS");
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..10);
    nats.kill();
    session.publish(10..400);
    let nats = storage.start();
    session.publish(400..500);
    wait_until("all copies came", || nats.stored("copies") >= 500);
    assert_eq!(nats.contents("copies"), numbers(0..500));
}

#[test]
fn spool_follows_in_order_with_jetstream_too() {
    let (storage, upstream) = (Storage::new(), Upstream::start());
    let mgate = start(&files(), &upstream, &format!("{}\njetstream = true", spool(storage.port)));
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..100);
    storage.start().kill();
    session.publish(100..200);
    let nats = storage.start();
    session.publish(200..300);
    wait_until("all copies came", || nats.stored("copies") >= 300);
    assert_eq!(nats.contents("copies"), numbers(0..300));
}

#[test]
fn spool_outlives_a_kill_of_the_gateway() {
    let (storage, upstream, files) = (Storage::new(), Upstream::start(), files());
    let mgate = start(&files, &upstream, &spool(storage.port));
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..300);
    // what is said a second before is on disk
    thread::sleep(Duration::from_secs(1));
    mgate.kill();
    let mgate = start(&files, &upstream, &spool(storage.port));
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(300..400);
    let nats = storage.start();
    wait_until("all copies came", || nats.stored("copies") >= 400);
    assert_eq!(nats.contents("copies"), numbers(0..400));
}

#[test]
fn spool_is_kept_when_the_gateway_stops() {
    let (storage, upstream, files) = (Storage::new(), Upstream::start(), files());
    let mut mgate = start(&files, &upstream, &spool(storage.port));
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..50);
    mgate.terminate();
    assert!(mgate.wait().success());
    let nats = storage.start();
    let _mgate = start(&files, &upstream, &spool(storage.port));
    wait_until("all copies came", || nats.stored("copies") >= 50);
    assert_eq!(nats.contents("copies"), numbers(0..50));
}

#[test]
fn spool_in_use_is_an_error_that_says_so() {
    let upstream = Upstream::start();
    let files = files();
    let keys = spool(free_port());
    let _mgate = start(&files, &upstream, &keys);
    let file = files.write("other.toml", &config(&upstream, &keys));
    let output = mgate(&["run", "-c"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by another process or mirror"), "{said}");
}

#[test]
fn check_makes_no_spool_and_no_connection() {
    let (listener, upstream) = (TcpListener::bind("127.0.0.1:0").unwrap(), Upstream::start());
    let files = files();
    let file = files.write("mgate.toml", &config(&upstream, &spool(listener.local_addr().unwrap().port())));
    let output = mgate(&["check"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("bus"), "{output:?}");
    assert!(!files.path("spool").exists());
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn copies_that_wait_go_out_before_the_end() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let heard = Responder::listen(nats.port(), "mgate.>");
    let mut mgate = start(&files(), &upstream, &url(nats.port()));
    mgate.log.wait_for("connected to NATS");
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..300);
    mgate.terminate();
    assert!(mgate.wait().success());
    wait_until("all copies came", || heard.heard().len() >= 300);
}

#[test]
fn reload_keeps_a_mirror_that_is_the_same_and_names_one_that_is_not() {
    let (storage, upstream, files) = (Storage::new(), Upstream::start(), files());
    let text = config(&upstream, &spool(storage.port));
    let mgate = Mgate::start(&files, &text);
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..20);
    files.write("mgate.toml", &format!("# moved by a line\n{text}"));
    mgate.reload();
    assert_eq!(mgate.log.count("needs a restart to change"), 0);
    session.publish(20..40);
    files.write("mgate.toml", &text.replace("mode = 'spool'", "queue_messages = 7\nmode = 'spool'"));
    mgate.reload();
    mgate.log.wait_for("needs a restart to change: mirror.bus");
    session.publish(40..60);
    let nats = storage.start();
    wait_until("all copies came", || nats.stored("copies") >= 60);
    assert_eq!(nats.contents("copies"), numbers(0..60));
    assert_eq!(mgate.log.count("\"connected to NATS\""), 1);
}

#[test]
fn server_knows_mgate_by_its_certificate() {
    let upstream = Upstream::start();
    let files = files().with_certificates();
    let path = |name| files.path(name).to_str().unwrap().to_owned();
    let [ca, cert, key] = ["ca.pem", "localhost.pem", "localhost.key"].map(path);
    let arguments = ["--tls", "--tlsverify", "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    let nats = NatsServer::start(free_port(), &arguments);
    let tls = "tls = { ca = 'ca.pem', cert = 'dev-1.pem', key = 'dev-1.key' }";
    for scheme in ["nats", "tls"] {
        let mgate = start(&files, &upstream, &format!("url = '{scheme}://127.0.0.1:{}'\n{tls}", nats.port()));
        mgate.log.wait_for("connected to NATS");
    }
    let mgate = start(
        &files,
        &upstream,
        &format!("url = 'tls://127.0.0.1:{}'\ntls = {{ ca = 'ca.pem' }}", nats.port()),
    );
    mgate.log.wait_for("no connection to NATS");
}

#[test]
fn server_that_is_not_encrypted_is_refused_where_tls_is_wanted() {
    let (nats, upstream) = (NatsServer::start(free_port(), &[]), Upstream::start());
    let files = files().with_certificates();
    let keys = format!("url = 'nats://127.0.0.1:{}'\ntls = {{ ca = 'ca.pem' }}", nats.port());
    let mgate = start(&files, &upstream, &keys);
    mgate.log.wait_for("no connection to NATS");
    assert_eq!(mgate.log.count("connected to NATS"), 0);
}

#[test]
fn server_knows_mgate_by_token_user_or_nkey() {
    let upstream = Upstream::start();
    let pair = KeyPair::new_user();
    let users = format!("authorization {{ users = [ {{ nkey: {} }} ] }}\n", pair.public_key());
    let files = files();
    files.write("seed", &pair.seed().unwrap());
    files.write("secret", "hunter2\n");
    let configuration = files.write("nats.conf", &users);
    for (arguments, keys) in [
        (["--auth", "hunter2"].as_slice(), "token_file = 'secret'"),
        (&["--user", "mgate", "--pass", "hunter2"], "user = 'mgate'\npassword_file = 'secret'"),
        (&["-c", configuration.to_str().unwrap()], "nkey_file = 'seed'"),
    ] {
        let nats = NatsServer::start(free_port(), arguments);
        let mgate = start(&files, &upstream, &format!("{}\n{keys}", url(nats.port())));
        mgate.log.wait_for("connected to NATS");
        let mgate = start(&files, &upstream, &url(nats.port()));
        mgate.log.wait_for("Authorization Violation");
        assert!(!mgate.log.text().contains("hunter2"));
    }
}

#[test]
fn server_knows_mgate_by_its_credentials() {
    let (upstream, files) = (Upstream::start(), files());
    let [operator, account, user] = [KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user()];
    let limits = json!({
        "type": "account", "version": 2, "default_permissions": { "pub": {}, "sub": {} },
        "limits": { "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1 },
    });
    let rights =
        json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
    let configuration = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {} }}\n",
        jwt(&operator, &operator, &json!({ "type": "operator", "version": 2 })),
        account.public_key(),
        jwt(&operator, &account, &limits)
    );
    let configuration = files.write("nats.conf", &configuration);
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(&account, &user, &rights),
        user.seed().unwrap()
    );
    files.write("mgate.creds", &credentials);
    let nats = NatsServer::start(free_port(), &["-c", configuration.to_str().unwrap()]);
    let keys = format!("{}\ncredentials_file = 'mgate.creds'", url(nats.port()));
    start(&files, &upstream, &keys).log.wait_for("connected to NATS");
}

#[test]
fn another_server_takes_over() {
    let upstream = Upstream::start();
    let ports = [free_port(), free_port()];
    let nats = ports.map(|port| NatsServer::start(port, &[]));
    let heard = ports.map(|port| Responder::listen(port, "mgate.>"));
    let servers = ports.map(|port| format!("'nats://127.0.0.1:{port}'")).join(", ");
    let mgate = start(&files(), &upstream, &format!("servers = [{servers}]\nserver_order = 'given'"));
    let mut session = Session::begin(&mgate, &upstream, "dev-1");
    session.publish(0..5);
    wait_until("the first server has all", || heard[0].heard().len() == 5);
    let [first, _second] = nats;
    first.kill();
    mgate.log.wait_for("no connection to NATS");
    session.publish(5..10);
    wait_until("the second server has the rest", || heard[1].heard().len() >= 5);
    assert_eq!(heard[1].bodies(), numbers(5..10));
}

/// What an issuer says of somebody, as NATS wants it.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: &Value) -> String {
    let claims = json!({
        "jti": "1", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": "x",
        "nats": nats,
    });
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let text = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

/// A client whose messages come through, and who is acknowledged.
struct Session {
    client: Peer,
    behind: Peer,
}

impl Session {
    fn begin(mgate: &Mgate, upstream: &Upstream, client_id: &str) -> Self {
        let (client, behind) = upstream.session(mgate.address(), &connect(VERSION, client_id), VERSION);
        Self { client, behind }
    }

    fn publish(&mut self, numbers: std::ops::Range<u16>) {
        self.publish_padded(numbers, "");
    }

    fn publish_padded(&mut self, numbers: std::ops::Range<u16>, padding: &str) {
        for number in numbers {
            let publish = publish_with(VERSION, (1, number + 1), "a/b", b"", &format!("{number}{padding}"));
            self.client.send(&publish);
            self.behind.expect(&publish);
            let acknowledged = ack(PUBACK, number + 1);
            self.behind.send(&acknowledged);
            self.client.expect(&acknowledged);
        }
    }
}

/// Servers, one after the other, that keep copies in the stream `copies`.
struct Storage {
    directory: Files,
    port: u16,
}

impl Storage {
    fn new() -> Self {
        let storage = Self { directory: Files::new(&[]), port: free_port() };
        let nats = storage.start();
        nats.create_stream("copies", "mgate.>");
        nats.kill();
        storage
    }

    fn start(&self) -> NatsServer {
        NatsServer::with_jetstream(self.port, &self.directory.path("jetstream"))
    }
}

/// Far more than there is room for passes, and is counted.
fn memory_is_bounded(mgate: &Mgate, upstream: &Upstream) {
    let mut session = Session::begin(mgate, upstream, "dev-1");
    let padding = "x".repeat(8192);
    session.publish_padded(0..500, &padding);
    let before = mgate.resident_kib();
    // 24 MiB, of which the queue takes one
    session.publish_padded(500..3500, &padding);
    let grown = mgate.resident_kib().saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB more");
    mgate.log.wait_for("the mirror's queue is full");
}

/// A server that welcomes a client, and reads nothing more.
fn welcomed(mut tcp: TcpStream) -> TcpStream {
    tcp.write_all(b"INFO {\"headers\":true,\"max_payload\":1048576}\r\n").unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(b"PING\r\n") && tcp.read(&mut byte).unwrap() > 0 {
        said.push(byte[0]);
    }
    tcp.write_all(b"PONG\r\n").unwrap();
    tcp
}

fn start(files: &Files, upstream: &Upstream, keys: &str) -> Mgate {
    Mgate::start(files, &config(upstream, keys))
}

fn config(upstream: &Upstream, keys: &str) -> String {
    let mirror = format!("[mirror.bus]\ntype = 'nats'\n{DIALECT}\n{keys}\n");
    support::config(upstream.port(), "mirror = 'bus'", &mirror)
}

fn url(port: u16) -> String {
    format!("url = 'nats://127.0.0.1:{port}'\nqueue_bytes = '1MiB'")
}

fn spool(port: u16) -> String {
    format!("url = 'nats://127.0.0.1:{port}'\nmode = 'spool'\nspool = {{ dir = 'spool' }}")
}

fn files() -> Files {
    Files::new(&[("acl.toml", ALLOW_ALL)])
}

fn numbers(numbers: std::ops::Range<u16>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

const VERSION: Version = Version::V311;
const DIALECT: &str = "dialect = 'plain'\nsubject = 'mgate.{route}.{client}'\nevents = false";
