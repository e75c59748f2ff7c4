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

    /// The names of those that stand for no key that was looked for.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, variable)| !variable.is_used.get()).map(|(name, _)| name.as_str())
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
