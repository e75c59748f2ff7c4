//! MQTT over WebSocket at a port that routes of HTTP have too.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use mgate_policies::Now;
use serde_json::json;
use support::broker::{Broker, node, python};
use support::frames::{BINARY, CLOSE, Frames, TEXT, UPGRADE, masked};
use support::http::{curl, exchange, read_head};
use support::http2::{
    CANCEL, DATA, END_STREAM, Http2, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, setting,
};
use support::issuer::SigningKey;
use support::packets::{PINGREQ, PINGRESP, Version, connack, connect, publish};
use support::peer::{Peer, Upstream, tcp};
use support::process::Process;
use support::service::{Service, answer};
use support::websocket::{EchoServer, Tunnel, WebSocket, node_peers};
use support::{ACL, Files, Mgate, PASSWORD, PASSWORD_HASH, local_address, manifest, mgate, wait_until};

#[test]
fn one_port_serves_requests_websockets_and_mqtt() {
    let (files, broker, echo) = (files(), Broker::mosquitto(), EchoServer::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    for (transport, http, mqtt, tls) in [("ws", "http", "mqtt+ws", ""), ("wss", "https", "mqtt+wss", TLS)] {
        let address = local_address();
        let config = [
            route("pages", &format!("{http}://{address}"), &pages.url(""), tls),
            route("chat", &format!("{http}://{address}"), &format!("http://127.0.0.1:{}", echo.port), CHAT),
            route("devices", &format!("{mqtt}://{address}"), &format!("mqtt://{}", broker.address()), ""),
        ];
        let mgate = Mgate::start(&files, &(config.concat() + ACL + AUTHN));
        let (ca, port) = (files.path("ca.pem").display().to_string(), address.port());
        let url = |scheme: &str, path: &str| format!("{scheme}://localhost:{port}{path}");
        let clients: [fn() -> Command; 2] = [mqtt_js, paho];
        for (version, client) in
            ["4", "5"].into_iter().flat_map(|version| clients.map(|client| (version, client)))
        {
            let output =
                client().args([&port.to_string(), version, transport, &ca, "a/topic"]).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "ok\n",
                "{version} over {transport}: {error}"
            );
        }
        for path in ["/", "/mqtt", "/mqtt/x"] {
            assert_eq!(curl(&["--cacert", &ca, &url(http, path)]).1, "page");
        }
        let mut chat = node_peers(&["client", "ws", &url(transport, "/chat/1"), "chat", "hello"]);
        let (_chat, said) = Process::start_with_stdout(chat.env("NODE_EXTRA_CA_CERTS", &ca));
        said.wait_for("close 4000");
        assert_eq!(said.lines()[..2], ["open chat -", "message text hello"]);
        assert!(mgate.log.text().contains("\"client\":\"mqttjs-5-"), "{}", mgate.log.text());
    }
}

#[test]
fn sessions_go_over_http2_beside_requests() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let mut gate = Gate::over_tls(&files, &pages, &upstream, "", "");
    let mut client = Http2::connected(&files, gate.address);
    assert_eq!(Tunnel::ask(&mut client, 1, "/mqtt", &MQTT)[0], OK);
    let mut client = Tunnel::of(client, 1);
    let large = "x".repeat(40_000);
    client.write_all(&[connect(Version::V5, "dev-1").bytes(), PINGREQ.to_vec()].concat()).unwrap();
    let mut behind = upstream.accept();
    behind.expect(&connect(Version::V5, "dev-1").bytes());
    behind.send(&connack(Version::V5));
    behind.expect(&PINGREQ);
    behind.send(&PINGRESP);
    let mut client = Peer::new(client);
    client.expect(&[connack(Version::V5), PINGRESP.to_vec()].concat());
    client.send(&publish(Version::V5, "denied/1", "no"));
    client.send(&publish(Version::V5, "a/1", "up"));
    behind.expect(&publish(Version::V5, "a/1", "up"));
    behind.send(&publish(Version::V5, "a/2", &large));
    client.expect(&publish(Version::V5, "a/2", &large));
    assert_eq!(gate.line_of("session opened", "client"), "dev-1");
    gate.mgate.terminate();
    let goodbye = client.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8b), "{goodbye:02x?}");
    assert!(gate.mgate.wait().success());
}

