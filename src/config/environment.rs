use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// The variables that begin with `MGATE_`; each overrides the value of one key.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, Variable>);

#[derive(Clone, Debug)]
struct Variable {
    text: String,
    is_used: Cell<bool>,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        let text =
            |(name, text): (OsString, OsString)| Some((name.into_string().ok()?, text.into_string().ok()?));
        std::env::vars_os().filter_map(text).collect()
    }

    /// The names of those whose values count.
    pub fn used(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, variable)| variable.is_used.get()).map(|(name, _)| name.as_str())
    }

    /// The names of those that stand for no key that was looked for; without those that Kubernetes sets where a service
    /// is named like this program.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let is_unused = |(name, variable): &(&String, &Variable)| {
            !variable.is_used.get() && !is_of_kubernetes(name, &variable.text)
        };
        self.0.iter().filter(is_unused).map(|(name, _)| name.as_str())
    }

    /// All variables that begin with `prefix` and an underscore, from that on, with their texts.
    pub(crate) fn inside(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(move |(name, variable)| {
            let name = name.strip_prefix(prefix).filter(|name| name.starts_with('_'))?;
            Some((name, &*variable.text))
        })
    }

    /// The text of one variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let variable = self.0.get(name)?;
        variable.is_used.set(true);
        Some(&variable.text)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let ours = variables.into_iter().filter(|(name, _)| name.starts_with("MGATE_"));
        Self(ours.map(|(name, text)| (name, Variable { text, is_used: Cell::new(false) })).collect())
    }
}

/// The variable of `name` inside of what `prefix` is the variable of.
pub(crate) fn variable_of(prefix: &str, name: &str) -> String {
    let name = name.replace(['-', '.'], "_").to_uppercase();
    format!("{prefix}_{name}")
}

/// Whether a variable tells where a service is: `MGATE_SERVICE_HOST`, `MGATE_PORT_1883_TCP` and such.
fn is_of_kubernetes(name: &str, text: &str) -> bool {
    let has_number = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && text.contains("://"))
        || name.split_once("_PORT_").is_some_and(|(_, rest)| has_number(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_says_of_services_is_no_mistake() {
        let variables = [
            ("MGATE_SERVICE_HOST", "10.0.0.1"),
            ("MGATE_SERVICE_PORT_MQTT", "1883"),
            ("MGATE_MQTT_PORT", "tcp://10.0.0.1:1883"),
            ("MGATE_PORT_1883_TCP_ADDR", "10.0.0.1"),
            ("MGATE_ROUTE_DEVICES_LISTNE", "mqtt://0.0.0.0:1883"),
            ("MGATE_PORT", "1883"),
        ];
        let environment: Environment =
            variables.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        assert!(environment.unused().eq(["MGATE_PORT", "MGATE_ROUTE_DEVICES_LISTNE"]));
    }
}
