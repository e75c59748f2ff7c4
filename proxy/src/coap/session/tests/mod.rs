//! Stories of sessions: messages by another's encoder, real chains, time by hand.

mod blocks;
mod copies;
mod ends_here;
mod memory;
mod observe;
mod requests;
mod rights;
mod secured;
mod waiting;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use coap_lite::{CoapOption, MessageType, Packet};
use mgate_policies::{Action, Answer, Cause, Chain, Grant, Policy, Principal, Query, Transforms};

use super::*;
use crate::coap::{Options, Profile};
use crate::gate::{
    Authentication, Authenticator, Authenticators, Copied, Credentials, Gate, Limits, Mirror, Observer,
};

/// A session, what is around it, and what it said.
struct Story {
    endpoint: Endpoint,
    session: Session,
    out: Outbox,
    now: Now,
    seen: Arc<Seen>,
}

/// What policies, observers and mirrors were asked and told.
#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<String>>,
    mirrored: Mutex<Vec<(String, Vec<u8>)>>,
    events: Mutex<Vec<String>>,
    frames: Mutex<Vec<String>>,
    /// Whether the mirror stores what it takes.
    stores: AtomicBool,
    /// Whether the mirror wants what is delivered, too.
    wants_deliveries: AtomicBool,
    /// Whether what is called `changing` is denied by now.
    has_changed: AtomicBool,
}

impl Story {
    fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// A story of the messages of channels.
    fn of_messages() -> Self {
        Self::with(|_, options| options.profile = Profile::Messages)
    }

    /// A story of messages that are mirrored alone.
    fn that_ends_here() -> Self {
        let mut story = Self::of_messages();
        story.endpoint.upstream = None;
        story
    }

    /// A story in which `change` had the last word on the route.
    fn with(change: impl FnOnce(&mut Gate, &mut Options)) -> Self {
        let seen = Arc::new(Seen::default());
        let mut gate = Gate {
            route: "sensors".into(),
            authenticators: Authenticators::new(vec![Arc::new(Keys)]),
            transforms: Transforms::default(),
            policies: Chain::new(vec![seen.clone()]),
            mirror: Some(seen.clone()),
            observer: seen.clone(),
            limits: Limits::default(),
        };
        let mut options = Options::default();
        change(&mut gate, &mut options);
        let upstream = crate::coap::Upstream { host: "upstream".to_owned(), port: 5683 };
        let endpoint = Endpoint::new(gate, options, Some(upstream));
        let now = Now::read();
        let address = SocketAddr::from(([192, 0, 2, 1], 40_000));
        let peer = Peer { address, certificate: None, psk_identity: None, is_encrypted: false };
        let session = Session::new(&endpoint, peer, now);
        Self { endpoint, session, out: Outbox::default(), now, seen }
    }

    fn input(&mut self, input: Input<'_>) {
        let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        self.session.handle_input(input, cx);
    }

    /// The client sends a message; the upstream's socket is there as soon as it is wanted.
    fn client(&mut self, text: &str) -> &mut Self {
        self.input(Input::Datagram(Side::Client, &m(text)));
        let outputs = std::mem::take(&mut self.session.outputs);
        let (dials, others) = outputs.into_iter().partition(|output| matches!(output, Output::Dial));
        self.session.outputs = others;
        let dials: VecDeque<_> = dials;
        dials.iter().for_each(|_| self.input(Input::Upstream(Ok(()))));
        self
    }

    fn upstream(&mut self, text: &str) -> &mut Self {
        self.input(Input::Datagram(Side::Upstream, &m(text)));
        self
    }

    /// What is called `changing` is allowed no more, and the session hears that rights changed.
    fn withdraw(&mut self) {
        self.seen.has_changed.store(true, Ordering::Relaxed);
        self.input(Input::Reauthorize);
    }

    /// What the client heard since it was asked last.
    fn client_hears(&mut self) -> Vec<String> {
        self.hears(Side::Client)
    }

    fn upstream_hears(&mut self) -> Vec<String> {
        self.hears(Side::Upstream)
    }

    fn hears(&mut self, side: Side) -> Vec<String> {
        let all: Vec<_> = self.out.iter().map(|(side, bytes)| (side, bytes.to_vec())).collect();
        self.out.clear();
        let (heard, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|(to, _)| *to == side);
        left.iter().for_each(|(side, bytes)| self.out.push(*side, bytes));
        heard.iter().map(|(_, bytes)| text(bytes)).collect()
    }

