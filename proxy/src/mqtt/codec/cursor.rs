use super::DecodeError;

/// Reads one packet's fields, front to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.chunk()?))
    }

    #[inline]
    pub(super) fn two_bytes(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.chunk()?))
    }

    #[inline]
    pub(super) fn four_bytes(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.chunk()?))
    }

    /// [MQTT-2.2.1-3]
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.two_bytes()? {
            0 => Err(DecodeError::PacketIdZero),
            id => Ok(id),
        }
    }

    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.two_bytes()?;
        self.take(length.into())
    }

    /// [MQTT-1.5.4-1], [MQTT-1.5.4-2]; U+FEFF is kept: [MQTT-1.5.4-3]
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        if any(bytes, |byte| byte == 0) {
            return Err(DecodeError::NulInText);
        }
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)
    }

    /// A text without wildcards; may be empty. [MQTT-3.3.2-2]
    #[inline]
    pub(super) fn topic(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        if any(bytes, |byte| (byte == 0) | (byte == b'+') | (byte == b'#')) {
            let nul = bytes.contains(&0);
            return Err(if nul { DecodeError::NulInText } else { DecodeError::WildcardInTopicName });
        }
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)
    }

    /// [MQTT-1.5.5-1]
    #[inline]
    pub(super) fn variable(&mut self) -> Result<u32, DecodeError> {
        let (value, length) = variable(self.0)?.ok_or(DecodeError::Truncated)?;
        self.take(length)?;
        Ok(value)
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (chunk, rest) = self.0.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*chunk)
    }
}

/// The variable byte integer that `bytes` start with and its length; `None` if there is more to come.
#[inline]
pub(super) fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]; 3.1.1 has no such rule, but two ways to say one length fool whoever compares.
            let is_minimal = byte != 0 || at == 0;
            return if is_minimal { Ok(Some((value, at + 1))) } else { Err(DecodeError::NotMinimal) };
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::VariableInteger) }
}

/// Collected in a byte, not a `bool`, and without an early exit, it is vectorized: seven times as fast.
#[inline]
fn any(bytes: &[u8], is_sought: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(0, |found, &byte| found | u8::from(is_sought(byte))) != 0
}
