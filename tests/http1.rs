//! Connections of HTTP/1.1 from clients: what is answered, in which order, and when they end.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use support::http::{ask, exchange, expect, read_head};
use support::peer::{Upstream, tcp};
use support::service::{Service, answer};
use support::{ACL, Files, Mgate};

#[test]
fn requests_in_a_row_are_answered_one_after_the_other() {
    let (_files, upstream, mgate) = begin("");
    let mut client = tcp(mgate.address());
    let row = "POST /any/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /secret HTTP/1.1\r\nHost: a\r\n\r\n\
               PUT /any/2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n\
               GET /any/3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /any/4 HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(row.as_bytes()).unwrap();
    let mut behind = upstream.accept_tcp();
    assert!(read_head(&mut behind).starts_with("POST /any/1 "));
    expect(&mut behind, "hi");
    behind.write_all(&answer("200 OK", "text/plain", "one")).unwrap();
    assert!(read_head(&mut behind).starts_with("PUT /any/2 "));
    expect(&mut behind, "2\r\nho\r\n0\r\n\r\n");
    behind.write_all(&answer("200 OK", "text/plain", "two")).unwrap();
    assert!(read_head(&mut behind).starts_with("GET /any/3 "));
    behind.write_all(&answer("200 OK", "text/plain", "three")).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    let places = ["HTTP/1.1 200 OK", "one", "HTTP/1.1 403 ", "two", "connection: close", "three"]
        .map(|part| said.find(part).unwrap_or_else(|| panic!("{part}: {said}")));
    assert!(places.is_sorted(), "{said}");
    assert_eq!(said.matches("HTTP/1.1 ").count(), 4, "nothing follows the last one: {said}");
}

