//! Plug-ins: the examples as people build them, and modules that go wrong, in front of clients and a broker.

#![cfg(feature = "wasm")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::broker::Broker;
use support::packets::{BOTH, PINGREQ, PUBACK, Version, connack, connect, publish, publish_with, subscribe};
use support::peer::{Peer, Upstream};
use support::process::Process;
use support::{ALLOW_ALL, Files, Mgate, PASSWORD, PASSWORD_HASH, manifest, mgate, wait_until};

#[test]
fn example_in_rust_gives_each_client_its_own_topics() {
    let (files, broker) = (files(MAY_CONNECT), Broker::mosquitto());
    build_rust(&files.path("policy.wasm"));
    let text = config(broker.port, "config = { root = 'devices' }")
        .replace("policies", "authn = ['users']\npolicies")
        + "[authn.users]\ntype = 'password'\nfile = 'users.toml'\n";
    let packets = ["--log-level", "info,mgate::packet=debug"];
    let mgate = Mgate::start_with(&files, &text, &packets);
    let mut subscriber = mosquitto("mosquitto_sub", &mgate, "sub");
    let (_subscriber, received) =
        Process::start_with_stdout(subscriber.args(["-C", "1", "-v", "-t", "devices/dev-1/#", "-q", "1"]));
    mgate.log.wait_for("SUBACK");
    let denied =
        said(mosquitto("mosquitto_pub", &mgate, "pub").args(["-t", "devices/dev-10/data", "-m", "x"]));
    assert!(denied.contains("Not authorized"), "{denied}");
    let allowed =
        said(mosquitto("mosquitto_pub", &mgate, "pub").args(["-t", "devices/dev-1/data", "-m", "21"]));
    assert_eq!(allowed, "");
    assert_eq!(received.wait_for("devices"), "devices/dev-1/data 21");
    mgate.log.wait_for("the topic belongs to somebody else");
}

#[test]
fn example_in_c_denies_what_is_no_number() {
    let (files, upstream) = (files(ALLOW_ALL), Upstream::start());
    build_c(&files.path("policy.wasm"));
    let mgate = Mgate::start(&files, &config(upstream.port(), "payload = true\nconfig = { max = 100 }"));
    let (mut client, mut behind) = session(&mgate, &upstream, "dev-1");
    for good in ["0", "21", "100"] {
        client.send(&publish(Version::V5, "a/b", good));
        behind.expect(&publish(Version::V5, "a/b", good));
    }
    for bad in ["101", "", "-1", "21 ", "hot", "4294967296", "00000000000000000000021"] {
        assert_eq!(published(&mut client, "a/b", bad), 0x87, "{bad}");
    }
    client.send(&PINGREQ);
    behind.expect(&PINGREQ);
}

#[test]
fn plugin_that_looks_at_payloads_must_be_shown_them() {
    let (files, upstream) = (files(ALLOW_ALL), Upstream::start());
    build_c(&files.path("policy.wasm"));
    let mgate = Mgate::start(&files, &config(upstream.port(), "config = { max = 100 }"));
    let (mut client, _behind) = session(&mgate, &upstream, "dev-1");
    assert_eq!(published(&mut client, "a/b", "21"), 0x83);
    mgate.log.wait_for("the plug-in says that it cannot decide");
}

#[test]
fn example_configuration_is_good_with_the_plugin_and_bad_without() {
    let files = Files::new(&[]);
    for name in ["wasm.toml", "acl.toml", "users.toml"] {
        fs::copy(manifest("examples").join(name), files.path(name)).unwrap();
    }
    let file = files.path("wasm.toml");
    let check = || mgate(&["check", file.to_str().unwrap()]).output().unwrap();
    let Output { status, stderr, .. } = check();
    let shown = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{shown}");
    let place = "wasm.toml:29: policy.own_topics.file: cannot be read: No such file";
    assert!(shown.contains(place), "{shown}");
    fs::create_dir(files.path("wasm-policy-rust")).unwrap();
    build_rust(&files.path("wasm-policy-rust/policy.wasm"));
    assert_eq!(check().status.code(), Some(0));
}

