//! Statements that an operator wrote, compiled to a trie.
//!
//! What no statement allows is left to the chain, which denies it; a deny beats every allow, and the order
//! of the statements means nothing.
//!
//! A subscription is allowed by a pattern that covers its whole filter. It is denied by a pattern that covers
//! it; a deny that only overlaps lets it pass and stops the deliveries.
//!
//! Paths of requests are matched as topics are, segment by segment. A request with a method that is not one of the
//! well-known ones is allowed only by a statement that names the method.
//!
//! A `${variable}` stands for each of its values that can be one level: not empty, without `/`, `+`, `#` and
//! U+0000. A client with none matches no allow; a client with none, or with a bad one, is denied by every deny
//! whose other levels fit.

mod compile;
mod condition;
mod edges;
mod effect;
mod index;
mod pattern;
mod statement;

use std::collections::{HashMap, HashSet};

use self::edges::Edges;
use self::index::{Actions, Ask, ClientIds, Rule, Topics};
use self::pattern::names;
use crate::client::Client;
use crate::decision::{Answer, Cause, Decision, Grant, Reason};
use crate::now::Now;
use crate::query::{Action, Policy, Query, Resource};
use crate::topic::canonical;

pub use self::compile::{CompileError, MAX_ENTRIES, MAX_STATEMENTS, Problem};
pub use self::condition::{Condition, ConditionError};
pub use self::effect::Effect;
pub use self::pattern::{LevelPattern, MAX_LEVELS, PatternError, ResourcePattern, TopicPattern, variable};
pub use self::statement::{Statement, Who, WhoError};

/// The built-in policy `static`: statements, found by principal and then level by level.
#[derive(Debug)]
pub struct StaticRules {
    name: Box<str>,
    rules: Vec<Rule>,
    /// The names that stand for values in its resources.
    names: HashSet<Box<str>>,
    anyone: Spoken,
    clients: HashMap<Box<str>, Spoken>,
    groups: HashMap<Box<str>, Spoken>,
    edges: Edges,
}

impl StaticRules {
    /// Compiles `statements`, or says all that is wrong with them. Without statements nothing is allowed.
    pub fn compile(name: &str, statements: Vec<Statement>) -> Result<Self, Vec<CompileError>> {
        let errors = compile::check(&statements);
        if !errors.is_empty() {
            return Err(errors);
        }
        let conditions = statements.iter().flat_map(|statement| &statement.conditions);
        let mut compiled = Self {
            name: name.into(),
            rules: Vec::with_capacity(statements.len()),
            names: statements.iter().flat_map(|said| &said.resources).flat_map(names).collect(),
            anyone: Spoken::default(),
            clients: HashMap::new(),
            groups: HashMap::new(),
            edges: Edges::of(conditions),
        };
        for (index, statement) in (0..).zip(statements) {
            compiled.add(index, statement);
        }
        Ok(compiled)
    }

    fn add(&mut self, index: u32, statement: Statement) {
        for who in &statement.principals {
            let spoken = match who {
                Who::Anyone => &mut self.anyone,
                Who::Client(id) => self.clients.entry(id.as_str().into()).or_default(),
                Who::Group(name) => self.groups.entry(name.as_str().into()).or_default(),
            };
            let patterns = match statement.effect {
                Effect::Allow => &mut spoken.allow,
                Effect::Deny => &mut spoken.deny,
            };
            patterns.insert(&statement, index);
        }
        self.rules.push(Rule {
            name: compile::name(self.rules.len(), &statement.sid).into(),
            actions: with_implied(&statement.actions),
            conditions: statement.conditions,
        });
    }

    fn decide(&self, query: &Query<'_>, now: Now) -> Decision {
        let ask = |effect| Ask { query, now, rules: &self.rules, effect };
        let (may_allow, may_deny) = (ask(Effect::Allow), ask(Effect::Deny));
        let mut allow = None;
        for spoken in self.spoken_of(query.client) {
            if let Some(rule) = spoken.deny.find(&may_deny) {
                return Decision::Deny(Reason::with_detail(Cause::NotAuthorized, rule.name.clone()));
            }
            allow = allow.or_else(|| spoken.allow.find(&may_allow));
        }
        match allow {
            Some(rule) => {
                let ttl = self.edges.next_after(now.unix);
                Decision::Allow(Grant { ttl, ..Grant::by(&rule.name) })
            }
            None => Decision::Abstain,
        }
    }

    fn spoken_of<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = &'a Spoken> {
        let principal = &client.principal;
        let groups = principal.groups.iter().filter_map(|group| self.groups.get(group));
        [&self.anyone].into_iter().chain(self.clients.get(&principal.id)).chain(groups)
    }
}

impl Policy for StaticRules {
    fn name(&self) -> &str {
        &self.name
    }

    fn evaluate(&self, query: &Query<'_>, now: Now) -> Answer {
        Answer::Ready(self.decide(query, now))
    }

    fn is_repeatable(&self) -> bool {
        true
    }

    fn uses_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// What is said of one principal, of one group or of everybody.
#[derive(Debug, Default)]
struct Spoken {
    allow: Patterns,
    deny: Patterns,
}

#[derive(Debug, Default)]
struct Patterns {
    client_ids: ClientIds,
    paths: Topics,
    topics: Topics,
}

impl Patterns {
    fn insert(&mut self, statement: &Statement, rule: u32) {
        let mut takes_any_client_id = statement.actions.contains(&Action::Connect);
        for resource in &statement.resources {
            match resource {
                ResourcePattern::ClientId(pattern) => {
                    self.client_ids.insert(pattern, rule);
                    takes_any_client_id = false;
                }
                ResourcePattern::Path(pattern) => self.paths.insert(pattern, rule),
                ResourcePattern::Topic(pattern) => self.topics.insert(pattern, rule),
            }
        }
        if takes_any_client_id {
            self.client_ids.insert_any(rule);
        }
    }

    fn find<'a>(&self, ask: &Ask<'a>) -> Option<&'a Rule> {
        let Query { client, action, resource, .. } = ask.query;
        match (action, resource) {
            (Action::Connect, Resource::Session) => self.client_ids.find(&client.client_id, ask),
            (Action::Connect, _) | (_, Resource::Session) => None,
            (_, Resource::Request { path, .. }) => self.paths.find(path.as_str(), ask),
            (_, Resource::Filter(filter)) => self.topics.find(canonical(filter.as_str()), ask),
            (_, Resource::Topic(topic)) => self.topics.find(topic.as_str(), ask),
        }
    }
}

fn with_implied(listed: &[Action]) -> Actions {
    let mut actions = Actions::default();
    for action in listed {
        actions.add(*action);
        match action {
            Action::Publish => actions.add(Action::Will),
            Action::Subscribe => actions.add(Action::Deliver),
            _ => {}
        }
    }
    actions
}

#[cfg(test)]
pub(crate) mod tests;
