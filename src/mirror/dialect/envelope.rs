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
    pub(super) metadata: &'a [(&'a str, &'a [u8])],
}

impl Envelope<'_> {
    /// Writes it behind what is there.
    pub(super) fn encode(&self, version: Version, out: &mut Vec<u8>) {
        self.encode_start(version, out);
        self.encode_rest(version, out);
    }

    /// Writes what comes before the payload.
    pub(super) fn encode_start(&self, version: Version, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        fields.text(1, self.channel);
        match version {
            Version::ContentType | Version::Classic => {
                fields.text(2, self.subtopic);
                fields.text(3, self.publisher);
                fields.text(4, self.protocol);
            }
            Version::Domain | Version::ClientId | Version::Metadata => {
                fields.text(2, self.domain);
                fields.text(3, self.subtopic);
                fields.text(4, self.publisher);
                fields.text(5, self.protocol);
            }
        }
        if version == Version::ContentType {
            fields.text(5, self.content_type);
        }
    }

    /// Writes the payload and what comes behind it.
    pub(super) fn encode_rest(&self, version: Version, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        match version {
            Version::ContentType => fields.bytes(6, self.payload),
            Version::Classic => {
                fields.bytes(5, self.payload);
                fields.integer(6, self.created);
            }
            Version::Domain | Version::ClientId | Version::Metadata => {
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
    }
}

/// Fields of a message that are being written, in the order of their numbers, which are below 16.
/// Protocol Buffers, "Encoding"
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn text(&mut self, number: u8, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    fn bytes(&mut self, number: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.begin(number << 3 | LENGTH_DELIMITED, bytes.len() as u64);
            self.0.extend_from_slice(bytes);
        }
    }

    fn integer(&mut self, number: u8, value: i64) {
        if value != 0 {
            self.begin(number << 3 | VARINT, value.cast_unsigned());
        }
    }

    /// One entry of a map.
    fn entry(&mut self, number: u8, name: &str, value: &[u8]) {
        let mut entry = Vec::with_capacity(name.len() + value.len() + 2 * MOST_BYTES_AROUND);
        let mut fields = Fields(&mut entry);
        fields.text(1, name);
        fields.bytes(2, value);
        self.bytes(number, &entry);
    }

    /// Writes the number and the type of a field, and a number behind them.
    fn begin(&mut self, tag: u8, mut value: u64) {
        let mut bytes = [tag; MOST_BYTES_AROUND];
        let mut last = 1;
        while value >= 0x80 {
            bytes[last] = value as u8 | 0x80;
            value >>= 7;
            last += 1;
        }
        bytes[last] = value as u8;
        self.0.extend_from_slice(&bytes[..=last]);
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
            assert_eq!(encoded(&ENVELOPE, version), bytes, "{version:?}");
        }
    }

    #[test]
    fn what_is_empty_is_not_written() {
        let payload = [b'x'; 300];
        let envelope = Envelope { payload: &payload, ..Envelope::default() };
        let expected = [&b"\x2a\xac\x02"[..], &payload].concat();
        assert_eq!(encoded(&envelope, Version::Classic), expected);
    }

    fn encoded(envelope: &Envelope<'_>, version: Version) -> Vec<u8> {
        let mut out = b"before".to_vec();
        envelope.encode(version, &mut out);
        out.split_off(b"before".len())
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
        metadata: &[("k", b"v"), ("e", b"")],
    };
}
