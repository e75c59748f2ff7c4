//! The stream that stores what is sent: whether it is there, and its making.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::jetstream::error_text;
use super::wire::Wire;

/// The stream that an operator wants to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Its name.
    pub name: String,
    /// Whether it is made if it is not there.
    pub is_created: bool,
    /// What it stores; only where it is made.
    pub subjects: Vec<String>,
    /// How long messages are kept; `None` for ever.
    pub max_age: Option<Duration>,
    /// How many bytes are kept; `None` for any number.
    pub max_bytes: Option<u64>,
    /// How many servers keep a copy.
    pub replicas: u64,
}

/// Looks after the stream, as long as it is not there.
pub(super) struct StreamCheck {
    wanted: StreamConfig,
    inbox: String,
    standing: Standing,
    /// When it is asked about, if it is to be.
    next: Option<Instant>,
    earliest: Option<Instant>,
}

/// How the stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is known yet.
    Unknown,
    /// It is there.
    Good,
    /// What is wrong with it.
    Lacks(String),
}

impl StreamCheck {
    pub(super) fn new(wanted: StreamConfig, inbox: String) -> Self {
        Self { wanted, inbox, standing: Standing::Unknown, next: None, earliest: None }
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn name(&self) -> &str {
        &self.wanted.name
    }

    /// There is a new connection: it is asked about anew.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next = Some(now);
    }

    /// Something was not stored: maybe the stream is gone.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.next = self.next.or(Some(self.earliest.map_or(now, |earliest| earliest.max(now))));
    }

    /// Asks, if it is time.
    pub(super) fn ask(&mut self, wire: &mut Wire, now: Instant) {
        if self.next.is_some_and(|next| next <= now) {
            (self.next, self.earliest) = (Some(now + PAUSE), Some(now + PAUSE));
            let subject = format!("$JS.API.STREAM.INFO.{}", self.wanted.name);
            wire.request(&subject, &format!("{}.{INFO}", self.inbox), "", now);
        }
    }

    /// Takes an answer, if it is one: `tag` says to which question.
    pub(super) fn answer(
        &mut self,
        tag: &str,
        (status, payload): (Option<u16>, &[u8]),
        wire: &mut Wire,
        now: Instant,
    ) {
        let answer: Value = serde_json::from_slice(payload).unwrap_or_default();
        let is_missing = answer["error"]["code"].as_u64() == Some(404);
        self.standing = match (status, answer.get("error")) {
            (Some(_), _) => {
                Standing::Lacks("JetStream does not answer: is it enabled for this account".to_owned())
            }
            (None, None) if answer.get("config").is_some() => {
                self.next = None;
                Standing::Good
            }
            (None, Some(_)) if tag == INFO && is_missing && self.wanted.is_created => {
                let subject = format!("$JS.API.STREAM.CREATE.{}", self.wanted.name);
                let reply = format!("{}.{CREATE}", self.inbox);
                wire.request(&subject, &reply, &self.wanted.request(), now);
                return;
            }
            (None, Some(_)) if is_missing => Standing::Lacks(format!(
                "the stream \"{0}\" does not exist: create it, or set `stream.create` for mgate to do so",
                self.wanted.name
            )),
            (None, error) => {
                let error = error.map_or_else(String::new, error_text);
                Standing::Lacks(format!("the stream \"{}\": {error}", self.wanted.name))
            }
        };
    }
}

impl StreamConfig {
    /// The stream as JetStream wants to be told of it.
    fn request(&self) -> String {
        let nanos = self.max_age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        json!({
            "name": self.name, "subjects": self.subjects, "retention": "limits", "storage": "file",
            "max_age": nanos, "max_bytes": self.max_bytes.map_or(json!(-1), |bytes| json!(bytes)),
            "num_replicas": self.replicas, "discard": "old",
        })
        .to_string()
    }
}

pub(super) const INFO: &str = "info";
pub(super) const CREATE: &str = "create";
/// Time between two looks at a stream that is not as it should be.
const PAUSE: Duration = Duration::from_secs(5);
