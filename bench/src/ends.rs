use std::io;
use std::time::{Duration, Instant};

use crate::clock;

/// The two ends of a load of requests: clients that post, and a server that answers, on one thread.
pub(crate) trait Ends {
    /// What passed so far.
    fn counts(&self) -> Counts;

    /// Lets the next client that has its answer make a request; none where all wait.
    fn post(&mut self) -> io::Result<()>;

    /// Handles what happens, and waits for it at most so long.
    fn turn(&mut self, patience: Duration) -> io::Result<()>;

    /// Makes `per_second` requests in each second of `duration`, fewer if the answers are slower.
    fn drive(&mut self, per_second: f64, duration: Duration) -> io::Result<()> {
        let start = clock::now();
        let (end, pace) = (start + duration, Duration::from_secs_f64(1.0 / per_second));
        let mut due = start;
        while due < end {
            self.turn_until(due)?;
            let now = clock::now();
            while due <= now {
                self.post()?;
                due += pace;
            }
        }
        self.turn_until(end)
    }

    /// Waits until all requests are answered.
    fn settle(&mut self) -> io::Result<()> {
        let deadline = clock::now() + PATIENCE;
        loop {
            let Counts { sent, arrived, answered } = self.counts();
            if answered >= sent {
                return Ok(());
            }
            if clock::now() >= deadline {
                return Err(io::Error::other(format!(
                    "waited in vain for answers: {sent} requests sent, {arrived} arrived, {answered} answered"
                )));
            }
            self.turn(Duration::from_millis(10))?;
        }
    }

    /// Handles what happens until `deadline`.
    fn turn_until(&mut self, deadline: Instant) -> io::Result<()> {
        loop {
            let rest = deadline.saturating_duration_since(clock::now());
            self.turn(rest)?;
            if rest.is_zero() {
                return Ok(());
            }
        }
    }
}

/// What passed so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Requests that clients sent.
    pub(crate) sent: u64,
    /// Requests that the server got.
    pub(crate) arrived: u64,
    /// Answers that clients got.
    pub(crate) answered: u64,
}

const PATIENCE: Duration = Duration::from_secs(30);
