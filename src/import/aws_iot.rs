//! Policy documents of AWS IoT.
//!
//! There, resources are texts: `*` stands for any characters, `+` and `#` for themselves. A subscription is
//! allowed by its text, and each message by `iot:Receive`; here, what may be subscribed to is delivered. So a
//! subscription is only taken over together with the right to receive what it brings.

use mgate_policies::TopicFilter;

use super::{Draft, client_id, topic};
use crate::config::{Given, Place, Report, Section, parse_json};

pub(super) const HEAD: &str = "\
Imported from a policy document of AWS IoT.

* The document does not say to whom it is attached: see the principals of each statement.
* The name of a thing, ${iot:Connection.Thing.ThingName}, is the principal here.
* A client whose identifier or name has `/`, `+` or `#` in it matches no statement with a variable.
";

/// What one action of a statement says of one resource.
struct Rule {
    place: Place,
    origin: String,
    sid: String,
    denies: bool,
    action: Action,
    pattern: Pattern,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Connect,
    Publish,
    Receive,
    RetainPublish,
    Subscribe,
}

/// A resource behind `topic/`, `topicfilter/` or `client/`, with the variables of mgate.
#[derive(Clone, Debug)]
struct Pattern {
    /// All, or what stands before the star.
    text: String,
    /// Whether a star ends it.
    has_star: bool,
}

/// Reads the document; records what cannot be kept exactly.
pub(super) fn read(text: &str, place: &Place, principals: &[String], report: &Report) -> Vec<Draft> {
    let Some(node) = parse_json(text, place, report) else { return Vec::new() };
    let mut document = Section::root(&node, place, None, report);
    document.require(&["Version", "Statement"]);
    document.parse("Version", |version| match version {
        "2012-10-17" => Ok(()),
        _ => Err("must be \"2012-10-17\": in others, variables are plain text".into()),
    });
    document.text("Id");
    let statements = document.list("Statement", "Sid");
    let rules: Vec<Rule> = statements.into_iter().flat_map(|section| statement(section, report)).collect();
    document.finish();
    let mut drafts = Vec::new();
    for rule in &rules {
        match rule.drafts(&rules) {
            Ok(of_rule) => drafts.extend(of_rule),
            Err(message) => report.problem(&rule.place, message),
        }
    }
    drafts.extend(unshared(&rules));
    for draft in &mut drafts {
        draft.principals = principals.to_vec();
    }
    drafts
}

fn statement(mut section: Section<'_>, report: &Report) -> Vec<Rule> {
    section.require(&["Effect", "Action", "Resource"]);
    for key in ["Condition", "NotAction", "NotResource", "Principal", "NotPrincipal"] {
        if section.has(key) {
            section.problem(key, "has no counterpart: take it out, and write what it means by hand");
        }
    }
    let sid = section.text("Sid").map(|sid| sid.value);
    let denies = section.one_of("Effect", &[("Allow", false), ("Deny", true)]).unwrap_or(true);
    let actions = section.parse_each("Action", actions);
    let resources = section.texts("Resource").unwrap_or_default();
    section.finish();
    let mut rules = Vec::new();
    for resource in resources {
        let line = resource.place.line.unwrap_or_default();
        match read_resource(&resource) {
            Ok((kind, pattern)) => {
                let is_of_kind = |action: &Action| action.kind() == kind;
                rules.extend(actions.iter().flatten().copied().filter(is_of_kind).map(|action| Rule {
                    place: resource.place.clone(),
                    origin: format!("line {line}: iot:{action:?} {}", resource.value),
                    sid: sid.clone().unwrap_or_else(|| format!("line-{line}")),
                    denies,
                    action,
                    pattern: pattern.clone(),
                }));
            }
            Err(message) => report.problem(&resource.place, format!("\"{}\": {message}", resource.value)),
        }
    }
    rules
}

impl Rule {
    /// The statements that come of it, in the light of all others.
    fn drafts(&self, all: &[Self]) -> Result<Vec<Draft>, String> {
        if self.denies && self.pattern.text.contains("${") {
            return Err("a variable in a deny: a value with `/` in it would escape the deny".into());
        }
        match self.action {
            Action::Connect => {
                let any = self.pattern.has_star && self.pattern.text.is_empty();
                let star = if self.pattern.has_star { "*" } else { "" };
                let id = client_id(&format!("{}{star}", self.pattern.text))?;
                Ok(vec![self.draft("connect", if any { vec![] } else { vec![id] })])
            }
            Action::Publish => self.publish(all),
            Action::Receive => Ok(vec![self.draft("deliver", vec![topic(&self.pattern.topics()?)?])]),
            Action::RetainPublish => self.retain(all),
            Action::Subscribe => self.subscribe(all),
        }
    }

