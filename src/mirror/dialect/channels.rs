//! The topics of the Mainflux family, whose messages belong to channels.

use std::borrow::Cow;

use super::subject::Subject;
use crate::mirror::record::Headers;

/// How topics are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    /// `channels/<channel>/messages`, then maybe a subtopic with `/ct/<content type>` at its end.
    Suffixed,
    /// `channels/<channel>/messages`, then maybe a subtopic.
    Classic,
    /// `m/<domain>/c/<channel>`, then maybe a subtopic, which is told with dots.
    Dotted,
    /// The same, with subtopics told with slashes.
    Slashed,
}

/// The place of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place<'t> {
    /// Empty where there are none.
    pub(super) domain: &'t str,
    pub(super) channel: &'t str,
    /// As an envelope tells it; maybe empty.
    pub(super) subtopic: Cow<'t, str>,
    /// What the topic says about the payload.
    pub(super) content_type: Option<String>,
}

impl Grammar {
    /// The place of a message with this topic, which may begin with a slash.
    pub(super) fn read(self, topic: &str) -> Result<Place<'_>, &'static str> {
        let topic = topic.strip_prefix('/').unwrap_or(topic);
        match self {
            Self::Suffixed => {
                let (channel, subtopic) = classic(topic)?;
                let (subtopic, content_type) = without_content_type(subtopic);
                let subtopic = classic_subtopic(subtopic)?;
                Ok(Place { channel, subtopic, content_type, ..Place::default() })
            }
            Self::Classic => {
                let (channel, subtopic) = classic(topic)?;
                Ok(Place { channel, subtopic: classic_subtopic(subtopic)?, ..Place::default() })
            }
            Self::Dotted => {
                let (domain, channel, subtopic) = with_domain(topic)?;
                Ok(Place { domain, channel, subtopic: dotted_subtopic(subtopic)?, content_type: None })
            }
            Self::Slashed => {
                let (domain, channel, subtopic) = with_domain(topic)?;
                Ok(Place { domain, channel, subtopic: slashed_subtopic(subtopic)?, content_type: None })
            }
        }
    }

    /// Writes where messages of a place go.
    pub(super) fn subject(self, place: &Place<'_>, room: Vec<u8>) -> Result<Headers, &'static str> {
        let mut subject = Subject::new(usize::MAX, room);
        match self {
            Self::Suffixed => subject.literal("channel."),
            Self::Classic => subject.literal("channels."),
            Self::Dotted | Self::Slashed => {
                subject.literal("m.");
                subject.literal(place.domain);
                subject.literal(".c.");
            }
        }
        subject.literal(place.channel);
        if !place.subtopic.is_empty() {
            subject.literal(".");
            let separator = if self == Self::Slashed { '/' } else { '.' };
            subject.values(&place.subtopic, separator);
        }
        subject.finish()
    }
}

/// Domain, channel and subtopic of a subscription, with the wildcards of NATS.
pub(super) fn subscription(filter: &str) -> Option<(&str, &str, String)> {
    let (domain, channel, subtopic) = with_domain(filter.strip_prefix('/').unwrap_or(filter)).ok()?;
    let subtopic = subtopic.replace('+', "*").replace('#', ">");
    let subtopic = trimmed(unescape_query(&subtopic, Plus::IsSpace).ok()?).replace('/', ".");
    let is_wild = |element: &str| element.len() > 1 && element.contains(['*', '>']);
    let is_malformed =
        subtopic.contains([' ', '#', '+']) || subtopic.contains("..") || subtopic.split('.').any(is_wild);
    (!is_malformed).then_some((domain, channel, subtopic))
}

/// Channel and subtopic, which begins with a slash if there is one.
fn classic(topic: &str) -> Result<(&str, &str), &'static str> {
    let rest = topic.strip_prefix("channels/").ok_or(NOT_CLASSIC)?;
    let (channel, rest) = rest.split_at(id_len(rest));
    let rest = rest.strip_prefix("/messages").ok_or(NOT_CLASSIC)?;
    let end = rest.bytes().position(|byte| byte == b'?').unwrap_or(rest.len());
    let subtopic = &rest[..end];
    let is_one = subtopic.is_empty() || subtopic.starts_with('/');
    if is_one && !channel.is_empty() { Ok((channel, subtopic)) } else { Err(NOT_CLASSIC) }
}

