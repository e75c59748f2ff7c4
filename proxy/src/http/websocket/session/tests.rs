use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use mgate_policies::{Answer, Chain, Grant, Policy, Principal, Protocol, Transforms};

use super::*;
use crate::gate::{Authenticators, Copied, Gate, Limits, Mirror, Observer};
use crate::http::Options;

#[test]
fn messages_pass_both_ways_and_are_mirrored() {
    let mut story = Story::new();
    story.seen.wants_deliveries.store(true, Ordering::Relaxed);
    story.client_sends(&masked(TEXT, b"up"));
    story.upstream_sends(&frame(BINARY, b"down"));
    assert_eq!(story.upstream_hears(), [text("up")]);
    assert_eq!(story.client_hears(), [Event::Message(message(false, b"down"))]);
    let mirrored = [(Action::Publish, "a/b", &b"up"[..]), (Action::Deliver, "a/b", b"down")];
    let expected = mirrored.map(|(action, topic, payload)| (action, topic.to_owned(), payload.to_vec()));
    assert_eq!(*story.seen.mirrored.lock().unwrap(), expected);
}

#[test]
fn deliveries_are_mirrored_only_where_they_are_wanted() {
    let mut story = Story::new();
    story.upstream_sends(&frame(TEXT, b"down"));
    assert_eq!(story.client_hears(), [text("down")]);
    assert!(story.seen.mirrored.lock().unwrap().is_empty());
}

#[test]
fn denied_message_goes_nowhere_and_closes_both_sides() {
    for from in SIDES {
        let mut story = Story::new();
        let denied = frames_of(from, &[(TEXT, b"one"), (TEXT, b"deny"), (TEXT, b"two")]);
        story.take(from, &denied);
        let mut heard = story.hears(from.other());
        assert_eq!(heard.remove(0), text("one"));
        assert_eq!(codes(&heard), [1008], "from {from}");
        assert_eq!(codes(&story.hears(from)), [1008], "from {from}");
        assert_eq!(*story.seen.closed.lock().unwrap(), ["a message was denied"]);
        assert_eq!(story.seen.denied.lock().unwrap().len(), 1);
        if from == Side::Client {
            assert_eq!(story.seen.mirrored.lock().unwrap().len(), 1, "only what passed");
        }
    }
}

#[test]
fn message_without_a_decision_closes_with_another_code() {
    let mut story = Story::new();
    story.client_sends(&masked(TEXT, b"unavailable"));
    assert_eq!((codes(&story.client_hears()), codes(&story.upstream_hears())), (vec![1013], vec![1013]));
}

#[test]
fn messages_wait_in_their_order_for_a_decision() {
    let mut story = Story::new();
    story.client_sends(&[masked(TEXT, b"wait"), masked(TEXT, b"behind")].concat());
    assert!(story.session.question(Side::Client).is_some() && story.session.is_asking(Side::Client));
    assert!(!story.session.wants(Side::Client), "no more is read meanwhile");
    assert_eq!(story.upstream_hears(), []);
    story.upstream_sends(&frame(TEXT, b"down"));
    assert_eq!(story.client_hears(), [text("down")], "the other side does not wait");
    story.decides(Side::Client, Decision::Allow(Grant::default()));
    assert_eq!(story.upstream_hears(), [text("wait"), text("behind")]);
    assert!(story.session.wants(Side::Client));
}

#[test]
fn answer_that_comes_too_late_or_to_nobody_opens_nothing() {
    let mut story = Story::new();
    story.client_sends(&masked(TEXT, b"wait"));
    story.with(|session, cx| session.revoke(Cause::NotAuthorized, cx));
    story.decides(Side::Client, Decision::Allow(Grant::default()));
    assert_eq!(codes(&story.upstream_hears()), [1008]);
    let mut story = Story::new();
    story.decides(Side::Client, Decision::Allow(Grant::default()));
    assert_eq!(story.upstream_hears(), []);
}

