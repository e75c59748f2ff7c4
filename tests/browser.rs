//! A browser, which keeps the rules of the web by itself: what pages may do at a gateway of another origin.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, thread};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use support::broker::{Broker, node_modules};
use support::process::{Lines, Process};
use support::service::{Service, answer, json as json_answer};
use support::websocket::EchoServer;
use support::{ACL, Files, Mgate, PASSWORD, PASSWORD_HASH, local_address, manifest};
use x509_parser::pem::parse_x509_pem;

#[test]
fn pages_fetch_what_they_may() {
    let (files, site, api) = (files(), Site::start(), api());
    let (upstream, cors) = (api.url(""), site.cors());
    let login = format!("authn = ['users']\n{cors}");
    let config =
        [route("open", "http", &upstream, &cors), route("users", "http", &upstream, &login)].concat();
    let mgate = Mgate::start(&files, &format!("{config}{ACL}{USERS}"));
    let [open, users] = ["open", "users"].map(|route| format!("http://{}", mgate.address_of(route)));
    let login = format!("Basic {}", STANDARD.encode(format!("dev-1:{PASSWORD}")));
    let post = json!({
        "method": "POST", "body": "{}", "credentials": "include",
        "headers": { "authorization": login, "content-type": "application/json" },
    });
    let said = site.visit(
        &site.origin(),
        &files,
        &json!([
            ["fetch", format!("{open}/api/1")],
            ["fetch", format!("{users}/api/2"), post],
            ["fetch", format!("{open}/secret")],
            ["fetch", format!("{users}/api/3")],
            ["fetch", format!("{open}/api/4"), { "method": "DELETE" }],
        ]),
    );
    assert_eq!([&*said[0], &said[1], &said[4]], ["200 ok", "200 ok", FETCH_FAILED]);
    assert!(said[2].starts_with("403 {") && said[2].contains("not authorized"), "{}", said[2]);
    assert!(said[3].starts_with("401 "), "{}", said[3]);
    let heard: Vec<_> = api.heard().into_iter().map(|heard| heard.line).collect();
    assert_eq!(heard, ["GET /api/1", "POST /api/2"], "what browsers ask first is answered by the gateway");
}

#[test]
fn pages_fetch_over_http2() {
    let (files, site, api) = (files(), Site::start(), api());
    let mgate = Mgate::start(&files, &(route("web", "https", &api.url(""), &(site.cors() + TLS)) + ACL));
    let url = |path: &str| format!("https://localhost:{}{path}", mgate.address().port());
    let steps = json!([["fetch", url("/api/1")], ["protocol", url("/api/1")], ["fetch", url("/secret")]]);
    let said = site.visit(&site.origin(), &files, &steps);
    assert_eq!(said[..2], ["200 ok", "h2"]);
    assert!(said[2].starts_with("403 {"), "{}", said[2]);
}

#[test]
fn pages_speak_websocket() {
    let (files, site, server) = (files(), Site::start(), EchoServer::start());
    let upstream = format!("http://127.0.0.1:{}", server.port);
    let origins = site.origins("http");
    let config =
        [route("ws", "http", &upstream, &origins), route("wss", "https", &upstream, &(origins + TLS))]
            .concat();
    let mgate = Mgate::start(&files, &(config + ACL));
    for scheme in ["ws", "wss"] {
        let url = |path: &str| format!("{scheme}://localhost:{}{path}", mgate.address_of(scheme).port());
        let steps = json!([
            ["socket", url("/chat/1"), "hello", "ünï"],
            ["socket", url("/quiet/1"), "hello"],
            ["socket", url("/secret"), "hello"],
        ]);
        let said = site.visit(&site.origin(), &files, &steps);
        assert_eq!(said, ["open hello ünï 4000", "open 1008", "1006"], "{scheme}");
    }
    server.said.wait_for_times("close ", 4);
    assert_eq!((server.said.count("open "), server.said.count("message ")), (4, 4), "{}", server.said.text());
}

