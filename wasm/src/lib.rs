//! Plug-ins of mgate: core WebAssembly modules that answer one request at a time, within bounds.
//!
//! A [`Module`] is given bytes and answers with a code or with bytes; what they mean is for the caller. A module
//! gets no file, no socket and no clock of its own: it may write to the log and ask for the time of the request.
//! Whatever goes wrong in it (a trap, an endless loop, too much memory, an answer that is none) is a
//! [`CallError`], ends that instance, and touches no other.
//!
//! This crate knows no policy, no packet, no configuration file and no runtime, and reads no clock.

mod error;
mod host;
mod instance;
mod log;
mod module;

pub use error::{CallError, LoadError};
pub use log::{LogLevel, LogSink};
pub use module::{ABI_VERSION, Bounds, Module, Options, POLICY_EVALUATE, Reply, TRANSFORM_APPLY};

#[cfg(test)]
mod tests;
