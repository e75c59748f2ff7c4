//! Datagrams to messages, strictly. RFC 7252 §3
//!
//! What is not well formed has no message; what is, but has an option that must not be passed over, says so in
//! [`Known::fault`](super::message::Known::fault), as its sender can be told.

use std::error::Error;
use std::fmt;

use super::message::{Block, Code, Kind, Known, Message, MessageOption, OptionFault, Options, Token, number};

/// What is wrong with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A code of a class that nobody gave a meaning. RFC 7252 §12.1
    Class,
    /// An empty message that is not empty. RFC 7252 §4.1
    Empty,
    /// A code that messages of this kind do not have. RFC 7252 §4.3
    KindOfCode,
    /// A payload marker without a payload. RFC 7252 §3
    Marker,
    /// An option's delta or length of 15. RFC 7252 §3.1
    Nibble,
    /// An option with a number above 65,535. RFC 7252 §3.1
    OptionNumber,
    /// A token of more than 8 bytes. RFC 7252 §3
    TokenLength,
    /// It ends in the middle of something.
    Truncated,
    /// A version other than 1. RFC 7252 §3
    Version,
}

/// Decodes one datagram.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let ([first, code, high, low], rest) = bytes.split_first_chunk().ok_or(DecodeError::Truncated)?;
    if first >> 6 != 1 {
        return Err(DecodeError::Version);
    }
    let (kind, code) = (KINDS[usize::from(first >> 4 & 3)], Code(*code));
    let token_len = usize::from(first & 0x0f);
    if token_len > 8 {
        return Err(DecodeError::TokenLength);
    }
    let (token, rest) = rest.split_at_checked(token_len).ok_or(DecodeError::Truncated)?;
    check_code(kind, code, bytes.len())?;
    let mut known = Known::default();
    let (options, payload) = decode_options(rest, code, &mut known)?;
    let (id, token) = (u16::from_be_bytes([*high, *low]), Token::new(token).ok_or(DecodeError::TokenLength)?);
    Ok(Message { kind, code, id, token, options, known, payload, bytes })
}

/// Which codes messages of a kind may have. RFC 7252 table 1
fn check_code(kind: Kind, code: Code, len: usize) -> Result<(), DecodeError> {
    match code.class() {
        0 if code == Code::EMPTY && len != HEADER_BYTES => Err(DecodeError::Empty),
        0 if code == Code::EMPTY && kind == Kind::NonConfirmable => Err(DecodeError::KindOfCode),
        0 if code == Code::EMPTY => Ok(()),
        0 | 2 | 4 | 5 if kind == Kind::Reset => Err(DecodeError::KindOfCode),
        0 if kind == Kind::Acknowledgement => Err(DecodeError::KindOfCode),
        0 | 2 | 4 | 5 => Ok(()),
        _ => Err(DecodeError::Class),
    }
}

/// The options of a message and its payload.
fn decode_options<'a>(
    bytes: &'a [u8],
    code: Code,
    known: &mut Known<'a>,
) -> Result<(Options<'a>, &'a [u8]), DecodeError> {
    let (mut rest, mut last) = (bytes, None);
    while let Some((option, behind)) = split_option(rest, last.unwrap_or(0))? {
        note(option, last == Some(option.number), code, known);
        (rest, last) = (behind, Some(option.number));
    }
    let options = Options(&bytes[..bytes.len() - rest.len()]);
    match rest.split_first() {
        // [`split_option`] stops at the end and at the marker only
        Some((_, [])) => Err(DecodeError::Marker),
        Some((_, payload)) => Ok((options, payload)),
        None => Ok((options, &[])),
    }
}

/// The next option and what follows it; `None` at the payload marker and at the end. RFC 7252 §3.1
pub(super) fn split_option(
    bytes: &[u8],
    last: u16,
) -> Result<Option<(MessageOption<'_>, &[u8])>, DecodeError> {
    let Some((&head, rest)) = bytes.split_first().filter(|(head, _)| **head != PAYLOAD_MARKER) else {
        return Ok(None);
    };
    let (delta, rest) = extended(head >> 4, rest)?;
    let (len, rest) = extended(head & 0x0f, rest)?;
    let (value, rest) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
    let number = u16::try_from(usize::from(last) + delta).map_err(|_| DecodeError::OptionNumber)?;
    Ok(Some((MessageOption { number, value }, rest)))
}