    /// A message that is to be retained needs `iot:RetainPublish` too.
    fn publish(&self, all: &[Self]) -> Result<Vec<Draft>, String> {
        let topics = self.pattern.topics()?;
        let mut draft = self.draft("publish", vec![topic(&topics)?]);
        if !self.denies && !is_covered(&topics, all, Action::RetainPublish, false) {
            draft.conditions.push("retain = false".into());
        }
        Ok(vec![draft])
    }

    fn retain(&self, all: &[Self]) -> Result<Vec<Draft>, String> {
        let topics = self.pattern.topics()?;
        let mut draft = self.draft("publish", vec![topic(&topics)?]);
        draft.conditions.push("retain = true".into());
        if self.denies || is_covered(&topics, all, Action::Publish, false) {
            return Ok(vec![draft]);
        }
        let published = filters(all, Action::Publish, false);
        let is_apart = |other: &String| !overlap(other, &topics) || covers(&topics, other);
        match published.iter().all(is_apart) {
            // what is published and retained is said with iot:Publish
            true => Ok(vec![]),
            false => {
                Err("iot:RetainPublish and iot:Publish share some of their topics, and neither has all \
                          of the other's: write them apart"
                    .into())
            }
        }
    }

    fn subscribe(&self, all: &[Self]) -> Result<Vec<Draft>, String> {
        let filter = self.pattern.filters();
        let draft = self.draft("subscribe", vec![topic(&filter)?]);
        let above = filter.strip_suffix("/#");
        let below = above.map_or_else(|| filter.clone(), |above| format!("{above}/+/#"));
        if !is_covered(&below, all, Action::Receive, self.denies) {
            return Err(match self.denies {
                false => "no iot:Receive on all that it brings: here, what may be subscribed to is delivered",
                true => "no Deny of iot:Receive on all that it brings: here, a deny stops deliveries too",
            }
            .into());
        }
        match above.filter(|above| !is_covered(above, all, Action::Receive, self.denies)) {
            None => Ok(vec![draft]),
            Some(above) => self.subscribe_below(draft, above, all),
        }
    }

    /// `a/#` where `a/…` may be received, but not `a` itself.
    fn subscribe_below(&self, draft: Draft, above: &str, all: &[Self]) -> Result<Vec<Draft>, String> {
        let received = filters(all, Action::Receive, self.denies);
        if self.denies || received.iter().any(|other| overlap(other, above)) {
            return Err(format!("`{above}` is a topic that it brings too, and iot:Receive has none of it"));
        }
        let mut deny = self.draft("deliver", vec![topic(above)?]);
        deny.denies = true;
        Ok(vec![draft, deny])
    }

    fn draft(&self, action: &'static str, resources: Vec<String>) -> Draft {
        Draft {
            origin: self.origin.clone(),
            sid: self.sid.clone(),
            denies: self.denies,
            actions: vec![action],
            resources,
            ..Draft::default()
        }
    }
}

impl Action {
    /// The kind of resource that it is about.
    fn kind(self) -> &'static str {
        match self {
            Self::Connect => "client",
            Self::Publish | Self::Receive | Self::RetainPublish => "topic",
            Self::Subscribe => "topicfilter",
        }
    }
}

impl Pattern {
    /// The topics of messages, as a filter. A star takes at least an empty level.
    fn topics(&self) -> Result<String, String> {
        if self.text.contains(['+', '#']) {
            return Err("`+` and `#` are plain text there, and no topic has them".into());
        }
        let star = if self.has_star { "+/#" } else { "" };
        Ok(format!("{}{star}", self.text))
    }

    /// The widest filter of a subscription: with a star, `…/#` is one of those that it stands for.
    fn filters(&self) -> String {
        let star = if self.has_star { "#" } else { "" };
        format!("{}{star}", self.text)
    }
}

