//! `[authn.NAME]` with `type = "psk"`.

use std::sync::Arc;
use std::time::Duration;

use mgate_proxy::gate::Authenticator;

use super::files::Files;
use super::in_background;
use super::introspection::{MAX_ANSWER_BYTES, inquiry};
use super::problem::Place;
use super::section::{Given, Section};
use super::service::{headers, secure_url, trust};
use crate::authn::remote::HttpService;
use crate::authn::{Psk, PskFile, PskService};
use crate::neighbour::http::{HttpClient, HttpOptions};

/// The authenticator, if nothing is wrong with it.
pub(super) fn read(
    name: &str,
    section: &mut Section<'_>,
    files: &Files<'_>,
) -> Option<Arc<dyn Authenticator>> {
    match (section.has("file"), section.has("url")) {
        (true, false) => {
            let file = section.text("file").and_then(|name| keys(&name, files))?;
            Some(Arc::new(Psk::new(name, file)))
        }
        (false, true) => service(name, section, files).map(in_background),
        (true, true) => {
            section.problem("url", "cannot stand beside `file`");
            None
        }
        (false, false) => {
            section.problem("file", "is missing: where keys are, or `url`, where they are asked for");
            None
        }
    }
}

fn keys(name: &Given<String>, files: &Files<'_>) -> Option<PskFile> {
    let (text, path) = (files.text(name)?, files.path(name));
    match PskFile::parse(&text) {
        Ok(file) => {
            if file.is_empty() {
                files.report().warning(&name.place, format!("{}: has no keys", name.value));
            }
            Some(file)
        }
        Err(faults) => {
            for fault in faults {
                let place = Place { line: Some(fault.line), ..Place::file(&path) };
                files.report().problem(&place, fault.message);
            }
            None
        }
    }
}

fn service(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<PskService> {
    let before = files.report().problems();
    let url = section.parse("url", secure_url);
    let is_tls = url.as_ref().map(|url| url.value.scheme_str() == Some("https"));
    let (ca, identity) = trust(section, is_tls, files);
    let headers = headers(section, files);
    let inquiry = inquiry(section, DEFAULT_CACHE);
    // the time for the answer ends first, and says so
    let timeout = inquiry.timeout + Duration::from_secs(1);
    let options = HttpOptions { ca, identity, timeout, max_body_bytes: MAX_ANSWER_BYTES };
    let http = section.check(section.place(), HttpClient::new(options))?;
    (files.report().problems() == before).then_some(())?;
    Some(PskService::new(name, HttpService { http, endpoint: url?.value, headers }, inquiry))
}

/// How long it is known that an identity is still good.
const DEFAULT_CACHE: Duration = Duration::from_secs(60);
