use std::fmt;

/// A topic name: what a message is published to. UTF-8, not empty, without wildcards and U+0000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Takes a topic name as it stands in a packet. [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2]
    pub fn parse(text: &'a str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.bytes().any(|byte| matches!(byte, 0 | b'+' | b'#')) {
            return Err(FilterError::Wildcard);
        }
        Ok(Self(text))
    }

    /// The text, exactly as it came.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// A topic filter without its `$share` prefix, and the share group where there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter<'a> {
    filter: &'a str,
    share_group: Option<&'a str>,
}

/// What is wrong with a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// It has no characters.
    Empty,
    /// `$share/` without a group, with a wildcard in the group, or without a filter.
    Share,
    /// A wildcard where none may stand, or U+0000.
    Wildcard,
}

impl<'a> TopicFilter<'a> {
    /// Takes a topic filter as it stands in a packet, `$share/<group>/` included.
    /// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    pub fn parse(text: &'a str) -> Result<Self, FilterError> {
        let _ = text;
        Err(FilterError::Empty)
    }

    /// The filter itself, without `$share/<group>/`.
    pub fn as_str(self) -> &'a str {
        self.filter
    }

    /// The group of a shared subscription.
    pub fn share_group(self) -> Option<&'a str> {
        self.share_group
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.share_group {
            Some(group) => write!(f, "$share/{group}/{}", self.filter),
            None => f.write_str(self.filter),
        }
    }
}
