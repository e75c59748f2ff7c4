//! Routes of CoAP, with libcoap's client and server, and with datagrams that neither of them would send.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use support::broker::free_port;
use support::coap::{
    CoapServer, client, coap_client, descriptors, device, post, receive, receive_from, upstream,
};
use support::nats::NatsServer;
use support::process::Process;
use support::service::{Service, answer};
use support::{Files, Mgate, PATIENCE, wait_until};

#[test]
fn what_is_allowed_passes_through_and_nothing_else() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &sensors(server.port, ""));
    let url = |path: &str| format!("coap://{}{path}", mgate.address());
    assert!(client(&["-N", &url("/")]).contains("test server"));
    assert!(client(&[&url("/time?auth=a==/b")]).contains(':'), "a time");
    assert_eq!(client(&["-m", "put", "-e", "hello", &url("/dynamic")]), "");
    assert_eq!(client(&[&url("/dynamic")]), "hello");
    for (method, path, code) in [
        ("get", "/secret", "4.03"),
        ("delete", "/dynamic", "4.03"),
        ("post", "/dynamic", "4.03"),
        ("fetch", "/dynamic", "4.03"),
        ("patch", "/dynamic", "4.03"),
        ("ipatch", "/dynamic", "4.03"),
    ] {
        let said = client(&["-m", method, "-e", "x", &url(path)]);
        assert!(said.starts_with(code), "{method} {path}: {said}");
    }
    mgate.log.wait_for("GET /secret");
    assert!(!mgate.log.text().contains("a==/b"));
}

#[test]
fn bodies_in_blocks_pass_both_ways() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &sensors(server.port, ""));
    let url = format!("coap://{}/dynamic", mgate.address());
    let body: String = (0..900).map(|number| format!("{number:04}\n")).collect();
    let file = files.write("body", &body);
    assert_eq!(client(&["-m", "put", "-b", "64", "-f", file.to_str().unwrap(), &url]), "");
    assert_eq!(client(&["-b", "128", &url]).trim(), body.trim());
    let denied = client(&["-m", "post", "-b", "64", "-f", file.to_str().unwrap(), &url]);
    assert!(denied.starts_with("4.03"), "{denied}");
}

#[test]
fn observer_is_told_of_changes_until_its_right_is_withdrawn() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &sensors(server.port, ""));
    let url = format!("coap://{}/time", mgate.address());
    let (_observer, heard) =
        Process::start_with_stdout(&mut coap_client(&["-w", "-s", "60", "-B", "60", &url]));
    wait_until("three times were told", || {
        heard.lines().iter().filter(|line| line.contains(':')).count() > 2
    });
    files.write("acl.toml", &ACL_FILE.replace("'request', 'observe'", "'request'"));
    mgate.reload();
    mgate.log.wait_for("\"action\":\"observe\"");
    let denied = client(&["-s", "1", "-B", "3", &url]);
    assert!(denied.contains("4.03"), "{denied}");
}

#[test]
fn request_on_its_way_hears_that_its_right_is_withdrawn() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &sensors(upstream.local_addr().unwrap().port(), ""));
    let (reader, writer) = (device(mgate.address()), device(mgate.address()));
    reader.send(&[0x40, 1, 0, 7, 0xb4, b't', b'i', b'm', b'e']).unwrap();
    let (_, to_reader) = receive_from(&upstream);
    // a body in two blocks of 16 bytes
    let part = |id, block, payload: &[u8]| {
        [&[0x40, 3, 0, id, 0xb7], &b"dynamic"[..], &[0xd1, 27 - 11 - 13, block, 0xff], payload].concat()
    };
    writer.send(&part(1, 0x08, &[b'x'; 16])).unwrap();
    let (_, to_writer) = receive_from(&upstream);
    upstream.send_to(&[0x60, 0x5f, 0, 1, 0xd1, 27 - 13, 0x08], to_writer).unwrap();
    assert_eq!(receive(&writer)[..4], [0x60, 0x5f, 0, 1]);
    writer.send(&part(2, 0x10, b"y")).unwrap();
    receive_from(&upstream);
    files.write("acl.toml", &ACL_FILE.replace("'request', 'observe'", "'observe'"));
    mgate.reload();
    assert_eq!(receive(&reader), [0x60, 0x83, 0, 7]);
    assert_eq!(receive(&writer), [0x60, 0x83, 0, 2]);
    for (client, to_client) in [(&reader, to_reader), (&writer, to_writer)] {
        upstream.send_to(&[0x40, 0x45, 9, 9, 0xff, b'x'], to_client).unwrap();
        assert_eq!(receive_from(&upstream), (vec![0x70, 0, 9, 9], to_client));
        client.send(&[0x40, 0, 0, 9]).unwrap();
        assert_eq!(receive(client), [0x70, 0, 0, 9], "and nothing before");
    }
}

