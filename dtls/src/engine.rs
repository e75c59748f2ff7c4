//! What performs handshakes: the seam behind which a TLS library stands.
//!
//! An engine deals in plaintext. Records, their keys, sequence numbers and connection ids, retransmission and time
//! are the endpoint's, so that no record which a library protected ever leaves the process.

use std::error::Error;
use std::fmt;
use std::time::Instant;

use zeroize::Zeroizing;

use crate::record::ContentType;
use crate::suite::Suite;

/// Begins handshakes.
pub trait HandshakeEngine: Send + Sync {
    /// Begins one with a client whose cookie was good, and takes its ClientHello.
    fn begin(&self, start: &Start<'_>, flight: &mut Flight) -> Result<Box<dyn Handshake>, Refusal>;
}

/// A handshake that goes on: records come in and go out as plaintext.
pub trait Handshake: Send {
    /// Takes the contents of a record, in any order; appends what is new to be sent to `flight`.
    ///
    /// Of epoch 1, only what was authentic. On an error, an alert may have been appended, and this is the end.
    fn handle(&mut self, input: Input<'_>, flight: &mut Flight) -> Result<Progress, Refusal>;

    /// Answers [`Progress::KeyWanted`].
    fn give_key(&mut self, key: Zeroizing<Vec<u8>>, flight: &mut Flight) -> Result<Progress, Refusal>;

    /// What protects records of epoch 1; none before keys were exchanged.
    fn secrets(&self) -> Option<Secrets>;

    /// Who the client is, once it is [`Progress::Done`].
    fn outcome(&self) -> Outcome;
}

/// How a handshake begins.
pub struct Start<'a> {
    /// The time.
    pub now: Instant,
    /// The ClientHello's body, with the cookie.
    pub hello: &'a [u8],
    /// The same body with an empty cookie, as the client first sent it.
    pub hello_without_cookie: &'a [u8],
    /// The number of the hello that has the cookie among the client's messages.
    pub message_sequence: u16,
    /// What the client is to put into its records; none if it did not offer to.
    pub connection_id: Option<&'a [u8]>,
    /// The longest datagram that is to be sent, in bytes.
    pub mtu: u16,
}

/// The contents of one record from the client.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// A part of a Finished message, from an authentic record of epoch 1; it implies ChangeCipherSpec.
    Finished(&'a [u8]),
    /// Handshake messages, or a part of one, from a record of epoch 0.
    Message(&'a [u8]),
}

/// How far a handshake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is complete.
    Done,
    /// It goes on.
    Going,
    /// It waits for the key of this identity.
    KeyWanted(Box<[u8]>),
}

/// The records of a flight, or of a part of one, as plaintext.
#[derive(Clone, Debug, Default)]
pub struct Flight(pub Vec<FlightRecord>);

/// A record of a flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlightRecord {
    /// 0, or 1 behind ChangeCipherSpec.
    pub epoch: u16,
    /// What it carries.
    pub content_type: ContentType,
    /// The plaintext.
    pub fragment: Box<[u8]>,
}

/// What the keys of a session are derived from.
pub struct Secrets {
    /// What protects its records.
    pub suite: Suite,
    /// The master secret.
    pub master: Zeroizing<[u8; 48]>,
    /// The client's random bytes.
    pub client_random: [u8; 32],
    /// The server's random bytes.
    pub server_random: [u8; 32],
}

/// What a handshake came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Who the client is.
    pub identity: Identity,
    /// Whether it went on with an earlier session.
    pub is_resumed: bool,
}

/// Who a client has shown to be; nothing, if it was not asked to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The name of the key that it has.
    pub psk: Option<Box<[u8]>>,
    /// Its certificates in DER, the leaf first; of a session that was resumed, maybe the leaf alone.
    pub certificates: Vec<Vec<u8>>,
}

/// Why a handshake ended before it was complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Flight {
    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for Refusal {}