#[test]
fn each_session_of_http2_counts_as_a_connection() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let gate = Gate::over_tls(&files, &pages, &upstream, "limits = { connections_per_address = 2 }\n", "");
    let mut client = Http2::connected(&files, gate.address);
    assert_eq!(Tunnel::ask(&mut client, 1, "/mqtt", &MQTT)[0], OK);
    assert_eq!(status(&Tunnel::ask(&mut client, 3, "/mqtt", &MQTT)), 429);
    client.send(RST_STREAM, 0, 1, &CANCEL.to_be_bytes());
    let mut streams = (5..).step_by(2);
    wait_until("there is room again", || {
        let said = Tunnel::ask(&mut client, streams.next().unwrap(), "/mqtt", &MQTT);
        said[0] == OK
    });
}

#[test]
fn connection_of_http2_ends_with_a_session_that_takes_nothing() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let gate = Gate::over_tls(&files, &pages, &upstream, "", "limits = { stall_timeout = '300ms' }\n");
    let mut client = Http2::dial(&files, gate.address);
    // SETTINGS_INITIAL_WINDOW_SIZE
    client.send(SETTINGS, 0, 0, &setting(4, 0));
    assert_eq!(Tunnel::ask(&mut client, 1, "/mqtt", &MQTT)[0], OK);
    let connect = connect(Version::V5, "dev-1").bytes();
    client.send(DATA, 0, 1, &masked(BINARY, &connect));
    let mut behind = upstream.accept();
    behind.expect(&connect);
    behind.send(&connack(Version::V5));
    let large = publish(Version::V5, "a/1", &"x".repeat(40_000));
    while behind.try_send(&large).is_ok() {}
    gate.mgate.log.wait_for("session closed");
    wait_until("its connection ends", || client.try_raw(&frame(PING, 0, 0, &[0; 8])).is_err());
}

#[test]
fn connection_of_http2_outlives_a_session_whose_client_takes_the_rest() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let gate = Gate::over_tls(&files, &pages, &upstream, "", "");
    let mut client = Http2::dial(&files, gate.address);
    // SETTINGS_INITIAL_WINDOW_SIZE
    client.send(SETTINGS, 0, 0, &setting(4, 0));
    assert_eq!(Tunnel::ask(&mut client, 1, "/mqtt", &MQTT)[0], OK);
    let connect = connect(Version::V5, "dev-1").bytes();
    client.send(DATA, 0, 1, &masked(BINARY, &connect));
    let mut behind = upstream.accept_tcp();
    behind.read_exact(&mut vec![0; connect.len()]).unwrap();
    behind.write_all(&connack(Version::V5)).unwrap();
    behind.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let large = publish(Version::V5, "a/1", &"x".repeat(40_000));
    while behind.write_all(&large).is_ok() {}
    // a good-bye of WebSocket: nothing may be written behind its answer
    client.send(DATA, END_STREAM, 1, &masked(CLOSE, b""));
    gate.mgate.log.wait_for("session closed");
    client.send(SETTINGS, 0, 0, &setting(4, 1 << 30));
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
    while client.wait_for(DATA).flags & END_STREAM == 0 {}
    client.send(PING, 0, 0, &[7; 8]);
    assert_eq!(client.wait_for(PING).payload, [7; 8]);
}

