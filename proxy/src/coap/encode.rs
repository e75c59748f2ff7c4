//! The few messages that mgate makes itself, and requests without what the upstream must not see.

use super::codec::PAYLOAD_MARKER;
use super::message::{Code, Kind, Message, MessageOption, Token, number};

/// Appends a message without anything but its header. RFC 7252 §4.1
pub fn encode_empty(kind: Kind, id: u16, out: &mut Vec<u8>) {
    encode_header(kind, Code::EMPTY, id, &[], out);
}

/// Appends a message without payload. Options must be in the order of their numbers.
pub fn encode(kind: Kind, code: Code, (id, token): (u16, Token), options: &[(u16, u32)], out: &mut Vec<u8>) {
    encode_header(kind, code, id, token.as_bytes(), out);
    let mut last = 0;
    for (number, value) in options {
        let bytes = value.to_be_bytes();
        let used = &bytes[value.leading_zeros() as usize / 8..];
        encode_option(MessageOption { number: *number, value: used }, &mut last, out);
    }
}

/// Appends a message with one option of any value.
pub fn encode_with(
    kind: Kind,
    code: Code,
    (id, token): (u16, Token),
    option: MessageOption<'_>,
    out: &mut Vec<u8>,
) {
    encode_header(kind, code, id, token.as_bytes(), out);
    encode_option(option, &mut 0, out);
}

/// Appends a message without the options that `is_cut` picks; all else stays as it is.
pub fn encode_without(message: &Message<'_>, is_cut: impl Fn(&MessageOption<'_>) -> bool, out: &mut Vec<u8>) {
    encode_again(message, (message.kind, message.id), out, |option, last, out| {
        if !is_cut(&option) {
            encode_option(option, last, out);
        }
    });
}

/// Appends the request that ends what a request began. It need not be confirmed. RFC 7641 §3.6
pub fn encode_deregistration(request: &Message<'_>, id: u16, out: &mut Vec<u8>) {
    encode_again(request, (Kind::NonConfirmable, id), out, |option, last, out| {
        let value = if option.number == number::OBSERVE { DEREGISTER } else { option.value };
        encode_option(MessageOption { number: option.number, value }, last, out);
    });
}

/// Appends a message, of which `encode` appends each option behind that with the number `last`.
fn encode_again(
    message: &Message<'_>,
    (kind, id): (Kind, u16),
    out: &mut Vec<u8>,
    encode: impl Fn(MessageOption<'_>, &mut u16, &mut Vec<u8>),
) {
    encode_header(kind, message.code, id, message.token.as_bytes(), out);
    let mut last = 0;
    message.options.iter().for_each(|option| encode(option, &mut last, out));
    if !message.payload.is_empty() {
        out.push(PAYLOAD_MARKER);
        out.extend_from_slice(message.payload);
    }
}

fn encode_header(kind: Kind, code: Code, id: u16, token: &[u8], out: &mut Vec<u8>) {
    let kind = match kind {
        Kind::Confirmable => 0,
        Kind::NonConfirmable => 1,
        Kind::Acknowledgement => 2,
        Kind::Reset => 3,
    };
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[VERSION << 6 | kind << 4 | token.len() as u8, code.0, high, low]);
    out.extend_from_slice(token);
}

/// RFC 7252 §3.1
fn encode_option(option: MessageOption<'_>, last: &mut u16, out: &mut Vec<u8>) {
    let (delta, len) = (option.number.saturating_sub(*last), option.value.len() as u16);
    *last = option.number;
    out.push(nibble(delta) << 4 | nibble(len));
    for number in [delta, len] {
        match number {
            0..13 => {}
            13..269 => out.push((number - 13) as u8),
            _ => out.extend_from_slice(&(number - 269).to_be_bytes()),
        }
    }
    out.extend_from_slice(option.value);
}

fn nibble(number: u16) -> u8 {
    match number {
        0..13 => number as u8,
        13..269 => 13,
        _ => 14,
    }
}

const VERSION: u8 = 1;

/// The value 1. RFC 7641 §2
const DEREGISTER: &[u8] = &[1];
