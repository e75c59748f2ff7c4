//! What must hold for a session of WebSocket, whatever its two peers and the policies do.

use std::collections::{HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mgate_policies::{
    Action, Answer, Cause, Chain, Client, Decision, Grant, Now, Policy, Principal, Protocol, Query, Reason,
    Transforms,
};
use mgate_proxy::gate::{
    Authenticators, Copied, Gate, Limits, Mirror, Observer, PacketSeen, SessionEvent, Side,
};
use mgate_proxy::http::websocket::{Context, Session};
use mgate_proxy::http::{Endpoint, Options};

use crate::websocket_frames::{BINARY, CLOSE, Heard, PING, PONG, TEXT, decode, encode};

/// One byte of options, then a story; says how many messages came through.
pub(crate) fn check(input: &[u8]) -> usize {
    let Some((&options, story)) = input.split_first() else { return 0 };
    let mut world = World::new(options);
    let mut script = Script(story);
    while let Some(step) = script.next() {
        world.step(step, &mut script);
    }
    world.finish();
    world.passed
}

/// A session, what is around it, and what its two peers said and heard.
struct World {
    endpoint: Endpoint,
    session: Session,
    now: Now,
    start: Instant,
    rules: Arc<Rules>,
    peers: [Peer; 2],
    passed: usize,
}

/// One side of the session.
#[derive(Default)]
struct Peer {
    /// Said, and not yet taken by the session.
    wire: VecDeque<u8>,
    /// Came, and is no whole frame yet.
    heard: Vec<u8>,
    /// Said a part of a message that is not its last.
    is_within: bool,
    /// Takes of what the session has for it only what the story says.
    is_slow: bool,
    /// Said something of which nobody knows what is in it.
    is_raw: bool,
    /// What its pings carried.
    pings: HashSet<Vec<u8>>,
    /// What the last ping that it heard carried.
    last_ping: Vec<u8>,
    has_heard_close: bool,
    is_gone: bool,
    /// Until when the session waits for a decision about a message of it.
    decides_by: Option<Instant>,
}

/// The rest of a story.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }

    /// What a message carries: most of it may pass.
    fn payload(&mut self) -> Vec<u8> {
        let (kind, length) = (self.byte(), usize::from(self.byte()));
        let start = match kind % 16 {
            0 => DENIED,
            1 => DENIED_LATE,
            2 | 3 => WAITS,
            4 => b"\xff",
            _ => SECRET,
        };
        let length = if kind & 0xc0 == 0xc0 { length * 200 } else { length };
        [start, &vec![b'x'; length]].concat()
    }

    fn close(&mut self) -> Vec<u8> {
        let (kind, reason) = (self.byte(), self.byte());
        let code = [1000u16, 1001, 1005, 1008, 1014, 2999, 3000, 4000][usize::from(kind & 7)];
        match kind & 0x18 {
            0 => Vec::new(),
            0x08 => vec![reason],
            _ => [&code.to_be_bytes()[..], SECRET, &vec![b'r'; usize::from(reason % 120)]].concat(),
        }
    }
}

