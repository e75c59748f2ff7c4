use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::str::FromStr;

/// The command line behind the scenario's name: `--name value` and `--flag`.
pub(crate) struct Arguments {
    values: BTreeMap<String, String>,
}

impl Arguments {
    /// Takes the words apart; a name may stand once.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> io::Result<Self> {
        let mut values = BTreeMap::new();
        while let Some(word) = words.next() {
            let name =
                word.strip_prefix("--").ok_or_else(|| complaint(&word, "is not an option"))?.to_owned();
            let value = if FLAGS.contains(&name.as_str()) { Some(String::new()) } else { words.next() };
            let value = value.ok_or_else(|| complaint(&word, "needs a value"))?;
            if values.insert(name, value).is_some() {
                return Err(complaint(&word, "is given twice"));
            }
        }
        Ok(Self { values })
    }

    /// Takes the option's value, or `default` where it is not given.
    pub(crate) fn take<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> io::Result<T> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|error| complaint(name, &format!("cannot be {text:?}: {error}")))
    }

    /// Takes the option's value as it was written.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    /// Takes a flag and says whether it was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        self.values.remove(name).is_some()
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self.values.into_keys().next() {
            Some(name) => Err(complaint(&name, "is not an option of this scenario")),
            None => Ok(()),
        }
    }
}

fn complaint(name: &str, what: &str) -> io::Error {
    io::Error::other(format!("--{} {what}", name.trim_start_matches("--")))
}

const FLAGS: [&str; 3] = ["all", "json", "tls"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_flags_are_told_apart() {
        let mut arguments = parse("--tls --rate 5").unwrap();
        assert!(arguments.flag("tls"));
        assert_eq!(arguments.take("rate", 1).unwrap(), 5);
        assert_eq!(arguments.take("clients", 7).unwrap(), 7);
        arguments.finish().unwrap();
    }

    #[test]
    fn bad_options_are_named() {
        assert_eq!(message(parse("rate")), "--rate is not an option");
        assert_eq!(message(parse("--rate")), "--rate needs a value");
        assert_eq!(message(parse("--tls --tls")), "--tls is given twice");
        assert_eq!(message(parse("--rats 5").unwrap().finish()), "--rats is not an option of this scenario");
        assert!(message(parse("--rate x").unwrap().take("rate", 1)).starts_with("--rate cannot be \"x\""));
    }

    fn parse(line: &str) -> io::Result<Arguments> {
        Arguments::parse(line.split(' ').map(str::to_owned))
    }

    fn message<T>(result: io::Result<T>) -> String {
        result.err().unwrap().to_string()
    }
}
