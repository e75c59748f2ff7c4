//! What pages of other sites may do: said by the gateway, as browsers ask for it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Write;

use support::http::{exchange, read_head};
use support::peer::{Upstream, tcp};
use support::service::{Service, answer};
use support::{ACL, Files, Mgate, PASSWORD_HASH};

#[test]
fn browsers_that_ask_first_are_answered_without_the_upstream() {
    let gate = Gate::start(CORS, USERS);
    // nobody is asked who it is, nor whether it may
    let said = gate.say("OPTIONS /secret", &preflight(PAGE));
    assert!(said.starts_with("HTTP/1.1 204 ") && said.ends_with("\r\n\r\n"), "{said}");
    for line in [
        "access-control-allow-origin: https://app.example",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: GET, PUT",
        "access-control-allow-headers: authorization, content-type",
        "access-control-max-age: 600",
        "vary: origin",
        "vary: access-control-request-method",
        "vary: access-control-request-headers",
    ] {
        assert!(has(&said, line), "{line}: {said}");
    }
    assert!(gate.service.heard().is_empty());
    assert!(!gate.mgate.log.text().contains("denied"));
}

#[test]
fn other_sites_are_told_nothing() {
    let gate = Gate::start(CORS, "");
    let others =
        ["https://evil.example", "https://app.example.evil.example", "https://APP.example", "null", "*"];
    for origin in others.map(|origin| format!("Origin: {origin}\r\n")) {
        let said = gate.say("OPTIONS /any", &format!("{origin}Access-Control-Request-Method: GET\r\n"));
        assert!(said.starts_with("HTTP/1.1 204 ") && !said.contains("access-control-allow"), "{said}");
        let said = gate.say("GET /any", &origin);
        assert!(said.starts_with("HTTP/1.1 200 ") && !said.contains("access-control-"), "{said}");
        assert!(has(&said, "vary: origin"), "{said}");
    }
    let twice = format!("Origin: {PAGE}\r\nOrigin: https://evil.example\r\n");
    assert!(!gate.say("GET /any", &twice).contains("access-control-"));
    let said = gate.say("GET /any", "");
    assert!(has(&said, "vary: origin") && !said.contains("access-control-"), "{said}");
}

#[test]
fn pages_read_answers_and_what_the_upstream_says_of_that_is_replaced() {
    let gate = Gate::start(CORS, "");
    let said = gate.say("GET /any", &origin(PAGE));
    assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\nok"), "{said}");
    let told: Vec<&str> = said.lines().filter(|line| line.starts_with("access-control-")).collect();
    let mut expected = [
        "access-control-allow-origin: https://app.example",
        "access-control-allow-credentials: true",
        "access-control-expose-headers: etag",
    ];
    expected.sort_unstable();
    let mut told = told;
    told.sort_unstable();
    assert_eq!(told, expected);
    assert!(gate.service.heard()[0].headers.contains("origin: https://app.example"));
}

#[test]
fn pages_read_why_they_were_refused() {
    let gate = Gate::start(CORS, "limits = { messages_per_second = 1 }\n");
    // in one piece: both come within the second
    let first = format!("GET /any HTTP/1.1\r\nHost: a\r\n{}\r\n", origin(PAGE));
    let said =
        exchange(gate.mgate.address(), format!("{first}{}", last("GET /any", &origin(PAGE))).as_bytes());
    let (_, refused) = said.split_once("HTTP/1.1 429 ").unwrap_or_else(|| panic!("{said}"));
    assert!(said.starts_with("HTTP/1.1 200 ") && may_read(refused), "{said}");
    for (line, headers, status) in
        [("GET /any", "Content-Length: 999999\r\n", 413), ("GET /any", "Authorization: Basic !\r\n", 400)]
    {
        let said = gate.say(line, &format!("{}{headers}", origin(PAGE)));
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")) && may_read(&said), "{said}");
    }
    let gate = Gate::start(CORS, "");
    let said = gate.say("GET /secret", &origin(PAGE));
    assert!(said.starts_with("HTTP/1.1 403 ") && may_read(&said), "{said}");
    assert!(
        said.contains("content-type: application/problem+json") && said.contains("not authorized"),
        "{said}"
    );
    let gate = Gate::start(CORS, USERS);
    let said = gate.say("GET /any", &origin(PAGE));
    assert!(said.starts_with("HTTP/1.1 401 ") && may_read(&said), "{said}");
    let said = gate.say("GET /any", &origin("https://evil.example"));
    assert!(said.starts_with("HTTP/1.1 401 ") && !may_read(&said), "{said}");
    assert!(gate.service.heard().is_empty());
}

