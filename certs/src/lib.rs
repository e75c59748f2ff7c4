//! A small certificate authority: it creates itself, issues server and device certificates, signs requests,
//! revokes, and keeps what it did in a directory.
//!
//! [`Authority`] works in memory, reads no clock and touches no file; [`Store`] is an authority whose key,
//! certificates and records are files. The crate checks no chains and speaks no enrolment protocol.

mod authority;
mod error;
mod file;
mod index;
mod name;
mod request;
mod serial;
mod store;
mod time;

pub use authority::{Authority, Certificate, Issued, PrivateKey, Revoked, Usage};
pub use error::{CertError, StoreError};
pub use file::{Access, replace_file};
pub use index::Record;
pub use name::San;
pub use serial::Serial;
pub use store::{Existing, Kept, Store};
pub use time::{Timestamp, Validity};
