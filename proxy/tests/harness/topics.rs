//! What must hold for any topic filters and names.

use mgate_policies::{TopicFilter, TopicName};

/// Up to three topic filters and names, each on its line: every line is tried as both.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let lines: Vec<_> = text.split('\n').take(3).collect();
    let filters: Vec<_> = lines.iter().filter_map(|line| TopicFilter::parse(line).ok()).collect();
    let names: Vec<_> = lines.iter().filter_map(|line| TopicName::parse(line).ok()).collect();
    for filter in &filters {
        check_filter(*filter);
        names.iter().for_each(|name| assert_eq!(filter.matches(*name), by_the_book(*filter, *name)));
    }
    for one in &filters {
        for two in &filters {
            check_pair(*one, *two, &names);
            filters.iter().for_each(|three| check_three(*one, *two, *three));
        }
    }
}

fn check_filter(filter: TopicFilter<'_>) {
    assert!(filter.covers(filter) && filter.overlaps(filter), "{filter} covers itself");
    assert_eq!(TopicFilter::parse(&filter.to_string()), Ok(filter), "it is read as it is shown");
    assert_eq!(filter.levels().collect::<Vec<_>>().join("/"), filter.as_str());
}

fn check_pair(one: TopicFilter<'_>, two: TopicFilter<'_>, names: &[TopicName<'_>]) {
    assert_eq!(one.overlaps(two), two.overlaps(one), "{one} and {two} overlap alike");
    assert!(!one.covers(two) || one.overlaps(two), "{one} covers {two} without overlapping it");
    for name in names {
        let (in_one, in_two) = (one.matches(*name), two.matches(*name));
        assert!(!one.covers(two) || in_one || !in_two, "{one} covers {two} but not {name}");
        assert!(!(in_one && in_two) || one.overlaps(two), "{one} and {two} overlap in {name}");
    }
}

fn check_three(one: TopicFilter<'_>, two: TopicFilter<'_>, three: TopicFilter<'_>) {
    let is_through = one.covers(two) && two.covers(three);
    assert!(!is_through || one.covers(three), "{one} covers {two}, which covers {three}");
    let meets = one.covers(two) && two.overlaps(three);
    assert!(!meets || one.overlaps(three), "{one} covers {two}, which overlaps {three}");
}

/// [MQTT-4.7.1-2], [MQTT-4.7.1-3], [MQTT-4.7.2-1], word by word.
fn by_the_book(filter: TopicFilter<'_>, name: TopicName<'_>) -> bool {
    let is_hidden = filter.as_str().starts_with(['+', '#']) && name.as_str().starts_with('$');
    let (filter, name): (Vec<_>, Vec<_>) = (filter.levels().collect(), name.levels().collect());
    let (filter, is_long_enough) = match filter.split_last() {
        Some((&"#", above)) => (above.to_vec(), name.len() >= above.len()),
        _ => (filter.clone(), name.len() == filter.len()),
    };
    let is_alike = filter.iter().zip(&name).all(|(level, name)| *level == "+" || level == name);
    !is_hidden && is_long_enough && is_alike
}
