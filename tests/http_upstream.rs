//! What routes of HTTP lead to: servers of HTTP/2, some of them real, and some that do what no good one does.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use support::broker::python;
use support::http::{
    Nginx, curl, exchange, expect, is_closed, read_head, read_lines, run_curl, serve_endless, stream,
};
use support::http2::{
    DATA, END_HEADERS, END_STREAM, Events, Frame, GOAWAY, HEADERS, Http2, INTERNAL_ERROR, REFUSED_STREAM,
    RST_STREAM, STATUS_200, STATUS_204, answer_next, begin,
};
use support::peer::{Upstream, tcp};
use support::process::Process;
use support::service::{Accepting, Service, answer};
use support::{ACL, Files, Mgate, manifest};

#[test]
fn protocol_is_what_the_upstream_chooses() {
    let files = files().with_certificates();
    let path = |name: &str| files.path(name).display().to_string();
    let more = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_verify_client on; ssl_client_certificate {};\n\
         location /any {{ return 200 \"$server_protocol $ssl_client_s_dn_cn $host\"; }}",
        path("localhost.pem"),
        path("localhost.key"),
        path("ca.pem"),
    )
    .replace("$ssl_client_s_dn_cn", "$ssl_client_verify");
    let both = Nginx::start_with("ssl http2", &more);
    let only_old = Nginx::start_with("ssl", &more);
    for (nginx, http, expected) in [
        (&both, "", "HTTP/2.0 SUCCESS gate.example"),
        (&both, "http = { upstream_protocol = 'http/1.1' }\n", "HTTP/1.1 SUCCESS gate.example"),
        (&both, "http = { upstream_protocol = 'h2' }\n", "HTTP/2.0 SUCCESS gate.example"),
        (&only_old, "", "HTTP/1.1 SUCCESS gate.example"),
    ] {
        let mgate = Mgate::start(&files, &over_tls_to(nginx.port, http));
        let url = format!("http://{}/any/a", mgate.address());
        // the second one on the same connection
        for _ in 0..2 {
            let said = curl(&["-H", "Host: gate.example", &url]);
            assert_eq!(said, ("200".into(), expected.into()), "{http}");
        }
    }
    let mgate = Mgate::start(&files, &over_tls_to(only_old.port, "http = { upstream_protocol = 'h2' }\n"));
    assert!(exchange(mgate.address(), GET).starts_with("HTTP/1.1 502 "));
    mgate.log.wait_for("TLS handshake failed");
}

#[test]
fn plain_upstream_speaks_http2_where_that_is_said() {
    let (files, nginx) =
        (files(), Nginx::start_with("http2", "location /any { return 200 $server_protocol; }"));
    let mgate = Mgate::start(&files, &web(nginx.port, H2));
    let url = |path: &str| format!("http://{}{path}", mgate.address());
    assert_eq!(curl(&[&url("/any/a")]), ("200".into(), "HTTP/2.0".into()));
    assert_eq!(curl(&["-d", "some", &url("/any/a")]), ("200".into(), "HTTP/2.0".into()));
    assert_eq!(curl(&["-I", &url("/public/a.txt")]).0, "200");
    assert_eq!(curl(&[&url("/public/a.txt")]), ("200".into(), "hello\n".into()));
    assert_eq!(curl(&[&url("/public/missing")]).0, "404");
}

#[test]
fn grpc_passes() {
    let files = Files::new(&[("acl.toml", &ACL_FILE.replace("/any/#", "/test.Echo/#"))]).with_certificates();
    let script = manifest("tests/support/grpc_peers.py");
    let (_server, said) = Process::start_with_stdout(python().arg(&script).args(["server", "127.0.0.1:0"]));
    let mut port = None;
    support::wait_until("it says its port", || {
        port = said.lines().first().and_then(|line| line.parse::<u16>().ok());
        port.is_some()
    });
    let mgate = Mgate::start(&files, &over_tls(port.unwrap(), H2));
    let address = format!("localhost:{}", mgate.address().port());
    let client = python().arg(&script).args(["client", &address]).arg(files.path("ca.pem")).output().unwrap();
    let said =
        String::from_utf8_lossy(&client.stdout).into_owned() + &String::from_utf8_lossy(&client.stderr);
    assert_eq!(said, "ok\n", "{}", mgate.log.text());
}

#[test]
fn events_pass_one_by_one() {
    for (http, speaks_http2) in [("", false), (H2, true)] {
        let (files, upstream) = (files().with_certificates(), Upstream::start());
        let plain = Mgate::start(&files, &web(upstream.port(), http));
        let tls = Mgate::start(&files, &over_tls(upstream.port(), http));
        let ca = files.path("ca.pem");
        let url = format!("https://localhost:{}/any/events", tls.address().port());
        let clients: [Vec<&str>; 2] = [
            vec![&*format!("http://{}/any/events", plain.address()).leak()],
            vec!["--http2", "--cacert", ca.to_str().unwrap(), &url],
        ];
        for arguments in clients {
            let (mut client, mut events) = stream(&arguments);
            let mut say = Events::begin(upstream.accept_tcp(), speaks_http2);
            for number in 0..5 {
                say.event(&format!("data: {number}\n\n"));
                assert_eq!(read_lines(&mut events, 2), format!("data: {number}\n\n"), "{arguments:?}");
            }
            client.kill().unwrap();
            client.wait().unwrap();
        }
    }
}

#[test]
fn large_answers_over_http2_are_not_kept_and_hold_up_nobody() {
    let (files, nginx) = (files(), Nginx::start_with("http2", ""));
    nginx.write("public/large", &vec![b'x'; LARGE]);
    let mgate = Mgate::start(&files, &format!("workers = 1\n{}", web(nginx.port, H2)));
    let url = |path: &str| format!("http://{}{path}", mgate.address());
    assert_eq!(curl(&[&url("/public/large")]).1.len(), LARGE);
    let before = mgate.resident_kib();
    // more of them than have room on one connection
    let mut clients: Vec<TcpStream> = (0..70).map(|_| tcp(mgate.address())).collect();
    for client in &mut clients {
        client.write_all(b"GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
    }
    assert_eq!(curl(&[&url("/public/a.txt")]), ("200".into(), "hello\n".into()));
    let grown = mgate.resident_kib().saturating_sub(before) / 70;
    assert!(grown < 1024, "{grown} KiB are kept for each client that does not read");
}

#[test]
fn large_requests_over_http2_are_streamed() {
    let (files, nginx) = (files(), Nginx::start_with("http2", DAV));
    let more = "http = { upstream_protocol = 'h2', body_bytes = '64MiB' }\n";
    let mgate = Mgate::start(&files, &web(nginx.port, more));
    let file = files.write("upload", &"0123456789abcdef".repeat(LARGE / 16));
    let url = format!("http://{}/any/put", mgate.address());
    let before = mgate.resident_kib();
    assert_eq!(curl(&["-H", "Expect:", "-T", file.to_str().unwrap(), &url]).0, "201");
    let grown = mgate.peak_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
    let (status, body) = curl(&[&url]);
    assert_eq!((status.as_str(), body.len()), ("200", LARGE));
}

#[test]
fn requests_share_a_connection() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &format!("workers = 1\n{}", web(upstream.port(), H2)));
    let (mut one, mut other) = (tcp(mgate.address()), tcp(mgate.address()));
    one.write_all(b"GET /any/1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut behind = Http2::accepted(upstream.accept_tcp(), &[]);
    assert_eq!(behind.wait_for(HEADERS).stream, 1);
    other.write_all(b"GET /any/2 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(behind.wait_for(HEADERS).stream, 3);
    behind.send(HEADERS, END_HEADERS | END_STREAM, 3, STATUS_204);
    assert!(read_head(&mut other).starts_with("HTTP/1.1 204 "));
    behind.send(HEADERS, END_HEADERS | END_STREAM, 1, STATUS_200);
    assert!(read_head(&mut one).starts_with("HTTP/1.1 200 "));
    assert!(upstream.try_accept().is_none());
}

#[test]
fn upstream_gets_no_more_requests_at_a_time_than_it_takes() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &format!("workers = 1\n{}", web(upstream.port(), H2)));
    let (mut one, mut other) = (tcp(mgate.address()), tcp(mgate.address()));
    one.write_all(b"GET /any/1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut behind = Http2::accepted(upstream.accept_tcp(), &[(MAX_CONCURRENT_STREAMS, 1)]);
    answer_next(&mut behind);
    assert!(read_head(&mut one).starts_with("HTTP/1.1 200 "));
    one.write_all(b"GET /any/2 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let first = behind.wait_for(HEADERS);
    other.write_all(b"GET /any/3 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    answer_next(&mut Http2::accepted(upstream.accept_tcp(), &[]));
    assert!(read_head(&mut other).starts_with("HTTP/1.1 200 "));
    behind.send(HEADERS, END_HEADERS | END_STREAM, first.stream, STATUS_200);
    assert!(read_head(&mut one).starts_with("HTTP/1.1 200 "));
}

#[test]
fn what_the_upstream_refused_is_sent_again() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &format!("workers = 1\n{}", web(upstream.port(), H2)));
    let mut client = tcp(mgate.address());
    let mut behind = begin(&mut client, &upstream);
    let delete = b"DELETE /any/a HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(delete).unwrap();
    let refused = behind.wait_for(HEADERS);
    behind.send(RST_STREAM, 0, refused.stream, &REFUSED_STREAM.to_be_bytes());
    answer_next(&mut behind);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    client.write_all(delete).unwrap();
    let ignored = behind.wait_for(HEADERS);
    behind.send(GOAWAY, 0, 0, &[(ignored.stream - 2).to_be_bytes(), [0; 4]].concat());
    let mut behind = Http2::accepted(upstream.accept_tcp(), &[]);
    answer_next(&mut behind);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

#[test]
fn what_the_upstream_may_have_done_is_sent_once() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &format!("workers = 1\n{}", web(upstream.port(), H2)));
    let mut client = tcp(mgate.address());
    let mut behind = begin(&mut client, &upstream);
    for (request, error) in [
        ("DELETE /any/a HTTP/1.1\r\nHost: a\r\n\r\n", INTERNAL_ERROR),
        // it was begun to be read
        ("POST /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", REFUSED_STREAM),
    ] {
        let mut client = tcp(mgate.address());
        client.write_all(request.as_bytes()).unwrap();
        let reset = behind.wait_for(HEADERS);
        behind.send(RST_STREAM, 0, reset.stream, &error.to_be_bytes());
        assert!(read_head(&mut client).starts_with("HTTP/1.1 502 "), "{request}");
    }
    // the connection is as good as before
    client.write_all(GET).unwrap();
    answer_next(&mut behind);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    let mut client = tcp(mgate.address());
    client.write_all(b"DELETE /any/a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    behind.wait_for(HEADERS);
    drop(behind);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 502 "));
    assert!(upstream.try_accept().is_none());
}

#[test]
fn answers_come_through_while_the_upstream_goes_away() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &format!("workers = 1\n{}", web(upstream.port(), H2)));
    let (mut one, mut other) = (tcp(mgate.address()), tcp(mgate.address()));
    one.write_all(b"GET /any/1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut behind = Http2::accepted(upstream.accept_tcp(), &[]);
    let Frame { stream, .. } = behind.wait_for(HEADERS);
    behind.send(GOAWAY, 0, 0, &[stream.to_be_bytes(), [0; 4]].concat());
    behind.send(HEADERS, END_HEADERS, stream, STATUS_200);
    assert!(read_head(&mut one).starts_with("HTTP/1.1 200 "));
    other.write_all(b"GET /any/2 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    answer_next(&mut Http2::accepted(upstream.accept_tcp(), &[]));
    assert!(read_head(&mut other).starts_with("HTTP/1.1 200 "));
    behind.send(DATA, END_STREAM, stream, b"late");
    expect(&mut one, "4\r\nlate\r\n0\r\n\r\n");
}

#[test]
fn silent_connection_gets_no_more_requests() {
    let (files, upstream) = (files(), Upstream::start());
    let limits = format!("limits = {{ upstream_timeout = '1100ms' }}\n{H2}");
    let mgate = Mgate::start(&files, &format!("workers = 1\n{}", web(upstream.port(), &limits)));
    let mut client = tcp(mgate.address());
    client.write_all(b"GET /any/1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut silent = Http2::accepted(upstream.accept_tcp(), &[]);
    silent.wait_for(HEADERS);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 504 "));
    let mut client = tcp(mgate.address());
    client.write_all(b"GET /any/2 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    answer_next(&mut Http2::accepted(upstream.accept_tcp(), &[]));
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

#[test]
fn who_leaves_takes_the_request_along() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &format!("workers = 1\n{}", web(upstream.port(), H2)));
    let mut client = tcp(mgate.address());
    let mut behind = begin(&mut client, &upstream);
    for half in [
        "GET /any/1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /any/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
    ] {
        let mut leaving = tcp(mgate.address());
        leaving.write_all(half.as_bytes()).unwrap();
        let Frame { stream, .. } = behind.wait_for(HEADERS);
        drop(leaving);
        assert_eq!(behind.wait_for(RST_STREAM).stream, stream, "{half}");
    }
    client.write_all(GET).unwrap();
    answer_next(&mut behind);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

#[test]
fn uploads_over_http2_end_when_rights_are_withdrawn() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), H2));
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    let mut behind = Http2::accepted(upstream.accept_tcp(), &[]);
    let Frame { stream, .. } = behind.wait_for(HEADERS);
    assert_eq!(behind.wait_for(DATA).payload, b"half");
    files.write("acl.toml", "version = 1\nstatements = []\n");
    mgate.reload();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 403 "));
    assert_eq!(behind.wait_for(RST_STREAM).stream, stream);
}

