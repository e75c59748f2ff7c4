//! Messages that are acknowledged once JetStream has stored their copies.

mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mgate_policies::Now;
use serde_json::Value;
use support::broker::{Broker, free_port};
use support::nats::NatsServer;
use support::packets::{PUBACK, Version, ack, connect, publish_with};
use support::peer::{Peer, Upstream};
use support::{ALLOW_ALL, Files, Mgate, manifest, wait_until};

#[test]
fn message_is_acknowledged_when_its_copy_is_stored() {
    let (nats, upstream) = (Nats::with_stream(), Upstream::start());
    let server = nats.start();
    let mgate = start(&files(), upstream.port(), &nats, "");
    for version in [Version::V311, Version::V5] {
        let before = server.stored("copies");
        let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
        for number in 1..=20 {
            let publish = publish_with(version, (1, number), "a", b"", "x");
            client.send(&publish);
            behind.expect(&publish);
            behind.send(&ack(PUBACK, number));
            client.expect(&ack(PUBACK, number));
            assert!(server.stored("copies") >= before + u64::from(number));
        }
    }
}

#[test]
fn message_without_a_stored_copy_is_refused_or_ends_the_session() {
    let (nats, upstream) = (Nats::with_stream(), Upstream::start());
    let mgate = start(&files(), upstream.port(), &nats, "limits = { store_timeout = '1s' }");
    mgate.log.wait_for("no connection to NATS");
    let (mut client, _behind) = published(&mgate, &upstream, Version::V5);
    let answer = client.packet();
    assert_eq!((answer[0], &answer[2..5]), (PUBACK, [0, 1, 0x83].as_slice()));
    assert!(mgate.log.wait_for("messages were refused: not mirrored").contains("WARN"));
    let (mut client, _behind) = published(&mgate, &upstream, Version::V311);
    assert_eq!(client.until_closed(), b"");
    assert!(mgate.log.wait_for("a message was not mirrored").contains("WARN"));
}

#[test]
fn message_that_no_stream_takes_is_refused() {
    let (nats, upstream) = (Nats::new(), Upstream::start());
    let _server = nats.start();
    let mgate = start(&files(), upstream.port(), &nats, "limits = { store_timeout = '1s' }");
    mgate.log.wait_for("connected to NATS");
    let (mut client, _behind) = published(&mgate, &upstream, Version::V5);
    let answer = client.packet();
    assert_eq!((answer[0], &answer[2..5]), (PUBACK, [0, 1, 0x83].as_slice()));
    mgate.log.wait_for("no stream takes this subject");
}

#[test]
fn copy_that_cannot_be_said_is_no_success() {
    let (nats, upstream) = (Nats::with_stream(), Upstream::start());
    let _server = nats.start();
    let text = config(upstream.port(), &nats, "").replace("'plain'", "'mainflux-0.13'");
    let mgate = Mgate::start(&files(), &text);
    let (mut client, _behind) = published(&mgate, &upstream, Version::V5);
    let answer = client.packet();
    assert_eq!((answer[0], answer[4]), (PUBACK, 0x87), "{answer:02x?}");
}

#[test]
fn queue_that_is_full_refuses_at_once() {
    let (nats, upstream) = (Nats::with_stream(), Upstream::start());
    // nobody would wait as long as a copy may take
    let files = files();
    let text = config(upstream.port(), &nats, "limits = { store_timeout = '60s' }")
        .replace("mode = 'acked'", "mode = 'acked'\nqueue_messages = 2");
    let mgate = Mgate::start(&files, &text);
    let (mut client, mut behind) =
        upstream.session(mgate.address(), &connect(Version::V5, "dev-1"), Version::V5);
    for number in 1..=3 {
        let publish = publish_with(Version::V5, (1, number), "a", b"", "x");
        client.send(&publish);
        behind.expect(&publish);
    }
    let _server = nats.start();
    for number in 1..=3 {
        behind.send(&ack(PUBACK, number));
    }
    let codes: Vec<_> = (0..3).map(|_| client.packet()).map(|ack| ack.get(4).copied().unwrap_or(0)).collect();
    assert_eq!(codes, [0, 0, 0x97]);
}

#[test]
fn stream_that_is_missing_is_named_until_it_is_there() {
    let (nats, upstream) = (Nats::new(), Upstream::start());
    let server = nats.start();
    let text = config(upstream.port(), &nats, "");
    let mgate = Mgate::start(&files(), &format!("[admin]\nlisten = 'http://127.0.0.1:0'\n{text}"));
    mgate.log.wait_for("the stream \\\"copies\\\" does not exist: create it, or set `stream.create`");
    assert_eq!(mgate.admin().get("/readyz").0, 503);
    server.create_stream("copies", "mgate.>");
    wait_until("the mirror is ready", || mgate.admin().get("/readyz").0 == 200);
}

#[test]
fn stream_is_made_where_that_is_wanted() {
    let (nats, upstream) = (Nats::new(), Upstream::start());
    let server = nats.start();
    let stream =
        "{ name = 'copies', create = true, subjects = ['mgate.>'], max_age = '1h', max_bytes = '1MiB' }";
    let text = config(upstream.port(), &nats, "").replace("{ name = 'copies' }", stream);
    let mgate = Mgate::start(&files(), &text);
    mgate.log.wait_for("the stream is there");
    let info: Value = serde_json::from_str(&server.ask("$JS.API.STREAM.INFO.copies", "")).unwrap();
    assert_eq!(info["config"]["max_age"], 3_600_000_000_000_u64);
    assert_eq!(info["config"]["max_bytes"], 1_048_576);
}