/// A delta or length, of which the first four bits are `nibble`.
fn extended(nibble: u8, rest: &[u8]) -> Result<(usize, &[u8]), DecodeError> {
    match nibble {
        13 => {
            let (&[more], rest) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
            Ok((usize::from(more) + 13, rest))
        }
        14 => {
            let (more, rest) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
            Ok((usize::from(u16::from_be_bytes(*more)) + 269, rest))
        }
        15 => Err(DecodeError::Nibble),
        _ => Ok((usize::from(nibble), rest)),
    }
}

/// Keeps what an option says, or what is wrong with it.
fn note<'a>(option: MessageOption<'a>, is_again: bool, code: Code, known: &mut Known<'a>) {
    known.numbers.add(option.number);
    let fault = fault_of(option, is_again, code.class() == 0);
    known.fault = known.fault.or(fault);
    if fault.is_some() {
        return;
    }
    let small = || u16::try_from(option.uint()).ok();
    match option.number {
        number::OBSERVE => known.observe = Some(option.uint()),
        number::CONTENT_FORMAT => known.content_format = small(),
        number::ACCEPT => known.accept = small(),
        number::BLOCK1 => known.block1 = Block::from_uint(option.uint()),
        number::BLOCK2 => known.block2 = Block::from_uint(option.uint()),
        number::ECHO => known.echo = Some(option.value),
        number::NO_RESPONSE => known.no_response = option.value.first().copied().unwrap_or(0),
        _ => {}
    }
}

fn fault_of(option: MessageOption<'_>, is_again: bool, is_request: bool) -> Option<OptionFault> {
    let MessageOption { number, value } = option;
    let Some(rule) = rule(number) else {
        return (number % 2 == 1).then_some(OptionFault::Critical(number));
    };
    if !(rule.min..=rule.max).contains(&value.len()) {
        return Some(OptionFault::Length(number));
    }
    // an entity tag names the one representation that a response brings. RFC 7252 §5.10.6.1
    if is_again && !(rule.is_repeatable && (is_request || number != number::ETAG)) {
        return Some(OptionFault::Repeated(number));
    }
    let is_good = match number {
        number::BLOCK1 | number::BLOCK2 => Block::from_uint(option.uint()).is_some(),
        number::PROXY_URI | number::PROXY_SCHEME => return Some(OptionFault::Proxying),
        // RFC 7252 §5.10.1
        number::URI_PATH => is_text(value) && !matches!(value, b"." | b".."),
        number::URI_HOST | number::URI_QUERY => is_text(value),
        _ => true,
    };
    (!is_good).then_some(OptionFault::Value(number))
}

/// Whether it is UTF-8: mostly ASCII, which is seen faster.
fn is_text(value: &[u8]) -> bool {
    value.is_ascii() || str::from_utf8(value).is_ok()
}

struct Rule {
    min: usize,
    max: usize,
    is_repeatable: bool,
}

/// What options may look like; `None` for those that are not known.
fn rule(number: u16) -> Option<Rule> {
    let once = |min, max| Some(Rule { min, max, is_repeatable: false });
    let often = |min, max| Some(Rule { min, max, is_repeatable: true });
    match number {
        number::IF_MATCH | number::REQUEST_TAG => often(0, 8),
        number::URI_HOST | number::PROXY_SCHEME => once(1, 255),
        number::ETAG => often(1, 8),
        number::IF_NONE_MATCH => once(0, 0),
        number::OBSERVE | number::BLOCK1 | number::BLOCK2 => once(0, 3),
        number::URI_PORT | number::CONTENT_FORMAT | number::ACCEPT => once(0, 2),
        number::LOCATION_PATH | number::URI_PATH | number::URI_QUERY | number::LOCATION_QUERY => {
            often(0, 255)
        }
        number::MAX_AGE | number::SIZE1 | number::SIZE2 => once(0, 4),
        number::HOP_LIMIT => once(1, 1),
        number::PROXY_URI => once(1, 1034),
        number::ECHO => once(1, 40),
        number::NO_RESPONSE => once(0, 1),
        _ => None,
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Class => "code of a reserved class",
            Self::Empty => "empty message with something in it",
            Self::KindOfCode => "code that messages of this kind do not have",
            Self::Marker => "payload marker without a payload",
            Self::Nibble => "reserved delta or length of an option",
            Self::OptionNumber => "option with a number above 65535",
            Self::TokenLength => "token longer than 8 bytes",
            Self::Truncated => "message ends too early",
            Self::Version => "version other than 1",
        })
    }
}

impl Error for DecodeError {}

pub(super) const HEADER_BYTES: usize = 4;
pub(super) const PAYLOAD_MARKER: u8 = 0xff;

/// By the two bits of the header that say it.
const KINDS: [Kind; 4] = [Kind::Confirmable, Kind::NonConfirmable, Kind::Acknowledgement, Kind::Reset];