#[test]
fn explanation_has_the_words_of_the_plugin() {
    let files = files(ALLOW_ALL);
    build_rust(&files.path("policy.wasm"));
    let file = files.write("mgate.toml", &config(1, "config = { root = 'devices' }"));
    let question =
        ["--route", "devices", "--principal", "dev-1", "--action", "publish", "--topic", "devices/dev-2/a"];
    let mut command = mgate(&["policy", "explain", "-c"]);
    let output = command.arg(file).args(question).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("the topic belongs to somebody else"), "{shown}");
}

#[test]
fn configuration_that_a_plugin_refuses_is_a_problem_with_its_words() {
    let files = files(ALLOW_ALL);
    build_c(&files.path("policy.wasm"));
    let file = files.write("mgate.toml", &config(1, "config = { max = 'many' }"));
    let output = mgate(&["check", file.to_str().unwrap()]).output().unwrap();
    let shown = String::from_utf8(output.stderr).unwrap();
    let expected =
        "policy.plugin.file: it refuses its configuration with code 1: config.max must be a whole number";
    assert!(output.status.code() == Some(2) && shown.contains(expected), "{shown}");
}

#[test]
fn new_file_decides_while_sessions_live_and_a_bad_one_changes_nothing() {
    let (files, upstream) = (files(ALLOW_ALL), Upstream::start());
    replace(&files, &answering("i64.const 1"));
    let mgate = Mgate::start(&files, &config(upstream.port(), ""));
    let (mut client, mut behind) = session(&mgate, &upstream, "dev-1");
    client.send(&publish(Version::V5, "a", "1"));
    behind.expect(&publish(Version::V5, "a", "1"));
    replace(&files, &answering(&at_words(&[(*b"publ", "(return (i64.const 2))".to_owned())], "i64.const 1")));
    mgate.log.wait_for("the plug-in was replaced");
    assert_eq!(published(&mut client, "a", "2"), 0x87);
    replace(&files, b"\0asm\x01\0\0\0 and nothing more");
    mgate.log.wait_for("the one before stays");
    assert_eq!(published(&mut client, "a", "3"), 0x87);
    replace(&files, &answering("i64.const 1"));
    wait_until("it is replaced again", || mgate.log.text().matches("the plug-in was replaced").count() == 2);
    client.send(&publish(Version::V5, "a", "4"));
    behind.expect(&publish(Version::V5, "a", "4"));
}

#[test]
fn route_is_closed_until_its_plugin_is_there() {
    let (files, upstream) = (files(ALLOW_ALL), Upstream::start());
    let mgate = Mgate::start(&files, &config(upstream.port(), ""));
    nobody_gets_in(&mgate, &upstream);
    replace(&files, &answering("i64.const 1"));
    mgate.log.wait_for("the plug-in was loaded");
    session(&mgate, &upstream, "dev-1");
}

#[test]
fn plugin_that_fails_denies_that_question_and_harms_nobody() {
    for (failing, words) in [
        ("unreachable", "unreachable"),
        ("(loop $again (br $again))", "no answer within 100 ms"),
        ("(drop (call $evaluate (local.get 0) (local.get 1)))", "call stack exhausted"),
        ("(loop $again (drop (memory.grow (i32.const 1))) (br $again))", "growing memory"),
        ("(return (i64.const -1))", "outside of its memory"),
        ("(return (i64.const 0x40000000008))", "not a JSON object"),
    ] {
        let (files, upstream) = (files(ALLOW_ALL), Upstream::start());
        replace(&files, &answering(&failing_at_boom(failing)));
        let mgate = Mgate::start(&files, &config(upstream.port(), "deadline = '100ms'"));
        let (mut client, mut behind) = session(&mgate, &upstream, "dev-1");
        let (mut other, mut behind_other) = session(&mgate, &upstream, "dev-2");
        assert_eq!(published(&mut client, "boom", "x"), 0x83, "{failing}");
        mgate.log.wait_for(words);
        for (client, behind) in [(&mut client, &mut behind), (&mut other, &mut behind_other)] {
            client.send(&publish(Version::V5, "a", "x"));
            behind.expect(&publish(Version::V5, "a", "x"));
        }
    }
}

