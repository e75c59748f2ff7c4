//! Futures that may be there, or are seldom woken.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

use mgate_policies::BoxFuture;

/// A future that is polled only when it was woken itself, rather than another one of the same task.
pub(crate) struct Aside<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// That of the bell.
    waker: Waker,
}

/// Says that a future was woken.
struct Bell {
    has_rung: AtomicBool,
    task: AtomicWaker,
}

impl<F: Future> Aside<F> {
    pub(crate) fn new(future: F) -> Self {
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future: Box::pin(future), waker: Arc::clone(&bell).into(), bell }
    }
}

impl<F: Future> Future for Aside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.bell.task.register(cx.waker());
        if !self.bell.has_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Self { future, waker, .. } = &mut *self;
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// Polls a future that may be there; takes it away when it is done.
pub(crate) fn poll_once<T>(future: &mut Option<BoxFuture<'static, T>>, cx: &mut Context<'_>) -> Option<T> {
    match future.as_mut()?.as_mut().poll(cx) {
        Poll::Ready(value) => {
            *future = None;
            Some(value)
        }
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn only_what_woke_is_polled() {
        let (polls, due) = (Cell::new(0), Notify::new());
        let mut notified = Box::pin(due.notified());
        let mut aside = Aside::new(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            notified.as_mut().poll(cx)
        }));
        for _ in 0..3 {
            assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut aside).poll(cx))).await.is_pending());
        }
        assert_eq!(polls.get(), 1);
        tokio::join!(&mut aside, async { due.notify_one() });
        assert_eq!(polls.get(), 2);
    }
}
