use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mgate_policies::Cidr;
use mgate_proxy::listener::{Admission, Bound, Bounds, Listener};
use mgate_proxy::transport::{
    AcceptError, Acceptor, AcceptorOptions, ProxyError, ProxyProtocol, ProxyVersion, WebSocketOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{plain, shake_hands};

#[tokio::test]
async fn load_balancer_says_whose_connection_it_is() {
    let (accepted, _tcp) = shake_hands(behind("127.0.0.0/8"), async |mut tcp: TcpStream| {
        tcp.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 1883\r\nMQTT").await.unwrap();
        tcp
    })
    .await;
    let mut accepted = accepted.unwrap();
    assert_eq!(accepted.peer, "203.0.113.7:40000".parse().unwrap());
    let mut next = [0; 4];
    accepted.stream.read_exact(&mut next).await.unwrap();
    assert_eq!(&next, b"MQTT");
}

#[tokio::test]
async fn load_balancer_may_connect_for_itself() {
    let (accepted, own) = shake_hands(behind("127.0.0.0/8"), async |mut tcp: TcpStream| {
        tcp.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00").await.unwrap();
        tcp.local_addr().unwrap()
    })
    .await;
    assert_eq!(accepted.unwrap().peer, own);
}

#[tokio::test]
async fn strangers_may_not_say_who_they_are() {
    let (accepted, _) = shake_hands(behind("10.0.0.0/8"), async |mut tcp: TcpStream| {
        tcp.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 1883\r\n").await
    })
    .await;
    assert!(matches!(accepted, Err(AcceptError::Untrusted)));
}

#[tokio::test]
async fn connection_without_header_is_refused() {
    let (accepted, _tcp) = shake_hands(behind("127.0.0.0/8"), async |mut tcp: TcpStream| {
        tcp.write_all(b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04dev1").await.unwrap();
        tcp
    })
    .await;
    assert!(matches!(accepted, Err(AcceptError::Proxy(ProxyError::Missing))));
}

#[tokio::test]
async fn half_a_header_runs_into_the_time_out() {
    let options = AcceptorOptions { timeout: SHORT, ..behind("127.0.0.0/8") };
    let (accepted, mut tcp) = shake_hands(options, async |mut tcp: TcpStream| {
        tcp.write_all(b"PROXY TCP4 203.").await.unwrap();
        tcp
    })
    .await;
    assert!(matches!(accepted, Err(AcceptError::TimedOut)));
    assert_eq!(tcp.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn silent_client_is_closed() {
    let websocket = WebSocketOptions { path: "/".into(), origins: Vec::new(), max_message_bytes: 1024 };
    let options = AcceptorOptions { websocket: Some(websocket), timeout: SHORT, ..plain() };
    let (accepted, mut tcp) = shake_hands(options, async |tcp: TcpStream| tcp).await;
    assert!(matches!(accepted, Err(AcceptError::TimedOut)));
    assert_eq!(tcp.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn silent_client_does_not_keep_others_from_connecting() {
    let (listener, address) = listener(10, 10);
    let _silent = TcpStream::connect(address).await.unwrap();
    let (first, first_peer, _permit) = listener.accept().await;
    let acceptor = Acceptor::new(behind("127.0.0.0/8"));
    let shake_hands = acceptor.accept(first, first_peer, |_| Ok(()));
    tokio::pin!(shake_hands);
    let second = TcpStream::connect(address).await.unwrap();
    tokio::select! {
        _ = &mut shake_hands => panic!("the silent client said something"),
        (_, peer, _permit) = listener.accept() => assert_eq!(peer, second.local_addr().unwrap()),
    }
}

#[tokio::test]
async fn client_behind_a_load_balancer_is_counted_before_its_handshakes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (tcp, peer) = listener.accept().await.unwrap();
    let websocket = WebSocketOptions { path: "/".into(), origins: Vec::new(), max_message_bytes: 1024 };
    let acceptor = Acceptor::new(AcceptorOptions { websocket: Some(websocket), ..behind("127.0.0.0/8") });
    client.write_all(b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 8883\r\n").await.unwrap();
    let full = |address: IpAddr| {
        assert_eq!(address.to_string(), "203.0.113.7");
        Err(Bound::ConnectionsPerAddress)
    };
    let error = acceptor.accept(tcp, peer, full).await.unwrap_err();
    assert_eq!(error.to_string(), "too many connections from one address: 203.0.113.7");
}

#[tokio::test]
async fn connection_over_the_bound_is_reset_and_others_follow() {
    let (listener, address) = listener(10, 1);
    let _first = TcpStream::connect(address).await.unwrap();
    let (_, _, permit) = listener.accept().await;
    let mut second = TcpStream::connect(address).await.unwrap();
    let mut byte = [0; 1];
    tokio::select! {
        _ = listener.accept() => panic!("one too many was accepted"),
        read = second.read(&mut byte) => assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset),
    }
    drop(permit);
    let third = TcpStream::connect(address).await.unwrap();
    let (_, peer, _permit) = listener.accept().await;
    assert_eq!(peer, third.local_addr().unwrap());
}

#[tokio::test]
async fn ipv4_client_of_an_ipv6_listener_is_an_ipv4_client() {
    let admission = Admission::new(Bounds { connections: 1, connections_per_address: 1 }, Vec::new());
    let listener = Listener::bind("[::]:0".parse().unwrap(), "devices", admission).unwrap();
    let port = listener.local_addr().port();
    let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (_, peer, _permit) = listener.accept().await;
    assert_eq!(peer, client.local_addr().unwrap());
}

fn behind(trusted: &str) -> AcceptorOptions {
    let trusted = vec![Cidr::parse(trusted).unwrap()];
    let proxy_protocol = Some(ProxyProtocol { trusted, version: ProxyVersion::Any });
    AcceptorOptions { proxy_protocol, ..plain() }
}

fn listener(connections: usize, connections_per_address: usize) -> (Listener, SocketAddr) {
    let admission = Admission::new(Bounds { connections, connections_per_address }, Vec::new());
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "devices", admission).unwrap();
    let address = listener.local_addr();
    (listener, address)
}

/// Runs out in every test that waits for it.
const SHORT: Duration = Duration::from_millis(20);
