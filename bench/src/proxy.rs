use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::arguments::Arguments;
use crate::clock;
use crate::configuration::{self, ACL_OF_HTTP, ACL_OF_MQTT};
use crate::process;
use crate::programs::{HAPROXY, MOSQUITTO, NATS, NGINX, SETPRIV, STRACE};
use crate::tls::Identity;

/// Which program stands between the clients and the upstream.
pub(crate) enum Kind {
    /// Any command line with `{listen}` and `{upstream}` in it, both `address:port`.
    Command(String),
    /// For HTTP.
    Haproxy,
    Mgate(PathBuf),
    /// mgate with a route of CoAP.
    MgateCoap(PathBuf),
    /// mgate with a route of HTTP.
    MgateHttp(PathBuf),
    /// mgate with a mirror of this mode on a message bus at this port.
    Mirroring {
        program: PathBuf,
        mode: String,
        bus: u16,
    },
    Mosquitto,
    /// A message bus, with streams.
    Nats,
    /// nginx's `stream` module.
    Nginx,
    /// nginx's `stream` module, for datagrams: a session of a client ends after as many responses to each of them, or
    /// after a while without any.
    NginxDatagrams {
        responses: Option<u32>,
    },
    NginxHttp,
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
            Self::Haproxy => "haproxy",
            Self::Mgate(_) | Self::MgateCoap(_) | Self::MgateHttp(_) => "mgate",
            Self::Mirroring { .. } => "mgate with mirror",
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats-server",
            Self::Nginx | Self::NginxDatagrams { responses: None } | Self::NginxHttp => "nginx",
            Self::NginxDatagrams { responses: Some(_) } => "nginx, a session a request",
        }
    }

    /// Whether it listens for datagrams.
    fn takes_datagrams(&self) -> bool {
        matches!(self, Self::MgateCoap(_) | Self::NginxDatagrams { .. })
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
        let address = if self.takes_datagrams() { free_udp_address()? } else { free_address()? };
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
        server.wait_until_it_accepts(self)?;
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
            Self::Haproxy => {
                fs::write(folder.join("haproxy.cfg"), configuration::haproxy(listen, upstream))?;
                [HAPROXY.find()?, "-db".into(), "-f".into(), "haproxy.cfg".into()].to_vec()
            }
            Self::Mgate(program) | Self::Mirroring { program, .. } => {
                let mut text = configuration::mgate(listen, upstream, is_tls);
                if let Self::Mirroring { mode, bus, .. } = self {
                    text = text.replacen("policies", "mirror = \"bus\"\npolicies", 1);
                    text.push_str(&configuration::mirror(mode, *bus));
                }
                mgate(program, folder, &text, ACL_OF_MQTT)?
            }
            Self::MgateCoap(program) => {
                mgate(program, folder, &configuration::mgate_coap(listen, upstream), ACL_OF_HTTP)?
            }
            Self::MgateHttp(program) => {
                mgate(program, folder, &configuration::mgate_http(listen, upstream), ACL_OF_HTTP)?
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
            Self::Nginx => nginx(folder, &configuration::nginx_stream(folder, listen, upstream, is_tls)?)?,
            Self::NginxDatagrams { responses } => {
                nginx(folder, &configuration::nginx_datagrams(folder, listen, upstream, *responses)?)?
            }
            Self::NginxHttp => nginx(folder, &configuration::nginx_http(folder, listen, upstream)?)?,
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

    fn wait_until_it_accepts(&mut self, kind: &Kind) -> io::Result<()> {
        let (name, deadline) = (kind.name(), clock::now() + START_PATIENCE);
        let accepts = |address| match kind.takes_datagrams() {
            true => process::takes_datagrams(address),
            false => TcpStream::connect(address).is_ok(),
        };
        while !accepts(self.address) {
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

fn free_udp_address() -> io::Result<SocketAddr> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Writes what mgate reads at its start, and says how to run it.
fn mgate(program: &Path, folder: &Path, text: &str, acl: &str) -> io::Result<Vec<PathBuf>> {
    fs::write(folder.join("mgate.toml"), text)?;
    fs::write(folder.join("acl.toml"), acl)?;
    let program = fs::canonicalize(program).map_err(|error| at(program, &error))?;
    Ok(vec![program, "run".into(), "-c".into(), "mgate.toml".into()])
}

fn nginx(folder: &Path, text: &str) -> io::Result<Vec<PathBuf>> {
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    Ok(vec![NGINX.find()?, "-e".into(), "stderr".into(), "-c".into(), file])
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}

const LOG_FILE: &str = "log";
const SYSCALLS_FILE: &str = "syscalls";
const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
