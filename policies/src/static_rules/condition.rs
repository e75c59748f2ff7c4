use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::effect::Effect;
use super::pattern::may_have_values;
use crate::cidr::Cidr;
use crate::now::Now;
use crate::query::{Query, Resource};
use crate::topic::is_literal;

/// What else must hold for a statement to match.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Some value that `${name}` stands for equals one of `values`.
    Attribute {
        /// A variable's name, without `${}`.
        name: String,
        /// Compared as they are; nothing in them is a pattern.
        values: Vec<String>,
    },
    /// The time, since the Unix epoch, is `not_before` or later, and earlier than `not_after`.
    Between {
        /// `None` means from ever.
        not_before: Option<Duration>,
        /// `None` means for ever.
        not_after: Option<Duration>,
    },
    /// The time of the day in UTC is `from_minute` or later and earlier than `to_minute`; around midnight if
    /// `from_minute` is the larger one.
    DailyUtc {
        /// 0 to 1439.
        from_minute: u16,
        /// 1 to 1440.
        to_minute: u16,
    },
    /// Whether the connection is encrypted.
    Encrypted(bool),
    /// The client came in by one of these routes.
    Listener(Vec<String>),
    /// The method of the request is one of these; `GET` stands for `HEAD` too.
    Methods(Vec<String>),
    /// The client's address is in one of these blocks.
    Peer(Vec<Cidr>),
    /// The quality of service is this or less.
    QosMax(u8),
    /// Whether the message is (to be) retained.
    Retain(bool),
    /// The subscription is shared, in one of these groups; `*` at the end stands for any ending.
    ///
    /// It is asked of subscriptions only: a delivery does not tell its group. An allow lets through the
    /// deliveries of what it lets be subscribed to, a deny stops none.
    ShareGroups(Vec<String>),
}

/// What is wrong with a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionError {
    /// A list without values, or a time without limits.
    Empty,
    /// A method that is not written in capital letters, digits, `-` and `_`.
    Method,
    /// Minutes that are not in a day, or begin where they end.
    Minutes,
    /// A time that ends before it begins.
    NeverHolds,
    /// A quality of service above 2.
    Qos,
    /// A share group that is empty, has `/`, `+`, `#` or U+0000, or `*` anywhere but at its end.
    ShareGroup,
    /// An attribute of this name is never known.
    UnknownAttribute(String),
}

