//! The words that the end-to-end tests are told in: the built gateway, real brokers and hand-made peers, all
//! on ports of their own and gone when dropped.
#![allow(dead_code, reason = "no test file needs all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

pub(crate) mod admin;
pub(crate) mod broker;
pub(crate) mod coap;
#[cfg(feature = "dtls")]
pub(crate) mod dtls;
pub(crate) mod frames;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod http2;
pub(crate) mod https;
pub(crate) mod issuer;
pub(crate) mod nats;
pub(crate) mod packets;
pub(crate) mod peer;
pub(crate) mod process;
pub(crate) mod service;
pub(crate) mod websocket;

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use mgate_certs::{Authority, Existing, Store, Validity};
use mgate_policies::Now;
use serde_json::Value;
use tempfile::TempDir;

use self::admin::Admin;
use self::peer::Peer;
use self::process::{Lines, Process};

/// A directory with the files of one test.
pub(crate) struct Files(TempDir);

/// `mgate run`, and what it says.
pub(crate) struct Mgate {
    process: Process,
    pub(crate) log: Lines,
    addresses: HashMap<String, SocketAddr>,
}

impl Files {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            directory.write(name, text);
        }
        directory
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Adds `ca.pem`, and `localhost` and `dev-1` as `.pem` and `.key`.
    pub(crate) fn with_certificates(self) -> Self {
        let valid = Validity::days(UNIX_EPOCH + Now::read().unix, 1).unwrap();
        let authority = Authority::create("test", valid).unwrap();
        let mut store = Store::create(self.0.path(), authority, valid, Existing::Keep).unwrap();
        store.issue_server(&["localhost", "127.0.0.1"], valid, Existing::Keep).unwrap();
        store.issue_client("dev-1", &[], valid, Existing::Keep).unwrap();
        self
    }
}

impl Mgate {
    /// Starts it and waits until all routes listen.
    pub(crate) fn start(files: &Files, config: &str) -> Self {
        Self::start_with(files, config, &[])
    }

    pub(crate) fn start_with(files: &Files, config: &str, arguments: &[&str]) -> Self {
        let file = files.write("mgate.toml", config);
        let mut command = mgate(&["run", "--log-format", "json", "-c"]);
        let (process, log) = Process::start_with_stderr(command.arg(file).args(arguments));
        let mut mgate = Self { process, log, addresses: HashMap::new() };
        let routes = config.matches("[[route]]").count();
        wait_until("mgate listens", || {
            mgate.addresses = mgate.log.lines().iter().filter_map(|line| listening(line)).collect();
            assert!(mgate.process.is_running(), "mgate ended: {}", mgate.log.text());
            mgate.addresses.len() == routes
        });
        mgate
    }

    /// Where the only route listens.
    pub(crate) fn address(&self) -> SocketAddr {
        assert_eq!(self.addresses.len(), 1);
        *self.addresses.values().next().unwrap()
    }

    pub(crate) fn address_of(&self, route: &str) -> SocketAddr {
        self.addresses[route]
    }

    /// A connection to the only route.
    pub(crate) fn dial(&self) -> Peer {
        Peer::dial(self.address())
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that was ever resident.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The time that it has kept a processor busy, to a hundredth of a second.
    pub(crate) fn busy(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // what Linux counts in, whatever its own clock does
        Duration::from_millis(ticks * 10)
    }

    /// Ends it at once, whatever it does.
    pub(crate) fn kill(self) {
        self.process.kill();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Sends SIGHUP, and waits until the new configuration is taken over.
    pub(crate) fn reload(&self) {
        let reloads = self.log.count("configuration reloaded");
        self.process.hang_up();
        wait_until("the configuration is reloaded", || self.log.count("configuration reloaded") > reloads);
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.process.hang_up();
    }

    /// Its admin listener.
    pub(crate) fn admin(&self) -> Admin {
        let line: Value = serde_json::from_str(&self.log.wait_for("listening for operators")).unwrap();
        Admin::at(line["address"].as_str().unwrap().parse().unwrap())
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }
}

/// The built program with these arguments, untouched by variables around it.
pub(crate) fn mgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mgate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// A configuration with the one route `devices` over TCP and the policy `acl.toml`; `more` are further keys of
/// the route, `rest` further tables.
pub(crate) fn config(upstream: u16, more: &str, rest: &str) -> String {
    format!(
        "[[route]]\nname = 'devices'\nlisten = 'mqtt://127.0.0.1:0'\nupstream = 'mqtt://127.0.0.1:{upstream}'\n\
         policies = ['acl']\n{more}\n{ACL}{rest}"
    )
}

/// Polls until something is true; fails the test after [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Now::read().instant + PATIENCE;
    while !is_true() {
        assert!(Now::read().instant < end, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An address for several routes that a certificate can be asked for by: below the ports that connections are made from.
pub(crate) fn local_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().unwrap();
        }
    }
}

pub(crate) fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn listening(line: &str) -> Option<(String, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let is_listening = line["message"] == "listening";
    is_listening
        .then(|| (line["route"].as_str().unwrap().into(), line["address"].as_str().unwrap().parse().unwrap()))
}

/// How long anything may take: less than the time-outs that mgate has by itself, which must not end a wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(9);

/// The table that names `acl.toml`.
pub(crate) const ACL: &str = "[policy.acl]\ntype = 'static'\nfile = 'acl.toml'\n";

/// A policy that allows everything.
pub(crate) const ALLOW_ALL: &str = "\
version = 1
[[statements]]
sid = 'all'
effect = 'allow'
principals = ['*']
actions = ['connect', 'publish', 'subscribe']
resources = ['topic:#', 'client_id:*']
";

pub(crate) const PASSWORD: &str = "correct horse";
/// Its hash, made with the least effort there is: tests check it often.
pub(crate) const PASSWORD_HASH: &str =
    "$argon2id$v=19$m=8,t=1,p=1$GjNuU3h8YckrjyW+/pl8bA$0soTSWeiNtjwEh+POTXAXnVItDiQrtlJ2XLEdVkgpzg";
