//! `[policy.NAME]` and `[transform.NAME]` with `type = "wasm"`.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use mgate_wasm::{Bounds, POLICY_EVALUATE, TRANSFORM_APPLY};
use serde_json::{Number, Value as Json};

use super::document::{Node, Value};
use super::files::Files;
use super::problem::{Place, Problem};
use super::section::Section;
use crate::plugin::{
    Digest, Plugin, PluginOptions, Readiness, WasmPolicy, WasmPolicyOptions, WasmTransform,
    WasmTransformOptions,
};

/// The plug-ins of a configuration, ready or not, and where their files are named.
#[derive(Default)]
pub(super) struct Plugins(RefCell<Vec<(Place, Arc<Plugin>)>>);

impl Plugins {
    /// All of them, and why some are not ready.
    pub(super) fn finish(self) -> (Vec<Arc<Plugin>>, Vec<Problem>) {
        let plugins = self.0.into_inner();
        let unready = plugins.iter().filter_map(|(place, plugin)| match &*plugin.readiness().borrow() {
            Readiness::Ready => None,
            Readiness::NotReady(why) => Some(Problem { place: place.clone(), message: why.to_string() }),
        });
        let unready = unready.collect();
        (plugins.into_iter().map(|(_, plugin)| plugin).collect(), unready)
    }

    /// One more, which is compiled here.
    fn add(&self, wanted: Wanted) -> Arc<Plugin> {
        let plugin = Arc::new(Plugin::new(wanted.options));
        self.0.borrow_mut().push((wanted.file, Arc::clone(&plugin)));
        plugin
    }
}

/// The policy, if its keys are right; whether its plug-in is ready is another question.
pub(super) fn policy(
    name: &str,
    section: &mut Section<'_>,
    files: &Files<'_>,
    plugins: &Plugins,
) -> Option<WasmPolicy> {
    let before = files.report().problems();
    let wanted = plugin(name, section, files);
    let options = WasmPolicyOptions {
        shows_payload: section.boolean("payload").unwrap_or(false),
        is_repeatable: section.boolean("repeatable").unwrap_or(false),
    };
    if options.shows_payload && options.is_repeatable {
        section.problem("repeatable", "answers that may hang on the payload cannot be repeatable");
    }
    (files.report().problems() == before).then_some(())?;
    Some(WasmPolicy::new(plugins.add(wanted?), options))
}

/// The transform, if its keys are right; whether its plug-in is ready is another question.
pub(super) fn transform(
    name: &str,
    section: &mut Section<'_>,
    files: &Files<'_>,
    plugins: &Plugins,
) -> Option<WasmTransform> {
    let before = files.report().problems();
    let wanted = plugin(name, section, files);
    let options = WasmTransformOptions { shows_payload: section.boolean("payload").unwrap_or(false) };
    (files.report().problems() == before).then_some(())?;
    let mut wanted = wanted?;
    wanted.options.entry = TRANSFORM_APPLY;
    // it may carry a whole payload
    wanted.options.bounds.reply_bytes = wanted.options.bounds.memory_bytes;
    Some(WasmTransform::new(plugins.add(wanted), options))
}

/// A plug-in that is to be, and where its file is named.
struct Wanted {
    file: Place,
    options: PluginOptions,
}

/// What policies and transforms have in common; a policy's plug-in.
fn plugin(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<Wanted> {
    section.require(&["file"]);
    let file = section.text("file");
    let sha256 = section.parse("sha256", digest);
    let config = config(section, files);
    let deadline = section.duration("deadline", DEADLINE).unwrap_or(DEFAULT_DEADLINE);
    let memory = section.bytes("memory", MEMORY).unwrap_or(DEFAULT_MEMORY);
    let file = file?;
    let options = PluginOptions {
        name: name.into(),
        path: files.path(&file),
        sha256: sha256.map(|given| given.value),
        entry: POLICY_EVALUATE,
        config: config.into(),
        bounds: Bounds {
            deadline,
            memory_bytes: usize::try_from(memory).unwrap_or(usize::MAX),
            reply_bytes: REPLY_BYTES,
        },
    };
    Some(Wanted { file: file.place, options })
}

fn digest(text: &str) -> Result<Digest, String> {
    Digest::parse(text).ok_or_else(|| format!("\"{text}\" is not 64 hexadecimal digits"))
}

/// The table `config` in JSON; an empty one where there is none.
fn config(section: &mut Section<'_>, files: &Files<'_>) -> String {
    let Some(node) = section.table("config") else { return "{}".to_owned() };
    let place = section.place_at("config");
    match json(node) {
        Ok(json) => json.to_string(),
        Err((line, problem)) => {
            files.report().problem(&Place { line: Some(line), ..place }, problem);
            String::new()
        }
    }
}

/// The same value in JSON, or the line of what JSON does not have.
fn json(node: &Node) -> Result<Json, (usize, String)> {
    Ok(match &node.value {
        Value::Boolean(boolean) => Json::Bool(*boolean),
        Value::Integer(number) => Json::from(*number),
        Value::List(items) => Json::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        Value::Other(text) => {
            let number = text.parse().ok().and_then(Number::from_f64);
            Json::Number(number.ok_or_else(|| (node.line, format!("JSON has no word for {text}")))?)
        }
        Value::Table(entries) => {
            let members = entries.iter().map(|entry| Ok((entry.key.clone(), json(&entry.node)?)));
            Json::Object(members.collect::<Result<_, _>>()?)
        }
        Value::Text(text) => Json::String(text.clone()),
    })
}

const DEADLINE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);
const DEFAULT_DEADLINE: Duration = Duration::from_millis(5);
/// From one page of WebAssembly up to half of what it can address.
const MEMORY: RangeInclusive<u64> = 64 * 1024..=2 * 1024 * 1024 * 1024;
const DEFAULT_MEMORY: u64 = 16 * 1024 * 1024;
const REPLY_BYTES: usize = 4096;
