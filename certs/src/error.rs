use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why an authority cannot be made or loaded, or does not sign.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertError {
    /// The authority's certificate or key cannot be used; says why.
    BadAuthority(&'static str),
    /// A name cannot stand in a certificate; the name and why.
    BadName(String, &'static str),
    /// A signing request is refused; says why.
    BadRequest(&'static str),
    /// A time is before 1970 or after 9999.
    BadTime,
    /// The authority's own certificate ends before the new one would begin.
    Ended,
    /// The cryptographic library failed; what it said.
    Library(String),
}

/// Why a directory of certificates cannot be read or changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Every certificate of this name or serial is revoked already.
    AlreadyRevoked(String),
    /// The authority refuses.
    Cert(CertError),
    /// A file stands where a new one would go.
    Exists(PathBuf),
    /// A file or directory cannot be read or written.
    File(PathBuf, io::Error),
    /// A line of the record of certificates makes no sense.
    Index(PathBuf, usize),
    /// Another process has been working on the directory for too long.
    Locked(PathBuf),
    /// A name cannot be a file's name, or is that of one of the authority's own files.
    NoFileName(String),
    /// No certificate of this name or serial was issued.
    NotIssued(String),
}

impl From<rcgen::Error> for CertError {
    fn from(error: rcgen::Error) -> Self {
        Self::Library(error.to_string())
    }
}

impl From<CertError> for StoreError {
    fn from(error: CertError) -> Self {
        Self::Cert(error)
    }
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadAuthority(why) => write!(f, "authority: {why}"),
            Self::BadName(name, why) => write!(f, "name {name:?}: {why}"),
            Self::BadRequest(why) => write!(f, "signing request: {why}"),
            Self::BadTime => f.write_str("the time is not between the years 1970 and 9999"),
            Self::Ended => f.write_str("the authority's own certificate has ended"),
            Self::Library(what) => write!(f, "cryptographic library: {what}"),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRevoked(what) => write!(f, "{what:?} is revoked already"),
            Self::Cert(error) => error.fmt(f),
            Self::Exists(path) => write!(f, "{} exists already", path.display()),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Index(path, line) => write!(f, "{}:{line}: not a record of a certificate", path.display()),
            Self::Locked(path) => write!(f, "{} is held by another process", path.display()),
            Self::NoFileName(name) => write!(f, "name {name:?} cannot be the name of a file here"),
            Self::NotIssued(what) => write!(f, "no certificate of {what:?} was issued here"),
        }
    }
}

impl std::error::Error for CertError {}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Cert(error) => Some(error),
            Self::File(_, error) => Some(error),
            _ => None,
        }
    }
}
