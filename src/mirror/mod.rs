//! Where copies of what passed go.

mod log;

pub use log::Log;
