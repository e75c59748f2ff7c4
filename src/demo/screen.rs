use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mgate_policies::Now;

use super::style::{Paint, Style};

/// Shows what happens, a line each, on standard output. A slow terminal makes nobody wait: what it cannot take
/// is left out and counted.
pub(crate) struct Screen {
    style: Style,
    lines: SyncSender<Option<String>>,
    left_out: Arc<AtomicU64>,
    /// Yields nothing: it ends when everything is written.
    written: Mutex<Receiver<Infallible>>,
}

/// One line: who did what to which topic, and more about it.
pub(super) struct Row<'a> {
    pub(super) who: &'a str,
    pub(super) what: &'a str,
    pub(super) subject: &'a str,
    pub(super) detail: &'a str,
    pub(super) paint: Paint,
}

impl Screen {
    /// Starts the thread that writes.
    pub(crate) fn start(style: Style) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUED_LINES);
        let (writing, written) = sync_channel(0);
        let left_out = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&left_out);
        thread::Builder::new().name("screen".into()).spawn(move || {
            // An error is a reader who has seen enough.
            let _ = write_all(&queue, &counter);
            drop::<SyncSender<Infallible>>(writing);
        })?;
        Ok(Self { style, lines, left_out, written: Mutex::new(written) })
    }

    /// Shows one line.
    pub(super) fn show(&self, row: &Row<'_>) {
        if self.lines.try_send(Some(row.line(self.style, Now::read().unix))).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written, but not long.
    pub(crate) fn finish(&self) {
        if self.lines.try_send(None).is_ok() {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = written.recv_timeout(FINISH_TIMEOUT);
        }
    }
}

impl Row<'_> {
    fn line(&self, style: Style, unix: Duration) -> String {
        let seconds = unix.as_secs() % (24 * 60 * 60);
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let Self { who, what, subject, detail, paint } = self;
        let line = format!("{who:10} {what:10} {subject:36} {detail}");
        format!("{}  {}", style.paint(Paint::Dim, time), style.paint(*paint, line.trim_end()))
    }
}

fn write_all(queue: &Receiver<Option<String>>, left_out: &AtomicU64) -> io::Result<()> {
    while let Ok(Some(line)) = queue.recv() {
        let mut stdout = io::stdout().lock();
        match left_out.swap(0, Ordering::Relaxed) {
            0 => {}
            count => writeln!(stdout, "          ({count} more)")?,
        }
        writeln!(stdout, "{line}")?;
    }
    Ok(())
}

/// At most `max` characters of a text, on one line, with nothing in it that a terminal would act on.
pub(super) fn printable(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for (index, letter) in text.chars().enumerate() {
        match letter {
            _ if index == max => return shown + "…",
            '"' | '\'' | '\\' => shown.push(letter),
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
const QUEUED_LINES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_have_the_time_of_the_day() {
        let row = |who| Row { who, what: "publish", subject: "a/b", detail: "21", paint: Paint::Green };
        let time = Duration::from_secs(24 * 3600 * 3 + 3600 + 62);
        let (one, other) = (row("a").line(Style::plain(), time), row("device-1").line(Style::plain(), time));
        assert!(one.starts_with("01:01:02  a          publish    a/b "), "{one}");
        assert_eq!(one.find("21"), other.find("21"));
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_act_on() {
        assert_eq!(printable("{\"t\": 21}", 80), "{\"t\": 21}");
        assert_eq!(printable("a\x1b[2Jb\n\u{202e}c", 80), "a\\u{1b}[2Jb\\n\\u{202e}c");
        assert_eq!(printable("ärger", 3), "ärg…");
        assert_eq!(printable("abc", 3), "abc");
    }
}
