//! Rules of other systems, written as a static policy.
//!
//! What they say is kept exactly or refused, with its place: nobody gets a right by moving to mgate.

mod aws_iot;
mod ladon;
mod mosquitto;

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

use mgate_policies::static_rules::{ResourcePattern, Who};

use crate::config::{Place, Problems, Report, policy_of_text};

/// Whose rules they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Source {
    /// A policy document of AWS IoT.
    AwsIot,
    /// A policy, or a list of policies, of Ladon.
    Ladon,
    /// An `acl_file` of mosquitto.
    Mosquitto,
}

/// A statement to be written.
#[derive(Clone, Debug, Default)]
struct Draft {
    /// What it comes from, as it stands there.
    origin: String,
    sid: String,
    denies: bool,
    principals: Vec<String>,
    actions: Vec<&'static str>,
    resources: Vec<String>,
    /// Keys and values of the conditions, in TOML.
    conditions: Vec<String>,
}

/// Reads `text`, which stands in the file `path`, and writes it as a policy in TOML. `principals` are those
/// whom rules speak of that do not say it themselves.
pub(crate) fn import(
    source: Source,
    path: &Path,
    text: &str,
    principals: &[String],
) -> Result<String, Problems> {
    let report = Report::default();
    let place = Place::file(path);
    let (head, drafts) = match source {
        Source::AwsIot => (aws_iot::HEAD, aws_iot::read(text, &place, principals, &report)),
        Source::Ladon => (ladon::HEAD, ladon::read(text, &place, &report)),
        Source::Mosquitto => (mosquitto::HEAD, mosquitto::read(text, &place, &report)),
    };
    report.finish()?;
    let policy = render(head, &drafts);
    policy_of_text("imported", &policy)?;
    Ok(policy)
}

/// Writes the statements, each under what it comes from, and gives each a name of its own.
fn render(head: &str, drafts: &[Draft]) -> String {
    let mut text = String::new();
    for line in head.lines() {
        let _ = writeln!(text, "{}", format!("# {line}").trim_end());
    }
    text.push_str("version = 1\n");
    if drafts.is_empty() {
        text.push_str("statements = []\n");
    }
    let mut taken = HashSet::new();
    for draft in drafts {
        let sid = free_name(&draft.sid, &mut taken);
        let _ = write!(text, "\n{}", draft.render(&sid));
    }
    text
}

impl Draft {
    fn render(&self, sid: &str) -> String {
        let mut lines = Vec::new();
        if !self.origin.is_empty() {
            lines.push(format!("# {}", self.origin.replace(char::is_control, "?")));
        }
        lines.push("[[statements]]".into());
        lines.push(format!("sid = {}", quote(sid)));
        lines.push(format!("effect = \"{}\"", if self.denies { "deny" } else { "allow" }));
        lines.push(format!("principals = {}", list(&self.principals)));
        lines.push(format!("actions = {}", list(&self.actions)));
        if !self.resources.is_empty() {
            lines.push(format!("resources = {}", list(&self.resources)));
        }
        if !self.conditions.is_empty() {
            lines.push(format!("conditions = {{ {} }}", self.conditions.join(", ")));
        }
        lines.join("\n") + "\n"
    }

    /// A deny of all shared subscriptions to `resources`, for rules that compare filters as texts and so allow
    /// none that begins with `$share/`.
    fn unshared(sid: &str, principals: &[String], resources: Vec<String>) -> Self {
        Self {
            origin: "nothing there allows a shared subscription".into(),
            sid: sid.into(),
            denies: true,
            principals: principals.to_vec(),
            actions: vec!["subscribe"],
            resources,
            conditions: vec!["share_groups = [\"*\"]".into()],
        }
    }
}

/// A topic pattern of a policy; `filter` holds variables as mgate writes them.
fn topic(filter: &str) -> Result<String, String> {
    let resource = format!("topic:{filter}");
    ResourcePattern::parse(&resource).map(|_| resource).map_err(|error| error.to_string())
}

