//! What a relay needs from outside: the narrow waist between protocols and everything else.

mod memo;
mod observer;

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use mgate_policies::{Action, BoxFuture, Cause, Chain, Client, Now, Principal, Protocol, Reason, Transforms};

pub use self::memo::Memo;
pub use self::observer::{Blame, Fate, Observer, PacketSeen, SessionEvent, Trouble};
use crate::psk::{KeySearch, Psk};
use crate::transport::Upgrade;

/// Everything that one route asks, tells and limits; shared by all its sessions.
pub struct Gate {
    /// The route's name, as configured.
    pub route: Arc<str>,
    /// Finds out who a client is.
    pub authenticators: Authenticators,
    /// Change what clients say before policies are asked, and what they are given after.
    pub transforms: Transforms,
    /// Says what it may do.
    pub policies: Chain,
    /// Takes a copy of each message that passed; `None` where nothing is mirrored.
    pub mirror: Option<Arc<dyn Mirror>>,
    /// Is told what happens.
    pub observer: Arc<dyn Observer>,
    /// What a client may use at the most.
    pub limits: Limits,
}

/// Bounds of one route; every wait and every buffer has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the route at a time.
    pub connections: usize,
    /// Connections from one address at a time.
    pub connections_per_address: usize,
    /// The largest packet that may pass, in bytes, header included.
    pub packet_bytes: usize,
    /// Messages that one client may send a second, with a burst of as many; `None` for any number.
    pub messages_per_second: Option<u32>,
    /// Subscriptions that one client may hold at a time; a filter counts once more for each 256 bytes.
    pub subscriptions: usize,
    /// Time for PROXY header, TLS and WebSocket handshakes together.
    pub handshake_timeout: Duration,
    /// Time from the end of the handshakes until the client has said who it is.
    pub connect_timeout: Duration,
    /// Time for the upstream to take the connection and to answer the client's first packet.
    pub upstream_timeout: Duration,
    /// Time without a packet from the client after which it is gone, where the protocol has no keep-alive
    /// of its own or the client switched it off; `None` for any time.
    pub idle_timeout: Option<Duration>,
    /// Time in which a peer that has bytes waiting must take some.
    pub stall_timeout: Duration,
    /// Time for one decision, whoever makes it; what is later is denied.
    pub decision_timeout: Duration,
    /// Time for the mirror to store what must be stored before it is acknowledged.
    pub store_timeout: Duration,
}

impl Limits {
    /// What may be said of [`Limits::messages_per_second`].
    pub const MESSAGES_PER_SECOND: RangeInclusive<u64> = 1..=1_000_000;
    /// What may be said of [`Limits::packet_bytes`]: from the smallest MQTT packet that means something to the
    /// largest there is. [MQTT-1.5.5]
    pub const PACKET_BYTES: RangeInclusive<u64> = 64..=268_435_460;
    /// What may be said of [`Limits::subscriptions`].
    pub const SUBSCRIPTIONS: RangeInclusive<u64> = 1..=10_000_000;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 10_000,
            packet_bytes: 256 * 1024,
            messages_per_second: None,
            subscriptions: 1000,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            upstream_timeout: Duration::from_secs(10),
            idle_timeout: None,
            stall_timeout: Duration::from_secs(60),
            decision_timeout: Duration::from_secs(5),
            store_timeout: Duration::from_secs(10),
        }
    }
}

/// What a client shows to say who it is.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The MQTT client identifier; empty where there is none.
    pub client_id: &'a str,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password: any bytes.
    pub password: Option<&'a [u8]>,
    /// What its request of HTTP, or for its WebSocket, shows; `None` over other transports.
    pub upgrade: Option<&'a Upgrade>,
    /// The client's certificate in DER, verified against the route's authorities.
    pub certificate: Option<&'a [u8]>,
    /// The identity of the pre-shared key that it has, as a DTLS handshake showed. RFC 4279
    pub psk_identity: Option<&'a str>,
    /// Where the connection came from.
    pub peer: SocketAddr,
    /// The protocol that the client speaks.
    pub protocol: Protocol,
}

