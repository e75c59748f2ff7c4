use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How important a line is that a module logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something is strange.
    Warn,
    /// Something happened.
    Info,
    /// Something for whoever looks for a fault.
    Debug,
}

/// Where the lines of a module go: each is short, has no control characters, and comes from one module only.
pub type LogSink = Arc<dyn Fn(LogLevel, &str) + Send + Sync>;

/// The log of one module, which lets through only so much.
pub(crate) struct Log {
    sink: LogSink,
    flood: Mutex<Flood>,
}

/// What came within this second.
#[derive(Default)]
struct Flood {
    since: Duration,
    lines: u64,
}

impl Log {
    pub(crate) fn new(sink: LogSink) -> Self {
        Self { sink, flood: Mutex::default() }
    }

    /// Writes one line, unless there were too many within this second; says what was written.
    pub(crate) fn write(&self, level: LogLevel, bytes: &[u8], now: Duration) -> String {
        let line = printable(bytes);
        let (passes, left_out) = self.flood.lock().unwrap_or_else(PoisonError::into_inner).count(now);
        if left_out > 0 {
            (self.sink)(LogLevel::Warn, &format!("{left_out} lines were left out"));
        }
        if passes {
            (self.sink)(level, &line);
        }
        line
    }
}

impl LogLevel {
    /// The level that a module means.
    pub(crate) fn of(number: u32) -> Self {
        match number {
            0 => Self::Error,
            1 => Self::Warn,
            2 => Self::Info,
            _ => Self::Debug,
        }
    }
}

impl Flood {
    /// Counts one line: whether it passes, and how many did not in the second before.
    fn count(&mut self, now: Duration) -> (bool, u64) {
        let mut left_out = 0;
        // a clock that was set back begins a new second too
        if now.checked_sub(self.since).is_none_or(|passed| passed >= SECOND) {
            left_out = self.lines.saturating_sub(LINES_PER_SECOND);
            *self = Self { since: now, lines: 0 };
        }
        self.lines += 1;
        (self.lines <= LINES_PER_SECOND, left_out)
    }
}

/// The first bytes as text that cannot move a terminal's cursor.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LINE_BYTES)]);
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_control() {
            true => line.extend(char.escape_default()),
            false => line.push(char),
        }
    }
    if bytes.len() > MAX_LINE_BYTES {
        line.push('…');
    }
    line
}

const MAX_LINE_BYTES: usize = 512;
const LINES_PER_SECOND: u64 = 10;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_short_and_has_no_control_characters() {
        assert_eq!(printable("a\n\u{1b}[31mü\u{7f}\0".as_bytes()), "a\\n\\u{1b}[31mü\\u{7f}\\u{0}");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
        assert_eq!(printable(&[b'x'; 513]), "x".repeat(512) + "…");
    }

    #[test]
    fn flood_is_cut_off_and_counted() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let sink: LogSink =
            Arc::new(move |level, line| written.lock().unwrap().push((level, line.to_owned())));
        let log = Log::new(sink);
        for _ in 0..14 {
            log.write(LogLevel::Info, b"again", Duration::from_millis(70_000));
        }
        assert_eq!(lines.lock().unwrap().len(), 10);
        log.write(LogLevel::Info, b"later", Duration::from_millis(71_000));
        let end = [(LogLevel::Warn, "4 lines were left out".into()), (LogLevel::Info, "later".into())];
        assert_eq!(lines.lock().unwrap()[10..], end);
        log.write(LogLevel::Info, b"before", Duration::from_millis(1));
        assert_eq!(lines.lock().unwrap().len(), 13);
    }
}
