use super::*;
use crate::static_rules::tests::{client, filter, topic};
use crate::{Chain, Outcome, Resource};

#[test]
fn scope_allows_what_its_filter_covers() {
    let client = with_scope("openid mqtt:publish:a/b/+ mqtt:subscribe:c/# mqtt:publish:$SYS/x");
    for (action, resource, is_allowed) in [
        (Action::Publish, topic("a/b/c"), true),
        (Action::Will, topic("a/b/c"), true),
        (Action::Publish, topic("a/b"), false),
        (Action::Publish, topic("a/b/c/d"), false),
        (Action::Publish, topic("c/d"), false),
        (Action::Publish, topic("$SYS/x"), true),
        (Action::Subscribe, filter("c"), true),
        (Action::Subscribe, filter("c/#"), true),
        (Action::Subscribe, filter("$share/g/c/+/d"), true),
        (Action::Subscribe, filter("+/d"), false),
        (Action::Subscribe, filter("#"), false),
        (Action::Subscribe, filter("a/b/c"), false),
        (Action::Deliver, topic("c/d/e"), true),
        (Action::Deliver, topic("a/b/c"), false),
        (Action::Connect, Resource::Session, true),
        (Action::Request, topic("a/b/c"), false),
    ] {
        let said = said(&client, action, resource);
        assert_eq!(said, if is_allowed { Said::Allow } else { Said::Abstain }, "{action} {resource}");
    }
}

#[test]
fn scope_that_is_none_of_ours_allows_nothing() {
    for scope in [
        "",
        "openid",
        "publish:a",
        "MQTT:publish:a",
        "mqtt:publish",
        "mqtt:Publish:a",
        "mqtt:all:a",
        "xmqtt:publish:a",
        "mqtt:publish:",
        "mqtt:publish:#a",
        "mqtt:publish:$share/g/a",
        "mqtt:publish:b",
        "mqtt:subscribe:a",
    ] {
        assert_eq!(said(&with_scope(scope), Action::Publish, topic("a")), Said::Abstain, "{scope}");
    }
    for scope in ["", "openid", "mqtt:admin:a"] {
        assert_eq!(said(&with_scope(scope), Action::Connect, Resource::Session), Said::Abstain, "{scope}");
    }
}

#[test]
fn wildcards_of_a_scope_do_not_reach_reserved_topics() {
    let client = with_scope("mqtt:publish:# mqtt:subscribe:#");
    assert_eq!(said(&client, Action::Publish, topic("$SYS/x")), Said::Abstain);
    assert_eq!(said(&client, Action::Subscribe, filter("$SYS/#")), Said::Abstain);
    assert_eq!(said(&client, Action::Subscribe, filter("#")), Said::Allow);
}

#[test]
fn several_values_of_a_claim_count_together() {
    let mut client = with_scope("mqtt:publish:a");
    client.principal.attributes.add("claims.scope", "mqtt:publish:b");
    for name in ["a", "b"] {
        assert_eq!(said(&client, Action::Publish, topic(name)), Said::Allow);
    }
}

#[test]
fn first_rule_that_matches_decides() {
    let client = with_acl(&[
        "allow all 012 any like a/b",
        "deny publish 012 any like a/+",
        "allow all 012 any like #",
    ]);
    for (action, resource, expected) in [
        (Action::Publish, topic("a/b"), Said::Allow),
        (Action::Publish, topic("a/c"), Said::Deny),
        (Action::Will, topic("a/c"), Said::Deny),
        (Action::Subscribe, filter("a/c"), Said::Allow),
        (Action::Deliver, topic("a/c"), Said::Allow),
        (Action::Publish, topic("b"), Said::Allow),
        (Action::Publish, topic("$SYS/x"), Said::Abstain),
    ] {
        assert_eq!(said(&client, action, resource), expected, "{action} {resource}");
    }
}

#[test]
fn denied_part_of_a_subscription_is_not_delivered() {
    let client = with_acl(&["deny subscribe 012 any like a/secret", "allow subscribe 012 any like a/#"]);
    assert_eq!(said(&client, Action::Subscribe, filter("a/secret")), Said::Deny);
    assert_eq!(said(&client, Action::Subscribe, filter("a/#")), Said::Allow);
    assert_eq!(said(&client, Action::Deliver, topic("a/open")), Said::Allow);
    assert_eq!(said(&client, Action::Deliver, topic("a/secret")), Said::Deny);
}

#[test]
fn deny_of_the_list_beats_scopes_and_other_policies() {
    let mut client = with_acl(&["deny all 012 any like #"]);
    client.principal.attributes.add("claims.scope", "mqtt:publish:a");
    let chain = Chain::new(vec![Arc::new(AllowAll), Arc::new(policy())]);
    let query = query(&client, Action::Publish, topic("a"));
    assert!(matches!(chain.evaluate(&query, Now::read()), Outcome::Denied(_)));
    assert_eq!(said(&client, Action::Connect, Resource::Session), Said::Allow, "the scope does");
    let client = with_acl(&["deny all 012 any like #"]);
    assert_eq!(said(&client, Action::Connect, Resource::Session), Said::Abstain);
}

