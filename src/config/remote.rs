//! `[authn.NAME]` with `type = "remote"`.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::files::Files;
use super::hook::{self, Preset};
use super::introspection::{MAX_ANSWER_BYTES, inquiry};
use super::section::{Given, Section};
use super::service::{headers, is_here, trust};
use crate::authn::InquiryOptions;
use crate::authn::remote::{
    Body, BrokerAuth, Dialect, Generation, GrpcService, HttpService, IdFrom, Mainflux, Package, Remote,
    Reply, Supermq, Template, Webhook,
};
use crate::neighbour::grpc::{GrpcClient, GrpcOptions, parse_target};
use crate::neighbour::http::{HttpClient, HttpOptions, UrlError, parse_url};

/// The authenticator, if nothing is wrong with it.
pub(super) fn read(name: &str, section: &mut Section<'_>, files: &Files<'_>) -> Option<Remote> {
    let before = files.report().problems();
    section.require(&["dialect", "url"]);
    let kind = section.one_of("dialect", DIALECTS);
    let url = section.text("url");
    let inquiry = inquiry(section, Duration::ZERO);
    let service = service(section, url.as_ref(), &inquiry, files);
    let webhook = match kind {
        Some(Kind::Webhook) => webhook(section),
        kind => {
            only_with_webhook(section, kind.is_some());
            None
        }
    };
    let dialect = match (kind?, service?) {
        (Kind::Webhook, Service::Http(service)) => {
            let Hook { method, body, reply, id } = webhook?;
            Some(Box::new(Webhook { service, method, body, reply, id }) as Box<dyn Dialect>)
        }
        (kind, service) => dialect(section, kind, service),
    };
    (files.report().problems() == before).then_some(())?;
    Some(Remote::new(name, dialect?, inquiry))
}

/// The kinds of services.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    BrokerAuth(Package),
    Mainflux,
    Supermq(Generation),
    Webhook,
}

/// The way to a service.
enum Service {
    Grpc(GrpcService),
    Http(HttpService),
}

/// What is chosen of a webhook.
struct Hook {
    method: Method,
    body: Body,
    reply: Reply,
    id: IdFrom,
}

fn service(
    section: &mut Section<'_>,
    url: Option<&Given<String>>,
    inquiry: &InquiryOptions,
    files: &Files<'_>,
) -> Option<Service> {
    let (scheme, rest) = url.map_or(("", ""), |url| url.value.split_once("://").unwrap_or_default());
    let is_tls = matches!(scheme, "https" | "grpcs");
    let is_known = is_tls || matches!(scheme, "http" | "grpc");
    let (ca, identity) = trust(section, is_known.then_some(is_tls), files);
    let headers = headers(section, files);
    let url = url?;
    if is_known && !is_tls && !is_here(rest) {
        files
            .report()
            .warning(&url.place, "credentials go unencrypted: whoever is on their way can read them");
    }
    // the time for the answer ends first, and says so
    let timeout = inquiry.timeout + Duration::from_secs(1);
    match scheme {
        "http" | "https" => {
            let endpoint = section.check(&url.place, parse_url(&url.value));
            let options = HttpOptions { ca, identity, timeout, max_body_bytes: MAX_ANSWER_BYTES };
            let http = section.check(section.place(), HttpClient::new(options));
            Some(Service::Http(HttpService { http: http?, endpoint: endpoint?, headers }))
        }
        "grpc" | "grpcs" => {
            let target = section.check(&url.place, parse_target(&url.value))?;
            let max_message_bytes = MAX_ANSWER_BYTES;
            let options = GrpcOptions { target, ca, identity, metadata: headers, max_message_bytes };
            let grpc = section.check(section.place(), GrpcClient::new(options))?;
            Some(Service::Grpc(GrpcService { grpc: Arc::new(grpc), timeout }))
        }
        _ => {
            section.check(&url.place, Err::<(), _>(UrlError::Scheme));
            None
        }
    }
}

