//! Tokens: who shows a good one gets in, as long as it is good, whatever becomes of the issuer's keys.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use mgate::config::{Config, Environment};
use mgate_policies::Now;
use serde_json::{Value, json};
use support::broker::{Broker, free_port};
use support::https::Https;
use support::issuer::{SigningKey, jwks};
use support::packets::{BOTH, Connect, Version, connect, publish};
use support::peer::Peer;
use support::service::{answer, json as json_answer};
use support::{ACL, ALLOW_ALL, Files, Mgate, PASSWORD, PASSWORD_HASH, wait_until};

#[test]
fn good_token_gets_in_and_what_it_may_follows_from_its_claims() {
    let (world, key) = World::start(OWN_CHANNEL, "");
    let mut client = world.connected(Version::V311, &token(&key, &json!({"channel": "42"})));
    client.subscribe(Version::V311, &[("devices/dev-1/42", 0)]);
    assert_eq!(client.subscribe(Version::V311, &[("devices/dev-1/43", 0)]), [0x80]);
    client.send(&publish(Version::V311, "devices/dev-1/43", "not mine"));
    let own = publish(Version::V311, "devices/dev-1/42", "mine");
    client.send(&own);
    client.expect(&own);
}

#[test]
fn bad_tokens_are_refused_and_the_log_says_why() {
    let (world, key) = World::start(ALLOW_ALL, "");
    let other = SigningKey::p256();
    for (more, why) in [
        (json!({"exp": now() - 1}), "the token has expired"),
        (json!({"exp": null}), "the token's `exp` is no time"),
        (json!({"nbf": now() + 60}), "the token's `nbf` is in the future"),
        (json!({"aud": "other"}), "the token is for another audience"),
        (json!({"sub": "dev/1"}), "identity_charset"),
    ] {
        world.expect_refusal(&token(&key, &more), 0x86, why);
    }
    let secret = SigningKey::secret(key.public_pem().as_bytes());
    for (bad, why) in [
        (token(&other, &json!({})), "the token's signature is wrong"),
        (secret.token(&json!({"alg": "HS256", "kid": "a"}), &claims()), "the token's algorithm is none"),
        (token(&key, &json!({"list": vec!["x".repeat(1000); 13]})), "the token is too long"),
        ("not.a.token".into(), "bad credentials"),
        (String::new(), "bad credentials"),
    ] {
        world.expect_refusal(&bad, 0x86, why);
    }
    assert_eq!(world.code(&connect(Version::V311, "dev-1")), 0x04);
    for part in token(&key, &json!({})).split('.') {
        assert!(!world.mgate.log.text().contains(part), "{}", world.mgate.log.text());
    }
}

#[test]
fn keys_rotate_without_a_restart() {
    let (world, old) = World::start(ALLOW_ALL, "");
    world.expect_welcome(&token(&old, &json!({})));
    let new = SigningKey::p256();
    world.issuer.say(Some(published(&[("a", &old), ("b", &new)])));
    world.expect_welcome(&token_named(&new, "b", &json!({})));
    world.expect_welcome(&token(&old, &json!({})));
    assert_eq!(world.issuer.requests(), 2);
    for _ in 0..20 {
        world.expect_refusal(&token_named(&new, "c", &json!({})), 0x86, "no key of the issuer fits");
    }
    assert_eq!(world.issuer.requests(), 2, "the second one within 30 s is for nothing");
}

#[test]
fn keys_are_fetched_before_the_first_token() {
    let (world, key) = World::start(ALLOW_ALL, "");
    world.mgate.log.wait_for("the issuer's keys are here");
    assert_eq!(world.issuer.requests(), 1);
    world.expect_welcome(&token(&key, &json!({})));
    assert_eq!(world.issuer.requests(), 1);
}

#[test]
fn session_ends_with_its_token() {
    let (world, key) = World::start(ALLOW_ALL, "");
    for version in BOTH {
        let mut client = world.connected(version, &token(&key, &json!({"exp": now() + 2})));
        let goodbye = client.until_closed();
        match version {
            Version::V5 => assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x87), "{goodbye:02x?}"),
            _ => assert_eq!(goodbye, b""),
        }
    }
    world.mgate.log.wait_for("the client's credentials are no longer valid");
}

