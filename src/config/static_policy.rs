//! Statements of a static policy, as a file has them.

use std::time::Duration;

use mgate_policies::Cidr;
use mgate_policies::static_rules::{Condition, Effect, ResourcePattern, Statement, StaticRules, Who};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::policy_test::{Expectation, PolicyTest};
use super::problem::{Place, Report};
use super::section::Section;
use crate::question::ACTIONS;

/// The policy that the statements of a file make, if nothing is wrong with them and its tests come true.
pub(crate) fn read(name: &str, file: Section<'_>, report: &Report) -> Option<StaticRules> {
    let (rules, tests) = read_with_tests(name, file, report)?;
    let before = report.problems();
    for PolicyTest { place, failure, .. } in tests {
        if let Some(failure) = failure {
            report.problem(&place, failure);
        }
    }
    (report.problems() == before).then_some(rules)
}

/// The policy, and what came of each of its tests.
pub(crate) fn read_with_tests(
    name: &str,
    mut file: Section<'_>,
    report: &Report,
) -> Option<(StaticRules, Vec<PolicyTest>)> {
    let before = report.problems();
    file.require(&["version", "statements"]);
    file.integer("version", 1..=1);
    let read = file.list("statements", "sid").into_iter().filter_map(|section| statement(section, report));
    let (statements, places): (Vec<_>, Vec<_>) = read.unzip();
    let hangs_on_time = statements.iter().any(hangs_on_time);
    let expectations = file.list("tests", "name").into_iter();
    let expectations: Vec<_> =
        expectations.filter_map(|section| Expectation::read(section, hangs_on_time, report)).collect();
    file.finish();
    let compiled = StaticRules::compile(name, statements);
    for error in compiled.as_ref().err().into_iter().flatten() {
        report.problem(&places[error.index], error.problem.to_string());
    }
    let rules = compiled.ok().filter(|_| report.problems() == before)?;
    let tests = expectations.into_iter().map(|expectation| expectation.run(&rules)).collect();
    Some((rules, tests))
}

fn hangs_on_time(statement: &Statement) -> bool {
    let is_time =
        |condition: &Condition| matches!(condition, Condition::Between { .. } | Condition::DailyUtc { .. });
    statement.conditions.iter().any(is_time)
}

/// A statement and where it begins; one with problems is left out, so that they are reported once.
fn statement(mut section: Section<'_>, report: &Report) -> Option<(Statement, Place)> {
    let before = report.problems();
    section.require(&["effect", "principals", "actions"]);
    let statement = Statement {
        sid: section.text("sid").map(|sid| sid.value).unwrap_or_default(),
        effect: section.one_of("effect", EFFECTS).unwrap_or(Effect::Deny),
        principals: section.parse_each("principals", Who::parse),
        actions: section.several_of("actions", ACTIONS),
        resources: section.parse_each("resources", ResourcePattern::parse),
        conditions: conditions(section.section("conditions")),
    };
    section.finish();
    (report.problems() == before).then(|| (statement, section.place().clone()))
}

fn conditions(mut section: Section<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (name, values) in section.pairs("string_equals") {
        conditions.push(Condition::Attribute { name: name.value, values });
    }
    conditions.extend(peer(section.section("cidr")));
    conditions.extend(section.boolean("tls").map(Condition::Encrypted));
    conditions.extend(
        section.integer("qos_max", 0..=2).and_then(|qos| u8::try_from(qos).ok()).map(Condition::QosMax),
    );
    conditions.extend(section.boolean("retain").map(Condition::Retain));
    conditions.extend(words(&mut section, "methods").map(Condition::Methods));
    conditions.extend(words(&mut section, "listener").map(Condition::Listener));
    conditions.extend(words(&mut section, "share_groups").map(Condition::ShareGroups));
    conditions.extend(times(section.section("time")));
    section.finish();
    conditions
}

fn peer(mut section: Section<'_>) -> Option<Condition> {
    if !section.is_given(&[]) {
        return None;
    }
    section.require(&["peer"]);
    let blocks = section.parse_each("peer", Cidr::parse);
    section.finish();
    Some(Condition::Peer(blocks))
}

fn words(section: &mut Section<'_>, key: &'static str) -> Option<Vec<String>> {
    Some(section.texts(key)?.into_iter().map(|word| word.value).collect())
}

fn times(mut section: Section<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let not_before = section.parse("not_before", instant).map(|given| given.value);
    let not_after = section.parse("not_after", instant).map(|given| given.value);
    if not_before.is_some() || not_after.is_some() {
        conditions.push(Condition::Between { not_before, not_after });
    }
    if let Some(given) = section.parse("daily_utc", minutes) {
        let (from_minute, to_minute) = given.value;
        conditions.push(Condition::DailyUtc { from_minute, to_minute });
    }
    section.finish();
    conditions
}

/// A point of time as RFC 3339 writes it.
pub(super) fn instant(text: &str) -> Result<Duration, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    let since_epoch = time.and_then(|time| u64::try_from(time.unix_timestamp()).ok());
    since_epoch
        .map(Duration::from_secs)
        .ok_or_else(|| format!("\"{text}\" is not a time such as \"2026-01-31T18:00:00Z\""))
}

/// The minutes of the day in `06:00-22:30`.
fn minutes(text: &str) -> Result<(u16, u16), String> {
    let span = text.split_once('-').and_then(|(from, to)| minute(from).zip(minute(to)));
    span.ok_or_else(|| format!("\"{text}\" is not a time of the day such as \"06:00-22:00\""))
}

fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
    (hours <= 24 && minutes < 60 && hours * 60 + minutes <= 1440).then_some(hours * 60 + minutes)
}

const EFFECTS: &[(&str, Effect)] = &[("allow", Effect::Allow), ("deny", Effect::Deny)];