/// Finds out who a client is, from one kind of credentials.
pub trait Authenticator: Send + Sync {
    /// The name that logs show.
    fn name(&self) -> &str;

    /// Judges what the client shows. What takes more than microseconds belongs into
    /// [`Authentication::Pending`].
    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication;

    /// Begins what takes time before the first client comes. Called where [`Authenticator::authenticate`] is,
    /// maybe more than once.
    fn start(&self) {}

    /// The key that it shares with the client of this identity, for the handshake in which the client shows that it has
    /// it. [`Authenticator::authenticate`] judges later who that is.
    fn key(&self, _identity: &str, _now: Now) -> KeySearch {
        KeySearch::Unknown
    }
}

/// What an authenticator says.
pub enum Authentication {
    /// The judgement is here.
    Ready(Verdict),
    /// The judgement takes time.
    Pending(BoxFuture<'static, Verdict>),
}

/// One authenticator's judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client shows nothing that this authenticator could judge: the next one is asked.
    Abstain,
    /// It is who it says.
    Accepted(Principal),
    /// It is not; no other authenticator is asked.
    Rejected(Reason),
}

/// Authenticators in a row: the first that does not abstain decides; if all abstain, the client is rejected.
#[derive(Clone, Default)]
pub struct Authenticators(Vec<Arc<dyn Authenticator>>);

/// What a row of authenticators says.
pub enum Identification {
    /// The client is who it says.
    Accepted(Principal),
    /// It is not.
    Rejected(Reason),
    /// One needs time: hand its verdict to [`Authenticators::resume`], with the number of those asked.
    Pending(usize, BoxFuture<'static, Verdict>),
}

impl Authenticators {
    /// Asks in the given order. None at all makes every client anonymous (an empty principal).
    pub fn new(row: Vec<Arc<dyn Authenticator>>) -> Self {
        Self(row)
    }

    /// Tells all that clients will come.
    pub fn start(&self) {
        self.0.iter().for_each(|authenticator| authenticator.start());
    }

    /// Asks from the first on.
    pub fn identify(&self, credentials: &Credentials<'_>, now: Now) -> Identification {
        if self.0.is_empty() {
            return Identification::Accepted(Principal::default());
        }
        self.go_on(0, credentials, now)
    }

    /// Goes on after the authenticator that needed time.
    pub fn resume(
        &self,
        asked: usize,
        verdict: Verdict,
        credentials: &Credentials<'_>,
        now: Now,
    ) -> Identification {
        match verdict {
            Verdict::Abstain => self.go_on(asked, credentials, now),
            Verdict::Accepted(principal) => Identification::Accepted(principal),
            Verdict::Rejected(reason) => self.rejected(asked.saturating_sub(1), &reason),
        }
    }

    /// The key behind an identity, of the first that has one.
    pub fn key(&self, identity: &str, now: Now) -> KeySearch {
        for (index, authenticator) in self.0.iter().enumerate() {
            match authenticator.key(identity, now) {
                KeySearch::Unknown => {}
                KeySearch::Found(key) => return KeySearch::Found(key),
                KeySearch::Pending(found) => {
                    let rest = Self(self.0[index + 1..].to_vec());
                    let identity = identity.to_owned();
                    return KeySearch::Pending(Box::pin(async move {
                        match found.await {
                            Some(key) => Some(key),
                            None => rest.later_key(&identity, now).await,
                        }
                    }));
                }
            }
        }
        KeySearch::Unknown
    }

    fn later_key(self, identity: &str, now: Now) -> BoxFuture<'static, Option<Psk>> {
        match self.key(identity, now) {
            KeySearch::Found(key) => Box::pin(std::future::ready(Some(key))),
            KeySearch::Pending(found) => found,
            KeySearch::Unknown => Box::pin(std::future::ready(None)),
        }
    }

