//! An HTTPS service that gives everybody the same answer, and another one when it is told to.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::service::Accepting;
use super::{Files, PATIENCE};

/// A service with the certificate `localhost.pem`; gone when dropped.
pub(crate) struct Https {
    accepting: Accepting,
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` for no answer at all, with the connection left open.
    answer: Mutex<Option<Vec<u8>>>,
    requests: AtomicUsize,
}

impl Https {
    pub(crate) fn start(files: &Files, answer: Option<Vec<u8>>) -> Self {
        Self::start_at(0, files, answer)
    }

    pub(crate) fn start_at(port: u16, files: &Files, answer: Option<Vec<u8>>) -> Self {
        let config = Arc::new(server_config(files));
        let shared = Arc::new(Shared { answer: Mutex::new(answer), requests: AtomicUsize::new(0) });
        let serving = Arc::clone(&shared);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let accepting = Accepting::start(address, move |tcp, _| serving.serve(tcp, Arc::clone(&config)));
        Self { accepting, shared }
    }

    pub(crate) fn say(&self, answer: Option<Vec<u8>>) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/keys", self.accepting.address().port())
    }

    pub(crate) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Answers one request; a connection has no more.
    fn serve(&self, tcp: TcpStream, config: Arc<ServerConfig>) {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let tls = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
        let mut reader = BufReader::new(tls);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if !reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                return;
            }
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        match answer {
            Some(answer) => drop(reader.get_mut().write_all(&answer)),
            None => drop(reader.read(&mut [0])),
        }
    }
}

fn server_config(files: &Files) -> ServerConfig {
    let chain = CertificateDer::pem_reader_iter(File::open(files.path("localhost.pem")).unwrap());
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(files.path("localhost.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_no_client_auth().with_single_cert(chain, key).unwrap()
}
