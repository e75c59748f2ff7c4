use mgate_proxy::gate::{Copied, Message, Mirror};

/// Writes one line for each message to the log.
pub struct Log {
    name: Box<str>,
}

impl Log {
    /// A mirror that each line names.
    pub fn new(name: &str) -> Self {
        Self { name: name.into() }
    }
}

impl Mirror for Log {
    fn message(&self, message: &Message<'_>) -> Copied {
        tracing::info!(
            target: "mgate::mirror",
            mirror = %self.name,
            route = %message.client.route,
            client = %message.client.client_id.escape_debug(),
            principal = %message.client.principal.id.escape_debug(),
            action = %message.action,
            topic = %message.topic.escape_debug(),
            qos = message.qos,
            retain = message.retain,
            bytes = message.payload.len(),
            payload = %beginning(message.payload),
            "message"
        );
        Copied::Taken
    }
}

/// The beginning of a payload as one line of text.
fn beginning(payload: &[u8]) -> String {
    let shown = &payload[..payload.len().min(SHOWN_BYTES)];
    let text = String::from_utf8_lossy(shown).escape_debug().to_string();
    if shown.len() < payload.len() { text + "…" } else { text }
}

const SHOWN_BYTES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_one_short_line() {
        assert_eq!(beginning(b"{\"t\":21}\n"), "{\\\"t\\\":21}\\n");
        assert_eq!(beginning(b"\xff\x1b[2J"), "\u{fffd}\\u{1b}[2J");
        assert_eq!(beginning(&[b'a'; 300]), "a".repeat(200) + "…");
    }
}
