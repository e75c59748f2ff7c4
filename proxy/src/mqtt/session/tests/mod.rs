//! Stories of sessions: real bytes, real chains, time by hand.

mod connect;
mod copies;
mod deliver;
mod objections;
mod packets;
mod protocol;
mod publish;
mod rights;
mod subscribe;
mod terms;
mod transform;
mod waiting;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mgate_policies::{
    Action, Answer, Cause, Chain, Decision, Grant, Now, Policy, Principal, Query, Reason, Transforms,
};

use self::packets::{connack, connect};
use super::*;
use crate::gate::{
    Authentication, Authenticator, Authenticators, Blame, Copied, Credentials, Gate, Limits, Message, Mirror,
    Notes, Observer,
};
use crate::mqtt::{OnDeniedPublish, Options};

/// A session, what is around it, and what it said.
struct Story {
    endpoint: Endpoint,
    session: Session,
    out: Outbox,
    now: Now,
    seen: Arc<Seen>,
}

/// What observers and mirrors were told.
#[derive(Default)]
struct Seen {
    mirrored: Mutex<Vec<(String, Vec<u8>)>>,
    denied: Mutex<Vec<(Action, String)>>,
    dropped: Mutex<Vec<(Action, String)>>,
    would_be_denied: Mutex<Vec<(Action, String)>>,
    closed: Mutex<Vec<(String, Blame)>>,
    troubles: Mutex<Vec<String>>,
    events: Mutex<Vec<String>>,
    frames: Mutex<Vec<Option<Vec<u8>>>>,
    notes: Mutex<Vec<[String; 4]>>,
    /// Whether the mirror stores what it takes.
    stores: AtomicBool,
    wants_deliveries: AtomicBool,
}

/// Denies what its names say, waits where they say so, and allows the rest.
struct Rules;

impl Story {
    fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// A story in which `change` had the last word on the route.
    fn with(change: impl FnOnce(&mut Gate, &mut Options)) -> Self {
        let seen = Arc::new(Seen::default());
        let mut gate = Gate {
            route: "devices".into(),
            authenticators: Authenticators::new(vec![Arc::new(Passwords)]),
            transforms: Transforms::default(),
            policies: Chain::new(vec![Arc::new(Rules)]),
            mirror: Some(seen.clone()),
            observer: seen.clone(),
            limits: Limits::default(),
        };
        let mut options = Options::default();
        change(&mut gate, &mut options);
        let endpoint = Endpoint::new(gate, options);
        let now = Now::read();
        let session = Session::new(&endpoint, peer(), now);
        Self { endpoint, session, out: Outbox::default(), now, seen }
    }

    /// A story that begins when the session is open.
    fn open(version: Version) -> Self {
        Self::new().opened(version)
    }

    fn opened(mut self, version: Version) -> Self {
        self.client_sends(&connect(version).bytes());
        self.upstream_opens();
        self.upstream_sends(&connack(version, 0, &[]));
        assert_eq!(self.session.state, State::Open);
        self.hears();
        self
    }

    fn input(&mut self, input: Input<'_>) -> usize {
        let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        self.session.handle_input(input, cx)
    }

    fn client_sends(&mut self, bytes: &[u8]) -> usize {
        self.input(Input::Bytes(Side::Client, bytes))
    }

    fn upstream_sends(&mut self, bytes: &[u8]) -> usize {
        self.input(Input::Bytes(Side::Upstream, bytes))
    }

    /// The session wants to dial, and the upstream takes the connection.
    fn upstream_opens(&mut self) {
        assert!(matches!(self.session.poll_output(), Some(Output::Dial)), "dials after CONNECT was allowed");
        self.input(Input::Upstream(Ok(())));
    }

    fn decides(&mut self, side: Side, decision: Decision) {
        self.input(Input::Decided(side, decision));
    }

    /// Time goes on, and the session is told when it asked to be.
    fn waits(&mut self, by: Duration) {
        let end = self.now.later(by);
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end.instant) {
            self.now = self.now.later(at.saturating_duration_since(self.now.instant));
            let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
            self.session.handle_timeout(cx);
        }
        self.now = end;
    }

    /// What was sent to the client, and to the upstream, since the last time.
    fn hears(&mut self) -> (Vec<u8>, Vec<u8>) {
        let out = std::mem::take(&mut self.out);
        (out.to_client, out.to_upstream)
    }

    fn client_hears(&mut self) -> Vec<u8> {
        self.hears().0
    }

    fn upstream_hears(&mut self) -> Vec<u8> {
        self.hears().1
    }

    fn is_closed(&mut self) -> bool {
        while let Some(output) = self.session.poll_output() {
            if matches!(output, Output::Close) {
                return true;
            }
        }
        false
    }

    /// Why the session ended, and whose fault it was.
    fn closing(&self) -> Option<(String, Blame)> {
        self.seen.closed.lock().expect("nobody panics with it").first().cloned()
    }

    /// What went wrong while the session went on.
    fn troubles(&self) -> Vec<String> {
        self.seen.troubles.lock().expect("nobody panics with it").clone()
    }

    fn denials(&self) -> Vec<(Action, String)> {
        self.seen.denied.lock().expect("nobody panics with it").clone()
    }

    /// What passed that a policy which is not enforced would deny.
    fn objections(&self) -> Vec<(Action, String)> {
        self.seen.would_be_denied.lock().expect("nobody panics with it").clone()
    }
}