#[test]
fn example_in_c_changes_denies_and_drops_what_mosquitto_publishes() {
    let (files, broker) = (files(ALLOW_ALL), Broker::mosquitto());
    build_c(&files.path("policy.wasm"));
    let keys = "payload = true\nconfig = { max = 100 }";
    let text = config(broker.port, keys).replace("policies", "transforms = ['trimmed']\npolicies")
        + &transform("trimmed", keys);
    let mgate = Mgate::start_with(&files, &text, &["--log-level", "info,mgate::packet=debug"]);
    let mut subscriber = mosquitto("mosquitto_sub", &mgate, "sub");
    let (_subscriber, received) = Process::start_with_stdout(subscriber.args(["-v", "-t", "t/#", "-q", "1"]));
    mgate.log.wait_for("SUBACK");
    let publish = |topic: &str, message: &str| {
        said(mosquitto("mosquitto_pub", &mgate, "pub").args(["-t", topic, "-m", message]))
    };
    assert_eq!(publish("t/1", " 21\n"), "");
    for denied in ["12345678901234567", "hot", " 101 "] {
        assert!(publish("t/2", denied).contains("Not authorized"), "{denied}");
    }
    mgate.log.wait_for("transform trimmed: too long for a number");
    assert_eq!(publish("t/3", ""), "");
    mgate.log.wait_for("there is nothing in it");
    assert_eq!(publish("t/4", "22"), "");
    received.wait_for("t/4");
    assert_eq!(received.lines(), ["t/1 21", "t/4 22"]);
}

#[test]
fn transform_that_fails_denies_that_packet_and_harms_nobody() {
    for (failing, words) in [
        ("unreachable", "unreachable"),
        ("(loop $again (br $again))", "no answer within 100 ms"),
        ("(return (i64.const 0x40000000008))", "not a JSON object"),
        ("(return (i64.const 7))", "cannot decide"),
    ] {
        let (files, upstream) = (files(ALLOW_ALL), Upstream::start());
        replace(&files, &transforming(&failing_at_boom(failing)));
        let mgate = Mgate::start(&files, &transformed(upstream.port(), "deadline = '100ms'"));
        let (mut client, mut behind) = session(&mgate, &upstream, "dev-1");
        let (mut other, mut behind_other) = session(&mgate, &upstream, "dev-2");
        assert_eq!(published(&mut client, "boom", "x"), 0x83, "{failing}");
        mgate.log.wait_for(words);
        assert_eq!(client.subscribe(Version::V5, &[("boom", 0)]), [0x83]);
        for (client, behind) in [(&mut client, &mut behind), (&mut other, &mut behind_other)] {
            client.send(&publish(Version::V5, "a", "x"));
            behind.expect(&publish(Version::V5, "a", "x"));
        }
    }
}

#[test]
fn transform_changes_topics_filters_and_logins() {
    let (files, upstream) = (files(ALLOW_ALL), Upstream::start());
    replace(&files, &renaming());
    let mgate = Mgate::start(&files, &transformed(upstream.port(), ""));
    for version in BOTH {
        let mut client = mgate.dial();
        client.send(&connect(version, "dev-1").user("eve", PASSWORD).bytes());
        let mut behind = upstream.accept();
        behind.expect(&connect(version, "new").user("eve", PASSWORD).bytes());
        behind.send(&connack(version));
        client.expect(&connack(version));
        client.send(&publish(version, "a", "x"));
        behind.expect(&publish(version, "b", "x"));
        behind.send(&publish(version, "a", "x"));
        client.expect(&publish(version, "b", "x"));
        client.send(&subscribe(version, 7, &[("a/#", 1)]));
        behind.expect(&subscribe(version, 7, &[("b/#", 1)]));
    }
}

#[test]
fn route_is_closed_until_its_transform_is_there_and_goes_on_with_a_new_one() {
    let (files, upstream) = (files(ALLOW_ALL), Upstream::start());
    let mgate = Mgate::start(&files, &transformed(upstream.port(), ""));
    nobody_gets_in(&mgate, &upstream);
    replace(&files, &transforming("i64.const 0"));
    mgate.log.wait_for("the plug-in was loaded");
    let (mut client, mut behind) = session(&mgate, &upstream, "dev-1");
    client.send(&publish(Version::V5, "a", "x"));
    behind.expect(&publish(Version::V5, "a", "x"));
    replace(&files, &transforming("i64.const 2"));
    mgate.log.wait_for("the plug-in was replaced");
    assert_eq!(published(&mut client, "a", "x"), 0x87);
}

