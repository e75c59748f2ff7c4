//! Who a client is, said by services, and shown with the request for a WebSocket.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::io::Write;
use std::net::TcpStream;

use mgate::config::{Config, Environment};
use mgate_policies::Now;
use serde_json::{Value, json};
use support::broker::{Broker, node};
use support::grpc::{GrpcService, Reply};
use support::issuer::SigningKey;
use support::packets::{BOTH, Connect, Version, connect, publish};
use support::peer::Peer;
use support::process::Process;
use support::service::{Heard, Service, answer, json as json_answer};
use support::websocket::WebSocket;
use support::{ALLOW_ALL, Files, Mgate, manifest};

#[test]
fn active_token_gets_in_and_its_scopes_say_what_it_may() {
    let (server, broker) = (Service::start(authorization_server), Broker::mosquitto());
    let (_files, mgate) = start(broker.port, &introspection(&server), SCOPES);
    for version in BOTH {
        let mut client = Peer::connected_with(mgate.address(), &with_token(version, "good"));
        client.subscribe(version, &[("a/+/c", 0)]);
        assert_eq!(client.subscribe(version, &[("a/#", 0)]), [denied_filter(version)]);
        client.send(&publish(version, "other", "not mine"));
        let own = publish(version, "a/b/c", "mine");
        client.send(&own);
        client.expect(&own);
    }
    assert_eq!(server.heard().len(), 1, "the second time it is remembered");
    let heard = &server.heard()[0];
    // RFC 6749 §2.3.1: mgate:s%3A
    assert!(heard.headers.contains("authorization: basic bwdhdgu6cyuzqq==\r\n"), "{}", heard.headers);
    assert_silent(&mgate, &["good", "s:", "bWdhdGU6cyUzQQ"]);
}

#[test]
fn tokens_of_a_certified_provider_are_judged_by_introspection_and_by_its_keys() {
    let (_provider, tokens) = provider();
    let issued = |name: &str| tokens[name].as_str().unwrap();
    let (issuer, broker) = (issued("issuer"), Broker::mosquitto());
    let introspection = format!(
        "type = 'introspection'\nurl = '{issuer}/token/introspection'\nissuer = '{issuer}'\n\
         client_id = 'mgate'\nclient_secret_file = 'special'\nid_claim = 'client_id'\n"
    );
    let jwt = format!(
        "type = 'jwt'\nissuer = '{issuer}'\naudience = 'mgate'\nalgorithms = ['RS256']\n\
         jwks_url = '{issuer}/jwks'\nid_claim = 'client_id'\n"
    );
    for (authn, good, bad, why) in [
        (introspection, issued("opaque"), issued("revoked"), "the token is not active"),
        (jwt, issued("jwt"), issued("opaque"), "bad credentials"),
    ] {
        let (_files, mgate) = start(broker.port, &authn, SCOPES);
        let mut client = Peer::connected_with(mgate.address(), &with_token(Version::V5, good));
        assert_eq!(client.subscribe(Version::V5, &[("a/+/c", 0), ("a/#", 0)]), [0, 0x87]);
        let own = publish(Version::V5, "a/b/c", "mine");
        client.send(&own);
        client.expect(&own);
        assert_eq!(code_of(&mgate, &with_token(Version::V5, bad)), 0x86, "{}", mgate.log.text());
        mgate.log.wait_for(why);
    }
}

#[test]
fn what_the_server_does_not_call_active_is_refused() {
    let (server, broker) = (Service::start(authorization_server), Broker::mosquitto());
    let (_files, mgate) = start(broker.port, &introspection(&server), SCOPES);
    for (token, code, why) in [
        ("revoked", 0x86, "the token is not active"),
        ("expired", 0x86, "the token has expired"),
        ("foreign", 0x86, "the token is for another audience"),
        ("refresh", 0x86, "the token is no access token"),
        ("odd", 0x88, "has no `active` that is true or false"),
        ("broken", 0x88, "the answer's status is 500"),
        ("unauthorized", 0x88, "the answer's status is 401"),
        ("elsewhere", 0x88, "the answer's status is 302"),
        ("half", 0x88, "no whole answer"),
        ("slow", 0x88, "no answer within 300ms"),
    ] {
        assert_eq!(code_of(&mgate, &with_token(Version::V5, token)), code, "{token} {}", mgate.log.text());
        mgate.log.wait_for(why);
    }
    assert_eq!(code_of(&mgate, &connect(Version::V5, "dev-1")), 0x86);
}

