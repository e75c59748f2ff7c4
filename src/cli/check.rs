use serde_json::{Value, json};

use super::{ConfigFile, Global, listed, print};
use crate::config::{Config, Environment, Problem, Problems, RouteConfig};

/// Say what a configuration does, or all that is wrong with it; nothing listens.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let environment = Environment::of_process();
        let config = Config::load(self.file.path(), &environment)?;
        if !config.unready.is_empty() {
            return Err(Problems(config.unready).into());
        }
        if global.json {
            return print(json_config(&config, &environment));
        }
        print(format_args!("{} is good\n", self.file.path().display()))?;
        for line in table(&config.routes) {
            print(line)?;
        }
        if let Some(names) = listed(environment.used()) {
            print(format_args!("\nfrom the environment: {names}"))?;
        }
        if let Some(names) = listed(environment.unused()) {
            print(format_args!("\nwarning: variables that stand for no key: {names}"))?;
        }
        for warning in &config.warnings {
            print(format_args!("\nwarning: {warning}"))?;
        }
        Ok(())
    }
}

/// What is wrong, for programs.
pub(super) fn json_problems(problems: &Problems) -> Value {
    json!({ "problems": problems.0.iter().map(Problem::json).collect::<Vec<_>>() })
}

fn json_config(config: &Config, environment: &Environment) -> Value {
    json!({
        "environment": environment.used().collect::<Vec<_>>(),
        "unknown_variables": environment.unused().collect::<Vec<_>>(),
        "routes": config.routes.iter().map(json_route).collect::<Vec<_>>(),
        "warnings": config.warnings.iter().map(Problem::json).collect::<Vec<_>>(),
    })
}

fn json_route(route: &RouteConfig) -> Value {
    json!({
        "name": *route.name,
        "listen": route.listen.to_string(),
        "hosts": route.place().map(|place| &place.hosts),
        "path": route.path(),
        "upstream": route.upstream.as_ref().map(ToString::to_string),
        "authn": route.authn,
        "transforms": route.transform_names,
        "policies": route.policy_names,
        "not_enforced": not_enforced(route).collect::<Vec<_>>(),
        "mirror": route.mirror_name,
    })
}

fn table(routes: &[RouteConfig]) -> Vec<String> {
    let head = ["ROUTE", "LISTEN", "UPSTREAM", "AUTHN", "TRANSFORMS", "POLICIES", "MIRROR"].map(String::from);
    let rows: Vec<[String; 7]> = [head].into_iter().chain(routes.iter().map(row)).collect();
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(route: &RouteConfig) -> [String; 7] {
    let list = |names: &[String], none: &str| if names.is_empty() { none.into() } else { names.join(", ") };
    let policy = |name: &String| match not_enforced(route).any(|other| other == name) {
        true => format!("{name} (not enforced)"),
        false => name.clone(),
    };
    let policies: Vec<String> = route.policy_names.iter().map(policy).collect();
    [
        route.name.to_string(),
        listen(route),
        route.upstream.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        list(&route.authn, "(anonymous)"),
        list(&route.transform_names, "-"),
        list(&policies, "(deny all)"),
        route.mirror_name.clone().unwrap_or_else(|| "-".into()),
    ]
}

/// Where it listens, and what it takes of what comes there: `http://[::]:80/api (a.example)`.
fn listen(route: &RouteConfig) -> String {
    let mut text = route.listen.to_string();
    text.push_str(route.path().unwrap_or_default().trim_end_matches('/'));
    let hosts = route.place().map(|place| place.hosts.join(", ")).filter(|hosts| !hosts.is_empty());
    if let Some(hosts) = hosts {
        text.push_str(&format!(" ({hosts})"));
    }
    text
}

/// The names of policies that are only tried out.
fn not_enforced(route: &RouteConfig) -> impl Iterator<Item = &str> {
    route.policies.iter().filter(|standing| !standing.is_enforced).map(|standing| standing.policy.name())
}

const EXAMPLES: &str = "\
Examples:
  mgate check mgate.toml
  mgate check --json mgate.toml";
