use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::arguments::Arguments;
use crate::clock;
use crate::process;
use crate::programs::{self, MOSQUITTO, NATS, NGINX, SETPRIV, STRACE};
use crate::tls::Identity;

/// Which program stands between the clients and the upstream.
pub(crate) enum Kind {
    /// Any command line with `{listen}` and `{upstream}` in it, both `address:port`.
    Command(String),
    Mgate(PathBuf),
    /// mgate with a mirror of this mode on a message bus at this port.
    Mirroring {
        program: PathBuf,
        mode: String,
        bus: u16,
    },
    Mosquitto,
    /// A message bus, with streams.
    Nats,
    Nginx,
}

/// A server that this process started, and stops when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    is_traced: bool,
    address: SocketAddr,
    folder: TempDir,
}

impl Kind {
    /// Takes `--a`, `--a-command` and the like off the command line; nothing where it says `none`.
    pub(crate) fn take(arguments: &mut Arguments, side: &str, default: &str) -> io::Result<Option<Self>> {
        let mgate = PathBuf::from("target/release/mgate");
        if let Some(command) = arguments.text(&format!("{side}-command")) {
            return Ok(Some(Self::Command(command)));
        }
        match arguments.text(side).as_deref().unwrap_or(default) {
            "mgate" => Ok(Some(Self::Mgate(arguments.take("mgate", mgate)?))),
            "nginx" => Ok(Some(Self::Nginx)),
            "none" => Ok(None),
            other => Err(io::Error::other(format!("--{side} must be mgate, nginx or none, not {other}"))),
        }
    }

    /// What the tables call it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Command(command) => command.split_whitespace().next().unwrap_or_default(),
            Self::Mgate(_) => "mgate",
            Self::Mirroring { .. } => "mgate with mirror",
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats-server",
            Self::Nginx => "nginx",
        }
    }

    /// Starts it in front of `upstream_port` and waits until it accepts.
    pub(crate) fn start(&self, upstream_port: u16, identity: Option<&Identity>) -> io::Result<Server> {
        self.start_under(&[], upstream_port, identity)
    }

    /// Starts it as [`Self::start`] does, with its system calls counted.
    pub(crate) fn start_traced(&self, upstream_port: u16) -> io::Result<Server> {
        let strace = STRACE.find()?.display().to_string();
        let mut server =
            self.start_under(&[&strace, "-c", "-f", "-o", SYSCALLS_FILE, "--"], upstream_port, None)?;
        server.is_traced = true;
        Ok(server)
    }

    fn start_under(
        &self,
        tracer: &[&str],
        upstream_port: u16,
        identity: Option<&Identity>,
    ) -> io::Result<Server> {
        let folder = tempfile::Builder::new().prefix("mgate-bench-").tempdir()?;
        let address = free_address()?;
        if let Some(Identity { certificate_pem, key_pem, .. }) = identity {
            fs::write(folder.path().join("server.pem"), certificate_pem)?;
            fs::write(folder.path().join("server.key"), key_pem)?;
        }
        let words = self.command(folder.path(), address, upstream_port, identity.is_some())?;
        let log = File::create(folder.path().join(LOG_FILE))?;
        // Should this process be killed, the kernel ends its servers.
        let child = Command::new(SETPRIV.find()?)
            .args(["--pdeathsig", "TERM", "--"])
            .args(tracer)
            .args(words)
            .current_dir(folder.path())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut server = Server { child, is_traced: false, address, folder };
        server.wait_until_it_accepts(self.name())?;
        Ok(server)
    }

    /// Writes what the program reads at its start, and says how to run it.
    fn command(
        &self,
        folder: &Path,
        listen: SocketAddr,
        upstream: u16,
        is_tls: bool,
    ) -> io::Result<Vec<String>> {
        let words = match self {
            Self::Command(command) => {
                let command = command.replace("{listen}", &listen.to_string());
                let command = command.replace("{upstream}", &format!("127.0.0.1:{upstream}"));
                return Ok(command.split_whitespace().map(str::to_owned).collect());
            }
            Self::Mgate(program) | Self::Mirroring { program, .. } => {
                let mut text = mgate_configuration(listen, upstream, is_tls);
                if let Self::Mirroring { mode, bus, .. } = self {
                    text = text.replacen("policies", "mirror = \"bus\"\npolicies", 1);
                    text.push_str(&mirror_configuration(mode, *bus));
                }
                fs::write(folder.join("mgate.toml"), text)?;
                fs::write(folder.join("acl.toml"), MGATE_ACL)?;
                [
                    fs::canonicalize(program).map_err(|error| at(program, &error))?,
                    "run".into(),
                    "-c".into(),
                    "mgate.toml".into(),
                ]
                .to_vec()
            }
            Self::Mosquitto => {
                let port = listen.port();
                let text =
                    format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n");
                fs::write(folder.join("mosquitto.conf"), text)?;
                [MOSQUITTO.find()?, "-c".into(), "mosquitto.conf".into()].to_vec()
            }
            Self::Nats => {
                let port = listen.port().to_string();
                [
                    NATS.find()?,
                    "-a".into(),
                    "127.0.0.1".into(),
                    "-p".into(),
                    port.into(),
                    "-js".into(),
                    "-sd".into(),
                    folder.join("store"),
                ]
                .to_vec()
            }
            Self::Nginx => {
                fs::write(folder.join("nginx.conf"), nginx_configuration(folder, listen, upstream, is_tls)?)?;
                [NGINX.find()?, "-e".into(), "stderr".into(), "-c".into(), folder.join("nginx.conf")].to_vec()
            }
        };
        Ok(words.iter().map(|word| word.display().to_string()).collect())
    }
}

