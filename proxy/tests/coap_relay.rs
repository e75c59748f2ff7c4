//! The relay of CoAP with real sockets.

#![expect(clippy::unwrap_used, reason = "a test that has no sockets must fail")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mgate_policies::{Answer, Cause, Chain, Decision, Grant, Now, Policy, Query, Reason, Transforms};
use mgate_proxy::coap::codec::decode;
use mgate_proxy::coap::relay::Relay;
use mgate_proxy::coap::relay::shard::Shard;
use mgate_proxy::coap::{Endpoint, Options, Upstream};
use mgate_proxy::gate::{Authenticators, Gate, Limits, Observer, PacketSeen, SessionEvent, Trouble};
use mgate_proxy::listener::{Admission, Bounds};
use mgate_proxy::signal::Signal;
use mgate_proxy::transport::UdpListener;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

#[tokio::test]
async fn answer_comes_from_the_address_that_was_asked() {
    let route = Route::at("0.0.0.0:0").await;
    for host in ["127.0.0.1", "127.0.0.2"] {
        let client = route.client(host).await;
        client.send(&get(1, "a")).await.unwrap();
        let request = route.upstream_answers().await;
        assert_eq!(request, get(1, "a"));
        assert_eq!(heard(&client).await, "ACK 2.05 id 1 token 0x 2 bytes");
    }
}

#[tokio::test]
async fn slow_decision_of_one_delays_no_other() {
    let route = Route::at("127.0.0.1:0").await;
    let (slow, quick) = (route.client("127.0.0.1").await, route.client("127.0.0.1").await);
    slow.send(&get(1, "slow")).await.unwrap();
    quick.send(&get(2, "a")).await.unwrap();
    assert_eq!(route.upstream_answers().await, get(2, "a"));
    assert!(heard(&quick).await.starts_with("ACK 2.05 id 2"));
    assert_eq!(heard(&slow).await, "ACK 5.03 id 1 token 0x 0 bytes");
}

#[tokio::test]
async fn policy_that_panics_ends_no_other_session() {
    let route = Route::at("127.0.0.1:0").await;
    let (unlucky, other) = (route.client("127.0.0.1").await, route.client("127.0.0.1").await);
    unlucky.send(&get(1, "panic")).await.unwrap();
    unlucky.send(&get(2, "panic-later")).await.unwrap();
    assert_eq!(heard(&unlucky).await, "ACK 5.03 id 2 token 0x 0 bytes");
    other.send(&get(3, "a")).await.unwrap();
    assert_eq!(route.upstream_answers().await, get(3, "a"));
}

#[tokio::test]
async fn upstream_that_is_not_there_is_not_waited_for() {
    let mut route = Route::at("127.0.0.1:0").await;
    let gone = route.upstream.local_addr().unwrap();
    route.upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = route.client("127.0.0.1").await;
    client.send(&get(1, "a")).await.unwrap();
    assert_eq!(heard(&client).await, "ACK 5.03 id 1 token 0x 0 bytes");
    assert_eq!(timeout(PATIENCE, route.events.recv()).await.unwrap(), Some("opened".to_owned()));
    let told = timeout(PATIENCE, route.events.recv()).await.unwrap().unwrap();
    assert!(told.starts_with(&format!("gone: {gone}: Connection refused")), "{told}");
}

#[tokio::test]
async fn upstream_that_says_nothing_is_dialed_again() {
    let route =
        Route::with("127.0.0.1:0", |limits| limits.upstream_timeout = Duration::from_millis(300)).await;
    let client = route.client("127.0.0.1").await;
    let mut buffer = [0; 100];
    let mut held = Vec::new();
    for id in [1, 2] {
        client.send(&get(id, "a")).await.unwrap();
        let received = timeout(PATIENCE, route.upstream.recv_from(&mut buffer)).await;
        let (_, source) = received.unwrap().unwrap();
        assert!(heard(&client).await.starts_with(&format!("ACK 5.04 id {id} ")));
        held.push(timeout(PATIENCE, bound(source)).await.expect("the socket is closed"));
    }
}

