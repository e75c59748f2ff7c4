use super::MAX_RECORDS;
use super::fault::{Fault, Problem};
use super::number::Number;
use super::record::{Label, Record, Seen, Shown, Value};
use super::resolve::Resolved;

/// Reads the records of a pack. RFC 8428 §6
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Record>, Fault> {
    let mut reader = Reader { rest: bytes };
    let count = reader.pack().map_err(Problem::in_pack)?;
    let mut records = Vec::new();
    for index in 0..count {
        records.push(reader.record().map_err(|problem| problem.in_record(index))?);
    }
    if reader.rest.is_empty() { Ok(records) } else { Err(Problem::Trailing.in_pack()) }
}

/// Writes a resolved pack.
pub(super) fn write(pack: &Resolved) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_head(&mut bytes, ARRAY, pack.measurements.len() as u64);
    for measurement in &pack.measurements {
        let mut count = 0;
        pack.fields(measurement, |_, _| count += 1);
        write_head(&mut bytes, MAP, count);
        pack.fields(measurement, |label, value| {
            write_integer(&mut bytes, label.integer().into());
            write_value(&mut bytes, value);
        });
    }
    bytes
}

/// Bytes that are not read yet.
struct Reader<'a> {
    rest: &'a [u8],
}

/// What each item begins with. RFC 8949 §3
#[derive(Clone, Copy)]
struct Head {
    major: u8,
    info: u8,
    argument: u64,
}

impl<'a> Reader<'a> {
    /// The number of records.
    fn pack(&mut self) -> Result<usize, Problem> {
        let head = self.head()?;
        if head.major != ARRAY || head.info == INDEFINITE {
            return Err(Problem::NoPack);
        }
        let count = usize::try_from(head.argument).ok().filter(|count| *count <= MAX_RECORDS);
        count.ok_or(Problem::TooManyRecords)
    }

    fn record(&mut self) -> Result<Record, Problem> {
        let head = self.head()?;
        if head.major != MAP {
            return Err(Problem::NoPack);
        }
        let (mut record, mut seen) = (Record::default(), Seen::default());
        let mut left = head.argument;
        while head.info == INDEFINITE || left > 0 {
            left = left.saturating_sub(1);
            let key = self.head()?;
            if key.is_break() && head.info == INDEFINITE {
                break;
            }
            self.field(key, &mut record, &mut seen)?;
        }
        Ok(record)
    }

    fn field(&mut self, key: Head, record: &mut Record, seen: &mut Seen) -> Result<(), Problem> {
        match key.major {
            UNSIGNED | NEGATIVE => {
                let label = Label::of_integer(key.integer()).ok_or(Problem::Label)?;
                seen.add(label)?;
                let value = self.value(label)?;
                record.put(label, value)
            }
            TEXT => {
                let name = self.text(key).ok_or(Problem::Key)?;
                // a reader that takes it for the field would see another record
                if Label::of_name(name).is_some() {
                    return Err(Problem::Label);
                }
                seen.add_extension(name)?;
                self.skip(MAX_DEPTH)
            }
            _ => Err(Problem::Key),
        }
    }

    fn value(&mut self, label: Label) -> Result<Value, Problem> {
        let wrong = Problem::Type(label.name());
        let head = self.head()?;
        match (head.major, head.info) {
            (UNSIGNED, _) => Ok(Value::Number(Number::from_integer(head.integer()))),
            // RFC 8428 §6: only an unsigned integer is a version
            _ if label == Label::Version => Err(wrong),
            (NEGATIVE, _) => Ok(Value::Number(Number::from_integer(head.integer()))),
            (BYTES, 0..INDEFINITE) => Ok(Value::Data(self.take(head.argument)?.into())),
            (TEXT, 0..INDEFINITE) => self.text(head).map(|text| Value::Text(text.into())).ok_or(wrong),
            (TAG, _) if head.argument == DECIMAL_FRACTION => self.decimal_fraction(label).map(Value::Number),
            (SIMPLE, 20 | 21) => Ok(Value::Boolean(head.info == 21)),
            (SIMPLE, HALF | SINGLE | DOUBLE) => {
                Number::from_f64(head.float()).map(Value::Number).ok_or(Problem::Range(label.name()))
            }
            _ => Err(wrong),
        }
    }

    /// An exponent of ten and a mantissa. RFC 8949 §3.4.4
    fn decimal_fraction(&mut self, label: Label) -> Result<Number, Problem> {
        let head = self.head()?;
        if (head.major, head.info) != (ARRAY, 2) {
            return Err(Problem::Type(label.name()));
        }
        let [exponent, mantissa] = [self.head()?, self.head()?];
        if exponent.major > NEGATIVE || mantissa.major > NEGATIVE {
            return Err(Problem::Type(label.name()));
        }
        Number::from_decimal(mantissa.integer(), exponent.integer()).ok_or(Problem::Range(label.name()))
    }

