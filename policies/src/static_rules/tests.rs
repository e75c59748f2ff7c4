use std::net::{Ipv4Addr, SocketAddr};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::{Chain, Outcome, Principal, Protocol, RequestPath, TopicFilter, TopicName};

#[test]
fn empty_statements_deny_everything() {
    let chain = Chain::new(vec![Arc::new(compile(vec![]))]);
    let client = client();
    for (action, resource) in [
        (Action::Connect, Resource::Session),
        (Action::Publish, topic("a")),
        (Action::Subscribe, filter("#")),
    ] {
        let outcome = chain.evaluate(&query(&client, action, resource), Now::read());
        assert!(matches!(outcome, Outcome::Denied(Reason { cause: Cause::NotAuthorized, .. })), "{action}");
    }
}

#[test]
fn deny_beats_allow_in_any_order() {
    let allow = || statement(Effect::Allow, "client:dev-1", &[Action::Publish], "topic:a/#");
    let deny = || statement(Effect::Deny, "group:ops", &[Action::Publish], "topic:a/+/secret");
    for statements in [vec![allow(), deny()], vec![deny(), allow()]] {
        let rules = compile(statements);
        assert_eq!(said(&rules, &client(), Action::Publish, topic("a/b/secret")), Said::Deny);
        assert_eq!(said(&rules, &client(), Action::Publish, topic("a/b")), Said::Allow);
    }
}

#[test]
fn names_in_resources_are_known() {
    let rules = allowing("*", &[Action::Publish], "topic:a/${username}/# topic:${claims.x}");
    let used = ["username", "claims.x", "client_id", "a"].map(|name| rules.uses_name(name));
    assert_eq!(used, [true, true, false, false]);
    let rules = allowing("*", &[Action::Connect], "client_id:${principal} client_id:x");
    assert_eq!(["principal", "username"].map(|name| rules.uses_name(name)), [true, false]);
}

#[test]
fn patterns_match_to_their_end() {
    let rules = allowing("*", &[Action::Publish], "topic:allowed topic:deep/allowed topic:+/one");
    for (name, expected) in [
        ("allowed", Said::Allow),
        ("allowed/secret", Said::Abstain),
        ("allowed/", Said::Abstain),
        ("/allowed", Said::Abstain),
        ("allow", Said::Abstain),
        ("Allowed", Said::Abstain),
        ("deep", Said::Abstain),
        ("deep/allowed", Said::Allow),
        ("deep/allowed/", Said::Abstain),
        ("x/one", Said::Allow),
        ("x/one/more", Said::Abstain),
    ] {
        assert_eq!(said(&rules, &client(), Action::Publish, topic(name)), expected, "{name}");
    }
}

#[test]
fn subscription_needs_one_pattern_that_covers_it() {
    let rules = allowing("*", &[Action::Subscribe], "topic:a/+ topic:b/# topic:$SYS/broker/# topic:c/d");
    for (text, expected) in [
        ("a/+", Said::Allow),
        ("a/x", Said::Allow),
        ("a/#", Said::Abstain),
        ("a", Said::Abstain),
        ("b", Said::Allow),
        ("b/#", Said::Allow),
        ("b/+/+", Said::Allow),
        ("$share/g/b/#", Said::Allow),
        ("$share/g/a/#", Said::Abstain),
        ("+/x", Said::Abstain),
        ("#", Said::Abstain),
        ("c/+", Said::Abstain),
        ("$SYS/broker/+", Said::Allow),
        ("$SYS/#", Said::Abstain),
        ("$SYS/+/x", Said::Abstain),
    ] {
        assert_eq!(said(&rules, &client(), Action::Subscribe, filter(text)), expected, "{text}");
    }
}

#[test]
fn lone_hash_means_every_ordinary_topic() {
    for pattern in ["topic:#", "topic:+/#"] {
        let rules = allowing("*", &[Action::Subscribe], pattern);
        for (text, expected) in [
            ("#", Said::Allow),
            ("+/#", Said::Allow),
            ("a", Said::Allow),
            ("/", Said::Allow),
            ("$SYS/x", Said::Abstain),
            ("$SYS/#", Said::Abstain),
        ] {
            assert_eq!(said(&rules, &client(), Action::Subscribe, filter(text)), expected, "{text}");
        }
        assert_eq!(said(&rules, &client(), Action::Deliver, topic("$SYS/x")), Said::Abstain);
    }
}

