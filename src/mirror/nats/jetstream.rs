//! JetStream: each letter is acknowledged, and those of one session go one after the other.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mgate_policies::Now;
use serde_json::Value;

use super::Mode;
use super::flow::{Outcome, TOO_LARGE};
use super::letter::Letter;
use super::wire::Wire;

/// Letters in a lane for each session. The next one of a lane goes out when the one before is stored.
pub(super) struct Lanes {
    /// What acknowledgements come in under, before a point and the number of the try.
    inbox: String,
    patience: Patience,
    /// What waits behind the first of each session that has one.
    behind: HashMap<SocketAddr, VecDeque<Letter>>,
    ready: VecDeque<Letter>,
    sent: HashMap<u64, Letter>,
    /// When each try is too late, in their order: of those that have little time, and of the others.
    deadlines: [VecDeque<(Instant, u64)>; 2],
    refused: VecDeque<Refused>,
    tries: u64,
    /// How often NATS showed that it stores letters.
    successes: u64,
    count: usize,
}

/// How long letters that nobody waits for are tried.
#[derive(Clone, Copy)]
pub(super) enum Patience {
    /// They must not keep those behind them that somebody waits for.
    Little,
    /// While they are younger than this, unless NATS takes others meanwhile and not them.
    Long(Duration),
}

/// A letter that was refused or not answered.
struct Refused {
    /// When it is tried again.
    until: Instant,
    /// How many successes there had been.
    successes: u64,
    letter: Letter,
}

/// What NATS says to one try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// It is stored, in this stream.
    Stored(String),
    /// It is not, and why.
    Refused(String),
    /// It never will be, and why.
    Impossible(String),
}

impl Lanes {
    pub(super) fn new(inbox: String, patience: Patience) -> Self {
        Self {
            inbox,
            patience,
            behind: HashMap::new(),
            ready: VecDeque::new(),
            sent: HashMap::new(),
            deadlines: Default::default(),
            refused: VecDeque::new(),
            tries: 0,
            successes: 0,
            count: 0,
        }
    }

    pub(super) fn push(&mut self, letter: Letter) {
        self.count += 1;
        match self.behind.entry(letter.session) {
            Entry::Occupied(mut lane) => lane.get_mut().push_back(letter),
            Entry::Vacant(lane) => {
                lane.insert(VecDeque::new());
                self.ready.push_back(letter);
            }
        }
    }

    pub(super) fn fill(&mut self, wire: &mut Wire, outcome: &mut Outcome, now: Instant) {
        self.pass(outcome, now);
        while wire.has_room() {
            let Some(letter) = self.ready.pop_front() else { break };
            if letter.is_given_up() {
                self.leave(letter.session);
                outcome.done(letter);
            } else if !wire.takes(&letter) {
                self.leave(letter.session);
                outcome.lose(letter, TOO_LARGE);
            } else {
                self.tries += 1;
                wire.publish(&letter, Some(format_args!("{}.{}", self.inbox, self.tries)), now);
                let timeout = self.patience.timeout(&letter);
                self.deadlines[usize::from(timeout == ACK_TIMEOUT)].push_back((now + timeout, self.tries));
                self.sent.insert(self.tries, letter);
            }
        }
    }

    /// The subject of a try that is not judged yet.
    pub(super) fn subject(&self, number: u64) -> Option<String> {
        self.sent.get(&number).map(|letter| letter.draft.subject().to_owned())
    }

    /// NATS has judged the try of this number.
    pub(super) fn judged(
        &mut self,
        number: u64,
        said: &Acknowledgement,
        outcome: &mut Outcome,
        now: Instant,
    ) {
        let Some(letter) = self.sent.remove(&number) else { return };
        match said {
            Acknowledgement::Stored(_) => {
                self.count_success();
                self.leave(letter.session);
                outcome.stored(letter);
            }
            Acknowledgement::Impossible(why) => {
                self.leave(letter.session);
                outcome.lose(letter, why);
            }
            Acknowledgement::Refused(_) => self.refuse(letter, outcome, now),
        }
    }

    /// NATS stores letters: those that it refuses meanwhile are refused for what they are.
    pub(super) fn count_success(&mut self) {
        self.successes += 1;
    }

