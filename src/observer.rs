//! Writes what happens in sessions to the log.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mgate_policies::{Action, Client, Now, Objection};
use mgate_proxy::gate::{Blame, Fate, Observer, PacketSeen, SessionEvent, Side, Trouble};
use mgate_proxy::throttle::Throttle;
use tracing::{Level, debug, enabled, info, warn};

/// An observer that writes log lines: sessions at `info`, packets at `debug` under the target
/// `mgate::packet`.
pub(crate) struct LogObserver {
    route: Box<str>,
    denials: Mutex<Flood>,
    /// By transforms.
    drops: Mutex<Flood>,
    /// Of upstreams.
    failures: Mutex<Flood>,
    /// Of policies that are not enforced; they must not crowd out the others.
    objections: Mutex<Flood>,
    strangers: Strangers,
    not_stored: Throttle,
    slowed: Throttle,
    upstream_gone: Throttle,
}

/// Connections of a route that end before anybody knows whose they are: anybody can make them, as often as they like.
pub(crate) struct Strangers {
    route: Box<str>,
    refused: Throttle,
}

impl Strangers {
    pub(crate) fn new(route: &str) -> Self {
        Self { route: route.into(), refused: Throttle::default() }
    }

    /// One was refused; told with the number of those before that were not.
    pub(crate) fn refused(&self, peer: SocketAddr, reason: &dyn fmt::Display) {
        let route = &self.route;
        match self.refused.count() {
            Some(count) => warn!(%route, count, %peer, %reason, "no connection came about"),
            None => debug!(%route, %peer, %reason, "no connection came about"),
        }
    }

    /// One went away without a word, as those do who only look whether somebody listens.
    pub(crate) fn left(&self, peer: SocketAddr, reason: &dyn fmt::Display) {
        debug!(route = %self.route, %peer, %reason, "connection closed");
    }
}

/// Lines that may come faster than anybody reads.
struct Flood {
    since: Instant,
    lines: u32,
}

impl LogObserver {
    pub(crate) fn new(route: &str) -> Self {
        let flood = || Mutex::new(Flood { since: Now::read().instant, lines: 0 });
        Self {
            route: route.into(),
            denials: flood(),
            drops: flood(),
            failures: flood(),
            objections: flood(),
            strangers: Strangers::new(route),
            not_stored: Throttle::default(),
            slowed: Throttle::default(),
            upstream_gone: Throttle::default(),
        }
    }

    fn dropped(&self, who: &Who<'_>, action: Action, resource: &str, reason: &str) {
        let (allowed, left_out) = admit(&self.drops);
        if left_out > 0 {
            warn!(route = %self.route, drops = left_out, "more was dropped than is logged");
        }
        if allowed {
            let Who { client, principal, peer } = who;
            let route = &self.route;
            info!(%route, client, principal, %peer, %action, resource, reason, "dropped");
        }
    }

    fn denied(&self, who: &Who<'_>, action: Action, resource: &str, reason: &str) {
        let (allowed, left_out) = admit(&self.denials);
        if left_out > 0 {
            warn!(route = %self.route, denials = left_out, "more was denied than is logged");
        }
        if allowed {
            let Who { client, principal, peer } = who;
            let route = &self.route;
            info!(%route, client, principal, %peer, %action, resource, reason, "denied");
        }
    }

    fn failed(&self, who: &Who<'_>, action: Action, resource: &str, why: &str) {
        let (allowed, left_out) = admit(&self.failures);
        if left_out > 0 {
            warn!(route = %self.route, failures = left_out, "more failed than is logged");
        }
        if allowed {
            let Who { client, principal, peer } = who;
            let route = &self.route;
            warn!(%route, client, principal, %peer, %action, resource, why, "no answer of the upstream");
        }
    }

    fn would_be_denied(&self, who: &Who<'_>, action: Action, resource: &str, objection: &Objection) {
        let (allowed, left_out) = admit(&self.objections);
        if left_out > 0 {
            warn!(route = %self.route, denials = left_out, "more would be denied than is logged");
        }
        if allowed {
            let Who { client, principal, peer } = who;
            let (route, Objection { policy, reason }) = (&self.route, objection);
            info!(%route, client, principal, %peer, %action, resource, policy, %reason, "would be denied");
        }
    }

    fn closed(&self, who: &Who<'_>, why: &str, blame: Blame) {
        let Who { client, principal, peer } = who;
        let route = &self.route;
        match blame {
            Blame::Us | Blame::Upstream => warn!(%route, client, principal, %peer, why, "session closed"),
            Blame::Client if client.is_none() => self.strangers.refused(*peer, &why),
            Blame::Client | Blame::Nobody => info!(%route, client, principal, %peer, why, "session closed"),
        }
    }
}

impl Observer for LogObserver {
    fn wants_packets(&self) -> bool {
        enabled!(target: PACKETS, Level::DEBUG)
    }