#[test]
fn deny_that_only_overlaps_stops_deliveries() {
    let rules = compile(vec![
        statement(Effect::Allow, "*", &[Action::Subscribe], "topic:#"),
        statement(Effect::Deny, "*", &[Action::Subscribe], "topic:+/secret/#"),
    ]);
    assert_eq!(said(&rules, &client(), Action::Subscribe, filter("a/#")), Said::Allow);
    assert_eq!(said(&rules, &client(), Action::Deliver, topic("a/secret")), Said::Deny);
    assert_eq!(said(&rules, &client(), Action::Deliver, topic("a/open")), Said::Allow);
    assert_eq!(said(&rules, &client(), Action::Subscribe, filter("a/secret/+")), Said::Deny);
}

#[test]
fn publish_implies_will_and_subscribe_implies_deliver() {
    for (listed, allowed) in [
        (Action::Publish, vec![Action::Publish, Action::Will]),
        (Action::Subscribe, vec![Action::Deliver, Action::Subscribe]),
        (Action::Will, vec![Action::Will]),
        (Action::Deliver, vec![Action::Deliver]),
    ] {
        let rules = allowing("*", &[listed], "topic:a");
        let is_allowed = |action: &Action| said(&rules, &client(), *action, topic("a")) == Said::Allow;
        let all = [Action::Deliver, Action::Publish, Action::Request, Action::Subscribe, Action::Will];
        let found: Vec<_> = all.into_iter().filter(is_allowed).collect();
        assert_eq!(found, allowed, "{listed}");
        assert_eq!(said(&rules, &client(), Action::Connect, Resource::Session), Said::Abstain);
    }
}

#[test]
fn connect_may_bind_the_client_id() {
    for (resources, client_id, expected) in [
        ("", "anything", Said::Allow),
        ("", "", Said::Allow),
        ("client_id:dev-1", "dev-1", Said::Allow),
        ("client_id:dev-1", "dev-10", Said::Abstain),
        ("client_id:${principal}", "dev-1", Said::Allow),
        ("client_id:${principal}", "dev-2", Said::Abstain),
        ("client_id:${claims.none}", "dev-1", Said::Abstain),
        ("client_id:${group}", "night", Said::Allow),
        ("client_id:sensor-*", "sensor-", Said::Allow),
        ("client_id:sensor-*", "sensor-ü", Said::Allow),
        ("client_id:sensor-*", "sensor", Said::Abstain),
        ("client_id:a* client_id:abcdef*", "abü", Said::Allow),
        ("client_id:xb* client_id:x\u{fc}b*", "x\u{fc}b1", Said::Allow),
        ("client_id:one client_id:two", "two", Said::Allow),
    ] {
        let rules = allowing("client:dev-1", &[Action::Connect], resources);
        let client = Client { client_id: client_id.into(), ..client() };
        assert_eq!(
            said(&rules, &client, Action::Connect, Resource::Session),
            expected,
            "{resources} {client_id}"
        );
    }
}

#[test]
fn client_id_binds_connect_alone() {
    let rules = allowing("*", &[Action::Connect, Action::Publish], "client_id:other topic:a");
    assert_eq!(said(&rules, &client(), Action::Connect, Resource::Session), Said::Abstain);
    assert_eq!(said(&rules, &client(), Action::Publish, topic("a")), Said::Allow);
    assert_eq!(said(&rules, &client(), Action::Connect, topic("a")), Said::Abstain);
}