#[test]
fn messages_of_channels_are_published_for_who_has_the_key() {
    let (files, upstream) = (files(), upstream());
    let things = Service::saying(answer("200 OK", "application/json", r#"{"id":"thing-1"}"#));
    let port = upstream.local_addr().unwrap().port();
    let more = "authn = ['things']\nmirror = 'log'\ncoap = { profile = 'messages' }\n";
    let authn = format!(
        "[authn.things]\ntype = 'remote'\ndialect = 'mainflux-0.13'\nurl = '{}'\n[mirror.log]\ntype = 'log'\n",
        things.url("")
    );
    let mgate = Mgate::start(&files, &format!("{}{authn}", sensors(port, more)));
    let device = device(mgate.address());
    device.send(&post(1, &["channels", "1", "messages", "t"], "auth=key==", "21")).unwrap();
    let (request, from) = receive_from(&upstream);
    assert_eq!(request, post(1, &["channels", "1", "messages", "t"], "", "21"));
    assert!(things.heard()[0].body.contains("key=="));
    upstream.send_to(&[0x60, 0x44, 0, 1], from).unwrap();
    assert_eq!(receive(&device), [0x60, 0x44, 0, 1]);
    mgate.log.wait_for("channels/1/messages/t");
    device.send(&post(2, &["channels", "2", "messages"], "auth=key==", "21")).unwrap();
    assert_eq!(receive(&device), [0x60, 0x83, 0, 2]);
    assert!(!mgate.log.text().contains("key=="));
}

#[test]
fn messages_may_be_mirrored_alone() {
    let files = files();
    let mgate = Mgate::start(&files, &mirrored_alone("log", "type = 'log'"));
    let url = |path: &str| format!("coap://{}/channels/{path}", mgate.address());
    let post = |path: &str| client(&["-m", "post", "-e", "21", "-t", "0", &url(path)]);
    assert_eq!(post("3/messages/room"), "");
    mgate.log.wait_for("channels/3/messages/room");
    assert!(post("4/messages").starts_with("4.03"));
    let body = "0123456789".repeat(500);
    let file = files.write("body", &body);
    let url = url("3/messages");
    assert_eq!(client(&["-m", "post", "-b", "64", "-f", file.to_str().unwrap(), &url]), "");
    mgate.log.wait_for(&body[..100]);
    for what in [&["-s", "1"][..], &[], &["-m", "put", "-e", "x"]] {
        let said = client(&[what, &["-B", "3", &url]].concat());
        assert!(said.starts_with("4.05"), "{what:?}: {said}");
    }
}

#[test]
fn message_that_is_mirrored_alone_is_answered_once_it_is_stored() {
    let (files, port) = (files(), free_port());
    let mirror = format!(
        "type = 'nats'\nurl = 'nats://127.0.0.1:{port}'\nmode = 'acked'\ndialect = 'plain'\n\
         subject = 'mgate.{{route}}'\nevents = false\nstream = {{ name = 'copies' }}"
    );
    let mgate = Mgate::start(&files, &mirrored_alone("bus", &mirror));
    let device = device(mgate.address());
    let message = |id, text| post(id, &["channels", "3", "messages"], "", text);
    mgate.log.wait_for("no connection to NATS");
    device.send(&message(1, "early")).unwrap();
    assert_eq!(receive(&device)[..4], [0x60, 0xa3, 0, 1]);
    let server = NatsServer::with_jetstream(port, &files.path("jetstream"));
    server.create_stream("copies", "mgate.>");
    mgate.log.wait_for("the stream is there");
    for _ in 0..3 {
        device.send(&message(2, "late")).unwrap();
        assert_eq!(receive(&device), [0x60, 0x44, 0, 2]);
        let stored = server.contents("copies");
        assert_eq!(stored.iter().filter(|content| *content == "late").count(), 1, "{stored:?}");
    }
}

#[test]
fn requests_that_come_again_are_answered_once_more_and_go_nowhere() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &sensors(upstream.local_addr().unwrap().port(), ""));
    let device = device(mgate.address());
    let request = [0x40, 1, 0, 7, 0xb4, b't', b'i', b'm', b'e'];
    device.send(&request).unwrap();
    let (came, from) = receive_from(&upstream);
    assert_eq!(came, request);
    upstream.send_to(&[0x60, 0x45, 0, 7, 0xff, b'1'], from).unwrap();
    let answer = receive(&device);
    for _ in 0..3 {
        device.send(&request).unwrap();
        assert_eq!(receive(&device), answer);
    }
    upstream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(upstream.recv(&mut [0; 100]).is_err());
}

