use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use mgate_policies::{Action, Query};
use serde_json::Value;

use super::ALL_ACTIONS;
use super::dialect::{
    AnswerError, Answered, Batch, Dialect, Unaskable, Verdict, json, max_age, post_json, seconds,
};
use super::entities::{self, Payload};
use super::terms::Terms;

/// OpenID AuthZEN Authorization API 1.0: one evaluation for each question, or several at once.
#[derive(Default)]
pub struct Authzen {
    endpoint: Uri,
    evaluations: Option<Evaluations>,
}

/// Its Access Evaluations API. §7
struct Evaluations {
    endpoint: Uri,
}

impl Authzen {
    /// A service whose evaluations are at `endpoint`.
    pub fn new(endpoint: Uri) -> Self {
        Self { endpoint, evaluations: None }
    }

    /// The same for a service that answers several questions at once at `endpoint`.
    pub fn with_evaluations(self, endpoint: Uri) -> Self {
        Self { evaluations: Some(Evaluations { endpoint }), ..self }
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
        evaluation(&json(answer)?, max_age(answer.headers()))
    }

    fn batch(&self) -> Option<&dyn Batch> {
        self.evaluations.as_ref().map(|evaluations| evaluations as _)
    }
}

impl Batch for Evaluations {
    fn request(&self, questions: &[Request<Bytes>]) -> Request<Bytes> {
        let mut body = b"{\"evaluations\":[".to_vec();
        for (at, question) in questions.iter().enumerate() {
            if at > 0 {
                body.push(b',');
            }
            body.extend_from_slice(question.body());
        }
        body.extend_from_slice(b"]}");
        post_json(&self.endpoint, body)
    }

    fn read(
        &self,
        questions: usize,
        answer: &Response<Bytes>,
    ) -> Result<Vec<Result<Answered, AnswerError>>, AnswerError> {
        let body = json(answer)?;
        let evaluations = body.get("evaluations").and_then(Value::as_array);
        let evaluations = evaluations.ok_or_else(|| lacks(&body, "has no `evaluations`"))?;
        if evaluations.len() > questions {
            return Err(AnswerError::Meaning("has more `evaluations` than were asked for"));
        }
        let max_age = max_age(answer.headers());
        Ok(evaluations.iter().map(|one| evaluation(one, max_age)).collect())
    }
}

/// One evaluation; `max_age` is what the answer as a whole says.
fn evaluation(body: &Value, max_age: Option<Duration>) -> Result<Answered, AnswerError> {
    let decision = body.get("decision").and_then(Value::as_bool);
    let verdict = Verdict::from(decision.ok_or_else(|| lacks(body, "has no `decision`"))?);
    let context = &body["context"];
    let hints = [seconds(context.get("ttl")), seconds(context.get("cache_ttl")), max_age];
    let terms = Terms::read(context)?;
    Ok(Answered::from(verdict).lasting(hints).saying(context.get("reason")).with_terms(terms))
}

/// What is wrong with an answer that lacks something: over NATS, it may be JetStream's, which has stored the question.
fn lacks(body: &Value, what: &'static str) -> AnswerError {
    let is_stored = body["stream"].is_string() && body["seq"].is_u64();
    AnswerError::Meaning(if is_stored { STORED } else { what })
}

const STORED: &str = "is that of JetStream: a stream takes the subject of the questions";

#[cfg(test)]
mod tests {
    use super::super::tests::{Reading, body_of, client, meaning, publish, read};
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

    #[test]
    fn stream_that_stores_a_question_is_named() {
        let stored = |body: &str| {
            let answer = Response::builder().header("content-type", "application/json");
            let answer = answer.body(Bytes::from(body.to_owned())).unwrap();
            let one = dialect().read(&Request::default(), &answer).unwrap_err();
            let several = batching().batch().unwrap().read(3, &answer).unwrap_err();
            [one, several].map(|error| error == AnswerError::Meaning(STORED))
        };
        for acknowledgement in [
            r#"{"stream":"messages","seq":7}"#,
            r#"{"stream":"messages","domain":"hub","seq":7,"duplicate":true}"#,
            r#"{"error":{"code":503,"description":"no room"},"stream":"messages","seq":0}"#,
        ] {
            assert_eq!(stored(acknowledgement), [true; 2], "{acknowledgement}");
        }
        for other in ["{}", r#"{"stream":"messages"}"#, r#"{"seq":7}"#, r#"{"stream":7,"seq":"7"}"#] {
            assert_eq!(stored(other), [false; 2], "{other}");
        }
    }

    #[test]
    fn questions_are_elements_in_their_order() {
        let client = client();
        let questions = ["a", "b"].map(|topic| dialect().request(&publish(&client, topic)).unwrap());
        let request = batching().batch().unwrap().request(&questions);
        assert_eq!(request.uri(), "http://pdp/access/v1/evaluations");
        assert_eq!(request.headers()["content-type"], "application/json");
        let body = body_of(&request);
        let singles: Vec<_> = questions.iter().map(body_of).collect();
        assert_eq!(body, serde_json::json!({ "evaluations": singles }));
        assert!(dialect().batch().is_none());
    }

    #[test]
    fn each_element_is_an_answer_of_its_own() {
        let (allow, deny, error) = (Reading::Allow(None), Reading::Deny, Reading::Error);
        let said = [
            ("[]", Some(vec![])),
            (r#"[{"decision":true},{"decision":false}]"#, Some(vec![allow, deny])),
            (
                r#"[{"decision":1},{"decision":true,"context":{"ttl":7}},null]"#,
                Some(vec![error, Reading::Allow(Some(7)), Reading::Error]),
            ),
            (r#"[{},{},{},{"decision":true}]"#, None),
            (r#"{"decision":true}"#, None),
            ("true", None),
        ];
        for (evaluations, expected) in said {
            let body = format!(r#"{{"evaluations":{evaluations}}}"#);
            assert_eq!(answers(200, &body), expected, "{evaluations}");
        }
        assert_eq!(answers(200, r#"{"decision":true}"#), None);
        assert_eq!(answers(404, r#"{"evaluations":[{"decision":true}]}"#), None);
    }

    fn answers(status: u16, body: &str) -> Option<Vec<Reading>> {
        let answer = Response::builder().status(status).header("content-type", "application/json");
        let answer = answer.body(body.to_owned().into()).unwrap();
        let answers = batching().batch().unwrap().read(3, &answer).ok()?;
        Some(answers.iter().map(meaning).collect())
    }

    fn batching() -> Authzen {
        dialect().with_evaluations(Uri::from_static("http://pdp/access/v1/evaluations"))
    }

    fn dialect() -> Authzen {
        Authzen::new(Uri::from_static("http://pdp/access/v1/evaluation"))
    }
}
