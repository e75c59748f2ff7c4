//! WebSocket on routes of HTTP, with real clients and servers, and with frames that neither of them would send.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use mgate_policies::Now;
use serde_json::json;
use support::frames::{BINARY, CLOSE, Frames, PING, PONG, TEXT, UPGRADE, accept_of, masked};
use support::http::{exchange, read_head};
use support::http2::{self, DATA, END_HEADERS, Frame, HEADERS, Http2, block};
use support::issuer::SigningKey;
use support::peer::{Upstream, tcp};
use support::process::{Lines, Process};
use support::service::{Service, answer};
use support::websocket::{EchoServer, node_peers};
use support::{ACL, Files, Mgate, PASSWORD, PASSWORD_HASH, wait_until};

#[test]
fn real_clients_and_servers_speak_through_it() {
    let (files, server) = (files(), EchoServer::start());
    let mgate = Mgate::start(&files, &web(server.port, "", ""));
    let url = format!("ws://{}/chat/1?x=1", mgate.address());
    for kind in ["ws", "browser"] {
        let (_client, said) = client(&["client", kind, &url, "other,chat", "hello", "ünï", "#0", "#200000"]);
        said.wait_for("close 4000");
        let expected = [
            "open chat -",
            "message text hello",
            "message text ünï",
            "message binary 0",
            "message binary 200000",
        ];
        assert_eq!(said.lines()[..5], expected, "{kind}");
        server.said.wait_for_times("close 4000", if kind == "ws" { 1 } else { 2 });
    }
    let (_client, said) = client(&["client", "ws", &url, "", "close"]);
    assert_eq!(said.wait_for("close"), "close 4001 ");
    assert_eq!(server.said.count("done"), 0, "nobody was asked about the reason");
    let opened = server.said.wait_for("open /chat/1?x=1 ");
    assert!(!opened.contains("extensions") && opened.contains("\"sec-websocket-protocol\":\"other,chat\""));
    assert!(opened.contains("\"x-forwarded-for\":\"127.0.0.1\""), "{opened}");
}

#[test]
fn websockets_go_over_tls_and_over_http2() {
    let (files, server) = (files().with_certificates(), EchoServer::start());
    let tls = "[route.tls]\ncert = 'localhost.pem'\nkey = 'localhost.key'\n";
    let config = web(server.port, "", tls).replace("listen = 'http:", "listen = 'https:");
    let mut mgate = Mgate::start(&files, &config);
    let (ca, port) = (files.path("ca.pem"), mgate.address().port());
    let ca = ca.to_str().unwrap();
    let url = format!("wss://localhost:{port}/chat/1");
    let (_one, said) =
        start(node_peers(&["client", "ws", &url, "chat", "hello"]).env("NODE_EXTRA_CA_CERTS", ca));
    said.wait_for("close 4000");
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let (_two, said) = client(&["http2", &url("/chat/2"), ca, "one", "two"]);
    said.wait_for("close 4000");
    assert_eq!(said.lines(), ["settings true", "open 200 chat", "message one", "message two", "close 4000"]);
    let (_three, said) = client(&["http2", &url("/quiet/2"), ca, "one"]);
    said.wait_for("close 1008");
    assert_eq!(said.count("message"), 0);
    let (_four, said) = client(&["http2", &url("/secret/2"), ca, "one"]);
    said.wait_for("open 403");
    assert_eq!((server.said.count("open"), server.said.count("message")), (3, 3), "{}", server.said.text());
    let (_five, said) = client(&["http2", &url("/chat/3"), ca, "hello", "stay"]);
    said.wait_for("message hello");
    mgate.terminate();
    said.wait_for("close 1001");
    server.said.wait_for("close 1001");
    assert!(mgate.wait().success());
}

