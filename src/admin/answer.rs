use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

pub(super) type Answer = Response<Full<Bytes>>;

/// What is wrong with a request, or with what it asked for. RFC 9457
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    detail: String,
    /// More about it, in JSON.
    extension: Option<(&'static str, Value)>,
    /// The methods that there are, where it is the method that is wrong.
    allow: Option<&'static str>,
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &Value) -> Answer {
    with_type(status, "application/json", body)
}

impl Fault {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), extension: None, allow: None }
    }

    /// The same with a member of its own.
    pub(super) fn with(self, name: &'static str, value: Value) -> Self {
        Self { extension: Some((name, value)), ..self }
    }

    /// The method is none of `allow`.
    pub(super) fn method(allow: &'static str) -> Self {
        let detail = format!("this takes {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail) }
    }

    pub(super) fn answer(self) -> Answer {
        let Self { status, detail, extension, allow } = self;
        let title = status.canonical_reason().unwrap_or_default();
        let mut body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
        if let Some((name, value)) = extension {
            body[name] = value;
        }
        let mut answer = with_type(status, "application/problem+json", &body);
        if let Some(allow) = allow {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

fn with_type(status: StatusCode, content_type: &'static str, body: &Value) -> Answer {
    let mut answer = Answer::new(Full::from(format!("{body}\n")));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
