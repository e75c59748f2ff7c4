use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Global, Told, print};
use crate::config::{PolicyTest, test_policy};

/// Run the tests of a static policy's file, and say which of them come true.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The policy file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let tests = test_policy(&self.file)?;
        let failed = tests.iter().filter(|test| test.failure.is_some()).count();
        let passed = tests.len() - failed;
        if global.json {
            let tests: Vec<Value> = tests.iter().map(json_test).collect();
            let file = self.file.to_string_lossy();
            print(json!({ "file": file, "passed": passed, "failed": failed, "tests": tests }))?;
        } else {
            for test in &tests {
                print(line(test))?;
            }
            print(format_args!("{passed} passed, {failed} failed"))?;
        }
        if failed == 0 { Ok(()) } else { Err(Told.into()) }
    }
}

fn line(test: &PolicyTest) -> String {
    let PolicyTest { name, place, failure } = test;
    match failure {
        None => format!("passed  {name}"),
        Some(failure) => {
            let line = place.line.map(|line| format!(":{line}")).unwrap_or_default();
            format!("FAILED  {name} ({}{line}): {failure}", place.file)
        }
    }
}

fn json_test(test: &PolicyTest) -> Value {
    let PolicyTest { name, place, failure } = test;
    json!({ "name": name, "line": place.line, "passed": failure.is_none(), "failure": failure })
}

const EXAMPLES: &str = "\
Examples:
  mgate policy test acl.toml
  mgate policy test --json acl.toml

Exit codes: 0 all came true, 1 some did not, 2 the file is wrong.";
