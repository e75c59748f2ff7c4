use std::convert::Infallible;
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
        // whatever a reload waits for, it must not keep the gateway from stopping
        let signal = tokio::select! {
            never = reload_when_asked(self.hangup, &control) => match never {},
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        };
        tracing::info!(signal, "asked to stop");
        tokio::select! {
            () = gateway.stop() => {}
            _ = self.interrupt.recv() => tracing::warn!("asked again: not waiting for sessions to end"),
            _ = self.terminate.recv() => tracing::warn!("asked again: not waiting for sessions to end"),
        }
    }
}

async fn reload_when_asked(mut hangup: Option<Signal>, control: &Control) -> Infallible {
    loop {
        hung_up(&mut hangup).await;
        tracing::info!(signal = "SIGHUP", "asked to reload");
        control.reload().await;
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}
