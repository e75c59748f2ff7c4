use std::collections::HashSet;
use std::error::Error;
use std::fmt;

use super::condition::{Condition, ConditionError};
use super::pattern::ResourcePattern;
use super::statement::{Statement, Who};
use crate::query::Action;

/// What is wrong with a set of statements, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// The statement's place, counted from 0.
    pub index: usize,
    /// The statement's name; empty if it has none.
    pub sid: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A `client_id:` resource, but no `connect`.
    ClientIdWithoutConnect,
    /// A condition that cannot be meant so.
    Condition(ConditionError),
    /// An earlier statement has the same name.
    DuplicateSid,
    /// A client or group without a name.
    EmptyPrincipal,
    /// No actions.
    NoActions,
    /// No principals.
    NoPrincipals,
    /// An action that needs a topic, but no `topic:` resource.
    NoTopic(Action),
    /// Share groups with an action that is no subscription.
    ShareGroups(Action),
    /// More than [`MAX_STATEMENTS`], or principals times resources that take more than [`MAX_ENTRIES`].
    TooMany,
    /// A `topic:` resource, but `connect` is the only action.
    TopicWithConnect,
}

/// The most statements that one policy may have.
pub const MAX_STATEMENTS: usize = 100_000;

/// The most levels of patterns that one policy may have, counted once for each principal.
pub const MAX_ENTRIES: usize = 4_000_000;

/// Finds all that is wrong with `statements`.
pub(super) fn check(statements: &[Statement]) -> Vec<CompileError> {
    let mut errors = vec![];
    let mut sids = HashSet::new();
    let mut entries = 0;
    for (index, statement) in statements.iter().enumerate() {
        let mut problems = problems(statement);
        if !statement.sid.is_empty() && !sids.insert(&statement.sid) {
            problems.push(Problem::DuplicateSid);
        }
        entries += count_entries(statement);
        let is_too_much = index >= MAX_STATEMENTS || entries > MAX_ENTRIES;
        if is_too_much {
            problems.push(Problem::TooMany);
        }
        let sid = || statement.sid.clone();
        errors.extend(problems.into_iter().map(|problem| CompileError { index, sid: sid(), problem }));
        if is_too_much {
            break;
        }
    }
    errors
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", name(self.index, &self.sid), self.problem)
    }
}

impl Error for CompileError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientIdWithoutConnect => "`client_id:` resources need the action `connect`",
            Self::Condition(error) => return error.fmt(f),
            Self::DuplicateSid => "an earlier statement has the same sid",
            Self::EmptyPrincipal => "a principal has no name",
            Self::NoActions => "no actions",
            Self::NoPrincipals => "no principals",
            Self::NoTopic(action) => return write!(f, "the action `{action}` needs a `topic:` resource"),
            Self::ShareGroups(action) => {
                return write!(f, "`share_groups` says nothing about the action `{action}`");
            }
            Self::TooMany => "too many statements, or principals times resources",
            Self::TopicWithConnect => "`topic:` resources say nothing about the action `connect`",
        })
    }
}

/// How a statement is called in decisions and errors.
pub(super) fn name(index: usize, sid: &str) -> String {
    match sid {
        "" => format!("statement {}", index + 1),
        _ => format!("statement {sid:?}"),
    }
}

fn problems(statement: &Statement) -> Vec<Problem> {
    let Statement { principals, actions, conditions, .. } = statement;
    let conditions = conditions.iter().filter_map(|condition| condition.check().err());
    [
        principals.is_empty().then_some(Problem::NoPrincipals),
        principals.iter().any(is_nameless).then_some(Problem::EmptyPrincipal),
        actions.is_empty().then_some(Problem::NoActions),
    ]
    .into_iter()
    .chain(resource_problems(statement))
    .chain([share_problem(statement)])
    .flatten()
    .chain(conditions.map(Problem::Condition))
    .collect()
}

fn resource_problems(statement: &Statement) -> [Option<Problem>; 2] {
    let Statement { actions, resources, .. } = statement;
    let connects = actions.contains(&Action::Connect);
    let with_topic = actions.iter().find(|action| **action != Action::Connect);
    let has_client_id = resources.iter().any(|resource| matches!(resource, ResourcePattern::ClientId(_)));
    let has_topic = resources.iter().any(|resource| matches!(resource, ResourcePattern::Topic(_)));
    let topic_problem = match with_topic {
        Some(action) if !has_topic => Some(Problem::NoTopic(*action)),
        None if has_topic && connects => Some(Problem::TopicWithConnect),
        _ => None,
    };
    [(has_client_id && !connects).then_some(Problem::ClientIdWithoutConnect), topic_problem]
}

fn share_problem(statement: &Statement) -> Option<Problem> {
    let Statement { actions, conditions, .. } = statement;
    let has_groups = conditions.iter().any(|condition| matches!(condition, Condition::ShareGroups(_)));
    let is_subscription = |action: &&Action| match action {
        Action::Deliver => actions.contains(&Action::Subscribe),
        action => **action == Action::Subscribe,
    };
    let other = actions.iter().find(|action| !is_subscription(action));
    other.filter(|_| has_groups).map(|action| Problem::ShareGroups(*action))
}

fn is_nameless(who: &Who) -> bool {
    match who {
        Who::Anyone => false,
        Who::Client(name) | Who::Group(name) => name.is_empty(),
    }
}

fn count_entries(statement: &Statement) -> usize {
    let resources = statement.resources.iter().map(|resource| match resource {
        ResourcePattern::ClientId(_) => 1,
        ResourcePattern::Topic(topic) => topic.levels.len(),
    });
    statement.principals.len().saturating_mul(resources.sum::<usize>().max(1))
}
