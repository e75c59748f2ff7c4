//! What a request is about, in the words of policies.

use mgate_policies::{Action, RequestPath, Resource, TopicFilter, TopicName};

use crate::coap::Profile;
use crate::coap::message::{Code, Message, MessageOption, number};

/// What a request is about.
pub(super) struct Target {
    pub(super) action: Action,
    /// What it begins or ends. RFC 7641 §2
    pub(super) observe: Option<Observe>,
    /// Whether nobody can be asked about it, as it only goes on with something.
    pub(super) is_rest: bool,
    method: &'static str,
    name: String,
}

/// What a request wants of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observe {
    Begin,
    End,
}

impl Target {
    /// What a request is about; or how it ends if there is no such thing.
    pub(super) fn of(message: &Message<'_>, profile: Profile) -> Result<Self, Code> {
        let method = message.code.method().ok_or(Code::METHOD_NOT_ALLOWED)?;
        match profile {
            Profile::Messages => Self::of_channel(message, method),
            Profile::Proxy => Self::of_path(message, method),
        }
    }

    /// The same in the words of a policy's question.
    pub(super) fn resource(&self) -> Option<Resource<'_>> {
        let method = self.method;
        match self.action {
            Action::Publish => TopicName::parse(&self.name).ok().map(Resource::Topic),
            Action::Subscribe => TopicFilter::parse(&self.name).ok().map(Resource::Filter),
            _ => {
                let path = self.name.strip_prefix(method)?.strip_prefix(' ')?;
                RequestPath::parse(path).ok().map(|path| Resource::Request { method, path })
            }
        }
    }

    /// The topic, or method and path, as logs show it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether policies could not tell it from the other, but for what it begins or ends.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.method, &self.name) == (other.method, &other.name)
    }

    /// What a notification of it is: something to be asked about, too.
    pub(super) fn delivery(&self) -> Option<(Action, Resource<'_>)> {
        match self.action {
            Action::Subscribe => Some((Action::Deliver, Resource::Topic(TopicName::parse(&self.name).ok()?))),
            _ => Some((Action::Observe, self.resource()?)),
        }
    }

    fn of_path(message: &Message<'_>, method: &'static str) -> Result<Self, Code> {
        let observe = match method {
            "GET" | "FETCH" => observe(message)?,
            _ => None,
        };
        let action = if observe == Some(Observe::Begin) { Action::Observe } else { Action::Request };
        // each segment stands behind a byte at least
        let mut name = String::with_capacity(method.len() + " /".len() + message.options.0.len());
        name.push_str(method);
        name.push(' ');
        for segment in message.path() {
            // two names for one thing, to those who write paths with slashes
            if segment.contains('/') {
                return Err(Code::BAD_REQUEST);
            }
            name.push('/');
            name.push_str(segment);
        }
        if name.len() == method.len() + " ".len() {
            name.push('/');
        }
        RequestPath::parse(&name[method.len() + " ".len()..]).map_err(|_| Code::BAD_REQUEST)?;
        Ok(Self { action, observe, is_rest: false, method, name })
    }

    /// `channels/<id>/messages`, and a subtopic or none.
    fn of_channel(message: &Message<'_>, method: &'static str) -> Result<Self, Code> {
        let name = channel_of(message).ok_or(Code::BAD_REQUEST)?;
        TopicName::parse(&name).map_err(|_| Code::BAD_REQUEST)?;
        let (action, observe, is_rest) = match message.code {
            Code::POST => (Action::Publish, None, false),
            Code::GET => match (observe(message)?, message.known.block2) {
                (Some(observe), _) => (Action::Subscribe, Some(observe), false),
                (None, Some(block)) if block.number > 0 => (Action::Subscribe, None, true),
                // there is nothing to be read but what comes
                (None, _) => return Err(Code::BAD_OPTION),
            },
            _ => return Err(Code::METHOD_NOT_ALLOWED),
        };
        Ok(Self { action, observe, is_rest, method, name })
    }
}

/// RFC 7641 §2
fn observe(message: &Message<'_>) -> Result<Option<Observe>, Code> {
    match message.known.observe {
        None => Ok(None),
        Some(0) => Ok(Some(Observe::Begin)),
        Some(1) => Ok(Some(Observe::End)),
        Some(_) => Err(Code::BAD_OPTION),
    }
}

/// The topic of a channel's messages. Empty levels of the subtopic mean nothing and are left out.
fn channel_of(message: &Message<'_>) -> Option<String> {
    let mut segments = message.path();
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let (Some("channels"), Some(channel), Some("messages")) =
        (segments.next(), segments.next(), segments.next())
    else {
        return None;
    };
    if channel.is_empty() || !channel.bytes().all(is_id) {
        return None;
    }
    let mut name = ["channels/", channel, "/messages"].concat();
    for level in segments.filter(|level| !level.is_empty()) {
        // what an upstream could read as something else than a level
        if level.contains(|c: char| c.is_whitespace() || c.is_control() || "%?/*>".contains(c)) {
            return None;
        }
        name.push('/');
        name.push_str(level);
    }
    Some(name)
}

