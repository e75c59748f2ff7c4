//! What people use to understand policies, from the outside.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;
use support::packets::{Version, connect, publish, retained};
use support::peer::Upstream;
use support::{Files, Mgate};
use tempfile::TempDir;

#[test]
fn tests_of_a_policy_are_run_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "acl.toml", &format!("{STATEMENTS}{GOOD_TESTS}"));
    let output = mgate(&["policy", "test", &path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output.stdout);
    assert!(shown.starts_with("passed  own-data\npassed  tests[1]\n"), "{shown}");
    assert!(shown.ends_with("\n10 passed, 0 failed\n"), "{shown}");
}

#[test]
fn test_that_does_not_come_true_says_which_statement_spoke() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "acl.toml", &format!("{STATEMENTS}{BAD_TESTS}"));
    let output = mgate(&["policy", "test", &path]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]));
    let shown = text(&output.stdout).replace(&format!("{}/", directory.path().display()), "");
    assert_eq!(shown, BAD_TESTS_SHOWN);

    let output = mgate(&["policy", "test", "--json", &path]);
    assert_eq!(output.status.code(), Some(1));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["passed"], &shown["failed"]), (&Value::from(1), &Value::from(3)));
    assert_eq!(shown["tests"][0]["failure"], "expected deny, but statement \"own-data\" allows it");
    assert_eq!(shown["tests"][0]["line"], 37);
    assert_eq!(shown["tests"][3]["passed"], true);
}

#[test]
fn tests_are_run_whenever_the_file_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory, "acl.toml", &format!("{STATEMENTS}{BAD_TESTS}"));
    let path = write(&directory, "mgate.toml", CONFIG);
    for arguments in [["check", &path].as_slice(), &["run", "-c", &path]] {
        let output = mgate(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let shown = text(&output.stderr).replace(&format!("{}/", directory.path().display()), "");
        let expected = [
            "acl.toml:37: tests.no-data.expect: expected deny, but statement \"own-data\" allows it",
            "acl.toml:44: tests[1].expect: expected allow, but statement 2 denies it",
            "acl.toml:50: tests.everything.expect: expected allow, but no statement speaks of it",
        ];
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.iter().filter(|line| expected.contains(line)).count(), 3, "{shown}");
    }
}

#[test]
fn mistakes_in_tests_are_named_with_their_place() {
    for (test, expected) in [
        ("action = 'publish'\ntopic = 'a'", "tests[0].expect: is missing"),
        ("expect = 'deny'", "tests[0].action: is missing"),
        (
            "action = 'publsh'\ntopic = 'a'\nexpect = 'deny'",
            "tests[0].action: unknown value \"publsh\" (connect, publish, will, subscribe, deliver, request, observe)",
        ),
        ("action = 'publish'\nexpect = 'deny'", "tests[0].topic: is missing"),
        (
            "action = 'publish'\ntopic = 'a/#'\nexpect = 'deny'",
            "tests[0].topic: wildcard or U+0000 where none may stand in a topic",
        ),
        (
            "action = 'subscribe'\nfilter = '$share/a'\nexpect = 'deny'",
            "tests[0].filter: `$share/` without a group free of wildcards and a filter behind it",
        ),
        (
            "action = 'deliver'\nfilter = 'a'\ntopic = 'a'\nexpect = 'deny'",
            "tests[0].filter: has no use with `deliver`",
        ),
        ("action = 'connect'\nqos = 1\nexpect = 'deny'", "tests[0].qos: has no use with `connect`"),
        (
            "action = 'connect'\nexpect = 'yes'",
            "tests[0].expect: unknown value \"yes\" (allow, deny, abstain)",
        ),
        (
            "action = 'connect'\nexpect = 'deny'\npeer = '10.0.0.0/8'",
            "tests[0].peer: \"10.0.0.0/8\" is not an IP address",
        ),
        (
            "action = 'connect'\nexpect = 'deny'\nattributes = { channel = '7' }",
            "tests[0].attributes: \"channel\" is not a dotted name",
        ),
        ("action = 'connect'\nexpect = 'deny'\ncolour = 1", "tests[0].colour: unknown key (known: "),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path =
            write(&directory, "acl.toml", &format!("version = 1\nstatements = []\n[[tests]]\n{test}\n"));
        let output = mgate(&["policy", "test", &path]);
        assert_eq!(output.status.code(), Some(2), "{test}");
        let shown = text(&output.stderr);
        assert!(shown.contains(&format!(": {expected}")) && shown.lines().count() == 1, "{shown}");
    }
}