impl Condition {
    pub(super) fn holds(&self, query: &Query<'_>, now: Now, effect: Effect) -> bool {
        let client = query.client;
        match self {
            Self::Attribute { name, values } => {
                client.any_value(name, |value| values.iter().any(|wanted| wanted == value))
            }
            Self::Between { not_before, not_after } => {
                not_before.is_none_or(|from| from <= now.unix) && not_after.is_none_or(|to| now.unix < to)
            }
            Self::DailyUtc { from_minute, to_minute } => {
                is_between(minute_of_day(now), (*from_minute).into(), (*to_minute).into())
            }
            Self::Encrypted(wanted) => client.is_encrypted == *wanted,
            Self::Listener(names) => names.iter().any(|name| **name == *client.route),
            Self::Methods(methods) => is_method_of(methods, query.resource),
            Self::Peer(blocks) => blocks.iter().any(|block| block.contains(client.peer.ip())),
            Self::QosMax(most) => query.qos <= *most,
            Self::Retain(wanted) => query.retain == *wanted,
            Self::ShareGroups(groups) => is_shared_in(groups, query.resource, effect),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConditionError> {
        match self {
            Self::Attribute { name, .. } if !may_have_values(name) => {
                Err(ConditionError::UnknownAttribute(name.clone()))
            }
            Self::Attribute { values: list, .. }
            | Self::Listener(list)
            | Self::Methods(list)
            | Self::ShareGroups(list)
                if list.is_empty() =>
            {
                Err(ConditionError::Empty)
            }
            Self::Methods(methods) if !methods.iter().all(|method| is_method(method)) => {
                Err(ConditionError::Method)
            }
            Self::Peer(blocks) if blocks.is_empty() => Err(ConditionError::Empty),
            Self::Between { not_before, not_after } => check_times(*not_before, *not_after),
            Self::DailyUtc { from_minute, to_minute } => check_minutes(*from_minute, *to_minute),
            Self::QosMax(3..) => Err(ConditionError::Qos),
            Self::ShareGroups(groups) if !groups.iter().all(|group| is_group(group)) => {
                Err(ConditionError::ShareGroup)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "condition without values",
            Self::Method => "a method is written in capital letters, as in \"GET\"",
            Self::Minutes => "minutes of a day run from 0 to 1440 and must differ",
            Self::NeverHolds => "the time ends before it begins",
            Self::Qos => "quality of service above 2",
            Self::ShareGroup => "a share group has no `/`, `+`, `#`, U+0000, and `*` only at its end",
            Self::UnknownAttribute(name) => return write!(f, "unknown attribute `{name}`"),
        })
    }
}

impl Error for ConditionError {}

fn is_method_of(methods: &[String], resource: Resource<'_>) -> bool {
    let Resource::Request { method, .. } = resource else { return false };
    methods.iter().any(|wanted| wanted == method || (wanted == "GET" && method == "HEAD"))
}

/// The methods of the registry that are in use have no small letters.
fn is_method(method: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    !method.is_empty() && method.bytes().all(is_good)
}

fn is_shared_in(groups: &[String], resource: Resource<'_>, effect: Effect) -> bool {
    let Resource::Filter(filter) = resource else { return effect == Effect::Allow };
    filter.share_group().is_some_and(|name| groups.iter().any(|group| fits(group, name)))
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    }
}

fn minute_of_day(now: Now) -> u64 {
    now.unix.as_secs() / 60 % MINUTES_OF_DAY
}

fn is_between(minute: u64, from: u64, to: u64) -> bool {
    if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
}

fn check_times(not_before: Option<Duration>, not_after: Option<Duration>) -> Result<(), ConditionError> {
    match (not_before, not_after) {
        (None, None) => Err(ConditionError::Empty),
        (Some(from), Some(to)) if from >= to => Err(ConditionError::NeverHolds),
        _ => Ok(()),
    }
}

fn check_minutes(from: u16, to: u16) -> Result<(), ConditionError> {
    let is_valid = from < 1440 && (1..=1440).contains(&to) && from != to;
    if is_valid { Ok(()) } else { Err(ConditionError::Minutes) }
}

fn is_group(pattern: &str) -> bool {
    let beginning = pattern.strip_suffix('*').unwrap_or(pattern);
    !pattern.is_empty() && is_literal(beginning) && !beginning.contains(['/', '*'])
}

const MINUTES_OF_DAY: u64 = 24 * 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::static_rules::tests::{client, filter, topic};
    use crate::{Action, Client};

    #[test]
    fn windows_include_their_beginning_and_exclude_their_end() {
        let window = Condition::Between { not_before: Some(secs(10)), not_after: Some(secs(20)) };
        let held = [9, 10, 19, 20].map(|at| holds_at(&window, secs(at)));
        assert_eq!(held, [false, true, true, false]);
        let open = Condition::Between { not_before: None, not_after: Some(secs(20)) };
        assert_eq!([0, 20].map(|at| holds_at(&open, secs(at))), [true, false]);
    }

    #[test]
    fn daily_times_go_around_midnight() {
        let minutes = [0, 359, 360, 1319, 1320, 1439];
        let day = Condition::DailyUtc { from_minute: 360, to_minute: 1320 };
        let night = Condition::DailyUtc { from_minute: 1320, to_minute: 360 };
        let always = Condition::DailyUtc { from_minute: 0, to_minute: 1440 };
        let yesterday = 20_000 * 86_400;
        let at = |condition: &Condition| minutes.map(|m| holds_at(condition, secs(yesterday + m * 60 + 59)));
        assert_eq!(at(&day), [false, false, true, true, false, false]);
        assert_eq!(at(&night), [true, true, false, false, true, true]);
        assert_eq!(at(&always), [true; 6]);
    }

