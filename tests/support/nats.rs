//! A real NATS server, and peers that speak its protocol by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::{env, thread};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::process::Process;
use super::wait_until;

/// `nats-server` on a port of its own.
pub(crate) struct NatsServer {
    process: Process,
    port: u16,
}

/// Somebody who answers questions on a subject; gone when dropped.
pub(crate) struct Responder {
    tcp: TcpStream,
    heard: Arc<Mutex<Vec<Asked>>>,
}

/// A question that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) subject: String,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl NatsServer {
    pub(crate) fn start(port: u16, arguments: &[&str]) -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        // where distributions put it, which is not on everybody's path
        let directories = env::split_paths(&path).chain([Path::new("/usr/sbin").into()]);
        let program =
            directories.map(|directory| directory.join("nats-server")).find(|program| program.is_file());
        let mut command = Command::new(program.expect("nats-server is not installed: run scripts/test"));
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
        let process = Process::start(&mut command);
        wait_until("NATS listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Self { process, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// With JetStream, which keeps what it stores in `directory`.
    pub(crate) fn with_jetstream(port: u16, directory: &Path) -> Self {
        let server = Self::start(port, &["-js", "-sd", directory.to_str().unwrap()]);
        wait_until("JetStream answers", || server.ask("$JS.API.INFO", "").contains("\"limits\""));
        server
    }

    /// Asks on a subject; what comes back is empty if nobody answers.
    pub(crate) fn ask(&self, subject: &str, message: &str) -> String {
        let (mut tcp, mut reader) = connect(self.port, "");
        let length = message.len();
        let text =
            format!("SUB answer.{subject} 1\r\nPUB {subject} answer.{subject} {length}\r\n{message}\r\n");
        tcp.write_all(text.as_bytes()).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["MSG", .., all] => {
                    let mut bytes = vec![0; all.parse().unwrap()];
                    reader.read_exact(&mut bytes).unwrap();
                    return String::from_utf8(bytes).unwrap();
                }
                ["HMSG", ..] => return String::new(),
                _ => {}
            }
        }
    }

    /// Makes a stream.
    pub(crate) fn create_stream(&self, name: &str, subjects: &str) {
        let request = format!("{{\"name\":\"{name}\",\"subjects\":[\"{subjects}\"],\"storage\":\"file\"}}");
        let answer = self.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &request);
        assert!(answer.contains("\"config\""), "{answer}");
    }

    /// How many messages a stream has.
    pub(crate) fn stored(&self, stream: &str) -> u64 {
        let answer = self.ask(&format!("$JS.API.STREAM.INFO.{stream}"), "");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
        answer["state"]["messages"].as_u64().unwrap_or_default()
    }

    /// What a stream has, in its order.
    pub(crate) fn contents(&self, stream: &str) -> Vec<String> {
        let read = |number: u64| {
            let answer =
                self.ask(&format!("$JS.API.STREAM.MSG.GET.{stream}"), &format!("{{\"seq\":{number}}}"));
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            // a message without a payload has no data
            let data = answer["message"]["data"].as_str().unwrap_or_default();
            String::from_utf8(STANDARD.decode(data).unwrap()).unwrap()
        };
        (1..=self.stored(stream)).map(read).collect()
    }

    /// Says something to whoever listens on a subject; `login` are members of CONNECT.
    pub(crate) fn publish(&self, login: &str, subject: &str, message: &str) {
        let (mut tcp, _) = connect(self.port, login);
        let length = message.len();
        tcp.write_all(format!("PUB {subject} {length}\r\n{message}\r\nPING\r\n").as_bytes()).unwrap();
        let mut pong = [0; 6];
        tcp.read_exact(&mut pong).unwrap();
        assert_eq!(&pong, b"PONG\r\n");
    }

    /// Nothing more is read or stored; connections stay.
    pub(crate) fn pause(&self) {
        self.process.pause();
    }

    pub(crate) fn kill(self) {
        self.process.kill();
    }
}

impl Responder {
    /// `answer` may say nothing.
    pub(crate) fn start(
        port: u16,
        login: &str,
        subject: &str,
        answer: impl Fn(&Asked) -> Option<String> + Send + 'static,
    ) -> Self {
        let (mut tcp, mut reader) = connect(port, login);
        tcp.write_all(format!("SUB {subject} workers 1\r\nPING\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "PONG\r\n");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (hearing, mut writer) = (Arc::clone(&heard), tcp.try_clone().unwrap());
        thread::spawn(move || {
            while let Some((asked, reply)) = next(&mut reader, &mut writer) {
                hearing.lock().unwrap().push(asked.clone());
                if let Some(said) = answer(&asked) {
                    let _ = writer.write_all(format!("PUB {reply} {}\r\n{said}\r\n", said.len()).as_bytes());
                }
            }
        });
        Self { tcp, heard }
    }

    /// Only listens.
    pub(crate) fn listen(port: u16, subject: &str) -> Self {
        Self::start(port, "", subject, |_| None)
    }

    /// The bodies of all that came, in their order.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.heard().into_iter().map(|asked| asked.body).collect()
    }

    pub(crate) fn heard(&self) -> Vec<Asked> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.tcp.shutdown(Shutdown::Both);
    }
}

fn connect(port: u16, login: &str) -> (TcpStream, BufReader<TcpStream>) {
    let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut reader = BufReader::with_capacity(1, tcp.try_clone().unwrap());
    let mut info = String::new();
    reader.read_line(&mut info).unwrap();
    assert!(info.starts_with("INFO "), "{info}");
    let options = format!("{{\"verbose\":false,\"headers\":true,\"no_responders\":true{login}}}");
    tcp.write_all(format!("CONNECT {options}\r\n").as_bytes()).unwrap();
    (tcp, reader)
}

/// The next message and the subject for its answer; `None` at the end.
fn next(reader: &mut BufReader<TcpStream>, writer: &mut TcpStream) -> Option<(Asked, String)> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["PING"] => writer.write_all(b"PONG\r\n").ok()?,
            ["HMSG", subject, _, ref reply @ .., headers, all] => {
                let (headers, all): (usize, usize) = (headers.parse().ok()?, all.parse().ok()?);
                let mut bytes = vec![0; all + 2];
                reader.read_exact(&mut bytes).ok()?;
                let text = |range: &[u8]| String::from_utf8_lossy(range).into_owned();
                let (subject, reply) = (subject.to_owned(), reply.concat());
                let (headers, body) = (text(&bytes[..headers]), text(&bytes[headers..all]));
                return Some((Asked { subject, headers, body }, reply));
            }
            _ => {}
        }
    }
}
