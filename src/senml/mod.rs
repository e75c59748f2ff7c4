//! Sensor Measurement Lists in JSON and CBOR: read strictly, resolved, written. RFC 8428
//!
//! XML, EXI and streams (SensML) are not read.

mod cbor;
mod fault;
mod json;
mod number;
mod record;
mod resolve;

use std::time::Duration;

use self::record::Record;

pub use self::fault::{Fault, Problem};
pub use self::number::Number;
pub use self::record::Value;
pub use self::resolve::{Measurement, Resolved};

/// Records as they were sent: each is well-formed, what they mean together is not known yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Pack {
    records: Vec<Record>,
}

/// How a pack is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/senml+cbor`. RFC 8428 §6
    Cbor,
    /// `application/senml+json`. RFC 8428 §5
    Json,
}

impl Pack {
    /// Reads a pack in JSON.
    pub fn parse_json(text: &[u8]) -> Result<Self, Fault> {
        check_size(text)?;
        Ok(Self { records: json::read(text)? })
    }

    /// Reads a pack in CBOR.
    pub fn parse_cbor(bytes: &[u8]) -> Result<Self, Fault> {
        check_size(bytes)?;
        Ok(Self { records: cbor::read(bytes)? })
    }

    /// Reads a pack in either.
    pub fn parse(bytes: &[u8], format: Format) -> Result<Self, Fault> {
        match format {
            Format::Cbor => Self::parse_cbor(bytes),
            Format::Json => Self::parse_json(bytes),
        }
    }

    /// Applies base fields and makes relative times absolute; `now` is the time since the Unix epoch at which the
    /// pack was sent. RFC 8428 §4.6
    pub fn resolve(self, now: Duration) -> Result<Resolved, Fault> {
        resolve::resolve(self.records, now)
    }
}

impl Format {
    /// What the first byte of a pack tells; `None` if no pack begins so.
    pub fn of_pack(bytes: &[u8]) -> Option<Self> {
        match bytes.iter().find(|byte| !b" \t\r\n".contains(byte))? {
            b'[' => Some(Self::Json),
            0x80..=0x9f => Some(Self::Cbor),
            _ => None,
        }
    }
}

fn check_size(bytes: &[u8]) -> Result<(), Fault> {
    if bytes.len() > MAX_BYTES { Err(Problem::TooLarge.in_pack()) } else { Ok(()) }
}

/// The most bytes of a pack, and of all names and units in it once they are resolved.
const MAX_BYTES: usize = 1024 * 1024;
/// The most records of a pack.
const MAX_RECORDS: usize = 10_000;

#[cfg(test)]
mod tests;
