use std::borrow::Cow;
use std::{error, fmt};

use http::Uri;
use mgate_policies::{Action, Client, Query, Resource};

use super::dialect::{Unaskable, username};
use super::webhook::Vocabulary;
use crate::neighbour::body::percent_encode;
use crate::neighbour::http::{UrlError, parse_url};
use crate::neighbour::template::{Part, parts};

/// A text with `${names}` in it, in whose place the client, the action and the topic of a question are put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part<Field>>);

/// An address with `${names}` in its path and its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate(Template);

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A name where the host or the port would be.
    Host,
    /// `${` without `}`.
    Open,
    /// The name of something that no decision service is told.
    Secret(String),
    /// No name that is known.
    Unknown(String),
    /// No address, whatever is put into it.
    Url(UrlError),
}

/// What a part of a template stands for, where its type matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bare,
    Text,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    /// The action as a number, as mosquitto has them.
    Access,
    Action,
    Attribute(Box<str>),
    ClientId,
    Listener,
    /// mgate has none: always empty.
    Mountpoint,
    Peer,
    Principal,
    Protocol,
    Qos,
    Retain,
    Tenant,
    Topic,
    Username,
}

impl Template {
    /// Reads a text with names.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        parts(text, TemplateError::Open, Field::named).map(Self)
    }

    /// The text for one question; `escape` writes what was put in, `vocabulary` has the words for actions.
    pub(super) fn render(
        &self,
        query: &Query<'_>,
        vocabulary: Vocabulary,
        escape: fn(&str, &mut String),
    ) -> Result<String, Unaskable> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Field(field) => escape(&field.value(query, vocabulary)?, &mut text),
                Part::Text(literal) => text.push_str(literal),
            }
        }
        Ok(text)
    }

    /// Whether it is a number, or `true` and `false`, whatever is put into it.
    pub(super) fn kind(&self) -> Kind {
        match self.0.as_slice() {
            [Part::Field(Field::Access | Field::Qos | Field::Retain)] => Kind::Bare,
            _ => Kind::Text,
        }
    }
}

impl UrlTemplate {
    /// Reads an address with names.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let host = text.split_once("://").map_or("", |(_, rest)| rest);
        let host = &host[..host.find(['/', '?']).unwrap_or(host.len())];
        if host.contains("${") || text.split("://").next().is_some_and(|scheme| scheme.contains("${")) {
            return Err(TemplateError::Host);
        }
        let template = Template::parse(text)?;
        let literals = template.0.iter().map(|part| match part {
            Part::Field(_) => "x",
            Part::Text(text) => text,
        });
        parse_url(&literals.collect::<String>()).map_err(TemplateError::Url)?;
        Ok(Self(template))
    }

    /// The address for one question.
    pub(super) fn render(&self, query: &Query<'_>, vocabulary: Vocabulary) -> Result<Uri, Unaskable> {
        let url = self.0.render(query, vocabulary, percent_encode)?;
        let path = url.split('?').next().unwrap_or_default();
        // on its way an address loses these, and says something else
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(Unaskable("its address would have a path with dots alone"));
        }
        url.parse().map_err(|_| Unaskable("its address would be too long"))
    }
}

impl Field {
    fn named(name: &str) -> Result<Self, TemplateError> {
        Ok(match name {
            "acc" => Self::Access,
            "action" => Self::Action,
            "cert_common_name" => Self::Attribute("cert.cn".into()),
            "client_id" | "clientid" => Self::ClientId,
            "listener" => Self::Listener,
            "mountpoint" => Self::Mountpoint,
            "peer" | "peerhost" => Self::Peer,
            "principal" => Self::Principal,
            "proto_name" | "protocol" => Self::Protocol,
            "qos" => Self::Qos,
            "retain" => Self::Retain,
            "tenant" => Self::Tenant,
            "topic" => Self::Topic,
            "username" => Self::Username,
            "password" | "payload" | "token" => return Err(TemplateError::Secret(name.into())),
            _ if name.starts_with("cert.") || name.starts_with("claims.") => Self::Attribute(name.into()),
            _ => return Err(TemplateError::Unknown(name.into())),
        })
    }

    fn value<'a>(&self, query: &Query<'a>, vocabulary: Vocabulary) -> Result<Cow<'a, str>, Unaskable> {
        let client = query.client;
        Ok(match self {
            Self::Access => access(query.action).to_string().into(),
            Self::Action => match query.resource {
                Resource::Request { method, .. } => method.into(),
                _ => vocabulary.word(query.action).into(),
            },
            Self::Attribute(name) => attribute(client, name)?.into(),
            Self::ClientId => (*client.client_id).into(),
            Self::Listener => (*client.route).into(),
            Self::Mountpoint => "".into(),
            Self::Peer => client.peer.ip().to_canonical().to_string().into(),
            Self::Principal => (*client.principal.id).into(),
            Self::Protocol => client.protocol.to_string().into(),
            Self::Qos => query.qos.to_string().into(),
            Self::Retain => query.retain.to_string().into(),
            Self::Tenant => (*client.principal.tenant).into(),
            Self::Topic => topic(query)?.into(),
            Self::Username => username(client).unwrap_or_default().into(),
        })
    }
}

/// The one value of an attribute, or nothing; of several, a service could see only some.
fn attribute<'a>(client: &'a Client, name: &str) -> Result<&'a str, Unaskable> {
    let mut values = client.principal.attributes.values(name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value.unwrap_or_default()),
        _ => Err(Unaskable("an attribute has several values, where the template has room for one")),
    }
}

