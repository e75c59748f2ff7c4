//! A gateway inside of another program, with a policy and a mirror of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mgate::Gateway;
use mgate::config::{Config, Environment, Extensions};
use mgate::control::Control;
use mgate::gateway::Builder;
use mgate_policies::{
    Action, Answer, Cause, Decision, Editable, Grant, Now, Part, Policy, Query, Reason, Refusal, Resource,
    Scope, Transform,
};
use mgate_proxy::gate::{Copied, Message, Mirror};
use support::broker::{Broker, mosquitto_sub};
use support::packets::{BOTH, PUBACK, Version, ack, connect, publish, publish_with};
use support::peer::{Peer, Upstream};
use support::process::{Lines, Process};
use support::{Files, config, manifest};
use tokio::sync::{Notify, oneshot};

#[test]
fn policy_of_the_program_decides() {
    let upstream = Upstream::start();
    let gateway = Embedded::start(Gateway::builder().policy(Arc::new(NotTwice::default())), &upstream, "");
    let (mut client, mut behind) = gateway.session(&upstream, Version::V5, "dev-1");
    let message = |id, payload| publish_with(Version::V5, (1, id), "a/b", b"", payload);
    client.send(&message(1, "once"));
    behind.expect(&message(1, "once"));
    client.send(&message(2, "once"));
    assert_eq!(client.packet()[2..5], [0, 2, 0x87], "the topic is the same, the payload is not");
    client.send(&message(3, "once more"));
    behind.expect(&message(3, "once more"));
}

#[test]
fn policy_sees_message_and_will_without_properties() {
    let policy = Arc::new(NotTwice::default());
    let upstream = Upstream::start();
    let gateway = Embedded::start(Gateway::builder().policy(policy.clone()), &upstream, "");
    let dying = connect(Version::V5, "dev-1").will("last/words", "farewell");
    let (mut client, mut behind) = upstream.session(gateway.address, &dying, Version::V5);
    let properties = b"\x01\x01\x26\x00\x01k\x00\x01v";
    let message = publish_with(Version::V5, (2, 7), "a/b", properties, "hello");
    client.send(&message);
    behind.expect(&message);
    behind.send(&message);
    client.expect(&message);
    let seen = ["Connect dev-1 ", "Will last/words farewell", "Publish a/b hello", "Deliver a/b hello"];
    assert_eq!(*policy.seen.lock().unwrap(), seen);
}

#[test]
fn slow_decision_delays_only_its_client() {
    let policy = Arc::new(Slow::default());
    let upstream = Upstream::start();
    let gateway = Embedded::start(Gateway::builder().policy(policy.clone()), &upstream, "");
    for version in BOTH {
        let (mut waiting, mut behind_waiting) = gateway.session(&upstream, version, "waiting");
        let (mut other, mut behind_other) = gateway.session(&upstream, version, "other");
        waiting.send(&[publish(version, "slow", "1"), publish(version, "fast", "2")].concat());
        other.send(&publish(version, "fast", "3"));
        behind_other.expect(&publish(version, "fast", "3"));
        behind_waiting.send(&publish(version, "fast", "4"));
        waiting.expect(&publish(version, "fast", "4"));
        assert!(policy.is_waited_for(), "nobody has decided yet");
        policy.decide.notify_one();
        behind_waiting.expect(&publish(version, "slow", "1"));
        behind_waiting.expect(&publish(version, "fast", "2"));
    }
}

#[test]
fn decision_that_does_not_come_in_time_is_a_denial() {
    let upstream = Upstream::start();
    let builder = Gateway::builder().policy(Arc::new(Slow::default()));
    let gateway = Embedded::start(builder, &upstream, "limits = { decision_timeout = '100ms' }");
    let (mut client, mut behind) = gateway.session(&upstream, Version::V5, "dev-1");
    client.send(&publish_with(Version::V5, (1, 1), "slow", b"", "x"));
    assert_eq!(client.packet()[2..5], [0, 1, 0x83]);
    client.send(&publish(Version::V5, "fast", "y"));
    behind.expect(&publish(Version::V5, "fast", "y"));
}

