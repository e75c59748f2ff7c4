//! Reads a table key by key, records what is wrong and goes on.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Entry, Node, Value};
use super::environment::{Environment, variable_of};
use super::problem::{Place, Report};
use super::values;

/// One table, and the variables that may override its values.
pub(crate) struct Section<'a> {
    report: &'a Report,
    environment: Option<&'a Environment>,
    place: Place,
    variable: String,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
    is_given: bool,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Given<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// A value before it was looked at.
enum Raw<'a> {
    Node(&'a Node),
    Variable(&'a str),
}

impl<'a> Section<'a> {
    /// The whole of a file. Without an environment, nothing overrides its values.
    pub(crate) fn root(
        node: &'a Node,
        file: &Place,
        environment: Option<&'a Environment>,
        report: &'a Report,
    ) -> Self {
        let place = Place { line: Some(node.line), ..file.clone() };
        let mut section = Self {
            report,
            environment,
            place,
            variable: "MGATE".into(),
            entries: &[],
            asked: Vec::new(),
            is_given: true,
        };
        section.take_entries(node);
        section
    }

    /// Any string.
    pub(crate) fn text(&mut self, key: &'static str) -> Option<Given<String>> {
        self.parse(key, |text| Ok(text.to_owned()))
    }

    /// A string that `read` understands.
    pub(crate) fn parse<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Given<T>> {
        self.read(key, |raw| match raw {
            Raw::Variable(text) => read(text),
            Raw::Node(Node { value: Value::Text(text), .. }) => read(text),
            Raw::Node(node) => Err(not_this("a string", node)),
        })
    }

    /// One of some words, each with what it means.
    pub(crate) fn one_of<T: Clone>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.parse(key, |text| choose(text, choices)).map(|given| given.value)
    }

    /// A whole number in `range`.
    pub(crate) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.read(key, |raw| match raw {
            Raw::Variable(text) => text.parse().map_err(|_| format!("\"{text}\" is not a whole number")),
            Raw::Node(Node { value: Value::Integer(number), .. }) => Ok(*number),
            Raw::Node(node) => Err(not_this("an integer", node)),
        })?;
        self.within(&number.map(i128::from), range, |number| number.to_string())
    }

    /// A number of bytes in `range`: an integer, or a string such as `"256KiB"`.
    pub(crate) fn bytes(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let bytes = self.read(key, |raw| match raw {
            Raw::Variable(text) => values::bytes(text),
            Raw::Node(Node { value: Value::Text(text), .. }) => values::bytes(text),
            Raw::Node(Node { value: Value::Integer(number), .. }) => Ok(i128::from(*number)),
            Raw::Node(node) => Err(not_this("an integer or a string such as \"256KiB\"", node)),
        })?;
        self.within(&bytes, range, |number| format!("{number} bytes"))
    }

    /// A time in `range`: a string such as `"10s"`.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let given = self.read(key, |raw| match raw {
            Raw::Variable(text) => values::duration(text),
            Raw::Node(Node { value: Value::Text(text), .. }) => values::duration(text),
            Raw::Node(node) => Err(not_this("a string such as \"10s\"", node)),
        })?;
        let millis = given.map(|duration| i128::try_from(duration.as_millis()).unwrap_or(i128::MAX));
        let [least, most] = [range.start(), range.end()].map(values::whole_millis);
        self.within(&millis, least..=most, values::show_millis).map(Duration::from_millis)
    }

    /// Yes or no.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let given = self.read(key, |raw| match raw {
            Raw::Variable("true") => Ok(true),
            Raw::Variable("false") => Ok(false),
            Raw::Variable(text) => Err(format!("\"{text}\" is neither true nor false")),
            Raw::Node(Node { value: Value::Boolean(boolean), .. }) => Ok(*boolean),
            Raw::Node(node) => Err(not_this("a boolean", node)),
        });
        given.map(|given| given.value)
    }

    /// Strings in their order; a single string is a list of one, a variable has commas between them.
    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Vec<Given<String>>> {
        match self.raw(key)? {
            (Raw::Variable(text), place) => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                Some(words.map(|word| Given { value: word.into(), place: place.clone() }).collect())
            }
            (Raw::Node(node), place) => Some(self.node_texts(node, &place)),
        }
    }

    /// Some of some words, each with what it means, in the order in which they are given.
    pub(crate) fn several_of<T: Clone>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Vec<T> {
        self.each(key, |text| choose(text, choices))
    }

    /// Strings that `read` understands, in their order.
    pub(crate) fn parse_each<T, E: Display>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        self.each(key, |text| read(text).map_err(|error| format!("\"{text}\": {error}")))
    }

    /// A table in this one. If it is not there, an empty one: variables may fill it, and
    /// [`Section::is_given`] tells.
    pub(crate) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.ask(key);
        let entry = self.entries.iter().find(|entry| entry.key == key);
        let mut section = self.child(key, entry.map_or(self.place.line, |entry| Some(entry.line)));
        if let Some(entry) = entry {
            section.take_entries(&entry.node);
        }
        section
    }

    /// A table in this one as it was written, for others to make sense of.
    #[cfg(feature = "wasm")]
    pub(crate) fn table(&mut self, key: &'static str) -> Option<&'a Node> {
        self.ask(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if !matches!(entry.node.value, Value::Table(_)) {
            self.report.problem(&self.place_of(entry), not_this("a table", &entry.node));
        }
        Some(&entry.node)
    }

    /// Tables in a list; each goes by what its key `named_by` says, or by its number.
    pub(crate) fn list(&mut self, key: &'static str, named_by: &str) -> Vec<Section<'a>> {
        self.ask(key);
        let Some(entry) = self.entries.iter().find(|entry| entry.key == key) else { return Vec::new() };
        let Value::List(items) = &entry.node.value else {
            let place = self.place_of(entry);
            self.report.problem(&place, not_this("a list of tables", &entry.node));
            return Vec::new();
        };
        let sections = items.iter().enumerate().map(|(index, item)| {
            let name = match name_in(item, named_by) {
                Some(name) => format!("{key}.{name}"),
                None => format!("{key}[{index}]"),
            };
            let mut section = self.child(&name, Some(item.line));
            section.take_entries(item);
            section
        });
        sections.collect()
    }

    /// Tables by the names that the operator gave them: `[policy.acl]`.
    pub(crate) fn named(&mut self, key: &'static str) -> Vec<(Given<String>, Section<'a>)> {
        let group = self.section(key);
        let sections = group.entries.iter().map(|entry| {
            let mut section = group.child(&entry.key, Some(entry.line));
            section.take_entries(&entry.node);
            (Given { value: entry.key.clone(), place: group.place_of(entry) }, section)
        });
        sections.collect()
    }

    /// Names that the operator chose, each with one string or a list of strings: `{ "cert.cn" = "dev" }`.
    pub(crate) fn pairs(&mut self, key: &'static str) -> Vec<(Given<String>, Vec<String>)> {
        let group = self.section(key);
        let pair = |entry: &Entry| {
            let name = Given { value: entry.key.clone(), place: group.place_of(entry) };
            let values = group.node_texts(&entry.node, &name.place);
            (name, values.into_iter().map(|text| text.value).collect())
        };
        group.entries.iter().map(pair).collect()
    }

    /// Records each of `keys` that is not given.
    pub(crate) fn require(&mut self, keys: &[&'static str]) {
        for key in keys {
            if self.raw(key).is_none() {
                self.problem(key, "is missing");
            }
        }
    }

    /// Records that `key` is a list without values.
    pub(crate) fn forbid_empty(&mut self, key: &'static str) {
        let is_empty = match self.raw(key) {
            Some((Raw::Node(Node { value: Value::List(items), .. }), _)) => items.is_empty(),
            Some((Raw::Variable(text), _)) => text.trim().is_empty(),
            _ => false,
        };
        if is_empty {
            self.problem(key, "must not be empty");
        }
    }

    /// Records every key that nothing asked for.
    pub(crate) fn finish(&self) {
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            self.report.problem(&self.place_of(entry), unknown_key(&entry.key, &self.asked));
        }
    }

    /// Whether it stands in the file, or a variable gives the value of one of `keys`.
    pub(crate) fn is_given(&self, keys: &[&'static str]) -> bool {
        self.is_given || keys.iter().any(|key| self.variable(key).is_some())
    }

    /// Whether `key` is given, whatever to.
    pub(crate) fn has(&mut self, key: &'static str) -> bool {
        self.raw(key).is_some()
    }

    /// What is said in it, by the file or by variables: the same text twice means the same table twice.
    pub(crate) fn written(&self) -> String {
        let written = |entry: &Entry| (variable_of("", &entry.key), text_of(&entry.node.value));
        let mut said: BTreeMap<String, String> = self.entries.iter().map(written).collect();
        for (name, text) in self.environment.iter().flat_map(|environment| environment.inside(&self.variable))
        {
            said.insert(name.into(), text.into());
        }
        format!("{said:?}")
    }

    /// Where the table begins.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where `key` is given, or would be.
    pub(crate) fn place_at(&self, key: &str) -> Place {
        match self.entries.iter().find(|entry| entry.key == key) {
            Some(entry) => self.place_of(entry),
            None => Place { key: join(&self.place.key, key), ..self.place.clone() },
        }
    }

    /// What `result` holds, or records why there is nothing.
    pub(crate) fn check<T, E: Display>(&self, place: &Place, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.report.problem(place, error.to_string())).ok()
    }

    /// Records a problem with `key`.
    pub(crate) fn problem(&self, key: &str, message: impl Into<String>) {
        self.report.problem(&self.place_at(key), message);
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Raw<'a>) -> Result<T, String>,
    ) -> Option<Given<T>> {
        let (raw, place) = self.raw(key)?;
        match read(raw) {
            Ok(value) => Some(Given { value, place }),
            Err(message) => {
                self.report.problem(&place, message);
                None
            }
        }
    }

    fn each<T>(&mut self, key: &'static str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let texts = self.texts(key).unwrap_or_default();
        texts.iter().filter_map(|text| self.check(&text.place, read(&text.value))).collect()
    }

    fn ask(&mut self, key: &'static str) {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
    }

    fn raw(&mut self, key: &'static str) -> Option<(Raw<'a>, Place)> {
        self.ask(key);
        if let Some((variable, text)) = self.variable(key) {
            let place = Place { file: variable.into(), line: None, key: join(&self.place.key, key) };
            return Some((Raw::Variable(text), place));
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some((Raw::Node(&entry.node), self.place_of(entry)))
    }

    fn variable(&self, key: &str) -> Option<(String, &'a str)> {
        let variable = variable_of(&self.variable, key);
        let text = self.environment?.get(&variable)?;
        Some((variable, text))
    }

    fn within(
        &self,
        given: &Given<i128>,
        range: RangeInclusive<u64>,
        show: impl Fn(u64) -> String,
    ) -> Option<u64> {
        let number = u64::try_from(given.value).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let [least, most] = [range.start(), range.end()].map(|bound| show(*bound));
            let message = match least == most {
                true => format!("must be {least}"),
                false => format!("must be from {least} to {most}"),
            };
            self.report.problem(&given.place, message);
        }
        number
    }

    fn node_texts(&self, node: &Node, place: &Place) -> Vec<Given<String>> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        items.iter().filter_map(|item| self.item_text(item, place)).collect()
    }

    fn item_text(&self, node: &Node, list: &Place) -> Option<Given<String>> {
        let place = Place { line: Some(node.line), ..list.clone() };
        match &node.value {
            Value::Text(text) => Some(Given { value: text.clone(), place }),
            _ => {
                self.report.problem(&place, not_this("a string", node));
                None
            }
        }
    }

    fn child(&self, name: &str, line: Option<usize>) -> Section<'a> {
        Section {
            report: self.report,
            environment: self.environment,
            place: Place { file: self.place.file.clone(), line, key: join(&self.place.key, name) },
            variable: variable_of(&self.variable, name),
            entries: &[],
            asked: Vec::new(),
            is_given: false,
        }
    }

    fn take_entries(&mut self, node: &'a Node) {
        self.is_given = true;
        match &node.value {
            Value::Table(entries) => self.entries = entries,
            _ => self.report.problem(&self.place, not_this("a table", node)),
        }
    }

    fn place_of(&self, entry: &Entry) -> Place {
        let key = join(&self.place.key, &entry.key);
        Place { file: self.place.file.clone(), line: Some(entry.line), key }
    }
}

