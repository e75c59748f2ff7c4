use bytes::Bytes;
use http::{Request, Response, Uri};
use mgate_policies::{Action, Query};
use serde_json::Value;

use super::ALL_ACTIONS;
use super::dialect::{AnswerError, Answered, Dialect, Unaskable, Verdict, json, max_age, post_json, seconds};
use super::entities::{self, Payload};
use super::terms::Terms;

/// The data API of the Open Policy Agent: the question is its `input`.
pub struct Opa {
    document: Uri,
}

impl Opa {
    /// An agent whose decision is at `document`: `http://host:8181/v1/data/mgate`.
    pub fn new(document: Uri) -> Self {
        Self { document }
    }
}

impl Dialect for Opa {
    fn actions(&self) -> &'static [Action] {
        ALL_ACTIONS
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let mut body = Vec::with_capacity(512);
        body.extend_from_slice(b"{\"input\":");
        entities::write(query, Payload::Hidden, &mut body)?;
        body.push(b'}');
        Ok(post_json(&self.document, body))
    }

    fn read(&self, _: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        let body = json(answer)?;
        let object = body.as_object().ok_or(AnswerError::Meaning("is no object"))?;
        let (verdict, result) = match object.get("result") {
            Some(Value::Bool(is_allowed)) => (Verdict::from(*is_allowed), &Value::Null),
            Some(result @ Value::Object(rules)) => match rules.get("allow") {
                Some(Value::Bool(is_allowed)) => (Verdict::from(*is_allowed), result),
                // the rule is not true, so it is not there
                None => (Verdict::Deny, result),
                Some(_) => return Err(AnswerError::Meaning("has an `allow` that is neither true nor false")),
            },
            // an undefined decision has no result
            None => (Verdict::Deny, &Value::Null),
            Some(_) => {
                return Err(AnswerError::Meaning("has a `result` that is neither a boolean nor an object"));
            }
        };
        let hints = [seconds(result.get("ttl")), max_age(answer.headers())];
        let terms = Terms::read(result)?;
        Ok(Answered::from(verdict).lasting(hints).saying(result.get("reason")).with_terms(terms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Reading, body_of, client, publish, read};
    use super::*;

    #[test]
    fn question_is_the_input() {
        let request = dialect().request(&publish(&client(), "a/b")).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "http://opa:8181/v1/data/mgate");
        let body = body_of(&request);
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["input"]);
        assert_eq!(body["input"]["resource"]["id"], "a/b");
        assert_eq!(body["input"]["subject"]["id"], "dev-1");
    }

    #[test]
    fn only_true_allows() {
        for (body, meaning) in [
            (r#"{"result":true}"#, Reading::Allow(None)),
            (r#"{"result":{"allow":true}}"#, Reading::Allow(None)),
            (r#"{"result":{"allow":true,"ttl":7},"decision_id":"x"}"#, Reading::Allow(Some(7))),
            (r#"{"result":false}"#, Reading::Deny),
            (r#"{"result":{"allow":false,"reason":"no"}}"#, Reading::Deny),
            (r#"{"result":{}}"#, Reading::Deny),
            (r#"{}"#, Reading::Deny),
            (r#"{"decision_id":"x","warning":{"code":"api_usage_warning"}}"#, Reading::Deny),
            (r#"{"result":"true"}"#, Reading::Error),
            (r#"{"result":{"allow":"true"}}"#, Reading::Error),
            (r#"{"result":[true]}"#, Reading::Error),
            (r#"{"result":null}"#, Reading::Error),
            (r#"{"result":1}"#, Reading::Error),
            (r#"true"#, Reading::Error),
            (r#"{"result":true"#, Reading::Error),
        ] {
            assert_eq!(read(&dialect(), 200, body), meaning, "{body}");
        }
        for status in [201, 204, 302, 400, 404, 500] {
            assert_eq!(read(&dialect(), status, r#"{"result":true}"#), Reading::Error, "{status}");
        }
    }

    fn dialect() -> Opa {
        Opa::new(Uri::from_static("http://opa:8181/v1/data/mgate"))
    }
}
