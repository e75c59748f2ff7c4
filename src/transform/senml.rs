use std::borrow::Cow;
use std::time::Duration;

use mgate_policies::{
    Action, Cause, Client, Editable, EditableMessage, Now, Part, Reason, Refusal, Transform,
};
use tracing::{info, warn};

use super::scope::Scope;
use super::tally::Tally;
use crate::senml::{Fault, Format, Pack, Problem};

/// Looks whether messages are SenML, and may resolve it. RFC 8428
pub struct Senml {
    name: Box<str>,
    options: SenmlOptions,
    tally: Tally,
}

/// What becomes of SenML, and of what is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenmlOptions {
    /// The messages that must be SenML.
    pub scope: Scope,
    /// How it is written; `None` if the topic or the first byte tells.
    pub format: Option<Format>,
    /// What becomes of good packs.
    pub mode: SenmlMode,
    /// What becomes of bad ones.
    pub on_error: OnBadSenml,
}

/// What becomes of good packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenmlMode {
    /// Those of publishes are resolved, in the format in which they came. The `now` of a will is yet to come, and
    /// that of a delivery is over: theirs pass as they came.
    Resolve,
    /// They pass as they came.
    Validate,
}

/// What becomes of bad packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadSenml {
    /// They pass, and are counted.
    Count,
    /// They pass, and the log says of which client and topic.
    Pass,
    /// They are denied.
    Refuse,
}

impl Senml {
    /// A transform that logs and denials call `name`.
    pub fn new(name: &str, options: SenmlOptions) -> Self {
        let quiet = if options.on_error == OnBadSenml::Count { COUNT_QUIET } else { PASS_QUIET };
        Self { name: name.into(), options, tally: Tally::new(quiet) }
    }

    /// The new payload, if there is to be one.
    fn judge(&self, message: &EditableMessage<'_>, now: Now) -> Result<Option<Vec<u8>>, Fault> {
        // it ends what is retained, and carries nothing
        if message.payload.is_empty() && message.retain {
            return Ok(None);
        }
        let format = self.options.format.or_else(|| format_of(message));
        let format = format.ok_or(Fault { record: None, problem: Problem::NoPack })?;
        let resolved = Pack::parse(&message.payload, format)?.resolve(now.unix)?;
        let is_resolved = self.options.mode == SenmlMode::Resolve && message.action == Action::Publish;
        Ok(is_resolved.then(|| resolved.write(format)))
    }

    fn take_bad(&self, client: &Client, topic: &str, fault: Fault, now: Now) -> Result<(), Refusal> {
        if self.options.on_error == OnBadSenml::Refuse {
            return Err(Refusal::Denied(Reason::with_detail(Cause::PayloadInvalid, fault.to_string())));
        }
        let Some(count) = self.tally.count(now.instant) else { return Ok(()) };
        let transform = &*self.name;
        match self.options.on_error {
            OnBadSenml::Count => info!(transform, count, "messages that are no SenML have passed"),
            _ => {
                let client = &*client.client_id;
                warn!(transform, client, topic, %fault, count, "a message that is no SenML has passed");
            }
        }
        Ok(())
    }
}

impl Transform for Senml {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, packet: &mut Editable<'_>, now: Now) -> Result<(), Refusal> {
        let Part::Message(message) = &mut packet.part else { return Ok(()) };
        if !self.options.scope.covers(message) {
            return Ok(());
        }
        match self.judge(message, now) {
            Ok(Some(resolved)) => message.payload = Cow::Owned(resolved),
            Ok(None) => {}
            Err(fault) => self.take_bad(packet.client, &message.topic, fault, now)?,
        }
        Ok(())
    }
}

fn format_of(message: &EditableMessage<'_>) -> Option<Format> {
    match message.topic.rsplit('/').next() {
        Some("senml-cbor") => Some(Format::Cbor),
        Some("senml-json") => Some(Format::Json),
        _ => Format::of_pack(&message.payload),
    }
}

