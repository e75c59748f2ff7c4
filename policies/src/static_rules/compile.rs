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
    /// Methods with an action that is no request.
    Methods(Action),
    /// No actions.
    NoActions,
    /// An action that needs a path, but no `path:` resource.
    NoPath(Action),
    /// No principals.
    NoPrincipals,
    /// An action that needs a topic, but no `topic:` resource.
    NoTopic(Action),
    /// A `path:` resource, but no action that is a request.
    PathWithoutRequest,
    /// Share groups with an action that is no subscription.
    ShareGroups(Action),
    /// More than [`MAX_STATEMENTS`], or principals times resources that take more than [`MAX_ENTRIES`].
    TooMany,
    /// A `topic:` resource, but no action that has to do with topics.
    TopicWithoutUse(Action),
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
            Self::Methods(action) => return write!(f, "`methods` says nothing about the action `{action}`"),
            Self::NoActions => "no actions",
            Self::NoPrincipals => "no principals",
            Self::NoPath(action) => return write!(f, "the action `{action}` needs a `path:` resource"),
            Self::NoTopic(action) => return write!(f, "the action `{action}` needs a `topic:` resource"),
            Self::PathWithoutRequest => "`path:` resources need the action `request`",
            Self::ShareGroups(action) => {
                return write!(f, "`share_groups` says nothing about the action `{action}`");
            }
            Self::TooMany => "too many statements, or principals times resources",
            Self::TopicWithoutUse(action) => {
                return write!(f, "`topic:` resources say nothing about the action `{action}`");
            }
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
    .chain([share_problem(statement), method_problem(statement)])
    .flatten()
    .chain(conditions.map(Problem::Condition))
    .collect()
}

fn resource_problems(statement: &Statement) -> [Option<Problem>; 3] {
    let Statement { actions, resources, .. } = statement;
    let has = |is_kind: fn(&ResourcePattern) -> bool| resources.iter().any(is_kind);
    let has_client_id = has(|resource| matches!(resource, ResourcePattern::ClientId(_)));
    let has_path = has(|resource| matches!(resource, ResourcePattern::Path(_)));
    let has_topic = has(|resource| matches!(resource, ResourcePattern::Topic(_)));
    let with_path = actions.iter().copied().find(|action| is_request(*action));
    let with_topic =
        actions.iter().copied().find(|action| !is_request(*action) && *action != Action::Connect);
    let connects = actions.contains(&Action::Connect);
    [
        (has_client_id && !connects).then_some(Problem::ClientIdWithoutConnect),
        match with_path {
            Some(action) => (!has_path).then_some(Problem::NoPath(action)),
            None => has_path.then_some(Problem::PathWithoutRequest),
        },
        match (with_topic, actions.first()) {
            (Some(action), _) => (!has_topic).then_some(Problem::NoTopic(action)),
            (None, Some(action)) => has_topic.then_some(Problem::TopicWithoutUse(*action)),
            (None, None) => None,
        },
    ]
}

/// Whether the action is about a path.
fn is_request(action: Action) -> bool {
    matches!(action, Action::Observe | Action::Request)
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

fn method_problem(statement: &Statement) -> Option<Problem> {
    let Statement { actions, conditions, .. } = statement;
    let has_methods = conditions.iter().any(|condition| matches!(condition, Condition::Methods(_)));
    let other = actions.iter().find(|action| !is_request(**action));
    other.filter(|_| has_methods).map(|action| Problem::Methods(*action))
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
        ResourcePattern::Path(levels) | ResourcePattern::Topic(levels) => levels.levels.len(),
    });
    statement.principals.len().saturating_mul(resources.sum::<usize>().max(1))
}
