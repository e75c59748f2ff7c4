use std::fs;
use std::io::{self, BufRead};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use mgate_certs::{Access, replace_file};
use serde_json::json;

use super::{Global, print};
use crate::authn::password_file::{EditablePasswordFile, hash_password, is_user_name};

/// Set a user's password in a password file, or delete the user.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The password file; made where there is none
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user's name
    #[arg(value_name = "USER", value_parser = user_name)]
    user: String,
    /// Read the password from standard input, one line, instead of asking for it
    #[arg(long, conflicts_with = "delete")]
    stdin: bool,
    /// A group that the user is in, in place of those that it was in (may be repeated)
    #[arg(long = "group", value_name = "GROUP", conflicts_with = "delete")]
    groups: Vec<String>,
    /// Delete the user
    #[arg(long)]
    delete: bool,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        // Slow things come before the file is read: another change may happen meanwhile.
        let hash = if self.delete { None } else { Some(hash_password(&self.password()?)?) };
        let done = self.change(hash.as_deref())?;
        if global.json {
            return print(json!({ "file": self.file.to_string_lossy(), "user": self.user, "done": done }));
        }
        print(format_args!("{}: user {} {done}", self.file.display(), self.user))
    }

    /// Sets the hash, or deletes the user where there is none; says what was done.
    fn change(&self, hash: Option<&str>) -> anyhow::Result<&'static str> {
        let mut file = EditablePasswordFile::parse(&self.read()?, &self.file)?;
        let is_known = file.contains(&self.user);
        let done = match hash {
            Some(hash) => {
                file.upsert(&self.user, hash, &self.groups);
                if is_known { "changed" } else { "added" }
            }
            None => {
                ensure!(file.remove(&self.user), "{}: no user {}", self.file.display(), self.user);
                "deleted"
            }
        };
        let place = || self.file.display().to_string();
        replace_file(&self.file, file.to_string().as_bytes(), Access::Owner).with_context(place)?;
        Ok(done)
    }

    fn read(&self) -> anyhow::Result<String> {
        match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.delete => Ok(String::new()),
            read => read.with_context(|| self.file.display().to_string()),
        }
    }

    fn password(&self) -> anyhow::Result<Vec<u8>> {
        if self.stdin {
            return read_line(io::stdin().lock());
        }
        let ask = |prompt: &str| {
            rpassword::prompt_password(prompt).context("no terminal to ask for the password; use --stdin")
        };
        let password = ask(&format!("Password of {}: ", self.user))?.into_bytes();
        check_length(&password)?;
        ensure!(ask("The same again: ")?.into_bytes() == password, "the two passwords differ");
        Ok(password)
    }
}

fn user_name(text: &str) -> Result<String, &'static str> {
    if is_user_name(text) {
        Ok(text.into())
    } else {
        Err("must not be empty or hold '/', '+', '#' or U+0000")
    }
}

/// Reads a line without its end; it may hold any bytes, as an MQTT password may.
fn read_line(input: impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(MAX_PASSWORD_BYTES as u64 + 2).read_until(b'\n', &mut line).context("standard input")?;
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        line.pop_if(|byte| *byte == b'\r');
    }
    check_length(&line)?;
    Ok(line)
}

fn check_length(password: &[u8]) -> anyhow::Result<()> {
    match password.len() {
        0 => bail!("the password is empty"),
        1..=MAX_PASSWORD_BYTES => Ok(()),
        _ => bail!("the password is longer than {MAX_PASSWORD_BYTES} bytes"),
    }
}

/// What fits into an MQTT CONNECT. [MQTT-3.1.3.5]
const MAX_PASSWORD_BYTES: usize = 65_535;

const EXAMPLES: &str = "\
Examples:
  mgate passwd users.toml dev-1
  mgate passwd users.toml dev-1 --stdin --group sensors < password.txt
  mgate passwd users.toml dev-1 --delete";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tempfile::TempDir;

    use super::*;
    use crate::authn::password_file::PasswordFile;

    #[test]
    fn user_is_added_changed_and_deleted() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(arguments(&directory, &["sensors"]).change(Some(HASH)).unwrap(), "added");
        assert_eq!(arguments(&directory, &[]).change(Some(OTHER_HASH)).unwrap(), "changed");
        let file = arguments(&directory, &[]).file;
        let user = read(&file).user("dev-1").unwrap().clone();
        assert_eq!((&*user.hash, user.groups), (OTHER_HASH, vec!["sensors".into()]));
        assert_eq!(arguments(&directory, &[]).change(None).unwrap(), "deleted");
        assert!(read(&file).is_empty());
    }

    #[test]
    fn unknown_user_is_not_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let mut arguments = arguments(&directory, &[]);
        arguments.delete = true;
        assert!(arguments.change(None).is_err());
        assert!(!arguments.file.exists());
        fs::write(&arguments.file, "# nobody\n").unwrap();
        assert!(arguments.change(None).unwrap_err().to_string().ends_with("users.toml: no user dev-1"));
        assert_eq!(fs::read_to_string(&arguments.file).unwrap(), "# nobody\n");
    }

    #[test]
    fn broken_file_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let arguments = arguments(&directory, &[]);
        fs::write(&arguments.file, "[users\n").unwrap();
        assert!(arguments.change(Some(HASH)).unwrap_err().to_string().contains("users.toml:1: "));
        assert_eq!(fs::read_to_string(&arguments.file).unwrap(), "[users\n");
    }

    #[cfg(unix)]
    #[test]
    fn file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let arguments = arguments(&directory, &[]);
        arguments.change(Some(HASH)).unwrap();
        assert_eq!(fs::metadata(&arguments.file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn line_is_read_without_its_end() {
        for line in [&b"pass word"[..], b"pass word\n", b"pass word\r\n", b"pass word\nmore\n"] {
            assert_eq!(read_line(line).unwrap(), b"pass word");
        }
        assert_eq!(read_line(&b"\xff\r"[..]).unwrap(), b"\xff\r");
    }

    #[test]
    fn empty_and_endless_passwords_are_refused() {
        assert!(read_line(&b""[..]).is_err());
        assert!(read_line(&b"\n"[..]).is_err());
        assert!(read_line(&[b'a'; MAX_PASSWORD_BYTES][..]).is_ok());
        assert!(read_line(&[b'a'; MAX_PASSWORD_BYTES + 1][..]).is_err());
        assert!(read_line(io::BufReader::new(io::repeat(b'a'))).is_err());
    }

    #[test]
    fn name_that_is_no_topic_level_is_refused() {
        assert!(user_name("dev-1").is_ok());
        for name in ["", "a/b", "+", "#", "a\0"] {
            assert!(user_name(name).is_err(), "{name:?}");
        }
    }

    fn arguments(directory: &TempDir, groups: &[&str]) -> Arguments {
        Arguments {
            file: directory.path().join("users.toml"),
            user: "dev-1".into(),
            stdin: false,
            groups: groups.iter().map(ToString::to_string).collect(),
            delete: false,
        }
    }

    fn read(file: &Path) -> PasswordFile {
        PasswordFile::parse(&fs::read_to_string(file).unwrap(), file).unwrap()
    }

    const HASH: &str =
        "$argon2id$v=19$m=8,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$39tbUSD70LTTCIyCWo9t5sDidhNPptw1P94ISzTyALc";
    const OTHER_HASH: &str =
        "$argon2id$v=19$m=32,t=3,p=1$MDEyMzQ1Njc4OWFiY2RlZg$GrH0Ihe/GY077G30F5lSXp1ff1dLkmYxTyy2Ngwz+ZI";
}
