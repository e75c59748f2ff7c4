//! Packets that were judged, byte for byte.

use mgate_policies::Now;
use mgate_proxy::gate::{Fate, PacketSeen, Side};

use super::headers;
use super::random::message_id;
use super::subject::{SubjectTemplate, Values};
use super::timestamp::rfc3339;
use crate::mirror::record::Record;

/// One packet; without its bytes where there may be credentials in them.
pub(super) fn record(seen: &PacketSeen<'_>, now: Now, subject: &SubjectTemplate) -> Record {
    let (id, time) = (message_id(), rfc3339(now.unix));
    let [id, time] = [&id[..], &time].map(|text| str::from_utf8(text).unwrap_or_default());
    let from = match seen.from {
        Side::Client => "client",
        Side::Upstream => "upstream",
    };
    let values = Values { action: from, ..Values::of(seen.client) };
    let mut headers = subject.fill_in_short(&values, Vec::new());
    headers::of_session(&mut headers, seen.client, seen.peer, (id, time));
    headers.push_plain("Mgate-From", from);
    headers.push("Mgate-Packet", &seen.packet.to_string());
    let (fate, reason) = match seen.fate {
        Fate::Denied(reason) => ("denied", Some(reason.to_string())),
        Fate::Held => ("held", None),
        Fate::Passed(by) => ("passed", by.map(str::to_owned)),
        Fate::Taken => ("taken", None),
    };
    headers.push_plain("Mgate-Fate", fate);
    if let Some(reason) = reason {
        headers.push("Mgate-Reason", &reason);
    }
    let mut record = headers.end();
    record.out().extend_from_slice(seen.frame.unwrap_or_default());
    record
}

#[cfg(test)]
mod tests {
    use mgate_policies::{Cause, Reason};

    use super::super::tests::{client, header, now, writer};
    use super::super::{Dialect as _, Kind};
    use super::*;

    #[test]
    fn packet_is_told_with_its_bytes_and_its_fate() {
        let client = client();
        let reason = Reason::new(Cause::NotAuthorized);
        for (from, fate, expected) in [
            (Side::Client, Fate::Denied(&reason), ("client", "denied", Some("not authorized"))),
            (Side::Client, Fate::Held, ("client", "held", None)),
            (Side::Upstream, Fate::Passed(Some("acl")), ("upstream", "passed", Some("acl"))),
            (Side::Upstream, Fate::Passed(None), ("upstream", "passed", None)),
            (Side::Client, Fate::Taken, ("client", "taken", None)),
        ] {
            let frame = Some(&b"\x30\x03\x00\x01a"[..]);
            let seen = PacketSeen {
                client: Some(&client),
                peer: client.peer,
                from,
                packet: &"PUBLISH ü",
                frame,
                fate,
            };
            let record = writer(Kind::Mainflux0_13).packet(&seen, now()).unwrap();
            let (side, fate, reason) = expected;
            assert_eq!(record.subject(), format!("trace.dev-1.{side}"));
            assert_eq!(record.payload(), b"\x30\x03\x00\x01a");
            assert_eq!(header(&record, "Mgate-From"), Some(side));
            assert_eq!(header(&record, "Mgate-Packet"), Some("PUBLISH %C3%BC"));
            assert_eq!(header(&record, "Mgate-Fate"), Some(fate));
            assert_eq!(header(&record, "Mgate-Reason"), reason);
        }
    }

    #[test]
    fn packet_with_credentials_has_no_bytes() {
        let peer = ([10, 0, 0, 7], 1).into();
        let seen = PacketSeen {
            client: None,
            peer,
            from: Side::Client,
            packet: &"CONNECT",
            frame: None,
            fate: Fate::Held,
        };
        let record = writer(Kind::Plain).packet(&seen, now()).unwrap();
        assert_eq!(record.subject(), "trace.%.client");
        assert!(record.payload().is_empty());
        assert_eq!(header(&record, "Mgate-Peer"), Some("10.0.0.7:1"));
    }
}
