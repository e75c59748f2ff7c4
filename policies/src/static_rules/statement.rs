use std::error::Error;
use std::fmt;

use super::condition::Condition;
use super::effect::Effect;
use super::pattern::ResourcePattern;
use crate::query::Action;

/// One statement as an operator wrote it: these may (or may not) do that, to those, if.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Its name, shown in logs and by `explain`; empty if it has none.
    pub sid: String,
    /// What it says where it matches.
    pub effect: Effect,
    /// Whom it speaks of: any one of them.
    pub principals: Vec<Who>,
    /// What it speaks of: `publish` implies `will`, `subscribe` implies `deliver`.
    pub actions: Vec<Action>,
    /// What may be done it to: any one of them.
    pub resources: Vec<ResourcePattern>,
    /// What else must hold: all of them.
    pub conditions: Vec<Condition>,
}

/// Whom a statement speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Every client, anonymous ones included: `*`.
    Anyone,
    /// The principal with this id: `client:dev-1`.
    Client(String),
    /// Whoever is in this group: `group:ops`.
    Group(String),
}

/// What is wrong with the text of a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhoError {
    /// Nothing behind the colon.
    Empty,
    /// Neither `*` nor `client:…` nor `group:…`.
    Kind,
    /// A star behind the colon: names are compared whole.
    Star,
}

impl Who {
    /// Takes `*`, `client:<principal id>` or `group:<name>`.
    pub fn parse(text: &str) -> Result<Self, WhoError> {
        if text == "*" {
            return Ok(Self::Anyone);
        }
        let (kind, name) = text.split_once(':').ok_or(WhoError::Kind)?;
        let who = match kind {
            "client" => Self::Client(name.into()),
            "group" => Self::Group(name.into()),
            _ => return Err(WhoError::Kind),
        };
        match name {
            "" => Err(WhoError::Empty),
            _ if name.contains('*') => Err(WhoError::Star),
            _ => Ok(who),
        }
    }
}

impl fmt::Display for WhoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "nothing behind the colon of a principal",
            Self::Kind => "a principal is `*`, `client:<id>` or `group:<name>`",
            Self::Star => "`*` stands alone in a principal: names are compared whole",
        })
    }
}

impl Error for WhoError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_are_read() {
        assert_eq!(Who::parse("*"), Ok(Who::Anyone));
        assert_eq!(Who::parse("client:a:b"), Ok(Who::Client("a:b".into())));
        assert_eq!(Who::parse("group:ops"), Ok(Who::Group("ops".into())));
    }

    #[test]
    fn mistakes_in_principals_are_named() {
        for (text, error) in [
            ("", WhoError::Kind),
            ("dev-1", WhoError::Kind),
            ("user:x", WhoError::Kind),
            ("client:", WhoError::Empty),
            ("group:", WhoError::Empty),
            ("client:dev-*", WhoError::Star),
        ] {
            assert_eq!(Who::parse(text), Err(error), "{text:?}");
        }
    }
}
