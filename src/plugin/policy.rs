use std::sync::Arc;

use mgate_policies::{Answer, Cause, Decision, Now, Policy, Query, Reason};

use super::failures::Failures;
use super::{Plugin, answer};
use crate::pdp::entities::{self, Payload};

/// Leaves decisions to a plug-in, which is asked in the words of AuthZEN.
pub struct WasmPolicy {
    plugin: Arc<Plugin>,
    options: WasmPolicyOptions,
    failures: Failures,
}

/// How a plug-in is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WasmPolicyOptions {
    /// Whether it is shown what messages carry.
    pub shows_payload: bool,
    /// Whether sessions may remember its answers.
    pub is_repeatable: bool,
}

impl WasmPolicy {
    /// A policy that asks `plugin`, whose entry is `policy_evaluate`.
    pub fn new(plugin: Arc<Plugin>, options: WasmPolicyOptions) -> Self {
        Self { plugin, options, failures: Failures::default() }
    }

    fn decide(&self, query: &Query<'_>, now: Now) -> Result<Decision, String> {
        let payload = if self.options.shows_payload { Payload::Shown } else { Payload::Hidden };
        let mut request = Vec::with_capacity(REQUEST_BYTES);
        entities::write(query, payload, &mut request).map_err(|error| error.to_string())?;
        let reply = self.plugin.call(&request, now).map_err(|failure| failure.to_string())?;
        answer::read(&reply).map_err(str::to_owned)
    }
}

impl Policy for WasmPolicy {
    fn name(&self) -> &str {
        self.plugin.name()
    }

    fn evaluate(&self, query: &Query<'_>, now: Now) -> Answer {
        let decision = self.decide(query, now).unwrap_or_else(|why| {
            self.failures.count(self.plugin.name(), &why, now.instant);
            Decision::Deny(Reason::with_detail(Cause::Unavailable, why))
        });
        Answer::Ready(decision)
    }

    fn is_repeatable(&self) -> bool {
        self.options.is_repeatable
    }
}

/// A question without its payload.
pub(super) const REQUEST_BYTES: usize = 512;