#[test]
fn transform_without_its_entry_is_a_problem_of_its_file() {
    let files = files(ALLOW_ALL);
    replace(&files, &answering("i64.const 1"));
    let file = files.write("mgate.toml", &transformed(1, ""));
    let output = mgate(&["check", file.to_str().unwrap()]).output().unwrap();
    let shown = String::from_utf8(output.stderr).unwrap();
    let expected = "transform.plugin.file: it must export `transform_apply`: a function (i32, i32) -> (i64)";
    assert!(output.status.code() == Some(2) && shown.contains(expected), "{shown}");
}

/// The route is closed, since its plug-in is not there.
fn nobody_gets_in(mgate: &Mgate, upstream: &Upstream) {
    mgate.log.wait_for("the plug-in is not ready");
    for version in BOTH {
        let mut client = mgate.dial();
        client.send(&connect(version, "dev-1").bytes());
        let connack = client.until_closed();
        assert_eq!((connack[0], connack[3]), (0x20, if version == Version::V5 { 0x88 } else { 0x03 }));
    }
    assert!(upstream.try_accept().is_none());
}

fn files(acl: &str) -> Files {
    Files::new(&[
        ("acl.toml", acl),
        ("users.toml", &format!("[users.dev-1]\npassword = \"{PASSWORD_HASH}\"\n")),
    ])
}

/// A route with a static policy and the plug-in `policy.wasm`; `more` are further keys of the plug-in, which has
/// more time than usual: others use this machine too.
fn config(upstream: u16, more: &str) -> String {
    let deadline = if more.contains("deadline") { "" } else { "deadline = '1s'" };
    support::config(upstream, "", "").replace("['acl']", "['acl', 'plugin']")
        + &format!("[policy.plugin]\ntype = 'wasm'\nfile = 'policy.wasm'\n{deadline}\n{more}\n")
}

/// A route with a static policy and `policy.wasm` as a transform.
fn transformed(upstream: u16, more: &str) -> String {
    support::config(upstream, "transforms = ['plugin']", "") + &transform("plugin", more)
}

fn transform(name: &str, more: &str) -> String {
    let deadline = if more.contains("deadline") { "" } else { "deadline = '1s'" };
    format!("[transform.{name}]\ntype = 'wasm'\nfile = 'policy.wasm'\n{deadline}\n{more}\n")
}

fn session(mgate: &Mgate, upstream: &Upstream, client_id: &str) -> (Peer, Peer) {
    upstream.session(mgate.address(), &connect(Version::V5, client_id), Version::V5)
}

/// Publishes at QoS 1 what will not pass; the code of the PUBACK.
fn published(client: &mut Peer, topic: &str, payload: &str) -> u8 {
    client.send(&publish_with(Version::V5, (1, 1), topic, b"", payload));
    let puback = client.packet();
    assert_eq!(puback[0], PUBACK, "{puback:02x?}");
    puback[4]
}

/// A client of mosquitto with the name and password of dev-1, which speaks MQTT 5.0 at QoS 1.
fn mosquitto(program: &str, mgate: &Mgate, client_id: &str) -> Command {
    let port = mgate.address().port().to_string();
    let mut command = Command::new(program);
    command.args([
        "-V",
        "mqttv5",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-i",
        client_id,
        "-u",
        "dev-1",
        "-P",
        PASSWORD,
    ]);
    command.args(["-q", "1"]);
    command
}

/// What a command says.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{error}: run scripts/test"));
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// Builds the example in Rust as its README says.
fn build_rust(to: &Path) {
    let compiler = ["rustc", "/usr/bin/rustc"].into_iter().find(|compiler| has_target(compiler));
    let compiler = compiler.expect("no Rust for wasm32-unknown-unknown: run scripts/test");
    let line = "--edition 2021 --target wasm32-unknown-unknown --crate-type cdylib -C opt-level=3 -C panic=abort -C strip=symbols";
    assert!(readme("rust").contains(line), "the README has another line");
    build(compiler, line, &manifest("examples/wasm-policy-rust/policy.rs"), to);
}

