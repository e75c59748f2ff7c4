use std::{error, fmt};

use mgate_proxy::gate::{Credentials, Verdict};
use mgate_proxy::transport::Upgrade;

use super::text;
use crate::authn::x509::common_name;
use crate::neighbour::template::{Part, parts};

/// A text with `${names}` in it, in whose place what a client shows is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part<Field>>);

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// `${` without `}`.
    Open,
    /// No name that is known.
    Unknown(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    CertCommonName,
    ClientId,
    /// mgate has none: always empty.
    Mountpoint,
    Password,
    Peer,
    Protocol,
    Token,
    Username,
}

impl Template {
    /// Reads a text with names.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        parts(text, TemplateError::Open, Field::named).map(Self)
    }

    /// The text for one client; it is rejected where that cannot be written.
    pub(super) fn render(&self, credentials: &Credentials<'_>) -> Result<String, Verdict> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Field(field) => out.push_str(&field.value(credentials)?),
                Part::Text(literal) => out.push_str(literal),
            }
        }
        Ok(out)
    }
}

impl Field {
    fn named(name: &str) -> Result<Self, TemplateError> {
        Ok(match name {
            "cert_common_name" => Self::CertCommonName,
            "client_id" | "clientid" => Self::ClientId,
            "mountpoint" => Self::Mountpoint,
            "password" => Self::Password,
            "peer" | "peerhost" => Self::Peer,
            "proto_name" | "protocol" => Self::Protocol,
            "token" => Self::Token,
            "username" => Self::Username,
            _ => return Err(TemplateError::Unknown(name.into())),
        })
    }

    fn value(self, credentials: &Credentials<'_>) -> Result<String, Verdict> {
        Ok(match self {
            Self::CertCommonName => credentials.certificate.and_then(common_name).unwrap_or_default(),
            Self::ClientId => credentials.client_id.into(),
            Self::Mountpoint => String::new(),
            Self::Password => text(credentials.password.unwrap_or_default())?.into(),
            Self::Peer => credentials.peer.ip().to_canonical().to_string(),
            Self::Protocol => credentials.protocol.to_string(),
            Self::Token => credentials.upgrade.and_then(Upgrade::bearer).unwrap_or_default().into(),
            Self::Username => credentials.username.unwrap_or_default().into(),
        })
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("`${` without `}`"),
            Self::Unknown(name) => write!(f, "unknown name ${{{name}}}"),
        }
    }
}

impl error::Error for TemplateError {}