#[test]
fn conditions_of_a_rule_bind() {
    let client = with_acl(&["allow publish 01 unretained like a", "allow subscribe 0 any like b"]);
    for (qos, retain, is_allowed) in [(0, false, true), (1, false, true), (2, false, false), (0, true, false)]
    {
        let query = Query { qos, retain, ..query(&client, Action::Publish, topic("a")) };
        assert_eq!(said_of(&query) == Said::Allow, is_allowed, "{qos} {retain}");
    }
    for (qos, retain, is_allowed) in [(0, false, true), (0, true, true), (1, false, false)] {
        let query = Query { qos, retain, ..query(&client, Action::Subscribe, filter("b")) };
        assert_eq!(said_of(&query) == Said::Allow, is_allowed, "{qos} {retain}");
    }
    let denied = with_acl(&["deny subscribe 2 any like b", "allow subscribe 012 any like b"]);
    let delivery = Query { qos: 2, ..query(&denied, Action::Deliver, topic("b")) };
    assert_eq!(said_of(&delivery), Said::Allow);
}

#[test]
fn exact_topics_are_no_patterns() {
    let client = with_acl(&["deny subscribe 012 any exactly #", "allow subscribe 012 any exactly a/#"]);
    for (action, resource, expected) in [
        (Action::Subscribe, filter("#"), Said::Deny),
        (Action::Subscribe, filter("a/#"), Said::Allow),
        (Action::Subscribe, filter("a/b"), Said::Abstain),
        (Action::Deliver, topic("a/b"), Said::Allow),
        (Action::Deliver, topic("b"), Said::Abstain),
    ] {
        assert_eq!(said(&client, action, resource), expected, "{action} {resource}");
    }
}

#[test]
fn names_stand_for_values_that_cannot_break_out() {
    for (client_id, username, is_allowed) in [
        ("dev-1", Some("eve"), true),
        ("+", Some("eve"), false),
        ("a/b", Some("eve"), false),
        ("#", Some("eve"), false),
        ("", Some("eve"), false),
        ("dev-1", Some(""), false),
        ("dev-1", None, false),
    ] {
        let filled = format!("x-{client_id}/{}/data", username.unwrap_or_default());
        for pattern in ["x-${clientid}/${username}/data", "x-%c/%u/data", "x-${client_id}/${username}/#"] {
            for (effect, decided) in [("allow", Said::Allow), ("deny", Said::Deny)] {
                let mut client = with_acl(&[&format!("{effect} all 012 any like {pattern}")]);
                client.client_id = client_id.into();
                client.username = username.map(Into::into);
                let Ok(name) = crate::TopicName::parse(&filled) else { continue };
                let said = said(&client, Action::Publish, Resource::Topic(name));
                let expected = match (is_allowed, effect) {
                    (false, "allow") => Said::Abstain,
                    _ => decided,
                };
                assert_eq!(said, expected, "{effect} {client_id} {username:?}");
            }
        }
    }
    let client = with_acl(&["allow all 012 any like 100%/$/${nobody}"]);
    assert_eq!(said(&client, Action::Publish, topic("100%/$/x")), Said::Abstain);
    let client = with_acl(&["allow all 012 any like 100%/$"]);
    assert_eq!(said(&client, Action::Publish, topic("100%/$")), Said::Allow);
}

#[test]
fn values_name_no_reserved_topics() {
    for (pattern, topic_name, is_allowed) in [
        ("${clientid}/#", "$CONTROL/dynamic-security/v1", false),
        ("%c/dynamic-security/v1", "$CONTROL/dynamic-security/v1", false),
        ("$CONTROL/#", "$CONTROL/dynamic-security/v1", true),
        ("a/${clientid}", "a/$CONTROL", true),
    ] {
        let mut client = with_acl(&[&format!("allow all 012 any like {pattern}")]);
        client.client_id = "$CONTROL".into();
        let said = said(&client, Action::Publish, topic(topic_name));
        assert_eq!(said == Said::Allow, is_allowed, "{pattern}");
    }
}

#[test]
fn rules_are_read_as_they_were_written() {
    for effect in [Effect::Allow, Effect::Deny] {
        for action in [AclAction::All, AclAction::Publish, AclAction::Subscribe] {
            for (qos, retain) in
                [([true; 3], None), ([true, false, true], Some(true)), ([false; 3], Some(false))]
            {
                for topic in [AclTopic::Exactly("a b/#"), AclTopic::Like("like x/+"), AclTopic::Like("ü")] {
                    let rule = AclRule { effect, action, qos, retain, topic };
                    assert_eq!(AclRule::parse(&rule.to_string()), Some(rule));
                }
            }
        }
    }
    for line in ["", "allow", "allow all 012 any like"] {
        assert_eq!(AclRule::parse(line), None, "{line}");
    }
}

#[derive(Debug, PartialEq)]
enum Said {
    Allow,
    Deny,
    Abstain,
}

struct AllowAll;

impl Policy for AllowAll {
    fn name(&self) -> &str {
        "all"
    }

    fn evaluate(&self, _: &Query<'_>, _: Now) -> Answer {
        Answer::Ready(Decision::Allow(Grant::default()))
    }
}

fn said(client: &Client, action: Action, resource: Resource<'_>) -> Said {
    said_of(&query(client, action, resource))
}

fn said_of(query: &Query<'_>) -> Said {
    match policy().decide(query) {
        Decision::Allow(_) => Said::Allow,
        Decision::Deny(_) => Said::Deny,
        Decision::Abstain => Said::Abstain,
    }
}

fn query<'a>(client: &'a Client, action: Action, resource: Resource<'a>) -> Query<'a> {
    Query { client, action, resource, payload: b"", qos: 0, retain: false }
}

fn policy() -> JwtScopes {
    JwtScopes::new("scopes", "claims.scope", "mqtt:")
}

fn with_scope(scope: &str) -> Client {
    let mut client = client();
    client.principal.attributes.add("claims.scope", scope);
    client
}

fn with_acl(rules: &[&str]) -> Client {
    let mut client = client();
    for rule in rules {
        client.principal.attributes.add(ACL_ATTRIBUTE, rule);
    }
    client
}