    /// Drops what somebody waited for and does no longer.
    pub(super) fn purge(&mut self, outcome: &mut Outcome) {
        for lane in self.behind.values_mut() {
            for letter in mem::take(lane) {
                if letter.is_given_up() {
                    self.count -= 1;
                    outcome.done(letter);
                } else {
                    lane.push_back(letter);
                }
            }
        }
        let refused = mem::take(&mut self.refused).into_iter().map(|refused| refused.letter);
        for letter in refused.chain(mem::take(&mut self.ready)).collect::<Vec<_>>() {
            if letter.is_given_up() {
                self.leave(letter.session);
                outcome.done(letter);
            } else {
                self.ready.push_back(letter);
            }
        }
    }

    pub(super) fn broke(&mut self) {
        let mut sent: Vec<_> = mem::take(&mut self.sent).into_iter().collect();
        sent.sort_unstable_by_key(|(number, _)| *number);
        sent.into_iter().rev().for_each(|(_, letter)| self.ready.push_front(letter));
        self.deadlines.iter_mut().for_each(VecDeque::clear);
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many letters there are but those behind one that was refused.
    pub(super) fn moving(&self) -> usize {
        let tried_again = self.ready.iter().chain(self.sent.values()).filter(|letter| letter.refusals > 0);
        let refused = self.refused.iter().map(|refused| &refused.letter);
        let behind = |letter: &Letter| self.behind.get(&letter.session).map_or(0, VecDeque::len);
        self.count - tried_again.chain(refused).map(behind).sum::<usize>()
    }

    /// All letters, in no order.
    pub(super) fn letters(&self) -> impl Iterator<Item = &Letter> {
        let refused = self.refused.iter().map(|refused| &refused.letter);
        self.ready.iter().chain(self.sent.values()).chain(refused).chain(self.behind.values().flatten())
    }

    pub(super) fn letters_mut(&mut self) -> Vec<&mut Letter> {
        let behind = self.behind.values_mut().flatten();
        let refused = self.refused.iter_mut().map(|refused| &mut refused.letter);
        let mut letters: Vec<_> =
            self.ready.iter_mut().chain(self.sent.values_mut()).chain(refused).chain(behind).collect();
        letters.sort_unstable_by_key(|letter| letter.number);
        letters
    }

    pub(super) fn clear(&mut self) {
        // what is still said to earlier tries must not be taken for what is said to later ones
        let tries = self.tries;
        *self = Self { tries, ..Self::new(mem::take(&mut self.inbox), self.patience) };
    }

    /// Takes what is not answered in time for refused, and tries again what was refused some time ago.
    fn pass(&mut self, outcome: &mut Outcome, now: Instant) {
        while let Some(number) = self.late(now) {
            if let Some(letter) = self.sent.remove(&number) {
                self.refuse(letter, outcome, now);
            }
        }
        while let Some(Refused { successes, mut letter, .. }) =
            self.refused.pop_front_if(|refused| refused.until <= now)
        {
            let counts = matches!(self.patience, Patience::Little) || self.successes > successes;
            letter.refusals = letter.refusals.saturating_add(u8::from(counts));
            self.ready.push_back(letter);
        }
    }

    /// A try that is too late, or was judged before.
    fn late(&mut self, now: Instant) -> Option<u64> {
        let mut late = |tries: &mut VecDeque<_>| tries.pop_front_if(|(deadline, _)| *deadline <= now);
        self.deadlines.iter_mut().find_map(&mut late).map(|(_, number)| number)
    }

    /// Tries a letter again later, or gives it up.
    fn refuse(&mut self, letter: Letter, outcome: &mut Outcome, now: Instant) {
        if letter.is_given_up() {
            self.leave(letter.session);
            outcome.done(letter);
        } else if letter.waiting.is_none() && self.is_hopeless(&letter) {
            self.leave(letter.session);
            outcome.lose(letter, "JetStream does not store it");
        } else {
            let (until, successes) = (now + REFUSED_PAUSE, self.successes);
            self.refused.push_back(Refused { until, successes, letter });
        }
    }

    /// Whether a letter that was refused once more is not worth another try.
    fn is_hopeless(&self, letter: &Letter) -> bool {
        let is_awaited = |behind: &Letter| behind.waiting.is_some() && !behind.is_given_up();
        let most = match self.patience {
            Patience::Long(max_age) if letter.at + max_age < Now::read().unix => return true,
            Patience::Long(_) => MOST_TRIES,
            Patience::Little => match self.behind.get(&letter.session) {
                Some(lane) if lane.iter().any(is_awaited) => FEW_TRIES,
                _ => SOME_TRIES,
            },
        };
        letter.refusals + 1 >= most
    }

    /// The first of a lane has gone: it is the turn of the next.
    fn leave(&mut self, session: SocketAddr) {
        self.count -= 1;
        let Some(lane) = self.behind.get_mut(&session) else { return };
        match lane.pop_front() {
            Some(letter) => self.ready.push_back(letter),
            None => drop(self.behind.remove(&session)),
        }
    }
}

impl Patience {
    /// That of a mirror.
    pub(super) fn of(mode: &Mode) -> Self {
        match mode {
            Mode::Spool(config) => Self::Long(config.max_age),
            Mode::Acked | Mode::BestEffort => Self::Little,
        }
    }

