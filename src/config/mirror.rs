//! `[mirror.NAME]`.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::ServerAddr;
use mgate_proxy::gate::Mirror;
use mgate_proxy::transport::ClientTls;

use super::files::Files;
use super::mirror_dialect::{Told, dialect};
use super::section::{Given, Section};
use super::service::{nats_login, trust};
use super::supported;
use crate::mirror;
use crate::mirror::dialect::SubjectTemplate;
use crate::mirror::nats::{Bounds, Mode, NatsMirror, Plan, SpoolConfig, StreamConfig, Way};
use crate::neighbour::http::UrlError;
use crate::neighbour::nats::parse_server;

/// The mirrors that have something to start.
pub(super) type Started = Mutex<Vec<Arc<NatsMirror>>>;

/// The mirror, if nothing is wrong with it.
pub(super) fn read(
    name: &str,
    mut section: Section<'_>,
    files: &Files<'_>,
    started: &Started,
) -> Option<Arc<dyn Mirror>> {
    section.require(&["type"]);
    match section.parse("type", |kind| supported(kind, TYPES, &[]))?.value {
        Type::Log => {
            section.finish();
            Some(Arc::new(mirror::Log::new(name)))
        }
        Type::Nats => {
            let plan = plan(name, &mut section, files);
            section.finish();
            let mirror = Arc::new(NatsMirror::new(plan?));
            started.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&mirror));
            Some(mirror)
        }
    }
}

