//! The command line: one file a sub-command.

mod admin;
mod certs;
mod check;
mod completions;
mod config_file;
#[cfg(feature = "demo")]
mod demo;
mod man;
mod passwd;
mod policy;
mod reload;
mod run;
mod signals;

use std::error::Error;
use std::fmt::{self, Display};
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use self::config_file::ConfigFile;
use crate::config::Problems;
use crate::log;

/// Runs the sub-command that the arguments of this process name; returns what the process ends with: 0, 1
/// for a failure, or 2 for a configuration or arguments that are wrong.
pub fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    match command_line.command.run(&command_line.global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error, command_line.global.json);
            ExitCode::from(if error.is::<Problems>() { 2 } else { 1 })
        }
    }
}

/// An IoT API gateway that authorizes every packet between devices and their servers.
#[derive(Parser)]
#[command(name = "mgate", version, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// What every sub-command understands.
#[derive(Args)]
struct Global {
    /// Print JSON instead of text for people
    #[arg(long, global = true, display_order = LAST)]
    json: bool,
    /// What to log: error, warn, info, debug, trace or off, and levels of parts: info,mgate::packet=debug
    #[arg(long, global = true, display_order = LAST + 1, value_name = "LEVEL", value_parser = log::Level::parse)]
    log_level: Option<log::Level>,
    /// What a line of the log looks like: text or json
    #[arg(long, global = true, display_order = LAST + 2, value_name = "FORMAT", value_enum, hide_possible_values = true)]
    log_format: Option<log::Format>,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Arguments),
    Check(check::Arguments),
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
    Certs(certs::Arguments),
    Passwd(passwd::Arguments),
    Policy(policy::Arguments),
    Reload(reload::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

impl Command {
    fn run(&self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Run(arguments) => arguments.run(global),
            Self::Check(arguments) => arguments.run(global),
            #[cfg(feature = "demo")]
            Self::Demo(arguments) => arguments.run(global),
            Self::Certs(arguments) => arguments.run(global),
            Self::Passwd(arguments) => arguments.run(global),
            Self::Policy(arguments) => arguments.run(global),
            Self::Reload(arguments) => arguments.run(global),
            Self::Completions(arguments) => arguments.run(),
            Self::Man(arguments) => arguments.run(),
        }
    }
}

impl Global {
    /// The log that the file asks for, with what the command line says instead.
    fn log(&self, config: &log::LogConfig) -> log::LogConfig {
        log::LogConfig {
            format: self.log_format.unwrap_or(config.format),
            level: self.log_level.clone().unwrap_or_else(|| config.level.clone()),
        }
    }
}

/// Names with commas between them; `None` where there are none.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<_> = names.collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Prints one line, or more, on standard output.
fn print(text: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// A failure of which standard output tells already.
#[derive(Debug)]
struct Told;

impl Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it failed, as was told")
    }
}

impl Error for Told {}

fn complain(error: &anyhow::Error, json: bool) {
    if error.is::<Told>() {
        return;
    }
    // Nobody is left to tell if the stream is closed.
    let _ = match error.downcast_ref::<Problems>() {
        Some(problems) if json => writeln!(io::stdout(), "{}", check::json_problems(problems)),
        Some(problems) => writeln!(io::stderr(), "{problems}"),
        None if json => writeln!(io::stdout(), "{}", json!({ "error": format!("{error:#}") })),
        None => writeln!(io::stderr(), "mgate: {error:#}"),
    };
}

/// Whether somebody who reads standard output (`head`, a pager) has seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// In help, behind what a sub-command has itself, and before `--help`.
const LAST: usize = 900;

const EXAMPLES: &str = "\
Examples:
  mgate check mgate.toml           say what a configuration does, or all that is wrong with it
  mgate run -c mgate.toml          serve its routes until SIGTERM or Ctrl-C
  MGATE_LOG_LEVEL=debug mgate run  override one value of mgate.toml

Exit codes: 0 good, 1 failure, 2 wrong configuration or arguments.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn help_has_what_is_common_behind_what_is_not() {
        let error = CommandLine::try_parse_from(["mgate", "policy", "explain", "--help"]).err();
        let help = error.map(|help| help.to_string()).unwrap_or_default();
        let place =
            |option: &str| help.find(&format!("\n      --{option}")).unwrap_or_else(|| panic!("{help}"));
        let own = ["route", "client-id", "action", "method", "qos", "retain"].map(place);
        let common = ["json", "log-level", "log-format"].map(place);
        assert!(own.into_iter().all(|place| place < common[0]), "{help}");
        assert!(common.is_sorted() && Some(common[2]) < help.find("-h, --help"), "{help}");
    }
}