#[test]
fn test_of_a_policy_that_hangs_on_time_says_when_it_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "night.yaml", NIGHT);
    let output = mgate(&["policy", "test", &path]);
    assert_eq!(output.status.code(), Some(2));
    let shown = text(&output.stderr);
    assert!(
        shown.ends_with("night.yaml:10: tests[0].at: is missing: some statement hangs on the time\n"),
        "{shown}"
    );

    let at = |time: &str| NIGHT.replace("topic: a", &format!("topic: a\n    at: {time}"));
    for (time, code) in [("2026-01-31T22:30:00Z", 0), ("2026-01-31T12:00:00Z", 1)] {
        let path = write(&directory, "night.yaml", &at(time));
        assert_eq!(mgate(&["policy", "test", &path]).status.code(), Some(code), "{time}");
    }
}

#[test]
fn file_that_is_no_policy_ends_with_2() {
    let directory = tempfile::tempdir().unwrap();
    for (name, content, expected) in [
        ("acl.txt", "", "the name must end in .toml, .json or .yaml"),
        ("acl.toml", "version = 1\nstatements = [", "unclosed"),
        ("acl.toml", "version = 1\n", "statements: is missing"),
    ] {
        let path = write(&directory, name, content);
        let output = mgate(&["policy", "test", &path]);
        assert_eq!(output.status.code(), Some(2), "{content:?}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
    }
    let output = mgate(&["policy", "test", "no-such-file.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.starts_with(b"no-such-file.toml: cannot be read: "), "{output:?}");
}

#[test]
fn explanation_names_what_each_policy_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = two_policies(&directory);
    let explain = |arguments: &[&str]| {
        let fixed = ["policy", "explain", "-c", &path, "--route", "devices"];
        let output = mgate(&[&fixed, arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        text(&output.stdout)
    };
    let publish = ["--principal", "dev-1", "--action", "publish", "--topic", "devices/dev-1/x"];
    assert_eq!(explain(&publish), "acl    allow    statement \"own-data\"\nhours  abstain\nresult: allow\n");
    assert_eq!(
        explain(&[&publish, ["--group", "sensors", "--retain"].as_slice()].concat()),
        "acl    deny     not authorized: statement 2\nhours  abstain\nresult: deny, not authorized: statement 2\n"
    );
    assert_eq!(
        explain(&[&publish, ["--peer", "10.1.2.3", "--qos", "2"].as_slice()].concat()),
        "acl    allow    statement \"own-data\"\nhours  deny     not authorized: statement \"closed\"\n\
         result: deny, not authorized: statement \"closed\"\n"
    );
    let shared = ["--tenant", "north", "--action", "subscribe", "--filter", "$share/w1/jobs/north"];
    assert_eq!(explain(&shared), "acl    allow    statement \"workers\"\nhours  abstain\nresult: allow\n");
    assert_eq!(
        explain(&["--action", "connect", "--client-id", "a", "--attribute", "claims.name=a"]),
        "acl    abstain\nhours  abstain\nresult: deny, not authorized: no policy allows it (acl, hours)\n"
    );
    assert_eq!(
        explain(&["--action", "connect"]),
        "acl    abstain\nhours  abstain\nresult: deny, not authorized: no policy allows it (acl, hours)\n\
         the client identifier was empty: --client-id says another\n"
    );
}

#[test]
fn explanation_is_for_programs_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = two_policies(&directory);
    let arguments = "--route devices --principal dev-1 --action deliver --topic devices/dev-1/x --json";
    let output = mgate(
        &[&["policy", "explain", "-c", &path], arguments.split(' ').collect::<Vec<_>>().as_slice()].concat(),
    );
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&shown["result"], &shown["action"], &shown["reason"]),
        (&"allow".into(), &"deliver".into(), &Value::Null)
    );
    assert_eq!(shown["policies"][0]["policy"], "acl");
    assert_eq!(shown["policies"][0]["by"], "statement \"own-data\"");
    assert_eq!(shown["policies"][1]["decision"], "abstain");
}

#[test]
fn question_that_cannot_be_asked_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = two_policies(&directory);
    for (arguments, code, expected) in [
        ("--route devices --action publish", 2, "--topic <TOPIC>"),
        ("--route devices --action subscribe", 2, "--filter <FILTER>"),
        ("--route devices --action subscribe --topic a --filter a", 2, "cannot be used with"),
        ("--route devices --action read --topic a", 2, "must be one of connect, publish"),
        ("--route devices --action connect --attribute a", 2, "must be a dotted name, = and a value"),
        ("--route devices --action connect --topic a", 1, "`connect` has no use for the topic"),
        ("--route devices --action publish --topic a/#", 1, "mgate: a/#: wildcard"),
        ("--route other --action connect", 1, "mgate: no route other (devices)"),
    ] {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let output = mgate(&[["policy", "explain", "-c", &path].as_slice(), &arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let shown = text(&output.stderr);
        assert!(shown.contains(expected), "{shown}");
    }
}

#[test]
fn policy_that_is_not_enforced_is_told_of_and_changes_nothing() {
    let upstream = Upstream::start();
    let files = Files::new(&[("acl.toml", OPEN), ("new.toml", NEW)]);
    let mgate = Mgate::start(&files, &tried_out(upstream.port()));
    let (mut client, mut behind) =
        upstream.session(mgate.address(), &connect(Version::V5, "dev-1"), Version::V5);
    let message = retained(publish(Version::V5, "a/b", "x"));
    for _ in 0..2 {
        client.send(&message);
        behind.expect(&message);
    }
    let later = publish(Version::V5, "a/b", "x");
    client.send(&later);
    behind.expect(&later);
    let line: Value = serde_json::from_str(&mgate.log.wait_for("would be denied")).unwrap();
    assert_eq!((&line["level"], &line["client"]), (&"INFO".into(), &"dev-1".into()));
    assert_eq!((&line["action"], &line["resource"]), (&"publish".into(), &"a/b".into()));
    assert_eq!(line["policy"], "new");
    assert_eq!(line["reason"], "not authorized: statement \"nothing-retained\"");
    drop(client);
    mgate.log.wait_for("session closed");
    let told = mgate.log.lines().iter().filter(|line| line.contains("would be denied")).count();
    assert_eq!(told, 1, "a session that remembers the answer does not ask again");
}

#[test]
fn explanation_and_check_show_what_is_not_enforced() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory, "acl.toml", OPEN);
    write(&directory, "new.toml", NEW);
    let path = write(&directory, "mgate.toml", &tried_out(1883));
    let output = mgate(&["check", &path]);
    assert!(text(&output.stdout).contains("  acl, new (not enforced)  "), "{output:?}");
    let output = mgate(&["check", "--json", &path]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["routes"][0]["not_enforced"], Value::from(vec!["new"]));
    let question = ["--route", "devices", "--action", "publish", "--topic", "a", "--retain"];
    let explain = [["policy", "explain", "-c", &path].as_slice(), &question].concat();
    assert_eq!(
        text(&mgate(&explain).stdout),
        "acl  allow    statement \"open\"\n\
         new  deny     not authorized: statement \"nothing-retained\" (not enforced)\n\
         result: allow, because new is not enforced\n"
    );
    let output = mgate(&[explain.as_slice(), &["--json"]].concat());
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["result"], &shown["would_be_denied_by"]), (&"allow".into(), &"new".into()));
    assert_eq!(shown["policies"][1]["enforced"], false);
}