#[test]
fn issuer_that_gives_no_keys_is_asked_until_it_does() {
    let large = format!("{{\"keys\": [], \"more\": \"{}\"}}", "x".repeat(1024 * 1024));
    let elsewhere = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_vec();
    for (answer, why) in [
        (answer("500 Internal Server Error", "text/plain", "sorry"), "the answer has status 500"),
        (answer("200 OK", "text/html", "<html>"), "the answer is no JSON Web Key Set"),
        (json_answer("{\"keys\": []}"), "the answer has no key that is for signatures"),
        (json_answer(&large), "the answer is larger than 1048576 bytes"),
        (elsewhere, "the answer has status 302"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), "\"error\":\"no"),
    ] {
        let (world, key) = (World::start_with(ALLOW_ALL, "", Some(answer)), SigningKey::p256());
        world.expect_refusal(&token(&key, &json!({})), 0x88, "no decision to be had");
        let line = world.mgate.log.wait_for("the issuer's keys cannot be fetched");
        assert!(line.contains(why), "{line}");
        world.issuer.say(Some(published(&[("a", &key)])));
        world.wait_for_welcome(&token(&key, &json!({})));
    }
}

#[test]
fn issuer_that_is_silent_delays_no_other_client() {
    let rest = "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n";
    let (world, key) = (World::start_with(ALLOW_ALL, rest, None), SigningKey::p256());
    let mut waiting = world.mgate.dial();
    waiting.send(&connect(Version::V311, "dev-1").user("dev-1", &token(&key, &json!({}))).bytes());
    wait_until("the issuer is asked", || world.issuer.requests() == 1);
    assert_eq!(world.code(&connect(Version::V311, "dev-2").user("dev-2", PASSWORD)), 0);
    assert_eq!(waiting.until_closed(), [0x20, 2, 0, 3]);
}

#[test]
fn dead_issuer_is_found_when_it_comes() {
    let files = files(ALLOW_ALL);
    let (broker, port, key) = (Broker::mosquitto(), free_port(), SigningKey::p256());
    let url = format!("https://localhost:{port}/keys");
    let mgate = Mgate::start(&files, &config(broker.port, &url, ""));
    let refused = code_of(&mgate, &with_token(Version::V5, &token(&key, &json!({}))));
    assert_eq!(refused, 0x88);
    mgate.log.wait_for("the issuer's keys cannot be fetched");
    let issuer = Https::start_at(port, &files, Some(published(&[("a", &key)])));
    let world = World { issuer, broker, mgate, _files: files };
    world.wait_for_welcome(&token(&key, &json!({})));
    world.mgate.log.wait_for("the issuer's keys are here");
}

#[test]
fn keys_stay_good_when_the_issuer_breaks() {
    let (world, key) = World::start(ALLOW_ALL, "");
    world.expect_welcome(&token(&key, &json!({})));
    world.issuer.say(Some(answer("500 Internal Server Error", "text/plain", "sorry")));
    // the unknown key makes mgate ask again
    world.expect_refusal(&token_named(&key, "b", &json!({})), 0x88, "the issuer's keys cannot be had");
    wait_until("it is asked some more", || world.issuer.requests() >= 4);
    world.expect_welcome(&token(&key, &json!({})));
    let complaints = world.mgate.log.text().matches("keys cannot be fetched").count();
    assert_eq!(complaints, 1, "{}", world.mgate.log.text());
}

#[test]
fn issuer_with_a_certificate_of_somebody_else_is_not_believed() {
    let (files, of_another) = (files(ALLOW_ALL), files(ALLOW_ALL));
    let (broker, key) = (Broker::mosquitto(), SigningKey::p256());
    let issuer = Https::start(&of_another, Some(published(&[("a", &key)])));
    let mgate = Mgate::start(&files, &config(broker.port, &issuer.url(), ""));
    let refused = code_of(&mgate, &with_token(Version::V5, &token(&key, &json!({}))));
    assert_eq!(refused, 0x88);
    let line = mgate.log.wait_for("the issuer's keys cannot be fetched");
    assert!(line.contains("certificate"), "{line}");
    assert_eq!(issuer.requests(), 0);
}

