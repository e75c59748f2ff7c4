//! Real brokers.

use std::env;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;
use super::{Files, manifest, wait_until};

/// A broker that listens at `port`.
pub(crate) struct Broker {
    process: Process,
    pub(crate) port: u16,
    _files: Option<Files>,
}

impl Broker {
    /// mosquitto, open to everybody.
    pub(crate) fn mosquitto() -> Self {
        Self::mosquitto_with("allow_anonymous true\n")
    }

    /// mosquitto with more lines for its only listener.
    pub(crate) fn mosquitto_with(lines: &str) -> Self {
        // somebody else may take the free port first
        (0..5).find_map(|_| Self::try_mosquitto(lines)).expect("mosquitto starts with its configuration")
    }

    /// aedes, a broker of the Node world that speaks MQTT 3.1.1, over `tcp` or `ws`.
    pub(crate) fn aedes(transport: &str) -> Self {
        let script = manifest("tests/support/aedes.js");
        let (process, lines) = Process::start_with_stdout(node().arg(script).arg(transport));
        let line = lines.wait_for("listening ");
        let port = line.trim_start_matches("listening ").parse().unwrap();
        Self { process, port, _files: None }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub(crate) fn kill(self) {
        self.process.kill();
    }

    fn try_mosquitto(lines: &str) -> Option<Self> {
        let port = free_port();
        let files = Files::new(&[]);
        // as root it would become a user who may not read the test's files
        let text = format!("user root\nlistener {port} 127.0.0.1\n{lines}");
        let config = files.write("mosquitto.conf", &text);
        let (mut process, log) = Process::start_with_stderr(mosquitto().arg("-c").arg(config));
        let is_up = || log.text().contains(" running");
        wait_until("mosquitto runs", || is_up() || !process.is_running());
        is_up().then_some(Self { process, port, _files: Some(files) })
    }
}

/// `mosquitto_sub` in this version of MQTT, which says each thing at once and prints messages as `format` says.
pub(crate) fn mosquitto_sub(port: u16, version: &str, format: &str) -> Command {
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "mosquitto_sub", "-d", "-V", version, "-h", "127.0.0.1", "-p", &port.to_string()]);
    command.args(["-F", format]);
    command
}

/// A port at which nobody listens now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Node with the packages of the tests.
pub(crate) fn node() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", node_modules());
    command
}

/// Where those packages are.
pub(crate) fn node_modules() -> PathBuf {
    let modules = env::var_os("MGATE_TEST_NODE_MODULES");
    modules.expect("MGATE_TEST_NODE_MODULES is not set: run scripts/test").into()
}

/// Python with the packages of the tests.
pub(crate) fn python() -> Command {
    Command::new(env::var_os("MGATE_TEST_PYTHON").expect("MGATE_TEST_PYTHON is not set: run scripts/test"))
}

fn mosquitto() -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    // where distributions put it, which is not on everybody's path
    let directories = env::split_paths(&path).chain([Path::new("/usr/sbin").into()]);
    let program = directories.map(|directory| directory.join("mosquitto")).find(|program| program.is_file());
    Command::new(program.expect("mosquitto is not installed: run scripts/test"))
}
