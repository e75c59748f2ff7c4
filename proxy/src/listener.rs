//! Accepts connections, as many as there may be, and never fails.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mgate_policies::Cidr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout_at};
use tracing::{debug, warn};

use crate::throttle::Throttle;

/// A listening TCP socket with the bounds of its route.
pub struct Listener {
    tcp: TcpListener,
    admission: Admission,
    refusals: Throttle,
    /// What the last one ran into.
    refused_for: Mutex<Bound>,
    errors: Throttle,
    /// For logs.
    route: Arc<str>,
    address: SocketAddr,
}

impl Listener {
    /// Listens at `address` for the routes that logs call `route`; a port of 0 takes a free one.
    pub fn bind(address: SocketAddr, route: &str, admission: Admission) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Otherwise a restart must wait until the last connections are forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let tcp = socket.listen(BACKLOG)?;
        let (address, route) = (tcp.local_addr()?, route.into());
        let (refusals, errors) = (Throttle::default(), Throttle::default());
        let refused_for = Mutex::new(Bound::Connections);
        Ok(Self { tcp, admission, refusals, refused_for, errors, route, address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a connection that may be. One too many is reset; errors are waited out. Both are logged, at
    /// most once an interval. Dropping the future loses no connection.
    pub async fn accept(&self) -> (TcpStream, SocketAddr, Permit) {
        let mut backoff = Backoff::default();
        loop {
            match self.next().await {
                Ok((tcp, peer)) => match self.admission.admit(peer.ip()) {
                    Ok(permit) => return (tcp, peer, permit),
                    Err(bound) => self.refuse(&tcp, peer, bound),
                },
                Err(error) => {
                    if let Some(pause) = backoff.after(error.kind()) {
                        self.complain(&error);
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    /// The next connection, admitted or not; meanwhile says what was refused, when it is time.
    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let due = self.refusals.due();
            let accepted = match due {
                Some(due) => timeout_at(due, self.tcp.accept()).await,
                None => Ok(self.tcp.accept().await),
            };
            match accepted {
                Ok(accepted) => return accepted.map(|(tcp, peer)| (tcp, canonical(peer))),
                Err(_) => self.report_refusals(self.refusals.take()),
            }
        }
    }

    fn refuse(&self, tcp: &TcpStream, peer: SocketAddr, bound: Bound) {
        debug!(%peer, %bound, "connection refused");
        *lock(&self.refused_for) = bound;
        // A reset leaves nothing behind; if it cannot be had, closing must do.
        let _ = tcp.set_zero_linger();
        self.report_refusals(self.refusals.count());
    }

    fn report_refusals(&self, count: Option<u64>) {
        if let Some(count) = count {
            let (route, address, bound) = (&self.route, self.address, *lock(&self.refused_for));
            let limit = self.admission.bounds().of(bound);
            warn!(%route, %address, limit, count, reason = %bound, "connections refused");
        }
    }

    fn complain(&self, error: &io::Error) {
        if let Some(count) = self.errors.count() {
            let (route, address) = (&self.route, self.address);
            warn!(%route, %address, count, %error, "cannot accept connections");
        }
    }
}

/// How many connections there may be, and how many there are; clones share both.
#[derive(Clone)]
pub struct Admission(Arc<Shared>);

/// How many connections there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// From everywhere.
    pub connections: usize,
    /// From one IPv4 address, or from one IPv6 network of 64 bits.
    pub connections_per_address: usize,
}

/// The right to one connection; given back when dropped.
pub struct Permit {
    shared: Arc<Shared>,
    charged: Option<IpAddr>,
}

/// The bound that a connection ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// All connections.
    Connections,
    /// Those from one address.
    ConnectionsPerAddress,
}

impl Admission {
    /// Counts up to `bounds`. Addresses in `trusted` are load balancers: they speak for many and have no bound
    /// of their own, their clients are charged by [`Permit::charge`].
    pub fn new(bounds: Bounds, trusted: Vec<Cidr>) -> Self {
        Self(Arc::new(Shared { trusted, counts: Mutex::new(Counts::new(bounds)) }))
    }

    /// Takes the right to a connection from `address`.
    pub fn admit(&self, address: IpAddr) -> Result<Permit, Bound> {
        let charged = self.0.chargeable(address);
        lock(&self.0.counts).admit(charged)?;
        Ok(Permit { shared: Arc::clone(&self.0), charged })
    }

    /// Whom a connection from `address` counts for; `None` for load balancers.
    pub(crate) fn charged(&self, address: IpAddr) -> Option<IpAddr> {
        self.0.chargeable(address)
    }

    /// Replaces the bounds; connections that exist stay.
    pub fn limit(&self, bounds: Bounds) {
        lock(&self.0.counts).bounds = bounds;
    }

    fn bounds(&self) -> Bounds {
        lock(&self.0.counts).bounds
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        lock(&self.0.counts).connections
    }
}

impl Bounds {
    fn of(self, bound: Bound) -> usize {
        match bound {
            Bound::Connections => self.connections,
            Bound::ConnectionsPerAddress => self.connections_per_address,
        }
    }
}

impl Permit {
    /// Charges the connection to `address`, the client's own, which a PROXY protocol header told.
    pub fn charge(&mut self, address: IpAddr) -> Result<(), Bound> {
        let charged = self.shared.chargeable(address);
        if charged != self.charged {
            let mut counts = lock(&self.shared.counts);
            counts.charge(charged)?;
            counts.discharge(self.charged);
            self.charged = charged;
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.shared.counts);
        counts.connections -= 1;
        counts.discharge(self.charged);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("charged", &self.charged).finish_non_exhaustive()
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "too many connections",
            Self::ConnectionsPerAddress => "too many connections from one address",
        })
    }
}

impl Error for Bound {}

struct Shared {
    trusted: Vec<Cidr>,
    counts: Mutex<Counts>,
}

impl Shared {
    /// What a connection from `address` counts against; `None` where nothing.
    fn chargeable(&self, address: IpAddr) -> Option<IpAddr> {
        if self.trusted.iter().any(|network| network.contains(address)) {
            return None;
        }
        Some(match address.to_canonical() {
            // A subscriber gets a network of 64 bits and picks addresses in it as it likes.
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            address => address,
        })
    }
}

struct Counts {
    bounds: Bounds,
    connections: usize,
    /// Only addresses with connections: it cannot outgrow them.
    by_address: HashMap<IpAddr, usize>,
}

impl Counts {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, connections: 0, by_address: HashMap::new() }
    }

    fn admit(&mut self, charged: Option<IpAddr>) -> Result<(), Bound> {
        if self.connections >= self.bounds.connections {
            return Err(Bound::Connections);
        }
        self.charge(charged)?;
        self.connections += 1;
        Ok(())
    }

    fn charge(&mut self, charged: Option<IpAddr>) -> Result<(), Bound> {
        let Some(address) = charged else { return Ok(()) };
        let count = self.by_address.get(&address).copied().unwrap_or(0);
        if count >= self.bounds.connections_per_address {
            return Err(Bound::ConnectionsPerAddress);
        }
        self.by_address.insert(address, count + 1);
        Ok(())
    }

    fn discharge(&mut self, charged: Option<IpAddr>) {
        let Some(address) = charged else { return };
        if let Entry::Occupied(mut count) = self.by_address.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// How long to leave a socket alone that gives errors.
#[derive(Default)]
struct Backoff {
    last: Duration,
}

impl Backoff {
    /// The pause after an error; `None` where only the connection was bad that would have been next.
    fn after(&mut self, error: io::ErrorKind) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error, ConnectionAborted | ConnectionReset | Interrupted) {
            return None;
        }
        self.last = (self.last * 2).clamp(MIN_PAUSE, MAX_PAUSE);
        Some(self.last)
    }
}