#[test]
fn pages_speak_mqtt() {
    let (files, site, broker) = (files(), Site::start(), Broker::mosquitto());
    let upstream = format!("mqtt://{}", broker.address());
    let origins = site.origins("websocket");
    let config =
        [route("ws", "mqtt+ws", &upstream, &origins), route("wss", "mqtt+wss", &upstream, &(origins + TLS))]
            .concat();
    let mgate = Mgate::start(&files, &(config + ACL));
    let url = |scheme: &str| format!("{scheme}://localhost:{}/mqtt", mgate.address_of(scheme).port());
    let steps = json!([
        ["mqtt", url("ws"), 5, "chat/1", "secret"],
        ["mqtt", url("wss"), 5, "chat/2", "secret"],
        ["mqtt", url("wss"), 4, "chat/3", "secret"],
    ]);
    let said = site.visit(&site.origin(), &files, &steps);
    assert_eq!(said, ["1 135 hello", "1 135 hello", "1 128 hello"]);
}

#[test]
fn pages_do_all_of_it_on_one_connection_of_http2() {
    let (files, site) = (files(), Site::start());
    let (api, server, broker) = (api(), EchoServer::start(), Broker::mosquitto());
    let (address, origin) = (local_address(), site.origin());
    let (echo, broker) =
        (format!("http://127.0.0.1:{}", server.port), format!("mqtt://{}", broker.address()));
    let chat = format!("http = {{ path = '/chat', origins = ['{origin}'] }}\n");
    let config = [
        route("api", "https", &api.url(""), &(site.cors() + TLS)),
        route("chat", "https", &echo, &chat),
        route("mqtt", "mqtt+wss", &broker, &site.origins("websocket")),
    ];
    let config = config.concat().replace("127.0.0.1:0'", &format!("{address}'"));
    let packets = ["--log-level", "info,mgate::packet=debug"];
    let mgate = Mgate::start_with(&files, &(config + ACL), &packets);
    let url = |scheme: &str, path: &str| format!("{scheme}://localhost:{}{path}", address.port());
    let steps = json!([
        ["fetch", url("https", "/api/1"), { "credentials": "include" }],
        ["protocol", url("https", "/api/1")],
        ["socket", url("wss", "/chat/1"), "hello"],
        ["mqtt", url("wss", "/mqtt"), 5, "chat/1", "secret"],
        ["mqtt", url("wss", "/other"), 5, "chat/1", "secret"],
    ]);
    let said = site.visit(&origin, &files, &steps);
    assert_eq!(said[..4], ["200 ok", "h2", "open hello 4000", "1 135 hello"]);
    assert!(said[4].starts_with("failed "), "{}", said[4]);
    let peers: BTreeSet<_> = mgate.log.lines().iter().filter_map(|line| peer_of(line)).collect();
    assert_eq!(peers.len(), 1, "{}", mgate.log.text());
}

#[test]
fn pages_of_other_sites_are_kept_out() {
    let (files, site) = (files(), Site::start());
    let (api, server, broker) = (api(), EchoServer::start(), Broker::mosquitto());
    let config = [
        route("api", "http", &api.url(""), &site.cors()),
        route("chat", "http", &format!("http://127.0.0.1:{}", server.port), &site.origins("http")),
        route("mqtt", "mqtt+ws", &format!("mqtt://{}", broker.address()), &site.origins("websocket")),
    ];
    let mgate = Mgate::start(&files, &(config.concat() + ACL));
    let [api, chat, mqtt] = ["api", "chat", "mqtt"].map(|route| mgate.address_of(route));
    let steps = json!([
        ["fetch", format!("http://{api}/api/1")],
        ["socket", format!("ws://{chat}/chat/1"), "hello"],
        ["mqtt", format!("ws://{mqtt}/mqtt"), 5, "chat/1", "secret"],
    ]);
    assert_eq!(site.visit(&site.origin(), &files, &steps), ["200 ok", "open hello 4000", "1 135 hello"]);
    // the same page, as another site
    let other = site.origin().replace("127.0.0.1", "localhost");
    let said = site.visit(&other, &files, &steps);
    assert_eq!(said[..2], [FETCH_FAILED, "1006"]);
    assert!(said[2].starts_with("failed "), "{}", said[2]);
    server.said.wait_for("close ");
    assert_eq!(server.said.count("open "), 1);
}

/// A web site of one page, which does what it is told.
struct Site {
    service: Service,
    steps: Arc<Mutex<Value>>,
    said: Receiver<String>,
}

