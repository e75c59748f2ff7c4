use bytes::Bytes;
use http::{Request, Response, Uri};
use mgate_policies::{Action, Query, Resource};
use serde_json::Value;

use super::dialect::{AnswerError, Answered, Dialect, Unaskable, Verdict, below, json, max_age, post_json};
use super::entities::object;

/// `broker.auth.v1` over HTTP, as FluxMQ asks and Magistrala answers.
pub struct BrokerAuth {
    endpoint: Uri,
}

impl BrokerAuth {
    /// A service at `base`, below which its paths are; `None` if there can be nothing below.
    pub fn new(base: &Uri) -> Option<Self> {
        Some(Self { endpoint: below(base, "/auth/authorize")? })
    }
}

impl Dialect for BrokerAuth {
    fn actions(&self) -> &'static [Action] {
        &[Action::Publish, Action::Subscribe, Action::Will]
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let (action, topic) = match query.resource {
            // the service parses it, shared subscriptions too
            Resource::Filter(filter) => ("subscribe", filter.to_string()),
            Resource::Topic(topic) => ("publish", topic.to_string()),
            _ => return Err(Unaskable("there is no word for this resource")),
        };
        let mut body = Vec::with_capacity(128);
        object(&mut body, |question| {
            question.text("external_id", &query.client.principal.id);
            question.text("topic", &topic);
            question.text("action", action);
        });
        Ok(post_json(&self.endpoint, body))
    }

    fn read(&self, _: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        let body = json(answer)?;
        let authorized = body.get("authorized").and_then(Value::as_bool);
        let verdict = Verdict::from(authorized.ok_or(AnswerError::Meaning("has no `authorized`"))?);
        Ok(Answered::from(verdict).lasting([max_age(answer.headers())]).saying(body.get("reason")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Reading, body_of, client, publish, read, subscribe};
    use super::*;

    #[test]
    fn question_has_the_raw_topic() {
        let client = client();
        let will = Query { action: Action::Will, ..publish(&client, "m/d/c/1") };
        for (query, topic, action) in [
            (publish(&client, "m/d/c/1"), "m/d/c/1", "publish"),
            (will, "m/d/c/1", "publish"),
            (subscribe(&client, "$share/g/m/+/#"), "$share/g/m/+/#", "subscribe"),
        ] {
            let request = dialect().request(&query).unwrap();
            assert_eq!((request.method().as_str(), request.uri().to_string()), ("POST", ENDPOINT.into()));
            let expected = serde_json::json!({ "external_id": "dev-1", "topic": topic, "action": action });
            assert_eq!(body_of(&request), expected);
        }
    }

    #[test]
    fn only_true_allows() {
        for (body, meaning) in [
            (r#"{"authorized":true}"#, Reading::Allow(None)),
            (r#"{"authorized":true,"reason_code":0,"reason":""}"#, Reading::Allow(None)),
            (r#"{"authorized":false,"reason_code":135,"reason":"no"}"#, Reading::Deny),
            (r#"{"authorized":1}"#, Reading::Error),
            (r#"{"authenticated":true}"#, Reading::Error),
            (r#"{}"#, Reading::Error),
            (r#"[]"#, Reading::Error),
        ] {
            assert_eq!(read(&dialect(), 200, body), meaning, "{body}");
        }
        for status in [201, 204, 302, 401, 403, 404, 500] {
            assert_eq!(read(&dialect(), status, r#"{"authorized":true}"#), Reading::Error, "{status}");
        }
    }

    fn dialect() -> BrokerAuth {
        BrokerAuth::new(&Uri::from_static("http://auth:9000/base/")).unwrap()
    }

    const ENDPOINT: &str = "http://auth:9000/base/auth/authorize";
}
