//! Routes of HTTP that share one listener: which of them a request is for, and what each makes of its paths.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use support::http::{Nginx, curl, exchange, expect, read_head, run_curl};
use support::peer::{Upstream, tcp};
use support::service::{Service, answer};
use support::{Files, Mgate, PASSWORD, PASSWORD_HASH, mgate};

#[test]
fn requests_go_where_host_and_longest_path_lead() {
    let gate = Shared::start(&[
        ("root", "", ""),
        ("api", "path = '/api'", ""),
        ("devices", "path = '/api/devices'", ""),
        ("named", "hosts = ['Named.example', '[::1]']\npath = '/api'", ""),
    ]);
    for (target, host, expected) in [
        ("/", "a", "root"),
        ("/api", "a", "api"),
        ("/api/", "a", "api"),
        ("/api/x?y=/api/devices", "a", "api"),
        ("/api/devices", "a", "devices"),
        ("/api/devices/7", "a", "devices"),
        ("/api/devicesX", "a", "api"),
        ("/%61pi/device%73/7", "a", "devices"),
        ("/API/devices", "a", "root"),
        ("/apis", "a", "root"),
        ("/other;x=1/api", "a", "root"),
        ("/api/devices/7;x=1", "a", "devices"),
        ("/x/api", "a", "root"),
        ("/api/devices", "named.example", "named"),
        ("/api/devices", "NAMED.Example:8080", "named"),
        ("/api/devices", "named.example.", "named"),
        ("/api/devices", "named.example.:80", "named"),
        ("/api/devices", "[::1]:80", "named"),
        ("/api/devices", "named.example.evil", "devices"),
        ("/other", "named.example", "root"),
        ("http://named.example/api", "named.example", "named"),
    ] {
        let said = gate.ask(target, host);
        assert!(
            said.starts_with("HTTP/1.1 200 ") && said.ends_with(&format!("\r\n\r\n{expected}")),
            "{target} {host}: {said}"
        );
    }
}

#[test]
fn paths_that_could_lead_elsewhere_are_refused() {
    let gate = Shared::start(&[
        ("root", "", ""),
        ("api", "path = '/api'\nstrip_path = true", ""),
        ("named", "hosts = ['n']", ""),
    ]);
    for (target, host) in [
        ("/api/../admin", "a"),
        ("/api/..", "a"),
        ("/api/%2e%2e/admin", "a"),
        ("/api%2f..", "a"),
        ("/api%2fx", "a"),
        ("/api/%2Fx", "a"),
        ("//api", "a"),
        ("/api//evil.example", "a"),
        ("/api/..;/admin", "a"),
        ("/api;x/y", "a"),
        ("/;x/api", "a"),
        ("/%3b/api", "a"),
        ("/api\\x", "a"),
        ("/api/%5c..", "a"),
        ("/api/%00", "a"),
        ("/api/%", "a"),
        ("*", "a"),
        ("http://n/api", "a"),
        ("http://a/", "n"),
        ("/", "a b"),
        ("/", "n,a"),
        ("/", "x@n"),
    ] {
        let said = gate.ask(target, host);
        assert!(said.starts_with("HTTP/1.1 400 "), "{target} {host}: {said}");
    }
    let twice = exchange(gate.address, b"GET / HTTP/1.1\r\nHost: a\r\nHost: n\r\nConnection: close\r\n\r\n");
    assert!(twice.starts_with("HTTP/1.1 400 "), "{twice}");
    assert!(gate.services.iter().all(|service| service.heard().is_empty()));
}

#[test]
fn unknown_host_is_told_from_unknown_path() {
    let gate =
        Shared::start(&[("one", "hosts = ['a']\npath = '/api'", ""), ("other", "hosts = ['b', 'c']", "")]);
    for (target, host, status) in [
        ("/api", "a", 200),
        ("/x", "a", 404),
        ("/", "b", 200),
        ("/", "c", 200),
        ("/api", "d", 421),
        ("/", "a.b", 421),
    ] {
        let said = gate.ask(target, host);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {host}: {said}");
    }
}

