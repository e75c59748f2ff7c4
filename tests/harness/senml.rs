//! What must hold for any bytes as a SenML pack.

use std::time::Duration;

use mgate::senml::{Format, Pack, Resolved};

/// Reads the bytes in both formats: a pack that is resolved stays as it is, in either format and at any time.
/// Says whether they are one.
pub(crate) fn check(bytes: &[u8]) -> bool {
    BOTH.into_iter().filter(|format| check_as(bytes, *format)).count() > 0
}

fn check_as(bytes: &[u8], format: Format) -> bool {
    let Ok(resolved) = resolved(bytes, format, NOW) else { return false };
    assert_eq!(Format::of_pack(bytes), Some(format), "its first byte tells its format");
    let times: Vec<_> = resolved.measurements().iter().map(|each| each.time.to_f64()).collect();
    assert!(!times.is_empty() && times.is_sorted() && times[0] >= FIRST_ABSOLUTE, "{times:?}");
    for format in BOTH {
        let written = resolved.write(format);
        let again = self::resolved(&written, format, NOW + Duration::from_secs(7));
        let again = again.unwrap_or_else(|fault| panic!("{fault}: {}", String::from_utf8_lossy(&written)));
        assert_eq!(again, resolved, "it is resolved already");
        assert_eq!(again.write(format), written);
    }
    true
}

fn resolved(bytes: &[u8], format: Format, now: Duration) -> Result<Resolved, String> {
    let resolved = Pack::parse(bytes, format).and_then(|pack| pack.resolve(now));
    resolved.map_err(|fault| fault.to_string())
}

const BOTH: [Format; 2] = [Format::Cbor, Format::Json];
const NOW: Duration = Duration::from_millis(1_700_000_000_250);
const FIRST_ABSOLUTE: f64 = 268_435_456.0;
