//! What breaks, what is slow and what is too much: everybody hears of it in time, and nobody pays for another.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use mgate_policies::Now;
use support::broker::{Broker, free_port};
use support::packets::{
    BOTH, Connect, DISCONNECT, Version, connack, connect, packet, publish, publish_with, reason_string,
};
use support::peer::{Peer, Upstream, tcp};
use support::process::Process;
use support::{ALLOW_ALL, Files, Mgate, PATIENCE, config, mgate, wait_until};
use tokio::net::TcpSocket;

#[test]
fn client_of_a_dead_broker_is_refused() {
    let mgate = start(free_port(), "");
    for version in BOTH {
        let mut client = mgate.dial();
        client.send(&connect(version, "dev-1").bytes());
        assert_eq!(client.until_closed(), unavailable(version));
    }
}

#[test]
fn client_of_a_silent_broker_is_refused_in_time() {
    let upstream = Upstream::start();
    let mgate = start(upstream.port(), "limits = { upstream_timeout = '200ms' }");
    for version in BOTH {
        let mut client = mgate.dial();
        client.send(&connect(version, "dev-1").bytes());
        let _behind = upstream.accept();
        assert_eq!(client.until_closed(), unavailable(version));
    }
}

#[test]
fn clients_of_a_broker_that_is_killed_are_closed() {
    let broker = Broker::mosquitto();
    let mgate = start(broker.port, "");
    let mut before_5 = Peer::connected(mgate.address(), Version::V311, "dev-1");
    let mut of_5 = Peer::connected(mgate.address(), Version::V5, "dev-2");
    broker.kill();
    assert_eq!(before_5.until_closed(), b"");
    let goodbye = of_5.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8b), "{goodbye:02x?}");
}

#[test]
fn will_of_a_client_that_breaks_off_is_published() {
    let broker = Broker::mosquitto();
    let mgate = start(broker.port, "");
    for version in BOTH {
        let mut watcher = Peer::connected(mgate.address(), version, "watcher");
        watcher.subscribe(version, &[("wills/#", 0)]);
        drop(Peer::connected_with(mgate.address(), &connect(version, "dev-1").will("wills/dev-1", "gone")));
        watcher.expect(&publish(version, "wills/dev-1", "gone"));
        let mut polite =
            Peer::connected_with(mgate.address(), &connect(version, "dev-2").will("wills/dev-2", "gone"));
        polite.send(&DISCONNECT);
        polite.until_closed();
        watcher.expect_nothing_but_pong();
    }
}

#[test]
fn will_of_a_client_that_falls_silent_is_published() {
    let broker = Broker::mosquitto();
    let mgate = start(broker.port, "");
    for version in BOTH {
        let mut watcher = Peer::connected(mgate.address(), version, "watcher");
        watcher.subscribe(version, &[("wills/#", 0)]);
        let silent = connect(version, "dev-1").will("wills/dev-1", "gone").keep_alive_secs(1);
        let mut silent = Peer::connected_with(mgate.address(), &silent);
        let goodbye = silent.until_closed();
        assert!(version == Version::V311 || goodbye[2] == 0x8d, "{goodbye:02x?}");
        watcher.expect(&publish(version, "wills/dev-1", "gone"));
    }
}

#[test]
fn client_without_keep_alive_is_closed_after_the_idle_time() {
    let upstream = Upstream::start();
    let mgate = start(upstream.port(), "limits = { idle_timeout = '1s' }");
    let silent = connect(Version::V5, "dev-1").keep_alive_secs(0);
    let (mut client, mut behind) = upstream.session(mgate.address(), &silent, Version::V5);
    let goodbye = client.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8d), "{goodbye:02x?}");
    assert_eq!(behind.until_closed(), b"", "no DISCONNECT: the will is due");
}

#[test]
fn clients_that_never_read_cost_little_and_can_still_publish() {
    let upstream = Upstream::start();
    let mgate = start(upstream.port(), "");
    let mut sessions: Vec<_> = (0..CLIENTS).map(|number| unread_session(&mgate, &upstream, number)).collect();
    let before = mgate.resident_kib();
    fill(&mut sessions);
    let grown = mgate.resident_kib().saturating_sub(before);
    assert!(grown < CLIENTS * 320, "{grown} KiB for {CLIENTS} clients");
    for (client, behind) in &mut sessions {
        let message = publish(Version::V311, "a/b", "still here");
        client.write_all(&message).unwrap();
        behind.set_nonblocking(false).unwrap();
        let mut came = vec![0; message.len()];
        behind.read_exact(&mut came).unwrap();
        assert_eq!(came, message);
    }
}