#[test]
fn http2_goes_by_its_authority() {
    let gate = Shared::over_tls(&[("root", "", ""), ("named", "hosts = ['named.example']", "")]);
    let ca = gate.files.path("ca.pem");
    let get = |arguments: &[&str]| {
        let port = gate.address.port();
        let to = format!("localhost:{port}:{}:{port}", gate.address.ip());
        let url = format!("https://localhost:{port}/");
        let fixed =
            ["--http2", "-w", " %{http_version}", "--cacert", ca.to_str().unwrap(), "--connect-to", &to];
        run_curl(&[&fixed[..], arguments, &[url.as_str()]].concat())
    };
    assert_eq!(get(&[]), "root 2");
    assert_eq!(get(&["-H", "Host: Named.Example:1"]), "named 2");
    // curl says the same in both places
    let status = |host: Option<&str>| gate.http2_status("named.example", host);
    assert_eq!(status(None), OK);
    assert_eq!(status(Some("named.example")), OK);
    assert_eq!(status(Some("a")), BAD_REQUEST);
    assert_eq!(status(Some("")), BAD_REQUEST);
    let heard: Vec<usize> = gate.services.iter().map(|service| service.heard().len()).collect();
    assert_eq!(heard, [1, 3]);
}

#[test]
fn each_request_is_judged_by_its_own_route() {
    let tables = format!("{}{}", users("a"), users("b"));
    let gate = Shared::with(
        &[
            ("a", "path = '/a'", "authn = ['a']\npolicies = ['known']"),
            ("b", "path = '/b'", "authn = ['b']\npolicies = ['known']"),
            ("slow", "path = '/slow'", "policies = ['all']\nlimits = { messages_per_second = 1 }"),
            ("open", "", "policies = ['all']"),
        ],
        &tables,
    );
    let mut client = tcp(gate.address);
    let login = "Authorization: Basic ZGV2LTE6Y29ycmVjdCBob3JzZQ==\r\n";
    for (path, header, status) in [
        ("/a/x", login, 200),
        // who is known to one route is a stranger to the other
        ("/b/x", login, 401),
        ("/a/x", login, 200),
        ("/a/x", "", 401),
        ("/x", "", 200),
    ] {
        assert_eq!(ask_on(&mut client, path, header), status, "{path} {header}");
    }
    // in one piece: both come within the second
    let requests = ["/slow", "/slow", "/x"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.write_all(requests.concat().as_bytes()).unwrap();
    assert_eq!([(); 3].map(|()| read_status(&mut client)), [200, 429, 200]);
    assert_eq!(gate.services[1].heard().len(), 0);
    // nor does one route pass on what is meant for the gateway, where another one does
    assert!(!gate.services[0].heard()[0].headers.contains("authorization"));
    assert_eq!(ask_on(&mut client, "/x", login), 200);
    assert!(gate.services[3].heard().last().unwrap().headers.contains("authorization"));
}

#[test]
fn streams_of_one_connection_go_to_several_routes() {
    let gate = Shared::over_tls(&[("root", "", ""), ("api", "path = '/api'", "")]);
    let port = gate.address.port();
    let (ca, to) = (gate.files.path("ca.pem"), format!("localhost:{port}:{}:{port}", gate.address.ip()));
    let urls = ["/", "/api/x", "/y", "/api"].map(|path| format!("https://localhost:{port}{path}"));
    let fixed =
        ["--http2", "-w", " %{num_connects}\n", "--cacert", ca.to_str().unwrap(), "--connect-to", &to];
    let said = run_curl(&[&fixed[..], &urls.each_ref().map(String::as_str)].concat());
    assert_eq!(said, "root 1\napi 0\nroot 0\napi 0\n");
}

#[test]
fn what_is_authorized_is_what_is_forwarded_below_another_path() {
    let gate = Shared::start(&[
        ("stripped", "path = '/api/devices'\nstrip_path = true", ""),
        ("moved", "path = '/moved'\nstrip_path = true\nupstream_path = '/v1/x'", ""),
        ("put_before", "path = '/before'\nupstream_path = '/v2'", ""),
        ("kept", "path = '/kept'", ""),
    ]);
    let prefix = "X-Forwarded-Prefix: /lie\r\nX_Forwarded_Prefix: /lie\r\n";
    for (route, target, expected, told) in [
        (0, "/api/devices", "/", "/api/devices"),
        (0, "/api/devices/", "/", "/api/devices"),
        (0, "/%61pi/devices/a%20b/%C3%BC?x=%2f&y", "/a%20b/%C3%BC?x=%2f&y", "/api/devices"),
        (0, "/api/devices/api/devices/1", "/api/devices/1", "/api/devices"),
        (0, "/api/devices?x", "/?x", "/api/devices"),
        (1, "/moved/%61/", "/v1/x/%61/", "/moved"),
        (1, "/moved", "/v1/x", "/moved"),
        (2, "/before/a", "/v2/before/a", ""),
        (3, "/kept/a", "/kept/a", ""),
    ] {
        let said = gate.request(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{prefix}"));
        assert!(said.starts_with("HTTP/1.1 200 "), "{target}: {said}");
        let heard = gate.services[route].heard().pop().unwrap();
        assert_eq!(heard.line, format!("GET {expected}"), "{target}");
        let found = heard.headers.lines().find_map(|line| line.strip_prefix("x-forwarded-prefix: "));
        assert_eq!(found.unwrap_or_default(), told, "{target}");
        assert!(!heard.headers.contains("lie"), "{}", heard.headers);
    }
}

#[test]
fn policies_see_the_path_that_clients_send() {
    let files = Files::new(&[("acl.toml", &acl("/api/public/#"))]);
    let service = Service::saying(answer("200 OK", "text/plain", "ok"));
    let route = Route { name: "a", http: "path = '/api'\nstrip_path = true", more: "policies = ['acl']" };
    let config =
        route.text(free_address(), service.address()) + "[policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n";
    let mgate = Mgate::start(&files, &config);
    let url = |path: &str| format!("http://{}{path}", mgate.address());
    assert_eq!(curl(&[&url("/api/public/a")]).0, "200");
    for denied in ["/api/secret", "/api/api/public/a", "/api"] {
        assert_eq!(curl(&[&url(denied)]).0, "403", "{denied}");
    }
    assert_eq!(curl(&[&url("/public/a")]).0, "404");
    assert_eq!(service.heard().len(), 1);
    mgate.log.wait_for("GET /api/secret");
}

#[test]
fn web_server_is_served_below_a_path() {
    let (nginx, files) = (Nginx::start(), Files::new(&[("acl.toml", &acl("/#"))]));
    let route = Route { name: "a", http: "path = '/files'\nstrip_path = true", more: "policies = ['acl']" };
    let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, nginx.port));
    let config = route.text(free_address(), upstream) + "[policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n";
    let mgate = Mgate::start(&files, &config);
    let url = |path: &str| format!("http://{}{path}", mgate.address());
    assert_eq!(curl(&[&url("/files/public/a.txt")]), ("200".into(), "hello\n".into()));
    assert_eq!(curl(&[&url("/files/files/public/a.txt")]).0, "404");
    assert_eq!(curl(&["--path-as-is", &url("/files/public/../secret.txt")]).0, "400");
}

