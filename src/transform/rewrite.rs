use std::borrow::Cow;

use mgate_policies::{Action, Editable, Now, Part, Refusal, TopicFilter, TopicName, Transform};

/// Gives topics other names, by rules of which the first that matches is taken.
pub struct Rewrite {
    name: Box<str>,
    rules: Vec<Rule>,
}

/// One rule: what a topic is called, and what it is called instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is for; the end of a subscription counts as [`Action::Subscribe`].
    pub actions: Vec<Action>,
    /// The topics that it is for.
    pub from: Pattern,
    /// What stands in their place.
    pub to: Template,
}

/// A topic filter whose wildcards capture what they stand for, numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

/// A topic in which `${1}`, as a whole level, stands for what the first wildcard captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Level>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    /// By its index.
    Captured(usize),
    Literal(Box<str>),
}

impl Rewrite {
    /// Rules in the order in which they are tried; logs and denials show the name.
    pub fn new(name: &str, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), rules }
    }

    fn rules_for(&self, action: Action) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(move |rule| rule.actions.contains(&action))
    }

    fn rewrite_topic(&self, action: Action, topic: &mut Cow<'_, str>) {
        let Ok(name) = TopicName::parse(topic) else { return };
        if let Some(rule) = self.rules_for(action).find(|rule| rule.from.matches(name)) {
            *topic = Cow::Owned(rule.to.filled(&rule.from.captures(topic)));
        }
    }

    /// Only where all topics of a filter get their new names by one rule, so that the new filter says just that.
    fn rewrite_filter(&self, filter: &mut Cow<'_, str>) {
        let Ok(parsed) = TopicFilter::parse(filter) else { return };
        let concerns = |rule: &&Rule| rule.from.filter().is_some_and(|from| from.overlaps(parsed));
        let Some(rule) = self.rules_for(Action::Subscribe).find(concerns) else { return };
        if rule.from.filter().is_some_and(|from| from.covers(parsed)) {
            *filter = Cow::Owned(rule.to.filled(&rule.from.captures(level_by_level(filter))));
        }
    }
}

impl Transform for Rewrite {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        match &mut packet.part {
            Part::Filter(filter) => self.rewrite_filter(&mut filter.filter),
            Part::Login(_) => {}
            Part::Message(message) => {
                self.rewrite_topic(message.action, &mut message.topic);
                if let Some(topic) = &mut message.response_topic {
                    self.rewrite_topic(message.action, topic);
                }
            }
        }
        Ok(())
    }
}

impl Pattern {
    /// Takes a topic filter.
    pub fn parse(text: &str) -> Result<Self, String> {
        match TopicFilter::parse(text) {
            Ok(filter) if filter.share_group().is_none() => Ok(Self(level_by_level(text).into())),
            Ok(_) => Err(format!("\"{text}\": share groups are left alone, and no rule names them")),
            Err(error) => Err(format!("\"{text}\": {error}")),
        }
    }

    fn filter(&self) -> Option<TopicFilter<'_>> {
        TopicFilter::parse(&self.0).ok()
    }

    pub(super) fn matches(&self, topic: TopicName<'_>) -> bool {
        self.filter().is_some_and(|filter| filter.matches(topic))
    }

    /// What each wildcard stands for in a topic that it matches, or in a filter that it covers; `None` where
    /// that is no level at all.
    fn captures<'t>(&self, topic: &'t str) -> Vec<Option<&'t str>> {
        let (mut captures, mut rest) = (Vec::new(), Some(topic));
        for level in self.0.split('/') {
            if level == "#" {
                captures.push(rest);
                break;
            }
            let (first, behind) = match rest.and_then(|rest| rest.split_once('/')) {
                Some((first, behind)) => (Some(first), Some(behind)),
                None => (rest, None),
            };
            if level == "+" {
                captures.push(first);
            }
            rest = behind;
        }
        captures
    }

    /// How many wildcards it has.
    fn wildcards(&self) -> usize {
        self.0.split('/').filter(|level| matches!(*level, "+" | "#")).count()
    }
}