#[test]
fn what_is_not_for_the_route_never_gets_there() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let origins = "websocket = { origins = ['https://app.example'] }\n";
    let gate = Gate::start(&files, &pages, &upstream, "", origins);
    let mqtt = "Sec-WebSocket-Protocol: mqtt\r\n";
    for (path, headers, status) in [
        ("/mqttx", mqtt, 501),
        ("/mqtt/", mqtt, 501),
        ("/%6dqtt", mqtt, 501),
        ("/mqtt", "Sec-WebSocket-Protocol: MQTT\r\n", 501),
        ("/mqtt", "Sec-WebSocket-Protocol: mqtt, mqtt\r\n", 400),
        ("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nOrigin: https://evil.example\r\n", 403),
        ("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
        (
            "/mqtt",
            "Sec-WebSocket-Protocol: mqtt\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n",
            400,
        ),
        ("/mqtt", "Sec-WebSocket-Protocol: mqtt\r\nContent-Length: 1\r\n", 400),
    ] {
        assert_eq!(Frames::ask(gate.address, path, headers).refused().0, status, "{path} {headers}");
    }
    let old = UPGRADE.replace("13", "8");
    let said = exchange(gate.address, format!("GET /mqtt HTTP/1.1\r\nHost: a\r\n{old}{mqtt}\r\n").as_bytes());
    assert!(said.starts_with("HTTP/1.1 426 "), "{said}");
    // no upgrade, and another sub-protocol: they are for the pages
    let said = exchange(
        gate.address,
        format!("GET /mqtt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{mqtt}\r\n").as_bytes(),
    );
    assert!(said.ends_with("page"), "{said}");
    let said = Frames::ask(gate.address, "/mqtt", "Sec-WebSocket-Protocol: chat\r\n").refused();
    assert!(said.1.ends_with("page"), "{}", said.1);
    let paths: Vec<_> = pages.heard().into_iter().map(|heard| heard.line).collect();
    assert_eq!(paths, ["GET /mqtt", "GET /mqtt"]);
    for origin in ["https://app.example", "http://gate.example"] {
        let headers = format!("Sec-WebSocket-Protocol: chat, mqttv3.1, mqtt\r\nOrigin: {origin}\r\n");
        let client = Frames::ask(gate.address, "/mqtt", &headers).taken();
        assert!(client.head.contains("sec-websocket-protocol: mqttv3.1\r\n"), "{}", client.head);
    }
    assert!(upstream.try_accept().is_none());
}

#[test]
fn session_is_judged_by_the_policies_of_its_route_alone() {
    let (files, upstream) = (files(), Upstream::start());
    files.write("pages.toml", &PAGES_ACL.replace("path:/#", "path:/open"));
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let gate =
        Gate::start(&files, &pages, &upstream, "", "authn = ['users']\nlimits = { packet_bytes = 4096 }\n");
    assert_eq!(curl(&[&format!("http://{}/open", gate.address)]).1, "page");
    assert!(curl(&[&format!("http://{}/mqtt", gate.address)]).1.contains("not authorized"));
    let code = |user: &str, password: &str| {
        let mut client = gate.dial("/mqtt", "");
        client.send(&connect(Version::V5, "dev-1").user(user, password).bytes());
        client.until_closed()[3]
    };
    assert_eq!((code("dev-1", "wrong"), code("nobody", PASSWORD)), (0x86, 0x86));
    let (mut client, mut behind) = gate.session(&upstream, "");
    client.send(&publish(Version::V5, "denied/1", "no"));
    client.send(&publish(Version::V5, "a/1", "yes"));
    behind.expect(&publish(Version::V5, "a/1", "yes"));
    // rights that are withdrawn reach live sessions
    files.write("acl.toml", &MQTT_ACL.replace("topic:a/#", "topic:b/#"));
    gate.mgate.reload();
    client.send(&publish(Version::V5, "a/1", "no longer"));
    client.send(&publish(Version::V5, "b/1", "now"));
    behind.expect(&publish(Version::V5, "b/1", "now"));
    files.write("acl.toml", &MQTT_ACL.replace("'client_id:*'", "'client_id:other'"));
    gate.mgate.reload();
    let goodbye = client.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x87), "{goodbye:02x?}");
    files.write("acl.toml", MQTT_ACL);
    gate.mgate.reload();
    let (mut client, _behind) = gate.session(&upstream, "");
    client.send(&publish(Version::V5, "a/1", &"x".repeat(5000)));
    let goodbye = client.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x95), "{goodbye:02x?}");
}

#[test]
fn times_are_those_of_the_session() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let of_pages = "limits = { connect_timeout = '1h', idle_timeout = '1h' }\n";
    let gate = Gate::start(&files, &pages, &upstream, of_pages, "limits = { connect_timeout = '300ms' }\n");
    let silent = gate.dial("/mqtt", "").until_closed();
    assert_eq!(silent, b"");
    let gate = Gate::start(&files, &pages, &upstream, of_pages, "limits = { idle_timeout = '3s' }\n");
    let (mut client, _behind) = gate.session(&upstream, "");
    let goodbye = client.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8d), "{goodbye:02x?}");
    // what a connection without requests may take is not for sessions
    let of_pages = "limits = { connect_timeout = '3s', idle_timeout = '1s' }\n";
    let gate = Gate::start(&files, &pages, &upstream, of_pages, "");
    let (mut client, mut behind) = gate.session(&upstream, "");
    let mut rests = tcp(gate.address);
    rests.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_head(&mut rests);
    rests.read_to_end(&mut Vec::new()).expect("it is closed in time");
    client.send(&PINGREQ);
    behind.expect(&PINGREQ);
    behind.send(&PINGRESP);
    client.expect(&PINGRESP);
}

