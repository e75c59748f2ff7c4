//! What kind of payload a message has.

/// The media type that the last level of a topic stands for, if it is one of these words.
pub(super) fn of_topic(topic: &str) -> Option<&'static str> {
    let (before, suffix) = topic.rsplit_once('/')?;
    let found = SUFFIXES.iter().find(|(word, _)| *word == suffix);
    found.filter(|_| !before.is_empty()).map(|(_, kind)| *kind)
}

/// Whether a media type says that it is JSON, whatever its parameters. RFC 6839 §3.1, RFC 8259 §11
pub(super) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let has_end = |end: &str| essence.len().checked_sub(end.len()).and_then(|at| essence.get(at..));
    has_end("/json").is_some_and(|end| end.eq_ignore_ascii_case("/json"))
        || has_end("+json").is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

pub(super) const JSON: &str = "application/json";

const SUFFIXES: &[(&str, &str)] = &[
    ("senml-json", "application/senml+json"),
    ("senml-cbor", "application/senml+cbor"),
    ("json", "application/json"),
    ("cbor", "application/cbor"),
    ("octet-stream", "application/octet-stream"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_last_levels_are_media_types() {
        for (topic, kind) in [
            ("channels/a/messages/senml-json", Some("application/senml+json")),
            ("a/b/octet-stream", Some("application/octet-stream")),
            ("a/cbor", Some("application/cbor")),
            ("a/json/b", None),
            ("a/xml", None),
            ("json", None),
            ("/json", None),
            ("a/JSON", None),
        ] {
            assert_eq!(of_topic(topic), kind, "{topic}");
        }
    }

    #[test]
    fn json_is_known_by_its_name() {
        for (kind, expected) in [
            ("application/json", true),
            ("application/senml+JSON ; charset=utf-8", true),
            ("text/json", true),
            ("application/jsonx", false),
            ("json", false),
            ("text/plain; a=/json", false),
            ("ü", false),
        ] {
            assert_eq!(is_json(kind), expected, "{kind}");
        }
    }
}