/// Domain, channel and subtopic, which begins with a slash if there is one.
fn with_domain(topic: &str) -> Result<(&str, &str, &str), &'static str> {
    let rest = topic.strip_prefix("m/").ok_or(NOT_OF_DOMAIN)?;
    let (domain, rest) = rest.split_at(id_len(rest));
    let rest = rest.strip_prefix("/c/").ok_or(NOT_OF_DOMAIN)?;
    let (channel, subtopic) = rest.split_at(id_len(rest));
    let is_one = subtopic.is_empty() || subtopic.starts_with('/');
    match is_one && !domain.is_empty() && !channel.is_empty() {
        true => Ok((domain, channel, subtopic)),
        false => Err(NOT_OF_DOMAIN),
    }
}

/// The subtopic before `/ct/<content type>`, and the content type.
fn without_content_type(subtopic: &str) -> (&str, Option<String>) {
    let found = subtopic.rsplit_once("/ct/").filter(|(_, kind)| !kind.is_empty() && !kind.contains('/'));
    match found {
        Some((subtopic, kind)) => (subtopic, Some(kind.replace('_', "/").replace('-', "+"))),
        None => (subtopic, None),
    }
}

/// Empty elements fall out.
fn classic_subtopic(subtopic: &str) -> Result<Cow<'_, str>, &'static str> {
    if let Some(levels) = subtopic.strip_prefix('/').filter(|levels| is_even(levels)) {
        return Ok(match levels.as_bytes().contains(&b'/') {
            true => levels.replace('/', ".").into(),
            false => levels.into(),
        });
    }
    let plain = unescape_query(subtopic, Plus::IsSpace)?;
    if plain.contains(['*', '>']) {
        return Err(WILDCARD);
    }
    let mut dotted = String::with_capacity(plain.len());
    for element in plain.split(['/', '.']).filter(|element| !element.is_empty()) {
        if !dotted.is_empty() {
            dotted.push('.');
        }
        dotted.push_str(element);
    }
    Ok(dotted.into())
}

fn dotted_subtopic(subtopic: &str) -> Result<Cow<'_, str>, &'static str> {
    // as a space it would fall off at an end
    if subtopic.contains('+') {
        return Err(WILDCARD);
    }
    let plain = unescape_query(subtopic, Plus::IsSpace)?;
    let dotted = trimmed(plain).replace('/', ".");
    check_levels(&dotted, '.')?;
    Ok(dotted.into())
}

fn slashed_subtopic(subtopic: &str) -> Result<Cow<'_, str>, &'static str> {
    let plain = unescape_query(subtopic.strip_prefix('/').unwrap_or(subtopic), Plus::IsPlus)?;
    let slashed = trimmed(plain);
    check_levels(&slashed, '/')?;
    Ok(slashed)
}

fn check_levels(subtopic: &str, separator: char) -> Result<(), &'static str> {
    if subtopic.contains([' ', '#', '+', '*', '>']) {
        return Err(WILDCARD);
    }
    match !subtopic.is_empty() && subtopic.split(separator).any(str::is_empty) {
        true => Err("its subtopic has an empty level"),
        false => Ok(()),
    }
}

/// Whether levels need no more than other separators, as those of most topics do.
fn is_even(levels: &str) -> bool {
    let bytes = levels.as_bytes();
    let has_ends = bytes.first().is_some_and(|first| *first != b'/') && !bytes.ends_with(b"/");
    let is_odd = |found, byte| found | matches!(byte, b'.' | b'%' | b'+' | b'*' | b'>');
    let is_empty = |found, (one, two): (&u8, &u8)| found | ((*one == b'/') & (*two == b'/'));
    has_ends && !levels.bytes().fold(false, is_odd) && !bytes.iter().zip(&bytes[1..]).fold(false, is_empty)
}

/// Without one slash at each end, and then without white space there.
fn trimmed(subtopic: Cow<'_, str>) -> Cow<'_, str> {
    let inner = subtopic.strip_prefix('/').unwrap_or(&subtopic);
    let inner = inner.strip_suffix('/').unwrap_or(inner).trim();
    match inner.len() == subtopic.len() {
        true => subtopic,
        false => Cow::Owned(inner.to_owned()),
    }
}

/// What a plus sign means where text is escaped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    IsPlus,
    IsSpace,
}

/// WHATWG URL §5.1, but what is malformed is not taken.
fn unescape_query(text: &str, plus: Plus) -> Result<Cow<'_, str>, &'static str> {
    let is_special = |byte| byte == b'%' || byte == b'+' && plus == Plus::IsSpace;
    if !text.bytes().any(is_special) {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                hex(bytes.next()).zip(hex(bytes.next())).map(|(high, low)| high << 4 | low).ok_or(ESCAPE)?
            }
            b'+' if plus == Plus::IsSpace => b' ',
            byte => byte,
        });
    }
    String::from_utf8(plain).map(Cow::Owned).map_err(|_| ESCAPE)
}

