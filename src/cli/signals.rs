use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::gateway::Gateway;

/// The signals that ask this process to stop.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals from here on; must be called in a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Serves until a signal comes, then stops; a second signal ends the waiting for sessions to end.
    pub(super) async fn serve(mut self, gateway: Gateway) {
        let signal = self.next().await;
        tracing::info!(signal, "asked to stop");
        tokio::select! {
            () = gateway.stop() => {}
            signal = self.next() => {
                tracing::warn!(signal, "asked again: not waiting for sessions to end");
            }
        }
    }

    /// Waits for the next one; returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
