use std::sync::Arc;
use std::time::Duration;
use std::{error, fmt};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use mgate_policies::{Action, Client, Query};
use serde_json::Value;

use super::terms::Terms;
use crate::neighbour::body::{JSON, is_of_type};
use crate::neighbour::grpc::Code;

/// How a kind of service is asked, and what its answers mean.
pub trait Dialect: Send + Sync {
    /// The actions that it has a word for.
    fn actions(&self) -> &'static [Action];

    /// The question as a request, the same for the same question; never with a password or a token in it.
    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable>;

    /// What the service said. Only the documented positive answer is an allow; what is not documented at all
    /// is an error.
    fn read(&self, asked: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError>;

    /// How several questions are one request, where they can be.
    fn batch(&self) -> Option<&dyn Batch> {
        None
    }
}

/// How several questions are one request.
pub trait Batch: Send + Sync {
    /// The request that asks what each of these asks.
    fn request(&self, questions: &[Request<Bytes>]) -> Request<Bytes>;

    /// What the service said to so many questions, in their order; what is missing at the end has no answer. One
    /// that is an error spoils no other.
    fn read(
        &self,
        questions: usize,
        answer: &Response<Bytes>,
    ) -> Result<Vec<Result<Answered, AnswerError>>, AnswerError>;
}

/// Why a question cannot be put in a dialect: it is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unaskable(pub &'static str);

/// What a service said.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Its decision.
    pub verdict: Verdict,
    /// How long it may be remembered; `None` where the service does not say.
    pub ttl: Option<Duration>,
    /// Its own words, for people: short, and free of control characters.
    pub words: Option<Arc<str>>,
    /// With an answer to `connect`, what is true for the session.
    pub terms: Option<Arc<Terms>>,
}

/// A decision of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// It must not.
    Deny,
    /// The service leaves it to the other policies.
    Abstain,
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// It is not of the type that its dialect has.
    ContentType,
    /// Its status of gRPC is none that its dialect has.
    Grpc(Code),
    /// Its body is not JSON.
    Json,
    /// It says something that its dialect does not: what is missing, or too much.
    Meaning(&'static str),
    /// It is not the message that its dialect has.
    Protobuf,
    /// Its status is none that its dialect has.
    Status(StatusCode),
}

impl From<Verdict> for Answered {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, ttl: None, words: None, terms: None }
    }
}

impl From<bool> for Verdict {
    fn from(is_allowed: bool) -> Self {
        if is_allowed { Self::Allow } else { Self::Deny }
    }
}

impl Answered {
    /// The same with what the service says of its lifetime; of several hints the shortest counts.
    pub(super) fn lasting(mut self, hints: impl IntoIterator<Item = Option<Duration>>) -> Self {
        self.ttl = hints.into_iter().flatten().chain(self.ttl).min();
        self
    }

    /// The same with what is true for the session.
    pub(super) fn with_terms(self, terms: Option<Arc<Terms>>) -> Self {
        Self { terms, ..self }
    }

    /// The same as an answer to this action: what is said of the session elsewhere than with `connect` is not for
    /// all of it.
    pub(super) fn to(mut self, action: Action) -> Result<Self, AnswerError> {
        self.terms.take_if(|_| action != Action::Connect);
        match (self.verdict, &self.terms) {
            // others who let the client in would know nothing of them
            (Verdict::Abstain, Some(_)) => {
                Err(AnswerError::Meaning("leaves `connect` to others and has an `mgate`"))
            }
            _ => Ok(self),
        }
    }

    /// The same with the service's words.
    pub(super) fn saying(mut self, words: Option<&Value>) -> Self {
        self.words = words.and_then(Value::as_str).filter(|words| !words.is_empty()).map(for_people);
        self
    }
}

/// A request with a body in JSON.
pub(super) fn post_json(uri: &Uri, body: Vec<u8>) -> Request<Bytes> {
    with_body(Method::POST, uri.clone(), Some(JSON), body)
}

/// A request with a body of a type, or without either.
pub(super) fn with_body(
    method: Method,
    uri: Uri,
    content_type: Option<&'static str>,
    body: Vec<u8>,
) -> Request<Bytes> {
    let mut request = Request::new(body.into());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    if let Some(content_type) = content_type {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    request
}

/// The address with this path below `base`; none if that has a query, or there is no room.
pub(super) fn below(base: &Uri, path: &str) -> Option<Uri> {
    if base.query().is_some() {
        return None;
    }
    format!("{}{path}", base.to_string().trim_end_matches('/')).parse().ok()
}

/// The JSON in an answer with status 200 and nothing else.
pub(super) fn json(answer: &Response<Bytes>) -> Result<Value, AnswerError> {
    if answer.status() != StatusCode::OK {
        return Err(AnswerError::Status(answer.status()));
    }
    json_body(answer)
}

/// The JSON in an answer, whatever its status.
pub(super) fn json_body(answer: &Response<Bytes>) -> Result<Value, AnswerError> {
    if !is_of_type(answer.headers(), JSON) {
        return Err(AnswerError::ContentType);
    }
    serde_json::from_slice(answer.body()).map_err(|_| AnswerError::Json)
}

/// How long an answer may be kept, as its `Cache-Control` says. RFC 9111 §5.2.2
pub(super) fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).into_iter();
    let directives = values.flat_map(|value| value.to_str().unwrap_or("no-store").split(','));
    directives.filter_map(|directive| age_in(&directive.trim().to_ascii_lowercase())).min()
}

