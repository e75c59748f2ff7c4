//! What a decision of a plug-in costs: `cargo bench --bench wasm -- FILE [CONFIG]`, with the module and its
//! configuration in JSON.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use mgate::plugin::{Plugin, PluginOptions, Readiness, WasmPolicy, WasmPolicyOptions};
use mgate_policies::{
    Action, Answer, Client, Decision, Now, Policy, Principal, Protocol, Query, Resource, TopicName,
};
use mgate_wasm::{Bounds, POLICY_EVALUATE};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let path: PathBuf = arguments.next().context("which module?")?.into();
    let config = arguments.next().unwrap_or_else(|| "{}".into());
    let started = Now::read().instant;
    let plugin = Arc::new(Plugin::new(PluginOptions {
        name: "plugin".into(),
        path,
        sha256: None,
        entry: POLICY_EVALUATE,
        config: config.into(),
        bounds: Bounds { deadline: Duration::from_millis(5), memory_bytes: 16 << 20, reply_bytes: 4096 },
    }));
    println!("compiled and configured in {:?}", Now::read().instant - started);
    if let Readiness::NotReady(why) = &*plugin.readiness().borrow() {
        bail!("{why}");
    }
    let policy = WasmPolicy::new(plugin, WasmPolicyOptions::default());
    measure(&policy, "devices/dev-1/data/temperature")?;
    measure(&policy, "devices/dev-2/data/temperature")
}

fn measure(policy: &WasmPolicy, topic: &str) -> anyhow::Result<()> {
    let client = Client {
        principal: Principal { id: "dev-1".into(), groups: vec!["sensors".into()], ..Principal::default() },
        client_id: "dev-1".into(),
        username: Some("dev-1".into()),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        route: "devices".into(),
        protocol: Protocol::Mqtt,
        is_encrypted: true,
    };
    let (action, resource) = (Action::Publish, Resource::Topic(TopicName::parse(topic)?));
    let query = Query { client: &client, action, resource, payload: b"21", qos: 1, retain: false };
    let mut nanos = Vec::new();
    for _ in 0..ROUNDS {
        let started = Now::read();
        for _ in 0..DECISIONS {
            black_box(policy.evaluate(black_box(&query), started));
        }
        nanos.push((Now::read().instant - started.instant).as_nanos() / u128::from(DECISIONS));
    }
    nanos.sort_unstable();
    let decision = match policy.evaluate(&query, Now::read()) {
        Answer::Ready(Decision::Allow(_)) => "allow",
        Answer::Ready(Decision::Deny(_)) => "deny",
        _ => "abstain",
    };
    println!("{topic}: {decision}, {} ns a decision, at best {} ns", nanos[nanos.len() / 2], nanos[0]);
    Ok(())
}

const ROUNDS: usize = 9;
const DECISIONS: u32 = 100_000;