const PASS_QUIET: Duration = Duration::from_secs(1);
const COUNT_QUIET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Pattern;
    use crate::transform::tests::{applied, client, message_of};

    #[test]
    fn good_pack_passes_as_it_came() {
        for payload in [&br#" [ {"n":"a","v":1.10} ] "#[..], b"\x81\xa2\x00\x61a\x02\x01"] {
            assert_eq!(after(options(), message_of(Action::Publish, "t", payload)), Ok(payload.to_vec()));
        }
    }

    #[test]
    fn bad_pack_is_denied_with_its_fault() {
        let refused = after(options(), message_of(Action::Publish, "t", br#"[{"n":"a","v":1},{"n":"b"}]"#));
        let reason = Reason::with_detail(Cause::PayloadInvalid, "record 2: has neither a value nor a sum");
        assert_eq!(refused, Err(Refusal::Denied(reason)));
        for payload in [&b""[..], b"21.5", b"{}", b"[]"] {
            assert!(after(options(), message_of(Action::Will, "t", payload)).is_err(), "{payload:?}");
        }
    }

    #[test]
    fn publish_is_resolved_and_nothing_else() {
        let scope = Scope { actions: vec![Action::Publish, Action::Will], ..Scope::default() };
        let options = SenmlOptions { mode: SenmlMode::Resolve, scope, ..options() };
        let payload = br#"[{"bn":"a:","n":"b","v":1,"t":-1}]"#;
        let resolved = after(options.clone(), message_of(Action::Publish, "t", payload)).unwrap();
        assert_eq!(String::from_utf8(resolved).unwrap(), r#"[{"n":"a:b","v":1,"t":1699999999.5}]"#);
        assert_eq!(after(options.clone(), message_of(Action::Will, "t", payload)), Ok(payload.to_vec()));
        assert_eq!(after(options, message_of(Action::Deliver, "t", b"no SenML")), Ok(b"no SenML".to_vec()));
    }

    #[test]
    fn resolved_pack_keeps_its_format() {
        let options = SenmlOptions { mode: SenmlMode::Resolve, ..options() };
        let resolved = after(options, message_of(Action::Publish, "t", b"\x81\xa2\x21\x61a\x02\x01"));
        assert_eq!(resolved.unwrap(), b"\x81\xa3\x00\x61a\x02\x01\x06\xfb\x41\xd9\x54\xfc\x40\x20\x00\x00");
    }

    #[test]
    fn topic_tells_the_format_before_the_first_byte_does() {
        let json = br#"[{"n":"a","v":1}]"#;
        for (topic, is_good) in
            [("a/senml-json", true), ("a/senml-cbor", false), ("senml-json", true), ("senml-cbor/a", true)]
        {
            assert_eq!(
                after(options(), message_of(Action::Publish, topic, json)).is_ok(),
                is_good,
                "{topic}"
            );
        }
        let options = SenmlOptions { format: Some(Format::Cbor), ..options() };
        assert!(after(options, message_of(Action::Publish, "a/senml-json", json)).is_err());
    }

    #[test]
    fn only_topics_of_the_scope_are_looked_at() {
        let topics = Some(vec![Pattern::parse("a/+").unwrap(), Pattern::parse("b/#").unwrap()]);
        let scope = Scope { topics, ..Scope::default() };
        for (topic, is_good) in [("a/x", false), ("a/x/y", true), ("b", false), ("c", true)] {
            let options = SenmlOptions { scope: scope.clone(), ..options() };
            assert_eq!(after(options, message_of(Action::Publish, topic, b"x")).is_ok(), is_good, "{topic}");
        }
        assert!(after(options(), message_of(Action::Publish, "$any", b"x")).is_err());
    }

    #[test]
    fn empty_message_ends_a_retained_one() {
        let mut message = message_of(Action::Publish, "t", b"");
        message.retain = true;
        assert_eq!(after(options(), message), Ok(Vec::new()));
    }

    #[test]
    fn bad_packs_may_pass() {
        for on_error in [OnBadSenml::Count, OnBadSenml::Pass] {
            for mode in [SenmlMode::Resolve, SenmlMode::Validate] {
                let options = SenmlOptions { on_error, mode, ..options() };
                assert_eq!(after(options, message_of(Action::Publish, "t", b"x")), Ok(b"x".to_vec()));
            }
        }
    }

    fn after(options: SenmlOptions, message: EditableMessage<'_>) -> Result<Vec<u8>, Refusal> {
        let now = Now { unix: Duration::from_millis(1_700_000_000_500), ..Now::read() };
        applied(&Senml::new("senml", options), &client(), message, now)
    }

    fn options() -> SenmlOptions {
        SenmlOptions {
            scope: Scope::default(),
            format: None,
            mode: SenmlMode::Validate,
            on_error: OnBadSenml::Refuse,
        }
    }
}