/// A lifetime in seconds, as services write it into JSON; what is no number of seconds is none at all.
pub(super) fn seconds(value: Option<&Value>) -> Option<Duration> {
    let secs = value?.as_f64().filter(|secs| *secs >= 0.0).unwrap_or_default();
    Some(Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX))
}

/// The user name as the client sent it, unless it is a token.
pub(super) fn username(client: &Client) -> Option<&str> {
    client.username.as_deref().filter(|name| !is_token(name))
}

fn age_in(directive: &str) -> Option<Duration> {
    match directive.split_once('=') {
        Some(("max-age", secs)) => Some(Duration::from_secs(secs.parse().unwrap_or_default())),
        None if matches!(directive, "no-cache" | "no-store") => Some(Duration::ZERO),
        _ => None,
    }
}

/// Whether it has the form of a signed token, whose header is an object in Base64. RFC 7519 §3
pub(crate) fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}

/// What may be logged of the words of a service or a plug-in: the first, without control characters.
pub(crate) fn for_people(words: &str) -> Arc<str> {
    words.chars().filter(|char| !char.is_control()).take(MAX_WORDS).collect::<String>().into()
}

impl fmt::Display for Unaskable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl error::Error for Unaskable {}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ContentType => f.write_str("the answer's content type is not the dialect's"),
            Self::Grpc(code) => write!(f, "the answer's status is {code:?}"),
            Self::Json => f.write_str("the answer is not JSON"),
            Self::Meaning(what) => write!(f, "the answer {what}"),
            Self::Protobuf => f.write_str("the answer is not the method's message"),
            Self::Status(status) => write!(f, "the answer's status is {}", status.as_u16()),
        }
    }
}

impl error::Error for AnswerError {}

const MAX_WORDS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_control_says_how_long() {
        for (values, secs) in [
            (&["max-age=7"][..], Some(7)),
            (&["private, Max-Age=7"], Some(7)),
            (&["max-age=7", "max-age=5"], Some(5)),
            (&["max-age=7, no-store"], Some(0)),
            (&["no-cache"], Some(0)),
            (&["max-age=soon"], Some(0)),
            (&["max-age=-1"], Some(0)),
            (&["s-maxage=7"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CACHE_CONTROL, value.parse().unwrap());
            }
            assert_eq!(max_age(&headers), secs.map(Duration::from_secs), "{values:?}");
        }
    }

    #[test]
    fn lifetime_that_is_no_number_is_none_at_all() {
        for (text, lifetime) in [("2.5", 2500), ("3", 3000), ("0", 0), ("-1", 0), ("\"9\"", 0), ("null", 0)] {
            let value = serde_json::from_str(text).unwrap();
            assert_eq!(seconds(Some(&value)), Some(Duration::from_millis(lifetime)), "{text}");
        }
        assert_eq!(seconds(Some(&serde_json::json!(1e300))), Some(Duration::MAX));
        assert_eq!(seconds(None), None);
    }

    #[test]
    fn shortest_hint_counts() {
        let [two, five] = [2, 5].map(|secs| Some(Duration::from_secs(secs)));
        assert_eq!(Answered::from(Verdict::Allow).lasting([five, None, two]).ttl, two);
        assert_eq!(Answered::from(Verdict::Allow).lasting([None, None]).ttl, None);
    }

    #[test]
    fn content_type_may_have_parameters_and_must_be_json() {
        for (content_type, is_taken) in [
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("text/json"), false),
            (Some("application/json2"), false),
            (None, false),
        ] {
            let mut answer = Response::new(Bytes::from_static(b"{}"));
            if let Some(content_type) = content_type {
                answer.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
            }
            assert_eq!(json(&answer).is_ok(), is_taken, "{content_type:?}");
        }
    }

    #[test]
    fn words_are_short_and_on_one_line() {
        let words = Value::from(format!("no\n\u{1b}[31m{}", "x".repeat(1000)));
        let said = Answered::from(Verdict::Deny).saying(Some(&words)).words.unwrap();
        assert!(said.starts_with("no[31mxx") && said.chars().count() == 200, "{said}");
        assert_eq!(Answered::from(Verdict::Deny).saying(Some(&Value::Null)).words, None);
    }
}
