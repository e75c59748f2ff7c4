//! What webhooks for authenticators and those for policies have in common in the file.

use std::fmt::Display;

use super::section::{Given, Section};

/// Services that webhooks were written for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    Emqx,
    MosquittoGoAuth,
    Status,
    VerneMq,
}

/// The preset, which must be given; VerneMQ leaves no choice of what it is sent.
pub(super) fn preset(section: &mut Section<'_>) -> Option<Preset> {
    section.require(&["preset"]);
    let preset = section.one_of("preset", PRESETS);
    let chosen = ["body", "format", "method"].into_iter().filter(|key| section.has(key)).collect::<Vec<_>>();
    for key in chosen.into_iter().filter(|_| preset == Some(Preset::VerneMq)) {
        section.problem(key, "cannot be chosen with preset = \"vernemq\"");
    }
    preset
}

/// How answers are to be read, where the preset leaves a choice.
pub(super) fn response<T: Clone>(
    section: &mut Section<'_>,
    preset: Option<Preset>,
    choices: &[(&str, T)],
) -> Option<T> {
    let response = section.one_of("response", choices);
    if response.is_some() && preset.is_some_and(|preset| preset != Preset::MosquittoGoAuth) {
        section.problem("response", "can be chosen with preset = \"mosquitto-go-auth\" only");
    }
    response
}

/// Names with a template each, as the table `body` has them.
pub(super) fn templates<T, E: Display>(
    section: &Section<'_>,
    given: Vec<(Given<String>, Vec<String>)>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<Vec<(String, T)>> {
    let fields = given.into_iter().map(|(name, values)| {
        let [text] = values.as_slice() else {
            section.check(&name.place, Err::<(), _>("must be one string"));
            return None;
        };
        Some((name.value, section.check(&name.place, parse(text))?))
    });
    // all are read before one that is bad ends it
    let fields: Vec<_> = fields.collect();
    fields.into_iter().collect()
}

/// Names that each stand for what they say, separated by spaces.
pub(super) fn named<T, E>(names: &str, parse: impl Fn(&str) -> Result<T, E>) -> Vec<(String, T)> {
    let field = |name: &str| Some((name.to_owned(), parse(&format!("${{{name}}}")).ok()?));
    names.split_whitespace().filter_map(field).collect()
}

const PRESETS: &[(&str, Preset)] = &[
    ("emqx", Preset::Emqx),
    ("mosquitto-go-auth", Preset::MosquittoGoAuth),
    ("vernemq", Preset::VerneMq),
    ("status", Preset::Status),
];