#[test]
fn session_that_waits_for_a_decision_ends_with_its_client() {
    let policy = Arc::new(Slow::default());
    let upstream = Upstream::start();
    let gateway = Embedded::start(Gateway::builder().policy(policy), &upstream, "");
    let (mut client, mut behind) = gateway.session(&upstream, Version::V311, "dev-1");
    client.send(&publish(Version::V311, "slow", "x"));
    drop(client);
    assert_eq!(behind.until_closed(), b"");
}

#[test]
fn mirror_of_the_program_is_given_what_passed() {
    let mirror = Arc::new(Copies::default());
    let upstream = Upstream::start();
    let builder = Gateway::builder().policy(Arc::new(NotTwice::default())).mirror("copies", mirror.clone());
    let gateway = Embedded::start(builder, &upstream, "mirror = 'copies'");
    let (mut client, mut behind) = gateway.session(&upstream, Version::V311, "dev-1");
    for (id, payload) in [(1, "once"), (2, "once"), (3, "twice")] {
        client.send(&publish_with(Version::V311, (1, id), "a/b", b"", payload));
    }
    client.expect(&ack(PUBACK, 2));
    behind.expect(&publish_with(Version::V311, (1, 1), "a/b", b"", "once"));
    behind.expect(&publish_with(Version::V311, (1, 3), "a/b", b"", "twice"));
    assert_eq!(*mirror.0.lock().unwrap(), ["dev-1 a/b once", "dev-1 a/b twice"]);
}

#[test]
fn policy_finds_all_that_tokio_offers() {
    let upstream = Upstream::start();
    let gateway = Embedded::start(Gateway::builder().policy(Arc::new(Patient)), &upstream, "");
    let (mut client, mut behind) = gateway.session(&upstream, Version::V311, "dev-1");
    let message = publish(Version::V311, "a/b", "hello");
    client.send(&message);
    behind.expect(&message);
}

#[test]
fn transform_of_the_program_changes_what_its_policy_sees() {
    let policy = Arc::new(NotTwice::default());
    let upstream = Upstream::start();
    let builder = Gateway::builder().policy(policy.clone()).transform(Arc::new(Shouting));
    let gateway = Embedded::start(builder, &upstream, "transforms = ['shouting']");
    for version in BOTH {
        let (mut client, mut behind) = gateway.session(&upstream, version, &format!("{version:?}"));
        client.send(&publish(version, "a/b", &format!("hello {version:?}")));
        behind.expect(&publish(version, "a/b", &format!("HELLO {version:?}").to_uppercase()));
    }
    assert_eq!(policy.seen.lock().unwrap()[1], "Publish a/b HELLO V311");
}

#[test]
fn example_of_an_own_policy_runs() {
    let upstream = Upstream::start();
    let (_program, log, address) = example(upstream.port());
    let (mut client, mut behind) = upstream.session(address, &connect(Version::V5, "dev-1"), Version::V5);
    let message = |id, topic, payload| publish_with(Version::V5, (1, id), topic, b"", payload);
    client.send(&message(1, "numbers/dev-1", "21.5"));
    behind.expect(&message(1, "numbers/dev-1", "21.5"));
    for (topic, payload) in [
        ("numbers/dev-1", "warm"),
        ("numbers/dev-2", "21.5"),
        ("numbers/dev-1/fahrenheit", "warm"),
        ("numbers/dev-2/fahrenheit", "70.7"),
        ("doors/open", "1"),
    ] {
        client.send(&message(2, topic, payload));
        assert_eq!(client.packet()[2..5], [0, 2, 0x87], "{topic} {payload}");
    }
    log.wait_for("transform celsius: no degrees");
    log.wait_for("the house says no");
}

