//! `limits`: what the clients of a route may use at the most.

use std::time::Duration;

use mgate_proxy::gate::Limits;

use super::listener::Listener;
use super::section::Section;
use super::values::Scheme;

/// The limits, and how long a client may be silent until TCP asks whether it is there.
pub(super) fn read(
    mut section: Section<'_>,
    scheme: Option<Scheme>,
    shared: Option<&Listener>,
) -> (Limits, Option<Duration>) {
    let shared = shared.zip(scheme);
    let mut default =
        shared.map_or_else(Limits::default, |(listener, scheme)| listener.default_limits(scheme));
    if scheme.is_some_and(Scheme::is_dtls) {
        default.handshake_timeout = DTLS_HANDSHAKE;
    }
    let connections = count(&mut section, "connections", default.connections);
    let mut time = |key, default| section.duration(key, SHORTEST..=LONGEST).unwrap_or(default);
    let limits = Limits {
        connections,
        handshake_timeout: time("handshake_timeout", default.handshake_timeout),
        connect_timeout: time("connect_timeout", default.connect_timeout),
        upstream_timeout: time("upstream_timeout", default.upstream_timeout),
        stall_timeout: time("stall_timeout", default.stall_timeout),
        decision_timeout: time("decision_timeout", default.decision_timeout),
        store_timeout: time("store_timeout", default.store_timeout),
        connections_per_address: count(
            &mut section,
            "connections_per_address",
            default.connections_per_address,
        ),
        packet_bytes: section
            .bytes("packet_bytes", Limits::PACKET_BYTES)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(default.packet_bytes),
        messages_per_second: section
            .integer("messages_per_second", Limits::MESSAGES_PER_SECOND)
            .and_then(|messages| u32::try_from(messages).ok()),
        subscriptions: section
            .integer("subscriptions", Limits::SUBSCRIPTIONS)
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(default.subscriptions),
        idle_timeout: section.duration("idle_timeout", SECOND..=WEEK).or(default.idle_timeout),
    };
    let keepalive = section.duration("tcp_keepalive", SECOND..=LONGEST);
    let keepalive = keepalive.or(shared.and_then(|(listener, _)| listener.keepalive));
    if let Some((listener, scheme)) = shared {
        listener.check_limits(&section, scheme, &limits, keepalive);
    }
    section.finish();
    (limits, keepalive)
}

fn count(section: &mut Section<'_>, key: &'static str, default: usize) -> usize {
    let count = section.integer(key, 1..=10_000_000);
    count.and_then(|count| usize::try_from(count).ok()).unwrap_or(default)
}

/// Time for a handshake of DTLS, in which lost datagrams are sent again after seconds. RFC 6347 §4.2.4.1
const DTLS_HANDSHAKE: Duration = Duration::from_secs(30);

const SHORTEST: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