impl Template {
    /// Takes a topic such as `new/${1}/data`, whose numbers are those of wildcards in `from`.
    pub fn parse(text: &str, from: &Pattern) -> Result<Self, String> {
        if text.is_empty() || text.starts_with("$share/") {
            return Err(format!("\"{text}\" is no topic to give"));
        }
        let levels: Vec<Level> = text.split('/').map(Level::parse).collect::<Result<_, _>>()?;
        let wildcards = from.wildcards();
        for (at, level) in levels.iter().enumerate() {
            let Level::Captured(index) = level else { continue };
            let number = index + 1;
            if number > wildcards {
                return Err(format!(
                    "\"{text}\": ${{{number}}} stands for nothing: \"from\" has {wildcards}"
                ));
            }
            if levels[..at].contains(level) {
                return Err(format!(
                    "\"{text}\": ${{{number}}} may stand once: subscriptions would get wider"
                ));
            }
            if number == wildcards && from.0.ends_with('#') && at + 1 < levels.len() {
                return Err(format!("\"{text}\": ${{{number}}} is all that `#` captures, and goes last"));
            }
        }
        Ok(Self(levels))
    }

    fn filled(&self, captures: &[Option<&str>]) -> String {
        let level = |level: &'_ Level| match level {
            Level::Captured(index) => captures.get(*index).copied().flatten().map(str::to_owned),
            Level::Literal(literal) => Some(literal.to_string()),
        };
        self.0.iter().filter_map(level).collect::<Vec<_>>().join("/")
    }
}

impl Level {
    fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        match number.map(str::parse::<usize>) {
            Some(Ok(number @ 1..)) => Ok(Self::Captured(number - 1)),
            None if text.contains("${") => Err(format!("\"{text}\": `${{1}}` takes a whole level")),
            None if text.is_empty() || TopicName::parse(text).is_ok() => Ok(Self::Literal(text.into())),
            None => Err(format!("\"{text}\": a topic to give has no wildcards and no U+0000")),
            Some(_) => Err(format!("\"{text}\": only numbers of wildcards stand in braces, from 1 on")),
        }
    }
}

