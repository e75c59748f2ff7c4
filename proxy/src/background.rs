//! What a thread leaves to another runtime: its timers, and whatever policies and authenticators await.
//!
//! A runtime that drives timers reads the clock twice each time it wakes, which is for nearly every packet.
//! The runtime of a worker therefore drives none; those of its tasks are driven in the background.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{self, Instant, Sleep, Timeout};

/// Leaves what comes next in this thread to `runtime`; may be said once a thread. Without it, the thread's own
/// runtime does the work.
pub fn leave_to(runtime: Handle) {
    BACKGROUND.with(|background| drop(background.set(runtime)));
}

/// Calls `act` as if in the background's runtime: what it spawns, awaits or dials lives there.
pub fn within<T>(act: impl FnOnce() -> T) -> T {
    BACKGROUND.with(|background| {
        let _entered = background.get().map(Handle::enter);
        act()
    })
}

/// Runs `future` as if in the background's runtime, wherever it is awaited.
pub async fn run<F: Future + Unpin>(mut future: F) -> F::Output {
    poll_fn(|cx| within(|| Pin::new(&mut future).poll(cx))).await
}

/// As [`tokio::time::sleep_until`].
pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    within(|| time::sleep_until(deadline))
}

/// As [`tokio::time::timeout`].
pub(crate) fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    within(|| time::timeout(duration, future))
}

/// As [`tokio::time::timeout_at`].
pub(crate) fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    within(|| time::timeout_at(deadline, future))
}

thread_local! {
    static BACKGROUND: OnceCell<Handle> = const { OnceCell::new() };
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn runtime_without_time_has_the_timers_of_another() {
        let (started, has_started) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let background = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            started.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(stopped);
        });
        leave_to(has_started.recv().unwrap());
        let runtime = Builder::new_current_thread().build().unwrap();
        let never = std::future::pending::<()>();
        assert!(runtime.block_on(async { timeout(Duration::from_millis(1), never).await }).is_err());
        runtime.block_on(async { sleep_until(Instant::now() + Duration::from_millis(1)).await });
        let spawned = within(|| tokio::spawn(async { time::sleep(Duration::from_millis(1)).await }));
        runtime.block_on(spawned).unwrap();
        drop(stop);
        background.join().unwrap();
    }
}