#[test]
fn value_of_a_variable_is_never_a_pattern() {
    let rules =
        allowing("*", &[Action::Publish, Action::Subscribe], "topic:x/${client_id} topic:${username}/#");
    for name in ["+", "#", "a/b", "", "a\0", "${client_id}", "$SYS"] {
        let client = Client { client_id: name.into(), username: Some(name.into()), ..client() };
        for text in ["x/+", "x/#", "+/#", "#", "x/a", "x/b", "a/b", "a/b/c", "x/a/b", "x/", "/", "$SYS/a"] {
            assert_eq!(
                said(&rules, &client, Action::Subscribe, filter(text)),
                Said::Abstain,
                "{name} {text}"
            );
        }
    }
    assert_eq!(said(&rules, &client(), Action::Subscribe, filter("x/id-1")), Said::Allow);
    assert_eq!(said(&rules, &client(), Action::Publish, topic("x/id-2")), Said::Abstain);
}

#[test]
fn any_value_of_a_variable_will_do() {
    let mut client = client();
    for channel in ["7", "#", "9"] {
        client.principal.attributes.add("claims.channel", channel);
    }
    let rules = allowing("*", &[Action::Publish], "topic:channels/${claims.channel}/messages/#");
    for (name, expected) in [
        ("channels/7/messages", Said::Allow),
        ("channels/9/messages/a", Said::Allow),
        ("channels/8/messages", Said::Abstain),
        ("channels/7", Said::Abstain),
    ] {
        assert_eq!(said(&rules, &client, Action::Publish, topic(name)), expected, "{name}");
    }
}

#[test]
fn deny_with_an_unusable_variable_denies_whatever_else_fits() {
    for username in [None, Some(""), Some("+"), Some("a/b")] {
        let client = Client { username: username.map(Into::into), ..client() };
        let rules = compile(vec![
            statement(Effect::Allow, "*", &[Action::Publish, Action::Subscribe], "topic:# topic:$SYS/#"),
            statement(Effect::Deny, "*", &[Action::Publish, Action::Subscribe], "topic:a/${username}/x"),
            statement(Effect::Deny, "*", &[Action::Publish], "topic:${username}/y"),
        ]);
        for (name, expected) in [
            ("a/b/x", Said::Deny),
            ("a/b", Said::Allow),
            ("a/b/x/z", Said::Allow),
            ("b/b/x", Said::Allow),
            ("b/y", Said::Deny),
            ("$SYS/y", Said::Deny),
        ] {
            assert_eq!(said(&rules, &client, Action::Publish, topic(name)), expected, "{name}");
        }
        for (text, expected) in [("a/+/x", Said::Deny), ("a/#", Said::Allow), ("a/+/+", Said::Allow)] {
            assert_eq!(said(&rules, &client, Action::Subscribe, filter(text)), expected, "{text}");
        }
    }
}

#[test]
fn deny_with_a_variable_denies_its_value_alone() {
    let client = Client { username: Some("$SYS".into()), ..client() };
    let rules = compile(vec![
        statement(Effect::Allow, "*", &[Action::Publish], "topic:# topic:$SYS/#"),
        statement(Effect::Deny, "*", &[Action::Publish], "topic:${username}/#"),
    ]);
    assert_eq!(said(&rules, &client, Action::Publish, topic("$SYS/a")), Said::Deny);
    assert_eq!(said(&rules, &client, Action::Publish, topic("a/a")), Said::Allow);
}

#[test]
fn wildcards_neither_allow_nor_deny_reserved_topics() {
    let rules = compile(vec![
        statement(Effect::Allow, "*", &[Action::Publish], "topic:#"),
        statement(Effect::Allow, "*", &[Action::Publish], "topic:$SYS/#"),
        statement(Effect::Deny, "*", &[Action::Publish], "topic:+/x"),
    ]);
    for (name, expected) in [
        ("$SYS/x", Said::Allow),
        ("$CONTROL/x", Said::Abstain),
        ("$share/g/a", Said::Abstain),
        ("a/$SYS", Said::Allow),
        ("a/x", Said::Deny),
    ] {
        assert_eq!(said(&rules, &client(), Action::Publish, topic(name)), expected, "{name}");
    }
}

