//! mgate's own log.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What the log looks like, and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// What a line looks like.
    pub format: Format,
    /// What is shown: a level, and levels of parts of mgate.
    pub level: Level,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Text for people.
    #[default]
    Text,
}

/// What is shown, such as `info` or `info,mgate::packet=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level(String);

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: Format::default(), level: Level("info".into()) }
    }
}

impl Level {
    /// Takes levels with commas between them: `error`, `warn`, `info`, `debug`, `trace` or `off`, each for
    /// everything or, as `target=level`, for a part.
    pub fn parse(text: &str) -> Result<Self, String> {
        for directive in text.split(',') {
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            if level.is_empty() || level.parse::<LevelFilter>().is_err() {
                return Err(format!(
                    "\"{directive}\" is not a level (error, warn, info, debug, trace, off) or target=level"
                ));
            }
        }
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(format!("\"{text}\" does not select what to log: {error}")),
        }
    }

    pub(crate) fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

/// Sends the log of the whole process to standard error. Fails if another log was started before.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.level.filter())
        .with_writer(io::stderr)
        .with_ansi(is_coloured);
    match config.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read() {
        for text in ["info", "off", "WARN", "info,mgate::packet=debug", "mgate=trace"] {
            assert_eq!(Level::parse(text), Ok(Level(text.into())));
        }
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "inof", "info,", "mgate=loud", "mgate::packet"] {
            assert!(Level::parse(text).is_err(), "{text:?}");
        }
    }
}
