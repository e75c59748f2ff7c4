//! Configurations, good and bad, as an operator writes them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, UNIX_EPOCH};

use mgate::config::{Config, Environment};
use mgate_certs::{Authority, Existing, Store, Validity};
use mgate_policies::Now;
use tempfile::TempDir;

#[test]
fn each_mistake_is_named_with_its_place() {
    let directory = with_certificates();
    write(&directory, "nameless-keys.json", &DEVICE_KEYS.replace("kid", "name"));
    let whole = MISTAKES.iter().map(|(text, expected)| (text.to_string(), expected));
    let after = MISTAKES_AFTER_ROUTE.iter().map(|(rest, expected)| (format!("{ROUTE}{rest}"), expected));
    let mut surprises = Vec::new();
    for (text, expected) in whole.chain(after) {
        let found = problems(&directory, &text, &[]);
        if found != **expected {
            surprises.push(found);
        }
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[test]
fn each_mistake_of_a_decision_service_is_named() {
    let directory = with_certificates();
    write(&directory, "empty", "\n");
    write(&directory, "token", "abc\n");
    write(&directory, "bad", "to ken\n");
    let mut surprises = Vec::new();
    for (keys, expected) in PDP_MISTAKES {
        let text = format!("{ROUTE}[policy.a]\ntype = 'pdp'\n{keys}");
        let found = problems(&directory, &text, &[]);
        let found: Vec<&str> = found.iter().map(|line| line.split_once(" policy.a.").unwrap().1).collect();
        let expected: Vec<_> = expected.iter().map(|line| line.replace("DIALECTS", DIALECTS)).collect();
        if found != expected {
            surprises.push(format!("{keys}: {found:#?}"));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
fn each_kind_of_decision_service_loads() {
    let directory = with_certificates();
    write(&directory, "token", "abc.def-_~+/==\n");
    for keys in PDPS {
        let text = ROUTE.to_owned() + "policies = ['a']\n[policy.a]\ntype = 'pdp'\n" + keys;
        write(&directory, "mgate.toml", &text);
        let config =
            load(&directory.path().join("mgate.toml"), &[]).unwrap_or_else(|found| panic!("{keys}: {found}"));
        assert_eq!(config.warnings, [], "{keys}");
    }
}

#[test]
#[cfg(feature = "wasm")]
fn each_mistake_with_a_plugin_is_named() {
    let directory = with_certificates();
    let mut surprises = Vec::new();
    for (keys, expected) in WASM_MISTAKES {
        let text = format!("{ROUTE}[policy.a]\ntype = 'wasm'\n{keys}");
        let found = problems(&directory, &text, &[]);
        let found: Vec<&str> = found.iter().map(|line| line.split_once(" policy.a.").unwrap().1).collect();
        if found != *expected {
            surprises.push(format!("{keys}: {found:#?}"));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}

#[test]
#[cfg(feature = "wasm")]
fn each_mistake_with_a_transform_by_a_plugin_is_named() {
    let directory = with_certificates();
    let route = format!("{ROUTE}transforms = ['a']\n[transform.a]\ntype = 'wasm'\n");
    let found = problems(&directory, &format!("{route}payload = 1\nrepeatable = true\n"), &[]);
    let expected = [
        "mgate.toml:6: transform.a.file: is missing",
        "mgate.toml:8: transform.a.payload: must be a boolean, not an integer",
        "mgate.toml:9: transform.a.repeatable: unknown key (known: type, file, sha256, config, deadline, memory, payload)",
    ];
    assert_eq!(found, expected);
    let path = write(&directory, "mgate.toml", &format!("{route}file = 'none.wasm'\n"));
    let config = load(&path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let place = "mgate.toml:8: transform.a.file: cannot be read: No such file or directory (os error 2)";
    assert_eq!(lines(&directory, &config.unready), [place]);
    assert_eq!(config.plugins.len(), 1);
}

#[test]
#[cfg(feature = "wasm")]
fn plugin_that_is_not_there_is_one_problem_among_others() {
    let directory = with_certificates();
    let text = format!("{ROUTE}policies = ['a']\n[policy.a]\ntype = 'wasm'\nfile = 'none.wasm'\n");
    let place = "mgate.toml:8: policy.a.file: cannot be read: No such file or directory (os error 2)";
    let path = write(&directory, "mgate.toml", &text);
    let config = load(&path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(lines(&directory, &config.unready), [place]);
    let other = "mgate.toml:9: policy.a.colour: unknown key (known: enforce, type, file, sha256, config, deadline, memory, payload, repeatable)";
    assert_eq!(problems(&directory, &format!("{text}colour = 'red'\n"), &[]), [place, other]);
}

#[test]
#[cfg(not(feature = "wasm"))]
fn build_without_plugins_says_so() {
    let directory = with_certificates();
    for table in ["policy", "transform"] {
        let text = format!("{ROUTE}[{table}.a]\ntype = 'wasm'\nfile = 'none.wasm'\n");
        let expected = format!(
            "mgate.toml:6: {table}.a.type: type \"wasm\" is not in this build, which lacks the feature `wasm`"
        );
        assert_eq!(problems(&directory, &text, &[]), [expected]);
    }
}

#[test]
fn decisions_over_the_open_network_are_warned_of() {
    let directory = with_certificates();
    for (host, warnings) in
        [("127.0.0.1", 0), ("[::1]:80", 0), ("localhost:8181", 0), ("opa:8181", 1), ("10.0.0.1", 1)]
    {
        let url = format!("dialect = 'opa'\nurl = 'http://{host}/v1/data/mgate'\n");
        let text = ROUTE.to_owned() + "policies = ['a']\n[policy.a]\ntype = 'pdp'\n" + &url;
        write(&directory, "mgate.toml", &text);
        let config = load(&directory.path().join("mgate.toml"), &[]).unwrap();
        assert_eq!(config.warnings.len(), warnings, "{host}: {:?}", config.warnings);
    }
}

#[test]
fn stream_that_does_not_take_what_is_told_is_warned_of() {
    let directory = with_certificates();
    for (subjects, events, warnings) in [
        ("'mgate.>'", true, 0),
        ("'mgate.messages.>', 'mgate.events.>'", true, 0),
        ("'mgate.messages.>'", true, 1),
        ("'mgate.messages.>'", false, 0),
        ("'other.>'", true, 2),
    ] {
        let text = format!(
            "{ROUTE}policies = ['a']\nmirror = 'bus'\n[policy.a]\ntype = 'pdp'\ndialect = 'authzen'\n\
             url = 'http://127.0.0.1'\n[mirror.bus]\ntype = 'nats'\nurl = 'nats://127.0.0.1'\n\
             dialect = 'plain'\nmode = 'acked'\nevents = {events}\n\
             stream = {{ name = 'copies', create = true, subjects = [{subjects}] }}\n"
        );
        write(&directory, "mgate.toml", &text);
        let config = load(&directory.path().join("mgate.toml"), &[]).unwrap();
        assert_eq!(config.warnings.len(), warnings, "{subjects}: {:?}", config.warnings);
    }
}

#[test]
fn leaving_it_to_others_while_a_service_is_away_is_warned_of() {
    let directory = with_certificates();
    for (choice, warnings) in [("deny", 0), ("abstain", 1)] {
        let keys = format!("dialect = 'authzen'\nurl = 'http://127.0.0.1'\non_error = '{choice}'\n");
        let text = ROUTE.to_owned() + "policies = ['a']\n[policy.a]\ntype = 'pdp'\n" + &keys;
        write(&directory, "mgate.toml", &text);
        let config = load(&directory.path().join("mgate.toml"), &[]).unwrap();
        assert_eq!(config.warnings.len(), warnings, "{choice}: {:?}", config.warnings);
    }
}

#[test]
fn all_mistakes_of_all_files_are_found_at_once() {
    let directory = with_certificates();
    write(&directory, "acl.toml", BAD_POLICY);
    write(&directory, "users.toml", "[users.dev-1]\npassword = \"plain\"\n");
    write(&directory, "localhost.key", "nothing\n");
    let found = problems(&directory, MANY_MISTAKES, &[("MGATE_WORKERS", "none")]);
    assert_eq!(found, MANY_FOUND, "{found:#?}");
}

#[test]
fn policies_read_the_same_from_toml_json_and_yaml() {
    for (name, text) in [("acl.toml", POLICY_TOML), ("acl.json", POLICY_JSON), ("acl.yaml", POLICY_YAML)] {
        let directory = with_certificates();
        write(&directory, name, text);
        let config = format!("{ROUTE}policies = ['acl']\n[policy.acl]\ntype = 'static'\nfile = '{name}'\n");
        assert_eq!(problems(&directory, &config, &[]), Vec::<String>::new(), "{name}");
        write(&directory, name, &text.replace("publish", "publsh"));
        let line = text.lines().position(|line| line.contains("publish")).unwrap() + 1;
        let expected = format!(
            "{name}:{line}: statements.own.actions: unknown value \"publsh\" (connect, publish, will, subscribe, deliver, request, observe)"
        );
        assert_eq!(problems(&directory, &config, &[]), [expected]);
    }
}

#[test]
fn policy_in_bad_syntax_names_its_line() {
    for (name, text, start) in [
        ("acl.toml", "version = 1\nstatements = [\n", "acl.toml:"),
        ("acl.json", "{\"version\": 1,\n \"statements\": [}", "acl.json:2: "),
        ("acl.yaml", "version: 1\nstatements: &a []\nmore: *a\n", "acl.yaml:2: anchors"),
        ("acl.yaml", "version: 1\nversion: 1\n", "acl.yaml:2: key \"version\" stands here twice"),
        ("acl.txt", "", "mgate.toml:8: policy.acl.file: acl.txt: the name must end in .toml, .json or .yaml"),
    ] {
        let directory = with_certificates();
        write(&directory, name, text);
        let config = format!("{ROUTE}policies = ['acl']\n[policy.acl]\ntype = 'static'\nfile = '{name}'\n");
        let found = problems(&directory, &config, &[]);
        assert!(found.len() == 1 && found[0].starts_with(start), "{found:?}");
    }
}

#[test]
fn values_are_what_was_written() {
    let directory = with_certificates();
    write(&directory, "acl.toml", POLICY_TOML);
    let path = write(&directory, "mgate.toml", FULL);
    let config = load(&path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!((config.workers.get(), config.drain_timeout), (3, Duration::from_millis(1500)));
    let route = &config.routes[0];
    assert_eq!(route.listen.to_string(), "mqtt+wss://127.0.0.1:443");
    assert_eq!(route.upstream.as_ref().unwrap().to_string(), "mqtt+ws://broker.example:80/ws");
    assert_eq!(route.connector.as_ref().unwrap().to_string(), "mqtt+ws://broker.example:80/ws");
    assert_eq!(route.listen_address, "127.0.0.1:443".parse().unwrap());
    assert_eq!(route.limits.packet_bytes, 64 * 1024);
    assert_eq!(route.limits.messages_per_second, Some(7));
    assert_eq!(route.limits.idle_timeout, Some(Duration::from_secs(120)));
    assert_eq!(route.limits.connections, 10_000);
    assert_eq!(route.trusted.len(), 2);
}

#[test]
fn mistakes_in_routes_of_http_and_coap_are_named() {
    let directory = TempDir::new().unwrap();
    for (route, expected) in [
        (
            "listen = 'http://127.0.0.1:0'\nupstream = 'mqtt://a'",
            "mgate.toml:4: route.web.upstream: a listener of http does not lead to mqtt",
        ),
        (
            "listen = 'mqtt://127.0.0.1:0'\nupstream = 'http://a'",
            "mgate.toml:4: route.web.upstream: a listener of mqtt does not lead to http",
        ),
        ("listen = 'http://127.0.0.1:0'", "mgate.toml:1: route.web.upstream: is missing"),
        (
            "listen = 'http://127.0.0.1:0'\nhttp = { profile = 'messages' }",
            "mgate.toml:1: route.web.upstream: is missing",
        ),
        (
            "listen = 'https://127.0.0.1:0'\nupstream = 'http://a'",
            "mgate.toml:1: route.web.tls: is missing: https needs a certificate",
        ),
        (
            "listen = 'http://127.0.0.1:0'\nupstream = 'http://a'\nmqtt = { versions = ['5.0'] }",
            "mgate.toml:5: route.web.mqtt: has no use with http",
        ),
        (
            "listen = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://a'\nhttp = { headers = 10 }",
            "mgate.toml:5: route.web.http: has no use with mqtt",
        ),
        (
            "listen = 'http://127.0.0.1:0'\nupstream = 'http://a'\ntransforms = ['up']",
            "mgate.toml:5: route.web.transforms: have no use with http",
        ),
        (
            "listen = 'http://127.0.0.1:0'\nupstream = 'http://a'\nhttp = { content_types = ['a/b'] }",
            "mgate.toml:5: route.web.http.content_types: has no use without profile = \"messages\"",
        ),
        (
            "listen = 'http://127.0.0.1:0'\nupstream = 'http://a'\n\
             http = { profile = 'messages', body_bytes = '17MiB' }",
            "mgate.toml:5: route.web.http.body_bytes: must be from 1 bytes to 16777216 bytes",
        ),
        (
            "listen = 'http://127.0.0.1:0'\nupstream = 'http://a'\nhttp = { trusted = ['x'] }",
            "mgate.toml:5: route.web.http.trusted: \"x\": ",
        ),
        (
            "listen = 'coap://127.0.0.1:0'\nupstream = 'mqtt://a'",
            "mgate.toml:4: route.web.upstream: a listener of coap does not lead to mqtt",
        ),
        ("listen = 'coap://127.0.0.1:0'", "mgate.toml:1: route.web.upstream: is missing"),
        (
            "listen = 'coap://127.0.0.1:0'\ncoap = { profile = 'messages' }",
            "mgate.toml:1: route.web.upstream: is missing",
        ),
        (
            "listen = 'coap://127.0.0.1:0'\nupstream = 'coap://a'\ntransforms = ['up']",
            "mgate.toml:5: route.web.transforms: have no use with coap",
        ),
        (
            "listen = 'coap://127.0.0.1:0'\nupstream = 'coap://a'\nmqtt = { versions = ['5.0'] }",
            "mgate.toml:5: route.web.mqtt: has no use with coap",
        ),
        (
            "listen = 'coap://127.0.0.1:0'\nupstream = 'coap://a'\nproxy_protocol = { accept = 'v2', trusted = ['::1'] }",
            "mgate.toml:5: route.web.proxy_protocol: has no use with coap",
        ),
        (
            "listen = 'coap://127.0.0.1:0'\nupstream = 'coap://a'\ncoap = { profile = 'mqtt' }",
            "mgate.toml:5: route.web.coap.profile: ",
        ),
        (
            "listen = 'coap://127.0.0.1:0'\nupstream = 'coap://a'\ncoap = { hosts = 7 }",
            "mgate.toml:5: route.web.coap.hosts: ",
        ),
        (
            "listen = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://a'\ncoap = { challenge = true }",
            "mgate.toml:5: route.web.coap: has no use with mqtt",
        ),
    ] {
        let text =
            format!("[[route]]\nname = 'web'\n{route}\n[transform.up]\ntype = 'mountpoint'\nprefix = 'a/'\n");
        let problems = problems(&directory, &text, &[]);
        assert!(matches!(&problems[..], [one] if one.starts_with(expected)), "{route}: {problems:?}");
    }
}

#[test]
#[cfg(feature = "dtls")]
fn mistakes_in_routes_of_coaps_are_named() {
    let directory = with_certificates();
    write(&directory, "keys.psk", "dev-1:00\n");
    for (route, expected) in [
        (
            "",
            "1: route.a.tls: is missing: coaps needs a certificate, or keys of an authenticator of type \"psk\"",
        ),
        (
            "tls = { certificates = [{ cert = 'certs/localhost.pem', key = 'certs/localhost.key' }], \
             min_version = '1.2', ciphers = [] }",
            "5: route.a.tls.certificates: has no use with coaps",
        ),
        ("authn = ['keys']\ntls = { client_ca = 'certs/ca.pem' }", "6: route.a.tls.cert: is missing"),
        (
            "authn = ['keys']\ndtls = { handshakes = 0 }",
            "6: route.a.dtls.handshakes: must be from 1 to 100000",
        ),
        ("authn = ['keys']\ndtls = { psk = 1 }", "6: route.a.dtls.psk: unknown key"),
        (
            "authn = ['certs']\ntls = { cert = 'certs/localhost.pem', key = 'certs/localhost.key' }",
            "5: route.a.authn: \"certs\" needs client certificates",
        ),
    ] {
        let text = format!(
            "{COAPS}{route}\n[authn.keys]\ntype = 'psk'\nfile = 'keys.psk'\n[authn.certs]\ntype = 'x509'\n"
        );
        let problems = problems(&directory, &text, &[]);
        assert!(problems[0].starts_with(&format!("mgate.toml:{expected}")), "{route}: {problems:?}");
    }
    let text = COAPS.replace("coap://a", "coaps://a");
    let at = "mgate.toml:4: route.a.upstream: an upstream cannot be spoken to by coaps yet";
    assert!(problems(&directory, &text, &[]).iter().any(|problem| problem == at));
}

#[test]
#[cfg(feature = "dtls")]
fn files_that_are_missing_for_coaps_are_named_once_each() {
    let directory = with_certificates();
    let keys = "[authn.keys]\ntype = 'psk'\nfile = 'none.psk'\n";
    let text = format!("{COAPS}authn = ['keys']\n{keys}");
    let no_keys = "authn.keys.file: cannot read none.psk: No such file or directory (os error 2)";
    assert_eq!(problems(&directory, &text, &[]), [format!("mgate.toml:8: {no_keys}")]);
    let tls =
        "tls = { cert = 'none.pem', key = 'none.key', client_ca = 'none-ca.pem', client_crl = 'none.crl' }\n";
    let text = format!("{COAPS}authn = ['keys']\n{tls}{keys}");
    let missing = |key, file| {
        format!("mgate.toml:6: route.a.tls.{key}: cannot read {file}: No such file or directory (os error 2)")
    };
    let mut found = problems(&directory, &text, &[]);
    assert_eq!(found.pop().unwrap(), format!("mgate.toml:9: {no_keys}"));
    found.sort();
    let expected =
        [("cert", "none.pem"), ("client_ca", "none-ca.pem"), ("client_crl", "none.crl"), ("key", "none.key")];
    assert_eq!(found, expected.map(|(key, file)| missing(key, file)));
}

#[test]
fn mistakes_with_shared_keys_are_named_and_show_none() {
    let directory = with_certificates();
    write(&directory, "keys.psk", "dev-1:c0ffee\ndev-2\n\ndev/3:c0ffee\ndev-1:c0ffeee\n");
    for (authn, expected) in [
        (
            "file = 'keys.psk'",
            &[
                "keys.psk:2: is not identity:key",
                "keys.psk:4: the identity is empty or has `/`, `+`, `#` or U+0000",
                "keys.psk:5: the key is not made of pairs of hexadecimal digits",
            ][..],
        ),
        (
            "",
            &[
                "mgate.toml:5: authn.keys.file: is missing: where keys are, or `url`, where they are asked for",
            ],
        ),
        ("file = 'a'\nurl = 'https://a'", &["mgate.toml:8: authn.keys.url: cannot stand beside `file`"]),
        (
            "url = 'http://a'",
            &["mgate.toml:7: authn.keys.url: must begin with https://, unless it is of this machine"],
        ),
    ] {
        let problems = problems(&directory, &format!("{ROUTE}[authn.keys]\ntype = 'psk'\n{authn}\n"), &[]);
        assert_eq!(problems, expected);
        assert!(!problems.concat().contains("c0ffee"));
    }
    write(&directory, "keys.psk", "dev-1:c0ffee\n");
    let text = format!("{ROUTE}authn = ['keys']\n[authn.keys]\ntype = 'psk'\nfile = 'keys.psk'\n");
    let expected = "mgate.toml:5: route.my-devices.authn: \"keys\" has keys for coaps, and no use with mqtt";
    assert_eq!(problems(&directory, &text, &[]), [expected]);
}

#[test]
#[cfg(not(feature = "dtls"))]
fn build_without_dtls_says_so() {
    let text =
        "[[route]]\nname = 'a'\nlisten = 'coaps://127.0.0.1:0'\nupstream = 'coap://a'\npolicies = []\n";
    let expected =
        "mgate.toml:3: route.a.listen: scheme \"coaps\" is not in this build, which lacks the feature `dtls`";
    assert_eq!(problems(&with_certificates(), text, &[]), [expected]);
}

#[test]
fn mistakes_in_paths_and_cors_are_named() {
    let directory = TempDir::new().unwrap();
    let path = "http.path: must be a path as it is decoded, without a slash at its end, %, ? and #";
    let origin =
        "is no origin as browsers write it: a scheme and a host in small letters, and nothing behind";
    for (keys, expected) in [
        ("path = 'api'", "http.path: a path begins with `/`".to_owned()),
        ("path = '/api/'", path.to_owned()),
        ("path = '/a%20b'", path.to_owned()),
        ("path = '/a?b'", path.to_owned()),
        ("path = '/a/../b'", "http.path: `.` or `..` as a segment of a path".into()),
        ("path = '/a//b'", "http.path: empty segment in a path".into()),
        ("upstream_path = '/v1/'", path.replace("http.path", "http.upstream_path")),
        ("upstream_path = '/'", path.replace("http.path", "http.upstream_path")),
        ("upstream_path = '/ä'", "http.upstream_path: has characters that a URL does not have".into()),
        ("upstream_path = '/a/..'", "http.upstream_path: `.` or `..` as a segment of a path".into()),
        ("strip_path = true", "http.strip_path: has no use without `path`".into()),
        (
            "hosts = ['a:80']",
            "http.hosts: \"a:80\": is no name of a host, which has neither scheme nor port".into(),
        ),
        ("cors.methods = ['GET']", "http.cors.origins: is missing".into()),
        ("cors.origins = []", "http.cors.origins: must not be empty".into()),
        ("cors.origins = ['https://a/']", format!("http.cors.origins: \"https://a/\": {origin}")),
        ("cors.origins = ['https://a://b']", format!("http.cors.origins: \"https://a://b\": {origin}")),
        ("cors.origins = ['https://A']", format!("http.cors.origins: \"https://A\": {origin}")),
        (
            "cors.origins = ['a.example']",
            "http.cors.origins: \"a.example\": is no origin: write https://app.example.org".into(),
        ),
        (
            "cors.origins = ['https://a:443']",
            "http.cors.origins: \"https://a:443\": has the port of its scheme, which browsers leave out"
                .into(),
        ),
        (
            "cors = { origins = ['null'], methods = ['get'] }",
            "http.cors.methods: \"get\": is no method".into(),
        ),
        (
            "cors = { origins = ['null'], headers = ['a b'] }",
            "http.cors.headers: \"a b\": is no name of a header".into(),
        ),
        (
            "cors = { origins = ['*'], credentials = true }",
            "http.cors.origins: has `*`, which browsers do not take with `credentials`: name them".into(),
        ),
        (
            "cors = { origins = ['https://a', 'null'], credentials = true }",
            "http.cors.origins: has `null`, which any page may be, and `credentials` are for known ones"
                .into(),
        ),
        (
            "cors = { origins = ['https://a'], headers = ['*'], credentials = true }",
            "http.cors.headers: has `*`, which browsers do not take with `credentials`: name them".into(),
        ),
        ("cors = { origins = ['null'], max_age = '2d' }", "http.cors.max_age: must be from 0s to 1d".into()),
    ] {
        let text = format!("{HTTP_ROUTE}listen = 'http://127.0.0.1:0'\n[route.http]\n{keys}\n");
        assert_eq!(
            problems(&directory, &text, &[]),
            [format!("mgate.toml:6: route.web.{expected}")],
            "{keys}"
        );
    }
}

#[test]
fn routes_of_http_share_a_listener_and_agree_about_it() {
    let directory = with_certificates();
    let tls = "tls = { cert = 'localhost.pem', key = 'localhost.key' }";
    let first = "limits = { connections = 5, idle_timeout = '9s' }\nhttp = { headers = 10, trusted = ['10.0.0.0/8'] }";
    let both = |first: &str, second: &str| {
        let listen = "listen = 'https://127.0.0.1:4443'\n";
        format!("{HTTP_ROUTE}{listen}{tls}\n{first}\n{}{listen}{second}\n", HTTP_ROUTE.replace("web", "api"))
    };
    let text = both(first, "http = { path = '/api' }");
    let config =
        load(&write(&directory, "mgate.toml", &text), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let limits = &config.routes[1].limits;
    assert_eq!((limits.connections, limits.idle_timeout), (5, Some(Duration::from_secs(9))));
    let agreed = format!("{tls}\nlimits = {{ connections = 5 }}\nhttp = {{ path = '/api', headers = 10 }}");
    assert_eq!(problems(&directory, &both(first, &agreed), &[]), Vec::<String>::new());
    let path = "http = { path = '/api' }\n";
    let other = |key: &str| {
        format!("route.api.{key}: is other than for route web, which has the listener too: leave it out here")
    };
    for (second, expected) in [
        (format!("{path}limits = {{ connections = 6 }}"), other("limits.connections")),
        (format!("{path}limits = {{ idle_timeout = '8s' }}"), other("limits.idle_timeout")),
        (format!("{path}limits = {{ tcp_keepalive = '8s' }}"), other("limits.tcp_keepalive")),
        ("http = { path = '/api', headers = 11 }".into(), other("http.headers")),
        ("http = { path = '/api', trusted = ['10.0.0.0/9'] }".into(), other("http.trusted")),
        (format!("{path}tls = {{ cert = 'dev-1.pem', key = 'dev-1.key' }}"), other("tls")),
        (
            format!("{path}proxy_protocol = {{ accept = 'v1', trusted = ['10.0.0.0/8'] }}"),
            other("proxy_protocol"),
        ),
        ("http = { hosts = ['a'] }".into(), String::new()),
        (
            "http = { path = '/' }".into(),
            "route.api.http.path: route web serves / there, for the same host".into(),
        ),
    ] {
        let found = problems(&directory, &both(first, &second), &[]);
        match expected.is_empty() {
            true => assert_eq!(found, Vec::<String>::new(), "{second}"),
            false => assert!(matches!(&found[..], [one] if one.ends_with(&expected)), "{second}: {found:?}"),
        }
    }
    let hosts = ["http = { hosts = ['A.example', 'b.example'] }", "http = { hosts = ['a.example.'] }"];
    let found = problems(&directory, &both(hosts[0], hosts[1]), &[]);
    assert!(
        matches!(&found[..], [one] if one.ends_with("route web serves / there, for the same host")),
        "{found:?}"
    );
    let asks =
        both("tls.client_ca = 'ca.pem'\ntls.client_auth = 'optional'", "authn = ['x']\nhttp.path = '/api'");
    let asks = asks.replace(tls, "tls.cert = 'localhost.pem'\ntls.key = 'localhost.key'");
    assert_eq!(problems(&directory, &format!("{asks}[authn.x]\ntype = 'x509'\n"), &[]), Vec::<String>::new());
    let turned = both("", &format!("{path}tls = {{ key = 'localhost.key', cert = 'localhost.pem' }}"));
    assert_eq!(problems(&directory, &turned, &[]), Vec::<String>::new());
    let said = [("MGATE_ROUTE_API_TLS_CERT", "localhost.pem"), ("MGATE_ROUTE_API_TLS_KEY", "localhost.key")];
    assert_eq!(problems(&directory, &both("", path), &said), Vec::<String>::new());
    let same = ("MGATE_ROUTE_WEB_TLS_MIN_VERSION", "1.3");
    let tls_of_api = format!("{path}{tls}");
    let found = problems(&directory, &both("", &tls_of_api), &[same]);
    assert!(matches!(&found[..], [one] if one.ends_with(&other("tls"))), "{found:?}");
    let same = [same, ("MGATE_ROUTE_API_TLS_MIN_VERSION", "1.3")];
    assert_eq!(problems(&directory, &both("", &tls_of_api), &same), Vec::<String>::new());
    let api = HTTP_ROUTE.replace("web", "api");
    let mixed = format!(
        "{HTTP_ROUTE}listen = 'http://127.0.0.1:4443'\n{api}listen = 'https://127.0.0.1:4443'\n{tls}\n{path}"
    );
    let found = problems(&directory, &mixed, &[]);
    assert!(
        matches!(&found[..], [one] if one.ends_with("route.api.listen: route web listens there")),
        "{found:?}"
    );
}

#[test]
fn routes_of_mqtt_over_websocket_share_a_listener_of_http() {
    let directory = with_certificates();
    let web = |listen: &str| {
        let tls =
            if listen == "https" { "tls = { cert = 'localhost.pem', key = 'localhost.key' }\n" } else { "" };
        let limits = "limits = { connections = 5, idle_timeout = '9s', tcp_keepalive = '7s' }";
        format!("{HTTP_ROUTE}listen = '{listen}://127.0.0.1:4443'\n{tls}{limits}\n")
    };
    let mqtt = |name: &str, listen: &str, more: &str| {
        format!(
            "[[route]]\nname = '{name}'\nupstream = 'mqtt://a'\nlisten = '{listen}://127.0.0.1:4443'\n{more}\n"
        )
    };
    for (http, scheme) in [("http", "mqtt+ws"), ("https", "mqtt+wss")] {
        let text = [web(http), mqtt("one", scheme, ""), mqtt("two", scheme, "websocket = { path = '/two' }")];
        let config = load(&write(&directory, "mgate.toml", &text.concat()), &[]);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let limits = &config.routes[1].limits;
        assert_eq!((limits.connections, limits.idle_timeout), (5, None));
    }
    let one = mqtt("one", "mqtt+ws", "");
    let other = |key: &str| {
        format!("route.one.{key}: is other than for route web, which has the listener too: leave it out here")
    };
    for (text, expected) in [
        (web("http") + &mqtt("one", "mqtt+ws", "limits = { connections = 6 }"), other("limits.connections")),
        (
            web("http") + &mqtt("one", "mqtt+ws", "limits = { tcp_keepalive = '6s' }"),
            other("limits.tcp_keepalive"),
        ),
        (
            web("https") + &mqtt("one", "mqtt+wss", "tls = { cert = 'dev-1.pem', key = 'dev-1.key' }"),
            other("tls"),
        ),
        (
            web("http") + &mqtt("one", "mqtt+ws", "http = { path = '/a' }"),
            "route.one.http: has no use with mqtt+ws".into(),
        ),
        (
            one.clone() + &web("http"),
            "route.web.listen: route one listens there: to share it, it must stand behind this one".into(),
        ),
        (one.clone() + &mqtt("two", "mqtt+ws", ""), "route.two.listen: route one listens there".into()),
        (web("http") + &mqtt("one", "mqtt", ""), "route.one.listen: route web listens there".into()),
        (web("https") + &one, "route.one.listen: route web listens there".into()),
        (
            web("http") + &one + &mqtt("two", "mqtt+ws", "websocket = { path = '/mqtt' }"),
            "route.two.websocket.path: route one takes MQTT there".into(),
        ),
    ] {
        let found = problems(&directory, &text, &[]);
        assert!(found.iter().any(|one| one.ends_with(&expected)), "{expected}: {found:?}");
    }
}

#[test]
fn environment_overrides_the_file() {
    let directory = with_certificates();
    let path = write(&directory, "mgate.toml", ROUTE);
    let variables = [
        ("MGATE_ROUTE_MY_DEVICES_LISTEN", "mqtts://127.0.0.1:4443"),
        ("MGATE_ROUTE_MY_DEVICES_TLS_CERT", "localhost.pem"),
        ("MGATE_ROUTE_MY_DEVICES_TLS_KEY", "localhost.key"),
        ("MGATE_ROUTE_MY_DEVICES_LIMITS_CONNECTIONS", "5"),
        ("MGATE_ROUTE_MY_DEVICES_MQTT_VERSIONS", "3.1, 5.0"),
        ("MGATE_DRAIN_TIMEOUT", "1m"),
        ("MGATE_DRAIN_TIMOUT", "2m"),
        ("MGATE_PORT", "tcp://10.0.0.1:80"),
        ("HOME", "/"),
    ];
    let environment = environment(&variables);
    let config = Config::load(&path, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.routes[0].listen.to_string(), "mqtts://127.0.0.1:4443");
    assert_eq!(config.routes[0].limits.connections, 5);
    assert_eq!(config.drain_timeout, Duration::from_secs(60));
    assert_eq!(environment.unused().collect::<Vec<_>>(), ["MGATE_DRAIN_TIMOUT"]);
    assert_eq!(environment.used().count(), 6);
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let directory = with_certificates();
    let variables = [
        ("MGATE_ROUTE_MY_DEVICES_UPSTREAM", "tcp://broker"),
        ("MGATE_ROUTE_MY_DEVICES_LIMITS_IDLE_TIMEOUT", "5"),
        ("MGATE_LOG_LEVEL", "loud"),
    ];
    let expected = [
        "MGATE_LOG_LEVEL: log.level: \"loud\" is not a level (error, warn, info, debug, trace, off) or target=level",
        "MGATE_ROUTE_MY_DEVICES_LIMITS_IDLE_TIMEOUT: route.my-devices.limits.idle_timeout: \"5\" is not a time such as \"10s\" or \"500ms\"",
        "MGATE_ROUTE_MY_DEVICES_UPSTREAM: route.my-devices.upstream: unknown scheme \"tcp\" (mqtt, mqtts, mqtt+ws, mqtt+wss, http, https, coap, coaps)",
    ];
    assert_eq!(problems(&directory, ROUTE, &variables), expected);
}

#[test]
fn certificates_and_lists_that_are_over_or_soon_will_be_are_warned_of() {
    let directory = with_certificates();
    let now = UNIX_EPOCH + Now::read().unix;
    let days =
        |from: u64, days| Validity::days(now - Duration::from_secs(from * 24 * 60 * 60), days).unwrap();
    let store = |name: &str, valid| {
        let authority = Authority::create(name, valid).unwrap();
        Store::create(&directory.path().join(name), authority, valid, Existing::Keep).unwrap()
    };
    let mut old = store("old", days(40, 30));
    old.issue_server(&["localhost"], days(40, 30), Existing::Keep).unwrap();
    old.write_revocation_list(days(40, 30)).unwrap();
    let mut young = store("young", days(0, 20));
    let half_a_day = Duration::from_secs(12 * 60 * 60);
    let short = Validity::days(now + half_a_day, 3).unwrap();
    young.issue_server(&["localhost"], short, Existing::Keep).unwrap();
    let warnings = |ca: &str, server: &str, crl: &str| {
        let tls = format!(
            "[route.tls]\ncert = '{server}/localhost.pem'\nkey = '{server}/localhost.key'\n\
             client_ca = '{ca}/ca.pem'\nclient_crl = '{crl}/crl.pem'\n"
        );
        let path = write(&directory, "mgate.toml", &(ROUTE.replace("mqtt://127", "mqtts://127") + &tls));
        let config = load(&path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
        let all = lines(&directory, &config.warnings).into_iter();
        all.filter(|line| line.contains("expire")).collect::<Vec<_>>()
    };
    let [cert, ca, list] = &*warnings("old", "old", "old") else { panic!("three are over") };
    for (line, what) in [
        (cert, "tls.cert: old/localhost.pem: the certificate of "),
        (ca, "tls.client_ca: old/ca.pem: the certificate of "),
        (list, "tls.client_crl: old/crl.pem: the revocation list of "),
    ] {
        assert!(line.contains(what) && line.contains(" expired on 2"), "{line}");
    }
    let [cert, _old_list] = &*warnings("young", "young", "old") else { panic!("two are to be renewed") };
    assert!(cert.contains(" expires in 3 days, on 2"), "{cert}");
}

#[test]
fn file_that_cannot_be_read_is_named_with_its_directory() {
    let directory = with_certificates();
    let path =
        write(&directory, "mgate.toml", &format!("{ROUTE}[policy.a]\ntype = 'static'\nfile = 'none.toml'\n"));
    let Err(problems) = load(&path, &[]) else { panic!("there is no such file") };
    let opened = directory.path().join("none.toml");
    let expected = format!("cannot read {}: No such file", opened.display());
    assert!(problems.to_string().contains(&expected), "{problems}");
}

#[test]
fn what_is_probably_not_meant_is_a_warning() {
    let directory = with_certificates();
    let text = format!("{ROUTE}[authn.spare]\ntype = 'anonymous'\n[mirror.spare]\ntype = 'log'\n");
    let path = write(&directory, "mgate.toml", &text);
    let config = load(&path, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    let expected = [
        "mgate.toml:1: route.my-devices.policies: names no policy: everything is denied",
        "mgate.toml:5: authn.spare: no route names it",
        "mgate.toml:7: mirror.spare: no route names it",
    ];
    assert_eq!(lines(&directory, &config.warnings), expected);
}

#[test]
fn program_ends_with_2_and_shows_all_problems() {
    let directory = with_certificates();
    let path = write(&directory, "mgate.toml", &format!("{ROUTE}colour = 'red'\n[log]\nlevel = 1\n"));
    let file = path.to_str().unwrap();
    for arguments in
        [["check", file].as_slice(), &["check", "-c", file], &["run", file], &["run", "-c", file]]
    {
        let output = mgate(arguments);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{arguments:?}");
        let shown = String::from_utf8(output.stderr).unwrap();
        assert!(shown.contains("mgate.toml:5: route.my-devices.colour: unknown key"), "{shown}");
        assert!(shown.contains("mgate.toml:7: log.level: must be a string, not an integer\n"), "{shown}");
        assert_eq!(shown.lines().count(), 2, "{shown}");
    }
}

#[test]
fn program_shows_problems_as_json() {
    let directory = with_certificates();
    let path = write(&directory, "mgate.toml", "workers = 0\n");
    let output = mgate(&["--json", "check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["problems"][0]["line"], 1);
    assert_eq!(shown["problems"][0]["key"], "workers");
    assert_eq!(shown["problems"][0]["message"], "must be from 1 to 1024");
}

#[test]
fn program_shows_what_a_good_configuration_does() {
    let directory = with_certificates();
    let path = write(&directory, "mgate.toml", ROUTE);
    let output = mgate(&["check", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("my-devices  mqtt://127.0.0.1:1884  mqtt://127.0.0.1:1883  (anonymous)"),
        "{shown}"
    );
    assert!(shown.contains("warning: ") && shown.contains("everything is denied"), "{shown}");
    let output = mgate(&["check", "--json", path.to_str().unwrap()]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["routes"][0]["listen"], "mqtt://127.0.0.1:1884");
}

#[test]
fn program_shows_the_transforms_of_a_route() {
    let directory = with_certificates();
    let rest = "transforms = ['mine']\n[transform.mine]\ntype = 'mountpoint'\nprefix = 'a/'\n";
    let path = write(&directory, "mgate.toml", &format!("{ROUTE}{rest}"));
    let output = mgate(&["check", path.to_str().unwrap()]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("TRANSFORMS") && shown.contains("(anonymous)  mine"), "{shown}");
    let output = mgate(&["check", "--json", path.to_str().unwrap()]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["routes"][0]["transforms"], serde_json::json!(["mine"]));
}

#[test]
fn wrong_arguments_end_with_2_and_a_missing_file_is_named() {
    assert_eq!(mgate(&["run", "--no-such-option"]).status.code(), Some(2));
    for command in ["check", "run"] {
        let output = mgate(&[command, "-c", "one.toml", "another.toml"]);
        let shown = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(shown.contains("'--config <FILE>' cannot be used with '[FILE]'"), "{shown}");
    }
    let output = mgate(&["check", "no-such-file.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.starts_with(b"no-such-file.toml: cannot be read: "));
}

fn load(path: &Path, variables: &[(&str, &str)]) -> Result<Config, mgate::config::Problems> {
    Config::load(path, &environment(variables))
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// What is found wrong with `text`, without the directory that it is in.
fn problems(directory: &TempDir, text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let path = write(directory, "mgate.toml", text);
    match load(&path, variables) {
        Ok(_) => Vec::new(),
        Err(problems) => lines(directory, &problems.0),
    }
}

fn lines(directory: &TempDir, problems: &[mgate::config::Problem]) -> Vec<String> {
    let prefix = format!("{}/", directory.path().display());
    problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
}

fn write(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// A directory with an authority, and with a server's certificate both in it and where the examples want it.
fn with_certificates() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let certificates = directory.path().join("certs");
    // long enough for nobody to be warned
    let valid = Validity::days(UNIX_EPOCH + Now::read().unix, 60).unwrap();
    let authority = Authority::create("test", valid).unwrap();
    let mut store = Store::create(&certificates, authority, valid, Existing::Keep).unwrap();
    store.issue_server(&["localhost"], valid, Existing::Keep).unwrap();
    for name in ["ca.pem", "localhost.pem", "localhost.key"] {
        fs::copy(certificates.join(name), directory.path().join(name)).unwrap();
    }
    fs::write(directory.path().join("introspection.secret"), "secret\n").unwrap();
    fs::write(directory.path().join("device-keys.json"), DEVICE_KEYS).unwrap();
    directory
}

fn mgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mgate")).args(arguments).output().unwrap()
}
const ROUTE: &str =
    "[[route]]\nname = 'my-devices'\nlisten = 'mqtt://127.0.0.1:1884'\nupstream = 'mqtt://127.0.0.1:1883'\n";

#[cfg(feature = "dtls")]
const COAPS: &str = "[[route]]\nname = 'a'\nlisten = 'coaps://127.0.0.1:0'\nupstream = 'coap://a'\n";

/// A route of HTTP that lacks where it listens.
const HTTP_ROUTE: &str = "[[route]]\nname = 'web'\nupstream = 'http://127.0.0.1:80'\n";

/// The public key of RFC 8037 appendix A.2, with a name.
const DEVICE_KEYS: &str = r#"{"keys": [
    {"kty": "OKP", "crv": "Ed25519", "kid": "dev-1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

const FULL: &str = "\
workers = 3
drain_timeout = '1500ms'
[[route]]
name = 'all'
listen = 'mqtt+wss://127.0.0.1'
upstream = 'mqtt+ws://broker.example/ws'
websocket = { path = '/mqtt', origins = ['*'] }
proxy_protocol = { accept = 'any', trusted = ['10.0.0.0/8', 'fd00::/8'] }
tls = { cert = 'localhost.pem', key = 'localhost.key', client_ca = 'ca.pem', client_auth = 'optional' }
limits = { packet_bytes = '64KiB', messages_per_second = 7, idle_timeout = '2m' }
authn = ['certificate', 'anyone']
policies = ['acl']
mirror = 'shown'
[authn.certificate]
type = 'x509'
id = 'san_dns'
[authn.anyone]
type = 'anonymous'
[policy.acl]
type = 'static'
file = 'acl.toml'
[mirror.shown]
type = 'log'
";

/// Whole files.
const MISTAKES: &[(&str, &[&str])] = &[
    ("", &["mgate.toml:1: route: is missing: without a [[route]] nothing is served"]),
    ("route = []", &["mgate.toml:1: route: must not be empty"]),
    ("route = 1", &["mgate.toml:1: route: must be a list of tables, not an integer"]),
    ("[[route]\n", &["mgate.toml:1: unclosed array table, expected `]`"]),
    ("[route]\nname = 'a'\n", &["mgate.toml:1: route: must be a list of tables, not a table"]),
    (
        "[[route]]\n",
        &[
            "mgate.toml:1: route[0].name: is missing",
            "mgate.toml:1: route[0].listen: is missing",
            "mgate.toml:1: route[0].upstream: is missing",
        ],
    ),
    (
        "[[route]]\nname = 'a/b'\nlisten = 'mqt://0.0.0.0'\nupstream = 'wss://b'\n",
        &[
            "mgate.toml:2: route.a/b.name: must be 1 to 64 letters, digits, `-`, `_` or `.`",
            "mgate.toml:3: route.a/b.listen: unknown scheme \"mqt\" (mqtt, mqtts, mqtt+ws, mqtt+wss, http, https, coap, coaps)",
            "mgate.toml:4: route.a/b.upstream: scheme \"wss\" is not supported by this version (mqtt, mqtts, mqtt+ws, mqtt+wss, http, https, coap, coaps)",
        ],
    ),
];

/// What follows a good route of four lines.
/// What a policy of the type `pdp` can speak.
const DIALECTS: &str = "authzen, opa, webhook, broker.auth.v1, fluxmq.auth.v1, mainflux-0.13, magistrala-0.14, magistrala-0.15, supermq-0.16, supermq-0.17";

/// Keys of a policy of the type `pdp`, each with what is wrong with it.
#[cfg(feature = "wasm")]
const WASM_MISTAKES: &[(&str, &[&str])] = &[
    ("", &["file: is missing"]),
    (
        "file = 1\nsha256 = 'abc'\nconfig = 'x'\ndeadline = '2s'\nmemory = '1KiB'\npayload = 'yes'\nrepeatable = 1",
        &[
            "file: must be a string, not an integer",
            "sha256: \"abc\" is not 64 hexadecimal digits",
            "config: must be a table, not a string",
            "deadline: must be from 1ms to 1s",
            "memory: must be from 65536 bytes to 2147483648 bytes",
            "payload: must be a boolean, not a string",
            "repeatable: must be a boolean, not an integer",
        ],
    ),
    (
        "file = 'none.wasm'\npayload = true\nrepeatable = true",
        &["repeatable: answers that may hang on the payload cannot be repeatable"],
    ),
    ("file = 'none.wasm'\nconfig = { a = [1, nan] }", &["config: JSON has no word for nan"]),
];

const PDP_MISTAKES: &[(&str, &[&str])] = &[
    ("", &["dialect: is missing", "url: is missing"]),
    (
        "dialect = 'ext_authz'\nurl = 'http://127.0.0.1'",
        &["dialect: dialect \"ext_authz\" is not supported by this version (DIALECTS)"],
    ),
    (
        "dialect = 'broker.auth.v1'\nurl = 'http://127.0.0.1'\nsession_terms = true",
        &["session_terms: needs \"connect\" among `actions`, and a dialect whose answers can carry terms"],
    ),
    (
        "dialect = 'opa'\nurl = 'http://127.0.0.1/v1/data/mgate'\nbatch = true",
        &["batch: needs the dialect \"authzen\""],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1/decide'\nbatch = true",
        &["batch: needs an address without a path, or with one that ends in /evaluation"],
    ),
    (
        "dialect = 'authzen'\nurl = 'nats://127.0.0.1'\nbatch = 1\nnats = { batch_subject = 'a.>' }",
        &[
            "batch: must be a boolean, not an integer",
            "nats.batch_subject: is no subject such as a.b.c, without wildcards",
        ],
    ),
    ("dialect = 'opa'\nurl = 'nats://h'", &["url: must begin with one of these and ://: http, https"]),
    (
        "dialect = 'supermq-0.16'\nurl = 'https://h'",
        &["url: must begin with one of these and ://: grpc, grpcs"],
    ),
    (
        "dialect = 'authzen'\nurl = 'grpc://h'",
        &["url: must begin with one of these and ://: http, https, nats, tls"],
    ),
    (
        "dialect = 'mainflux-0.13'\nurl = 'grpc://127.0.0.1:1/path'\nnats = { subject = 'a' }",
        &[
            "url: is not an address such as https://host:port/path",
            "nats: has a meaning with an address that begins with nats:// or tls:// only",
        ],
    ),
    (
        "dialect = 'broker.auth.v1'\nurl = 'grpcs://u@127.0.0.1'",
        &["url: credentials must not stand in an address"],
    ),
    (
        "dialect = 'magistrala-0.14'\nurl = 'grpc://127.0.0.1'\ntls = { ca = 'ca.pem' }\nactions = ['connect']",
        &[
            "tls: has no meaning with an address that is not encrypted",
            "actions: the dialect has no word for \"connect\"",
        ],
    ),
    (
        "dialect = 'authzen'\nurl = 'nats://u:p@127.0.0.1'\nheaders = { a = 'b' }\nbearer_token_file = 'token'",
        &[
            "url: credentials must not stand in an address",
            "headers: has no meaning with NATS",
            "bearer_token_file: has no meaning with NATS",
        ],
    ),
    (
        "dialect = 'authzen'\nurl = 'nats://127.0.0.1'\nnats = { subject = 'a.*', invalidations = 'a b', user = 'u', token_file = 'token' }",
        &[
            "nats.subject: is no subject such as a.b.c, without wildcards",
            "nats.invalidations: is no subject such as a.b.c, without wildcards",
            "nats.user: cannot stand beside `token_file`",
            "nats.user: needs `password_file`, as that needs `user`",
        ],
    ),
    (
        "dialect = 'authzen'\nurl = 'nats://127.0.0.1'\nnats = { nkey_file = 'token', queue = 'x' }",
        &[
            "nats.queue: unknown key (known: subject, batch_subject, invalidations, credentials_file, nkey_file, token_file, user, password_file)",
            "nats: is no seed of a user's NKey",
        ],
    ),
    (
        "dialect = 'supermq-0.17'\nurl = 'grpc://127.0.0.1'\npreset = 'emqx'",
        &["preset: has a meaning with dialect = \"webhook\" only"],
    ),
    (
        "dialect = 'cedar'\nurl = 'pdp'",
        &[
            "dialect: unknown dialect \"cedar\" (DIALECTS)",
            "url: must begin with one of these and ://: http, https",
        ],
    ),
    ("dialect = 'authzen'\nurl = 'http://u:p@127.0.0.1'", &["url: credentials must not stand in an address"]),
    (
        "dialect = 'opa'\nurl = 'http://127.0.0.1:8181'",
        &["url: must name a document, as in http://127.0.0.1:8181/v1/data/mgate"],
    ),
    (
        "dialect = 'mainflux-0.13'\nurl = 'http://127.0.0.1?a'",
        &["url: must have no query: the dialect's own paths follow"],
    ),
    (
        "dialect = 'broker.auth.v1'\nurl = 'http://127.0.0.1?a'",
        &["url: must have no query: the dialect's own paths follow"],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\npreset = 'emqx'\nbody = { a = 'b' }",
        &[
            "preset: has a meaning with dialect = \"webhook\" only",
            "body: has a meaning with dialect = \"webhook\" only",
        ],
    ),
    ("dialect = 'webhook'\nurl = 'http://127.0.0.1'", &["preset: is missing"]),
    (
        "dialect = 'webhook'\nurl = 'http://${client_id}/'\npreset = 'magic'\nmethod = 'DELETE'\nformat = 'xml'",
        &[
            "preset: unknown value \"magic\" (emqx, mosquitto-go-auth, vernemq, status)",
            "method: unknown value \"DELETE\" (POST, PUT, GET)",
            "format: unknown value \"xml\" (json, form)",
        ],
    ),
    (
        "dialect = 'webhook'\nurl = 'http://127.0.0.1:${qos}/'\npreset = 'status'\nbody = { a = '${password}', b = '${topic', c = ['a', 'b'], d = '${x}' }\nresponse = 'json'",
        &[
            "url: a client must have no say in scheme, host and port",
            "body.a: ${password} is told to no decision service",
            "body.b: `${` without `}`",
            "body.c: must be one string",
            "body.d: unknown name ${x}",
            "response: can be chosen with preset = \"mosquitto-go-auth\" only",
        ],
    ),
    (
        "dialect = 'webhook'\nurl = 'http://127.0.0.1/'\npreset = 'emqx'\nmethod = 'GET'\nbody = { a = 'b' }",
        &["body: a GET has no body: put names into `url`"],
    ),
    (
        "dialect = 'webhook'\nurl = 'http://127.0.0.1/'\npreset = 'vernemq'\nmethod = 'PUT'\nbody = { a = 'b' }",
        &[
            "method: cannot be chosen with preset = \"vernemq\"",
            "body: cannot be chosen with preset = \"vernemq\"",
        ],
    ),
    (
        "dialect = 'broker.auth.v1'\nurl = 'http://127.0.0.1'\nactions = ['publish', 'connect']\ndeliver = 'ask'",
        &[
            "actions: the dialect has no word for \"connect\"",
            "deliver: the dialect has no word for \"deliver\"",
        ],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\nactions = ['deliver', 'fly']",
        &[
            "actions: unknown value \"deliver\" (connect, publish, subscribe, will, request, observe)",
            "actions: unknown value \"fly\" (connect, publish, subscribe, will, request, observe)",
        ],
    ),
    ("dialect = 'authzen'\nurl = 'http://127.0.0.1'\nactions = []", &["actions: must not be empty"]),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\ntls = { ca = 'ca.pem' }",
        &["tls: has no meaning with an address that is not encrypted"],
    ),
    (
        "dialect = 'authzen'\nurl = 'https://127.0.0.1'\ntls = { ca = 'none.pem', cert = 'localhost.pem', more = 1 }",
        &[
            "tls.ca: cannot read none.pem: No such file or directory (os error 2)",
            "tls.key: is missing",
            "tls.more: unknown key (known: ca, cert, key)",
        ],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\ntimeout = '2m'\nconcurrency = 0",
        &["timeout: must be from 1ms to 1m", "concurrency: must be from 1 to 65535"],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\nheaders = { 'a b' = 'c', d = \"e\\nf\", content-type = 'x', g = ['h', 'i'] }",
        &[
            "headers.a b: is no name of a header",
            "headers.d: has characters that a header cannot have",
            "headers.content-type: is set by mgate itself",
            "headers.g: must be one string",
        ],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\nbearer_token_file = 'empty'",
        &["bearer_token_file: empty: is empty"],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\nbearer_token_file = 'bad'",
        &["bearer_token_file: bad: is no bearer token"],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\nbearer_token_file = 'token'\nheaders = { Authorization = 'Basic abc' }",
        &["bearer_token_file: cannot stand beside the header `authorization`"],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\ncache = { allow_ttl = '2m', deny_ttl = '2m', bytes = 1, more = 2 }",
        &[
            "cache.allow_ttl: must not be more than `max_ttl`",
            "cache.deny_ttl: must be from 0s to 1m",
            "cache.bytes: must be from 65536 bytes to 68719476736 bytes",
            "cache.more: unknown key (known: max_ttl, allow_ttl, grace, deny_ttl, bytes)",
        ],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\non_error = 'stale'",
        &["on_error: \"stale\" needs `cache.grace`: for how long"],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\ncache = { grace = '30s' }",
        &["cache.grace: needs on_error = \"stale\""],
    ),
    (
        "dialect = 'authzen'\nurl = 'http://127.0.0.1'\non_error = 'allow'\ntimout = '1s'",
        &[
            "on_error: unknown value \"allow\" (abstain, deny, stale)",
            "timout: unknown key (did you mean `timeout`?)",
        ],
    ),
];

/// Keys of policies of the type `pdp` that are right.
const PDPS: &[&str] = &[
    "dialect = 'authzen'\nurl = 'http://127.0.0.1:8181'",
    "dialect = 'authzen'\nurl = 'https://pdp.example/tenants/1/evaluation'\ntls = { ca = 'ca.pem', cert = 'localhost.pem', key = 'localhost.key' }\nbearer_token_file = 'token'\nheaders = { x-key = 'k' }",
    "dialect = 'opa'\nurl = 'http://localhost:8181/v1/data/mgate'\ndeliver = 'ask'\nactions = ['connect', 'publish', 'will', 'subscribe']",
    "dialect = 'webhook'\nurl = 'http://127.0.0.1/acl/${client_id}?t=${topic}'\npreset = 'status'\nmethod = 'GET'",
    "dialect = 'webhook'\nurl = 'http://127.0.0.1/acl'\npreset = 'emqx'\nbody = { clientid = '${clientid}', channel = '${claims.channel}' }",
    "dialect = 'webhook'\nurl = 'http://127.0.0.1/acl'\npreset = 'mosquitto-go-auth'\nformat = 'form'\nresponse = 'text'\ndeliver = 'ask'",
    "dialect = 'webhook'\nurl = 'http://127.0.0.1/hooks'\npreset = 'vernemq'",
    "dialect = 'broker.auth.v1'\nurl = 'http://127.0.0.1:9000/base'\ntimeout = '2s'\nconcurrency = 8\ndeliver = 'inherit'",
    "dialect = 'mainflux-0.13'\nurl = 'http://127.0.0.1:8989'\ncache = { allow_ttl = '5s', max_ttl = '5s', deny_ttl = '0s', bytes = '1MiB', grace = '30s' }\non_error = 'stale'",
    "dialect = 'mainflux-0.13'\nurl = 'grpc://127.0.0.1:8183'\ndeliver = 'ask'",
    "dialect = 'broker.auth.v1'\nurl = 'grpcs://auth.example:7016'\ntls = { ca = 'ca.pem', cert = 'localhost.pem', key = 'localhost.key' }\nbearer_token_file = 'token'",
    "dialect = 'fluxmq.auth.v1'\nurl = 'grpc://[::1]:7016/'",
    "dialect = 'magistrala-0.14'\nurl = 'grpc://localhost:7000'",
    "dialect = 'magistrala-0.15'\nurl = 'grpc://localhost:7000'",
    "dialect = 'supermq-0.16'\nurl = 'grpc://localhost:7005'\nactions = ['publish']",
    "dialect = 'supermq-0.17'\nurl = 'grpc://localhost:7005'\nheaders = { x-key = 'k' }",
    "dialect = 'authzen'\nurl = 'nats://127.0.0.1:4222'",
    "dialect = 'authzen'\nurl = 'nats://127.0.0.1'\nbatch = true\nnats = { batch_subject = 'a.b' }",
    "dialect = 'authzen'\nurl = 'https://pdp.example/v1/evaluation'\nbatch = true",
    "dialect = 'authzen'\nurl = 'https://pdp.example/'\nbatch = true",
    "dialect = 'opa'\nurl = 'http://localhost/v1/data/mgate'\nbatch = false",
    "dialect = 'authzen'\nurl = 'tls://nats.example'\nnats = { subject = 'a.b', invalidations = 'a.c', user = 'mgate', password_file = 'token' }\ntls = { ca = 'ca.pem' }",
];

const MISTAKES_AFTER_ROUTE: &[(&str, &[&str])] = &[
    ("listn = 1", &["mgate.toml:5: route.my-devices.listn: unknown key (did you mean `listen`?)"]),
    ("limits = 7", &["mgate.toml:5: route.my-devices.limits: must be a table, not an integer"]),
    (
        "limits = { packet_bytes = '10KB', conections = 5 }",
        &[
            "mgate.toml:5: route.my-devices.limits.packet_bytes: \"10KB\" is not a number of bytes such as 65536 or \"256KiB\"",
            "mgate.toml:5: route.my-devices.limits.conections: unknown key (did you mean `connections`?)",
        ],
    ),
    (
        "limits = { connections = 0, stall_timeout = '0s', idle_timeout = 5, connect_timeout = 1.5 }",
        &[
            "mgate.toml:5: route.my-devices.limits.connections: must be from 1 to 10000000",
            "mgate.toml:5: route.my-devices.limits.connect_timeout: must be a string such as \"10s\", not 1.5",
            "mgate.toml:5: route.my-devices.limits.stall_timeout: must be from 10ms to 1d",
            "mgate.toml:5: route.my-devices.limits.idle_timeout: must be a string such as \"10s\", not an integer",
        ],
    ),
    ("authn = ['users']", &["mgate.toml:5: route.my-devices.authn: no [authn.users] in this file"]),
    (
        "policies = [\n  'acl',\n  1,\n]",
        &[
            "mgate.toml:6: route.my-devices.policies: no [policy.acl] in this file",
            "mgate.toml:7: route.my-devices.policies: must be a string, not an integer",
        ],
    ),
    (
        "transforms = ['mine', 'names']\n[transform.mine]\ntype = 'mountpoint'\nprefix = 'tenants/${tenant}'",
        &[
            "mgate.toml:5: route.my-devices.transforms: no [transform.names] in this file",
            "mgate.toml:8: transform.mine.prefix: \"tenants/${tenant}\" does not end with /: it would begin other clients' topics too",
        ],
    ),
    (
        "[transform.a]\ntype = 'mountpoint'\n[transform.b]\ntype = 'mountpoint'\nprefix = 't-${tenant}/'\nrules = []",
        &[
            "mgate.toml:5: transform.a.prefix: is missing",
            "mgate.toml:9: transform.b.prefix: \"t-${tenant}\": a variable is written `${name}` and takes a whole level",
            "mgate.toml:10: transform.b.rules: unknown key (known: type, prefix)",
        ],
    ),
    (
        "[transform.a]\ntype = 'rewrite'\nrules = [\n{ from = 'a/#/b', to = 'x' },\n{ from = 'a/+', to = 'b/${2}', actions = ['connect'] },\n{ form = 'a' },\n]\n[transform.b]\ntype = 'rewrite'\nrules = []\n[transform.c]\ntype = 'rewrites'",
        &[
            "mgate.toml:8: transform.a.rules[0].from: \"a/#/b\": wildcard or U+0000 where none may stand in a topic",
            "mgate.toml:9: transform.a.rules[1].to: \"b/${2}\": ${2} stands for nothing: \"from\" has 1",
            "mgate.toml:9: transform.a.rules[1].actions: unknown value \"connect\" (publish, will, subscribe, deliver)",
            "mgate.toml:10: transform.a.rules[2].from: is missing",
            "mgate.toml:10: transform.a.rules[2].to: is missing",
            "mgate.toml:10: transform.a.rules[2].form: unknown key (did you mean `from`?)",
            "mgate.toml:14: transform.b.rules: must not be empty",
            "mgate.toml:16: transform.c.type: unknown type \"rewrites\" (mountpoint, rewrite, senml, inflate, jws, wasm)",
        ],
    ),
    (
        "[transform.a]\ntype = 'senml'\nmode = 'fix'\nformat = 'xml'\non_error = 'drop'\ntopics = ['a/#/b']\nactions = ['subscribe']\n[transform.b]\ntype = 'senml'\nmode = 'resolve'\ntopics = []\nactions = ['publish', 'deliver']",
        &[
            "mgate.toml:7: transform.a.mode: unknown value \"fix\" (validate, resolve)",
            "mgate.toml:8: transform.a.format: unknown value \"xml\" (auto, json, cbor)",
            "mgate.toml:9: transform.a.on_error: unknown value \"drop\" (refuse, pass, count)",
            "mgate.toml:10: transform.a.topics: \"a/#/b\": wildcard or U+0000 where none may stand in a topic",
            "mgate.toml:11: transform.a.actions: unknown value \"subscribe\" (publish, will, deliver)",
            "mgate.toml:15: transform.b.topics: must not be empty",
            "mgate.toml:16: transform.b.actions: deliveries are not resolved: their times are relative to one that is over",
        ],
    ),
    (
        "[transform.a]\ntype = 'inflate'\nencoding = 'gzip'\nmax_bytes = 0\nmax_ratio = 10001\n[transform.b]\ntype = 'inflate'\ndetect = false\non_error = 'count'\n[transform.c]\ntype = 'inflate'\ndetect = false\nencoding = 'br'",
        &[
            "mgate.toml:7: transform.a.encoding: has no use unless `detect` is false",
            "mgate.toml:8: transform.a.max_bytes: must be from 1 bytes to 268435456 bytes",
            "mgate.toml:9: transform.a.max_ratio: must be from 1 to 10000",
            "mgate.toml:10: transform.b.encoding: is missing, and `detect` is false",
            "mgate.toml:13: transform.b.on_error: unknown value \"count\" (refuse, pass)",
            "mgate.toml:17: transform.c.encoding: unknown value \"br\" (gzip, zlib, deflate)",
        ],
    ),
    (
        "[transform.a]\ntype = 'jws'\nrequire = 1\n[transform.b]\ntype = 'jws'\nalgorithms = ['HS256']\njwks_file = 'device-keys.json'\nactions = ['deliver']\nkey_id = 'client_id'\n[transform.c]\ntype = 'jws'\nalgorithms = ['none']\nsecret_file = 'introspection.secret'\nkey_id = 'principal'\njwks_url = 'https://127.0.0.1'\n[transform.d]\ntype = 'jws'\nalgorithms = ['EdDSA']\njwks_file = 'nameless-keys.json'\nkey_id = 'client_id'",
        &[
            "mgate.toml:5: transform.a.algorithms: is missing",
            "mgate.toml:5: transform.a.jwks_file: is missing, and so are `public_key_file` and `secret_file`",
            "mgate.toml:7: transform.a.require: must be a boolean, not an integer",
            "mgate.toml:10: transform.b.algorithms: HS256 needs `secret_file`",
            "mgate.toml:11: transform.b.jwks_file: device-keys.json: has no key for any of `algorithms`",
            "mgate.toml:12: transform.b.actions: deliveries are not signed by the client, whom `key_id` names",
            "mgate.toml:16: transform.c.algorithms: unknown value \"none\" (RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, HS256, HS384, HS512)",
            "mgate.toml:18: transform.c.key_id: needs `jwks_file`, whose keys have names",
            "mgate.toml:19: transform.c.jwks_url: unknown key (known: type, algorithms, jwks_file, public_key_file, secret_file, key_id, topics, actions, require, unwrap)",
            "mgate.toml:24: transform.d.key_id: needs a `kid` in each key of `jwks_file`",
        ],
    ),
    ("mirror = 'bus'", &["mgate.toml:5: route.my-devices.mirror: no [mirror.bus] in this file"]),
    (
        "mqtt = { versions = ['4'], on_denied_publish = 'drop' }",
        &[
            "mgate.toml:5: route.my-devices.mqtt.versions: unknown value \"4\" (3.1, 3.1.1, 5.0)",
            "mgate.toml:5: route.my-devices.mqtt.on_denied_publish: unknown value \"drop\" (ack, disconnect)",
        ],
    ),
    ("mqtt = { versions = [] }", &["mgate.toml:5: route.my-devices.mqtt.versions: must not be empty"]),
    (
        "tls = { cert = 'localhost.pem', key = 'localhost.key' }",
        &["mgate.toml:5: route.my-devices.tls: has no use with mqtt"],
    ),
    (
        "websocket = { path = 'mqtt' }\nupstream_tls = { ca = 'ca.pem' }",
        &[
            "mgate.toml:5: route.my-devices.websocket: has no use with mqtt",
            "mgate.toml:5: route.my-devices.websocket.path: \"mqtt\" does not begin with /",
            "mgate.toml:6: route.my-devices.upstream_tls: has no use with mqtt",
        ],
    ),
    (
        "proxy_protocol = { accept = 'v3', trusted = ['10.0.0.1/8'] }",
        &[
            "mgate.toml:5: route.my-devices.proxy_protocol.accept: unknown value \"v3\" (v1, v2, any)",
            "mgate.toml:5: route.my-devices.proxy_protocol.trusted: \"10.0.0.1/8\": the address has bits set behind its prefix",
        ],
    ),
    (
        "proxy_protocol = { accept = 'v2', trusted = [] }",
        &["mgate.toml:5: route.my-devices.proxy_protocol.trusted: must not be empty"],
    ),
    (
        "authn = ['x509']\n[authn.x509]\ntype = 'x509'\nid = 'common_name'",
        &[
            "mgate.toml:5: route.my-devices.authn: \"x509\" needs client certificates: set `tls.client_ca`",
            "mgate.toml:8: authn.x509.id: unknown value \"common_name\" (cn, san_dns, san_uri, fingerprint)",
        ],
    ),
    (
        "[authn.users]\ntype = 'ldap'\n[authn.others]\ntype = 'password'",
        &[
            "mgate.toml:6: authn.users.type: unknown value \"ldap\" (anonymous, introspection, jwt, password, psk, remote, x509)",
            "mgate.toml:7: authn.others.file: is missing",
        ],
    ),
    (
        "[authn.users]\ntype = 'password'\nfile = 'none.toml'",
        &["mgate.toml:7: authn.users.file: cannot read none.toml: No such file or directory (os error 2)"],
    ),
    (
        "[policy.acl]\ntype = 'magic'\n[policy.third]\ntype = 'static'",
        &[
            "mgate.toml:6: policy.acl.type: unknown type \"magic\" (static, jwt_scopes, pdp, wasm)",
            "mgate.toml:7: policy.third.file: is missing",
        ],
    ),
    ("[mirror.bus]\ntype = 'kafka'", &["mgate.toml:6: mirror.bus.type: unknown type \"kafka\" (log, nats)"]),
    ("[mirror.bus]\ntype = 'nats'\ndialect = 'plain'", &["mgate.toml:5: mirror.bus.url: is missing"]),
    (
        "[mirror.bus]\ntype = 'nats'\ndialect = 'plain'\nurl = 'http://127.0.0.1'\nmode = 'spool'\n\
         stream = { name = 'a' }",
        &[
            "mgate.toml:5: mirror.bus.spool.dir: is missing",
            "mgate.toml:8: mirror.bus.url: must begin with nats:// or tls://",
            "mgate.toml:10: mirror.bus.stream: needs mode = \"acked\", or jetstream = true",
        ],
    ),
    (
        "[mirror.bus]\ntype = 'nats'\ndialect = 'plain'\nservers = []\nspool = { dir = 'a' }\njetstream = true",
        &[
            "mgate.toml:8: mirror.bus.servers: must not be empty",
            "mgate.toml:9: mirror.bus.spool: needs mode = \"spool\"",
            "mgate.toml:10: mirror.bus.jetstream: needs mode = \"spool\" or \"acked\"",
        ],
    ),
    (
        "[mirror.bus]\ntype = 'nats'\ndialect = 'plain'\nurl = 'nats://127.0.0.1'\nmode = 'acked'\n\
         jetstream = false\nstream = { name = 'a.b', replicas = 3 }\nuser = 'mgate'",
        &[
            "mgate.toml:10: mirror.bus.jetstream: cannot be off with mode = \"acked\"",
            "mgate.toml:11: mirror.bus.stream: needs mode = \"acked\", or jetstream = true",
            "mgate.toml:12: mirror.bus.user: needs `password_file`, as that needs `user`",
        ],
    ),
    (
        "[mirror.bus]\ntype = 'nats'\ndialect = 'plain'\nurl = 'nats://127.0.0.1'\nmode = 'acked'\n\
         stream = { name = 'a.b', replicas = 3 }",
        &[
            "mgate.toml:10: mirror.bus.stream.name: is no name of a stream: no spaces, points, slashes, * and >",
            "mgate.toml:10: mirror.bus.stream.replicas: needs `create = true`: a stream that is there is not changed",
        ],
    ),
    (
        "[admin]\ntoken_file = 'localhost.key'",
        &[
            "mgate.toml:5: admin.listen: is missing",
            "mgate.toml:6: admin.token_file: localhost.key: must hold at least 16 visible ASCII characters",
        ],
    ),
    (
        "[admin]\nlisten = 'http://0.0.0.0:9090'\nport = 1",
        &[
            "mgate.toml:5: admin.token_file: is missing: others than this machine reach 0.0.0.0:9090",
            "mgate.toml:7: admin.port: unknown key (known: listen, token_file)",
        ],
    ),
    (
        "[admin]\nlisten = 'https://127.0.0.1:9090'\ntoken_file = 'none'",
        &[
            "mgate.toml:6: admin.listen: \"https://127.0.0.1:9090\" is not http://host:port",
            "mgate.toml:7: admin.token_file: cannot read none: No such file or directory (os error 2)",
        ],
    ),
    (
        "[[route]]\nname = 'My_devices'\nlisten = 'mqtt://0.0.0.0:1884'\nupstream = 'mqtt://b'",
        &[
            "mgate.toml:6: route.My_devices.name: is too like the name of route my-devices",
            "mgate.toml:7: route.My_devices.listen: route my-devices listens there",
        ],
    ),
    (
        "[[route]]\nname = 'b'\nlisten = 'mqtts://127.0.0.1'\nupstream = 'mqtts://b'\nupstream_tls = { ca = 'localhost.key' }",
        &[
            "mgate.toml:5: route.b.tls: is missing: mqtts needs a certificate",
            "mgate.toml:9: route.b.upstream_tls.ca: localhost.key: no certificate found (PEM is expected)",
        ],
    ),
    (
        "[[route]]\nname = 'b'\nlisten = 'mqtt+ws://127.0.0.1/mqtt'\nupstream = 'mqtt://b/mqtt'",
        &[
            "mgate.toml:7: route.b.listen: the path belongs into `websocket.path`",
            "mgate.toml:8: route.b.upstream: \"b/mqtt\" is not host:port",
        ],
    ),
    (
        "[[route]]\nname = 'b'\nlisten = 'mqtts://127.0.0.1'\nupstream = 'mqtt://b'\n[route.tls]\ncert = 'localhost.pem'\nkey = 'certs/ca.key'\nclient_auth = 'required'\nciphers = ['RC4']\nmin_version = '1.1'",
        &[
            "mgate.toml:11: route.b.tls.key: certs/ca.key: private key does not belong to the certificate",
            "mgate.toml:12: route.b.tls.client_auth: needs `client_ca`: whose certificates are good",
            "mgate.toml:13: route.b.tls.ciphers: unknown cipher suite \"RC4\"",
            "mgate.toml:14: route.b.tls.min_version: unknown value \"1.1\" (1.2, 1.3)",
        ],
    ),
    (
        "[[route]]\nname = 'b'\nlisten = 'mqtts://127.0.0.1'\nupstream = 'mqtt://b'\n[route.tls]\nclient_ca = 'ca.pem'\nclient_auth = 'none'\n[[route.tls.certificates]]\ncert = 'localhost.pem'\n[[route.tls.certificates]]\ncert = 'ca.key'\nkey = 'localhost.key'",
        &[
            "mgate.toml:11: route.b.tls.client_auth: is \"none\", but `client_ca` says whose certificates are good",
            "mgate.toml:12: route.b.tls.certificates.localhost.pem.key: is missing",
            "mgate.toml:15: route.b.tls.certificates.ca.key.cert: cannot read ca.key: No such file or directory (os error 2)",
        ],
    ),
];

const MANY_MISTAKES: &str = "\
workers = 0
[[route]]
name = 'a'
listen = 'mqtts://127.0.0.1:1'
upstream = 'mqtt://b'
tls = { cert = 'localhost.pem', key = 'localhost.key' }
authn = ['users']
policies = ['acl']
[authn.users]
type = 'password'
file = 'users.toml'
[policy.acl]
type = 'static'
file = 'acl.toml'
";

const MANY_FOUND: &[&str] = &[
    "MGATE_WORKERS: workers: \"none\" is not a whole number",
    "users.toml:2: users.dev-1.password: not a PHC string; make one with `mgate passwd`",
    "acl.toml:1: version: must be 1",
    "acl.toml:2: statements.bad.actions: is missing",
    "acl.toml:4: statements.bad.effect: unknown value \"permit\" (allow, deny)",
    "acl.toml:5: statements.bad.principals: \"dev-1\": a principal is `*`, `client:<id>` or `group:<name>`",
    "acl.toml:6: statements.bad.resources: \"topic:a/${nobody}\": unknown variable `${nobody}`",
    "acl.toml:6: statements.bad.resources: \"topic:a/#/b\": wildcard or U+0000 where none may stand in a topic",
    "acl.toml:7: statements.bad.conditions.cidr.peer: \"10.0.0.0/33\": prefix length out of range",
    "acl.toml:7: statements.bad.conditions.qos_max: must be from 0 to 2",
    "acl.toml:7: statements.bad.conditions.time.not_before: \"soon\" is not a time such as \"2026-01-31T18:00:00Z\"",
    "acl.toml:7: statements.bad.conditions.time.daily_utc: \"25:00-26:00\" is not a time of the day such as \"06:00-22:00\"",
    "acl.toml:8: statements[1]: `topic:` resources say nothing about the action `connect`",
    "mgate.toml:6: route.a.tls.key: localhost.key: no unencrypted private key found (PEM is expected)",
];

const BAD_POLICY: &str = "\
version = 2
[[statements]]
sid = 'bad'
effect = 'permit'
principals = ['dev-1']
resources = ['topic:a/${nobody}', 'topic:a/#/b']
conditions = { qos_max = 3, cidr = { peer = ['10.0.0.0/33'] }, time = { daily_utc = '25:00-26:00', not_before = 'soon' }, string_equals = { rank = 'x' } }
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect']
resources = ['topic:a']
";

const POLICY_TOML: &str = "\
version = 1
[[statements]]
sid = 'own'
effect = 'allow'
principals = ['*']
actions = ['publish']
resources = ['topic:a/${principal}']
conditions = { tls = true, retain = false, qos_max = 1, listener = ['my-devices'], string_equals = { 'cert.cn' = 'dev-1' }, cidr = { peer = ['::1'] }, time = { not_before = 2026-01-31T18:00:00Z, daily_utc = '22:00-06:00' } }
";

const POLICY_JSON: &str = r#"{
  "version": 1,
  "statements": [
    {
      "sid": "own",
      "effect": "allow",
      "principals": ["*"],
      "actions": ["publish"],
      "resources": ["topic:a/${principal}"],
      "conditions": { "tls": true, "qos_max": 1, "string_equals": { "cert.cn": ["dev-1", "dev-2"] } }
    }
  ]
}
"#;

const POLICY_YAML: &str = "\
version: 1
statements:
  - sid: own
    effect: allow
    principals: ['*']
    actions: [publish]
    resources:
      - topic:a/${principal}
    conditions:
      retain: false
      time: { not_after: 2026-01-31T18:00:00Z }
";