    #[test]
    fn share_groups_bind_subscriptions_only() {
        let groups = Condition::ShareGroups(vec!["workers-*".into(), "one".into()]);
        for (text, expected) in [
            ("$share/workers-1/a", true),
            ("$share/one/a", true),
            ("$share/one-more/a", false),
            ("$share/workers/a", false),
            ("a", false),
        ] {
            assert_eq!(holds(&groups, &client(), filter(text), Effect::Allow), expected, "{text}");
            assert_eq!(holds(&groups, &client(), filter(text), Effect::Deny), expected, "{text}");
        }
        assert!(holds(&groups, &client(), topic("a"), Effect::Allow));
        assert!(!holds(&groups, &client(), topic("a"), Effect::Deny));
    }

    #[test]
    fn attributes_have_any_of_the_values() {
        let mut client = client();
        client.principal.attributes.add("claims.role", "reader");
        client.principal.attributes.add("claims.role", "writer");
        for (name, values, expected) in [
            ("claims.role", vec!["admin", "writer"], true),
            ("claims.role", vec!["admin"], false),
            ("claims.rank", vec![""], false),
            ("group", vec!["ops"], true),
            ("principal", vec!["dev-1"], true),
        ] {
            let values = values.into_iter().map(Into::into).collect();
            let condition = Condition::Attribute { name: name.into(), values };
            assert_eq!(holds(&condition, &client, topic("a"), Effect::Allow), expected, "{condition:?}");
        }
    }

    #[test]
    fn connections_are_told_apart() {
        let blocks = |text: &str| Condition::Peer(vec![Cidr::parse(text).unwrap()]);
        for (condition, expected) in [
            (Condition::Encrypted(true), false),
            (Condition::Encrypted(false), true),
            (Condition::Listener(vec!["other".into(), "devices".into()]), true),
            (Condition::Listener(vec!["device".into()]), false),
            (blocks("127.0.0.0/8"), true),
            (blocks("10.0.0.0/8"), false),
            (Condition::Retain(false), true),
            (Condition::Retain(true), false),
            (Condition::QosMax(0), false),
            (Condition::QosMax(1), true),
        ] {
            assert_eq!(holds(&condition, &client(), topic("a"), Effect::Allow), expected, "{condition:?}");
        }
    }

    #[test]
    fn mistakes_in_conditions_are_named() {
        let attribute = |name: &str, values| Condition::Attribute { name: name.into(), values };
        let share = |group: &str| Condition::ShareGroups(vec![group.into()]);
        let between = |not_before, not_after| Condition::Between { not_before, not_after };
        let daily = |from_minute, to_minute| Condition::DailyUtc { from_minute, to_minute };
        for (condition, error) in [
            (attribute("claims.a", vec![]), ConditionError::Empty),
            (attribute("role", vec!["a".into()]), ConditionError::UnknownAttribute("role".into())),
            (Condition::Listener(vec![]), ConditionError::Empty),
            (Condition::Peer(vec![]), ConditionError::Empty),
            (Condition::ShareGroups(vec![]), ConditionError::Empty),
            (share(""), ConditionError::ShareGroup),
            (share("a/b"), ConditionError::ShareGroup),
            (share("a+"), ConditionError::ShareGroup),
            (share("*a"), ConditionError::ShareGroup),
            (Condition::QosMax(3), ConditionError::Qos),
            (between(None, None), ConditionError::Empty),
            (between(Some(secs(2)), Some(secs(2))), ConditionError::NeverHolds),
            (daily(0, 0), ConditionError::Minutes),
            (daily(60, 60), ConditionError::Minutes),
            (daily(1440, 60), ConditionError::Minutes),
            (daily(0, 1441), ConditionError::Minutes),
        ] {
            assert_eq!(condition.check(), Err(error), "{condition:?}");
        }
        for good in [share("*"), share("a*"), between(None, Some(secs(1))), daily(1439, 1), daily(0, 1440)] {
            assert_eq!(good.check(), Ok(()), "{good:?}");
        }
    }

    fn holds_at(condition: &Condition, unix: Duration) -> bool {
        let client = client();
        let query = query(&client, topic("a"));
        condition.holds(&query, Now { unix, ..Now::read() }, Effect::Allow)
    }

    fn holds(condition: &Condition, client: &Client, resource: Resource<'_>, effect: Effect) -> bool {
        condition.holds(&query(client, resource), Now::read(), effect)
    }

    fn query<'a>(client: &'a Client, resource: Resource<'a>) -> Query<'a> {
        Query { client, action: Action::Subscribe, resource, payload: b"", qos: 1, retain: false }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }
}
