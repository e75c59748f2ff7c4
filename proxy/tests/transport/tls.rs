use std::io;
use std::sync::Arc;

use mgate_proxy::transport::{
    ALPN_MQTT, AcceptError, Accepted, AcceptorOptions, Authorities, Certificate, CipherSuites, ClientAuth,
    Demand, MinVersion, RevocationLists, ServerTls, ServerTlsOptions, Stream, TlsError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use crate::certificates::Authority;
use crate::{plain, shake_hands};

#[tokio::test]
async fn bytes_pass_in_tls_1_3() {
    let authority = Authority::new();
    let (accepted, client) = connect(options(&authority), Arc::new(trusting(&authority, BOTH)), HOST).await;
    let (mut accepted, mut client) = (accepted.unwrap(), client.unwrap());
    assert!(accepted.is_encrypted);
    assert_eq!(client.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    pass_a_byte(&mut accepted, &mut client).await;
}

#[tokio::test]
async fn suite_for_small_devices_alone_means_tls_1_2() {
    let authority = Authority::new();
    let options = ServerTlsOptions {
        cipher_suites: CipherSuites::from_names(&[SMALL_SUITE]).unwrap(),
        ..options(&authority)
    };
    let (accepted, client) = connect(options, Arc::new(trusting(&authority, BOTH)), HOST).await;
    let (mut accepted, mut client) = (accepted.unwrap(), client.unwrap());
    let suite = client.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(format!("{suite:?}"), SMALL_SUITE);
    pass_a_byte(&mut accepted, &mut client).await;
}

#[tokio::test]
async fn older_version_is_refused() {
    let authority = Authority::new();
    let options = ServerTlsOptions { min_version: MinVersion::Tls13, ..options(&authority) };
    let (accepted, client) = connect(options, Arc::new(trusting(&authority, &[&TLS12])), HOST).await;
    assert!(matches!(accepted, Err(AcceptError::Tls(_))));
    assert!(client.unwrap_err().to_string().contains("ProtocolVersion"));
}

#[tokio::test]
async fn certificate_follows_the_name_asked_for() {
    let authority = Authority::new();
    for (asked, is_covered) in
        [(HOST, true), ("a.plant.example", true), ("b.a.plant.example", false), ("other.example", false)]
    {
        let certificates = vec![certificate(&authority, HOST), certificate(&authority, "*.plant.example")];
        let options = ServerTlsOptions { certificates, ..options(&authority) };
        let (_, client) = connect(options, Arc::new(trusting(&authority, BOTH)), asked).await;
        assert_eq!(client.is_ok(), is_covered, "{asked}: {client:?}");
    }
}

#[tokio::test]
async fn demanded_certificate_is_handed_on() {
    let authority = Authority::new();
    let (chain, key) = authority.issue("dev-1", 1);
    let options = demanding(&authority, Demand::Required, RevocationLists::default());
    let (accepted, _) = connect(options, Arc::new(showing(&authority, &chain, &key)), HOST).await;
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    assert_eq!(accepted.unwrap().certificate.as_deref(), Some(&*leaf));
}

#[tokio::test]
async fn without_a_demanded_certificate_there_is_no_connection() {
    let authority = Authority::new();
    let options = demanding(&authority, Demand::Required, RevocationLists::default());
    let (accepted, _) = connect(options, Arc::new(trusting(&authority, BOTH)), HOST).await;
    assert!(matches!(accepted, Err(AcceptError::Tls(_))));
}

#[tokio::test]
async fn optional_certificate_may_be_missing() {
    let authority = Authority::new();
    let options = demanding(&authority, Demand::Optional, RevocationLists::default());
    let (accepted, _) = connect(options, Arc::new(trusting(&authority, BOTH)), HOST).await;
    assert_eq!(accepted.unwrap().certificate, None);
}

#[tokio::test]
async fn optional_certificate_must_be_good() {
    let authority = Authority::new();
    let (chain, key) = Authority::new().issue("dev-1", 1);
    let options = demanding(&authority, Demand::Optional, RevocationLists::default());
    let (accepted, _) = connect(options, Arc::new(showing(&authority, &chain, &key)), HOST).await;
    assert!(matches!(accepted, Err(AcceptError::Tls(_))));
}

#[tokio::test]
async fn revoked_certificate_is_refused_and_others_are_not() {
    let authority = Authority::new();
    for (serial, is_good) in [(7, false), (8, true)] {
        let (chain, key) = authority.issue("dev-1", serial);
        let revoked = RevocationLists::from_pem_or_der(authority.revoke(7).as_bytes()).unwrap();
        let options = demanding(&authority, Demand::Required, revoked);
        let (accepted, _) = connect(options, Arc::new(showing(&authority, &chain, &key)), HOST).await;
        assert_eq!(accepted.is_ok(), is_good, "{serial}");
    }
}

#[tokio::test]
async fn sessions_resume_with_their_certificate() {
    for version in [&TLS12, &TLS13] {
        let authority = Authority::new();
        let (chain, key) = authority.issue("dev-1", 1);
        let tls =
            ServerTls::new(demanding(&authority, Demand::Required, RevocationLists::default())).unwrap();
        let mut client = trusting(&authority, &[version]);
        client.client_auth_cert_resolver = showing(&authority, &chain, &key).client_auth_cert_resolver;
        let client = Arc::new(client);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (accepted, stream) = connect_to(tls.clone(), Arc::clone(&client), HOST).await;
            let (mut accepted, mut stream) = (accepted.unwrap(), stream.unwrap());
            // The ticket of TLS 1.3 comes with the first bytes.
            pass_a_byte(&mut accepted, &mut stream).await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{version:?}");
            assert!(accepted.certificate.is_some());
        }
    }
}

#[tokio::test]
async fn application_protocol_is_agreed_on() {
    let authority = Authority::new();
    for (offered, agreed) in [(&["x", "mqtt"][..], Some(&b"mqtt"[..])), (&[], None)] {
        let (accepted, client) = connect(options(&authority), offering(&authority, offered), HOST).await;
        assert!(accepted.is_ok());
        assert_eq!(client.unwrap().get_ref().1.alpn_protocol(), agreed);
    }
}

#[tokio::test]
async fn foreign_application_protocols_are_refused() {
    let authority = Authority::new();
    let (accepted, client) = connect(options(&authority), offering(&authority, &["h2"]), HOST).await;
    assert!(matches!(accepted, Err(AcceptError::Tls(_))));
    assert!(client.unwrap_err().to_string().contains("NoApplicationProtocol"));
}

#[test]
fn unusable_certificates_and_keys_say_what_is_wrong() {
    let authority = Authority::new();
    let (chain, key) = authority.issue(HOST, 1);
    let (_, other_key) = authority.issue(HOST, 2);
    let error =
        |chain: &str, key: &str| Certificate::from_pem(chain.as_bytes(), key.as_bytes()).err().unwrap();
    assert_eq!(error("", &key), TlsError::NoCertificate);
    assert_eq!(error(&key, &key), TlsError::NoCertificate);
    assert_eq!(error(&chain, ""), TlsError::NoKey);
    assert_eq!(error(&chain, &chain), TlsError::NoKey);
    assert_eq!(error(&chain, &other_key), TlsError::KeyMismatch);
    assert!(matches!(error(GARBAGE_CERTIFICATE, &key), TlsError::BadCertificate(_)));
    assert!(matches!(error(&chain, GARBAGE_KEY), TlsError::BadKey(_)));
}

#[test]
fn unusable_authorities_and_lists_say_what_is_wrong() {
    let authority = |pem: &str| Authorities::from_pem(pem.as_bytes()).err().unwrap();
    assert_eq!(authority("no certificate"), TlsError::NoCertificate);
    assert!(matches!(authority(GARBAGE_CERTIFICATE), TlsError::BadAuthority(_)));
    let list = RevocationLists::from_pem_or_der(b"no list").err().unwrap();
    assert_eq!(list, TlsError::NoRevocationList);
    let garbage = RevocationLists::from_pem_or_der(&[0x30, 0]).unwrap();
    let error = ServerTls::new(demanding(&Authority::new(), Demand::Required, garbage)).err().unwrap();
    assert!(matches!(error, TlsError::BadRevocationList(_)));
}

#[test]
fn cipher_suites_have_two_names_for_tls_1_3() {
    assert!(CipherSuites::from_names(&["TLS13_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"]).is_ok());
    let error = CipherSuites::from_names(&["TLS_RSA_WITH_AES_128_CBC_SHA"]).err().unwrap();
    assert_eq!(error, TlsError::UnknownCipherSuite("TLS_RSA_WITH_AES_128_CBC_SHA".into()));
}

#[test]
fn suites_that_no_version_has_are_an_error() {
    let options = ServerTlsOptions {
        cipher_suites: CipherSuites::from_names(&[SMALL_SUITE]).unwrap(),
        min_version: MinVersion::Tls13,
        ..options(&Authority::new())
    };
    assert_eq!(ServerTls::new(options).err(), Some(TlsError::NoUsableSuite));
}

type Client = io::Result<TlsStream<TcpStream>>;

async fn connect(
    options: ServerTlsOptions,
    client: Arc<ClientConfig>,
    name: &'static str,
) -> (Result<Accepted, AcceptError>, Client) {
    connect_to(ServerTls::new(options).unwrap(), client, name).await
}

async fn connect_to(
    tls: ServerTls,
    client: Arc<ClientConfig>,
    name: &'static str,
) -> (Result<Accepted, AcceptError>, Client) {
    shake_hands(AcceptorOptions { tls: Some(tls), ..plain() }, async |tcp| {
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(client).connect(name, tcp).await
    })
    .await
}

async fn pass_a_byte(accepted: &mut Accepted, client: &mut TlsStream<TcpStream>) {
    assert!(matches!(accepted.stream, Stream::Tls(_)));
    accepted.stream.write_all(b"!").await.unwrap();
    accepted.stream.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
}

fn options(authority: &Authority) -> ServerTlsOptions {
    ServerTlsOptions {
        certificates: vec![certificate(authority, HOST)],
        client_auth: None,
        min_version: MinVersion::default(),
        cipher_suites: CipherSuites::default(),
        alpn: vec![ALPN_MQTT.into()],
    }
}

fn demanding(authority: &Authority, demand: Demand, revoked: RevocationLists) -> ServerTlsOptions {
    let authorities = Authorities::from_pem(authority.pem().as_bytes()).unwrap();
    ServerTlsOptions { client_auth: Some(ClientAuth { authorities, demand, revoked }), ..options(authority) }
}

fn certificate(authority: &Authority, name: &str) -> Certificate {
    let (chain, key) = authority.issue(name, 99);
    Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
}

fn trusting(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap();
    builder.with_root_certificates(roots(authority)).with_no_client_auth()
}

fn showing(authority: &Authority, chain: &str, key: &str) -> ClientConfig {
    let chain = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(BOTH)
        .unwrap()
        .with_root_certificates(roots(authority))
        .with_client_auth_cert(vec![chain], key)
        .unwrap()
}

fn offering(authority: &Authority, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut client = trusting(authority, BOTH);
    client.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(client)
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    roots
}

const HOST: &str = "gate.example";
const SMALL_SUITE: &str = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

const GARBAGE_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const GARBAGE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