    fn go_on(&self, asked: usize, credentials: &Credentials<'_>, now: Now) -> Identification {
        for (index, authenticator) in self.0.iter().enumerate().skip(asked) {
            match authenticator.authenticate(credentials, now) {
                Authentication::Ready(Verdict::Abstain) => {}
                Authentication::Ready(Verdict::Accepted(principal)) => {
                    return Identification::Accepted(principal);
                }
                Authentication::Ready(Verdict::Rejected(reason)) => return self.rejected(index, &reason),
                Authentication::Pending(future) => return Identification::Pending(index + 1, future),
            }
        }
        Identification::Rejected(Reason::with_detail(Cause::BadCredentials, self.unknown(credentials)))
    }

    /// For the log: who rejects the client.
    fn rejected(&self, number: usize, reason: &Reason) -> Identification {
        let name = self.0.get(number).map_or("", |authenticator| authenticator.name());
        let detail = match &reason.detail {
            Some(detail) => format!("{detail} ({name})"),
            None => format!("({name})"),
        };
        Identification::Rejected(Reason { detail: Some(detail.into()), ..reason.clone() })
    }

    /// For the log: what it means that all abstain.
    fn unknown(&self, credentials: &Credentials<'_>) -> String {
        let names: Vec<_> = self.0.iter().map(|authenticator| authenticator.name()).collect();
        let names = names.join(", ");
        match (credentials.username, credentials.password) {
            // without a password, or in the form of a token, the name may be the secret
            (Some(user), Some([_, ..])) if user.len() <= USER_BYTES && !user.starts_with(JSON_IN_BASE64) => {
                format!("nobody knows user {user:?} ({names})")
            }
            _ => format!("nobody knows what it shows ({names})"),
        }
    }
}

impl Gate {
    /// Tells whoever wants to know of something that happened to a session.
    pub fn tell(&self, event: &SessionEvent<'_>, now: Now) {
        self.observer.session(event);
        if let Some(mirror) = &self.mirror {
            mirror.session(event, now);
        }
    }

    /// Whether anybody wants to be shown packets.
    pub fn wants_packets(&self) -> bool {
        self.observer.wants_packets() || self.mirror.as_ref().is_some_and(|mirror| mirror.wants_packets())
    }
}

/// Takes copies of what passed, and word of what happened. Called in session order, on the data path: it must
/// not wait.
pub trait Mirror: Send + Sync {
    /// Takes one message that was authorized and handed to the other side.
    fn message(&self, message: &Message<'_>) -> Copied;

    /// The same for a message of a session that keeps something for the next one.
    fn message_of_session(&self, message: &Message<'_>, _memo: &mut Memo) -> Copied {
        self.message(message)
    }

    /// Whether it takes deliveries to clients too, not only what they publish.
    fn wants_deliveries(&self) -> bool {
        false
    }

    /// Takes word of something that happened to a session.
    fn session(&self, _event: &SessionEvent<'_>, _now: Now) {}

    /// Whether [`Mirror::packet`] wants to be called; asked once per packet.
    fn wants_packets(&self) -> bool {
        false
    }

    /// Takes one packet that was judged.
    fn packet(&self, _seen: &PacketSeen<'_>, _now: Now) {}
}

/// What becomes of a copy.
pub enum Copied {
    /// It is on its way, as far as the mirror promises anything; nobody waits for it.
    Taken,
    /// It is being stored, and the message is not acknowledged before it is. The future must end, whatever
    /// happens; copies of one session are stored in their order.
    Storing(BoxFuture<'static, Result<(), Reason>>),
}

/// A message that passed.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Whose session it passed through.
    pub client: &'a Client,
    /// [`Action::Publish`] from the client, or [`Action::Deliver`] to it.
    pub action: Action,
    /// When it came.
    pub now: Now,
    /// The topic, with aliases resolved.
    pub topic: &'a str,
    /// What it carries.
    pub payload: &'a [u8],
    /// Its quality of service.
    pub qos: u8,
    /// Its retain flag.
    pub retain: bool,
    /// Whether its sender waits to hear that it arrived.
    pub is_acknowledged: bool,
    /// What its sender says about it.
    pub notes: Notes<'a>,
}

/// What a sender says about its message: nothing before MQTT 5.0, headers in HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes<'a> {
    /// The media type of the payload.
    pub content_type: Option<&'a str>,
    /// How the payload is compressed: the user property or header `content-encoding`.
    pub content_encoding: Option<&'a str>,
    /// The trace that it belongs to: the user property or header `traceparent`. W3C Trace Context §3.2
    pub traceparent: Option<&'a str>,
    /// More about the trace: the user property or header `tracestate`. W3C Trace Context §3.3
    pub tracestate: Option<&'a str>,
}

/// The side of a gateway that a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The device.
    Client,
    /// The server behind mgate.
    Upstream,
}

impl Side {
    /// The side across.
    pub fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
        })
    }
}

