use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::transport::certificates::Authority;
use crate::transport::{Authorities, ClientTls, Connector, ConnectorOptions, Stream};

#[tokio::test]
async fn early_answer_is_heard_over_tls() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let trusted = Authorities::from_pem(authority.pem().as_bytes()).unwrap();
    let connector = Connector::new(ConnectorOptions {
        host: "localhost".into(),
        port,
        tls: Some(ClientTls::new(trusted, None).unwrap()),
        server_name: None,
        websocket: None,
        timeout: PATIENCE,
    })
    .unwrap();
    let answer = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor(&authority).accept(tcp).await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
    };
    // it has answered, and is gone
    let (stream, ()) = tokio::join!(async { connector.connect().await.unwrap() }, answer);
    let mut alone = Alone::new(Patient::new(stream, PATIENCE));
    let head = alone.send(request(Method::PUT, vec![b'x'; LARGE])).await.unwrap();
    assert_eq!(head.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(alone.broke.is_some() && !alone.is_free());
}

#[tokio::test]
async fn request_that_was_not_begun_is_given_back() {
    for (body, is_given_back) in [("", true), ("taken", false)] {
        let (mut alone, upstream) = connected().await;
        // closing with what nobody read resets the connection, so that nothing can be written
        alone.io.write_all(b"unread").await.unwrap();
        upstream.readable().await.unwrap();
        drop(upstream);
        alone.io.read_u8().await.unwrap_err();
        assert!(alone.send(request(Method::POST, body.into())).await.is_err());
        let request = alone.take_request();
        assert_eq!(request.is_some(), is_given_back, "{body:?}");
        assert!(request.is_none_or(|request| request.method() == Method::POST && request.uri() == "/a"));
    }
}

#[tokio::test]
async fn request_that_was_begun_is_not_given_back() {
    let (mut alone, mut upstream) = connected().await;
    upstream.shutdown().await.unwrap();
    assert!(alone.send(request(Method::POST, Vec::new())).await.is_err());
    assert!(alone.take_request().is_none());
}

async fn connected() -> (Alone, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (upstream, _) = listener.accept().await.unwrap();
    (Alone::new(Patient::new(Stream::Tcp(tcp), PATIENCE)), upstream)
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let (chain, key) = authority.issue("localhost", 1);
    let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

fn request(method: Method, body: Vec<u8>) -> Box<Request<Content>> {
    Box::new(Request::builder().method(method).uri("/a").body(Content::whole(body.into())).unwrap())
}

const PATIENCE: Duration = Duration::from_secs(20);
const LARGE: usize = 20 * 1024 * 1024;