#[test]
fn upstream_that_is_away_is_told_to_pages_too() {
    let gate = Gate::start(CORS, "");
    let Gate { service, mgate } = gate;
    let address = mgate.address();
    assert!(request(address, "GET /any", "").starts_with("HTTP/1.1 200 "));
    drop(service);
    let said = request(address, "POST /gone", &format!("{}Content-Length: 0\r\n", origin(PAGE)));
    assert!(said.starts_with("HTTP/1.1 502 ") && may_read(&said), "{said}");
}

#[test]
fn answers_after_a_reload_go_by_its_rules() {
    let (upstream, files) = (Upstream::start(), Files::new(&[("acl.toml", EVERYTHING_BUT_ONE)]));
    let config = |origins: &str| {
        format!(
            "[[route]]\nname = 'web'\nlisten = 'http://127.0.0.1:0'\nupstream = 'http://127.0.0.1:{}'\n\
             policies = ['acl']\n[route.http.cors]\norigins = [{origins}]\n{ACL}",
            upstream.port()
        )
    };
    let mgate = Mgate::start(&files, &config(&format!("'{PAGE}', 'https://other.example'")));
    for (origins, is_told) in [("'https://other.example'", false), (&format!("'{PAGE}'"), true)] {
        let mut page = tcp(mgate.address());
        write!(page, "GET /any HTTP/1.1\r\nHost: a\r\n{}\r\n", origin(PAGE)).unwrap();
        let mut behind = upstream.accept_tcp();
        read_head(&mut behind);
        files.write("mgate.toml", &config(origins));
        mgate.reload();
        behind.write_all(&answer("200 OK", "text/plain", "ok")).unwrap();
        let said = read_head(&mut page);
        assert!(said.starts_with("HTTP/1.1 200 ") && may_read(&said) == is_told, "{origins}: {said}");
    }
}

#[test]
fn any_site_is_any_but_none() {
    let gate = Gate::start("origins = ['*']\nheaders = ['*']", "");
    let said = gate.say("GET /any", &origin("https://whoever.example"));
    assert!(has(&said, "access-control-allow-origin: *") && !said.contains("credentials"), "{said}");
    let said = gate.say("OPTIONS /any", &preflight("https://whoever.example"));
    assert!(has(&said, "access-control-allow-headers: *"), "{said}");
    assert!(has(&said, "access-control-allow-methods: GET, HEAD, POST"), "{said}");
    assert!(!gate.say("GET /any", &origin("null")).contains("access-control-"));
    let gate = Gate::start("origins = ['*', 'null']", "");
    assert!(has(&gate.say("GET /any", &origin("null")), "access-control-allow-origin: null"));
}

#[test]
fn options_that_are_no_browsers_question_are_requests() {
    let gate = Gate::start(CORS, "");
    for headers in [origin(PAGE), "Access-Control-Request-Method: GET\r\n".into()] {
        assert!(gate.say("OPTIONS /any", &headers).starts_with("HTTP/1.1 200 "));
        assert!(gate.say("OPTIONS /secret", &headers).starts_with("HTTP/1.1 403 "));
    }
    assert_eq!(gate.service.heard().len(), 2);
}

#[test]
fn paths_are_checked_before_browsers_are_answered() {
    let gate = Gate::start(CORS, "");
    for line in ["OPTIONS /any/../secret", "OPTIONS /any%2f", "OPTIONS *"] {
        let said = gate.say(line, &preflight(PAGE));
        assert!(said.starts_with("HTTP/1.1 400 ") && !said.contains("access-control-"), "{line}: {said}");
    }
}

