//! `[transform.NAME]` of the types that look into payloads: `senml`, `inflate` and `jws`.

use mgate_policies::Action;

use super::files::Files;
use super::jwt;
use super::section::{Given, Section};
use crate::authn::jwt::{ALGORITHMS, KeySet, Verifier};
use crate::senml::Format;
use crate::transform::{
    Encoding, Inflate, InflateOptions, Jws, JwsOptions, KeyOwner, OnBadDeflate, OnBadSenml, Pattern, Scope,
    Senml, SenmlMode, SenmlOptions, Signed, Unsigned,
};

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

/// `type = "inflate"`.
pub(super) fn inflate(name: &str, section: &mut Section<'_>) -> Inflate {
    let scope = scope(section);
    let is_detected = section.boolean("detect").unwrap_or(true);
    match (is_detected, section.has("encoding")) {
        (true, true) => section.problem("encoding", "has no use unless `detect` is false"),
        (false, false) => section.problem("encoding", "is missing, and `detect` is false"),
        _ => {}
    }
    let encoding = section.one_of("encoding", ENCODINGS);
    let max_bytes = section.bytes("max_bytes", 1..=MOST_BYTES).and_then(|bytes| bytes.try_into().ok());
    let max_ratio = section.integer("max_ratio", 1..=MOST_RATIO).and_then(|ratio| ratio.try_into().ok());
    let options = InflateOptions {
        scope,
        encoding,
        max_bytes: max_bytes.unwrap_or(DEFAULT_MAX_BYTES),
        max_ratio: max_ratio.unwrap_or(DEFAULT_MAX_RATIO),
        on_error: section.one_of("on_error", ON_BAD_DEFLATE).unwrap_or(OnBadDeflate::Refuse),
    };
    Inflate::new(name, options)
}

/// `type = "jws"`, if there are keys.
pub(super) fn jws(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<Jws> {
    section.require(&["algorithms"]);
    section.forbid_empty("algorithms");
    let algorithms = section.several_of("algorithms", ALGORITHMS);
    let keys = jwt::keys_of_file(section, &algorithms, files);
    let key_id = section.one_of("key_id", KEY_OWNERS);
    if let (Some(_), Some((source, keys))) = (key_id, &keys) {
        check_names(section, source, keys);
    }
    let scope = scope(section);
    if key_id.is_some() && scope.actions.contains(&Action::Deliver) {
        section.problem("actions", "deliveries are not signed by the client, whom `key_id` names");
    }
    let unsigned = if section.boolean("require").unwrap_or(true) { Unsigned::Refuse } else { Unsigned::Pass };
    let signed = if section.boolean("unwrap").unwrap_or(true) { Signed::Unwrap } else { Signed::Keep };
    let (_, keys) = keys?;
    let options = JwsOptions { scope, unsigned, signed, key_id };
    Some(Jws::new(name, Verifier::new(keys, algorithms), options))
}

/// A key without a name would be everybody's own.
fn check_names(section: &Section<'_>, source: &str, keys: &KeySet) {
    match source {
        "jwks_file" if keys.are_all_named() => {}
        "jwks_file" => section.problem("key_id", "needs a `kid` in each key of `jwks_file`"),
        _ => section.problem("key_id", "needs `jwks_file`, whose keys have names"),
    }
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

const ENCODINGS: &[(&str, Encoding)] =
    &[("gzip", Encoding::Gzip), ("zlib", Encoding::Zlib), ("deflate", Encoding::Deflate)];

const ON_BAD_DEFLATE: &[(&str, OnBadDeflate)] =
    &[("refuse", OnBadDeflate::Refuse), ("pass", OnBadDeflate::Pass)];

const KEY_OWNERS: &[(&str, KeyOwner)] =
    &[("client_id", KeyOwner::ClientId), ("principal", KeyOwner::Principal)];

const DEFAULT_MAX_BYTES: usize = 1024 * 1024;
const MOST_BYTES: u64 = 256 * 1024 * 1024;
const DEFAULT_MAX_RATIO: usize = 100;
const MOST_RATIO: u64 = 10_000;