#[test]
fn request_shows_who_the_client_is() {
    let (files, upstream, key) = (files(), Upstream::start(), SigningKey::p256());
    files.write("key.pem", &key.public_pem());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let gate = Gate::start(&files, &pages, &upstream, "", "authn = ['tokens']\n");
    let claims =
        json!({"iss": "https://id.example", "sub": "browser", "exp": Now::read().unix.as_secs() + 60});
    let token = key.token(&json!({"alg": "ES256"}), &claims);
    for (path, headers) in [
        ("/mqtt".to_owned(), format!("Authorization: Bearer {token}\r\n")),
        ("/mqtt".to_owned(), format!("Cookie: session={token}\r\n")),
        (format!("/mqtt?access_token={token}"), String::new()),
    ] {
        let mut client = gate.dial(&path, &headers);
        client.send(&connect(Version::V5, "dev-1").bytes());
        let mut behind = upstream.accept();
        behind.expect(&connect(Version::V5, "dev-1").bytes());
        behind.send(&connack(Version::V5));
        client.expect(&connack(Version::V5));
    }
    gate.mgate.log.wait_for("\"principal\":\"browser\"");
    let mut client = gate.dial("/mqtt", "");
    client.send(&connect(Version::V5, "dev-1").bytes());
    assert_eq!(client.until_closed()[3], 0x86);
    assert!(!gate.mgate.log.text().contains(&token));
}

#[test]
fn certificate_and_announced_address_are_those_of_the_connection() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key', client_ca = 'ca.pem' }\n";
    let address = local_address();
    let broker = Broker::mosquitto();
    let config = [
        route("pages", &format!("https://{address}"), &pages.url(""), tls),
        route(
            "devices",
            &format!("mqtt+wss://{address}"),
            &format!("mqtt://{}", broker.address()),
            "authn = ['x509']\n",
        ),
    ];
    let by_certificate =
        Mgate::start(&files, &(config.concat() + ACL + AUTHN + "[authn.x509]\ntype = 'x509'\n"));
    let url = format!("wss://localhost:{}/mqtt", address.port());
    let [ca, cert, key] =
        ["ca.pem", "dev-1.pem", "dev-1.key"].map(|name| files.path(name).display().to_string());
    let mut script = node();
    script.arg(manifest("tests/support/mqttjs_upgrade.js")).args([&url, "{}", "a/topic", &ca, &cert, &key]);
    let output = script.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "ok\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    by_certificate.log.wait_for("\"principal\":\"dev-1\"");
    let proxy = "proxy_protocol = { accept = 'v1', trusted = ['127.0.0.0/8'] }\n";
    let gate = Gate::start(&files, &pages, &upstream, proxy, "");
    let mut tcp = tcp(gate.address);
    tcp.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n").unwrap();
    tcp.write_all(
        format!("GET /mqtt HTTP/1.1\r\nHost: a\r\n{UPGRADE}Sec-WebSocket-Protocol: mqtt\r\n\r\n").as_bytes(),
    )
    .unwrap();
    assert!(read_head(&mut tcp).starts_with("HTTP/1.1 101 "));
    tcp.write_all(&masked(BINARY, &connect(Version::V5, "dev-1").bytes())).unwrap();
    let mut behind = upstream.accept();
    behind.expect(&connect(Version::V5, "dev-1").bytes());
    behind.send(&connack(Version::V5));
    assert_eq!(gate.line_of("session opened", "peer"), "192.0.2.7:4711");
}