#[test]
fn client_that_reads_again_gets_all_that_waited() {
    let upstream = Upstream::start();
    let mgate = start(upstream.port(), "");
    let (mut client, mut behind) = unread_session(&mgate, &upstream, 1);
    let sent = fill(std::slice::from_mut(&mut (client.try_clone().unwrap(), behind.try_clone().unwrap())));
    // the last message is whole only when its rest has found room
    let message = delivery();
    behind.set_nonblocking(false).unwrap();
    let rest = message[sent % message.len()..].to_vec();
    let writer = std::thread::spawn(move || behind.write_all(&rest));
    for number in 0..sent.div_ceil(message.len()) {
        let mut came = vec![0; message.len()];
        client.read_exact(&mut came).unwrap();
        assert!(came == message, "message {number} is another");
    }
    writer.join().unwrap().unwrap();
}

#[test]
fn length_of_256_mib_from_anybody_is_closed_at_once_and_costs_nothing() {
    let mgate = start(free_port(), "");
    let claim_much = || {
        let mut client = mgate.dial();
        client.send(b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x04\x02");
        assert_eq!(client.until_closed(), b"");
    };
    (0..50).for_each(|_| claim_much());
    let before = mgate.resident_kib();
    (0..200).for_each(|_| claim_much());
    let grown = mgate.resident_kib().saturating_sub(before);
    assert!(grown < 1024, "{grown} KiB for 200 connections");
}

#[test]
fn packet_over_the_limit_is_refused_in_5() {
    let upstream = Upstream::start();
    let mgate = start(upstream.port(), "limits = { packet_bytes = 1000 }");
    let with_payload = |bytes: usize| publish(Version::V5, "a", &"x".repeat(bytes));
    let (mut client, mut behind) =
        upstream.session(mgate.address(), &connect(Version::V5, "dev-1"), Version::V5);
    let largest = with_payload(993);
    assert_eq!(largest.len(), 1000);
    client.send(&largest);
    behind.expect(&largest);
    client.send(&with_payload(994)[..3]);
    let goodbye = client.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x95), "{goodbye:02x?}");
    assert_eq!(behind.until_closed(), b"");
}

#[test]
fn connection_without_connect_is_closed_in_time() {
    let mgate = start(free_port(), "limits = { connect_timeout = '200ms' }");
    let connect = connect(Version::V5, "dev-1").bytes();
    for beginning in [0, 1, connect.len() - 1] {
        let mut client = mgate.dial();
        client.send(&connect[..beginning]);
        assert_eq!(client.until_closed(), b"");
    }
}

#[test]
fn half_a_handshake_is_closed_in_time() {
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]).with_certificates();
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key' }";
    let limits = "limits = { handshake_timeout = '200ms' }";
    for (scheme, more, beginning) in [
        ("mqtts", tls, b"\x16\x03\x01\x02\x00\x01\x00".as_slice()),
        ("mqtt+ws", "", b"GET /mqtt HTTP/1.1\r\nHost: a\r\n"),
        ("mqtt+wss", tls, b""),
    ] {
        let text = config(free_port(), &format!("{more}\n{limits}"), "");
        let mgate =
            Mgate::start(&files, &text.replace("'mqtt://127.0.0.1:0'", &format!("'{scheme}://127.0.0.1:0'")));
        let mut client = mgate.dial();
        client.send(beginning);
        client.until_closed();
    }
}

#[test]
fn connections_of_a_route_are_bounded() {
    let upstream = Upstream::start();
    let mgate = start(upstream.port(), "limits = { connections = 2 }");
    let named = |name: &str| connect(Version::V311, name);
    let _first = upstream.session(mgate.address(), &named("a"), Version::V311);
    let second = upstream.session(mgate.address(), &named("b"), Version::V311);
    assert!(is_refused(&mgate, &named("c")));
    drop(second);
    let mut knocking = Vec::new();
    wait_until("there is room again", || {
        knocking.push(knock(&mgate, &named("c")));
        upstream.try_accept().is_some()
    });
}

#[test]
fn connections_of_an_address_are_bounded() {
    let upstream = Upstream::start();
    let mgate = start(upstream.port(), "limits = { connections_per_address = 1 }");
    let named = |name: &str| connect(Version::V311, name);
    let _first = upstream.session(mgate.address(), &named("a"), Version::V311);
    assert!(is_refused(&mgate, &named("b")));
    let mut elsewhere = Peer::new(tcp_from(Ipv4Addr::new(127, 0, 0, 2), mgate.address()));
    elsewhere.send(&named("b").bytes());
    upstream.accept().expect(&named("b").bytes());
}

