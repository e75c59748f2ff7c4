use std::error::Error;
use std::fmt;

use crate::client::BUILT_IN_NAMES;
use crate::path::{PathError, RequestPath};
use crate::topic::{FilterError, TopicFilter, canonical, is_literal};

/// What a statement speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourcePattern {
    /// `client_id:…`: the MQTT client id that a client may use to connect.
    ClientId(LevelPattern),
    /// `path:…`: what may be requested, with the wildcards and variables of topics.
    Path(TopicPattern),
    /// `topic:…`: what may be published, subscribed to and delivered.
    Topic(TopicPattern),
}

/// A pattern of one name: a literal, one whole `${variable}`, or the beginning of a name and `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelPattern(pub(super) Name);

/// A topic filter that may have a `${variable}` in place of a whole level.
///
/// It is cut into levels before any variable has a value: a value is compared with one level and is never
/// read as a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    pub(super) levels: Vec<Level>,
    pub(super) takes_all_below: bool,
}

/// What is wrong with the text of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing behind the colon.
    Empty,
    /// Not a topic filter.
    Filter(FilterError),
    /// None of `client_id:…`, `path:…` and `topic:…`.
    Kind,
    /// A variable that is not the whole level or name, or is not closed.
    PartialVariable,
    /// Not a path that a request can have.
    Path(PathError),
    /// A topic that begins with `$share`: a share group is a condition, not a part of the topic.
    Share,
    /// `*` as a level of a topic, or in a client id anywhere but at its end.
    Star,
    /// More levels than [`MAX_LEVELS`].
    TooDeep,
    /// A variable of this name is never known.
    UnknownVariable(String),
    /// A topic's wildcard in a client id, or U+0000.
    Wildcard,
}

/// The most levels that a topic pattern may have.
pub const MAX_LEVELS: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Literal(Box<str>),
    Prefix(Box<str>),
    Variable(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Any,
    Literal(Box<str>),
    Variable(Box<str>),
}

impl ResourcePattern {
    /// Takes `client_id:<name>`, `path:<filter>` or `topic:<filter>`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        match text.split_once(':') {
            Some(("client_id" | "path" | "topic", "")) => Err(PatternError::Empty),
            Some(("client_id", name)) => LevelPattern::parse(name).map(Self::ClientId),
            Some(("path", filter)) => TopicPattern::parse_path(filter).map(Self::Path),
            Some(("topic", filter)) => TopicPattern::parse(filter).map(Self::Topic),
            _ => Err(PatternError::Kind),
        }
    }
}

impl LevelPattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if let Some(name) = variable(text)? {
            return Ok(Self(Name::Variable(name.into())));
        }
        if !is_literal(text) {
            return Err(PatternError::Wildcard);
        }
        let (beginning, is_prefix) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, true),
            None => (text, false),
        };
        if beginning.contains('*') {
            return Err(PatternError::Star);
        }
        Ok(Self(if is_prefix { Name::Prefix(beginning.into()) } else { Name::Literal(text.into()) }))
    }
}

impl TopicPattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "$share" || text.starts_with("$share/") {
            return Err(PatternError::Share);
        }
        let filter = TopicFilter::parse(text).map_err(PatternError::Filter)?;
        if filter.levels().nth(MAX_LEVELS).is_some() {
            return Err(PatternError::TooDeep);
        }
        let filter = canonical(text);
        let (above, takes_all_below) = match filter.strip_suffix("/#") {
            Some(above) => (above, true),
            None => (filter, false),
        };
        let levels = above.split('/').map(Level::parse).collect::<Result<_, _>>()?;
        Ok(Self { levels, takes_all_below })
    }

    fn parse_path(text: &str) -> Result<Self, PatternError> {
        RequestPath::parse(text).map_err(PatternError::Path)?;
        Self::parse(text)
    }
}

impl Level {
    fn parse(text: &str) -> Result<Self, PatternError> {
        Ok(match (text, variable(text)?) {
            (_, Some(name)) => Self::Variable(name.into()),
            ("+", None) => Self::Any,
            ("*", None) => return Err(PatternError::Star),
            (literal, None) => Self::Literal(literal.into()),
        })
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "nothing behind the colon of a resource",
            Self::Filter(error) => return error.fmt(f),
            Self::Kind => "a resource is `client_id:<name>`, `path:<filter>` or `topic:<filter>`",
            Self::PartialVariable => "a variable is written `${name}` and takes a whole level",
            Self::Path(error) => return error.fmt(f),
            Self::Share => "a topic has no `$share/<group>/`: write the condition `share_groups`",
            Self::Star => "`*` may only end a client id: in topics and paths the wildcards are `+` and `#`",
            Self::TooDeep => return write!(f, "topic with more than {MAX_LEVELS} levels"),
            Self::UnknownVariable(name) => return write!(f, "unknown variable `${{{name}}}`"),
            Self::Wildcard => "`+`, `#` and U+0000 may not stand in a client id",
        })
    }
}