#[test]
fn all_policies_together_have_the_time_of_one_decision() {
    let mut story = Story::new();
    story.endpoint.gate.policies = Chain::new(vec![Arc::new(Rules), Arc::new(Rules)]);
    let limit = story.endpoint.gate.limits.decision_timeout;
    let until = story.now.instant + limit;
    story.client_sends(&[masked(TEXT, b"wait"), masked(TEXT, b"wait")].concat());
    for _ in 0..2 {
        assert_eq!(story.session.question(Side::Client).map(|(_, by)| by), Some(until));
        story.waits(limit / 4);
        story.decides(Side::Client, Decision::Allow(Grant::default()));
    }
    assert_eq!(story.upstream_hears(), [text("wait")]);
    let next = story.session.question(Side::Client).map(|(_, by)| by);
    assert_eq!(next, Some(until + limit / 2), "each message has its own");
}

#[test]
fn held_message_is_told_what_became_of_it() {
    let ends: [fn(&mut Story); 2] = [
        |story| story.with(Session::drain),
        |story| story.with(|session, cx| session.lose(Side::Upstream, cx)),
    ];
    for end in ends {
        let mut story = Story::new();
        story.client_sends(&masked(TEXT, b"wait"));
        assert_eq!(*story.seen.fates.lock().unwrap(), ["held"]);
        end(&mut story);
        assert_eq!(*story.seen.fates.lock().unwrap(), ["held", "denied"]);
    }
}

#[test]
fn what_waits_is_asked_about_again_when_rights_change() {
    let mut story = Story::new();
    story.client_sends(&masked(TEXT, b"wait"));
    assert!(story.session.question(Side::Client).is_some());
    story.with(Session::reauthorize);
    assert!(story.session.question(Side::Client).is_some(), "the earlier question means nothing now");
    story.endpoint.gate.policies = Chain::new(Vec::new());
    story.with(Session::reauthorize);
    assert_eq!(codes(&story.client_hears()), [1008]);
    assert_eq!(codes(&story.upstream_hears()), [1008]);
}

#[test]
fn client_that_is_too_fast_waits_for_its_turn() {
    let mut story = Story::with_limits(|limits| limits.messages_per_second = Some(1));
    story.client_sends(&[masked(TEXT, b"1"), masked(TEXT, b"2")].concat());
    story.upstream_sends(&[frame(TEXT, b"a"), frame(TEXT, b"b")].concat());
    assert_eq!(story.upstream_hears(), [text("1")]);
    assert_eq!(story.client_hears().len(), 2, "only clients are counted");
    assert!(!story.session.wants(Side::Client));
    story.waits(Duration::from_secs(1));
    assert_eq!(story.upstream_hears(), [text("2")]);
    assert!(story.session.wants(Side::Client));
}

#[test]
fn side_that_takes_nothing_stops_the_other_and_is_given_up() {
    let mut story = Story::new();
    let large = masked(BINARY, &vec![0; ROOM]);
    story.client_sends(&large);
    assert!(!story.session.wants(Side::Client) && story.session.wants(Side::Upstream));
    let half = story.session.unsent(Side::Upstream).len() / 2;
    story.with(|session, cx| session.sent(Side::Upstream, half, cx));
    assert!(story.session.wants(Side::Client));
    let stall_timeout = story.endpoint.gate.limits.stall_timeout;
    story.endpoint.gate.limits.idle_timeout = Some(stall_timeout * 10);
    story.client_sends(&large);
    story.waits(stall_timeout);
    assert_eq!(codes(&story.client_hears()), [1014]);
    assert_eq!(*story.seen.closed.lock().unwrap(), ["upstream: it takes nothing"]);
}

#[test]
fn silent_side_is_asked_and_then_given_up() {
    for (silent, other, code) in [(Side::Client, Side::Upstream, 1001), (Side::Upstream, Side::Client, 1014)]
    {
        let mut story = Story::with_limits(|limits| limits.idle_timeout = Some(Duration::from_secs(20)));
        for _ in 0..5 {
            story.waits(Duration::from_secs(10));
            assert!(matches!(story.hears(silent)[..], [Event::Ping(_)]));
            let [Event::Ping(number)] = &story.hears(other)[..] else { panic!("a ping") };
            let pong = frames_of(other, &[(PONG, number)]);
            story.take(other, &pong);
            let answer = frames_of(silent, &[(PONG, b"whatever it says")]);
            story.take(silent, &answer);
        }
        story.waits(Duration::from_secs(10));
        story.hears(silent);
        let [Event::Ping(number)] = &story.hears(other)[..] else { panic!("a ping") };
        let pong = frames_of(other, &[(PONG, number)]);
        story.take(other, &pong);
        assert!(!story.session.is_ended);
        story.waits(Duration::from_secs(10));
        assert_eq!(codes(&story.hears(other)).last(), Some(&code), "{silent} is silent");
    }
}