/// The action that a text names; of those that nothing here is about, it is an error.
fn actions(text: &str) -> Result<Vec<Action>, String> {
    use Action::{Connect, Publish, Receive, RetainPublish, Subscribe};
    match text {
        "*" | "iot:*" => Ok(vec![Connect, Publish, Receive, RetainPublish, Subscribe]),
        "iot:Connect" => Ok(vec![Connect]),
        "iot:Publish" => Ok(vec![Publish]),
        "iot:Receive" => Ok(vec![Receive]),
        "iot:RetainPublish" => Ok(vec![RetainPublish]),
        "iot:Subscribe" => Ok(vec![Subscribe]),
        _ => Err("has no counterpart (iot:Connect, iot:Publish, iot:Receive, iot:RetainPublish, \
                  iot:Subscribe, iot:*)"
            .into()),
    }
}

/// The kind of a resource, and its pattern.
fn read_resource(resource: &Given<String>) -> Result<(&'static str, Pattern), String> {
    let parts: Vec<&str> = resource.value.splitn(6, ':').collect();
    let ["arn", _, "iot", _, _, name] = parts.as_slice() else {
        return Err("is not arn:aws:iot:REGION:ACCOUNT:…; to speak of everything, name each kind".into());
    };
    let kind = ["client", "topic", "topicfilter"].into_iter().find_map(|kind| {
        let text = name.strip_prefix(kind)?.strip_prefix('/')?;
        Some((kind, text))
    });
    let (kind, text) = kind.ok_or("is none of client/…, topic/… and topicfilter/…")?;
    let (text, has_star) = match text.strip_suffix('*') {
        Some(before) => (before, true),
        None => (text, false),
    };
    if text.contains(['*', '?']) {
        return Err("`*` can be kept at the end only, and `?` nowhere".into());
    }
    if kind != "client" && has_star {
        if text.is_empty() {
            return Err("it also takes topics that begin with `$`, which no wildcard here takes: name the \
                        first levels"
                .into());
        }
        if !text.ends_with('/') {
            return Err("`*` must be the whole last level: no wildcard here takes a part of one".into());
        }
    }
    Ok((kind, Pattern { text: with_variables(text)?, has_star }))
}

/// Writes the variables as mgate does.
fn with_variables(text: &str) -> Result<String, String> {
    let level = |level| match level {
        "${iot:ClientId}" => Ok("${client_id}"),
        "${iot:Connection.Thing.ThingName}" => Ok("${principal}"),
        level if level.contains("${") => Err(format!(
            "`{level}`: only ${{iot:ClientId}} and ${{iot:Connection.Thing.ThingName}} can be kept, as whole levels"
        )),
        level => Ok(level),
    };
    let levels: Vec<&str> = text.split('/').map(level).collect::<Result<_, String>>()?;
    Ok(levels.join("/"))
}

/// No filter that begins with `$share/` is among those that a document can allow here.
fn unshared(rules: &[Rule]) -> Option<Draft> {
    let subscribed = filters(rules, Action::Subscribe, false);
    let resources: Vec<String> = subscribed.iter().filter_map(|filter| topic(filter).ok()).collect();
    (!resources.is_empty()).then(|| Draft::unshared("unshared", &[], resources))
}

/// The topics or filters of all rules of one action and effect.
fn filters(rules: &[Rule], action: Action, denies: bool) -> Vec<String> {
    let of_action = rules.iter().filter(|rule| rule.action == action && rule.denies == denies);
    of_action
        .filter_map(|rule| match action {
            Action::Subscribe => Some(rule.pattern.filters()),
            _ => rule.pattern.topics().ok(),
        })
        .collect()
}

/// Whether one rule of an action and effect speaks of all that `filter` matches.
fn is_covered(filter: &str, rules: &[Rule], action: Action, denies: bool) -> bool {
    filters(rules, action, denies).iter().any(|wide| covers(wide, filter))
}

/// A variable covers itself alone.
fn covers(wide: &str, narrow: &str) -> bool {
    match (TopicFilter::parse(wide), TopicFilter::parse(narrow)) {
        (Ok(wide), Ok(narrow)) => wide == narrow || wide.covers(narrow),
        _ => false,
    }
}