/// What is for mgate alone: `?auth=…`.
pub(super) fn secrets<'a>(message: &Message<'a>) -> impl Iterator<Item = &'a [u8]> {
    let has_queries = message.known.numbers.contains(number::URI_QUERY);
    let options = has_queries.then(|| message.options.iter()).into_iter().flatten();
    options.filter(is_secret).map(|option| &option.value[SECRET.len()..])
}

/// Whether an option is for mgate alone.
pub(super) fn is_secret(option: &MessageOption<'_>) -> bool {
    option.number == number::URI_QUERY && option.value.starts_with(SECRET)
}

/// What stands before the key of a client.
const SECRET: &[u8] = b"auth=";

#[cfg(test)]
mod tests {
    use super::super::tests::packet;
    use super::*;
    use crate::coap::codec::decode;

    #[test]
    fn path_and_method_are_the_target_of_a_request() {
        for (path, expected) in [
            ("", "/"),
            ("a", "/a"),
            ("a/b", "/a/b"),
            ("a/", "/a/"),
            (".well-known/core", "/.well-known/core"),
        ] {
            assert_eq!(
                said("GET", path, None, Profile::Proxy),
                Ok((Action::Request, format!("GET {expected}")))
            );
        }
        assert_eq!(said("PUT", "a", None, Profile::Proxy), Ok((Action::Request, "PUT /a".into())));
        assert_eq!(said("GET", "a", Some(0), Profile::Proxy), Ok((Action::Observe, "GET /a".into())));
        assert_eq!(said("GET", "a", Some(1), Profile::Proxy), Ok((Action::Request, "GET /a".into())));
        assert_eq!(said("PUT", "a", Some(0), Profile::Proxy), Ok((Action::Request, "PUT /a".into())));
    }

    #[test]
    fn paths_that_could_be_read_in_two_ways_are_bad() {
        for path in ["a//b", "a%2fb", "a\\b", "a/\u{1}"] {
            assert_eq!(said("GET", path, None, Profile::Proxy), Err(Code::BAD_REQUEST), "{path}");
        }
        assert_eq!(said("GET", "a", Some(7), Profile::Proxy), Err(Code::BAD_OPTION));
    }

    #[test]
    fn messages_of_channels_are_published_and_subscribed_to() {
        let topic = "channels/4-a_B/messages/room/1";
        assert_eq!(said("POST", topic, None, Profile::Messages), Ok((Action::Publish, topic.into())));
        assert_eq!(said("GET", topic, Some(0), Profile::Messages), Ok((Action::Subscribe, topic.into())));
        assert_eq!(said("GET", topic, Some(1), Profile::Messages), Ok((Action::Subscribe, topic.into())));
        let empty = said("POST", "channels/1/messages//a/", None, Profile::Messages);
        assert_eq!(empty, Ok((Action::Publish, "channels/1/messages/a".into())));
    }

    #[test]
    fn what_is_no_message_of_a_channel_is_bad() {
        for path in [
            "",
            "channels",
            "channels/1",
            "channels//messages",
            "channels/1/messagesX",
            "channels/a.b/messages",
            "x/channels/1/messages",
            "channels/1/messages/+",
            "channels/1/messages/#",
            "channels/1/messages/*",
            "channels/1/messages/a>",
            "channels/1/messages/a b",
            "channels/1/messages/a?b",
        ] {
            assert_eq!(said("POST", path, None, Profile::Messages), Err(Code::BAD_REQUEST), "{path}");
        }
        let topic = "channels/1/messages";
        assert_eq!(said("GET", topic, None, Profile::Messages), Err(Code::BAD_OPTION));
        assert_eq!(said("PUT", topic, None, Profile::Messages), Err(Code::METHOD_NOT_ALLOWED));
    }

    /// `%2f` in `path` stands for a slash within a segment.
    fn said(
        method: &str,
        path: &str,
        observe: Option<u32>,
        profile: Profile,
    ) -> Result<(Action, String), Code> {
        let mut packet = packet("CON", method, 1, "t");
        if !path.is_empty() {
            let segments = path.split('/').map(|segment| segment.replace("%2f", "/").into_bytes());
            packet.set_option(coap_lite::CoapOption::UriPath, segments.collect());
        }
        if let Some(observe) = observe {
            packet.set_observe_value(observe);
        }
        let bytes = packet.to_bytes().unwrap();
        let target = Target::of(&decode(&bytes).unwrap(), profile)?;
        Ok((target.action, target.resource().unwrap().to_string()))
    }
}