#[test]
fn message_must_come_in_time() {
    for from in SIDES {
        let mut story = Story::new();
        let within = story.endpoint.gate.limits.stall_timeout * 10;
        story.endpoint.gate.limits.idle_timeout = Some(within * 10);
        let first = frames_of(from, &[(BINARY_FIRST, b"")]);
        let more = frames_of(from, &[(MORE, b"")]);
        let next = frames_of(from, &[(LAST, b""), (BINARY_FIRST, b"")]);
        story.take(from, &first);
        for _ in 0..2 {
            story.waits(within / 2);
            story.take(from, &more);
            story.waits(within / 4);
            assert!(!story.session.is_ended);
            // the next one has its own time
            story.take(from, &next);
            assert_eq!(story.hears(from.other()), [Event::Message(message(false, b""))]);
        }
        story.waits(within / 2);
        story.take(from, &more);
        story.waits(within / 2);
        assert_eq!(codes(&story.hears(from)), [1008], "from {from}");
        assert_eq!(
            *story.seen.closed.lock().unwrap(),
            [format!("the {from} broke the rules: message too slow")]
        );
    }
}

#[test]
fn pings_go_through_and_what_they_carry_does_not() {
    let mut story = Story::new();
    story.client_sends(&[masked(PING, b"secret-1"), masked(PING, b"secret-2")].concat());
    let heard = story.upstream_hears();
    let [Event::Ping(first), Event::Ping(second)] = &heard[..] else { panic!("{heard:?}") };
    assert!(first.len() == 8 && second.len() == 8 && !first.starts_with(b"secret"));
    story.upstream_sends(&[frame(PONG, b"unasked"), frame(PONG, second)].concat());
    let pongs = [b"secret-1", b"secret-2"].map(|payload| Event::Pong(Bytes::from_static(payload)));
    assert_eq!(story.client_hears(), pongs);
    story.upstream_sends(&frame(PONG, second));
    assert_eq!(story.client_hears(), [], "each is answered once");
    let many: Vec<u8> = (0..100).flat_map(|_| masked(PING, b"")).collect();
    story.client_sends(&many);
    assert_eq!(story.session.half(Side::Upstream).pings.len(), MAX_PINGS);
}

#[test]
fn close_goes_through_both_ways_without_its_reason() {
    for from in SIDES {
        let mut story = Story::new();
        let bye = frames_of(from, &[(CLOSE, b"\x0f\xa1bye"), (TEXT, b"ignored")]);
        story.take(from, &bye);
        let closing = Close { code: Some(4001), reason: Bytes::new() };
        assert_eq!(story.hears(from.other()), [Event::Close(closing)]);
        assert_eq!(story.hears(from), [], "the other side answers");
        let last = frames_of(from.other(), &[(TEXT, b"last"), (CLOSE, b"\x0f\xa1")]);
        story.take(from.other(), &last);
        let heard = story.hears(from);
        assert_eq!((&heard[0], codes(&heard[1..])), (&text("last"), vec![4001]));
        assert!(story.session.is_over());
        assert_eq!(*story.seen.closed.lock().unwrap(), [format!("the {from} closed it with 4001")]);
    }
}

#[test]
fn close_that_is_not_answered_ends_it_too() {
    let mut story = Story::new();
    story.client_sends(&masked(CLOSE, b""));
    assert_eq!(story.upstream_hears(), [Event::Close(Close::default())]);
    story.waits(CLOSING);
    assert_eq!(codes(&story.client_hears()), [1001]);
    story.waits(CLOSING);
    assert!(story.session.is_over());
}

#[test]
fn side_that_breaks_off_is_told_of_to_the_other() {
    for (lost, other, code) in [(Side::Client, Side::Upstream, 1001), (Side::Upstream, Side::Client, 1014)] {
        let mut story = Story::new();
        story.with(|session, cx| session.lose(lost, cx));
        assert_eq!(codes(&story.hears(other)), [code]);
        assert!(!story.session.is_over());
        let answer = frames_of(other, &[(CLOSE, b"")]);
        story.take(other, &answer);
        assert!(story.session.is_over());
    }
}