#[test]
fn upstream_that_speaks_something_else_is_no_upstream() {
    let files = files();
    let old = Service::saying(answer("200 OK", "text/plain", "ok"));
    let limits = format!("limits = {{ upstream_timeout = '2s' }}\n{H2}");
    for said in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"",
        b"\0\0\0\0\0\0\0\0\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let upstream = Service::start({
            let said = said.to_owned();
            move |_, tcp| tcp.write_all(&said).and(Err(std::io::ErrorKind::Other.into()))
        });
        let mgate = Mgate::start(&files, &web(upstream.address().port(), &limits));
        let heard = exchange(mgate.address(), GET);
        assert!(heard.starts_with("HTTP/1.1 502 "), "{said:?}: {heard}");
    }
    let mgate = Mgate::start(&files, &web(old.address().port(), &limits));
    assert!(exchange(mgate.address(), GET).starts_with("HTTP/1.1 502 "));
}

#[test]
fn upstream_that_breaks_off_is_not_believed() {
    let files = files();
    // what it says, whether it closes then, what the client sees, and whether that is not all
    for (said, closes, status, ends_early) in [
        ("", true, "502", false),
        ("HTTP/1.1 200 OK\r\nContent-Le", true, "502", false),
        ("what is this\r\n\r\n", false, "502", false),
        ("HTTP/1.1 99999 Odd\r\n\r\n", false, "502", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", false, "502", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", true, "200", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true, "200", true),
        // it is read with the head, which goes no further then: the client hears why
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnumber\r\nhalf\r\n", false, "502", false),
        ("HTTP/1.1 200 OK\r\n\r\nall until it closes", true, "200", false),
    ] {
        let service = Service::start(move |_, tcp| {
            tcp.write_all(said.as_bytes())?;
            if closes { tcp.shutdown(Shutdown::Both) } else { Ok(()) }
        });
        let mgate = Mgate::start(&files, &web(service.address().port(), ""));
        let url = format!("http://{}/any/a", mgate.address());
        // nothing of it is used again, and nothing is sent twice
        for connections in 1..=2 {
            let output = run_curl(&["-X", "PUT", "-w", "\n%{http_code} %{exitcode}", &url]);
            let (heard, exit) = output.rsplit_once('\n').unwrap().1.split_once(' ').unwrap();
            assert_eq!((heard, exit != "0"), (status, ends_early), "{said:?}: {output}");
            assert_eq!(service.connections(), connections, "{said:?}");
        }
    }
}

