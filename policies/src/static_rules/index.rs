use std::collections::HashMap;
use std::sync::Arc;

use super::condition::Condition;
use super::effect::Effect;
use super::pattern::{Level, LevelPattern, Name, TopicPattern};
use crate::now::Now;
use crate::query::{Action, Query, Resource};
use crate::topic::is_literal;

/// What a statement is once its principals and resources have gone into the index.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) actions: Actions,
    pub(super) conditions: Vec<Condition>,
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Actions(u8);

impl Actions {
    pub(super) fn add(&mut self, action: Action) {
        self.0 |= 1 << action as u8;
    }

    fn contains(self, action: Action) -> bool {
        self.0 & (1 << action as u8) != 0
    }
}

/// One query, with all that it takes to say whether a rule of one effect speaks of it.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) query: &'a Query<'a>,
    pub(super) now: Now,
    pub(super) rules: &'a [Rule],
    pub(super) effect: Effect,
}

impl<'a> Ask<'a> {
    fn pick(&self, candidates: &[u32]) -> Option<&'a Rule> {
        candidates.iter().map(|index| &self.rules[*index as usize]).find(|rule| self.is_met_by(rule))
    }

    fn is_met_by(&self, rule: &Rule) -> bool {
        rule.actions.contains(self.query.action)
            && self.is_method_known_to(rule)
            && rule.conditions.iter().all(|condition| condition.holds(self.query, self.now, self.effect))
    }

    /// A method that does who knows what is allowed only where it is named.
    fn is_method_known_to(&self, rule: &Rule) -> bool {
        let Resource::Request { method, .. } = self.query.resource else { return true };
        let names_methods = || rule.conditions.iter().any(|one| matches!(one, Condition::Methods(_)));
        self.effect == Effect::Deny || KNOWN_METHODS.contains(&method) || names_methods()
    }

    /// Says whether `${name}` takes the place of `text`. A value that cannot be one level of a topic allows
    /// nothing, and denies everything.
    fn is_value(&self, name: &str, text: &str, reach: Reach) -> bool {
        let client = self.query.client;
        if self.effect == Effect::Allow {
            return reach == Reach::Everything
                && client.any_value(name, |value| is_usable(value) && value == text);
        }
        let mut has_value = false;
        let denies = client.any_value(name, |value| {
            has_value = true;
            !is_usable(value) || value == text
        });
        denies || !has_value
    }
}

/// The topic patterns, or those of paths, of rules of one effect, level by level.
#[derive(Debug, Default)]
pub(super) struct Topics {
    literals: HashMap<Box<str>, Topics>,
    any: Option<Box<Topics>>,
    variables: Vec<(Box<str>, Topics)>,
    ending_here: Vec<u32>,
    taking_all_below: Vec<u32>,
}

impl Topics {
    pub(super) fn insert(&mut self, pattern: &TopicPattern, rule: u32) {
        let mut node = self;
        for level in &pattern.levels {
            node = node.below(level);
        }
        let rules = if pattern.takes_all_below { &mut node.taking_all_below } else { &mut node.ending_here };
        rules.push(rule);
    }

    /// Finds a rule whose pattern covers `topic`: a topic name, a canonical filter, or a path.
    pub(super) fn find<'a>(&self, topic: &str, ask: &Ask<'a>) -> Option<&'a Rule> {
        // [MQTT-4.7.2-1]
        let reach = if topic.starts_with('$') { Reach::Literals } else { Reach::Everything };
        self.step(topic, reach, ask)
    }

    fn step<'a>(&self, rest: &str, reach: Reach, ask: &Ask<'a>) -> Option<&'a Rule> {
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        // what a path has there is no wildcard
        if level == "#" && matches!(ask.query.resource, Resource::Filter(_)) {
            return None;
        }
        let any = self.any.as_deref().filter(|_| reach == Reach::Everything);
        let variables = || self.variables.iter().filter(|(name, _)| ask.is_value(name, level, reach));
        let literal = self.literals.get(level).and_then(|below| below.enter(rest, ask));
        literal
            .or_else(|| any.and_then(|below| below.enter(rest, ask)))
            .or_else(|| variables().find_map(|(_, below)| below.enter(rest, ask)))
    }

    fn enter<'a>(&self, rest: Option<&str>, ask: &Ask<'a>) -> Option<&'a Rule> {
        ask.pick(&self.taking_all_below).or_else(|| match rest {
            Some(rest) => self.step(rest, Reach::Everything, ask),
            None => ask.pick(&self.ending_here),
        })
    }

    fn below(&mut self, level: &Level) -> &mut Self {
        match level {
            Level::Any => self.any.get_or_insert_default(),
            Level::Literal(text) => self.literals.entry(text.clone()).or_default(),
            Level::Variable(name) => of_variable(&mut self.variables, name),
        }
    }
}

/// The client id patterns of rules of one effect.
#[derive(Debug, Default)]
pub(super) struct ClientIds {
    any: Vec<u32>,
    literals: HashMap<Box<str>, Vec<u32>>,
    prefixes: HashMap<Box<str>, Vec<u32>>,
    prefix_bytes: Vec<usize>,
    variables: Vec<(Box<str>, Vec<u32>)>,
}

impl ClientIds {
    pub(super) fn insert_any(&mut self, rule: u32) {
        self.any.push(rule);
    }

    pub(super) fn insert(&mut self, pattern: &LevelPattern, rule: u32) {
        let rules = match &pattern.0 {
            Name::Literal(text) => self.literals.entry(text.clone()).or_default(),
            Name::Prefix(text) => {
                if let Err(at) = self.prefix_bytes.binary_search(&text.len()) {
                    self.prefix_bytes.insert(at, text.len());
                }
                self.prefixes.entry(text.clone()).or_default()
            }
            Name::Variable(name) => of_variable(&mut self.variables, name),
        };
        rules.push(rule);
    }

    /// Finds a rule that lets (or does not let) the client use `client_id`.
    pub(super) fn find<'a>(&self, client_id: &str, ask: &Ask<'a>) -> Option<&'a Rule> {
        let variables =
            self.variables.iter().filter(|(name, _)| ask.is_value(name, client_id, Reach::Everything));
        let prefixes = self.prefix_bytes.iter().filter_map(|bytes| client_id.get(..*bytes));
        let prefixes = prefixes.filter_map(|prefix| self.prefixes.get(prefix));
        let lists = [&self.any].into_iter().chain(self.literals.get(client_id)).chain(prefixes);
        lists.chain(variables.map(|(_, rules)| rules)).find_map(|rules| ask.pick(rules))
    }
}

/// What wildcards and variables may stand for at the first level of a topic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Everything,
    /// The topic begins with `$`.
    Literals,
}

/// What everybody means by them is in RFC 9110 §9.3, and in RFC 5789.
const KNOWN_METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

fn is_usable(value: &str) -> bool {
    !value.is_empty() && is_literal(value) && !value.contains('/')
}

fn of_variable<'a, T: Default>(variables: &'a mut Vec<(Box<str>, T)>, name: &str) -> &'a mut T {
    let known = variables.iter().position(|(known, _)| **known == *name);
    let at = known.unwrap_or_else(|| {
        variables.push((name.into(), T::default()));
        variables.len() - 1
    });
    &mut variables[at].1
}
