use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use mgate_policies::{
    Action, Attributes, Client, Decision, Grant, Now, Outcome, Principal, Protocol, Query, SessionLimits,
    Word,
};
use mgate_proxy::gate::no_decision_in_time;
use serde_json::{Map, Value, json};

use super::{Global, print};
use crate::config::{Config, Environment, RouteConfig, Speech};
use crate::question::{ACTIONS, Question};

/// Ask a route's policies one question, and say what each of them answers.
///
/// All policies are asked, also those behind a deny, which a session would not ask any more. Services that
/// policies ask are asked now.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "mgate.toml")]
    config: PathBuf,
    /// The route whose policies are asked
    #[arg(long, value_name = "NAME")]
    route: String,
    /// The client identifier
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    client_id: String,
    /// Who the client was found to be; without it, it is anonymous
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    principal: String,
    /// The tenant that it belongs to
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    tenant: String,
    /// The user name that it sent
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// A group that it is in (may be repeated)
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    /// What else authentication found out, as claims.channel=42 (may be repeated)
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// The address that it comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    peer: IpAddr,
    /// What it wants to do: connect, publish, will, subscribe, deliver, request or observe
    #[arg(long, value_name = "ACTION", value_parser = action)]
    action: Action,
    /// The topic of the message
    #[arg(long, required_if_eq_any([("action", "publish"), ("action", "will"), ("action", "deliver")]))]
    topic: Option<String>,
    /// The filter of the subscription, with its $share/GROUP/ if it is shared
    #[arg(long, required_if_eq("action", "subscribe"), conflicts_with = "topic")]
    filter: Option<String>,
    /// The path of the request, decoded
    #[arg(long, required_if_eq_any([("action", "request"), ("action", "observe")]), conflicts_with_all = ["topic", "filter"])]
    path: Option<String>,
    /// The method of the request
    #[arg(long, required_if_eq_any([("action", "request"), ("action", "observe")]), requires = "path")]
    method: Option<String>,
    /// The quality of service
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// The message is (to be) retained
    #[arg(long)]
    retain: bool,
}

/// What came of a question.
struct Explanation<'a> {
    words: Vec<Word<'a>>,
    outcome: Outcome,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let config = Config::load(&self.config, &Environment::of_process())?;
        let route = self.find(&config.routes)?;
        let question = self.question(route)?;
        let query = question.query().with_context(|| question.resource.clone())?;
        let explanation = explain(route, &query)?;
        if global.json {
            return print(explanation.json(route, &query));
        }
        for line in explanation.lines() {
            print(line)?;
        }
        if self.action == Action::Connect && self.client_id.is_empty() && explanation.is_denied() {
            print("the client identifier was empty: --client-id says another")?;
        }
        Ok(())
    }

    fn find<'a>(&self, routes: &'a [RouteConfig]) -> anyhow::Result<&'a RouteConfig> {
        routes.iter().find(|route| *route.name == *self.route).with_context(|| {
            let names: Vec<&str> = routes.iter().map(|route| &*route.name).collect();
            format!("no route {} ({})", self.route, names.join(", "))
        })
    }

    fn question(&self, route: &RouteConfig) -> anyhow::Result<Question> {
        let given = [&self.topic, &self.filter, &self.path];
        let wanted = match self.action {
            Action::Connect => &None,
            Action::Observe | Action::Request => &self.path,
            Action::Subscribe => &self.filter,
            _ => &self.topic,
        };
        // they exclude each other
        if wanted.is_none() && given.iter().any(|resource| resource.is_some()) {
            bail!("`{}` has no use for the topic, filter or path that is given", self.action);
        }
        if let (Some(path), Some(place)) = (&self.path, route.place())
            && !place.takes_path(path)
        {
            bail!("no request for {path} comes to route {}, which serves {}", route.name, place.path);
        }
        Ok(Question {
            client: self.client(route),
            action: self.action,
            resource: wanted.clone().unwrap_or_default(),
            method: self.method.clone().unwrap_or_default(),
            qos: self.qos,
            retain: self.retain,
        })
    }

    fn client(&self, route: &RouteConfig) -> Client {
        let mut attributes = Attributes::default();
        for (name, value) in &self.attributes {
            attributes.add(name, value);
        }
        let principal = Principal {
            tenant: self.tenant.as_str().into(),
            id: self.principal.as_str().into(),
            groups: self.groups.iter().map(|group| group.as_str().into()).collect(),
            attributes,
            expires: None,
        };
        Client {
            principal,
            client_id: self.client_id.as_str().into(),
            username: self.username.as_deref().map(Into::into),
            peer: SocketAddr::new(self.peer, 0),
            route: Arc::clone(&route.name),
            protocol: match route.speech {
                Speech::Coap(_) => Protocol::Coap,
                Speech::Http(_) => Protocol::Http,
                Speech::Mqtt(_) => Protocol::Mqtt,
            },
            is_encrypted: route.listen.scheme.is_tls(),
        }
    }
}

