//! What others see of a message: policies, the mirror, the upstream.

use std::net::SocketAddr;

use super::Context;
use super::target::is_secret;
use crate::coap::Endpoint;
use crate::coap::encode::encode_without;
use crate::coap::message::{Kind, Message, MessageOption, number};
use crate::gate::Notes;

/// A confirmable message is one that is sent until it is acknowledged.
pub(super) fn qos(message: &Message<'_>) -> u8 {
    u8::from(message.kind == Kind::Confirmable)
}

/// What a message says about itself. RFC 7252 §12.3 and the registry of content formats
pub(super) fn notes(message: &Message<'_>) -> Notes<'static> {
    let content_type = match message.known.content_format {
        Some(0) => Some("text/plain; charset=utf-8"),
        Some(40) => Some("application/link-format"),
        Some(41) => Some("application/xml"),
        Some(42) => Some("application/octet-stream"),
        Some(47) => Some("application/exi"),
        Some(50) => Some("application/json"),
        Some(60) => Some("application/cbor"),
        Some(110) => Some("application/senml+json"),
        Some(112) => Some("application/senml+cbor"),
        _ => None,
    };
    Notes { content_type, ..Notes::default() }
}

/// What policies see of a payload: nothing of one that is a part of more.
pub(super) fn judged_payload<'a>(message: &Message<'a>) -> &'a [u8] {
    let is_whole = message.known.block1.is_none_or(|block| block.number == 0 && !block.has_more);
    if is_whole { message.payload } else { b"" }
}

/// A request without what is meant for mgate: the secret, and where the client found it.
pub(super) fn as_the_upstream_sees_it(
    message: &Message<'_>,
    peer: SocketAddr,
    cx: &Context<'_>,
) -> Box<[u8]> {
    if !has_what_is_cut(message) {
        return message.bytes.into();
    }
    let Endpoint { options, challenges, .. } = cx.endpoint;
    let is_ours = challenges.is_met(peer, message, cx.now);
    let mut request = Vec::with_capacity(message.bytes.len());
    let is_cut = |option: &MessageOption<'_>| match option.number {
        number::ECHO => is_ours,
        // policies do not see it, so an upstream that has several names must not do either
        number::URI_HOST => options.hosts.is_empty(),
        number::URI_PORT => true,
        _ => is_secret(option),
    };
    encode_without(message, is_cut, &mut request);
    request.into()
}

/// Whether there is an option that the upstream does not see, or not always.
pub(super) fn has_what_is_cut(message: &Message<'_>) -> bool {
    let is_there = |number: &u16| message.known.numbers.contains(*number);
    message.known.echo.is_some()
        || [number::URI_HOST, number::URI_PORT, number::URI_QUERY].iter().any(is_there)
}
