//! YAML, and JSON as the part of it that it is.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::document::{Entry, Node, SyntaxError, Value};

/// Reads one YAML or JSON document; anchors, aliases and tags are refused.
pub(crate) fn parse_yaml(text: &str) -> Result<Node, SyntaxError> {
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder { open: Vec::new(), root: None };
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| from_scan(&error))?;
        builder.take(event, span)?;
    }
    builder.root.ok_or_else(|| SyntaxError { line: None, message: "the file is empty".into() })
}

/// Puts events together to a tree, without recursion.
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
}

/// A list or table of which the end has not been read.
enum Open {
    List { line: usize, items: Vec<Node> },
    Table { line: usize, entries: Vec<Entry>, key: Option<(String, usize)> },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let line = span.start.line();
        match event {
            Event::Scalar(_, _, anchor, tag) if anchor != 0 || tag.is_some() => Err(refused(line)),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag)
                if anchor != 0 || tag.is_some() =>
            {
                Err(refused(line))
            }
            Event::Alias(_) => Err(refused(line)),
            Event::Scalar(text, style, ..) => self.add(Node { line, value: scalar(&text, style) }),
            Event::SequenceStart(..) => self.begin(Open::List { line, items: Vec::new() }),
            Event::MappingStart(..) => self.begin(Open::Table { line, entries: Vec::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(error(line, "more than one document in the file"))
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(error(open.line(), "nested too deep"));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        match self.open.pop() {
            Some(Open::List { line, items }) => self.add(Node { line, value: Value::List(items) }),
            Some(Open::Table { line, entries, .. }) => self.add(Node { line, value: Value::Table(entries) }),
            None => Ok(()),
        }
    }

    fn add(&mut self, node: Node) -> Result<(), SyntaxError> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Table { entries, key, .. }) => match key.take() {
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => *key = Some(new_key(node, entries)?),
            },
        }
        Ok(())
    }
}

impl Open {
    fn line(&self) -> usize {
        match self {
            Self::List { line, .. } | Self::Table { line, .. } => *line,
        }
    }
}

fn new_key(node: Node, entries: &[Entry]) -> Result<(String, usize), SyntaxError> {
    let Value::Text(key) = node.value else {
        return Err(error(node.line, &format!("a key must be a string, not {}", node.value.kind())));
    };
    match entries.iter().any(|entry| entry.key == key) {
        true => Err(error(node.line, &format!("key \"{key}\" stands here twice"))),
        false => Ok((key, node.line)),
    }
}

/// The core schema's reading of a scalar (YAML 1.2 §10.3.2).
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.into());
    }
    match text {
        "true" | "True" | "TRUE" => Value::Boolean(true),
        "false" | "False" | "FALSE" => Value::Boolean(false),
        "" | "~" | "null" | "Null" | "NULL" => Value::Other("null".into()),
        _ => match (text.parse(), text.parse::<f64>()) {
            (Ok(number), _) => Value::Integer(number),
            (Err(_), Ok(_)) if text.starts_with(|first: char| !first.is_alphabetic()) => {
                Value::Other(text.into())
            }
            _ => Value::Text(text.into()),
        },
    }
}

fn from_scan(scan: &ScanError) -> SyntaxError {
    error(scan.marker().line(), scan.info())
}

fn refused(line: usize) -> SyntaxError {
    error(line, "anchors, aliases and tags are not supported")
}

fn error(line: usize, message: &str) -> SyntaxError {
    SyntaxError { line: Some(line), message: message.into() }
}

const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse_toml;

    #[test]
    fn yaml_json_and_toml_read_the_same() {
        let [yaml, json, toml] = [parse_yaml(YAML), parse_yaml(JSON), parse_toml(TOML)].map(Result::unwrap);
        assert_eq!(yaml, json);
        assert_eq!(yaml, toml);
    }

    #[test]
    fn json_with_tabs_and_escapes_reads() {
        let node = parse_yaml("{\n\t\"a\\/b\": \"\\u00e9\",\n\t\"c\": []\n}\n").unwrap();
        let Value::Table(entries) = node.value else { panic!("a table was written") };
        assert_eq!(entries[0].key, "a/b");
        assert_eq!(entries[0].node, Node { line: 2, value: Value::Text("é".into()) });
        assert_eq!(entries[1].line, 3);
    }

    #[test]
    fn quoted_scalars_are_text() {
        for text in ["\"1\"", "'true'", "|-\n  null"] {
            let Value::Text(_) = parse_yaml(&format!("- {text}\n")).map(first).unwrap() else {
                panic!("{text} is not text")
            };
        }
    }

    #[test]
    fn fraction_and_null_are_other() {
        for text in ["1.5", "~", "1e3"] {
            assert!(matches!(parse_yaml(&format!("- {text}\n")).map(first), Ok(Value::Other(_))), "{text}");
        }
    }

    #[test]
    fn what_a_policy_never_needs_is_refused() {
        for (text, line) in [
            ("a: &x [1]\nb: *x\n", 1),
            ("a: 1\nb: !tag 2\n", 2),
            ("a: 1\na: 2\n", 2),
            ("a: 1\n---\nb: 2\n", 2),
            ("{1: 2}\n", 1),
        ] {
            assert_eq!(parse_yaml(text).unwrap_err().line, Some(line), "{text}");
        }
        assert_eq!(parse_yaml("# nothing\n").unwrap_err().line, None);
    }

    #[test]
    fn nested_without_end_is_an_error() {
        assert!(parse_yaml(&"[".repeat(100_000)).is_err());
        assert!(parse_yaml(&"- ".repeat(10_000)).is_err());
    }

    fn first(list: Node) -> Value {
        match list.value {
            Value::List(mut items) => items.remove(0).value,
            other => other,
        }
    }

    const YAML: &str = "version: 1\nstatements: [{ sid: a, actions: [publish], retain: false }]\n";
    const JSON: &str = "{\"version\": 1,\n\"statements\": [{\"sid\": \"a\", \"actions\": [\"publish\"], \"retain\": false}]}";
    const TOML: &str =
        "version = 1\nstatements = [{ sid = \"a\", actions = [\"publish\"], retain = false }]\n";
}