#[test]
fn answers_lead_where_clients_find_them() {
    let upstream = |location: &str| {
        let location = location.to_owned();
        Service::start(move |_, tcp| {
            let head =
                format!("HTTP/1.1 201 Created\r\nLocation: {location}\r\nContent-Location: {location}\r\n");
            write!(tcp, "{head}Set-Cookie: a=b; Path=/v1\r\nContent-Length: 0\r\n\r\n")
        })
    };
    for (location, expected) in [
        ("/v1/devices/7?x#y", "/api/devices/7?x#y"),
        ("http://gate.example:80/v1/devices", "http://gate.example:80/api/devices"),
        ("/elsewhere", "/elsewhere"),
        ("https://other.example/v1/x", "https://other.example/v1/x"),
        ("//other.example/v1/x", "//other.example/v1/x"),
    ] {
        let (service, files) = (upstream(location), Files::new(&[("acl.toml", &acl("/#"))]));
        let http = "path = '/api'\nstrip_path = true\nupstream_path = '/v1'";
        let route = Route { name: "a", http, more: "policies = ['acl']" };
        let config = route.text(free_address(), service.address())
            + "[policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n";
        let mgate = Mgate::start(&files, &config);
        let request = b"POST /api/devices HTTP/1.1\r\nHost: gate.example:80\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let said = exchange(mgate.address(), request);
        for name in ["location", "content-location"] {
            assert!(said.contains(&format!("\r\n{name}: {expected}\r\n")), "{location}: {said}");
        }
        assert!(said.contains("set-cookie: a=b; Path=/v1\r\n"), "{said}");
    }
}

