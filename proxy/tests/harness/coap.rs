//! What must hold for whatever datagrams CoAP is given, and for a session, whatever its peers and policies do.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mgate_policies::{
    Answer, Cause, Chain, Decision, Grant, Now, Policy, Principal, Query, Reason, Transforms,
};
use mgate_proxy::coap::codec::decode;
use mgate_proxy::coap::encode::encode_without;
use mgate_proxy::coap::message::{Block, Code, Kind, Message, number};
use mgate_proxy::coap::session::{Context, Input, Outbox, Output, Peer, Session};
use mgate_proxy::coap::{Deliveries, Endpoint, Options, Profile, Upstream};
use mgate_proxy::gate::{
    Authentication, Authenticator, Authenticators, Copied, Credentials, Gate, Limits, Mirror, Observer,
    PacketSeen, SessionEvent, Side, Verdict,
};

/// Decodes, shows and encodes one datagram.
pub(crate) fn check_datagram(bytes: &[u8]) {
    let Ok(message) = decode(bytes) else { return };
    assert!(message.to_string().starts_with(&message.kind.to_string()));
    let mut again = Vec::new();
    encode_without(&message, |_| false, &mut again);
    assert_eq!(again, bytes, "encoding changes nothing");
    let uint =
        |wanted| message.options.iter().find(|option| option.number == wanted).map(|option| option.uint());
    if message.known.fault.is_none() {
        assert_eq!(message.known.observe, uint(number::OBSERVE));
        assert_eq!(message.known.block1, uint(number::BLOCK1).and_then(Block::from_uint));
        assert_eq!(message.known.block2, uint(number::BLOCK2).and_then(Block::from_uint));
    }
    again.clear();
    encode_without(&message, |option| option.number == number::URI_QUERY, &mut again);
    let cut = decode(&again).expect("what is left is a message");
    assert_eq!((cut.queries().count(), cut.payload, cut.token), (0, message.payload, message.token));
    assert!(cut.path().eq(message.path()));
}

/// One byte of options, then a story; says how many messages came through.
pub(crate) fn check_session(input: &[u8]) -> usize {
    let Some((&options, story)) = input.split_first() else { return 0 };
    let mut world = World::new(options);
    let mut script = Script(story);
    while let Some(step) = script.byte() {
        world.step(step, &mut script);
    }
    world.passed
}

/// How many bytes behind a step belong to it, where it has a fixed number of them.
#[allow(dead_code, reason = "only stories made by chance are made of whole steps")]
pub(crate) fn arguments(step: u8) -> usize {
    match step & 0x0f {
        0..=4 => 4,
        5..=7 => 2,
        8 | 12 => 1,
        _ => 0,
    }
}

/// A session, what is around it, and what the two sides were sent.
struct World {
    endpoint: Endpoint,
    session: Session,
    out: Outbox,
    now: Now,
    rules: Arc<Rules>,
    waits: Waits,
    /// What the upstream was sent last under an identifier, since when, and how often.
    requests: HashMap<u16, (Vec<u8>, Instant, usize)>,
    /// What the client sent last under an identifier.
    sent: HashMap<u16, Vec<u8>>,
    /// What the upstream said, which the client may be sent.
    said: HashSet<Vec<u8>>,
    /// The tokens of requests that were passed on.
    tokens: HashSet<Vec<u8>>,
    /// Whether it gets a socket to the upstream as soon as it wants one.
    is_eager: bool,
    /// Whether it has a socket: without one, the upstream says nothing.
    is_open: bool,
    /// Whether something slow was ever allowed.
    is_granted: bool,
    is_closed: bool,
    /// Identifier and token of what the upstream heard last.
    last_request: (u16, u8),
    /// The identifier of what the client heard last.
    last_answer: u16,
    passed: usize,
}

/// What the session asked for and was not yet given.
#[derive(Default)]
struct Waits {
    client: bool,
    upstream: bool,
    identify: bool,
    review: bool,
    dial: bool,
    stores: usize,
}