/// The denial of whoever waited in vain for a decision.
pub fn no_decision_in_time() -> Reason {
    Reason::with_detail(Cause::Unavailable, "no decision in time")
}

/// The longest user name that logs show.
const USER_BYTES: usize = 64;
/// How a token begins that says something itself. RFC 7519 §3.1
const JSON_IN_BASE64: &str = "eyJ";

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn without_authenticators_a_client_is_anonymous() {
        let identified = Authenticators::default().identify(&credentials(), Now::read());
        assert!(
            matches!(identified, Identification::Accepted(principal) if principal == Principal::default())
        );
    }

    #[test]
    fn first_that_does_not_abstain_decides() {
        let rejected = Verdict::Rejected(Reason::new(Cause::BadCredentials));
        let row = [Verdict::Abstain, rejected, Verdict::Accepted(Principal::default())];
        assert!(matches!(identify(&row), Identification::Rejected(_)));
    }

    #[test]
    fn rejection_names_who_rejects_for_the_log() {
        let reason = |verdict, credentials| match row(&[Verdict::Abstain, verdict])
            .identify(&credentials, Now::read())
        {
            Identification::Rejected(reason) => reason.to_string(),
            _ => panic!("it is rejected"),
        };
        let rejected = Verdict::Rejected(Reason::with_detail(Cause::BadCredentials, "out of date"));
        assert_eq!(reason(rejected, credentials()), "bad credentials: out of date (fixed)");
        let shown = |username, password| Credentials { username: Some(username), password, ..credentials() };
        let unknown = |credentials| reason(Verdict::Abstain, credentials);
        assert_eq!(
            unknown(shown("dev\n-1", Some(b"secret"))),
            "bad credentials: nobody knows user \"dev\\n-1\" (fixed, fixed)"
        );
        let long = "a".repeat(65);
        for hidden in [
            credentials(),
            shown("t0ken", None),
            shown("t0ken", Some(b"")),
            shown("eyJh.e.s", Some(b"x")),
            shown(&long, Some(b"x")),
        ] {
            assert_eq!(unknown(hidden), "bad credentials: nobody knows what it shows (fixed, fixed)");
        }
    }

    #[test]
    fn all_abstaining_rejects() {
        assert!(matches!(identify(&[Verdict::Abstain, Verdict::Abstain]), Identification::Rejected(_)));
    }

    struct Fixed(Verdict);

    impl Authenticator for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }

        fn authenticate(&self, _: &Credentials<'_>, _: Now) -> Authentication {
            Authentication::Ready(self.0.clone())
        }
    }

    fn identify(verdicts: &[Verdict]) -> Identification {
        row(verdicts).identify(&credentials(), Now::read())
    }

    fn row(verdicts: &[Verdict]) -> Authenticators {
        let fixed = |verdict: &Verdict| Arc::new(Fixed(verdict.clone())) as Arc<dyn Authenticator>;
        Authenticators::new(verdicts.iter().map(fixed).collect())
    }

    fn credentials() -> Credentials<'static> {
        Credentials {
            client_id: "dev-1",
            username: None,
            password: None,
            upgrade: None,
            certificate: None,
            psk_identity: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            protocol: Protocol::Mqtt,
        }
    }
}