fn plan(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<Plan> {
    let before = files.report().problems();
    let kind = section.one_of("mode", MODES).unwrap_or(Kind::BestEffort);
    let mode = mode(section, kind, files);
    let jetstream = jetstream(section, kind);
    let stream = stream(section, jetstream);
    let bounds = bounds(section);
    let deliveries = section.boolean("deliveries").unwrap_or_default();
    let way = way(section, files);
    let told = dialect(section);
    if let (Some(stream), Some(told)) = (&stream, &told) {
        warn_of_untaken(stream, told, section, files);
    }
    (files.report().problems() == before).then_some(())?;
    Some(Plan {
        name: name.into(),
        mode: mode?,
        jetstream,
        stream,
        bounds,
        deliveries,
        dialect: told?.dialect,
        way: Arc::new(way?),
        written: section.written(),
    })
}

fn mode(section: &mut Section<'_>, kind: Kind, files: &Files<'_>) -> Option<Mode> {
    let mut table = section.section("spool");
    let is_given = table.is_given(&["dir", "max_bytes", "max_age"]);
    match kind {
        Kind::Spool => {
            table.require(&["dir"]);
            let directory = table.text("dir");
            let max_bytes = table.bytes("max_bytes", SPOOL_BYTES).unwrap_or(DEFAULT_SPOOL_BYTES);
            let max_age = table.duration("max_age", SPOOL_AGE).unwrap_or(DAY);
            table.finish();
            let directory = files.path(&directory?);
            Some(Mode::Spool(SpoolConfig { directory, max_bytes, max_age }))
        }
        _ if is_given => {
            section.problem("spool", "needs mode = \"spool\"");
            None
        }
        Kind::Acked => Some(Mode::Acked),
        Kind::BestEffort => Some(Mode::BestEffort),
    }
}

fn jetstream(section: &mut Section<'_>, kind: Kind) -> bool {
    let jetstream = section.boolean("jetstream");
    match (kind, jetstream) {
        (Kind::Acked, Some(false)) => section.problem("jetstream", "cannot be off with mode = \"acked\""),
        (Kind::BestEffort, Some(true)) => {
            section.problem("jetstream", "needs mode = \"spool\" or \"acked\"");
        }
        _ => {}
    }
    jetstream.unwrap_or(kind == Kind::Acked)
}

fn stream(section: &mut Section<'_>, jetstream: bool) -> Option<StreamConfig> {
    let mut table = section.section("stream");
    if !table.is_given(&["name", "create", "subjects", "max_age", "max_bytes", "replicas"]) {
        return None;
    }
    if !jetstream {
        section.problem("stream", "needs mode = \"acked\", or jetstream = true");
        return None;
    }
    table.require(&["name"]);
    let name = table.parse("name", stream_name);
    let is_created = table.boolean("create").unwrap_or_default();
    if is_created {
        table.require(&["subjects"]);
        table.forbid_empty("subjects");
    }
    let stream = StreamConfig {
        subjects: table.parse_each("subjects", stream_subject),
        max_age: table.duration("max_age", Duration::from_millis(100)..=10 * 365 * DAY),
        max_bytes: table.bytes("max_bytes", 1024..=u64::MAX >> 1),
        replicas: table.integer("replicas", 1..=5).unwrap_or(1),
        name: name.map(|name| name.value).unwrap_or_default(),
        is_created,
    };
    if !is_created {
        for key in ["subjects", "max_age", "max_bytes", "replicas"] {
            if table.has(key) {
                table.problem(key, "needs `create = true`: a stream that is there is not changed");
            }
        }
    }
    table.finish();
    Some(stream)
}

/// What no stream takes delays, or refuses, what is behind it.
fn warn_of_untaken(stream: &StreamConfig, told: &Told, section: &Section<'_>, files: &Files<'_>) {
    let is_untaken = |subject: &Option<SubjectTemplate>| {
        let may_fit =
            |subject: &SubjectTemplate| stream.subjects.iter().any(|filter| subject.may_fit(filter));
        stream.is_created && subject.as_ref().is_some_and(|subject| !may_fit(subject))
    };
    let warn = |what: &str| files.report().warning(&section.place_at("stream"), what);
    if is_untaken(&told.messages) {
        warn("none of its subjects takes messages");
    }
    if is_untaken(&told.events) {
        warn("none of its subjects takes events: add one that does, or set `events = false`");
    }
}

fn stream_name(text: &str) -> Result<String, String> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    match text.is_empty() || text.contains(is_bad) {
        true => Err("is no name of a stream: no spaces, points, slashes, * and >".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn stream_subject(text: &str) -> Result<String, &'static str> {
    let mut tokens = text.split('.');
    let is_token =
        |token: &str| !token.is_empty() && !token.contains(|c: char| c.is_whitespace() || c.is_control());
    match tokens.clone().all(is_token)
        && tokens.position(|token| token == ">").is_none_or(|_| tokens.next().is_none())
    {
        true => Ok(text.to_owned()),
        false => Err("is no subject such as channels.>"),
    }
}

fn bounds(section: &mut Section<'_>) -> Bounds {
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Bounds {
        messages: section.integer("queue_messages", 1..=10_000_000).map_or(10_000, whole),
        bytes: section.bytes("queue_bytes", QUEUE_BYTES).map_or(16 * 1024 * 1024, whole),
    }
}

/// Where NATS is.
fn way(section: &mut Section<'_>, files: &Files<'_>) -> Option<Way> {
    let given = servers(section);
    let is_random = section.one_of("server_order", ORDERS).unwrap_or(true);
    let has_tls = section.section("tls").is_given(&["ca", "cert", "key"]);
    let servers: Vec<_> =
        given.iter().filter_map(|url| section.check(&url.place, server(&url.value))).collect();
    let is_tls = has_tls || servers.iter().any(ServerAddr::tls_required);
    // a server may want encryption although its address does not
    let (ca, identity) = trust(section, is_tls.then_some(true), files);
    let login = nats_login(section, files);
    let tls = match ca {
        Some(ca) => section.check(section.place(), ClientTls::new(ca, identity.as_ref())),
        None => None,
    };
    if let Some(login) = &login {
        section.check(section.place(), login.check());
    }
    Some(Way { servers, is_random, tls: tls?, is_tls, login: login? })
}

fn servers(section: &mut Section<'_>) -> Vec<Given<String>> {
    if section.has("url") && section.has("servers") {
        section.problem("servers", "cannot stand beside `url`");
    }
    section.forbid_empty("servers");
    let url = section.text("url");
    let servers = section.texts("servers");
    if url.is_none() && servers.is_none() {
        section.require(&["url"]);
    }
    url.map_or_else(|| servers.unwrap_or_default(), |url| vec![url])
}

fn server(text: &str) -> Result<ServerAddr, String> {
    parse_server(text).map_err(|error| match error {
        UrlError::Scheme => "must begin with nats:// or tls://".to_owned(),
        error => error.to_string(),
    })
}

#[derive(Clone, Copy)]
enum Type {
    Log,
    Nats,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Acked,
    BestEffort,
    Spool,
}

const TYPES: &[(&str, Type)] = &[("log", Type::Log), ("nats", Type::Nats)];
const MODES: &[(&str, Kind)] =
    &[("best_effort", Kind::BestEffort), ("spool", Kind::Spool), ("acked", Kind::Acked)];
/// With whether any is as good as the first.
const ORDERS: &[(&str, bool)] = &[("random", true), ("given", false)];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const QUEUE_BYTES: RangeInclusive<u64> = 64 * 1024..=64 * 1024 * 1024 * 1024;
const SPOOL_BYTES: RangeInclusive<u64> = 1024 * 1024..=1024 * 1024 * 1024 * 1024;
const DEFAULT_SPOOL_BYTES: u64 = 1024 * 1024 * 1024;
const SPOOL_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);