#[test]
fn reload_takes_routes_of_mqtt_in_and_lets_them_go() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let address = free_address();
    let web = route("pages", &format!("http://{address}"), &pages.url(""), "");
    let devices = |name: &str, path: &str| {
        let websocket = format!("websocket = {{ path = '{path}' }}\n");
        let upstream = format!("mqtt://127.0.0.1:{}", upstream.port());
        route(name, &format!("mqtt+ws://{address}"), &upstream, &websocket)
    };
    let gate = Gate { mgate: Mgate::start(&files, &(web.clone() + ACL + AUTHN)), address };
    let reload = |routes: &[&str]| {
        files.write("mgate.toml", &(routes.concat() + ACL + AUTHN));
        gate.mgate.reload();
    };
    let status = |path: &str| {
        let mut client = Frames::ask(address, path, "Sec-WebSocket-Protocol: mqtt\r\n");
        read_head(&mut client.tcp).split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    assert_eq!(status("/mqtt"), 501);
    reload(&[&web, &devices("one", "/mqtt")]);
    assert_eq!(status("/mqtt"), 101);
    assert!(!gate.mgate.log.text().contains("route.one"), "{}", gate.mgate.log.text());
    let (mut client, mut behind) = gate.session(&upstream, "");
    reload(&[&web, &devices("two", "/two"), &devices("one", "/one")]);
    assert_eq!(["/mqtt", "/one", "/two"].map(status), [501, 101, 101]);
    // one that is gone goes on, for what no other one takes
    reload(&[&web, &devices("two", "/one")]);
    gate.mgate.log.wait_for("route.one, which goes on with its old rules");
    assert_eq!(["/one", "/two"].map(status), [101, 501]);
    client.send(&publish(Version::V5, "a/1", "still here"));
    behind.expect(&publish(Version::V5, "a/1", "still here"));
    let said = |name: &str| gate.mgate.log.count(&format!("\"route\":\"{name}\""));
    let before = (said("one"), said("two"));
    let _second = gate.session_at(&upstream, "/one", "");
    gate.mgate.log.wait_for_times("\"route\":\"two\"", before.1 + 1);
    assert_eq!((said("one"), said("two")), (before.0, before.1 + 1), "{}", gate.mgate.log.text());
    let explained = mgate(&["check"]).arg(files.path("mgate.toml")).output().unwrap();
    let shown = String::from_utf8(explained.stdout).unwrap();
    assert!(shown.contains(&format!("mqtt+ws://{address}/one")), "{shown}");
}

#[test]
fn route_that_goes_elsewhere_without_websockets_is_judged_by_its_new_policies() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let gate = Gate::start(&files, &pages, &upstream, "", "");
    let (mut client, _behind) = gate.session(&upstream, "");
    files.write("acl.toml", &MQTT_ACL.replace("'client_id:*'", "'client_id:other'"));
    let config = [
        route("pages", &format!("http://{}", gate.address), &pages.url(""), ""),
        route("devices", "mqtt://127.0.0.3:1", &format!("mqtt://127.0.0.1:{}", upstream.port()), ""),
    ];
    files.write("mgate.toml", &(config.concat() + ACL + AUTHN));
    gate.mgate.reload();
    let goodbye = client.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x87), "{goodbye:02x?}");
    let mut client = gate.dial("/mqtt", "");
    client.send(&connect(Version::V5, "dev-1").bytes());
    assert_eq!(client.until_closed()[3], 0x87);
    assert!(upstream.try_accept().is_none());
    gate.mgate.log.wait_for("needs a restart to change: route.devices.listen\"");
}

#[test]
fn what_comes_with_the_request_is_part_of_the_session() {
    let (files, upstream) = (files(), Upstream::start());
    let pages = Service::saying(answer("200 OK", "text/plain", "page"));
    let gate = Gate::start(&files, &pages, &upstream, "", "");
    let connect = connect(Version::V311, "dev-1").bytes();
    let mut client = tcp(gate.address);
    let head = format!("GET /mqtt HTTP/1.1\r\nHost: a\r\n{UPGRADE}Sec-WebSocket-Protocol: mqtt\r\n\r\n");
    client.write_all(&[head.as_bytes(), &masked(BINARY, &connect)].concat()).unwrap();
    upstream.accept().expect(&connect);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
    // [MQTT-6.0.0-1]
    let mut client = Frames::ask(gate.address, "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n").taken();
    client.send(TEXT, &connect);
    client.expect_close(1003);
}

/// A gateway whose routes `pages` and `devices` have one address.
struct Gate {
    mgate: Mgate,
    address: SocketAddr,
}

impl Gate {
    /// With further keys of both routes.
    fn start(files: &Files, pages: &Service, upstream: &Upstream, page_keys: &str, keys: &str) -> Self {
        Self::at(files, ("http", "mqtt+ws"), (&pages.url(""), upstream.port()), (page_keys, keys))
    }

