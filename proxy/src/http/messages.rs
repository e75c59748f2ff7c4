//! The profile of messages: each request is one message for a channel of Mainflux.

use mgate_policies::TopicName;

use super::problem::Problem;

/// The topic of the messages that are posted to a path: `channels/<id>/messages`, and what is below it.
pub(super) fn topic(path: &str) -> Result<TopicName<'_>, Problem> {
    let topic = path.strip_prefix('/').unwrap_or(path);
    let channel = topic.strip_prefix("channels/").ok_or(Problem::NotFound)?;
    let (id, rest) = channel.split_once('/').ok_or(Problem::BadMessage)?;
    let subtopic = rest.strip_prefix("messages").ok_or(Problem::BadMessage)?;
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_channel = !id.is_empty() && id.bytes().all(is_id);
    let is_below = subtopic.is_empty() || subtopic.starts_with('/');
    if !is_channel || !is_below || subtopic.contains(is_ambiguous) {
        return Err(Problem::BadMessage);
    }
    TopicName::parse(topic.strip_suffix('/').unwrap_or(topic)).map_err(|_| Problem::BadMessage)
}

/// Whether a media type, without its parameters, is one of these; any is, where there are none.
pub(super) fn is_taken(content_type: Option<&str>, taken: &[String]) -> bool {
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    taken.is_empty() || content_type.map(essence).is_some_and(|given| taken.contains(&given))
}

/// Whether it could be read as something else where these messages are going: a wildcard, the end of a subject or a path,
/// or another character.
fn is_ambiguous(character: char) -> bool {
    "*>?%".contains(character) || character.is_whitespace() || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_those_of_channels() {
        for (path, expected) in [
            ("/channels/7/messages", "channels/7/messages"),
            ("/channels/7/messages/", "channels/7/messages"),
            ("/channels/a-B_1/messages/x/y.z", "channels/a-B_1/messages/x/y.z"),
        ] {
            assert_eq!(topic(path).map(TopicName::as_str), Ok(expected));
        }
    }

    #[test]
    fn paths_without_a_channel_are_refused() {
        for path in [
            "/channels/",
            "/channels/7",
            "/channels/7/",
            "/channels/7/message",
            "/channels/7/messagesX",
            "/channels/a.b/messages",
            "/channels//messages",
            "/channels/7/messages/+",
            "/channels/7/messages/#",
            "/channels/7/messages/a*",
            "/channels/7/messages/>",
            "/channels/7/messages/a?b",
            "/channels/7/messages/a%2fb",
            "/channels/7/messages/a b",
            "/channels/7/messages/a\u{2003}b",
            "/channels/7/messages/a\u{85}",
            "/channels/7/messages/a\tb",
        ] {
            assert_eq!(topic(path), Err(Problem::BadMessage), "{path}");
        }
        assert_eq!(topic("/health"), Err(Problem::NotFound));
    }

    #[test]
    fn media_types_are_compared_without_parameters() {
        let taken = ["application/json".to_owned()];
        for (given, expected) in [
            (Some("application/json"), true),
            (Some("Application/JSON ; charset=utf-8"), true),
            (Some("application/jsonx"), false),
            (Some("text/plain"), false),
            (None, false),
        ] {
            assert_eq!(is_taken(given, &taken), expected, "{given:?}");
        }
        assert!(is_taken(None, &[]));
    }
}
