//! The thread of a mirror: takes letters out of the queue, and brings them to NATS or to the spool.

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mgate_policies::Now;
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::{info, warn};

use super::flow::{Flow, Outcome, Row};
use super::jetstream::{Acknowledgement, Lanes, Patience};
use super::letter::Letter;
use super::link::{Link, Turn};
use super::notices::Notice;
use super::queue::{Freed, Held};
use super::spool::Spool;
use super::store::Store;
use super::stream::{Standing, StreamCheck};
use super::wire::{Event, Exceeded};
use super::{Mode, Plan, Shared};

/// All that the thread of a mirror knows.
pub(super) struct Sender {
    shared: Arc<Shared>,
    link: Link,
    /// Which server is next, counted on and on.
    server: usize,
    /// How often there was no connection, or none that lasted.
    failures: usize,
    opened_at: Instant,
    /// What the last connection ended over, and how many did so in a row.
    exceeded: Option<(Exceeded, u8)>,
    /// Whether the log has heard that there is no connection.
    is_away_told: bool,
    inbox: String,
    flow: Flow,
    check: Option<StreamCheck>,
    store: Store,
    /// The bytes of letters from the spool on their way above which none is read.
    max_read_bytes: usize,
    taken: Vec<Letter>,
    events: Vec<Event>,
    next_number: u64,
    /// When letters are taken again: those that come before gather.
    next_take: Instant,
    /// Until when nobody needs to wake this.
    awake_until: Instant,
    next_ping: Instant,
    next_look: Instant,
}

impl Sender {
    /// `spool` is that of the plan, opened.
    pub(super) fn new(shared: Arc<Shared>, plan: &Plan, spool: Option<Spool>, server: usize) -> Self {
        let (now, inbox) = (Now::read().instant, format!("_INBOX.{}", shared.run));
        let next_number = spool.as_ref().map_or(1, Spool::next);
        let store = match (&plan.mode, spool) {
            (Mode::Spool(config), Some(spool)) => Store::new(config.clone(), spool, now),
            _ => Store::None,
        };
        let flow = match plan.jetstream {
            true => Flow::Lanes(Box::new(Lanes::new(inbox.clone(), Patience::of(&plan.mode)))),
            false => Flow::Row(Row::default()),
        };
        let check = plan.stream.clone().map(|stream| StreamCheck::new(stream, inbox.clone()));
        Self {
            shared,
            link: Link::Waiting(now),
            server,
            failures: 0,
            opened_at: now,
            exceeded: None,
            is_away_told: false,
            inbox,
            flow,
            check,
            store,
            max_read_bytes: (plan.bounds.bytes / 2).min(MAX_READ_BYTES),
            taken: Vec::new(),
            events: Vec::new(),
            next_number,
            next_take: now,
            awake_until: now,
            next_ping: now,
            next_look: now,
        }
    }

    /// Sends until it is told to stop.
    pub(super) async fn run(mut self) {
        loop {
            let now = Now::read().instant;
            self.turn(now);
            if self.is_over(now) {
                break;
            }
            self.wait(now).await;
        }
        self.finish();
    }

