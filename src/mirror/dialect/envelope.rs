//! The envelope of the Mainflux family, in Protocol Buffers.

/// Which fields there are, under which numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Mainflux 0.8 to 0.10: with a content type, without a time.
    ContentType,
    /// Mainflux 0.11 to SuperMQ 0.16.
    Classic,
    /// SuperMQ 0.17 to 0.19: with a domain, which has moved all others.
    Domain,
    /// Magistrala 0.20 to 0.40: with the client identifier.
    ClientId,
    /// Magistrala 0.50 and 0.51: with metadata.
    Metadata,
}

/// What the envelope tells; what is empty is not written.
///
/// It is written by hand: the derived form of a message would own copies of all this.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) channel: &'a str,
    pub(super) domain: &'a str,
    pub(super) subtopic: &'a str,
    pub(super) publisher: &'a str,
    pub(super) protocol: &'a str,
    pub(super) content_type: &'a str,
    pub(super) payload: &'a [u8],
    /// Nanoseconds since the Unix epoch.
    pub(super) created: i64,
    pub(super) client_id: &'a str,
    pub(super) metadata: &'a [(&'a str, &'a str)],
}

impl Envelope<'_> {
    pub(super) fn encode(&self, version: Version) -> Vec<u8> {
        let mut fields = Fields(Vec::with_capacity(self.most_bytes()));
        fields.text(1, self.channel);
        match version {
            Version::ContentType => {
                fields.text(2, self.subtopic);
                fields.text(3, self.publisher);
                fields.text(4, self.protocol);
                fields.text(5, self.content_type);
                fields.bytes(6, self.payload);
            }
            Version::Classic => {
                fields.text(2, self.subtopic);
                fields.text(3, self.publisher);
                fields.text(4, self.protocol);
                fields.bytes(5, self.payload);
                fields.integer(6, self.created);
            }
            Version::Domain | Version::ClientId | Version::Metadata => {
                fields.text(2, self.domain);
                fields.text(3, self.subtopic);
                fields.text(4, self.publisher);
                fields.text(5, self.protocol);
                fields.bytes(6, self.payload);
                fields.integer(7, self.created);
            }
        }
        if matches!(version, Version::ClientId | Version::Metadata) {
            fields.text(8, self.client_id);
        }
        if version == Version::Metadata {
            let told = self.metadata.iter().filter(|(_, value)| !value.is_empty());
            told.for_each(|(name, value)| fields.entry(9, name, value));
        }
        fields.0
    }

    fn most_bytes(&self) -> usize {
        let texts = [
            self.channel,
            self.domain,
            self.subtopic,
            self.publisher,
            self.protocol,
            self.content_type,
            self.client_id,
        ];
        let entries =
            self.metadata.iter().map(|(name, value)| name.len() + value.len() + 3 * MOST_BYTES_AROUND);
        let texts = texts.iter().map(|text| text.len() + MOST_BYTES_AROUND).sum::<usize>();
        texts + entries.sum::<usize>() + self.payload.len() + 2 * MOST_BYTES_AROUND
    }
}

/// Fields of a message that are being written, in the order of their numbers, which are below 16.
/// Protocol Buffers, "Encoding"
struct Fields(Vec<u8>);

impl Fields {
    fn text(&mut self, number: u8, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    fn bytes(&mut self, number: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.push(number << 3 | LENGTH_DELIMITED);
            self.varint(bytes.len() as u64);
            self.0.extend_from_slice(bytes);
        }
    }

    fn integer(&mut self, number: u8, value: i64) {
        if value != 0 {
            self.0.push(number << 3 | VARINT);
            self.varint(value.cast_unsigned());
        }
    }

    /// One entry of a map.
    fn entry(&mut self, number: u8, name: &str, value: &str) {
        let mut entry = Self(Vec::with_capacity(name.len() + value.len() + 2 * MOST_BYTES_AROUND));
        entry.text(1, name);
        entry.text(2, value);
        self.bytes(number, &entry.0);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

const VARINT: u8 = 0;
const LENGTH_DELIMITED: u8 = 2;

/// A field's number with its type, and a number of ten bytes.
const MOST_BYTES_AROUND: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_numbers_of_their_version() {
        let domain = b"\x0a\x01c\x12\x01d\x1a\x01s\x22\x01p\x2a\x04mqtt\x32\x02\xff\x00\x38\xac\x02";
        let client_id = [&domain[..], b"\x42\x01i"].concat();
        let metadata = [&client_id[..], b"\x4a\x06\x0a\x01k\x12\x01v"].concat();
        for (version, bytes) in [
            (Version::ContentType, &b"\x0a\x01c\x12\x01s\x1a\x01p\x22\x04mqtt\x2a\x01t\x32\x02\xff\x00"[..]),
            (Version::Classic, b"\x0a\x01c\x12\x01s\x1a\x01p\x22\x04mqtt\x2a\x02\xff\x00\x30\xac\x02"),
            (Version::Domain, domain),
            (Version::ClientId, &client_id),
            (Version::Metadata, &metadata),
        ] {
            assert_eq!(ENVELOPE.encode(version), bytes, "{version:?}");
        }
    }

    #[test]
    fn what_is_empty_is_not_written() {
        let payload = [b'x'; 300];
        let envelope = Envelope { payload: &payload, ..Envelope::default() };
        let expected = [&b"\x2a\xac\x02"[..], &payload].concat();
        assert_eq!(envelope.encode(Version::Classic), expected);
    }

    #[test]
    fn room_is_made_once() {
        let bytes = |version| ENVELOPE.encode(version).len();
        let longest = Envelope { created: i64::MAX, ..ENVELOPE };
        assert!(bytes(Version::Metadata) <= ENVELOPE.most_bytes());
        assert!(longest.encode(Version::Metadata).len() <= longest.most_bytes());
    }

    const ENVELOPE: Envelope<'_> = Envelope {
        channel: "c",
        domain: "d",
        subtopic: "s",
        publisher: "p",
        protocol: "mqtt",
        content_type: "t",
        payload: b"\xff\x00",
        created: 300,
        client_id: "i",
        metadata: &[("k", "v"), ("e", "")],
    };
}
