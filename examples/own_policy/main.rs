//! A policy and a transform in Rust, built into a gateway of one's own.
//!
//! Devices may publish numbers, each about itself only; who wants to open a door has to wait for what another
//! service says. What devices publish in degrees Fahrenheit goes on in degrees Celsius. The file beside this
//! one says where to listen, and its route names policy and transform:
//!
//!     cargo run --example own_policy -- examples/own_policy/mgate.toml

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mgate::Gateway;
use mgate::log::{self, LogConfig};
use mgate_policies::{
    Action, Answer, Cause, Decision, Editable, Grant, Now, Part, Policy, Query, Reason, Refusal, Resource,
    Transform,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let file = std::env::args_os().nth(1).map(PathBuf::from).context("which configuration file?")?;
    log::start(&LogConfig::default())?;
    let gateway =
        Gateway::builder().policy(Arc::new(NumbersOnly)).transform(Arc::new(Celsius)).start(&file)?;
    tokio::signal::ctrl_c().await?;
    gateway.stop().await;
    Ok(())
}

/// The policy; a route names it as it names those of the file.
struct NumbersOnly;

impl Policy for NumbersOnly {
    fn name(&self) -> &str {
        "numbers-only"
    }

    // Called for every packet: a decision that is here costs nothing, one that takes time goes into a future.
    fn evaluate(&self, query: &Query<'_>, _now: Now) -> Answer {
        match (query.action, query.resource) {
            (Action::Connect, _) => allow(),
            (Action::Publish, Resource::Topic(topic)) if is_own(topic.as_str(), &query.client.client_id) => {
                if is_number(query.payload) {
                    allow()
                } else {
                    deny("not a number")
                }
            }
            (Action::Publish, Resource::Topic(topic)) if topic.as_str() == "doors/open" => {
                Answer::Pending(Box::pin(ask_the_house()))
            }
            // Another policy of the route may allow it; if none does, it is denied.
            _ => Answer::Ready(Decision::Abstain),
        }
    }
}

/// The transform; the policy sees what it made of a message.
struct Celsius;

impl Transform for Celsius {
    fn name(&self) -> &str {
        "celsius"
    }

    // Called for every packet, too. What is not touched goes on byte for byte as it came.
    fn apply(&self, packet: &mut Editable<'_>, _now: Now) -> Result<(), Refusal> {
        let Part::Message(message) = &mut packet.part else { return Ok(()) };
        let Some(topic) = message.topic.strip_suffix("/fahrenheit") else { return Ok(()) };
        if message.action != Action::Publish {
            return Ok(());
        }
        let degrees = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse::<f64>().ok());
        let degrees = degrees.ok_or_else(|| Refusal::denied("no degrees"))?;
        message.payload = Cow::Owned(format!("{:.1}", (degrees - 32.0) / 1.8).into_bytes());
        message.topic = Cow::Owned(topic.to_owned());
        Ok(())
    }
}

/// Stands for a question over the network: only the client that asks waits for it.
async fn ask_the_house() -> Decision {
    tokio::time::sleep(Duration::from_millis(100)).await;
    Decision::Deny(Reason::with_detail(Cause::NotAuthorized, "the house says no"))
}

fn is_own(topic: &str, client_id: &str) -> bool {
    topic.split_once('/') == Some(("numbers", client_id))
}

fn is_number(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok_and(|text| text.parse::<f64>().is_ok())
}

fn allow() -> Answer {
    Answer::Ready(Decision::Allow(Grant::default()))
}

/// The detail is for the operator's log: the device hears "not authorized".
fn deny(detail: &'static str) -> Answer {
    Answer::Ready(Decision::Deny(Reason::with_detail(Cause::NotAuthorized, detail)))
}
