//! Where copies of what passed go.

pub mod dialect;
mod log;
pub mod record;

pub use log::Log;
