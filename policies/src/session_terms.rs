use std::sync::Arc;

use crate::prefix::TopicPrefix;

/// What is true for one session as a whole, beside what policies say of its packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionTerms(Option<Arc<Said>>);

/// Bounds of one session, beside those of its route: the tighter one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// Messages that the client may send a second, with a burst of as many.
    pub messages_per_second: Option<u32>,
    /// The largest packet that may pass, in bytes, header included.
    pub packet_bytes: Option<usize>,
    /// Subscriptions that the client may hold at a time.
    pub subscriptions: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    limits: SessionLimits,
    topic_prefix: Option<TopicPrefix>,
}

impl SessionTerms {
    /// Terms of which none may be given.
    pub fn new(limits: SessionLimits, topic_prefix: Option<TopicPrefix>) -> Self {
        let is_none = limits == SessionLimits::default() && topic_prefix.is_none();
        Self((!is_none).then(|| Arc::new(Said { limits, topic_prefix })))
    }

    /// Whether nothing is said.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The bounds.
    #[inline]
    pub fn limits(&self) -> SessionLimits {
        self.0.as_ref().map(|said| said.limits).unwrap_or_default()
    }

    /// The prefix behind which all stands that the client says and hears.
    pub fn topic_prefix(&self) -> Option<&TopicPrefix> {
        self.0.as_ref()?.topic_prefix.as_ref()
    }

    /// These terms and `other` together; or what contradicts itself, as nobody can stand behind two prefixes.
    pub fn and(&self, other: &Self) -> Result<Self, String> {
        let topic_prefix = match (self.topic_prefix(), other.topic_prefix()) {
            (Some(one), Some(two)) if one != two => {
                return Err(format!("policies put the session behind different prefixes, {one} and {two}"));
            }
            (one, two) => one.or(two).cloned(),
        };
        Ok(Self::new(self.limits().and(other.limits()), topic_prefix))
    }
}

impl SessionLimits {
    /// The tighter one of each.
    fn and(self, other: Self) -> Self {
        Self {
            messages_per_second: tighter(self.messages_per_second, other.messages_per_second),
            packet_bytes: tighter(self.packet_bytes, other.packet_bytes),
            subscriptions: tighter(self.subscriptions, other.subscriptions),
        }
    }
}

fn tighter<T: Ord>(one: Option<T>, two: Option<T>) -> Option<T> {
    one.into_iter().chain(two).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_together_are_the_tighter_limits_and_the_one_prefix() {
        let rate = SessionLimits { messages_per_second: Some(5), ..SessionLimits::default() };
        let one = SessionLimits { packet_bytes: Some(100), subscriptions: Some(9), ..rate };
        let two = SessionLimits { messages_per_second: Some(7), packet_bytes: None, subscriptions: Some(3) };
        let (one, two) = (SessionTerms::new(one, Some(prefix("a/"))), SessionTerms::new(two, None));
        for both in [one.and(&two), two.and(&one)] {
            let limits = SessionLimits { packet_bytes: Some(100), subscriptions: Some(3), ..rate };
            assert_eq!(both, Ok(SessionTerms::new(limits, Some(prefix("a/")))));
        }
        assert_eq!(one.and(&one), Ok(one.clone()));
        assert_eq!(SessionTerms::default().and(&SessionTerms::default()), Ok(SessionTerms::default()));
    }

    #[test]
    fn two_prefixes_are_a_denial_that_names_both() {
        let behind = |text| SessionTerms::new(SessionLimits::default(), Some(prefix(text)));
        let why = behind("a/").and(&behind("b/")).expect_err("there is no place behind both");
        assert_eq!(why, "policies put the session behind different prefixes, \"a/\" and \"b/\"");
        assert!(behind("a/").and(&behind("a/")).is_ok());
    }

    #[test]
    fn terms_that_say_nothing_are_none() {
        assert!(SessionTerms::new(SessionLimits::default(), None).is_none());
        let limits = SessionLimits { subscriptions: Some(1), ..SessionLimits::default() };
        assert!(!SessionTerms::new(limits, None).is_none());
    }

    fn prefix(text: &str) -> TopicPrefix {
        TopicPrefix::parse(text).expect("a prefix")
    }
}
