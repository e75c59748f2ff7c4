use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::MAX_RECORDS;
use super::fault::{Fault, Problem};
use super::number::Number;
use super::record::{Label, Record, Seen, Shown, Value};
use super::resolve::Resolved;

/// Reads the records of a pack. RFC 8428 §5
pub(super) fn read(text: &[u8]) -> Result<Vec<Record>, Fault> {
    let Records { records, more } = serde_json::from_slice(text).map_err(|error| fault(&error))?;
    if more > 0 {
        return Err(Problem::TooManyRecords.in_pack());
    }
    let records = records.iter().enumerate();
    records.map(|(index, members)| record(members).map_err(|problem| problem.in_record(index))).collect()
}

/// Writes a resolved pack, in UTF-8.
pub(super) fn write(pack: &Resolved) -> Vec<u8> {
    let mut text = String::from("[");
    for measurement in &pack.measurements {
        text.push_str(if text.len() > 1 { ",{" } else { "{" });
        pack.fields(measurement, |label, value| {
            if !text.ends_with('{') {
                text.push(',');
            }
            text.push_str(&format!("\"{}\":{}", label.name(), value));
        });
        text.push('}');
    }
    text.push(']');
    text.into_bytes()
}

/// The records of a pack, of which only so many are kept as there may be.
struct Records<'a> {
    records: Vec<Members<'a>>,
    more: usize,
}

/// The members of an object with their values as they are written, be they there twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Records<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RecordsVisitor)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct RecordsVisitor;
struct MembersVisitor;

impl<'de> Visitor<'de> for RecordsVisitor {
    type Value = Records<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let (mut records, mut more) = (Vec::new(), 0);
        while records.len() < MAX_RECORDS {
            match list.next_element()? {
                Some(record) => records.push(record),
                None => return Ok(Records { records, more }),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            more += 1;
        }
        Ok(Records { records, more })
    }
}

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// As JSON has it.
impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(boolean) => boolean.fmt(f),
            Self::Data(bytes) => write!(f, "\"{}\"", URL_SAFE_NO_PAD.encode(bytes)),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => serde_json::Value::from(*text).fmt(f),
        }
    }
}

fn fault(error: &serde_json::Error) -> Fault {
    match error.is_data() {
        true => Problem::NoPack.in_pack(),
        false => Problem::NoJson { line: error.line(), column: error.column() }.in_pack(),
    }
}

fn record(members: &Members<'_>) -> Result<Record, Problem> {
    let (mut record, mut seen) = (Record::default(), Seen::default());
    for (name, written) in &members.0 {
        match Label::of_name(name) {
            Some(label) => {
                seen.add(label)?;
                record.put(label, value(label, written.get())?)?;
            }
            None => seen.add_extension(name)?,
        }
    }
    Ok(record)
}

fn value(label: Label, written: &str) -> Result<Value, Problem> {
    let wrong = Problem::Type(label.name());
    match written.as_bytes().first() {
        Some(b't' | b'f') => Ok(Value::Boolean(written == "true")),
        Some(b'"') => {
            let text: String = serde_json::from_str(written).map_err(|_| wrong)?;
            match label {
                Label::DataValue => URL_SAFE_NO_PAD.decode(text).map(Value::Data).map_err(|_| wrong),
                _ => Ok(Value::Text(text)),
            }
        }
        Some(b'-' | b'0'..=b'9') => number(label, written).map(Value::Number),
        _ => Err(wrong),
    }
}

fn number(label: Label, digits: &str) -> Result<Number, Problem> {
    // RFC 8428 §5
    if digits.contains('E') {
        return Err(Problem::Exponent(label.name()));
    }
    Number::from_digits(digits).ok_or(Problem::Range(label.name()))
}
