//! Times as texts.

use std::cell::Cell;
use std::time::Duration;

/// `2026-11-22T11:40:52.123456789Z`
pub(super) const TIME_LEN: usize = 30;

/// A time since the Unix epoch in UTC, with nanoseconds. RFC 3339 §5.6
pub(super) fn rfc3339(unix: Duration) -> [u8; TIME_LEN] {
    let (last, mut text) = LAST.get();
    if last == unix {
        return text;
    }
    if last.as_secs() != unix.as_secs() {
        text = second(unix.as_secs().min(LAST_SECOND));
    }
    write_digits(&mut text[20..29], u64::from(unix.subsec_nanos()));
    LAST.set((unix, text));
    text
}

fn second(seconds: u64) -> [u8; TIME_LEN] {
    let (year, month, day) = date(seconds / 86_400);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    for (from, digits, number) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, seconds / 3600 % 24),
        (14, 2, seconds / 60 % 60),
        (17, 2, seconds % 60),
    ] {
        write_digits(&mut text[from..from + digits], number);
    }
    text
}

fn write_digits(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A time since the Unix epoch in nanoseconds.
pub(super) fn nanos(unix: Duration) -> i64 {
    i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX)
}

/// Year, month and day so many days after 1970-01-01; counted in years that begin with March, whose last day
/// is the leap day.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

thread_local! {
    /// The last time that was written, and how: there are many messages in one second, and some in one tick.
    static LAST: Cell<(Duration, [u8; TIME_LEN])> = Cell::new((Duration::ZERO, second(0)));
}

/// 9999-12-31T23:59:59Z
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, 1, "2000-02-28T23:59:59.000000001Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000000Z"),
            (1_709_251_199, 999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (LAST_SECOND, 0, "9999-12-31T23:59:59.000000000Z"),
            (u64::MAX, 0, "9999-12-31T23:59:59.000000000Z"),
        ] {
            assert_eq!(str::from_utf8(&rfc3339(Duration::new(seconds, nanos))), Ok(text));
        }
    }

    proptest! {
        #[test]
        fn times_can_be_read_back(seconds in 0..=LAST_SECOND, nanos in 0_u32..1_000_000_000) {
            let text = rfc3339(Duration::new(seconds, nanos));
            let read = OffsetDateTime::parse(str::from_utf8(&text).unwrap(), &Rfc3339).unwrap();
            prop_assert_eq!(read.unix_timestamp_nanos(), i128::from(seconds) * 1_000_000_000 + i128::from(nanos));
        }
    }
}