#[test]
fn tokens_of_several_issuers_and_passwords_stand_in_one_row() {
    let (files, broker) = (files(ALLOW_ALL), Broker::mosquitto());
    let (first, second) = (SigningKey::ed25519(), SigningKey::rsa(2048));
    let secret = SigningKey::secret(&[b'x'; 32]);
    files.write("first.json", &jwks(&[first.jwk(&json!({"kid": "a", "use": "sig"}))]));
    files.write("second.pem", &second.public_pem());
    files.write("third.key", &format!("{}\n", "x".repeat(32)));
    let config = format!("{}{ROW}", route(broker.port, "['first', 'second', 'third', 'users']"));
    let mgate = Mgate::start(&files, &config);
    let claims = |issuer| json!({"iss": issuer, "aud": "mgate", "sub": "dev-1", "exp": now() + 60});
    let by_first = first.token(&json!({"alg": "EdDSA", "kid": "a"}), &claims("first"));
    let by_second = second.token(&json!({"alg": "PS256"}), &claims("second"));
    let by_third = secret.token(&json!({"alg": "HS256"}), &claims("third"));
    let posing = second.token(&json!({"alg": "PS256"}), &claims("first"));
    for (username, password, code) in [
        ("dev-1", &*by_first, 0),
        ("dev-1", &*by_second, 0),
        (&*by_third, "", 0),
        ("dev-2", PASSWORD, 0),
        ("dev-1", &*by_third, 0x86),
        ("dev-1", &*posing, 0x86),
        ("dev-2", &*posing, 0x86),
        ("dev-2", "wrong", 0x86),
    ] {
        let connect = connect(Version::V5, "a").user(username, password);
        assert_eq!(code_of(&mgate, &connect), code, "{username} {password}");
    }
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let files = files(ALLOW_ALL);
    let (rsa, p256) = (SigningKey::rsa(2048), SigningKey::p256());
    files.write("keys.json", &jwks(&[p256.jwk(&json!({"kid": "a"}))]));
    files.write("rsa.pem", &rsa.public_pem());
    files.write("short.key", &format!("{}\n", "x".repeat(31)));
    for (keys, expected) in MISTAKES {
        let config = format!("{}[authn.tokens]\ntype = 'jwt'\n{keys}", route(1883, "['tokens']"));
        let path = files.write("mgate.toml", &config);
        let problems = Config::load(&path, &Environment::default()).err().map_or(Vec::new(), |all| all.0);
        let found: Vec<_> =
            problems.iter().map(|problem| format!("{}: {}", problem.place.key, problem.message)).collect();
        assert_eq!(found, *expected, "{keys}");
    }
}

/// An issuer, a broker, and mgate between them.
struct World {
    issuer: Https,
    broker: Broker,
    mgate: Mgate,
    _files: Files,
}

impl World {
    /// With the key that the issuer has published as `a`.
    fn start(acl: &str, rest: &str) -> (Self, SigningKey) {
        let key = SigningKey::p256();
        (Self::start_with(acl, rest, Some(published(&[("a", &key)]))), key)
    }

    fn start_with(acl: &str, rest: &str, answer: Option<Vec<u8>>) -> Self {
        let files = files(acl);
        let (issuer, broker) = (Https::start(&files, answer), Broker::mosquitto());
        let mgate = Mgate::start(&files, &config(broker.port, &issuer.url(), rest));
        Self { issuer, broker, mgate, _files: files }
    }

    fn connected(&self, version: Version, token: &str) -> Peer {
        assert!(self.broker.port > 0);
        Peer::connected_with(self.mgate.address(), &with_token(version, token))
    }

