//! An HTTP service that says, byte for byte, what a test wants.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A service on a port of its own; gone when dropped.
pub(crate) struct Service {
    accepting: Accepting,
    shared: Arc<Shared>,
}

/// Accepts connections and serves each on a thread of its own, until it is dropped.
pub(crate) struct Accepting {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// Method and target: `POST /access?x=y`.
    pub(crate) line: String,
    /// All headers, in lower case, with a line each.
    pub(crate) headers: String,
    pub(crate) body: String,
}

struct Shared {
    answer: Box<Say>,
    heard: Mutex<Vec<Heard>>,
    connections: AtomicUsize,
}

/// Writes an answer; an error closes the connection.
type Say = dyn Fn(&Heard, &mut TcpStream) -> io::Result<()> + Send + Sync;

impl Service {
    pub(crate) fn start(
        answer: impl Fn(&Heard, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Heard, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            heard: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        let accepting = Accepting::start(address, move |tcp, is_over| serving.serve(tcp, is_over));
        Self { accepting, shared }
    }

    /// One that gives the same answer to everything.
    pub(crate) fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, tcp| tcp.write_all(&answer))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.accepting.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.accepting.address)
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Accepting {
    /// Listens at `address`; `serve` is also told, at any time, whether it is over.
    pub(crate) fn start(
        address: SocketAddr,
        serve: impl Fn(TcpStream, &AtomicBool) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let accepting = Self { address: listener.local_addr().unwrap(), is_over: Arc::clone(&is_over) };
        let serve = Arc::new(serve);
        thread::spawn(move || {
            while let Ok((tcp, _)) = listener.accept() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (serve, is_over) = (Arc::clone(&serve), Arc::clone(&is_over));
                thread::spawn(move || serve(tcp, &is_over));
            }
        });
        accepting
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // wakes the thread that accepts
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut tcp: TcpStream, is_over: &AtomicBool) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut reader = BufReader::new(tcp.try_clone().unwrap());
        while let Ok(heard) = Heard::read(&mut reader) {
            if is_over.load(Ordering::SeqCst) {
                return;
            }
            self.heard.lock().unwrap().push(heard.clone());
            if (self.answer)(&heard, &mut tcp).is_err() {
                return;
            }
        }
    }
}

impl Heard {
    fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let (line, headers) = head.split_once("\r\n").unwrap();
        let headers = headers.to_lowercase();
        let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body)?;
        let line = line.trim_end_matches(" HTTP/1.1").to_owned();
        Ok(Self { line, headers, body: String::from_utf8(body).unwrap() })
    }
}

/// An answer with a body of JSON.
pub(crate) fn json(body: &str) -> Vec<u8> {
    answer("200 OK", "application/json", body)
}

/// A whole answer.
pub(crate) fn answer(status: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into()
}
