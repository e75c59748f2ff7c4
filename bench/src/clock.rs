use std::time::Instant;

/// Reads the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a load generator is all shell; this is its one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