#[test]
fn upstream_that_takes_nothing_is_not_waited_for() {
    let (files, upstream) = (files(), Upstream::start());
    let more =
        "limits = { upstream_timeout = '500ms', stall_timeout = '500ms' }\nhttp = { body_bytes = '64MiB' }\n";
    let mgate = Mgate::start(&files, &web(upstream.port(), more));
    let (file, url) =
        (files.write("upload", &"x".repeat(LARGE)), format!("http://{}/any/a", mgate.address()));
    let output = run_curl(&["-H", "Expect:", "-w", "\n%{http_code}", "-T", file.to_str().unwrap(), &url]);
    let status = output.rsplit_once('\n').unwrap().1;
    assert!(["502", "504"].contains(&status), "{output}");
}

#[test]
fn upstream_that_says_no_more_has_no_answer() {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), ""));
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    behind.shutdown(Shutdown::Write).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 502 "));
    assert!(is_closed(&mut behind));
}

#[test]
fn bodies_of_any_length_pass_and_nothing_is_kept() {
    let endless =
        Accepting::start(SocketAddr::from(([127, 0, 0, 1], 0)), |tcp, _| serve_endless(tcp, ENDLESS));
    let files = files();
    std::fs::File::create(files.path("upload")).unwrap().set_len(ENDLESS).unwrap();
    let more = "http = { body_bytes = '2GiB' }\n";
    let mgate = Mgate::start(&files, &web(endless.address().port(), more));
    let (url, upload) = (format!("http://{}/any/a", mgate.address()), files.path("upload"));
    assert_eq!(run_curl(&["-X", "PUT", &url]), "took 0");
    let before = mgate.resident_kib();
    let sent = run_curl(&["-H", "Expect:", "-T", upload.to_str().unwrap(), &url]);
    assert_eq!(sent, format!("took {ENDLESS}"));
    let came = run_curl(&["-o", "/dev/null", "-w", "%{size_download}", &url]);
    assert_eq!(came, ENDLESS.to_string());
    let grown = mgate.peak_kib().saturating_sub(before);
    assert!(grown < 4 * 1024, "{grown} KiB");
}

