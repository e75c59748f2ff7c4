//! What headers say.

use std::net::SocketAddr;

use mgate_policies::Client;
use mgate_proxy::gate::Message;

use super::Described;
use super::timestamp::rfc3339;
use crate::mirror::record::Headers;

/// Writes the headers of a message, but for what depends on the dialect.
pub(super) fn of_message(headers: &mut Headers, message: &Message<'_>, described: &Described<'_>) {
    headers.push_plain("Nats-Msg-Id", described.id);
    headers.push_plain("Mgate-Received", rfc3339(message.now.unix));
    describe(headers, message.client, described.protocol);
    headers.push("Mgate-Topic", message.topic);
    headers.push_plain("Mgate-Action", described.action);
    headers
        .push_plain("Mgate-QoS", ["0", "1", "2"].get(usize::from(message.qos)).copied().unwrap_or_default());
    headers.push_plain("Mgate-Retain", if message.retain { "true" } else { "false" });
    headers.push_plain("traceparent", described.trace.parent_bytes());
    if let Some(state) = described.trace.state() {
        headers.push_plain("tracestate", state);
    }
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
    headers.push_plain("Mgate-Protocol", protocol);
    for (name, value) in [
        ("Mgate-Client", &*client.client_id),
        ("Mgate-Principal", &client.principal.id),
        ("Mgate-Tenant", &client.principal.tenant),
        ("Mgate-Route", &client.route),
    ] {
        if !value.is_empty() {
            headers.push(name, value);
        }
    }
}
