use std::error::Error;
use std::fmt;
use std::str::Split;

/// A topic name: what a message is published to. UTF-8, not empty, without wildcards and U+0000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Takes a topic name as it stands in a packet. [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2]
    ///
    /// `$share/…` is a name like any other here: only filters have share groups.
    pub fn parse(text: &'a str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if !is_literal(text) {
            return Err(FilterError::Wildcard);
        }
        Ok(Self(text))
    }

    /// The text, exactly as it came.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels, first to last; a level may be empty.
    pub fn levels(self) -> Split<'a, char> {
        self.0.split('/')
    }
}

/// A topic filter without its `$share` prefix, and the share group where there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter<'a> {
    filter: &'a str,
    share_group: Option<&'a str>,
}

/// What is wrong with a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// It has no characters.
    Empty,
    /// `$share/` without a group, with a wildcard in the group, or without a filter.
    Share,
    /// A wildcard where none may stand, or U+0000.
    Wildcard,
}

impl<'a> TopicFilter<'a> {
    /// Takes a topic filter as it stands in a packet, `$share/<group>/` included.
    /// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    ///
    /// The prefix counts in MQTT 3.1.1 too: brokers share those subscriptions all the same.
    pub fn parse(text: &'a str) -> Result<Self, FilterError> {
        let (share_group, filter) = match text.strip_prefix("$share/") {
            Some(shared) => split_group(shared)?,
            None => (None, text),
        };
        if filter.is_empty() {
            return Err(FilterError::Empty);
        }
        if !has_valid_wildcards(filter) {
            return Err(FilterError::Wildcard);
        }
        Ok(Self { filter, share_group })
    }

    /// The filter itself, without `$share/<group>/`.
    pub fn as_str(self) -> &'a str {
        self.filter
    }

    /// The group of a shared subscription.
    pub fn share_group(self) -> Option<&'a str> {
        self.share_group
    }

    /// The levels without `$share/<group>/`, first to last; a level may be empty.
    pub fn levels(self) -> Split<'a, char> {
        self.filter.split('/')
    }

    /// Says whether messages to `topic` reach a subscription to this filter.
    /// [MQTT-4.7.1-2], [MQTT-4.7.2-1]
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        covers(self.filter, topic.0)
    }

    /// Says whether this filter matches every topic that `other` matches. Share groups play no part.
    pub fn covers(self, other: TopicFilter<'_>) -> bool {
        covers(self.filter, canonical(other.filter))
    }

    /// Says whether some topic is matched by this filter and by `other`. Share groups play no part.
    pub fn overlaps(self, other: TopicFilter<'_>) -> bool {
        let (one, two) = (canonical(self.filter), canonical(other.filter));
        let is_reserved = is_out_of_reach(one, two) || is_out_of_reach(two, one);
        !is_reserved && levels_overlap(one.split('/'), two.split('/'))
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.share_group {
            Some(group) => write!(f, "$share/{group}/{}", self.filter),
            None => f.write_str(self.filter),
        }
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty topic",
            Self::Share => "`$share/` without a group free of wildcards and a filter behind it",
            Self::Wildcard => "wildcard or U+0000 where none may stand in a topic",
        })
    }
}

impl Error for FilterError {}

/// The same filter, written so that its `#` stands for zero levels only where a topic can end.
///
/// There is no empty topic, so `#` and `/#` need one more level than they say.
pub(crate) fn canonical(filter: &str) -> &str {
    match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        _ => filter,
    }
}

/// Says whether `text` is free of wildcards and U+0000.
pub(crate) fn is_literal(text: &str) -> bool {
    // no early exit, so that it vectorizes
    text.bytes().fold(0u8, |found, byte| found | u8::from(matches!(byte, 0 | b'+' | b'#'))) == 0
}

fn split_group(shared: &str) -> Result<(Option<&str>, &str), FilterError> {
    match shared.split_once('/') {
        Some((group, filter)) if !group.is_empty() && is_literal(group) && !filter.is_empty() => {
            Ok((Some(group), filter))
        }
        _ => Err(FilterError::Share),
    }
}