#[test]
fn upgrade_that_is_allowed_opens_nothing_by_itself() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/quiet/1", "", &upstream);
    client.send(TEXT, b"up");
    client.expect_close(1008);
    behind.expect_close(1008);
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/quiet/1", "", &upstream);
    behind.send(BINARY, b"down");
    behind.expect_close(1008);
    client.expect_close(1008);
    // each direction has a right of its own
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/talk/1", "", &upstream);
    client.send(TEXT, b"up");
    behind.expect(TEXT, b"up");
    behind.send(TEXT, b"down");
    client.expect_close(1008);
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/listen/1", "", &upstream);
    behind.send(TEXT, b"down");
    client.expect(TEXT, b"down");
    client.send(TEXT, b"up");
    behind.expect_close(1008);
    mgate.log.wait_for("deliver");
    mgate.log.wait_for("quiet/1");
}

#[test]
fn frames_that_come_with_the_request_are_asked_about_too() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let mut client = Frames::ask(mgate.address(), "/talk/1", "");
    client.tcp.write_all(&[masked(TEXT, b"early"), masked(PING, b"p")].concat()).unwrap();
    let mut behind = Frames::answer(&upstream, "");
    behind.expect(TEXT, b"early");
    let (first, number) = behind.next();
    assert_eq!((first, number.len()), (PING, 8), "a ping passes without what it carries");
    behind.send(PONG, &number);
    let mut client = client.taken();
    client.expect(PONG, b"p");
    let mut client = Frames::ask(mgate.address(), "/quiet/1", "");
    client.tcp.write_all(&masked(TEXT, b"early")).unwrap();
    Frames::answer(&upstream, "").expect_close(1008);
    client.taken().expect_close(1008);
}

#[test]
fn requests_that_are_refused_never_reach_the_upstream() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    for (path, headers, status) in [
        ("/secret/1", "", 403),
        ("/chat/../secret", "", 400),
        ("/chat/%23", "", 400),
        ("/chat/1", "Origin: https://evil.example\r\n", 403),
        ("/chat/1", "Sec-WebSocket-Protocol: chat, mqtt\r\n", 501),
        ("/chat/1", "Sec-WebSocket-Protocol: mqttv3.1\r\n", 501),
        ("/chat/1", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
        ("/chat/1", "Content-Length: 3\r\n", 400),
    ] {
        let mut client = Frames::ask(mgate.address(), path, headers);
        // what follows is no request, whatever it looks like
        client.tcp.write_all(b"GET /chat/2 HTTP/1.1\r\nHost: gate.example\r\n\r\n").unwrap();
        let (said, all) = client.refused();
        assert_eq!(said, status, "{path} {headers}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{path} {headers}: {all}");
    }
    let old = UPGRADE.replace("Version: 13", "Version: 8");
    let request = format!("GET /chat/1 HTTP/1.1\r\nHost: gate.example\r\n{old}\r\n");
    let said = exchange(mgate.address(), request.as_bytes()).to_lowercase();
    assert!(said.starts_with("http/1.1 426 ") && said.contains("sec-websocket-version: 13\r\n"), "{said}");
    assert!(upstream.try_accept().is_none());
}

#[test]
fn pages_of_named_sites_may_connect() {
    let (files, upstream) = (files(), Upstream::start());
    let origins = "http = { origins = ['https://app.example'] }\n";
    let mgate = Mgate::start(&files, &web(upstream.port(), origins, ""));
    for origin in ["https://app.example", "http://gate.example"] {
        Frames::pair(mgate.address(), "/chat/1", &format!("Origin: {origin}\r\n"), &upstream);
    }
    let evil = Frames::ask(mgate.address(), "/chat/1", "Origin: https://evil.example\r\n");
    assert_eq!(evil.refused().0, 403);
}

