use bytes::Bytes;
use http::{Request, Response, Uri};
use mgate_policies::{Action, Query, Resource};
use serde_json::Value;

use super::dialect::{
    AnswerError, Answered, Dialect, Unaskable, Verdict, below, for_people, json, max_age, post_json,
};
use super::entities::object;
use super::grpc::{call, message};
use crate::neighbour::messages::broker_auth::{ACTION_PUBLISH, ACTION_SUBSCRIBE, AuthzReq, AuthzRes};

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
        ACTIONS
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let (is_subscribe, topic) = topic(query)?;
        let action = if is_subscribe { "subscribe" } else { "publish" };
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

/// The same over gRPC.
pub struct BrokerAuthGrpc {
    method: &'static str,
}

impl BrokerAuthGrpc {
    /// A service of the package `broker.auth.v1`.
    pub const CURRENT: Self = Self { method: "/broker.auth.v1.AuthService/Authorize" };
    /// A service of the package `fluxmq.auth.v1`, as the same was called before.
    pub const FLUXMQ: Self = Self { method: "/fluxmq.auth.v1.AuthService/Authorize" };
}

impl Dialect for BrokerAuthGrpc {
    fn actions(&self) -> &'static [Action] {
        ACTIONS
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let (is_subscribe, topic) = topic(query)?;
        let action = if is_subscribe { ACTION_SUBSCRIBE } else { ACTION_PUBLISH };
        let external_id = query.client.principal.id.to_string();
        Ok(call(self.method, &AuthzReq { external_id, topic, action }))
    }

    fn read(&self, _: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        let AuthzRes { authorized, reason } = message(answer)?;
        let words = (!reason.is_empty()).then(|| for_people(&reason));
        Ok(Answered { words, ..Answered::from(Verdict::from(authorized)) })
    }
}

/// Whether it is a subscription, and to what; the service parses it, shared subscriptions too.
fn topic(query: &Query<'_>) -> Result<(bool, String), Unaskable> {
    match query.resource {
        Resource::Filter(filter) => Ok((true, filter.to_string())),
        Resource::Topic(topic) => Ok((false, topic.to_string())),
        _ => Err(Unaskable("there is no word for this resource")),
    }
}

const ACTIONS: &[Action] = &[Action::Publish, Action::Subscribe, Action::Will];

#[cfg(test)]
mod tests {
    use super::super::tests::{Reading, body_of, client, publish, read, reading, refused, said, subscribe};
    use super::*;
    use crate::neighbour::grpc::Code;

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

    #[test]
    fn method_is_asked_with_the_raw_topic() {
        let client = client();
        for (query, topic, action) in
            [(publish(&client, "m/d"), "m/d", 1), (subscribe(&client, "$share/g/m/+"), "$share/g/m/+", 2)]
        {
            for (dialect, package) in
                [(BrokerAuthGrpc::CURRENT, "broker.auth.v1"), (BrokerAuthGrpc::FLUXMQ, "fluxmq.auth.v1")]
            {
                let request = dialect.request(&query).unwrap();
                assert_eq!(request.uri(), &*format!("/{package}.AuthService/Authorize"));
                let expected =
                    [&[0x0a, 5][..], b"dev-1", &[0x12, topic.len() as u8], topic.as_bytes(), &[0x18, action]];
                assert_eq!(request.body()[..], expected.concat());
            }
        }
    }

    #[test]
    fn only_true_allows_over_grpc() {
        for (answer, meaning) in [
            (said(&[8, 1]), Reading::Allow(None)),
            (said(&[8, 1, 0x1a, 2, b'o', b'k', 0x20, 7]), Reading::Allow(None)),
            (said(&[8, 0]), Reading::Deny),
            (said(&[]), Reading::Deny),
            (said(&[0x10, 1]), Reading::Deny),
            (said(&[8]), Reading::Error),
            (said(&[0x0a, 1, 1]), Reading::Error),
            (said(b"{}"), Reading::Error),
            (refused(Code::Ok), Reading::Error),
            (refused(Code::PermissionDenied), Reading::Error),
            (refused(Code::Unavailable), Reading::Error),
        ] {
            assert_eq!(reading(&BrokerAuthGrpc::CURRENT, &answer), meaning, "{answer:?}");
        }
    }

    fn dialect() -> BrokerAuth {
        BrokerAuth::new(&Uri::from_static("http://auth:9000/base/")).unwrap()
    }

    const ENDPOINT: &str = "http://auth:9000/base/auth/authorize";
}