impl Policy for Rules {
    fn name(&self) -> &str {
        "rules"
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        let resource = format!("{} {}", query.action, query.resource);
        let says = |word: &str| resource.contains(word) || query.client.client_id.contains(word);
        if says("slow") {
            Answer::Pending(Box::pin(std::future::pending()))
        } else if says("secret") || query.retain && says("unretained") || query.qos == 2 && says("qos1") {
            Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized)))
        } else {
            let mut grant = Grant::default();
            grant.ends_after = says("brief").then_some(Duration::from_secs(30));
            Answer::Ready(Decision::Allow(grant))
        }
    }
}

/// Knows one password, and one user that takes time.
struct Passwords;

impl Authenticator for Passwords {
    fn name(&self) -> &str {
        "passwords"
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        let id = credentials.username.unwrap_or_default();
        let verdict = match (id, credentials.password) {
            ("expiring", _) => {
                let expires = Some(now.unix + Duration::from_secs(30));
                Verdict::Accepted(Principal { expires, ..Principal::default() })
            }
            ("expired", _) => {
                Verdict::Accepted(Principal { expires: Some(now.unix), ..Principal::default() })
            }
            ("slow", _) => return Authentication::Pending(Box::pin(std::future::pending())),
            ("", _) | (_, Some(PASSWORD)) => {
                Verdict::Accepted(Principal { id: id.into(), ..Principal::default() })
            }
            _ => Verdict::Rejected(Reason::new(Cause::BadCredentials)),
        };
        Authentication::Ready(verdict)
    }
}

impl Mirror for Seen {
    fn message(&self, message: &Message<'_>) -> Copied {
        let copy = (message.topic.to_owned(), message.payload.to_vec());
        self.mirrored.lock().expect("nobody panics with it").push(copy);
        let Notes { content_type, content_encoding, traceparent, tracestate } = message.notes;
        let notes = [content_type, content_encoding, traceparent, tracestate];
        let notes = notes.map(|note| note.unwrap_or_default().to_owned());
        self.notes.lock().expect("nobody panics with it").push(notes);
        match self.stores.load(Ordering::Relaxed) {
            true => Copied::Storing(Box::pin(std::future::pending())),
            false => Copied::Taken,
        }
    }

    fn wants_deliveries(&self) -> bool {
        self.wants_deliveries.load(Ordering::Relaxed)
    }

    fn session(&self, event: &SessionEvent<'_>, _: Now) {
        let event = match event {
            SessionEvent::Opened(_) => "opened".to_owned(),
            SessionEvent::Subscribed { filter, .. } => format!("subscribed {filter}"),
            SessionEvent::Unsubscribed { filter, .. } => format!("unsubscribed {filter}"),
            SessionEvent::Denied { resource, .. } => format!("denied {resource}"),
            SessionEvent::Dropped { resource, .. } => format!("dropped {resource}"),
            SessionEvent::Failed { resource, .. } => format!("failed {resource}"),
            SessionEvent::WouldBeDenied { resource, .. } => format!("would be denied {resource}"),
            SessionEvent::Closed { .. } => "closed".to_owned(),
        };
        self.events.lock().expect("nobody panics with it").push(event);
    }

    fn wants_packets(&self) -> bool {
        true
    }

    fn packet(&self, seen: &PacketSeen<'_>, _: Now) {
        self.frames.lock().expect("nobody panics with it").push(seen.frame.map(<[u8]>::to_vec));
    }
}

impl Observer for Seen {
    fn wants_packets(&self) -> bool {
        true
    }

    fn packet(&self, packet: &PacketSeen<'_>) {
        // what is shown of a packet shows no credentials
        let shown = packet.packet.to_string();
        assert!(!shown.contains("hunter2") && !shown.contains("alice"), "{shown}");
    }

    fn trouble(&self, trouble: &Trouble<'_>) {
        let trouble = match trouble {
            Trouble::NotStored { reason, .. } => format!("not stored: {reason}"),
            Trouble::Slowed { .. } => "slowed".to_owned(),
            Trouble::UpstreamGone { why, .. } => panic!("no session of MQTT has a part in it: {why}"),
        };
        self.troubles.lock().expect("nobody panics with it").push(trouble);
    }

    fn session(&self, event: &SessionEvent<'_>) {
        match event {
            SessionEvent::Opened(_) | SessionEvent::Subscribed { .. } | SessionEvent::Unsubscribed { .. } => {
            }
            SessionEvent::Denied { action, resource, .. } => {
                let denial = (*action, (*resource).to_owned());
                self.denied.lock().expect("nobody panics with it").push(denial);
            }
            SessionEvent::Failed { why, .. } => panic!("no session of MQTT makes requests: {why}"),
            SessionEvent::Dropped { action, resource, .. } => {
                let dropped = (*action, (*resource).to_owned());
                self.dropped.lock().expect("nobody panics with it").push(dropped);
            }
            SessionEvent::WouldBeDenied { action, resource, objection, .. } => {
                assert_eq!(&*objection.policy, "rules");
                let denial = (*action, (*resource).to_owned());
                self.would_be_denied.lock().expect("nobody panics with it").push(denial);
            }
            SessionEvent::Closed { why, blame, .. } => {
                self.closed.lock().expect("nobody panics with it").push((why.to_string(), *blame));
            }
        }
    }
}

/// An endpoint of which nobody asks anything.
pub(in crate::mqtt) fn endpoint() -> Endpoint {
    Story::new().endpoint
}

fn peer() -> Peer {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    Peer { address, certificate: None, upgrade: None, is_encrypted: false }
}

fn allow() -> Decision {
    Decision::Allow(Grant::default())
}

fn deny() -> Decision {
    Decision::Deny(Reason::new(Cause::NotAuthorized))
}

const PASSWORD: &[u8] = b"hunter2";
const BOTH: [Version; 2] = [Version::V311, Version::V5];
