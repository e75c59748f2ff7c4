//! A story of a session, read from bytes: every byte sequence is one.

use std::io::ErrorKind;
use std::time::Duration;

use mgate_policies::{Cause, Decision, Grant, Principal, Reason};
use mgate_proxy::gate::{Side, Verdict};
use mgate_proxy::mqtt::packet::Version;

use super::packets::{ack, connack, connect, packet, publish, text, with_id};

/// What happens next.
pub(crate) enum Step {
    /// Bytes come in pieces of this length from now on; 0 for all at once.
    Chunk(usize),
    /// One side will send no more.
    Closed(Side, Option<ErrorKind>),
    /// Somebody decides.
    Decided(Side, Decision),
    /// mgate stops.
    Drain,
    /// An authenticator knows.
    Identified(Verdict),
    /// The next packet has one byte changed: that at this place, by these bits.
    Mangle(usize, u8),
    /// The client's rights may have changed.
    Reauthorize,
    /// Somebody decides what is asked for again.
    Reviewed(Decision),
    /// One side sends bytes.
    Send(Side, Vec<u8>),
    /// One side takes no bytes.
    Stalled(Side),
    /// The mirror stored its copy, or did not.
    Stored(bool),
    /// The upstream was reached or not.
    Upstream(bool),
    /// Time goes on.
    Wait(Duration),
    /// Time goes on until the session wants to be told.
    WaitForTimeout,
}

/// What is left of the story.
pub(crate) struct Script<'a> {
    bytes: &'a [u8],
    version: Version,
    sent: u16,
}

impl<'a> Script<'a> {
    /// A story whose packets are of one version.
    pub(crate) fn new(bytes: &'a [u8], version: Version) -> Self {
        Self { bytes, version, sent: 0 }
    }

    /// What happens next; `None` at the end. One byte says what, the next how.
    pub(crate) fn next(&mut self) -> Option<Step> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        let (detail, how) = (first >> 4, self.byte());
        Some(match first & 0x0f {
            0 => Step::Send(Side::Client, self.publish(detail, how)),
            1 => Step::Send(Side::Upstream, self.publish(detail, how)),
            2 => Step::Send(Side::Client, self.subscribe(detail, how)),
            3 => Step::Send(side(detail), self.ack(detail, how)),
            4 => Step::Send(Side::Upstream, self.suback(detail, how)),
            5 => Step::Decided(side(detail), decision(how)),
            6 => Step::Send(Side::Client, self.raw(how)),
            7 => Step::Send(Side::Upstream, self.raw(how)),
            8 => Step::Send(Side::Client, self.connect(detail, how)),
            9 => Step::Send(Side::Upstream, self.connack(detail, how)),
            10 => Step::Identified(verdict(how)),
            11 => Step::Upstream(detail < 12),
            12 if detail < 2 => Step::WaitForTimeout,
            12 if detail < 5 => Step::Reauthorize,
            12 if detail < 7 => Step::Reviewed(decision(how)),
            12 if detail < 9 => Step::Stored(how % 4 > 0),
            12 => Step::Wait(Duration::from_millis(u64::from(how) * 20)),
            13 if detail < 6 => end(detail),
            13 => Step::Chunk(how.into()),
            14 => Step::Send(side(detail), self.simple(detail)),
            _ => Step::Mangle(how.into(), self.byte()),
        })
    }

    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        byte
    }

    fn raw(&mut self, how: u8) -> Vec<u8> {
        let length = usize::from(u16::from_be_bytes([how, self.byte()]));
        let (raw, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        raw.to_vec()
    }

    /// Every message is another: its payload is its number.
    fn publish(&mut self, detail: u8, how: u8) -> Vec<u8> {
        let qos = (how & 0x03).min(2);
        let first = qos << 1 | how >> 2 & 1 | if qos > 0 { how & 0x08 } else { 0 };
        let mut properties = Vec::new();
        if how & 0x10 != 0 {
            properties.extend([0x23, 0, 1 + (how >> 5 & 0x03) % 3]);
        }
        if how & 0x80 != 0 {
            properties.extend(RESPONSE_TO_SECRET);
        }
        self.sent = self.sent.wrapping_add(1);
        let topic = TOPICS[usize::from(detail % 8)];
        let topic =
            if topic.is_empty() && (how & 0x10 == 0 || !self.version.is_5()) { "open" } else { topic };
        let id = u16::from(detail / 8 * 4 + (how >> 5 & 0x03) + 1);
        publish(self.version, first, (topic, id), &properties, self.sent)
    }

    fn subscribe(&mut self, detail: u8, which: u8) -> Vec<u8> {
        let is_subscribe = detail < 12;
        let mut entries = Vec::new();
        for filter in
            FILTERS.iter().enumerate().filter(|(at, _)| which >> at & 1 != 0).map(|(_, filter)| filter)
        {
            entries.extend(text(filter));
            if is_subscribe {
                entries.push(detail % 3);
            }
        }
        with_id(self.version, if is_subscribe { 0x82 } else { 0xa2 }, u16::from(detail % 4 + 1), &entries)
    }

    fn suback(&mut self, detail: u8, how: u8) -> Vec<u8> {
        let is_suback = detail < 12;
        let codes =
            if is_suback || self.version.is_5() { vec![0; usize::from(how % 4) + 1] } else { Vec::new() };
        with_id(self.version, if is_suback { 0x90 } else { 0xb0 }, u16::from(detail % 4 + 1), &codes)
    }

    fn ack(&mut self, detail: u8, how: u8) -> Vec<u8> {
        let (first, refusals) =
            [(0x40, [0x10, 0x87]), (0x50, [0x10, 0x97]), (0x62, [0, 0x92]), (0x70, [0, 0x92])]
                [usize::from(detail >> 1 & 3)];
        let reason = if how & 0x80 == 0 { 0 } else { refusals[usize::from(how >> 6 & 1)] };
        ack(self.version, first, u16::from(how % 8 + 1), reason)
    }

    fn connect(&mut self, detail: u8, how: u8) -> Vec<u8> {
        let limits = self.byte();
        let will = (how & 0x40 != 0).then(|| TOPICS[usize::from(how & 7)]);
        let will_flags = if will.is_some() { how & 0x20 | if how & 0x10 != 0 { 0x08 } else { 0 } } else { 0 };
        let login = if how & 0x80 != 0 { 0x80 } else { 0 };
        let mut properties = limits_of(limits);
        if how & 0x08 != 0 {
            properties.extend([0x15, 0, 1, b'M']);
        }
        let client_id = CLIENT_IDS[usize::from(detail % 4)];
        let clean_start = if detail & 0x04 == 0 { 0x02 } else { 0 };
        connect(self.version, client_id, clean_start | will_flags | login, &properties, will)
    }

    fn connack(&mut self, detail: u8, limits: u8) -> Vec<u8> {
        let mut properties = limits_of(limits);
        if detail & 0x01 != 0 {
            properties.extend([0x13, 0, 5]);
        }
        connack(self.version, if detail < 12 { 0 } else { 0x05 }, &properties)
    }

    fn simple(&mut self, detail: u8) -> Vec<u8> {
        let kind = [0xc0, 0xd0, 0xe0, 0xf0][usize::from(detail >> 1 & 3)];
        let body: &[u8] = match kind {
            0xf0 => &[0x18, 4, 0x15, 0, 1, b'M'],
            0xe0 if self.version.is_5() && detail & 0x08 != 0 => &[0x8b],
            _ => &[],
        };
        packet(kind, body)
    }
}