#[test]
fn session_ends_with_its_introspected_token() {
    let (server, broker) = (Service::start(authorization_server), Broker::mosquitto());
    let (_files, mgate) = start(broker.port, &introspection(&server), SCOPES);
    let mut client = Peer::connected_with(mgate.address(), &with_token(Version::V5, "short"));
    let goodbye = client.until_closed();
    assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x87), "{goodbye:02x?}");
}

#[test]
fn emqx_service_says_who_a_client_is_and_what_it_may() {
    let service = Service::start(|heard, tcp| {
        let asked: Value = serde_json::from_str(&heard.body).unwrap();
        let said = match (asked["username"].as_str(), asked["password"].as_str()) {
            (Some("eve"), Some("pw")) => json!({
                "result": "allow", "expire_at": now() + 60,
                "acl": [
                    {"permission": "allow", "action": "all", "topic": "${username}/${clientid}/#"},
                    {"permission": "deny", "action": "all", "topic": "#"},
                ],
            }),
            _ => json!({"result": "deny"}),
        };
        tcp.write_all(&json_answer(&said.to_string()))
    });
    let authn = format!("dialect = 'webhook'\npreset = 'emqx'\nurl = '{}'\n", service.url("/auth"));
    let broker = Broker::mosquitto();
    let (_files, mgate) = start(broker.port, &format!("type = 'remote'\n{authn}"), SCOPES);
    for version in BOTH {
        let mut client = Peer::connected_with(mgate.address(), &connect(version, "dev-1").user("eve", "pw"));
        client.subscribe(version, &[("eve/dev-1/#", 0)]);
        assert_eq!(client.subscribe(version, &[("eve/#", 0)]), [denied_filter(version)]);
        client.send(&publish(version, "eve/dev-2/x", "not mine"));
        let own = publish(version, "eve/dev-1/x", "mine");
        client.send(&own);
        client.expect(&own);
    }
    mgate.log.wait_for("rule 2 of the client's access list");
    assert_eq!(code_of(&mgate, &connect(Version::V5, "dev-1").user("eve", "wrong")), 0x86);
    assert_eq!(code_of(&mgate, &connect(Version::V311, "dev-1").user("eve", "wrong")), 0x04);
    assert_eq!(service.heard().len(), 4, "nothing is remembered");
    assert_silent(&mgate, &["\"pw\"", "wrong"]);
}