    /// Does all that can be done now.
    fn turn(&mut self, now: Instant) {
        let shared = &self.shared;
        self.link.begin(|| shared.way(), self.server, now);
        if now >= self.next_take {
            self.fetch(now);
        }
        self.route(now);
        self.send(now);
        if now >= self.next_look {
            self.look(now);
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, now: Instant) {
        let (is_up, is_gathering) = (self.link.is_up(), now < self.next_take);
        let is_idle = is_up && now >= self.awake_until && self.taken.is_empty() && !self.store.is_busy();
        if !is_idle && self.may_sleep() {
            let pause = if is_gathering { self.next_take - now } else { self.batch_pause() };
            return self.sleep(pause).await;
        }
        let pause = match (is_idle, is_up, self.flow.len() > 0) {
            (true, _, false) => IDLE_PAUSE,
            (true, _, true) => RETRY_PAUSE,
            (false, true, _) if is_gathering => self.next_take - now,
            (false, true, _) => self.batch_pause(),
            (false, false, _) => AWAY_PAUSE,
        };
        let turn = tokio::select! {
            // what can be done at once needs no timer; that it is to stop is looked at in each round
            biased;
            turn = self.link.turn(&mut self.events) => Some(turn),
            () = self.shared.queue.next(), if is_idle => None,
            () = self.shared.stopped.notified() => None,
            () = sleep(pause) => None,
        };
        if let Some(turn) = turn {
            self.turned(turn, Now::read().instant);
        }
    }

    /// Whether nothing is missed by hearing what the server says only when letters are taken again.
    fn may_sleep(&mut self) -> bool {
        let is_row = matches!(self.flow, Flow::Row(_));
        // room is free only when it was heard that letters arrived
        let is_easy = is_row && !self.store.is_busy() && !self.shared.queue.is_half_full();
        is_easy && self.link.wire().is_some_and(|wire| wire.is_quiet())
    }

    /// Lets letters gather. The thread sleeps as a whole: each answer that wakes it costs more than reading it does.
    async fn sleep(&mut self, pause: Duration) {
        thread::sleep(pause);
        // the runtime hears what has come meanwhile
        yield_now().await;
        // a server that reports many errors says more than is read at once
        for _ in 0..MOST_TURNS {
            let Some(turn) = self.link.turn_at_once(&mut self.events).await else { return };
            self.turned(turn, Now::read().instant);
        }
    }

    /// The connection went on, came or broke.
    fn turned(&mut self, turn: Turn, now: Instant) {
        match turn {
            Turn::Moved => self.take_events(now),
            Turn::Opened => self.opened(now),
            Turn::Failed(why) => {
                // what was said before counts
                self.take_events(now);
                self.failed(&why, now);
            }
        }
    }

    /// Takes letters out of the queue, if those of the last time have gone on.
    fn fetch(&mut self, now: Instant) {
        if self.taken.is_empty() {
            self.shared.queue.take(&mut self.taken);
            for letter in &mut self.taken {
                letter.number = self.next_number;
                self.next_number += 1;
            }
        }
        if !self.taken.is_empty() {
            self.next_take = now + self.batch_pause();
            self.awake_until = now + AWAKE_FOR;
        }
    }

    /// Who waits for a letter waits for this too.
    fn batch_pause(&self) -> Duration {
        match self.flow {
            Flow::Lanes(_) => SHORT_BATCH_PAUSE,
            Flow::Row(_) => BATCH_PAUSE,
        }
    }

    /// Decides whether letters are sent or kept.
    fn route(&mut self, now: Instant) {
        let is_slow = || self.store.is_open() && self.shared.queue.is_half_full();
        if self.store.is_passed_by(self.link.is_up()) && !is_slow() {
            self.taken.drain(..).for_each(|letter| self.flow.push(letter));
        }
        self.keep(now);
    }

    /// Writes letters, and asks whether they came.
    fn send(&mut self, now: Instant) {
        self.read(now);
        let Some(wire) = self.link.wire() else { return };
        if let Some(check) = &mut self.check {
            check.ask(wire, now);
        }
        let mut outcome = Outcome::default();
        self.flow.fill(wire, &mut outcome, now);
        if !wire.is_pinging() && (self.flow.wants_ping() || now >= self.next_ping) {
            self.flow.ping(wire, now);
            self.next_ping = now + PING_INTERVAL;
        }
        let is_stalled = wire.is_stalled(now);
        let server = is_stalled.then(|| wire.server.clone());
        self.settle(outcome);
        if let Some(server) = server {
            self.failed(&format!("{server}: the server takes nothing"), now);
        }
    }

    /// Reads letters from the spool, if there is room for them on the wire and in memory.
    fn read(&mut self, now: Instant) {
        let has_room = self.link.wire().is_some_and(|wire| wire.has_room());
        let is_stopping = self.shared.deadline().is_some();
        if !has_room || is_stopping || !self.store.has_unread() || !self.flow.wants_more() {
            return;
        }
        let bytes = self.flow.spooled_bytes();
        if bytes < self.max_read_bytes {
            let letters = self.store.read(self.max_read_bytes - bytes, &self.shared.notices, now);
            letters.into_iter().for_each(|letter| self.flow.push(letter));
        }
    }

    fn take_events(&mut self, now: Instant) {
        let mut outcome = Outcome::default();
        for event in mem::take(&mut self.events) {
            match event {
                Event::Pong(mark) => self.flow.pong(mark, &mut outcome),
                Event::Error(text) => self.shared.notices.add(Notice::Server, 1, || text),
                Event::Answer { subject, status, payload } => {
                    let tag = subject.strip_prefix(&*self.inbox).and_then(|rest| rest.strip_prefix('.'));
                    match tag.map(|tag| (tag, tag.parse())) {
                        Some((_, Ok(number))) => {
                            let said = Acknowledgement::read(status, &payload);
                            self.judged(number, &said, &mut outcome, now);
                        }
                        Some((tag, Err(_))) => self.checked(tag, status, &payload, now),
                        None => {}
                    }
                }
            }
        }
        self.settle(outcome);
    }

    /// NATS acknowledges a letter, or does not.
    fn judged(&mut self, number: u64, said: &Acknowledgement, outcome: &mut Outcome, now: Instant) {
        let Flow::Lanes(lanes) = &mut self.flow else { return };
        let subject = || lanes.subject(number).unwrap_or_default();
        let notices = &self.shared.notices;
        match said {
            Acknowledgement::Refused(why) | Acknowledgement::Impossible(why) => {
                notices.add(Notice::Refused, 1, || format!("{}: {why}", subject()));
                if let Some(check) = &mut self.check {
                    check.doubt(now);
                }
            }
            Acknowledgement::Stored(stream) => {
                let is_another = self.check.as_ref().is_some_and(|check| check.name() != stream);
                let example = || format!("{}: {stream}", subject());
                notices.add(Notice::WrongStream, u64::from(is_another), example);
            }
        }
        lanes.judged(number, said, outcome, now);
    }

    /// JetStream says something of the stream.
    fn checked(&mut self, tag: &str, status: Option<u16>, payload: &[u8], now: Instant) {
        let (Some(check), Some(wire)) = (&mut self.check, self.link.wire()) else { return };
        let before = check.standing().clone();
        check.answer(tag, (status, payload), wire, now);
        if let (Flow::Lanes(lanes), Standing::Good) = (&mut self.flow, check.standing()) {
            lanes.count_success();
        }
        if *check.standing() != before {
            match check.standing() {
                Standing::Lacks(why) => warn!(mirror = %self.shared.name, "{why}"),
                Standing::Good => {
                    info!(mirror = %self.shared.name, stream = check.name(), "the stream is there");
                }
                Standing::Unknown => {}
            }
        }
        self.tell_health("");
    }

    fn opened(&mut self, now: Instant) {
        let Some(wire) = self.link.wire() else { return };
        info!(mirror = %self.shared.name, server = wire.server, "connected to NATS");
        if let Some((exceeded, _)) = self.exceeded.take_if(|(_, closes)| *closes >= MAX_CLOSES) {
            // what is sent for ever keeps all that is behind it
            wire.lower(exceeded);
        }
        if matches!(self.flow, Flow::Lanes(_)) {
            wire.subscribe(&format!("{}.*", self.inbox), now);
        }
        if let Some(check) = &mut self.check {
            check.begin(now);
        }
        (self.opened_at, self.is_away_told) = (now, false);
        self.next_ping = now + PING_INTERVAL;
        self.tell_health("");
    }

    /// There is no connection, or no longer.
    fn failed(&mut self, why: &str, now: Instant) {
        if !mem::replace(&mut self.is_away_told, true) {
            warn!(mirror = %self.shared.name, why, "no connection to NATS");
        }
        if let Some(wire) = self.link.wire() {
            let closes = self.exceeded.map_or(1, |(_, closes)| closes.saturating_add(1));
            self.exceeded = wire.exceeded.map(|exceeded| (exceeded, closes));
        }
        if self.link.is_up() && now >= self.opened_at + STEADY_AFTER {
            self.failures = 0;
        }
        self.link = Link::waiting(self.failures, now);
        self.server = self.server.wrapping_add(1);
        self.failures += 1;
        self.events.clear();
        self.flow.broke();
        self.start_over(now);
        self.tell_health(&format!("no connection to NATS: {why}"));
    }

    /// Writes into the spool what belongs there.
    fn keep(&mut self, now: Instant) {
        self.store.reopen(&self.shared.notices, now);
        if !self.store.is_due(!self.taken.is_empty(), now) {
            return;
        }
        let is_behind = self.taken.is_empty() || self.keep_sent(now);
        if is_behind && self.store.change(&self.taken, &self.shared.notices, now) {
            let mut freed = Freed::default();
            self.taken.drain(..).for_each(|letter| freed.take(letter));
            self.shared.queue.release(freed);
        }
    }

    /// Writes into the spool what was sent past it; says whether it is there.
    fn keep_sent(&mut self, now: Instant) -> bool {
        let had_unread = self.store.has_unread();
        let mut freed = Freed::default();
        let letters: Vec<_> =
            self.flow.letters_mut().into_iter().filter(|letter| !letter.is_spooled).collect();
        if !letters.is_empty() {
            if !self.store.change(&letters, &self.shared.notices, now) {
                return false;
            }
            if !had_unread {
                self.store.skip();
            }
        }
        for letter in letters {
            freed.held.add(letter);
            letter.is_spooled = true;
        }
        self.shared.queue.release(freed);
        true
    }

    /// What the spool has is read anew from the first letter on.
    fn start_over(&mut self, now: Instant) {
        let is_kept = self.store.is_open() && self.keep_sent(now);
        if is_kept && self.store.start_over(&self.shared.notices, now) {
            self.flow.clear();
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        let Outcome { freed, unspooled, lost, why } = outcome;
        self.shared.queue.release(freed);
        self.store.forget(unspooled);
        self.shared.notices.add(Notice::Lost, lost, || why.unwrap_or_default());
    }

    /// Does what is done once a second.
    fn look(&mut self, now: Instant) {
        self.next_look = now + IDLE_PAUSE;
        if let (Flow::Lanes(lanes), false) = (&mut self.flow, self.link.is_up()) {
            let mut outcome = Outcome::default();
            lanes.purge(&mut outcome);
            self.settle(outcome);
        }
        let Shared { name, queue, notices, .. } = &*self.shared;
        notices.add(Notice::Full, queue.take_dropped(), String::new);
        notices.tell(name, now);
    }

    fn tell_health(&self, lacks: &str) {
        let stream = self.check.as_ref().map_or(&Standing::Good, StreamCheck::standing);
        self.shared.tell_health(match (self.link.is_up(), stream) {
            (false, _) => Some(lacks),
            (true, Standing::Lacks(why)) => Some(why),
            (true, Standing::Unknown) => Some("has not seen its stream yet"),
            (true, Standing::Good) => None,
        });
    }

    /// Whether it is to stop, and all is done that can be done before.
    fn is_over(&self, now: Instant) -> bool {
        let Some(deadline) = self.shared.deadline() else { return false };
        let is_empty =
            self.flow.len() == 0 && self.taken.is_empty() && self.shared.queue.held() == Held::default();
        is_empty || !self.link.is_up() || now >= deadline
    }

    /// Leaves nothing behind that the spool could keep.
    fn finish(mut self) {
        let now = Now::read().instant;
        self.keep_sent(now);
        loop {
            self.store.hurry(now);
            self.keep(now);
            if !self.taken.is_empty() {
                break;
            }
            self.fetch(now);
            if self.taken.is_empty() {
                break;
            }
        }
        self.look(now);
        let left = if self.store.is_open() { self.taken.len() } else { self.shared.queue.held().messages };
        if left > 0 {
            warn!(mirror = %self.shared.name, count = left, "copies did not reach NATS before the end");
        }
    }
}

/// Time in which letters gather before they are written, so that they are written together.
const BATCH_PAUSE: Duration = Duration::from_millis(20);
const SHORT_BATCH_PAUSE: Duration = Duration::from_millis(1);
/// How long it looks by itself whether letters come: to be woken costs those who bring them.
const AWAKE_FOR: Duration = Duration::from_millis(40);
/// Time between two looks at what is refused, and at what is not answered.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const AWAY_PAUSE: Duration = Duration::from_millis(20);
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// How often it hears more of the server before it goes on with letters.
const MOST_TURNS: usize = 64;
/// How long a connection lasts that was worth to be made.
const STEADY_AFTER: Duration = Duration::from_secs(5);
/// Connections in a row that a server closes over a letter, before the letter is given up.
const MAX_CLOSES: u8 = 3;
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes of letters on their way above which none is read from the spool; less where the queue is small.
const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::AsyncWriteExt;

    use super::super::letter::tests::letter;
    use super::super::tests::plan;
    use super::super::wire::tests::wire;
    use super::super::{Bounds, SpoolConfig};
    use super::*;

    #[tokio::test]
    async fn replay_takes_no_more_memory_than_half_of_the_queue() {
        let directory = tempfile::tempdir().unwrap();
        let now = Now::read().instant;
        let (wire, _server) = wire(1 << 20).await;
        let mut sender = sender(directory.path().into(), Link::Up(Box::new(wire)));
        let text = "x".repeat(10_000);
        sender.taken = (1..=100)
            .map(|number| Letter { number, at: Now::read().unix, ..letter(1, "s", &text) })
            .collect();
        assert!(sender.store.change(&sender.taken, &sender.shared.notices, now));
        sender.taken.clear();
        for _ in 0..10 {
            // nothing is written: the wire has room all the time
            sender.read(now);
        }
        assert!(sender.store.has_unread());
        let bytes: usize = sender.flow.letters_mut().iter().map(|letter| letter.bytes()).sum();
        assert!((QUEUE_BYTES / 2..QUEUE_BYTES / 2 + 11_000).contains(&bytes), "{bytes}");
    }

    #[tokio::test]
    async fn letter_that_servers_close_over_is_given_up() {
        for (error, kept) in [("Maximum Payload Violation", "long"), ("maximum control line exceeded", "s")] {
            let directory = tempfile::tempdir().unwrap();
            let now = Now::read().instant;
            let mut sender = sender(directory.path().into(), Link::Waiting(now));
            sender.store = Store::None;
            let letters = || [letter(1, "s", "larger"), letter(1, "long", "x")];
            let mut outcome = Outcome::default();
            letters().into_iter().for_each(|letter| {
                assert!(sender.shared.queue.push(letter));
            });
            sender.fetch(now);
            sender.taken.drain(..).for_each(|letter| sender.flow.push(letter));
            for closes in 0..=MAX_CLOSES {
                let (wire, server) = wire(1 << 20).await;
                server
                    .accept()
                    .await
                    .unwrap()
                    .0
                    .write_all(format!("-ERR '{error}'\r\n").as_bytes())
                    .await
                    .unwrap();
                sender.link = Link::Up(Box::new(wire));
                sender.opened(now);
                let wire = sender.link.wire().unwrap();
                sender.flow.fill(wire, &mut outcome, now);
                assert_eq!(sender.flow.len(), if closes < MAX_CLOSES { 2 } else { 1 });
                let Turn::Failed(why) = closed(&mut sender).await else { panic!() };
                sender.failed(&why, now);
            }
            assert_eq!((outcome.lost, sender.flow.letters_mut()[0].draft.subject()), (1, kept));
        }
    }

    /// How the connection ended.
    async fn closed(sender: &mut Sender) -> Turn {
        loop {
            let turn = sender.link.turn(&mut sender.events).await;
            if matches!(turn, Turn::Failed(_)) {
                return turn;
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_read_while_the_wire_has_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let now = Now::read().instant;
        let (mut wire, _server) = wire(1 << 20).await;
        while wire.has_room() {
            wire.publish(&letter(1, "s", &"x".repeat(10_000)), None, now);
        }
        let mut sender = sender(directory.path().into(), Link::Up(Box::new(wire)));
        let letters = [Letter { number: 1, at: Now::read().unix, ..letter(1, "s", "x") }];
        assert!(sender.store.change(&letters, &sender.shared.notices, now));
        sender.read(now);
        assert!(sender.store.has_unread());
        assert_eq!(sender.flow.len(), 0);
    }

    #[tokio::test]
    async fn thread_sleeps_only_where_it_misses_nothing() {
        let now = Now::read().instant;
        let acked = plan(Mode::Acked, Bounds { messages: 1000, bytes: QUEUE_BYTES }).mode;
        let letters = || [Letter { number: 1, at: Now::read().unix, ..letter(1, "s", "x") }];
        let changes: [(Change<'_>, bool); 6] = [
            (&|_| {}, true),
            (&|sender| sender.link = Link::Waiting(now), false),
            (&|sender| sender.link.wire().unwrap().publish(&letter(1, "s", "x"), None, now), false),
            (
                &|sender| sender.flow = Flow::Lanes(Box::new(Lanes::new("i".into(), Patience::of(&acked)))),
                false,
            ),
            (&|sender| assert!(sender.store.change(&letters(), &sender.shared.notices, now)), false),
            (&|sender| assert!((0..501).all(|_| sender.shared.queue.push(letter(1, "s", "x")))), false),
        ];
        for (number, (change, may_sleep)) in changes.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let (wire, _server) = wire(1 << 20).await;
            let mut sender = sender(directory.path().into(), Link::Up(Box::new(wire)));
            change(&mut sender);
            assert_eq!(sender.may_sleep(), may_sleep, "change {number}");
        }
    }

    #[tokio::test]
    async fn all_that_the_server_said_is_heard_after_a_sleep() {
        let directory = tempfile::tempdir().unwrap();
        let (wire, server) = wire(1 << 20).await;
        let error = format!("-ERR 'Permissions Violation for Publish to \"{}\"'\r\n", "x".repeat(1000));
        server.accept().await.unwrap().0.write_all(error.repeat(90).as_bytes()).await.unwrap();
        let mut sender = sender(directory.path().into(), Link::Up(Box::new(wire)));
        sender.sleep(Duration::ZERO).await;
        assert!(sender.link.turn_at_once(&mut sender.events).await.is_none());
    }

    fn sender(directory: PathBuf, link: Link) -> Sender {
        let config = SpoolConfig { directory, max_bytes: 1 << 24, max_age: Duration::from_secs(3600) };
        let spool = Spool::open(&config).unwrap();
        let bounds = Bounds { messages: 1000, bytes: QUEUE_BYTES };
        let plan = plan(Mode::Spool(config), bounds);
        let sender = Sender::new(Arc::new(Shared::new(&plan)), &plan, Some(spool), 0);
        Sender { link, ..sender }
    }

    type Change<'a> = &'a dyn Fn(&mut Sender);

    const QUEUE_BYTES: usize = 200_000;
}