/// The same filter; there is no empty topic, so `#` alone is one level and all below it.
fn level_by_level(filter: &str) -> &str {
    match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        _ => filter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::tests::{client, filter_after, message_after};

    #[test]
    fn wildcards_capture_what_they_stand_for() {
        for (from, to, topic, expected) in [
            ("old/+/data/#", "new/${1}/${2}", "old/x/data/a/b", "new/x/a/b"),
            ("old/+/data/#", "new/${1}/${2}", "old/x/data", "new/x"),
            ("old/+/data/#", "new/${1}/${2}", "old/x/data/", "new/x/"),
            ("old/+/data/#", "${2}", "old/x/data/a", "a"),
            ("+/+", "${2}/${1}", "a/b", "b/a"),
            ("+/+", "${2}/${1}", "a/", "/a"),
            ("a", "b", "a", "b"),
            ("a/+", "b", "a/x", "b"),
            ("#", "all/${1}/${2}", "x/y/z", "all/x/y/z"),
            ("#", "all/${1}/${2}", "x", "all/x"),
            ("#", "all/${1}/${2}", "$SYS/x", "$SYS/x"),
            ("a/+", "b/${1}", "a/b/c", "a/b/c"),
        ] {
            let after = message_after(&rewrite(&[(from, to)]), &client(), Action::Publish, topic);
            assert_eq!(after, Ok((expected.into(), Some(expected.into()))), "{from} {to} {topic}");
        }
    }

    #[test]
    fn first_rule_that_matches_is_taken() {
        let rules = rewrite(&[("a/b", "first"), ("a/+", "second/${1}"), ("second/#", "third")]);
        for (topic, expected) in [("a/b", "first"), ("a/c", "second/c"), ("second/c", "third")] {
            let after = message_after(&rules, &client(), Action::Publish, topic).map(|after| after.0);
            assert_eq!(after, Ok(expected.into()));
        }
    }

    #[test]
    fn rule_is_for_its_actions_only() {
        let mut rules = vec![rule("a", "b"), rule("b", "a")];
        rules[0].actions = vec![Action::Publish];
        rules[1].actions = vec![Action::Deliver];
        let rules = Rewrite::new("rewrite", rules);
        let after = |action, topic| message_after(&rules, &client(), action, topic).map(|after| after.0);
        assert_eq!(after(Action::Publish, "a"), Ok("b".into()));
        assert_eq!(after(Action::Publish, "b"), Ok("b".into()));
        assert_eq!(after(Action::Deliver, "b"), Ok("a".into()));
        assert_eq!(after(Action::Will, "a"), Ok("a".into()));
        assert_eq!(filter_after(&rules, &client(), "a"), Ok("a".into()));
    }

    #[test]
    fn filter_within_one_rule_is_rewritten() {
        for (from, to, filter, expected) in [
            ("old/+/data/#", "new/${1}/${2}", "old/x/data/#", "new/x/#"),
            ("old/+/data/#", "new/${1}/${2}", "old/+/data/+", "new/+/+"),
            ("old/+/data/#", "new/${1}/${2}", "old/x/data", "new/x"),
            ("old/#", "new/${1}", "old/+/x", "new/+/x"),
            ("#", "all/${1}/${2}", "#", "all/+/#"),
            ("#", "all/${1}/${2}", "/#", "all//+/#"),
            ("/#", "all/${1}/${2}", "/#", "all/+/#"),
            ("+", "all/${1}", "+", "all/+"),
        ] {
            let after = filter_after(&rewrite(&[(from, to)]), &client(), filter);
            assert_eq!(after, Ok(expected.into()), "{from} {to} {filter}");
        }
    }

    #[test]
    fn filter_that_no_single_rule_covers_stays() {
        for (rules, filter) in [
            (&[("old/+", "new/${1}")][..], "old/#"),
            (&[("old/+", "new/${1}")], "+/a"),
            (&[("old/+", "new/${1}")], "#"),
            (&[("old/a", "first"), ("old/+", "new/${1}")], "old/+"),
            (&[("old/+", "new/${1}")], "other/+"),
            (&[("+/a", "new/${1}")], "$SYS/a"),
        ] {
            assert_eq!(filter_after(&rewrite(rules), &client(), filter), Ok(filter.into()));
        }
    }

    #[test]
    fn mistakes_in_rules_are_named() {
        for (from, why) in [("", "empty"), ("a#", "wildcard"), ("$share/g/a", "share groups")] {
            let error = Pattern::parse(from).expect_err(from);
            assert!(error.contains(why), "{error}");
        }
        for (from, to, why) in [
            ("a/+", "", "no topic to give"),
            ("a/+", "$share/g/${1}", "no topic to give"),
            ("a/+", "b/+", "no wildcards"),
            ("a/+", "b/x${1}", "takes a whole level"),
            ("a/+", "b/${x}", "only numbers"),
            ("a/+", "b/${0}", "only numbers"),
            ("a/+", "b/${2}", "stands for nothing"),
            ("a/+", "${1}/${1}", "may stand once"),
            ("a/+/#", "${2}/${1}", "goes last"),
        ] {
            let error = Template::parse(to, &Pattern::parse(from).expect("a filter")).expect_err(to);
            assert!(error.contains(why), "{error}");
        }
    }

    fn rewrite(rules: &[(&str, &str)]) -> Rewrite {
        Rewrite::new("rewrite", rules.iter().map(|(from, to)| rule(from, to)).collect())
    }

    fn rule(from: &str, to: &str) -> Rule {
        let from = Pattern::parse(from).expect("a filter");
        let to = Template::parse(to, &from).expect("a topic");
        Rule { actions: vec![Action::Publish, Action::Subscribe], from, to }
    }
}
