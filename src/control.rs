//! Changes a gateway while it serves: reloads its configuration, withdraws rights.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mgate_policies::{Cidr, Now, Scope};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::config::{Config, Problems, RouteConfig, Source, Speech, Token};
use crate::gateway::Listening;
use crate::health::{Component, Health};
use crate::log::LogConfig;
use crate::mirror::RunningMirrors;
use crate::route::Steering;
use crate::withdrawals::Withdrawals;
use crate::workers::Workers;

/// The way to change a gateway while it serves. Whoever has it does not keep the gateway alive.
pub struct Control {
    routes: Vec<Steered>,
    workers: Weak<Workers>,
    fixed: Fixed,
    mirrors: RunningMirrors,
    /// Held while a configuration is read, so that an older one is not taken over later.
    reloading: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    surroundings: Surroundings,
}

/// What a configuration's tasks run in, and change.
struct Surroundings {
    runtime: Handle,
    control: Weak<Control>,
}

/// Routes that serve at one listener.
pub(crate) struct Steered {
    /// A port of 0 in the configuration became a real one.
    pub(crate) address: SocketAddr,
    pub(crate) steering: Steering,
}

/// How live sessions were told that rights changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// How often rights changed since the start.
    pub epoch: u64,
    /// How many connections there are to look at it.
    pub sessions: usize,
}

/// One try to take over the configuration.
#[derive(Clone, Debug)]
pub struct Reload {
    /// When, as time since the Unix epoch.
    pub at: Duration,
    /// What came of it.
    pub result: Result<Reloaded, Problems>,
}

/// What came of a configuration that was taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// How live sessions were told.
    pub told: Told,
    /// What stays as it is until the next start.
    pub needs_restart: Vec<String>,
    /// What is probably not meant as it is written.
    pub warnings: Vec<String>,
}

/// What only a restart changes, as it is written.
pub(crate) struct Fixed {
    workers: NonZeroUsize,
    log: LogConfig,
    admin: Option<SocketAddr>,
    /// Those that serve.
    routes: Mutex<Vec<FixedRoute>>,
}

/// What only a restart changes of a route.
#[derive(Clone)]
struct FixedRoute {
    name: Arc<str>,
    listen: SocketAddr,
    /// What it speaks, and whether by DTLS.
    protocol: (Discriminant<Speech>, bool),
    /// Whether its listener is for others too.
    takes_others: bool,
    /// Whether it may be one of those.
    may_share: bool,
    trusted: Vec<Cidr>,
}

/// What a reload changes beside the routes.
struct State {
    source: Source,
    drain_timeout: Duration,
    token: Option<Token>,
    health: Health,
    serving: Component,
    is_stopping: bool,
    last_reload: Option<Reload>,
    /// Looks after what the configuration of each route, by its name, is made of; ends with the last of them.
    watching: HashMap<Arc<str>, Arc<JoinSet<()>>>,
}

impl Control {
    /// The control of routes that were made of `config`, and are gone from it. Must be called in a tokio runtime.
    pub(crate) fn new(
        config: Config,
        routes: Vec<Steered>,
        workers: &Arc<Workers>,
        (fixed, mirrors): (Fixed, RunningMirrors),
    ) -> Arc<Self> {
        Arc::new_cyclic(|control| {
            let surroundings = Surroundings { runtime: Handle::current(), control: control.clone() };
            let names = routes.iter().flat_map(|route| route.steering.names()).collect();
            let state = State::new(config, names, &surroundings);
            Self {
                routes,
                workers: Arc::downgrade(workers),
                fixed,
                mirrors,
                reloading: Arc::default(),
                state: Mutex::new(state),
                surroundings,
            }
        })
    }

    /// Says that rights have changed: policies forget what they decided about those whose they are, and live
    /// sessions of theirs ask for all that they hold. It does not wait for the sessions.
    pub fn invalidate(&self, scope: &Scope) -> Told {
        let _one_at_a_time = self.state();
        self.routes.iter().for_each(|route| route.steering.forget(scope));
        let told = self.told(self.routes.iter().map(|route| route.steering.revoke(scope)));
        info!(%scope, epoch = told.epoch, sessions = told.sessions, "rights changed");
        told
    }

    /// Reads the configuration again and takes it over, live sessions included. Where anything is wrong with
    /// it, all stays as it is. Must be called in a tokio runtime.
    pub async fn reload(&self) -> Reload {
        let turn = self.turn().await;
        self.reload_in(turn).await
    }