#[test]
fn upstream_opens_nothing_that_was_not_asked_for() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    for headers in [
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        "Sec-WebSocket-Protocol: mqtt\r\n",
        "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: other\r\n",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    ] {
        let offer = "Sec-WebSocket-Protocol: chat, other\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
        let client = Frames::ask(mgate.address(), "/chat/1", offer);
        let behind = Frames::answer(&upstream, headers);
        assert!(!behind.head.to_lowercase().contains("extensions"), "{}", behind.head);
        assert_eq!(client.refused().0, 502, "{headers}");
    }
    // without an upgrade, or with one that `Connection` does not name
    for headers in ["", "Upgrade: websocket\r\nConnection: close\r\n"] {
        let mut client = tcp(mgate.address());
        let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        write!(client, "GET /chat/1 HTTP/1.1\r\nHost: a\r\n{key}{headers}\r\n").unwrap();
        let mut behind = upstream.accept_tcp();
        let head = read_head(&mut behind);
        assert!(!head.to_lowercase().contains("upgrade"), "{head}");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept_of(&head)
        );
        behind.write_all(answer.as_bytes()).unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 502 "));
    }
}

#[test]
fn other_answers_of_the_upstream_pass() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    for status in ["200 OK", "401 Unauthorized", "302 Found"] {
        let client = Frames::ask(mgate.address(), "/chat/1", "");
        let mut behind = upstream.accept_tcp();
        read_head(&mut behind);
        write!(behind, "HTTP/1.1 {status}\r\nContent-Length: 5\r\nX-More: y\r\n\r\nsorry").unwrap();
        let (said, all) = client.refused_after(5);
        assert!(status.starts_with(&said.to_string()), "{all}");
        assert!(all.ends_with("sorry") && all.contains("x-more: y"), "{all}");
    }
    drop(upstream);
    assert_eq!(Frames::ask(mgate.address(), "/chat/1", "").refused().0, 502);
}

#[test]
fn clients_are_known_as_for_every_request() {
    let (files, upstream) = (files(), Upstream::start());
    files.write("users.toml", &format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n"));
    let table = "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n";
    let mgate = Mgate::start(&files, &web(upstream.port(), "authn = ['users']\n", table));
    assert_eq!(Frames::ask(mgate.address(), "/own/dev-1", "").refused().0, 401);
    let login =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("dev-1:{PASSWORD}"));
    let header = format!("Authorization: Basic {login}\r\n");
    assert_eq!(Frames::ask(mgate.address(), "/own/dev-2", &header).refused().0, 403);
    let in_query = format!("/own/dev-1?x=1&authorization=Basic%20{}", login.replace('=', "%3D"));
    for (path, header) in [("/own/dev-1?x=1", &*header), (&in_query, "")] {
        let [mut client, mut behind] = Frames::pair(mgate.address(), path, header, &upstream);
        assert!(behind.head.starts_with("GET /own/dev-1?x=1 HTTP/1.1\r\n"), "{}", behind.head);
        assert!(!behind.head.to_lowercase().contains("authorization"), "{}", behind.head);
        client.send(TEXT, b"up");
        behind.expect(TEXT, b"up");
    }
    assert!(!mgate.log.text().contains(&login), "a secret is in the log");
}

#[test]
fn decision_service_is_asked_about_each_message() {
    let (say, said) = channel();
    let said = Mutex::new(said);
    let pdp = Service::start(move |heard, tcp| {
        let is_publish = heard.body.contains("\"name\":\"publish\"");
        let is_allowed = !is_publish || said.lock().unwrap().recv().unwrap_or(false);
        tcp.write_all(&answer("200 OK", "application/json", &format!("{{\"decision\":{is_allowed}}}")))
    });
    let (files, upstream) = (files(), Upstream::start());
    let url = pdp.url("");
    let table = format!("[policy.pdp]\ntype = 'pdp'\ndialect = 'authzen'\nurl = '{url}'\ndeliver = 'ask'\n");
    let limits = "limits = { decision_timeout = '3s' }\n";
    let config = web(upstream.port(), limits, &table).replace("['acl']", "['pdp']").replace(ACL, "");
    let mgate = Mgate::start(&files, &config);
    let pair = |path| Frames::pair(mgate.address(), path, "", &upstream);
    let [mut client, mut behind] = pair("/chat/1");
    client.send(TEXT, b"up");
    client.send(TEXT, b"behind it");
    behind.send(TEXT, b"down");
    client.expect(TEXT, b"down");
    say.send(true).unwrap();
    behind.expect(TEXT, b"up");
    behind.expect(TEXT, b"behind it");
    let [mut client, mut behind] = pair("/chat/2");
    client.send(TEXT, b"up");
    say.send(false).unwrap();
    client.expect_close(1008);
    behind.expect_close(1008);
    // nobody says anything
    let [mut client, mut behind] = pair("/chat/3");
    client.send(TEXT, b"up");
    client.expect_close(1013);
    behind.expect_close(1013);
    let asked = pdp.heard().iter().map(|heard| heard.body.clone()).collect::<String>();
    assert!(asked.contains("\"deliver\"") && asked.contains("chat/3"), "{asked}");
}