/// The rest of a story.
struct Script<'a>(&'a [u8]);

impl World {
    fn new(options: u8) -> Self {
        let (stores, is_repeatable) = (options & 4 != 0, options & 0x80 != 0);
        let rules = Arc::new(Rules { stores, is_repeatable, ..Rules::default() });
        let mut limits = Limits { packet_bytes: 256, subscriptions: 3, ..Limits::default() };
        limits.messages_per_second = (options & 8 != 0).then_some(5);
        let gate = Gate {
            route: "fuzz".into(),
            authenticators: Authenticators::new(vec![rules.clone()]),
            transforms: Transforms::default(),
            policies: Chain::new(vec![rules.clone()]),
            mirror: Some(rules.clone()),
            observer: rules.clone(),
            limits,
        };
        let (is_eager, ends_here) = (options & 0x30 != 0, options & 0x41 == 0x40);
        let options = Options {
            profile: if options & 1 == 0 { Profile::Messages } else { Profile::Proxy },
            deliveries: if options & 2 == 0 { Deliveries::Ask } else { Deliveries::Pass },
            has_challenge: false,
            hosts: Vec::new(),
        };
        let upstream = (!ends_here).then(|| Upstream { host: "upstream".to_owned(), port: 5683 });
        let endpoint = Endpoint::new(gate, options, upstream);
        let now = Now::read();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let peer = Peer { address, certificate: None, psk_identity: None, is_encrypted: false };
        let session = Session::new(&endpoint, peer, now);
        Self {
            endpoint,
            session,
            out: Outbox::default(),
            now,
            rules,
            waits: Waits::default(),
            requests: HashMap::new(),
            sent: HashMap::new(),
            said: HashSet::new(),
            tokens: HashSet::new(),
            is_eager,
            is_open: false,
            is_granted: false,
            is_closed: false,
            last_request: (0, 0),
            last_answer: 0,
            passed: 0,
        }
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        match step & 0x0f {
            0..=4 => self.send(Side::Client, &script.request()),
            5..=7 => self.send(Side::Upstream, &script.response(self.last_request)),
            8 => self.send(Side::Client, &script.empty(self.last_answer)),
            9 => {
                let side = if step & 0x10 == 0 { Side::Client } else { Side::Upstream };
                let bytes = script.bytes();
                self.send(side, &bytes);
            }
            10 => self.decide(step),
            11 if std::mem::take(&mut self.waits.identify) => {
                let verdict = match step & 0x10 {
                    0 => Verdict::Accepted(Principal { id: "late".into(), ..Principal::default() }),
                    _ => Verdict::Rejected(Reason::new(Cause::BadCredentials)),
                };
                self.input(Input::Identified(verdict));
            }
            12 => self.pass(Duration::from_millis(u64::from(script.byte().unwrap_or(0)).pow(2))),
            13 if step & 0x30 == 0 => {
                self.rules.is_strict.fetch_xor(true, Ordering::Relaxed);
                self.input(Input::Reauthorize);
            }
            13 if step & 0x30 == 0x10 && std::mem::take(&mut self.is_open) => self.input(Input::Lost),
            13 if step == 0xfd => self.input(Input::Drain),
            14 if self.waits.stores > 0 => {
                self.waits.stores -= 1;
                let failed = Err(Reason::new(Cause::Unavailable));
                self.input(Input::Stored(if step & 0x10 == 0 { Ok(()) } else { failed }));
            }
            15 if std::mem::take(&mut self.waits.dial) => {
                self.is_open = step & 0x70 != 0x70;
                self.input(Input::Upstream(if self.is_open { Ok(()) } else { Err("gone".into()) }));
            }
            _ => {}
        }
    }

