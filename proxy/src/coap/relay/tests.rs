//! Turns of a relay that are taken by hand.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};

use mgate_policies::{Answer, Chain, Policy, Query, Scope, Transforms};

use super::*;
use crate::coap::{Options, Upstream};
use crate::gate::{Authenticators, Gate, Limits, Observer, PacketSeen, SessionEvent};
use crate::listener::Bounds;
use crate::transport::UdpListener;

#[tokio::test]
async fn change_that_is_known_already_is_told_to_nobody() {
    let (mut relay, signal, slow) = relay();
    relay.take_datagram(WAY, &GET);
    assert_eq!(slow.0.load(Ordering::Relaxed), 1);
    signal.send_modify(|signal| _ = signal.revoke(Scope::Everyone));
    relay.heed();
    relay.heed();
    assert_eq!(slow.0.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn upstream_that_says_much_has_one_turn_before_others_have_theirs() {
    let (mut relay, _signal, _) = relay();
    relay.take_datagram(WAY, &GET);
    let key = relay.table.keys()[0];
    let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = udp::connect("127.0.0.1", upstream.local_addr().unwrap().port()).await.unwrap();
    upstream.connect(socket.get_ref().local_addr().unwrap()).unwrap();
    relay.take_event(key, Event::Dialed(Ok(socket)));
    (0..3 * RESPONSES).for_each(|_| _ = upstream.send(b"x").unwrap());
    relay.readable.wait().await;
    relay.read_upstreams(&mut Batch::new());
    let socket = Arc::clone(relay.table.get(key).unwrap().upstream.as_ref().unwrap().socket());
    let left = std::iter::from_fn(|| socket.get_ref().recv(&mut [0; 10]).ok()).count();
    assert_eq!(left, 2 * RESPONSES);
}

/// A relay whose policy comes to no decision, and counts how often it is asked.
fn relay() -> (Relay, watch::Sender<Signal<Endpoint>>, Arc<Slow>) {
    let slow = Arc::new(Slow::default());
    let gate = Gate {
        route: "sensors".into(),
        authenticators: Authenticators::default(),
        transforms: Transforms::default(),
        policies: Chain::new(vec![slow.clone()]),
        mirror: None,
        observer: Arc::new(Deaf),
        limits: Limits::default(),
    };
    let upstream = Upstream { host: "127.0.0.1".to_owned(), port: 5683 };
    let endpoint = Endpoint::new(gate, Options::default(), Some(upstream));
    let (signal, watched) = watch::channel(Signal::new(endpoint));
    let bounds = Bounds { connections: 1, connections_per_address: 1 };
    let listeners = UdpListener::bind_several((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
    let shard = Shard::of(listeners).into_iter().next().unwrap();
    (Relay::new(shard, Admission::new(bounds, Vec::new()), watched).unwrap(), signal, slow)
}

#[derive(Default)]
struct Slow(AtomicUsize);

impl Policy for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn evaluate(&self, _query: &Query<'_>, _now: Now) -> Answer {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answer::Pending(Box::pin(std::future::pending()))
    }
}

struct Deaf;

impl Observer for Deaf {
    fn wants_packets(&self) -> bool {
        false
    }

    fn packet(&self, _packet: &PacketSeen<'_>) {}

    fn session(&self, _event: &SessionEvent<'_>) {}
}

/// A confirmable GET.
const GET: [u8; 6] = [0x40, 1, 0, 1, 0xb1, b'a'];
const WAY: Way = Way { peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_000), own: None };