    /// Lets time pass, in which the session is called as it wants to be.
    fn pass(&mut self, time: Duration) -> &mut Self {
        let end = self.now.later(time);
        for _ in 0..1000 {
            let Some(at) = self.session.poll_timeout(&self.endpoint).filter(|at| *at <= end.instant) else {
                self.now = end;
                return self;
            };
            self.now = self.now.later(at.saturating_duration_since(self.now.instant));
            let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
            self.session.handle_timeout(cx);
        }
        panic!("the session wants to be called again and again");
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.asked.lock().unwrap())
    }

    fn mirrored(&self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.seen.mirrored.lock().unwrap())
    }

    fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.events.lock().unwrap())
    }
}

/// Good keys begin with `good`, and what follows is whose they are; who shows none is a guest.
struct Keys;

impl Authenticator for Keys {
    fn name(&self) -> &str {
        "keys"
    }

    fn authenticate(&self, credentials: &Credentials<'_>, now: Now) -> Authentication {
        assert_eq!((credentials.client_id, credentials.username), ("", None));
        let id = match credentials.password.map(|key| str::from_utf8(key).unwrap()) {
            None => credentials.psk_identity.unwrap_or("guest").to_owned(),
            Some("slow") => return Authentication::Pending(Box::pin(std::future::pending())),
            Some(key) => match key.strip_prefix("good") {
                Some(id) => id.to_owned(),
                None => return Authentication::Ready(Verdict::Rejected(Reason::new(Cause::BadCredentials))),
            },
        };
        let expires = (id == "-soon").then(|| now.unix + Duration::from_secs(60));
        Authentication::Ready(Verdict::Accepted(Principal { id: id.into(), expires, ..Principal::default() }))
    }
}

/// Denies what its name says, waits where it says so, and allows the rest.
impl Policy for Seen {
    fn name(&self) -> &str {
        "seen"
    }

    fn evaluate(&self, query: &Query<'_>, _now: Now) -> Answer {
        let Query { client, action, resource, payload, .. } = query;
        let payload = String::from_utf8_lossy(payload);
        self.asked.lock().unwrap().push(format!("{} {action} {resource} {payload}", client.principal.id));
        let (name, deny) = (resource.to_string(), |cause| Answer::Ready(Decision::Deny(Reason::new(cause))));
        if name.contains("secret") || payload.contains("secret") {
            return deny(Cause::NotAuthorized);
        }
        if name.contains("broken") {
            return deny(Cause::Unavailable);
        }
        if name.contains("changing") && self.has_changed.load(Ordering::Relaxed) {
            return deny(Cause::NotAuthorized);
        }
        if name.contains("slow") || (*action == Action::Deliver && payload.contains("slow")) {
            return Answer::Pending(Box::pin(std::future::pending()));
        }
        let ttl = name.contains("short").then_some(Duration::from_secs(10));
        let mut grant = Grant::default();
        grant.ttl = ttl;
        Answer::Ready(Decision::Allow(grant))
    }
}

impl Mirror for Seen {
    fn message(&self, message: &crate::gate::Message<'_>) -> Copied {
        let topic = format!("{} {} {}", message.client.principal.id, message.action, message.topic);
        self.mirrored.lock().unwrap().push((topic, message.payload.to_vec()));
        match self.stores.load(Ordering::Relaxed) {
            true => Copied::Storing(Box::pin(std::future::pending())),
            false => Copied::Taken,
        }
    }

    fn wants_deliveries(&self) -> bool {
        self.wants_deliveries.load(Ordering::Relaxed)
    }
}

impl Observer for Seen {
    fn wants_packets(&self) -> bool {
        true
    }

    fn packet(&self, seen: &PacketSeen<'_>) {
        let frame = seen.frame.map(|frame| String::from_utf8_lossy(frame).into_owned());
        self.frames.lock().unwrap().push(format!("{} {} {frame:?}", seen.from, seen.packet));
    }