    /// Waits until nobody else reloads.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.reloading).lock_owned().await
    }

    /// Reloads, now that it is one's turn.
    pub(crate) async fn reload_in(&self, _turn: OwnedMutexGuard<()>) -> Reload {
        let source = self.state().source.clone();
        let path = source.path.clone();
        let loaded = tokio::task::spawn_blocking(move || source.load()).await;
        let loaded = loaded.unwrap_or_else(|error| Err(Problems::one(&path, error.to_string())));
        // what serves must not make room for what is not ready
        let loaded = loaded.and_then(|config| match config.unready.is_empty() {
            true => Ok(config),
            false => Err(Problems(config.unready)),
        });
        let loaded = loaded.and_then(|config| match self.mirrors.start(&config.mirrors, &config.health) {
            Ok(()) => Ok(config),
            Err(error) => Err(Problems::one(&self.state().source.path, format!("{error:#}"))),
        });
        let result = loaded.map(|config| self.take_over(config));
        let reload = Reload { at: Now::read().unix, result };
        reload.log();
        self.state().last_reload = Some(reload.clone());
        reload
    }

    /// Takes over a configuration, live sessions included.
    pub fn take_over(&self, mut config: Config) -> Reloaded {
        if let Err(error) = self.mirrors.start(&config.mirrors, &config.health) {
            error!("a mirror takes no copies: {error:#}");
        }
        let mut state = self.state();
        let mut needs_restart = self.fixed.take_over(Fixed::of(&config));
        let others = config.mirrors.iter().filter(|mirror| mirror.is_other_than_running());
        needs_restart.extend(others.map(|mirror| format!("mirror.{}", mirror.name())));
        let warnings = config.warnings.iter().map(ToString::to_string).collect();
        let routes = std::mem::take(&mut config.routes);
        let renewed: Vec<_> = self.routes.iter().map(|route| route.next(&routes)).collect();
        let is_admin_there = config.admin.as_ref().map(|admin| admin.listen) == self.fixed.admin;
        let names = renewed.iter().flatten().flatten().map(|route| Arc::clone(&route.name));
        let mut next = State::new(config, names.collect(), &self.surroundings);
        if !is_admin_there {
            // who reaches the old address may be more than the new one lets in without a token
            next.token = state.token.take();
        }
        // a route that is gone goes on with what it has, which is looked after as before
        for (name, watching) in std::mem::take(&mut state.watching) {
            next.watching.entry(name).or_insert(watching);
        }
        (next.is_stopping, next.last_reload) = (state.is_stopping, state.last_reload.take());
        *state = next;
        state.tell();
        let renewed = self.routes.iter().zip(renewed);
        let told = self.told(renewed.map(|(route, renewed)| route.steering.renew(renewed)));
        self.start_authenticators();
        Reloaded { told, needs_restart, warnings }
    }

    /// What the gateway needs to serve, and how that is.
    pub fn health(&self) -> Health {
        self.state().health.clone()
    }

    /// The last try to take over the configuration since the start.
    pub fn last_reload(&self) -> Option<Reload> {
        self.state().last_reload.clone()
    }

    /// The routes, as they serve, listener by listener.
    pub(crate) fn routes(&self) -> &[Steered] {
        &self.routes
    }

    /// What the admin listener's callers must show.
    pub(crate) fn token(&self) -> Option<Token> {
        self.state().token.clone()
    }

    pub(crate) fn mirrors(&self) -> &RunningMirrors {
        &self.mirrors
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        self.state().drain_timeout
    }

    /// Tells all sessions to end.
    pub(crate) fn stop(&self) {
        let mut state = self.state();
        state.is_stopping = true;
        state.tell();
        drop(state);
        self.routes.iter().for_each(|route| route.steering.stop());
    }

    /// Lets authenticators begin with what takes time, before a client waits for it.
    pub(crate) fn start_authenticators(&self) {
        let start = |route: &Steered| drop(route.steering.with_gates(|gate| gate.authenticators.start()));
        if let Some(workers) = self.workers.upgrade() {
            workers.in_background(|| self.routes.iter().for_each(start));
        }
    }

    fn told(&self, epochs: impl Iterator<Item = u64>) -> Told {
        // counted first: some will be gone as soon as they are told
        let sessions = self.workers.upgrade().map_or(0, |workers| workers.connections());
        Told { sessions, epoch: epochs.max().unwrap_or_default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Steered {
    /// Its routes, and the address that they listen at.
    pub(crate) fn listening(&self) -> Vec<Listening> {
        let address = self.address;
        self.steering.names().into_iter().map(|route| Listening { route, address }).collect()
    }

    /// What comes of each of its routes, and new ones behind them. What is to speak another protocol goes on as if it
    /// were gone.
    fn next(&self, routes: &[RouteConfig]) -> Vec<Option<RouteConfig>> {
        let names = self.steering.names();
        let named = |name: &Arc<str>| routes.iter().find(|route| route.name == *name);
        let known = names
            .iter()
            .enumerate()
            .map(|(number, name)| named(name).filter(|next| self.steering.can_become(number, next)));
        let is_new = |route: &&RouteConfig| self.steering.takes_in(route) && !names.contains(&route.name);
        known.chain(routes.iter().filter(is_new).map(Some)).map(Option::<&_>::cloned).collect()
    }
}

impl State {
    fn new(config: Config, routes: Vec<Arc<str>>, Surroundings { runtime, control }: &Surroundings) -> Self {
        let Config { source, drain_timeout, admin, health, .. } = config;
        let serving = health.component("gateway");
        let token = admin.and_then(|admin| admin.token);
        let mut watching = JoinSet::new();
        #[cfg(feature = "wasm")]
        for plugin in config.plugins {
            let part = health.component(&format!("plug-in {}", plugin.name()));
            watching.spawn_on(plugin.watch(part, config.withdrawals.clone()), runtime);
        }
        watching.spawn_on(withdraw(config.withdrawals, control.clone()), runtime);
        let watching = Arc::new(watching);
        let state = Self {
            source,
            drain_timeout,
            token,
            health,
            serving,
            is_stopping: false,
            last_reload: None,
            watching: routes.into_iter().map(|name| (name, Arc::clone(&watching))).collect(),
        };
        state.tell();
        state
    }

    /// Tells whether the gateway serves.
    fn tell(&self) {
        match self.is_stopping {
            true => self.serving.not_ready("is stopping"),
            false => self.serving.ready(),
        }
    }
}

/// Passes on what rights are withdrawn, for ever.
async fn withdraw(withdrawals: Withdrawals, control: Weak<Control>) {
    loop {
        let scopes = withdrawals.take().await;
        let Some(control) = control.upgrade() else { return };
        for scope in scopes {
            control.invalidate(&scope);
        }
    }
}

impl Reload {
    fn log(&self) {
        match &self.result {
            Ok(reloaded) => {
                let Reloaded { told, needs_restart, warnings } = reloaded;
                info!(epoch = told.epoch, sessions = told.sessions, "configuration reloaded");
                needs_restart.iter().for_each(|what| warn!("needs a restart to change: {what}"));
                warnings.iter().for_each(|warning| warn!("{warning}"));
            }
            Err(problems) => {
                problems.0.iter().for_each(|problem| error!("{problem}"));
                error!("configuration not reloaded, all stays as it was");
            }
        }
    }
}

impl Fixed {
    pub(crate) fn of(config: &Config) -> Self {
        let route = |route: &RouteConfig| FixedRoute {
            name: Arc::clone(&route.name),
            listen: route.listen_address,
            protocol: (discriminant(&route.speech), route.dtls.is_some()),
            takes_others: matches!(route.speech, Speech::Http(_)),
            may_share: route.may_share(),
            trusted: route.trusted.clone(),
        };
        Self {
            workers: config.workers,
            log: config.log.clone(),
            admin: config.admin.as_ref().map(|admin| admin.listen),
            routes: Mutex::new(config.routes.iter().map(route).collect()),
        }
    }

    /// Takes in the routes of `wanted` that are new to a listener which others have already. Returns the keys by which
    /// the rest differs.
    fn take_over(&self, wanted: Self) -> Vec<String> {
        let wanted_routes = wanted.routes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys = Vec::new();
        let mut compare = |is_same: bool, key: String| keys.extend((!is_same).then_some(key));
        compare(self.workers == wanted.workers, "workers".into());
        compare(self.log == wanted.log, "log".into());
        compare(self.admin == wanted.admin, "admin.listen".into());
        for FixedRoute { name, listen, protocol, trusted, .. } in &*routes {
            match wanted_routes.iter().find(|other| other.name == *name) {
                None => compare(false, format!("route.{name}, which goes on with its old rules")),
                Some(wanted) if wanted.protocol != *protocol => {
                    compare(false, format!("route.{name}.listen, which goes on with its old rules"));
                }
                Some(wanted) => {
                    compare(*listen == wanted.listen, format!("route.{name}.listen"));
                    compare(*trusted == wanted.trusted, format!("route.{name}.proxy_protocol.trusted"));
                }
            }
        }
        for wanted in wanted_routes {
            if routes.iter().any(|known| known.name == wanted.name) {
                continue;
            }
            match routes.iter().find(|known| known.takes_in(&wanted)).cloned() {
                Some(known) => routes.push(FixedRoute { trusted: known.trusted, ..wanted }),
                None => compare(false, format!("route.{}, which is new", wanted.name)),
            }
        }
        keys
    }
}

impl FixedRoute {
    /// Whether its listener takes in another route.
    fn takes_in(&self, other: &Self) -> bool {
        let is_same = self.listen == other.listen && self.listen.port() != 0;
        is_same && self.takes_others && other.may_share
    }
}
