use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Engine};

use crate::error::LoadError;

/// The engine of all modules of a process, and the clock by which calls are ended.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    /// Dropped with the host, which ends the clock's thread.
    _clock: Sender<()>,
}

impl Host {
    /// The host of this process; it exists as long as somebody holds it.
    pub(crate) fn shared() -> Result<Arc<Self>, LoadError> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = shared.upgrade() {
            return Ok(host);
        }
        let host = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&host);
        Ok(host)
    }

    fn start() -> Result<Self, LoadError> {
        let engine = Engine::new(&config()).map_err(|error| LoadError::Host(error.to_string()))?;
        let (clock, stopped) = channel();
        let ticking = engine.clone();
        let tick = move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                ticking.increment_epoch();
            }
        };
        let thread = thread::Builder::new().name("wasm-clock".to_owned()).spawn(tick);
        thread.map_err(|error| LoadError::Host(error.to_string()))?;
        Ok(Self { engine, _clock: clock })
    }
}

/// How many ticks a call may see that may take `time`: the first may come at once.
pub(crate) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // what differs from one processor to another, and what no toolchain emits unasked
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_backtrace_max_frames(None);
    config
}

static SHARED: Mutex<Weak<Host>> = Mutex::new(Weak::new());

const TICK: Duration = Duration::from_millis(1);
/// An eighth of what a thread has.
const STACK_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_share_one_host_as_long_as_somebody_holds_it() {
        let host = Host::shared().unwrap();
        assert!(Arc::ptr_eq(&host, &Host::shared().unwrap()));
    }

    #[test]
    fn call_has_at_least_its_time() {
        let millis = [0, 1, 5, 1000].map(|millis| ticks(Duration::from_millis(millis)));
        assert_eq!(millis, [1, 2, 6, 1001]);
    }
}
