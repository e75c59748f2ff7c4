use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file, or the environment variable, as the operator knows it.
    pub file: Arc<str>,
    /// The line, counted from 1, where there is one.
    pub line: Option<usize>,
    /// The key with all that it is in: `route.devices.listen`; empty for the file as a whole.
    pub key: String,
}

/// One thing that is wrong, or strange, with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub message: String,
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// Collects what is found while files are read.
#[derive(Default)]
pub(crate) struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Problem {
    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let Self { place, message } = self;
        json!({ "file": *place.file, "line": place.line, "key": place.key, "message": message })
    }

    /// What [`Problem::json`] wrote.
    pub(crate) fn of_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str();
        let line = value["line"].as_u64().and_then(|line| usize::try_from(line).ok());
        let place = Place { file: text("file")?.into(), line, key: text("key")?.into() };
        Some(Self { place, message: text("message")?.into() })
    }
}

impl Problems {
    /// One about a file as a whole.
    pub(crate) fn one(file: &Path, message: String) -> Self {
        Self(vec![Problem { place: Place::file(file), message }])
    }
}

impl Report {
    /// Records something that makes the configuration unusable.
    pub(crate) fn problem(&self, place: &Place, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { place: place.clone(), message: message.into() });
    }

    /// Records something that an operator probably did not mean.
    pub(crate) fn warning(&self, place: &Place, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem { place: place.clone(), message: message.into() });
    }

    /// How many problems there are by now.
    pub(crate) fn problems(&self) -> usize {
        self.problems.borrow().len()
    }

    /// The warnings, unless there are problems; either once each, file by file, in the order of the lines.
    pub(crate) fn finish(self) -> Result<Vec<Problem>, Problems> {
        match self.problems.into_inner() {
            problems if problems.is_empty() => Ok(in_order(self.warnings.into_inner())),
            problems => Err(Problems(in_order(problems))),
        }
    }
}

impl Place {
    /// A file as a whole.
    pub(crate) fn file(path: &Path) -> Self {
        Self { file: path.display().to_string().into(), line: None, key: String::new() }
    }
}

fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    // a file that is read twice is told of once
    let mut told = HashSet::new();
    problems.retain(|problem| told.insert(problem.clone()));
    let mut files: Vec<Arc<str>> = Vec::new();
    for problem in &problems {
        if !files.contains(&problem.place.file) {
            files.push(Arc::clone(&problem.place.file));
        }
    }
    problems.sort_by_key(|problem| {
        (files.iter().position(|file| *file == problem.place.file), problem.place.line)
    });
    problems
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
