//! Subjects: where records go.

use mgate_policies::Client;

use crate::mirror::escape::{EMPTY, escape};
use crate::mirror::record::Headers;

/// A subject with variables in it, such as `plant.{tenant}.{topic}`.
///
/// `{topic}` is as many tokens as the topic has levels, each other variable one token or a part of one; no
/// token has two. What stands for a variable can be read back, and never is a wildcard or a separator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Whole tokens or a part of one, with the dots between them.
    Literal(Box<str>),
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Action,
    Client,
    Principal,
    Route,
    Tenant,
    Topic,
}

/// What stands for the variables of a subject.
#[derive(Clone, Copy, Default)]
pub(super) struct Values<'a> {
    pub(super) action: &'a str,
    pub(super) client: &'a str,
    pub(super) principal: &'a str,
    pub(super) route: &'a str,
    pub(super) tenant: &'a str,
    pub(super) topic: &'a str,
}

impl<'a> Values<'a> {
    /// What stands for those variables that are about a client.
    pub(super) fn of(client: Option<&'a Client>) -> Self {
        let Some(Client { client_id, principal, route, .. }) = client else { return Self::default() };
        Self {
            client: client_id,
            principal: &principal.id,
            route,
            tenant: &principal.tenant,
            ..Self::default()
        }
    }
}

impl SubjectTemplate {
    /// Takes the subject of messages.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: String| format!("\"{text}\": {what}");
        if text.starts_with('$') {
            return Err(wrong("what begins with $ belongs to the server".into()));
        }
        let mut parts = Vec::new();
        for (index, token) in text.split('.').enumerate() {
            if index > 0 {
                parts.push(Part::Literal(".".into()));
            }
            parse_token(token, &mut parts).map_err(wrong)?;
        }
        let template = Self(parts);
        if template.most_bytes() > MAX_BYTES {
            return Err("is longer than a subject can be".into());
        }
        Ok(template)
    }

    /// Takes the subject of what has no topic.
    pub fn parse_without_topic(text: &str) -> Result<Self, String> {
        let template = Self::parse(text)?;
        match template.0.contains(&Part::Variable(Variable::Topic)) {
            true => Err(format!("\"{text}\": {{topic}} is for messages only")),
            false => Ok(template),
        }
    }

    /// Whether a stream that takes `filter` may take some of these subjects.
    pub fn may_fit(&self, filter: &str) -> bool {
        let text: String = self.0.iter().map(Part::as_pattern).collect();
        let (mut tokens, mut filters) = (text.split('.'), filter.split('.'));
        loop {
            match (tokens.next(), filters.next()) {
                (None, None) | (Some(_), Some(">")) => return true,
                (None, _) | (_, None) => return false,
                (Some(token), _) if token.contains(ANY_TOKENS) => return true,
                (Some(token), Some(wanted)) if token != wanted && wanted != "*" && !token.contains(ANY) => {
                    return false;
                }
                (Some(_), Some(_)) => {}
            }
        }
    }

    /// Writes the subject with these values, for what is to stand behind it.
    pub(super) fn fill(&self, values: &Values<'_>, room: Vec<u8>) -> Result<Headers, &'static str> {
        let mut subject = Subject::new(usize::MAX, room);
        self.write(values, &mut subject);
        subject.finish()
    }

    /// The same with a mark in the place of each value that is too long, so that there always is one.
    pub(super) fn fill_in_short(&self, values: &Values<'_>, room: Vec<u8>) -> Headers {
        let mut subject = Subject::new(MAX_SHORT_BYTES, room);
        self.write(values, &mut subject);
        Headers::behind(subject.bytes)
    }

    fn write(&self, values: &Values<'_>, subject: &mut Subject) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => subject.literal(text),
                Part::Variable(Variable::Action) => subject.value(values.action),
                Part::Variable(Variable::Client) => subject.value(values.client),
                Part::Variable(Variable::Principal) => subject.value(values.principal),
                Part::Variable(Variable::Route) => subject.value(values.route),
                Part::Variable(Variable::Tenant) => subject.value(values.tenant),
                Part::Variable(Variable::Topic) => subject.values(values.topic, '/'),
            }
        }
    }

    /// How long it may become in short.
    fn most_bytes(&self) -> usize {
        let bytes = |part: &Part| match part {
            Part::Literal(text) => text.len(),
            Part::Variable(_) => 3 * MAX_SHORT_BYTES,
        };
        self.0.iter().map(bytes).sum()
    }
}

