//! `mgate demo`: a gateway with all that it needs around it, made on the spot.
//!
//! The gateway is an ordinary one with an ordinary configuration; only the broker, the certificates, the users
//! and the statements come from here.

mod broker;
mod files;
mod guide;
mod ports;
mod screen;
mod show;
mod style;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use mgate_proxy::gate::Mirror;

use self::broker::Broker;
use self::ports::Reserved;
use crate::config::{Config, Environment, Scheme};
use crate::gateway::Gateway;

pub(crate) use self::files::Directory;
pub(crate) use self::guide::Guide;
pub(crate) use self::screen::Screen;
pub(crate) use self::style::Style;

/// What a demo is made of.
pub(crate) struct Options {
    /// Where its files are kept; `None` for a directory that goes with the demo.
    pub(crate) directory: Option<PathBuf>,
    /// Where its routes listen.
    pub(crate) host: IpAddr,
    /// What is added to the usual ports.
    pub(crate) port_offset: u16,
}

/// A demo whose files are written and whose broker runs.
pub(crate) struct Demo {
    directory: Directory,
    broker: Broker,
    host: IpAddr,
    port_offset: u16,
}

/// Where a route listens.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The route's name.
    pub(crate) route: &'static str,
    /// How it is spoken to.
    pub(crate) scheme: Scheme,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The port that it would have, if that were free.
    pub(crate) wanted: u16,
}

impl Demo {
    /// Writes the files and starts the broker; must not be called in a tokio runtime.
    pub(crate) fn prepare(options: &Options) -> anyhow::Result<Self> {
        let directory = match &options.directory {
            Some(path) => Directory::kept(path).with_context(|| path.display().to_string())?,
            None => Directory::temporary().context("no directory can be made for the demo")?,
        };
        directory.fill(options.host)?;
        let broker = Broker::start()?;
        Ok(Self { directory, broker, host: options.host, port_offset: options.port_offset })
    }

    /// Starts the gateway; must be called in a tokio runtime. With a mirror of its own, the gateway shows the
    /// messages there and not in the log.
    pub(crate) fn start(&self, mirror: Option<&Arc<dyn Mirror>>) -> anyhow::Result<(Gateway, Vec<Endpoint>)> {
        let mut attempts = 1;
        loop {
            let reserved = Reserved::take(self.host, self.port_offset)?;
            self.directory.write_configuration(&reserved.endpoints, self.broker.address())?;
            let mut config = Config::load(&self.directory.configuration(), &Environment::default())?;
            if let Some(mirror) = mirror {
                config.routes.iter_mut().for_each(|route| route.mirror = Some(Arc::clone(mirror)));
            }
            let endpoints = reserved.release();
            match Gateway::start(config) {
                Ok(gateway) => return Ok((gateway, endpoints)),
                // Somebody was faster.
                Err(error) if attempts < MAX_ATTEMPTS && is_taken(&error) => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Its files.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }
}

impl Endpoint {
    /// What clients that are told a URL are told.
    pub(crate) fn url(&self) -> String {
        let address = self.reachable();
        match self.scheme {
            Scheme::Coap | Scheme::Coaps | Scheme::Http | Scheme::Https | Scheme::Mqtt | Scheme::Mqtts => {
                format!("{}://{address}", self.scheme)
            }
            Scheme::MqttWs => format!("ws://{address}/mqtt"),
            Scheme::MqttWss => format!("wss://{address}/mqtt"),
        }
    }

    /// Where this machine reaches it.
    pub(crate) fn reachable(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    let is_taken = |error: &io::Error| error.kind() == ErrorKind::AddrInUse;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_taken))
}

const MAX_ATTEMPTS: u32 = 10;

/// The routes of the configuration, and the port that each one has by custom.
const ROUTES: [(&str, Scheme, u16); 6] = [
    ("mqtt", Scheme::Mqtt, 1883),
    ("mqtts", Scheme::Mqtts, 8883),
    ("ws", Scheme::MqttWs, 8083),
    ("wss", Scheme::MqttWss, 8084),
    ("coap", Scheme::Coap, 5683),
    ("coaps", Scheme::Coaps, 5684),
];

/// Users and their passwords.
const USERS: [(&str, &str); 2] = [ALICE, DEVICE_1];
const ALICE: (&str, &str) = ("alice", "wonderland");
const DEVICE_1: (&str, &str) = ("device-1", "rabbit");
/// What a device shares with mgate, for CoAP.
const KEY_1: &str = "rabbit-hole";
/// A device with a certificate.
const DEVICE: &str = "device-7";
