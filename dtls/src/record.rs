//! The records of a datagram (RFC 6347 §4.1, RFC 9146 §4).

use std::ops::Range;

/// What a record carries (RFC 5246 §6.2.1, RFC 9146 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ContentType {
    /// The sender protects what follows.
    ChangeCipherSpec = 20,
    /// A warning, or the end.
    Alert = 21,
    /// A message of a handshake, or a part of one.
    Handshake = 22,
    /// What the application sent.
    ApplicationData = 23,
    /// A record with a connection id, whose content type is protected too (`tls12_cid`).
    ConnectionId = 25,
}

/// The version in a record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Version {
    /// DTLS 1.0, which stands in records that come before a version is agreed on.
    Dtls10 = 0xfeff,
    /// DTLS 1.2.
    Dtls12 = 0xfefd,
}

/// One record of a datagram: what its header says, and where its parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What the header says that it carries.
    pub content_type: ContentType,
    /// The version in the header.
    pub version: Version,
    /// Which keys protect it; nothing protects epoch 0.
    pub epoch: u16,
    /// Its number within the epoch, of 48 bits.
    pub sequence: u64,
    /// Where the connection id is; empty if the record has none.
    pub cid: Range<usize>,
    /// Where that is which comes after the header.
    pub body: Range<usize>,
    /// Where header and body are.
    pub whole: Range<usize>,
}

/// Finds the records of `datagram`, whose connection ids are `cid_length` bytes long; 0: there are none.
///
/// It stops at the first that is not whole, too large, or of an unknown type or version: where the next one
/// begins is then not known.
pub fn records(datagram: &[u8], cid_length: usize) -> impl Iterator<Item = Record> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let record = record_at(datagram, at, cid_length)?;
        at = record.whole.end;
        Some(record)
    })
}

/// What a record says of itself that is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// What it carries; with a connection id, it says so within its protection only.
    pub content_type: ContentType,
    /// Which keys protect it.
    pub epoch: u16,
    /// Its number within the epoch, of 48 bits.
    pub sequence: u64,
    /// The connection id; empty: the record has none (RFC 9146 §4).
    pub cid: &'a [u8],
}

impl<'a> Head<'a> {
    /// The head of a record that was found in `datagram`.
    pub(crate) fn of(record: &Record, datagram: &'a [u8]) -> Option<Self> {
        let &Record { content_type, epoch, sequence, .. } = record;
        Some(Self { content_type, epoch, sequence, cid: datagram.get(record.cid.clone())? })
    }

    /// Appends the header of a record whose body is `length` bytes long.
    pub(crate) fn write(&self, length: usize, out: &mut Vec<u8>) {
        out.push(self.outer_type() as u8);
        out.extend_from_slice(&(Version::Dtls12 as u16).to_be_bytes());
        out.extend_from_slice(&self.number());
        out.extend_from_slice(self.cid);
        out.extend_from_slice(&(length as u16).to_be_bytes());
    }

    /// The content type in the header.
    pub(crate) fn outer_type(&self) -> ContentType {
        if self.cid.is_empty() { self.content_type } else { ContentType::ConnectionId }
    }

    /// Epoch and sequence number, as they stand in a header.
    pub(crate) fn number(&self) -> [u8; 8] {
        (u64::from(self.epoch) << SEQUENCE_BITS | self.sequence & MAX_SEQUENCE).to_be_bytes()
    }
}

impl ContentType {
    /// The type that has this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            25 => Self::ConnectionId,
            _ => return None,
        })
    }
}

impl Version {
    /// The version that has this number.
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            0xfeff => Some(Self::Dtls10),
            0xfefd => Some(Self::Dtls12),
            _ => None,
        }
    }
}

fn record_at(datagram: &[u8], start: usize, cid_length: usize) -> Option<Record> {
    let rest = datagram.get(start..)?;
    let (&[content_type, major, minor], rest) = rest.split_first_chunk()?;
    let content_type = ContentType::from_number(content_type)?;
    let version = Version::from_number(u16::from_be_bytes([major, minor]))?;
    let (&number, rest) = rest.split_first_chunk()?;
    let number = u64::from_be_bytes(number);
    let cid_length = match content_type {
        // RFC 9146 §4: without a connection id, the type is not used
        ContentType::ConnectionId if cid_length == 0 || version != Version::Dtls12 => return None,
        ContentType::ConnectionId => cid_length,
        _ => 0,
    };
    let (&length, rest) = rest.get(cid_length..)?.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_BODY || length > rest.len() {
        return None;
    }
    let cid = start + CID_OFFSET..start + CID_OFFSET + cid_length;
    let body = cid.end + 2..cid.end + 2 + length;
    Some(Record {
        content_type,
        version,
        epoch: (number >> SEQUENCE_BITS) as u16,
        sequence: number & MAX_SEQUENCE,
        cid,
        whole: start..body.end,
        body,
    })
}

