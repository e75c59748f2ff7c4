use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use mgate_policies::{Action, Query};
use serde_json::Value;

use super::ALL_ACTIONS;
use super::dialect::{
    AnswerError, Answered, Dialect, Unaskable, Verdict, json, json_body, max_age, with_body,
};
use super::entities::object;
use super::template::{Kind, Template, UrlTemplate, verbatim};
use crate::neighbour::body::{FORM, JSON, form};

/// A service with an interface of its own: requests are made by a template, answers are one of a few kinds.
pub struct Webhook {
    /// How it is asked.
    pub method: Method,
    /// Where.
    pub url: UrlTemplate,
    /// With what.
    pub body: Body,
    /// Which actions it knows.
    pub vocabulary: Vocabulary,
    /// What its answers mean.
    pub reply: Reply,
}

/// What stands in a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Names and values, as a form on a web page sends them.
    Form(Vec<(String, Template)>),
    /// An object of strings; what is nothing but `${qos}` or `${acc}` is a number, and `${retain}` a boolean.
    Json(Vec<(String, Template)>),
}

/// The actions that a service knows, and its words for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocabulary {
    /// `publish`, which wills are too, and `subscribe`.
    Emqx,
    /// These, and deliveries.
    Mosquitto,
    /// All of mgate's.
    Whole,
}

/// What answers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// EMQX: `{"result":"allow"}`, `"deny"` or `"ignore"`; 204 allows too.
    Emqx,
    /// mosquitto-go-auth in its mode `json`: `{"Ok":true,"Error":""}`.
    Ok,
    /// 2xx allows; 401 and 403 deny.
    Status,
    /// mosquitto-go-auth in its mode `text`: `ok` allows.
    Text,
}

impl Dialect for Webhook {
    fn actions(&self) -> &'static [Action] {
        match self.vocabulary {
            Vocabulary::Emqx => &[Action::Publish, Action::Subscribe, Action::Will],
            Vocabulary::Mosquitto => &[Action::Deliver, Action::Publish, Action::Subscribe, Action::Will],
            Vocabulary::Whole => ALL_ACTIONS,
        }
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let (content_type, body) = match &self.body {
            Body::Empty => (None, Vec::new()),
            Body::Form(fields) => (Some(FORM), self.form(fields, query)?),
            Body::Json(fields) => (Some(JSON), self.json(fields, query)?),
        };
        let url = self.url.render(query, self.vocabulary)?;
        Ok(with_body(self.method.clone(), url, content_type, body))
    }

    fn read(&self, _: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        let answered = match (self.reply, status(answer)) {
            (Reply::Emqx, _) => emqx(answer)?.into(),
            (Reply::Ok, Ok(Verdict::Allow)) => ok(&json_body(answer)?)?,
            (Reply::Text, Ok(Verdict::Allow)) => text(answer),
            (_, verdict) => verdict?.into(),
        };
        Ok(answered.lasting([max_age(answer.headers())]))
    }
}

impl Webhook {
    fn form(&self, fields: &[(String, Template)], query: &Query<'_>) -> Result<Vec<u8>, Unaskable> {
        let values = self.values(fields, query)?;
        Ok(form(fields.iter().zip(&values).map(|((name, _), value)| (name.as_str(), value.as_str())))
            .into_bytes())
    }

    fn json(&self, fields: &[(String, Template)], query: &Query<'_>) -> Result<Vec<u8>, Unaskable> {
        let values = self.values(fields, query)?;
        let mut out = Vec::with_capacity(256);
        object(&mut out, |members| {
            for ((name, template), value) in fields.iter().zip(&values) {
                match template.kind() {
                    Kind::Bare => members.bare(name, value),
                    Kind::Text => members.text(name, value),
                }
            }
        });
        Ok(out)
    }

    fn values(&self, fields: &[(String, Template)], query: &Query<'_>) -> Result<Vec<String>, Unaskable> {
        fields.iter().map(|(_, template)| template.render(query, self.vocabulary, verbatim)).collect()
    }
}

impl Vocabulary {
    /// The word for an action.
    pub(super) fn word(self, action: Action) -> String {
        match (self, action) {
            (Self::Emqx | Self::Mosquitto, Action::Will) => Action::Publish.to_string(),
            _ => action.to_string(),
        }
    }
}

