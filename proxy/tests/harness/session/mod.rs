//! What must hold for a session, whatever its client, its upstream and its policies do.

mod model;
mod mounted;
mod packets;
mod rules;
mod script;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mgate_policies::{
    Action, Cause, Chain, Decision, Now, Policy, Reason, SessionLimits, SessionTerms, TopicPrefix, Transform,
    Transforms,
};
use mgate_proxy::gate::{Authenticator, Authenticators, Gate, Limits, Mirror, Side};
use mgate_proxy::mqtt::codec::decode;
use mgate_proxy::mqtt::packet::{Packet, Version};
use mgate_proxy::mqtt::session::{Context, Input, Outbox, Output, Peer, Session};
use mgate_proxy::mqtt::{Endpoint, OnDeniedPublish, Options, Versions};

use self::model::{
    AUTH, CONNACK, CONNECT, DISCONNECT, PINGREQ, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Receiver,
    SUBSCRIBE, UNSUBSCRIBE, filters, will,
};
use self::mounted::{Mounted, before_delivery, is_mounted};
use self::rules::{Delays, Logins, Permit, Rules, Stores, Watcher, is_denied};
use self::script::{Script, Step};
use crate::wire::{self, Fields, Frame};

/// One byte of options, then a story; says how many packets came through.
pub(crate) fn check(input: &[u8]) -> usize {
    let Some((&options, story)) = input.split_first() else { return 0 };
    let mut world = World::new(options);
    if options & IS_OPENED != 0 {
        world.play(&mut Script::new(&OPENING, world.version));
    }
    world.play(&mut Script::new(story, world.version));
    world.client.heard + world.upstream.heard
}

/// A session, what is around it, and what the two sides were sent.
struct World {
    endpoint: Endpoint,
    session: Session,
    out: Outbox,
    now: Now,
    rules: Arc<Rules>,
    stores: Arc<Stores>,
    /// Messages that the upstream heard since the last turn: payload and packet identifier.
    passed: Vec<(Vec<u8>, u16)>,
    /// Messages whose copies are not stored yet, in their order.
    unstored: VecDeque<u16>,
    /// Whether it is the upstream that speaks.
    is_upstreams_turn: bool,
    /// Whether transforms change what the client says: the route's, or the prefix of its session.
    is_mounted: bool,
    version: Version,
    from_client: Pipe,
    from_upstream: Pipe,
    client: Receiver,
    upstream: Receiver,
    connect: Vec<u8>,
    waits_for: Waits,
    /// Whether what was slow to decide was just allowed.
    is_granted: bool,
    mangle: Option<(usize, u8)>,
    chunk: usize,
    is_closed: bool,
}

/// Bytes that came and were not yet taken.
#[derive(Default)]
struct Pipe(Vec<u8>);

/// What the session asked for and was not yet given.
#[derive(Default)]
struct Waits {
    dial: bool,
    identify: bool,
    review: bool,
    client: bool,
    upstream: bool,
}

impl World {
    fn new(options: u8) -> Self {
        let rules = Arc::new(Rules::new(options & IS_REPEATABLE != 0, has_terms(options).then(|| terms(4))));
        let stores = Arc::new(Stores::default());
        let endpoint = endpoint(options, &rules, &stores);
        let now = Now::read();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let session = Session::new(
            &endpoint,
            Peer { address, certificate: None, upgrade: None, is_encrypted: false },
            now,
        );
        Self {
            endpoint,
            session,
            out: Outbox::default(),
            now,
            rules,
            stores,
            passed: Vec::new(),
            unstored: VecDeque::new(),
            is_upstreams_turn: false,
            is_mounted: has_transforms(options) || has_terms(options),
            version: VERSIONS[usize::from(options & 0x03)],
            from_client: Pipe::default(),
            from_upstream: Pipe::default(),
            client: Receiver::default(),
            upstream: Receiver::default(),
            connect: Vec::new(),
            waits_for: Waits::default(),
            is_granted: false,
            mangle: None,
            chunk: 0,
            is_closed: false,
        }
    }