impl World {
    fn new(options: u8) -> Self {
        let rules = Arc::new(Rules { wants_deliveries: options & 1 != 0, said: Mutex::default() });
        let limits = Limits {
            packet_bytes: MAX_BYTES,
            messages_per_second: (options & 2 != 0).then_some(PER_SECOND),
            idle_timeout: (options & 4 != 0).then_some(Duration::from_secs(4)),
            ..Limits::default()
        };
        let gate = Gate {
            route: "fuzz".into(),
            authenticators: Authenticators::default(),
            transforms: Transforms::default(),
            policies: Chain::new(vec![
                Arc::new(First(Arc::clone(&rules))),
                Arc::new(Last(Arc::clone(&rules))),
            ]),
            mirror: Some(Arc::clone(&rules) as Arc<dyn Mirror>),
            observer: Arc::clone(&rules) as Arc<dyn Observer>,
            limits,
        };
        let options_of_http = Options::of(&gate.limits);
        let endpoint = Endpoint::new(gate, options_of_http, None);
        let now = Now::read();
        let session = Session::new(client(), TOPIC.into(), &Context { endpoint: &endpoint, now });
        let mut peers = [Peer::default(), Peer::default()];
        (peers[0].is_slow, peers[1].is_slow) = (options & 8 != 0, options & 0x10 != 0);
        Self { endpoint, session, now, start: now.instant, rules, peers, passed: 0 }
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        let side = if step & 0x80 == 0 { Side::Client } else { Side::Upstream };
        match step & 0x0f {
            0 | 1 => self.say(side, TEXT, &script.payload()),
            2 => self.say(side, BINARY, &script.payload()),
            3 | 4 => {
                let first = self.part(side, step);
                self.say(side, first, &script.payload());
            }
            5 => {
                let payload = script.bytes();
                self.say(side, PING, &payload);
            }
            6 => {
                let payload = match step & 0x10 {
                    0 => self.peer(side).last_ping.clone(),
                    _ => script.bytes(),
                };
                self.say(side, PONG, &payload);
            }
            7 if step & 0x70 == 0 => self.say(side, CLOSE, &script.close()),
            8 => {
                let bytes = script.bytes();
                self.peer(side).is_raw = true;
                self.peer(side).wire.extend(bytes);
            }
            9 => self.decide(side, step & 0x30 != 0x30),
            10 => self.pass(Duration::from_millis(u64::from(script.byte()).pow(2))),
            11 if step & 0x60 == 0 => {
                self.rules.said().is_strict ^= true;
                self.with(Session::reauthorize);
            }
            12 if step == 0xfc => self.end(|session, cx| session.revoke(Cause::NotAuthorized, cx)),
            13 if step == 0xfd => self.end(Session::drain),
            14 if step == 0xfe => {
                self.peer(side).is_gone = true;
                self.with(|session, cx| session.lose(side, cx));
            }
            15 => {
                let count = usize::from(script.byte()) * usize::from(script.byte());
                self.hear(side, count);
            }
            _ => {}
        }
        self.turn();
    }

    /// Both peers leave in peace: then the session is over, and said so once.
    fn finish(&mut self) {
        for peer in &mut self.peers {
            (peer.is_slow, peer.wire) = (false, VecDeque::new());
        }
        self.end(Session::drain);
        self.turn();
        self.pass(Duration::from_secs(30));
        assert!([Side::Client, Side::Upstream].map(|side| self.session.is_done(side)) == [true; 2]);
        assert_eq!(self.rules.said().closed, 1, "the end is told once");
    }

    fn say(&mut self, side: Side, first: u8, payload: &[u8]) {
        if first == PING && payload.len() <= 125 {
            self.peer(side).pings.insert(payload.to_vec());
        }
        self.peer(side).wire.extend(encode(first, payload, side == Side::Client));
    }

    /// How one of several parts of a message begins: mostly as it should, where it stands.
    fn part(&mut self, side: Side, step: u8) -> u8 {
        let (is_last, is_misplaced) = (step & 0x0f == 4, step & 0x70 == 0x70);
        let is_within = std::mem::replace(&mut self.peer(side).is_within, !is_last);
        let opcode = if is_within != is_misplaced { 0 } else { 1 + (step >> 4 & 1) };
        if is_last { 0x80 | opcode } else { opcode }
    }