#[test]
fn messages_of_a_channel_are_published_and_delivered() {
    let (files, upstream) = (files(), Upstream::start());
    let more = "mirror = 'log'\nhttp = { profile = 'messages' }\n";
    let mgate = Mgate::start(&files, &web(upstream.port(), more, "[mirror.log]\ntype = 'log'\n"));
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/channels/7/messages/a", "", &upstream);
    client.send(TEXT, b"[]");
    behind.expect(TEXT, b"[]");
    behind.send(TEXT, b"{}");
    client.expect(TEXT, b"{}");
    mgate.log.wait_for("channels/7/messages/a");
    assert_eq!(Frames::ask(mgate.address(), "/channels/8/messages", "").refused().0, 403);
    assert_eq!(Frames::ask(mgate.address(), "/channels/7/x", "").refused().0, 400);
    assert_eq!(Frames::ask(mgate.address(), "/health", "").refused().0, 404);
    // who may subscribe was not asked what else it may read there
    let client = Frames::ask(mgate.address(), "/channels/7/messages", "");
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    behind.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers").unwrap();
    let (status, all) = client.refused();
    assert!(status == 502 && !all.contains("others"), "{all}");
}

#[test]
fn who_loses_a_right_is_closed() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let [mut loses, mut behind] = Frames::pair(mgate.address(), "/chat/1", "", &upstream);
    let [mut stays, mut behind_stays] = Frames::pair(mgate.address(), "/talk/1", "", &upstream);
    files.write("acl.toml", &ACL_FILE.replace("path:/chat/#", "path:/other/#"));
    mgate.reload();
    loses.expect_close(1008);
    behind.expect_close(1008);
    stays.send(TEXT, b"still here");
    behind_stays.expect(TEXT, b"still here");
    // of messages, the next one is judged by what holds then
    files.write("acl.toml", &ACL_FILE.replace("topic:talk/#", "topic:other/#"));
    mgate.reload();
    stays.send(TEXT, b"no more");
    behind_stays.expect_close(1008);
    stays.expect_close(1008);
}

#[test]
fn answer_that_opens_nothing_ends_with_the_right_to_it() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let mut client = Frames::ask(mgate.address(), "/chat/1", "");
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    behind.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").unwrap();
    let mut event = [0; 14];
    assert!(read_head(&mut client.tcp).starts_with("HTTP/1.1 200 "));
    client.tcp.read_exact(&mut event).unwrap();
    assert_eq!(&event, b"9\r\ndata: 1\n\n\r\n");
    files.write("acl.toml", &ACL_FILE.replace("path:/chat/#", "path:/other/#"));
    mgate.reload();
    let mut rest = Vec::new();
    client.tcp.read_to_end(&mut rest).expect("it is closed in time");
    assert_eq!(rest, b"", "no end, as there was none");
    assert_eq!(behind.read(&mut [0]).expect("it is closed in time"), 0);
}