    fn code(&self, connect: &Connect) -> u8 {
        code_of(&self.mgate, connect)
    }

    fn expect_welcome(&self, token: &str) {
        assert_eq!(self.code(&with_token(Version::V5, token)), 0, "{}", self.mgate.log.text());
    }

    fn wait_for_welcome(&self, token: &str) {
        wait_until("the token is good", || self.code(&with_token(Version::V5, token)) == 0);
    }

    fn expect_refusal(&self, token: &str, code: u8, why: &str) {
        let lines = self.mgate.log.lines().len();
        assert_eq!(self.code(&with_token(Version::V5, token)), code, "{why}: {}", self.mgate.log.text());
        let is_told = |line: &String| line.contains("\"denied\"") && line.contains(why);
        wait_until(why, || self.mgate.log.lines()[lines..].iter().any(is_told));
    }
}

/// The code with which CONNECT is answered.
fn code_of(mgate: &Mgate, connect: &Connect) -> u8 {
    let mut client = mgate.dial();
    client.send(&connect.bytes());
    client.packet()[3]
}

fn files(acl: &str) -> Files {
    let users = format!("[users.dev-2]\npassword = \"{PASSWORD_HASH}\"\n");
    Files::new(&[("acl.toml", acl), ("users.toml", &users)]).with_certificates()
}

/// A route on which tokens of the issuer at `url` are good, and passwords where `rest` has them.
fn config(upstream: u16, url: &str, rest: &str) -> String {
    let row = if rest.contains("[authn.users]") { "['tokens', 'users']" } else { "['tokens']" };
    let keys = format!("jwks_url = '{url}'\njwks_ca = 'ca.pem'\n");
    format!("{}{TOKENS}algorithms = ['ES256']\n{keys}{rest}", route(upstream, row))
}

fn route(upstream: u16, authn: &str) -> String {
    format!(
        "workers = 1\n[[route]]\nname = 'devices'\nlisten = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://127.0.0.1:{upstream}'\n\
         policies = ['acl']\nauthn = {authn}\nlimits = {{ decision_timeout = '500ms' }}\n{ACL}"
    )
}

fn published(keys: &[(&str, &SigningKey)]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|(id, key)| key.jwk(&json!({"kid": id, "use": "sig"}))).collect();
    json_answer(&jwks(&keys))
}

fn with_token(version: Version, token: &str) -> Connect {
    connect(version, "dev-1").user("dev-1", token)
}

fn token(key: &SigningKey, more: &Value) -> String {
    token_named(key, "a", more)
}

fn token_named(key: &SigningKey, id: &str, more: &Value) -> String {
    let mut claims = claims();
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    key.token(&json!({"alg": "ES256", "kid": id}), &claims)
}

fn claims() -> Value {
    json!({"iss": "https://issuer.example", "aud": ["mgate"], "sub": "dev-1", "exp": now() + 60})
}

fn now() -> u64 {
    Now::read().unix.as_secs()
}

const TOKENS: &str = "\
[authn.tokens]
type = 'jwt'
issuer = 'https://issuer.example'
audience = ['mgate']
";

const ROW: &str = "
[authn.first]
type = 'jwt'
issuer = 'first'
audience = 'mgate'
algorithms = ['EdDSA']
jwks_file = 'first.json'
[authn.second]
type = 'jwt'
issuer = 'second'
audience = ['*']
algorithms = ['RS256', 'PS256']
public_key_file = 'second.pem'
[authn.third]
type = 'jwt'
issuer = 'third'
audience = 'mgate'
algorithms = ['HS256']
secret_file = 'third.key'
token_in = 'username'
[authn.users]
type = 'password'
file = 'users.toml'
";

const OWN_CHANNEL: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['client:dev-1']
actions = ['connect']
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['publish', 'subscribe']
resources = ['topic:devices/${principal}/${claims.channel}']
";