impl Explanation<'_> {
    fn lines(&self) -> Vec<String> {
        let name_width = self.words.iter().map(|word| word.policy.chars().count()).max().unwrap_or(0);
        let line = |word: &Word<'_>| {
            let (name, said, by) = (word.policy, said(&word.decision), by(&word.decision));
            let notes = [
                by,
                word.took_time.then(|| "(after a while)".into()),
                (!word.is_enforced).then(|| "(not enforced)".into()),
            ];
            let notes: Vec<String> = notes.into_iter().flatten().collect();
            format!("{name:name_width$}  {said:7}  {}", notes.join(" ")).trim_end().to_owned()
        };
        let mut lines: Vec<String> = self.words.iter().map(line).collect();
        lines.push(match &self.outcome {
            Outcome::Allowed(_, None) => "result: allow".into(),
            Outcome::Allowed(_, Some(objection)) => {
                format!("result: allow, because {} is not enforced", objection.policy)
            }
            Outcome::Denied(reason) => format!("result: deny, {reason}"),
            Outcome::Pending(..) => "result: deny, because nothing was decided".into(),
        });
        let terms: Vec<String> =
            self.session().into_iter().map(|(term, value)| format!("{term} = {value}")).collect();
        if !terms.is_empty() {
            lines.push(format!("session: {}", terms.join(", ")));
        }
        lines
    }

    /// What comes with the leave for the whole session, by name.
    fn session(&self) -> Map<String, Value> {
        let Outcome::Allowed(Grant { session, ends_after, .. }, _) = &self.outcome else { return Map::new() };
        let session = session.clone().unwrap_or_default();
        let SessionLimits { messages_per_second, packet_bytes, subscriptions } = session.limits();
        let terms = [
            ("disconnect_after", ends_after.map(|after| json!(after.as_secs()))),
            ("messages_per_second", messages_per_second.map(Value::from)),
            ("packet_bytes", packet_bytes.map(Value::from)),
            ("subscriptions", subscriptions.map(Value::from)),
            ("topic_prefix", session.topic_prefix().map(|prefix| prefix.as_str().into())),
        ];
        terms.into_iter().filter_map(|(term, value)| Some((term.into(), value?))).collect()
    }

    fn json(&self, route: &RouteConfig, query: &Query<'_>) -> Value {
        let word = |word: &Word<'_>| {
            let (said, by) = (said(&word.decision), by(&word.decision));
            let Word { policy, is_enforced, took_time, .. } = word;
            json!({ "policy": policy, "enforced": is_enforced, "decision": said, "by": by, "took_time": took_time })
        };
        let (reason, would_be_denied_by) = match &self.outcome {
            Outcome::Denied(reason) => (Some(reason.to_string()), None),
            Outcome::Allowed(_, Some(objection)) => (None, Some(&*objection.policy)),
            _ => (None, None),
        };
        json!({
            "route": *route.name,
            "action": query.action.to_string(),
            "resource": query.resource.to_string(),
            "policies": self.words.iter().map(word).collect::<Vec<_>>(),
            "result": if self.is_denied() { "deny" } else { "allow" },
            "reason": reason,
            "would_be_denied_by": would_be_denied_by,
            "session": self.session(),
        })
    }

    fn is_denied(&self) -> bool {
        !matches!(self.outcome, Outcome::Allowed(..))
    }
}

/// Asks as a session would: a decision that does not come in the route's time is a deny.
fn explain<'a>(route: &'a RouteConfig, query: &Query<'_>) -> anyhow::Result<Explanation<'a>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let timeout: Duration = route.limits.decision_timeout;
    let wait = async |decision| {
        let late = |_| Decision::Deny(no_decision_in_time());
        tokio::time::timeout(timeout, decision).await.unwrap_or_else(late)
    };
    let (words, outcome) = runtime.block_on(route.policies.explain(query, Now::read(), wait));
    Ok(Explanation { words, outcome })
}

fn said(decision: &Decision) -> &'static str {
    match decision {
        Decision::Abstain => "abstain",
        Decision::Allow(_) => "allow",
        Decision::Deny(_) => "deny",
    }
}

/// What allowed or denied it: a statement, or what a service answered.
fn by(decision: &Decision) -> Option<String> {
    match decision {
        Decision::Abstain => None,
        Decision::Allow(grant) => grant.by.as_deref().map(str::to_owned),
        Decision::Deny(reason) => Some(reason.to_string()),
    }
}

fn action(text: &str) -> Result<Action, String> {
    let known = ACTIONS.iter().find(|(word, _)| *word == text).map(|(_, action)| *action);
    known.ok_or_else(|| {
        let words: Vec<&str> = ACTIONS.iter().map(|(word, _)| *word).collect();
        format!("must be one of {}", words.join(", "))
    })
}

fn attribute(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if name.contains('.') => Ok((name.into(), value.into())),
        _ => Err("must be a dotted name, = and a value"),
    }
}

const EXAMPLES: &str = "\
Examples:
  mgate policy explain --route devices --principal dev-1 --client-id dev-1 --action connect
  mgate policy explain --route devices --principal dev-1 --action publish --topic devices/dev-1/data --qos 1
  mgate policy explain --route devices --group ops --action subscribe --filter '$share/ops/alarms/#' --json";