#[test]
fn policy_of_the_program_hears_that_rights_changed_and_outlives_a_reload() {
    let policy = Arc::new(Revocable::default());
    let upstream = Upstream::start();
    let gateway = Embedded::start(Gateway::builder().policy(policy.clone()), &upstream, "");
    let (mut revoked, _behind) = gateway.session(&upstream, Version::V5, "dev-1");
    let (mut stays, mut behind) = gateway.session(&upstream, Version::V5, "dev-2");
    // what is allowed now is remembered until somebody says that rights have changed
    stays.send(&publish(Version::V5, "a", "x"));
    behind.expect(&publish(Version::V5, "a", "x"));
    policy.is_over.store(true, Ordering::SeqCst);
    let scope = Scope::ClientId("dev-1".into());
    let told = gateway.control.invalidate(&scope);
    assert_eq!((told.epoch, told.sessions), (1, 2));
    assert_eq!(*policy.forgot.lock().unwrap(), [scope]);
    assert_eq!(revoked.until_closed()[2], 0x87);
    stays.send(&publish(Version::V5, "a", "x"));
    behind.expect(&publish(Version::V5, "a", "x"));
    policy.is_over.store(false, Ordering::SeqCst);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reload = runtime.block_on(gateway.control.reload());
    assert!(reload.result.is_ok(), "{reload:?}");
    policy.is_over.store(true, Ordering::SeqCst);
    gateway.control.invalidate(&Scope::Everyone);
    assert_eq!(stays.until_closed()[2], 0x87);
}

#[test]
fn gateway_that_stops_is_not_ready_whatever_is_reloaded() {
    let upstream = Upstream::start();
    let gateway = Embedded::start(Gateway::builder().policy(Arc::new(Revocable::default())), &upstream, "");
    let control = Arc::clone(&gateway.control);
    let lacks = || control.health().parts().into_iter().map(|part| part.lacks).collect::<Vec<_>>();
    assert_eq!(lacks(), [None]);
    let config = gateway.configuration.path("mgate.toml");
    let own = Extensions { policies: vec![Arc::new(Revocable::default())], ..Extensions::default() };
    let config = Config::load_with(&config, &Environment::default(), own).unwrap();
    drop(gateway);
    assert_eq!(lacks(), [Some("is stopping".into())]);
    control.take_over(config);
    assert_eq!(lacks(), [Some("is stopping".into())]);
}

#[test]
fn example_of_an_own_transform_runs_between_mosquitto_and_its_clients() {
    let broker = Broker::mosquitto();
    let (_program, _log, address) = example(broker.port);
    let mut subscriber = mosquitto_sub(broker.port, "mqttv311", "got %t %p");
    let (_subscriber, lines) = Process::start_with_stdout(subscriber.args(["-t", "numbers/#"]));
    lines.wait_for("Subscribed");
    for version in ["mqttv311", "mqttv5"] {
        let mut publisher = Command::new("mosquitto_pub");
        publisher.args(["-V", version, "-h", "127.0.0.1", "-p", &address.port().to_string(), "-i", version]);
        let topic = format!("numbers/{version}/fahrenheit");
        publisher.args(["-q", "1", "-t", &topic, "-m", "70.7"]);
        assert!(Process::start(&mut publisher).wait().success(), "{version}");
        lines.wait_for(&format!("got numbers/{version} 21.5"));
    }
}

/// The program in `examples/own_policy`, what it says, and where it listens.
fn example(upstream: u16) -> (Process, Lines, SocketAddr) {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/own_policy");
    assert!(program.exists(), "it is not built: run scripts/test, or cargo build --example own_policy");
    let mut command = Command::new(program);
    command.arg(manifest("examples/own_policy/mgate.toml"));
    command.env("MGATE_ROUTE_DEVICES_LISTEN", "mqtt://127.0.0.1:0");
    command.env("MGATE_ROUTE_DEVICES_UPSTREAM", format!("mqtt://127.0.0.1:{upstream}"));
    let (program, log) = Process::start_with_stderr(&mut command);
    let line = log.wait_for("address=");
    let address = line.rsplit_once("address=").unwrap().1.parse().unwrap();
    (program, log, address)
}

