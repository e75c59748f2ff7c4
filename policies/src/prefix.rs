use std::fmt;
use std::sync::Arc;

use crate::topic::TopicName;

/// Levels of a topic that end with `/`, behind which stands all that a client says and hears.
///
/// As a transform, it puts everything behind itself towards the upstream, and takes itself away towards the
/// client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPrefix(Arc<str>);

impl TopicPrefix {
    /// Takes a prefix such as `tenants/acme/`, in which nothing is a variable; or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if !text.ends_with('/') {
            return Err("does not end with /: it would begin other clients' topics too");
        }
        if text.starts_with('$') {
            return Err("begins with $: such topics are the server's own");
        }
        if text.contains("${") {
            return Err("holds a variable");
        }
        if text.len() > MAX_BYTES {
            return Err("is too long");
        }
        TopicName::parse(text).map_err(|_| "holds a wildcard or U+0000")?;
        Ok(Self(text.into()))
    }

    /// The prefix as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The longest prefix: each session that has one keeps it.
const MAX_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_prefixes_are_named() {
        let long = "t/".repeat(MAX_BYTES / 2 + 1);
        for (text, why) in [
            ("", "does not end with /"),
            ("tenants", "does not end with /"),
            ("$SYS/", "begins with $"),
            ("$share/g/a/", "begins with $"),
            ("a/+/", "a wildcard"),
            ("a/#/", "a wildcard"),
            ("a\0/", "U+0000"),
            ("t/${tenant}/", "a variable"),
            (&long, "is too long"),
        ] {
            let error = TopicPrefix::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        for good in ["/", "a/", "a//b/", "t/$a/", &long[2..]] {
            assert_eq!(TopicPrefix::parse(good).map(|prefix| prefix.as_str() == good), Ok(true), "{good}");
        }
    }
}
