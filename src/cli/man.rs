use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use super::CommandLine;

/// Print the manual page, or write one for each sub-command.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Write mgate.1, mgate-run.1 and all others into this directory
    #[arg(long, value_name = "DIRECTORY")]
    all: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let command = CommandLine::command();
        match &self.all {
            Some(directory) => clap_mangen::generate_to(command, directory)
                .with_context(|| format!("cannot write to {}", directory.display())),
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page)?;
                Ok(io::stdout().lock().write_all(&page)?)
            }
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  mgate man | man -l -
  mgate man --all /usr/local/share/man/man1";
