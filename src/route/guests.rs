//! Routes of MQTT at a listener of HTTP: they take the WebSockets there that carry it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mgate_policies::Scope;
use mgate_proxy::gate::Gate;
use mgate_proxy::http;
use mgate_proxy::listener::Admission;
use mgate_proxy::mqtt::{self, relay::Relaying};
use mgate_proxy::signal::Signal;
use mgate_proxy::transport::{Connector, WebSocketOptions};
use tokio::sync::watch;

use super::{Parts, change};
use crate::config::{RouteConfig, Speech};

/// All of one listener, in an order that never changes.
pub(super) struct Guests {
    admission: Admission,
    row: Mutex<Vec<Guest>>,
}

/// One of them.
struct Guest {
    sender: watch::Sender<Signal<mqtt::Endpoint>>,
    websocket: WebSocketOptions,
    connector: Arc<Connector>,
    is_leaving: bool,
}

impl Guests {
    pub(super) fn new(configs: Vec<RouteConfig>, admission: Admission) -> Self {
        let row = configs.into_iter().filter_map(Guest::new).collect();
        Self { admission, row: Mutex::new(row) }
    }

    /// As those see them who serve the listener.
    pub(super) fn seen(&self) -> Vec<Arc<http::Guest>> {
        self.row().iter().map(|guest| Arc::new(guest.seen(&self.admission))).collect()
    }

    /// Takes over what the configuration says of each, and of new ones behind them. Those of which it says nothing stay
    /// as they are, for what no other one takes, and their sessions ask again. Returns the highest of their epochs.
    pub(super) fn renew(
        &self,
        configs: Vec<Option<RouteConfig>>,
        is_here: impl Fn(&RouteConfig) -> bool,
    ) -> u64 {
        let mut row = self.row();
        let mut configs = configs.into_iter();
        let renew = |guest: &mut Guest| {
            let config = configs.next().flatten();
            let stays = |config: &RouteConfig| is_here(config) && config.websocket().is_some();
            guest.is_leaving = !config.as_ref().is_some_and(stays);
            match config {
                Some(config) => guest.renew(config),
                None => guest.revoke(&Scope::Everyone),
            }
        };
        let epoch = row.iter_mut().map(renew).max();
        row.extend(configs.flatten().filter_map(Guest::new));
        epoch.unwrap_or_default()
    }

    pub(super) fn revoke(&self, scope: &Scope) -> u64 {
        self.row().iter().map(|guest| guest.revoke(scope)).max().unwrap_or_default()
    }

    pub(super) fn stop(&self) {
        self.row().iter().for_each(|guest| change(&guest.sender, Signal::stop));
    }

    pub(super) fn with_gates<T>(&self, mut look: impl FnMut(&Gate) -> T) -> Vec<T> {
        self.row().iter().map(|guest| look(&guest.endpoint().gate)).collect()
    }

    fn row(&self) -> MutexGuard<'_, Vec<Guest>> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    fn new(config: RouteConfig) -> Option<Self> {
        let websocket = config.websocket().cloned();
        let Parts { ways, gate, speech, .. } = Parts::new(config);
        let Speech::Mqtt(options) = speech else { return None };
        let (sender, _) = watch::channel(Signal::new(mqtt::Endpoint::new(gate, options)));
        Some(Self { sender, websocket: websocket?, connector: ways.connector?, is_leaving: false })
    }

    fn revoke(&self, scope: &Scope) -> u64 {
        change(&self.sender, |signal| signal.revoke(scope.clone()))
    }

    /// Takes it over, live sessions included; where it names no WebSocket, that stays. Returns the new epoch.
    fn renew(&mut self, config: RouteConfig) -> u64 {
        let observer = Arc::clone(&self.endpoint().gate.observer);
        if let Some(websocket) = config.websocket() {
            self.websocket.clone_from(websocket);
        }
        let Parts { ways, gate, speech, .. } = Parts::of(config, Some(observer));
        let (Some(connector), Speech::Mqtt(options)) = (ways.connector, speech) else { return 0 };
        self.connector = connector;
        change(&self.sender, |signal| {
            let endpoint = signal.endpoint().renewed(gate, options);
            signal.renew(endpoint)
        })
    }

    fn seen(&self, admission: &Admission) -> http::Guest {
        let (connector, signal) = (Arc::clone(&self.connector), self.sender.subscribe());
        http::Guest {
            route: Arc::clone(&self.endpoint().gate.route),
            websocket: self.websocket.clone(),
            admission: admission.clone(),
            is_leaving: self.is_leaving,
            serve: Box::new(move |accepted| {
                Box::pin(Relaying::new(Arc::clone(&connector), accepted, signal.clone()))
            }),
        }
    }

    fn endpoint(&self) -> Arc<mqtt::Endpoint> {
        Arc::clone(self.sender.borrow().endpoint())
    }
}