impl Server {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All its processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        process::family(self.child.id())
    }

    /// Stops it and returns what its tracer counted.
    pub(crate) fn stop_traced(mut self) -> io::Result<String> {
        self.stop();
        fs::read_to_string(self.folder.path().join(SYSCALLS_FILE))
    }

    fn wait_until_it_accepts(&mut self, name: &str) -> io::Result<()> {
        let deadline = clock::now() + START_PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || clock::now() > deadline {
                let log = fs::read_to_string(self.folder.path().join(LOG_FILE))?;
                let what = ended.map_or("does not listen".to_owned(), |status| format!("ended: {status}"));
                return Err(io::Error::other(format!("{name} {what}\n{}", log.trim_end())));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks the server to end, and ends it and what it started if it does not.
    fn stop(&mut self) {
        let family = self.pids();
        // A tracer ends with the server, which is its first child.
        let server = if self.is_traced { family.get(1) } else { family.first() };
        let deadline = clock::now() + STOP_PATIENCE;
        if let Some(server) = server.filter(|_| self.is_running()) {
            drop(process::signal(*server, Signal::TERM));
        }
        while self.is_running() {
            if clock::now() > deadline {
                family.iter().for_each(|pid| drop(process::signal(*pid, Signal::KILL)));
                drop(self.child.wait());
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn nginx_configuration(folder: &Path, listen: SocketAddr, upstream: u16, is_tls: bool) -> io::Result<String> {
    let module = programs::stream_module()?;
    let (module, folder) = (module.display(), folder.display());
    let tls = if is_tls { " ssl; ssl_certificate server.pem; ssl_certificate_key server.key" } else { "" };
    let files = process::open_files_limit()?;
    Ok(format!(
        "load_module {module};\n\
         daemon off;\n\
         pid {folder}/nginx.pid;\n\
         error_log stderr error;\n\
         worker_processes 1;\n\
         events {{ worker_connections {files}; }}\n\
         stream {{\n\
         access_log off;\n\
         server {{ listen {listen}{tls}; proxy_pass 127.0.0.1:{upstream}; }}\n\
         }}\n"
    ))
}

fn mgate_configuration(listen: SocketAddr, upstream: u16, is_tls: bool) -> String {
    let (scheme, tls) = match is_tls {
        true => ("mqtts", "tls = { cert = \"server.pem\", key = \"server.key\" }\n"),
        false => ("mqtt", ""),
    };
    format!(
        "workers = 1\n\
         [[route]]\n\
         name = \"bench\"\n\
         listen = \"{scheme}://{listen}\"\n\
         upstream = \"mqtt://127.0.0.1:{upstream}\"\n\
         policies = [\"acl\"]\n\
         limits = {{ connections = 1000000, connections_per_address = 1000000 }}\n\
         {tls}\n\
         [policy.acl]\n\
         type = \"static\"\n\
         file = \"acl.toml\"\n"
    )
}

fn mirror_configuration(mode: &str, bus: u16) -> String {
    let extra = match mode {
        "acked" => "stream = { name = \"channels\", subjects = [\"channels.>\"], create = true }\n",
        "spool" => "spool = { dir = \"spool\" }\n",
        _ => "",
    };
    format!("[mirror.bus]\ntype = \"nats\"\nurl = \"nats://127.0.0.1:{bus}\"\nmode = \"{mode}\"\n{extra}")
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

/// Every device its own topics: what a fleet's rules are mostly made of.
const MGATE_ACL: &str = r#"version = 1

[[statements]]
effect = "allow"
principals = ["*"]
actions = ["connect"]

[[statements]]
effect = "allow"
principals = ["*"]
actions = ["publish", "subscribe", "deliver"]
resources = ["topic:devices/${client_id}/#", "topic:channels/${client_id}/messages/#"]
"#;

const LOG_FILE: &str = "log";
const SYSCALLS_FILE: &str = "syscalls";
const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