    fn play(&mut self, script: &mut Script<'_>) {
        while let Some(step) = script.next() {
            self.step(step);
            self.pump();
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Chunk(length) => self.chunk = length,
            Step::Closed(side, error) => self.input(Input::Closed(side, error)),
            Step::Decided(side, decision) => {
                if std::mem::take(self.waits_for.decision(side)) {
                    self.is_granted = !matches!(decision, Decision::Deny(_));
                    self.input(Input::Decided(side, decision));
                    self.is_granted = false;
                }
            }
            Step::Drain => self.input(Input::Drain),
            Step::Identified(verdict) => {
                if std::mem::take(&mut self.waits_for.identify) {
                    self.input(Input::Identified(verdict));
                }
            }
            Step::Reauthorize => {
                self.rules.change(&terms(2));
                self.input(Input::Reauthorize);
            }
            Step::Reviewed(decision) => {
                if std::mem::take(&mut self.waits_for.review) {
                    self.input(Input::Reviewed(decision));
                }
            }
            Step::Mangle(at, bits) => self.mangle = Some((at, bits)),
            Step::Send(side, bytes) => self.send(side, bytes),
            Step::Stalled(side) => self.input(Input::Stalled(side)),
            Step::Stored(is_stored) => {
                if self.unstored.pop_front().is_some() {
                    let result = if is_stored { Ok(()) } else { Err(Reason::new(Cause::Unavailable)) };
                    self.input(Input::Stored(result));
                }
            }
            Step::Upstream(is_reached) => {
                if std::mem::take(&mut self.waits_for.dial) {
                    self.input(Input::Upstream(if is_reached { Ok(()) } else { Err("it is away".into()) }));
                }
            }
            Step::Wait(time) => self.wait(time),
            Step::WaitForTimeout => {
                let time =
                    self.session.poll_timeout().map(|at| at.saturating_duration_since(self.now.instant));
                self.wait(time.unwrap_or_default());
            }
        }
    }

