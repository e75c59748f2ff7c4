//! Decisions by what the answer to `connect` says about the whole session.

use std::sync::Arc;

use mgate_policies::{Action, Answer, Cause, Decision, Now, Policy, Query, Reason, Resource};
use tokio::time;

use super::cache::Remembered;
use super::decisions::Decisions;
use crate::question::Question as Kept;

impl Decisions {
    /// Decides by the terms of the session, where it has any; otherwise as `ask` does.
    pub(super) fn by_session(
        self: &Arc<Self>,
        query: &Query<'_>,
        now: Now,
        ask: impl FnOnce() -> Answer,
    ) -> Answer {
        let Ok(question) = self.question(&beginning(query)) else { return ask() };
        if let Some(remembered) = self.recall(&question, now) {
            return match self.by_terms(&remembered, query, now) {
                Some(decision) => Answer::Ready(decision),
                None => match ask() {
                    Answer::Ready(decision) => Answer::Ready(remembered.remind(decision)),
                    Answer::Pending(asking) => {
                        Answer::Pending(Box::pin(async move { remembered.remind(asking.await) }))
                    }
                },
            };
        }
        let (this, deadline) = (Arc::clone(self), self.deadline());
        let (kept, action, answer) = (kept(query), query.action, ask());
        Answer::Pending(Box::pin(async move {
            let since = time::Instant::now();
            let settled = match this.settle(&question, now, deadline).await {
                Ok(settled) => settled,
                Err(error) => return this.unavailable(action, &error),
            };
            let now = now.later(since.elapsed());
            let decided = kept.query().ok().and_then(|query| this.by_terms(&settled.remembered, &query, now));
            let decision = match (decided, answer) {
                (Some(decision), _) => return decision,
                (None, Answer::Ready(decision)) => decision,
                (None, Answer::Pending(asking)) => asking.await,
            };
            settled.remembered.remind(decision)
        }))
    }

    /// Whether it is known that the session has no terms which decide this.
    pub(super) fn is_left_open(&self, query: &Query<'_>, now: Now) -> bool {
        let Ok(question) = self.question(&beginning(query)) else { return true };
        let remembered = self.peek(&question, now);
        remembered.is_some_and(|remembered| self.by_terms(&remembered, query, now).is_none())
    }

    /// What the terms say, if there are any. A session that could not begin anew may do nothing.
    fn by_terms(&self, session: &Remembered, query: &Query<'_>, now: Now) -> Option<Decision> {
        let decision = session.decision(self.shared_name(), query.client.principal.expires, now);
        let Decision::Allow(grant) = decision else {
            return matches!(decision, Decision::Deny(_)).then_some(decision);
        };
        let rules = session.terms.as_ref()?.rules.as_ref()?;
        let decision = match rules.evaluate(query, now) {
            Answer::Ready(Decision::Allow(allow)) => {
                allow.and(grant).map_or_else(Decision::Deny, Decision::Allow)
            }
            Answer::Ready(deny @ Decision::Deny(_)) => deny,
            Answer::Ready(Decision::Abstain) | Answer::Pending(_) => {
                let detail = format!("{}: nothing in the session's terms allows it", self.name());
                Decision::Deny(Reason::with_detail(Cause::NotAuthorized, detail))
            }
        };
        Some(session.remind(decision))
    }
}

impl Remembered {
    /// The decision, which tells the session what is true for all of it by now.
    fn remind(&self, mut decision: Decision) -> Decision {
        let terms = || Some(self.terms.as_ref().map(|terms| terms.session.clone()).unwrap_or_default());
        match &mut decision {
            Decision::Allow(grant) => grant.session = terms(),
            Decision::Deny(reason) => reason.session = terms(),
            Decision::Abstain => {}
        }
        decision
    }
}

/// The question that began the session.
fn beginning<'a>(query: &Query<'a>) -> Query<'a> {
    let (action, resource) = (Action::Connect, Resource::Session);
    Query { action, resource, payload: b"", qos: 0, retain: false, ..*query }
}