    /// Time for NATS to acknowledge one try.
    fn timeout(self, letter: &Letter) -> Duration {
        match self {
            Self::Little if letter.waiting.is_none() => SHORT_ACK_TIMEOUT,
            _ => ACK_TIMEOUT,
        }
    }
}

impl Acknowledgement {
    /// Reads what came in for a try.
    pub(super) fn read(status: Option<u16>, payload: &[u8]) -> Self {
        if let Some(status) = status {
            return Self::Refused(match status {
                503 => "no stream takes this subject, or JetStream is away".to_owned(),
                status => format!("NATS answers {status}"),
            });
        }
        if let Some(stream) = stored_plainly(payload) {
            return Self::Stored(stream.to_owned());
        }
        let Ok(answer) = serde_json::from_slice::<Value>(payload) else {
            return Self::Refused("what came is no acknowledgement".to_owned());
        };
        match (answer["stream"].as_str(), answer["seq"].as_u64(), &answer["error"]) {
            (Some(stream), Some(1..), Value::Null) => Self::Stored(stream.to_owned()),
            (.., error) if error["err_code"] == MESSAGE_TOO_LARGE => Self::Impossible(error_text(error)),
            (.., error) => Self::Refused(error_text(error)),
        }
    }
}

/// The stream, where an answer is no more than that and a sequence number, as nearly all are.
fn stored_plainly(payload: &[u8]) -> Option<&str> {
    let text = str::from_utf8(payload).ok()?;
    let (stream, rest) = text.strip_prefix("{\"stream\":\"")?.split_once('"')?;
    let sequence = rest.strip_prefix(", \"seq\":")?.strip_suffix('}')?;
    let is_number = !sequence.starts_with('0') && sequence.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !sequence.is_empty() && !stream.contains('\\')).then_some(stream)
}

/// What JetStream says is wrong.
pub(super) fn error_text(error: &Value) -> String {
    error["description"].as_str().unwrap_or("an answer without a reason").to_owned()
}

const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// The same, where nobody waits for the letter and somebody may wait for the one behind it.
const SHORT_ACK_TIMEOUT: Duration = Duration::from_millis(500);
const REFUSED_PAUSE: Duration = Duration::from_millis(250);
/// Tries of a letter with one behind it that somebody waits for.
const FEW_TRIES: u8 = 2;
/// Two seconds of refusals.
const SOME_TRIES: u8 = 8;
/// Tries that count only if NATS stored something meanwhile.
const MOST_TRIES: u8 = 20;
/// JetStream's error JSStreamMessageExceedsMaximumErr: the stream's bound is smaller than the message.
const MESSAGE_TOO_LARGE: u64 = 10054;

#[cfg(test)]
mod tests {
    use mgate_policies::Now;
    use tokio::sync::oneshot;

    use super::super::letter::tests::letter;
    use super::super::wire::tests::{wire, written};
    use super::*;