#[test]
fn answer_that_opens_nothing_has_the_place_of_a_websocket() {
    let (files, upstream) = (files().with_certificates(), Upstream::start());
    let mgate = Mgate::start(&files, &over_tls(upstream.port(), "limits = { connections = 1 }\n"));
    let mut client = Http2::connected(&files, mgate.address());
    client.raw(&extended_connect(1, "/chat/1"));
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    behind.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nso").unwrap();
    assert_eq!(client.wait_for(DATA).payload, b"so");
    client.raw(&extended_connect(3, "/chat/2"));
    assert_eq!(status(&client.wait_for(HEADERS)), (3, 429));
    behind.write_all(b"rry").unwrap();
    let mut streams = (5..).step_by(2);
    wait_until("there is room again", || {
        client.raw(&extended_connect(streams.next().unwrap(), "/chat/3"));
        upstream.try_accept().is_some()
    });
}

#[test]
fn reload_gives_no_further_places() {
    let (files, upstream) = (files().with_certificates(), Upstream::start());
    let mgate = Mgate::start(&files, &over_tls(upstream.port(), "limits = { connections = 1 }\n"));
    let mut client = Http2::connected(&files, mgate.address());
    client.raw(&extended_connect(1, "/chat/1"));
    let _behind = Frames::answer(&upstream, "");
    assert_eq!(status(&client.wait_for(HEADERS)), (1, 200));
    mgate.reload();
    client.raw(&extended_connect(3, "/chat/1"));
    assert_eq!(status(&client.wait_for(HEADERS)), (3, 429));
}

