use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

/// Questions without an answer, told now and then.
#[derive(Default)]
pub(super) struct Failures(Mutex<Untold>);

#[derive(Default)]
struct Untold {
    count: u64,
    quiet_until: Option<Instant>,
}

impl Failures {
    /// One more.
    pub(super) fn count(&self, plugin: &str, why: &str, now: Instant) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.count += 1;
        if untold.quiet_until.is_none_or(|until| now >= until) {
            let count = std::mem::take(&mut untold.count);
            untold.quiet_until = Some(now + QUIET);
            warn!(plugin, why, count, "the plug-in has no answer: denied");
        }
    }
}

const QUIET: Duration = Duration::from_secs(10);