#[test]
fn messages_are_taken_from_pages() {
    let files = Files::new(&[("acl.toml", CHANNELS)]);
    let config = format!(
        "[[route]]\nname = 'ingest'\nlisten = 'http://127.0.0.1:0'\npolicies = ['acl']\nmirror = 'log'\n\
         [route.http]\nprofile = 'messages'\ncontent_types = []\n[route.http.cors]\n{CORS}\n{ACL}[mirror.log]\ntype = 'log'\n"
    );
    let mgate = Mgate::start(&files, &config);
    let path = "/channels/7/messages";
    let said = request(mgate.address(), &format!("OPTIONS {path}"), &preflight(PAGE));
    assert!(said.starts_with("HTTP/1.1 204 ") && may_read(&said), "{said}");
    let mut body = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{}", origin(PAGE));
    body += "Content-Length: 2\r\n\r\nhi";
    let said = exchange(mgate.address(), body.as_bytes());
    assert!(said.starts_with("HTTP/1.1 202 ") && may_read(&said), "{said}");
}

#[test]
fn route_without_it_leaves_it_to_the_upstream() {
    let gate = Gate::start("", "");
    let said = gate.say("OPTIONS /any", &preflight(PAGE));
    assert!(said.starts_with("HTTP/1.1 200 ") && has(&said, "access-control-allow-origin: *"), "{said}");
    let said = gate.say("GET /secret", &origin(PAGE));
    assert!(said.starts_with("HTTP/1.1 403 ") && !said.contains("access-control-"), "{said}");
    assert_eq!(gate.service.heard().len(), 1);
}

/// A gateway before a service that says of CORS what it should not.
struct Gate {
    mgate: Mgate,
    service: Service,
}

impl Gate {
    /// With these keys of `http.cors`, and these of the route.
    fn start(cors: &str, more: &str) -> Self {
        let files = Files::new(&[("acl.toml", EVERYTHING_BUT_ONE)]);
        files.write("users.toml", &format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n"));
        let service = Service::start(|heard, tcp| {
            let said = String::from_utf8(answer("200 OK", "text/plain", "ok")).unwrap();
            let (status, rest) = said.split_once("\r\n").unwrap();
            assert!(!heard.line.contains("gone"));
            write!(tcp, "{status}\r\n{LOOSE}{rest}")
        });
        let (route, users) = match more {
            USERS => ("authn = ['users']\n", "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n"),
            more => (more, ""),
        };
        let cors = if cors.is_empty() { String::new() } else { format!("[route.http.cors]\n{cors}\n") };
        let config = format!(
            "[[route]]\nname = 'web'\nlisten = 'http://127.0.0.1:0'\nupstream = 'http://{}'\npolicies = ['acl']\n{route}\
             {cors}{ACL}{users}",
            service.address()
        );
        Self { mgate: Mgate::start(&files, &config), service }
    }

    fn say(&self, line: &str, headers: &str) -> String {
        request(self.mgate.address(), line, headers)
    }
}

fn request(address: std::net::SocketAddr, line: &str, headers: &str) -> String {
    exchange(address, last(line, headers).as_bytes())
}

/// A request that ends its connection.
fn last(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n")
}

fn origin(origin: &str) -> String {
    format!("Origin: {origin}\r\n")
}

fn preflight(page: &str) -> String {
    format!(
        "{}Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization\r\n",
        origin(page)
    )
}

fn has(answer: &str, line: &str) -> bool {
    answer.lines().any(|one| one == line)
}

fn may_read(answer: &str) -> bool {
    has(answer, &format!("access-control-allow-origin: {PAGE}"))
}

const PAGE: &str = "https://app.example";

const CORS: &str = "\
origins     = ['https://app.example', 'https://other.example:8443']
methods     = ['GET', 'PUT']
headers     = ['authorization', 'content-type']
expose      = ['etag']
credentials = true
max_age     = '10m'";

/// Stands for a route that knows its clients.
const USERS: &str = "users";

/// What an upstream says that knows nothing of the gateway.
const LOOSE: &str = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
                     Access-Control-Expose-Headers: x-secret\r\nAccess-Control-Allow-Private-Network: true\r\n";

const EVERYTHING_BUT_ONE: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/#']
[[statements]]
effect     = 'deny'
principals = ['*']
actions    = ['request']
resources  = ['path:/secret']
";

const CHANNELS: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['publish']
resources  = ['topic:channels/7/messages']
";
