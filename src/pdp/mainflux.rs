use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use mgate_policies::{Action, Query};

use super::channels::{NO_CHANNEL, channel, identity};
use super::dialect::{AnswerError, Answered, Dialect, Unaskable, Verdict, below, max_age, post_json};
use super::entities::{object, resource};
use super::grpc::{call, decided};
use crate::neighbour::messages::mainflux::AccessByIdReq;

/// The things service of Mainflux 0.10 to 0.13 over HTTP: whether a thing is connected to a channel.
pub struct Mainflux {
    base: Uri,
}

impl Mainflux {
    /// A service at `base`, below which its paths are; `None` if there can be nothing below.
    pub fn new(base: &Uri) -> Option<Self> {
        below(base, "/identify").map(|_| Self { base: base.clone() })
    }
}

impl Dialect for Mainflux {
    fn actions(&self) -> &'static [Action] {
        ACTIONS
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let (thing, channel) = thing_and_channel(query)?;
        let path = format!("/identify/channels/{channel}/access-by-id");
        let endpoint = below(&self.base, &path).ok_or(Unaskable("its address would be too long"))?;
        let mut body = Vec::with_capacity(64);
        object(&mut body, |question| question.text("thing_id", thing));
        Ok(post_json(&endpoint, body))
    }

    fn read(&self, _: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        let verdict = match answer.status() {
            StatusCode::OK => Verdict::Allow,
            StatusCode::FORBIDDEN => Verdict::Deny,
            status => return Err(AnswerError::Status(status)),
        };
        Ok(Answered::from(verdict).lasting([max_age(answer.headers())]))
    }
}

/// The same over gRPC.
pub struct MainfluxGrpc;

impl Dialect for MainfluxGrpc {
    fn actions(&self) -> &'static [Action] {
        ACTIONS
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let (thing, channel) = thing_and_channel(query)?;
        let question = AccessByIdReq { thing_id: thing.to_owned(), channel_id: channel.to_owned() };
        Ok(call("/mainflux.ThingsService/CanAccessByID", &question))
    }

    fn read(&self, _: &Request<Bytes>, answer: &Response<Bytes>) -> Result<Answered, AnswerError> {
        // `google.protobuf.Empty`, whatever is in it
        decided(answer, |()| Verdict::Allow)
    }
}

fn thing_and_channel<'a>(query: &Query<'a>) -> Result<(&'a str, &'a str), Unaskable> {
    let (_, topic, _) = resource(query)?;
    let channel = channel(topic).ok_or(NO_CHANNEL)?;
    Ok((identity(query)?, channel))
}

const ACTIONS: &[Action] = &[Action::Deliver, Action::Publish, Action::Subscribe, Action::Will];

#[cfg(test)]
mod tests {
    use mgate_policies::{Client, Principal};

    use super::super::tests::{
        Reading, body_of, client, publish, read_of, reading, refused, said, subscribe,
    };
    use super::*;
    use crate::neighbour::grpc::Code;

    #[test]
    fn thing_and_channel_are_asked_about() {
        let client = client();
        for query in [
            publish(&client, "channels/7f-a_1/messages"),
            publish(&client, "channels/7f-a_1/messages/sub/topic"),
            subscribe(&client, "channels/7f-a_1/messages/#"),
            subscribe(&client, "$share/g/channels/7f-a_1/messages/+"),
        ] {
            let request = dialect().request(&query).unwrap();
            let url = "http://things:8989/identify/channels/7f-a_1/access-by-id";
            assert_eq!((request.method().as_str(), request.uri().to_string()), ("POST", url.into()));
            assert_eq!(body_of(&request), serde_json::json!({ "thing_id": "dev-1" }));
        }
    }

    #[test]
    fn nothing_else_is_asked() {
        let client = client();
        for topic in [
            "channels//messages",
            "channels/1/message",
            "channels/1",
            "/channels/1/messages",
            "Channels/1/messages",
            "channels/../messages",
            "channels/1%2f/messages",
            "channels/ü/messages",
            "a/channels/1/messages",
        ] {
            assert!(dialect().request(&publish(&client, topic)).is_err(), "{topic}");
        }
        for filter in ["channels/+/messages", "channels/1/#", "#", "channels/1/+", "+/1/messages"] {
            assert!(dialect().request(&subscribe(&client, filter)).is_err(), "{filter}");
        }
        let nobody = Client { principal: Principal::default(), ..client };
        assert!(dialect().request(&publish(&nobody, "channels/1/messages")).is_err());
    }

    #[test]
    fn only_200_allows() {
        let client = client();
        let query = publish(&client, "channels/1/messages");
        for (status, meaning) in [
            (200, Reading::Allow(None)),
            (403, Reading::Deny),
            (201, Reading::Error),
            (204, Reading::Error),
            (302, Reading::Error),
            (400, Reading::Error),
            (401, Reading::Error),
            (404, Reading::Error),
            (500, Reading::Error),
        ] {
            assert_eq!(read_of(&dialect(), &query, "application/json", status, ""), meaning, "{status}");
        }
    }

    #[test]
    fn method_is_asked_about_thing_and_channel() {
        let client = client();
        let request = MainfluxGrpc.request(&subscribe(&client, "$share/g/channels/7f/messages/#")).unwrap();
        assert_eq!(request.uri(), "/mainflux.ThingsService/CanAccessByID");
        assert_eq!(request.body()[..], *b"\x0a\x05dev-1\x12\x027f");
        assert!(MainfluxGrpc.request(&subscribe(&client, "channels/+/messages/a")).is_err());
    }

    #[test]
    fn only_ok_allows_over_grpc() {
        for (answer, meaning) in [
            (said(&[]), Reading::Allow(None)),
            (said(&[8]), Reading::Error),
            (refused(Code::PermissionDenied), Reading::Deny),
            (refused(Code::Unauthenticated), Reading::Deny),
            (refused(Code::NotFound), Reading::Deny),
            (refused(Code::InvalidArgument), Reading::Error),
            (refused(Code::Internal), Reading::Error),
            (refused(Code::Unknown), Reading::Error),
            (refused(Code::Unavailable), Reading::Error),
            (refused(Code::Unimplemented), Reading::Error),
        ] {
            assert_eq!(reading(&MainfluxGrpc, &answer), meaning, "{answer:?}");
        }
    }

    fn dialect() -> Mainflux {
        Mainflux::new(&Uri::from_static("http://things:8989")).unwrap()
    }
}