impl Part {
    /// What it says of a subject before there are values.
    fn as_pattern(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::Variable(Variable::Topic) => ANY_TOKENS,
            Self::Variable(_) => ANY,
        }
    }
}

/// A subject that is being written.
pub(super) struct Subject {
    bytes: Vec<u8>,
    longest_value: usize,
}

impl Subject {
    /// Begins one in `room`, which is empty.
    pub(super) fn new(longest_value: usize, mut room: Vec<u8>) -> Self {
        // nearly all records fit in it
        room.reserve(CAPACITY);
        Self { bytes: room, longest_value }
    }

    /// Writes what is known to be harmless.
    pub(super) fn literal(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Writes one token, or a part of it.
    pub(super) fn value(&mut self, value: &str) {
        if value.is_empty() {
            return self.literal(EMPTY);
        }
        if value.len() > self.longest_value {
            return self.literal(TOO_LONG);
        }
        let plain = match value.strip_prefix('$') {
            Some(rest) if self.bytes.is_empty() => {
                self.literal("%24");
                rest
            }
            _ => value,
        };
        escape(plain, is_special, &mut |text| self.literal(text));
    }

    /// Writes tokens with dots between them, where `separator` was.
    pub(super) fn values(&mut self, values: &str, separator: char) {
        // tokens of most platforms are harmless, and as they should be
        let is_literal = separator == '.' && !self.bytes.is_empty() && are_literal(values);
        if is_literal {
            return self.literal(values);
        }
        for (index, value) in values.split(separator).enumerate() {
            if index > 0 {
                self.bytes.push(b'.');
            }
            self.value(value);
        }
    }

    /// Goes on with headers.
    pub(super) fn finish(self) -> Result<Headers, &'static str> {
        match self.bytes.len() <= MAX_BYTES {
            true => Ok(Headers::behind(self.bytes)),
            false => Err("its subject would be too long"),
        }
    }
}

/// Whether each token may stand as it is.
fn are_literal(dotted: &str) -> bool {
    let bytes = dotted.as_bytes();
    let is_bad = |found, byte| found | (is_special(byte) & (byte != b'.'));
    let is_empty = |found, (one, two): (&u8, &u8)| found | ((*one == b'.') & (*two == b'.'));
    let has_ends = bytes.first().is_some_and(|first| *first != b'.') && !bytes.ends_with(b".");
    has_ends && !dotted.bytes().fold(false, is_bad) && !bytes.iter().zip(&bytes[1..]).fold(false, is_empty)
}

/// Whether a byte does not stand in a token as it is.
fn is_special(byte: u8) -> bool {
    (byte <= b' ') | (byte == 0x7f) | (byte == b'*') | (byte == b'>') | (byte == b'.') | (byte == b'%')
}

/// Takes a token: a text, or one variable with a text before and behind it.
fn parse_token(token: &str, parts: &mut Vec<Part>) -> Result<(), String> {
    if token.is_empty() {
        return Err("a token is empty".into());
    }
    let Some((before, rest)) = token.split_once('{') else { return parse_literal(token, parts) };
    let (name, behind) = rest.split_once('}').ok_or("a { has no }")?;
    if behind.contains('{') {
        return Err(format!("{{{name}}} and another variable are in one token: put a dot between them"));
    }
    let variable = VARIABLES.iter().find(|(word, _)| *word == name).map(|(_, variable)| *variable);
    let Some(variable) = variable else {
        let known: Vec<_> = VARIABLES.iter().map(|(word, _)| format!("{{{word}}}")).collect();
        return Err(format!("{{{name}}} is unknown ({})", known.join(", ")));
    };
    if variable == Variable::Topic && !(before.is_empty() && behind.is_empty()) {
        return Err("{topic} is several tokens: nothing may stand beside it without a dot".into());
    }
    parse_literal(before, parts)?;
    parts.push(Part::Variable(variable));
    parse_literal(behind, parts)
}