#[test]
fn what_is_no_request_is_answered_and_ends_the_connection() {
    let (files, service) = (files(), Service::saying(answer("200 OK", "text/plain", "ok")));
    let wide = "http = { header_bytes = '128KiB', body_bytes = '1MiB' }\n";
    let mgate = Mgate::start(&files, &web(service.address().port(), wide));
    let hidden = "GET /any/hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let long = format!("GET /any/{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000));
    let large = format!("GET /any/a HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(130 * 1024));
    let many = format!("GET /any/a HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(100));
    let chunked = "POST /any/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (text, status) in [
        ("GET /any/a HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        ("GET /any/a\r\n\r\n", "400"),
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n", "400"),
        ("GET /any/a HTTP/1.1\r\n Host: a\r\n\r\n", "400"),
        ("POST /any/a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        (&long, "414"),
        (&large, "431"),
        (&many, "431"),
        (&format!("{chunked}x\r\n"), "400"),
        (&format!("{chunked}2\r\nhi0\r\n\r\n"), "400"),
        (&format!("{chunked}2\nhi\r\n0\r\n\r\n"), "400"),
        (&format!("{chunked}0\r\nA : b\r\n\r\n"), "400"),
        (&format!("{chunked}0\r\n\n"), "400"),
        (&format!("{chunked}0\r\n{}\r\n", "A: b\r\n".repeat(65)), "400"),
        ("GET /any/a HTTP/1.1\nHost: a\n\n", "400"),
        ("GET /any/a HTTP/1.1\r\nHost: a\r\n\n", "400"),
    ] {
        let said = exchange(mgate.address(), format!("{text}{hidden}").as_bytes());
        let start: String = text.chars().take(80).collect();
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{start:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{start:?}: {said}");
        assert!(
            said.contains("connection: close\r\n") && said.contains("application/problem+json"),
            "{said}"
        );
    }
    let heard = service.heard();
    assert!(heard.iter().all(|heard| !heard.line.contains("hidden")), "{heard:?}");
}

#[test]
fn little_of_a_body_that_nobody_wants_is_read_and_much_is_not() {
    let (_files, _upstream, mgate) = begin("http = { body_bytes = '64MiB' }\n");
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /secret HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\nhalf").unwrap();
    let said = read_head(&mut client);
    assert!(said.starts_with("HTTP/1.1 403 ") && !said.contains("connection: close"), "{said}");
    client.read_exact(&mut vec![0; length(&said)]).unwrap();
    client.write_all(&vec![b'G'; 5996]).unwrap();
    assert!(ask(&mut client, "/secret").starts_with("HTTP/1.1 403 "), "it has another request");
    for more in [
        "Content-Length: 20000000\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nExpect: 100-continue\r\n",
    ] {
        let request = format!("PUT /secret HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        let said = exchange(mgate.address(), request.as_bytes());
        assert!(
            said.starts_with("HTTP/1.1 403 ") && said.contains("connection: close\r\n"),
            "{more}: {said}"
        );
    }
}

#[test]
fn who_goes_away_is_not_waited_for() {
    let (_files, upstream, mgate) = begin("");
    let mut client = tcp(mgate.address());
    client.write_all(b"GET /any/a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(behind.read(&mut [0]).unwrap(), 0, "the upstream hears of it");
    let mut client = tcp(mgate.address());
    client.write_all(b"GET /any/a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    behind.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    read_head(&mut client);
    drop(client);
    assert_eq!(behind.read(&mut [0]).unwrap(), 0, "in the middle of an answer too");
}

#[test]
fn requests_come_in_any_pieces() {
    let (_files, upstream, mgate) = begin("");
    let mut client = tcp(mgate.address());
    client.set_nodelay(true).unwrap();
    let request = "PUT /any/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
    for byte in format!("\r\n{request}GET /any/b HTTP/1.1\r\nHost: a\r\n\r\n").bytes() {
        client.write_all(&[byte]).unwrap();
    }
    let mut behind = upstream.accept_tcp();
    assert!(read_head(&mut behind).starts_with("PUT /any/a "));
    assert_eq!(dechunked(&mut behind), "onetwo");
    behind.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
    let said = read_head(&mut client);
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("\r\ndate: "), "{said}");
    expect(&mut client, "ok");
    assert!(read_head(&mut behind).starts_with("GET /any/b "));
    behind.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

#[test]
fn clients_of_http_1_0_stay_where_they_ask_for_it() {
    let (files, service) = (files(), Service::saying(answer("200 OK", "text/plain", "ok")));
    let mgate = Mgate::start(&files, &web(service.address().port(), ""));
    let mut client = tcp(mgate.address());
    for _ in 0..2 {
        client.write_all(b"GET /any/a HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n").unwrap();
        let said = read_head(&mut client);
        assert!(said.starts_with("HTTP/1.0 200 ") && said.contains("connection: keep-alive\r\n"), "{said}");
        expect(&mut client, "ok");
    }
    let said = exchange(mgate.address(), b"GET /any/a HTTP/1.0\r\nHost: a\r\n\r\n");
    assert!(said.starts_with("HTTP/1.0 200 ") && said.ends_with("\r\n\r\nok"), "{said}");
    let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nof\r\n3\r\nany\r\n0\r\n\r\n";
    let service = Service::saying(endless);
    let mgate = Mgate::start(&files, &web(service.address().port(), ""));
    let request = b"GET /any/a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let said = exchange(mgate.address(), request);
    assert!(said.contains("connection: close\r\n") && said.ends_with("\r\n\r\nofany"), "{said}");
}

#[test]
fn connections_at_rest_keep_nothing_of_large_bodies() {
    let (files, large) = (files(), "x".repeat(31_000));
    let service = Service::saying(answer("200 OK", "text/plain", &large));
    let mgate = Mgate::start(&files, &web(service.address().port(), ""));
    let mut clients: Vec<_> = (0..IDLE).map(|_| tcp(mgate.address())).collect();
    for client in &mut clients {
        assert!(ask(client, "/secret").starts_with("HTTP/1.1 403 "));
    }
    let before = mgate.resident_kib();
    let upload = format!("PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{large}", large.len());
    for client in &mut clients {
        client.write_all(upload.as_bytes()).unwrap();
        assert!(read_head(client).starts_with("HTTP/1.1 200 "));
        client.read_exact(&mut vec![0; large.len()]).unwrap();
    }
    let grown = mgate.resident_kib().saturating_sub(before);
    assert!(grown < IDLE * 10, "{grown} KiB are kept for {IDLE} clients");
}

#[test]
fn upload_that_another_task_reads_holds_up_the_next_request() {
    let (_files, upstream, mgate) = begin("");
    let (mut client, mut behind) = answered_early(&upstream, &mgate);
    client.write_all(b" restGET /any/b HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    expect(&mut behind, " rest");
    assert!(read_head(&mut behind).starts_with("GET /any/b "));
    behind.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

#[test]
fn answer_that_breaks_before_its_first_part_is_told() {
    let (_files, upstream, mgate) = begin("");
    let mut client = tcp(mgate.address());
    client.write_all(b"POST /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    // both at once, so that it is known to be broken before anything is told
    behind.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n").unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 502 ") && said.contains("connection: close\r\n"), "{said}");
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
}

#[test]
fn who_goes_away_after_an_empty_line_is_not_waited_for() {
    let (_files, upstream, mgate) = begin("");
    for more in ["\r\n", "GET /any/b HTT"] {
        let mut client = tcp(mgate.address());
        let request = "POST /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        client.write_all(format!("{request}{more}").as_bytes()).unwrap();
        let mut behind = upstream.accept_tcp();
        read_head(&mut behind);
        expect(&mut behind, "hi");
        drop(client);
        assert_eq!(behind.read(&mut [0]).unwrap(), 0, "{more:?}");
    }
}

#[test]
fn connection_that_rests_is_closed_when_it_is_due() {
    let limits = "limits = { connect_timeout = '60s', stall_timeout = '60s', idle_timeout = '1s' }\n";
    let (_files, _upstream, mgate) = begin(limits);
    let said = exchange(mgate.address(), b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 403 ") && !said.contains("connection: close\r\n"), "{said}");
}

#[test]
fn connection_whose_upload_goes_on_is_not_idle() {
    let limits = "limits = { connect_timeout = '200ms', stall_timeout = '20s', idle_timeout = '1s' }\n";
    let (_files, upstream, mgate) = begin(limits);
    let (mut client, mut behind) = answered_early(&upstream, &mgate);
    // each of these is let go when it has been idle
    for _ in 0..4 {
        let said = exchange(mgate.address(), b"GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
    }
    client.write_all(b" restGET /secret HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    expect(&mut behind, " rest");
    assert!(read_head(&mut client).starts_with("HTTP/1.1 403 "));
}

#[test]
fn cut_answer_does_not_look_whole_to_clients_of_http_1_0() {
    let (_files, upstream, mgate) = begin("");
    let mut client = tcp(mgate.address());
    client.write_all(b"GET /any/a HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    behind.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.0 200 "));
    expect(&mut client, "half");
    drop(behind);
    let cut = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(cut, Err(ErrorKind::ConnectionReset));
}

/// Both ends of a request that was answered when " rest" of its body was missing.
fn answered_early(upstream: &Upstream, mgate: &Mgate) -> (TcpStream, TcpStream) {
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    expect(&mut behind, "half");
    behind.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    expect(&mut client, "ok");
    (client, behind)
}

/// What comes in chunks up to the last one.
fn dechunked(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"0\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    let text = String::from_utf8(text).unwrap();
    text.split("\r\n").skip(1).step_by(2).collect()
}

fn length(head: &str) -> usize {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.unwrap().parse().unwrap()
}

fn begin(more: &str) -> (Files, Upstream, Mgate) {
    let (files, upstream) = (files(), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), more));
    (files, upstream, mgate)
}

fn web(upstream: u16, more: &str) -> String {
    format!(
        "workers = 1\n[[route]]\nname = 'web'\nlisten = 'http://127.0.0.1:0'\n\
         upstream = 'http://127.0.0.1:{upstream}'\npolicies = ['acl']\n{more}{ACL}"
    )
}

fn files() -> Files {
    Files::new(&[("acl.toml", ACL_FILE)])
}

/// Clients that have no request.
const IDLE: u64 = 200;

const ACL_FILE: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/any/#']
";