/// A socket at an address, once that is free; whoever opens another one gets another port.
async fn bound(address: SocketAddr) -> UdpSocket {
    loop {
        match UdpSocket::bind(address).await {
            Ok(socket) => return socket,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn route_that_leads_elsewhere_takes_its_peers_along() {
    let mut route = Route::at("127.0.0.1:0").await;
    let client = route.client("127.0.0.1").await;
    client.send(&get(1, "a")).await.unwrap();
    route.upstream_answers().await;
    heard(&client).await;
    client.send(&get(2, "a")).await.unwrap();
    let mut buffer = [0; 100];
    timeout(PATIENCE, route.upstream.recv_from(&mut buffer)).await.unwrap().unwrap();
    let (upstream, endpoint) = Route::endpoint(Limits::default(), mpsc::channel(1).0).await;
    route.upstream = upstream;
    route.signal.send_modify(|signal| _ = signal.renew(endpoint));
    assert!(heard(&client).await.starts_with("ACK 5.03 id 2 "));
    client.send(&get(3, "a")).await.unwrap();
    assert_eq!(route.upstream_answers().await, get(3, "a"));
    assert!(heard(&client).await.starts_with("ACK 2.05 id 3 "));
}

#[tokio::test]
async fn what_waits_while_the_route_moves_goes_where_it_leads_then() {
    let patient = |limits: &mut Limits| limits.decision_timeout = PATIENCE;
    let mut route = Route::with("127.0.0.1:0", patient).await;
    let client = route.client("127.0.0.1").await;
    client.send(&get(1, "a")).await.unwrap();
    route.upstream_answers().await;
    heard(&client).await;
    client.send(&get(2, "slow")).await.unwrap();
    client.send(&PING).await.unwrap();
    assert!(heard(&client).await.starts_with("RST 0.00 id 9 "), "by now the request waits");
    let (upstream, mut endpoint) = Route::endpoint(Limits::default(), mpsc::channel(1).0).await;
    endpoint.gate.policies = Chain::new(vec![Arc::new(Anything)]);
    route.upstream = upstream;
    route.signal.send_modify(|signal| _ = signal.renew(endpoint));
    assert_eq!(route.upstream_answers().await, get(2, "slow"));
    assert!(heard(&client).await.starts_with("ACK 2.05 id 2 "));
}

#[tokio::test]
async fn peers_that_are_made_up_lock_nobody_out() {
    let mut route = Route::at("127.0.0.1:0").await;
    for number in 1..=2 * PEERS as u32 {
        let [_, a, b, c] = (0x7f20_0000 + number).to_be_bytes();
        let guest = UdpSocket::bind((std::net::Ipv4Addr::new(127, a, b, c), 0)).await.unwrap();
        guest.send_to(&get(1, "a"), route.address).await.unwrap();
        route.upstream_answers().await;
    }
    assert_eq!(route.admission.connections(), PEERS);
    let events: Vec<_> = std::iter::from_fn(|| route.events.try_recv().ok()).collect();
    let count = |event| events.iter().filter(|told| **told == event).count();
    assert_eq!((count("opened"), count("closed: others needed its place")), (2 * PEERS, PEERS));
}

#[tokio::test]
async fn strangers_take_no_more_than_there_is_and_clients_stay() {
    let route = Route::at("127.0.0.1:0").await;
    let client = route.client("127.0.0.1").await;
    client.send(&get(1, "a")).await.unwrap();
    route.upstream_answers().await;
    heard(&client).await;
    for number in 1..=2_000u32 {
        let [_, a, b, c] = (0x7f10_0000 + number).to_be_bytes();
        let stranger = UdpSocket::bind((std::net::Ipv4Addr::new(127, a, b, c), 0)).await.unwrap();
        stranger.send_to(&get(1, "secret"), route.address).await.unwrap();
        let mut buffer = [0; 100];
        // one after the other, so that none is lost on the way
        let count = timeout(PATIENCE, stranger.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(decode(&buffer[..count]).unwrap().code.to_string(), "4.03");
    }
    assert_eq!(route.admission.connections(), PEERS);
    client.send(&get(2, "a")).await.unwrap();
    assert_eq!(route.upstream_answers().await, get(2, "a"));
}

#[tokio::test]
async fn session_that_panics_is_told_of_and_says_goodbye() {
    let mut route = Route::at("127.0.0.1:0").await;
    let client = route.client("127.0.0.1").await;
    client.send(&get(1, "a")).await.unwrap();
    let mut buffer = [0; 100];
    timeout(PATIENCE, route.upstream.recv_from(&mut buffer)).await.unwrap().unwrap();
    let mut panic = get(2, "panic");
    // with a token of its own
    panic[0] = 0x41;
    panic.insert(4, b't');
    client.send(&panic).await.unwrap();
    assert_eq!(heard(&client).await, "ACK 5.03 id 1 token 0x 0 bytes");
    for event in ["opened", "closed: the session failed"] {
        assert_eq!(timeout(PATIENCE, route.events.recv()).await.unwrap().unwrap(), event);
    }
}

#[tokio::test]
async fn garbage_and_answers_make_no_peer() {
    let route = Route::at("127.0.0.1:0").await;
    let client = route.client("127.0.0.1").await;
    for datagram in [&b"garbage"[..], &[0x60, 0, 0, 1], &[0x70, 0, 0, 1], &[0x60, 0x45, 0, 1], &[]] {
        client.send(datagram).await.unwrap();
    }
    client.send(&[0x40, 0, 0, 7]).await.unwrap();
    assert_eq!(heard(&client).await, "RST 0.00 id 7 token 0x 0 bytes");
    assert_eq!(route.admission.connections(), 0);
}

#[tokio::test]
async fn each_peer_of_one_shard_takes_the_place_of_one_of_another() {
    let mut route = Route::sharded(16, "127.0.0.1:0", stay).await;
    route.admission.limit(Bounds { connections: PEERS, connections_per_address: 8 });
    // kept, so that no port is that of two
    let mut clients = Vec::new();
    for id in 0..200 {
        let client = route.client("127.0.0.1").await;
        client.send(&unconfirmed(id, "a")).await.unwrap();
        assert_eq!(route.upstream_answers().await, unconfirmed(id, "a"));
        heard(&client).await;
        clients.push(client);
    }
    assert_eq!(route.admission.connections(), 8);
    let events: Vec<_> = std::iter::from_fn(|| route.events.try_recv().ok()).collect();
    let count = |event| events.iter().filter(|told| **told == event).count();
    assert_eq!((count("opened"), count("closed: others needed its place")), (200, 192));
}

#[tokio::test]
async fn peers_of_many_shards_that_come_at_once_are_all_served() {
    let route = Route::sharded(16, "127.0.0.1:0", stay).await;
    route.admission.limit(Bounds { connections: PEERS, connections_per_address: 8 });
    let mut clients = Vec::new();
    for id in 0..200 {
        let client = route.client("127.0.0.1").await;
        client.send(&unconfirmed(id, "secret")).await.unwrap();
        clients.push(client);
    }
    for client in &clients {
        let heard = heard(client).await;
        assert!(heard.starts_with("NON 4.03 "), "{heard}");
    }
    assert_eq!(route.admission.connections(), 8);
}

#[tokio::test]
async fn relay_ends_when_it_is_told_to() {
    let route = Route::at("127.0.0.1:0").await;
    let client = route.client("127.0.0.1").await;
    client.send(&get(1, "a")).await.unwrap();
    let mut buffer = [0; 100];
    let (count, _) = timeout(PATIENCE, route.upstream.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(buffer[..count], get(1, "a"));
    route.signal.send_modify(Signal::stop);
    assert_eq!(heard(&client).await, "ACK 5.03 id 1 token 0x 0 bytes");
    timeout(PATIENCE, route.relays.join_all()).await.unwrap();
    assert_eq!(route.admission.connections(), 0);
}

/// Relays that run, and the upstream behind them.
struct Route {
    address: SocketAddr,
    upstream: UdpSocket,
    admission: Admission,
    signal: watch::Sender<Signal<Endpoint>>,
    events: mpsc::Receiver<String>,
    relays: JoinSet<()>,
}

impl Route {
    async fn at(listen: &str) -> Self {
        Self::with(listen, |_| {}).await
    }

    /// One in which `change` had the last word on the limits.
    async fn with(listen: &str, change: impl FnOnce(&mut Limits)) -> Self {
        Self::sharded(SHARDS, listen, change).await
    }

    async fn sharded(shards: usize, listen: &str, change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits { decision_timeout: Duration::from_millis(200), ..Limits::default() };
        change(&mut limits);
        let (told, events) = mpsc::channel(100 * PEERS);
        let (upstream, endpoint) = Self::endpoint(limits, told).await;
        let (signal, watched) = watch::channel(Signal::new(endpoint));
        let bounds = Bounds { connections: PEERS, connections_per_address: PEERS };
        let admission = Admission::new(bounds, Vec::new());
        let listeners = UdpListener::bind_several(listen.parse().unwrap(), shards).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let relay = |shard| Relay::new(shard, admission.clone(), watched.clone()).unwrap().run();
        let relays = Shard::of(listeners).into_iter().map(relay).collect();
        Self { address, upstream, admission, signal, events, relays }
    }

    /// An upstream, and an endpoint that leads to it.
    async fn endpoint(limits: Limits, told: mpsc::Sender<String>) -> (UdpSocket, Endpoint) {
        let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = upstream.local_addr().unwrap().port();
        let gate = Gate {
            route: "sensors".into(),
            authenticators: Authenticators::default(),
            transforms: Transforms::default(),
            policies: Chain::new(vec![Arc::new(Names)]),
            mirror: None,
            observer: Arc::new(Told(told)),
            limits,
        };
        let address = Upstream { host: "127.0.0.1".to_owned(), port };
        (upstream, Endpoint::new(gate, Options::default(), Some(address)))
    }

    async fn client(&self, host: &str) -> UdpSocket {
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect((host, self.address.port())).await.unwrap();
        client
    }

    /// Answers the next request with 2.05; returns what it was.
    async fn upstream_answers(&self) -> Vec<u8> {
        let mut buffer = [0; 2000];
        let received = timeout(PATIENCE, self.upstream.recv_from(&mut buffer)).await;
        let (count, from) = received.unwrap().unwrap();
        let answer = [0x60, 0x45, buffer[2], buffer[3], 0xff, b'o', b'k'];
        self.upstream.send_to(&answer, from).await.unwrap();
        buffer[..count].to_vec()
    }
}

/// Denies secrets, panics if asked to, and never comes to a decision on what is slow.
struct Names;

impl Policy for Names {
    fn name(&self) -> &str {
        "names"
    }

    fn evaluate(&self, query: &Query<'_>, _now: Now) -> Answer {
        match query.resource.to_string().as_str() {
            "GET /secret" => Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized))),
            "GET /panic" => panic!("as the test wants"),
            "GET /panic-later" => Answer::Pending(Box::pin(async { panic!("as the test wants") })),
            "GET /slow" => Answer::Pending(Box::pin(std::future::pending())),
            _ => Answer::Ready(Decision::Allow(Grant::default())),
        }
    }
}

/// Allows all there is.
struct Anything;

impl Policy for Anything {
    fn name(&self) -> &str {
        "anything"
    }

    fn evaluate(&self, _query: &Query<'_>, _now: Now) -> Answer {
        Answer::Ready(Decision::Allow(Grant::default()))
    }
}

/// Passes on what it is told of sessions.
struct Told(mpsc::Sender<String>);

impl Observer for Told {
    fn wants_packets(&self) -> bool {
        false
    }

    fn packet(&self, _packet: &PacketSeen<'_>) {}

    fn session(&self, event: &SessionEvent<'_>) {
        let told = match event {
            SessionEvent::Opened(_) => "opened".to_owned(),
            SessionEvent::Closed { why, .. } => format!("closed: {why}"),
            _ => return,
        };
        // some tests do not listen
        let _ = self.0.try_send(told);
    }

    fn trouble(&self, trouble: &Trouble<'_>) {
        if let Trouble::UpstreamGone { address, why } = trouble {
            let _ = self.0.try_send(format!("gone: {address}: {why}"));
        }
    }
}

async fn heard(client: &UdpSocket) -> String {
    let mut buffer = [0; 2000];
    let count = timeout(PATIENCE, client.recv(&mut buffer)).await.unwrap().unwrap();
    decode(&buffer[..count]).unwrap().to_string()
}

/// A confirmable GET with one segment of a path.
fn get(id: u16, segment: &str) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    [&[0x40, 1, high, low, 0xb0 | segment.len() as u8], segment.as_bytes()].concat()
}

/// One that need not be confirmed.
fn unconfirmed(id: u16, segment: &str) -> Vec<u8> {
    let mut request = get(id, segment);
    request[0] = 0x50;
    request
}

/// Nobody leaves of its own accord.
fn stay(limits: &mut Limits) {
    limits.connect_timeout = Duration::from_secs(3600);
}

/// RFC 7252 §4.3
const PING: [u8; 4] = [0x40, 0, 0, 9];
const PEERS: usize = 50;
const SHARDS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(20);
