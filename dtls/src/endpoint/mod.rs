//! The front end: knows peers by address and connection id, and protects what goes between them and us.

mod event;
mod outbox;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::engine::HandshakeEngine;

pub use event::{CloseReason, Event, HandshakeFault, HandshakeId, SendFault, SessionId, Statistics};
pub use outbox::Outbox;
pub use settings::{CID_LENGTH, Settings};

/// The server's side of DTLS for all peers of one socket; without input, output or clock.
///
/// Call [`poll_event`](Self::poll_event) until there is none after each other call, and send what is in the
/// [`Outbox`].
pub trait DtlsEndpoint: Send {
    /// Takes a datagram; plaintexts stand in it where the events say.
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8], out: &mut Outbox);

    /// What happened, in order.
    fn poll_event(&mut self) -> Option<Event>;

    /// Answers [`Event::KeyWanted`]; without a key, the handshake goes on and fails as with a wrong one (RFC 4279 §2).
    ///
    /// Does nothing if the handshake is over by now.
    fn give_key(&mut self, now: Instant, handshake: HandshakeId, key: Option<&[u8]>, out: &mut Outbox);

    /// Protects a payload; the datagram goes to where the session is now.
    fn send(
        &mut self,
        now: Instant,
        session: SessionId,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<(), SendFault>;

    /// Says goodbye, and forgets the session, if it is still there; no event tells of it.
    fn close(&mut self, now: Instant, session: SessionId, out: &mut Outbox);

    /// Performs the handshakes that begin from now on with another engine; sessions stay.
    fn set_engine(&mut self, engine: Arc<dyn HandshakeEngine>);

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, at the latest.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Does what is due: sends again, gives up, forgets.
    fn handle_timeout(&mut self, now: Instant, out: &mut Outbox);

    /// What has been counted.
    fn statistics(&self) -> Statistics;
}