#[test]
fn sigterm_says_goodbye_and_ends_with_0() {
    let upstream = Upstream::start();
    let mut mgate = start(upstream.port(), "");
    let sessions = BOTH.map(|version| {
        upstream.session(mgate.address(), &connect(version, &format!("dev-{version:?}")), version)
    });
    let [(mut before_5, _behind_before_5), (mut of_5, _behind_of_5)] = sessions;
    mgate.terminate();
    assert_eq!(before_5.until_closed(), b"");
    let words = reason_string("the gateway stops");
    let goodbye = [&[0x8b, u8::try_from(words.len()).unwrap()], words.as_slice()].concat();
    assert_eq!(of_5.until_closed(), packet(0xe0, &goodbye));
    drop((before_5, of_5));
    assert_eq!(mgate.wait().code(), Some(0), "{}", mgate.log.text());
}

#[test]
fn gateway_serves_however_little_is_logged() {
    let upstream = Upstream::start();
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let text = config(upstream.port(), "", "").replace("127.0.0.1:0'", &format!("{address}'"));
    let file = files.write("mgate.toml", &text);
    let (mut process, _) = Process::start_with_stderr(mgate(&["run", "--log-level", "off", "-c"]).arg(file));
    wait_until("mgate listens", || {
        assert!(process.is_running(), "mgate ended");
        TcpStream::connect(address).is_ok()
    });
    upstream.session(address, &connect(Version::V5, "dev-1"), Version::V5);
    assert!(process.is_running());
}

#[test]
fn route_that_cannot_listen_stops_the_start_with_one_line() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (free, taken) = (free_port(), taken.local_addr().unwrap());
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
    let second =
        format!("[[route]]\nname = 'second'\nlisten = 'mqtt://{taken}'\nupstream = 'mqtt://127.0.0.1'\n");
    let text = config(1883, "", &second).replace("127.0.0.1:0'", &format!("127.0.0.1:{free}'"));
    let file = files.write("mgate.toml", &text);
    let output = mgate(&["run", "--log-level", "error", "-c"]).arg(file).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        said,
        format!("mgate: route second: cannot listen at {taken}: Address already in use (os error 98)\n")
    );
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, free)).is_err());
}

fn start(upstream: u16, more: &str) -> Mgate {
    Mgate::start(&Files::new(&[("acl.toml", ALLOW_ALL)]), &config(upstream, more, ""))
}

/// CONNACK that says that the server is not available.
fn unavailable(version: Version) -> Vec<u8> {
    let words = reason_string("the upstream is not available");
    match version {
        Version::V5 => {
            packet(0x20, &[&[0, 0x88, u8::try_from(words.len()).unwrap()], words.as_slice()].concat())
        }
        _ => vec![0x20, 2, 0, 0x03],
    }
}

/// Whether a client is closed, or reset, before it hears a word.
fn is_refused(mgate: &Mgate, connect: &Connect) -> bool {
    match knock(mgate, connect).and_then(|mut client| client.read(&mut [0])) {
        Ok(count) => count == 0,
        Err(error) => [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()),
    }
}

/// A client that may be reset at any time.
fn knock(mgate: &Mgate, connect: &Connect) -> io::Result<TcpStream> {
    let mut client = TcpStream::connect(mgate.address())?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.write_all(&connect.bytes())?;
    Ok(client)
}

/// A connection that comes from an address of our choice.
fn tcp_from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tcp = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        socket.connect(address).await.unwrap().into_std().unwrap()
    });
    tcp.set_nonblocking(false).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp
}

/// Both ends of a session, with nothing read ahead.
fn unread_session(mgate: &Mgate, upstream: &Upstream, number: u64) -> (TcpStream, TcpStream) {
    let mut client = tcp(mgate.address());
    let connect = connect(Version::V311, &format!("dev-{number}")).bytes();
    client.write_all(&connect).unwrap();
    let mut behind = upstream.accept_tcp();
    behind.read_exact(&mut vec![0; connect.len()]).unwrap();
    behind.write_all(&connack(Version::V311)).unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    behind.set_nonblocking(true).unwrap();
    (client, behind)
}

/// Delivers to all clients until nobody has taken a byte for a while; says how many bytes were taken.
fn fill(sessions: &mut [(TcpStream, TcpStream)]) -> usize {
    let message = delivery();
    let mut taken = vec![0; sessions.len()];
    let mut moved = Now::read().instant;
    while Now::read().instant - moved < Duration::from_millis(500) {
        for ((_, behind), taken) in sessions.iter_mut().zip(&mut taken) {
            while let Ok(count) = behind.write(&message[*taken % message.len()..]) {
                *taken += count;
                moved = Now::read().instant;
            }
        }
    }
    assert!(taken.iter().all(|taken| *taken > message.len()), "{taken:?}");
    taken.iter().sum()
}

/// A message of 64 KiB and a bit.
fn delivery() -> Vec<u8> {
    publish_with(Version::V311, (0, 0), "a/b", b"", &"0123456789abcdef".repeat(4096))
}

const CLIENTS: u64 = 64;
