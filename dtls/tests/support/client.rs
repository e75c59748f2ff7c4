//! Clients of OpenSSL.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mgate_certs::{Authority, Issued};
use openssl::pkey::PKey;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode,
    SslVersion,
};
use openssl::x509::X509;

/// A client of OpenSSL, record layer and all.
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// What the server sent to the application.
    pub(crate) received: Vec<Vec<u8>>,
    /// Why the handshake, or the session, ended.
    pub(crate) fault: Option<String>,
    stream: SslStream<Pipe>,
    is_connected: bool,
}

#[derive(Default)]
struct Pipe {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

impl Client {
    pub(crate) fn new(context: &SslContext, address: SocketAddr) -> Self {
        let mut ssl = Ssl::new(context).unwrap();
        ssl.set_connect_state();
        ssl.set_mtu(1200).unwrap();
        let stream = SslStream::new(ssl, Pipe::default()).unwrap();
        Self { address, received: Vec::new(), fault: None, stream, is_connected: false }
    }

    /// One that knows a key; with a suite that every device has.
    pub(crate) fn with_psk(identity: &str, address: SocketAddr) -> Self {
        let key = [b"key of ", identity.as_bytes()].concat();
        Self::new(&psk_context(identity, &key, "PSK-AES128-CCM8"), address)
    }

    pub(crate) fn start(&mut self) {
        self.advance();
    }

    pub(crate) fn handle(&mut self, datagram: &[u8]) {
        self.stream.get_mut().incoming.push_back(datagram.to_vec());
        self.advance();
    }

    pub(crate) fn send(&mut self, payload: &[u8]) {
        self.stream.ssl_write(payload).unwrap();
    }

    pub(crate) fn say_goodbye(&mut self) {
        let _ = self.stream.shutdown();
    }

    pub(crate) fn take_sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.stream.get_mut().outgoing)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    pub(crate) fn suite(&self) -> &'static str {
        self.stream.ssl().current_cipher().unwrap().name()
    }

    fn advance(&mut self) {
        if self.fault.is_some() {
            return;
        }
        if !self.is_connected {
            match self.stream.do_handshake() {
                Ok(()) => self.is_connected = true,
                Err(error) if error.code() == ErrorCode::WANT_READ => return,
                Err(error) => return self.fault = Some(error.to_string()),
            }
        }
        let mut buffer = [0; 2048];
        loop {
            match self.stream.ssl_read(&mut buffer) {
                Ok(length) => self.received.push(buffer[..length].to_vec()),
                Err(error) if error.code() == ErrorCode::WANT_READ => return,
                Err(error) => return self.fault = Some(error.to_string()),
            }
        }
    }
}

/// How a client with a key shakes hands.
pub(crate) fn psk_context(identity: &str, key: &[u8], suites: &str) -> SslContext {
    let (identity, key) = ([identity.as_bytes(), &[0]].concat(), key.to_vec());
    let mut builder = context(suites);
    builder.set_psk_client_callback(move |_, _, identity_room, key_room| {
        identity_room[..identity.len()].copy_from_slice(&identity);
        key_room[..key.len()].copy_from_slice(&key);
        Ok(key.len())
    });
    builder.build()
}

/// How a client shakes hands that trusts an authority, and may have a certificate.
pub(crate) fn certificate_context(authority: &Authority, own: Option<&Issued>, suites: &str) -> SslContext {
    let mut builder = context(suites);
    builder.set_verify(SslVerifyMode::PEER);
    builder
        .cert_store_mut()
        .add_cert(X509::from_pem(authority.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    if let Some(Issued { certificate, key }) = own {
        builder.set_certificate(&X509::from_pem(certificate.pem.as_bytes()).unwrap()).unwrap();
        builder.set_private_key(&PKey::private_key_from_pem(key.pem().as_bytes()).unwrap()).unwrap();
    }
    builder.build()
}

/// How a client shakes hands that trusts everybody.
pub(crate) fn unverified_context(suites: &str) -> SslContext {
    context(suites).build()
}

/// How a client shakes hands that knows DTLS 1.0 only.
pub(crate) fn old_context() -> SslContext {
    let mut builder = context("ALL:@SECLEVEL=0");
    builder.set_min_proto_version(Some(SslVersion::DTLS1)).unwrap();
    builder.set_max_proto_version(Some(SslVersion::DTLS1)).unwrap();
    builder.build()
}

fn context(suites: &str) -> SslContextBuilder {
    let mut builder = SslContextBuilder::new(SslMethod::dtls_client()).unwrap();
    builder.set_max_proto_version(Some(SslVersion::DTLS1_2)).unwrap();
    builder.set_security_level(0);
    builder.set_cipher_list(suites).unwrap();
    builder.set_options(SslOptions::NO_QUERY_MTU);
    builder
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Ok(datagram.len())
    }
}

impl Write for Pipe {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        self.outgoing.push(datagram.to_vec());
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
