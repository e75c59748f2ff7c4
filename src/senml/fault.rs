use std::fmt;

use super::{MAX_BYTES, MAX_RECORDS};

/// What is wrong with a pack; says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The record, counted from 1 as in RFC 8428 §9; `None` for the pack as a whole.
    pub record: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// A rule of RFC 8428, or a bound, that a pack breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Extensions are nested too deeply.
    Depth,
    /// The exponent of this number has an upper case `E`. RFC 8428 §5
    Exponent(&'static str),
    /// A key is neither an integer nor a text.
    Key,
    /// A label that CBOR does not have: an integer beyond the table, or the text of a label with an integer.
    /// RFC 8428 §6
    Label,
    /// Records have different versions. RFC 8428 §4.4
    MixedVersions,
    /// A label that ends with `_` and is not understood. RFC 8428 §4.4
    MustUnderstand,
    /// The name is empty or has characters that no name has. RFC 8428 §4.5.1
    Name,
    /// It is no CBOR, or ends too early.
    NoCbor,
    /// It is no JSON, from this place on.
    NoJson {
        /// The line, from 1 on.
        line: usize,
        /// The column, from 1 on.
        column: usize,
    },
    /// There are no records, or only such with base fields.
    NoMeasurement,
    /// It is no list of records, one of definite length in CBOR.
    NoPack,
    /// There is neither a value nor a sum. RFC 8428 §4.2
    NoValue,
    /// This number is too large, infinite or none.
    Range(&'static str),
    /// There is more than one value. RFC 8428 §4.2
    SeveralValues,
    /// The time, once absolute, is before the first one that can be said. RFC 8428 §4.5.3
    TooEarly,
    /// The pack, or what it becomes, has too many bytes.
    TooLarge,
    /// The pack has too many records.
    TooManyRecords,
    /// Something follows the pack.
    Trailing,
    /// A label stands twice in one record.
    Twice,
    /// What this label names is of another type.
    Type(&'static str),
    /// The version is later than 10, or none. RFC 8428 §4.4
    Version,
}

impl Problem {
    /// The fault of a record, counted from 0.
    pub(super) fn in_record(self, index: usize) -> Fault {
        Fault { record: Some(index + 1), problem: self }
    }

    /// The fault of a whole pack.
    pub(super) fn in_pack(self) -> Fault {
        Fault { record: None, problem: self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record {
            Some(number) => write!(f, "record {number}: {}", self.problem),
            None => self.problem.fmt(f),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Depth => "an extension is nested too deeply",
            Self::Exponent(label) => return write!(f, "the exponent of `{label}` has an upper case E"),
            Self::Key => "a key is neither an integer nor a text",
            Self::Label => "a label is none of CBOR's",
            Self::MixedVersions => "its version is not that of the records before",
            Self::MustUnderstand => "a label that must be understood is not known",
            Self::Name => "the name is empty or has characters that no name has",
            Self::NoCbor => "is no CBOR",
            Self::NoJson { line, column } => return write!(f, "is no JSON at line {line}, column {column}"),
            Self::NoMeasurement => "has no measurement",
            Self::NoPack => "is no list of records",
            Self::NoValue => "has neither a value nor a sum",
            Self::Range(label) => return write!(f, "`{label}` is no number that can be told"),
            Self::SeveralValues => "has more than one value",
            Self::TooEarly => "the time is before 4 July 1978, where absolute times begin",
            Self::TooLarge => return write!(f, "has more than {MAX_BYTES} bytes, or becomes as long"),
            Self::TooManyRecords => return write!(f, "has more than {MAX_RECORDS} records"),
            Self::Trailing => "something follows the pack",
            Self::Twice => "a label stands twice",
            Self::Type(label) => return write!(f, "`{label}` is of another type"),
            Self::Version => "`bver` is no version from 1 to 10",
        })
    }
}

impl std::error::Error for Fault {}