#[test]
fn connection_of_http2_counts_until_its_websockets_are_over() {
    let (files, upstream) = (files().with_certificates(), Upstream::start());
    let mgate = Mgate::start(&files, &over_tls(upstream.port(), "limits = { connections = 1 }\n"));
    let mut client = Http2::connected(&files, mgate.address());
    client.raw(&extended_connect(1, "/chat/1"));
    let mut behind = Frames::answer(&upstream, "");
    assert_eq!(status(&client.wait_for(HEADERS)), (1, 200));
    drop(client);
    assert_eq!(behind.next().0, CLOSE);
    // who is let in hears nothing, and who is not is closed
    let is_let_in = |patience| {
        let client = TcpStream::connect(mgate.address()).and_then(|mut client| {
            client.set_read_timeout(Some(patience))?;
            client.read(&mut [0])
        });
        client.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    assert!(!is_let_in(Duration::from_secs(2)), "there is no place for another");
    behind.send(CLOSE, b"");
    wait_until("there is room again", || is_let_in(Duration::from_millis(100)));
}

#[test]
fn credentials_that_expire_close_it() {
    let (files, upstream, key) = (files(), Upstream::start(), SigningKey::p256());
    files.write("key.pem", &key.public_pem());
    let mgate = Mgate::start(&files, &web(upstream.port(), "authn = ['tokens']\n", TOKENS));
    let exp = Now::read().unix.as_secs() + 5;
    let claims = json!({ "iss": "https://id.example", "aud": "mgate", "sub": "dev-1", "exp": exp });
    let token = key.token(&json!({ "alg": "ES256" }), &claims);
    let header = format!("Authorization: Bearer {token}\r\n");
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/chat/1", &header, &upstream);
    client.expect_close(1008);
    behind.expect_close(1008);
    assert!(Now::read().unix.as_secs() >= exp);
}

#[test]
fn everybody_hears_that_the_gateway_stops() {
    let (files, upstream) = (files(), Upstream::start());
    let mut mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/chat/1", "", &upstream);
    mgate.terminate();
    client.expect_close(1001);
    behind.expect_close(1001);
    assert!(mgate.wait().success());
}

#[test]
fn limits_hold() {
    let (files, upstream) = (files(), Upstream::start());
    let limits = "limits = { packet_bytes = '1KiB', idle_timeout = '2s' }\n";
    let mgate = Mgate::start(&files, &web(upstream.port(), limits, ""));
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/chat/1", "", &upstream);
    client.send(TEXT, &[b'x'; 1024]);
    behind.expect(TEXT, &[b'x'; 1024]);
    client.send(TEXT, &[b'x'; 1025]);
    client.expect_close(1009);
    behind.expect_close(1001);
    // who does not answer when asked whether it is there is gone
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/chat/1", "", &upstream);
    let (first, number) = behind.next();
    assert_eq!(first, PING);
    behind.send(PONG, &number);
    assert_eq!(client.next().0, PING);
    loop {
        match behind.next() {
            (PING, number) => behind.send(PONG, &number),
            (first, payload) => {
                assert_eq!((first, &payload[..2]), (CLOSE, &1001_u16.to_be_bytes()[..]));
                break;
            }
        }
    }
    mgate.log.wait_for("it is silent");
}

#[test]
fn client_that_does_not_read_stops_the_upstream() {
    let (files, upstream) = (files(), Upstream::start());
    let limits = "limits = { stall_timeout = '3s' }\n";
    let mgate = Mgate::start(&files, &web(upstream.port(), limits, ""));
    let [client, behind] = Frames::pair(mgate.address(), "/chat/1", "", &upstream);
    let before = mgate.resident_kib();
    let mut tcp = behind.tcp;
    tcp.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let (frame, mut sent) = ([&[BINARY, 126, 0xff, 0xff][..], &[0; 65535]].concat(), 0);
    // until it is taken no more, or mgate gave up
    while let Ok(count) = tcp.write(&frame[sent % frame.len()..]) {
        sent += count;
    }
    assert!(sent > 64 * 1024, "{sent} bytes were taken");
    let grown = mgate.resident_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB are kept for a client that does not read");
    mgate.log.wait_for("it takes nothing");
    drop(client);
}

#[test]
fn client_that_does_not_read_its_streams_is_let_go() {
    let (files, upstream) = (files().with_certificates(), Upstream::start());
    let mgate = Mgate::start(&files, &over_tls(upstream.port(), "limits = { stall_timeout = '2s' }\n"));
    let before = mgate.resident_kib();
    let mut client = Http2::connected(&files, mgate.address());
    let frame = [&[BINARY, 127][..], &250_000_u64.to_be_bytes(), &[0; 250_000]].concat();
    thread::scope(|scope| {
        for number in 0..STREAMS {
            client.raw(&extended_connect(1 + 2 * number, "/chat/1"));
            let mut tcp = Frames::answer(&upstream, "").tcp;
            let frame = &frame;
            // until it is taken no more, or mgate gave up
            scope.spawn(move || while tcp.write_all(frame).is_ok() {});
        }
    });
    mgate.log.wait_for_times("it takes nothing", STREAMS as usize);
    let grown = mgate.peak_kib().saturating_sub(before);
    assert!(grown < 700 * u64::from(STREAMS), "{grown} KiB are kept for a client that does not read");
    wait_until("nothing is kept for it", || {
        client.try_raw(&http2::frame(http2::PING, 0, 0, &[0; 8])).is_err()
    });
}

#[test]
fn rules_of_frames_are_kept_on_the_wire() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    for (frames, code) in [
        (&[(0xc1, &b"deflated"[..])][..], 1002),
        (&[(0x80, b"continuation")], 1002),
        (&[(0x01, b"a"), (TEXT, b"b")], 1002),
        (&[(0x09, b"ping in two")], 1002),
        (&[(TEXT, b"\xff")], 1007),
        (&[(CLOSE, b"\x03\xed")], 1002),
    ] {
        let [mut client, mut behind] = Frames::pair(mgate.address(), "/chat/1", "", &upstream);
        frames.iter().for_each(|(first, payload)| client.send(*first, payload));
        client.expect_close(code);
        behind.expect_close(1001);
    }
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/chat/1", "", &upstream);
    client.tcp.write_all(b"\x81\x02hi").unwrap();
    client.expect_close(1002);
    behind.expect_close(1001);
    let [mut client, mut behind] = Frames::pair(mgate.address(), "/chat/1", "", &upstream);
    client.send(0x01, b"in ");
    client.send(PING, b"between");
    client.send(0x00, b"three ");
    client.send(0x80, b"parts");
    let (first, number) = behind.next();
    assert_eq!(first, PING);
    behind.expect(TEXT, b"in three parts");
    behind.send(PONG, &number);
    client.expect(PONG, b"between");
    drop(behind);
    client.expect_close(1014);
}

