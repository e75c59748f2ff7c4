//! `[transform.NAME]`.

use std::sync::Arc;

use mgate_policies::{Action, Transform, Transforms};

use super::files::Files;
use super::payload;
use super::route::Context;
use super::section::Section;
#[cfg(feature = "wasm")]
use super::wasm;
use super::{Surroundings, WITHOUT_WASM, supported};
use crate::transform::{Mountpoint, Pattern, Prefix, Rewrite, Rule, Template};

/// The transform that a table defines.
#[cfg_attr(not(feature = "wasm"), expect(unused_variables, reason = "only plug-ins have surroundings"))]
pub(super) fn read(
    name: &str,
    mut section: Section<'_>,
    files: &Files<'_>,
    surroundings: &Surroundings,
) -> Option<Arc<dyn Transform>> {
    section.require(&["type"]);
    let kind = section.parse("type", transform_type)?.value;
    let transform = match kind {
        Type::Inflate => Some(Arc::new(payload::inflate(name, &mut section)) as Arc<_>),
        Type::Jws => payload::jws(name, &mut section, files).map(|jws| Arc::new(jws) as Arc<_>),
        Type::Mountpoint => {
            section.require(&["prefix"]);
            let prefix = section.parse("prefix", Prefix::parse);
            prefix.map(|prefix| Arc::new(Mountpoint::new(name, prefix.value)) as Arc<_>)
        }
        Type::Rewrite => {
            section.require(&["rules"]);
            section.forbid_empty("rules");
            let rules: Vec<_> = section.list("rules", "").into_iter().filter_map(rule).collect();
            Some(Arc::new(Rewrite::new(name, rules)) as Arc<_>)
        }
        Type::Senml => Some(Arc::new(payload::senml(name, &mut section)) as Arc<_>),
        #[cfg(feature = "wasm")]
        Type::Wasm => {
            let transform = wasm::transform(name, &mut section, files, &surroundings.plugins);
            transform.map(|transform| Arc::new(transform) as Arc<_>)
        }
        #[cfg(not(feature = "wasm"))]
        Type::Wasm => return None,
    };
    section.finish();
    transform
}

/// The names that a route gives, and the transforms of those names.
pub(super) fn of_route(section: &mut Section<'_>, context: &Context<'_>) -> (Vec<String>, Transforms) {
    let names = section.texts("transforms").unwrap_or_default();
    let find = |name| context.transforms.find(name, context.report).cloned();
    let row = names.iter().filter_map(find).collect();
    (names.into_iter().map(|name| name.value).collect(), Transforms::new(row))
}

fn transform_type(kind: &str) -> Result<Type, String> {
    match supported(kind, TYPES, &[])? {
        Type::Wasm if cfg!(not(feature = "wasm")) => Err(WITHOUT_WASM.to_owned()),
        kind => Ok(kind),
    }
}

fn rule(mut section: Section<'_>) -> Option<Rule> {
    section.require(&["from", "to"]);
    let from = section.parse("from", Pattern::parse).map(|from| from.value);
    let to = section.parse("to", |to| match &from {
        Some(from) => Template::parse(to, from).map(Some),
        None => Ok(None),
    });
    section.forbid_empty("actions");
    let is_given = section.has("actions");
    let actions = section.several_of("actions", ACTIONS);
    section.finish();
    let actions = if is_given { actions } else { TOWARDS_UPSTREAM.to_vec() };
    Some(Rule { actions, from: from?, to: to?.value? })
}

#[derive(Clone, Copy)]
enum Type {
    Inflate,
    Jws,
    Mountpoint,
    Rewrite,
    Senml,
    Wasm,
}

const TYPES: &[(&str, Type)] = &[
    ("mountpoint", Type::Mountpoint),
    ("rewrite", Type::Rewrite),
    ("senml", Type::Senml),
    ("inflate", Type::Inflate),
    ("jws", Type::Jws),
    ("wasm", Type::Wasm),
];

const ACTIONS: &[(&str, Action)] = &[
    ("publish", Action::Publish),
    ("will", Action::Will),
    ("subscribe", Action::Subscribe),
    ("deliver", Action::Deliver),
];

const TOWARDS_UPSTREAM: &[Action] = &[Action::Publish, Action::Will, Action::Subscribe];
