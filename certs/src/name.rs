use std::fmt;
use std::net::IpAddr;

use rcgen::SanType;

use crate::error::CertError;

/// A subject alternative name that is fit for a certificate: a DNS name, an IP address or a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct San(SanType);

/// Whom a certificate is for.
pub(crate) struct Subject {
    pub(crate) common_name: Option<String>,
    pub(crate) sans: Vec<San>,
}

impl San {
    /// Takes a DNS name; its first label may be `*`. RFC 1123 §2.1, and `_` as devices use it.
    pub fn dns(name: &str) -> Result<Self, CertError> {
        let host = name.strip_prefix("*.").unwrap_or(name);
        if name.len() > 253 || !host.split('.').all(is_label) {
            return Err(CertError::BadName(name.into(), "not a DNS name"));
        }
        Ok(Self(SanType::DnsName(name.try_into()?)))
    }

    /// Takes an IP address where the text is one, and a DNS name otherwise.
    pub fn host(text: &str) -> Result<Self, CertError> {
        text.parse().map_or_else(|_| Self::dns(text), |address| Ok(Self::ip(address)))
    }

    /// Takes an IP address.
    pub fn ip(address: IpAddr) -> Self {
        Self(SanType::IpAddress(address))
    }

    /// Takes an absolute URI. RFC 3986 §4.3
    pub fn uri(text: &str) -> Result<Self, CertError> {
        let is_printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        let has_scheme =
            text.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty());
        if !is_printable || !has_scheme {
            return Err(CertError::BadName(text.into(), "not an absolute URI"));
        }
        Ok(Self(SanType::URI(text.try_into()?)))
    }

    pub(crate) fn is_host(&self) -> bool {
        matches!(self.0, SanType::DnsName(_) | SanType::IpAddress(_))
    }

    pub(crate) fn to_der(&self) -> SanType {
        self.0.clone()
    }
}

impl Subject {
    /// A server of these names; the first one is its common name too, where it is short enough.
    pub(crate) fn server(names: &[impl AsRef<str>]) -> Result<Self, CertError> {
        let sans = names.iter().map(|name| San::host(name.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let common_name = sans.first().map(San::to_string).filter(|name| name.len() <= COMMON_NAME_LENGTH);
        Ok(Self { common_name, sans })
    }

    /// A client of this identity.
    pub(crate) fn client(id: &str, sans: &[San]) -> Result<Self, CertError> {
        check_common_name(id)?;
        Ok(Self { common_name: Some(id.into()), sans: sans.to_vec() })
    }

    /// What people call it: the common name, else the first alternative name.
    pub(crate) fn name(&self) -> Option<String> {
        self.common_name.clone().or_else(|| self.sans.first().map(San::to_string))
    }
}

/// Refuses what is empty, too long (RFC 5280 appendix A.1) or invisible.
pub(crate) fn check_common_name(name: &str) -> Result<(), CertError> {
    let why = if name.is_empty() {
        "empty"
    } else if name.chars().count() > COMMON_NAME_LENGTH {
        "longer than 64 characters"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else {
        return Ok(());
    };
    Err(CertError::BadName(name.into(), why))
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            SanType::DnsName(text) | SanType::URI(text) => f.write_str(text.as_str()),
            SanType::IpAddress(address) => address.fmt(f),
            _ => Err(fmt::Error),
        }
    }
}

fn is_label(label: &str) -> bool {
    let is_word = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_word && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

const COMMON_NAME_LENGTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert!(matches!(San::host("::1").unwrap().0, SanType::IpAddress(_)));
        assert!(matches!(San::host("localhost").unwrap().0, SanType::DnsName(_)));
        assert_eq!(San::host("*.example.org").unwrap().to_string(), "*.example.org");
    }

    #[test]
    fn what_is_no_dns_name_is_refused() {
        let long = "a.".repeat(126) + "ab";
        for name in ["", ".", "a..b", "a b", "-a", "a-", "*", "a.*.b", "ä.example", "a\0b", &long] {
            assert!(San::dns(name).is_err(), "{name}");
        }
    }

    #[test]
    fn what_is_no_uri_is_refused() {
        assert!(San::uri("urn:dev:mac:0024befffe804ff1").is_ok());
        for text in ["", "device", "urn:", "1a:b", "urn:a b", ":a"] {
            assert!(San::uri(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_common_name_is_refused() {
        assert!(check_common_name(&"ä".repeat(64)).is_ok());
        for name in ["", "a\nb", "a\0", &"a".repeat(65)] {
            assert!(check_common_name(name).is_err(), "{name}");
        }
    }
}