#[test]
fn drain_tells_both_sides_and_takes_no_more() {
    let mut story = Story::new();
    story.with(Session::drain);
    assert_eq!((codes(&story.client_hears()), codes(&story.upstream_hears())), (vec![1001], vec![1001]));
    story.client_sends(&masked(TEXT, b"late"));
    assert_eq!(story.upstream_hears(), []);
    story.client_sends(&masked(CLOSE, b"\x03\xe9"));
    assert!(story.session.is_done(Side::Client), "it need not wait for the other side");
    assert!(!story.session.is_done(Side::Upstream));
    story.upstream_sends(&frame(CLOSE, b"\x03\xe9"));
    assert!(story.session.is_over());
}

#[test]
fn who_says_more_instead_of_goodbye_is_not_heard() {
    for from in SIDES {
        let mut story = Story::new();
        story.with(Session::drain);
        assert_eq!(codes(&story.hears(from)), [1001]);
        let more = frames_of(from, &[(BINARY, &[0; ROOM / 2])]);
        story.take(from, &more);
        assert!(story.session.wants(from) && !story.session.is_done(from), "the {from} may still say it");
        story.take(from, &more);
        assert!(!story.session.wants(from) && story.session.is_done(from), "the {from} had its time");
    }
}

/// What a test suite for servers looks at, by what it does: framing, pings, reserved bits, opcodes, fragments, UTF-8,
/// closes and limits.
#[test]
fn clients_are_heard_and_refused_as_the_standard_says() {
    for case in CASES {
        let Case { name, frames, heard, code } = case;
        let bytes: Vec<u8> = frames.iter().flat_map(|(first, payload)| masked(*first, payload)).collect();
        for size in [bytes.len(), 1, 3] {
            let mut story = Story::with_limits(|limits| limits.packet_bytes = 64 * 1024);
            bytes.chunks(size).for_each(|chunk| story.client_sends(chunk));
            let upstream = story.upstream_hears();
            let messages: Vec<_> = upstream
                .iter()
                .filter_map(|event| match event {
                    Event::Message(message) => Some(&message.payload[..]),
                    _ => None,
                })
                .collect();
            assert_eq!(messages, *heard, "{name}, in pieces of {size}");
            let told = codes(&story.client_hears());
            assert_eq!(told, code.iter().copied().collect::<Vec<_>>(), "{name}, in pieces of {size}");
        }
    }
}

#[test]
fn upstreams_are_held_to_the_same_rules() {
    for case in CASES {
        let Case { name, frames, heard, code } = case;
        let mut story = Story::with_limits(|limits| limits.packet_bytes = 64 * 1024);
        frames.iter().for_each(|(first, payload)| story.upstream_sends(&frame(*first, payload)));
        let client = story.client_hears();
        let messages = client.iter().filter(|event| matches!(event, Event::Message(_))).count();
        assert_eq!(messages, heard.len(), "{name}");
        let told = codes(&story.upstream_hears());
        assert_eq!(told, code.iter().copied().collect::<Vec<_>>(), "{name}");
        if code.is_some() {
            assert_eq!(codes(&client), [1014], "{name}: it is not the client's fault");
        }
    }
}

/// A session, what is around it, and what it said.
struct Story {
    endpoint: Endpoint,
    session: Session,
    now: Now,
    seen: Arc<Seen>,
    ears: [Reader; 2],
}

/// What observers and mirrors were told.
#[derive(Default)]
struct Seen {
    mirrored: Mutex<Vec<(Action, String, Vec<u8>)>>,
    denied: Mutex<Vec<String>>,
    closed: Mutex<Vec<String>>,
    fates: Mutex<Vec<&'static str>>,
    wants_deliveries: AtomicBool,
}

/// Does what payloads say.
struct Rules;

impl Story {
    fn new() -> Self {
        Self::with_limits(|_| {})
    }

    fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let (seen, mut limits) = (Arc::new(Seen::default()), Limits::default());
        change(&mut limits);
        let gate = Gate {
            route: "api".into(),
            authenticators: Authenticators::default(),
            transforms: Transforms::default(),
            policies: Chain::new(vec![Arc::new(Rules)]),
            mirror: Some(seen.clone()),
            observer: seen.clone(),
            limits: limits.clone(),
        };
        let (endpoint, now) = (Endpoint::new(gate, Options::of(&limits), None), Now::read());
        let session = Session::new(client(), "a/b".into(), &Context { endpoint: &endpoint, now });
        // what the upstream hears is masked as by a client
        let ears = [Side::Upstream, Side::Client].map(|side| Reader::new(side, usize::MAX));
        Self { endpoint, session, now, seen, ears }
    }

    fn with(&mut self, act: impl FnOnce(&mut Session, &Context<'_>)) {
        act(&mut self.session, &Context { endpoint: &self.endpoint, now: self.now });
    }

    fn take(&mut self, from: Side, bytes: &[u8]) {
        self.with(|session, cx| session.take(from, bytes, cx));
    }

    fn client_sends(&mut self, bytes: &[u8]) {
        self.take(Side::Client, bytes);
    }

    fn upstream_sends(&mut self, bytes: &[u8]) {
        self.take(Side::Upstream, bytes);
    }

    fn decides(&mut self, from: Side, decision: Decision) {
        self.with(|session, cx| session.decided(from, decision, cx));
    }

    /// Time goes on, and the session is told when it asked to be.
    fn waits(&mut self, by: Duration) {
        let end = self.now.later(by);
        loop {
            let at = self.session.poll_timeout(&Context { endpoint: &self.endpoint, now: self.now });
            let Some(at) = at.filter(|at| *at <= end.instant) else { break };
            self.now = self.now.later(at.saturating_duration_since(self.now.instant));
            self.with(Session::pass_time);
            if self.session.is_over() {
                break;
            }
        }
        self.now = end;
    }

    /// Takes all that a side is sent.
    fn hears(&mut self, to: Side) -> Vec<Event> {
        let (mut bytes, mut events) = (BytesMut::new(), Vec::new());
        while !self.session.unsent(to).is_empty() {
            bytes.extend_from_slice(self.session.unsent(to));
            let count = self.session.unsent(to).len();
            self.with(|session, cx| session.sent(to, count, cx));
        }
        while let Some(event) = self.ears[to as usize].next(&mut bytes).expect("what we send is right") {
            events.push(event);
        }
        assert!(bytes.is_empty());
        events
    }

    fn client_hears(&mut self) -> Vec<Event> {
        self.hears(Side::Client)
    }

    fn upstream_hears(&mut self) -> Vec<Event> {
        self.hears(Side::Upstream)
    }
}

impl Policy for Rules {
    fn name(&self) -> &str {
        "rules"
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        match query.payload {
            b"deny" => Answer::Ready(Decision::Deny(Reason::new(Cause::NotAuthorized))),
            b"unavailable" => Answer::Ready(Decision::Deny(Reason::new(Cause::Unavailable))),
            b"wait" => Answer::Pending(Box::pin(std::future::pending())),
            _ => Answer::Ready(Decision::Allow(Grant::default())),
        }
    }
}

impl Mirror for Seen {
    fn message(&self, message: &gate::Message<'_>) -> Copied {
        assert!(!message.is_acknowledged && message.qos == 0);
        let copy = (message.action, message.topic.to_owned(), message.payload.to_vec());
        self.mirrored.lock().unwrap().push(copy);
        Copied::Taken
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
        self.fates.lock().unwrap().push(match seen.fate {
            Fate::Denied(_) => "denied",
            Fate::Held => "held",
            _ => "passed",
        });
    }

    fn session(&self, event: &SessionEvent<'_>) {
        match event {
            SessionEvent::Denied { resource, .. } => self.denied.lock().unwrap().push((*resource).into()),
            SessionEvent::Closed { why, .. } => self.closed.lock().unwrap().push(why.to_string()),
            _ => {}
        }
    }
}

fn client() -> Arc<Client> {
    Arc::new(Client {
        principal: Principal { id: "dev-1".into(), ..Principal::default() },
        client_id: "".into(),
        username: None,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        route: "api".into(),
        protocol: Protocol::Http,
        is_encrypted: false,
    })
}

fn text(text: &'static str) -> Event {
    Event::Message(message(true, text.as_bytes()))
}