impl Frames {
    /// As `refused`, of an answer whose body has so many bytes.
    fn refused_after(mut self, body: usize) -> (u16, String) {
        let head = read_head(&mut self.tcp);
        let mut rest = vec![0; body];
        self.tcp.read_exact(&mut rest).unwrap();
        let all = head + std::str::from_utf8(&rest).unwrap();
        (all.split(' ').nth(1).unwrap().parse().unwrap(), all)
    }
}

fn client(arguments: &[&str]) -> (Process, Lines) {
    start(&mut node_peers(arguments))
}

fn start(command: &mut Command) -> (Process, Lines) {
    Process::start_with_stdout(command)
}

fn web(upstream: u16, more: &str, rest: &str) -> String {
    format!(
        "[[route]]\nname = 'web'\nlisten = 'http://127.0.0.1:0'\nupstream = 'http://127.0.0.1:{upstream}'\n\
         policies = ['acl']\n{more}{rest}{ACL}"
    )
}

/// The same for clients of HTTP/2.
fn over_tls(upstream: u16, more: &str) -> String {
    let tls = "[route.tls]\ncert = 'localhost.pem'\nkey = 'localhost.key'\n";
    web(upstream, more, tls).replace("listen = 'http:", "listen = 'https:")
}

/// What opens a WebSocket over HTTP/2. RFC 8441 §4
fn extended_connect(stream: u32, path: &str) -> Vec<u8> {
    let head = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("sec-websocket-version", "13"),
    ];
    http2::frame(HEADERS, END_HEADERS, stream, &block(&head))
}

/// The stream of an answer, and its status.
fn status(head: &Frame) -> (u32, u16) {
    let status = match head.payload[..] {
        [0x88, ..] => 200,
        [0x8d, ..] => 404,
        [0x48 | 0x08, 0x83, 0x68, 0x4f, 0xff, ..] => 429,
        _ => panic!("unknown: {head:02x?}"),
    };
    (head.stream, status)
}

fn files() -> Files {
    Files::new(&[("acl.toml", ACL_FILE)])
}

const ACL_FILE: &str = "\
version = 1
[[statements]]
sid = 'upgrades'
effect = 'allow'
principals = ['*']
actions = ['request']
resources = ['path:/chat/#', 'path:/talk/#', 'path:/listen/#', 'path:/quiet/#', 'path:/own/${principal}']
conditions = { methods = ['GET'] }
[[statements]]
sid = 'both'
effect = 'allow'
principals = ['*']
actions = ['publish', 'deliver']
resources = ['topic:chat/#', 'topic:own/${principal}']
[[statements]]
sid = 'up'
effect = 'allow'
principals = ['*']
actions = ['publish']
resources = ['topic:talk/#']
[[statements]]
sid = 'down'
effect = 'allow'
principals = ['*']
actions = ['deliver']
resources = ['topic:listen/#']
[[statements]]
sid = 'channel'
effect = 'allow'
principals = ['*']
actions = ['publish', 'subscribe']
resources = ['topic:channels/7/messages/#']
";

/// Of one client, at a time.
const STREAMS: u32 = 16;

const TOKENS: &str = "\
[authn.tokens]
type            = 'jwt'
issuer          = 'https://id.example'
audience        = 'mgate'
algorithms      = ['ES256']
public_key_file = 'key.pem'
token_in        = ['header']
";
