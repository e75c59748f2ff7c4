use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use mgate_policies::{Action, Query};

use super::dialect::{AnswerError, Answered, Dialect, Unaskable, Verdict, below, max_age, post_json};
use super::entities::{object, resource};

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
        &[Action::Deliver, Action::Publish, Action::Subscribe, Action::Will]
    }

    fn request(&self, query: &Query<'_>) -> Result<Request<Bytes>, Unaskable> {
        let (_, topic, _) = resource(query)?;
        let channel = channel(topic).ok_or(Unaskable("this is not the topic of a channel's messages"))?;
        let thing = &query.client.principal.id;
        if thing.is_empty() {
            return Err(Unaskable("the client has no identity"));
        }
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

/// The channel in `channels/<channel>/messages`, with or without more levels.
fn channel(topic: &str) -> Option<&str> {
    let mut levels = topic.split('/');
    let (first, channel, third) = (levels.next()?, levels.next()?, levels.next()?);
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_channel = !channel.is_empty() && channel.bytes().all(is_id);
    (first == "channels" && third == "messages" && is_channel).then_some(channel)
}

#[cfg(test)]
mod tests {
    use mgate_policies::{Client, Principal};

    use super::super::tests::{Reading, body_of, client, publish, read_of, subscribe};
    use super::*;

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

    fn dialect() -> Mainflux {
        Mainflux::new(&Uri::from_static("http://things:8989")).unwrap()
    }
}