    fn end(&mut self, end: impl FnOnce(&mut Session, &Context<'_>)) {
        self.with(end);
        self.rules.said().is_over = true;
    }

    fn decide(&mut self, side: Side, is_allowed: bool) {
        if self.peer(side).decides_by.take().is_none() {
            return;
        }
        let decision = match is_allowed {
            true => Decision::Allow(Grant::default()),
            false => Decision::Deny(Reason::new(Cause::Unavailable)),
        };
        self.with(|session, cx| session.decided(side, decision, cx));
        self.rules.said().is_over |= !is_allowed;
    }

    /// Lets time pass, in which the session is called as it wants to be.
    fn pass(&mut self, time: Duration) {
        let end = self.now.later(time);
        for _ in 0..2000 {
            let cx = Context { endpoint: &self.endpoint, now: self.now };
            let due = self
                .peers
                .iter()
                .filter_map(|peer| peer.decides_by)
                .chain(self.session.poll_timeout(&cx))
                .min();
            let Some(at) = due.filter(|at| *at <= end.instant) else {
                self.now = end;
                return;
            };
            self.now = self.now.later(at.saturating_duration_since(self.now.instant));
            for side in SIDES {
                if self.peer(side).decides_by.is_some_and(|until| until <= self.now.instant) {
                    self.decide(side, false);
                }
            }
            self.turn();
        }
        panic!("the session wants to be called again and again");
    }

    /// What a relay does when it is woken.
    fn turn(&mut self) {
        self.with(Session::pass_time);
        for _ in 0..10_000 {
            let mut has_moved = false;
            for side in SIDES {
                has_moved |= self.ask(side) | self.bring(side);
                has_moved |= !self.peer(side).is_slow && self.hear(side, usize::MAX);
            }
            if !has_moved {
                return;
            }
        }
        panic!("the session never rests");
    }

    /// Begins to wait for the decision that the session wants, or gives up.
    fn ask(&mut self, side: Side) -> bool {
        if let Some((_, until)) = self.session.question(side) {
            self.peer(side).decides_by = Some(until);
        } else if !self.session.is_asking(side) {
            self.peer(side).decides_by = None;
        }
        false
    }

    /// Brings the session what a side said.
    fn bring(&mut self, side: Side) -> bool {
        let is_wanted = self.session.wants(side) && !self.session.is_done(side);
        let peer = self.peer(side);
        if !is_wanted || peer.is_gone || peer.wire.is_empty() {
            return false;
        }
        let count = peer.wire.len().min(READ_BYTES);
        let bytes: Vec<u8> = peer.wire.drain(..count).collect();
        self.with(|session, cx| session.take(side, &bytes, cx));
        true
    }

    /// Has a side take some of what the session has for it.
    fn hear(&mut self, side: Side, most: usize) -> bool {
        let unsent = self.session.unsent(side);
        let count = unsent.len().min(most);
        if count == 0 || self.peers[side as usize].is_gone {
            return false;
        }
        self.peers[side as usize].heard.extend_from_slice(&unsent[..count]);
        self.with(|session, cx| session.sent(side, count, cx));
        while let Some((heard, size)) = decode(&self.peer(side).heard, side == Side::Upstream) {
            self.peer(side).heard.drain(..size);
            self.look(side, heard);
        }
        true
    }

    /// Checks one frame that a side heard.
    fn look(&mut self, to: Side, heard: Heard) {
        assert!(!self.peer(to).has_heard_close, "nothing follows a close");
        match heard {
            Heard::Message(is_text, payload) => {
                assert!(!is_text || str::from_utf8(&payload).is_ok(), "text is UTF-8");
                assert!(payload.len() <= MAX_BYTES, "{} bytes", payload.len());
                let allowed = self.rules.said().allowed[to.other() as usize].pop_front();
                assert!(allowed == Some(payload), "nothing passes that was not allowed, in its order");
                self.passed += 1;
                self.look_at_rate();
            }
            Heard::Ping(payload) => {
                assert_eq!(payload.len(), 8, "a ping passes as a number");
                self.peer(to).last_ping = payload;
            }
            Heard::Pong(payload) => {
                let peer = self.peer(to);
                assert!(peer.is_raw || peer.pings.contains(&payload), "a pong is of what the ping had");
            }
            Heard::Close(code, reason) => {
                assert!(
                    code.is_none_or(|code| (1000..5000).contains(&code) && !(1004..=1006).contains(&code))
                );
                assert!(reason.len() <= 123 && !has_secret(&reason), "the reason stays where it is");
                self.peer(to).has_heard_close = true;
            }
        }
    }

    /// What clients say is counted.
    fn look_at_rate(&self) {
        let Some(per_second) = self.endpoint.gate.limits.messages_per_second else { return };
        let seconds = (self.now.instant - self.start).as_secs();
        let most = u64::from(per_second) * (seconds + 2);
        assert!(self.rules.said().published <= most, "the client is too fast");
    }

    fn with(&mut self, act: impl FnOnce(&mut Session, &Context<'_>)) {
        act(&mut self.session, &Context { endpoint: &self.endpoint, now: self.now });
        for side in SIDES {
            let unsent = self.session.unsent(side).len();
            assert!(unsent <= ROOM + MAX_BYTES + SLACK, "{unsent} bytes wait for the {side}");
        }
    }

    fn peer(&mut self, side: Side) -> &mut Peer {
        &mut self.peers[side as usize]
    }
}

/// What policies decide, and what they and others were shown.
struct Rules {
    wants_deliveries: bool,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    /// Whether what waits is denied at once.
    is_strict: bool,
    /// What all policies allowed, of each side, and was not heard yet.
    allowed: [VecDeque<Vec<u8>>; 2],
    /// The same, for the mirror.
    copies: VecDeque<(Action, Vec<u8>)>,
    /// So many messages of the client were allowed.
    published: u64,
    /// Whether nothing may be asked any more.
    is_over: bool,
    closed: usize,
}

/// The policy that may take its time.
struct First(Arc<Rules>);

/// The policy behind it, whose word is the last.
struct Last(Arc<Rules>);

impl Rules {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deny(&self) -> Answer {
        self.said().is_over = true;
        Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized)))
    }
}