/// A client identifier's pattern of a policy.
fn client_id(pattern: &str) -> Result<String, String> {
    let resource = format!("client_id:{pattern}");
    ResourcePattern::parse(&resource).map(|_| resource).map_err(|error| error.to_string())
}

/// The principal with this identity.
fn client(id: &str) -> Result<String, String> {
    let who = format!("client:{id}");
    Who::parse(&who).map(|_| who).map_err(|error| error.to_string())
}

fn list<T: AsRef<str>>(texts: &[T]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quote(text.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A string as TOML writes it.
fn quote(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// The name itself, or with a number behind it that makes it the only one.
fn free_name(name: &str, taken: &mut HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let free = [name.to_owned()].into_iter().chain(numbered).find(|name| !taken.contains(name));
    let free = free.unwrap_or_default();
    taken.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use mgate_policies::static_rules::StaticRules;
    use mgate_policies::{Action, Answer, Client, Decision, Now, Policy, Principal, Protocol};

    use super::*;
    use crate::question::Question;

    /// The policy that a text becomes.
    pub(super) fn rules(source: Source, text: &str) -> StaticRules {
        let policy = import(source, Path::new("rules"), text, &["*".into()])
            .unwrap_or_else(|problems| panic!("{problems}"));
        policy_of_text("imported", &policy).unwrap_or_else(|problems| panic!("{problems}\n{policy}"))
    }

    /// What is refused of a text, with its line.
    pub(super) fn refusals(source: Source, text: &str) -> Vec<String> {
        match import(source, Path::new("rules"), text, &["*".into()]) {
            Ok(policy) => panic!("it is not refused: {policy}"),
            Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
        }
    }

    /// Whether the principal `who`, whose client identifier is `id-1`, may do that; `publish!` is retained.
    pub(super) fn may(rules: &StaticRules, who: &str, action: &str, resource: &str) -> bool {
        let (action, retain) = match action {
            "connect" => (Action::Connect, false),
            "deliver" => (Action::Deliver, false),
            "publish" => (Action::Publish, false),
            "publish!" => (Action::Publish, true),
            "subscribe" => (Action::Subscribe, false),
            "will" => (Action::Will, false),
            other => panic!("no action {other}"),
        };
        let client_id = if action == Action::Connect { resource } else { "id-1" };
        let client = Client {
            principal: Principal { id: who.into(), ..Principal::default() },
            client_id: client_id.into(),
            username: None,
            peer: SocketAddr::from((Ipv4Addr::new(192, 168, 0, 5), 1)),
            route: "devices".into(),
            protocol: Protocol::Mqtt,
            is_encrypted: false,
        };
        let question =
            Question { client, action, resource: resource.into(), method: String::new(), qos: 0, retain };
        let query = question.query().unwrap();
        matches!(rules.evaluate(&query, Now::read()), Answer::Ready(Decision::Allow(_)))
    }

    #[test]
    fn statements_of_one_name_get_numbers() {
        let draft = |sid: &str| Draft {
            sid: sid.into(),
            principals: vec!["*".into()],
            actions: vec!["connect"],
            ..Draft::default()
        };
        let text = render("", &[draft("a"), draft("a-2"), draft("a"), draft("a")]);
        let sids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("sid = ")).collect();
        assert_eq!(sids, ["\"a\"", "\"a-2\"", "\"a-3\"", "\"a-4\""]);
        assert!(policy_of_text("", &text).is_ok());
    }

    #[test]
    fn what_is_written_cannot_break_out_of_its_line() {
        let draft = Draft {
            origin: "a\nb\u{7f}".into(),
            sid: "\"]\n[[".into(),
            principals: vec!["client:a\"b\\".into()],
            actions: vec!["publish"],
            resources: vec!["topic:a\n\"".into()],
            ..Draft::default()
        };
        let text = render("one\ntwo", &[draft]);
        assert!(text.starts_with("# one\n# two\nversion = 1\n\n# a?b?\n[[statements]]\n"), "{text}");
        let rules = policy_of_text("", &text).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(may(&rules, "a\"b\\", "publish", "a\n\""));
    }
}
