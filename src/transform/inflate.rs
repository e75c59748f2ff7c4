use std::borrow::Cow;
use std::fmt;
use std::io::Read;
use std::time::Duration;

use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use mgate_policies::{Cause, Client, Editable, Now, Part, Reason, Refusal, Transform};
use tracing::warn;

use super::scope::Scope;
use super::tally::Tally;

/// Inflates what messages carry, so that whoever comes after it sees what is meant.
pub struct Inflate {
    name: Box<str>,
    options: InflateOptions,
    tally: Tally,
}

/// What is inflated, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InflateOptions {
    /// The messages that are looked at.
    pub scope: Scope,
    /// How all of them are compressed; `None` if their first bytes tell, and others pass.
    pub encoding: Option<Encoding>,
    /// The most bytes that there may be afterwards.
    pub max_bytes: usize,
    /// How many times as many bytes there may be afterwards at the most.
    pub max_ratio: usize,
    /// What becomes of what cannot be inflated.
    pub on_error: OnBadDeflate,
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1951.
    Deflate,
    /// RFC 1952, of one member.
    Gzip,
    /// RFC 1950.
    Zlib,
}

/// What becomes of what cannot be inflated; what would become too large is always denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadDeflate {
    /// It passes as it came.
    Pass,
    /// It is denied.
    Refuse,
}

impl Inflate {
    /// A transform that logs and denials call `name`.
    pub fn new(name: &str, options: InflateOptions) -> Self {
        Self { name: name.into(), options, tally: Tally::new(QUIET) }
    }

    /// The inflated payload, if it is compressed.
    fn inflated(&self, payload: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let Some(encoding) = self.options.encoding.or_else(|| Encoding::of(payload)) else { return Ok(None) };
        let limit = payload.len().saturating_mul(self.options.max_ratio).min(self.options.max_bytes);
        match encoding {
            Encoding::Deflate => inflate(payload, Decompress::new(false), limit),
            Encoding::Gzip => gunzip(payload, limit),
            Encoding::Zlib => inflate(payload, Decompress::new(true), limit),
        }
        .map(Some)
    }

    fn take_bad(&self, client: &Client, topic: &str, fault: Fault, now: Now) -> Result<(), Refusal> {
        let cause = match (fault, self.options.on_error) {
            (Fault::TooLarge, _) => Cause::QuotaExceeded,
            (_, OnBadDeflate::Refuse) => Cause::PayloadInvalid,
            (_, OnBadDeflate::Pass) => {
                if let Some(count) = self.tally.count(now.instant) {
                    let (transform, client) = (&*self.name, &*client.client_id);
                    warn!(transform, client, topic, %fault, count, "a message has passed as it came");
                }
                return Ok(());
            }
        };
        Err(Refusal::Denied(Reason::with_detail(cause, fault.to_string())))
    }
}

impl Transform for Inflate {
    fn name(&self) -> &str {
        &self.name
    }

    fn apply(&self, packet: &mut Editable<'_>, now: Now) -> Result<(), Refusal> {
        let Part::Message(message) = &mut packet.part else { return Ok(()) };
        // an empty message that is retained ends what is, and carries nothing
        let is_end = message.payload.is_empty() && message.retain;
        if is_end || !self.options.scope.covers(message) {
            return Ok(());
        }
        match self.inflated(&message.payload) {
            Ok(Some(inflated)) => {
                message.payload = Cow::Owned(inflated);
                message.outdated.encoding = true;
            }
            Ok(None) => {}
            Err(fault) => self.take_bad(packet.client, &message.topic, fault, now)?,
        }
        Ok(())
    }
}

impl Encoding {
    /// What the first bytes tell.
    fn of(payload: &[u8]) -> Option<Self> {
        match payload {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // RFC 1950 §2.2: a check of the first two bytes, and no dictionary
            [0x78, flags, ..] if (0x7800 | u16::from(*flags)) % 31 == 0 && flags & 0x20 == 0 => {
                Some(Self::Zlib)
            }
            _ => None,
        }
    }
}