    fn decide(&mut self, step: u8) {
        let is_allowed = step & 0x10 == 0;
        let decision = match is_allowed {
            true => Decision::Allow(Grant::default()),
            false => Decision::Deny(Reason::new(Cause::NotAuthorized)),
        };
        self.is_granted |= is_allowed;
        if std::mem::take(&mut self.waits.client) {
            self.input(Input::Decided(Side::Client, decision));
        } else if std::mem::take(&mut self.waits.upstream) {
            self.input(Input::Decided(Side::Upstream, decision));
        } else if std::mem::take(&mut self.waits.review) {
            self.input(Input::Reviewed(decision));
        }
    }

    fn send(&mut self, side: Side, datagram: &[u8]) {
        if side == Side::Upstream && !self.is_open {
            return;
        }
        let is_message = decode(datagram).is_ok();
        if let Ok(message) = decode(datagram) {
            let path: String = message.path().map(|segment| format!("/{}", segment.escape_debug())).collect();
            self.rules.paths.lock().expect("nobody panicked").extend(path.contains("auth=").then_some(path));
        }
        if let (Side::Client, Ok(message)) = (side, decode(datagram))
            && self.sent.insert(message.id, datagram.to_vec()).is_none_or(|before| before != datagram)
            && let Some((.., count)) = self.requests.get_mut(&message.id)
        {
            // another request, of which the upstream may see the same
            *count = 0;
        }
        if side == Side::Upstream && is_message {
            self.said.insert(datagram.to_vec());
        }
        let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        self.session.handle_input(Input::Datagram(side, datagram), cx);
        assert!(is_message || self.out.iter().next().is_none(), "garbage is not answered");
        self.look(Some((side, datagram)));
    }

    fn input(&mut self, input: Input<'_>) {
        let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        self.session.handle_input(input, cx);
        self.look(None);
    }

    /// Lets time pass, in which the session is called as it wants to be.
    fn pass(&mut self, time: Duration) {
        let end = self.now.later(time);
        for _ in 0..1000 {
            let Some(at) = self.session.poll_timeout(&self.endpoint).filter(|at| *at <= end.instant) else {
                self.now = end;
                return;
            };
            self.now = self.now.later(at.saturating_duration_since(self.now.instant));
            let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
            self.session.handle_timeout(cx);
            self.look(None);
        }
        panic!("the session wants to be called again and again");
    }

