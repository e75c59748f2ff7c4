use std::future::ready;
use std::io::ErrorKind;

use futures_util::{FutureExt, SinkExt, StreamExt};
use mgate_proxy::transport::{
    AcceptError, Accepted, AcceptorOptions, Stream, WebSocketError, WebSocketOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Message, handshake::client::Response};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::{plain, shake_hands};

#[tokio::test]
async fn sub_protocol_that_carries_mqtt_is_chosen() {
    for (offered, chosen) in [("mqtt", "mqtt"), ("x, mqttv3.1, mqtt", "mqttv3.1")] {
        let (accepted, response) = ask(options(), &request(&[("Sec-WebSocket-Protocol", offered)])).await;
        assert!(accepted.is_ok());
        assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
        assert!(response.contains(&format!("sec-websocket-protocol: {chosen}\r\n")), "{response}");
    }
}

#[tokio::test]
async fn client_without_sub_protocol_is_refused() {
    assert_refused(&request(&[]), 400).await;
    assert_refused(&request(&[("Sec-WebSocket-Protocol", "chat")]), 400).await;
}

#[tokio::test]
async fn wrong_path_is_not_found() {
    assert_refused(&request(&[MQTT]).replace("/mqtt", "/"), 404).await;
    assert_refused(&request(&[MQTT]).replace("/mqtt", "/mqtt/"), 404).await;
}

#[tokio::test]
async fn query_does_not_change_the_path() {
    let (accepted, _) = ask(options(), &request(&[MQTT]).replace("/mqtt", "/mqtt?x=1")).await;
    assert!(accepted.is_ok());
}

#[tokio::test]
async fn what_the_request_shows_goes_along() {
    let headers = [MQTT, ("Authorization", "Bearer abc"), ("Cookie", "session=def")];
    let (accepted, _) = ask(options(), &request(&headers).replace("/mqtt", "/mqtt?access_token=ghi")).await;
    let upgrade = accepted.unwrap().upgrade.unwrap();
    let shown = (upgrade.bearer(), upgrade.cookie("session"), upgrade.query("access_token"));
    assert_eq!(shown, (Some("abc"), Some("def"), Some("ghi")));
    let (accepted, _) = ask(options(), &request(&[MQTT])).await;
    assert!(accepted.unwrap().upgrade.is_none());
}

#[tokio::test]
async fn two_authorizations_are_refused() {
    let twice = [MQTT, ("Authorization", "Bearer abc"), ("Authorization", "Bearer abc")];
    assert_refused(&request(&twice), 400).await;
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    assert_refused(&request(&[MQTT, ("Origin", "https://evil.example")]), 403).await;
    assert_refused(&request(&[MQTT, ("Origin", "null")]), 403).await;
}

#[tokio::test]
async fn pages_of_the_same_host_connect() {
    for origin in ["http://gate", "https://GATE"] {
        let (accepted, _) = ask(options(), &request(&[MQTT, ("Origin", origin)])).await;
        assert!(accepted.is_ok(), "{origin}");
    }
    for origin in ["https://gate.evil.example", "https://gate:8080", "gate"] {
        assert_refused(&request(&[MQTT, ("Origin", origin)]), 403).await;
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_connect() {
    for allowed in ["https://app.example", "*"] {
        let options = WebSocketOptions { origins: vec![allowed.into()], ..options() };
        let (accepted, _) = ask(options, &request(&[MQTT, ("Origin", "https://App.example")])).await;
        assert!(accepted.is_ok(), "{allowed}");
    }
}

#[tokio::test]
async fn upgrade_may_be_one_of_several_connection_tokens() {
    let asked = request(&[MQTT]).replace("Connection: Upgrade", "Connection: keep-alive, Upgrade");
    let (accepted, _) = ask(options(), &asked).await;
    assert!(accepted.is_ok());
}

#[tokio::test]
async fn what_asks_for_no_websocket_is_told_so() {
    assert_refused(&request(&[MQTT]).replace("GET", "POST"), 405).await;
    assert_refused("GET /mqtt HTTP/1.1\r\nHost: gate\r\n\r\n", 426).await;
    assert_refused(&request(&[MQTT]).replace("Version: 13", "Version: 8"), 426).await;
    assert_refused(&request(&[MQTT]).replace("HTTP/1.1", "HTTP/1.0"), 505).await;
    assert_refused("\u{10}\u{c}\0\u{4}MQTT", 400).await;
    assert_refused("GET\r\n\r\n", 400).await;
}

#[tokio::test]
async fn endless_header_is_cut_off() {
    assert_refused(&format!("GET /mqtt HTTP/1.1\r\nX: {}", "x".repeat(8 * 1024)), 431).await;
}

#[tokio::test]
async fn bytes_right_behind_the_request_are_not_lost() {
    let mut asked = request(&[MQTT]).into_bytes();
    // A masked binary frame of two bytes; the mask is zero.
    asked.extend([0x82, 0x82, 0, 0, 0, 0, b'h', b'i']);
    let (accepted, _tcp) = shake_hands(with(options()), async |mut tcp: TcpStream| {
        tcp.write_all(&asked).await.unwrap();
        tcp
    })
    .await;
    assert_eq!(read(&mut accepted.unwrap().stream, 2).await, b"hi");
}

#[tokio::test]
async fn message_borders_mean_nothing() {
    let (mut stream, mut client) = connected(options()).await;
    let fragment = |bytes: &'static [u8], code, is_last| Message::Frame(Frame::message(bytes, code, is_last));
    client.send(fragment(b"ab", OpCode::Data(Data::Binary), false)).await.unwrap();
    client.send(Message::Ping("alive?".into())).await.unwrap();
    client.send(fragment(b"cd", OpCode::Data(Data::Continue), true)).await.unwrap();
    client.send(Message::Binary("".into())).await.unwrap();
    client.send(Message::Binary("efgh".into())).await.unwrap();
    assert_eq!(read(&mut stream, 3).await, b"abc");
    assert_eq!(read(&mut stream, 5).await, b"defgh");
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Pong("alive?".into()));
}

#[tokio::test]
async fn each_write_is_one_binary_message() {
    let (mut stream, mut client) = connected(options()).await;
    stream.write_all(b"one").await.unwrap();
    let slices = [std::io::IoSlice::new(b"tw"), std::io::IoSlice::new(b"o")];
    assert_eq!(stream.write_vectored(&slices).await.unwrap(), 3);
    stream.flush().await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary("one".into()));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary("two".into()));
}

