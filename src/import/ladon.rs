//! Policies of Ladon: who may do what to what, as texts with regular expressions between `<` and `>`.
//!
//! Resources must be called as they are in mgate, `topic:…` and `client_id:…`, and actions too. What Ladon
//! compares as text is compared as topic or filter here; only expressions for which that is the same are kept.

use super::{Draft, client, client_id, quote, topic};
use crate::config::{Given, Node, Place, Report, Section, Value, parse_json};

pub(super) const HEAD: &str = "\
Imported from policies of Ladon.

* Subjects are compared with the principal, which is who the client was found to be.
* `publish` includes wills, and `subscribe` includes what is delivered.
";

/// One text that a template stands for, but for what may be anything.
type Text = Vec<Part>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `<[^/]*>`
    AnyLevel,
    /// `<.*>`
    Anything,
    Literal(String),
}

/// What the resources of one policy are to the actions that it names.
#[derive(Default)]
struct Resources {
    client_ids: Vec<String>,
    any_client_id: bool,
    /// Of messages.
    topics: Vec<String>,
    /// Of subscriptions.
    filters: Vec<String>,
}

/// Reads a policy or a list of them; records what cannot be kept exactly.
pub(super) fn read(text: &str, place: &Place, report: &Report) -> Vec<Draft> {
    let Some(node) = parse_json(text, place, report) else { return Vec::new() };
    let policies: Vec<&Node> = match &node.value {
        Value::List(policies) => policies.iter().collect(),
        _ => vec![&node],
    };
    policies.into_iter().flat_map(|node| policy(Section::root(node, place, None, report))).collect()
}

fn policy(mut section: Section<'_>) -> Vec<Draft> {
    section.require(&["subjects", "actions", "resources", "effect"]);
    let line = section.place().line.unwrap_or_default();
    let id = section.text("id").map(|id| id.value).filter(|id| !id.is_empty());
    let description = section.text("description").map(|text| text.value).unwrap_or_default();
    section.has("meta");
    let denies = section.one_of("effect", &[("allow", false), ("deny", true)]).unwrap_or(true);
    let principals: Vec<String> = each(&mut section, "subjects", |text| Ok(vec![subject(text)?]));
    let actions: Vec<&'static str> = each(&mut section, "actions", action);
    let resources = resources(&mut section, denies, &actions);
    let conditions = conditions(&mut section);
    section.finish();
    let base = Draft {
        origin: format!("line {line}: {description}").trim_end_matches([':', ' ']).to_owned(),
        sid: id.unwrap_or_else(|| format!("line-{line}")),
        denies,
        principals,
        conditions,
        ..Draft::default()
    };
    drafts(&base, &actions, resources)
}

/// One statement each for connecting, for messages and for subscriptions.
fn drafts(base: &Draft, actions: &[&'static str], resources: Resources) -> Vec<Draft> {
    let with =
        |actions: Vec<&'static str>, resources: Vec<String>| Draft { actions, resources, ..base.clone() };
    let has = |action| actions.contains(&action);
    let Resources { client_ids, any_client_id, topics, filters } = resources;
    let messages: Vec<_> =
        ["publish", "will", "deliver"].into_iter().filter(|action| actions.contains(action)).collect();
    let mut drafts = Vec::new();
    if has("connect") && any_client_id {
        drafts.push(with(vec!["connect"], Vec::new()));
    } else if has("connect") && !client_ids.is_empty() {
        drafts.push(with(vec!["connect"], client_ids));
    }
    if !messages.is_empty() && !topics.is_empty() {
        drafts.push(with(messages, topics));
    }
    if has("subscribe") && !filters.is_empty() {
        drafts.push(with(vec!["subscribe"], filters.clone()));
        if !base.denies {
            drafts.push(Draft::unshared(&format!("{}-unshared", base.sid), &base.principals, filters));
        }
    }
    drafts
}

/// What `read` makes of each text that each template of a list stands for.
fn each<T>(
    section: &mut Section<'_>,
    key: &'static str,
    read: impl Fn(&[Part]) -> Result<Vec<T>, String>,
) -> Vec<T> {
    let mut all = Vec::new();
    for Given { value, place } in section.texts(key).unwrap_or_default() {
        let read = expand(&value).and_then(|texts| {
            let read: Result<Vec<Vec<T>>, String> = texts.iter().map(|text| read(text)).collect();
            read.map_err(|message| format!("\"{value}\": {message}"))
        });
        all.extend(section.check(&place, read).into_iter().flatten().flatten());
    }
    all
}

fn subject(text: &[Part]) -> Result<String, String> {
    match text {
        [Part::Anything] => Ok("*".into()),
        [Part::Literal(id)] => client(id),
        _ => Err("a principal is compared whole: only <.*> alone can be kept".into()),
    }
}

fn action(text: &[Part]) -> Result<Vec<&'static str>, String> {
    let known = match text {
        [Part::Anything] => return Ok(ACTIONS.to_vec()),
        [Part::Literal(word)] => ACTIONS.iter().find(|action| *action == word),
        _ => None,
    };
    let action = known.ok_or_else(|| format!("is no action of mgate ({})", ACTIONS.join(", ")))?;
    Ok(vec![action])
}

