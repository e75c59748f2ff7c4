//! The keys of `dialect = "webhook"`.

use http::Method;

use super::super::hook::{self, Preset};
use super::super::section::{Given, Section};
use crate::neighbour::http::parse_url;
use crate::pdp::{Body, Dialect, Reply, Template, UrlTemplate, VerneMq, Vocabulary, Webhook};

/// The dialect, if nothing is wrong with it.
pub(super) fn read(section: &mut Section<'_>, url: Option<&Given<String>>) -> Option<Box<dyn Dialect>> {
    let preset = hook::preset(section);
    let reply = reply(section, preset);
    let method = section.one_of("method", METHODS).unwrap_or(Method::POST);
    let body = body(section, preset, &method);
    let (preset, url) = (preset?, url?);
    if preset == Preset::VerneMq {
        return Some(Box::new(VerneMq::new(section.check(&url.place, parse_url(&url.value))?)));
    }
    let url = section.check(&url.place, UrlTemplate::parse(&url.value))?;
    let vocabulary = match preset {
        Preset::Emqx => Vocabulary::Emqx,
        Preset::MosquittoGoAuth => Vocabulary::Mosquitto,
        Preset::Status | Preset::VerneMq => Vocabulary::Whole,
    };
    Some(Box::new(Webhook { method, url, body: body?, vocabulary, reply }))
}

/// Reports keys that stand beside another dialect.
pub(super) fn only_here(section: &mut Section<'_>, is_another: bool) {
    for key in WEBHOOK_KEYS {
        if section.has(key) && is_another {
            section.problem(key, "has a meaning with dialect = \"webhook\" only");
        }
    }
}

fn reply(section: &mut Section<'_>, preset: Option<Preset>) -> Reply {
    let reply = hook::response(section, preset, REPLIES);
    match preset {
        Some(Preset::Emqx) => Reply::Emqx,
        _ => reply.unwrap_or(Reply::Status),
    }
}

fn body(section: &mut Section<'_>, preset: Option<Preset>, method: &Method) -> Option<Body> {
    let (has_body, has_format) = (section.has("body"), section.has("format"));
    let format: Option<Format> = section.one_of("format", FORMATS);
    let given = section.pairs("body");
    if method == Method::GET {
        for (key, _) in [("body", has_body), ("format", has_format)].iter().filter(|(_, has)| *has) {
            section.problem(key, "a GET has no body: put names into `url`");
        }
        return Some(Body::Empty);
    }
    let fields = match has_body {
        true => hook::templates(section, given, Template::parse)?,
        false => default_body(preset?),
    };
    Some(format.unwrap_or(Body::Json)(fields))
}

fn default_body(preset: Preset) -> Vec<(String, Template)> {
    let names = match preset {
        Preset::Emqx => "clientid username peerhost action topic qos retain",
        Preset::MosquittoGoAuth => "username clientid topic acc",
        Preset::Status => {
            "principal tenant client_id username listener peer protocol action topic qos retain"
        }
        Preset::VerneMq => "",
    };
    hook::named(names, Template::parse)
}

type Format = fn(Vec<(String, Template)>) -> Body;

const WEBHOOK_KEYS: [&str; 5] = ["preset", "method", "format", "body", "response"];

const METHODS: &[(&str, Method)] = &[("POST", Method::POST), ("PUT", Method::PUT), ("GET", Method::GET)];

const FORMATS: &[(&str, Format)] = &[("json", Body::Json), ("form", Body::Form)];

const REPLIES: &[(&str, Reply)] = &[("status", Reply::Status), ("json", Reply::Ok), ("text", Reply::Text)];
