//! Routes of HTTP, with real clients and servers, and with bytes that neither of them would send.

mod support;

use std::io::{BufReader, Read, Write};
use std::net::Shutdown;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use mgate_policies::Now;
use serde_json::json;
use support::broker::free_port;
use support::http::{Nginx, ask, curl, exchange, expect, read_head, read_lines_until, run_curl};
use support::https::Https;
use support::issuer::SigningKey;
use support::peer::{Upstream, tcp};
use support::service::{Service, answer};
use support::{ACL, Files, Mgate, PASSWORD, PASSWORD_HASH, wait_until};

#[test]
fn what_is_allowed_passes_through_and_nothing_else() {
    let (files, nginx) = (files(ACL_FILE), Nginx::start());
    let mgate = Mgate::start(&files, &web(nginx.port, "", ""));
    let url = |path: &str| format!("http://{}{path}", mgate.address());
    let (status, body) = curl(&[&url("/public/a.txt")]);
    assert_eq!((status.as_str(), body.as_str()), ("200", "hello\n"));
    assert_eq!(curl(&["-I", &url("/public/a.txt")]).0, "200");
    assert_eq!(curl(&["--http1.0", &url("/public/a.txt")]), ("200".into(), "hello\n".into()));
    assert_eq!(curl(&["-H", "If-None-Match: *", &url("/public/a.txt")]).0, "304");
    assert_eq!(curl(&["-r", "1-2", &url("/public/a.txt")]), ("206".into(), "el".into()));
    assert_eq!(curl(&[&url("/public/missing")]).0, "404");
    for (arguments, status) in [
        (vec![url("/secret.txt")], "403"),
        (vec!["-X".into(), "DELETE".into(), url("/public/a.txt")], "403"),
        (vec!["-X".into(), "PROPFIND".into(), url("/any/a.txt")], "403"),
        (vec!["-X".into(), "TRACE".into(), url("/any/a.txt")], "501"),
        (vec!["--path-as-is".into(), url("/public/../secret.txt")], "400"),
        (vec!["--path-as-is".into(), url("/public/%2e%2e/secret.txt")], "400"),
        (vec![url("/public%2fa.txt")], "400"),
        (vec!["-H".into(), "Host:".into(), url("/public/a.txt")], "400"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        assert_eq!(curl(&arguments).0, status, "{arguments:?}");
    }
    mgate.log.wait_for("GET /secret.txt");
}

#[test]
fn large_answers_are_streamed_and_not_kept() {
    let (files, nginx) = (files(ACL_FILE), Nginx::start());
    nginx.write("public/large", &vec![b'x'; LARGE]);
    let mgate = Mgate::start(&files, &web(nginx.port, "", ""));
    let (status, body) = curl(&[&format!("http://{}/public/large", mgate.address())]);
    assert_eq!((status.as_str(), body.len()), ("200", LARGE));
    let before = mgate.resident_kib();
    let mut client = tcp(mgate.address());
    client.write_all(b"GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut some = [0; 1000];
    client.read_exact(&mut some).unwrap();
    // others are served while it does not read on
    assert_eq!(curl(&[&format!("http://{}/public/a.txt", mgate.address())]).0, "200");
    let grown = mgate.resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB are kept for a client that does not read");
    let mut rest = Vec::new();
    client.write_all(b"GET /secret.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    client.read_to_end(&mut rest).unwrap();
    assert!(
        rest.len() > LARGE - some.len()
            && String::from_utf8_lossy(&rest[rest.len() - 200..]).contains("not authorized")
    );
}

#[test]
fn http2_is_spoken_over_tls() {
    let (files, nginx) = (files(ACL_FILE).with_certificates(), Nginx::start());
    let mgate = Mgate::start(&files, &over_tls(nginx.port, ""));
    let (ca, url) = (files.path("ca.pem"), format!("https://localhost:{}", mgate.address().port()));
    for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let command = ["-w", "%{http_version}\n", "--cacert", ca.to_str().unwrap(), option];
        let urls = ["/public/a.txt", "/public/a.txt"].map(|path| format!("{url}{path}"));
        let output = run_curl(&[&command[..], &[&urls[0], &urls[1]]].concat());
        assert_eq!(output, format!("hello\n{version}\nhello\n{version}\n"));
        let denied = format!("{url}/secret.txt");
        assert!(run_curl(&[&command[..], &[denied.as_str()]].concat()).contains("not authorized"));
    }
}

#[test]
fn clients_are_known_by_what_they_show() {
    let files = files(OWN_PATHS);
    let users =
        format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n[users.dev-2]\npassword = '{PASSWORD_HASH}'\n");
    files.write("users.toml", &users);
    let service = Service::saying(answer("200 OK", "text/plain", "ok"));
    let authn = "authn = ['users']\n";
    let table = "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n";
    let mgate = Mgate::start(&files, &web(service.address().port(), authn, table));
    let url = |path: &str| format!("http://{}{path}", mgate.address());
    let login = format!("dev-1:{PASSWORD}");
    assert_eq!(curl(&["-u", &login, &url("/dev-1/a?x=1")]).0, "200");
    assert_eq!(curl(&["-u", &login, &url("/dev-2/a")]).0, "403");
    assert_eq!(curl(&["-u", "dev-1:wrong", &url("/dev-1/a")]).0, "401");
    let head = run_curl(&["-i", &url("/dev-1/a")]);
    assert!(head.contains("www-authenticate: Basic") && head.contains("www-authenticate: Bearer"), "{head}");
    let in_query = "Basic%20ZGV2LTE6Y29ycmVjdCBob3JzZQ==";
    assert_eq!(curl(&[&url(&format!("/dev-1/b?x=1&authorization={in_query}"))]).0, "200");
    assert_eq!(curl(&["-u", &login, &url(&format!("/dev-1/b?auth={in_query}"))]).0, "400", "twice");
    let heard = service.heard();
    let lines: Vec<_> = heard.iter().map(|heard| heard.line.as_str()).collect();
    assert_eq!(lines, ["GET /dev-1/a?x=1", "GET /dev-1/b?x=1"]);
    assert!(heard.iter().all(|heard| !heard.headers.contains("authorization")), "{heard:?}");
    assert!(!mgate.log.text().contains("ZGV2LTE6"), "a secret is in the log");
}

#[test]
fn token_is_an_identity_wherever_it_is_shown() {
    let (files, key) = (files(OWN_PATHS), SigningKey::p256());
    files.write("key.pem", &key.public_pem());
    let service = Service::saying(answer("200 OK", "text/plain", "ok"));
    let mgate = Mgate::start(&files, &web(service.address().port(), "authn = ['tokens']\n", TOKENS));
    let (good, late) = (token(&key, 600), token(&key, 0));
    let url = |target: &str| format!("http://{}{target}", mgate.address());
    let status = |header: &str, target: &str| curl(&["-H", header, &url(target)]).0;
    assert_eq!(status(&format!("Authorization: Bearer {good}"), "/dev-1/a"), "200");
    assert_eq!(status(&format!("Authorization: Bearer {good}"), "/dev-2/a"), "403");
    assert_eq!(status(&format!("Authorization: Bearer {late}"), "/dev-1/a"), "401");
    assert_eq!(status(&format!("Cookie: a=1; t={good}"), "/dev-1/a"), "200");
    assert_eq!(status("X: y", &format!("/dev-1/b?access_token={good}&c=d")), "200");
    assert_eq!(status("X: y", "/dev-1/a"), "401");
    let lines: Vec<_> = service.heard().into_iter().map(|heard| heard.line).collect();
    assert_eq!(lines, ["GET /dev-1/a", "GET /dev-1/a", "GET /dev-1/b?c=d"]);
    assert!(!mgate.log.text().contains(&good), "a secret is in the log");
}

#[test]
fn certificate_is_an_identity() {
    let files = files(OWN_PATHS).with_certificates();
    let service = Service::saying(answer("200 OK", "text/plain", "ok"));
    let more = "authn = ['x509']\n[route.tls]\nclient_ca = 'ca.pem'\nclient_auth = 'required'";
    let config = over_tls(service.address().port(), "").replace("[route.tls]", more);
    let mgate = Mgate::start(&files, &format!("{config}[authn.x509]\ntype = 'x509'\n"));
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (path("ca.pem"), path("dev-1.pem"), path("dev-1.key"));
    let tls = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    for (target, status) in [("/dev-1/a", "200"), ("/dev-2/a", "403")] {
        let url = format!("https://localhost:{}{target}", mgate.address().port());
        assert_eq!(curl(&[&tls[..], &[url.as_str()]].concat()).0, status, "{target}");
    }
}

#[test]
fn head_goes_on_without_what_belongs_to_the_connection() {
    let (files, service) = (files(ACL_FILE), Service::saying(SECRETIVE));
    let mgate = Mgate::start(&files, &web(service.address().port(), "", ""));
    let request = "PUT /any/%7Ea/b%20c?x=%2F;y HTTP/1.1\r\nHost: gate.example:80\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\
                   X-Kept: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nX-Forwarded-For: 9.9.9.9\r\nX_Forwarded_Proto: https\r\n\
                   X-HTTP-Method-Override: DELETE\r\nContent-Length: 2\r\n\r\nhi";
    let answer = exchange(mgate.address(), request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 201 ") && answer.ends_with("ok"), "{answer}");
    assert!(
        answer.contains("x-kept: 2") && !answer.contains("x-hop") && !answer.contains("keep-alive"),
        "{answer}"
    );
    let heard = &service.heard()[0];
    assert_eq!((heard.line.as_str(), heard.body.as_str()), ("PUT /any/%7Ea/b%20c?x=%2F;y", "hi"));
    for line in [
        "host: gate.example:80",
        "x-kept: 1",
        "te: trailers",
        "via: 1.1 mgate",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: gate.example:80",
        "x-forwarded-proto: http",
        "forwarded: for=127.0.0.1;host=\"gate.example:80\";proto=http",
    ] {
        assert!(heard.headers.lines().any(|header| header == line), "{line}: {}", heard.headers);
    }
    for name in ["x-hop", "keep-alive", "x_forwarded", "override", "9.9.9.9"] {
        assert!(!heard.headers.contains(name), "{name}: {}", heard.headers);
    }
}

#[test]
fn origin_is_told_by_those_who_are_trusted() {
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let more = "proxy_protocol = { accept = 'v1', trusted = ['127.0.0.0/8'] }\nhttp = { trusted = ['192.0.2.0/24'] }\n";
    let mgate = Mgate::start(&files, &web(service.address().port(), more, ""));
    for (from, expected) in [("192.0.2.7", "9.9.9.9, 192.0.2.7"), ("198.51.100.1", "198.51.100.1")] {
        let request = format!(
            "PROXY TCP4 {from} 127.0.0.1 4000 80\r\nGET /any/a HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9\r\n\
             Connection: close\r\n\r\n"
        );
        assert!(exchange(mgate.address(), request.as_bytes()).starts_with("HTTP/1.1 200 "));
        let headers = service.heard().pop().unwrap().headers;
        assert!(headers.contains(&format!("x-forwarded-for: {expected}\r\n")), "{headers}");
    }
}

#[test]
fn upstream_is_spoken_to_over_tls() {
    let files = files(ACL_FILE).with_certificates();
    let upstream = Https::start(&files, Some(answer("200 OK", "text/plain", "ok")));
    let port: u16 = upstream.url().rsplit(':').next().unwrap().trim_end_matches("/keys").parse().unwrap();
    let config = |ca: &str| {
        let config = web(port, &format!("upstream_tls = {{ {ca} }}\n"), "");
        config.replace(&format!("'http://127.0.0.1:{port}'"), &format!("'https://localhost:{port}'"))
    };
    let mgate = Mgate::start(&files, &config("ca = 'ca.pem'"));
    assert!(exchange(mgate.address(), GET).starts_with("HTTP/1.1 200 "));
    let stranger = Mgate::start(&files, &config("ca = 'ca.pem', server_name = 'other.example'"));
    assert!(exchange(stranger.address(), GET).starts_with("HTTP/1.1 502 "));
    assert_eq!(upstream.requests(), 1);
}

#[test]
fn messages_with_two_ends_are_refused() {
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let mgate = Mgate::start(&files, &web(service.address().port(), "", ""));
    let hidden = "GET /any/hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for (head, status) in [
        ("Content-Length: 1\r\nContent-Length: 2", "400"),
        ("Content-Length: 1, 2", "400"),
        ("Content-Length: -1", "400"),
        ("Content-Length: 0x1", "400"),
        ("Transfer-Encoding: gzip, chunked", "501"),
        ("Transfer-Encoding: chunked, gzip", "400"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "400"),
        ("Transfer-Encoding: identity", "400"),
        ("Transfer-Encoding : chunked", "400"),
        ("X: a\r\n folded", "400"),
        ("X: a\rb", "400"),
        ("X: a\0b", "400"),
        ("Host: b", "400"),
        ("Upgrade: h2c\r\nConnection: upgrade", "501"),
        ("Upgrade: websocket\r\nConnection: upgrade", "400"),
        ("Expect: more", "417"),
    ] {
        let request = format!("POST /any/a HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{hidden}");
        let answer = exchange(mgate.address(), request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
        assert!(!answer.contains("200 OK"), "{head:?}: {answer}");
    }
    assert!(service.heard().is_empty(), "{:?}", service.heard());
}

#[test]
fn of_two_lengths_chunks_count_and_the_connection_ends() {
    let (files, upstream) = (files(ACL_FILE), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let mut client = tcp(mgate.address());
    let smuggled = "GET /any/hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let request = format!(
        "POST /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    );
    client.write_all(request.as_bytes()).unwrap();
    let mut behind = upstream.accept_tcp();
    let head = read_head(&mut behind).to_lowercase();
    assert!(head.starts_with("post /any/a ") && !head.contains("content-length: 4"), "{head}");
    behind.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
}

#[test]
fn nobody_is_told_to_go_on_before_the_decision() {
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let mgate = Mgate::start(&files, &web(service.address().port(), "", ""));
    let head =
        |path| format!("PUT {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    let mut denied = tcp(mgate.address());
    denied.write_all(head("/secret.txt").as_bytes()).unwrap();
    assert!(read_head(&mut denied).starts_with("HTTP/1.1 403 "));
    let mut allowed = tcp(mgate.address());
    allowed.write_all(head("/any/a").as_bytes()).unwrap();
    assert!(read_head(&mut allowed).starts_with("HTTP/1.1 100 "));
    allowed.write_all(b"hi").unwrap();
    assert!(read_head(&mut allowed).starts_with("HTTP/1.1 200 "));
    let heard = service.heard();
    assert_eq!((heard.len(), heard[0].body.as_str()), (1, "hi"));
    assert!(!heard[0].headers.contains("expect"), "{heard:?}");
}

#[test]
fn what_is_too_much_is_refused() {
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let limits = "[route.http]\nbody_bytes = 100\nheader_bytes = '2KiB'\nheaders = 10\n";
    let mgate = Mgate::start(&files, &web(service.address().port(), "", limits));
    let url = format!("http://{}/any/a", mgate.address());
    assert_eq!(curl(&["-d", &"x".repeat(100), &url]).0, "200");
    assert_eq!(curl(&["-d", &"x".repeat(101), &url]).0, "413");
    assert_eq!(curl(&["-H", "Transfer-Encoding: chunked", "-d", &"x".repeat(101), &url]).0, "413");
    assert_eq!(curl(&["-H", &format!("X: {}", "x".repeat(2000)), &url]).0, "431");
    let many: Vec<String> = (0..12).map(|number| format!("X-{number}: 1")).collect();
    let many: Vec<&str> = many.iter().flat_map(|header| ["-H", header.as_str()]).collect();
    assert_eq!(curl(&[&many[..], &[url.as_str()]].concat()).0, "431");
    assert_eq!(service.heard().len(), 1);
}

#[test]
fn who_is_too_fast_is_told_when_to_come_again() {
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let limits = "limits = { messages_per_second = 2 }\n";
    let mgate = Mgate::start(&files, &web(service.address().port(), limits, ""));
    let request = b"GET /any/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // each on a connection of its own
    let answers: Vec<String> = (0..4).map(|_| exchange(mgate.address(), request)).collect();
    assert!(
        answers[0].starts_with("HTTP/1.1 200 ") && answers[1].starts_with("HTTP/1.1 200 "),
        "{answers:?}"
    );
    let refused = answers.iter().find(|answer| answer.starts_with("HTTP/1.1 429 "));
    assert!(refused.is_some_and(|answer| answer.contains("retry-after: 1")), "{answers:?}");
}

#[test]
fn who_is_too_slow_is_not_waited_for() {
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let limits = "limits = { connect_timeout = '200ms', stall_timeout = '200ms', idle_timeout = '1s' }\n";
    let mgate = Mgate::start(&files, &web(service.address().port(), limits, ""));
    for silent in ["", "GET /any/a HTTP/1.1\r\nHost: a\r\n"] {
        assert_eq!(exchange(mgate.address(), silent.as_bytes()), "", "{silent:?}");
    }
    let half = "POST /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    let said = exchange(mgate.address(), half.as_bytes());
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    // it is closed when it has been idle
    let said = exchange(mgate.address(), b"GET /any/a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("ok"), "{said}");
}

#[test]
fn answer_that_stops_halfway_ends_halfway() {
    let service = Service::saying("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let limits = "limits = { stall_timeout = '200ms' }\n";
    let files = files(ACL_FILE);
    let mgate = Mgate::start(&files, &web(service.address().port(), limits, ""));
    let said = exchange(mgate.address(), GET);
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\nhalf"), "{said}");
}

#[test]
fn who_does_not_read_is_let_go() {
    let (files, nginx) = (files(ACL_FILE), Nginx::start());
    nginx.write("public/large", &vec![b'x'; LARGE]);
    let limits = "limits = { stall_timeout = '200ms' }\n";
    let admin = "[admin]\nlisten = 'http://127.0.0.1:0'\n";
    let mgate = Mgate::start(&files, &web(nginx.port, limits, admin));
    let mut client = tcp(mgate.address());
    client.write_all(b"GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let admin = mgate.admin();
    let connections = || admin.get("/healthz").1["routes"][0]["connections"].as_u64();
    let mut was_there = false;
    wait_until("it is let go", || {
        was_there |= connections() == Some(1);
        was_there && connections() == Some(0)
    });
}

#[test]
fn who_does_not_read_what_it_asked_for_is_let_go_over_http2_too() {
    let (files, nginx) = (files(ACL_FILE).with_certificates(), Nginx::start());
    nginx.write("public/large", &vec![b'x'; LARGE]);
    let rest = "[route.limits]\nstall_timeout = '500ms'\n[admin]\nlisten = \"http://127.0.0.1:0\"\n";
    let mgate = Mgate::start(&files, &over_tls(nginx.port, rest));
    let mut slow = Command::new("openssl")
        .args(["s_client", "-quiet", "-alpn", "h2", "-connect", &mgate.address().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    slow.stdin.as_mut().unwrap().write_all(HTTP2_WITH_A_SMALL_WINDOW).unwrap();
    let admin = mgate.admin();
    let connections = || admin.get("/healthz").1["routes"][0]["connections"].as_u64();
    let mut was_there = false;
    wait_until("it is let go", || {
        was_there |= connections() == Some(1);
        was_there && connections() == Some(0)
    });
    slow.wait().unwrap();
}

#[test]
fn bodies_stream_over_http2_both_ways() {
    let files = files(ACL_FILE).with_certificates();
    let service = Service::start(|heard, tcp| tcp.write_all(&answer("200 OK", "text/plain", &heard.body)));
    let http = "[route.http]\nbody_bytes = '4MiB'\n";
    let mgate = Mgate::start(&files, &over_tls(service.address().port(), http));
    let (ca, url) = (files.path("ca.pem"), format!("https://localhost:{}/any/a", mgate.address().port()));
    let body = "0123456789".repeat(200_000);
    let upload = files.write("upload", &body);
    let data = format!("@{}", upload.display());
    let command =
        ["--http2", "--cacert", ca.to_str().unwrap(), "-H", "Expect:", "--data-binary", &data, &url];
    assert!(run_curl(&command) == body, "what comes back is not what was sent");
    let more = files.write("more", &body.repeat(3));
    let data = format!("@{}", more.display());
    let command =
        ["--http2", "--cacert", ca.to_str().unwrap(), "-H", "Expect:", "--data-binary", &data, &url];
    // this curl forgets the status when it is told to send no more
    run_curl(&command);
    assert_eq!(service.heard().len(), 1);
}

#[test]
fn upstream_that_is_away_or_slow_is_told_apart() {
    let files = files(ACL_FILE);
    let port = free_port();
    let away = Mgate::start(&files, &web(port, "", ""));
    let said = exchange(away.address(), GET);
    assert!(said.starts_with("HTTP/1.1 502 ") && said.contains("application/problem+json"), "{said}");
    let line = away.log.wait_for("no answer of the upstream");
    assert!(line.contains(&format!("127.0.0.1:{port}: no connection: ")), "{line}");
    let silent = Service::start(|_, _| Ok(()));
    let limits = "limits = { upstream_timeout = '200ms' }\n";
    let slow = Mgate::start(&files, &web(silent.address().port(), limits, ""));
    let said = exchange(slow.address(), GET);
    assert!(said.starts_with("HTTP/1.1 504 ") && said.contains("\"status\":504"), "{said}");
    let broken = Service::saying("HTTP/1.1 200 OK\r\nContent-Le");
    let mgate = Mgate::start(&files, &web(broken.address().port(), limits, ""));
    assert!(exchange(mgate.address(), GET).starts_with("HTTP/1.1 504 "));
    let odd = Service::saying("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    let mgate = Mgate::start(&files, &web(odd.address().port(), "", ""));
    assert!(exchange(mgate.address(), GET).starts_with("HTTP/1.1 502 "));
}

#[test]
fn without_a_decision_nothing_passes() {
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let url = format!("http://127.0.0.1:{}", free_port());
    let table = format!("[policy.away]\ntype = 'pdp'\ndialect = 'authzen'\nurl = '{url}'\n");
    let config = web(service.address().port(), "", &table).replace("['acl']", "['acl', 'away']");
    let mgate = Mgate::start(&files, &config);
    assert!(exchange(mgate.address(), GET).starts_with("HTTP/1.1 503 "));
    assert!(service.heard().is_empty());
}

#[test]
fn decision_service_is_asked_about_method_and_path() {
    let pdp = Service::start(|heard, tcp| {
        let is_allowed = heard.body.contains("\"name\":\"GET\"") && heard.body.contains("\"id\":\"/any/ü\"");
        tcp.write_all(&answer("200 OK", "application/json", &format!("{{\"decision\":{is_allowed}}}")))
    });
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let table = format!("[policy.pdp]\ntype = 'pdp'\ndialect = 'authzen'\nurl = '{}'\n", pdp.url(""));
    let config = web(service.address().port(), "", &table).replace("['acl']", "['pdp']").replace(ACL, "");
    let mgate = Mgate::start(&files, &config);
    let url = |path: &str| format!("http://{}{path}", mgate.address());
    assert_eq!(curl(&[&url("/any/%c3%bc?x=1")]).0, "200");
    assert_eq!(curl(&["-X", "PUT", &url("/any/%c3%bc")]).0, "403");
    assert_eq!(curl(&[&url("/any/u")]).0, "403");
    assert!(pdp.heard()[0].body.contains("\"type\":\"path\""), "{:?}", pdp.heard());
}

#[test]
fn requests_after_a_reload_are_judged_by_the_new_policies() {
    let (files, service) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let mgate = Mgate::start(&files, &web(service.address().port(), "", ""));
    let mut client = tcp(mgate.address());
    assert!(ask(&mut client, "/any/a").starts_with("HTTP/1.1 200 "));
    files.write("acl.toml", "version = 1\nstatements = []\n");
    mgate.reload();
    assert!(ask(&mut client, "/any/a").starts_with("HTTP/1.1 403 "));
    let other = Service::saying(answer("201 Created", "text/plain", "ok"));
    files.write("acl.toml", ACL_FILE);
    files.write("mgate.toml", &web(other.address().port(), "", ""));
    mgate.reload();
    assert!(ask(&mut client, "/any/a").starts_with("HTTP/1.1 201 "));
}

#[test]
fn answers_on_their_way_end_when_rights_are_withdrawn() {
    let (files, upstream) = (files(ACL_FILE), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let (mut client, mut behind) = (tcp(mgate.address()), None);
    client.write_all(b"GET /any/a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut say = |chunk: &str| {
        let behind = behind.get_or_insert_with(|| {
            let mut behind = upstream.accept_tcp();
            read_head(&mut behind);
            behind.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            behind
        });
        behind.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes()).unwrap();
    };
    say("first");
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    expect(&mut client, "5\r\nfirst\r\n");
    // it is asked again, and the answer is the same
    mgate.reload();
    say("second");
    expect(&mut client, "6\r\nsecond\r\n");
    files.write("acl.toml", "version = 1\nstatements = []\n");
    mgate.reload();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "not even the end of the answer");
    mgate.log.wait_for("GET /any/a");
}

#[test]
fn answers_on_their_way_end_with_the_token() {
    let (files, key, upstream) = (files(OWN_PATHS), SigningKey::p256(), Upstream::start());
    files.write("key.pem", &key.public_pem());
    let mgate = Mgate::start(&files, &web(upstream.port(), "authn = ['tokens']\n", TOKENS));
    let mut client = tcp(mgate.address());
    let token = token(&key, 2);
    let request = format!("GET /dev-1/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    behind.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"half");
}

#[test]
fn requests_end_before_it_stops() {
    let (files, upstream) = (files(ACL_FILE), Upstream::start());
    let mut mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let (mut idle, mut client) = (tcp(mgate.address()), tcp(mgate.address()));
    client.write_all(b"GET /any/a HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    mgate.terminate();
    mgate.log.wait_for("stopping");
    let mut nothing = Vec::new();
    idle.read_to_end(&mut nothing).unwrap();
    behind.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("ok"), "{said}");
    drop((client, idle));
    assert!(mgate.wait().success());
}

#[test]
fn requests_over_http2_end_before_it_stops() {
    let (files, upstream) = (files(ACL_FILE).with_certificates(), Upstream::start());
    let mut mgate = Mgate::start(&files, &over_tls(upstream.port(), ""));
    let (ca, url) = (files.path("ca.pem"), format!("https://localhost:{}/any/a", mgate.address().port()));
    let client = thread::spawn(move || curl(&["--http2", "--cacert", ca.to_str().unwrap(), &url]));
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    mgate.terminate();
    mgate.log.wait_for("stopping");
    behind.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
    assert_eq!(client.join().unwrap(), ("200".into(), "ok".into()));
    assert!(mgate.wait().success());
}

#[test]
fn connections_to_the_upstream_are_kept_and_what_has_effects_is_sent_once() {
    let requests = AtomicUsize::new(0);
    // each connection answers once and is closed with the next request
    let service = Service::start(move |_, tcp| match requests.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => tcp.write_all(&answer("200 OK", "text/plain", "ok")),
        _ => tcp.shutdown(Shutdown::Both).and(Err(std::io::ErrorKind::Other.into())),
    });
    let files = files(ACL_FILE);
    let config = format!("workers = 1\n{}", web(service.address().port(), "", ""));
    let mgate = Mgate::start(&files, &config);
    let mut client = tcp(mgate.address());
    assert!(ask(&mut client, "/any/1").starts_with("HTTP/1.1 200 "));
    // the connection breaks, and it is sent again on another one
    assert!(ask(&mut client, "/any/2").starts_with("HTTP/1.1 200 "));
    client.write_all(b"POST /any/3 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 502 "));
    let heard = service.heard();
    let lines: Vec<_> = heard.iter().map(|heard| heard.line.as_str()).collect();
    assert_eq!(lines, ["GET /any/1", "GET /any/2", "GET /any/2", "POST /any/3"]);
    assert_eq!(service.connections(), 2);
}

#[test]
fn trailers_pass() {
    let (files, upstream) = (files(ACL_FILE), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let mut client = tcp(mgate.address());
    let request = "PUT /any/a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n";
    client.write_all(request.as_bytes()).unwrap();
    let mut behind = BufReader::new(upstream.accept_tcp());
    read_lines_until(&mut behind, "x-sum: 7");
    let said = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-More\r\n\r\n2\r\nok\r\n0\r\nX-More: 8\r\n\r\n";
    behind.get_mut().write_all(said.as_bytes()).unwrap();
    read_lines_until(&mut BufReader::new(client), "x-more: 8");
}

#[test]
fn messages_are_published_to_the_topics_of_their_channels() {
    let (files, mirror) = (files(CHANNELS), "[mirror.log]\ntype = 'log'\n");
    let config = web(
        1,
        "mirror = 'log'\n",
        &format!("[route.http]\nprofile = 'messages'\nbody_bytes = 100\n{mirror}"),
    );
    let config = config.replace("upstream = 'http://127.0.0.1:1'\n", "");
    let mgate = Mgate::start(&files, &config);
    let post = |path: &str, content_type: &str, body: &str| {
        let (header, url) =
            (format!("Content-Type: {content_type}"), format!("http://{}{path}", mgate.address()));
        curl(&["-X", "POST", "-H", &header, "-d", body, &url]).0
    };
    assert_eq!(post("/channels/7/messages/room/a", "application/json", "[1]"), "202");
    let line = mgate.log.wait_for("channels/7/messages/room/a");
    assert!(line.contains("[1]"), "{line}");
    for (path, content_type, body, status) in [
        ("/channels/8/messages", "application/json", "denied", "403"),
        ("/channels/7/messages/+", "application/json", "wildcard", "400"),
        ("/channels/a.b/messages", "application/json", "no id", "400"),
        ("/channels/7/messages", "application/json", "", "400"),
        ("/other", "application/json", "elsewhere", "404"),
        ("/channels/7/messages", "text/plain", "of a type", "415"),
        ("/channels/7/messages", "application/json", &"x".repeat(101), "413"),
    ] {
        assert_eq!(post(path, content_type, body), status, "{path} {content_type} {body}");
    }
    assert_eq!(mgate.log.count("channels/7/messages"), 1, "{}", mgate.log.text());
    assert_eq!(curl(&[&format!("http://{}/channels/7/messages", mgate.address())]).0, "405");
}

#[test]
fn messages_for_an_upstream_are_mirrored_when_it_took_them() {
    let service = Service::start(|heard, tcp| {
        let status = if heard.body == "bad" { "400 Bad Request" } else { "202 Accepted" };
        tcp.write_all(&answer(status, "text/plain", "said"))
    });
    let (files, mirror) = (files(CHANNELS), "[mirror.log]\ntype = 'log'\n");
    let table = format!("[route.http]\nprofile = 'messages'\ncontent_types = []\n{mirror}");
    let mgate = Mgate::start(&files, &web(service.address().port(), "mirror = 'log'\n", &table));
    let url = format!("http://{}/channels/7/messages/x", mgate.address());
    assert_eq!(curl(&["-d", "bad", &url]), ("400".into(), "said".into()));
    assert_eq!(curl(&["-d", "good", &url]), ("202".into(), "said".into()));
    mgate.log.wait_for("good");
    assert_eq!(mgate.log.count("channels/7/messages/x"), 1, "{}", mgate.log.text());
    assert_eq!(service.heard().len(), 2);
}

#[test]
fn uploads_on_their_way_end_when_rights_are_withdrawn() {
    let (files, upstream) = (files(ACL_FILE), Upstream::start());
    let mgate = Mgate::start(&files, &web(upstream.port(), "", ""));
    let mut client = tcp(mgate.address());
    client.write_all(b"PUT /any/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    let mut behind = upstream.accept_tcp();
    read_head(&mut behind);
    expect(&mut behind, "half");
    files.write("acl.toml", "version = 1\nstatements = []\n");
    mgate.reload();
    assert!(read_head(&mut client).starts_with("HTTP/1.1 403 "));
    assert_eq!(behind.read(&mut [0]).unwrap_or_default(), 0, "it is closed");
}

#[test]
fn rights_that_change_while_it_is_asked_who_it_is_count() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let things = Service::start(move |_, tcp| {
        // it is released for good when the other end is gone
        let _ = released.lock().unwrap().recv();
        tcp.write_all(&answer("200 OK", "application/json", r#"{"id":"dev-1"}"#))
    });
    let (files, upstream) = (files(ACL_FILE), Service::saying(answer("200 OK", "text/plain", "ok")));
    let table =
        format!("[authn.things]\ntype = 'remote'\ndialect = 'mainflux-0.13'\nurl = '{}'\n", things.url(""));
    let mgate = Mgate::start(&files, &web(upstream.address().port(), "authn = ['things']\n", &table));
    let mut client = tcp(mgate.address());
    client.write_all(b"GET /any/a HTTP/1.1\r\nHost: a\r\nAuthorization: Thing key\r\n\r\n").unwrap();
    wait_until("it is asked who it is", || things.heard().len() == 1);
    files.write("acl.toml", "version = 1\nstatements = []\n");
    mgate.reload();
    drop(release);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 403 "));
    assert_eq!(upstream.heard().len(), 0);
}

#[test]
fn messages_are_judged_when_they_are_whole() {
    let (files, key) = (files(CHANNELS), SigningKey::p256());
    files.write("key.pem", &key.public_pem());
    let tables = format!("[route.http]\nprofile = 'messages'\n[mirror.log]\ntype = 'log'\n{TOKENS}");
    let config = web(1, "authn = ['tokens']\nmirror = 'log'\n", &tables);
    let mgate = Mgate::start(&files, &config.replace("upstream = 'http://127.0.0.1:1'\n", ""));
    let post = |token: &str| {
        let mut client = tcp(mgate.address());
        let head = format!(
            "POST /channels/7/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        );
        client.write_all(head.as_bytes()).unwrap();
        expect(&mut client, "HTTP/1.1 100 Continue\r\n\r\n");
        client
    };
    let until = Now::read().unix.as_secs() + 2;
    let (mut expired, mut good, mut denied) =
        (post(&token(&key, 2)), post(&token(&key, 600)), post(&token(&key, 600)));
    good.write_all(b"\"ok\"").unwrap();
    assert!(read_head(&mut good).starts_with("HTTP/1.1 202 "));
    wait_until("it expires", || Now::read().unix.as_secs() > until);
    expired.write_all(b"\"no\"").unwrap();
    assert!(read_head(&mut expired).starts_with("HTTP/1.1 401 "));
    files.write("acl.toml", "version = 1\nstatements = []\n");
    mgate.reload();
    denied.write_all(b"\"no\"").unwrap();
    assert!(read_head(&mut denied).starts_with("HTTP/1.1 403 "));
}

#[test]
fn messages_that_wait_for_their_turn_leave_room_for_others() {
    let files = files(CHANNELS).with_certificates();
    files.write("large", &"x".repeat(300_000));
    let tables = "[route.http]\nprofile = 'messages'\nbody_bytes = '1MiB'\ncontent_types = []\n[mirror.log]\ntype = 'log'\n";
    let config = over_tls(1, tables).replace("policies =", "mirror = 'log'\npolicies =");
    let mgate = Mgate::start(&files, &config.replace("upstream = 'http://127.0.0.1:1'\n", ""));
    let url = format!("https://localhost:{}/channels/7/messages", mgate.address().port());
    let (ca, body) = (files.path("ca.pem"), format!("@{}", files.path("large").display()));
    let first = ["-Z", "--http2", "--cacert", ca.to_str().unwrap(), "-w", "%{http_version} %{http_code}\n"];
    let said = run_curl(&[&first[..], &["--data-binary", &body], &[url.as_str(); 12]].concat());
    assert_eq!(said.lines().filter(|line| *line == "2 202").count(), 12, "{said}");
}

#[test]
fn one_connection_leaves_places_for_others() {
    let (files, upstream) = (files(ACL_FILE).with_certificates(), Upstream::start());
    let table = "[route.http]\nupstream_requests = 2\n";
    let mgate = Mgate::start(&files, &over_tls(upstream.port(), table));
    let (ca, port) = (files.path("ca.pem"), mgate.address().port());
    let get = |path: &str| {
        let mut command = Command::new("curl");
        command.args(["-s", "--http2", "-Z", "--noproxy", "*", "--max-time", "10", "--cacert"]).arg(&ca);
        command.args((0..3).map(|number| format!("https://localhost:{port}{path}{number}")));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut one = get("/any/one");
    let mut behind = vec![upstream.accept_tcp()];
    assert!(read_head(&mut behind[0]).contains("/any/one"));
    let mut other = get("/any/other");
    behind.push(upstream.accept_tcp());
    assert!(read_head(&mut behind[1]).contains("/any/other"));
    for client in [&mut one, &mut other] {
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

#[test]
fn messages_in_small_pieces_take_little_more_than_they_are() {
    let (files, service) = (files(CHANNELS), Service::saying(answer("202 Accepted", "text/plain", "")));
    let table = "[route.http]\nprofile = 'messages'\nbody_bytes = '1MiB'\ncontent_types = []\n";
    let mgate = Mgate::start(&files, &web(service.address().port(), "", table));
    let post = |pieces: usize| {
        let mut client = tcp(mgate.address());
        let head = "POST /channels/7/messages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(format!("{head}{}0\r\n\r\n", "1\r\nx\r\n".repeat(pieces)).as_bytes()).unwrap();
        let said = read_head(&mut client);
        assert!(said.starts_with("HTTP/1.1 202 "), "{said}");
    };
    post(1);
    let before = mgate.peak_kib();
    post(PIECES);
    let grown = mgate.peak_kib() - before;
    assert!(grown < 3 * 1024, "{PIECES} pieces took {grown} KiB");
    let heard: Vec<_> = service.heard().iter().map(|heard| heard.body.clone()).collect();
    assert!(heard == ["x", &"x".repeat(PIECES)], "nothing of them is missing");
}

#[test]
fn messages_that_trickle_are_not_waited_for() {
    let files = files(CHANNELS);
    let tables =
        "[route.http]\nprofile = 'messages'\ncontent_types = []\n[route.limits]\nstall_timeout = '200ms'\n";
    let mgate = Mgate::start(&files, &web(1, "", tables));
    let mut client = tcp(mgate.address());
    client
        .write_all(b"POST /channels/7/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        .unwrap();
    let mut writing = client.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for _ in 0..1000 {
            if writing.write_all(b"x").is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    assert!(read_head(&mut client).starts_with("HTTP/1.1 408 "));
    drop(client);
    writer.join().unwrap();
}

/// A configuration with one route of HTTP; `more` are keys of the route, `rest` further tables.
fn web(upstream: u16, more: &str, rest: &str) -> String {
    format!(
        "[[route]]\nname = 'web'\nlisten = 'http://127.0.0.1:0'\nupstream = 'http://127.0.0.1:{upstream}'\n\
         policies = ['acl']\n{more}{rest}{ACL}"
    )
}

fn over_tls(upstream: u16, rest: &str) -> String {
    let tls = "[route.tls]\ncert = 'localhost.pem'\nkey = 'localhost.key'\n";
    web(upstream, "", &format!("{tls}{rest}")).replace("'http://127.0.0.1:0'", "'https://127.0.0.1:0'")
}

/// A token for dev-1 that is good for so many seconds.
fn token(key: &SigningKey, lasting: u64) -> String {
    let exp = Now::read().unix.as_secs() + lasting;
    let claims = json!({ "iss": "https://id.example", "aud": "mgate", "sub": "dev-1", "exp": exp });
    key.token(&json!({ "alg": "ES256" }), &claims)
}

fn files(acl: &str) -> Files {
    Files::new(&[("acl.toml", acl)])
}

const TOKENS: &str = "\
[authn.tokens]
type            = 'jwt'
issuer          = 'https://id.example'
audience        = 'mgate'
algorithms      = ['ES256']
public_key_file = 'key.pem'
token_in        = ['header', 'password', 'cookie:t']
";

const GET: &[u8] = b"GET /any/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Preface, SETTINGS with room for 100 bytes of an answer, and GET /public/large; no window is opened after that.
const HTTP2_WITH_A_SMALL_WINDOW: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\x64\
    \0\0\x14\x01\x05\0\0\0\x01\x82\x87\x04\x0d/public/large\x41\x01a";

const LARGE: usize = 30 * 1024 * 1024;

const SECRETIVE: &str = "HTTP/1.1 201 Created\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-Kept: 2\r\n\
                         Content-Length: 2\r\n\r\nok";

const ACL_FILE: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/public/#']
conditions = { methods = ['GET'] }
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/any/#']
";

const OWN_PATHS: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/${principal}/#']
";

/// Of a message, with a byte each.
const PIECES: usize = 256 * 1024;

const CHANNELS: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['publish']
resources  = ['topic:channels/7/messages/#']
";