#[tokio::test]
async fn flush_hands_over_what_the_socket_did_not_take() {
    let (mut stream, client) = connected(options()).await;
    let mut written = 0;
    let chunk = [7; 1000];
    while let Some(taken) = stream.write(&chunk).now_or_never() {
        written += taken.unwrap();
    }
    let receive = client
        .take_while(|message| ready(message.is_ok()))
        .fold(0, |received, message| ready(received + message.unwrap().len()));
    let flush_and_leave = async move { stream.flush().await.unwrap() };
    let ((), received) = tokio::join!(flush_and_leave, receive);
    assert_eq!(received, written);
}

#[tokio::test]
async fn text_closes() {
    let (mut stream, mut client) = connected(options()).await;
    client.send(Message::Text("mqtt?".into())).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(close_code(&mut client).await, CloseCode::Unsupported);
}

#[tokio::test]
async fn large_messages_close() {
    let options = WebSocketOptions { max_message_bytes: 8, ..options() };
    let (mut stream, mut client) = connected(options).await;
    client.send(Message::Binary("12345678".into())).await.unwrap();
    client.send(Message::Binary("123456789".into())).await.unwrap();
    assert_eq!(read(&mut stream, 8).await, b"12345678");
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(close_code(&mut client).await, CloseCode::Size);
}

#[tokio::test]
async fn fragments_do_not_get_around_the_largest_message() {
    let options = WebSocketOptions { max_message_bytes: 8, ..options() };
    let (mut stream, mut client) = connected(options).await;
    for code in [Data::Binary, Data::Continue, Data::Continue] {
        client.send(Message::Frame(Frame::message("1234", OpCode::Data(code), false))).await.unwrap();
    }
    assert_eq!(stream.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn shutdown_says_good_bye() {
    let (mut stream, mut client) = connected(options()).await;
    stream.shutdown().await.unwrap();
    assert!(matches!(client.next().await.unwrap().unwrap(), Message::Close(_)));
}

#[tokio::test]
async fn good_bye_of_the_client_ends_the_stream() {
    let (mut stream, mut client) = connected(options()).await;
    client.close(None).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(matches!(client.next().await.unwrap().unwrap(), Message::Close(_)));
}

#[tokio::test]
async fn client_that_vanishes_is_an_unexpected_end() {
    let (mut stream, client) = connected(options()).await;
    drop(client);
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

fn options() -> WebSocketOptions {
    WebSocketOptions { path: "/mqtt".into(), origins: Vec::new(), max_message_bytes: 64 * 1024 }
}

fn with(options: WebSocketOptions) -> AcceptorOptions {
    AcceptorOptions { websocket: Some(options), ..plain() }
}

fn request(headers: &[(&str, &str)]) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: gate\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Sends `request` and reads the head of the response.
async fn ask(options: WebSocketOptions, request: &str) -> (Result<Accepted, AcceptError>, String) {
    shake_hands(with(options), async |mut tcp: TcpStream| {
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(tcp.read_u8().await.unwrap());
        }
        String::from_utf8(response).unwrap()
    })
    .await
}

async fn assert_refused(request: &str, status: u16) {
    let (accepted, response) = ask(options(), request).await;
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    let error = accepted.unwrap_err();
    assert!(
        matches!(error, AcceptError::WebSocket(WebSocketError::Refused(told, _)) if told == status),
        "{error}"
    );
}

async fn connected(options: WebSocketOptions) -> (Stream, WebSocketStream<TcpStream>) {
    let (accepted, client) = shake_hands(with(options), async |tcp| {
        let request = ClientRequestBuilder::new("ws://gate/mqtt".parse().unwrap()).with_sub_protocol("mqtt");
        let connected: (WebSocketStream<TcpStream>, Response) = client_async(request, tcp).await.unwrap();
        connected.0
    })
    .await;
    (accepted.unwrap().stream, client)
}

async fn read(stream: &mut Stream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn close_code(client: &mut WebSocketStream<TcpStream>) -> CloseCode {
    match client.next().await.unwrap().unwrap() {
        Message::Close(Some(frame)) => frame.code,
        other => panic!("{other:?} is no close"),
    }
}

const MQTT: (&str, &str) = ("Sec-WebSocket-Protocol", "mqtt");
