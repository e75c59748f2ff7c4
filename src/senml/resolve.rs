use std::time::Duration;

use super::fault::{Fault, Problem};
use super::number::Number;
use super::record::{Label, Record, Shown, VERSION, Value};
use super::{Format, MAX_BYTES, cbor, json};

/// A pack without base fields and relative times, in order of time. RFC 8428 §4.6
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub(super) measurements: Vec<Measurement>,
    version: u8,
}

/// A record that stands for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The whole name; it has only the characters that names may have.
    pub name: String,
    /// The unit, if it or a base unit was given.
    pub unit: Option<String>,
    /// The value; `None` only where there is a sum.
    pub value: Option<Value>,
    /// The integral of the values over time.
    pub sum: Option<Number>,
    /// Seconds since the Unix epoch.
    pub time: Number,
    /// Seconds in which there will be another one.
    pub update_time: Option<Number>,
}

impl Resolved {
    /// The measurements in order of time; never none.
    pub fn measurements(&self) -> &[Measurement] {
        &self.measurements
    }

    /// Takes the measurements out.
    pub fn into_measurements(self) -> Vec<Measurement> {
        self.measurements
    }

    /// The version of RFC 8428 that the sender spoke, from 1 to 10.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Writes it as a pack.
    pub fn write(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Cbor => cbor::write(self),
            Format::Json => json::write(self),
        }
    }

    /// Shows the fields of one of its measurements in the order in which they are written.
    pub(super) fn fields(&self, measurement: &Measurement, mut field: impl FnMut(Label, Shown<'_>)) {
        // RFC 8428 §4.6
        if self.version != VERSION {
            field(Label::Version, Shown::Number(Number::from_integer(self.version.into())));
        }
        field(Label::Name, Shown::Text(&measurement.name));
        if let Some(unit) = &measurement.unit {
            field(Label::Unit, Shown::Text(unit));
        }
        if let Some(value) = &measurement.value {
            field(Label::of_value(value), value.shown());
        }
        if let Some(sum) = measurement.sum {
            field(Label::Sum, Shown::Number(sum));
        }
        field(Label::Time, Shown::Number(measurement.time));
        if let Some(time) = measurement.update_time {
            field(Label::UpdateTime, Shown::Number(time));
        }
    }
}

/// Resolves all records.
pub(super) fn resolve(records: Vec<Record>, now: Duration) -> Result<Resolved, Fault> {
    let mut bases = Bases { now: seconds(now), ..Bases::default() };
    let mut measurements = Vec::new();
    for (index, mut record) in records.into_iter().enumerate() {
        let is_only_base = record.is_only_base();
        let resolved = bases.take(&mut record).and_then(|()| match is_only_base {
            true => Ok(None),
            false => bases.measurement(record).map(Some),
        });
        measurements.extend(resolved.map_err(|problem| problem.in_record(index))?);
    }
    if measurements.is_empty() {
        return Err(Problem::NoMeasurement.in_pack());
    }
    measurements.sort_by(|one, two| one.time.to_f64().total_cmp(&two.time.to_f64()));
    Ok(Resolved { measurements, version: bases.version.unwrap_or(VERSION) })
}

/// The base fields that apply to the next record.
#[derive(Default)]
struct Bases {
    name: String,
    time: Option<Number>,
    unit: Option<String>,
    value: Option<Number>,
    sum: Option<Number>,
    /// That of the pack; `None` before the first record.
    version: Option<u8>,
    now: Number,
    /// Bytes of all names and units so far.
    bytes: usize,
}

impl Bases {
    /// Takes over the base fields of a record.
    fn take(&mut self, record: &mut Record) -> Result<(), Problem> {
        let version = record.version.or(self.version).unwrap_or(VERSION);
        // RFC 8428 §4.4
        if *self.version.get_or_insert(version) != version {
            return Err(Problem::MixedVersions);
        }
        if let Some(name) = record.base_name.take() {
            self.name = name;
        }
        self.time = record.base_time.or(self.time);
        self.unit = record.base_unit.take().or(self.unit.take());
        self.value = record.base_value.or(self.value);
        self.sum = record.base_sum.or(self.sum);
        Ok(())
    }

    fn measurement(&mut self, record: Record) -> Result<Measurement, Problem> {
        let name = [self.name.as_str(), record.name.as_deref().unwrap_or_default()].concat();
        let unit = record.unit.or_else(|| self.unit.clone());
        self.bytes += name.len() + unit.as_ref().map_or(0, String::len);
        if self.bytes > MAX_BYTES {
            return Err(Problem::TooLarge);
        }
        check_name(&name)?;
        let sum = match (self.sum, record.sum) {
            (None, None) => None,
            (base, sum) => Some(added(base, sum, Label::Sum)?),
        };
        let value = match record.value {
            Some(Value::Number(number)) => {
                Some(Value::Number(added(self.value, Some(number), Label::Value)?))
            }
            None if sum.is_none() => return Err(Problem::NoValue),
            value => value,
        };
        let time = self.time(record.time)?;
        Ok(Measurement { name, unit, value, sum, time, update_time: record.update_time })
    }

    /// RFC 8428 §4.5.3
    fn time(&self, time: Option<Number>) -> Result<Number, Problem> {
        let time = added(self.time, time, Label::Time)?;
        if is_absolute(time) {
            return Ok(time);
        }
        let time = added(Some(self.now), Some(time), Label::Time)?;
        if is_absolute(time) { Ok(time) } else { Err(Problem::TooEarly) }
    }
}

fn added(base: Option<Number>, number: Option<Number>, label: Label) -> Result<Number, Problem> {
    let [base, number] = [base, number].map(Option::unwrap_or_default);
    base.plus(number).ok_or(Problem::Range(label.name()))
}

fn is_absolute(time: Number) -> bool {
    time.to_f64() >= FIRST_ABSOLUTE
}

/// RFC 8428 §4.5.1
fn check_name(name: &str) -> Result<(), Problem> {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-:./_".contains(&byte);
    let is_name = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if is_name && name.bytes().all(may_stand) { Ok(()) } else { Err(Problem::Name) }
}

/// To the millisecond: networks are no more exact.
fn seconds(now: Duration) -> Number {
    Number::from_f64(now.as_millis() as f64 / 1000.0).unwrap_or_default()
}

const FIRST_ABSOLUTE: f64 = (1u64 << 28) as f64;
