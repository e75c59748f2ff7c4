//! The files of a demo: an ordinary configuration, for `mgate run` as for `mgate demo`.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf, absolute};
use std::time::UNIX_EPOCH;

use anyhow::{Context, ensure};
use mgate_certs::{Access, Authority, Existing, Store, Validity, replace_file};
use mgate_policies::Now;
use tempfile::TempDir;

use super::{DEVICE, DEVICE_1, Endpoint, KEY_1, USERS};
use crate::authn::password_file::{EditablePasswordFile, hash_password};

/// The directory that everything is written to.
pub(crate) struct Directory {
    path: PathBuf,
    /// Deletes it in the end; `None` if it stays.
    temporary: Option<TempDir>,
}

impl Directory {
    /// A new one that goes with the demo.
    pub(super) fn temporary() -> io::Result<Self> {
        let only_owner = Permissions::from_mode(0o700);
        let temporary = tempfile::Builder::new().prefix("mgate-demo-").permissions(only_owner).tempdir()?;
        Ok(Self { path: temporary.path().to_owned(), temporary: Some(temporary) })
    }

    /// One that stays; if it is new, only its owner may look into it.
    pub(super) fn kept(path: &Path) -> io::Result<Self> {
        let path = absolute(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self { path, temporary: None })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes with the demo.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// The configuration file.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.path.join(CONFIGURATION)
    }

    /// A certificate, a key or a list of the demo's authority.
    pub(crate) fn certificate(&self, name: &str) -> PathBuf {
        self.certificates().join(name)
    }

    /// Makes certificates, users and statements; users and statements that are there stay as they are.
    pub(super) fn fill(&self, host: IpAddr) -> anyhow::Result<()> {
        self.check_configuration()?;
        self.write_certificates(host)?;
        self.write_new("acl.toml", || Ok(include_str!("files/acl.toml").into()))?;
        self.write_new("users.toml", users)?;
        self.write_new("keys.psk", || Ok(keys()))
    }

    /// Writes the configuration; each time anew, for the ports may be others.
    pub(super) fn write_configuration(
        &self,
        endpoints: &[Endpoint],
        broker: SocketAddr,
    ) -> anyhow::Result<()> {
        let text = TEMPLATE.replace("{broker}", &broker.to_string());
        let text = endpoints.iter().fold(text, |text, Endpoint { route, address, .. }| {
            text.replace(&format!("{{{route}}}"), &address.to_string())
        });
        self.write(CONFIGURATION, &text)
    }

    fn certificates(&self) -> PathBuf {
        self.path.join("certs")
    }

    /// Overwrites nothing that the demo did not write itself.
    fn check_configuration(&self) -> anyhow::Result<()> {
        let path = self.configuration();
        let is_ours = match fs::read_to_string(&path) {
            Ok(text) => text.lines().next() == TEMPLATE.lines().next(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        ensure!(is_ours, "{} was not written by `mgate demo`: choose another directory", path.display());
        Ok(())
    }

    fn write_certificates(&self, host: IpAddr) -> anyhow::Result<()> {
        let directory = self.certificates();
        let now = UNIX_EPOCH + Now::read().unix;
        let valid = Validity::days(now, DAYS)?;
        let mut store = if directory.join("ca.pem").exists() {
            Store::open(&directory)?
        } else {
            let authority = Authority::create("mgate demo CA", Validity::days(now, CA_DAYS)?)?;
            Store::create(&directory, authority, valid, Existing::Keep)?
        };
        store.write_revocation_list(valid)?;
        store.issue_server(&server_names(host), valid, Existing::Replace)?;
        store.issue_client(DEVICE, &[], valid, Existing::Replace)?;
        Ok(())
    }

    fn write_new(&self, name: &str, text: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
        if self.path.join(name).exists() { Ok(()) } else { self.write(name, &text()?) }
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path.join(name);
        replace_file(&path, text.as_bytes(), Access::Owner).with_context(|| path.display().to_string())
    }
}

fn users() -> anyhow::Result<String> {
    let mut file = EditablePasswordFile::parse(include_str!("files/users.toml"), Path::new("users.toml"))?;
    for (name, password) in USERS {
        let hash = hash_password(password.as_bytes()).context("a password cannot be hashed")?;
        file.upsert(name, &hash, &[]);
    }
    Ok(file.to_string())
}

/// Identities and keys in hexadecimal digits, as coap-client takes them in plain text.
fn keys() -> String {
    let digits: String = KEY_1.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("# identity:key\n{}:{digits}\n", DEVICE_1.0)
}

/// What clients may call this machine; the first one names the files.
fn server_names(host: IpAddr) -> Vec<String> {
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    for name in [host.to_string(), own] {
        let is_usable =
            name.parse::<IpAddr>().map_or_else(|_| is_host_name(&name), |ip| !ip.is_unspecified());
        if is_usable && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.split('.').all(is_label)
}

const CONFIGURATION: &str = "mgate.toml";
const TEMPLATE: &str = include_str!("files/mgate.toml");

const CA_DAYS: u32 = 3650;
const DAYS: u32 = 30;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn new_directories_are_for_their_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let kept = Directory::kept(&parent.path().join("demo")).unwrap();
        for directory in [Directory::temporary().unwrap(), kept] {
            assert_eq!(fs::metadata(directory.path()).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn what_people_changed_stays() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("acl.toml"), "version = 1\nstatements = []\n").unwrap();
        fs::write(directory.path().join("users.toml"), "# nobody\n").unwrap();
        let demo = Directory::kept(directory.path()).unwrap();
        for _ in 0..2 {
            demo.fill(HOST).unwrap();
            demo.write_configuration(&[], SocketAddr::new(HOST, 1)).unwrap();
        }
        assert_eq!(fs::read_to_string(demo.path().join("users.toml")).unwrap(), "# nobody\n");
        assert!(fs::read_to_string(demo.path().join("acl.toml")).unwrap().ends_with("statements = []\n"));
    }

    #[test]
    fn configuration_of_others_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let demo = Directory::kept(directory.path()).unwrap();
        fs::write(demo.configuration(), "# mine\n").unwrap();
        let error = demo.fill(HOST).unwrap_err().to_string();
        assert!(error.ends_with("mgate.toml was not written by `mgate demo`: choose another directory"));
        assert_eq!(fs::read_to_string(demo.configuration()).unwrap(), "# mine\n");
        assert!(!demo.certificate("ca.pem").exists());
    }

    #[test]
    fn host_names_that_a_certificate_can_hold_are_told() {
        for name in ["box", "box-1.example.org"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in ["", "(none)", "my_box", "-box", "box.", "a..b"] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
}
