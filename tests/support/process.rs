//! Processes that end with the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};

use super::wait_until;

/// A child that is killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Reads what it writes, to the end.
    reader: Option<JoinHandle<()>>,
}

/// The lines that a process has written so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Process {
    /// Starts it; what it writes is of no interest.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: spawn(command), reader: None }
    }

    /// Starts it and listens to its standard output.
    pub(crate) fn start_with_stdout(command: &mut Command) -> (Self, Lines) {
        let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()));
        let (lines, reader) = Lines::read(child.stdout.take().unwrap());
        (Self { child, reader: Some(reader) }, lines)
    }

    /// Starts it and listens to its standard error.
    pub(crate) fn start_with_stderr(command: &mut Command) -> (Self, Lines) {
        let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        let (lines, reader) = Lines::read(child.stderr.take().unwrap());
        (Self { child, reader: Some(reader) }, lines)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Stops it where it is: it does nothing more, and its connections stay.
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// Waits for its end, and until all that it wrote is read.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_until("a process ends", || !self.is_running());
        wait_until("its output ends", || self.reader.as_ref().is_none_or(JoinHandle::is_finished));
        self.child.wait().unwrap()
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> (Self, JoinHandle<()>) {
        let lines = Self::default();
        let written = lines.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                written.0.lock().unwrap().push(line);
            }
        });
        (lines, reader)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// How many lines contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits until `text` was written in so many lines.
    pub(crate) fn wait_for_times(&self, text: &str, times: usize) {
        wait_until(&format!("\"{text}\" is written {times} times"), || self.count(text) >= times);
    }

    /// Waits for a line that contains `text`, and returns it.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let find = || self.lines().into_iter().find(|line| line.contains(text));
        wait_until(&format!("\"{text}\" is written, in\n{}", self.text()), || find().is_some());
        find().unwrap()
    }
}

fn spawn(command: &mut Command) -> Child {
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().unwrap_or_else(|error| panic!("{program} cannot be started ({error}): run scripts/test"))
}