fn has_valid_wildcards(filter: &str) -> bool {
    let above = match filter.strip_suffix('#') {
        Some(above) if above.is_empty() || above.ends_with('/') => above,
        Some(_) => return false,
        None => filter,
    };
    above.split('/').all(|level| level == "+" || is_literal(level))
}

/// `narrow` is canonical, or a topic name.
fn covers(wide: &str, narrow: &str) -> bool {
    if is_out_of_reach(wide, narrow) {
        return false;
    }
    let mut narrow = narrow.split('/');
    for wide in wide.split('/') {
        match (wide, narrow.next()) {
            ("#", _) => return true,
            ("+", Some(level)) if level != "#" => {}
            (wide, Some(level)) if wide == level => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

/// Both filters are canonical.
fn levels_overlap(mut one: Split<'_, char>, mut two: Split<'_, char>) -> bool {
    loop {
        match (one.next(), two.next()) {
            (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(one), Some(two)) if one == two => {}
            _ => return false,
        }
    }
}

/// Wildcards at the first level never reach topics that begin with `$`. [MQTT-4.7.2-1]
fn is_out_of_reach(filter: &str, topics: &str) -> bool {
    filter.starts_with(['+', '#']) && topics.starts_with('$')
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in ["a", "/", "#", "+", "a/#", "a/+/#", "+/+", "/+", "a b/ü", "$SYS/#", "$share", "a//b"] {
            let filter = TopicFilter::parse(good);
            assert_eq!(filter.map(|filter| (filter.as_str(), filter.share_group())), Ok((good, None)));
        }
        assert_eq!(TopicFilter::parse(""), Err(FilterError::Empty));
        for bad in ["a#", "#/a", "a/#/b", "##", "a+", "+a/b", "a/b+/c", "a\0", "/a#", "++", "+#"] {
            assert_eq!(TopicFilter::parse(bad), Err(FilterError::Wildcard), "{bad:?}");
        }
    }

    #[test]
    fn share_groups_are_split_off() {
        for (text, group, inner) in
            [("$share/g/a/#", "g", "a/#"), ("$share/g//", "g", "/"), ("$share/g/$SYS/x", "g", "$SYS/x")]
        {
            let filter = parse(text);
            assert_eq!((filter.share_group(), filter.as_str()), (Some(group), inner));
            assert_eq!(filter.to_string(), text);
        }
        for bad in
            ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a", "$share/g\0/a"]
        {
            assert_eq!(TopicFilter::parse(bad), Err(FilterError::Share), "{bad:?}");
        }
        assert_eq!(TopicFilter::parse("$share/g/a#"), Err(FilterError::Wildcard));
    }

    #[test]
    fn share_is_an_ordinary_topic_name() {
        let topic = TopicName::parse("$share/g/a").unwrap();
        assert_eq!(topic.levels().collect::<Vec<_>>(), ["$share", "g", "a"]);
        assert!(!parse("a").matches(topic));
    }

    #[test]
    fn topic_names_have_no_wildcards() {
        for bad in ["+", "a/#", "a+b", "a\0b"] {
            assert_eq!(TopicName::parse(bad), Err(FilterError::Wildcard));
        }
        assert_eq!(TopicName::parse(""), Err(FilterError::Empty));
    }

    #[test]
    fn covers_what_a_table_says() {
        for (wide, narrow, expected) in [
            ("a/#", "a", true),
            ("a/#", "a/+", true),
            ("a/+", "a/#", false),
            ("+", "#", false),
            ("+/#", "#", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/+", true),
            ("/+/#", "/#", true),
            ("allowed", "allowed/secret", false),
            ("$share/g/a", "$share/h/a", true),
        ] {
            assert_eq!(parse(wide).covers(parse(narrow)), expected, "{wide} covers {narrow}");
        }
    }

    #[test]
    fn every_pair_of_short_filters_agrees_with_brute_force() {
        let topics = texts(&["", "a", "$x", "z"], 4);
        let filters = texts(&["", "a", "$x", "+", "#"], 3);
        let filters: Vec<_> = filters.iter().filter_map(|text| TopicFilter::parse(text).ok()).collect();
        let reach = |filter: &TopicFilter<'_>| -> Vec<bool> {
            topics.iter().map(|topic| matches(filter.as_str(), topic)).collect()
        };
        let reached: Vec<_> = filters.iter().map(reach).collect();
        for (one, in_one) in filters.iter().zip(&reached) {
            for (two, in_two) in filters.iter().zip(&reached) {
                let covers = in_one.iter().zip(in_two).all(|(one, two)| *one || !*two);
                assert_eq!(one.covers(*two), covers, "{one} covers {two}");
                let overlaps = in_one.iter().zip(in_two).any(|(one, two)| *one && *two);
                assert_eq!(one.overlaps(*two), overlaps, "{one} overlaps {two}");
            }
        }
        assert_eq!(filters.len(), 104);
    }

    proptest! {
        #[test]
        fn matches_as_the_standard_says(filter in filter()) {
            for topic in topics() {
                let levels: Vec<_> = topic.split('/').collect();
                let expected = matches_by_the_book(&filter.split('/').collect::<Vec<_>>(), &levels)
                    && !(filter.starts_with(['+', '#']) && topic.starts_with('$'));
                prop_assert_eq!(matches(&filter, topic), expected, "{} matches {}", filter, topic);
            }
        }

        #[test]
        fn covers_means_every_topic(wide in filter(), narrow in filter()) {
            let expected = topics().iter().all(|topic| !matches(&narrow, topic) || matches(&wide, topic));
            prop_assert_eq!(parse(&wide).covers(parse(&narrow)), expected);
        }

        #[test]
        fn overlaps_means_some_topic(one in filter(), two in filter()) {
            let expected = topics().iter().any(|topic| matches(&one, topic) && matches(&two, topic));
            prop_assert_eq!(parse(&one).overlaps(parse(&two)), expected);
            prop_assert_eq!(parse(&two).overlaps(parse(&one)), expected);
        }
    }

    fn matches_by_the_book(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            ([level, filter @ ..], [name, topic @ ..]) => {
                (*level == "+" || level == name) && matches_by_the_book(filter, topic)
            }
            _ => false,
        }
    }

    fn filter() -> impl Strategy<Value = String> {
        let levels = prop::collection::vec(select(&["", "a", "b", "$x", "+"]), 1..=4);
        (levels, any::<bool>()).prop_filter_map("empty", |(mut levels, takes_all_below)| {
            if takes_all_below {
                *levels.last_mut()? = "#";
            }
            Some(levels.join("/")).filter(|filter| !filter.is_empty())
        })
    }

    /// One level deeper than the filters, and with a level (`z`) that is in none of them.
    fn topics() -> &'static [String] {
        static TOPICS: LazyLock<Vec<String>> = LazyLock::new(|| texts(&["", "a", "b", "$x", "z"], 5));
        &TOPICS
    }

    /// Everything that `levels` spell, up to `depth` of them, but for the empty text.
    fn texts(levels: &[&str], depth: usize) -> Vec<String> {
        let mut longest: Vec<String> = levels.iter().map(ToString::to_string).collect();
        let mut all = longest.clone();
        for _ in 1..depth {
            let below = |above: &String| levels.iter().map(move |level| format!("{above}/{level}")).collect();
            longest = longest.iter().flat_map::<Vec<_>, _>(below).collect();
            all.extend_from_slice(&longest);
        }
        all.retain(|text| !text.is_empty());
        all
    }

    fn matches(filter: &str, topic: &str) -> bool {
        parse(filter).matches(TopicName::parse(topic).unwrap())
    }

    fn parse(text: &str) -> TopicFilter<'_> {
        TopicFilter::parse(text).unwrap()
    }
}
