//! JetStream: each letter is acknowledged, and those of one session go one after the other.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::flow::{Outcome, TOO_LARGE};
use super::letter::Letter;
use super::wire::Wire;

/// Letters in a lane for each session. The next one of a lane goes out when the one before is stored.
pub(super) struct Lanes {
    /// What acknowledgements come in under, before a point and the number of the try.
    inbox: String,
    /// Whether letters that nobody waits for are given up when NATS refuses them again and again.
    gives_up: bool,
    /// What waits behind the first of each session that has one.
    behind: HashMap<SocketAddr, VecDeque<Letter>>,
    ready: VecDeque<Letter>,
    sent: HashMap<u64, Letter>,
    /// When each try is too late, in the order of tries.
    deadlines: VecDeque<(Instant, u64)>,
    /// What was refused, and when it is tried again.
    refused: VecDeque<(Instant, Letter)>,
    tries: u64,
    count: usize,
}

/// What NATS says to one try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// It is stored, in this stream.
    Stored(String),
    /// It is not, and why.
    Refused(String),
}

impl Lanes {
    pub(super) fn new(inbox: String, gives_up: bool) -> Self {
        Self {
            inbox,
            gives_up,
            behind: HashMap::new(),
            ready: VecDeque::new(),
            sent: HashMap::new(),
            deadlines: VecDeque::new(),
            refused: VecDeque::new(),
            tries: 0,
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
        self.pass(now);
        while wire.has_room() {
            let Some(letter) = self.ready.pop_front() else { break };
            if letter.is_given_up() {
                self.leave(letter.session);
                outcome.done(&letter);
            } else if letter.body.len() > wire.max_payload {
                self.leave(letter.session);
                outcome.lose(letter, TOO_LARGE);
            } else {
                self.tries += 1;
                wire.publish(&letter, Some(format_args!("{}.{}", self.inbox, self.tries)), now);
                self.deadlines.push_back((now + ACK_TIMEOUT, self.tries));
                self.sent.insert(self.tries, letter);
            }
        }
    }

    /// The subject of a try that is not judged yet.
    pub(super) fn subject(&self, number: u64) -> Option<String> {
        self.sent.get(&number).map(|letter| letter.subject.to_string())
    }

    /// NATS has judged the try of this number.
    pub(super) fn judged(&mut self, number: u64, is_stored: bool, outcome: &mut Outcome, now: Instant) {
        let Some(mut letter) = self.sent.remove(&number) else { return };
        letter.refusals = letter.refusals.saturating_add(1);
        let is_hopeless = self.gives_up && letter.waiting.is_none() && letter.refusals >= MAX_REFUSALS;
        if is_stored || letter.is_given_up() {
            self.leave(letter.session);
            outcome.stored(letter);
        } else if is_hopeless {
            self.leave(letter.session);
            outcome.lose(letter, "JetStream does not store it");
        } else {
            self.refused.push_back((now + REFUSED_PAUSE, letter));
        }
    }

    /// Drops what somebody waited for and does no longer.
    pub(super) fn purge(&mut self, outcome: &mut Outcome) {
        let before = outcome.released.messages;
        let mut drop_given_up = |letters: &mut VecDeque<Letter>| {
            letters.retain(|letter| {
                let is_given_up = letter.is_given_up();
                if is_given_up {
                    outcome.done(letter);
                }
                !is_given_up
            });
        };
        self.behind.values_mut().for_each(&mut drop_given_up);
        self.count -= outcome.released.messages - before;
        let refused = mem::take(&mut self.refused).into_iter().map(|(_, letter)| letter);
        for letter in refused.chain(mem::take(&mut self.ready)).collect::<Vec<_>>() {
            if letter.is_given_up() {
                outcome.done(&letter);
                self.leave(letter.session);
            } else {
                self.ready.push_back(letter);
            }
        }
    }

    pub(super) fn broke(&mut self) {
        let mut sent: Vec<_> = mem::take(&mut self.sent).into_iter().collect();
        sent.sort_unstable_by_key(|(number, _)| *number);
        sent.into_iter().rev().for_each(|(_, letter)| self.ready.push_front(letter));
        self.deadlines.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn letters_mut(&mut self) -> Vec<&mut Letter> {
        let behind = self.behind.values_mut().flatten();
        let refused = self.refused.iter_mut().map(|(_, letter)| letter);
        let mut letters: Vec<_> =
            self.ready.iter_mut().chain(self.sent.values_mut()).chain(refused).chain(behind).collect();
        letters.sort_unstable_by_key(|letter| letter.number);
        letters
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(mem::take(&mut self.inbox), self.gives_up);
    }

    /// Tries again what was not answered in time, and what was refused some time ago.
    fn pass(&mut self, now: Instant) {
        while let Some((_, number)) = self.deadlines.pop_front_if(|(deadline, _)| *deadline <= now) {
            self.ready.extend(self.sent.remove(&number));
        }
        while let Some((_, letter)) = self.refused.pop_front_if(|(at, _)| *at <= now) {
            self.ready.push_back(letter);
        }
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

impl Acknowledgement {
    /// Reads what came in for a try.
    pub(super) fn read(status: Option<u16>, payload: &[u8]) -> Self {
        if let Some(status) = status {
            return Self::Refused(match status {
                503 => "no stream takes this subject, or JetStream is away".to_owned(),
                status => format!("NATS answers {status}"),
            });
        }
        let Ok(answer) = serde_json::from_slice::<Value>(payload) else {
            return Self::Refused("what came is no acknowledgement".to_owned());
        };
        match (answer["stream"].as_str(), answer["seq"].as_u64(), &answer["error"]) {
            (Some(stream), Some(1..), Value::Null) => Self::Stored(stream.to_owned()),
            (.., error) => Self::Refused(error_text(error)),
        }
    }
}

/// What JetStream says is wrong.
pub(super) fn error_text(error: &Value) -> String {
    error["description"].as_str().unwrap_or("an answer without a reason").to_owned()
}

/// Time for NATS to acknowledge one try.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
const REFUSED_PAUSE: Duration = Duration::from_millis(250);
/// Two seconds.
const MAX_REFUSALS: u8 = 8;

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
        lanes.judged(1, true, &mut outcome, now);
        lanes.fill(&mut wire, &mut outcome, now);
        assert_eq!((written(&mut wire), outcome.released.messages, lanes.len()), (vec!["b 3".into()], 1, 2));
    }

    #[tokio::test]
    async fn what_is_refused_or_not_answered_is_tried_again_before_the_next() {
        let (mut wire, _listener) = wire(1000).await;
        let (mut lanes, mut outcome, now) = (lanes(), Outcome::default(), Now::read().instant);
        lanes.push(letter(1, "s", "a"));
        lanes.push(letter(1, "s", "b"));
        lanes.fill(&mut wire, &mut outcome, now);
        lanes.judged(1, false, &mut outcome, now);
        lanes.fill(&mut wire, &mut outcome, now);
        assert_eq!(written(&mut wire), ["a 1"]);
        lanes.fill(&mut wire, &mut outcome, now + REFUSED_PAUSE);
        lanes.fill(&mut wire, &mut outcome, now + REFUSED_PAUSE + ACK_TIMEOUT);
        lanes.broke();
        lanes.fill(&mut wire, &mut outcome, now);
        assert_eq!(written(&mut wire), ["a 2", "a 3", "a 4"]);
        // what is said to an earlier try came too late
        lanes.judged(2, true, &mut outcome, now);
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
        for number in 1..=u64::from(MAX_REFUSALS) {
            lanes.fill(&mut wire, &mut outcome, now);
            assert_eq!(written(&mut wire), [format!("b {number}")]);
            lanes.judged(number, false, &mut outcome, now);
            now += REFUSED_PAUSE;
        }
        assert_eq!((lanes.len(), outcome.lost, outcome.released.messages), (0, 1, 2));
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
        assert_eq!((lanes.len(), outcome.released.messages), (2, 2));
        assert_eq!(written(&mut wire), ["c 1", "d 2"]);
    }

    #[test]
    fn only_an_acknowledgement_without_an_error_counts() {
        let read = |status, payload: &str| Acknowledgement::read(status, payload.as_bytes());
        let stored = Acknowledgement::Stored("s".into());
        assert_eq!(read(None, "{\"stream\":\"s\",\"seq\":7}"), stored);
        assert_eq!(read(None, "{\"stream\":\"s\",\"seq\":7,\"duplicate\":true}"), stored);
        let full = "{\"error\":{\"code\":503,\"description\":\"full\"},\"stream\":\"s\",\"seq\":0}";
        assert_eq!(read(None, full), Acknowledgement::Refused("full".into()));
        for (status, payload) in [
            (Some(503), ""),
            (None, ""),
            (None, "{}"),
            (None, "{\"stream\":\"s\"}"),
            (None, "{\"stream\":\"s\",\"seq\":7,\"error\":{}}"),
        ] {
            assert!(matches!(read(status, payload), Acknowledgement::Refused(_)), "{payload}");
        }
    }

    fn lanes() -> Lanes {
        Lanes::new("_INBOX.x".into(), true)
    }
}