impl Error for PatternError {}

/// The variables in a resource.
pub(super) fn names(resource: &ResourcePattern) -> Vec<Box<str>> {
    match resource {
        ResourcePattern::ClientId(LevelPattern(Name::Variable(name))) => vec![name.clone()],
        ResourcePattern::ClientId(_) => Vec::new(),
        ResourcePattern::Path(pattern) | ResourcePattern::Topic(pattern) => {
            let variable = |level: &Level| match level {
                Level::Variable(name) => Some(name.clone()),
                Level::Any | Level::Literal(_) => None,
            };
            pattern.levels.iter().filter_map(variable).collect()
        }
    }
}

/// Says whether a client can have values under `name`: a built-in name, or a dotted attribute.
pub(super) fn may_have_values(name: &str) -> bool {
    let is_dotted = name.contains('.') && name.split('.').all(|part| !part.is_empty());
    BUILT_IN_NAMES.contains(&name) || is_dotted
}

/// The name in a level that is one whole `${name}`; `None` for a level without a variable.
pub fn variable(text: &str) -> Result<Option<&str>, PatternError> {
    if !text.contains("${") {
        return Ok(None);
    }
    let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    match inner {
        Some(name) if name.contains(['$', '{', '}']) => Err(PatternError::PartialVariable),
        Some(name) if may_have_values(name) => Ok(Some(name)),
        Some(name) => Err(PatternError::UnknownVariable(name.into())),
        None => Err(PatternError::PartialVariable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_cut_into_levels() {
        let text = "topic:a//${claims.channel}/+/#";
        let levels = vec![
            Level::Literal("a".into()),
            Level::Literal("".into()),
            Level::Variable("claims.channel".into()),
            Level::Any,
        ];
        let pattern = TopicPattern { levels, takes_all_below: true };
        assert_eq!(ResourcePattern::parse(text), Ok(ResourcePattern::Topic(pattern)));
    }

    #[test]
    fn lone_hash_needs_one_level() {
        let pattern = TopicPattern { levels: vec![Level::Any], takes_all_below: true };
        assert_eq!(ResourcePattern::parse("topic:#"), Ok(ResourcePattern::Topic(pattern)));
    }

    #[test]
    fn client_ids_are_literal_prefix_or_variable() {
        for (text, name) in [
            ("client_id:org/dev:1", Name::Literal("org/dev:1".into())),
            ("client_id:sensor-*", Name::Prefix("sensor-".into())),
            ("client_id:${principal}", Name::Variable("principal".into())),
        ] {
            assert_eq!(ResourcePattern::parse(text), Ok(ResourcePattern::ClientId(LevelPattern(name))));
        }
    }

    #[test]
    fn mistakes_in_resources_are_named() {
        for (text, error) in [
            ("", PatternError::Kind),
            ("a/b", PatternError::Kind),
            ("queue:a", PatternError::Kind),
            ("topic:", PatternError::Empty),
            ("client_id:", PatternError::Empty),
            ("topic:a#", PatternError::Filter(FilterError::Wildcard)),
            ("topic:a/#/b", PatternError::Filter(FilterError::Wildcard)),
            ("topic:$share/g/a", PatternError::Share),
            ("topic:$share", PatternError::Share),
            ("topic:a/*", PatternError::Star),
            ("client_id:a*b", PatternError::Star),
            ("client_id:**", PatternError::Star),
            ("path:", PatternError::Empty),
            ("path:a/b", PatternError::Path(PathError::NotAbsolute)),
            ("path:#", PatternError::Path(PathError::NotAbsolute)),
            ("path:/a/../b", PatternError::Path(PathError::Dots)),
            ("path:/a//b", PatternError::Path(PathError::EmptySegment)),
            ("path:/a/*", PatternError::Star),
            ("path:/a#", PatternError::Filter(FilterError::Wildcard)),
            ("path:/dev-${principal}", PatternError::PartialVariable),
            ("client_id:+", PatternError::Wildcard),
            ("topic:dev-${client_id}", PatternError::PartialVariable),
            ("topic:${client_id}x/a", PatternError::PartialVariable),
            ("topic:${client_id", PatternError::PartialVariable),
            ("topic:${a${b}}", PatternError::PartialVariable),
            ("client_id:x-${principal}", PatternError::PartialVariable),
            ("topic:${clientid}/a", PatternError::UnknownVariable("clientid".into())),
            ("topic:${}", PatternError::UnknownVariable(String::new())),
            ("topic:${claims.}", PatternError::UnknownVariable("claims.".into())),
        ] {
            assert_eq!(ResourcePattern::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |levels| format!("topic:{}", vec!["a"; levels].join("/"));
        assert!(ResourcePattern::parse(&deep(MAX_LEVELS)).is_ok());
        assert_eq!(ResourcePattern::parse(&deep(MAX_LEVELS + 1)), Err(PatternError::TooDeep));
    }
}