#[test]
fn statements_speak_of_their_principals_alone() {
    let anonymous = Client { principal: Principal::default(), ..client() };
    for (principals, for_client, for_anonymous) in [
        ("*", Said::Allow, Said::Allow),
        ("client:dev-1", Said::Allow, Said::Abstain),
        ("client:dev-2 client:dev-1", Said::Allow, Said::Abstain),
        ("client:ops", Said::Abstain, Said::Abstain),
        ("group:dev-1", Said::Abstain, Said::Abstain),
        ("group:night", Said::Allow, Said::Abstain),
        ("client:id-1", Said::Abstain, Said::Abstain),
    ] {
        let rules = allowing(principals, &[Action::Publish], "topic:a");
        assert_eq!(said(&rules, &client(), Action::Publish, topic("a")), for_client, "{principals}");
        assert_eq!(said(&rules, &anonymous, Action::Publish, topic("a")), for_anonymous, "{principals}");
    }
}

#[test]
fn all_conditions_must_hold() {
    let mut allow = statement(Effect::Allow, "*", &[Action::Publish], "topic:a");
    allow.conditions = vec![Condition::QosMax(1), Condition::Retain(false)];
    let rules = compile(vec![allow]);
    let client = client();
    for (qos, retain, expected) in [
        (1, false, Said::Allow),
        (2, false, Said::Abstain),
        (0, true, Said::Abstain),
        (2, true, Said::Abstain),
    ] {
        let query = Query { qos, retain, ..query(&client, Action::Publish, topic("a")) };
        assert_eq!(Said::of(&rules.decide(&query, Now::read())), expected, "{qos} {retain}");
    }
}

#[test]
fn paths_are_matched_segment_by_segment() {
    let rules = allowing("*", &[Action::Request], "path:/api/devices/${principal}/# path:/+/public path:/");
    for (path, expected) in [
        ("/api/devices/dev-1", Said::Allow),
        ("/api/devices/dev-1/", Said::Allow),
        ("/api/devices/dev-1/a/b", Said::Allow),
        ("/api/devices/dev-2/a", Said::Abstain),
        ("/api/devices", Said::Abstain),
        ("/API/devices/dev-1", Said::Abstain),
        ("/x/public", Said::Allow),
        ("/#/public", Said::Allow),
        ("/x/y/public", Said::Abstain),
        ("/", Said::Allow),
        ("/x", Said::Abstain),
    ] {
        assert_eq!(said(&rules, &client(), Action::Request, request("GET", path)), expected, "{path}");
    }
    assert_eq!(said(&rules, &client(), Action::Publish, topic("/x/public")), Said::Abstain);
}

#[test]
fn wildcards_in_a_path_are_no_wildcards() {
    let deny = statement(Effect::Deny, "*", &[Action::Request], "path:/admin/+ path:/one");
    let rules = compile(vec![statement(Effect::Allow, "*", &[Action::Request], "path:/#"), deny]);
    for (path, expected) in [
        ("/admin/#", Said::Deny),
        ("/admin/+", Said::Deny),
        ("/#", Said::Allow),
        ("/+", Said::Allow),
        ("/one", Said::Deny),
        ("/", Said::Allow),
    ] {
        assert_eq!(said(&rules, &client(), Action::Request, request("GET", path)), expected, "{path}");
    }
}

#[test]
fn methods_are_those_that_are_named() {
    let some = with_methods(&[Action::Request], "path:/a", &["GET", "PROPFIND"]);
    let rules = compile(vec![some, statement(Effect::Allow, "*", &[Action::Request], "path:/b")]);
    for (method, path, expected) in [
        ("GET", "/a", Said::Allow),
        ("HEAD", "/a", Said::Allow),
        ("PROPFIND", "/a", Said::Allow),
        ("POST", "/a", Said::Abstain),
        ("get", "/a", Said::Abstain),
        ("DELETE", "/b", Said::Allow),
        ("PROPFIND", "/b", Said::Abstain),
    ] {
        let said = said(&rules, &client(), Action::Request, request(method, path));
        assert_eq!(said, expected, "{method} {path}");
    }
}

#[test]
fn deny_without_methods_denies_unknown_ones_too() {
    let all = with_methods(&[Action::Request], "path:/#", &["PROPFIND"]);
    let rules = compile(vec![all, statement(Effect::Deny, "*", &[Action::Request], "path:/a")]);
    let said = |path| said(&rules, &client(), Action::Request, request("PROPFIND", path));
    assert_eq!([said("/a"), said("/b")], [Said::Deny, Said::Allow]);
}