#[test]
fn malformed_datagrams_are_not_answered_and_harm_nobody() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &sensors(upstream.local_addr().unwrap().port(), ""));
    let device = device(mgate.address());
    for datagram in [
        &b""[..],
        b"\x40",
        b"\x00\x01\x00\x01",
        b"\x49\x01\x00\x01123456789",
        b"\x40\x01\x00\x01\xff",
        b"\x40\x01\x00\x01\xf1a",
        b"\x40\x20\x00\x01",
        b"\x60\x45\x00\x01",
        b"\x70\x00\x00\x01",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 2000],
    ] {
        device.send(datagram).unwrap();
    }
    // a ping, so that all before it were looked at
    device.send(&[0x40, 0, 0, 9]).unwrap();
    assert_eq!(receive(&device), [0x70, 0, 0, 9]);
    upstream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(upstream.recv(&mut [0; 100]).is_err());
}

#[test]
fn many_strangers_cost_no_sockets_and_little_memory() {
    let (files, upstream) = (files(), upstream());
    let more = "limits = { connections = 100 }\n";
    let mgate = Mgate::start(&files, &sensors(upstream.local_addr().unwrap().port(), more));
    let request = [0x40, 1, 0, 7, 0xb6, b's', b'e', b'c', b'r', b'e', b't'];
    flood(&mgate, &request, Some(&[0x60, 0x83, 0, 7]));
}

#[test]
fn garbage_from_many_costs_nothing() {
    let (files, upstream) = (files(), upstream());
    let mgate = Mgate::start(&files, &sensors(upstream.local_addr().unwrap().port(), ""));
    for garbage in [&b"\x40\x01\x00\x01\xff"[..], b"\x60\x45\x00\x01\xff!", b"GET / HTTP/1.1\r\n\r\n"] {
        flood(&mgate, garbage, None);
    }
    upstream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(upstream.recv(&mut [0; 100]).is_err());
}

#[test]
fn peers_that_do_not_show_where_they_are_cost_nothing() {
    let (files, upstream) = (files(), upstream());
    let more = "coap = { challenge = true }\n";
    let mgate = Mgate::start(&files, &sensors(upstream.local_addr().unwrap().port(), more));
    flood(&mgate, &[0x40, 1, 0, 7, 0xb4, b't', b'i', b'm', b'e'], Some(&[0x60, 0x81, 0, 7]));
    upstream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(upstream.recv(&mut [0; 100]).is_err(), "what nobody vouches for goes nowhere");
}

#[test]
fn peers_of_many_workers_that_come_at_once_are_all_answered() {
    let (files, upstream) = (files(), upstream());
    let more = "limits = { connections_per_address = 8 }\n";
    let config = sensors(upstream.local_addr().unwrap().port(), more);
    let mgate = Mgate::start(&files, &format!("workers = 16\n{config}"));
    let clients: Vec<_> = (0..200).map(|_| device(mgate.address())).collect();
    for client in &clients {
        client.send(&[0x50, 1, 0, 1, 0xb6, b's', b'e', b'c', b'r', b'e', b't']).unwrap();
    }
    for client in &clients {
        let answer = receive(client);
        assert_eq!(answer[..2], [0x50, 0x83]);
    }
}

#[test]
fn notifications_in_blocks_come_whole() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &sensors(server.port, ""));
    let url = format!("coap://{}/dynamic", mgate.address());
    let body = |word: &str| (0..400).map(|number| format!("{word} {number:03}\n")).collect::<String>();
    let put = |word: &str| {
        let file = files.write(word, &body(word));
        assert_eq!(client(&["-m", "put", "-b", "64", "-f", file.to_str().unwrap(), &url]), "");
    };
    put("first");
    let (_observer, heard) =
        Process::start_with_stdout(&mut coap_client(&["-w", "-s", "60", "-B", "60", &url]));
    wait_until("the first body came", || heard.text().contains("first 399"));
    put("second");
    wait_until("the second body came", || heard.text().contains(&body("second")));
}

