use std::time::Duration;

use mgate_proxy::transport::{
    ALPN_HTTP, Accepted, Acceptor, AcceptorOptions, Authorities, Certificate, CipherSuites, ClientAuth,
    ClientTls, ConnectError, Connector, ConnectorError, ConnectorOptions, Demand, MinVersion,
    RevocationLists, ServerTls, ServerTlsOptions, Stream, WebSocketOptions, WebSocketTarget,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::certificates::Authority;
use crate::{LONG, plain};

#[tokio::test]
async fn bytes_pass_over_every_transport() {
    let authority = Authority::new();
    for has_tls in [false, true] {
        for has_websocket in [false, true] {
            let server = AcceptorOptions {
                tls: has_tls.then(|| server(&authority, None)),
                websocket: has_websocket.then(websocket),
                ..plain()
            };
            let client = |port| ConnectorOptions {
                tls: has_tls.then(|| ClientTls::new(trusted(&authority), None).unwrap()),
                websocket: has_websocket.then(target),
                ..to(port)
            };
            let (accepted, connected) = connect(server, client).await;
            echo_much(accepted.stream, connected.unwrap()).await;
        }
    }
}

#[tokio::test]
async fn upstream_is_shown_our_certificate() {
    let authority = Authority::new();
    let (chain, key) = authority.issue("mgate", 1);
    let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let auth = ClientAuth {
        authorities: trusted(&authority),
        demand: Demand::Required,
        revoked: RevocationLists::default(),
    };
    let server = AcceptorOptions { tls: Some(server(&authority, Some(auth))), ..plain() };
    let client = |port| ConnectorOptions {
        tls: Some(ClientTls::new(trusted(&authority), Some(&certificate)).unwrap()),
        ..to(port)
    };
    let (accepted, _) = connect(server, client).await;
    assert!(accepted.certificate.is_some());
}

#[tokio::test]
async fn upstream_with_another_name_is_not_trusted() {
    let authority = Authority::new();
    let options = |port, name: &str| ConnectorOptions {
        tls: Some(ClientTls::new(trusted(&authority), None).unwrap()),
        server_name: Some(name.into()),
        ..to(port)
    };
    assert!(matches!(fail(&authority, |port| options(port, "other.example")).await, ConnectError::Tls(_)));
}

#[tokio::test]
async fn upstream_of_another_authority_is_not_trusted() {
    let authority = Authority::new();
    let options = |port| ConnectorOptions {
        tls: Some(ClientTls::new(trusted(&Authority::new()), None).unwrap()),
        ..to(port)
    };
    assert!(matches!(fail(&authority, options).await, ConnectError::Tls(_)));
}

#[tokio::test]
async fn upstream_that_does_not_listen_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = Connector::new(to(port)).unwrap().connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::Tcp(_)), "{error}");
}

#[tokio::test]
async fn upstream_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ConnectorOptions {
        websocket: Some(target()),
        timeout: Duration::from_millis(20),
        ..to(listener.local_addr().unwrap().port())
    };
    let error = Connector::new(options).unwrap().connect().await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut), "{error}");
}

#[test]
fn connector_shows_as_a_url() {
    let shown = |options| Connector::new(options).unwrap().to_string();
    assert_eq!(shown(to(1883)), "mqtt://127.0.0.1:1883");
    assert_eq!(shown(ConnectorOptions { host: "[::1]".into(), ..to(1883) }), "mqtt://[::1]:1883");
    assert_eq!(
        shown(ConnectorOptions { websocket: Some(target()), ..to(80) }),
        "mqtt+ws://127.0.0.1:80/mqtt"
    );
    let tls = ClientTls::new(trusted(&Authority::new()), None).unwrap();
    let options = ConnectorOptions { host: "broker".into(), tls: Some(tls), ..to(8883) };
    assert_eq!(shown(options), "mqtts://broker:8883");
}

#[test]
fn impossible_upstreams_are_found_at_once() {
    let tls = ClientTls::new(trusted(&Authority::new()), None).unwrap();
    let options = ConnectorOptions { tls: Some(tls), server_name: Some("no name".into()), ..to(1) };
    assert_eq!(Connector::new(options).err(), Some(ConnectorError::ServerName("no name".into())));
    let target = WebSocketTarget { path: "/a b".into(), ..target() };
    let options = ConnectorOptions { websocket: Some(target), ..to(1) };
    let url = "ws://127.0.0.1:1/a b".into();
    assert_eq!(Connector::new(options).err(), Some(ConnectorError::WebSocketUrl(url)));
}

async fn connect(
    server: AcceptorOptions,
    client: impl FnOnce(u16) -> ConnectorOptions,
) -> (Accepted, Result<Stream, ConnectError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = Connector::new(client(listener.local_addr().unwrap().port())).unwrap();
    let accept = async {
        let (tcp, peer) = listener.accept().await.unwrap();
        Acceptor::new(server).accept(tcp, peer, |_| Ok(())).await.unwrap()
    };
    tokio::join!(accept, connector.connect())
}

/// The error that a connector meets at a server with TLS.
async fn fail(authority: &Authority, client: impl FnOnce(u16) -> ConnectorOptions) -> ConnectError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = Connector::new(client(listener.local_addr().unwrap().port())).unwrap();
    let acceptor = Acceptor::new(AcceptorOptions { tls: Some(server(authority, None)), ..plain() });
    let accept = async {
        let (tcp, peer) = listener.accept().await.unwrap();
        acceptor.accept(tcp, peer, |_| Ok(())).await
    };
    tokio::join!(accept, connector.connect()).1.unwrap_err()
}

/// Sends more than any buffer holds, both ways at once, and compares.
async fn echo_much(server: Stream, client: Stream) {
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let (mut from_client, mut to_client) = tokio::io::split(server);
    let (mut from_server, mut to_server) = tokio::io::split(client);
    let echo = async {
        tokio::io::copy(&mut from_client, &mut to_client).await.unwrap();
        to_client.shutdown().await.unwrap();
    };
    let send = async {
        to_server.write_all(&sent).await.unwrap();
        to_server.flush().await.unwrap();
    };
    let receive = async {
        let mut received = vec![0; sent.len()];
        from_server.read_exact(&mut received).await.unwrap();
        assert!(received == sent);
    };
    tokio::select! {
        () = echo => panic!("the stream ended early"),
        _ = async { tokio::join!(send, receive) } => {}
    }
}

fn to(port: u16) -> ConnectorOptions {
    ConnectorOptions {
        host: "127.0.0.1".into(),
        port,
        tls: None,
        server_name: None,
        websocket: None,
        timeout: LONG,
    }
}

fn server(authority: &Authority, client_auth: Option<ClientAuth>) -> ServerTls {
    let (chain, key) = authority.issue("127.0.0.1", 99);
    let options = ServerTlsOptions {
        certificates: vec![Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()],
        client_auth,
        min_version: MinVersion::default(),
        cipher_suites: CipherSuites::default(),
        alpn: vec![ALPN_HTTP.into()],
    };
    ServerTls::new(options).unwrap()
}

fn trusted(authority: &Authority) -> Authorities {
    Authorities::from_pem(authority.pem().as_bytes()).unwrap()
}

fn websocket() -> WebSocketOptions {
    WebSocketOptions { path: "/mqtt".into(), origins: Vec::new(), max_message_bytes: 64 * 1024 }
}

fn target() -> WebSocketTarget {
    WebSocketTarget { path: "/mqtt".into(), max_message_bytes: 64 * 1024 }
}
