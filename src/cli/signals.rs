use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::control::Control;
use crate::gateway::Gateway;

/// The signals that ask this process to stop, and perhaps to reload.
pub(super) struct Signals {
    hangup: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals from here on; must be called in a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        Ok(Self { hangup: None, interrupt: signal(interrupt)?, terminate: signal(terminate)? })
    }

    /// The same, and SIGHUP asks to reload. (Where it is not taken, it ends a process whose terminal is gone.)
    pub(super) fn with_reload() -> io::Result<Self> {
        Ok(Self { hangup: Some(signal(SignalKind::hangup())?), ..Self::new()? })
    }

    /// Serves until a signal comes that asks to stop, then stops; a second one ends the waiting for sessions to
    /// end.
    pub(super) async fn serve(mut self, gateway: Gateway) {
        let control = Arc::clone(gateway.control());
        let signal = loop {
            tokio::select! {
                () = hung_up(&mut self.hangup) => reload(&control).await,
                _ = self.interrupt.recv() => break "SIGINT",
                _ = self.terminate.recv() => break "SIGTERM",
            }
        };
        tracing::info!(signal, "asked to stop");
        tokio::select! {
            () = gateway.stop() => {}
            _ = self.interrupt.recv() => tracing::warn!("asked again: not waiting for sessions to end"),
            _ = self.terminate.recv() => tracing::warn!("asked again: not waiting for sessions to end"),
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

async fn reload(control: &Control) {
    tracing::info!(signal = "SIGHUP", "asked to reload");
    control.reload().await;
}
