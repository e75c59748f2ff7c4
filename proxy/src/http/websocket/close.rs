//! Why a WebSocket ends, as its peers are told. RFC 6455 §7.4

use bytes::Bytes;
use mgate_policies::Cause;

/// What a close frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct Close {
    /// `None` for a close without a word.
    pub(super) code: Option<u16>,
    /// In UTF-8; 123 bytes at the most.
    pub(super) reason: Bytes,
}

impl Close {
    /// Whoever it was can no longer be reached, or is about to leave.
    pub(super) const GOING_AWAY: Self = Self::new(1001, b"going away");
    pub(super) const PROTOCOL_ERROR: Self = Self::new(1002, b"protocol error");
    pub(super) const INVALID_TEXT: Self = Self::new(1007, b"text is not UTF-8");
    /// A message takes too long to come.
    pub(super) const TOO_SLOW: Self = Self::new(1008, b"message too slow");
    pub(super) const TOO_LARGE: Self = Self::new(1009, b"message too large");
    /// The upstream broke the connection, or the rules.
    pub(super) const BAD_GATEWAY: Self = Self::new(1014, b"the upstream failed");

    const fn new(code: u16, reason: &'static [u8]) -> Self {
        Self { code: Some(code), reason: Bytes::from_static(reason) }
    }

    /// Reads the payload of a close frame.
    pub(super) fn read(payload: &Bytes) -> Result<Self, Self> {
        let [high, low, reason @ ..] = &payload[..] else {
            return if payload.is_empty() { Ok(Self::default()) } else { Err(Self::PROTOCOL_ERROR) };
        };
        let code = u16::from_be_bytes([*high, *low]);
        if !may_be_sent(code) {
            return Err(Self::PROTOCOL_ERROR);
        }
        if str::from_utf8(reason).is_err() {
            return Err(Self::INVALID_TEXT);
        }
        Ok(Self { code: Some(code), reason: payload.slice(2..) })
    }

    /// The payload of its frame.
    pub(super) fn payload(&self) -> Vec<u8> {
        let code = self.code.map(u16::to_be_bytes);
        [code.as_ref().map_or(&[][..], |code| &code[..]), &self.reason].concat()
    }
}

impl From<Cause> for Close {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Unavailable => Self::new(1013, b"no decision to be had"),
            Cause::QuotaExceeded | Cause::RateExceeded => Self::new(1008, b"too many messages"),
            Cause::BadCredentials => Self::new(1008, b"bad credentials"),
            _ => Self::new(1008, b"not authorized"),
        }
    }
}

/// Whether a code may stand in a frame: those of RFC 6455 §7.4.1 and the registry, and those for libraries and
/// applications.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_says_what_it_was_told() {
        for payload in [&b""[..], b"\x03\xe8", b"\x0f\xa0bye", b"\x03\xf0\xc3\xbc"] {
            assert_eq!(Close::read(&Bytes::from_static(payload)).unwrap().payload(), payload);
        }
    }

    #[test]
    fn codes_that_must_not_be_sent_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            let payload = Bytes::copy_from_slice(&u16::to_be_bytes(code));
            assert_eq!(Close::read(&payload), Err(Close::PROTOCOL_ERROR), "{code}");
        }
        assert_eq!(Close::read(&Bytes::from_static(b"\x03")), Err(Close::PROTOCOL_ERROR));
        assert_eq!(Close::read(&Bytes::from_static(b"\x03\xe8\xff")), Err(Close::INVALID_TEXT));
    }

    #[test]
    fn causes_have_their_codes() {
        for (cause, code) in
            [(Cause::NotAuthorized, 1008), (Cause::RateExceeded, 1008), (Cause::Unavailable, 1013)]
        {
            assert_eq!(Close::from(cause).code, Some(code), "{cause}");
        }
    }
}