fn hex(digit: Option<u8>) -> Option<u8> {
    char::from(digit?).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// How much of the beginning of a text can be an identity; it means nothing but itself in a subject.
fn id_len(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).count()
}

const NOT_CLASSIC: &str = "its topic is not channels/<channel>/messages";
const NOT_OF_DOMAIN: &str = "its topic is not m/<domain>/c/<channel>";
const WILDCARD: &str = "its subtopic has a wildcard or a space in it";
const ESCAPE: &str = "its subtopic has a malformed escape in it";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::unescape;
    use super::*;

    #[test]
    fn classic_topics_are_read_as_upstream_reads_them() {
        for (topic, channel, subtopic, subject) in [
            ("channels/a-1/messages", "a-1", "", "channels.a-1"),
            ("/channels/a-1/messages/x//y.z/", "a-1", "x.y.z", "channels.a-1.x.y.z"),
            ("channels/a_1/messages/", "a_1", "", "channels.a_1"),
            ("channels/a/messages/x?ct=1", "a", "x", "channels.a.x"),
            ("channels/a/messages?x", "a", "", "channels.a"),
            ("channels/a/messages/+/t", "a", " .t", "channels.a.%20.t"),
            ("channels/a/messages/b%20c%2Fd%2Ee", "a", "b c.d.e", "channels.a.b%20c.d.e"),
            ("channels/a/messages/100%25", "a", "100%", "channels.a.100%25"),
            ("channels/a/messages/$x/ü%00", "a", "$x.ü\0", "channels.a.$x.ü%00"),
            (
                "channels/a/messages/ct/application_json",
                "a",
                "ct.application_json",
                "channels.a.ct.application_json",
            ),
        ] {
            let place = Grammar::Classic.read(topic).unwrap();
            assert_eq!((place.channel, &*place.subtopic, place.domain), (channel, subtopic, ""));
            assert_eq!(subject_of(Grammar::Classic, &place), subject);
        }
    }

    #[test]
    fn other_topics_have_no_place_among_classic_ones() {
        for (topic, error) in [
            ("channels/a.1/messages", NOT_CLASSIC),
            ("channels//messages", NOT_CLASSIC),
            ("channels/a/messagesX", NOT_CLASSIC),
            ("channels/a/Messages", NOT_CLASSIC),
            ("channels/a", NOT_CLASSIC),
            ("channels/a?/messages", NOT_CLASSIC),
            ("//channels/a/messages", NOT_CLASSIC),
            ("x/channels/a/messages", NOT_CLASSIC),
            ("m/d/c/x", NOT_CLASSIC),
            ("", NOT_CLASSIC),
            ("channels/a/messages/%3E", WILDCARD),
            ("channels/a/messages/*", WILDCARD),
            ("channels/a/messages/a*b", WILDCARD),
            ("channels/a/messages/%", ESCAPE),
            ("channels/a/messages/%2", ESCAPE),
            ("channels/a/messages/%zz", ESCAPE),
            ("channels/a/messages/%+1", ESCAPE),
            ("channels/a/messages/%FF", ESCAPE),
        ] {
            assert_eq!(Grammar::Classic.read(topic), Err(error), "{topic}");
        }
    }

    #[test]
    fn content_type_leaves_the_subtopic() {
        for (topic, subject, content_type) in [
            (
                "channels/a/messages/x/ct/application_senml-json",
                "channel.a.x",
                Some("application/senml+json"),
            ),
            ("channels/a/messages/ct/text_plain", "channel.a", Some("text/plain")),
            ("channels/a/messages/ct/", "channel.a.ct", None),
            ("channels/a/messages/ct/x/y", "channel.a.ct.x.y", None),
            ("channels/a/messages/act/x", "channel.a.act.x", None),
            ("channels/a/messages", "channel.a", None),
        ] {
            let place = Grammar::Suffixed.read(topic).unwrap();
            assert_eq!(place.content_type.as_deref(), content_type);
            assert_eq!(subject_of(Grammar::Suffixed, &place), subject);
        }
    }

    #[test]
    fn topics_of_domains_are_read_as_upstream_reads_them() {
        for (topic, dotted, slashed, subject) in [
            ("m/d/c/x", "", "", "m.d.c.x"),
            ("/m/d/c/x/", "", "", "m.d.c.x"),
            ("m/d/c/x/a/b", "a.b", "a/b", "m.d.c.x.a.b"),
            ("m/d/c/x/a/b/", "a.b", "a/b", "m.d.c.x.a.b"),
            ("m/d/c/x/a%2Fb", "a.b", "a/b", "m.d.c.x.a.b"),
            ("m/d/c/x/100%25", "100%", "100%", "m.d.c.x.100%25"),
        ] {
            for (grammar, subtopic) in [(Grammar::Dotted, dotted), (Grammar::Slashed, slashed)] {
                let place = grammar.read(topic).unwrap();
                assert_eq!((place.domain, place.channel, &*place.subtopic), ("d", "x", subtopic));
                assert_eq!(subject_of(grammar, &place), subject);
            }
        }
        let place = Grammar::Slashed.read("m/d/c/x/v1.2").unwrap();
        assert_eq!(&*place.subtopic, "v1.2");
        assert_eq!(subject_of(Grammar::Slashed, &place), "m.d.c.x.v1%2E2");
    }

    #[test]
    fn other_topics_have_no_place_in_domains() {
        for topic in [
            "m/d/c/x/a//b",
            "m/d/c/x/+",
            "m/d/c/x/a b",
            "m/d/c/x/%2A",
            "m/d/c/x/>",
            "m/d/c/x/%23",
            "m/d/c/x/%zz",
            "hc/d",
            "hc/d/x",
            "m/d/x",
            "m//c/x",
            "m/d/c/",
            "m/d/e/c/x",
            "m/d.e/c/x",
            "m/d/c/x.y",
            "channels/a/messages",
            "m/*/c/x",
            "m/d/c/>",
        ] {
            for grammar in [Grammar::Dotted, Grammar::Slashed] {
                assert!(grammar.read(topic).is_err(), "{topic}");
            }
        }
        for topic in ["m/d/c/x/.a", "m/d/c/x/a.", "m/d/c/x/a..b", "m/d/c/x//a"] {
            assert!(Grammar::Dotted.read(topic).is_err(), "{topic}");
        }
    }

    #[test]
    fn subscriptions_have_the_wildcards_of_nats() {
        for (filter, expected) in [
            ("m/d/c/x/+/b/#", Some(("d", "x", "*.b.>"))),
            ("m/d/c/x", Some(("d", "x", ""))),
            ("m/d/c/x/a//b", None),
            ("m/+/c/x", None),
            ("#", None),
        ] {
            let read = subscription(filter);
            assert_eq!(
                read.as_ref().map(|(domain, channel, subtopic)| (*domain, *channel, &**subtopic)),
                expected
            );
        }
    }

    proptest! {
        #[test]
        fn subject_stays_in_its_channel(rest in "[ab./*>%$ +?\t\r\n2EA]{0,12}") {
            for (grammar, topic, prefix) in [
                (Grammar::Suffixed, format!("channels/a/messages{rest}"), "channel.a"),
                (Grammar::Classic, format!("channels/a/messages{rest}"), "channels.a"),
                (Grammar::Dotted, format!("m/d/c/x{rest}"), "m.d.c.x"),
                (Grammar::Slashed, format!("m/d/c/x{rest}"), "m.d.c.x"),
            ] {
                let Ok(place) = grammar.read(&topic) else { continue };
                if matches!(grammar, Grammar::Dotted | Grammar::Slashed) && place.channel != "x" {
                    continue;
                }
                let subject = subject_of(grammar, &place);
                let subtopic = subject.strip_prefix(prefix).unwrap();
                if place.subtopic.is_empty() {
                    prop_assert_eq!(subtopic, "");
                    continue;
                }
                let tokens: Vec<_> = subtopic.strip_prefix('.').unwrap().split('.').collect();
                let is_bad = |character: char| character.is_ascii_control() || " *>".contains(character);
                prop_assert!(tokens.iter().all(|token| !token.is_empty() && !token.contains(is_bad)), "{}", subject);
                let read: Vec<_> = tokens.iter().map(|token| unescape(token).unwrap()).collect();
                let separator = if grammar == Grammar::Slashed { "/" } else { "." };
                prop_assert_eq!(read.join(separator), place.subtopic);
            }
        }
    }

    fn subject_of(grammar: Grammar, place: &Place<'_>) -> String {
        grammar.subject(place, Vec::new()).unwrap().end().subject().to_owned()
    }
}
