//! Reads packets a second time, by other code than what is tested: the way a broker or client would.

/// One whole packet.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// Packet type and flags.
    pub(crate) first: u8,
    /// All that is behind the fixed header.
    pub(crate) body: &'a [u8],
    /// The packet as it stands.
    pub(crate) bytes: &'a [u8],
}

/// What a PUBLISH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a str,
    pub(crate) alias: Option<u16>,
    pub(crate) packet_id: u16,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
}

/// Reads fields front to back; `None` where the packet ends too early.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

/// The packet that `bytes` start with; `None` while some of it is missing.
pub(crate) fn next(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&first, mut rest) = bytes.split_first()?;
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    let body = rest.get(..length)?;
    Some(Frame { first, body, bytes: &bytes[..bytes.len() - rest.len() + length] })
}

/// The packets that `bytes` are, if they are whole packets and nothing else.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let frame = next(bytes).unwrap_or_else(|| panic!("not whole: {bytes:02x?}"));
        bytes = &bytes[frame.bytes.len()..];
        frames.push(frame);
    }
    frames
}

impl<'a> Frame<'a> {
    /// The number of the packet type.
    pub(crate) fn kind(self) -> u8 {
        self.first >> 4
    }

    /// What the PUBLISH says.
    pub(crate) fn message(self, is_v5: bool) -> Option<Message<'a>> {
        let mut fields = Fields(self.body);
        let qos = self.first >> 1 & 3;
        let topic = fields.text()?;
        let packet_id = if qos > 0 { fields.number(2)? } else { 0 };
        let alias = if is_v5 { fields.property(0x23)? } else { None };
        let (packet_id, alias) = (packet_id as u16, alias.map(|alias| alias as u16));
        Some(Message { topic, alias, packet_id, payload: fields.0, qos, retain: self.first & 1 != 0 })
    }
}

impl<'a> Fields<'a> {
    /// So many bytes.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes.
    pub(crate) fn number(&mut self, bytes: usize) -> Option<u32> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// Bytes behind their length.
    pub(crate) fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.number(2)?;
        self.take(length as usize)
    }

    /// UTF-8 behind its length.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.binary()?).ok()
    }

    /// Takes all properties; the value of that with this identifier, if it is a number and there.
    pub(crate) fn property(&mut self, sought: u8) -> Option<Option<u32>> {
        let length = self.variable()?;
        let mut properties = Fields(self.take(length)?);
        let mut found = None;
        while !properties.0.is_empty() {
            let id = properties.take(1)?[0];
            let value = properties.value(id)?;
            found = if id == sought { value } else { found };
        }
        Some(found)
    }

    /// The value of a property; `Some(None)` if it is not a number of fixed length. MQTT 5.0 table 2-4
    fn value(&mut self, id: u8) -> Option<Option<u32>> {
        match id {
            1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => self.number(1).map(Some),
            19 | 33 | 34 | 35 => self.number(2).map(Some),
            2 | 17 | 24 | 39 => self.number(4).map(Some),
            11 => self.variable().map(|_| None),
            38 => self.binary().and_then(|_| self.binary()).map(|_| None),
            3 | 8 | 9 | 18 | 21 | 22 | 26 | 28 | 31 => self.binary().map(|_| None),
            _ => None,
        }
    }

    fn variable(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}
