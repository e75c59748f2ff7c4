//! Which of the routes of one listener a request is for.

use std::cmp::Reverse;

use super::problem::Problem;

/// What a route takes of the requests that come to its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The names that clients may call it by, in small letters, without port and without a dot at the end; none
    /// for any.
    pub hosts: Vec<String>,
    /// The path that it serves with all that is below: decoded, and without a slash at its end unless it is `/`.
    pub path: String,
}

/// The places of all routes of a listener.
pub(super) struct Table {
    places: Vec<Place>,
    /// Their numbers, those first that win.
    order: Vec<usize>,
}

impl Default for Place {
    fn default() -> Self {
        Self { hosts: Vec::new(), path: "/".into() }
    }
}

impl Place {
    /// Whether nothing but chance could say which of the two some requests are for.
    pub fn collides(&self, other: &Self) -> bool {
        let is_named_there = |host| other.hosts.contains(host);
        let is_same_host = match (self.hosts.is_empty(), other.hosts.is_empty()) {
            (true, true) => true,
            _ => self.hosts.iter().any(is_named_there),
        };
        is_same_host && self.path == other.path
    }

    /// Whether a path, decoded, is the one that it serves, or is below.
    pub fn takes_path(&self, path: &str) -> bool {
        match path.strip_prefix(self.path.as_str()) {
            Some(below) => self.path == "/" || below.is_empty() || below.starts_with('/'),
            None => false,
        }
    }

    fn takes_host(&self, host: &str) -> bool {
        // RFC 1034 §3.1: with a dot at the end it is the same name, and upstreams know that
        let host = host.strip_suffix('.').unwrap_or(host);
        self.hosts.is_empty() || self.hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    fn rank(&self) -> (bool, Reverse<usize>) {
        (self.hosts.is_empty(), Reverse(self.path.len()))
    }
}

impl Table {
    /// Of routes by their numbers; one that is leaving has what no other one takes.
    pub(super) fn new(places: Vec<Place>, is_leaving: &[bool]) -> Self {
        let mut order: Vec<usize> = (0..places.len()).collect();
        order.sort_by_key(|number| (is_leaving.get(*number).copied(), places[*number].rank()));
        Self { places, order }
    }

    /// The number of the route that a request is for: one that names the host, then one with the longest path. It must
    /// be the same for upstreams that take no notice of what stands behind a `;`. RFC 3986 §3.3
    pub(super) fn find(&self, host: &str, path: &str) -> Result<usize, Problem> {
        let found = self.look_up(host, path)?;
        let is_other = |bare: &str| self.look_up(host, bare).is_ok_and(|other| other != found);
        if path.contains(';') && is_other(&without_parameters(path)) {
            return Err(Problem::BadPath);
        }
        Ok(found)
    }

