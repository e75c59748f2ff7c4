//! Files as they were written: values with the lines that they stand on.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One value of a file and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// What stands there.
    pub(crate) value: Value,
}

/// What TOML, JSON and YAML have in common.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Boolean(bool),
    Integer(i64),
    List(Vec<Node>),
    /// Something that no key takes (a fraction, a null), as it was written.
    Other(String),
    Table(Vec<Entry>),
    Text(String),
}

/// One key of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// The key's name.
    pub(crate) key: String,
    /// The line of the key.
    pub(crate) line: usize,
    /// What it is set to.
    pub(crate) node: Node,
}

/// Why a text is not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// The line, where there is one.
    pub(crate) line: Option<usize>,
    /// What is wrong there.
    pub(crate) message: String,
}

impl Value {
    /// The kind of value in words, with its article.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::List(_) => "a list",
            Self::Other(_) => "another kind of value",
            Self::Table(_) => "a table",
            Self::Text(_) => "a string",
        }
    }
}

/// Reads TOML.
pub(crate) fn parse_toml(text: &str) -> Result<Node, SyntaxError> {
    let lines = Lines::of(text);
    match DeTable::parse(text) {
        Ok(table) => {
            let span = table.span();
            Ok(lines.table(span, table.into_inner()))
        }
        Err(error) => Err(SyntaxError {
            line: error.span().map(|span| lines.at(span.start)),
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        }),
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }

    fn table(&self, span: Range<usize>, table: DeTable<'_>) -> Node {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries.into_iter().map(|(key, value)| Entry {
            line: self.at(key.span().start),
            key: key.into_inner().into(),
            node: self.node(value),
        });
        Node { line: self.at(span.start), value: Value::Table(entries.collect()) }
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Node {
        let span = value.span();
        let line = self.at(span.start);
        let value = match value.into_inner() {
            DeValue::Table(table) => return self.table(span, table),
            DeValue::Array(array) => Value::List(array.into_iter().map(|item| self.node(item)).collect()),
            DeValue::Boolean(boolean) => Value::Boolean(boolean),
            DeValue::Datetime(datetime) => Value::Text(datetime.to_string()),
            DeValue::Float(float) => Value::Other(float.to_string()),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Other(integer.to_string()),
            },
            DeValue::String(text) => Value::Text(text.into_owned()),
        };
        Node { line, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_values_know_their_lines() {
        let node = parse_toml("a = 1\n\n[b]\nc = [\n  true,\n  0xff,\n]\n").unwrap();
        let Value::Table(entries) = node.value else { panic!("a file is a table") };
        assert_eq!((entries[0].line, &entries[0].node.value), (1, &Value::Integer(1)));
        let Value::Table(inner) = &entries[1].node.value else { panic!("b is a table") };
        assert_eq!(inner[0].line, 4);
        let items = [node_at(5, Value::Boolean(true)), node_at(6, Value::Integer(255))];
        assert_eq!(inner[0].node, node_at(4, Value::List(items.into())));
    }

    #[test]
    fn toml_syntax_error_names_the_line() {
        let error = parse_toml("a = 1\nb = \"open\nc = 2\n").unwrap_err();
        assert_eq!(error.line, Some(2));
        assert!(!error.message.contains('\n'), "{}", error.message);
    }

    #[test]
    fn toml_key_twice_is_an_error() {
        assert_eq!(parse_toml("a = 1\na = 2\n").unwrap_err().line, Some(2));
    }

    #[test]
    fn toml_nested_without_end_is_an_error() {
        let text = format!("a = {}", "[".repeat(100_000));
        assert!(parse_toml(&text).is_err());
    }

    fn node_at(line: usize, value: Value) -> Node {
        Node { line, value }
    }
}
