use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::CertError;

/// A point in time as a certificate can say it: whole seconds, from 1970 to 9999, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(OffsetDateTime);

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    from: Timestamp,
    until: Timestamp,
}

impl Timestamp {
    pub(crate) fn date_time(self) -> OffsetDateTime {
        self.0
    }
}

impl Validity {
    /// From one hour before `now`, because devices' clocks are slow, until `days` days after it.
    pub fn days(now: SystemTime, days: u32) -> Result<Self, CertError> {
        let from = now.checked_sub(CLOCK_TOLERANCE).ok_or(CertError::BadTime)?;
        let until = now.checked_add(DAY.saturating_mul(days)).ok_or(CertError::BadTime)?;
        Ok(Self { from: from.try_into()?, until: until.try_into()? })
    }

    /// The part of it that is not after `end`; `None` where nothing is left.
    pub(crate) fn cut(self, end: Timestamp) -> Option<Self> {
        (self.from < end).then(|| Self { until: self.until.min(end), ..self })
    }

    /// The first second.
    pub fn from(self) -> Timestamp {
        self.from
    }

    /// The last second.
    pub fn until(self) -> Timestamp {
        self.until
    }
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = CertError;

    fn try_from(time: SystemTime) -> Result<Self, CertError> {
        let since_epoch = time.duration_since(UNIX_EPOCH).map_err(|_| CertError::BadTime)?;
        let seconds = i64::try_from(since_epoch.as_secs()).map_err(|_| CertError::BadTime)?;
        OffsetDateTime::from_unix_timestamp(seconds).map(Self).map_err(|_| CertError::BadTime)
    }
}

impl TryFrom<OffsetDateTime> for Timestamp {
    type Error = CertError;

    fn try_from(time: OffsetDateTime) -> Result<Self, CertError> {
        let seconds = u64::try_from(time.unix_timestamp()).map_err(|_| CertError::BadTime)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(CertError::BadTime)?.try_into()
    }
}

impl FromStr for Timestamp {
    type Err = CertError;

    fn from_str(text: &str) -> Result<Self, CertError> {
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| CertError::BadTime)?.try_into()
    }
}

impl fmt::Display for Timestamp {
    /// As RFC 3339 writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

const CLOCK_TOLERANCE: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_time_reads_back() {
        let validity = Validity::days(UNIX_EPOCH + NOW, 1).unwrap();
        assert_eq!(validity.from().to_string(), "2026-05-04T09:00:00Z");
        assert_eq!(validity.until().to_string(), "2026-05-05T10:00:00Z");
        assert_eq!(validity.until().to_string().parse(), Ok(validity.until()));
    }

    #[test]
    fn times_that_no_certificate_can_say_are_refused() {
        assert_eq!(Validity::days(UNIX_EPOCH, 1), Err(CertError::BadTime));
        assert_eq!(Validity::days(UNIX_EPOCH + NOW, u32::MAX), Err(CertError::BadTime));
        assert_eq!("1969-12-31T23:59:59Z".parse::<Timestamp>(), Err(CertError::BadTime));
    }

    /// 2026-05-04 10:00:00 UTC.
    const NOW: Duration = Duration::from_secs(1_777_888_800);
}