fn message(is_text: bool, payload: &'static [u8]) -> Message {
    Message { is_text, payload: Bytes::from_static(payload) }
}

fn codes(events: &[Event]) -> Vec<u16> {
    let code = |event: &Event| match event {
        Event::Close(close) => Some(close.code.unwrap_or(1005)),
        _ => None,
    };
    events.iter().filter_map(code).collect()
}

fn frames_of(from: Side, frames: &[(u8, &[u8])]) -> Vec<u8> {
    let write = if from == Side::Client { masked } else { frame };
    frames.iter().flat_map(|(first, payload)| write(*first, payload)).collect()
}

/// A frame as clients send it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode(Opcode::Text, payload, Some(Mask([0x37, 0xfa, 0x21, 0x3d])), &mut bytes);
    bytes[0] = first;
    bytes.to_vec()
}

/// A frame as servers send it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode(Opcode::Text, payload, None, &mut bytes);
    bytes[0] = first;
    bytes.to_vec()
}

/// Frames, the messages that the other side gets of them, and the code that the sender gets, if any.
struct Case {
    name: &'static str,
    frames: &'static [(u8, &'static [u8])],
    heard: &'static [&'static [u8]],
    code: Option<u16>,
}

const fn good(
    name: &'static str,
    frames: &'static [(u8, &'static [u8])],
    heard: &'static [&'static [u8]],
) -> Case {
    Case { name, frames, heard, code: None }
}

