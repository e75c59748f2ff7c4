//! What headers say.

use std::net::SocketAddr;
use std::ops::Range;

use mgate_policies::Client;
use mgate_proxy::gate::Message;

use super::Described;
use super::random::ID_LEN;
use super::timestamp::{TIME_LEN, rfc3339};
use super::trace_context::PARENT_LEN;
use crate::mirror::record::Headers;

/// Where a record has what the next one of its session has otherwise.
#[derive(Clone, Copy, Default)]
pub(super) struct Marks {
    pub(super) id_at: usize,
    pub(super) time_at: usize,
    pub(super) trace_at: usize,
    /// The payload begins here, with what says how long it is; 0 while that is not written.
    pub(super) tail_at: usize,
}

impl Marks {
    pub(super) fn gaps(&self) -> [Range<usize>; 3] {
        [(self.id_at, ID_LEN), (self.time_at, TIME_LEN), (self.trace_at, PARENT_LEN)]
            .map(|(at, length)| at..at + length)
    }
}

/// Writes the headers of a message, but for what depends on the dialect.
pub(super) fn of_message(headers: &mut Headers, message: &Message<'_>, described: &Described<'_>) -> Marks {
    let id_at = headers.push_plain_behind("\r\nNats-Msg-Id: ", described.id);
    let time_at = headers.push_plain_behind("\r\nMgate-Received: ", rfc3339(message.now.unix));
    describe(headers, message.client, described.protocol);
    headers.push_behind("\r\nMgate-Topic: ", message.topic);
    headers.push_plain_behind("\r\nMgate-Action: ", described.action);
    let before_trace = BEFORE_TRACE[usize::from(message.qos.min(2))][usize::from(message.retain)];
    let trace_at = headers.push_plain_behind(before_trace, described.trace.parent_bytes());
    if let Some(state) = described.trace.state() {
        headers.push_plain("tracestate", state);
    }
    Marks { id_at, time_at, trace_at, tail_at: 0 }
}

/// Writes the headers of an event or a packet, with its identifier and its time.
pub(super) fn of_session(
    headers: &mut Headers,
    client: Option<&Client>,
    peer: SocketAddr,
    (id, time): (&str, &str),
) {
    headers.push_plain("Nats-Msg-Id", id);
    headers.push_plain("Mgate-Received", time);
    if let Some(client) = client {
        describe(headers, client, client.protocol.as_str());
    }
    headers.push_plain("Mgate-Peer", address(peer));
}

/// An address with its port, as one knows it.
pub(super) fn address(peer: SocketAddr) -> String {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()
}

/// Says whose it is; what is empty is left out.
fn describe(headers: &mut Headers, client: &Client, protocol: &str) {
    headers.push_plain_behind("\r\nMgate-Protocol: ", protocol);
    for (start, value) in [
        ("\r\nMgate-Client: ", &*client.client_id),
        ("\r\nMgate-Principal: ", &client.principal.id),
        ("\r\nMgate-Tenant: ", &client.principal.tenant),
        ("\r\nMgate-Route: ", &client.route),
    ] {
        if !value.is_empty() {
            headers.push_behind(start, value);
        }
    }
}

/// What stands before the trace, by QoS and the retain flag.
const BEFORE_TRACE: [[&str; 2]; 3] = [
    [
        "\r\nMgate-QoS: 0\r\nMgate-Retain: false\r\ntraceparent: ",
        "\r\nMgate-QoS: 0\r\nMgate-Retain: true\r\ntraceparent: ",
    ],
    [
        "\r\nMgate-QoS: 1\r\nMgate-Retain: false\r\ntraceparent: ",
        "\r\nMgate-QoS: 1\r\nMgate-Retain: true\r\ntraceparent: ",
    ],
    [
        "\r\nMgate-QoS: 2\r\nMgate-Retain: false\r\ntraceparent: ",
        "\r\nMgate-QoS: 2\r\nMgate-Retain: true\r\ntraceparent: ",
    ],
];