    /// Checks what was sent, and keeps what was asked for.
    fn look(&mut self, cause: Option<(Side, &[u8])>) {
        let out = std::mem::take(&mut self.out);
        assert!(!self.is_closed || out.iter().next().is_none(), "nothing follows the end");
        for (side, datagram) in out.iter() {
            let message = decode(datagram).expect("only messages are sent");
            match side {
                Side::Client => self.look_at_answer(&message, cause),
                Side::Upstream => self.look_at_request(&message),
            }
        }
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Close => self.is_closed = true,
                Output::Decide(Side::Client, _) => self.waits.client = true,
                Output::Decide(Side::Upstream, _) => self.waits.upstream = true,
                Output::Dial => {
                    assert!(self.endpoint.upstream.is_some(), "there is nobody to be dialed");
                    self.waits.dial = true;
                }
                Output::HangUp => (self.is_open, self.waits.dial) = (false, false),
                Output::Identify(_) => self.waits.identify = true,
                Output::Review(_) => self.waits.review = true,
                Output::Store(_) => self.waits.stores += 1,
            }
        }
        if self.is_eager && std::mem::take(&mut self.waits.dial) {
            self.is_open = true;
            self.input(Input::Upstream(Ok(())));
        }
    }

    /// The client is sent what the upstream said to it, or a short word of the session's own.
    fn look_at_answer(&mut self, message: &Message<'_>, cause: Option<(Side, &[u8])>) {
        assert!(!message.is_request(), "devices are asked nothing");
        if self.said.contains(message.bytes) {
            let is_repeated = matches!(cause, Some((Side::Client, _)));
            assert!(is_repeated || !self.is_withdrawn(message), "{message} passed though nobody may have it");
            (self.passed, self.last_answer) = (self.passed + 1, message.id);
            let is_known = message.code == Code::EMPTY || self.tokens.contains(message.token.as_bytes());
            self.look_at_notification(message);
            return assert!(is_known, "nobody asked for {message}");
        }
        let is_success = message.code.is_success() && self.endpoint.upstream.is_none();
        self.passed += usize::from(is_success);
        assert!(message.payload.is_empty(), "{message}");
        assert!(is_success || matches!(message.code.class(), 0 | 4 | 5), "{message}");
        let is_ours = |wanted| match wanted {
            number::MAX_AGE | number::SIZE1 => !is_success,
            wanted => is_success && wanted == number::BLOCK1,
        };
        assert!(message.options.iter().all(|option| is_ours(option.number)), "{message}");
        if let Some((Side::Client, asked)) = cause
            && decode(asked).is_ok_and(|asked| asked.id == message.id)
        {
            assert!(message.bytes.len() <= asked.len(), "{message} is larger than what was asked");
        }
    }

    /// The upstream is sent what may pass, without secrets, and never two things under one identifier.
    fn look_at_request(&mut self, message: &Message<'_>) {
        assert!(self.endpoint.upstream.is_some(), "{message} went somewhere");
        if !message.is_request() {
            return assert!(message.code == Code::EMPTY && message.kind != Kind::Confirmable, "{message}");
        }
        self.passed += 1;
        let path: Vec<_> = message.path().collect();
        assert!(message.known.fault.is_none() && message.code.method().is_some(), "{message}");
        assert!(!message.queries().any(|query| query.starts_with("auth=")), "a secret went to the upstream");
        assert!(!path.contains(&"secret"), "{message} was denied");
        assert!(self.is_granted || !path.contains(&"slow"), "{message} was not decided");
        assert!(message.bytes.len() <= 256, "{message} is too large");
        let is_deregistration = message.known.observe == Some(1);
        assert!(
            !self.is_strict() || path.last() != Some(&"a") || is_deregistration,
            "{message} was withdrawn"
        );
        self.last_request = (message.id, message.token.as_bytes().first().copied().unwrap_or(0));
        self.tokens.insert(message.token.as_bytes().to_vec());
        // the client counts from when it sent it, which may have waited for a decision and a socket since
        let lifetime = Duration::from_secs(247 - 30);
        match self.requests.get_mut(&message.id) {
            Some((before, at, count)) if before == message.bytes && self.now.instant < *at + lifetime => {
                *count += 1;
                assert!(*count <= MAX_SENT, "{message} was sent again and again");
            }
            _ => _ = self.requests.insert(message.id, (message.bytes.to_vec(), self.now.instant, 1)),
        }
    }

    /// Whether a message acknowledges a request that is allowed no more.
    fn is_withdrawn(&self, message: &Message<'_>) -> bool {
        let is_answer = message.kind == Kind::Acknowledgement && message.code != Code::EMPTY;
        let request = self.requests.get(&message.id).and_then(|(bytes, ..)| decode(bytes).ok());
        is_answer && self.is_strict() && request.is_some_and(|request| request.path().last() == Some("a"))
    }

    fn is_strict(&self) -> bool {
        self.rules.is_strict.load(Ordering::Relaxed)
    }

    /// What policies deny of an observation does not pass, and is not taken for the answer to something else.
    fn look_at_notification(&self, message: &Message<'_>) {
        let is_shown = message.code.is_success() && !message.known.block2.is_some_and(|block| block.has_more);
        let is_asked = self.endpoint.options.deliveries == Deliveries::Ask && !self.rules.is_repeatable;
        let answered = self.requests.get(&message.id).and_then(|(bytes, ..)| decode(bytes).ok());
        let is_notification = match message.kind {
            Kind::Acknowledgement => answered.is_some_and(|request| {
                request.known.observe == Some(0) && matches!(request.code, Code::GET | FETCH)
            }),
            _ => message.known.observe.is_some(),
        };
        assert!(
            !(is_shown && is_asked && is_notification && message.payload == DENIED),
            "{message} passed unasked"
        );
    }
}

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[usize::from(self.byte().unwrap_or(0)) % all.len()]
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.byte().unwrap_or(0);
        (0..length).map_while(|_| self.byte()).collect()
    }

    /// A request as devices make them, under one of few identifiers and tokens.
    fn request(&mut self) -> Vec<u8> {
        let [head, names, blocks] = [0; 3].map(|none: u8| self.byte().unwrap_or(none));
        let kind = if head & 0x10 == 0 { Kind::Confirmable } else { Kind::NonConfirmable };
        let code = [1, 2, 1, 2, 3, 2, 5, 8][usize::from(head & 7)];
        let mut options: Vec<(u16, Vec<u8>)> = Vec::new();
        match head & 0x60 {
            0x20 => options.push((number::OBSERVE, vec![])),
            0x40 => options.push((number::OBSERVE, vec![1])),
            _ => {}
        }
        let mut path = vec!["channels", "1", "messages"];
        path.extend(match names & 0x0f {
            0 => Some("secret"),
            1 => Some("slow"),
            2..=5 => Some("a"),
            _ => None,
        });
        options.extend(path.into_iter().map(|segment| (number::URI_PATH, segment.into())));
        let key = self.pick::<str>(&[
            "",
            "",
            "auth=good",
            "auth=good",
            "auth=other",
            "x=1",
            "auth=slow",
            "auth=bad",
        ]);
        if !key.is_empty() {
            options.push((number::URI_QUERY, key.into()));
        }
        let block = vec![(blocks & 3) << 4 | (blocks & 4) << 1];
        match blocks & 0xf0 {
            0x10 | 0x30 => options.push((number::BLOCK1, block)),
            0x20 | 0x40 => options.push((number::BLOCK2, block)),
            _ => {}
        }
        message(kind, code, (u16::from(names >> 4), head >> 7), &options, b"0123456789abcdef")
    }

    /// A response as servers make them, or a notification.
    fn response(&mut self, last: (u16, u8)) -> Vec<u8> {
        let [head, names] = [0; 2].map(|none: u8| self.byte().unwrap_or(none));
        let kind =
            [Kind::Acknowledgement, Kind::Confirmable, Kind::NonConfirmable][usize::from(head & 3) % 3];
        let code = [0x44, 0x45, 0x45, 0x84][usize::from(head >> 2 & 3)];
        let mut options: Vec<(u16, Vec<u8>)> = Vec::new();
        if head & 0x10 != 0 {
            options.push((number::OBSERVE, vec![names]));
        }
        if head & 0x20 != 0 {
            options.push((number::BLOCK2, vec![8]));
        }
        if head & 0x40 != 0 && kind == Kind::Acknowledgement {
            return vec![0x60, 0, 0, names >> 4];
        }
        let own = u16::from(names >> 4) + 0x100;
        let (id, token) = match (kind, names & 3) {
            (_, 0) => (u16::from(names >> 4), head >> 7),
            (Kind::Acknowledgement, _) => last,
            _ => (own, last.1),
        };
        let payload = if names & 4 == 0 { &b"value"[..] } else { DENIED };
        message(kind, code, (id, token), &options, payload)
    }

    /// An acknowledgement or a rejection.
    fn empty(&mut self, last: u16) -> Vec<u8> {
        let head = self.byte().unwrap_or(0);
        let [high, low] = if head & 6 == 0 { [0, head >> 4] } else { last.to_be_bytes() };
        vec![if head & 1 == 0 { 0x60 } else { 0x70 }, 0, high, low]
    }
}