#[test]
fn route_without_an_enforced_policy_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory, "acl.toml", OPEN);
    write(&directory, "new.toml", NEW);
    let config = tried_out(1883).replace("file = 'acl.toml'", "file = 'acl.toml'\nenforce = false");
    let path = write(&directory, "mgate.toml", &config);
    let output = mgate(&["check", &path]);
    assert_eq!(output.status.code(), Some(2));
    let shown = text(&output.stderr);
    let expected = "mgate.toml:5: route.devices.policies: \
                    names no policy that is enforced: everything would be denied\n";
    assert!(shown.ends_with(expected) && shown.lines().count() == 1, "{shown}");
}

#[test]
fn imported_rules_are_a_policy_that_loads() {
    let directory = tempfile::tempdir().unwrap();
    let acl =
        write(&directory, "aclfile", "topic read news/#\nuser ada\ntopic rooms/#\npattern write at/%u\n");
    let document = write(&directory, "policy.json", &AWS_IOT.replace("  ", "\t"));
    let ladon = write(&directory, "ladon.json", LADON);
    for (arguments, expected) in [
        (["--from", "mosquitto", &acl].as_slice(), "# line 3: topic rooms/#\n[[statements]]\n"),
        (
            &["--from", "aws-iot", "--principal", "group:sensors", &document],
            "principals = [\"group:sensors\"]\n",
        ),
        (&["--from", "ladon", &ladon], "resources = [\"topic:articles/+/#\"]\n"),
    ] {
        let output = mgate(&[["policy", "import"].as_slice(), arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let policy = text(&output.stdout);
        assert!(policy.contains(expected), "{policy}");
        let path = write(&directory, "acl.toml", &policy);
        let output = mgate(&["policy", "test", &path]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
}

#[test]
fn rules_that_cannot_be_kept_are_refused_with_their_lines_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, "aclfile", "topic read a\npattern deny b/%c\n\ntopic write c/*\n");
    let output = mgate(&["policy", "import", "--from", "mosquitto", &path]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
    let shown = text(&output.stderr);
    let lines: Vec<_> = shown.lines().map(|line| line.replace(&format!("{path}:"), "")).collect();
    assert!(lines.len() == 2 && lines[0].starts_with("2: ") && lines[1].starts_with("4: "), "{shown}");

    let output = mgate(&["policy", "import", "--from", "mosquitto", "--principal", "*", &path]);
    assert_eq!(output.status.code(), Some(1));
    let output = mgate(&["policy", "import", "--from", "mosquitto", "no-such-file"]);
    assert!(output.stderr.starts_with(b"mgate: no-such-file: "), "{output:?}");
}

/// A configuration in which the policy `new` is not enforced.
#[test]
fn requests_are_tested_and_explained() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory, "requests.toml", REQUESTS);
    let output = mgate(&["policy", "test", &file]);
    assert!(output.status.success(), "{}", text(&output.stdout));
    let config = "[[route]]\nname = 'devices'\nlisten = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://127.0.0.1:1'\n\
                  policies = ['acl']\n[policy.acl]\ntype = 'static'\nfile = 'requests.toml'\n";
    let config = write(&directory, "mgate.toml", config);
    let explain = |method| {
        let question = ["policy", "explain", "-c", &config, "--route", "devices", "--principal", "dev-1"];
        let request = ["--action", "request", "--path", "/devices/dev-1/state", "--method", method];
        text(&mgate(&[&question[..], &request[..]].concat()).stdout)
    };
    assert!(explain("HEAD").contains("result: allow"), "{}", explain("HEAD"));
    assert!(explain("PUT").contains("result: deny"), "{}", explain("PUT"));
}

fn tried_out(upstream: u16) -> String {
    let config = CONFIG.replace("['acl']", "['acl', 'new']").replace(":1883", &format!(":{upstream}"));
    let config = config.replace(":1884", ":0");
    format!("{config}[policy.new]\ntype = 'static'\nfile = 'new.toml'\nenforce = false\n")
}

fn two_policies(directory: &TempDir) -> String {
    write(directory, "acl.toml", STATEMENTS);
    write(directory, "hours.toml", CLOSED);
    let config = CONFIG.replace("['acl']", "['acl', 'hours']");
    write(directory, "mgate.toml", &format!("{config}[policy.hours]\ntype = 'static'\nfile = 'hours.toml'\n"))
}

fn mgate(arguments: &[&str]) -> Output {
    support::mgate(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = directory.path().join(name);
    fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}

const CONFIG: &str = "\
[[route]]
name = 'devices'
listen = 'mqtt://127.0.0.1:1884'
upstream = 'mqtt://127.0.0.1:1883'
policies = ['acl']
[policy.acl]
type = 'static'
file = 'acl.toml'
";

const STATEMENTS: &str = "\
version = 1

[[statements]]
sid        = 'own-data'
effect     = 'allow'
principals = ['*']
actions    = ['publish', 'subscribe']
resources  = ['topic:devices/${principal}/#']

[[statements]]
effect     = 'deny'
principals = ['group:sensors']
actions    = ['publish']
resources  = ['topic:#']
conditions = { retain = true }

[[statements]]
sid        = 'own-name'
effect     = 'allow'
principals = ['*']
actions    = ['connect']
resources  = ['client_id:${claims.name}']
conditions = { tls = true, cidr = { peer = ['10.0.0.0/8'] }, listener = ['devices'] }

[[statements]]
sid        = 'workers'
effect     = 'allow'
principals = ['*']
actions    = ['subscribe']
resources  = ['topic:jobs/${tenant}']
conditions = { share_groups = ['w*'], qos_max = 1 }
";

const GOOD_TESTS: &str = "
[[tests]]
name      = 'own-data'
principal = 'dev-1'
action    = 'publish'
topic     = 'devices/dev-1/x'
retain    = true
expect    = 'allow'

[[tests]]
principal = 'dev-1'
groups    = ['sensors']
action    = 'publish'
topic     = 'devices/dev-1/x'
retain    = true
expect    = 'deny'

[[tests]]
principal = 'dev-1'
action    = 'will'
topic     = 'devices/dev-1/x'
expect    = 'allow'

[[tests]]
principal = 'dev-1'
action    = 'deliver'
topic     = 'devices/dev-2/x'
expect    = 'abstain'

[[tests]]
principal = 'dev-1'
username  = 'dev-2'
action    = 'subscribe'
filter    = 'devices/dev-2/#'
expect    = 'abstain'

[[tests]]
client_id  = 'press'
attributes = { 'claims.name' = ['drill', 'press'] }
action     = 'connect'
peer       = '10.1.2.3'
tls        = true
listener   = 'devices'
expect     = 'allow'

[[tests]]
client_id  = 'press'
attributes = { 'claims.name' = ['drill', 'press'] }
action     = 'connect'
tls        = true
listener   = 'devices'
expect     = 'abstain'

[[tests]]
tenant = 'north'
action = 'subscribe'
filter = '$share/w1/jobs/north'
qos    = 1
expect = 'allow'

[[tests]]
tenant = 'north'
action = 'subscribe'
filter = 'jobs/north'
expect = 'abstain'

[[tests]]
tenant = 'north'
action = 'subscribe'
filter = '$share/w1/jobs/north'
qos    = 2
expect = 'abstain'
";

const BAD_TESTS: &str = "[[tests]]
name      = 'no-data'
principal = 'dev-1'
action    = 'publish'
topic     = 'devices/dev-1/x'
expect    = 'deny'
[[tests]]
principal = 'dev-1'
groups    = ['sensors']
action    = 'publish'
topic     = 'devices/dev-1/x'
retain    = true
expect    = 'allow'
[[tests]]
name      = 'everything'
principal = 'dev-1'
action    = 'subscribe'
filter    = '#'
expect    = 'allow'
[[tests]]
name      = 'nobody-connects'
action    = 'connect'
expect    = 'abstain'
";

const BAD_TESTS_SHOWN: &str = "\
FAILED  no-data (acl.toml:37): expected deny, but statement \"own-data\" allows it
FAILED  tests[1] (acl.toml:44): expected allow, but statement 2 denies it
FAILED  everything (acl.toml:50): expected allow, but no statement speaks of it
passed  nobody-connects
1 passed, 3 failed
";

const AWS_IOT: &str = r#"{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": "iot:Connect",
      "Resource": "arn:aws:iot:eu-west-1:123456789012:client/${iot:ClientId}"
    }
  ]
}
"#;