fn web(upstream: u16, more: &str) -> String {
    format!(
        "[[route]]\nname = 'web'\nlisten = 'http://127.0.0.1:0'\nupstream = 'http://127.0.0.1:{upstream}'\n\
         policies = ['acl']\n{more}{ACL}"
    )
}

fn over_tls(upstream: u16, more: &str) -> String {
    let tls = format!("tls = {{ cert = 'localhost.pem', key = 'localhost.key' }}\n{more}");
    web(upstream, &tls).replace("'http://127.0.0.1:0'", "'https://127.0.0.1:0'")
}

/// A route without TLS to an upstream with it.
fn over_tls_to(upstream: u16, more: &str) -> String {
    let tls = "upstream_tls = { ca = 'ca.pem', cert = 'dev-1.pem', key = 'dev-1.key' }\n";
    let config = web(upstream, &format!("{tls}{more}"));
    config.replace(&format!("'http://127.0.0.1:{upstream}'"), &format!("'https://localhost:{upstream}'"))
}

fn files() -> Files {
    Files::new(&[("acl.toml", ACL_FILE)])
}

const H2: &str = "http = { upstream_protocol = 'h2' }\n";
const GET: &[u8] = b"GET /any/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const LARGE: usize = 20 * 1024 * 1024;
const ENDLESS: u64 = 256 * 1024 * 1024;
const DAV: &str = "client_max_body_size 100m; dav_methods PUT; create_full_put_path on;";

/// RFC 9113 §6.5.2
const MAX_CONCURRENT_STREAMS: u16 = 3;
const ACL_FILE: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/public/#', 'path:/any/#']
";