    #[tokio::test]
    async fn next_of_a_session_waits_until_the_one_before_is_stored() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut lanes, mut outcome, now) = (lanes(), Outcome::default(), Now::read().instant);
        for (session, text) in [(1, "a"), (1, "b"), (2, "c")] {
            lanes.push(letter(session, "s", text));
        }
        lanes.fill(&mut wire, &mut outcome, now);
        assert_eq!(written(&mut wire), ["a 1", "c 2"]);
        lanes.judged(1, &stored(), &mut outcome, now);
        lanes.fill(&mut wire, &mut outcome, now);
        assert_eq!(
            (written(&mut wire), outcome.freed.held.messages, lanes.len()),
            (vec!["b 3".into()], 1, 2)
        );
    }

    #[tokio::test]
    async fn what_is_refused_or_not_answered_is_tried_again_before_the_next() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut lanes, mut outcome, now) = (lanes(), Outcome::default(), Now::read().instant);
        lanes.push(letter(1, "s", "a"));
        lanes.push(letter(1, "s", "b"));
        lanes.fill(&mut wire, &mut outcome, now);
        lanes.judged(1, &refused(), &mut outcome, now);
        lanes.fill(&mut wire, &mut outcome, now);
        assert_eq!(written(&mut wire), ["a 1"]);
        lanes.fill(&mut wire, &mut outcome, now + REFUSED_PAUSE);
        lanes.fill(&mut wire, &mut outcome, now + REFUSED_PAUSE + ACK_TIMEOUT);
        lanes.fill(&mut wire, &mut outcome, now + REFUSED_PAUSE + ACK_TIMEOUT + REFUSED_PAUSE);
        lanes.broke();
        lanes.fill(&mut wire, &mut outcome, now);
        assert_eq!(written(&mut wire), ["a 2", "a 3", "a 4"]);
        // what is said to an earlier try came too late
        lanes.judged(2, &stored(), &mut outcome, now);
        assert_eq!(lanes.len(), 2);
    }

    #[tokio::test]
    async fn letter_is_given_up_with_the_one_who_waits_or_after_some_refusals() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut lanes, mut outcome, mut now) = (lanes(), Outcome::default(), Now::read().instant);
        let (told, stored) = oneshot::channel();
        lanes.push(Letter { waiting: Some(told), ..letter(1, "s", "a") });
        lanes.push(letter(1, "s", "b"));
        drop(stored);
        for number in 1..=u64::from(SOME_TRIES) {
            lanes.fill(&mut wire, &mut outcome, now);
            assert_eq!(written(&mut wire), [format!("b {number}")]);
            lanes.judged(number, &refused(), &mut outcome, now);
            now += REFUSED_PAUSE;
        }
        assert_eq!((lanes.len(), outcome.lost, outcome.freed.held.messages), (0, 1, 2));
    }

    #[tokio::test]
    async fn letter_that_is_not_answered_keeps_an_awaited_one_for_a_second() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut lanes, mut outcome, mut now) = (lanes(), Outcome::default(), Now::read().instant);
        let (told, _stored) = oneshot::channel();
        lanes.push(letter(1, "s", "event"));
        lanes.push(Letter { waiting: Some(told), ..letter(1, "s", "a") });
        for pause in [Duration::ZERO, SHORT_ACK_TIMEOUT, REFUSED_PAUSE, SHORT_ACK_TIMEOUT] {
            now += pause;
            lanes.fill(&mut wire, &mut outcome, now);
        }
        assert_eq!(written(&mut wire), ["event 1", "event 2", "a 3"]);
        assert_eq!((lanes.len(), outcome.lost), (1, 1));
    }

    #[tokio::test]
    async fn spooled_letter_is_given_up_if_others_are_stored_and_it_is_not() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut outcome, mut now) = (Outcome::default(), Now::read().instant);
        let mut lanes = Lanes::new("_INBOX.x".into(), Patience::Long(AGES));
        lanes.push(letter(1, "s", "a"));
        for number in 1..=100 {
            lanes.fill(&mut wire, &mut outcome, now);
            lanes.judged(number, &refused(), &mut outcome, now);
            now += REFUSED_PAUSE;
        }
        assert_eq!((lanes.len(), outcome.lost), (1, 0));
        for number in 101..100 + u64::from(MOST_TRIES) {
            assert_eq!(lanes.len(), 1, "{number}");
            lanes.count_success();
            lanes.fill(&mut wire, &mut outcome, now);
            lanes.judged(number, &refused(), &mut outcome, now);
            now += REFUSED_PAUSE;
        }
        assert_eq!((lanes.len(), outcome.lost), (0, 1));
    }

    #[tokio::test]
    async fn what_can_never_be_stored_or_is_too_old_is_given_up_at_once() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut outcome, now) = (Outcome::default(), Now::read().instant);
        for (max_age, said, lost) in [
            (AGES, Acknowledgement::Impossible("large".into()), 1),
            (Duration::from_secs(1), refused(), 2),
            (AGES, refused(), 2),
        ] {
            let mut lanes = Lanes::new("_INBOX.x".into(), Patience::Long(max_age));
            lanes.push(letter(1, "s", "a"));
            lanes.fill(&mut wire, &mut outcome, now);
            lanes.judged(1, &said, &mut outcome, now);
            assert_eq!(outcome.lost, lost);
        }
    }

    #[tokio::test]
    async fn letters_behind_a_refused_one_do_not_count_as_moving() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut lanes, mut outcome, now) = (lanes(), Outcome::default(), Now::read().instant);
        for (session, text) in [(1, "a"), (1, "b"), (1, "c"), (2, "d"), (2, "e")] {
            lanes.push(letter(session, "s", text));
        }
        lanes.fill(&mut wire, &mut outcome, now);
        assert_eq!(lanes.moving(), 5);
        lanes.judged(1, &refused(), &mut outcome, now);
        assert_eq!(lanes.moving(), 3);
        lanes.fill(&mut wire, &mut outcome, now + REFUSED_PAUSE);
        assert_eq!(lanes.moving(), 3);
    }

    #[tokio::test]
    async fn what_is_said_to_a_forgotten_try_is_not_said_to_another() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut lanes, mut outcome, now) = (lanes(), Outcome::default(), Now::read().instant);
        lanes.push(letter(1, "s", "a"));
        lanes.fill(&mut wire, &mut outcome, now);
        lanes.clear();
        lanes.push(letter(1, "s", "b"));
        lanes.fill(&mut wire, &mut outcome, now);
        lanes.judged(1, &stored(), &mut outcome, now);
        assert_eq!(lanes.len(), 1);
    }

    #[tokio::test]
    async fn purge_leaves_what_somebody_waits_for() {
        let (mut lanes, mut outcome) = (lanes(), Outcome::default());
        let mut waiting = Vec::new();
        for (session, text) in [(1, "a"), (1, "b"), (1, "c"), (2, "d")] {
            let (told, stored) = oneshot::channel();
            lanes.push(Letter { waiting: Some(told), ..letter(session, "s", text) });
            waiting.push(stored);
        }
        // a and b
        waiting.drain(..2);
        lanes.purge(&mut outcome);
        let (mut wire, _listener) = wire(1000).await;
        lanes.fill(&mut wire, &mut outcome, Now::read().instant);
        assert_eq!((lanes.len(), outcome.freed.held.messages), (2, 2));
        assert_eq!(written(&mut wire), ["c 1", "d 2"]);
    }

    #[test]
    fn only_an_acknowledgement_without_an_error_counts() {
        let read = |status, payload: &str| Acknowledgement::read(status, payload.as_bytes());
        let stored = Acknowledgement::Stored("s".into());
        assert_eq!(read(None, "{\"stream\":\"s\",\"seq\":7}"), stored);
        assert_eq!(read(None, "{\"stream\":\"s\", \"seq\":7}"), stored);
        assert_eq!(read(None, "{\"stream\":\"\\u0073\", \"seq\":7}"), stored);
        assert_eq!(read(None, "{\"stream\":\"s\",\"seq\":7,\"duplicate\":true}"), stored);
        let full = "{\"error\":{\"code\":503,\"description\":\"full\"},\"stream\":\"s\",\"seq\":0}";
        assert_eq!(read(None, full), Acknowledgement::Refused("full".into()));
        let large = "{\"error\":{\"code\":400,\"err_code\":10054,\"description\":\"large\"},\"seq\":0}";
        assert_eq!(read(None, large), Acknowledgement::Impossible("large".into()));
        for (status, payload) in [
            (Some(503), ""),
            (None, ""),
            (None, "{}"),
            (None, "{\"stream\":\"s\"}"),
            (None, "{\"stream\":\"s\", \"seq\":}"),
            (None, "{\"stream\":\"s\", \"seq\":0}"),
            (None, "{\"stream\":\"s\", \"seq\":07}"),
            (None, "{\"stream\":\"s\", \"seq\":7"),
            (None, "{\"stream\":\"s\", \"seq\":7, \"error\":{}}"),
            (None, "{\"stream\":\"s\",\"seq\":7,\"error\":{}}"),
        ] {
            assert!(matches!(read(status, payload), Acknowledgement::Refused(_)), "{payload}");
        }
    }

    fn lanes() -> Lanes {
        Lanes::new("_INBOX.x".into(), Patience::Little)
    }

    fn stored() -> Acknowledgement {
        Acknowledgement::Stored("s".into())
    }

    fn refused() -> Acknowledgement {
        Acknowledgement::Refused("no".into())
    }

    /// Longer than any letter of these tests is old.
    const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
}
