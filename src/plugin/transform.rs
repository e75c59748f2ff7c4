use std::sync::Arc;

use mgate_policies::{Cause, Editable, Now, Reason, Refusal, Transform};

use super::changes::{self, Answer};
use super::failures::Failures;
use super::policy::REQUEST_BYTES;
use super::{Plugin, question};
use crate::pdp::entities::Payload;

/// Leaves it to a plug-in what packets say.
pub struct WasmTransform {
    plugin: Arc<Plugin>,
    payload: Payload,
    failures: Failures,
}

/// How a plug-in is shown packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WasmTransformOptions {
    /// Whether it is shown what messages carry, and may change it.
    pub shows_payload: bool,
}

impl WasmTransform {
    /// A transform that asks `plugin`, whose entry is `transform_apply`.
    pub fn new(plugin: Arc<Plugin>, options: WasmTransformOptions) -> Self {
        let payload = if options.shows_payload { Payload::Shown } else { Payload::Hidden };
        Self { plugin, payload, failures: Failures::default() }
    }

    fn ask(&self, packet: &Editable<'_>, now: Now) -> Result<Answer, String> {
        let mut request = Vec::with_capacity(REQUEST_BYTES);
        question::write(packet, self.payload, &mut request);
        let reply = self.plugin.call(&request, now).map_err(|failure| failure.to_string())?;
        changes::read(&reply).map_err(str::to_owned)
    }

    /// What went wrong, if anything did, around what the plug-in refuses, if it does.
    fn change(&self, packet: &mut Editable<'_>, now: Now) -> Result<Result<(), Refusal>, String> {
        match self.ask(packet, now)? {
            Answer::Changes(changes) => Ok(Ok(changes::put(changes, &mut packet.part, self.payload)?)),
            Answer::Refuse(refusal) => Ok(Err(refusal)),
        }
    }
}

impl Transform for WasmTransform {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    fn apply(&self, packet: &mut Editable<'_>, now: Now) -> Result<(), Refusal> {
        self.change(packet, now).unwrap_or_else(|why| {
            self.failures.count(self.plugin.name(), &why, now.instant);
            Err(Refusal::Denied(Reason::with_detail(Cause::Unavailable, why)))
        })
    }
}