impl Site {
    fn start() -> Self {
        let steps = Arc::new(Mutex::new(Value::Null));
        let ((say, said), told) = (channel(), Arc::clone(&steps));
        let service = Service::start(move |heard, tcp| {
            let script = |text: &str| answer("200 OK", "text/javascript", text);
            tcp.write_all(&match &*heard.line {
                "GET /" => answer("200 OK", "text/html", PAGE),
                "GET /mqtt.js" => script(&fs::read_to_string(node_modules().join("mqtt/dist/mqtt.min.js"))?),
                "GET /page.js" => script(&fs::read_to_string(manifest("tests/support/browser_page.js"))?),
                "GET /steps" => json_answer(&told.lock().unwrap().to_string()),
                "POST /said" => {
                    // nobody listens any more when a test has failed
                    let _ = say.send(heard.body.clone());
                    json_answer("{}")
                }
                _ => answer("404 Not Found", "text/plain", ""),
            })
        });
        Self { service, steps, said }
    }

    fn origin(&self) -> String {
        self.service.url("")
    }

    /// The keys of a route by which the page may read its answers.
    fn cors(&self) -> String {
        let origin = self.origin();
        format!(
            "http = {{ cors = {{ origins = ['{origin}'], headers = ['authorization', 'content-type'], \
             credentials = true }} }}\n"
        )
    }

    /// The keys of a route by which the page may open WebSockets.
    fn origins(&self, table: &str) -> String {
        format!("{table} = {{ origins = ['{}'] }}\n", self.origin())
    }

    /// What the page says of each step, in a browser that trusts the certificate `localhost.pem`.
    fn visit(&self, origin: &str, files: &Files, steps: &Value) -> Vec<String> {
        self.steps.lock().unwrap().clone_from(steps);
        let browser = Browser::start(origin, files);
        let mut lines = Vec::new();
        while lines.len() < steps.as_array().unwrap().len() {
            let line = self.said.recv_timeout(BROWSER_PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("only {lines:?} was said: {}", browser.log.text()));
            lines.push(line);
        }
        lines
    }
}

/// Chromium without a screen; gone when dropped, with all its processes.
struct Browser {
    process: Process,
    log: Lines,
    _home: Files,
}

impl Browser {
    fn start(url: &str, files: &Files) -> Self {
        let home = Files::new(&[]);
        let mut command = Command::new("chromium-headless-shell");
        command.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]);
        command.args(["--disable-background-networking", "--disable-breakpad"]);
        command.arg(format!("--user-data-dir={}", home.path("profile").display()));
        command.arg(format!("--ignore-certificate-errors-spki-list={}", key_hash(files)));
        command.arg(url).env("HOME", home.path("")).process_group(0);
        let (process, log) = Process::start_with_stderr(&mut command);
        Self { process, log, _home: home }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        // an error says that it has ended by itself
        let _ = kill_process_group(group, Signal::KILL);
        if !thread::panicking() {
            self.process.wait();
        }
    }
}

/// What a browser calls the key of `localhost.pem`.
fn key_hash(files: &Files) -> String {
    let (_, block) = parse_x509_pem(&fs::read(files.path("localhost.pem")).unwrap()).unwrap();
    STANDARD.encode(digest(&SHA256, block.parse_x509().unwrap().public_key().raw))
}

/// Whose line of the log it is.
fn peer_of(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["peer"].as_str().map(str::to_owned)
}

/// A service that lets pages see how its answers came.
fn api() -> Service {
    Service::saying("HTTP/1.1 200 OK\r\nTiming-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok")
}

fn route(name: &str, scheme: &str, upstream: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = '{name}'\nlisten = '{scheme}://127.0.0.1:0'\nupstream = '{upstream}'\n\
         policies = ['acl']\n{more}"
    )
}

fn files() -> Files {
    let files = Files::new(&[("acl.toml", ACL_FILE)]).with_certificates();
    files.write("users.toml", &format!("[users.dev-1]\npassword = '{PASSWORD_HASH}'\n"));
    files
}

/// For a browser to start and take a step, on a machine that does much else.
const BROWSER_PATIENCE: Duration = Duration::from_secs(60);

/// What browsers say when a page may not know how it went.
const FETCH_FAILED: &str = "failed Failed to fetch";

const PAGE: &str = "<!doctype html><script src=mqtt.js></script><script src=page.js></script>";

const TLS: &str = "tls = { cert = 'localhost.pem', key = 'localhost.key' }\n";

const USERS: &str = "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n";

const ACL_FILE: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/api/#', 'path:/chat/#', 'path:/quiet/#']
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['connect', 'publish', 'subscribe', 'deliver']
resources  = ['client_id:*', 'topic:chat/#']
";