impl<T> Given<T> {
    /// The same place with another value.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Given<U> {
        Given { value: change(self.value), place: self.place }
    }
}

/// What the one of `choices` means that `text` is.
fn choose<T: Clone>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let known = choices.iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning.clone());
    known.ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        format!("unknown value \"{text}\" ({})", words.join(", "))
    })
}

/// A value as a variable would say it; in tables, the order of keys means nothing.
fn text_of(value: &Value) -> String {
    match value {
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::List(items) => items.iter().map(|item| text_of(&item.value)).collect::<Vec<_>>().join(","),
        Value::Other(text) | Value::Text(text) => text.clone(),
        Value::Table(entries) => {
            let text = |entry: &Entry| (entry.key.clone(), text_of(&entry.node.value));
            format!("{:?}", entries.iter().map(text).collect::<BTreeMap<_, _>>())
        }
    }
}

fn name_in<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    let Value::Table(entries) = &node.value else { return None };
    match &entries.iter().find(|entry| entry.key == key)?.node.value {
        Value::Text(name) => Some(name),
        _ => None,
    }
}

fn not_this(wanted: impl Display, node: &Node) -> String {
    match &node.value {
        Value::Other(text) => format!("must be {wanted}, not {text}"),
        value => format!("must be {wanted}, not {}", value.kind()),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|word| (distance(key, word), word)).min();
    match nearest {
        Some((edits, word)) if edits <= 2 && edits < key.len() => {
            format!("unknown key (did you mean `{word}`?)")
        }
        _ => format!("unknown key (known: {})", known.join(", ")),
    }
}

/// How many characters must be put in, taken out or changed to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (taken, byte) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], taken + 1);
        for (index, wanted) in other.bytes().enumerate() {
            let change = diagonal + usize::from(byte != wanted);
            diagonal = row[index + 1];
            row[index + 1] = change.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