/// Allows what is not secret, and takes its time for what is slow.
#[derive(Default)]
struct Rules {
    stores: bool,
    /// Whether what they say may be remembered; payloads count for nothing then.
    is_repeatable: bool,
    /// Whether what ends in `a` is denied too.
    is_strict: AtomicBool,
    /// The paths that were asked for, as they are shown: what looks like a key there is none.
    paths: Mutex<HashSet<String>>,
}

impl Policy for Rules {
    fn name(&self) -> &str {
        "rules"
    }

    fn evaluate(&self, query: &Query<'_>, _now: Now) -> Answer {
        let name = query.resource.to_string();
        if !self.is_repeatable && query.payload == DENIED {
            return Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized)));
        }
        if name.contains("secret") || (self.is_strict.load(Ordering::Relaxed) && name.ends_with("/a")) {
            return Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized)));
        }
        if name.contains("slow") {
            return Answer::Pending(Box::pin(std::future::pending()));
        }
        let mut grant = Grant::default();
        grant.ttl = self.is_repeatable.then_some(Duration::from_secs(5));
        Answer::Ready(Decision::Allow(grant))
    }

    fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }
}

impl Authenticator for Rules {
    fn name(&self) -> &str {
        "rules"
    }

    fn authenticate(&self, credentials: &Credentials<'_>, _now: Now) -> Authentication {
        match credentials.password {
            Some(b"slow") => Authentication::Pending(Box::pin(std::future::pending())),
            Some(b"bad") => Authentication::Ready(Verdict::Rejected(Reason::new(Cause::BadCredentials))),
            _ => Authentication::Ready(Verdict::Accepted(Principal::default())),
        }
    }
}