#[test]
fn decisions_name_their_statement() {
    let deny = statement(Effect::Deny, "*", &[Action::Publish], "topic:b");
    let rules = compile(vec![
        Statement { sid: "telemetry".into(), ..statement(Effect::Allow, "*", &[Action::Publish], "topic:+") },
        deny,
    ]);
    let client = client();
    let decide = |name| rules.decide(&query(&client, Action::Publish, topic(name)), Now::read());
    assert_eq!(decide("a"), Decision::Allow(Grant::by(&Arc::from("statement \"telemetry\""))));
    assert_eq!(decide("b"), Decision::Deny(Reason::with_detail(Cause::NotAuthorized, "statement 2")));
}

#[test]
fn grants_last_until_a_time_condition_turns() {
    let not_before = Some(Duration::from_secs(100));
    let mut deny = statement(Effect::Deny, "*", &[Action::Publish], "topic:a");
    deny.conditions = vec![Condition::Between { not_before, not_after: None }];
    let rules = compile(vec![statement(Effect::Allow, "*", &[Action::Publish], "topic:a"), deny]);
    let client = client();
    let decide = |secs| {
        let now = Now { unix: Duration::from_secs(secs), ..Now::read() };
        rules.decide(&query(&client, Action::Publish, topic("a")), now)
    };
    let Decision::Allow(grant) = decide(90) else { panic!("the deny does not hold yet") };
    assert_eq!(grant.ttl, Some(Duration::from_secs(10)));
    assert_eq!(Said::of(&decide(100)), Said::Deny);
}

#[test]
fn mistakes_in_statements_are_named() {
    let statement =
        |principals, actions: &[Action], resources| statement(Effect::Allow, principals, actions, resources);
    let shared = |actions: &[Action]| Statement {
        conditions: vec![Condition::ShareGroups(vec!["g".into()])],
        ..statement("*", actions, "topic:a")
    };
    let with_principal = |who| Statement { principals: vec![who], ..statement("*", &[Action::Connect], "") };
    let bad_qos =
        Statement { conditions: vec![Condition::QosMax(3)], ..statement("*", &[Action::Connect], "") };
    for (statement, problem) in [
        (statement("", &[Action::Connect], ""), Problem::NoPrincipals),
        (statement("*", &[], ""), Problem::NoActions),
        (with_principal(Who::Client(String::new())), Problem::EmptyPrincipal),
        (with_principal(Who::Group(String::new())), Problem::EmptyPrincipal),
        (statement("*", &[Action::Publish], ""), Problem::NoTopic(Action::Publish)),
        (statement("*", &[Action::Connect, Action::Will], "client_id:a"), Problem::NoTopic(Action::Will)),
        (statement("*", &[Action::Connect], "topic:a"), Problem::TopicWithoutUse(Action::Connect)),
        (statement("*", &[Action::Request], "path:/a topic:a"), Problem::TopicWithoutUse(Action::Request)),
        (statement("*", &[Action::Request], ""), Problem::NoPath(Action::Request)),
        (statement("*", &[Action::Publish, Action::Request], "topic:a"), Problem::NoPath(Action::Request)),
        (statement("*", &[Action::Publish], "path:/a topic:a"), Problem::PathWithoutRequest),
        (with_methods(&[Action::Publish], "topic:a", &["GET"]), Problem::Methods(Action::Publish)),
        (with_methods(&[Action::Request], "path:/a", &[]), Problem::Condition(ConditionError::Empty)),
        (with_methods(&[Action::Request], "path:/a", &["get"]), Problem::Condition(ConditionError::Method)),
        (statement("*", &[Action::Publish], "topic:a client_id:a"), Problem::ClientIdWithoutConnect),
        (shared(&[Action::Subscribe, Action::Publish]), Problem::ShareGroups(Action::Publish)),
        (shared(&[Action::Deliver]), Problem::ShareGroups(Action::Deliver)),
        (bad_qos, Problem::Condition(ConditionError::Qos)),
    ] {
        let expected = vec![CompileError { index: 0, sid: String::new(), problem }];
        assert_eq!(StaticRules::compile("acl", vec![statement]).map(|_| ()), Err(expected));
    }
    assert!(StaticRules::compile("acl", vec![shared(&[Action::Subscribe, Action::Deliver])]).is_ok());
}