/// The length of a header without a connection id.
pub(crate) const HEADER_LENGTH: usize = 13;

/// The last sequence number of an epoch.
pub(crate) const MAX_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;

const SEQUENCE_BITS: u32 = 48;
const CID_OFFSET: usize = 11;

/// RFC 5246 §6.2.3: what protection adds is at most 2,048 bytes.
const MAX_BODY: usize = (1 << 14) + 2048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_of_a_datagram_are_found_in_their_order() {
        let datagram = [HANDSHAKE, WITH_CID, ALERT].concat();
        let found: Vec<_> = records(&datagram, 4).collect();
        assert_eq!(
            found,
            [
                Record {
                    content_type: ContentType::Handshake,
                    version: Version::Dtls10,
                    epoch: 0,
                    sequence: 7,
                    cid: 11..11,
                    body: 13..16,
                    whole: 0..16,
                },
                Record {
                    content_type: ContentType::ConnectionId,
                    version: Version::Dtls12,
                    epoch: 1,
                    sequence: MAX_SEQUENCE,
                    cid: 27..31,
                    body: 33..35,
                    whole: 16..35,
                },
                Record {
                    content_type: ContentType::Alert,
                    version: Version::Dtls12,
                    epoch: 0xffff,
                    sequence: 0x0102_0304_0506,
                    cid: 46..46,
                    body: 48..48,
                    whole: 35..48,
                },
            ]
        );
    }

    #[test]
    fn what_is_no_record_ends_the_datagram() {
        for (what, bad) in [
            ("type", &[24, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]),
            ("type of DTLS 1.3", &[0x2e, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("version of TLS", &[22, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("connection id in DTLS 1.0", &[25, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0]),
            ("connection id that is cut", &[25, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]),
            ("header that is cut", &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("body that is cut", &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ] {
            let datagram = [ALERT, bad, ALERT].concat();
            let count = match what {
                // what follows is taken for its body and is not long enough
                "body that is cut" | "header that is cut" | "connection id that is cut" => {
                    records(&datagram[..ALERT.len() + bad.len()], 4).count()
                }
                _ => records(&datagram, 4).count(),
            };
            assert_eq!(count, 1, "{what}");
        }
    }

    #[test]
    fn a_body_is_no_longer_than_protection_makes_it() {
        let mut datagram = HANDSHAKE[..11].to_vec();
        datagram.extend((MAX_BODY as u16).to_be_bytes());
        datagram.resize(13 + MAX_BODY + 1, 0);
        assert_eq!(records(&datagram, 0).count(), 1);
        datagram[11..13].copy_from_slice(&(MAX_BODY as u16 + 1).to_be_bytes());
        assert_eq!(records(&datagram, 0).count(), 0);
    }

    #[test]
    fn without_connection_ids_their_type_is_unknown() {
        assert_eq!(records(WITH_CID, 0).count(), 0);
    }

    proptest! {
        #[test]
        fn records_lie_in_the_datagram_one_after_the_other(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            good in 0usize..4,
            cid_length in 0usize..12,
        ) {
            let datagram = [vec![ALERT; good].concat(), bytes].concat();
            let mut at = 0;
            for record in records(&datagram, cid_length) {
                prop_assert_eq!(record.whole.start, at);
                prop_assert_eq!(record.body.end, record.whole.end);
                prop_assert!(record.cid.start == at + CID_OFFSET && record.cid.end + 2 == record.body.start);
                at = record.whole.end;
            }
            prop_assert!(at <= datagram.len() && at >= good * ALERT.len());
        }

        #[test]
        fn a_header_that_was_written_is_found(
            epoch: u16,
            sequence in 0..=MAX_SEQUENCE,
            cid in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let head = Head { content_type: ContentType::Alert, epoch, sequence, cid: &cid };
            let mut datagram = Vec::new();
            head.write(2, &mut datagram);
            datagram.extend(b"ok");
            let found: Vec<_> = records(&datagram, cid.len()).collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(found[0].content_type, head.outer_type());
            prop_assert_eq!((found[0].epoch, found[0].sequence), (epoch, sequence));
            prop_assert_eq!(&datagram[found[0].cid.clone()], &cid[..]);
            prop_assert_eq!(&datagram[found[0].body.clone()], b"ok");
        }
    }

    const HANDSHAKE: &[u8] = &[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 7, 0, 3, 1, 2, 3];
    const WITH_CID: &[u8] =
        &[25, 0xfe, 0xfd, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 9, 9, 9, 9, 0, 2, 1, 2];
    const ALERT: &[u8] = &[21, 0xfe, 0xfd, 0xff, 0xff, 1, 2, 3, 4, 5, 6, 0, 0];
}