/// The question for later; terms know no payloads.
fn kept(query: &Query<'_>) -> Kept {
    let (resource, method) = match query.resource {
        Resource::Filter(filter) => (filter.to_string(), ""),
        Resource::Request { method, path } => (path.to_string(), method),
        Resource::Topic(topic) => (topic.to_string(), ""),
        _ => (String::new(), ""),
    };
    let method = method.to_owned();
    let Query { client, action, qos, retain, .. } = *query;
    Kept { client: client.clone(), action, resource, method, qos, retain }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use mgate_policies::{SessionLimits, SessionTerms, TopicPrefix};

    use super::super::tests::{
        ALLOW, DENY, asked_about, cause, client, decide_at, deliver, grant, is_allowed, options, publish,
        subscribe,
    };
    use super::super::{ALL_ACTIONS, Pdp, PdpOptions};
    use super::*;
    use crate::service::{Heard, Service, json};

    #[tokio::test]
    async fn terms_decide_without_asking() {
        let service = Service::saying(json(TERMS));
        let (pdp, now, client) = (pdp(&service), Now::read(), client());
        let allowed = [publish(&client, "a/1"), subscribe(&client, "a/+"), deliver(&client, "a/2")];
        let denied = [publish(&client, "b"), publish(&client, "a/no"), subscribe(&client, "#")];
        for at in [now, now.later(Duration::from_secs(20))] {
            assert!(is_allowed(&decide_at(&pdp, &connect(&client), at).await));
            for query in &allowed {
                let left = grant(decide_at(&pdp, query, at).await).ttl;
                assert!(left.is_some_and(|left| left <= Duration::from_secs(30)), "{left:?}");
            }
            for query in &denied {
                assert_eq!(cause(&decide_at(&pdp, query, at).await), Some(Cause::NotAuthorized), "{query:?}");
            }
        }
        assert_eq!(all_asked(&service), ["connect dev-1"]);
    }

    #[tokio::test]
    async fn terms_that_ended_are_asked_for_before_anything_else() {
        let service = Service::saying(json(TERMS));
        let (pdp, now, client) = (pdp(&service), Now::read(), client());
        decide_at(&pdp, &connect(&client), now).await;
        let later = now.later(Duration::from_secs(31));
        assert!(is_allowed(&decide_at(&pdp, &publish(&client, "a/1"), later).await));
        assert!(!is_allowed(&decide_at(&pdp, &publish(&client, "b"), later).await));
        assert_eq!(all_asked(&service), ["connect dev-1", "connect dev-1"]);
    }

    #[tokio::test]
    async fn session_that_could_not_begin_anew_may_do_nothing() {
        let service = Service::start(|heard, tcp| {
            let body = if asked_about(heard).starts_with("connect") { DENY } else { ALLOW };
            tcp.write_all(&json(body))
        });
        let (pdp, client) = (pdp(&service), client());
        for _ in 0..2 {
            let decision = decide_at(&pdp, &publish(&client, "a/1"), Now::read()).await;
            assert_eq!(cause(&decision), Some(Cause::NotAuthorized));
        }
        assert_eq!(all_asked(&service), ["connect dev-1"]);
    }

    #[tokio::test]
    async fn without_terms_each_thing_is_asked_about() {
        let service = Service::saying(json(ALLOW));
        let (pdp, now, client) = (pdp(&service), Now::read(), client());
        for topic in ["a/1", "b"] {
            assert!(is_allowed(&decide_at(&pdp, &publish(&client, topic), now).await));
        }
        assert_eq!(all_asked(&service), ["connect dev-1", "publish a/1", "publish b"]);
    }

    #[tokio::test]
    async fn terms_count_where_they_are_wanted_alone() {
        let service = Service::saying(json(TERMS));
        let pdp = Pdp::new(PdpOptions { session_terms: false, ..wanted(&service) });
        let (now, client) = (Now::read(), client());
        decide_at(&pdp, &connect(&client), now).await;
        decide_at(&pdp, &publish(&client, "b"), now).await;
        assert_eq!(all_asked(&service), ["connect dev-1", "publish b"]);
    }

    #[tokio::test]
    async fn each_decision_tells_what_is_true_for_the_session() {
        let statements =
            ",\"statements\":[{\"effect\":\"allow\",\"actions\":[\"publish\"],\"resources\":[\"topic:a\"]}]";
        for statements in ["", statements] {
            let service = Service::start(move |heard, tcp| {
                let said = match asked_about(heard).as_str() {
                    "publish b" => DENY.to_owned(),
                    "publish a" => ALLOW.to_owned(),
                    _ => connected(&format!("{LIMITS},{PREFIX}{statements}")),
                };
                tcp.write_all(&json(&said))
            });
            let (pdp, now, client) = (pdp(&service), Now::read(), client());
            let limits = SessionLimits { messages_per_second: Some(5), ..SessionLimits::default() };
            let terms = Some(SessionTerms::new(limits, TopicPrefix::parse("acme/").ok()));
            // the first time they are asked for, then they are known
            for asked in
                [[publish(&client, "a"), publish(&client, "b")], [publish(&client, "a"), connect(&client)]]
            {
                for query in &asked {
                    assert_eq!(session_of(decide_at(&pdp, query, now).await), terms, "{query:?}");
                }
            }
            assert_eq!(all_asked(&service).iter().filter(|asked| *asked == "connect dev-1").count(), 1);
        }
    }

    #[tokio::test]
    async fn session_without_terms_is_told_so() {
        let service = Service::saying(json(ALLOW));
        let (pdp, client) = (pdp(&service), client());
        let none = Some(SessionTerms::default());
        assert_eq!(session_of(decide_at(&pdp, &publish(&client, "a"), Now::read()).await), none);
        let pdp = Pdp::new(PdpOptions { session_terms: false, ..wanted(&service) });
        assert_eq!(session_of(decide_at(&pdp, &publish(&client, "a"), Now::read()).await), None);
    }

    #[tokio::test]
    async fn terms_that_change_are_told_with_the_next_decision() {
        let requests = AtomicUsize::new(0);
        let service = Service::start(move |_, tcp| {
            let terms = if requests.fetch_add(1, Ordering::Relaxed) == 0 { PREFIX } else { LIMITS };
            tcp.write_all(&json(&connected(&format!("{terms},\"statements\":[]"))))
        });
        let (pdp, now, client) = (pdp(&service), Now::read(), client());
        let prefix = |terms: Option<SessionTerms>| terms.unwrap().topic_prefix().map(ToString::to_string);
        let began = session_of(decide_at(&pdp, &connect(&client), now).await);
        assert_eq!(prefix(began).as_deref(), Some("\"acme/\""));
        let later = now.later(Duration::from_secs(61));
        assert_eq!(prefix(session_of(decide_at(&pdp, &publish(&client, "a"), later).await)), None);
    }

    #[tokio::test]
    async fn terms_count_with_the_answer_to_connect_alone() {
        let service = Service::saying(json(&connected(PREFIX)));
        let pdp = Pdp::new(PdpOptions { session_terms: false, ..wanted(&service) });
        let client = client();
        for _ in 0..2 {
            let (began, went_on) = (connect(&client), publish(&client, "a"));
            assert!(session_of(decide_at(&pdp, &began, Now::read()).await).is_some());
            assert_eq!(session_of(decide_at(&pdp, &went_on, Now::read()).await), None);
        }
    }

    #[tokio::test]
    async fn terms_that_are_not_understood_end_in_a_denial() {
        let service = Service::saying(json(r#"{"decision":true,"context":{"mgate":{"rules":[]}}}"#));
        let decision = decide_at(&pdp(&service), &connect(&client()), Now::read()).await;
        assert_eq!(cause(&decision), Some(Cause::Unavailable));
    }

    #[tokio::test]
    async fn session_ends_so_long_after_it_was_asked_for() {
        let service = Service::saying(json(TERMS));
        let (pdp, now, client) = (pdp(&service), Now::read(), client());
        for (secs, most) in [(0, 100), (10, 90)] {
            let at = now.later(Duration::from_secs(secs));
            let ends_after = grant(decide_at(&pdp, &connect(&client), at).await).ends_after.unwrap();
            let most = Duration::from_secs(most);
            assert!(ends_after <= most && ends_after > most - Duration::from_secs(5), "{ends_after:?}");
        }
    }

    #[tokio::test]
    async fn terms_are_asked_for_again_while_they_count() {
        let terms = TERMS.replace("\"disconnect_after\"", "\"refresh_after\":5,\"disconnect_after\"");
        let service = Service::saying(json(&terms));
        let (pdp, now, client) = (pdp(&service), Now::read(), client());
        decide_at(&pdp, &connect(&client), now).await;
        for (secs, requests) in [(4, 1), (6, 2)] {
            let at = now.later(Duration::from_secs(secs));
            assert!(matches!(pdp.evaluate(&publish(&client, "a/1"), at), Answer::Ready(Decision::Allow(_))));
            while service.heard().len() < requests {
                tokio::task::yield_now().await;
            }
            assert_eq!(service.heard().len(), requests);
        }
    }

    fn session_of(decision: Decision) -> Option<SessionTerms> {
        match decision {
            Decision::Allow(grant) => grant.session,
            Decision::Deny(reason) => reason.session,
            Decision::Abstain => panic!("it decides"),
        }
    }

    /// Leave to connect with these terms.
    fn connected(terms: &str) -> String {
        format!("{{\"decision\":true,\"context\":{{\"ttl\":60,\"mgate\":{{{terms}}}}}}}")
    }

    fn all_asked(service: &Service) -> Vec<String> {
        service.heard().iter().map(|heard: &Heard| asked_about(heard)).collect()
    }

    fn connect(client: &mgate_policies::Client) -> Query<'_> {
        super::super::tests::query(client, Action::Connect, Resource::Session)
    }

    fn pdp(service: &Service) -> Pdp {
        Pdp::new(wanted(service))
    }

    fn wanted(service: &Service) -> PdpOptions {
        let actions = ALL_ACTIONS.iter().copied().filter(|action| *action != Action::Deliver).collect();
        PdpOptions { session_terms: true, actions, ..options(&service.url("/")) }
    }

    const LIMITS: &str = r#""limits":{"messages_per_second":5}"#;
    const PREFIX: &str = r#""topic_prefix":"acme/""#;
    const TERMS: &str = r#"{"decision":true,"context":{"ttl":30,"mgate":{"statements":[
        {"effect":"allow","actions":["publish","subscribe"],"resources":["topic:a/#"]},
        {"effect":"deny","actions":["publish"],"resources":["topic:a/no"]}
    ],"disconnect_after":100}}}"#;
}