/// A gateway that runs in this process.
struct Embedded {
    configuration: Arc<Files>,
    address: SocketAddr,
    control: Arc<Control>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Starts it with the policy `own`.
    fn start(builder: Builder, upstream: &Upstream, more: &str) -> Self {
        let text = config(upstream.port(), more, "").replace("['acl']", "['own']");
        let text = text.replace(support::ACL, "");
        let (stop, stopped) = oneshot::channel();
        let (started, running) = channel();
        let configuration = Arc::new(Files::new(&[("mgate.toml", &text)]));
        let file = Arc::clone(&configuration);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let gateway = builder.start(&file.path("mgate.toml")).unwrap();
                let (address, control) = (gateway.listening()[0].address, Arc::clone(gateway.control()));
                started.send((address, control)).unwrap();
                let _ = stopped.await;
                gateway.stop().await;
            });
        });
        let (address, control) = running.recv().unwrap();
        Self { configuration, address, control, stop: Some(stop), thread: Some(thread) }
    }

    fn session(&self, upstream: &Upstream, version: Version, client_id: &str) -> (Peer, Peer) {
        upstream.session(self.address, &connect(version, client_id), version)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Denies a message that says the same as an earlier one; keeps all that it was asked.
#[derive(Default)]
struct NotTwice {
    seen: Mutex<Vec<String>>,
}

impl Policy for NotTwice {
    fn name(&self) -> &str {
        "own"
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        let what = match query.resource {
            Resource::Topic(topic) => topic.to_string(),
            _ => query.client.client_id.to_string(),
        };
        let payload = String::from_utf8_lossy(query.payload);
        let question = format!("{:?} {what} {payload}", query.action);
        let mut seen = self.seen.lock().unwrap();
        if seen.contains(&question) {
            return Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized)));
        }
        seen.push(question);
        allow()
    }
}

/// Allows everything until it is over; keeps whose rights changed.
#[derive(Default)]
struct Revocable {
    is_over: AtomicBool,
    forgot: Mutex<Vec<Scope>>,
}

impl Policy for Revocable {
    fn name(&self) -> &str {
        "own"
    }

    fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
        match self.is_over.load(Ordering::SeqCst) {
            true => Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized))),
            false => allow(),
        }
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn forget(&self, scope: &Scope) {
        self.forgot.lock().unwrap().push(scope.clone());
    }
}

/// Needs time for the topic `slow`: until `decide` is notified.
#[derive(Default)]
struct Slow {
    decide: Arc<Notify>,
}

impl Slow {
    /// Whether a decision that was asked for is still to come.
    fn is_waited_for(&self) -> bool {
        Arc::strong_count(&self.decide) > 1
    }
}

impl Policy for Slow {
    fn name(&self) -> &str {
        "own"
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        match query.resource {
            Resource::Topic(topic) if query.action == Action::Publish && topic.as_str() == "slow" => {
                let decide = Arc::clone(&self.decide);
                Answer::Pending(Box::pin(async move {
                    decide.notified().await;
                    Decision::Allow(Grant::default())
                }))
            }
            _ => allow(),
        }
    }
}

/// Takes its time, with a timer that it makes at once, a task and a thread of its runtime.
struct Patient;

impl Policy for Patient {
    fn name(&self) -> &str {
        "own"
    }

    fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
        let timer = tokio::time::sleep(Duration::from_millis(1));
        let task = tokio::spawn(async {});
        Answer::Pending(Box::pin(async move {
            timer.await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            task.await.unwrap();
            Decision::Allow(Grant::default())
        }))
    }
}

/// Says everything in capitals.
struct Shouting;

impl Transform for Shouting {
    fn name(&self) -> &str {
        "shouting"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        if let Part::Message(message) = &mut packet.part {
            message.payload = Cow::Owned(message.payload.to_ascii_uppercase());
        }
        Ok(())
    }
}

#[derive(Default)]
struct Copies(Mutex<Vec<String>>);

impl Mirror for Copies {
    fn message(&self, message: &Message<'_>) -> Copied {
        let payload = String::from_utf8_lossy(message.payload);
        let copy = format!("{} {} {payload}", message.client.client_id, message.topic);
        self.0.lock().unwrap().push(copy);
        Copied::Taken
    }
}

fn allow() -> Answer {
    Answer::Ready(Decision::Allow(Grant::default()))
}