    fn look_up(&self, host: &str, path: &str) -> Result<usize, Problem> {
        let takes_host = |number: &&usize| self.places[**number].takes_host(host);
        let mut known = self.order.iter().filter(takes_host).peekable();
        if known.peek().is_none() {
            return Err(Problem::WrongHost);
        }
        known.find(|number| self.places[**number].takes_path(path)).copied().ok_or(Problem::NotFound)
    }
}

/// A path without the parameters of its segments, and without segments that have nothing else.
fn without_parameters(path: &str) -> String {
    let names = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn longest_path_of_whole_segments_wins() {
        let places = places(&[("", "/"), ("", "/api"), ("", "/api/devices"), ("", "/b")]);
        for (path, expected) in [
            ("/", 0),
            ("/apis", 0),
            ("/API", 0),
            ("/api", 1),
            ("/api/", 1),
            ("/api/devicesX", 1),
            ("/api/devices", 2),
            ("/api/devices/7", 2),
            ("/b/api/devices", 3),
        ] {
            assert_eq!(places.find("a.example", path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn path_that_leads_elsewhere_without_parameters_is_refused() {
        let places = places(&[("", "/"), ("", "/api"), ("", "/api/devices")]);
        for (path, expected) in [
            ("/api;x=1/devices", None),
            ("/api;x", None),
            ("/;/api", None),
            ("/;x=/;/api;/devices", None),
            ("/api/;x/devices", None),
            ("/api/devices;x", None),
            ("/;x", Some(0)),
            ("/other;x/api", Some(0)),
            ("/api/a;b/devices", Some(1)),
            ("/api/;x", Some(1)),
            ("/api/devices/7;x=1/;y", Some(2)),
        ] {
            assert_eq!(places.find("a.example", path), expected.ok_or(Problem::BadPath), "{path}");
        }
    }

    #[test]
    fn path_with_parameters_is_found_where_no_other_route_serves_it_without() {
        assert_eq!(places(&[("", "/x;y"), ("", "/z")]).find("h", "/x;y/a"), Ok(0));
    }

    #[test]
    fn named_host_wins_before_a_longer_path() {
        let places = places(&[("", "/api/devices"), ("a.example b.example", "/api"), ("", "/")]);
        for (host, path, expected) in [
            ("a.example", "/api/devices", 1),
            ("B.Example", "/api/devices", 1),
            ("a.example.", "/api/devices", 1),
            ("a.example", "/other", 2),
            ("c.example", "/api/devices", 0),
            ("a.example..", "/api/devices", 0),
        ] {
            assert_eq!(places.find(host, path), Ok(expected), "{host} {path}");
        }
    }

    #[test]
    fn unknown_host_is_told_from_unknown_path() {
        let places = places(&[("a.example", "/api"), ("b.example", "/")]);
        assert_eq!(places.find("c.example", "/api"), Err(Problem::WrongHost));
        assert_eq!(places.find("a.example", "/other"), Err(Problem::NotFound));
        assert_eq!(places.find("b.example", "/other"), Ok(1));
    }

    #[test]
    fn one_that_leaves_has_what_no_other_one_takes() {
        for (leaves, stays, path, expected) in [
            (("", "/a"), ("", "/a"), "/a", 1),
            (("", "/a/b"), ("", "/a"), "/a/b", 1),
            (("h", "/a/b"), ("", "/"), "/a/b", 1),
            (("", "/a"), ("h", "/a/b"), "/a/b", 1),
            (("", "/a"), ("h", "/a/b"), "/a", 0),
            (("", "/a"), ("", "/b"), "/a", 0),
        ] {
            let [leaves, stays] = [leaves, stays].map(|(hosts, path)| place(hosts, path));
            let found = Table::new(vec![leaves.clone(), stays.clone()], &[true, false]).find("h", path);
            assert_eq!(found, Ok(expected), "{leaves:?} {stays:?} {path}");
        }
    }

    #[test]
    fn places_collide_where_a_request_could_be_for_both() {
        for (one, other, expected) in [
            (("", "/a"), ("", "/a"), true),
            (("", "/a"), ("", "/b"), false),
            (("", "/a"), ("x", "/a"), false),
            (("x y", "/a"), ("y z", "/a"), true),
            (("x", "/a"), ("z", "/a"), false),
        ] {
            let [one, other] = [one, other].map(|(hosts, path)| place(hosts, path));
            assert_eq!(one.collides(&other), expected, "{one:?} {other:?}");
            assert_eq!(other.collides(&one), expected, "{one:?} {other:?}");
        }
    }

    proptest! {
        #[test]
        fn finds_what_looking_at_all_of_them_finds(
            routes in prop::collection::vec((hosts(), segments()), 1..8),
            host in "[abc]",
            path in segments(),
        ) {
            let mut all: Vec<Place> = Vec::new();
            for (hosts, path) in routes {
                let one = Place { hosts, path: text(&path) };
                if !all.iter().any(|other| other.collides(&one)) {
                    all.push(one);
                }
            }
            let found = Table::new(all.clone(), &vec![false; all.len()]).find(&host, &text(&path));
            prop_assert_eq!(found, by_looking_at_all(&all, &host, &path));
        }
    }

    /// As the documents say it.
    fn by_looking_at_all(all: &[Place], host: &str, path: &[&str]) -> Result<usize, Problem> {
        let knows_host = |place: &Place| place.hosts.is_empty() || place.hosts.contains(&host.to_owned());
        let depth = |place: &Place| place.path.split('/').filter(|segment| !segment.is_empty()).count();
        let serves = |place: &Place| {
            let served: Vec<&str> = place.path.split('/').filter(|segment| !segment.is_empty()).collect();
            path.starts_with(&served)
        };
        if !all.iter().any(knows_host) {
            return Err(Problem::WrongHost);
        }
        let fitting = all.iter().enumerate().filter(|(_, place)| knows_host(place) && serves(place));
        let best = fitting.max_by_key(|(_, place)| (!place.hosts.is_empty(), depth(place)));
        best.map(|(number, _)| number).ok_or(Problem::NotFound)
    }

    fn hosts() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[abc]", 0..2)
    }

    fn segments() -> impl Strategy<Value = Vec<&'static str>> {
        prop::collection::vec(prop::sample::select(vec!["x", "y", "xy"]), 0..4)
    }

    fn text(segments: &[&str]) -> String {
        format!("/{}", segments.join("/"))
    }

    fn places(all: &[(&str, &str)]) -> Table {
        let places = all.iter().map(|(hosts, path)| place(hosts, path)).collect();
        Table::new(places, &vec![false; all.len()])
    }

    fn place(hosts: &str, path: &str) -> Place {
        Place { hosts: hosts.split_whitespace().map(str::to_owned).collect(), path: path.into() }
    }
}
