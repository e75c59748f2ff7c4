//! Somebody who talks to an admin listener.

use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::Value;

use super::peer::tcp;

/// Where an admin listener is, and what is shown to it.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    headers: String,
}

impl Admin {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, headers: format!("Host: {address}\r\n") }
    }

    /// The same with one more header.
    pub(crate) fn with(&self, header: &str) -> Self {
        Self { headers: format!("{}{header}\r\n", self.headers), ..self.clone() }
    }

    /// The same under another name.
    pub(crate) fn called(&self, host: &str) -> Self {
        Self { headers: format!("Host: {host}\r\n"), ..self.clone() }
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "", "")
    }

    /// Posts JSON.
    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        self.send("POST", path, "Content-Type: application/json\r\n", body)
    }

    pub(crate) fn send(&self, method: &str, path: &str, more: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\n{}{more}Content-Length: {length}\r\nConnection: close\r\n\r\n",
            self.headers
        );
        let answer = self.exchange(&[head.as_bytes(), body.as_bytes()].concat());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    /// Sends bytes and returns all that comes.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> String {
        let mut tcp = tcp(self.address);
        // who is refused early need not be listened to until the end
        let _ = tcp.write_all(bytes);
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}