fn emqx(answer: &Response<Bytes>) -> Result<Verdict, AnswerError> {
    if answer.status() == StatusCode::NO_CONTENT {
        return Ok(Verdict::Allow);
    }
    match json(answer)?.get("result").and_then(Value::as_str) {
        Some("allow") => Ok(Verdict::Allow),
        Some("deny") => Ok(Verdict::Deny),
        Some("ignore") => Ok(Verdict::Abstain),
        _ => Err(AnswerError::Meaning("has no `result` that is allow, deny or ignore")),
    }
}

fn status(answer: &Response<Bytes>) -> Result<Verdict, AnswerError> {
    match answer.status() {
        status if status.is_success() => Ok(Verdict::Allow),
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Ok(Verdict::Deny),
        status => Err(AnswerError::Status(status)),
    }
}

/// The service's own library takes its keys in upper and lower case.
fn ok(body: &Value) -> Result<Answered, AnswerError> {
    let members = || body.as_object().into_iter().flatten();
    let mut named = members().filter(|(key, _)| key.eq_ignore_ascii_case("ok")).map(|(_, value)| value);
    let error = members().find(|(key, _)| key.eq_ignore_ascii_case("error")).map(|(_, value)| value);
    let is_silent = error.is_none_or(|error| error.is_null() || error == "");
    match (named.next(), named.next()) {
        (Some(Value::Bool(true)), None) if is_silent => Ok(Verdict::Allow.into()),
        (Some(Value::Bool(false)), None) => Ok(Answered::from(Verdict::Deny).saying(error)),
        (Some(Value::Bool(true)), None) => Err(AnswerError::Meaning("is `Ok` and has an `Error`")),
        _ => Err(AnswerError::Meaning("has no `Ok` that is true or false")),
    }
}

fn text(answer: &Response<Bytes>) -> Answered {
    let words = String::from_utf8_lossy(answer.body()).into_owned();
    Answered::from(Verdict::from(words == "ok")).saying((words != "ok").then_some(&words.into()))
}

#[cfg(test)]
mod tests {
    use mgate_policies::Client;

    use super::super::tests::{Reading, body_of, client, deliver, publish, read, read_of, subscribe};
    use super::*;

    #[test]
    fn template_makes_json_with_types() {
        let body = [
            ("user", "${username}"),
            ("t", "<${topic}>"),
            ("q", "${qos}"),
            ("r", "${retain}"),
            ("a", "${acc}"),
        ];
        let hook = Webhook { body: Body::Json(fields(&body)), ..webhook(Vocabulary::Emqx, Reply::Emqx) };
        let client = Client { username: Some("\"},{\\".into()), ..client() };
        let request = hook.request(&Query { qos: 2, ..publish(&client, "a\"b") }).unwrap();
        assert_eq!(request.headers()["content-type"], "application/json");
        let expected = serde_json::json!({"user": "\"},{\\", "t": "<a\"b>", "q": 2, "r": false, "a": 2});
        assert_eq!(body_of(&request), expected);
    }

    #[test]
    fn template_makes_forms() {
        let body = Body::Form(fields(&[("top&ic", "${topic}"), ("acc", "${acc}")]));
        let hook = Webhook { method: Method::PUT, body, ..webhook(Vocabulary::Mosquitto, Reply::Ok) };
        for (query, body) in [
            (subscribe(&client(), "a&acc=2/+/ü"), "top%26ic=a%26acc%3D2%2F%2B%2F%C3%BC&acc=4"),
            (deliver(&client(), "a"), "top%26ic=a&acc=1"),
        ] {
            let request = hook.request(&query).unwrap();
            assert_eq!(request.method(), "PUT");
            assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
            assert_eq!(request.body(), body);
        }
    }