#[test]
fn upstream_that_is_not_there_is_told_of_at_once() {
    let files = files();
    let port = upstream().local_addr().unwrap().port();
    let mgate = Mgate::start(&files, &sensors(port, ""));
    let said = client(&["-B", "5", &format!("coap://{}/time", mgate.address())]);
    assert!(said.starts_with("5.03"), "{said}");
}

#[test]
fn peer_shows_where_it_is_before_anything_else() {
    let (files, server) = (files(), CoapServer::start());
    let mgate = Mgate::start(&files, &sensors(server.port, "coap = { challenge = true }\n"));
    let device = device(mgate.address());
    let mut request = vec![0x40, 1, 0, 1, 0xb4, b't', b'i', b'm', b'e'];
    device.send(&request).unwrap();
    let challenge = receive(&device);
    assert_eq!((challenge[..4].to_vec(), challenge.len()), (vec![0x60, 0x81, 0, 1], 14));
    // Echo behind Uri-Path: a delta of 241
    request[3] = 2;
    request.extend_from_slice(&[0xd8, 241 - 13]);
    request.extend_from_slice(&challenge[6..]);
    device.send(&request).unwrap();
    assert_eq!(receive(&device)[..4], [0x60, 0x45, 0, 2]);
}

#[test]
fn gateway_ends_with_a_word_to_those_who_wait() {
    let (files, upstream) = (files(), upstream());
    let mut mgate = Mgate::start(&files, &sensors(upstream.local_addr().unwrap().port(), ""));
    let device = device(mgate.address());
    device.send(&[0x40, 1, 0, 7, 0xb4, b't', b'i', b'm', b'e']).unwrap();
    receive_from(&upstream);
    mgate.terminate();
    assert_eq!(receive(&device)[..4], [0x60, 0xa3, 0, 7]);
    assert!(mgate.wait().success());
}

/// Sends a datagram from each of ten thousand addresses, which costs neither memory nor sockets.
fn flood(mgate: &Mgate, datagram: &[u8], expected: Option<&[u8]>) {
    let before = (mgate.resident_kib(), descriptors(mgate));
    for number in 1..=10_000u32 {
        let [_, a, b, c] = (0x7f10_0000 + number).to_be_bytes();
        let stranger = UdpSocket::bind((Ipv4Addr::new(127, a, b, c), 0)).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        stranger.send_to(datagram, mgate.address()).unwrap();
        if expected.is_none() {
            // a ping, so that what came before it was looked at
            stranger.send_to(&[0x40, 0, 0, 9], mgate.address()).unwrap();
        }
        let expected = expected.unwrap_or(&[0x70, 0, 0, 9]);
        let mut buffer = [0; 100];
        let count = stranger.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..count.min(expected.len())], *expected);
    }
    let after = (mgate.resident_kib(), descriptors(mgate));
    assert!(after.0 < before.0 + 4 * 1024 && after.1 <= before.1, "{before:?} before, {after:?} after");
}

fn files() -> Files {
    Files::new(&[("acl.toml", ACL_FILE)])
}

/// The route `sensors` with the policy `acl.toml`; `more` are further keys of it.
fn sensors(upstream: u16, more: &str) -> String {
    format!(
        "[[route]]\nname = 'sensors'\nlisten = 'coap://127.0.0.1:0'\nupstream = 'coap://127.0.0.1:{upstream}'\n\
         policies = ['acl']\n{more}[policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n"
    )
}

/// A route whose messages go to a mirror alone, as the policy `acl.toml` says.
fn mirrored_alone(name: &str, mirror: &str) -> String {
    format!(
        "[[route]]\nname = 'sensors'\nlisten = 'coap://127.0.0.1:0'\npolicies = ['acl']\nmirror = '{name}'\n\
         coap = {{ profile = 'messages' }}\nlimits = {{ store_timeout = '1s' }}\n\
         [policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n[mirror.{name}]\n{mirror}\n"
    )
}

const ACL_FILE: &str = "\
version = 1
[[statements]]
sid = 'read'
effect = 'allow'
principals = ['*']
actions = ['request', 'observe']
resources = ['path:/', 'path:/time', 'path:/dynamic']
conditions = { methods = ['GET', 'PUT'] }
[[statements]]
sid = 'messages'
effect = 'allow'
principals = ['client:thing-1']
actions = ['publish', 'subscribe']
resources = ['topic:channels/1/messages/#']
[[statements]]
sid = 'anybody'
effect = 'allow'
principals = ['*']
actions = ['publish']
resources = ['topic:channels/3/messages/#']
";