#[test]
fn all_mistakes_are_reported_with_their_place() {
    let named = |sid: &str, resources| Statement {
        sid: sid.into(),
        ..statement(Effect::Allow, "*", &[Action::Publish], resources)
    };
    let statements = vec![named("one", "topic:a"), named("", ""), named("one", "")];
    let errors = StaticRules::compile("acl", statements).unwrap_err();
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "statement 2: the action `publish` needs a `topic:` resource",
            "statement \"one\": the action `publish` needs a `topic:` resource",
            "statement \"one\": an earlier statement has the same sid",
        ]
    );
}

#[test]
fn size_is_bounded() {
    let connect = || statement(Effect::Allow, "*", &[Action::Connect], "");
    let errors = StaticRules::compile("acl", vec![connect(); MAX_STATEMENTS + 2]).unwrap_err();
    assert_eq!(
        errors,
        [CompileError { index: MAX_STATEMENTS, sid: String::new(), problem: Problem::TooMany }]
    );

    let wide = Statement {
        principals: vec![Who::Anyone; 2_001],
        resources: vec![ResourcePattern::parse("topic:a/b").unwrap(); 1_000],
        ..statement(Effect::Allow, "*", &[Action::Publish], "")
    };
    let errors = StaticRules::compile("acl", vec![connect(), wide]).unwrap_err();
    assert_eq!(errors, [CompileError { index: 1, sid: String::new(), problem: Problem::TooMany }]);
}

#[test]
fn deepest_pattern_is_found() {
    let deep = vec!["a"; MAX_LEVELS].join("/");
    let rules = allowing("*", &[Action::Publish], &format!("topic:{deep}"));
    assert_eq!(said(&rules, &client(), Action::Publish, topic(&deep)), Said::Allow);
    let deeper = vec!["a"; 30_000].join("/");
    assert_eq!(said(&rules, &client(), Action::Publish, topic(&deeper)), Said::Abstain);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn trie_decides_like_a_linear_search(
        drafts in prop::collection::vec(draft(), 0..8),
        client in any_client(),
        asked in prop::collection::vec(asked(), 16),
    ) {
        let rules = compile(drafts.iter().map(Draft::statement).collect());
        for Asked { action, text, qos } in &asked {
            let resource = match action {
                Action::Connect => Resource::Session,
                Action::Subscribe => filter(text),
                _ => match TopicName::parse(text) {
                    Ok(name) => Resource::Topic(name),
                    Err(_) => continue,
                },
            };
            let query = Query { qos: *qos, ..query(&client, *action, resource) };
            let matches = |effect| drafts.iter().any(|draft| draft.effect == effect && draft.matches(&query));
            let expected = match (matches(Effect::Deny), matches(Effect::Allow)) {
                (true, _) => Said::Deny,
                (false, true) => Said::Allow,
                (false, false) => Said::Abstain,
            };
            prop_assert_eq!(Said::of(&rules.decide(&query, Now::read())), expected, "{:?}", query);
        }
    }
}

/// A statement in words, which the oracle reads without compiling it.
#[derive(Clone, Debug)]
struct Draft {
    effect: Effect,
    principals: Vec<&'static str>,
    actions: Vec<Action>,
    client_ids: Vec<&'static str>,
    topics: Vec<Vec<&'static str>>,
    qos_max: u8,
}

impl Draft {
    fn statement(&self) -> Statement {
        let topics = self.topics.iter().map(|levels| format!("topic:{}", levels.join("/")));
        let client_ids = self.client_ids.iter().map(|id| format!("client_id:{id}"));
        let connects = self.actions.contains(&Action::Connect);
        let resources: Vec<_> = topics.chain(client_ids.filter(|_| connects)).collect();
        Statement {
            conditions: vec![Condition::QosMax(self.qos_max)],
            ..statement(self.effect, &self.principals.join(" "), &self.actions, &resources.join(" "))
        }
    }

