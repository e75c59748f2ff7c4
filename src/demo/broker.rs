use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::net::{Builder as ListenerBuilder, Listener};
use rmqtt::retain::{DefaultRetainStorage, RetainStorage};
use rmqtt::server::MqttServer;
use rmqtt::subscribe::SharedSubscription;
use rmqtt::types::{
    ClientId, Id, IsOnline, NodeId, Retain, SharedGroup, SubscriptionIdentifier, SubscriptionOptions,
    TopicFilter, TopicName,
};
use tokio::runtime::{Builder, Runtime};

/// A broker for MQTT 3.1.1 and 5.0, on threads of its own and a port that only this machine reaches; it ends
/// when it is dropped.
pub(super) struct Broker {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Broker {
    /// Listens on a free port; must not be called in a tokio runtime.
    pub(super) fn start() -> anyhow::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("broker").enable_all().build()?;
        let (address, server) = runtime.block_on(build())?;
        runtime.spawn(server.run());
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Retained messages in memory; the broker's own storage keeps none by itself.
struct Retained(DefaultRetainStorage);

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    async fn set(&self, topic: &TopicName, message: Retain, expiry: Option<Duration>) -> rmqtt::Result<()> {
        if self.0.count().await >= MAX_RETAINED {
            self.0.remove_expired_messages().await;
            ensure!(self.0.count().await < MAX_RETAINED, "{MAX_RETAINED} messages are retained already");
        }
        self.0.set_with_timeout(topic, message, expiry).await
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        self.0.get_message(filter).await
    }

    async fn count(&self) -> isize {
        self.0.count().await
    }

    async fn max(&self) -> isize {
        self.0.max().await
    }
}

/// The members of share groups in turn; the broker's own choice is nobody.
#[derive(Default)]
struct InTurn(AtomicUsize);

impl InTurn {
    /// Takes for each member whether it is there, where that is known.
    fn next(&self, members: &[Option<IsOnline>]) -> Option<(usize, IsOnline)> {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        let present: Vec<_> = (0..members.len()).filter(|index| members[*index] != Some(false)).collect();
        match (present.len(), members.len()) {
            (0, 0) => None,
            (0, all) => Some((turn % all, false)),
            (there, _) => Some((present[turn % there], true)),
        }
    }
}

#[async_trait]
impl SharedSubscription for InTurn {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        _: &ServerContext,
        _: &SharedGroup,
        _: &Id,
        _: &TopicName,
        members: &[Member],
    ) -> Option<(usize, IsOnline)> {
        let members: Vec<_> = members.iter().map(|(.., is_online)| *is_online).collect();
        self.next(&members)
    }
}

/// A member of a share group, as the broker has it.
type Member = (NodeId, ClientId, SubscriptionOptions, Option<Vec<SubscriptionIdentifier>>, Option<IsOnline>);

async fn build() -> anyhow::Result<(SocketAddr, MqttServer)> {
    let context = ServerContext::new()
        // Otherwise it refuses clients while this machine is busy with something else.
        .busy_check_enable(false)
        .mqtt_max_sessions(MAX_SESSIONS)
        .build()
        .await;
    *context.extends.retain_mut().await = Box::new(Retained(DefaultRetainStorage::new()));
    *context.extends.shared_subscription_mut().await = Box::new(InTurn::default());
    let (address, listener) = listen().context("the broker cannot listen")?;
    Ok((address, MqttServer::new(context).listener(listener).build()))
}

/// It does not tell which port it was given: one that was free a moment ago is asked for.
fn listen() -> anyhow::Result<(SocketAddr, Listener)> {
    let mut attempts = 1;
    loop {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        match listener(address).bind().and_then(Listener::tcp) {
            Ok(listener) => return Ok((address, listener)),
            Err(error) if attempts == MAX_ATTEMPTS => return Err(error),
            Err(_) => attempts += 1,
        }
    }
}

fn listener(address: SocketAddr) -> ListenerBuilder {
    ListenerBuilder::new()
        .name("demo")
        .laddr(address)
        .nodelay(true)
        .max_connections(MAX_CONNECTIONS)
        .max_inflight(MAX_INFLIGHT)
        .message_expiry_interval(MESSAGES_EXPIRE_AFTER)
}

const MAX_ATTEMPTS: u32 = 10;
const MAX_CONNECTIONS: usize = 1000;
const MAX_INFLIGHT: NonZeroU16 = NonZeroU16::new(64).expect("64 is not zero");
const MAX_RETAINED: isize = 10_000;
const MAX_SESSIONS: isize = 1000;
const MESSAGES_EXPIRE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
const THREADS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_there_take_turns() {
        let turns = |members: &[Option<IsOnline>]| {
            let group = InTurn::default();
            [(); 3].map(|()| group.next(members))
        };
        assert_eq!(turns(&[None, Some(false), Some(true)]), [(0, true), (2, true), (0, true)].map(Some));
        assert_eq!(turns(&[Some(false); 2]), [(0, false), (1, false), (0, false)].map(Some));
        assert_eq!(turns(&[]), [None; 3]);
    }
}
