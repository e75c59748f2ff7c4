use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    ClientHello, ResolvesServerCert, ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ALL_VERSIONS, ClientConfig, HandshakeKind, ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::certificate::{Authorities, Certificate, CipherSuites, RevocationLists, TlsError, provider};
use super::stream::Stream;

/// How a listener speaks TLS.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// What a listener's TLS is made of.
pub struct ServerTlsOptions {
    /// The server's certificates: the first that is made out for the name that the client asks for is shown,
    /// otherwise the first.
    pub certificates: Vec<Certificate>,
    /// Whether and how clients show certificates; `None` asks for none.
    pub client_auth: Option<ClientAuth>,
    /// The oldest version that clients may speak.
    pub min_version: MinVersion,
    /// The cipher suites that may be negotiated.
    pub cipher_suites: CipherSuites,
    /// The application protocols (RFC 7301) that a client may name; one that names none is welcome.
    pub alpn: Vec<String>,
}

/// How clients show certificates.
pub struct ClientAuth {
    /// Where their certificates must come from.
    pub authorities: Authorities,
    /// Whether they must show one.
    pub demand: Demand,
    /// Certificates that are no longer valid. If there is one list, there must be one of each authority in
    /// a client's chain, the root's own certificate excepted. A list that is overdue is still believed.
    pub revoked: RevocationLists,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// It may; if it shows one, that one must be good.
    Optional,
    /// It must.
    Required,
}

/// The oldest version of TLS to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2, RFC 5246.
    #[default]
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

/// How an upstream is spoken to in TLS.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

/// The application protocol of MQTT over TLS.
pub const ALPN_MQTT: &str = "mqtt";
/// The application protocol of HTTP/1.1 and of WebSocket over TLS.
pub const ALPN_HTTP: &str = "http/1.1";
/// The application protocol of HTTP/2 over TLS.
pub const ALPN_HTTP2: &str = "h2";

impl ServerTls {
    /// Checks the options and makes new keys for session tickets: sessions do not outlive a change of options.
    pub fn new(options: ServerTlsOptions) -> Result<Self, TlsError> {
        if options.certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let provider = provider(options.cipher_suites);
        let verifier = options.client_auth.map(ClientAuth::verifier).transpose()?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(options.min_version.and_later())
            .map_err(|_| TlsError::NoUsableSuite)?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(options.certificates)));
        config.alpn_protocols = options.alpn.into_iter().map(String::into_bytes).collect();
        resume_sessions(&mut config)?;
        Ok(Self { config: Arc::new(config), verifier })
    }

    pub(super) async fn accept(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let limit = |connection: &mut ServerConnection| connection.set_buffer_limit(Some(BUFFER_BYTES));
        let stream = acceptor.accept_with(tcp, limit).await?;
        self.check_resumed(stream.get_ref().1)?;
        Ok(stream.into())
    }

    /// A resumed session brings its certificate along unchecked: it may have expired since.
    fn check_resumed(&self, connection: &ServerConnection) -> io::Result<()> {
        let (Some(verifier), Some(HandshakeKind::Resumed)) = (&self.verifier, connection.handshake_kind())
        else {
            return Ok(());
        };
        match connection.peer_certificates() {
            Some([leaf, chain @ ..]) => verifier
                .verify_client_cert(leaf, chain, UnixTime::now())
                .map(|_| ())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            _ => Ok(()),
        }
    }
}

impl ClientAuth {
    fn verifier(self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let provider = provider(CipherSuites::default());
        let builder = WebPkiClientVerifier::builder_with_provider(self.authorities.0, provider)
            .with_crls(self.revoked.0);
        let builder = match self.demand {
            Demand::Optional => builder.allow_unauthenticated(),
            Demand::Required => builder,
        };
        builder.build().map_err(|error| match error {
            VerifierBuilderError::NoRootAnchors => TlsError::NoCertificate,
            error => TlsError::BadRevocationList(error.to_string()),
        })
    }
}

impl MinVersion {
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => ALL_VERSIONS,
            Self::Tls13 => TLS13_ALONE,
        }
    }
}

impl ClientTls {
    /// Trusts upstreams that `authorities` vouch for, and shows them `certificate` if they ask.
    pub fn new(authorities: Authorities, certificate: Option<&Certificate>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider(CipherSuites::default()))
            .with_protocol_versions(MinVersion::Tls12.and_later())
            .map_err(|_| TlsError::NoUsableSuite)?
            .with_root_certificates(authorities.0);
        let config = match certificate {
            Some(Certificate(certified)) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certified))))
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// The same for a library that makes connections itself.
    pub fn to_rustls(&self) -> ClientConfig {
        ClientConfig::clone(&self.0)
    }

    /// Begins TLS on a connection to `host`, whose certificate must bear that name.
    pub async fn connect_to(&self, host: &str, tcp: TcpStream) -> io::Result<Stream> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(self.connect(name, tcp, &[]).await?)))
    }

    pub(super) async fn connect(
        &self,
        name: ServerName<'static>,
        tcp: TcpStream,
        protocols: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut config = Arc::clone(&self.0);
        if !protocols.is_empty() {
            Arc::make_mut(&mut config).alpn_protocols =
                protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        }
        let connector = TlsConnector::from(config);
        let limit = |connection: &mut tokio_rustls::rustls::ClientConnection| {
            connection.set_buffer_limit(Some(BUFFER_BYTES));
        };
        Ok(connector.connect_with(name, tcp, limit).await?.into())
    }
}