    fn matches(&self, query: &Query<'_>) -> bool {
        let is_listed = |action| self.actions.contains(&action);
        let is_meant = match query.action {
            Action::Will => is_listed(Action::Will) || is_listed(Action::Publish),
            Action::Deliver => is_listed(Action::Deliver) || is_listed(Action::Subscribe),
            action => is_listed(action),
        };
        let principal = &query.client.principal;
        let is_spoken_of = self.principals.iter().any(|who| {
            *who == "*"
                || *who == format!("client:{}", principal.id)
                || principal.groups.iter().any(|group| *who == format!("group:{group}"))
        });
        is_meant && is_spoken_of && query.qos <= self.qos_max && self.takes(query)
    }

    fn takes(&self, query: &Query<'_>) -> bool {
        let text = match query.resource {
            Resource::Session => {
                let id = &*query.client.client_id;
                return self.client_ids.is_empty()
                    || self.client_ids.iter().any(|p| self.takes_id(p, id, query));
            }
            Resource::Filter(filter) => canonical(filter.as_str()),
            Resource::Topic(topic) => topic.as_str(),
            Resource::Request { .. } => return false,
        };
        self.topics.iter().any(|levels| self.covers(levels, text, query))
    }

    fn takes_id(&self, pattern: &str, id: &str, query: &Query<'_>) -> bool {
        match pattern.strip_suffix('*') {
            Some(beginning) => id.starts_with(beginning),
            None => self.instances(pattern, Some(id), query.client).iter().any(|value| value == id),
        }
    }

    /// Writes every value in place of its variable and compares whole filters.
    fn covers(&self, levels: &[&str], text: &str, query: &Query<'_>) -> bool {
        if self.effect == Effect::Allow && levels[0].starts_with("${") && text.starts_with('$') {
            return false;
        }
        let mut patterns = vec![vec![]];
        let mut asked = text.split('/').filter(|level| *level != "#");
        for level in canonical(&levels.join("/")).split('/') {
            let instances = self.instances(level, asked.next(), query.client);
            let longer = |above: &Vec<String>| -> Vec<_> {
                instances.iter().map(|level| [above.as_slice(), slice::from_ref(level)].concat()).collect()
            };
            patterns = patterns.iter().flat_map(longer).collect();
        }
        let narrow = TopicFilter::parse(text).unwrap();
        let covers = |text: String| TopicFilter::parse(&text).is_ok_and(|wide| wide.covers(narrow));
        patterns.iter().any(|levels| covers(levels.join("/")))
    }

    /// What may stand for `level`: itself, or its values; for a deny that has bad ones, `asked` too.
    fn instances(&self, level: &str, asked: Option<&str>, client: &Client) -> Vec<String> {
        let Some(name) = level.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
            return vec![level.into()];
        };
        let mut values = vec![];
        client.any_value(name, |value| {
            values.push(value.to_owned());
            false
        });
        let is_bad = |value: &String| value.is_empty() || value.contains(['+', '/', '#', '\0']);
        let fails_closed = self.effect == Effect::Deny && (values.is_empty() || values.iter().any(is_bad));
        values.retain(|value| !is_bad(value));
        values.extend(asked.filter(|_| fails_closed).map(Into::into));
        values
    }
}

#[derive(Clone, Debug)]
struct Asked {
    action: Action,
    text: String,
    qos: u8,
}

fn asked() -> impl Strategy<Value = Asked> {
    let filter = levels(&["", "a", "b", "$x", "+", "z"]).prop_map(|levels| levels.join("/"));
    let text = filter.prop_filter("empty", |text| !text.is_empty());
    (select(&ACTIONS), text, 0..3u8).prop_map(|(action, text, qos)| Asked { action, text, qos })
}

