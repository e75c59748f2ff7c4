use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use mgate_policies::static_rules::Who;
use serde_json::json;

use super::{Global, print};
use crate::import::{Source, import};

/// Write the rules of another system as a static policy, on standard output.
///
/// What they say is kept exactly; what cannot be kept is an error with its line, and nothing is written.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Whose rules they are: aws-iot, ladon or mosquitto
    #[arg(long, value_name = "SYSTEM", value_enum, hide_possible_values = true)]
    from: Source,
    /// Whom a document of AWS IoT is attached to: *, client:ID or group:NAME (may be repeated) [default: *]
    #[arg(long = "principal", value_name = "WHO", value_parser = principal)]
    principals: Vec<String>,
    /// The file with the rules; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Arguments {
    pub(super) fn run(&self, global: &Global) -> anyhow::Result<()> {
        let says_who_itself = self.from != Source::AwsIot;
        ensure!(
            self.principals.is_empty() || !says_who_itself,
            "these rules say themselves whom they speak of"
        );
        let anyone = ["*".to_owned()];
        let principals = if self.principals.is_empty() { &anyone } else { self.principals.as_slice() };
        let policy = import(self.from, &self.file, &self.read()?, principals)?;
        if global.json { print(json!({ "policy": policy })) } else { print(policy.trim_end()) }
    }

    fn read(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        let input: Box<dyn Read> = match self.file.as_os_str() == "-" {
            true => Box::new(io::stdin().lock()),
            false => Box::new(File::open(&self.file).with_context(|| self.file.display().to_string())?),
        };
        let read = input.take(MAX_BYTES + 1).read_to_string(&mut text);
        read.with_context(|| self.file.display().to_string())?;
        ensure!(text.len() as u64 <= MAX_BYTES, "{}: it is larger than 64 MiB", self.file.display());
        Ok(text)
    }
}

fn principal(text: &str) -> Result<String, String> {
    Who::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

const MAX_BYTES: u64 = 64 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  mgate policy import --from mosquitto /etc/mosquitto/aclfile > acl.toml
  mgate policy import --from aws-iot --principal group:sensors policy.json > sensors.toml
  mgate policy import --from ladon policies.json > acl.toml

Exit codes: 0 written, 1 the file cannot be read, 2 something in it cannot be kept.";