const fn bad(
    name: &'static str,
    frames: &'static [(u8, &'static [u8])],
    heard: &'static [&'static [u8]],
    code: u16,
) -> Case {
    Case { name, frames, heard, code: Some(code) }
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const TEXT_FIRST: u8 = 0x01;
const BINARY_FIRST: u8 = 0x02;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;

const CASES: &[Case] = &[
    good("empty text", &[(TEXT, b"")], &[b""]),
    good("text of 125", &[(TEXT, &[b'*'; 125])], &[&[b'*'; 125]]),
    good("text of 126", &[(TEXT, &[b'*'; 126])], &[&[b'*'; 126]]),
    good("text of 65535", &[(TEXT, &[b'*'; 65535])], &[&[b'*'; 65535]]),
    good("text of 65536", &[(TEXT, &[b'*'; 65536])], &[&[b'*'; 65536]]),
    good("empty binary", &[(BINARY, b"")], &[b""]),
    good("binary of 127", &[(BINARY, &[0xfe; 127])], &[&[0xfe; 127]]),
    good("binary of 128", &[(BINARY, &[0xfe; 128])], &[&[0xfe; 128]]),
    good("ping without payload", &[(PING, b"")], &[]),
    good("ping of 125", &[(PING, &[0xfe; 125])], &[]),
    bad("ping of 126", &[(PING, &[0xfe; 126])], &[], 1002),
    good("pong that nobody asked for", &[(PONG, b"unasked"), (TEXT, b"a")], &[b"a"]),
    bad("first reserved bit", &[(TEXT, b"a"), (0xc1, b"b")], &[b"a"], 1002),
    bad("second reserved bit", &[(TEXT, b"a"), (0xa1, b"b"), (PING, b"")], &[b"a"], 1002),
    bad("third reserved bit", &[(0x91, b"a")], &[], 1002),
    bad("reserved bit in a ping", &[(0xc9, b"")], &[], 1002),
    bad("reserved bit in a close", &[(0xf8, b"")], &[], 1002),
    bad("opcode 3", &[(0x83, b"")], &[], 1002),
    bad("opcode 5", &[(TEXT, b"a"), (0x85, b"b"), (PING, b"")], &[b"a"], 1002),
    bad("opcode 7", &[(0x87, b"x")], &[], 1002),
    bad("opcode 11", &[(0x8b, b"")], &[], 1002),
    bad("opcode 15", &[(TEXT, b"a"), (0x8f, b"b")], &[b"a"], 1002),
    bad("ping in fragments", &[(0x09, b"a"), (LAST, b"b")], &[], 1002),
    bad("pong in fragments", &[(0x0a, b"a"), (LAST, b"b")], &[], 1002),
    good("text in fragments", &[(TEXT_FIRST, b"a"), (LAST, b"b")], &[b"ab"]),
    good("ping between fragments", &[(TEXT_FIRST, b"a"), (PING, b"p"), (LAST, b"b")], &[b"ab"]),
    good("empty fragments", &[(TEXT_FIRST, b""), (MORE, b""), (LAST, b"")], &[b""]),
    good("fragment in the middle", &[(TEXT_FIRST, b""), (MORE, b"m"), (LAST, b"")], &[b"m"]),
    bad("continuation of nothing", &[(LAST, b"a"), (TEXT, b"b")], &[], 1002),
    bad("continuation of nothing, to be continued", &[(MORE, b"a"), (TEXT, b"b")], &[], 1002),
    bad("continuation of what is whole", &[(TEXT, b"a"), (LAST, b"b")], &[b"a"], 1002),
    bad("text between fragments", &[(TEXT_FIRST, b"a"), (TEXT, b"b")], &[], 1002),
    bad("binary between fragments", &[(TEXT_FIRST, b"a"), (BINARY_FIRST, b"b")], &[], 1002),
    good(
        "many fragments and pings",
        &[
            (TEXT_FIRST, b"1"),
            (MORE, b"2"),
            (PING, b"p"),
            (MORE, b"3"),
            (PING, b"p"),
            (LAST, b"4"),
            (TEXT, b"5"),
        ],
        &[b"1234", b"5"],
    ),
    good("UTF-8", &[(TEXT, "κόσμε".as_bytes())], &["κόσμε".as_bytes()]),
    good("UTF-8 cut within a character", &[(TEXT_FIRST, b"\xce"), (LAST, b"\xba")], &["κ".as_bytes()]),
    good(
        "largest characters",
        &[(TEXT, b"\xf4\x8f\xbf\xbf\xef\xbf\xbf")],
        &[b"\xf4\x8f\xbf\xbf\xef\xbf\xbf"],
    ),
    bad("surrogate", &[(TEXT, b"\xed\xa0\x80")], &[], 1007),
    bad("too large for a character", &[(TEXT, b"\xf4\x90\x80\x80")], &[], 1007),
    bad("written too long", &[(TEXT, b"\xc0\xaf")], &[], 1007),
    bad("character without its end", &[(TEXT, b"\xce")], &[], 1007),
    bad("wrong in the first of fragments", &[(TEXT_FIRST, b"\xce\xba\xff"), (MORE, b"x")], &[], 1007),
    bad("wrong where fragments meet", &[(TEXT_FIRST, b"\xce"), (LAST, b"\x40")], &[], 1007),
    good("not UTF-8, in binary", &[(BINARY, b"\xff\xfe")], &[b"\xff\xfe"]),
    good("close", &[(TEXT, b"a"), (CLOSE, b"\x03\xe8")], &[b"a"]),
    good("close without a code", &[(CLOSE, b"")], &[]),
    good("message behind a close", &[(CLOSE, b"\x03\xe8"), (TEXT, b"a"), (PING, b"")], &[]),
    good("close with the longest reason", &[(CLOSE, LONGEST_CLOSE)], &[]),
    bad("close of one byte", &[(CLOSE, b"\x03")], &[], 1002),
    bad("close too long", &[(CLOSE, &[b'a'; 126])], &[], 1002),
    bad("close whose reason is not UTF-8", &[(CLOSE, b"\x03\xe8\xce\xff")], &[], 1007),
    bad("close 0", &[(CLOSE, b"\x00\x00")], &[], 1002),
    bad("close 999", &[(CLOSE, b"\x03\xe7")], &[], 1002),
    bad("close 1005", &[(CLOSE, b"\x03\xed")], &[], 1002),
    bad("close 1006", &[(CLOSE, b"\x03\xee")], &[], 1002),
    bad("close 2000", &[(CLOSE, b"\x07\xd0")], &[], 1002),
    bad("close 65535", &[(CLOSE, b"\xff\xff")], &[], 1002),
    bad("too large", &[(BINARY, &[0; 65537])], &[], 1009),
    bad("too large in fragments", &[(BINARY_FIRST, &[0; 65536]), (LAST, b"1")], &[], 1009),
];

const LONGEST_CLOSE: &[u8] = &{
    let mut payload = [b'r'; 125];
    (payload[0], payload[1]) = (0x03, 0xe8);
    payload
};