fn draft() -> impl Strategy<Value = Draft> {
    let topic = levels(&["", "a", "b", "$x", "+", "${client_id}", "${username}", "${group}"])
        .prop_filter("empty", |levels| levels != &[""]);
    let names = subsequence(&["a", "ab", "a*", "*", "${username}", "${group}"], 0..2);
    (
        select(&[Effect::Allow, Effect::Allow, Effect::Deny]),
        subsequence(&["*", "client:a", "client:b", "group:a", "group:b"], 1..3),
        subsequence(&ACTIONS, 1..4),
        names,
        prop::collection::vec(topic, 1..4),
        0..3u8,
    )
        .prop_map(|(effect, principals, actions, client_ids, mut topics, qos_max)| {
            if actions == [Action::Connect] {
                topics.clear();
            }
            Draft { effect, principals, actions, client_ids, topics, qos_max }
        })
}

fn levels(of: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    (prop::collection::vec(select(of), 1..=4), any::<bool>()).prop_map(|(mut levels, takes_all_below)| {
        if takes_all_below {
            levels.pop();
            levels.push("#");
        }
        levels
    })
}

fn any_client() -> impl Strategy<Value = Client> {
    let value = || select(&["a", "b", "ab", "+", "", "a/b", "$x", "#"]);
    let groups = prop::collection::vec(value(), 0..3);
    (value(), select(&["", "a", "b"]), prop::option::of(value()), groups).prop_map(
        |(name, id, username, groups)| {
            let groups = groups.into_iter().map(Into::into).collect();
            Client {
                principal: Principal { id: id.into(), groups, ..Principal::default() },
                client_id: name.into(),
                username: username.map(Into::into),
                ..client()
            }
        },
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Abstain,
    Allow,
    Deny,
}

impl Said {
    fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Abstain => Self::Abstain,
            Decision::Allow(_) => Self::Allow,
            Decision::Deny(_) => Self::Deny,
        }
    }
}

fn said(rules: &StaticRules, client: &Client, action: Action, resource: Resource<'_>) -> Said {
    Said::of(&rules.decide(&query(client, action, resource), Now::read()))
}

fn allowing(principals: &str, actions: &[Action], resources: &str) -> StaticRules {
    compile(vec![statement(Effect::Allow, principals, actions, resources)])
}

fn compile(statements: Vec<Statement>) -> StaticRules {
    StaticRules::compile("acl", statements).unwrap()
}

/// A statement from texts with spaces between the principals and between the resources.
fn statement(effect: Effect, principals: &str, actions: &[Action], resources: &str) -> Statement {
    Statement {
        sid: String::new(),
        effect,
        principals: principals.split_whitespace().map(|who| Who::parse(who).unwrap()).collect(),
        actions: actions.to_vec(),
        resources: resources.split_whitespace().map(|text| ResourcePattern::parse(text).unwrap()).collect(),
        conditions: vec![],
    }
}

fn query<'a>(client: &'a Client, action: Action, resource: Resource<'a>) -> Query<'a> {
    Query { client, action, resource, payload: b"", qos: 0, retain: false }
}

fn with_methods(actions: &[Action], resources: &str, methods: &[&str]) -> Statement {
    let methods = methods.iter().map(ToString::to_string).collect();
    let conditions = vec![Condition::Methods(methods)];
    Statement { conditions, ..statement(Effect::Allow, "*", actions, resources) }
}

fn request<'a>(method: &'a str, path: &'a str) -> Resource<'a> {
    Resource::Request { method, path: RequestPath::parse(path).unwrap() }
}

pub(crate) fn topic(text: &str) -> Resource<'_> {
    Resource::Topic(TopicName::parse(text).unwrap())
}

pub(crate) fn filter(text: &str) -> Resource<'_> {
    Resource::Filter(TopicFilter::parse(text).unwrap())
}

pub(crate) fn client() -> Client {
    Client {
        principal: Principal {
            id: "dev-1".into(),
            groups: vec!["ops".into(), "night".into()],
            ..Principal::default()
        },
        client_id: "id-1".into(),
        username: Some("ada".into()),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        route: "devices".into(),
        protocol: Protocol::Mqtt,
        is_encrypted: false,
    }
}

const ACTIONS: [Action; 5] =
    [Action::Connect, Action::Deliver, Action::Publish, Action::Subscribe, Action::Will];