/// Builds the example in C as its README says.
fn build_c(to: &Path) {
    let line = "--target=wasm32 -O2 -Wall -Wextra -nostdlib -ffreestanding -Wl,--no-entry -Wl,--strip-all";
    assert!(readme("c").contains(line), "the README has another line");
    build("clang", line, &manifest("examples/wasm-policy-c/policy.c"), to);
}

/// The README of an example, with lines that are continued in one.
fn readme(language: &str) -> String {
    let text = fs::read_to_string(manifest(&format!("examples/wasm-policy-{language}/README.md"))).unwrap();
    text.replace("\\\n   ", "").replace("  ", " ")
}

fn has_target(compiler: &str) -> bool {
    let output =
        command(compiler).args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"]).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

fn build(compiler: &str, line: &str, source: &Path, to: &Path) {
    let output = command(compiler).args(line.split_whitespace()).arg("-o").arg(to).arg(source).output();
    let output = output.unwrap_or_else(|error| panic!("{compiler}: {error}: run scripts/test"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// A program that finds its own libraries, not those of the toolchain that runs the tests.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// Replaces the plug-in as careful people do, so that it is never seen half.
fn replace(files: &Files, binary: &[u8]) {
    fs::write(files.path("new"), binary).unwrap();
    fs::rename(files.path("new"), files.path("policy.wasm")).unwrap();
}

/// A module that is a policy, whose answer is what `body` computes.
fn answering(body: &str) -> Vec<u8> {
    module("policy_evaluate", "", body)
}

/// A module that is a transform, whose answer is what `body` computes.
fn transforming(body: &str) -> Vec<u8> {
    module("transform_apply", "", body)
}

/// A transform that makes of all messages `b`, of all filters `b/#`, and of all clients `new`.
fn renaming() -> Vec<u8> {
    let (mut data, mut words) = (String::new(), Vec::new());
    for (index, (word, answer)) in RENAMED.iter().enumerate() {
        let (at, length) = (64 * index, answer.len());
        data += &format!("(data (i32.const {at}) {answer:?})");
        words.push((*word, format!("(return (i64.const {}))", at << 32 | length)));
    }
    module("transform_apply", &data, &at_words(&words, "unreachable"))
}

fn module(entry: &str, data: &str, body: &str) -> Vec<u8> {
    let text = format!(
        "(module
            (memory (export \"memory\") 1)
            {data}
            (func (export \"policy_abi_version\") (result i32) i32.const 1)
            (func (export \"policy_alloc\") (param i32) (result i32) i32.const 1024)
            (func (export \"policy_configure\") (param i32 i32) (result i32) i32.const 0)
            (func $evaluate (export \"{entry}\") (param i32 i32) (result i64) (local $at i32) {body}))"
    );
    wat::parse_str(text).unwrap()
}

/// Allows everything but a question with `boom` in it, which ends in `failing`.
fn failing_at_boom(failing: &str) -> String {
    at_words(&[(*b"boom", failing.to_owned())], "i64.const 1")
}

/// Does what belongs to the first of these words that is in the question, or else `otherwise`.
fn at_words(words: &[([u8; 4], String)], otherwise: &str) -> String {
    let compare = |(word, then): &([u8; 4], String)| {
        let word = u32::from_le_bytes(*word);
        format!(
            "(if (i32.eq (i32.load (i32.add (local.get 0) (local.get $at))) (i32.const {word})) (then {then}))"
        )
    };
    let compares: String = words.iter().map(compare).collect();
    format!(
        "(loop $next
            {compares}
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $at) (local.get 1))))
        {otherwise}"
    )
}

/// The beginnings of the names of all parts, and answers.
const RENAMED: [([u8; 4], &str); 3] = [
    (*b"mess", "{\"topic\":\"b\"}"),
    (*b"filt", "{\"filter\":\"b/#\"}"),
    (*b"logi", "{\"client_id\":\"new\"}"),
];

const MAY_CONNECT: &str = "\
version = 1
[[statements]]
effect = 'allow'
principals = ['*']
actions = ['connect']
";
