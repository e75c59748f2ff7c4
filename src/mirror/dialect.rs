//! How copies are written.

mod channels;
mod cloud_events;
mod content_type;
mod dojot;
mod envelope;
mod events;
mod headers;
mod kind;
mod packets;
mod random;
mod stencil;
mod subject;
mod timestamp;
mod trace_context;
mod writer;

use mgate_policies::{Client, Now};
use mgate_proxy::gate::{Memo, Message, PacketSeen, SessionEvent};

use self::random::ID_LEN;
use self::trace_context::TraceContext;
use super::draft::Draft;
use super::record::Record;

pub use self::kind::Kind;
pub use self::subject::SubjectTemplate;
pub use self::writer::{Writer, WriterOptions};
pub use super::escape::unescape;

/// Writes what passed and what happened as records for the bus. It waits for nothing and knows no connection.
pub trait Dialect: Send + Sync {
    /// The copy of a message, written into `room`, which is empty; or why there can be none, such as a topic that
    /// has no place in the dialect.
    fn message(&self, message: &Message<'_>, room: Vec<u8>) -> Result<Record, &'static str>;

    /// The same for a message of a session that keeps something for the next one.
    fn message_of_session(
        &self,
        message: &Message<'_>,
        _memo: &mut Memo,
        room: Vec<u8>,
    ) -> Result<Draft, &'static str> {
        self.message(message, room).map(Draft::from)
    }

    /// Word of what happened to a session; `None` where the dialect has no word for it.
    fn event(&self, event: &SessionEvent<'_>, now: Now) -> Option<Record>;

    /// Whether packets are traced.
    fn wants_packets(&self) -> bool;

    /// One packet that was judged.
    fn packet(&self, seen: &PacketSeen<'_>, now: Now) -> Option<Record>;
}

/// What is found out about a message for its copy.
struct Described<'a> {
    id: [u8; ID_LEN],
    trace: TraceContext<'a>,
    content_type: Option<&'a str>,
    action: &'a str,
    protocol: &'a str,
}

/// Who it is: whoever was identified. What a client shows to prove it, never.
fn identity(client: &Client) -> &str {
    match &*client.principal.id {
        "" => &client.client_id,
        id => id,
    }
}

#[cfg(test)]
pub(crate) mod tests;