    fn over_tls(files: &Files, pages: &Service, upstream: &Upstream, page_keys: &str, keys: &str) -> Self {
        let page_keys = format!("{TLS}{page_keys}");
        Self::at(files, ("https", "mqtt+wss"), (&pages.url(""), upstream.port()), (&page_keys, keys))
    }

    fn at(files: &Files, schemes: (&str, &str), upstreams: (&str, u16), keys: (&str, &str)) -> Self {
        let address = free_address();
        let config = [
            route("pages", &format!("{}://{address}", schemes.0), upstreams.0, keys.0),
            route(
                "devices",
                &format!("{}://{address}", schemes.1),
                &format!("mqtt://127.0.0.1:{}", upstreams.1),
                keys.1,
            ),
        ];
        Self { mgate: Mgate::start(files, &(config.concat() + ACL + AUTHN)), address }
    }

    fn dial(&self, path: &str, headers: &str) -> Peer {
        Peer::new(WebSocket::dial_with(self.address, path, headers, 100_000))
    }

    /// A client that the upstream has taken; both ends.
    fn session(&self, upstream: &Upstream, headers: &str) -> (Peer, Peer) {
        self.session_at(upstream, "/mqtt", headers)
    }

    fn session_at(&self, upstream: &Upstream, path: &str, headers: &str) -> (Peer, Peer) {
        let mut client = self.dial(path, headers);
        let connect = connect(Version::V5, "dev-1").user("dev-1", PASSWORD).keep_alive_secs(0).bytes();
        client.send(&connect);
        let mut behind = upstream.accept();
        behind.expect(&connect);
        behind.send(&connack(Version::V5));
        client.expect(&connack(Version::V5));
        (client, behind)
    }

    /// What a line of the log has under `key`.
    fn line_of(&self, message: &str, key: &str) -> String {
        let line: serde_json::Value = serde_json::from_str(&self.mgate.log.wait_for(message)).unwrap();
        line[key].as_str().unwrap().to_owned()
    }
}

fn route(name: &str, listen: &str, upstream: &str, more: &str) -> String {
    let policy = if listen.starts_with("http") { "pages" } else { "acl" };
    format!(
        "[[route]]\nname = '{name}'\nlisten = '{listen}'\nupstream = '{upstream}'\npolicies = ['{policy}']\n{more}"
    )
}

fn mqtt_js() -> Command {
    let mut command = node();
    command.arg(manifest("tests/support/mqttjs_client.js"));
    command
}

fn paho() -> Command {
    let mut command = python();
    command.arg(manifest("tests/support/paho_client.py"));
    command
}

fn status(head: &[u8]) -> u16 {
    match head {
        [0x88, ..] => 200,
        [0x48 | 0x08, 0x83, 0x68, 0x4f, 0xff, ..] => 429,
        _ => panic!("unknown: {head:02x?}"),
    }
}

/// An address that nobody else uses: others of these tests listen, and connect from, 127.0.0.1.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap()
}

fn files() -> Files {
    let files = Files::new(&[("acl.toml", MQTT_ACL), ("pages.toml", PAGES_ACL)]).with_certificates();
    files.write("users.toml", &format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n"));
    files.write("key.pem", &SigningKey::p256().public_pem());
    files
}

/// `:status: 200` in the static table. RFC 7541 appendix A
const OK: u8 = 0x88;

const MQTT: [(&str, &str); 1] = [("sec-websocket-protocol", "mqtt")];

const TLS: &str = "tls = { cert = 'localhost.pem', key = 'localhost.key' }\n";

const CHAT: &str = "http = { path = '/chat' }\n";

const AUTHN: &str = "\
[authn.users]
type = 'password'
file = 'users.toml'
[authn.tokens]
type = 'jwt'
issuer = 'https://id.example'
audience = '*'
algorithms = ['ES256']
public_key_file = 'key.pem'
token_in = ['header', 'query:access_token', 'cookie:session', 'password']
[policy.pages]
type = 'static'
file = 'pages.toml'
";

const PAGES_ACL: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['request', 'publish', 'deliver']
resources = ['path:/#', 'topic:chat/#']
";

const MQTT_ACL: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect', 'publish', 'subscribe', 'deliver']
resources = ['client_id:*', 'topic:a/#']
";