    /// Time goes on, and the session is told when it wants to be.
    fn wait(&mut self, time: Duration) {
        let end = self.now.later(time);
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end.instant) {
            self.now = self.now.later(at.saturating_duration_since(self.now.instant));
            let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
            self.session.handle_timeout(cx);
            self.hear();
            let next = self.session.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now.instant), "a time-out is handled once");
            self.pump();
        }
        self.now = end;
    }

    fn send(&mut self, side: Side, mut bytes: Vec<u8>) {
        if let Some((at, bits)) = self.mangle.take() {
            let length = bytes.len().max(1);
            bytes.get_mut(at % length).into_iter().for_each(|byte| *byte ^= bits);
        }
        // nothing comes from an upstream that was not dialled
        if side == Side::Client || self.upstream.heard > 0 {
            self.pipe(side).0.extend(bytes);
        }
    }

    /// The session is given what came, until it takes no more.
    fn pump(&mut self) {
        while !self.is_closed && (self.feed(Side::Client) | self.feed(Side::Upstream)) {}
        for side in [Side::Client, Side::Upstream] {
            if !self.is_closed && self.session.wants(side) {
                let left = &self.pipe(side).0;
                assert!(wire::next(left).is_none(), "a whole packet is left: {left:02x?}");
                assert!(
                    left.len() < self.endpoint.gate.limits.packet_bytes,
                    "more is kept than a packet has"
                );
            }
        }
    }

    /// Gives the session the bytes of one side, in pieces; says whether it took any.
    fn feed(&mut self, side: Side) -> bool {
        let mut bytes = std::mem::take(&mut self.pipe(side).0);
        let (step, mut given, mut taken) = (if self.chunk == 0 { bytes.len() } else { self.chunk }, 0, 0);
        while given < bytes.len() && !self.is_closed {
            given = bytes.len().min(given + step);
            let piece = &bytes[taken..given];
            let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
            let used = self.session.handle_input(Input::Bytes(side, piece), cx);
            assert!(used <= piece.len(), "{used} of {} bytes used", piece.len());
            for frame in wire::frames(&piece[..used]) {
                self.note_taken(side, frame);
            }
            taken += used;
            self.is_upstreams_turn = side == Side::Upstream;
            self.hear();
            self.is_upstreams_turn = false;
        }
        bytes.drain(..taken);
        self.pipe(side).0 = bytes;
        taken > 0
    }

    /// What the session knows from now on because a side said it.
    fn note_taken(&mut self, from: Side, frame: Frame<'_>) {
        match (from, frame.kind()) {
            (Side::Client, CONNECT) => self.note_connect(frame),
            (Side::Upstream, CONNACK) if self.version.is_5() => {
                self.upstream.limit(Fields(frame.body.get(2..).unwrap_or_default()));
            }
            (Side::Client, PUBACK | PUBREC | PUBCOMP) => self.client.acknowledges(frame),
            (Side::Upstream, PUBACK | PUBREC | PUBCOMP) => self.upstream.acknowledges(frame),
            _ => {}
        }
    }

    /// The version of a session is that of its CONNECT; a level that nobody knows is answered as the nearest, one
    /// with its highest bit set, as bridges send it, as 3.1.1.
    fn note_connect(&mut self, frame: Frame<'_>) {
        self.connect = frame.bytes.to_vec();
        let mut fields = Fields(frame.body);
        let (_, level) = (fields.binary(), fields.number(1).unwrap_or(4));
        self.version = if (5..0x80).contains(&level) { Version::V5 } else { Version::V311 };
        if self.version.is_5() && fields.take(3).is_some() {
            self.client.limit(fields);
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let cx = &mut Context { endpoint: &self.endpoint, now: self.now, out: &mut self.out };
        assert_eq!(self.session.handle_input(input, cx), 0, "nothing is used where nothing was given");
        self.hear();
    }

    /// Both sides take what they are sent; nothing comes after the end.
    fn hear(&mut self) {
        let Outbox { to_client, to_upstream } = std::mem::take(&mut self.out);
        assert!(!self.is_closed || to_client.is_empty() && to_upstream.is_empty(), "bytes after the end");
        assert!(to_client.len().max(to_upstream.len()) < LARGEST_OUTBOX, "an outbox has a bound");
        wire::frames(&to_upstream).into_iter().for_each(|frame| self.upstream_hears(frame));
        wire::frames(&to_client).into_iter().for_each(|frame| self.client_hears(frame));
        while let Some(output) = self.session.poll_output() {
            assert!(!self.is_closed, "something is to be done after the end");
            match output {
                Output::Close => self.is_closed = true,
                Output::Decide(side, _) => *self.waits_for.decision(side) = true,
                Output::Dial => self.waits_for.dial = true,
                Output::Forget => assert!(self.unstored.pop_front().is_some(), "nothing is to be forgotten"),
                Output::Identify(_) => self.waits_for.identify = true,
                Output::Review(_) => self.waits_for.review = true,
                Output::Store(_) => self.note_storing(),
            }
        }
        self.passed.clear();
        self.check_permits();
    }

    /// The next copy of a message that passed is on its way.
    fn note_storing(&mut self) {
        let payload = self.stores.take().expect("a message that was handed to the mirror");
        let at = self.passed.iter().position(|(passed, _)| *passed == payload);
        let (_, packet_id) = self.passed.remove(at.expect("what is copied has passed"));
        self.unstored.push_back(packet_id);
    }

    /// What the upstream took is acknowledged when its copy is stored, not before.
    fn check_stored(&self, ack: Frame<'_>) {
        let mut fields = Fields(ack.body);
        let packet_id = fields.number(2).expect("a packet identifier") as u16;
        let is_refusal = fields.number(1).is_some_and(|reason| reason >= 0x80);
        let is_stored = is_refusal || !self.is_upstreams_turn || !self.unstored.contains(&packet_id);
        assert!(is_stored, "{packet_id} is acknowledged and not stored");
    }

    /// What was allowed has passed by now, unless the session is over or waits with the rest of a packet.
    fn check_permits(&self) {
        if self.is_closed {
            assert!(self.session.poll_timeout().is_none() && !self.session.wants(Side::Client));
            return;
        }
        if self.is_mounted {
            // transforms may make a delivery too long
            self.rules.forget(Action::Deliver);
        }
        assert_eq!(self.rules.unused(Action::Publish), Some(0), "a message was allowed and did not pass");
        assert_eq!(self.rules.unused(Action::Deliver), Some(0), "a delivery was allowed and did not pass");
        let is_whole = !self.waits_for.client;
        assert!(
            !is_whole || self.rules.unused(Action::Subscribe).is_none_or(|unused| unused == 0),
            "a filter was allowed and did not pass"
        );
    }

    fn upstream_hears(&mut self, frame: Frame<'_>) {
        let version = self.version;
        assert!(!self.upstream.is_over, "nothing comes after DISCONNECT");
        assert!(decode(frame.bytes, version).is_ok(), "to the upstream: {:02x?}", frame.bytes);
        assert_eq!(frame.kind() == CONNECT, self.upstream.heard == 0, "CONNECT comes first, and once");
        self.upstream.heard += 1;
        match frame.kind() {
            CONNECT => self.upstream_hears_connect(frame),
            PUBLISH => {
                let message = self.upstream.message(frame, version.is_5());
                self.check_permitted(Action::Publish, &message);
                let packet_id = frame.message(version.is_5()).map_or(0, |message| message.packet_id);
                self.passed.push((message.payload, packet_id));
            }
            SUBSCRIBE => self.upstream_hears_subscribe(frame),
            UNSUBSCRIBE => self.upstream_hears_unsubscribe(frame),
            DISCONNECT => self.upstream.is_over = true,
            AUTH => assert!(version.is_5()),
            kind => {
                assert!([PUBACK, PUBREC, PUBREL, PUBCOMP, PINGREQ].contains(&kind), "{kind}");
            }
        }
    }

    fn upstream_hears_connect(&self, frame: Frame<'_>) {
        if !self.is_mounted {
            assert_eq!(frame.bytes, self.connect, "CONNECT goes on as it came");
        }
        let unused = |action| self.rules.unused(action);
        assert!(unused(Action::Connect).is_none_or(|unused| unused == 1), "CONNECT was allowed");
        let will = will(frame).expect("a CONNECT that can be read");
        let wills = usize::from(will.is_some());
        assert!(unused(Action::Will).is_none_or(|unused| unused == wills), "a will was allowed");
        will.iter().for_each(|will| self.check_permitted(Action::Will, will));
    }

    fn upstream_hears_subscribe(&self, frame: Frame<'_>) {
        let filters = filters(frame, self.version.is_5()).expect("a SUBSCRIBE that can be read");
        filters.iter().for_each(|filter| self.check_permitted(Action::Subscribe, filter));
    }

    fn upstream_hears_unsubscribe(&self, frame: Frame<'_>) {
        let Ok(Packet::Unsubscribe(unsubscribe)) = decode(frame.bytes, self.version) else {
            panic!("an UNSUBSCRIBE that can be read")
        };
        for filter in unsubscribe.filters {
            let shared = filter.strip_prefix("$share/").and_then(|shared| shared.split_once('/'));
            self.check_mounted(shared.map_or(filter, |(_, filter)| filter));
        }
    }

    /// Nothing of the client reaches the upstream beside what transforms made of it.
    fn check_mounted(&self, resource: &str) {
        assert!(!self.is_mounted || is_mounted(resource), "{resource} is not mounted");
    }

    /// What passes is what was allowed, in that order, and never what nobody may have.
    fn check_permitted(&self, action: Action, permit: &Permit) {
        assert!(!is_denied(&permit.resource), "{action} of {permit:?} passed");
        if action != Action::Deliver {
            self.check_mounted(&permit.resource);
        }
        let is_slow = permit.resource.contains("slow") && matches!(action, Action::Publish | Action::Deliver);
        let is_decided = !is_slow || self.is_granted || self.rules.is_repeatable();
        assert!(is_decided, "{action} of {permit:?} was not decided");
        assert!(
            self.rules.permits(action, permit, self.now.instant),
            "{action} of {permit:?} was not allowed"
        );
    }

    /// Policies know a delivery by what the upstream calls it.
    fn check_delivered(&self, message: &Permit) {
        if !self.is_mounted {
            return self.check_permitted(Action::Deliver, message);
        }
        let is_permitted = |resource| {
            let permit = Permit { resource, ..message.clone() };
            !is_denied(&permit.resource) && self.rules.permits(Action::Deliver, &permit, self.now.instant)
        };
        let known_as = before_delivery(&message.resource);
        assert!(known_as.into_iter().any(is_permitted), "delivery of {message:?} was not allowed");
    }

    fn client_hears(&mut self, frame: Frame<'_>) {
        let version = self.version;
        assert!(!self.client.is_over, "nothing comes after the end");
        assert!(decode(frame.bytes, version).is_ok(), "to the client: {:02x?}", frame.bytes);
        if frame.kind() == AUTH {
            return assert!(version.is_5());
        }
        assert_eq!(frame.kind() == CONNACK, self.client.heard == 0, "CONNACK comes first, and once");
        self.client.heard += 1;
        match frame.kind() {
            CONNACK => self.client.is_over = frame.body[1] != 0,
            PUBLISH => {
                let message = self.client.message(frame, version.is_5());
                self.check_delivered(&message);
            }
            DISCONNECT => self.client.is_over = true,
            PUBACK | PUBREC => self.check_stored(frame),
            kind => assert!(![CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ].contains(&kind), "{kind}"),
        }
    }

    fn pipe(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Client => &mut self.from_client,
            Side::Upstream => &mut self.from_upstream,
        }
    }
}