fn dialect(section: &Section<'_>, kind: Kind, service: Service) -> Option<Box<dyn Dialect>> {
    let dialect: Option<Box<dyn Dialect>> = match (kind, service) {
        (Kind::BrokerAuth(package), Service::Grpc(service)) => {
            Some(Box::new(BrokerAuth::over_grpc(service, package)))
        }
        (Kind::BrokerAuth(Package::BrokerAuth), Service::Http(service)) => {
            BrokerAuth::over_http(service).map(|dialect| Box::new(dialect) as _)
        }
        (Kind::Mainflux, Service::Grpc(service)) => Some(Box::new(Mainflux::over_grpc(service))),
        (Kind::Mainflux, Service::Http(service)) => {
            Mainflux::over_http(service).map(|dialect| Box::new(dialect) as _)
        }
        (Kind::Supermq(generation), Service::Grpc(service)) => {
            Some(Box::new(Supermq::new(service, generation)))
        }
        (Kind::BrokerAuth(Package::FluxMq) | Kind::Supermq(_), Service::Http(_)) => {
            section.problem("url", "must begin with grpc:// or grpcs:// for this dialect");
            return None;
        }
        (Kind::Webhook, _) => {
            section.problem("url", "must begin with http:// or https:// for this dialect");
            return None;
        }
    };
    if dialect.is_none() {
        section.problem("url", "must have no query: the dialect's own paths follow");
    }
    dialect
}

fn only_with_webhook(section: &mut Section<'_>, is_another: bool) {
    for key in ["preset", "method", "format", "body", "response", "id", "superuser_group"] {
        if section.has(key) && is_another {
            section.problem(key, "has a meaning with dialect = \"webhook\" only");
        }
    }
}

fn webhook(section: &mut Section<'_>) -> Option<Hook> {
    let preset = hook::preset(section);
    let method = section.one_of("method", METHODS).unwrap_or(Method::POST);
    let reply = reply(section, preset);
    let id = section.one_of("id", IDS).unwrap_or(IdFrom::Username);
    let body = body(section, preset);
    Some(Hook { method, body: body?, reply: reply?, id })
}

fn reply(section: &mut Section<'_>, preset: Option<Preset>) -> Option<Reply> {
    let response = hook::response(section, preset, REPLIES);
    let superusers = section.text("superuser_group").map(|group| group.value);
    if superusers.is_some() && preset.is_some_and(|preset| preset != Preset::Emqx) {
        section.problem("superuser_group", "has a meaning with preset = \"emqx\" only");
    }
    Some(match preset? {
        Preset::Emqx => Reply::Emqx(superusers),
        Preset::MosquittoGoAuth => response.unwrap_or(Reply::Status),
        Preset::Status => Reply::Status,
        Preset::VerneMq => Reply::VerneMq,
    })
}

fn body(section: &mut Section<'_>, preset: Option<Preset>) -> Option<Body> {
    let format: Format = section.one_of("format", FORMATS).unwrap_or(Body::Json);
    let given = section.pairs("body");
    if preset? == Preset::VerneMq {
        return Some(Body::VerneMq);
    }
    let fields = match given.is_empty() {
        false => hook::templates(section, given, Template::parse)?,
        true => default_body(preset?),
    };
    Some(format(fields))
}

fn default_body(preset: Preset) -> Vec<(String, Template)> {
    let names = match preset {
        Preset::Emqx => "clientid username password peerhost",
        Preset::MosquittoGoAuth => "username password clientid",
        Preset::Status => "client_id username password token peer protocol",
        Preset::VerneMq => "",
    };
    hook::named(names, Template::parse)
}

type Format = fn(Vec<(String, Template)>) -> Body;

const DIALECTS: &[(&str, Kind)] = &[
    ("broker.auth.v1", Kind::BrokerAuth(Package::BrokerAuth)),
    ("fluxmq.auth.v1", Kind::BrokerAuth(Package::FluxMq)),
    ("mainflux-0.13", Kind::Mainflux),
    ("supermq-0.16", Kind::Supermq(Generation::Secret)),
    ("supermq-0.17", Kind::Supermq(Generation::Token)),
    ("webhook", Kind::Webhook),
];

const METHODS: &[(&str, Method)] = &[("POST", Method::POST), ("PUT", Method::PUT)];

const FORMATS: &[(&str, Format)] = &[("json", Body::Json), ("form", Body::Form)];

const REPLIES: &[(&str, Reply)] = &[("status", Reply::Status), ("json", Reply::Ok), ("text", Reply::Text)];

const IDS: &[(&str, IdFrom)] = &[("username", IdFrom::Username), ("client_id", IdFrom::ClientId)];