    #[test]
    fn request_may_be_all_in_its_address() {
        let url = UrlTemplate::parse("http://pdp/${action}/${topic}").unwrap();
        let hook = Webhook { method: Method::GET, url, ..webhook(Vocabulary::Whole, Reply::Status) };
        let request = hook.request(&Query { action: Action::Will, ..publish(&client(), "a/b") }).unwrap();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string()),
            ("GET", "http://pdp/will/a%2Fb".into())
        );
        assert!(request.body().is_empty() && request.headers().is_empty());
    }

    #[test]
    fn wills_are_published_where_there_is_no_word_for_them() {
        let body = Body::Json(fields(&[("action", "${action}")]));
        let hook = Webhook { body, ..webhook(Vocabulary::Emqx, Reply::Emqx) };
        let request = hook.request(&Query { action: Action::Will, ..publish(&client(), "a") }).unwrap();
        assert_eq!(body_of(&request)["action"], "publish");
    }

    #[test]
    fn emqx_allows_by_result_and_by_204() {
        let hook = webhook(Vocabulary::Emqx, Reply::Emqx);
        for (status, body, meaning) in [
            (200, r#"{"result":"allow"}"#, Reading::Allow(None)),
            (204, "", Reading::Allow(None)),
            (200, r#"{"result":"deny"}"#, Reading::Deny),
            (200, r#"{"result":"ignore"}"#, Reading::Abstain),
            (200, r#"{"result":true}"#, Reading::Error),
            (200, r#"{"result":"Allow"}"#, Reading::Error),
            (200, r#"{"is_superuser":true}"#, Reading::Error),
            (200, "", Reading::Error),
            (200, "allow", Reading::Error),
            (201, r#"{"result":"allow"}"#, Reading::Error),
            (302, r#"{"result":"allow"}"#, Reading::Error),
            (400, r#"{"result":"allow"}"#, Reading::Error),
            (403, r#"{"result":"deny"}"#, Reading::Error),
            (500, r#"{"result":"allow"}"#, Reading::Error),
        ] {
            assert_eq!(read(&hook, status, body), meaning, "{status} {body}");
        }
    }

    #[test]
    fn status_allows_by_2xx_alone() {
        let hook = webhook(Vocabulary::Whole, Reply::Status);
        for (status, meaning) in [
            (200, Reading::Allow(None)),
            (204, Reading::Allow(None)),
            (299, Reading::Allow(None)),
            (401, Reading::Deny),
            (403, Reading::Deny),
            (101, Reading::Error),
            (300, Reading::Error),
            (302, Reading::Error),
            (404, Reading::Error),
            (429, Reading::Error),
            (500, Reading::Error),
        ] {
            assert_eq!(read(&hook, status, "no"), meaning, "{status}");
        }
    }

    #[test]
    fn mosquitto_go_auth_allows_by_ok() {
        let hook = webhook(Vocabulary::Mosquitto, Reply::Ok);
        for (status, body, meaning) in [
            (200, r#"{"Ok":true,"Error":""}"#, Reading::Allow(None)),
            (201, r#"{"ok":true}"#, Reading::Allow(None)),
            (200, r#"{"Ok":false,"Error":"no"}"#, Reading::Deny),
            (403, r#"{"Ok":true}"#, Reading::Deny),
            (200, r#"{"Ok":true,"Error":"no"}"#, Reading::Error),
            (200, r#"{"Ok":true,"ok":false}"#, Reading::Error),
            (200, r#"{"Ok":"true"}"#, Reading::Error),
            (200, r#"{}"#, Reading::Error),
            (200, r#"[true]"#, Reading::Error),
            (200, r#"ok"#, Reading::Error),
            (500, r#"{"Ok":true}"#, Reading::Error),
            (404, r#"{"Ok":true}"#, Reading::Error),
        ] {
            assert_eq!(read(&hook, status, body), meaning, "{status} {body}");
        }
        let client = client();
        let html = read_of(&hook, &publish(&client, "a"), "text/html", 200, r#"{"Ok":true}"#);
        assert_eq!(html, Reading::Error);
    }

    #[test]
    fn mosquitto_go_auth_allows_by_text() {
        let hook = webhook(Vocabulary::Mosquitto, Reply::Text);
        let client = client();
        for (status, body, meaning) in [
            (200, "ok", Reading::Allow(None)),
            (200, "no such user", Reading::Deny),
            (200, "ok\n", Reading::Deny),
            (200, "OK", Reading::Deny),
            (200, "", Reading::Deny),
            (401, "ok", Reading::Deny),
            (302, "ok", Reading::Error),
            (500, "ok", Reading::Error),
        ] {
            let meant = read_of(&hook, &publish(&client, "a"), "text/plain", status, body);
            assert_eq!(meant, meaning, "{status} {body:?}");
        }
    }

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, Template)> {
        fields.iter().map(|(name, text)| ((*name).to_owned(), Template::parse(text).unwrap())).collect()
    }

    fn webhook(vocabulary: Vocabulary, reply: Reply) -> Webhook {
        let url = UrlTemplate::parse("http://pdp/acl").unwrap();
        Webhook { method: Method::POST, url, body: Body::Empty, vocabulary, reply }
    }
}