#[test]
fn messages_are_taken_below_a_path() {
    let files = Files::new(&[("acl.toml", CHANNELS)]);
    let address = free_address();
    let config = format!(
        "[[route]]\nname = 'ingest'\nlisten = 'http://{address}'\npolicies = ['acl']\nmirror = 'log'\n\
         http = {{ profile = 'messages', content_types = [], path = '/http', strip_path = true }}\n\
         [policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n[mirror.log]\ntype = 'log'\n"
    );
    let mgate = Mgate::start(&files, &config);
    let post = |path: &str| curl(&["-d", "hi", &format!("http://{address}{path}")]).0;
    assert_eq!(post("/http/channels/7/messages/a"), "202");
    assert_eq!(post("/http/channels/8/messages"), "403");
    assert_eq!(post("/channels/7/messages"), "404");
    assert_eq!(post("/http"), "404");
    mgate.log.wait_for("channels/7/messages/a");
}

#[test]
fn rights_that_are_withdrawn_from_one_route_leave_others_alone() {
    let (files, upstream) =
        (Files::new(&[("one.toml", &acl("/#")), ("other.toml", &acl("/#"))]), Upstream::start());
    let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, upstream.port()));
    let address = free_address();
    let mut config = String::new();
    for (name, http, policy) in [("one", "path = '/one'", "one"), ("other", "path = '/other'", "other")] {
        let more = format!("policies = ['{policy}']");
        config += &Route { name, http, more: &more }.text(address, behind);
        write!(config, "[policy.{policy}]\ntype = 'static'\nfile = '{policy}.toml'\n").unwrap();
    }
    let mgate = Mgate::start(&files, &config);
    let begin = |path: &str| {
        let mut client = tcp(address);
        write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut behind = upstream.accept_tcp();
        read_head(&mut behind);
        behind.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").unwrap();
        assert!(read_head(&mut client).starts_with("HTTP/1.1 200 "));
        expect(&mut client, "half");
        (client, behind)
    };
    let ((mut ends, _behind_one), (mut goes_on, mut behind_other)) = (begin("/one"), begin("/other"));
    files.write("one.toml", "version = 1\nstatements = []\n");
    mgate.reload();
    let mut rest = Vec::new();
    ends.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
    behind_other.write_all(b"done").unwrap();
    expect(&mut goes_on, "done");
    assert_eq!(ask_on(&mut tcp(address), "/one", ""), 403);
}

#[test]
fn reload_moves_paths_at_once_and_who_is_gone_has_what_nobody_takes() {
    let mut gate = Shared::start(&[("a", "path = '/a'", ""), ("b", "path = '/b'", ""), ("c", "", "")]);
    let mut client = tcp(gate.address);
    assert_eq!(gate.who(&mut client, &["/a", "/b", "/x"]), ["a", "b", "c"]);
    gate.reload(&[("a", "path = '/b'", ""), ("b", "path = '/a'", ""), ("c", "", "")]);
    assert_eq!(gate.who(&mut client, &["/a", "/b", "/x"]), ["b", "a", "c"]);
    // one that is gone stays until the next start, for what nobody else takes
    gate.reload(&[("b", "path = '/a'", ""), ("c", "path = '/c'", "")]);
    assert_eq!(gate.who(&mut client, &["/a", "/b", "/c"]), ["b", "a", "c"]);
    gate.reload(&[("b", "path = '/a'", ""), ("c", "", "")]);
    assert_eq!(gate.who(&mut client, &["/a", "/b", "/x"]), ["b", "c", "c"]);
    gate.mgate.log.wait_for("route.a, which goes on with its old rules");
}

#[test]
fn reload_takes_in_new_routes_of_a_port_that_serves() {
    let mut gate = Shared::start(&[("a", "path = '/a'", ""), ("b", "path = '/b'", ""), ("c", "", "")]);
    gate.reload(&[("c", "", "")]);
    gate.mgate.log.wait_for("route.a, which goes on with its old rules");
    // on connections that were there before, too
    let mut client = tcp(gate.address);
    assert_eq!(gate.who(&mut client, &["/d", "/d/e"]), ["c", "c"]);
    for name in ["d", "e"] {
        gate.services.push(Service::saying(answer("200 OK", "text/plain", name)));
    }
    let lines = gate.mgate.log.text().lines().count();
    gate.reload(&[("e", "path = '/d/e'", ""), ("d", "path = '/d'", ""), ("c", "", "")]);
    assert_eq!(gate.who(&mut client, &["/d", "/d/e", "/x", "/a"]), ["d", "e", "c", "c"]);
    gate.reload(&[("d", "path = '/d'", ""), ("c", "path = '/c'", ""), ("a", "path = '/e'", "")]);
    assert_eq!(gate.who(&mut client, &["/d", "/d/e", "/c", "/e"]), ["d", "d", "c", "a"]);
    gate.mgate.log.wait_for("route.e, which goes on with its old rules");
    let log = gate.mgate.log.text();
    let named = |what: &str| log.lines().skip(lines).any(|line| line.contains(what));
    assert!(!named("which is new") && !named("route.d") && !named("route.c,"), "{log}");
}

