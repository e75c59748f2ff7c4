//! Where copies of what passed go.

pub mod dialect;
pub mod draft;
mod escape;
mod log;
pub mod nats;
pub mod record;
mod running;

pub use log::Log;
pub(crate) use running::RunningMirrors;
