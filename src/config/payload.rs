//! `[transform.NAME]` with `type = "senml"`.

use mgate_policies::Action;

use super::section::{Given, Section};
use crate::senml::Format;
use crate::transform::{OnBadSenml, Pattern, Scope, Senml, SenmlMode, SenmlOptions};

/// `type = "senml"`.
pub(super) fn senml(name: &str, section: &mut Section<'_>) -> Senml {
    let scope = scope(section);
    let mode = section.one_of("mode", MODES).unwrap_or(SenmlMode::Validate);
    if mode == SenmlMode::Resolve && scope.actions.contains(&Action::Deliver) {
        section
            .problem("actions", "deliveries are not resolved: their times are relative to one that is over");
    }
    let format = section.one_of("format", FORMATS).unwrap_or_default();
    let on_error = section.one_of("on_error", ON_BAD_SENML).unwrap_or(OnBadSenml::Refuse);
    Senml::new(name, SenmlOptions { scope, format, mode, on_error })
}

fn scope(section: &mut Section<'_>) -> Scope {
    section.forbid_empty("topics");
    section.forbid_empty("actions");
    let topics = section.texts("topics").map(|topics| {
        let pattern = |topic: &Given<String>| section.check(&topic.place, Pattern::parse(&topic.value));
        topics.iter().filter_map(pattern).collect()
    });
    let actions = section.several_of("actions", ACTIONS);
    if section.has("actions") { Scope { actions, topics } } else { Scope { topics, ..Scope::default() } }
}

const ACTIONS: &[(&str, Action)] =
    &[("publish", Action::Publish), ("will", Action::Will), ("deliver", Action::Deliver)];

const MODES: &[(&str, SenmlMode)] = &[("validate", SenmlMode::Validate), ("resolve", SenmlMode::Resolve)];

const FORMATS: &[(&str, Option<Format>)] =
    &[("auto", None), ("json", Some(Format::Json)), ("cbor", Some(Format::Cbor))];

const ON_BAD_SENML: &[(&str, OnBadSenml)] =
    &[("refuse", OnBadSenml::Refuse), ("pass", OnBadSenml::Pass), ("count", OnBadSenml::Count)];
