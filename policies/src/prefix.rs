use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::now::Now;
use crate::query::Action;
use crate::topic::TopicName;
use crate::transform::{Editable, Part, Refusal, Transform};

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

impl Transform for TopicPrefix {
    fn name(&self) -> &str {
        "topic_prefix"
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        mount(packet, &self.0)
    }
}

impl fmt::Display for TopicPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Puts what a client says behind a prefix, and takes the prefix away from what it is given: who asks for
/// `#` asks for what is behind it. A delivery beside it is refused.
pub fn mount(packet: &mut Editable<'_>, prefix: &str) -> Result<(), Refusal> {
    match &mut packet.part {
        Part::Filter(filter) => add(&mut filter.filter, prefix),
        Part::Login(_) => {}
        Part::Message(message) if message.action == Action::Deliver => {
            remove(&mut message.topic, prefix)?;
            message.response_topic.as_mut().map_or(Ok(()), |topic| remove(topic, prefix))?;
        }
        Part::Message(message) => {
            add(&mut message.topic, prefix);
            if let Some(topic) = &mut message.response_topic {
                add(topic, prefix);
            }
        }
    }
    Ok(())
}

fn add(topic: &mut Cow<'_, str>, prefix: &str) {
    *topic = Cow::Owned([prefix, topic].concat());
}

fn remove(topic: &mut Cow<'_, str>, prefix: &str) -> Result<(), Refusal> {
    let bare = topic.strip_prefix(prefix).map(str::to_owned);
    let outside = || Refusal::denied("the topic is outside of what the client can name");
    *topic = Cow::Owned(bare.ok_or_else(outside)?);
    Ok(())
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