impl Waits {
    fn decision(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }
}

/// Half of the sessions of 5.0, and some of 3.1.1.
fn has_transforms(options: u8) -> bool {
    let is_slow = options & HAS_RATE != 0 && options & HAS_LOGINS != 0;
    matches!((options & 0x03, is_slow), (3, _) | (1, true))
}

/// Whether acknowledgements wait for the mirror.
fn has_stores(options: u8) -> bool {
    options & HAS_SMALL_PACKETS != 0 && options & DISCONNECTS != 0
}

/// A fourth of the sessions of 5.0, and half of those of 3.1.
fn has_terms(options: u8) -> bool {
    match options & 0x03 {
        0 => options & HAS_SMALL_PACKETS != 0,
        version => version == 2 && options & DISCONNECTS != 0,
    }
}

/// What is said of a session: tighter limits than the route's, and a prefix.
fn terms(subscriptions: usize) -> SessionTerms {
    let limits = SessionLimits {
        messages_per_second: Some(9),
        packet_bytes: Some(1024),
        subscriptions: Some(subscriptions),
    };
    SessionTerms::new(limits, TopicPrefix::parse(mounted::MOUNT).ok())
}

fn endpoint(options: u8, rules: &Arc<Rules>, stores: &Arc<Stores>) -> Endpoint {
    let mut policies: Vec<Arc<dyn Policy>> = vec![rules.clone()];
    if options & IS_REPEATABLE == 0 {
        policies.insert(0, Arc::new(Delays));
    }
    let mut authenticators: Vec<Arc<dyn Authenticator>> = Vec::new();
    if options & HAS_LOGINS != 0 {
        authenticators.push(Arc::new(Logins));
    }
    let mut transforms: Vec<Arc<dyn Transform>> = Vec::new();
    if has_transforms(options) {
        transforms.push(Arc::new(Mounted));
    }
    let limits = Limits {
        packet_bytes: if options & HAS_SMALL_PACKETS == 0 { LARGEST_PACKET } else { 256 },
        messages_per_second: (options & HAS_RATE != 0).then_some(5),
        ..Limits::default()
    };
    let gate = Gate {
        route: "devices".into(),
        authenticators: Authenticators::new(authenticators),
        transforms: Transforms::new(transforms),
        policies: Chain::new(policies),
        mirror: has_stores(options).then(|| stores.clone() as Arc<dyn Mirror>),
        observer: Arc::new(Watcher),
        limits,
    };
    let on_denied_publish =
        if options & DISCONNECTS == 0 { OnDeniedPublish::Ack } else { OnDeniedPublish::Disconnect };
    Endpoint::new(gate, Options { versions: Versions::only(&VERSIONS), on_denied_publish })
}

/// CONNECT with an alias maximum, the upstream reached, CONNACK with an alias maximum.
const OPENING: [u8; 7] = [0x08, 0x00, 0x03, 0x0b, 0x00, 0x09, 0x03];

// What the byte of options says beside the version.

/// A story begins in an open session.
pub(crate) const IS_OPENED: u8 = 0x04;
const DISCONNECTS: u8 = 0x08;
const HAS_RATE: u8 = 0x10;
const IS_REPEATABLE: u8 = 0x20;
const HAS_SMALL_PACKETS: u8 = 0x40;
const HAS_LOGINS: u8 = 0x80;

const VERSIONS: [Version; 4] = [Version::V31, Version::V311, Version::V5, Version::V5];

/// What an outbox takes until it is sent, and what the largest packet can become.
const LARGEST_OUTBOX: usize = 128 * 1024 + LARGEST_PACKET + 64 * 1024;

const LARGEST_PACKET: usize = 4096;
