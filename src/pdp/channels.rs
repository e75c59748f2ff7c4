//! The topics of the Mainflux family, whose rights are those of channels.

use mgate_policies::Query;

use super::dialect::Unaskable;

/// The channel in `channels/<channel>/messages`, with or without more levels.
pub(super) fn channel(topic: &str) -> Option<&str> {
    let mut levels = topic.split('/');
    let (first, channel, third) = (levels.next()?, levels.next()?, levels.next()?);
    let is_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_channel = !channel.is_empty() && channel.bytes().all(is_id);
    (first == "channels" && third == "messages" && is_channel).then_some(channel)
}

/// Domain and channel in `m/<domain>/c/<channel>`, with or without more levels. Both must be identities: what
/// stands there instead, a route, means something to the service alone.
pub(super) fn domain_and_channel(topic: &str) -> Option<(&str, &str)> {
    let mut levels = topic.split('/');
    let (first, domain, third, channel) = (levels.next()?, levels.next()?, levels.next()?, levels.next()?);
    let is_named = first == "m" && third == "c" && is_uuid(domain) && is_uuid(channel);
    is_named.then_some((domain, channel))
}

/// Who asks: nobody is nobody's business to decide about.
pub(super) fn identity<'a>(query: &Query<'a>) -> Result<&'a str, Unaskable> {
    let identity = &*query.client.principal.id;
    (!identity.is_empty()).then_some(identity).ok_or(Unaskable("the client has no identity"))
}

/// RFC 9562 §4
fn is_uuid(text: &str) -> bool {
    let mut groups = text.split('-');
    let is_group =
        |group: &str, digits| group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit());
    let has_groups =
        [8, 4, 4, 4, 12].into_iter().all(|digits| groups.next().is_some_and(|g| is_group(g, digits)));
    has_groups && groups.next().is_none()
}

pub(super) const NO_CHANNEL: Unaskable = Unaskable("this is not the topic of a channel's messages");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_and_channel_are_identities() {
        for (topic, is_known) in [
            (format!("m/{DOMAIN}/c/{CHANNEL}"), true),
            (format!("m/{DOMAIN}/c/{CHANNEL}/room/+/#"), true),
            (format!("m/{DOMAIN}/c/kitchen"), false),
            (format!("m/home/c/{CHANNEL}"), false),
            (format!("m/{DOMAIN}/c/{CHANNEL}0"), false),
            (format!("m/{DOMAIN}/c/{CHANNEL}-0"), false),
            (format!("m/{DOMAIN}/x/{CHANNEL}"), false),
            (format!("/m/{DOMAIN}/c/{CHANNEL}"), false),
            (format!("M/{DOMAIN}/c/{CHANNEL}"), false),
            (format!("m/{DOMAIN}/c/+"), false),
            (format!("m/+/c/{CHANNEL}"), false),
            (format!("m/{DOMAIN}/c"), false),
            ("#".into(), false),
        ] {
            let expected = is_known.then_some((DOMAIN, CHANNEL));
            assert_eq!(domain_and_channel(&topic), expected, "{topic}");
        }
    }

    const DOMAIN: &str = "2d8a1f60-7a4e-4b0c-9d53-0f1f5a3b6c7d";
    const CHANNEL: &str = "0E4C7c1a-93d2-4b7a-8c55-b2f0a1d9e8f7";
}