#[test]
fn everything_acknowledged_is_stored_whatever_is_killed() {
    let (nats, broker, files) = (Nats::with_stream(), Broker::mosquitto(), files());
    let keys = "limits = { store_timeout = '3s' }";
    let mut server = nats.start();
    let mut mgate = start(&files, broker.port, &nats, keys);
    let address = Mutex::new(mgate.address());
    let (is_over, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let _server = thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (address, is_over, acknowledged) = (&address, &is_over, &acknowledged);
            scope.spawn(move || {
                for session in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let to = *address.lock().unwrap();
                    let heard = publish_until_closed(to, number, session, is_over);
                    acknowledged.lock().unwrap().extend(heard);
                    // nobody may be there to connect to
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
        for round in 0..5 {
            until_more_is_stored(&server, 5000);
            if round == 2 {
                // what is sent now is never stored, and nobody is left to send it again
                server.pause();
                thread::sleep(Duration::from_millis(500));
                mgate.kill();
                mgate = start(&files, broker.port, &nats, keys);
                *address.lock().unwrap() = mgate.address();
            }
            server.kill();
            server = nats.start();
        }
        until_more_is_stored(&server, 5000);
        is_over.store(true, Ordering::Relaxed);
        server
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let list = files.write("acknowledged", &acknowledged.join("\n"));
    let mut check = Command::new("python3");
    check.arg(manifest("tests/support/stream_check.py")).arg(nats.port.to_string()).arg("copies").arg(list);
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    for wrong in ["missing", "doubled", "disordered"] {
        assert_eq!(found[wrong], 0, "{found}");
    }
    assert!(found["acknowledged"].as_u64().unwrap() >= 5000, "{found}");
    println!("{found}");
}

/// Publishes as fast as it is acknowledged; returns what was.
fn publish_until_closed(to: SocketAddr, client: usize, session: usize, is_over: &AtomicBool) -> Vec<String> {
    let version = if client.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    let mut acknowledged = Vec::new();
    let _ = try_publish(to, version, &format!("{client}-{session}"), is_over, &mut acknowledged);
    acknowledged
}

fn try_publish(
    to: SocketAddr,
    version: Version,
    name: &str,
    is_over: &AtomicBool,
    acknowledged: &mut Vec<String>,
) -> std::io::Result<()> {
    let mut tcp = TcpStream::connect(to)?;
    tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
    tcp.write_all(&connect(version, &format!("dev-{name}")).bytes())?;
    let connack = packet(&mut tcp)?;
    assert_eq!(connack[0], 0x20);
    let mut in_flight = VecDeque::new();
    let mut number: u16 = 0;
    loop {
        while in_flight.len() < WINDOW && number < u16::MAX && !is_over.load(Ordering::Relaxed) {
            number += 1;
            tcp.write_all(&publish_with(version, (1, number), "a/b", b"", &format!("{name} {number}")))?;
            in_flight.push_back(number);
        }
        if in_flight.is_empty() {
            return Ok(());
        }
        let puback = packet(&mut tcp)?;
        let id = u16::from_be_bytes([puback[2], puback[3]]);
        in_flight.retain(|waiting| *waiting != id);
        if puback[0] == PUBACK && puback.get(4).is_none_or(|code| *code < 0x80) {
            acknowledged.push(format!("{name} {id}"));
        }
    }
}

/// A packet of less than 128 bytes.
fn packet(tcp: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut packet = vec![0; 2];
    tcp.read_exact(&mut packet)?;
    packet.resize(2 + usize::from(packet[1]), 0);
    tcp.read_exact(&mut packet[2..])?;
    Ok(packet)
}

fn until_more_is_stored(server: &NatsServer, more: u64) {
    let (before, end) = (server.stored("copies"), Now::read().instant + Duration::from_secs(30));
    while server.stored("copies") < before + more {
        assert!(Now::read().instant < end, "{} of {more} more are stored", server.stored("copies") - before);
        thread::sleep(Duration::from_millis(50));
    }
}

fn published(mgate: &Mgate, upstream: &Upstream, version: Version) -> (Peer, Peer) {
    let (mut client, mut behind) = upstream.session(mgate.address(), &connect(version, "dev-1"), version);
    let publish = publish_with(version, (1, 1), "a", b"", "x");
    client.send(&publish);
    behind.expect(&publish);
    behind.send(&ack(PUBACK, 1));
    (client, behind)
}

/// Servers, one after the other, at one port and with one directory.
struct Nats {
    directory: Files,
    port: u16,
}

impl Nats {
    fn new() -> Self {
        Self { directory: Files::new(&[]), port: free_port() }
    }

    fn with_stream() -> Self {
        let nats = Self::new();
        let server = nats.start();
        server.create_stream("copies", "mgate.>");
        server.kill();
        nats
    }

    fn start(&self) -> NatsServer {
        NatsServer::with_jetstream(self.port, &self.directory.path("jetstream"))
    }
}

fn start(files: &Files, upstream: u16, nats: &Nats, more: &str) -> Mgate {
    Mgate::start(files, &config(upstream, nats, more))
}

fn config(upstream: u16, nats: &Nats, more: &str) -> String {
    let port = nats.port;
    let stream = "stream = { name = 'copies' }";
    let mirror = format!(
        "[mirror.bus]\ntype = 'nats'\nurl = 'nats://127.0.0.1:{port}'\nmode = 'acked'\n{DIALECT}\n{stream}\n"
    );
    support::config(upstream, &format!("mirror = 'bus'\n{more}"), &mirror)
}

fn files() -> Files {
    Files::new(&[("acl.toml", ALLOW_ALL)])
}

const DIALECT: &str = "dialect = 'plain'\nsubject = 'mgate.{route}.{client}'\nevents = false";
const CLIENTS: usize = 100;
const WINDOW: usize = 10;