/// Tables of an authenticator, and what is wrong with each.
const MISTAKES: &[(&str, &[&str])] = &[
    ("issuer = 'a'\naudience = 'b'\nalgorithms = 'ES256'\njwks_file = 'keys.json'", &[]),
    ("issuer = 'a'\naudience = 'b'\nalgorithms = 'ES256'\njwks_url = 'http://[::1]:80/keys'", &[]),
    (
        "",
        &[
            "authn.tokens.issuer: is missing",
            "authn.tokens.audience: is missing",
            "authn.tokens.algorithms: is missing",
            "authn.tokens.jwks_file: is missing, and so are `jwks_url`, `public_key_file` and `secret_file`",
        ],
    ),
    (
        "issuer = ''\naudience = []\nalgorithms = []\ntoken_in = []\nid_claim = ''\njwks_file = 'keys.json'",
        &[
            "authn.tokens.issuer: must not be empty",
            "authn.tokens.audience: must not be empty",
            "authn.tokens.algorithms: must not be empty",
            "authn.tokens.token_in: must not be empty",
            "authn.tokens.id_claim: must not be empty",
        ],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['none', 'ES256K']\njwks_file = 'keys.json'",
        &[
            "authn.tokens.algorithms: unknown value \"none\" (RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512)",
            "authn.tokens.algorithms: unknown value \"ES256K\" (RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512)",
        ],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['RS256', 'HS256']\npublic_key_file = 'rsa.pem'",
        &["authn.tokens.algorithms: HS256 and RS256 cannot stand together"],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['HS256']\npublic_key_file = 'rsa.pem'",
        &[
            "authn.tokens.algorithms: HS256 needs `secret_file`",
            "authn.tokens.public_key_file: rsa.pem: has no key for any of `algorithms`",
        ],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['HS256', 'ES256']\nsecret_file = 'short.key'",
        &[
            "authn.tokens.algorithms: HS256 and ES256 cannot stand together",
            "authn.tokens.secret_file: short.key: must have 32 bytes or more for `algorithms`",
        ],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['ES256']\nsecret_file = 'rsa.pem'",
        &[
            "authn.tokens.algorithms: ES256 needs public keys, not `secret_file`",
            "authn.tokens.secret_file: rsa.pem: has no key for any of `algorithms`",
        ],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['ES256']\njwks_file = 'keys.json'\njwks_url = 'https://c'",
        &["authn.tokens.jwks_url: cannot stand beside `jwks_file`"],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['RS256']\njwks_file = 'keys.json'\njwks_ca = 'ca.pem'\njwks_refresh = '1m'",
        &[
            "authn.tokens.jwks_file: keys.json: has no key for any of `algorithms`",
            "authn.tokens.jwks_ca: has no use without `jwks_url`",
            "authn.tokens.jwks_refresh: has no use without `jwks_url`",
        ],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['RS256']\njwks_url = 'http://issuer.example/keys'\njwks_refresh = '9s'\njwks_max_age = '1m'",
        &[
            "authn.tokens.jwks_url: must begin with https://, unless it is of this machine",
            "authn.tokens.jwks_refresh: must be from 10s to 1d",
            "authn.tokens.jwks_max_age: must not be less than `jwks_refresh` (5m)",
        ],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['RS256']\njwks_url = 'https://user:secret@c/'\njwks_ca = 'keys.json'",
        &[
            "authn.tokens.jwks_url: credentials must not stand in an address",
            "authn.tokens.jwks_ca: keys.json: no certificate found (PEM is expected)",
        ],
    ),
    (
        "issuer = 'a'\naudience = 'b'\nalgorithms = ['ES256']\njwks_file = 'short.key'\nleway = '1s'\nleeway = '6m'\ntoken_in = 'head'\nrequired_claims = { a = 1 }",
        &[
            "authn.tokens.jwks_file: short.key: is no JSON Web Key Set",
            "authn.tokens.leway: unknown key (did you mean `leeway`?)",
            "authn.tokens.leeway: must be from 0s to 5m",
            "authn.tokens.token_in: \"head\": must be password, username, header, query:NAME or cookie:NAME",
            "authn.tokens.required_claims.a: must be a string, not an integer",
        ],
    ),
];