fn resources(section: &mut Section<'_>, denies: bool, actions: &[&'static str]) -> Resources {
    let mut resources = Resources::default();
    let read = each(section, "resources", |text| Ok(vec![resource(text, denies, actions)?]));
    for Resources { client_ids, any_client_id, topics, filters } in read {
        resources.client_ids.extend(client_ids);
        resources.any_client_id |= any_client_id;
        resources.topics.extend(topics);
        resources.filters.extend(filters);
    }
    resources
}

fn resource(text: &[Part], denies: bool, actions: &[&'static str]) -> Result<Resources, String> {
    let [Part::Literal(first), rest @ ..] = text else {
        return Err("does not begin with topic: or client_id:, so that nobody knows what it names".into());
    };
    if let Some(name) = first.strip_prefix("client_id:") {
        return client_ids(name, rest);
    }
    let Some(first) = first.strip_prefix("topic:") else {
        return Err("is neither topic:… nor client_id:…".into());
    };
    let mut resources = Resources::default();
    if actions.iter().any(|action| !["connect", "subscribe"].contains(action)) {
        resources.topics.push(topic(&topics(first, rest)?)?);
    }
    if actions.contains(&"subscribe") {
        resources.filters.push(topic(&filters(first, rest, denies)?)?);
    }
    Ok(resources)
}

fn client_ids(name: &str, rest: &[Part]) -> Result<Resources, String> {
    let (client_ids, any_client_id) = match rest {
        [] if name.contains("${") || name.ends_with('*') => {
            return Err("cannot have `${` or `*` in it as plain text".into());
        }
        [] => (vec![client_id(name)?], false),
        [Part::Anything] if name.is_empty() => (Vec::new(), true),
        [Part::Anything] if !name.contains("${") => (vec![client_id(&format!("{name}*"))?], false),
        _ => return Err("of a client id, only <.*> at the end can be kept".into()),
    };
    Ok(Resources { client_ids, any_client_id, ..Resources::default() })
}

/// The topics of messages, as a filter.
fn topics(first: &str, rest: &[Part]) -> Result<String, String> {
    let mut filter = plain(first)?;
    let mut rest = rest.iter().peekable();
    while let Some(part) = rest.next() {
        let begins_level = filter.ends_with('/');
        let ends_level =
            rest.peek().is_none_or(|next| matches!(next, Part::Literal(text) if text.starts_with('/')));
        match part {
            Part::Literal(text) => filter.push_str(&plain(text)?),
            Part::AnyLevel if begins_level && ends_level => filter.push('+'),
            Part::AnyLevel => return Err("<[^/]*> must be a whole level, and not the first".into()),
            Part::Anything if begins_level && rest.peek().is_none() => filter.push_str("+/#"),
            Part::Anything => return Err(ANYTHING.into()),
        }
    }
    Ok(filter)
}

/// The filters of subscriptions; of those that begin alike, the widest is one.
fn filters(first: &str, rest: &[Part], denies: bool) -> Result<String, String> {
    match rest {
        [] if denies => plain(first),
        [] if first.contains("${") => Err("cannot have `${` in it as plain text".into()),
        [] => Ok(first.to_owned()),
        [Part::Anything] if denies => {
            Err("a deny of subscriptions compares texts, and would let wider filters through".into())
        }
        [Part::Anything] if first.ends_with('/') => Ok(format!("{}#", plain(first)?)),
        [Part::Anything] => Err(ANYTHING.into()),
        _ => Err("of a filter, only <.*> as the last level can be kept".into()),
    }
}

/// Text in which nothing is a wildcard or a variable of mgate.
fn plain(text: &str) -> Result<String, String> {
    if text.contains("${") || text.contains(['+', '#']) {
        return Err("cannot have `+`, `#` or `${` in it as plain text".into());
    }
    Ok(text.to_owned())
}

/// Conditions of a statement, in TOML.
fn conditions(section: &mut Section<'_>) -> Vec<String> {
    let (mut attributes, mut blocks) = (Vec::new(), Vec::new());
    for (name, mut condition) in section.named("conditions") {
        condition.require(&["type"]);
        let kind = condition.text("type").map(|kind| kind.value).unwrap_or_default();
        let mut options = condition.section("options");
        let mut option = |key| {
            options.require(&[key]);
            let text = options.text(key).map(|text| text.value).unwrap_or_default();
            options.finish();
            text
        };
        match (kind.as_str(), name.value.as_str()) {
            ("CIDRCondition", "remoteIP" | "remoteIPAddress") if blocks.is_empty() => {
                blocks.push(format!("cidr = {{ peer = {} }}", quote(&option("cidr"))));
            }
            ("CIDRCondition", _) => condition.problem("type", "only one can be kept, of remoteIP"),
            ("StringEqualCondition", key) if is_attribute(key) => {
                attributes.push(format!("{} = {}", quote(key), quote(&option("equals"))));
            }
            ("StringEqualCondition", _) => {
                condition.problem("type", "is about no attribute that mgate knows, such as claims.role");
            }
            _ => condition.problem("type", format!("\"{kind}\" has no counterpart")),
        }
        condition.finish();
    }
    let attributes =
        (!attributes.is_empty()).then(|| format!("string_equals = {{ {} }}", attributes.join(", ")));
    blocks.into_iter().chain(attributes).collect()
}

/// All texts that a template stands for.
fn expand(template: &str) -> Result<Vec<Text>, String> {
    let mut texts: Vec<Text> = vec![Vec::new()];
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('<') {
        let of = |message| format!("\"{template}\": {message}");
        let (expression, after) = after.split_once('>').ok_or_else(|| of("a `<` without `>`".into()))?;
        let choices = choices(expression).map_err(of)?;
        if texts.len() * choices.len() > MAX_TEXTS {
            return Err(of(format!("stands for more than {MAX_TEXTS} texts")));
        }
        let with =
            |text: &Text, choice: &Part| longer(longer(text.clone(), &Part::Literal(before.into())), choice);
        texts = texts.iter().flat_map(|text| choices.iter().map(|choice| with(text, choice))).collect();
        rest = after;
    }
    Ok(texts.into_iter().map(|text| longer(text, &Part::Literal(rest.into()))).collect())
}

/// The text with one more part, where plain text grows together.
fn longer(mut text: Text, part: &Part) -> Text {
    match (text.last_mut(), part) {
        (_, Part::Literal(more)) if more.is_empty() => {}
        (Some(Part::Literal(before)), Part::Literal(more)) => before.push_str(more),
        _ => text.push(part.clone()),
    }
    text
}

/// What an expression stands for.
fn choices(expression: &str) -> Result<Vec<Part>, String> {
    match expression {
        ".*" => return Ok(vec![Part::Anything]),
        "[^/]*" => return Ok(vec![Part::AnyLevel]),
        _ => {}
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-/:@ ".contains(&byte);
    expression
        .split('|')
        .map(|choice| match choice.bytes().all(is_plain) {
            true => Ok(Part::Literal(choice.into())),
            false => {
                Err(format!("<{expression}> has no counterpart: only <.*>, <[^/]*> and <a|b> can be kept"))
            }
        })
        .collect()
}

fn is_attribute(key: &str) -> bool {
    let is_dotted = key.contains('.') && key.split('.').all(|part| !part.is_empty());
    is_dotted || ["client_id", "group", "principal", "tenant", "username"].contains(&key)
}

const ACTIONS: &[&str] = &["connect", "publish", "will", "subscribe", "deliver"];
const ANYTHING: &str = "<.*> must be the last level, and not the first: no wildcard here takes a part of one, \
                        nor topics that begin with `$`";
const MAX_TEXTS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::super::Source;
    use super::super::tests::{may, refusals, rules};

    #[test]
    fn rights_are_those_of_the_policies() {
        let rules = rules(Source::Ladon, POLICIES);
        for (who, action, resource, expected) in [
            ("peter", "connect", "press-1", true),
            ("peter", "connect", "drill-1", true),
            ("peter", "connect", "lathe-1", false),
            ("maria", "connect", "press-1", false),
            ("peter", "publish", "machines/1/data", true),
            ("peter", "will", "machines/1/data", true),
            ("peter", "publish", "machines/1/2/data", false),
            ("peter", "publish", "machines", false),
            ("ken", "publish", "articles/a/b", true),
            ("ken", "publish", "articles", false),
            ("ken", "subscribe", "articles/#", true),
            ("ken", "subscribe", "articles/+", true),
            ("ken", "subscribe", "$share/g/articles/+", false),
            ("ken", "subscribe", "#", false),
            ("ken", "deliver", "articles/a", true),
            ("ken", "publish", "articles/secret", false),
            ("ken", "publish", "articles/secrets", true),
            ("maria", "publish", "articles/a", false),
        ] {
            assert_eq!(may(&rules, who, action, resource), expected, "{who} {action} {resource}");
        }
    }

    #[test]
    fn one_policy_may_stand_alone() {
        let rules = rules(Source::Ladon, &policy("allow", "peter", "subscribe", "topic:a/+", "{}"));
        assert!(may(&rules, "peter", "subscribe", "a/+") && !may(&rules, "peter", "subscribe", "a/#"));
    }

    #[test]
    fn conditions_bind() {
        let with = |conditions: &str| {
            rules(Source::Ladon, &policy("allow", "<.*>", "publish", "topic:a", conditions))
        };
        let cidr = |block: &str| {
            with(&format!(
                "{{\"remoteIP\": {{\"type\": \"CIDRCondition\", \"options\": {{\"cidr\": \"{block}\"}}}}}}"
            ))
        };
        assert!(may(&cidr("192.168.0.0/16"), "peter", "publish", "a"));
        assert!(!may(&cidr("10.0.0.0/8"), "peter", "publish", "a"));
        let two = with(
            "{\"principal\": {\"type\": \"StringEqualCondition\", \"options\": {\"equals\": \"peter\"}}, \
              \"client_id\": {\"type\": \"StringEqualCondition\", \"options\": {\"equals\": \"id-1\"}}}",
        );
        assert!(may(&two, "peter", "publish", "a") && !may(&two, "ken", "publish", "a"));
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_line() {
        for (effect, subject, action, resource, expected) in [
            ("allow", "users:<.*>", "publish", "topic:a", "only <.*> alone can be kept"),
            ("allow", "<[0-9]+>", "publish", "topic:a", "<[0-9]+> has no counterpart"),
            ("allow", "a*", "publish", "topic:a", "`*` stands alone in a principal"),
            ("allow", "a", "delete", "topic:a", "is no action of mgate"),
            ("allow", "a", "<p.*>", "topic:a", "has no counterpart"),
            ("allow", "a", "publish", "<.*>", "does not begin with topic: or client_id:"),
            ("allow", "a", "publish", "articles:a", "is neither topic:… nor client_id:…"),
            ("allow", "a", "publish", "topic:<.*>", "<.*> must be the last level, and not the first"),
            ("allow", "a", "publish", "topic:a<.*>", "<.*> must be the last level"),
            ("allow", "a", "publish", "topic:a/<.*>/b", "<.*> must be the last level"),
            ("allow", "a", "publish", "topic:a/<.+>", "<.+> has no counterpart"),
            ("allow", "a", "publish", "topic:<[^/]*>/a", "must be a whole level, and not the first"),
            ("allow", "a", "publish", "topic:a/b<[^/]*>", "must be a whole level"),
            ("allow", "a", "publish", "topic:a/#", "cannot have `+`, `#` or `${` in it"),
            ("allow", "a", "publish", "topic:${principal}", "cannot have `+`, `#` or `${` in it"),
            ("allow", "a", "subscribe", "topic:${principal}", "cannot have `${` in it"),
            ("allow", "a", "subscribe", "topic:a/<[^/]*>", "only <.*> as the last level"),
            ("allow", "a", "subscribe", "topic:$share/g/a", "a topic has no `$share/<group>/`"),
            ("deny", "a", "subscribe", "topic:a/#", "cannot have `+`, `#` or `${` in it"),
            ("deny", "a", "subscribe", "topic:a/<.*>", "would let wider filters through"),
            ("allow", "a", "connect", "client_id:a*", "cannot have `${` or `*` in it"),
            ("allow", "a", "connect", "client_id:<.*>a", "only <.*> at the end"),
            ("allow", "a", "publish", "topic:<a", "a `<` without `>`"),
        ] {
            let found = refusals(Source::Ladon, &policy(effect, subject, action, resource, "{}"));
            assert!(found.len() == 1 && found[0].starts_with("rules:2: "), "{resource}: {found:?}");
            assert!(found[0].contains(expected), "{resource}: {found:?}");
        }
        for (name, kind) in [
            ("owner", "EqualsSubjectCondition"),
            ("localIP", "CIDRCondition"),
            ("rank", "StringEqualCondition"),
        ] {
            let conditions = format!("{{\"{name}\": {{\"type\": \"{kind}\", \"options\": {{}}}}}}");
            let found = refusals(Source::Ladon, &policy("allow", "a", "publish", "topic:a", &conditions));
            assert!(found[0].contains(&format!("conditions.{name}.type: ")), "{found:?}");
        }
    }

    #[test]
    fn template_of_too_many_texts_is_refused() {
        let many = "<a|b|c|d|e|f|g|h|i|j>".repeat(4);
        let found = refusals(Source::Ladon, &policy("allow", "a", "publish", &format!("topic:{many}"), "{}"));
        assert!(found[0].contains("stands for more than 1000 texts"), "{found:?}");
    }

    fn policy(effect: &str, subject: &str, action: &str, resource: &str, conditions: &str) -> String {
        format!(
            "{{ \"id\": \"1\",\n\"subjects\": [\"{subject}\"], \"actions\": [\"{action}\"], \
             \"resources\": [\"{resource}\"], \"effect\": \"{effect}\", \"conditions\": {conditions} }}"
        )
    }

    const POLICIES: &str = r#"[
  {
    "id": "operators",
    "description": "Operators of machines.",
    "subjects": ["peter"],
    "actions": ["connect", "<publish|deliver>"],
    "resources": ["client_id:<press|drill>-<.*>", "topic:machines/<[^/]*>/data"],
    "effect": "allow",
    "conditions": {}
  },
  {
    "subjects": ["<peter|ken>"],
    "actions": ["publish", "subscribe"],
    "resources": ["topic:articles/<.*>"],
    "effect": "allow",
    "meta": ""
  },
  {
    "subjects": ["<.*>"],
    "actions": ["publish"],
    "resources": ["topic:articles/secret"],
    "effect": "deny"
  }
]
"#;
}
