//! mgate's own log.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{self, Writer};

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

    /// Where nothing is said of them, libraries say at `info` what we say ourselves.
    fn with_quiet_libraries(&self) -> String {
        let is_info = |directive: &str| directive.eq_ignore_ascii_case("info");
        match self.0.split(',').any(is_info) && !self.0.contains(NATS_LIBRARY) {
            true => format!("{},{NATS_LIBRARY}=warn", self.0),
            false => self.0.clone(),
        }
    }

    pub(crate) fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse_lossy(self.with_quiet_libraries())
    }
}

/// Sends the log of the whole process to standard error. Fails if another log was started before.
pub fn start(config: &LogConfig) -> anyhow::Result<()> {
    let is_coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let fields = format::debug_fn(write_field).delimited(" ");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(config.level.filter())
        .with_writer(io::stderr)
        .with_ansi(is_coloured);
    match config.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.fmt_fields(fields).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("cannot start the log: {error}"))
}

/// Quotes a value where its end would be in doubt, and no other.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    if field.name() == "message" {
        return writer.write_str(&text);
    }
    let name = field.name().trim_start_matches("r#");
    match writer.has_ansi_escapes() {
        true => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m")?,
        false => write!(writer, "{name}=")?,
    }
    // a string comes in quotes already, and escaped
    let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    match (inside, inside.unwrap_or(&text)) {
        (_, word) if is_word(word) => writer.write_str(word),
        (Some(inside), _) if is_escaped(inside) => writer.write_str(&text),
        _ => write!(writer, "{text:?}"),
    }
}

/// Whether a text may stand between quotes as it is.
fn is_escaped(inside: &str) -> bool {
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        let is_odd = match character {
            '\\' => characters.next().is_none(),
            character => character == '"' || character.is_control(),
        };
        if is_odd {
            return false;
        }
    }
    true
}

fn is_word(text: &str) -> bool {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\' | '=');
    !text.is_empty() && !text.contains(is_odd)
}

const NATS_LIBRARY: &str = "async_nats";

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn levels_are_read() {
        for text in ["info", "off", "WARN", "info,mgate::packet=debug", "mgate=trace"] {
            assert_eq!(Level::parse(text), Ok(Level(text.into())));
        }
    }

    #[test]
    fn values_are_quoted_where_their_end_would_be_in_doubt() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || Sink(Arc::clone(&sink)))
            .with_ansi(false)
            .without_time()
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let (client, error, odd) = ("dev-1", "nats: IO error", "\"a\nb\"");
            tracing::info!(client, same = %client, %error, line = "a\n\"b\"", %odd, empty = "", count = 3, "all is well");
        });
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let expected = r#"all is well client=dev-1 same=dev-1 error="nats: IO error" line="a\n\"b\"" odd="\"a\nb\"" empty="" count=3"#;
        assert!(text.ends_with(&format!("{expected}\n")), "{text}");
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_asked_for() {
        let filter = |text| Level::parse(text).unwrap().with_quiet_libraries();
        assert_eq!(filter("info,mgate::packet=debug"), "info,mgate::packet=debug,async_nats=warn");
        for text in ["error", "debug", "info,async_nats=info"] {
            assert_eq!(filter(text), text);
        }
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "inof", "info,", "mgate=loud", "mgate::packet"] {
            assert!(Level::parse(text).is_err(), "{text:?}");
        }
    }
}