/// Why there is nothing to go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Broken,
    TooLarge,
    Trailing,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the payload cannot be inflated",
            Self::TooLarge => "the inflated payload would be over `max_bytes` or `max_ratio`",
            Self::Trailing => "something follows the compressed payload",
        })
    }
}

fn gunzip(payload: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    let mut decoder = GzDecoder::new(payload);
    let mut out = Vec::new();
    (&mut decoder).take(limit as u64 + 1).read_to_end(&mut out).map_err(|_| Fault::Broken)?;
    if out.len() > limit {
        return Err(Fault::TooLarge);
    }
    if decoder.into_inner().is_empty() { Ok(out) } else { Err(Fault::Trailing) }
}

/// Not by a reader of flate2, which takes what is cut off for whole.
fn inflate(payload: &[u8], mut state: Decompress, limit: usize) -> Result<Vec<u8>, Fault> {
    let (mut rest, mut out) = (payload, Vec::new());
    loop {
        out.reserve_exact(out.len().max(FIRST_BYTES).min(limit + 1 - out.len()));
        let (taken, made) = (state.total_in(), state.total_out());
        let status = state.decompress_vec(rest, &mut out, FlushDecompress::None);
        let status = status.map_err(|_| Fault::Broken)?;
        let taken = usize::try_from(state.total_in() - taken).map_err(|_| Fault::Broken)?;
        rest = rest.get(taken..).unwrap_or_default();
        match status {
            _ if out.len() > limit => return Err(Fault::TooLarge),
            Status::StreamEnd if rest.is_empty() => return Ok(out),
            Status::StreamEnd => return Err(Fault::Trailing),
            _ if taken == 0 && state.total_out() == made => return Err(Fault::Broken),
            _ => {}
        }
    }
}