/// Topic alias maximum; receive maximum and maximum packet size if they are to be there.
fn limits_of(limits: u8) -> Vec<u8> {
    let mut properties = vec![0x22, 0, limits & 0x03];
    if limits & 0x04 != 0 {
        properties.extend([0x21, 0, 1 + (limits >> 3 & 0x03)]);
    }
    if limits & 0x20 != 0 {
        properties.extend([0x27, 0, 0, limits >> 6, 0x20]);
    }
    properties
}

fn side(detail: u8) -> Side {
    if detail & 1 == 0 { Side::Client } else { Side::Upstream }
}

fn decision(how: u8) -> Decision {
    match how % 4 {
        0 => Decision::Deny(Reason::new(Cause::NotAuthorized)),
        1 => Decision::Abstain,
        _ => Decision::Allow(Grant::default()),
    }
}

fn verdict(how: u8) -> Verdict {
    match how % 4 {
        0 => Verdict::Rejected(Reason::new(Cause::BadCredentials)),
        1 => Verdict::Abstain,
        _ => Verdict::Accepted(Principal::default()),
    }
}

fn end(detail: u8) -> Step {
    match detail {
        0 => Step::Drain,
        1 => Step::Stalled(Side::Upstream),
        2 => Step::Closed(Side::Client, Some(ErrorKind::ConnectionReset)),
        3 | 4 => Step::Closed(side(detail), None),
        _ => Step::Stalled(Side::Client),
    }
}

const CLIENT_IDS: [&str; 4] = ["dev", "", "slow", "secret"];
const FILTERS: [&str; 8] =
    ["open", "secret/#", "slow/+", "$share/g/secret", "slow/secret", "+", "$share/g/open", "a/#"];
const TOPICS: [&str; 8] = ["open", "", "secret", "slow", "slow/secret", "", "secret/quota", LONG_TOPIC];
const LONG_TOPIC: &str = "0123456789/0123456789/0123456789/0123456789/0123456789/0123456789";
const RESPONSE_TO_SECRET: [u8; 9] = [0x08, 0, 6, b's', b'e', b'c', b'r', b'e', b't'];
