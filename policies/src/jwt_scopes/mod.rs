//! What a client's own credentials say that it may do: OAuth scopes, and access lists.
//!
//! A scope such as `mqtt:publish:a/b/+` allows. Of an access list the first rule that matches has the word, as
//! whoever wrote it meant it; a deny of it beats scopes and other policies. A client whose credentials say
//! nothing of all this is left to the other policies.

mod rule;

use std::sync::Arc;

use self::rule::is_covered;
use crate::client::Client;
use crate::decision::{Answer, Cause, Decision, Grant, Reason};
use crate::now::Now;
use crate::query::{Action, Policy, Query};
use crate::static_rules::Effect;

pub use self::rule::{AclAction, AclRule, AclTopic};

/// The built-in policy `jwt_scopes`.
#[derive(Debug)]
pub struct JwtScopes {
    name: Box<str>,
    scope: Box<str>,
    prefix: Box<str>,
    by_acl: Arc<str>,
    by_scope: Arc<str>,
}

/// The attribute with the rules of a client's access list, in their order, each a line of an [`AclRule`].
pub const ACL_ATTRIBUTE: &str = "acl";

impl JwtScopes {
    /// A policy that takes the words behind `prefix` for scopes of MQTT, in the attribute `scope`.
    pub fn new(name: &str, scope: &str, prefix: &str) -> Self {
        Self {
            name: name.into(),
            scope: scope.into(),
            prefix: prefix.into(),
            by_acl: "the client's access list".into(),
            by_scope: "the client's scopes".into(),
        }
    }

    fn decide(&self, query: &Query<'_>) -> Decision {
        if query.action == Action::Connect {
            return self.decide_connect(query.client);
        }
        let decisive = acl(query.client).enumerate().find(|(_, rule)| rule.decides(query));
        match decisive {
            Some((index, AclRule { effect: Effect::Deny, .. })) => {
                let detail = format!("rule {} of {}", index + 1, self.by_acl);
                Decision::Deny(Reason::with_detail(Cause::NotAuthorized, detail))
            }
            Some(_) => Decision::Allow(Grant::by(&self.by_acl)),
            None if self.has_scope_for(query) => Decision::Allow(Grant::by(&self.by_scope)),
            None => Decision::Abstain,
        }
    }

    /// Who may do something may also open a session for it.
    fn decide_connect(&self, client: &Client) -> Decision {
        if self.scopes(client).next().is_some() {
            return Decision::Allow(Grant::by(&self.by_scope));
        }
        match acl(client).any(|rule| rule.effect == Effect::Allow) {
            true => Decision::Allow(Grant::by(&self.by_acl)),
            false => Decision::Abstain,
        }
    }

    fn has_scope_for(&self, query: &Query<'_>) -> bool {
        let action = match query.action {
            Action::Publish | Action::Will => "publish",
            Action::Deliver | Action::Subscribe => "subscribe",
            Action::Connect | Action::Observe | Action::Request => return false,
        };
        let mut scopes = self.scopes(query.client);
        scopes.any(|(word, filter)| word == action && is_covered(filter, query.resource) == Some(true))
    }

    /// Action and filter of each scope. RFC 6749 §3.3
    fn scopes<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = (&'a str, &'a str)> {
        let words = client.principal.attributes.values(&self.scope).flat_map(str::split_ascii_whitespace);
        let scopes = words.filter_map(|word| word.strip_prefix(&*self.prefix)?.split_once(':'));
        scopes.filter(|(action, _)| matches!(*action, "publish" | "subscribe"))
    }
}

impl Policy for JwtScopes {
    fn name(&self) -> &str {
        &self.name
    }

    fn evaluate(&self, query: &Query<'_>, _: Now) -> Answer {
        Answer::Ready(self.decide(query))
    }

    fn is_repeatable(&self) -> bool {
        true
    }
}

fn acl(client: &Client) -> impl Iterator<Item = AclRule<'_>> {
    client.principal.attributes.values(ACL_ATTRIBUTE).filter_map(AclRule::parse)
}

#[cfg(test)]
mod tests;
