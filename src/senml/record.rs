use std::collections::BTreeSet;

use super::fault::Problem;
use super::number::Number;

/// What was measured. RFC 8428 §4.2
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `vb`.
    Boolean(bool),
    /// `vd`.
    Data(Vec<u8>),
    /// `v`.
    Number(Number),
    /// `vs`.
    Text(String),
}

/// A value to be written.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    Boolean(bool),
    Data(&'a [u8]),
    Number(Number),
    Text(&'a str),
}

/// The fields of one record that are understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub(super) base_name: Option<String>,
    pub(super) base_time: Option<Number>,
    pub(super) base_unit: Option<String>,
    pub(super) base_value: Option<Number>,
    pub(super) base_sum: Option<Number>,
    pub(super) version: Option<u8>,
    pub(super) name: Option<String>,
    pub(super) unit: Option<String>,
    pub(super) value: Option<Value>,
    pub(super) sum: Option<Number>,
    pub(super) time: Option<Number>,
    pub(super) update_time: Option<Number>,
}

/// The label of a field. RFC 8428 §4.3
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    BaseName,
    BaseSum,
    BaseTime,
    BaseUnit,
    BaseValue,
    BooleanValue,
    DataValue,
    Name,
    StringValue,
    Sum,
    Time,
    Unit,
    UpdateTime,
    Value,
    Version,
}

/// The labels of one record, each of which may stand there once.
#[derive(Default)]
pub(super) struct Seen {
    /// A bit for each.
    known: u16,
    extensions: BTreeSet<Box<str>>,
}

impl Value {
    pub(super) fn shown(&self) -> Shown<'_> {
        match self {
            Self::Boolean(boolean) => Shown::Boolean(*boolean),
            Self::Data(data) => Shown::Data(data),
            Self::Number(number) => Shown::Number(*number),
            Self::Text(text) => Shown::Text(text),
        }
    }
}

impl Record {
    /// Takes what a label names.
    pub(super) fn put(&mut self, label: Label, value: Value) -> Result<(), Problem> {
        match label {
            Label::BaseName => self.base_name = Some(text(label, value)?),
            Label::BaseSum => self.base_sum = Some(number(label, &value)?),
            Label::BaseTime => self.base_time = Some(number(label, &value)?),
            Label::BaseUnit => self.base_unit = Some(text(label, value)?),
            Label::BaseValue => self.base_value = Some(number(label, &value)?),
            Label::Name => self.name = Some(text(label, value)?),
            Label::Sum => self.sum = Some(number(label, &value)?),
            Label::Time => self.time = Some(number(label, &value)?),
            Label::Unit => self.unit = Some(text(label, value)?),
            Label::UpdateTime => self.update_time = Some(number(label, &value)?),
            Label::Version => self.version = Some(version(number(label, &value)?)?),
            Label::BooleanValue | Label::DataValue | Label::StringValue | Label::Value => {
                if label != Label::of_value(&value) {
                    return Err(Problem::Type(label.name()));
                }
                if self.value.replace(value).is_some() {
                    return Err(Problem::SeveralValues);
                }
            }
        }
        Ok(())
    }

    /// Whether it only sets base fields for those after it, as in RFC 8428 §5.1.7.
    pub(super) fn is_only_base(&self) -> bool {
        let Self { base_name, base_time, base_unit, base_value, base_sum, version, .. } = self;
        let has_base = base_name.is_some()
            || base_time.is_some()
            || base_unit.is_some()
            || base_value.is_some()
            || base_sum.is_some()
            || version.is_some();
        let has_texts = self.name.is_some() || self.unit.is_some();
        let has_numbers = self.sum.is_some() || self.time.is_some() || self.update_time.is_some();
        has_base && !has_texts && !has_numbers && self.value.is_none()
    }
}

impl Label {
    /// The label that JSON writes so.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        LABELS.iter().copied().find(|label| label.name() == name)
    }

    /// The label that CBOR writes so.
    pub(super) fn of_integer(integer: i128) -> Option<Self> {
        LABELS.iter().copied().find(|label| i128::from(label.integer()) == integer)
    }

    /// The label of a value.
    pub(super) fn of_value(value: &Value) -> Self {
        match value {
            Value::Boolean(_) => Self::BooleanValue,
            Value::Data(_) => Self::DataValue,
            Value::Number(_) => Self::Value,
            Value::Text(_) => Self::StringValue,
        }
    }

    /// What JSON calls it.
    pub(super) fn name(self) -> &'static str {
        self.words().0
    }

    /// What CBOR calls it.
    pub(super) fn integer(self) -> i8 {
        self.words().1
    }

    /// RFC 8428 §4.3, table 1
    fn words(self) -> (&'static str, i8) {
        match self {
            Self::BaseName => ("bn", -2),
            Self::BaseSum => ("bs", -6),
            Self::BaseTime => ("bt", -3),
            Self::BaseUnit => ("bu", -4),
            Self::BaseValue => ("bv", -5),
            Self::BooleanValue => ("vb", 4),
            Self::DataValue => ("vd", 8),
            Self::Name => ("n", 0),
            Self::StringValue => ("vs", 3),
            Self::Sum => ("s", 5),
            Self::Time => ("t", 6),
            Self::Unit => ("u", 1),
            Self::UpdateTime => ("ut", 7),
            Self::Value => ("v", 2),
            Self::Version => ("bver", -1),
        }
    }
}

impl Seen {
    /// Takes a label that is understood.
    pub(super) fn add(&mut self, label: Label) -> Result<(), Problem> {
        let bit = 1 << label as u16;
        let is_new = self.known & bit == 0;
        self.known |= bit;
        if is_new { Ok(()) } else { Err(Problem::Twice) }
    }

    /// Takes a label of a field that is to be ignored.
    pub(super) fn add_extension(&mut self, name: &str) -> Result<(), Problem> {
        // RFC 8428 §4.4
        if name.ends_with('_') {
            return Err(Problem::MustUnderstand);
        }
        if self.extensions.insert(name.into()) { Ok(()) } else { Err(Problem::Twice) }
    }
}

fn text(label: Label, value: Value) -> Result<String, Problem> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err(Problem::Type(label.name())),
    }
}

fn number(label: Label, value: &Value) -> Result<Number, Problem> {
    match value {
        Value::Number(number) => Ok(*number),
        _ => Err(Problem::Type(label.name())),
    }
}

fn version(number: Number) -> Result<u8, Problem> {
    let version = number.to_integer().and_then(|number| u8::try_from(number).ok());
    version.filter(|version| (1..=VERSION).contains(version)).ok_or(Problem::Version)
}

/// The version that RFC 8428 describes, and the latest that is understood.
pub(super) const VERSION: u8 = 10;

const LABELS: [Label; 15] = [
    Label::BaseName,
    Label::BaseSum,
    Label::BaseTime,
    Label::BaseUnit,
    Label::BaseValue,
    Label::BooleanValue,
    Label::DataValue,
    Label::Name,
    Label::StringValue,
    Label::Sum,
    Label::Time,
    Label::Unit,
    Label::UpdateTime,
    Label::Value,
    Label::Version,
];