const FIRST_BYTES: usize = 4096;
const QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::bufread::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use mgate_policies::{Action, EditableMessage, Outdated};

    use super::*;
    use crate::transform::tests::{applied, client, message_of, outdated_by};

    #[test]
    fn compressed_payload_is_inflated() {
        for text in [&b""[..], b"21.5", &b"a,b;".repeat(10_000)] {
            for encoding in ALL {
                let compressed = compressed(encoding, text);
                let explicit = InflateOptions { encoding: Some(encoding), ..options() };
                assert_eq!(after(explicit, &compressed), Ok(text.to_vec()), "{encoding:?}");
                let detected = after(options(), &compressed);
                let expected = if encoding == Encoding::Deflate { &compressed } else { text };
                assert_eq!(detected.unwrap(), expected, "{encoding:?}");
            }
        }
    }

    #[test]
    fn payload_of_another_kind_passes_as_it_came() {
        for payload in [&b""[..], b"x", b"\x1f", b"x\x02", b"x\xbb", b"{}", b"\x78"] {
            assert_eq!(after(options(), payload), Ok(payload.to_vec()), "{payload:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for encoding in ALL {
            let whole = compressed(encoding, b"21.5 degrees, 21.5 degrees");
            for length in 0..whole.len() {
                let options = InflateOptions { encoding: Some(encoding), ..options() };
                assert_eq!(after(options, &whole[..length]), refused(Fault::Broken), "{encoding:?} {length}");
            }
        }
    }

    #[test]
    fn wrong_checksum_is_refused() {
        for (encoding, from_end) in [(Encoding::Zlib, 1), (Encoding::Gzip, 8), (Encoding::Gzip, 1)] {
            let mut changed = compressed(encoding, b"21.5");
            let at = changed.len() - from_end;
            changed[at] ^= 1;
            assert_eq!(after(options(), &changed), refused(Fault::Broken), "{encoding:?}");
        }
    }

    #[test]
    fn what_follows_is_refused() {
        for encoding in ALL {
            let mut longer = compressed(encoding, b"21.5");
            longer.extend(compressed(encoding, b"22"));
            let options = InflateOptions { encoding: Some(encoding), ..options() };
            assert_eq!(after(options, &longer), refused(Fault::Trailing), "{encoding:?}");
        }
    }

    #[test]
    fn bounds_are_kept_to_the_byte() {
        for encoding in ALL {
            for length in [1, 4095, 4096, 4097, 10_000] {
                let payload = compressed(encoding, &vec![7; length]);
                let with = |max_bytes, max_ratio| {
                    let options =
                        InflateOptions { encoding: Some(encoding), max_bytes, max_ratio, ..options() };
                    after(options, &payload).map(|inflated| inflated.len())
                };
                assert_eq!(with(length, 10_000), Ok(length), "{encoding:?}");
                assert_eq!(with(length - 1, 10_000), too_large(), "{encoding:?}");
                let ratio = length.div_ceil(payload.len());
                assert_eq!(with(1 << 20, ratio), Ok(length), "{encoding:?}");
                if length > payload.len() {
                    assert_eq!(with(1 << 20, ratio - 1), too_large(), "{encoding:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_large_never_passes_and_what_is_broken_may() {
        let options = || InflateOptions { on_error: OnBadDeflate::Pass, max_bytes: 100, ..options() };
        assert_eq!(after(options(), b"x\x9cbroken"), Ok(b"x\x9cbroken".to_vec()));
        assert_eq!(after(options(), &compressed(Encoding::Gzip, &[0; 101])), too_large());
    }

    #[test]
    fn empty_message_ends_a_retained_one() {
        for encoding in ALL {
            let options = InflateOptions { encoding: Some(encoding), ..options() };
            assert_eq!(after(options.clone(), b""), refused(Fault::Broken));
            let message = EditableMessage { retain: true, ..message_of(Action::Publish, "t", b"") };
            let ended = applied(&Inflate::new("inflate", options), &client(), message, Now::read());
            assert_eq!(ended, Ok(Vec::new()), "{encoding:?}");
        }
    }

    #[test]
    fn what_is_inflated_is_compressed_no_longer() {
        let inflate = Inflate::new("inflate", options());
        for (payload, encoding) in [(&compressed(Encoding::Gzip, b"21.5")[..], true), (b"21.5", false)] {
            let outdated = outdated_by(&inflate, message_of(Action::Publish, "t", payload));
            assert_eq!(outdated, Outdated { encoding, signature: false });
        }
    }

    fn after(options: InflateOptions, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        let message: EditableMessage<'_> = message_of(Action::Publish, "t", payload);
        applied(&Inflate::new("inflate", options), &client(), message, Now::read())
    }

    fn compressed(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        let (level, mut out) = (Compression::default(), Vec::new());
        match encoding {
            Encoding::Deflate => DeflateEncoder::new(bytes, level).read_to_end(&mut out),
            Encoding::Gzip => GzEncoder::new(bytes, level).read_to_end(&mut out),
            Encoding::Zlib => ZlibEncoder::new(bytes, level).read_to_end(&mut out),
        }
        .unwrap();
        out
    }

    fn refused(fault: Fault) -> Result<Vec<u8>, Refusal> {
        Err(Refusal::Denied(Reason::with_detail(Cause::PayloadInvalid, fault.to_string())))
    }

    fn too_large<T>() -> Result<T, Refusal> {
        Err(Refusal::Denied(Reason::with_detail(Cause::QuotaExceeded, Fault::TooLarge.to_string())))
    }

    fn options() -> InflateOptions {
        InflateOptions {
            scope: Scope::default(),
            encoding: None,
            max_bytes: 1 << 20,
            max_ratio: 2000,
            on_error: OnBadDeflate::Refuse,
        }
    }

    const ALL: [Encoding; 3] = [Encoding::Deflate, Encoding::Gzip, Encoding::Zlib];
}