#[test]
fn thing_of_mainflux_is_known_by_its_key() {
    let service = Service::start(|heard, tcp| {
        let asked: Value = serde_json::from_str(&heard.body).unwrap();
        tcp.write_all(&match asked["token"].as_str() {
            Some("key-1") if heard.line == "POST /identify" => json_answer(r#"{"id":"thing-1"}"#),
            _ => answer("401 Unauthorized", "application/json", "{}"),
        })
    });
    let authn = format!("type = 'remote'\ndialect = 'mainflux-0.13'\nurl = '{}'\n", service.url(""));
    let broker = Broker::mosquitto();
    let (_files, mgate) = start(broker.port, &authn, STATIC);
    for (username, key, code) in [
        ("thing-1", "key-1", 0),
        ("thing-2", "key-1", 0x86),
        ("thing-1", "key-2", 0x86),
        ("thing-1", "", 0x86),
    ] {
        let login = connect(Version::V5, "dev-1").user(username, key);
        assert_eq!(code_of(&mgate, &login), code, "{username} {key}");
    }
}

#[test]
fn grpc_services_say_who_a_client_is() {
    for (dialect, method, said, asked) in [
        (
            "broker.auth.v1",
            "/broker.auth.v1.AuthService/Authenticate",
            b"\x08\x01\x12\x05dev-1".as_slice(),
            b"\x0a\x05dev-1\x12\x03eve\x1a\x02pw\x20\x01".as_slice(),
        ),
        (
            "fluxmq.auth.v1",
            "/fluxmq.auth.v1.AuthService/Authenticate",
            b"\x08\x01\x12\x05dev-1",
            b"\x0a\x05dev-1\x12\x03eve\x1a\x02pw\x20\x01",
        ),
        ("mainflux-0.13", "/mainflux.ThingsService/Identify", b"\x0a\x03eve", b"\x0a\x02pw"),
        (
            "supermq-0.16",
            "/clients.v1.ClientsService/Authenticate",
            b"\x08\x01\x12\x05dev-1",
            b"\x0a\x03eve\x12\x02pw",
        ),
        (
            "supermq-0.17",
            "/clients.v1.ClientsService/Authenticate",
            b"\x08\x01\x12\x05dev-1",
            b"\x0a\x0dBasicZXZlOnB3",
        ),
    ] {
        let service =
            GrpcService::start(move |call| match (&*call.path == method, &*call.message == asked) {
                (true, true) => Reply::Message(said.into()),
                // PERMISSION_DENIED
                (true, false) => Reply::Status(7),
                // UNIMPLEMENTED
                (false, _) => Reply::Status(12),
            });
        let authn = format!("type = 'remote'\ndialect = '{dialect}'\nurl = '{}'\n", service.url());
        let broker = Broker::mosquitto();
        let (_files, mgate) = start(broker.port, &authn, STATIC);
        let code = |name, password| code_of(&mgate, &connect(Version::V5, "dev-1").user(name, password));
        assert_eq!(code("eve", "pw"), 0, "{dialect} {:?}", service.heard());
        let refused = if dialect.ends_with("auth.v1") { 0x88 } else { 0x86 };
        assert_eq!(code("eve", "wrong"), refused, "{dialect}");
        drop(service);
        assert_eq!(code("eve", "pw"), 0x88, "{dialect}");
    }
}

#[test]
fn token_may_come_with_the_request_for_a_websocket() {
    let (key, broker) = (SigningKey::p256(), Broker::mosquitto());
    let (_files, mgate) = start_websocket(broker.port, &key);
    let token = token(&key);
    let good = [
        ("/mqtt", format!("Authorization: Bearer {token}\r\n")),
        ("/mqtt", format!("Cookie: theme=dark; session={token}\r\n")),
        (&*format!("/mqtt?x=1&access_token={token}"), String::new()),
    ];
    for version in BOTH {
        for (target, headers) in &good {
            let mut client = Peer::new(WebSocket::dial_with(mgate.address(), target, headers, 1000));
            client.send(&connect(version, "browser").bytes());
            assert_eq!(client.packet()[3], 0, "{}", mgate.log.text());
        }
    }
    let bad = [
        ("/mqtt", String::new()),
        ("/mqtt", "Authorization: Bearer abc\r\n".into()),
        ("/mqtt", format!("Authorization: Bearer {token}x\r\n")),
        ("/mqtt", format!("Cookie: session={token}; session={token}\r\n")),
        (&*format!("/mqtt?token={token}"), String::new()),
    ];
    for (target, headers) in &bad {
        let mut client = Peer::new(WebSocket::dial_with(mgate.address(), target, headers, 1000));
        client.send(&connect(Version::V5, "browser").bytes());
        assert_eq!(client.packet()[3], 0x86, "{headers}");
    }
    for part in token.split('.') {
        assert_silent(&mgate, &[part]);
    }
}

#[test]
fn mqtt_js_shows_its_token_in_a_header_a_cookie_and_the_query() {
    let (key, broker) = (SigningKey::p256(), Broker::mosquitto());
    let (_files, mgate) = start_websocket(broker.port, &key);
    let (url, token) = (format!("ws://localhost:{}/mqtt", mgate.address().port()), token(&key));
    for (url, headers, said) in [
        (url.clone(), json!({"Authorization": format!("Bearer {token}")}), "ok\n"),
        (url.clone(), json!({"Cookie": format!("session={token}")}), "ok\n"),
        (format!("{url}?access_token={token}"), json!({}), "ok\n"),
        (url, json!({}), ""),
    ] {
        let mut script = node();
        script.arg(manifest("tests/support/mqttjs_upgrade.js")).args([&url, &headers.to_string(), "a/topic"]);
        let output = script.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{error}");
    }
}

#[test]
fn names_that_would_be_patterns_are_refused_where_policies_use_them() {
    let broker = Broker::mosquitto();
    for (key, refused) in [("", true), ("identity_charset = false\n", false)] {
        let files = Files::new(&[("acl.toml", OWN_NAMES)]);
        let route = route("mqtt", broker.port, key).replace("authn = ['who']\n", "");
        let mgate = Mgate::start(&files, &format!("{route}{STATIC}"));
        for (client_id, username, cause) in
            [("a/b", "eve", (0x85, 0x02)), ("#", "eve", (0x85, 0x02)), ("dev-1", "+", (0x86, 0x04))]
        {
            let login = |version| connect(version, client_id).user(username, "pw");
            let codes = (code_of(&mgate, &login(Version::V5)), code_of(&mgate, &login(Version::V311)));
            assert_eq!(codes, if refused { cause } else { (0, 0) }, "{client_id} {username}");
        }
        assert_eq!(code_of(&mgate, &connect(Version::V5, "dev-1").user("eve", "pw")), 0);
        if refused {
            mgate.log.wait_for("identity_charset: the client identifier has");
            mgate.log.wait_for("identity_charset: the user name has");
        }
    }
    let files = Files::new(&[("acl.toml", ALLOW_ALL)]);
    let route = route("mqtt", broker.port, "").replace("authn = ['who']\n", "");
    let mgate = Mgate::start(&files, &format!("{route}{STATIC}"));
    assert_eq!(code_of(&mgate, &connect(Version::V5, "a/b").user("+", "pw")), 0, "nothing uses them");
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let files = Files::new(&[("acl.toml", ALLOW_ALL), ("secret", "s:\n"), ("empty", "\n")]);
    for (authn, expected) in MISTAKES {
        let config = format!("{}[authn.who]\n{authn}\n{STATIC}", route("mqtt", 1883, ""));
        let path = files.write("mgate.toml", &config);
        let loaded = Config::load(&path, &Environment::default());
        let problems = loaded.map_or_else(|problems| problems.0, |config| config.warnings);
        let found: Vec<_> =
            problems.iter().map(|problem| format!("{}: {}", problem.place.key, problem.message)).collect();
        assert_eq!(found, *expected, "{authn}");
    }
}

/// Says of each token what its name promises.
fn authorization_server(heard: &Heard, tcp: &mut TcpStream) -> std::io::Result<()> {
    let token = heard.body.strip_prefix("token=").unwrap().split('&').next().unwrap();
    let good = json!({
        "active": true, "iss": "https://id.example", "sub": "dev-1", "aud": "mgate", "exp": now() + 60,
        "scope": "openid mqtt:publish:a/b/c mqtt:subscribe:a/+/c",
    });
    let with = |name: &str, value: Value| {
        let mut answer = good.clone();
        answer[name] = value;
        json_answer(&answer.to_string())
    };
    let body = good.to_string();
    tcp.write_all(&match token {
        "good" => json_answer(&body),
        "short" => with("exp", json!(now() + 2)),
        "expired" => with("exp", json!(now() - 1)),
        "foreign" => with("aud", json!("other")),
        "refresh" => with("token_use", json!("refresh_token")),
        "odd" => with("active", json!("true")),
        "broken" => answer("500 Internal Server Error", "application/json", &body),
        "unauthorized" => answer("401 Unauthorized", "application/json", &body),
        "elsewhere" => b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "half" => {
            tcp.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
            )?;
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        "slow" => return Ok(()),
        _ => json_answer(r#"{"active":false}"#),
    })
}

/// An OpenID provider, and where it is with what it issued.
fn provider() -> (Process, Value) {
    let mut script = node();
    let (process, lines) = Process::start_with_stdout(script.arg(manifest("tests/support/oidc_provider.js")));
    let issued = lines.wait_for("\"issuer\"");
    (process, serde_json::from_str(&issued).unwrap())
}

fn introspection(server: &Service) -> String {
    format!(
        "type = 'introspection'\nurl = '{}'\nclient_id = 'mgate'\nclient_secret_file = 'secret'\n\
         issuer = 'https://id.example'\naudience = 'mgate'\ntimeout = '300ms'\n",
        server.url("/introspect")
    )
}

/// A gateway with one authenticator of these keys.
fn start(upstream: u16, authn: &str, policy: &str) -> (Files, Mgate) {
    let files = Files::new(&[("acl.toml", ALLOW_ALL), ("secret", "s:\n"), ("special", "s: %+&")]);
    let config = format!("{}[authn.who]\n{authn}{policy}", route("mqtt", upstream, ""));
    let mgate = Mgate::start(&files, &config);
    (files, mgate)
}

/// A gateway that takes tokens signed with `key` from requests for WebSockets.
fn start_websocket(upstream: u16, key: &SigningKey) -> (Files, Mgate) {
    let files = Files::new(&[("acl.toml", ALLOW_ALL), ("key.pem", &key.public_pem())]);
    let authn = "[authn.who]\ntype = 'jwt'\nissuer = 'https://id.example'\naudience = '*'\n\
                 algorithms = ['ES256']\npublic_key_file = 'key.pem'\n\
                 token_in = ['header', 'query:access_token', 'cookie:session', 'password']\n";
    let mgate = Mgate::start(&files, &format!("{}{authn}{STATIC}", route("mqtt+ws", upstream, "")));
    (files, mgate)
}

fn route(scheme: &str, upstream: u16, more: &str) -> String {
    format!(
        "[[route]]\nname = 'devices'\nlisten = '{scheme}://127.0.0.1:0'\n\
         upstream = 'mqtt://127.0.0.1:{upstream}'\npolicies = ['acl']\nauthn = ['who']\n{more}"
    )
}

fn token(key: &SigningKey) -> String {
    let claims = json!({"iss": "https://id.example", "sub": "browser", "exp": now() + 60});
    key.token(&json!({"alg": "ES256"}), &claims)
}

fn with_token(version: Version, token: &str) -> Connect {
    connect(version, "dev-1").user("dev-1", token)
}

/// The code with which CONNECT is answered.
fn code_of(mgate: &Mgate, connect: &Connect) -> u8 {
    let mut client = mgate.dial();
    client.send(&connect.bytes());
    client.packet()[3]
}

fn denied_filter(version: Version) -> u8 {
    if version == Version::V5 { 0x87 } else { 0x80 }
}

fn assert_silent(mgate: &Mgate, secrets: &[&str]) {
    for secret in secrets {
        assert!(!mgate.log.text().contains(secret), "{secret}: {}", mgate.log.text());
    }
}

fn now() -> u64 {
    Now::read().unix.as_secs()
}

const SCOPES: &str = "[policy.acl]\ntype = 'jwt_scopes'\n";
const STATIC: &str = "[policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n";

const OWN_NAMES: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect']
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['publish']
resources = ['topic:${client_id}/${username}/#']
";

/// Tables of an authenticator, and what is wrong with each.
const MISTAKES: &[(&str, &[&str])] = &[
    ("type = 'introspection'\nurl = 'https://a'\nclient_id = 'b'\nclient_secret_file = 'secret'", &[]),
    (
        "type = 'introspection'\nurl = 'http://[::1]:80/i'\nbearer_token_file = 'acl.toml'",
        &["authn.who.bearer_token_file: acl.toml: is no bearer token"],
    ),
    ("type = 'introspection'", &["authn.who.url: is missing"]),
    (
        "type = 'introspection'\nurl = 'https://a'",
        &["authn.who: shows the server nothing: most want `client_id` or a bearer token"],
    ),
    (
        "type = 'introspection'\nurl = 'http://a'\nclient_id = ''\ncache = '2h'\ntoken_in = ['cookie:']",
        &[
            "authn.who.client_secret_file: is missing",
            "authn.who.url: must begin with https://, unless it is of this machine",
            "authn.who.client_id: must not be empty",
            "authn.who.cache: must be from 0s to 1h",
            "authn.who.token_in: \"cookie:\": must be password, username, header, query:NAME or cookie:NAME",
        ],
    ),
    (
        "type = 'introspection'\nurl = 'https://a'\nclient_id = 'b'\nclient_secret_file = 'empty'\naudience = []",
        &["authn.who.client_secret_file: empty: is empty", "authn.who.audience: must not be empty"],
    ),
    (
        "type = 'remote'\ndialect = 'webhook'\npreset = 'emqx'\nurl = 'http://127.0.0.1/'\nid = 'client_id'",
        &[],
    ),
    ("type = 'remote'\ndialect = 'supermq-0.17'\nurl = 'grpcs://a:1'\ncache = '10s'", &[]),
    ("type = 'remote'", &["authn.who.dialect: is missing", "authn.who.url: is missing"]),
    (
        "type = 'remote'\ndialect = 'mainflux-0.13'\nurl = 'http://things:8989'",
        &["authn.who.url: credentials go unencrypted: whoever is on their way can read them"],
    ),
    (
        "type = 'remote'\ndialect = 'supermq-0.16'\nurl = 'https://a'\npreset = 'emqx'",
        &[
            "authn.who.url: must begin with grpc:// or grpcs:// for this dialect",
            "authn.who.preset: has a meaning with dialect = \"webhook\" only",
        ],
    ),
    (
        "type = 'remote'\ndialect = 'webhook'\npreset = 'status'\nurl = 'grpcs://a:1'\nsuperuser_group = 'a'",
        &[
            "authn.who.url: must begin with http:// or https:// for this dialect",
            "authn.who.superuser_group: has a meaning with preset = \"emqx\" only",
        ],
    ),
    (
        "type = 'remote'\ndialect = 'webhook'\npreset = 'emqx'\nurl = 'https://a'\nbody = { a = '${topic}' }",
        &["authn.who.body.a: unknown name ${topic}"],
    ),
    (
        "type = 'remote'\ndialect = 'broker.auth.v1'\nurl = 'https://a/?b'",
        &["authn.who.url: must have no query: the dialect's own paths follow"],
    ),
];
