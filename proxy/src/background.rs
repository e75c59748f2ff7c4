//! What a thread leaves to another runtime: its timers, and whatever policies and authenticators await.
//!
//! A runtime that drives timers reads the clock twice each time it wakes, which is for nearly every packet.
//! The runtime of a worker therefore drives none; those of its tasks are driven in the background.

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
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

/// As [`sleep_until`], and cheaper where it seldom comes to the deadline: the timer is used again.
pub(crate) fn alarm_at(deadline: Instant) -> Alarm {
    let unused = UNUSED.with(|unused| unused.borrow_mut().pop());
    let mut timer = unused.unwrap_or_else(|| Box::pin(sleep_until(deadline)));
    if timer.deadline() > deadline {
        timer.as_mut().reset(deadline);
    }
    Alarm { timer: Some(timer), deadline }
}

/// A wait until a deadline. Its timer may go off earlier, for one who waited before: it is then set anew, as to set one
/// costs more than all else about it.
pub(crate) struct Alarm {
    /// Until it is dropped.
    timer: Option<Pin<Box<Sleep>>>,
    deadline: Instant,
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let Some(timer) = &mut self.timer else { return Poll::Ready(()) };
        ready!(timer.as_mut().poll(cx));
        if timer.deadline() < deadline {
            timer.as_mut().reset(deadline);
            ready!(timer.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // a thread whose runtime may be another one tomorrow keeps none
        if BACKGROUND.try_with(|background| background.get().is_none()).unwrap_or(true) {
            return;
        }
        let _ = UNUSED.try_with(|unused| {
            let mut unused = unused.borrow_mut();
            if unused.len() < MAX_UNUSED {
                unused.extend(self.timer.take());
            }
        });
    }
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
    static UNUSED: RefCell<Vec<Pin<Box<Sleep>>>> = const { RefCell::new(Vec::new()) };
}

/// Timers that a thread keeps.
const MAX_UNUSED: usize = 64;

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    #[test]
    fn runtime_without_time_has_the_timers_of_another() {
        beside_background(|runtime| {
            let never = std::future::pending::<()>();
            assert!(runtime.block_on(async { timeout(Duration::from_millis(1), never).await }).is_err());
            runtime.block_on(async { sleep_until(Instant::now() + Duration::from_millis(1)).await });
            let spawned = within(|| tokio::spawn(async { time::sleep(Duration::from_millis(1)).await }));
            runtime.block_on(spawned).unwrap();
        });
    }

    #[test]
    fn alarm_that_is_used_again_keeps_to_its_own_deadline() {
        beside_background(|runtime| {
            drop(alarm_at(Instant::now() + Duration::from_millis(5)));
            for late in [20, 30, 1] {
                let deadline = Instant::now() + Duration::from_millis(late);
                runtime.block_on(alarm_at(deadline));
                assert!(Instant::now() >= deadline);
            }
            let (near, far) = (Duration::from_millis(1), Duration::from_secs(10));
            let since = Instant::now();
            let mut waiting = alarm_at(since + far);
            let is_pending = poll_fn(|cx| Poll::Ready(Pin::new(&mut waiting).poll(cx).is_pending()));
            assert!(runtime.block_on(is_pending));
            drop(waiting);
            runtime.block_on(alarm_at(since + near));
            assert!(since.elapsed() < far / 2);
            assert_eq!(UNUSED.with(|unused| unused.borrow().len()), 1, "one timer did for all");
        });
    }

    /// Calls `act` in a thread that leaves its timers to another, with a runtime that has none.
    fn beside_background(act: impl FnOnce(Runtime)) {
        let (started, has_started) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let background = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            started.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(stopped);
        });
        leave_to(has_started.recv().unwrap());
        act(Builder::new_current_thread().build().unwrap());
        drop(stop);
        background.join().unwrap();
    }
}
