use std::fmt::Write as _;
use std::str::FromStr;

use crate::authority::{Certificate, Revoked, Usage};
use crate::serial::Serial;
use crate::time::Timestamp;

/// What is remembered of an issued certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub serial: Serial,
    /// What it may be used for.
    pub usage: Usage,
    /// The last second at which it is valid.
    pub until: Timestamp,
    /// Since when it is revoked; `None` if it is not.
    pub revoked: Option<Timestamp>,
    /// Whom it names.
    pub name: String,
}

/// All records of an authority, oldest first, and the number of its last revocation list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) list_number: u64,
    pub(crate) records: Vec<Record>,
}

impl Index {
    /// Reads what [`Self::to_text`] wrote; an error is the number of the line that makes no sense.
    pub(crate) fn parse(text: &str) -> Result<Self, usize> {
        let mut index = Self::default();
        for (at, line) in text.lines().enumerate() {
            index.parse_line(line).ok_or(at + 1)?;
        }
        Ok(index)
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = String::from(HEADER);
        let _ = writeln!(text, "{LIST}\t{}", self.list_number);
        for record in &self.records {
            text.push_str(&record.to_line());
        }
        text
    }

    pub(crate) fn revoked(&self) -> Vec<Revoked> {
        let revoked = |record: &Record| Some(Revoked { serial: record.serial, at: record.revoked? });
        self.records.iter().filter_map(revoked).collect()
    }

    fn parse_line(&mut self, line: &str) -> Option<()> {
        if line.starts_with('#') {
            return Some(());
        }
        if let Some((LIST, number)) = line.split_once('\t') {
            self.list_number = number.parse().ok()?;
        } else {
            self.records.push(Record::parse(line)?);
        }
        Some(())
    }
}

impl Record {
    pub(crate) fn of(certificate: &Certificate) -> Self {
        Self {
            serial: certificate.serial,
            usage: certificate.usage,
            until: certificate.until,
            revoked: None,
            name: certificate.name.clone(),
        }
    }

    pub(crate) fn to_line(&self) -> String {
        let revoked = self.revoked.map_or_else(|| NEVER.into(), |at| at.to_string());
        format!("{}\t{}\t{}\t{revoked}\t{}\n", self.serial, self.usage, self.until, self.name)
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(5, '\t');
        Some(Self {
            serial: parse(fields.next()?)?,
            usage: usage(fields.next()?)?,
            until: parse(fields.next()?)?,
            revoked: revoked(fields.next()?)?,
            name: fields.next()?.into(),
        })
    }
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn usage(text: &str) -> Option<Usage> {
    [Usage::Client, Usage::Server].into_iter().find(|usage| usage.to_string() == text)
}

fn revoked(text: &str) -> Option<Option<Timestamp>> {
    if text == NEVER { Some(None) } else { parse(text).map(Some) }
}

const HEADER: &str = "# Certificates: serial, usage, valid until, revoked at, name (separated by tabs)\n";
const LIST: &str = "crl";
const NEVER: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_index_reads_back() {
        let index = Index::parse(TEXT).unwrap();
        assert_eq!(index.list_number, 7);
        assert_eq!(index.records.len(), 2);
        assert_eq!(index.revoked().len(), 1);
        assert_eq!(index.records[1].name, "name with spaces");
        assert_eq!(index.to_text(), TEXT);
    }

    #[test]
    fn broken_line_is_named() {
        let torn = format!("{TEXT}4a0000000000");
        assert_eq!(Index::parse(&torn), Err(5));
        assert_eq!(Index::parse(&TEXT.replace("\tclient\t", "\tdevice\t")), Err(3));
        assert_eq!(Index::parse(&TEXT.replace("crl\t7", "crl\tseven")), Err(2));
    }

    const TEXT: &str = "# Certificates: serial, usage, valid until, revoked at, name (separated by tabs)\n\
        crl\t7\n\
        4a000000000000000000000000000001\tclient\t2027-05-04T10:00:00Z\t2026-06-01T00:00:00Z\tdev-1\n\
        4a000000000000000000000000000002\tserver\t2027-05-04T10:00:00Z\t-\tname with spaces\n";
}
