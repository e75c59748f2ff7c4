//! Futures that may be there.

use std::task::{Context, Poll};

use mgate_policies::BoxFuture;

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
