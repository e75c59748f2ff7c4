use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use mgate_policies::jwt_scopes::ACL_ATTRIBUTE;
use mgate_policies::{Attributes, Now};
use mgate_proxy::gate::{Credentials, Verdict};
use serde_json::{Map, Value};

use super::template::Template;
use super::{AskError, Dialect, HttpService, Question, accepted_with, rejected, text};
use crate::authn::{acl, inquiry};
use crate::neighbour::body::{FORM, JSON, form};

/// A service that was written as a webhook of a broker.
pub struct Webhook {
    /// The way to it.
    pub service: HttpService,
    /// Usually POST.
    pub method: Method,
    /// What it is told.
    pub body: Body,
    /// What its answers mean.
    pub reply: Reply,
    /// Where the identity of those comes from whom it takes in.
    pub id: IdFrom,
}

/// What a webhook is told.
pub enum Body {
    /// Fields of a form.
    Form(Vec<(String, Template)>),
    /// Members of a JSON object, each a string.
    Json(Vec<(String, Template)>),
    /// What VerneMQ tells, with its header.
    VerneMq,
}

/// What answers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// EMQX: `result`, and what is known of the client; superusers are in this group, if in one.
    Emqx(Option<String>),
    /// mosquitto-go-auth: JSON with `Ok`.
    Ok,
    /// Any status of 200 to 299 accepts, 401 and 403 reject.
    Status,
    /// mosquitto-go-auth: the text `ok`.
    Text,
    /// VerneMQ: `result`.
    VerneMq,
}

/// Where an identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFrom {
    /// The MQTT client identifier.
    ClientId,
    /// The user name.
    Username,
}

/// What a service says of a client.
#[derive(Debug, Default)]
struct Known {
    groups: Vec<Box<str>>,
    attributes: Attributes,
    expires: Option<Duration>,
}

/// What an answer means.
#[derive(Debug)]
enum Said {
    Yes(Known),
    No,
    LeftToOthers,
}

impl Dialect for Webhook {
    fn ask(&self, credentials: &Credentials<'_>, now: Now) -> Result<Question, Verdict> {
        let request = self.request(credentials)?;
        let id = match self.id {
            IdFrom::ClientId => credentials.client_id,
            IdFrom::Username => credentials.username.unwrap_or_default(),
        };
        let (http, reply, id) = (self.service.http.clone(), self.reply.clone(), id.to_owned());
        Ok(Question::new(async move {
            let answer = inquiry::send(&http, request).await?;
            Ok(match reply.read(&answer)? {
                Said::Yes(known) if known.expires.is_some_and(|expires| expires <= now.unix) => {
                    rejected("the service says that it has expired")
                }
                Said::Yes(known) => match accepted_with(&id, known.attributes, known.expires) {
                    Verdict::Accepted(mut principal) => {
                        principal.groups = known.groups;
                        Verdict::Accepted(principal)
                    }
                    verdict => verdict,
                },
                Said::No => rejected("the service says no"),
                Said::LeftToOthers => Verdict::Abstain,
            })
        }))
    }
}

impl Webhook {
    fn request(&self, credentials: &Credentials<'_>) -> Result<Request<Bytes>, Verdict> {
        let method = self.method.clone();
        Ok(match &self.body {
            Body::Form(fields) => {
                let fields = rendered(fields, credentials)?;
                let pairs = fields.iter().map(|(name, value)| (*name, value.as_str()));
                self.service.request(method, FORM, form(pairs))
            }
            Body::Json(fields) => {
                let fields = rendered(fields, credentials)?.into_iter();
                let body: Map<_, _> = fields.map(|(name, value)| (name.to_owned(), value.into())).collect();
                self.service.request(method, JSON, Value::Object(body).to_string())
            }
            Body::VerneMq => {
                let mut request = self.service.request(method, JSON, vernemq(credentials)?.to_string());
                let hook = HeaderValue::from_static("auth_on_register");
                request.headers_mut().insert(HeaderName::from_static("vernemq-hook"), hook);
                request
            }
        })
    }
}

impl Reply {
    fn read(&self, answer: &Response<Bytes>) -> Result<Said, AskError> {
        match self {
            Self::Emqx(_) if answer.status() == StatusCode::NO_CONTENT => Ok(Said::Yes(Known::default())),
            Self::Emqx(superusers) => emqx(&inquiry::json(answer)?, superusers.as_deref()),
            Self::Ok => match answer.status() {
                StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Ok(Said::No),
                _ => go_auth(&inquiry::json(answer)?),
            },
            Self::Status => status(answer.status()),
            Self::Text => match status(answer.status())? {
                Said::Yes(known) if answer.body() == "ok" => Ok(Said::Yes(known)),
                _ => Ok(Said::No),
            },
            Self::VerneMq => vernemq_said(&inquiry::json(answer)?),
        }
    }
}