const LADON: &str = r#"{
  "id": "articles",
  "subjects": ["<peter|ken>"],
  "actions": ["publish"],
  "resources": ["topic:articles/<.*>"],
  "effect": "allow"
}
"#;

const OPEN: &str = "\
version = 1
[[statements]]
sid        = 'open'
effect     = 'allow'
principals = ['*']
actions    = ['connect', 'publish', 'subscribe']
resources  = ['topic:#']
";

const NEW: &str = "\
version = 1
[[statements]]
sid        = 'nothing-retained'
effect     = 'deny'
principals = ['*']
actions    = ['publish']
resources  = ['topic:#']
conditions = { retain = true }
";

const CLOSED: &str = "\
version = 1
[[statements]]
sid        = 'closed'
effect     = 'deny'
principals = ['*']
actions    = ['publish']
resources  = ['topic:devices/#']
conditions = { cidr = { peer = ['10.0.0.0/8'] } }
";

const NIGHT: &str = "\
version: 1
statements:
  - effect: allow
    principals: ['*']
    actions: [publish]
    resources: ['topic:a']
    conditions:
      time: { daily_utc: '22:00-06:00' }
tests:
  - action: publish
    topic: a
    expect: allow
";

const REQUESTS: &str = "\
version = 1
[[statements]]
effect     = 'allow'
principals = ['*']
actions    = ['request']
resources  = ['path:/devices/${principal}/#']
conditions = { methods = ['GET'] }
[[tests]]
principal = 'dev-1'
action    = 'request'
method    = 'GET'
path      = '/devices/dev-1/state'
expect    = 'allow'
[[tests]]
principal = 'dev-1'
action    = 'request'
method    = 'DELETE'
path      = '/devices/dev-1/state'
expect    = 'abstain'
";