fn parse_literal(text: &str, parts: &mut Vec<Part>) -> Result<(), String> {
    let is_bad =
        |character: char| character.is_control() || character.is_whitespace() || "*>%{}".contains(character);
    if let Some(bad) = text.chars().find(|character| is_bad(*character)) {
        return Err(format!("must not have {bad:?} in it"));
    }
    if !text.is_empty() {
        parts.push(Part::Literal(text.into()));
    }
    Ok(())
}

const VARIABLES: &[(&str, Variable)] = &[
    ("tenant", Variable::Tenant),
    ("client", Variable::Client),
    ("principal", Variable::Principal),
    ("topic", Variable::Topic),
    ("route", Variable::Route),
    ("action", Variable::Action),
];

/// With the words around it, it must fit in the 4 KiB that a server takes for a line.
const MAX_BYTES: usize = 3072;
const MAX_SHORT_BYTES: usize = 128;
/// Room for a record with a small payload.
const CAPACITY: usize = 1024;

/// Stands for a value that is too long; no value is written so.
const TOO_LONG: &str = "%%";

/// What no template has in it: for the value of a variable, and for that of a topic.
const ANY: &str = "*";
const ANY_TOKENS: &str = ">";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::unescape;
    use super::*;

    #[test]
    fn template_fits_what_may_take_its_subjects() {
        for (template, filter, may_fit) in [
            ("mgate.events.{tenant}.{action}", "mgate.>", true),
            ("mgate.events.{tenant}.{action}", "mgate.events.acme.*", true),
            ("mgate.events.{tenant}.{action}", "mgate.events.*", false),
            ("mgate.events.{tenant}.{action}", "mgate.messages.>", false),
            ("events.x", "events.x", true),
            ("events.x", "events.x.>", false),
            ("m.x-{client}.{topic}", "m.*.a.b", true),
            ("m.{topic}", "m.>", true),
            ("m.{topic}", "m", false),
            ("{topic}", "a.b", true),
        ] {
            assert_eq!(
                SubjectTemplate::parse(template).unwrap().may_fit(filter),
                may_fit,
                "{template} {filter}"
            );
        }
    }

    #[test]
    fn values_stand_for_variables() {
        for (template, subject) in [
            ("a.b", "a.b"),
            ("{topic}", "a.%.b"),
            ("x.{tenant}.{topic}.y", "x.acme.a.%.b.y"),
            ("{client}", "%24SYS"),
            ("x-{client}-y", "x-$SYS-y"),
            ("{principal}.x{principal}", "%.x%"),
            ("{route}.{action}", "my%20route.publish"),
        ] {
            assert_eq!(filled(template, &VALUES).as_deref(), Ok(subject), "{template}");
        }
    }

    #[test]
    fn special_characters_are_escaped() {
        for (client, token) in [
            ("*", "%2A"),
            (">", "%3E"),
            ("a.b", "a%2Eb"),
            ("a b\tc\r\n", "a%20b%09c%0D%0A"),
            ("100%", "100%25"),
            ("%", "%25"),
            ("\u{7f}\0", "%7F%00"),
            ("a/b:ü", "a/b:ü"),
        ] {
            assert_eq!(filled("{client}", &Values { client, ..VALUES }).as_deref(), Ok(token));
        }
    }

    #[test]
    fn wrong_templates_are_refused() {
        for (template, error) in [
            ("", "a token is empty"),
            ("a..b", "a token is empty"),
            (".a", "a token is empty"),
            ("a.", "a token is empty"),
            ("a.*", "must not have '*' in it"),
            ("a.>", "must not have '>' in it"),
            ("a b", "must not have ' ' in it"),
            ("a\t", "must not have '\\t' in it"),
            ("a%", "must not have '%' in it"),
            ("$SYS.a", "what begins with $ belongs to the server"),
            ("{a}", "{a} is unknown ({tenant}, {client}, {principal}, {topic}, {route}, {action})"),
            ("{}", "{} is unknown ({tenant}, {client}, {principal}, {topic}, {route}, {action})"),
            ("{topic", "a { has no }"),
            ("topic}", "must not have '}' in it"),
            (
                "{{topic}}",
                "{{topic} is unknown ({tenant}, {client}, {principal}, {topic}, {route}, {action})",
            ),
            ("{client}{tenant}", "{client} and another variable are in one token: put a dot between them"),
            ("a-{topic}", "{topic} is several tokens: nothing may stand beside it without a dot"),
        ] {
            assert_eq!(SubjectTemplate::parse(template), Err(format!("\"{template}\": {error}")));
        }
        assert!(SubjectTemplate::parse(&"a".repeat(3073)).is_err());
        assert!(SubjectTemplate::parse_without_topic("a.{topic}").is_err());
        assert!(SubjectTemplate::parse_without_topic("a.{client}").is_ok());
    }

    #[test]
    fn long_values_are_refused_or_marked() {
        let client = "*".repeat(1025);
        let values = Values { client: &client, ..VALUES };
        assert!(filled("{client}", &values).is_err());
        assert!(filled("{client}", &Values { client: &client[1..], ..VALUES }).is_ok());
        let template = SubjectTemplate::parse("a.{client}.{tenant}").unwrap();
        assert_eq!(template.fill_in_short(&values, Vec::new()).end().subject(), "a.%%.acme");
    }

    proptest! {
        #[test]
        fn token_is_one_token_and_can_be_read_back(client in text()) {
            let subject = filled("a.x-{client}", &Values { client: &client, ..VALUES }).unwrap();
            let token = subject.strip_prefix("a.x-").unwrap();
            prop_assert!(is_literal(token), "{:?}", subject);
            prop_assert_eq!(unescape(token), Some(client));
        }

        #[test]
        fn structure_is_that_of_the_template(tenant in text(), client in text(), topic in topic()) {
            let values = Values { tenant: &tenant, client: &client, topic: &topic, ..VALUES };
            let subject = filled("{tenant}.m.{topic}.{client}", &values).unwrap();
            prop_assert!(!subject.starts_with('$'));
            let tokens: Vec<_> = subject.split('.').collect();
            prop_assert!(tokens.iter().all(|token| is_literal(token)), "{:?}", subject);
            let read: Vec<_> = tokens.iter().map(|token| unescape(token).unwrap()).collect();
            let mut expected = vec![&*tenant, "m"];
            expected.extend(topic.split('/'));
            expected.push(&client);
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn different_values_have_different_subjects(one in (text(), text(), topic()), two in (text(), text(), topic())) {
            let subject = |(tenant, client, topic): &(String, String, String)| {
                filled("{tenant}.{client}.{topic}", &Values { tenant, client, topic, ..VALUES }).unwrap()
            };
            prop_assert_eq!(subject(&one) == subject(&two), one == two);
        }

        #[test]
        fn short_subject_fits(values in [any::<String>(), any::<String>(), any::<String>(), any::<String>()]) {
            let template = SubjectTemplate::parse_without_topic("{tenant}.{client}.{principal}.{route}").unwrap();
            let [tenant, client, principal, route] = &values;
            let values = Values { tenant, client, principal, route, ..VALUES };
            let filled = template.fill_in_short(&values, Vec::new()).end();
            let filled = filled.subject();
            prop_assert!(filled.len() <= MAX_BYTES && filled.split('.').all(is_literal));
            prop_assert_eq!(filled.split('.').count(), 4);
        }
    }

    fn filled(template: &str, values: &Values<'_>) -> Result<String, &'static str> {
        let headers = SubjectTemplate::parse(template).unwrap().fill(values, Vec::new())?;
        Ok(headers.end().subject().to_owned())
    }

    /// What NATS takes for nothing but itself.
    fn is_literal(token: &str) -> bool {
        let is_bad = |character: char| character.is_ascii_control() || " *>.".contains(character);
        !token.is_empty() && !token.contains(is_bad)
    }

    /// Texts that are short, and full of what is special.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[ab.*>%$ \t\r\n/2AE]{0,6}", "\\PC{0,12}", any::<[char; 3]>().prop_map(String::from_iter)]
    }

    fn topic() -> impl Strategy<Value = String> {
        prop::collection::vec("[ab.*>%$ \r]{0,3}", 1..5).prop_map(|levels| levels.join("/"))
    }

    const VALUES: Values<'_> = Values {
        action: "publish",
        client: "$SYS",
        principal: "",
        route: "my route",
        tenant: "acme",
        topic: "a//b",
    };
}