impl Policy for First {
    fn name(&self) -> &str {
        "first"
    }

    fn evaluate(&self, query: &Query<'_>, _now: Now) -> Answer {
        assert!(!self.0.said().is_over, "nothing is asked behind the end");
        assert_eq!(query.resource.to_string(), TOPIC);
        let is_strict = self.0.said().is_strict;
        match query.payload {
            payload if payload.starts_with(WAITS) && !is_strict => {
                Answer::Pending(Box::pin(std::future::pending()))
            }
            payload if payload.starts_with(WAITS) || payload.starts_with(DENIED) => self.0.deny(),
            _ => Answer::Ready(Decision::Abstain),
        }
    }
}

impl Policy for Last {
    fn name(&self) -> &str {
        "last"
    }

    fn evaluate(&self, query: &Query<'_>, _now: Now) -> Answer {
        if query.payload.starts_with(DENIED_LATE) {
            return self.0.deny();
        }
        let from = if query.action == Action::Publish { Side::Client } else { Side::Upstream };
        let mut said = self.0.said();
        said.published += u64::from(from == Side::Client);
        said.allowed[from as usize].push_back(query.payload.to_vec());
        said.copies.push_back((query.action, query.payload.to_vec()));
        Answer::Ready(Decision::Allow(Grant::default()))
    }
}

impl Mirror for Rules {
    fn message(&self, message: &mgate_proxy::gate::Message<'_>) -> Copied {
        let is_wanted = self.wants_deliveries || message.action == Action::Publish;
        assert!(is_wanted && message.topic == TOPIC);
        let copy = (message.action, message.payload.to_vec());
        let mut said = self.said();
        // what passed while nobody wanted a copy, or could not be sent any more, has none
        while said.copies.pop_front().expect("a copy is of what was allowed") != copy {}
        Copied::Taken
    }

    fn wants_deliveries(&self) -> bool {
        self.wants_deliveries
    }
}

impl Observer for Rules {
    fn wants_packets(&self) -> bool {
        true
    }

    fn packet(&self, seen: &PacketSeen<'_>) {
        assert!(!has_secret(seen.packet.to_string().as_bytes()) && seen.frame.is_none());
    }

    fn session(&self, event: &SessionEvent<'_>) {
        if let SessionEvent::Closed { why, .. } = event {
            assert!(!has_secret(why.to_string().as_bytes()), "{why}");
            self.said().closed += 1;
        }
    }
}

fn client() -> Arc<Client> {
    Arc::new(Client {
        principal: Principal::default(),
        client_id: "".into(),
        username: None,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
        route: "fuzz".into(),
        protocol: Protocol::Http,
        is_encrypted: false,
    })
}

fn has_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|part| part == SECRET)
}

const SIDES: [Side; 2] = [Side::Client, Side::Upstream];
const TOPIC: &str = "a/b";
const SECRET: &[u8] = b"s3cret";
const DENIED: &[u8] = b"s3cret: denied";
const DENIED_LATE: &[u8] = b"s3cret: denied late";
const WAITS: &[u8] = b"s3cret: waits";
const MAX_BYTES: usize = 40_000;
const PER_SECOND: u32 = 5;
const READ_BYTES: usize = 8 * 1024;
/// What may wait for a side before the other one is no longer read.
const ROOM: usize = 64 * 1024;
/// For what is sent beside the last message: heads, pongs and a close.
const SLACK: usize = 4096;
