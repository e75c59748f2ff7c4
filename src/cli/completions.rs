use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use super::CommandLine;

/// Print a completion script for a shell.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The shell that completes
    shell: Shell,
}

impl Arguments {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut CommandLine::command(), "mgate", &mut script);
        Ok(io::stdout().lock().write_all(&script)?)
    }
}

const EXAMPLES: &str = "\
Examples:
  mgate completions bash > ~/.local/share/bash-completion/completions/mgate
  mgate completions zsh > ~/.zfunc/_mgate
  mgate completions fish > ~/.config/fish/completions/mgate.fish";