/// The certificate that the peer showed and that was verified.
pub(super) fn leaf(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let leaf: &CertificateDer<'_> = stream.get_ref().1.peer_certificates()?.first()?;
    Some(leaf.to_vec())
}

/// Finds the certificate for the name that a client asks for (RFC 6066 §3).
struct ByName(Vec<Certificate>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |one: &&Certificate| one.0.key.choose_scheme(hello.signature_schemes()).is_some();
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| self.0.iter().filter(fits).find(|one| one.covers(&name)));
        named.or_else(|| self.0.iter().find(fits)).map(|one| Arc::clone(&one.0))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ByName({} certificates)", self.0.len())
    }
}

/// Lets clients that come back skip the expensive half of the handshake.
fn resume_sessions(config: &mut ServerConfig) -> Result<(), TlsError> {
    let ticketer = tokio_rustls::rustls::crypto::ring::Ticketer::new();
    config.ticketer = ticketer.map_err(|_| TlsError::NoRandomness)?;
    // For TLS 1.2 clients without tickets (RFC 5077); the oldest session makes room.
    config.session_storage = ServerSessionMemoryCache::new(STORED_SESSIONS);
    // A client comes back one connection at a time: a second ticket would only cost bytes on the air.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(())
}

/// What a connection may hold back for a peer that does not read: one full record.
const BUFFER_BYTES: usize = 16 * 1024;

const STORED_SESSIONS: usize = 1024;

static TLS13_ALONE: &[&SupportedProtocolVersion] = &[&TLS13];

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::certificates::Authority;
    use super::*;

    #[tokio::test]
    async fn resumed_certificate_is_checked_again() {
        let authority = Authority::new();
        let client = client(&authority);
        let server = server(&authority, RevocationLists::default());
        connect(&server, &client).await.unwrap();
        let kind = connect(&server, &client).await.unwrap();
        assert_eq!(kind, Some(HandshakeKind::Resumed));
        let revoked = RevocationLists::from_pem_or_der(authority.revoke(1).as_bytes()).unwrap();
        let stricter = ServerTls { verifier: self::server(&authority, revoked).verifier, ..server };
        let error = connect(&stricter, &client).await.unwrap_err();
        assert!(error.to_string().contains("Revoked"), "{error}");
    }

    #[tokio::test]
    async fn sessions_do_not_outlive_the_options() {
        let authority = Authority::new();
        let client = client(&authority);
        for _ in 0..2 {
            let server = server(&authority, RevocationLists::default());
            assert_eq!(connect(&server, &client).await.unwrap(), Some(HandshakeKind::Full));
        }
    }

    /// Connects once, far enough for the client to get a ticket.
    async fn connect(server: &ServerTls, client: &ClientTls) -> io::Result<Option<HandshakeKind>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accept = async {
            let mut stream = server.accept(listener.accept().await?.0).await?;
            stream.write_all(b"!").await?;
            stream.flush().await?;
            Ok(stream)
        };
        let connect = async {
            let name = ServerName::try_from("gate.example").unwrap();
            let mut stream = client.connect(name, TcpStream::connect(address).await?, &[]).await?;
            stream.read_u8().await
        };
        let (accepted, _) = tokio::join!(accept, connect);
        accepted.map(|stream| stream.get_ref().1.handshake_kind())
    }

    fn server(authority: &Authority, revoked: RevocationLists) -> ServerTls {
        let client_auth = ClientAuth { authorities: trusted(authority), demand: Demand::Required, revoked };
        let options = ServerTlsOptions {
            certificates: vec![certificate(authority, 99)],
            client_auth: Some(client_auth),
            min_version: MinVersion::default(),
            cipher_suites: CipherSuites::default(),
            alpn: Vec::new(),
        };
        ServerTls::new(options).unwrap()
    }

    fn client(authority: &Authority) -> ClientTls {
        ClientTls::new(trusted(authority), Some(&certificate(authority, 1))).unwrap()
    }

    fn certificate(authority: &Authority, serial: u64) -> Certificate {
        let (chain, key) = authority.issue("gate.example", serial);
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    fn trusted(authority: &Authority) -> Authorities {
        Authorities::from_pem(authority.pem().as_bytes()).unwrap()
    }
}

#[cfg(test)]
#[path = "../../tests/transport/certificates.rs"]
pub(crate) mod certificates;
