use std::time::Duration;

use super::condition::Condition;

/// When the answers of a set of statements may change by themselves.
#[derive(Debug, Default)]
pub(super) struct Edges {
    once: Vec<Duration>,
    daily: Vec<Duration>,
}

impl Edges {
    pub(super) fn of<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Self {
        let mut edges = Self::default();
        for condition in conditions {
            match condition {
                Condition::Between { not_before, not_after } => {
                    edges.once.extend(not_before.iter().chain(not_after));
                }
                Condition::DailyUtc { from_minute, to_minute } => {
                    edges.daily.extend([from_minute, to_minute].map(|minute| MINUTE * u32::from(*minute)));
                }
                _ => {}
            }
        }
        for list in [&mut edges.once, &mut edges.daily] {
            list.sort_unstable();
            list.dedup();
        }
        edges
    }

    /// How long after `unix` the next one comes.
    pub(super) fn next_after(&self, unix: Duration) -> Option<Duration> {
        let since_midnight = unix - DAY * u32::try_from(unix.as_secs() / DAY.as_secs()).unwrap_or(u32::MAX);
        let once = next(&self.once, unix).map(|edge| edge - unix);
        let today = next(&self.daily, since_midnight).map(|edge| edge - since_midnight);
        let tomorrow = self.daily.first().map(|edge| DAY + *edge - since_midnight);
        once.into_iter().chain(today.or(tomorrow)).min()
    }
}

fn next(sorted: &[Duration], after: Duration) -> Option<Duration> {
    sorted.get(sorted.partition_point(|edge| *edge <= after)).copied()
}

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_edge_counts() {
        let conditions = [
            Condition::Between { not_before: Some(DAY * 3 + MINUTE), not_after: Some(DAY * 3 + MINUTE * 90) },
            Condition::DailyUtc { from_minute: 60, to_minute: 1440 },
            Condition::Retain(true),
        ];
        let edges = Edges::of(conditions.iter());
        for (at, wait) in [
            (DAY * 3, MINUTE),
            (DAY * 3 + MINUTE, MINUTE * 59),
            (DAY * 3 + MINUTE * 60, MINUTE * 30),
            (DAY * 3 + MINUTE * 90, DAY - MINUTE * 90),
            (DAY * 4 - Duration::from_millis(1), Duration::from_millis(1)),
            (DAY * 4, MINUTE * 60),
        ] {
            assert_eq!(edges.next_after(at), Some(wait), "{at:?}");
        }
    }

    #[test]
    fn tomorrow_comes_after_the_last_edge_of_today() {
        let edges = Edges::of([Condition::DailyUtc { from_minute: 60, to_minute: 120 }].iter());
        assert_eq!(edges.next_after(DAY * 9 + MINUTE * 121), Some(DAY - MINUTE * 61));
    }

    #[test]
    fn statements_without_times_never_change() {
        assert_eq!(Edges::of([Condition::Retain(true)].iter()).next_after(DAY), None);
        let past = Condition::Between { not_before: None, not_after: Some(DAY) };
        assert_eq!(Edges::of([past].iter()).next_after(DAY), None);
    }
}