fn rendered<'a>(
    fields: &'a [(String, Template)],
    credentials: &Credentials<'_>,
) -> Result<Vec<(&'a str, String)>, Verdict> {
    fields.iter().map(|(name, template)| Ok((name.as_str(), template.render(credentials)?))).collect()
}

fn vernemq(credentials: &Credentials<'_>) -> Result<Value, Verdict> {
    Ok(serde_json::json!({
        "peer_addr": credentials.peer.ip().to_canonical().to_string(),
        "peer_port": credentials.peer.port(),
        "username": credentials.username,
        "password": credentials.password.map(text).transpose()?,
        "mountpoint": "",
        "client_id": credentials.client_id,
    }))
}

fn status(status: StatusCode) -> Result<Said, AskError> {
    match status {
        status if status.is_success() => Ok(Said::Yes(Known::default())),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Ok(Said::No),
        status => Err(AskError::Status(status)),
    }
}

fn emqx(answer: &Value, superusers: Option<&str>) -> Result<Said, AskError> {
    match answer["result"].as_str() {
        Some("allow") => {}
        Some("deny") => return Ok(Said::No),
        Some("ignore") => return Ok(Said::LeftToOthers),
        _ => return Err(AskError::Meaning("has no `result` that is allow, deny or ignore")),
    }
    if answer.get("clientid_override").is_some_and(|id| !id.is_null()) {
        return Err(AskError::Meaning("wants another client identifier: that is not supported"));
    }
    let is_superuser = match answer.get("is_superuser") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err(AskError::Meaning("has an `is_superuser` that is neither true nor false")),
    };
    let expires = match answer.get("expire_at") {
        None | Some(Value::Null) => None,
        Some(at) => Some(at.as_u64().ok_or(AskError::Meaning("has an `expire_at` that is no time"))?),
    };
    Ok(Said::Yes(Known {
        groups: superusers.filter(|_| is_superuser).map(Box::from).into_iter().collect(),
        attributes: emqx_attributes(answer)?,
        expires: expires.map(Duration::from_secs),
    }))
}

/// What is not understood whole could be a denial.
fn emqx_attributes(answer: &Value) -> Result<Attributes, AskError> {
    let mut values = Vec::new();
    match &answer["client_attrs"] {
        Value::Null => {}
        Value::Object(named) => {
            for (name, value) in named {
                let value =
                    value.as_str().ok_or(AskError::Meaning("has `client_attrs` that are no strings"))?;
                values.push((format!("client_attrs.{name}"), value.to_owned()));
            }
        }
        _ => return Err(AskError::Meaning("has `client_attrs` that are no object")),
    }
    let rules = match &answer["acl"] {
        Value::Null => Vec::new(),
        list => acl::lines(list).ok_or(AskError::Meaning("has an `acl` that is not understood"))?,
    };
    values.extend(rules.into_iter().map(|rule| (ACL_ATTRIBUTE.to_owned(), rule)));
    let is_within = |(name, value): &(String, String)| name.len() <= MAX_BYTES && value.len() <= MAX_BYTES;
    if values.len() > MAX_VALUES || !values.iter().all(is_within) {
        return Err(AskError::Meaning("says more of the client than is kept"));
    }
    let mut attributes = Attributes::default();
    for (name, value) in &values {
        attributes.add(name, value);
    }
    Ok(attributes)
}

/// The service's own library takes its keys in upper and lower case.
fn go_auth(answer: &Value) -> Result<Said, AskError> {
    let named = |wanted: &'static str| {
        let members = answer.as_object().into_iter().flatten();
        members.filter(move |(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let is_silent = named("error").all(|error| error.is_null() || error == "");
    let (mut ok, meaning) = (named("ok"), "has no `Ok` that is true or false");
    match (ok.next(), ok.next()) {
        (Some(Value::Bool(true)), None) if is_silent => Ok(Said::Yes(Known::default())),
        (Some(Value::Bool(true)), None) => Err(AskError::Meaning("is `Ok` and has an `Error`")),
        (Some(Value::Bool(false)), None) => Ok(Said::No),
        _ => Err(AskError::Meaning(meaning)),
    }
}

fn vernemq_said(answer: &Value) -> Result<Said, AskError> {
    let modifiers = &answer["modifiers"];
    let changes_nothing = modifiers.is_null() || modifiers.as_object().is_some_and(Map::is_empty);
    match &answer["result"] {
        Value::String(result) if result == "ok" && changes_nothing => Ok(Said::Yes(Known::default())),
        Value::String(result) if result == "ok" => Err(AskError::Meaning("has `modifiers`")),
        Value::String(result) if result == "next" => Ok(Said::LeftToOthers),
        Value::Object(result) if result.contains_key("error") => Ok(Said::No),
        _ => Err(AskError::Meaning("has no `result` that is ok, next or an error")),
    }
}

const MAX_VALUES: usize = 256;
const MAX_BYTES: usize = 1024;