    fn packet(&self, seen: &PacketSeen<'_>) {
        let client = seen.client.map(|client| client.client_id.as_ref());
        let (route, peer, packet) = (&self.route, seen.peer, seen.packet);
        let from = match seen.from {
            Side::Client => "client",
            Side::Upstream => "upstream",
        };
        match seen.fate {
            Fate::Denied(reason) => {
                debug!(target: PACKETS, %route, client, %peer, from, %packet, %reason, "denied");
            }
            Fate::Held => debug!(target: PACKETS, %route, client, %peer, from, %packet, "held"),
            Fate::Passed(by) => debug!(target: PACKETS, %route, client, %peer, from, %packet, by, "passed"),
            Fate::Taken => debug!(target: PACKETS, %route, client, %peer, from, %packet, "taken"),
        }
    }

    fn session(&self, event: &SessionEvent<'_>) {
        match *event {
            SessionEvent::Opened(client) => {
                let Who { client, principal, peer } = Who::new(Some(client), client.peer);
                info!(route = %self.route, client, principal, %peer, "session opened");
            }
            SessionEvent::Subscribed { client, filter, qos } => {
                let Who { client, principal, peer } = Who::new(Some(client), client.peer);
                debug!(route = %self.route, client, principal, %peer, filter, qos, "subscribed");
            }
            SessionEvent::Unsubscribed { client, filter } => {
                let Who { client, principal, peer } = Who::new(Some(client), client.peer);
                debug!(route = %self.route, client, principal, %peer, filter, "unsubscribed");
            }
            SessionEvent::Denied { client, peer, action, resource, reason } => {
                self.denied(&Who::new(client, peer), action, resource, &reason.to_string());
            }
            SessionEvent::Dropped { client, action, resource, reason } => {
                let who = Who::new(Some(client), client.peer);
                self.dropped(&who, action, resource, &reason.to_string());
            }
            SessionEvent::WouldBeDenied { client, action, resource, objection } => {
                self.would_be_denied(&Who::new(Some(client), client.peer), action, resource, objection);
            }
            SessionEvent::Failed { client, action, resource, why } => {
                let who = Who::new(Some(client), client.peer);
                self.failed(&who, action, resource, &why.to_string());
            }
            SessionEvent::Closed { client, peer, why, is_told: true, .. } => {
                let Who { client, principal, peer } = Who::new(client, peer);
                debug!(route = %self.route, client, principal, %peer, %why, "session closed");
            }
            SessionEvent::Closed { client, peer, why, blame, is_told: false } => {
                self.closed(&Who::new(client, peer), &why.to_string(), blame);
            }
        }
    }

    fn trouble(&self, trouble: &Trouble<'_>) {
        let route = &self.route;
        match *trouble {
            Trouble::NotStored { client, reason } => {
                if let Some(count) = self.not_stored.count() {
                    let Who { client, principal, peer } = Who::new(Some(client), client.peer);
                    warn!(%route, count, client, principal, %peer, %reason, "messages were refused: not mirrored");
                }
            }
            Trouble::Slowed { client } => {
                if let Some(count) = self.slowed.count() {
                    let Who { client, principal, peer } = Who::new(Some(client), client.peer);
                    warn!(%route, count, client, principal, %peer, "clients are slowed by messages_per_second");
                }
            }
            Trouble::UpstreamGone { address, why } => {
                if let Some(count) = self.upstream_gone.count() {
                    warn!(%route, count, upstream = %address, %why, "the upstream is not there");
                }
            }
        }
    }
}

/// The fields that say who it was.
struct Who<'a> {
    client: Option<&'a str>,
    principal: Option<&'a str>,
    peer: SocketAddr,
}

impl<'a> Who<'a> {
    fn new(client: Option<&'a Client>, peer: SocketAddr) -> Self {
        let principal = client.map(|client| client.principal.id.as_ref()).filter(|id| !id.is_empty());
        Self { client: client.map(|client| client.client_id.as_ref()), principal, peer }
    }
}

fn admit(flood: &Mutex<Flood>) -> (bool, u32) {
    flood.lock().unwrap_or_else(PoisonError::into_inner).admit(Now::read().instant)
}

impl Flood {
    /// Whether one more line may be written; and, once a second, how many were left out in the last one.
    fn admit(&mut self, now: Instant) -> (bool, u32) {
        let mut left_out = 0;
        if now - self.since >= Duration::from_secs(1) {
            left_out = self.lines.saturating_sub(LINES_PER_SECOND);
            *self = Self { since: now, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        (self.lines <= LINES_PER_SECOND, left_out)
    }
}

const PACKETS: &str = "mgate::packet";
const LINES_PER_SECOND: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flood_of_lines_is_cut_and_counted() {
        let start = Now::read().instant;
        let mut flood = Flood { since: start, lines: 0 };
        let written = (0..250).filter(|_| flood.admit(start).0).count();
        assert_eq!(written, 100);
        assert_eq!(flood.admit(start + Duration::from_secs(1)), (true, 150));
        assert_eq!(flood.admit(start + Duration::from_secs(1)), (true, 0));
    }
}
