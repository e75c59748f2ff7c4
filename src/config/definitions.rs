use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use super::problem::{Place, Report};
use super::section::{Given, Section};

/// What the operator defined under names, as `[policy.acl]`, for routes to name.
pub(crate) struct Definitions<T> {
    kind: &'static str,
    by_name: BTreeMap<String, Definition<T>>,
}

struct Definition<T> {
    /// `None` for one with problems: it exists, so that naming it is no further problem.
    value: Option<T>,
    place: Place,
    is_used: Cell<bool>,
}

impl<T> Definitions<T> {
    /// Reads all tables in the table `kind` of the file.
    pub(crate) fn read(
        file: &mut Section<'_>,
        kind: &'static str,
        read: impl Fn(&str, Section<'_>) -> Option<T>,
    ) -> Self {
        let definition = |(name, section): (Given<String>, Section<'_>)| {
            let value = read(&name.value, section);
            (name.value, Definition { value, place: name.place, is_used: Cell::new(false) })
        };
        Self { kind, by_name: file.named(kind).into_iter().map(definition).collect() }
    }

    /// Adds what the program brings itself; a definition of the same name in the file is a problem.
    pub(crate) fn add(&mut self, name: &str, value: T, report: &Report) {
        if let Some(defined) = self.by_name.get(name) {
            report.problem(&defined.place, "the program brings one of this name itself");
            return;
        }
        let (place, is_used) = (Place::file(Path::new("")), Cell::new(true));
        self.by_name.insert(name.to_owned(), Definition { value: Some(value), place, is_used });
    }

    /// What is defined under a name; that there is nothing is a problem where it is named.
    pub(crate) fn find(&self, name: &Given<String>, report: &Report) -> Option<&T> {
        match self.by_name.get(&name.value) {
            Some(definition) => {
                definition.is_used.set(true);
                definition.value.as_ref()
            }
            None => {
                report.problem(&name.place, format!("no [{}.{}] in this file", self.kind, name.value));
                None
            }
        }
    }

    /// Warns of what no route names.
    pub(crate) fn warn_of_unused(&self, report: &Report) {
        for definition in self.by_name.values().filter(|definition| !definition.is_used.get()) {
            report.warning(&definition.place, "no route names it");
        }
    }
}