    /// The text behind its head.
    fn text(&mut self, head: Head) -> Option<&'a str> {
        let bytes = if head.info == INDEFINITE { return None } else { self.take(head.argument).ok()? };
        str::from_utf8(bytes).ok()
    }

    /// Goes behind an item, of which only the lengths are looked at.
    fn skip(&mut self, depth: usize) -> Result<(), Problem> {
        let head = self.head()?;
        self.skip_behind(head, depth)
    }

    fn skip_behind(&mut self, head: Head, depth: usize) -> Result<(), Problem> {
        let depth = depth.checked_sub(1).ok_or(Problem::Depth)?;
        match (head.major, head.info) {
            (BYTES | TEXT | ARRAY | MAP, INDEFINITE) => self.skip_to_break(head.major, depth),
            (_, INDEFINITE) => Err(Problem::NoCbor),
            (BYTES | TEXT, _) => self.take(head.argument).map(|_| ()),
            (ARRAY | MAP, _) => {
                let items = if head.major == MAP { 2 } else { 1 };
                let items = head.argument.checked_mul(items).ok_or(Problem::NoCbor)?;
                (0..items).try_for_each(|_| self.skip(depth))
            }
            (TAG, _) => self.skip(depth),
            _ => Ok(()),
        }
    }

    fn skip_to_break(&mut self, major: u8, depth: usize) -> Result<(), Problem> {
        loop {
            let head = self.head()?;
            if head.is_break() {
                return Ok(());
            }
            let is_chunk = head.major == major && head.info != INDEFINITE;
            if matches!(major, BYTES | TEXT) && !is_chunk {
                return Err(Problem::NoCbor);
            }
            self.skip_behind(head, depth)?;
            if major == MAP {
                self.skip(depth)?;
            }
        }
    }

    fn head(&mut self) -> Result<Head, Problem> {
        let [first] = *self.take(1)? else { return Err(Problem::NoCbor) };
        let (major, info) = (first >> 5, first & 0x1f);
        let length = match info {
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            // RFC 8949 §3: some are reserved, and not everything can be without a length
            28..=30 => return Err(Problem::NoCbor),
            INDEFINITE if matches!(major, UNSIGNED | NEGATIVE | TAG) => return Err(Problem::NoCbor),
            _ => return Ok(Head { major, info, argument: info.into() }),
        };
        let argument = self.take(length)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        // RFC 8949 §3.3: simple values that fit into the first byte stand there
        if (major, info) == (SIMPLE, 24) && argument < 32 {
            return Err(Problem::NoCbor);
        }
        Ok(Head { major, info, argument })
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Problem> {
        let length = usize::try_from(length).map_err(|_| Problem::NoCbor)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Problem::NoCbor)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl Head {
    fn is_break(self) -> bool {
        (self.major, self.info) == (SIMPLE, INDEFINITE)
    }

    /// What it says as an integer. RFC 8949 §3.1
    fn integer(self) -> i128 {
        let argument = i128::from(self.argument);
        if self.major == NEGATIVE { -1 - argument } else { argument }
    }

    /// What it says as a floating-point number.
    fn float(self) -> f64 {
        match self.info {
            HALF => half(self.argument),
            SINGLE => f32::from_bits(self.argument as u32).into(),
            _ => f64::from_bits(self.argument),
        }
    }
}

/// RFC 8949 appendix D
fn half(bits: u64) -> f64 {
    let (exponent, mantissa) = ((bits >> 10 & 0x1f) as i32, (bits & 0x3ff) as f64);
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

fn write_value(bytes: &mut Vec<u8>, value: Shown<'_>) {
    match value {
        Shown::Boolean(boolean) => bytes.push(SIMPLE << 5 | (20 + u8::from(boolean))),
        Shown::Data(data) => {
            write_head(bytes, BYTES, data.len() as u64);
            bytes.extend(data);
        }
        Shown::Number(number) => match number.to_integer() {
            Some(integer) => write_integer(bytes, integer),
            None => write_float(bytes, number.to_f64()),
        },
        Shown::Text(text) => {
            write_head(bytes, TEXT, text.len() as u64);
            bytes.extend(text.as_bytes());
        }
    }
}

/// Takes integers of 64 bits and a sign.
fn write_integer(bytes: &mut Vec<u8>, integer: i128) {
    let major = if integer < 0 { NEGATIVE } else { UNSIGNED };
    let argument = if integer < 0 { -1 - integer } else { integer };
    write_head(bytes, major, argument as u64);
}

/// As short as it stays exact, but for half precision.
fn write_float(bytes: &mut Vec<u8>, number: f64) {
    let single = number as f32;
    if f64::from(single) == number {
        bytes.push(SIMPLE << 5 | SINGLE);
        bytes.extend(single.to_be_bytes());
    } else {
        bytes.push(SIMPLE << 5 | DOUBLE);
        bytes.extend(number.to_be_bytes());
    }
}

fn write_head(bytes: &mut Vec<u8>, major: u8, argument: u64) {
    let all = argument.to_be_bytes();
    let (info, length) = match argument {
        0..24 => (all[7], 0),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    bytes.push(major << 5 | info);
    bytes.extend(&all[8 - length..]);
}

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

const HALF: u8 = 25;
const SINGLE: u8 = 26;
const DOUBLE: u8 = 27;
const INDEFINITE: u8 = 31;

const DECIMAL_FRACTION: u64 = 4;

/// How deeply the values of extensions may be nested.
const MAX_DEPTH: usize = 16;
