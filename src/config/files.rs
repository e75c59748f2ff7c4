use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::document::{Node, SyntaxError, parse_toml};
use super::problem::{Place, Report};
use super::section::Given;
use super::yaml::parse_yaml;

/// The files that a configuration names; relative paths begin where the configuration file is.
pub(crate) struct Files<'a> {
    directory: &'a Path,
    report: &'a Report,
}

impl<'a> Files<'a> {
    /// Files next to the configuration file `path`.
    pub(crate) fn beside(path: &'a Path, report: &'a Report) -> Self {
        Self { directory: path.parent().unwrap_or(Path::new("")), report }
    }

    /// Where problems go.
    pub(crate) fn report(&self) -> &'a Report {
        self.report
    }

    /// Where a file is.
    pub(crate) fn path(&self, name: &Given<String>) -> PathBuf {
        self.directory.join(&name.value)
    }

    /// All bytes of a file.
    pub(crate) fn bytes(&self, name: &Given<String>) -> Option<Vec<u8>> {
        let path = self.path(name);
        match read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.report.problem(&name.place, format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    /// What `read` makes of a file's bytes.
    pub(crate) fn load<T, E: Display>(
        &self,
        name: &Given<String>,
        read: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Option<T> {
        read(&self.bytes(name)?).map_err(|error| self.problem(name, error)).ok()
    }

    /// Records what is wrong with the contents of a file, where it is named.
    pub(crate) fn problem(&self, name: &Given<String>, message: impl Display) {
        self.report.problem(&name.place, format!("{}: {message}", name.value));
    }

    /// A file's text.
    pub(crate) fn text(&self, name: &Given<String>) -> Option<String> {
        self.load(name, |bytes| str::from_utf8(bytes).map(str::to_owned).map_err(|_| "is not UTF-8"))
    }

    /// A TOML, JSON or YAML file, by its extension.
    pub(crate) fn document(&self, name: &Given<String>) -> Option<(Node, Place)> {
        let path = self.path(name);
        let Some(syntax) = Syntax::of(&path) else {
            self.problem(name, UNKNOWN_EXTENSION);
            return None;
        };
        let text = self.text(name)?;
        parsed(syntax.parse(&text), Place::file(&path), self.report)
    }
}

/// The syntax of a file.
#[derive(Clone, Copy)]
enum Syntax {
    Toml,
    Yaml,
}

/// The configuration file itself.
pub(crate) fn root(path: &Path, report: &Report) -> Option<(Node, Place)> {
    whole(path, Syntax::Toml, report)
}

/// A TOML, JSON or YAML file that no configuration names.
pub(crate) fn alone(path: &Path, report: &Report) -> Option<(Node, Place)> {
    match Syntax::of(path) {
        Some(syntax) => whole(path, syntax, report),
        None => {
            report.problem(&Place::file(path), UNKNOWN_EXTENSION);
            None
        }
    }
}

/// Reads JSON, or YAML; `place` is the file that it stands in.
pub(crate) fn parse_json(text: &str, place: &Place, report: &Report) -> Option<Node> {
    parsed(parse_yaml(text), place.clone(), report).map(|(node, _)| node)
}

impl Syntax {
    /// What the name of a file says.
    fn of(path: &Path) -> Option<Self> {
        match path.extension().and_then(OsStr::to_str) {
            Some("toml") => Some(Self::Toml),
            Some("json" | "yaml" | "yml") => Some(Self::Yaml),
            _ => None,
        }
    }

    fn parse(self, text: &str) -> Result<Node, SyntaxError> {
        match self {
            Self::Toml => parse_toml(text),
            Self::Yaml => parse_yaml(text),
        }
    }
}

fn whole(path: &Path, syntax: Syntax, report: &Report) -> Option<(Node, Place)> {
    let place = Place::file(path);
    let text = read(path)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8")));
    match text {
        Ok(text) => parsed(syntax.parse(&text), place, report),
        Err(error) => {
            report.problem(&place, format!("cannot be read: {error}"));
            None
        }
    }
}

fn parsed(result: Result<Node, SyntaxError>, place: Place, report: &Report) -> Option<(Node, Place)> {
    match result {
        Ok(node) => Some((node, place)),
        Err(error) => {
            report.problem(&Place { line: error.line, ..place }, error.message);
            None
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_BYTES {
        true => Err(io::Error::other("it is larger than 64 MiB")),
        false => Ok(bytes),
    }
}

const UNKNOWN_EXTENSION: &str = "the name must end in .toml, .json or .yaml";
const MAX_BYTES: u64 = 64 * 1024 * 1024;