    fn session(&self, event: &SessionEvent<'_>) {
        self.events.lock().unwrap().push(match event {
            SessionEvent::Opened(client) => format!("opened {}", client.principal.id),
            SessionEvent::Subscribed { filter, .. } => format!("subscribed {filter}"),
            SessionEvent::Unsubscribed { filter, .. } => format!("unsubscribed {filter}"),
            SessionEvent::Denied { action, resource, reason, .. } => {
                format!("denied {action} {resource}: {reason}")
            }
            SessionEvent::Closed { why, .. } => format!("closed: {why}"),
            _ => "another".to_owned(),
        });
    }
}

/// A message without options.
pub(super) fn packet(kind: &str, code: &str, id: u16, token: &str) -> Packet {
    let mut packet = Packet::new();
    packet.header.set_type(match kind {
        "CON" => MessageType::Confirmable,
        "NON" => MessageType::NonConfirmable,
        "ACK" => MessageType::Acknowledgement,
        _ => MessageType::Reset,
    });
    let methods = ["", "GET", "POST", "PUT", "DELETE", "FETCH", "PATCH", "iPATCH"];
    match methods.iter().position(|method| *method == code) {
        Some(number) => packet.header.set_code(&format!("0.{number:02}")),
        None => packet.header.set_code(code),
    }
    packet.header.message_id = id;
    packet.set_token(token.trim_start_matches('-').into());
    packet
}

/// A message in words: `CON GET 1 t /a/b ?auth=key observe=0 block1=0/1/2 =payload`; `-` is no token, and for blocks
/// it is number, more, and size exponent.
fn m(text: &str) -> Vec<u8> {
    let (words, payload) = text.split_once(" =").unwrap_or((text, ""));
    let words: Vec<_> = words.split(' ').collect();
    let mut packet = packet(words[0], words[1], words[2].parse().unwrap(), words[3]);
    packet.payload = payload.into();
    let minimal = |value: u32| {
        let bytes = value.to_be_bytes();
        bytes[value.leading_zeros() as usize / 8..].to_vec()
    };
    for word in &words[4..] {
        if let Some(path) = word.strip_prefix('/') {
            path.split('/').for_each(|segment| packet.add_option(CoapOption::UriPath, segment.into()));
        } else if let Some(query) = word.strip_prefix('?') {
            packet.add_option(CoapOption::UriQuery, query.into());
        } else {
            let (name, value) = word.split_once('=').unwrap();
            let number = NAMES.iter().find(|(known, _)| *known == name).unwrap().1;
            let value = match *value.split('/').map(|part| part.parse().unwrap()).collect::<Vec<u32>>() {
                [number, more, exponent] => number << 4 | more << 3 | exponent,
                [value] => value,
                _ => panic!("{word}"),
            };
            packet.add_option(CoapOption::from(number), minimal(value));
        }
    }
    packet.to_bytes().unwrap()
}

/// The same words for a message that was sent.
fn text(bytes: &[u8]) -> String {
    let message = decode(bytes).unwrap_or_else(|error| panic!("{bytes:02x?} was sent: {error}"));
    let token = str::from_utf8(message.token.as_bytes()).unwrap();
    let token = if token.is_empty() { "-" } else { token };
    let code = if message.code == Code::EMPTY { "0.00".into() } else { message.code.to_string() };
    let mut text = format!("{} {code} {} {token}", message.kind, message.id);
    let path: String = message.path().map(|segment| format!("/{segment}")).collect();
    let mut has_path = false;
    for option in message.options.iter() {
        text += &match option.number {
            11 if has_path => continue,
            11 => {
                has_path = true;
                format!(" {path}")
            }
            15 => format!(" ?{}", String::from_utf8_lossy(option.value)),
            number => {
                let name = NAMES.iter().find(|(_, known)| *known == number).unwrap_or(&("?", 0)).0;
                match number {
                    23 | 27 => {
                        let value = option.uint();
                        format!(" {name}={}/{}/{}", value >> 4, value >> 3 & 1, value & 7)
                    }
                    _ => format!(" {name}={}", option.uint()),
                }
            }
        };
    }
    if !message.payload.is_empty() {
        text += &format!(" ={}", String::from_utf8_lossy(message.payload));
    }
    text
}

const NAMES: [(&str, u16); 12] = [
    ("none", 258),
    ("if-match", 1),
    ("observe", 6),
    ("format", 12),
    ("max-age", 14),
    ("block2", 23),
    ("block1", 27),
    ("size1", 60),
    ("echo", 252),
    ("tag", 292),
    ("critical", 2049),
    ("proxy", 35),
];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
