//! What becomes of connections to upstreams of HTTP/1.1, and of answers that come in other ways than most.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use support::http::{expect, is_closed, read_head};
use support::peer::{Upstream, tcp};
use support::{ACL, Files, Mgate};

#[test]
fn what_is_said_before_the_answer_is_left_out() {
    let (_files, upstream, mgate) = begin();
    let mut client = tcp(mgate.address());
    client.write_all(GET).unwrap();
    let mut behind = upstream.accept_tcp();
    for _ in 0..2 {
        read_head(&mut behind);
        behind
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
            .unwrap();
        behind.write_all(OK).unwrap();
        let head = read_head(&mut client);
        assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("link"), "{head}");
        expect(&mut client, "ok");
        client.write_all(GET).unwrap();
    }
    assert!(upstream.try_accept().is_none(), "the connection is used again");
}

#[test]
fn connection_with_more_than_the_answer_is_not_used_again() {
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlies",
        "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let (_files, upstream, mgate) = begin();
        let mut client = tcp(mgate.address());
        client.write_all(GET).unwrap();
        let mut behind = upstream.accept_tcp();
        read_head(&mut behind);
        behind.write_all(said.as_bytes()).unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 20"), "{said}");
        assert!(is_closed(&mut behind), "{said}");
        answer_on_another_one(&upstream, &mgate);
    }
}

#[test]
fn connection_that_the_upstream_closes_is_let_go() {
    let (_files, upstream, mgate) = begin();
    let mut client = tcp(mgate.address());
    client.write_all(GET).unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    behind.write_all(OK).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    behind.shutdown(Shutdown::Write).unwrap();
    assert_eq!(behind.read(&mut [0]).unwrap(), 0);
    answer_on_another_one(&upstream, &mgate);
}

#[test]
fn rest_of_a_request_follows_an_early_answer() {
    let (_files, upstream, mgate) = begin();
    let (mut client, mut behind) = half_sent(&upstream, &mgate);
    behind.write_all(OK).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    expect(&mut client, "ok");
    client.write_all(b" rest").unwrap();
    expect(&mut behind, " rest");
    client.write_all(GET).unwrap();
    read_head(&mut behind);
    behind.write_all(OK).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

#[test]
fn rest_of_a_request_is_not_waited_for_long_after_the_answer() {
    let (_files, upstream, mgate) = begin_with("limits = { stall_timeout = '500ms' }\n");
    let (mut client, mut behind) = half_sent(&upstream, &mgate);
    behind.write_all(OK).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    assert!(is_closed(&mut behind));
}

#[test]
fn rest_of_a_request_ends_when_rights_are_withdrawn() {
    for (said, heard) in [
        ("Content-Length: 2\r\n\r\nok", "ok"),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "2\r\nok\r\n0\r\n\r\n"),
    ] {
        let (files, upstream, mgate) = begin();
        let (mut client, mut behind) = half_sent(&upstream, &mgate);
        write!(behind, "HTTP/1.1 200 OK\r\n{said}").unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
        expect(&mut client, heard);
        files.write("acl.toml", "version = 1\nstatements = []\n");
        mgate.reload();
        assert!(is_closed(&mut behind), "{said}");
    }
}

#[test]
fn rest_of_a_request_that_failed_is_left_out() {
    let (_files, upstream, mgate) = begin();
    let (mut client, mut behind) = half_sent(&upstream, &mgate);
    behind.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 413 "));
    expect(&mut client, "no");
    assert!(is_closed(&mut behind));
    answer_on_another_one(&upstream, &mgate);
}

#[test]
fn client_may_write_all_before_it_reads() {
    let (_files, upstream, mgate) = begin_with("http = { body_bytes = '64MiB' }\n");
    let mut client = tcp(mgate.address());
    write!(client, "PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    let mut answering = behind.try_clone().unwrap();
    let answered = thread::spawn(move || {
        write!(answering, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").unwrap();
        answering.write_all(&vec![b'x'; LARGE]).unwrap();
    });
    let taken = thread::spawn(move || std::io::copy(&mut behind.take(LARGE as u64), &mut std::io::sink()));
    // the answer is on its way, and fills all there is between here and there
    client.peek(&mut [0]).unwrap();
    client.write_all(&vec![b'x'; LARGE]).unwrap();
    assert_eq!(taken.join().unwrap().unwrap(), LARGE as u64);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    let came = std::io::copy(&mut client.take(LARGE as u64), &mut std::io::sink()).unwrap();
    assert_eq!(came, LARGE as u64);
    answered.join().unwrap();
}

#[test]
fn request_goes_on_while_the_answer_comes() {
    let (_files, upstream, mgate) = begin();
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    expect(&mut behind, "half");
    behind.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    expect(&mut client, "4\r\nfour\r\n");
    client.write_all(b" rest").unwrap();
    expect(&mut behind, " rest");
    behind.write_all(b"0\r\n\r\n").unwrap();
    expect(&mut client, "0\r\n\r\n");
}

#[test]
fn answer_that_a_reset_cuts_off_has_no_end() {
    let (_files, upstream, mgate) = begin();
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhalf").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    assert_eq!(behind.peek(&mut [0]).unwrap(), 1);
    behind.write_all(b"HTTP/1.1 200 OK\r\n\r\nfour").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    expect(&mut client, "4\r\nfour\r\n");
    // bytes that nobody read make that a reset
    drop(behind);
    let mut rest = Vec::new();
    let end = client.read_to_end(&mut rest);
    assert!(rest.is_empty(), "the body does not end: {end:?}, {rest:?}");
    assert!(end.is_ok_and(|count| count == 0), "it is closed");
}

#[test]
fn head_of_a_request_does_not_wait_for_its_body() {
    let (_files, upstream, mgate) = begin();
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    client.write_all(b"hi").unwrap();
    expect(&mut behind, "hi");
    behind.write_all(OK).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

/// Both ends of a request, with half of its body.
fn half_sent(upstream: &Upstream, mgate: &Mgate) -> (TcpStream, TcpStream) {
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    expect(&mut behind, "half");
    (client, behind)
}

/// The next request, which has effects, comes by another connection.
fn answer_on_another_one(upstream: &Upstream, mgate: &Mgate) {
    let mut client: TcpStream = tcp(mgate.address());
    client.write_all(b"POST /any/b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut behind = upstream.accept_tcp();
    assert!(read_head(&mut behind).starts_with("POST /any/b "));
    behind.write_all(OK).unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
}

fn begin() -> (Files, Upstream, Mgate) {
    begin_with("")
}

fn begin_with(more: &str) -> (Files, Upstream, Mgate) {
    let (files, upstream) = (Files::new(&[("acl.toml", ACL_FILE)]), Upstream::start());
    let config = format!(
        "workers = 1\n[[route]]\nname = 'web'\nlisten = 'http://127.0.0.1:0'\n\
         upstream = 'http://127.0.0.1:{}'\npolicies = ['acl']\n{more}{ACL}",
        upstream.port()
    );
    let mgate = Mgate::start(&files, &config);
    (files, upstream, mgate)
}

const GET: &[u8] = b"GET /any/a HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const LARGE: usize = 20 * 1024 * 1024;
const ACL_FILE: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/any/#']
";
