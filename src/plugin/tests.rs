use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use mgate_policies::{Action, Answer, Cause, Client, Decision, Policy, Principal, Protocol, Query, Resource};
use mgate_wasm::POLICY_EVALUATE;
use tempfile::TempDir;

use super::*;

#[test]
fn file_that_is_not_there_denies_until_it_is() {
    let directory = TempDir::new().unwrap();
    let plugin = plugin(&directory, None);
    let readiness = plugin.readiness();
    assert!(matches!(&*readiness.borrow(), Readiness::NotReady(why) if why.starts_with("cannot be read: ")));
    assert_eq!(ask(&plugin), Err((Cause::Unavailable, Some("the plug-in is not ready".into()))));
    write(&directory, &answering(1));
    plugin.look();
    assert_ne!(*readiness.borrow(), Readiness::Ready, "it may still be written");
    plugin.look();
    assert_eq!((readiness.borrow().clone(), ask(&plugin)), (Readiness::Ready, Ok(())));
}

#[test]
fn new_contents_replace_the_old() {
    let directory = TempDir::new().unwrap();
    write(&directory, &answering(1));
    let plugin = plugin(&directory, None);
    assert_eq!(ask(&plugin), Ok(()));
    write(&directory, &answering(2));
    plugin.look();
    plugin.look();
    assert_eq!(ask(&plugin), Err((Cause::NotAuthorized, None)));
}

#[test]
fn bad_new_contents_change_nothing() {
    let directory = TempDir::new().unwrap();
    write(&directory, &answering(1));
    let plugin = plugin(&directory, None);
    for bad in [&b""[..], b"\0asm", &refusing()] {
        write(&directory, bad);
        plugin.look();
        plugin.look();
        assert_eq!((ask(&plugin), plugin.readiness().borrow().clone()), (Ok(()), Readiness::Ready));
    }
    fs::remove_file(directory.path().join(FILE)).unwrap();
    plugin.look();
    plugin.look();
    assert_eq!(ask(&plugin), Ok(()));
    write(&directory, &answering(2));
    plugin.look();
    plugin.look();
    assert_eq!(ask(&plugin), Err((Cause::NotAuthorized, None)));
}

#[test]
fn only_what_is_pinned_is_taken() {
    let directory = TempDir::new().unwrap();
    write(&directory, &answering(1));
    let plugin = plugin(&directory, Some(Digest::of(&answering(1))));
    assert_eq!(ask(&plugin), Ok(()));
    write(&directory, &answering(2));
    plugin.look();
    plugin.look();
    assert_eq!(ask(&plugin), Ok(()));
    let other = self::plugin(&directory, Some(Digest::of(&answering(1))));
    let why = format!("its SHA-256 is {}, which is not what is pinned", Digest::of(&answering(2)));
    assert_eq!(*other.readiness().borrow(), Readiness::NotReady(why.into()));
}

#[test]
fn answer_that_is_none_denies() {
    let directory = TempDir::new().unwrap();
    write(&directory, &answering(5));
    let plugin = plugin(&directory, None);
    let why = "the plug-in answers with a code that has no meaning";
    assert_eq!(ask(&plugin), Err((Cause::Unavailable, Some(why.into()))));
}

#[test]
fn answers_are_remembered_only_where_that_is_said() {
    let directory = TempDir::new().unwrap();
    for is_repeatable in [false, true] {
        let options = WasmPolicyOptions { is_repeatable, ..WasmPolicyOptions::default() };
        assert_eq!(WasmPolicy::new(plugin(&directory, None), options).is_repeatable(), is_repeatable);
    }
}

fn plugin(directory: &TempDir, sha256: Option<Digest>) -> Arc<Plugin> {
    Arc::new(Plugin::new(PluginOptions {
        name: "plugin".into(),
        path: directory.path().join(FILE),
        sha256,
        entry: POLICY_EVALUATE,
        config: b"{}".into(),
        bounds: Bounds { deadline: Duration::from_secs(1), memory_bytes: 1024 * 1024, reply_bytes: 4096 },
    }))
}

/// Replaces the file as careful people do, so that it is never seen half.
fn write(directory: &TempDir, binary: &[u8]) {
    let new = directory.path().join("new");
    fs::write(&new, binary).unwrap();
    fs::rename(new, directory.path().join(FILE)).unwrap();
}

fn ask(plugin: &Arc<Plugin>) -> Result<(), (Cause, Option<Arc<str>>)> {
    let client = client();
    let (action, resource) = (Action::Connect, Resource::Session);
    let query = Query { client: &client, action, resource, payload: b"", qos: 0, retain: false };
    let policy = WasmPolicy::new(Arc::clone(plugin), WasmPolicyOptions::default());
    match policy.evaluate(&query, Now::read()) {
        Answer::Ready(Decision::Allow(_)) => Ok(()),
        Answer::Ready(Decision::Deny(reason)) => Err((reason.cause, reason.detail)),
        _ => panic!("it decides at once"),
    }
}

/// A client of nobody in particular.
pub(super) fn client() -> Client {
    Client {
        principal: Principal::default(),
        client_id: "dev-1".into(),
        username: None,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        route: "devices".into(),
        protocol: Protocol::Mqtt,
        is_encrypted: false,
    }
}

/// A module that answers everything with one code.
fn answering(code: u8) -> Vec<u8> {
    module(0, code)
}

/// A module that does not take its configuration.
fn refusing() -> Vec<u8> {
    module(1, 1)
}

fn module(configured: u8, code: u8) -> Vec<u8> {
    let text = format!(
        "(module
            (memory (export \"memory\") 1)
            (func (export \"policy_abi_version\") (result i32) i32.const 1)
            (func (export \"policy_alloc\") (param i32) (result i32) i32.const 1024)
            (func (export \"policy_configure\") (param i32 i32) (result i32) i32.const {configured})
            (func (export \"policy_evaluate\") (param i32 i32) (result i64) i64.const {code}))"
    );
    wat::parse_str(text).unwrap()
}

const FILE: &str = "policy.wasm";
