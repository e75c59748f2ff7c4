use std::io;
use std::sync::Arc;

use rcgen::CertifiedKey;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A certificate for loopback, made on the spot, and clients that trust it alone.
pub(crate) struct Identity {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
    client: Arc<ClientConfig>,
}

impl Identity {
    /// Makes a key and signs its certificate with it.
    pub(crate) fn new() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()]);
        let CertifiedKey { cert, signing_key } = made.map_err(io::Error::other)?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Every device of a real fleet is a new one to the server: no tickets are used again.
        client.resumption = rustls::client::Resumption::disabled();
        let (certificate_pem, key_pem) = (cert.pem(), signing_key.serialize_pem());
        Ok(Self { certificate_pem, key_pem, client: Arc::new(client) })
    }

    /// Begins the client's side of a handshake.
    pub(crate) fn client(&self) -> io::Result<ClientConnection> {
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        ClientConnection::new(Arc::clone(&self.client), name).map_err(io::Error::other)
    }
}

const SERVER_NAME: &str = "localhost";