#[test]
fn new_route_is_judged_by_its_own_policies_after_a_reload() {
    let gate = Shared::start(&[("a", "path = '/a'", "")]);
    let mut client = tcp(gate.address);
    assert_eq!(ask_on(&mut client, "/a/admin", ""), 200);
    let admin = Route { name: "admin", http: "path = '/a/admin'", more: "policies = ['known']" };
    let admin = admin.text(gate.address, gate.services[0].address());
    gate.files.write("mgate.toml", &(admin + &gate.config));
    gate.mgate.reload();
    assert_eq!(ask_on(&mut client, "/a/admin", ""), 403);
    assert_eq!(ask_on(&mut client, "/a/x", ""), 200);
    // withdrawn rights, and another reload, reach it as any other
    gate.files.write("known.toml", &acl("/a/admin/open"));
    gate.mgate.reload();
    assert_eq!(ask_on(&mut client, "/a/admin/open", ""), 200);
    assert_eq!(ask_on(&mut client, "/a/admin", ""), 403);
}

#[test]
fn route_that_moves_to_a_port_that_serves_is_there_at_once() {
    let (files, elsewhere) = (Files::new(&[("all.toml", &acl("/#"))]), free_address());
    let [one, other] = ["one", "other"].map(|name| Service::saying(answer("200 OK", "text/plain", name)));
    let here = free_address();
    let config = |address: SocketAddr, http: &str| {
        let more = "policies = ['all']";
        let stays = Route { name: "stays", http: "", more }.text(here, one.address());
        let moves = Route { name: "moves", http, more }.text(address, other.address());
        format!("{stays}{moves}[policy.all]\ntype = 'static'\nfile = 'all.toml'\n")
    };
    let mgate = Mgate::start(&files, &config(elsewhere, ""));
    let said = |address: SocketAddr| curl(&[&format!("http://{address}/moved")]).1;
    assert_eq!((said(here), said(elsewhere)), ("one".into(), "other".into()));
    files.write("mgate.toml", &config(here, "path = '/moved'"));
    mgate.reload();
    assert_eq!((said(here), said(elsewhere)), ("other".into(), "other".into()));
    mgate.log.wait_for("route.moves.listen");
    files.write("mgate.toml", &config(elsewhere, ""));
    mgate.reload();
    assert_eq!((said(here), said(elsewhere)), ("one".into(), "other".into()));
}

#[test]
fn port_that_all_routes_leave_is_spoken_to_as_before() {
    let mut gate = Shared::with(&[("a", "", "policies = ['all']\nlimits = { connections = 2 }")], "");
    gate.files = gate.files.with_certificates();
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key' }\nlimits = { connections = 1 }";
    let moved =
        gate.config.replace(&format!("http://{}", gate.address), &format!("https://{}", free_address()));
    gate.files.write("mgate.toml", &moved.replace("limits = { connections = 2 }", tls));
    gate.mgate.reload();
    gate.mgate.log.wait_for("route.a.listen");
    let mut clients = [tcp(gate.address), tcp(gate.address)];
    for client in &mut clients {
        assert_eq!(ask_on(client, "/x", ""), 200);
    }
}

#[test]
fn requests_on_their_way_end_where_they_would_lead_elsewhere() {
    let (files, upstream) = (Files::new(&[("acl.toml", &acl("/#"))]), Upstream::start());
    let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, upstream.port()));
    let address = free_address();
    let config = |http: &str| {
        let one = Route { name: "one", http, more: "policies = ['acl']" }.text(address, behind);
        let other = Route { name: "other", http: "", more: "policies = ['acl']" }.text(address, behind);
        format!("{one}{other}[policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n")
    };
    let mgate = Mgate::start(&files, &config("path = '/one'"));
    let begin = || {
        let mut client = tcp(address);
        client.write_all(b"GET /one HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut behind = upstream.accept_tcp();
        read_head(&mut behind);
        (client, behind)
    };
    let reload = |http: &str| {
        files.write("mgate.toml", &config(http));
        mgate.reload();
    };
    let ((mut stays, mut behind_it), (mut leaves, _behind)) = (begin(), begin());
    reload("path = '/one'\nhosts = ['a', 'b']");
    behind_it.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
    assert!(read_head(&mut stays).starts_with("HTTP/1.1 200 "));
    reload("path = '/one'\nhosts = ['b']");
    assert!(read_head(&mut leaves).starts_with("HTTP/1.1 503 "));
}

