//! How copies are written.

use mgate_policies::Now;
use mgate_proxy::gate::{Message, PacketSeen, SessionEvent};

use super::record::Record;

/// Writes what passed and what happened as records for the bus. It waits for nothing and knows no connection.
pub trait Dialect: Send + Sync {
    /// The copy of a message; or why there can be none, such as a topic that has no place in the dialect.
    fn message(&self, message: &Message<'_>) -> Result<Record, &'static str>;

    /// Word of what happened to a session; `None` where the dialect has no word for it.
    fn event(&self, event: &SessionEvent<'_>, now: Now) -> Option<Record>;

    /// Whether packets are traced.
    fn wants_packets(&self) -> bool;

    /// One packet that was judged.
    fn packet(&self, seen: &PacketSeen<'_>, now: Now) -> Option<Record>;
}
