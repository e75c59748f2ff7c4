//! What happens in the gateway, as lines on the screen: messages from the mirror, the rest from the log.

use std::fmt;
use std::sync::Arc;

use anyhow::Context;
use mgate_proxy::gate::{Copied, Message, Mirror};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::screen::{Row, Screen, printable};
use super::style::Paint;
use crate::log;

impl Screen {
    /// Shows the log of the whole process from here on. Fails if another log was started before.
    pub(crate) fn show_log(self: &Arc<Self>, level: &log::Level) -> anyhow::Result<()> {
        let lines = LogLines(Arc::clone(self));
        tracing_subscriber::registry()
            .with(level.filter())
            .with(lines)
            .try_init()
            .context("cannot start the log")
    }
}

impl Mirror for Screen {
    fn message(&self, message: &Message<'_>) -> Copied {
        let client = message.client;
        let names = [&*client.principal.id, &*client.client_id];
        let who = names.into_iter().find(|name| !name.is_empty());
        self.show(&Row {
            who: &printable(who.unwrap_or(NOBODY), NAME_LENGTH),
            what: &message.action.to_string(),
            subject: &printable(message.topic, TOPIC_LENGTH),
            detail: &content(message),
            paint: Paint::Green,
        });
        Copied::Taken
    }
}

struct LogLines(Arc<Screen>);

impl<S: Subscriber> Layer<S> for LogLines {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        match fields.message.as_str() {
            "denied" if !fields.has("packet") => fields.show_denied(&self.0),
            "session opened" => fields.show_session(&self.0, "connected", &fields.place()),
            "session closed" => fields.show_session(&self.0, "closed", fields.text("why")),
            _ => fields.show_other(&self.0, *event.metadata().level()),
        }
    }
}

/// What an event says, as text.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = printable(value, FIELD_LENGTH);
        match field.name() {
            "message" => self.message = text,
            name => self.others.push((name, text)),
        }
    }
}

impl Fields {
    fn show_denied(&self, screen: &Screen) {
        let detail = match (self.text("reason"), self.text("reason").strip_prefix(NOT_AUTHORIZED)) {
            (_, Some(why)) if why.starts_with(NOBODY_ALLOWS) => format!("DENIED{why}"),
            (_, Some(by)) => format!("DENIED by {}", by.trim_start_matches([':', ' '])),
            (reason, None) => format!("DENIED: {reason}"),
        };
        let subject = match self.text("resource") {
            "" => format!("from {}", self.text("peer")),
            resource => resource.into(),
        };
        let (who, what) = (self.who(), self.text("action"));
        screen.show(&Row { who, what, subject: &subject, detail: &detail, paint: Paint::Red });
    }

    fn show_session(&self, screen: &Screen, what: &str, detail: &str) {
        let (who, subject) = (self.who(), self.text("client"));
        screen.show(&Row { who, what, subject, detail, paint: Paint::Dim });
    }

    fn show_other(&self, screen: &Screen, level: Level) {
        let fields: Vec<_> = self.others.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let paint = match level {
            Level::ERROR => Paint::Red,
            Level::WARN => Paint::Yellow,
            _ => Paint::Dim,
        };
        let detail = fields.join(" ");
        screen.show(&Row { who: "mgate", what: &self.message, subject: &detail, detail: "", paint });
    }

    /// The principal; where it is not known, the client id.
    fn who(&self) -> &str {
        ["principal", "client"]
            .into_iter()
            .map(|name| self.text(name))
            .find(|text| !text.is_empty())
            .unwrap_or(NOBODY)
    }

    fn place(&self) -> String {
        format!("{} from {}", self.text("route"), self.text("peer"))
    }

    fn has(&self, name: &str) -> bool {
        self.others.iter().any(|(field, _)| *field == name)
    }

    fn text(&self, name: &str) -> &str {
        self.others.iter().find(|(field, _)| *field == name).map_or("", |(_, value)| value)
    }
}

/// The payload of a message and its flags.
fn content(message: &Message<'_>) -> String {
    let payload = match str::from_utf8(message.payload) {
        Ok("") => "(empty)".into(),
        Ok(text) => printable(text, PAYLOAD_LENGTH),
        Err(_) => format!("({} bytes)", message.payload.len()),
    };
    let qos = match message.qos {
        0 => String::new(),
        qos => format!("  QoS {qos}"),
    };
    payload + &qos + if message.retain { "  retained" } else { "" }
}

const FIELD_LENGTH: usize = 200;
const NAME_LENGTH: usize = 40;
/// Who did not say who it is.
const NOBODY: &str = "?";
/// How a policy's denial begins.
const NOT_AUTHORIZED: &str = "not authorized";
/// How it goes on where none denies, and none allows.
const NOBODY_ALLOWS: &str = ": no policy allows it";
const PAYLOAD_LENGTH: usize = 80;
const TOPIC_LENGTH: usize = 120;
