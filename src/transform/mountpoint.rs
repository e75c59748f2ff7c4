use mgate_policies::static_rules::variable;
use mgate_policies::{Client, Editable, Now, Refusal, TopicName, Transform, mount};

/// Puts what a client says under a prefix of its own: added towards the upstream, taken away towards the client.
///
/// Whatever a client asks for, it reaches nothing beside its prefix: wildcards stand behind it.
pub struct Mountpoint {
    name: Box<str>,
    prefix: Prefix,
}

/// Levels of a topic that end with `/`, some of which may be a whole `${variable}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Vec<Level>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(Box<str>),
    Variable(Box<str>),
}

impl Mountpoint {
    /// A mountpoint that logs and denials name.
    pub fn new(name: &str, prefix: Prefix) -> Self {
        Self { name: name.into(), prefix }
    }
}

impl Transform for Mountpoint {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, packet: &mut Editable<'_>, _: Now) -> Result<(), Refusal> {
        let prefix = self.prefix.of(packet.client).map_err(Refusal::denied)?;
        mount(packet, &prefix)
    }
}

impl Prefix {
    /// Takes a prefix such as `tenants/${tenant}/`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(levels) = text.strip_suffix('/') else {
            return Err(format!("\"{text}\" does not end with /: it would begin other clients' topics too"));
        };
        if text.starts_with('$') && !text.starts_with("${") {
            return Err(format!("\"{text}\" begins with $: such topics are the server's own"));
        }
        levels.split('/').map(Level::parse).collect::<Result<_, _>>().map(Self)
    }

    /// The prefix of one client.
    fn of(&self, client: &Client) -> Result<String, String> {
        let mut prefix = String::new();
        for level in &self.0 {
            match level {
                Level::Literal(literal) => prefix.push_str(literal),
                Level::Variable(name) => {
                    let value = value_of(name, client)?;
                    if prefix.is_empty() && value.starts_with('$') {
                        return Err(format!("the value of ${{{name}}} begins with $"));
                    }
                    prefix.push_str(&value);
                }
            }
            prefix.push('/');
        }
        Ok(prefix)
    }
}

impl Level {
    fn parse(text: &str) -> Result<Self, String> {
        match variable(text) {
            Ok(Some(name)) => Ok(Self::Variable(name.into())),
            Ok(None) if text.is_empty() || TopicName::parse(text).is_ok() => Ok(Self::Literal(text.into())),
            Ok(None) => Err(format!("\"{text}\": a prefix has no wildcards and no U+0000")),
            Err(error) => Err(format!("\"{text}\": {error}")),
        }
    }
}

/// The one value that a variable has for a client, if it can be a level.
fn value_of(name: &str, client: &Client) -> Result<String, String> {
    let mut found: Option<String> = None;
    let is_ambiguous = client.any_value(name, |value| match &found {
        Some(earlier) => earlier != value,
        None => {
            found = Some(value.to_owned());
            false
        }
    });
    match found.filter(|value| !value.is_empty()) {
        _ if is_ambiguous => Err(format!("${{{name}}} has more than one value")),
        None => Err(format!("${{{name}}} has no value")),
        Some(value) if value.contains(['/', '+', '#', '\0']) => {
            Err(format!("the value of ${{{name}}} is no level of a topic"))
        }
        Some(value) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use mgate_policies::Action;

    use super::*;
    use crate::transform::tests::{client, filter_after, message_after};

    #[test]
    fn prefix_is_added_on_the_way_to_the_upstream() {
        for action in [Action::Publish, Action::Will] {
            let after = message_after(&mounted("tenants/${tenant}/"), &client(), action, "a/b");
            assert_eq!(after, Ok(("tenants/acme/a/b".into(), Some("tenants/acme/a/b".into()))));
        }
        for (filter, expected) in [
            ("a/+", "tenants/acme/a/+"),
            ("#", "tenants/acme/#"),
            ("+/x", "tenants/acme/+/x"),
            ("/#", "tenants/acme//#"),
            ("$SYS/#", "tenants/acme/$SYS/#"),
        ] {
            assert_eq!(filter_after(&mounted("tenants/${tenant}/"), &client(), filter), Ok(expected.into()));
        }
    }

    #[test]
    fn prefix_is_taken_away_on_the_way_to_the_client() {
        let mountpoint = mounted("tenants/${tenant}/");
        let after = message_after(&mountpoint, &client(), Action::Deliver, "tenants/acme/a/b");
        assert_eq!(after, Ok(("a/b".into(), Some("a/b".into()))));
    }

    #[test]
    fn delivery_beside_the_prefix_is_denied() {
        for topic in ["tenants/other/a", "tenants/acmes/a", "tenants/acme", "a", "Tenants/acme/a"] {
            let after = message_after(&mounted("tenants/${tenant}/"), &client(), Action::Deliver, topic);
            let refusal = after.expect_err("the client cannot name it");
            assert_eq!(refusal, Refusal::denied("the topic is outside of what the client can name"));
        }
    }

    #[test]
    fn value_that_is_no_level_refuses() {
        for (tenant, why) in [
            ("", "${tenant} has no value"),
            ("a/b", "the value of ${tenant} is no level of a topic"),
            ("+", "the value of ${tenant} is no level of a topic"),
            ("a#", "the value of ${tenant} is no level of a topic"),
            ("\0", "the value of ${tenant} is no level of a topic"),
            ("$SYS", "the value of ${tenant} begins with $"),
        ] {
            let mut client = client();
            client.principal.tenant = tenant.into();
            assert_eq!(filter_after(&mounted("${tenant}/"), &client, "a"), Err(Refusal::denied(why)));
        }
        let mut client = client();
        client.principal.tenant = "$SYS".into();
        assert_eq!(filter_after(&mounted("t/${tenant}/"), &client, "a"), Ok("t/$SYS/a".into()));
    }

    #[test]
    fn variable_of_a_prefix_has_exactly_one_value() {
        let mut client = client();
        client.principal.groups = vec!["one".into(), "one".into()];
        assert_eq!(filter_after(&mounted("${group}/"), &client, "a"), Ok("one/a".into()));
        client.principal.groups.push("two".into());
        let refusal = Refusal::denied("${group} has more than one value");
        assert_eq!(filter_after(&mounted("${group}/"), &client, "a"), Err(refusal));
        let refusal = Refusal::denied("${cert.cn} has no value");
        assert_eq!(filter_after(&mounted("${cert.cn}/"), &client, "a"), Err(refusal));
    }

    #[test]
    fn mistakes_in_prefixes_are_named() {
        for (text, why) in [
            ("", "does not end with /"),
            ("tenants", "does not end with /"),
            ("$SYS/", "begins with $"),
            ("a/+/", "no wildcards"),
            ("a/#/", "no wildcards"),
            ("a/x${tenant}/", "takes a whole level"),
            ("a/${nothing}/", "unknown variable `${nothing}`"),
        ] {
            let error = Prefix::parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
        for good in ["/", "a/", "a//b/", "${tenant}/", "t/${claims.org}/${client_id}/"] {
            assert!(Prefix::parse(good).is_ok(), "{good}");
        }
    }

    fn mounted(prefix: &str) -> Mountpoint {
        Mountpoint::new("mounted", Prefix::parse(prefix).expect("a prefix"))
    }
}
