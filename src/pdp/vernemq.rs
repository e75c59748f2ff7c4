use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use mgate_policies::{Action, Query, Resource};
use serde_json::{Value, json};

use super::dialect::{
    self, AnswerError, Answered, Dialect, Unaskable, Verdict, max_age, post_json, username,
};

/// A service that VerneMQ calls as a webhook. It cannot change what it is asked about: an answer that wants to
/// is none.
pub struct VerneMq {
    endpoint: Uri,
}

impl VerneMq {
    /// A service that takes all its hooks at `endpoint`.
    pub fn new(endpoint: Uri) -> Self {
        Self { endpoint }
    }
}

impl Dialect for VerneMq {
    fn actions(&self) -> &'static [Action] {
        &[Action::Publish, Action::Subscribe, Action::Will]
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let client = query.client;
        let (hook, body) = match query.resource {
            Resource::Filter(filter) => (
                "auth_on_subscribe",
                json!({
                    "client_id": &*client.client_id,
                    "mountpoint": "",
                    "username": username(client),
                    "topics": [{ "topic": filter.to_string(), "qos": query.qos }],
                }),
            ),
            // what is published is not for those who decide
            Resource::Topic(topic) => (
                "auth_on_publish",
                json!({
                    "client_id": &*client.client_id,
                    "mountpoint": "",
                    "username": username(client),
                    "qos": query.qos,
                    "topic": topic.as_str(),
                    "payload": "",
                    "retain": query.retain,
                }),
            ),
            _ => return Err(Unaskable("there is no word for this resource")),
        };
        let mut request = post_json(&self.endpoint, body.to_string().into_bytes());
        request.headers_mut().insert("vernemq-hook", HeaderValue::from_static(hook));
        Ok(request)
    }

    fn read(&self, asked: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        let body = dialect::json(answer)?;
        let answered = match &body["result"] {
            Value::String(result) if result == "ok" => allowed(asked, &body)?.into(),
            Value::String(result) if result == "next" => Verdict::Abstain.into(),
            Value::Object(result) if result.contains_key("error") => {
                Answered::from(Verdict::Deny).saying(result.get("error"))
            }
            _ => return Err(AnswerError::Meaning("has no `result` that is ok, next or an error")),
        };
        Ok(answered.lasting([max_age(answer.headers())]))
    }
}

/// What `ok` means together with what else is in the answer.
fn allowed(asked: &Request<Bytes>, body: &Value) -> Result<Verdict, AnswerError> {
    let is_nothing =
        |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    if !is_nothing(&body["modifiers"]) {
        return Err(AnswerError::Meaning("has `modifiers`"));
    }
    let asked: Value = serde_json::from_slice(asked.body()).unwrap_or_default();
    match (&asked["topics"][0], &body["topics"]) {
        (_, Value::Null) => Ok(Verdict::Allow),
        (one, Value::Array(topics)) if topics.len() == 1 && topics[0]["topic"] == one["topic"] => {
            match &topics[0]["qos"] {
                qos if *qos == one["qos"] => Ok(Verdict::Allow),
                qos if *qos == REFUSED => Ok(Verdict::Deny),
                _ => Err(AnswerError::Meaning("has another quality of service")),
            }
        }
        _ => Err(AnswerError::Meaning("has other `topics`")),
    }
}

/// The quality of service of a filter that is not allowed.
const REFUSED: u8 = 128;

#[cfg(test)]
mod tests {
    use super::super::tests::{Reading, body_of, client, publish, read, read_of, subscribe};
    use super::*;

    #[test]
    fn hooks_are_called_as_the_broker_does() {
        let client = client();
        let request = dialect().request(&Query { qos: 1, retain: true, ..publish(&client, "a/b") }).unwrap();
        assert_eq!(request.headers()["vernemq-hook"], "auth_on_publish");
        let expected = json!({
            "client_id": "dev-1", "mountpoint": "", "username": null, "qos": 1, "topic": "a/b", "payload": "",
            "retain": true,
        });
        assert_eq!(body_of(&request), expected);
        let request = dialect().request(&Query { qos: 1, ..subscribe(&client, "$share/g/a/+") }).unwrap();
        assert_eq!(request.headers()["vernemq-hook"], "auth_on_subscribe");
        let expected = json!({
            "client_id": "dev-1", "mountpoint": "", "username": null,
            "topics": [{ "topic": "$share/g/a/+", "qos": 1 }],
        });
        assert_eq!(body_of(&request), expected);
    }

    #[test]
    fn only_ok_allows() {
        for (body, meaning) in [
            (r#"{"result":"ok"}"#, Reading::Allow(None)),
            (r#"{"result":"ok","modifiers":{}}"#, Reading::Allow(None)),
            (r#"{"result":"next"}"#, Reading::Abstain),
            (r#"{"result":{"error":"not_allowed"}}"#, Reading::Deny),
            (r#"{"result":"ok","modifiers":{"topic":"elsewhere"}}"#, Reading::Error),
            (r#"{"result":"OK"}"#, Reading::Error),
            (r#"{"result":true}"#, Reading::Error),
            (r#"{"result":{}}"#, Reading::Error),
            (r#"{}"#, Reading::Error),
            (r#""ok""#, Reading::Error),
        ] {
            assert_eq!(read(&dialect(), 200, body), meaning, "{body}");
        }
        for status in [201, 204, 302, 401, 403, 500] {
            assert_eq!(read(&dialect(), status, r#"{"result":"ok"}"#), Reading::Error, "{status}");
        }
    }

    #[test]
    fn filter_must_come_back_as_it_went() {
        let client = client();
        let query = Query { qos: 1, ..subscribe(&client, "a/+") };
        for (topics, meaning) in [
            (r#"[{"topic":"a/+","qos":1}]"#, Reading::Allow(None)),
            (r#"[{"topic":"a/+","qos":128}]"#, Reading::Deny),
            (r#"[{"topic":"a/+","qos":0}]"#, Reading::Error),
            (r#"[{"topic":"a/b","qos":1}]"#, Reading::Error),
            (r#"[{"topic":"a/+","qos":1},{"topic":"b","qos":1}]"#, Reading::Error),
            (r#"[{"topic":"a/+"}]"#, Reading::Error),
            (r#"[]"#, Reading::Error),
            (r#"{}"#, Reading::Error),
        ] {
            let body = format!(r#"{{"result":"ok","topics":{topics}}}"#);
            assert_eq!(read_of(&dialect(), &query, "application/json", 200, &body), meaning, "{topics}");
        }
    }

    fn dialect() -> VerneMq {
        VerneMq::new(Uri::from_static("http://hooks/mqtt"))
    }
}
