//! The threads that serve connections, and the one in the background.

use std::convert::Infallible;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use mgate_proxy::background;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};

/// Threads with a runtime each: a connection stays where it was put, so that nothing it does wakes or waits
/// for another thread.
pub(crate) struct Workers {
    row: Vec<Worker>,
    background: Handle,
}

struct Worker {
    handle: Handle,
    /// Cloned for each connection, so that its count tells how many there are.
    load: Arc<()>,
    /// Dropped with the gateway, which ends the thread.
    _stop: oneshot::Sender<Infallible>,
}

/// The runtime that does for the workers what would cost them time with every packet; it ends after the last
/// worker.
#[derive(Clone)]
struct Background {
    handle: Handle,
    _worker: mpsc::Sender<Infallible>,
}

impl Workers {
    pub(crate) fn start(count: NonZeroUsize) -> io::Result<Self> {
        let background = Background::start()?;
        let start = |number| Worker::start(number, background.clone());
        let row = (0..count.get()).map(start).collect::<io::Result<_>>()?;
        Ok(Self { row, background: background.handle })
    }

    /// Calls `act` as if in the background.
    pub(crate) fn in_background(&self, act: impl FnOnce()) {
        let _entered = self.background.enter();
        act();
    }

    /// Spawns on the worker with the fewest connections what `serve` makes of its load, to be kept as long as
    /// it runs. (A future that awaits another one that it was given would have room for both.)
    pub(crate) fn spawn<F>(&self, serve: impl FnOnce(Arc<()>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(worker) = self.row.iter().min_by_key(|worker| Arc::strong_count(&worker.load)) {
            worker.handle.spawn(serve(Arc::clone(&worker.load)));
        }
    }

    /// Spawns each future on a worker of its own, as far as there are enough. They count for no load: what they serve
    /// comes to all alike.
    pub(crate) fn spread<F>(&self, serve: impl IntoIterator<Item = F>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        for (worker, serve) in self.row.iter().cycle().zip(serve) {
            worker.handle.spawn(serve);
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.row.iter().map(|worker| Arc::strong_count(&worker.load) - 1).sum()
    }
}

impl Worker {
    fn start(number: usize, background: Background) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<Infallible>();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            background::leave_to(background.handle.clone());
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
            drop(background);
        })?;
        Ok(Self { handle, load: Arc::new(()), _stop: stop })
    }
}

impl Background {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (worker, mut workers) = mpsc::channel(1);
        thread::Builder::new().name("background".to_owned()).spawn(move || {
            let _ = runtime.block_on(workers.recv());
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _worker: worker })
    }
}