fn topic<'a>(query: &Query<'a>) -> Result<&'a str, Unaskable> {
    match query.resource {
        Resource::Session => Ok(""),
        Resource::Filter(filter) => Ok(filter.as_str()),
        Resource::Request { path, .. } => Ok(path.as_str()),
        Resource::Topic(topic) => Ok(topic.as_str()),
        _ => Err(Unaskable("there is no word for this resource")),
    }
}

/// What mosquitto calls read, write and subscribe.
fn access(action: Action) -> u8 {
    match action {
        Action::Deliver => 1,
        Action::Publish | Action::Will => 2,
        Action::Subscribe => 4,
        Action::Connect | Action::Observe | Action::Request => 0,
    }
}

/// Writes a value as it is.
pub(super) fn verbatim(value: &str, out: &mut String) {
    out.push_str(value);
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("a client must have no say in scheme, host and port"),
            Self::Open => f.write_str("`${` without `}`"),
            Self::Secret(name) => write!(f, "${{{name}}} is told to no decision service"),
            Self::Unknown(name) => write!(f, "unknown name ${{{name}}}"),
            Self::Url(error) => error.fmt(f),
        }
    }
}

impl error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use mgate_policies::{Attributes, Principal};

    use super::super::tests::{client, publish, query, subscribe};
    use super::*;

    #[test]
    fn every_name_stands_for_something() {
        let mut attributes = Attributes::default();
        attributes.add("cert.cn", "cn");
        attributes.add("claims.channel", "42");
        let principal =
            Principal { tenant: "acme".into(), id: "id".into(), attributes, ..Principal::default() };
        let peer = SocketAddr::from(([0, 0, 0, 0, 0, 0xffff, 0x0a00, 9], 1));
        let client = Client { principal, peer, username: Some("eve".into()), ..client() };
        let query = Query { qos: 1, retain: true, ..publish(&client, "a/b") };
        for (name, value) in [
            ("acc", "2"),
            ("action", "publish"),
            ("cert.cn", "cn"),
            ("cert_common_name", "cn"),
            ("claims.channel", "42"),
            ("claims.other", ""),
            ("client_id", "dev-1"),
            ("clientid", "dev-1"),
            ("listener", "devices"),
            ("mountpoint", ""),
            ("peer", "10.0.0.9"),
            ("peerhost", "10.0.0.9"),
            ("principal", "id"),
            ("protocol", "mqtt"),
            ("qos", "1"),
            ("retain", "true"),
            ("tenant", "acme"),
            ("topic", "a/b"),
            ("username", "eve"),
        ] {
            let template = Template::parse(&format!("<${{{name}}}>")).unwrap();
            assert_eq!(
                template.render(&query, Vocabulary::Whole, verbatim),
                Ok(format!("<{value}>")),
                "{name}"
            );
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, error) in [
            ("${topic", TemplateError::Open),
            ("a}${", TemplateError::Open),
            ("${password}", TemplateError::Secret("password".into())),
            ("${payload}", TemplateError::Secret("payload".into())),
            ("${Topic}", TemplateError::Unknown("Topic".into())),
            ("${}", TemplateError::Unknown("".into())),
            ("${${topic}}", TemplateError::Unknown("${topic".into())),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
        for (text, error) in [
            ("http://${clientid}/", TemplateError::Host),
            ("http://pdp:${qos}?a", TemplateError::Host),
            ("${topic}://pdp/", TemplateError::Host),
            ("${topic}", TemplateError::Host),
            ("http://user@pdp/${topic}", TemplateError::Url(UrlError::Credentials)),
            ("ftp://pdp/${topic}", TemplateError::Url(UrlError::Scheme)),
            ("http://pdp/#${topic}", TemplateError::Url(UrlError::Fragment)),
        ] {
            assert_eq!(UrlTemplate::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn values_cannot_break_out_of_an_address() {
        let url = UrlTemplate::parse("http://pdp/acl/${clientid}?topic=${topic}&x=${username}").unwrap();
        let client = Client { client_id: "a/../b?c#d".into(), username: Some("${topic}".into()), ..client() };
        let rendered = url.render(&subscribe(&client, "a b/+/&x=1/ü%/#"), Vocabulary::Whole).unwrap();
        let expected = "http://pdp/acl/a%2F..%2Fb%3Fc%23d\
                        ?topic=a%20b%2F%2B%2F%26x%3D1%2F%C3%BC%25%2F%23&x=%24%7Btopic%7D";
        assert_eq!(rendered.to_string(), expected);
    }

    #[test]
    fn address_that_would_lose_a_part_is_not_asked() {
        let url = UrlTemplate::parse("http://pdp/acl/${clientid}/x?${topic}").unwrap();
        for (client_id, topic, is_asked) in
            [("..", "a", false), (".", "a", false), ("...", "a", true), ("a", "..", true)]
        {
            let client = Client { client_id: client_id.into(), ..client() };
            assert_eq!(
                url.render(&publish(&client, topic), Vocabulary::Whole).is_ok(),
                is_asked,
                "{client_id} {topic}"
            );
        }
        let long = Client { client_id: "+".repeat(30_000).into(), ..client() };
        assert!(url.render(&publish(&long, "a"), Vocabulary::Whole).is_err());
    }

    #[test]
    fn attribute_with_several_values_is_not_asked() {
        let mut client = client();
        client.principal.attributes.add("claims.scope", "a");
        client.principal.attributes.add("claims.scope", "b");
        let template = Template::parse("${claims.scope}").unwrap();
        assert!(template.render(&publish(&client, "a"), Vocabulary::Whole, verbatim).is_err());
    }

    #[test]
    fn session_has_no_topic() {
        let template = Template::parse("[${topic}]").unwrap();
        let client = client();
        let connect = query(&client, Action::Connect, Resource::Session);
        assert_eq!(template.render(&connect, Vocabulary::Whole, verbatim).as_deref(), Ok("[]"));
    }
}
