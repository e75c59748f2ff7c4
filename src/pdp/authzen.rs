use bytes::Bytes;
use http::{Request, Response, Uri};
use mgate_policies::{Action, Query};
use serde_json::Value;

use super::ALL_ACTIONS;
use super::dialect::{AnswerError, Answered, Dialect, Unaskable, Verdict, json, max_age, post_json, seconds};
use super::entities::{self, Payload};
use super::terms::Terms;

/// OpenID AuthZEN Authorization API 1.0: one evaluation for each question.
#[derive(Default)]
pub struct Authzen {
    endpoint: Uri,
}

impl Authzen {
    /// A service whose evaluations are at `endpoint`.
    pub fn new(endpoint: Uri) -> Self {
        Self { endpoint }
    }

    /// Where a service evaluates whose address has no path. §6
    pub const PATH: &str = "/access/v1/evaluation";
}

impl Dialect for Authzen {
    fn actions(&self) -> &'static [Action] {
        ALL_ACTIONS
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let mut body = Vec::with_capacity(512);
        entities::write(query, Payload::Hidden, &mut body)?;
        Ok(post_json(&self.endpoint, body))
    }

    fn read(&self, _: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        let body = json(answer)?;
        let decision = body.get("decision").and_then(Value::as_bool);
        let verdict = Verdict::from(decision.ok_or(AnswerError::Meaning("has no `decision`"))?);
        let context = &body["context"];
        let hints =
            [seconds(context.get("ttl")), seconds(context.get("cache_ttl")), max_age(answer.headers())];
        let terms = Terms::read(context)?;
        Ok(Answered::from(verdict).lasting(hints).saying(context.get("reason")).with_terms(terms))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Reading, body_of, client, publish, read};
    use super::*;

    #[test]
    fn question_goes_to_the_endpoint() {
        let request = dialect().request(&publish(&client(), "a/b")).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "http://pdp/access/v1/evaluation");
        assert_eq!(request.headers()["content-type"], "application/json");
        let body = body_of(&request);
        assert_eq!(body["resource"]["id"], "a/b");
        assert_eq!(body["action"]["name"], "publish");
    }

    #[test]
    fn only_true_allows() {
        for (body, meaning) in [
            (r#"{"decision":true}"#, Reading::Allow(None)),
            (r#"{"decision":true,"context":{"ttl":7,"cache_ttl":9}}"#, Reading::Allow(Some(7))),
            (r#"{"decision":true,"more":1}"#, Reading::Allow(None)),
            (r#"{"decision":false}"#, Reading::Deny),
            (r#"{"decision":false,"context":{"reason":"no"}}"#, Reading::Deny),
            (r#"{"decision":"true"}"#, Reading::Error),
            (r#"{"decision":1}"#, Reading::Error),
            (r#"{"Decision":true}"#, Reading::Error),
            (r#"{"evaluations":[{"decision":true}]}"#, Reading::Error),
            (r#"{}"#, Reading::Error),
            (r#"true"#, Reading::Error),
            (r#"[{"decision":true}]"#, Reading::Error),
            (r#"{"decision":true"#, Reading::Error),
            (r#""#, Reading::Error),
        ] {
            assert_eq!(read(&dialect(), 200, body), meaning, "{body}");
        }
        for status in [201, 204, 301, 400, 401, 403, 404, 429, 500] {
            assert_eq!(read(&dialect(), status, r#"{"decision":true}"#), Reading::Error, "{status}");
        }
    }

    fn dialect() -> Authzen {
        Authzen::new(Uri::from_static("http://pdp/access/v1/evaluation"))
    }
}
