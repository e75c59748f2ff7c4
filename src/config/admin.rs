use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use ring::hmac;
use ring::rand::SystemRandom;

use super::environment::Environment;
use super::files::{self, Files};
use super::problem::{Problems, Report};
use super::section::{Given, Section};
use super::values::forbid_credentials;

/// Where operators and their programs ask and command.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What callers must show; `None` where only this machine can reach it.
    pub token: Option<Token>,
    /// The file that it stands in.
    pub token_file: Option<PathBuf>,
}

impl AdminConfig {
    /// Reads this table of a configuration file and nothing else; `None` if there is none.
    pub(crate) fn load(path: &Path, environment: &Environment) -> Result<Option<Self>, Problems> {
        let report = Report::default();
        let admin = files::root(path, &report).and_then(|(node, place)| {
            let mut file = Section::root(&node, &place, Some(environment), &report);
            read(file.section("admin"), &Files::beside(path, &report))
        });
        report.finish()?;
        Ok(admin)
    }
}

/// A secret that can be recognised, but not read.
#[derive(Clone)]
pub struct Token {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Token {
    fn new(text: &str) -> Result<Self, String> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible || text.len() < MIN_TOKEN_BYTES {
            return Err(format!("must hold at least {MIN_TOKEN_BYTES} visible ASCII characters"));
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| "no random numbers are to be had")?;
        Ok(Self { tag: hmac::sign(&key, text.as_bytes()), key })
    }

    /// Says whether `shown` is this token; how long that takes tells nothing.
    pub(crate) fn is(&self, shown: &str) -> bool {
        hmac::verify(&self.key, shown.as_bytes(), self.tag.as_ref()).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Reads the table, if it is there.
pub(super) fn read(mut section: Section<'_>, files: &Files<'_>) -> Option<AdminConfig> {
    if !section.is_given(&["listen", "token_file"]) {
        return None;
    }
    section.require(&["listen"]);
    let listen = section.parse("listen", resolve);
    let token_file = section.text("token_file");
    section.finish();
    let token = token_file.as_ref().map(|file| read_token(file, files));
    let Given { value: listen, .. } = listen?;
    if token_file.is_none() && !listen.ip().is_loopback() {
        let message = format!("is missing: others than this machine reach {listen}");
        section.problem("token_file", message);
    }
    let token_file = token_file.map(|file| files.path(&file));
    Some(AdminConfig { listen, token: token.flatten(), token_file })
}

fn read_token(file: &Given<String>, files: &Files<'_>) -> Option<Token> {
    let text = files.text(file)?;
    Token::new(text.trim()).map_err(|error| files.problem(file, error)).ok()
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    forbid_credentials(text)?;
    let Some(authority) = text.strip_prefix("http://") else {
        return Err(format!("\"{text}\" is not http://host:port"));
    };
    let mut addresses =
        authority.to_socket_addrs().map_err(|error| format!("\"{authority}\" is not host:port: {error}"))?;
    addresses.next().ok_or_else(|| format!("\"{authority}\" has no address"))
}

const MIN_TOKEN_BYTES: usize = 16;