impl Mirror for Rules {
    fn message(&self, message: &mgate_proxy::gate::Message<'_>) -> Copied {
        assert!(!message.topic.contains("secret"), "what was denied is mirrored");
        match self.stores {
            true => Copied::Storing(Box::pin(std::future::pending())),
            false => Copied::Taken,
        }
    }

    fn wants_deliveries(&self) -> bool {
        true
    }
}

impl Observer for Rules {
    fn wants_packets(&self) -> bool {
        true
    }

    fn packet(&self, seen: &PacketSeen<'_>) {
        let (text, paths) = (seen.packet.to_string(), self.paths.lock().expect("nobody panicked"));
        let is_path = paths.iter().any(|path| !text.replace(path, "").contains("auth="));
        assert!(is_path || !text.contains("auth="), "a secret is shown");
        let has_secret = |frame: &[u8]| frame.windows(5).any(|part| part == b"auth=");
        let is_client = seen.from == Side::Client && decode(seen.frame.unwrap_or_default()).is_ok();
        assert!(!is_client || !seen.frame.is_some_and(|frame| has_query(frame) && has_secret(frame)));
    }

    fn session(&self, _event: &SessionEvent<'_>) {}
}

fn has_query(frame: &[u8]) -> bool {
    decode(frame).is_ok_and(|message| message.queries().any(|query| query.starts_with("auth=")))
}

/// A message with a token of one byte.
fn message(
    kind: Kind,
    code: u8,
    (id, token): (u16, u8),
    options: &[(u16, Vec<u8>)],
    payload: &[u8],
) -> Vec<u8> {
    let kind = match kind {
        Kind::Confirmable => 0,
        Kind::NonConfirmable => 1,
        Kind::Acknowledgement => 2,
        Kind::Reset => 3,
    };
    let [high, low] = id.to_be_bytes();
    let (mut bytes, mut last) = (vec![0x41 | kind << 4, code, high, low, token], 0);
    for (number, value) in options {
        // no option here is longer, or so far from the last that it takes two bytes
        let delta = number - last;
        let nibble = if delta < 13 { delta as u8 } else { 13 };
        bytes.push(nibble << 4 | value.len() as u8);
        if nibble == 13 {
            bytes.push((delta - 13) as u8);
        }
        bytes.extend_from_slice(value);
        last = *number;
    }
    bytes.push(0xff);
    bytes.extend_from_slice(payload);
    bytes
}

const FETCH: Code = Code::of(0, 5);

/// One request, four times once more, and as many others as wait behind each other.
const MAX_SENT: usize = 5 + 8;

/// What policies deny.
const DENIED: &[u8] = b"secret";