#[test]
fn operators_are_shown_each_route() {
    let mut gate = Shared::start(&[("a", "hosts = ['x.example']\npath = '/a'", ""), ("b", "", "")]);
    let config = gate.config.clone() + "[admin]\nlisten = 'http://127.0.0.1:0'\n";
    gate.mgate.terminate();
    assert!(gate.mgate.wait().success());
    let serving = Mgate::start(&gate.files, &config);
    let (status, health) = serving.admin().get("/healthz");
    assert_eq!(status, 200);
    let names: Vec<_> = health["routes"].as_array().unwrap().iter().map(|route| &route["name"]).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(health["routes"][0]["address"], gate.address.to_string());
    assert_eq!(serving.admin().get("/readyz").0, 200);
    let file = gate.files.path("mgate.toml");
    let run = |arguments: &[&str]| mgate(arguments).arg(&file).output().unwrap();
    let shown = String::from_utf8(run(&["check"]).stdout).unwrap();
    assert!(shown.contains(&format!("http://{}/a (x.example)", gate.address)), "{shown}");
    let shown: Value = serde_json::from_slice(&run(&["check", "--json"]).stdout).unwrap();
    assert_eq!(
        (&shown["routes"][0]["path"], &shown["routes"][0]["hosts"][0]),
        (&"/a".into(), &"x.example".into())
    );
    let explain = |path: &str| {
        run(&[
            "policy", "explain", "--route", "a", "--action", "request", "--method", "GET", "--path", path,
            "--config",
        ])
    };
    assert!(explain("/a/x").status.success());
    let refused = String::from_utf8(explain("/b").stderr).unwrap();
    assert!(refused.contains("no request for /b comes to route a, which serves /a"), "{refused}");
}

/// A gateway with routes that share a listener, each before a service of its own that says the route's name.
struct Shared {
    mgate: Mgate,
    files: Files,
    address: SocketAddr,
    services: Vec<Service>,
    config: String,
}

struct Route<'a> {
    name: &'a str,
    /// Keys of `http`.
    http: &'a str,
    /// Keys of the route.
    more: &'a str,
}

impl Shared {
    /// Routes with their keys of `http` and their own.
    fn start(routes: &[(&str, &str, &str)]) -> Self {
        let routes: Vec<_> =
            routes.iter().map(|(name, http, _)| (*name, *http, "policies = ['all']")).collect();
        Self::with(&routes, "")
    }

    fn with(routes: &[(&str, &str, &str)], tables: &str) -> Self {
        Self::begin(Files::new(&[]), routes, tables)
    }

    fn over_tls(routes: &[(&str, &str, &str)]) -> Self {
        let files = Files::new(&[]).with_certificates();
        let tls = "policies = ['all']\ntls = { cert = 'localhost.pem', key = 'localhost.key' }";
        // the first says it for all
        let more = |index: usize| if index == 0 { tls } else { "policies = ['all']" };
        let routes: Vec<_> =
            routes.iter().enumerate().map(|(index, (name, http, _))| (*name, *http, more(index))).collect();
        Self::begin(files, &routes, "")
    }

