//! Questions that are known to come, asked at once where the service can be asked so.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use mgate_policies::{Now, Query};
use tokio::sync::oneshot;

use super::super::client::PdpError;
use super::super::dialect::{AnswerError, Answered};
use super::{Decisions, Outcome, Question};
use crate::neighbour::guard::Place;

/// One who is on board, and waits for what comes out.
struct Aboard {
    key: u128,
    question: Question,
    landed: oneshot::Sender<Outcome>,
}

impl Decisions {
    /// Asks at once what will be asked one by one and is neither known nor on its way: whoever asks then waits
    /// for the same. What cannot be asked so is lost to nobody, as it still comes.
    pub(in super::super) fn foresee(self: &Arc<Self>, queries: &[Query<'_>], now: Now) {
        if self.client.dialect.batch().is_none() || self.client.is_left_alone(now) {
            return;
        }
        let open = self.open(queries, now);
        if open.len() < 2 {
            return;
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for (key, question) in open {
            let length = question.request.body().len();
            if batch.len() == MAX_QUESTIONS || bytes + length > MAX_BYTES && !batch.is_empty() {
                self.take_off_together(std::mem::take(&mut batch), now);
                bytes = 0;
            }
            bytes += length;
            batch.push((key, question));
        }
        self.take_off_together(batch, now);
    }

    /// The questions among these that have to be put to the service, each once.
    fn open(&self, queries: &[Query<'_>], now: Now) -> Vec<(u128, Question)> {
        let (mut open, mut seen) = (Vec::new(), HashSet::new());
        for query in queries.iter().filter(|query| self.asks_about(query.action)) {
            if self.has_session_terms() && !self.is_left_open(query, now) {
                continue;
            }
            let Ok(question) = self.question(query) else { continue };
            let key = self.key(&question, self.epoch_of(&question));
            if seen.insert(key) && !self.flights.is_under_way(key) && self.cache.recall(key, now).is_none() {
                open.push((key, question));
            }
        }
        open
    }

    /// Asks all with one request, if there is a place for it.
    fn take_off_together(self: &Arc<Self>, batch: Vec<(u128, Question)>, now: Now) {
        let Ok(place) = self.client.place() else { return };
        let mut aboard = Vec::with_capacity(batch.len());
        for (key, question) in batch {
            // who has taken off meanwhile flies alone
            let _ = self.flights.join(key, || {
                let (landed, landing) = oneshot::channel();
                aboard.push(Aboard { key, question, landed });
                Ok::<_, Infallible>(async { landing.await.unwrap_or(Err(PdpError::Lost)) })
            });
        }
        if !aboard.is_empty() {
            tokio::spawn(Arc::clone(self).fly_together(aboard, place, now));
        }
    }

    async fn fly_together(self: Arc<Self>, aboard: Vec<Aboard>, place: Place, now: Now) {
        let questions: Vec<_> = aboard.iter().map(|one| one.question.request.clone()).collect();
        let mut answers = self.answers(&questions, &place, now).await.into_iter();
        for Aboard { key, question, landed } in aboard {
            let answer = answers.next().unwrap_or(Err(PdpError::Answer(MISSING)));
            // nobody may be there any longer
            let _ = landed.send(self.keep(key, answer, question.about(), now).await);
        }
    }

    /// The answers in the order of the questions; there may be fewer.
    async fn answers(
        &self,
        questions: &[Request<Bytes>],
        place: &Place,
        now: Now,
    ) -> Vec<Result<Answered, PdpError>> {
        let Some(batch) = self.client.dialect.batch() else { return Vec::new() };
        match self.client.ask_all(batch, questions, place, now).await {
            Ok(answers) => answers.into_iter().map(|answer| answer.map_err(PdpError::Answer)).collect(),
            Err(error) => questions.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

/// Questions in one request.
const MAX_QUESTIONS: usize = 100;
/// What their bodies may be together: services and servers of NATS bound what they take.
const MAX_BYTES: usize = 256 * 1024;
const MISSING: AnswerError = AnswerError::Meaning("has no element for this question");

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::net::TcpStream;
    use std::num::NonZeroU16;
    use std::time::Duration;

    use mgate_policies::{Action, Answer, Cause, Client, Policy, Resource};
    use serde_json::{Value, json as value};

    use super::super::super::tests::{
        asked_about, cause, client, decide, decide_at, is_allowed, options, query, stop, subscribe,
    };
    use super::super::super::{Authzen, Pdp, PdpOptions};
    use super::*;
    use crate::service::{Heard, Service, answer, json};

    #[tokio::test]
    async fn filters_are_one_request_with_answers_in_their_order() {
        let service = Service::start(by_name);
        // seventeen questions have a place, so that all together must have one
        let pdp = Pdp::new(PdpOptions { concurrency: NonZeroU16::MIN, ..batching(&service) });
        let client = client();
        let filters: Vec<_> =
            (0..20).map(|n| if n % 3 == 0 { format!("bad/{n}") } else { format!("a/{n}") }).collect();
        foresee(&pdp, &client, filters.iter().chain([&filters[1]]));
        for filter in &filters {
            let decision = decide(&pdp, &subscribe(&client, filter)).await;
            let expected = filter.starts_with("bad").then_some(Cause::NotAuthorized);
            assert_eq!(cause(&decision), expected, "{filter}");
        }
        let [heard] = &service.heard()[..] else { panic!("it is one request") };
        assert_eq!(heard.line, "POST /access/v1/evaluations");
        let expected: Vec<_> = filters.iter().map(|filter| format!("subscribe {filter}")).collect();
        assert_eq!(asked_at_once(heard), expected);
    }

    #[tokio::test]
    async fn element_that_is_none_spoils_no_other_and_is_not_remembered() {
        for (elements, expected) in [
            (value!([{ "decision": true }, { "decision": 1 }, { "decision": false }]), [ALLOW, NONE, DENY]),
            (value!([{ "decision": true }, null, { "decision": true }]), [ALLOW, NONE, ALLOW]),
            (value!([{ "decision": false }, { "decision": true }]), [DENY, ALLOW, NONE]),
            (value!([]), [NONE, NONE, NONE]),
            (value!(vec![value!({ "decision": true }); 4]), [NONE, NONE, NONE]),
            (value!("all"), [NONE, NONE, NONE]),
        ] {
            let said = json(&value!({ "evaluations": elements }).to_string());
            let service = Service::saying(said);
            let (pdp, client) = (Pdp::new(batching(&service)), client());
            assert_eq!(all(&pdp, &client).await, expected, "{elements}");
            assert_eq!(service.heard().len(), 1);
            for (filter, expected) in FILTERS.iter().zip(expected) {
                let answer = pdp.evaluate(&subscribe(&client, filter), Now::read());
                assert_eq!(matches!(answer, Answer::Pending(_)), expected == NONE, "{filter}: {elements}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_denies_all_and_is_one_failure() {
        for (status, is_left_alone) in [("404 Not Found", false), ("503 Busy", true)] {
            let service = Service::start(move |heard, tcp| match heard.line.ends_with("evaluations") {
                true => tcp.write_all(&answer(status, "application/json", "{}")),
                false => tcp.write_all(&json(r#"{"decision":true}"#)),
            });
            let (pdp, client) = (Pdp::new(batching(&service)), client());
            for requests in 1..=5 {
                assert_eq!(all(&pdp, &client).await, [NONE; 3]);
                assert_eq!(service.heard().len(), requests);
            }
            let alone = decide(&pdp, &subscribe(&client, "a")).await;
            assert_eq!(is_allowed(&alone), !is_left_alone, "{status}");
        }
    }

    #[tokio::test]
    async fn what_is_known_or_on_its_way_is_left_out() {
        let service = Service::start(by_name);
        let (pdp, client) = (Pdp::new(batching(&service)), client());
        decide(&pdp, &subscribe(&client, "known")).await;
        foresee(&pdp, &client, ["known", "a", "b"]);
        foresee(&pdp, &client, ["a", "b", "c", "known", "d"]);
        // what is alone is no batch
        foresee(&pdp, &client, ["a", "b", "c", "d", "known", "e"]);
        for filter in ["a", "b", "c", "d", "e", "known"] {
            assert!(is_allowed(&decide(&pdp, &subscribe(&client, filter)).await));
        }
        let mut heard: Vec<_> = service.heard().iter().map(asked_at_once).collect();
        heard.sort();
        let expected: [&[&str]; 4] = [
            &["subscribe a", "subscribe b"],
            &["subscribe c", "subscribe d"],
            &["subscribe e"],
            &["subscribe known"],
        ];
        assert_eq!(heard, expected);
    }

    #[tokio::test]
    async fn too_many_are_several_requests() {
        let service = Service::start(by_name);
        let (pdp, client) = (Pdp::new(batching(&service)), client());
        let small: Vec<_> = (0..250).map(|number| number.to_string()).collect();
        let large: Vec<_> = (0..5).map(|number| format!("{number}{}", "x".repeat(60_000))).collect();
        for (filters, expected) in [(small, vec![50, 100, 100]), (large, vec![1, 4])] {
            let before = service.heard().len();
            foresee(&pdp, &client, &filters);
            for filter in &filters {
                assert!(is_allowed(&decide(&pdp, &subscribe(&client, filter)).await));
            }
            let heard = service.heard();
            let mut sizes: Vec<_> = heard[before..].iter().map(|heard| asked_at_once(heard).len()).collect();
            sizes.sort_unstable();
            assert_eq!(sizes, expected);
        }
    }

    #[tokio::test]
    async fn each_answer_lasts_as_its_own_element_says() {
        let service = Service::saying(json(
            r#"{"evaluations":[{"decision":true,"context":{"ttl":3}},{"decision":true},{"decision":false}]}"#,
        ));
        let (pdp, client, now) = (Pdp::new(batching(&service)), client(), Now::read());
        foresee_at(&pdp, &client, FILTERS, now);
        for filter in FILTERS {
            decide_at(&pdp, &subscribe(&client, filter), now).await;
        }
        let later = now.later(Duration::from_secs(4));
        let is_known = FILTERS
            .map(|filter| matches!(pdp.evaluate(&subscribe(&client, filter), later), Answer::Ready(_)));
        assert_eq!(is_known, [false, true, true]);
    }

    #[tokio::test]
    async fn nothing_is_foreseen_where_it_cannot_be_asked_at_once() {
        let service = Service::start(by_name);
        let plain = Pdp::new(options(&service.url("/")));
        let connects_only = Pdp::new(PdpOptions { actions: vec![Action::Connect], ..batching(&service) });
        let client = client();
        for pdp in [&plain, &connects_only] {
            foresee(pdp, &client, FILTERS);
        }
        decide(&plain, &subscribe(&client, "a")).await;
        assert_eq!(service.heard().iter().map(asked_about).collect::<Vec<_>>(), ["subscribe a"]);
    }

    #[tokio::test]
    async fn terms_of_the_session_come_first() {
        let terms = r#"{"decision":true,"context":{"mgate":{"statements":[]}}}"#;
        for (connect, requests) in [(terms, 1), (r#"{"decision":true}"#, 2)] {
            let service = Service::start(move |heard, tcp| match heard.line.ends_with("evaluations") {
                true => by_name(heard, tcp),
                false => tcp.write_all(&json(connect)),
            });
            let pdp = Pdp::new(PdpOptions { session_terms: true, ..batching(&service) });
            let client = client();
            // nobody knows yet whether there are any
            foresee(&pdp, &client, FILTERS);
            decide(&pdp, &query(&client, Action::Connect, Resource::Session)).await;
            foresee(&pdp, &client, FILTERS);
            for filter in FILTERS {
                let is_open = requests == 2;
                assert_eq!(is_allowed(&decide(&pdp, &subscribe(&client, filter)).await), is_open);
            }
            assert_eq!(service.heard().len(), requests);
        }
    }

    #[tokio::test]
    async fn service_that_is_away_costs_no_more_than_one_question() {
        let service = Service::start(by_name);
        let (pdp, client) = (Pdp::new(batching(&service)), client());
        stop(service);
        assert_eq!(all(&pdp, &client).await, [NONE; 3]);
    }

    /// What becomes of all filters, asked while their batch is on its way.
    async fn all(pdp: &Pdp, client: &Client) -> [Option<Cause>; 3] {
        foresee(pdp, client, FILTERS);
        let [first, second, third] = FILTERS.map(|filter| subscribe(client, filter));
        let decisions = tokio::join!(decide(pdp, &first), decide(pdp, &second), decide(pdp, &third));
        [decisions.0, decisions.1, decisions.2].map(|decision| cause(&decision))
    }

    fn foresee<'a>(
        pdp: &Pdp,
        client: &Client,
        filters: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
    ) {
        foresee_at(pdp, client, filters, Now::read());
    }

    fn foresee_at<'a>(
        pdp: &Pdp,
        client: &Client,
        filters: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>,
        now: Now,
    ) {
        let queries: Vec<_> = filters.into_iter().map(|filter| subscribe(client, filter.as_ref())).collect();
        pdp.foresee(&queries, now);
    }

    fn batching(service: &Service) -> PdpOptions {
        let [one, several] =
            ["/access/v1/evaluation", "/access/v1/evaluations"].map(|path| service.url(path));
        let dialect = Authzen::new(one.parse().unwrap()).with_evaluations(several.parse().unwrap());
        PdpOptions { dialect: Box::new(dialect), ..options(&one) }
    }

    /// Says no to what has `bad` in its name, be it one question or several.
    fn by_name(heard: &Heard, tcp: &mut TcpStream) -> io::Result<()> {
        let body: Value = serde_json::from_str(&heard.body).unwrap();
        let decide = |question: &Value| value!({ "decision": !question["resource"]["id"].as_str().unwrap().contains("bad") });
        let said = match body["evaluations"].as_array() {
            Some(questions) => value!({ "evaluations": questions.iter().map(decide).collect::<Vec<_>>() }),
            None => decide(&body),
        };
        tcp.write_all(&json(&said.to_string()))
    }

    fn asked_at_once(heard: &Heard) -> Vec<String> {
        let body: Value = serde_json::from_str(&heard.body).unwrap();
        let questions = body["evaluations"].as_array().cloned().unwrap_or_else(|| vec![body]);
        let words = |question: &Value| {
            [&question["action"]["name"], &question["resource"]["id"]]
                .map(|word| word.as_str().unwrap())
                .join(" ")
        };
        questions.iter().map(words).collect()
    }

    const FILTERS: [&str; 3] = ["a", "b", "c"];
    const ALLOW: Option<Cause> = None;
    const DENY: Option<Cause> = Some(Cause::NotAuthorized);
    const NONE: Option<Cause> = Some(Cause::Unavailable);
}