/// An IPv4 client of an IPv6 socket is an IPv4 client.
fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// What the locks here guard is whole after every statement: a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many clients may knock while we are busy: after a power cut, a fleet comes back at once.
const BACKLOG: u32 = 4096;

const MIN_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_and_dropping_one_makes_room() {
        let admission = admission(2, 9, &[]);
        let _first = admission.admit(ip("192.0.2.1")).unwrap();
        let second = admission.admit(ip("192.0.2.2")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.3")).unwrap_err(), Bound::Connections);
        drop(second);
        assert!(admission.admit(ip("192.0.2.3")).is_ok());
    }

    #[test]
    fn each_address_has_its_own_bound() {
        let admission = admission(9, 1, &[]);
        let first = admission.admit(ip("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1")).unwrap_err(), Bound::ConnectionsPerAddress);
        assert_eq!(admission.admit(ip("::ffff:192.0.2.1")).unwrap_err(), Bound::ConnectionsPerAddress);
        assert!(admission.admit(ip("192.0.2.2")).is_ok());
        drop(first);
        assert!(admission.admit(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn ipv6_network_of_64_bits_counts_as_one_address() {
        let admission = admission(9, 1, &[]);
        let _first = admission.admit(ip("2001:db8::1")).unwrap();
        assert!(admission.admit(ip("2001:db8::ffff:0:0:1")).is_err());
        assert!(admission.admit(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let admission = admission(9, 2, &[]);
        let permits: Vec<_> = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "2001:db8::1"]
            .iter()
            .map(|address| admission.admit(ip(address)).unwrap())
            .collect();
        assert_eq!(addresses(&admission), 3);
        assert!(admission.admit(ip("192.0.2.1")).is_err());
        drop(permits);
        assert_eq!((addresses(&admission), admission.connections()), (0, 0));
    }

    #[test]
    fn clients_of_a_load_balancer_are_charged_themselves() {
        let admission = admission(9, 1, &["10.0.0.0/8"]);
        let mut first = admission.admit(ip("10.0.0.1")).unwrap();
        let mut second = admission.admit(ip("10.0.0.1")).unwrap();
        assert_eq!(first.charge(ip("192.0.2.1")), Ok(()));
        assert_eq!(first.charge(ip("192.0.2.1")), Ok(()));
        assert_eq!(second.charge(ip("192.0.2.1")), Err(Bound::ConnectionsPerAddress));
        assert_eq!(second.charge(ip("192.0.2.2")), Ok(()));
        drop((first, second));
        assert_eq!((addresses(&admission), admission.connections()), (0, 0));
    }

    #[test]
    fn charge_moves_from_one_address_to_another() {
        let admission = admission(9, 1, &[]);
        let mut permit = admission.admit(ip("192.0.2.1")).unwrap();
        permit.charge(ip("192.0.2.2")).unwrap();
        assert!(admission.admit(ip("192.0.2.1")).is_ok());
        assert!(admission.admit(ip("192.0.2.2")).is_err());
    }

    #[test]
    fn new_bounds_hold_for_new_connections() {
        let admission = admission(2, 2, &[]);
        let _permits = [admission.admit(ip("192.0.2.1")).unwrap(), admission.admit(ip("192.0.2.1")).unwrap()];
        admission.limit(Bounds { connections: 3, connections_per_address: 2 });
        assert_eq!(admission.admit(ip("192.0.2.1")).unwrap_err(), Bound::ConnectionsPerAddress);
        assert!(admission.admit(ip("192.0.2.2")).is_ok());
        admission.limit(Bounds { connections: 1, connections_per_address: 1 });
        assert_eq!(admission.admit(ip("192.0.2.2")).unwrap_err(), Bound::Connections);
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..10).filter_map(|_| backoff.after(io::ErrorKind::Other)).collect();
        let millis: Vec<_> = pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }

    #[test]
    fn broken_connections_cost_no_pause() {
        assert_eq!(Backoff::default().after(io::ErrorKind::ConnectionAborted), None);
    }

    fn admission(connections: usize, connections_per_address: usize, trusted: &[&str]) -> Admission {
        let trusted = trusted.iter().map(|network| Cidr::parse(network).unwrap()).collect();
        Admission::new(Bounds { connections, connections_per_address }, trusted)
    }

    fn addresses(admission: &Admission) -> usize {
        lock(&admission.0.counts).by_address.len()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }
}
