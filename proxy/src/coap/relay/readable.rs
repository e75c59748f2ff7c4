//! The sockets to the upstream, one for each peer: of many, a few have something to be read.
//!
//! Each wakes the relay by a waker of its own, which leaves word whose it is. Nothing is set up for a single datagram.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::stream::{self, BoxStream, StreamExt};
use futures_util::task::AtomicWaker;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::coap::table::Key;

/// The peers whose upstreams may have sent something.
#[derive(Default)]
pub(super) struct Readable(Arc<Row>);

/// A socket that is connected with the upstream of one peer.
pub(super) struct Connected {
    socket: Arc<AsyncFd<UdpSocket>>,
    /// Yields whenever there is something to be read, or an error.
    readiness: BoxStream<'static, Ready>,
    word: Arc<Word>,
    waker: Waker,
}

#[derive(Default)]
struct Row {
    /// Each peer once at the most.
    keys: Mutex<VecDeque<Key>>,
    relay: AtomicWaker,
}

/// What a socket leaves word by.
struct Word {
    key: Key,
    is_left: AtomicBool,
    row: Arc<Row>,
}

impl Readable {
    /// Waits until there is one.
    pub(super) async fn wait(&self) {
        poll_fn(|cx| {
            self.0.relay.register(cx.waker());
            if self.len() > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The next one, if there is one.
    pub(super) fn take(&self) -> Option<Key> {
        self.0.keys().pop_front()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.keys().len()
    }

    /// Takes the socket of a peer, which is heard from now on.
    pub(super) fn watch(&self, key: Key, socket: AsyncFd<UdpSocket>) -> Connected {
        let socket = Arc::new(socket);
        let readiness = stream::unfold(Arc::clone(&socket), |socket| async move {
            let ready = socket.ready(Interest::READABLE | Interest::ERROR).await;
            let ready = ready.map_or(Ready::ERROR, |guard| guard.ready());
            Some((ready, socket))
        });
        let word = Arc::new(Word { key, is_left: AtomicBool::new(false), row: Arc::clone(&self.0) });
        let waker = Waker::from(Arc::clone(&word));
        let mut connected = Connected { socket, readiness: readiness.boxed(), word, waker };
        connected.listen();
        connected
    }
}

impl Connected {
    /// The socket itself.
    pub(super) fn socket(&self) -> &Arc<AsyncFd<UdpSocket>> {
        &self.socket
    }

    /// What there is, after word of it was left; where there is nothing, word will be left.
    pub(super) fn ready(&mut self) -> Option<Ready> {
        self.word.is_left.store(false, Ordering::Relaxed);
        match self.readiness.poll_next_unpin(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(ready) => ready,
            Poll::Pending => None,
        }
    }

    /// Has word left as soon as there is something to be read.
    pub(super) fn listen(&mut self) {
        if self.ready().is_some() {
            self.waker.wake_by_ref();
        }
    }
}

impl Row {
    /// It is whole after every statement: a panic elsewhere does not spoil it.
    fn keys(&self) -> MutexGuard<'_, VecDeque<Key>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Word {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_left.swap(true, Ordering::Relaxed) {
            self.row.keys().push_back(self.key);
            self.row.relay.wake();
        }
    }
}