    fn begin(files: Files, routes: &[(&str, &str, &str)], tables: &str) -> Self {
        files.write("all.toml", &acl("/#"));
        files.write("known.toml", &acl("/#").replace("'*'", "'client:dev-1'"));
        files.write("a-users.toml", &format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n"));
        files.write("b-users.toml", &format!("[users.dev-2]\npassword = '{PASSWORD_HASH}'\n"));
        let address = free_address();
        let say = |name: &str| Service::saying(answer("200 OK", "text/plain", name));
        let services: Vec<_> = routes.iter().map(|(name, ..)| say(name)).collect();
        let mut config = String::new();
        for ((name, http, more), service) in routes.iter().zip(&services) {
            config += &Route { name, http, more }.text(address, service.address());
        }
        if files.path("ca.pem").exists() {
            config = config.replace("listen = 'http:", "listen = 'https:");
        }
        config += tables;
        for policy in ["all", "known"] {
            write!(config, "[policy.{policy}]\ntype = 'static'\nfile = '{policy}.toml'\n").unwrap();
        }
        let mgate = Mgate::start(&files, &config);
        Self { mgate, files, address, services, config }
    }

    /// Takes over other keys of `http`; the services stay with the names that they had first.
    fn reload(&mut self, routes: &[(&str, &str, &str)]) {
        let mut config = String::new();
        for (name, http, _) in routes {
            let number = usize::from(name.as_bytes()[0] - b'a');
            let more = "policies = ['all']";
            config += &Route { name, http, more }.text(self.address, self.services[number].address());
        }
        config += "[policy.all]\ntype = 'static'\nfile = 'all.toml'\n";
        self.files.write("mgate.toml", &config);
        self.mgate.reload();
    }

    /// Who answers each of the paths on a connection that stays.
    fn who(&self, client: &mut TcpStream, paths: &[&str]) -> Vec<String> {
        let who = |path: &&str| {
            write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            assert!(read_head(client).starts_with("HTTP/1.1 200 "), "{path}");
            let mut name = [0; 1];
            client.read_exact(&mut name).unwrap();
            String::from_utf8(name.into()).unwrap()
        };
        paths.iter().map(who).collect()
    }

    fn ask(&self, target: &str, host: &str) -> String {
        self.request(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n"))
    }

    fn request(&self, head: &str) -> String {
        exchange(self.address, format!("{head}Connection: close\r\n\r\n").as_bytes())
    }

    /// What HPACK has for the status of a request over HTTP/2 with this `:authority`, and this `Host` beside it.
    fn http2_status(&self, authority: &str, host: Option<&str>) -> u8 {
        let mut stream = self.tls();
        // :method GET, :scheme https, :path /
        let mut block = vec![0x82, 0x87, 0x84];
        for (name, value) in [(1, Some(authority)), (38, host)] {
            // a literal with an indexed name, RFC 7541 §6.2.2
            if let Some(value) = value {
                block.extend(if name < 15 { vec![name] } else { vec![15, name - 15] });
                block.push(u8::try_from(value.len()).unwrap());
                block.extend(value.as_bytes());
            }
        }
        let length = u8::try_from(block.len()).unwrap();
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let headers = [0, 0, length, 1, 5, 0, 0, 0, 1];
        let frames = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &headers, &block].concat();
        stream.write_all(&frames).unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut body).unwrap();
            if head[3] == 1 {
                return body[0];
            }
        }
    }

    fn tls(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.files.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".into()];
        let name = "localhost".try_into().unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp(self.address))
    }
}

impl Route<'_> {
    fn text(&self, address: SocketAddr, upstream: SocketAddr) -> String {
        let Self { name, http, more } = self;
        format!(
            "[[route]]\nname = '{name}'\nlisten = 'http://{address}'\nupstream = 'http://{upstream}'\n{more}\n\
             [route.http]\n{http}\n"
        )
    }
}

/// The status of one request on a connection that stays.
fn ask_on(client: &mut TcpStream, path: &str, header: &str) -> u16 {
    write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\n{header}\r\n").unwrap();
    read_status(client)
}

/// The status of the next answer, which is read whole.
fn read_status(client: &mut TcpStream) -> u16 {
    let head = read_head(client);
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    client.read_exact(&mut body).unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// An address that nobody else uses: others of these tests listen, and connect from, 127.0.0.1.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap()
}

fn users(name: &str) -> String {
    assert_eq!(PASSWORD, "correct horse", "the credentials in these tests are others");
    format!("[authn.{name}]\ntype = 'password'\nfile = '{name}-users.toml'\n")
}

fn acl(path: &str) -> String {
    format!(
        "version = 1\n[[statements]]\neffect = 'allow'\nprincipals = ['*']\nactions = ['request']\n\
         resources = ['path:{path}']\n"
    )
}

/// `:status: 200` and `400` in the static table. RFC 7541 appendix A
const OK: u8 = 0x88;
const BAD_REQUEST: u8 = 0x8c;

const CHANNELS: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['publish']
resources  = ['topic:channels/7/messages/#']
";