/// A variable may be anything.
fn overlap(one: &str, two: &str) -> bool {
    let loose = |text: &str| {
        let level = |level: &'_ str| if level.starts_with("${") { "+".to_owned() } else { level.to_owned() };
        text.split('/').map(level).collect::<Vec<_>>().join("/")
    };
    let (one, two) = (loose(one), loose(two));
    match (TopicFilter::parse(&one), TopicFilter::parse(&two)) {
        (Ok(one), Ok(two)) => one.overlaps(two),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::super::tests::{may, refusals, rules};

    #[test]
    fn rights_are_those_of_the_document() {
        let rules = rules(Source::AwsIot, DOCUMENT);
        for (who, action, resource, expected) in [
            ("dev-1", "connect", "dev-1", true),
            ("dev-1", "connect", "dev-2", false),
            ("dev-1", "connect", "test-7", true),
            ("dev-1", "connect", "test-evil", false),
            ("dev-1", "publish", "data/id-1/x/y", true),
            ("dev-1", "publish", "data/id-1/", true),
            ("dev-1", "publish", "data/id-1", false),
            ("dev-1", "publish", "data/id-2/x", false),
            ("dev-1", "publish!", "data/id-1/x", false),
            ("dev-1", "publish!", "state/dev-1", true),
            ("dev-1", "publish", "state/dev-1", true),
            ("dev-1", "publish", "state/dev-2", false),
            ("dev-1", "publish", "log/secret", false),
            ("dev-1", "publish", "log/other", true),
            ("dev-1", "publish!", "log/kept/1", true),
            ("dev-1", "publish!", "log/other", false),
            ("dev-1", "subscribe", "commands/dev-1/#", true),
            ("dev-1", "subscribe", "commands/dev-1/now", true),
            ("dev-1", "subscribe", "$share/g/commands/dev-1/#", false),
            ("dev-1", "subscribe", "commands/dev-2/#", false),
            ("dev-1", "deliver", "commands/dev-1/now", true),
            ("dev-1", "deliver", "commands/dev-1", false),
            ("dev-1", "deliver", "commands/dev-1/private/x", false),
            ("dev-1", "subscribe", "commands/dev-1/private/#", false),
        ] {
            assert_eq!(may(&rules, who, action, resource), expected, "{who} {action} {resource}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_line() {
        for (action, resource, expected) in [
            ("iot:Publish", "topic/*", "name the first levels"),
            ("iot:Publish", "topic/a*", "`*` must be the whole last level"),
            ("iot:Publish", "topic/a/*/b", "`*` can be kept at the end only"),
            ("iot:Publish", "topic/a/b?", "`?` nowhere"),
            ("iot:Publish", "topic/a/+", "`+` and `#` are plain text there"),
            ("iot:Publish", "topic/dev-${iot:ClientId}", "only ${iot:ClientId}"),
            ("iot:Publish", "topic/${iot:Certificate.Subject.CommonName}", "only ${iot:ClientId}"),
            ("iot:Publish", "topic/${client_id}", "only ${iot:ClientId}"),
            ("iot:Publish", "thing/a", "is none of client/…, topic/… and topicfilter/…"),
            ("iot:Publish", "topic/$share/g/a", "a topic has no `$share/<group>/`"),
            ("iot:Subscribe", "topicfilter/a/b", "no iot:Receive on all that it brings"),
            ("iot:Subscribe", "topicfilter/#", "no iot:Receive on all that it brings"),
            ("iot:Subscribe", "topicfilter/$share/g/a", "a topic has no `$share/<group>/`"),
            ("iot:GetThingShadow", "thing/a", "has no counterpart"),
        ] {
            let found = refusals(Source::AwsIot, &document("Allow", action, resource));
            let is_named = found.iter().any(|line| line.starts_with("rules:") && line.contains(expected));
            assert!(is_named, "{resource}: {found:?}");
        }
        for (action, resource, expected) in [
            ("iot:Publish", "topic/a/${iot:ClientId}", "a variable in a deny"),
            ("iot:Connect", "client/${iot:ClientId}", "a variable in a deny"),
            ("iot:Subscribe", "topicfilter/a", "no Deny of iot:Receive"),
        ] {
            let found = refusals(Source::AwsIot, &document("Deny", action, resource));
            assert!(found.iter().any(|line| line.contains(expected)), "{resource}: {found:?}");
            assert!(found[0].starts_with("rules:4: "), "{found:?}");
        }
    }

    #[test]
    fn right_to_receive_must_reach_as_far_as_the_subscription() {
        let subscribe = |filter: &str, received: &str| {
            let arn = "arn:aws:iot:eu-west-1:1:";
            format!(
                "{{ \"Version\": \"2012-10-17\", \"Statement\": [\n\
                 {{ \"Effect\": \"Allow\", \"Action\": \"iot:Subscribe\", \"Resource\": \"{arn}topicfilter/{filter}\" }},\n\
                 {{ \"Effect\": \"Allow\", \"Action\": \"iot:Receive\", \"Resource\": [{received}] }} ]}}",
                received = received
                    .split(' ')
                    .map(|text| format!("\"{arn}topic/{text}\""))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        };
        for (filter, received) in [("a/*", "a/b/*"), ("a/#", "a/b"), ("a/+/b", "a/c/b"), ("+/a", "b/*")] {
            let found = refusals(Source::AwsIot, &subscribe(filter, received));
            assert!(found[0].starts_with("rules:2: "), "{found:?}");
        }
        let both = rules(Source::AwsIot, &subscribe("a/#", "a a/*"));
        assert!(may(&both, "x", "deliver", "a") && may(&both, "x", "subscribe", "a/#"));
        let below = rules(Source::AwsIot, &subscribe("a/#", "a/*"));
        assert!(!may(&below, "x", "deliver", "a") && may(&below, "x", "subscribe", "a/#"));
        let wildcard = rules(Source::AwsIot, &subscribe("a/+/c", "a/*"));
        assert!(may(&wildcard, "x", "subscribe", "a/+/c") && !may(&wildcard, "x", "subscribe", "a/#"));
    }

    #[test]
    fn keys_without_counterpart_are_refused() {
        let text = document("Allow", "iot:Connect", "client/a");
        for (key, expected) in [
            ("\"Condition\": {}", "Condition: has no counterpart"),
            ("\"NotAction\": \"iot:Publish\"", "NotAction: has no counterpart"),
            ("\"Colour\": 1", "Colour: unknown key"),
        ] {
            let text = text.replace("\"Effect\"", &format!("{key}, \"Effect\""));
            let found = refusals(Source::AwsIot, &text);
            assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
        }
        let found = refusals(Source::AwsIot, &text.replace("2012-10-17", "2008-10-17"));
        assert!(found[0].starts_with("rules:1: Version: must be \"2012-10-17\""), "{found:?}");
    }

    fn document(effect: &str, action: &str, resource: &str) -> String {
        format!(
            "{{ \"Version\": \"2012-10-17\", \"Statement\": [\n\
             {{ \"Effect\": \"{effect}\",\n\"Action\": \"{action}\",\n\
             \"Resource\": \"arn:aws:iot:eu-west-1:1:{resource}\" }} ]}}"
        )
    }

    const DOCUMENT: &str = r#"{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "names",
      "Effect": "Allow",
      "Action": "iot:Connect",
      "Resource": [
        "arn:aws:iot:eu-west-1:123456789012:client/${iot:Connection.Thing.ThingName}",
        "arn:aws:iot:eu-west-1:123456789012:client/test-*"
      ]
    },
    {
      "Effect": "Deny",
      "Action": ["iot:Connect"],
      "Resource": ["arn:aws:iot:eu-west-1:123456789012:client/test-evil"]
    },
    {
      "Effect": "Allow",
      "Action": ["iot:Publish", "iot:Receive"],
      "Resource": ["arn:aws:iot:eu-west-1:123456789012:topic/data/${iot:ClientId}/*"]
    },
    {
      "Effect": "Allow",
      "Action": ["iot:Publish", "iot:RetainPublish"],
      "Resource": "arn:aws:iot:*:*:topic/state/${iot:Connection.Thing.ThingName}"
    },
    {
      "Effect": "Allow",
      "Action": "iot:Publish",
      "Resource": "arn:aws:iot:*:*:topic/log/*"
    },
    {
      "Effect": "Allow",
      "Action": "iot:RetainPublish",
      "Resource": "arn:aws:iot:*:*:topic/log/kept/*"
    },
    {
      "Effect": "Deny",
      "Action": "iot:Publish",
      "Resource": "arn:aws:iot:*:*:topic/log/secret"
    },
    {
      "Effect": "Allow",
      "Action": ["iot:Subscribe", "iot:Receive"],
      "Resource": [
        "arn:aws:iot:eu-west-1:123456789012:topicfilter/commands/${iot:Connection.Thing.ThingName}/*",
        "arn:aws:iot:eu-west-1:123456789012:topic/commands/${iot:Connection.Thing.ThingName}/*"
      ]
    },
    {
      "Effect": "Deny",
      "Action": ["iot:Subscribe", "iot:Receive"],
      "Resource": [
        "arn:aws:iot:eu-west-1:123456789012:topicfilter/commands/dev-1/private/*",
        "arn:aws:iot:eu-west-1:123456789012:topic/commands/dev-1/private/*",
        "arn:aws:iot:eu-west-1:123456789012:topic/commands/dev-1/private"
      ]
    }
  ]
}
"#;
}
